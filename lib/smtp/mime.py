"""Mail with more than plain text: Cc, Reply-To, HTML, attachments, images in the HTML, priority.

It is made piece by piece while it is read, so that what is attached never has to be in memory: a file, bytes, or an
iterable that gives them, such as a generator that reads a camera.

May use: message; words, urgency and plain when they are needed. Standards: RFC 2045 and 2046 (MIME), 2183
(Content-Disposition), 2231 (file names), 2387 and 2392 (images in HTML). Nothing that is passed in can add a header, a
part or a line.
"""

import binascii
import os
import re

from . import const, message

_ROOM = const(511)  # characters of a text, and about so many octets of a file, that are held
_LINE = const(57)  # octets in a line of base64
_NAME = const(60)  # characters of a file name that needs no folding
_WORD = const(10)  # characters of a file name that make one encoded-word, whatever they are
_TYPES = (
    " jpg:image/jpeg jpeg:image/jpeg png:image/png gif:image/gif csv:text/csv txt:text/plain log:text/plain "
    "json:application/json pdf:application/pdf "
)

_unplain = re.compile('[^ !#-[\\]-~]').search  # what is not to be in a quoted string
_special = re.compile("[^-A-Za-z0-9._~]").search
_type = re.compile("[-a-z0-9.+]+/[-a-z0-9.+_]+(; ?[-a-z]+=[-a-z0-9._]+)*$").match
_uncid = re.compile("[^-A-Za-z0-9._@+]").search


def _boxes(who):
    return [message.parse_mailbox(box) for box in ([who] if isinstance(who, str) else who or ())]


def recipients(to=(), cc=(), bcc=()):
    """The envelope's recipients (list of str), each once. Each argument: a mailbox (str), or a list of them.

    Raises ValueError for an address that is none.
    """
    found = []
    for who in (to, cc, bcc):
        for _, address in _boxes(who):
            local, _, domain = address.rpartition("@")
            address = local + "@" + domain.lower()
            if address not in found:
                found.append(address)
    return found


def _items(items):
    return [_item(i) for i in ([items] if isinstance(items, str) else items)]


