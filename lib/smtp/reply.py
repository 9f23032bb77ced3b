"""Replies of an SMTP server: writing them, reading them, and the one way to say no.

May use: nothing else of this package. Standards: RFC 5321 section 4.2 (replies),
RFC 2034 and RFC 3463 (enhanced status codes).
"""

import re

_MAX_LINE = 512  # RFC 5321 4.5.3.1.5, CRLF included
_MAX_LINES = 100
_MAX_TEXT = 2000
_MAX_KEPT = 64  # lines of an EHLO reply

_unclean = re.compile(b"[^ -~]").search


class SMTPError(Exception):
    """A refusal: reply code (int), enhanced code ("" when there is none) and text.

    Protocol code raises it to answer a peer; the client raises it for what the server answered.
    """

    def __init__(self, code, enhanced, text):
        super().__init__(code, enhanced, text)
        self.code = code
        self.enhanced = enhanced
        self.text = text

    def __str__(self):
        return " ".join([p for p in (str(self.code), self.enhanced, self.text) if p])

    @property
    def permanent(self):
        """True for 5xx: trying again will not help."""
        return self.code >= 500

    @property
    def transient(self):
        """True for 4xx: worth another try later."""
        return 400 <= self.code < 500


def _clean(text):
    """Printable ASCII from a str: controls become spaces, everything else outside it "?"."""
    return "".join(
        [c if " " <= c <= "~" else " " if c < " " or c == "\x7f" else "?" for c in text]
    ).encode()


def line(code, enhanced, text):
    """Bytes of one reply with CRLF; each "\\n" in `text` (str) starts another line of it.

    `enhanced` is "" where RFC 2034 section 4 allows none (greeting, EHLO, 334, 354).
    """
    start = str(code).encode()
    enhanced = (" " + enhanced + " ").encode() if enhanced else b" "
    if "\n" not in text:
        body = text.encode()
        if _unclean(body):
            body = _clean(text)
        return (start + enhanced + body)[: _MAX_LINE - 2] + b"\r\n"
    lines = [enhanced[1:] + _clean(part) for part in text.split("\n")]
    out = []
    while lines:
        part = lines.pop(0)
        out.append((start + (b"-" if lines else b" ") + part)[: _MAX_LINE - 2])
    out.append(b"")
    return b"\r\n".join(out)


def _printable(data):
    """Str from a peer's bytes: what is not UTF-8 becomes "?", controls become spaces."""
    if not _unclean(data):
        return str(data, "utf-8")
    data = bytes([c if c >= 32 and c != 127 else 32 for c in data])
    try:
        return str(data, "utf-8")
    except UnicodeError:
        return str(bytes([c if c < 128 else 63 for c in data]), "utf-8")


def _split_enhanced(code, data):
    """("2.1.5", rest) when `data` starts with an enhanced code of the class of `code`, else
    ("", data)."""
    if data[1:2] != b"." or data[:1] != str(code)[:1].encode():
        return "", data
    end = data.find(b" ")
    if end < 0:
        end = len(data)
    parts = data[:end].split(b".") if end <= 9 else ()
    if len(parts) != 3:
        return "", data
    for part in parts:
        if not part.isdigit() or len(part) > 3:
            return "", data
    return str(data[:end], "utf-8"), data[end + 1 :]


class Parser:
    """Puts the lines of a server's replies together.

    Memory is bounded whatever the server sends. Set `lines` to a list before the reply to EHLO: it
    gets the text (str, enhanced code kept) of up to 64 lines. The caller reads and clears it.
    """

    def __init__(self):
        self.lines = None
        self._reset()

    def _reset(self):
        self._code = 0
        self._enhanced = ""
        self._text = []
        self._room = _MAX_TEXT
        self._count = 0

    def _garbage(self, why):
        self._reset()
        return SMTPError(421, "4.5.0", "the server's reply makes no sense: " + why)

    def feed(self, line):
        """Take one line (bytes, line end optional).

        Returns None while the reply goes on, else (code: int, enhanced: str, text: str).
        Raises SMTPError 421 4.5.0 for what is no reply; the session is of no use after that.
        """
        end = len(line)
        while end and line[end - 1] in b"\r\n":
            end -= 1
        if end > 4096:  # an endless line: keep only its start
            end = 4096
        line = bytes(line[:end])
        digits = line[:3]
        if len(digits) < 3 or not digits.isdigit() or line[3:4] not in (b"", b" ", b"-"):
            raise self._garbage(_printable(line[:60]))
        code = int(digits)
        if not 200 <= code <= 599:
            raise self._garbage("code " + str(code))
        if self._code and self._code != code:
            raise self._garbage("code changed from %d to %d" % (self._code, code))
        self._code = code
        self._count += 1
        if self._count > _MAX_LINES:
            raise self._garbage("more than 100 lines")
        rest = line[4:]
        if self.lines is not None and len(self.lines) < _MAX_KEPT:
            self.lines.append(_printable(rest[:_MAX_LINE]))
        enhanced, rest = _split_enhanced(code, rest)
        if enhanced and not self._enhanced:
            self._enhanced = enhanced
        if self._room > 0:
            rest = rest[: self._room]
            self._text.append(_printable(rest))
            self._room -= len(rest) + 1
        if line[3:4] == b"-":
            return None
        result = code, self._enhanced, "\n".join(self._text)
        self._reset()
        return result
