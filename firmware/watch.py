"""The watchdog: resets the board when nothing goes on any more.

The chip's own one bites within seconds when the event loop stands still, for it is fed from there. It is fed only while
relay, server and rules get on: each has a function that looks at it, and gives something that changes as it goes on, or
None while it rightly waits. What stays the same for too long hangs: then nothing is fed any more.

Each wait for a socket has a deadline, which smtp.stream sweeps. So who waits for a socket waits rightly, unless a
deadline has passed and nobody noticed.

May use: smtp.stream. Loaded only where [board] watchdog is set.
"""

import asyncio

from smtp import const, stream

_FEED = 1.5  # seconds: a board that sleeps lightly wakes for it; what blocks may last for 6.8 of the chip's 8.3
_LOOK = const(7)  # feedings between two looks
_OVERDUE = const(60000)  # ms
_STREAM = const(120)  # seconds for which something may stand still
_ACCEPT = const(300)
_RELAY = const(900)
_RULE = const(300)


feed = None  # of the chip's watchdog, once that runs: it cannot be stopped


class Watch:
    """uptime(): seconds; bite(text): called when something hangs, with what it is."""

    def __init__(self, uptime, bite):
        self.uptime = uptime
        self.bite = bite
        self.items = []  # [name, look, patience, what it said last, since when]

    def add(self, name, look, patience):
        self.items.append([name, look, patience, None, self.uptime()])

    def look(self):
        """The first that hangs, as (name, seconds), or None."""
        now = self.uptime()
        for item in self.items:
            try:
                said = item[1]()
            except MemoryError:
                said = None
            if said is None or said != item[3]:
                item[3] = said
                item[4] = now
            elif now - item[4] > item[2]:
                return item[0], now - item[4]

    def start(self, timeout):
        """From here on the chip's watchdog bites when it is not fed for `timeout` ms."""
        global feed
        from machine import WDT

        feed = WDT(timeout=timeout).feed

    async def run(self):
        """Feeds it, for ever."""
        for item in self.items:
            item[4] = self.uptime()
        n = 0
        while True:
            if not n:
                stuck = self.look()
                if stuck:
                    self.bite("%s did nothing for %d s" % stuck)
                    await asyncio.sleep(60)  # nobody will wait so long
            n = (n + 1) % _LOOK
            feed()
            await asyncio.sleep(_FEED)


def overdue():
    """What streams wait for in vain: nobody sweeps deadlines any more."""
    now = stream.ticks_ms()
    for s in stream._open:
        if s.waiter is not None and s.due is not None and stream.ticks_diff(now, s.due) > _OVERDUE:
            return True


def relay(one):
    """How far a Relay is."""
    queue = one.queue
    due = queue.due()
    held = len(getattr(one, "parcels", ()))  # mail that delivery by MX has taken is not due, and not at rest
    if one.ending or not held and (due is None or due > queue.uptime() or not one.usable()):
        return None  # there is nothing to do, or nobody may have it now
    if one.slots and one in one.slots.line:
        return None  # others have TLS, and their sockets have deadlines
    for s in stream._open:
        if s.waiter is not None and not hasattr(s, "task"):
            return None  # a session with a smart host, or the way to it; those of devices have a task
    return one.given, one.passed, one.delivered, one.failures, len(queue), held


def listening(server):
    """True when one of a Server's listening sockets is waited for by nobody."""
    waiting = getattr(stream, "core", None)
    for sock in server.socks if waiting else ():
        if id(sock) not in waiting._io_queue.map:
            return True


def everything(watch, one, server, rules):
    watch.add("the sweeper of deadlines", overdue, _STREAM)
    watch.add("the relay", lambda: relay(one), max(_RELAY, 2 * one.pause_max))
    if server:
        watch.add("the server", lambda: listening(server), _ACCEPT)
    for rule in rules:
        patience = rule.rule["every"] + rule.rule.get("timeout", 10) + _RULE
        watch.add("the sensor " + rule.name, lambda rule=rule: rule.alive, patience)
    return watch
