"""The dead-man ping: a URL is asked for every so often, but only while mail and sensors get on. When that stops, who is
pinged raises an alarm: healthchecks.io, Uptime Kuma and the like. So somebody hears of a gateway that is dead or cut
off, which no mail of its own can tell.

The URL is a secret: whoever knows it can say that all is well. Only its host is ever logged.

May use: health, smtp.https. Loaded only where [ping] is set.
"""

import asyncio
import binascii
import sys

from smtp import const
from smtp.https import get, place
from smtp.stream import sleep_ms

_ALL = const(90)  # seconds for name, connection, TLS and answer
_SOON = const(60)  # seconds until a ping that failed is tried again


class Ping:
    """table: [ping] of the configuration; slots: smtp.slots.Slots or None; log(area, text)."""

    def __init__(self, table, slots, log):
        self.table = table
        self.slots = slots if table["url"][:6] == "https:" else None
        self.log = log
        self.told = None

    def tell(self, text):
        if text != self.told:
            self.told = text
            self.log("ping", text)

    async def once(self, resolve):
        """True when it has answered."""
        table = self.table
        host = "its host"
        try:
            while self.slots and not self.slots.take(self):
                await sleep_ms(100)
            host = place(table["url"], table["verify"])[0]
            ca = [binascii.a2b_base64(c) for c in table["ca"]]
            status, _, _ = await asyncio.wait_for(get(table["url"], ca, resolve, "ping.url", table["verify"]), _ALL)
            if 200 <= status < 300:
                self.tell("%s answers" % host)
                return True
            why = "it says %d: check ping.url" % status
        except (OSError, ValueError, EOFError, MemoryError, asyncio.TimeoutError) as e:
            why = str(e) or "not in time, or not enough memory"
        finally:
            if self.slots:
                self.slots.give(self)
        self.tell("no answer from %s: %s. Mail goes on; who waits for the ping will raise the alarm" % (host, why))
        return False

    async def turn(self, wrong, resolve):
        """Pings, unless `wrong` (text) says what is wrong. False when there was no answer."""
        if wrong:
            self.tell("none is sent while %s" % wrong)
        return bool(wrong) or await self.once(resolve)

    async def run(self, well, resolve):
        """For ever. well() gives what is wrong, or ""."""
        organs = sys.modules.get("organs")
        while True:
            wait = self.table["every"]
            if organs and organs.station and not organs.station.up:
                wait = 1
            elif not await self.turn(well(), resolve):
                wait = min(wait, _SOON)
            await asyncio.sleep(wait)
