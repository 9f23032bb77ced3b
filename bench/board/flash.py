"""What mail costs a flash of 1 MB with 256-byte pages: flash.py COUNT

Prints a line for each: its name, octets of the mail, octets programmed and erases for one mail.
"""

import sys

from ram import mount
from smtp.fold import Storms
from smtp.message import compose
from smtp.queue import Queue

SENDER = "cold-store@example.com"
RCPTS = ["oncall@example.com"]


class Count:
    """Octets programmed and erases since it was made, for each of `count` mails."""

    def __init__(self, ram, count):
        self.ram = ram
        self.count = count
        self.start = ram.programmed, ram.erases

    def tell(self, name, size):
        programmed = (self.ram.programmed - self.start[0]) / self.count
        print(name, size, programmed, (self.ram.erases - self.start[1]) / self.count)


def alert():
    """The pieces of an alert of 300 octets."""
    text = "freezer is -9.5, above the limit of -15.0. "
    pieces = list(compose(SENDER, RCPTS, "freezer: -9.5, above -15.0", text, 1800000000))
    return [p + b"x" * (300 - 2 - len(p)) + b"\r\n" for p in pieces]


def through(queue, pieces, deferred=0):
    """One mail from enqueue to removal, deferred some times between."""
    queue.add({"f": SENDER, "r": RCPTS, "t": 1800000000, "u": 1000}, pieces)
    for left in range(deferred, -1, -1):
        mail = queue.take()
        buf = bytearray(512)
        while mail.read(buf):
            pass
        if left:
            queue.settle(mail.key, 1, 0, 0, (), 0, True)
        else:
            queue.settle(mail.key, 1, 1, 0)


def naive(pieces):
    """The same with a temporary file, a rename and a removal."""
    import os

    with open("/flash/new", "wb") as f:
        f.write(b"\n".join([SENDER.encode(), RCPTS[0].encode(), b""]))
        for piece in pieces:
            f.write(piece)
    os.rename("/flash/new", "/flash/mail")
    with open("/flash/mail", "rb") as f:
        while f.read(512):
            pass
    os.remove("/flash/mail")


def main(count):
    ram = mount(256)
    queue = Queue("/flash/spool")
    short = alert()
    size = sum([len(p) for p in short])
    long = [b"x" * 62 + b"\r\n"] * 320
    for name, pieces, deferred in (("alert", short, 0), ("deferred", short, 1), ("long", long, 0)):
        through(queue, pieces)
        cost = Count(ram, count)
        for _ in range(count):
            through(queue, pieces, deferred)
        cost.tell(name, 20480 if name == "long" else size)
    storms = Storms(queue, 600, lambda epoch: 0)
    cost = None
    for n in range(count + 1):
        meta = {"f": SENDER, "r": RCPTS, "t": 1800000000 + n, "u": 1000 + n}
        # With the line about the others it has 300 octets, too.
        storms.add("freezer", meta, "freezer: -9.5, above -15.0", "freezer is -9.5, above the limit of -15.0.",
                   lambda subject, text: compose(SENDER, RCPTS, subject, text, 1800000000), 1)
        cost = cost or Count(ram, count)
    cost.tell("folded", queue.rows[3])
    for name, pieces in (("naive-alert", short), ("naive-long", long)):
        cost = Count(ram, count)
        for _ in range(count):
            naive(pieces)
        cost.tell(name, 20480 if name == "naive-long" else size)


main(int(sys.argv[1]))
