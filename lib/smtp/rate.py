"""So many in a time and no more, in any window of that length. May use: nothing."""

from array import array

from . import const

_PARTS = const(12)


class Rate:
    """At most `limit` in any `span` seconds. `now` is in seconds of uptime, which never go back."""

    def __init__(self, limit, span):
        self.limit = limit
        self.part = span // _PARTS
        self.parts = array("H", bytes(2 * _PARTS + 2))  # of the part of the span that runs, and of the 12 before
        self.at = 0

    def wait(self, now):
        """Seconds until one more is allowed, 0: now."""
        parts = self.parts
        at = now // self.part
        for n in range(self.at + 1, min(at, self.at + _PARTS + 1) + 1):
            parts[n % (_PARTS + 1)] = 0
        self.at = at
        if sum(parts) < self.limit:
            return 0
        return (at + 1) * self.part - now

    def count(self, now):
        """One more."""
        self.wait(now)
        self.parts[self.at % (_PARTS + 1)] += 1
