"""The search for what needs attention in a mail, octet by octet here and in machine code where there is any."""

import random

from expect import eq
from smtp.scan import clean


def plainly(buf, lo, hi):
    """What clean() gives, in the words of its description."""
    for i in range(lo, hi):
        if buf[i] == 10 and (i == lo or buf[i - 1] != 13):
            return i
        if buf[i] == 13 and (i + 1 == hi or buf[i + 1] != 10):
            return i
        if buf[i] == 46 and i >= lo + 2 and buf[i - 2 : i] == b"\r\n":
            return i
    return hi


def test_a_part_that_needs_no_attention_ends_where_it_should():
    random.seed(5321)
    pieces = (b"\r\n", b"\r\n", b"\r\n.", b"\r", b"\n", b".", b"\x00", b"\t", b"\x80", b"\xff", b"plain text ")
    for n in range(3000):
        buf = bytearray(b"".join([random.choice(pieces[n % 3 * 5 :]) for _ in range(1 + n % 7)]))
        lo = random.randint(0, len(buf) - 1)
        hi = random.randint(lo + 1, len(buf))
        eq((bytes(buf), lo, hi, clean(buf, lo, hi)), (bytes(buf), lo, hi, plainly(buf, lo, hi)))


def test_each_octet_is_looked_at_wherever_it_stands_in_the_memory():
    for at in range(40):
        for odd in (b"\r", b"\n"):
            buf = bytearray(b"x" * 40)
            buf[at : at + 1] = odd
            for lo in range(at + 1):
                eq((at, lo, clean(buf, lo, 40)), (at, lo, at))
