"""What a relay adds to a mail as it leaves: Received, what is missing, another sender.

May use: address, and sender where there is another one. Standards: RFC 5321 section 4.4,
RFC 6409 section 8, RFC 3848 (keywords of "with").

A mail streams through; only the From field is ever held, at most 2 KB of it.
"""

import re

from .address import LDH, valid_domain

_CHUNK = 512
_MAX_FIELD = 2048

_NAME = b"etaoin-srhldcumfpgwybvkxjqzDFSMCTVIXRAELPBUN"  # what most names of fields are made of
_OURS = b"\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"  # in what message.compose() makes
_unname = re.compile(b"[^!-9;-~]").search


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

    # Here, for most mails need no other value: an instance with few attributes is made much faster.
    wide = None  # utf8.good where Reply-To may have an address in UTF-8
    _hold = b""
    _at = 0
    _mid = False  # in the middle of a line
    _begun = False  # a field has begun, so a line may continue it
    _field = None  # From, while it is held
    _again = False
    _reply = b""  # the Reply-To field

    def __init__(self, read, length, top=b"", missing=(), sender=""):
        self._read = read
        self._left = length
        self._out = top
        self._missing = missing
        self._sender = sender
        self._head = bool(top or missing or sender)
        self._wanted = {name: False for name, _ in missing}  # True once seen
        if sender:
            self._wanted[b"from"] = self._wanted[b"reply-to"] = False

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
        if self._quick(hold):
            return
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

    def _quick(self, hold):
        """True when _scan() need not look at each line of `hold`: what we composed is known to have fields only."""
        at = hold.find(_OURS) if hold[:6] == b"From: " and not (self._begun or self._sender) else -1
        if at < 0:
            return False
        head = b"\r\n" + hold[: at + 2].lower()
        if b"\r\n\r\n" in head:
            return False
        there = []
        for name in self._wanted:
            i = head.find(b"\r\n" + name)
            if i >= 0:
                if head[i + 2 + len(name)] != 58:  # ":"
                    return False
                there.append(name)
        for name in there:
            self._wanted[name] = True
        self._out = hold[: at + 2] + self._added() + hold[at + 2 :]
        self._head = False
        return True

    def _added(self):
        out = b""
        if self._sender and not self._wanted[b"from"]:
            out = b"From: " + self._sender.encode() + b"\r\n"
            self._wanted[b"from"] = True
        if self._reply and not self._wanted[b"reply-to"]:
            out += self._reply
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
        from .sender import rewrite

        field, self._reply = rewrite(field, self._sender.encode(), self.wide)
        return field


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
    return (out + (";\r\n\t" + when_text if when_text else "") + "\r\n").encode()


def _safe(text):
    """Letters, digits and what names and addresses have else; the rest becomes "?"."""
    good = str(LDH, "utf-8") + ":_"
    return "".join([c if c in good else "?" for c in text[:255]])