def _item(item):
    """(name, source, type, octets or 0) of what compose() takes as an attachment."""
    if isinstance(item, str):
        item = (item[item.rfind("/") + 1 :], item)
    name, source = item[:2]
    kind = item[2] if len(item) > 2 else None
    if not kind:
        kind = "application/octet-stream"
        at = _TYPES.find(" " + name[name.rfind(".") + 1 :].lower() + ":")
        if at >= 0:
            kind = _TYPES[_TYPES.find(":", at) + 1 : _TYPES.find(" ", at + 1)]
    kind = kind.lower()
    if _unplain(kind) or not _type(kind) or kind[:8] in ("message/", "multipar"):
        raise ValueError('not a type for an attachment: "%s"; it looks like image/jpeg' % kind)
    size = item[3] if len(item) > 3 else 0
    if isinstance(source, str):
        try:
            size = os.stat(source)[6]
        except OSError as e:
            raise OSError(e.args[0], "%s cannot be attached: no such file (content has to be bytes)" % source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        size = len(source)
    elif not hasattr(source, "readinto"):
        iter(source)
    return name, source, kind, size


class Mail:
    """A mail, to be read once: an iterable of bytes in pieces below 1 KB. size: octets, about; what an iterable gives
    counts only where it was told. close() is for who stops before the end: it closes files and generators."""

    def __init__(self, pieces, body, size):
        self.pieces = pieces
        self.body = body
        self.size = size

    def __iter__(self):
        return self.pieces

    def close(self):
        self.body.close()


def compose(sender, to, subject, text="", html=None, cc=(), reply_to=(), attachments=(), inline=(), priority=None,
            date=None, offset=0, message_id=None, extra=()):
    """A whole mail: a Mail, whose pieces are made while they are read.

    sender, to, subject, date, offset, message_id, extra   as in message.compose
    text        str, or an iterable of str when it is long
    html        str or an iterable of str: the same in HTML. A str may come without a text, which is made from it
    cc, reply_to   mailbox (str) or a list of them. Bcc is nothing that stands in a mail: see recipients()
    attachments list of: the path (str) of a file, or (name, source[, type[, octets]])
                source: the path of a file (str), bytes, what has readinto(), or an iterable of bytes or str
                type: such as "image/jpeg", by default what the name ends in says
    inline      list of the same, images that the HTML shows: <img src="cid:NAME">
    priority    "urgent", "normal" or "low": how the reader's program marks it
    Raises, before anything is read: ValueError for what cannot be in a mail, OSError for a file that is not there;
    later what reading a file or an iterable raises.
    """
    extra = list(extra)
    for name, _ in extra:
        if name.lower() == "bcc" or name[:8].lower() == "content-":
            raise ValueError("%s cannot be an extra header" % name)
    if priority:
        from .urgency import fields

        extra += fields(priority)
    head = [(name, _boxes(who)) for name, who in (("Cc", cc), ("Reply-To", reply_to))]
    attachments = _items(attachments)
    inline = _items(inline)
    for item in inline:
        if not html:
            raise ValueError('%s needs HTML that shows it: <img src="cid:%s">' % (item[0], item[0]))
        if not item[0] or _uncid(item[0]):
            raise ValueError('not a name for an image in HTML: "%s"; use letters, digits, - and .' % item[0])
    size = 2048
    if html and not text:
        if not isinstance(html, str):
            raise ValueError("HTML that is no str needs a text beside it")
        from .plain import words

        text = words(html)
        size += len(html)
    for part in (text, html):
        if isinstance(part, str):
            for piece in message.text_part(part):
                size += len(piece)
    for item in attachments + inline:
        size += (item[3] // _LINE + 9) * 78
    body = _body(head, text or "", html, attachments, inline)
    return Mail(message.compose(sender, to, subject, body, date, offset, message_id, extra), body, size)


def _body(head, text, html, attachments, inline):
    """The rest of the header section, and the body."""
    try:
        for name, boxes in head:
            if boxes:
                yield from message._mailboxes(name, boxes)
        mark = "=_" + binascii.hexlify(os.urandom(16)).decode()
        part = _text(text, b"plain")
        if html:
            shown = _text(html, b"html")
            if inline:
                shown = _multipart('related; type="text/html"', mark + "r", [shown] + [_file(i, True) for i in inline])
            part = _multipart("alternative", mark + "a", (part, shown))
        if attachments:
            part = _multipart("mixed", mark + "m", [part] + [_file(i, False) for i in attachments])
        yield from part
    finally:
        for source in [text, html] + [i[1] for i in attachments + inline]:
            if hasattr(source, "throw"):  # a generator
                source.close()


def _multipart(kind, mark, parts):
    yield ('Content-Type: multipart/%s;\r\n boundary="%s"\r\n' % (kind, mark)).encode()
    mark = b"\r\n--" + mark.encode()
    for part in parts:
        yield mark + b"\r\n"
        yield from part
    yield mark + b"--\r\n"


def _text(text, kind):
    """A text part of a str or of an iterable of str."""
    if isinstance(text, str):
        pieces = message.text_part(text)
        yield next(pieces).replace(b"plain", kind)
        yield from pieces
        return
    text = iter(text)
    start = ""
    for piece in text:
        start += piece
        if len(start) > _ROOM:
            break
    first = start[:_ROOM].encode()
    way = b"quoted-printable"
    if len([c for c in first if c > 126]) * 4 > len(first):
        way = b"base64"
    yield b"Content-Type: text/" + kind + b"; charset=utf-8\r\nContent-Transfer-Encoding: " + way + b"\r\n\r\n"
    lines = _lines(start, text)
    if way == b"base64":
        yield from _base64(lines)
        return
    from .words import quoted_printable

    for line in lines:
        if line[-1:] == b"\n":
            yield from quoted_printable(line[:-2])
            continue
        for piece in quoted_printable(line + b"x"):  # x makes room for the = of a soft line break
            yield piece if piece[-3:] == b"=\r\n" else piece[:-3] + b"=\r\n"


def _lines(start, text):
    """Lines (bytes) with CRLF of `start` and all that `text` still gives; a long one comes in several pieces."""
    more = True
    while more:
        at = max(start.rfind("\n"), start.rfind("\r", 0, len(start) - 1)) + 1
        for line in message._lines(start[:at]):
            yield line + b"\r\n"
        while len(start) - at > _ROOM:
            yield start[at : at + _ROOM].encode()
            at += _ROOM
        start = start[at:]
        more = False
        for piece in text:
            more = True
            start += piece
            if len(start) > _ROOM:
                break
    for line in message._lines(start):
        yield line + b"\r\n"


def _named(name):
    """The parameters `name` and `filename` (str) of a file's name.

    Mail programs since 2000 read RFC 2231; for the older ones, and for those that never learnt it, `name` has what RFC
    2047 forbids there and all of them understand. The big mail programs write just this.
    """
    name = message._clean(name) or "file"
    if len(name) <= _NAME and not _unplain(name) and "=?" not in name:
        return '"%s"' % name, '="%s"' % name
    from .words import encoded

    words = [encoded(name[i : i + _WORD], 75) for i in range(0, len(name), _WORD)]
    parts = []
    part = "utf-8''"
    for char in name:
        if _special(char):
            char = "".join(["%%%02X" % c for c in char.encode()])
        if len(part) + len(char) > _NAME:
            parts.append(part)
            part = ""
        part += char
    if not parts:
        part = "*=" + part
    else:
        parts.append(part)
        part = ";\r\n filename".join(["*%d*=%s" % (i, parts[i]) for i in range(len(parts))])
    return '"%s"' % "\r\n ".join(words), part


def _file(item, shown):
    """The part of an attachment; with `shown` of an image that the HTML shows."""
    name, source, kind, _ = item
    if kind[:5] == "text/" and "charset" not in kind:
        kind += "; charset=utf-8"
    plain, extended = _named(name)
    head = "Content-Type: %s;\r\n name=%s\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: " % (kind, plain)
    head += "%s;\r\n filename%s\r\n" % ("inline" if shown else "attachment", extended)
    if shown:
        head += "Content-ID: <%s>\r\n" % name
    for line in head.split("\r\n"):
        yield line.encode() + b"\r\n"
    if isinstance(source, str):
        with open(source, "rb") as f:
            yield from _base64(_chunks(f))
    else:
        yield from _base64(_chunks(source))


def _chunks(source):
    """What a source gives, as bytes-likes. Each counts until the next one is asked for."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield source
    elif hasattr(source, "readinto"):
        buf = memoryview(bytearray(9 * _LINE))
        while True:
            n = source.readinto(buf)
            if n is None:
                raise OSError(11, "what is to be attached gives nothing for now")  # EAGAIN: it would be cut short
            if not n:
                break
            yield buf[:n]
    else:
        for piece in source:
            yield piece.encode() if isinstance(piece, str) else piece


def _base64(chunks):
    """Lines of base64, 76 characters each."""
    rest = b""
    for chunk in chunks:
        chunk = memoryview(chunk)
        at = 0
        if rest:
            at = _LINE - len(rest)
            rest += chunk[:at]
            if len(rest) < _LINE:
                continue
            yield binascii.b2a_base64(rest)[:-1] + b"\r\n"
        while len(chunk) - at >= _LINE:
            yield binascii.b2a_base64(chunk[at : at + _LINE])[:-1] + b"\r\n"
            at += _LINE
        rest = bytes(chunk[at:])
    if rest:
        yield binascii.b2a_base64(rest)[:-1] + b"\r\n"
