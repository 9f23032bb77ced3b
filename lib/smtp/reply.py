"""Replies of an SMTP server, and the one way to say no.

May use: nothing else of this package. Standards: RFC 5321 section 4.2 (replies), RFC 2034 and RFC 3463 (enhanced
status codes).
"""

from . import const

_MAX_LINES = const(100)
_MAX_TEXT = const(2000)
_MAX_KEPT = const(64)  # lines of an EHLO reply
_MAX_KNOWN = const(6)
# Printable ASCII: strip() of these leaves nothing where there is nothing else. Each octet is looked for from the start:
# the frequent ones stand there.
PLAIN = b" etaoinsrhldcumfpgwybvkxjqz.-@0123456789ETAOINSRHLDCUMFPGWYBVKXJQZ_+:;,/()<>=!#$%&'*?[]^{|}~\"\\`"


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


class Parser:
    """Puts the lines of a server's replies together. Memory is bounded whatever the server sends.

    Set `lines` to a list before the reply to EHLO: it gets the text (str, enhanced code kept) of up to 64 lines.
    """

    def __init__(self):
        self.lines = None
        self.code = 0
        self.known = {}  # some replies in one line, which come again with each mail

    def feed(self, line):
        """Takes one line (bytes, without its end; False: one that was too long).

        Returns None while the reply goes on, else (code: int, enhanced: str, text: str); what is not printable ASCII
        becomes "?". Raises SMTPError 421 4.5.0 for what is no reply; the session is of no use after that.
        """
        if not self.code:
            if line in self.known:
                return self.known[line]
            if self.lines is None and line and line[:10] == b"250 2.0.0 ":  # as most end that tell of a mail
                return 250, "2.0.0", _printable(line[10:512])
        return self.parse(line)

    def parse(self, line):
        """As feed(), for what is not known."""
        if line is False:
            raise SMTPError(421, "4.5.0", "a line of its reply is too long")
        code = int(line[:3]) if line[:3].isdigit() and len(line) > 2 and line[3:4] in (b"", b" ", b"-") else 0
        first = not self.code
        if first:
            self.code = code
            self.enhanced = self.text = ""
            self.count = 0
        self.count += 1
        if not 200 <= code <= 599 or code != self.code or self.count > _MAX_LINES:
            self.code = 0
            raise SMTPError(421, "4.5.0", "its reply makes no sense: " + _printable(line[:60]))
        if self.lines is not None and len(self.lines) < _MAX_KEPT:
            self.lines.append(_printable(line[4:512]))
        at = 4
        if line[5:6] == b"." and line[4] == line[0]:
            at = line.find(b" ", 4)
            word = line[4:at] if at > 0 else line[4:512]
            parts = word.split(b".")
            at = 4
            if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() and len(parts[1]) < 4 > len(parts[2]):
                self.enhanced = self.enhanced or str(word, "utf-8")
                at += len(word) + 1
        rest = _printable(line[at:512])
        if first:
            self.text = rest
        elif len(self.text) < _MAX_TEXT:
            self.text += ("\n" + rest)[: _MAX_TEXT - len(self.text)]
        if line[3:4] == b"-":
            return None
        self.code = 0
        reply = code, self.enhanced, self.text
        if first and self.lines is None and len(self.known) < _MAX_KNOWN:
            self.known[line] = reply
        return reply


def _printable(data):
    if data.strip(PLAIN):
        return "".join([chr(c) if 32 <= c < 127 else "?" for c in data])
    return str(data, "utf-8")
