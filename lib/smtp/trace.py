"""What a relay adds to a mail as it leaves: Received, what is missing, another sender.

May use: address, and message where an original From is not ASCII. Standards: RFC 5321 section 4.4,
RFC 6409 section 8, RFC 3848 (keywords of "with").

A mail streams through; only the From field is ever held, at most 2 KB of it.
"""

import re

from .address import ATEXT, LDH, valid_domain, valid_mailbox

_CHUNK = 512
_MAX_FIELD = 2048
_WIDTH = 76

_NAME = b"etaoin-srhldcumfpgwybvkxjqzDFSMCTVIXRAELPBUN"  # what most names of fields are made of
_unname = re.compile(b"[^!-9;-~]").search
_unclean = re.compile(b"[^ -~]").search


class Outgoing:
    """A stored mail as it leaves.

    read     like readinto() of a file: fills a buffer, returns how much; stored lines end in CRLF
    length   octets of the stored mail, exactly
    top      header fields put before all others (bytes, CRLF ended)
    missing  (name in lower case, whole field or what makes it of the name) in bytes, added at the
             end of the header section where there is no field of that name
    sender   address (str) that replaces the one in From. The display name stays and gets the
             original address; the original From becomes Reply-To unless there is one.

    A mail without header fields gets the empty line that then has to follow the added ones.
    """

    def __init__(self, read, length, top=b"", missing=(), sender=""):
        self._read = read
        self._left = length
        self._out = top
        self._at = 0
        self._missing = missing
        self._sender = sender
        self._hold = b""
        self._head = bool(top or missing or sender)
        self._wanted = {name: False for name, _ in missing}  # True once seen
        if sender:
            self._wanted[b"from"] = self._wanted[b"reply-to"] = False
        self.wide = None  # utf8.good where Reply-To may have an address in UTF-8
        self._mid = False  # in the middle of a line
        self._begun = False  # a field has begun, so a line may continue it
        self._field = None  # From, while it is held
        self._again = False
        self._reply = b""

    @property
    def rest(self):
        """Octets that readinto() has yet to give; None until the end of the header is known."""
        return None if self._head else len(self._out) - self._at + self._left

    def readinto(self, buf):
        """Fills `buf` (writable) as far as the mail goes; returns how many octets, 0 at its end.

        Raises OSError when the stored mail is shorter than its length.
        """
        if not self._head and self._at == len(self._out):
            if len(buf) > self._left:
                buf = memoryview(buf)[: self._left]
            return self._get(buf)
        view = memoryview(buf)
        n = 0
        while n < len(view):
            size = min(len(self._out) - self._at, len(view) - n)
            if size:
                view[n : n + size] = self._out[self._at : self._at + size]
                self._at += size
                n += size
            elif self._head:
                self._out = b""
                self._at = 0
                self._scan()
            elif self._left:
                n += self._get(view[n : n + self._left])
            else:
                break
        return n

    def _get(self, buf):
        if not len(buf):
            return 0
        n = self._read(buf)
        if not n:
            raise OSError(5, "the stored mail is shorter than it was")
        self._left -= n
        return n

    def _scan(self):
        """Reads a piece of the header section and moves what is settled to _out."""
        hold = self._hold
        if self._left and b"\n" not in hold and len(hold) < _CHUNK:
            buf = bytearray(min(_CHUNK - len(hold), self._left))
            hold += buf[: self._get(buf)]
        at = start = 0  # of this line; of what is not in _out yet
        out = b""
        wanted = self._wanted
        mid = self._mid
        begun = self._begun
        while at < len(hold):
            end = hold.find(b"\n", at) + 1
            was = mid
            mid = not end
            if mid:
                if self._left and (at or len(hold) < _CHUNK):
                    mid = was
                    break  # the rest of the line is still to come
                end = len(hold)
            if not was and not (begun and hold[at] in b" \t"):
                if self._field is not None:
                    out += self._from()
                name = hold[at : max(hold.find(b":", at, end), at)]
                if not name or name.strip(_NAME):
                    name = name.rstrip()
                    if not name or _unname(name):
                        empty = hold[at:end] in (b"\r\n", b"\n")
                        out += hold[start:at]
                        out += self._added()
                        out += b"\r\n" + hold[end if empty else at :]
                        at = start = len(hold)
                        self._head = False
                        break
                begun = True
                name = name.lower()
                if name in wanted:
                    if name == b"from" and self._sender:
                        out += hold[start:at]
                        start = at
                        self._field = b""
                        self._again = wanted[name]  # a second one goes
                    wanted[name] = True
            if self._field is not None:
                self._field += hold[at:end]
                start = end
                if len(self._field) > _MAX_FIELD:
                    if self._again:
                        self._field = b""
                    else:
                        out += self._field
                        self._field = None
            at = end
        self._mid = mid
        self._begun = begun
        out += hold[start:at]
        self._hold = hold[at:]
        if self._head and not self._left and at == len(hold):
            # The mail ends inside its header section.
            if self._field is not None:
                out += self._from()
            elif mid:
                out += b"\r\n"
            out += self._added() + b"\r\n"
            self._head = False
        self._out = out

    def _added(self):
        out = b""
        if self._sender and not self._wanted[b"from"]:
            out = b"From: " + self._sender.encode() + b"\r\n"
            self._wanted[b"from"] = True
        if self._reply and not self._wanted[b"reply-to"]:
            out += _fold(b"Reply-To: " + self._reply)
        for name, line in self._missing:
            if not self._wanted[name]:
                out += line(name) if callable(line) else line
        return out

    def _from(self):
        """The From field that is held, with the other sender."""
        field = self._field
        self._field = None
        if self._again:
            return b""
        value = field[field.find(b":") + 1 :].replace(b"\r\n", b"")
        value = bytes([32 if c < 32 or c == 127 else c for c in value]).strip()
        name, address = split_mailbox(value)
        sender = self._sender.encode()
        if address.lower() == sender.lower():
            return field if field.endswith(b"\n") else field + b"\r\n"
        if _is_mailbox(address) or self.wide and self.wide(address):
            self._reply = name + b" <" + address + b">" if name else address
        elif _is_list(value):
            self._reply = value
        else:
            self._reply = value[value.rfind(b"<") + 1 : value.rfind(b">")]
            if not _is_mailbox(self._reply):
                self._reply = b""
        shown = _quote(address)
        if not name:
            name = shown
        elif shown[:1] == b"=":
            name += b" " + _quote(b" (" + address + b")")  # a space between encoded-words does not count
        elif shown and name[:1] == b'"' and b"=?" not in name:
            name = name[:-1] + b" (" + shown[1:-1] + b')"'
        elif shown:
            name += b' "(' + shown[1:-1] + b')"'
        return _fold(b"From: " + name + b" <" + sender + b">" if name else b"From: " + sender)


