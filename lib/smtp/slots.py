"""TLS sessions as a counted resource: each takes some 45 KB, which a board has once or twice.

The relay, token renewal and the sessions of LAN devices take turns. May use: reply, stream.
"""

from . import const
from .reply import SMTPError
from .stream import SLEEP

_TRIES = const(200)  # of 100 ms each


class Slots:
    """`free` slots, first come, first served. Who waits is an object of his own."""

    def __init__(self, free):
        self.free = free
        self.line = []
        self.holders = []

    def take(self, who):
        """True when `who` has a slot now; else he stands in line, and asks again."""
        if who in self.holders:
            return True
        if who not in self.line:
            self.line.append(who)
        if self.free and self.line[0] is who:
            self.free -= 1
            self.line.pop(0)
            self.holders.append(who)
            return True
        return False

    def give(self, who):
        """Gives the slot back, or leaves the line."""
        if who in self.line:
            self.line.remove(who)
        if who in self.holders:
            self.holders.remove(who)
            self.free += 1

    def wait(self, who, io):
        """Generator for a session: waits for a slot, but not for ever."""
        timeout = io.timeout
        io.timeout = 100
        for _ in range(_TRIES):
            if self.take(who):
                break
            yield SLEEP
        else:
            self.give(who)
            io.timeout = timeout
            raise SMTPError(454, "4.7.0", "no memory for TLS now, try again")
        io.timeout = timeout
