"""Keeps the time of day: several time servers are asked until two agree, so that one that lies is outvoted. One alone
is believed where there is no other.

Before anybody answers, the system's clock starts at the latest time that is known to have passed: see early().

May use: clock, sntp. Loaded only where [board] ntp names servers.
"""

import asyncio
import errno
import os
import random
import sys

from clock import _SET, _days
from smtp import const
from sntp import Refused, ask

_SLACK = const(3000)  # ms by which two that agree may differ
_NEAR = const(20000)  # and by which our own clock may be off after some hours
_EACH = const(4)  # addresses of one name that are asked; a pool has so many
_EVERY = const(14400)  # seconds between two times that the clock is set
_FIRST = const(16)  # seconds after a failure, doubled each time: RFC 4330 section 10 asks for 15 at least
_LAST = const(1800)
_LOOK = const(60)  # seconds between two looks at the system's clock, and by which it may be wrong
_LATER = const(7200)  # seconds for which a server that says "too often" is left alone
_DAY = const(86400)


def built():
    """The day on which the firmware was made, in seconds since 1970; 2026 at least."""
    try:
        year, month, day = [int(n) for n in sys.version.rpartition(" on ")[2].split("-")]
        return max(_SET, (_days(year, month) + day - 1) * _DAY)
    except ValueError:
        return _SET


def kept(path):
    """The time that was written down last, in seconds since 1970, or 0."""
    try:
        with open(path) as f:
            return int(f.read())
    except (OSError, ValueError):
        return 0


def early(path):
    """A time that has passed: certificates are checked by it until there is a better one. No mail is dated by it."""
    return max(built(), kept(path))


def keep(path, now, least=_DAY):
    """Writes the time down, unless the last one is younger than `least` seconds: flash wears out. Raises OSError."""
    if abs(now - kept(path)) >= least:
        with open(path + ".new", "w") as f:
            f.write(str(now))
        os.rename(path + ".new", path)


def agreed(found, own=None):
    """The one of `found` (ms) that most agree with, when those are more than half; else None. own: what our clock says,
    which has one vote."""
    for one in found:
        votes = len([o for o in found if abs(o - one) <= _SLACK])
        if own is not None and abs(own - one) <= _NEAR:
            votes += 1
        if votes > 1 and 2 * votes > len(found) + (own is not None):
            return one


class Time:
    """Keeps a clock.Clock right. servers: pairs of name and port; resolve: as dns.Resolver.resolve; path: the file for
    keep(); ready(): whether there is a network; log(area, text); adjust(epoch): sets the system's clock."""

    def __init__(self, servers, clock, resolve, path, ready, log, adjust):
        self.servers = [(name, port) for name, port in servers]
        self.clock = clock
        self.resolve = resolve
        self.path = path
        self.ready = ready
        self.log = log
        self.adjust = adjust
        self.sure = False  # more than one said what our clock says, or there is only one
        self.doubts = 0  # times that the only one said something else
        self.left = {}  # IP address: seconds of uptime until which it is left alone
        self.told = None
        self.at = None  # seconds of uptime when the clock was set

    async def round(self):
        """Asks until it is clear what time it is. True when it is, False when somebody has to be asked again."""
        clock = self.clock
        own = clock.base if self.sure else None
        found = []
        said = []
        asked = 0
        for name, port in self.servers:
            try:
                ips = await self.resolve(name)
            except OSError as e:
                said.append("%s: %s" % (name, e.args[-1]))
                ips = [None]
            for ip in ips[:_EACH]:
                asked += 1
                if ip is None or self.left.get(ip, 0) > clock.uptime():
                    continue
                try:
                    now = await ask(ip, port)
                    if now // 1000 < built():
                        raise ValueError("it lives in the past")
                    found.append(now - clock.ms())
                except Refused as e:
                    # All but RATE mean for ever.
                    self.left[ip] = clock.uptime() + (_LATER if e.args[0] == b"RATE" else 1000 * _DAY)
                    said.append("%s wants to be left alone" % ip)
                except (OSError, ValueError) as e:
                    said.append("%s: %s" % (ip, "silent" if e.args[0] == errno.ETIMEDOUT else e))
                one = agreed(found, own)
                if one is not None:
                    self.sure = True
                    return self.set(one)
        if len(found) == 1:
            self.doubts += 1
            if own is None or self.doubts > 2:
                self.sure = asked == 1
                self.set(found[0])
                return self.sure
        elif found:
            said.append("they differ by %d s: name another one in board.ntp" % ((max(found) - min(found)) // 1000))
        self.tell("time servers do not help: " + "; ".join(said or ["they are to be left alone"]))
        return False

    def tell(self, text):
        if text != self.told:
            self.told = text
            self.log("clock", text)

    def set(self, base):
        """base: milliseconds since 1970 at uptime 0."""
        clock = self.clock
        first = clock.base is None
        off = base - (clock.base or 0)
        clock.base = base
        self.doubts = 0
        self.told = None
        self.at = clock.uptime()
        now = clock.now()
        if first or abs(off) > _NEAR:
            self.log("clock", "set by a time server" if first else "was wrong by %d s" % (off // 1000))
        self.adjust(now)
        try:
            keep(self.path, now)
        except OSError as e:
            self.tell("cannot write %s: %s" % (self.path, e))
        return True

    async def rest(self, seconds):
        """Sleeps. A system's clock that jumps meanwhile, as that of a board may, is set by ours: certificates are
        checked by it."""
        clock = self.clock
        while seconds > 0:
            await asyncio.sleep(min(_LOOK, seconds))
            seconds -= _LOOK
            now = clock.now()
            if now and abs(clock.system() - now) > _LOOK:
                self.log("clock", "the system's clock was wrong by %d s" % (clock.system() - now))
                self.adjust(now)

    async def run(self):
        """For ever."""
        delay = _FIRST
        while True:
            while not self.ready():
                await asyncio.sleep(1)
            if await self.round():
                delay = _FIRST
                await self.rest(_EVERY + random.getrandbits(10))
            else:
                await self.rest(delay + random.getrandbits(3))
                delay = min(2 * delay, _LAST)
