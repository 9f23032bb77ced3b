"""Virtual time: run(coroutine) is asyncio.run() in which who sleeps is woken at once, when it is his turn.

May use: nothing. It is apart from world, which loads a whole gateway: a board has not the memory for that and a test.
"""

import asyncio
import sys

MICROPYTHON = sys.implementation.name == "micropython"
NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000

if MICROPYTHON:
    from asyncio import core

    # Ahead of the real ticks, which the C part of asyncio uses for what is due at once.
    _now = [core.ticks() + 3600000]

    class _Poll:
        map = ()

        def wait_io_event(self, ms):
            if ms > 0:
                _now[0] += ms

    def run(coroutine):
        """asyncio.run() in virtual time: who sleeps is woken at once, when it is his turn."""
        asyncio.new_event_loop()
        queue, ticks = core._io_queue, core.ticks
        core._io_queue, core.ticks = _Poll(), lambda: _now[0]
        try:
            return asyncio.run(coroutine)
        finally:
            core._io_queue, core.ticks = queue, ticks
            asyncio.new_event_loop()

    def ticks():
        return _now[0]

else:
    import selectors

    _now = [0]

    class _Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            if timeout:
                _now[0] += int(timeout * 1000 + 0.999)
            return super().select(0)

    class _Loop(asyncio.SelectorEventLoop):
        def __init__(self):
            super().__init__(_Selector())

        def time(self):
            return _now[0] / 1000

    def run(coroutine):
        """asyncio.run() in virtual time: who sleeps is woken at once, when it is his turn."""
        loop = _Loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()

    def ticks():
        return _now[0]


class Clock:
    """The gateway's. Since the power is there: `up`; epoch: the time of day then, or None while nobody has set it."""

    def __init__(self, epoch=NOON):
        self.start = ticks()
        self.set(epoch)

    def set(self, epoch):
        self.epoch = None if epoch is None else epoch - self.uptime()

    def uptime(self):
        return (ticks() - self.start) // 1000

    def now(self):
        return None if self.epoch is None else self.epoch + self.uptime()

    def offset(self, epoch):
        return 3600
