"""What time it is, where that is known, and how long the board has been up.

May use: the time module only. A board starts without a clock: now() says None until NTP or
somebody else has set it. Times are seconds since 1970 UTC on every port.

The system's clock and now() are two things. Certificates are checked by the system's clock, for which a time that was
true when the power went is good enough (ntp.early). now() dates mail, and is what is known to be true.
"""

import time

_EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0  # ESP32 and others count from 2000
_SET = 1767225600  # 2026-01-01: an earlier time is that of a clock that nobody has set


def _days(year, month):
    """Days from 1970-01-01 to the first of a month (13: the next January). Years from March on."""
    y = year - (month < 3)
    m = (month + 9) if month < 3 else (month - 3)
    return 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 - 719468


def _change(rule, year, shift):
    """Seconds since 1970 UTC of [month, week, day, second] in a year (POSIX TZ: week 5 is the last,
    day 0 Sunday), the second on a clock that is `shift` seconds east.
    """
    month, week, day, second = rule
    first = _days(year, month)
    date = first + (day - first - 4) % 7 + 7 * (week - 1)  # 1970-01-01 was a Thursday, 4
    if date >= _days(year, month + 1):
        date -= 7
    return date * 86400 + second - shift


def offset(tz, epoch):
    """Seconds east of UTC at `epoch` by the rule `tz` of the configuration: [standard] or
    [standard, summer, rule of summer's start, rule of its end], north or south.
    """
    if len(tz) < 4:
        return tz[0]
    standard, summer, start, end = tz
    year = time.gmtime(epoch - _EPOCH + standard)[0]
    begins = _change(start, year, standard)
    ends = _change(end, year, summer)
    if begins < ends:
        return summer if begins <= epoch < ends else standard
    return standard if ends <= epoch < begins else summer


class Clock:
    """now() and uptime(). Call uptime() once a day at least: what it counts with wraps.

    trusted: whether the system's clock counts, once somebody has set it.
    """

    def __init__(self, tz=(0,), trusted=True):
        self.tz = tz
        self.trusted = trusted
        self.base = None  # ms since 1970 at uptime 0, once that is known
        self._up = 0  # ms
        self._last = self._ticks()

    def _ticks(self):
        return time.ticks_ms() if hasattr(time, "ticks_ms") else int(time.monotonic() * 1000)

    def ms(self):
        """Milliseconds since this clock was made."""
        ticks = self._ticks()
        wrapped = hasattr(time, "ticks_diff")
        self._up += time.ticks_diff(ticks, self._last) if wrapped else ticks - self._last
        self._last = ticks
        return self._up

    def skip(self, ms):
        """Milliseconds have passed that were not counted."""
        self._up += ms

    def uptime(self):
        """Whole seconds since this clock was made; setting the time does not change it."""
        return self.ms() // 1000

    def system(self):
        """What the system's clock says: seconds since 1970 UTC, or less than 2026 where nobody has set it."""
        return int(time.time()) + _EPOCH

    def now(self):
        """Seconds since 1970 UTC, or None while nobody has set the clock."""
        if self.base is not None:
            return (self.base + self.ms()) // 1000
        now = self.system() if self.trusted else 0
        return now if now >= _SET else None

    def offset(self, epoch):
        """Seconds east of UTC at `epoch`, here."""
        return offset(self.tz, epoch)
