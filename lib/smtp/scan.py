"""The one inner loop that looks at every octet of a mail in DATA, in machine code where the interpreter can make it.

On CPython, and where MicroPython was built without the viper emitter, the same answer is computed from a few searches.
"""


def clean(buf, lo, hi):
    """The end of the part of buf[lo:hi] that needs no attention: just behind a CRLF that a dot follows, before the first CR or
    LF that stands alone, or `hi`; one CR at the very end stays out, its LF may follow."""
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
    import micropython

    @micropython.viper
    def _clean(b: ptr8, lo: int, hi: int) -> int:  # noqa: F821 (ptr8 is viper's)
        i = lo
        while i < hi:
            c = b[i]
            if c == 10:
                return i
            if c == 13:
                if i + 1 == hi:
                    return i
                if b[i + 1] != 10:
                    return i
                i += 1
                if i + 1 < hi and b[i + 1] == 46:
                    return i + 1
            i += 1
        return hi

    clean = _clean
except (ImportError, AttributeError, NotImplementedError, NameError):
    pass
