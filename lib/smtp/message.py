"""What a mail looks like: header fields and a text body, made piece by piece.

May use: address, date, and words for what is not ASCII. Standards: RFC 5322 (format), RFC 2045 and 2047 (encodings),
RFC 3834 (Auto-Submitted). Nothing that is passed in can add a header or a line: controls in a header become spaces, and
an address has to be one.
"""

import re

from .address import valid_mailbox
from .date import date

_WIDTH = 76  # RFC 2047 section 2, RFC 2045 section 6.7
_PIECE = 700  # octets that are collected before they are yielded

_control = re.compile("[\x01-\x1f\x7f]").search
_unplain = re.compile("[^ -~]").search
_special = re.compile("[^-A-Za-z0-9!#$%&'*+/=?^_`{|}~ ]").search
_unquotable = re.compile(b"[^ -<>-~]").search


def _clean(text):
    """`text` with controls as spaces and none around it."""
    if _control(text) or "\0" in text:
        text = "".join([" " if c < " " or c == "\x7f" else c for c in text])
    return text.strip()


def _fold(line, width=_WIDTH):
    """Lines of `width` at most where spaces allow it; all but the first start with a space."""
    lines = []
    while len(line) > width:
        start = 1  # behind the space, or behind "Name: ", that this line starts with
        if not lines:
            start = line.find(" ") + 1
        at = line.rfind(" ", start, width + 1)
        if at <= 0:
            at = line.find(" ", max(width, start))
            if at < 0:
                break
        lines.append(line[:at])
        line = line[at:]
    lines.append(line)
    return lines


def header(name, value):
    """One header field (bytes, CRLF ended) of free text: encoded where needed, folded at 76.

    Raises ValueError when `name` is no field name.
    """
    if not name or _unplain(name) or " " in name or ":" in name:
        raise ValueError('not a name for a header: "%s"; use letters, digits and -' % name)
    value = _clean(value)
    lines = None
    if not _unplain(value) and "=?" not in value:
        lines = _fold(name + ": " + value)
        for part in lines:
            if len(part) > _WIDTH or (len(lines) > 1 and part[-1] == " "):
                lines = None  # no good place to fold: encoded it can be cut anywhere
                break
    if lines is None:
        from .words import encoded

        lines = _fold(name + ": " + encoded(value, _WIDTH - len(name) - 2))
    return "\r\n".join(lines).encode() + b"\r\n"


def parse_mailbox(text):
    """(display name, address) of "Name <user@domain>" or "user@domain" (str).

    The name is "" when there is none; quotes around it are taken off. Raises ValueError when the
    address is none.
    """
    text = _clean(text)
    name = ""
    address = text
    at = text.rfind("<")
    if at >= 0 and text.endswith(">"):
        name = text[:at].strip()
        address = text[at + 1 : -1]
        if len(name) > 1 and name[0] == name[-1] == '"':
            out = []
            quoted = False
            for c in name[1:-1]:
                quoted = c == "\\" and not quoted
                if not quoted:
                    out.append(c)
            name = "".join(out)
    if not valid_mailbox(address):
        if _unplain(address):
            from .utf8 import normal

            try:
                return name, normal(address)
            except ValueError:
                pass
        raise ValueError(
            'not a mail address: "%s"; write user@example.com or Name <user@example.com>' % text
        )
    return name, address


def mailbox(name, address):
    """A mailbox for a header (str): the name quoted or encoded as it needs."""
    name = _clean(name)
    if not name:
        return address
    if _unplain(name) or "=?" in name or max([len(w) for w in name.split()]) > 60:
        from .words import encoded

        name = encoded(name, 60)
    elif _special(name) or "  " in name:
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return name + " <" + address + ">"


def _mailboxes(name, boxes):
    """Pieces of an address field; `boxes` are (name, address) tuples."""
    line = name + ":"
    last = len(boxes) - 1
    for i, box in enumerate(boxes):
        text = " " + mailbox(*box) + ("," if i < last else "")
        if len(line) + len(text) > _WIDTH and line[-1] != ":":
            yield line.encode() + b"\r\n"
            line = ""
        lines = _fold(line + text)
        line = lines.pop()
        for part in lines:
            yield part.encode() + b"\r\n"
    yield line.encode() + b"\r\n"


def _lines(text):
    """Lines of a text as bytes, whatever ended them; one behind a final line end is none."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        if end < 0:
            end = len(text)
        yield text[at:end].encode()
        at = end + 1


def text_part(text):
    """Pieces of a text/plain part: its header fields, the empty line, its body."""
    odd = size = 0
    plain = True
    for line in _lines(text):
        size += len(line)
        if _unquotable(line) or len(line) > _WIDTH:
            bad = sum(c > 126 or c < 32 and c != 9 for c in line)
            plain = plain and not bad and len(line) <= _WIDTH
            odd += bad + line.count(b"=")
    charset = "us-ascii" if plain or max(text) < "\x80" else "utf-8"
    way = "7bit" if plain else "base64" if odd * 4 > size else "quoted-printable"
    yield b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n"
    yield b"Content-Transfer-Encoding: " + way.encode() + b"\r\n\r\n"
    if plain:
        for line in _lines(text):
            yield line + b"\r\n"
        return
    from .words import encode

    yield from encode(_lines(text), way)


def _collect(pieces):
    """The same bytes in pieces of about _PIECE octets: fewer writes to flash."""
    out = bytearray()
    for piece in pieces:
        out += piece
        if len(out) >= _PIECE:
            yield bytes(out)
            out = bytearray()
    if out:
        yield bytes(out)


_format = date


def compose(sender, to, subject, text, date=None, offset=0, message_id=None, extra=()):
    """A whole mail (RFC 5322) in text, a generator of bytes in pieces below 1 KB.

    sender      str, "user@domain" or "Name <user@domain>"
    to          such a str or a list of them; none means undisclosed recipients
    subject     str in any language            text        str in any language
    date        seconds since 1970 UTC, or None: the relay adds a Date when it knows the time
    offset      of the time zone, seconds east message_id  str with or without < >, or None
    extra       (name, value) of further header fields, str
    Raises ValueError, before the first piece, for an address or a field name that is none.
    """
    sender = parse_mailbox(sender)
    to = [parse_mailbox(box) for box in ([to] if isinstance(to, str) else to)]
    fields = [header("Subject", subject)]
    if date is not None:
        fields.append(b"Date: " + _format(date, offset).encode() + b"\r\n")
    if message_id:
        ident = message_id[1:-1] if message_id[0] == "<" and message_id[-1] == ">" else message_id
        if not valid_mailbox(ident):
            raise ValueError('not a Message-ID: "%s"; it looks like an address' % message_id)
        fields.append(b"Message-ID: <" + ident.encode() + b">\r\n")
    for name, value in extra:
        fields.append(header(name, value))
    return _collect(_pieces(sender, to, fields, text))


def _pieces(sender, to, fields, text):
    yield from _mailboxes("From", [sender])
    if to:
        yield from _mailboxes("To", to)
    else:
        yield b"To: undisclosed-recipients:;\r\n"
    yield from fields
    yield b"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
    yield from text_part(text) if isinstance(text, str) else text
