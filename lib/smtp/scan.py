"""Mail in DATA as it arrives: dots taken off, lone CR and LF mended, its end found (RFC 5321 4.5.2).

The inner loop looks at every octet: in machine code from fast where the interpreter can make it, elsewhere by a few
searches that give the same answer.
"""


def clean(buf, lo, hi):
    """The end of the part of buf[lo:hi] that needs no attention: just behind a CRLF that a dot follows, before the
    first CR or LF that stands alone, or `hi`; one CR at the very end stays out, its LF may follow."""
    i = buf.find(b"\r\n.", lo, hi)
    end = i + 2 if i >= 0 else hi - 1 if buf[hi - 1] == 13 else hi
    n = buf.count(b"\n", lo, end)
    if n == buf.count(b"\r\n", lo, end) and n == buf.count(b"\r", lo, end):
        return end
    i = lo
    while i < end:
        if buf[i] == 10 or (buf[i] == 13 and buf[i + 1 : i + 2] != b"\n"):
            return i
        i += 2 if buf[i] == 13 else 1
    return end


try:
    from .fast import clean  # noqa: F811
except (ImportError, SyntaxError, ValueError, AttributeError):
    pass  # no machine code for this interpreter


def data(wire):
    """The next piece of a mail in DATA with its dots taken off, None when more must arrive, False at its end.

    Only CRLF "." CRLF ends it (RFC 5321 4.1.1.4, 4.5.2). A piece never splits a CRLF; a CR or LF that stands
    alone sets `bare`, and is mended in what is returned: LF becomes CRLF, CR goes.
    """
    buf = wire.buf
    lo = wire.lo
    hi = wire.hi
    if lo == hi:
        return None
    if wire.bol and buf[lo] == 46:
        if hi - lo < 3 and (hi - lo < 2 or buf[lo + 1] == 13):
            return None
        if buf[lo + 1] == 13 and buf[lo + 2] == 10:
            wire.lo = lo + 3
            return False
        lo += 1
    wire.bol = False
    end = clean(buf, lo, hi)
    if end > lo:
        wire.lo = end
        wire.bol = buf[end - 1] == 10
        return wire.mv[lo:end]
    # A CR or LF alone, or a CR whose LF may still come.
    wire.lo = lo
    if buf[lo] == 13 and hi - lo == 1:
        return None
    wire.bare = True
    wire.lo = lo + 1
    return b"" if buf[lo] == 13 else b"\r\n"


def chunk(wire):
    """The next of `wire.want` octets of BDAT (RFC 3030), None when more must arrive. CR and LF that stand alone are
    mended as in data(); a CR at the end of a piece is held back, the next piece may begin with its LF."""
    buf = wire.buf
    lo = wire.lo
    hi = min(wire.hi, lo + wire.want)
    if lo == hi:
        return None
    if wire.cr:
        wire.cr = False
        if buf[lo] == 10:
            wire.lo = lo + 1
            wire.want -= 1
            return b"\r\n"
        wire.bare = True
    end = clean(buf, lo, hi)
    if end > lo:
        wire.lo = end
        wire.want -= end - lo
        return wire.mv[lo:end]
    wire.lo = lo + 1
    wire.want -= 1
    if buf[lo] == 13:
        wire.cr = True
        return b""
    wire.bare = True
    return b"\r\n"