def _text(data):
    """Str of bytes: UTF-8, else what old devices mean by them, Latin-1."""
    try:
        return str(data, "utf-8")
    except UnicodeError:
        return "".join([chr(c) for c in data])


def _is_mailbox(data):
    return not _unclean(data) and valid_mailbox(str(data, "utf-8"))


def _is_list(value):
    """True for mailboxes with commas between, without quotes, which might hold commas."""
    if b'"' in value or _unclean(value):
        return False
    for part in value.split(b","):
        if not _is_mailbox(split_mailbox(part.strip())[1]):
            return False
    return True


def _quote(data):
    """A phrase (bytes) that reads as `data`: quoted, or encoded when it is not ASCII."""
    if _unclean(data):
        from .message import encode_words

        return encode_words(_text(data), 60).encode()
    return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if data else b""


def _closed(data):
    """Length of the string, comment or address that starts `data`; too much when it has no end."""
    kind = data[0]
    depth = 0
    at = 0
    while at < len(data):
        c = data[at]
        if c == 92:
            at += 1
        elif kind == 40:
            depth += (c == 40) - (c == 41)
        elif c == 34:
            depth ^= 1
        if not depth and (c == 62 or kind != 60):
            return at + 1
        at += 1
    return at + 1


def split_mailbox(value):
    """(phrase, address) in bytes from the unfolded value of a From field.

    The phrase is safe to use before another address: of words and quoted strings, ASCII. The
    address is b"" for what is no single mailbox, and the phrase then reads as the whole value.
    """
    parts = []  # quoted strings and what is between
    comment = address = b""
    plain = True
    at = 0
    start = 0
    end = len(value)
    while at < end:
        c = value[at]
        if c == 34 or c == 40 or c == 60:  # " ( <
            parts.append(value[start:at])
            start = at
            at += _closed(value[at:])
            piece = value[start:at]
            if at > end:
                plain = False
            elif c == 40:
                comment = comment or piece[1:-1].strip()
            elif address:
                plain = False
            elif c == 34:
                parts.append(piece)
            else:
                address = piece[1:-1].strip() or b"<>"
            start = at
        elif c == 44 or c == 58 or c == 59 or (address and c != 32):  # , : ; : a list or a group
            plain = False
            at += 1
        else:
            at += 1
    if not plain:
        return _quote(value), b""
    parts.append(value[start:])
    phrase = b"".join(parts).strip()
    if not address:
        if not phrase or b"@" in phrase:
            address = phrase
            phrase = b""
        if b" " in address and not _is_mailbox(address):
            return _quote(value), b""
    if address == b"<>":
        address = b""
    if not phrase:
        return _quote(comment), address
    if b"=?" in phrase and not _unclean(phrase):
        for part in parts:
            if part[:1] != b'"' and part.strip(ATEXT + b" "):
                break
        else:
            return phrase, address  # encoded-words count only outside of quotes
    text = []
    for part in parts:
        if part[:1] == b'"':
            pieces = part[1:-1].split(b"\\\\")
            part = b"\\".join([piece.replace(b"\\", b"") for piece in pieces])
        text.append(part)
    return _quote(b"".join(text).strip()), address


