"""8-bit mail for a next hop without 8BITMIME (RFC 6152 section 3): its 8-bit parts become quoted-printable.

May use: nothing. Standards: RFC 2045 and 2046; RFC 1428 for mail that says nothing about its character set.

A mail is read twice, line by line: obstacle() finds out whether it can be done and in which parts, SevenBit does it.
At most 512 octets of a line and one field of a header section are held. A DKIM signature does not survive the change.
"""

import re

from . import const

_PIECE = const(512)  # of a line
_LINE = const(1000)  # RFC 5321 4.5.3.1.6, with its CRLF
_FIELD = const(2000)  # a whole Content-Type
_DEEP = const(8)  # multiparts in one another
_PARTS = const(1000)  # an octet of memory each
_SOFT = const(72)  # a row longer than this ends at the next octet: with that octet as =XX and a "=" it has 76

_EIGHT = "8-bit characters in "
_LONG = "a line of more than 998 characters, which cannot be broken"
_CTE = b"Content-Transfer-Encoding: "
_TYPE = b"content-type"
_KEPT = (_TYPE, _CTE[:-2].lower(), b"mime-version")

_odd = re.compile(b"[^\x01-\x09\x0b\x0c\x0e-\x7f]").search  # 8-bit, NUL, and a CR or LF that stands alone
_unsafe = re.compile(b"[^\t -<>-~]").search
_unname = re.compile(b"[^!-9;-~]").search


def obstacle(read, marks):
    """Why a mail cannot be made 7-bit without damage (str), or None.

    read    like readinto() of a file: fills a buffer, returns how much, 0 at the end; lines end in CRLF
    marks   an empty bytearray; gets what SevenBit has to know: for each header section 1 when its body must be encoded
    """
    mail = SevenBit(read, marks, True)
    while not mail.why and not mail.ended:
        mail.step()
    return mail.why


