"""scan.clean in machine code, for interpreters with MicroPython's viper emitter: far faster than searching."""

import micropython


@micropython.viper
def clean(b: ptr8, lo: int, hi: int) -> int:  # noqa: F821 (ptr8 is viper's)
    last = hi - 3
    while lo < hi:
        c = b[lo]
        if c == 10:
            return lo
        lo += 1
        if c == 13:
            if lo == hi:
                return lo - 1
            if b[lo] != 10:
                return lo - 1
            lo += 1
            if lo < hi and b[lo] == 46:
                return lo
        if not (int(b) + lo) & 3:
            # Four octets at a time, on their boundary, as long as all have bit 5 or 6 set: CR and LF have neither.
            while lo < last:
                w = ptr32(int(b) + lo)[0]  # noqa: F821
                if (w | w >> 1) & 0x20202020 != 0x20202020:
                    break
                lo += 4
    return hi