def _fold(line):
    """A header field with CRLF, folded at spaces where it is longer than 76."""
    out = b""
    start = line.find(b" ") + 1
    while len(line) > _WIDTH:
        at = line.rfind(b" ", start, _WIDTH + 1)
        if at <= 0:
            at = line.find(b" ", max(_WIDTH, start))
            if at < 0:
                break
        out += line[:at] + b"\r\n"
        line = line[at:]
        start = len(line) - len(line.lstrip())  # no line of spaces only
    return out + line + b"\r\n"


def received(envelope, by, ident, when_text):
    """The Received field (bytes) for a mail that arrived with `envelope` (RFC 5321 4.4).

    by: our domain; ident: the mail's id in the queue; when_text: date-time of RFC 5322, "" when
    the clock is not set. One recipient is named; several would tell each other who else got it.
    """
    peer = envelope.peer
    peer = "[" + ("IPv6:" if ":" in peer else "") + _safe(peer) + "]" if peer else ""
    helo = envelope.helo
    helo = helo if valid_domain(helo) else _safe(helo) or peer
    kind = "SMTP"
    if envelope.esmtp:
        kind = "ESMTP" + ("S" if envelope.tls else "") + ("A" if envelope.user else "")
    out = "Received: "
    if helo:
        out += "from " + helo + (" (" + peer + ")" if peer else "") + "\r\n\t"
    out += "by " + by + " with " + kind + " id " + ident
    if len(envelope.rcpts) == 1:
        out += "\r\n\tfor <" + envelope.rcpts[0] + ">"
    if envelope.extra:
        from .onward import traced

        out = traced(out, envelope.extra)
    return (out + (";\r\n\t" + when_text if when_text else "") + "\r\n").encode()


def _safe(text):
    """Letters, digits and what names and addresses have else; the rest becomes "?"."""
    good = str(LDH, "utf-8") + ":_"
    return "".join([c if c in good else "?" for c in text[:255]])