class SevenBit:
    """The mail that `read` gives, without an octet over 127. `marks` are those that obstacle() made of the same mail.

    Parts that are 7-bit, base64 or quoted-printable stay as they are. rest: None until all is given, then 0.
    """

    def __init__(self, read, marks, scan=False):
        self.read = read
        self.marks = marks
        self.buf = bytearray(_PIECE)
        self.hold = b""  # what is read,
        self.lo = 0  # from here on not looked at
        self.out = b""
        self.at = 0
        self.rest = self.why = None
        self.scan = scan
        self.ended = False
        self.stack = []  # for each open multipart (delimiter, type of a part that names none)
        self.n = -1  # of the header section
        self.size = 0  # of the line as far as it was seen; 0: a line starts
        self.enter(True, b"")

    def readinto(self, buf):
        """Fills `buf` (writable) as far as the mail goes; returns how many octets, 0 at its end."""
        view = memoryview(buf)
        n = 0
        while n < len(view) and self.rest is None:
            size = min(len(self.out) - self.at, len(view) - n)
            view[n : n + size] = self.out[self.at : self.at + size]
            self.at += size
            n += size
            if self.at == len(self.out):
                if self.ended:
                    self.rest = 0
                else:
                    self.out = bytearray()
                    self.at = 0
                    self.step()
        return n

    def step(self):
        """Takes the next line, or the next piece of a long one. Pieces do not depend on what a read gives."""
        while True:
            end = self.hold.find(b"\r\n", self.lo, self.lo + _PIECE) + 2
            if end > 1:
                break
            end = self.lo + _PIECE
            if end <= len(self.hold):
                if self.hold[end - 1] == 13:  # its LF may follow
                    end -= 1
                break
            n = self.read(self.buf)
            if not n:
                end = len(self.hold)
                break
            self.hold = self.hold[self.lo :] + self.buf[:n]
            self.lo = 0
        line = self.hold[self.lo : end]
        self.lo = end
        if not line:
            self.finish()
            self.ended = True
            return
        start = not self.size
        self.size += len(line)
        if line[-2:] == b"\r\n":
            size = self.size
            self.size = 0
        else:
            size = self.size + 2
        if start and self.stack and line[:2] == b"--" and (not self.size or len(line) < _PIECE - 1):
            key = line.rstrip(b" \t\r\n")
            for i in range(len(self.stack) - 1, -1, -1):
                mark, kind = self.stack[i]
                if key == mark or key == mark + b"--":
                    if i == len(self.stack) - 1:
                        self.lost = False
                    self.finish()
                    self.put(line)
                    self.stack = self.stack[: i + (key == mark)]
                    if key == mark:
                        self.enter(False, kind)
                    else:
                        self.opaque = b""  # the epilogue
                        self.mark = 0
                    return
        (self.field if self.head else self.body)(line, size, start)

    def finish(self):
        """What was open ends: at a delimiter, or with the mail."""
        if self.head:
            self.settle()
            self.head = False
        elif self.mark:
            self.line_end(True)
        elif self.lost:
            self.why = self.why or "a multipart without its boundary"
        self.lost = False

    def put(self, line):
        if not self.scan:
            self.out += line

    def enter(self, message, kind):
        """A header section begins; of a message or of a part, whose type is `kind` unless it says so."""
        self.n += 1
        if self.scan:
            self.marks.append(0)
            if self.n == _PARTS:
                self.why = "more than %d parts" % _PARTS
        self.mark = 0 if self.scan else self.marks[self.n]
        self.head = True
        self.message = message
        self.kind = kind
        self.boundary = self.cte = b""
        self.seen = []
        self.name = None  # of the field that is held
        self.begun = self.lost = False
        self.opaque = None  # why the body must not change; b"" where nobody reads it

    def field(self, line, size, start):
        if start and not (self.begun and line[0] in b" \t"):
            self.settle()
            name = line[: max(line.find(b":"), 0)].rstrip().lower()
            if not name or _unname(name):
                self.start_body()
                if line != b"\r\n":
                    (self.field if self.head else self.body)(line, size, start)
                return
            self.begun = True
            if name in _KEPT:
                self.name = name
                self.value = b""
        if _odd(bare(line)):
            self.why = _EIGHT + "a header section (needs SMTPUTF8)"
        elif size > _LINE:
            self.why = _LONG
        if not self.name:
            self.put(line)
        elif len(self.value) > _FIELD:
            self.why = "a field of more than %d characters" % _FIELD
        else:
            self.value += line

    def settle(self):
        """The field that is held is whole: Content-Type, Content-Transfer-Encoding or MIME-Version."""
        name = self.name
        if not name:
            return
        self.name = None
        line = self.value
        if name in self.seen and name != _KEPT[2]:
            self.why = "two fields %s in one header section" % str(name, "utf-8")
        self.seen.append(name)
        value = line[line.find(b":") + 1 :].replace(b"\r\n", b"")
        if name == _TYPE:
            self.kind, self.boundary = content_type(value)
        elif name == _KEPT[1]:
            self.cte = value = value.replace(b"\t", b" ").replace(b";", b" ").strip().lower().split(b" ")[0]
            if self.mark:
                line = _CTE + b"quoted-printable\r\n"
            elif value in (b"8bit", b"binary", b"8-bit"):
                line = _CTE + b"7bit\r\n"
        self.put(line)

    def start_body(self):
        """The header section has ended: adds what it lacks, and finds out what follows."""
        self.head = False
        if self.message and _KEPT[2] not in self.seen and (self.mark or not self.n):
            self.put(b"MIME-Version: 1.0\r\n")
        if self.mark:
            if _TYPE not in self.seen:
                self.put(b"Content-Type: text/plain; charset=unknown-8bit\r\n")
            if _KEPT[1] not in self.seen:
                self.put(_CTE + b"quoted-printable\r\n")
        self.put(b"\r\n")
        self.row = bytearray()  # of quoted-printable
        self.crlf = False  # a CRLF is still to be given
        kind = self.kind or b"text/plain"
        self.text = kind[:5] == b"text/"
        if self.cte not in (b"", b"7bit", b"8bit", b"binary", b"7-bit", b"8-bit"):
            self.opaque = _EIGHT + "a part in " + str(self.cte, "utf-8")
        elif kind[:16] == b"multipart/signed":
            self.opaque = "multipart/signed would lose its signature"
        elif kind[:10] == b"multipart/":
            if not self.boundary:
                self.opaque = "a multipart without a boundary"
                return
            self.opaque = b""
            self.lost = None
            if len(self.stack) == _DEEP:
                self.why = "parts nested too deep"
            self.stack.append((b"--" + self.boundary, b"message/rfc822" if kind[:16] == b"multipart/digest" else b""))
        elif kind == b"message/rfc822":
            self.enter(True, b"")
        elif kind[:8] == b"message/" and kind[:14] != b"message/global":  # RFC 2046 5.2, RFC 6532 3.7
            self.opaque = _EIGHT + str(kind, "utf-8")

    def body(self, line, size, _):
        if self.mark:
            self.encode(line)
            return
        text = bare(line)
        odd = _odd(text)
        if self.scan:
            if self.opaque is None:
                if odd or size > _LINE:
                    self.marks[self.n] = 1
            elif size > _LINE:
                self.why = _LONG
            elif odd:
                self.why = self.opaque or self.why
                self.lost = self.lost is not False
            return
        if odd:
            self.out += bytes([63 if c > 127 or c in b"\0\r\n" else c for c in text])
            line = line[len(text) :]
        self.out += line

    def encode(self, line):
        """Adds a line, or a piece of one, in quoted-printable (RFC 2045 6.7)."""
        if self.crlf:
            self.line_end(False)
        row = self.row
        self.crlf = line[-2:] == b"\r\n"
        line = bare(line)
        if line and not row and len(line) <= _SOFT + 1 and line[0] not in b".-F" and not _unsafe(line):
            self.row += line
            return
        for c in line:
            if len(row) > _SOFT:
                self.out += row
                self.out += b"=\r\n"
                self.row = row = bytearray()
            if c == 32 or c == 9:
                plain = row != b"From"  # mailboxes would make it >From
            elif c == 46:
                plain = len(row)  # a dot at the start may get lost
            elif c == 45:
                plain = row != b"-"  # not like a delimiter
            else:
                plain = 33 <= c <= 126 and c != 61
            if plain:
                row.append(c)
            else:
                row += b"=%02X" % c

    def line_end(self, last):
        """Gives the row when a line end is due, and when the part ends: the last CRLF is the delimiter's."""
        row = self.row
        if last or self.text:
            if row and row[-1] in b" \t":
                row[-1:] = b"=%02X" % row[-1]
            if self.crlf:
                row += b"\r\n"
        else:  # of data that is no text a CRLF has to stay one
            if len(row) > 69:
                self.out += row
                row = bytearray(b"=\r\n")
            row += b"=0D=0A=\r\n"
        self.out += row
        self.row = bytearray()
        self.crlf = False


def bare(line):
    return line[:-2] if line[-2:] == b"\r\n" else line


def content_type(value):
    """(type/subtype in lower case, boundary or b"") of an unfolded Content-Type (RFC 2045 5.1)."""
    part = bytearray()
    parts = [part]
    quoted = skip = False
    for c in value:
        if skip:
            skip = False
        elif quoted and c == 92:
            skip = True
            continue
        elif c == 34:
            quoted = not quoted
            continue
        elif c == 59 and not quoted:
            part = bytearray()
            parts.append(part)
            continue
        part.append(c)
    kind = bytes(parts[0]).lower().replace(b" ", b"")
    for part in parts[1:]:
        name, _, value = bytes(part).partition(b"=")
        if name.strip().lower() == b"boundary":
            return kind, value.strip()
    return kind, b""
