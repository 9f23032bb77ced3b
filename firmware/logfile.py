"""The log in flash: the last lines, so that they can be read after a crash.

Two files of half the size each, the newer one `path` and the older one `path`.old. Lines are gathered for some minutes,
or some hundred octets, since each write costs a block of flash; errors are written at once. A flash that has no room
but its reserve loses lines, and the log says how many.

May use: crash, for secrets are never written.
"""

import asyncio
import os

from crash import clean, trace
from smtp import const

_GATHER = const(600)  # seconds
_BUFFER = const(1024)  # octets
_LINE = const(300)  # characters
_HURRY = const(10)  # seconds between two errors that are written at once


class Log:
    """path: of the newer file; most: octets of both; reserve: octets of flash that stay free; uptime(): seconds."""

    def __init__(self, path, most, reserve, uptime):
        self.path = path
        self.half = most // 2
        self.reserve = reserve
        self.uptime = uptime
        self.day = None
        self.lines = []
        self.held = 0  # octets of them
        self.since = 0  # age of the first
        self.wrote = -_HURRY
        self.lost = 0
        try:
            self.size = os.stat(path)[6]
        except OSError:
            self.size = 0

    def add(self, line, now=None, urgent=False):
        """now: local time in seconds since 1970, or None. Raises nothing."""
        day = now and now // 86400
        if day and day != self.day:
            from smtp.date import date

            self.day = day
            self.put("-- " + date(now)[5:16])
        self.put(clean(line))
        if self.held > _BUFFER or urgent and self.uptime() - self.wrote >= _HURRY:
            self.flush()

    def put(self, line):
        if not self.lines:
            self.since = self.uptime()
        line = line[:_LINE].encode()
        self.lines.append(line)
        self.held += len(line) + 1

    def error(self, error):
        """A traceback, urgently."""
        for line in trace(error).split("\n"):
            if line:
                self.put(clean(line))
        if self.uptime() - self.wrote >= _HURRY:
            self.flush()

    def free(self):
        st = os.statvfs(self.path[: self.path.rfind("/")] or "/")
        return (st[3] if st[3] < 0xFFFFFF00 else 0) * st[1]  # as in smtp.queue

    def flush(self):
        """Writes what was gathered. Raises nothing."""
        lines, held = self.lines, self.held
        if not lines:
            return
        self.lines = []
        self.held = 0
        self.wrote = self.uptime()
        lost = b""
        if self.lost:
            lost = b"-- %d lines are missing here: there was no room for them\n" % self.lost
            held += len(lost)
        old = self.path + ".old"
        try:
            full = self.size and self.size + held > self.half
            if full or self.free() < self.reserve + held:
                remove(old)
            if full:
                os.rename(self.path, old)
                self.size = 0
            if self.free() < self.reserve + held:
                raise OSError(28)
            with open(self.path, "ab") as f:
                f.write(lost)
                for line in lines:
                    f.write(line)
                    f.write(b"\n")
            self.size += held
            self.lost = 0
        except (OSError, MemoryError):
            self.lost += len(lines)

    def tail(self, octets):
        """The last lines, as text; `octets` of them at most. Writes nothing: that would be often."""
        out = b"".join([line + b"\n" for line in self.lines])[-octets:]
        for path in (self.path, self.path + ".old"):
            if len(out) >= octets:
                break
            try:
                with open(path, "rb") as f:
                    f.seek(max(0, f.seek(0, 2) - octets + len(out)))
                    out = f.read(octets - len(out)) + out
            except OSError:
                pass
        if len(out) >= octets:
            out = out[out.find(b"\n") + 1 :]
        try:
            return out.decode()
        except UnicodeError:
            return ""

    async def run(self):
        """For ever: writes what is old."""
        while True:
            await asyncio.sleep(60)
            if self.lines and self.uptime() - self.since >= _GATHER:
                self.flush()


def remove(path):
    try:
        os.remove(path)
    except OSError:
        pass
