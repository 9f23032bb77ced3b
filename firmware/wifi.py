"""The Wi-Fi station: joins the network, says what to do when it cannot, and joins again when the network is lost.

May use: MicroPython's module network, in which an ESP32 and a Pico W differ; unjoined, which is loaded when there is
no network. Loaded on a board with [wifi] only.

A Station is also what a smart host takes for a rate (smtp.rate): while there is no network no mail may go, so that the
relay tries nothing in vain, and starts as soon as there is one.
"""

import asyncio
import random
import sys

import network
from smtp import const

_TRY = const(30)  # seconds for the router to let us in, and for DHCP
_SOON = const(8)  # seconds after which a failure is believed: at first an ESP32 tells the one before
_MOST = const(120)  # seconds between two attempts
_TIRED = const(5)  # failed attempts until the radio is switched off and on
_CALM = const(3)  # seconds between two looks at a network that is there
_LOST = const(3)  # looks without a network, a second between them, until it is lost


class Station:
    """table: [wifi] of the configuration; log(area, text); clock: clock.Clock; on_up(): called when there is a network;
    patience: seconds that mail waits for the time of day then."""

    def __init__(self, table, log, clock, on_up=None, patience=0):
        self.table = table
        self.ssid = table["ssid"] + ""  # text
        self.hostname = table["hostname"] + ""
        self.log = log
        self.clock = clock
        self.on_up = on_up
        self.patience = patience
        self.up = False
        self.since = 0  # seconds of uptime, when the network came
        self.failures = 0
        self.told = None
        self.wlan = None

    def wait(self, now):
        """Seconds until a mail may go, 0: now."""
        return 0 if self.up and (now - self.since >= self.patience or self.clock.now()) else 1

    def count(self, now):
        """A mail goes."""

    def start(self):
        """Switches the radio on."""
        table = self.table
        wlan = network.WLAN(network.STA_IF)
        if not wlan.active():
            if "country" in table:
                network.country(table["country"])
            network.hostname(self.hostname)
            wlan.active(True)
        if "power_save" in table:
            wlan.config(pm=wlan.PM_POWERSAVE if table["power_save"] else wlan.PM_NONE)
        try:
            wlan.config(reconnects=0)  # by itself an ESP32 tries for ever, and never says what is wrong
        except ValueError:
            pass  # others know no such thing
        self.wlan = wlan

    async def join(self):
        """None when there is a network, else what keeps us from it and what to do."""
        table = self.table
        try:
            if not self.wlan:
                self.start()
            wlan = self.wlan
            if "address" in table:
                wlan.ifconfig((table["address"], table["netmask"], table["gateway"], table["dns"]))
            wlan.connect(self.ssid, table.get("password"))
            for n in range(_TRY * 4):
                await asyncio.sleep(0.25)
                if wlan.isconnected():
                    return None
                if n >= _SOON * 4:
                    import unjoined

                    if unjoined.fault(wlan.status()):
                        break
            return 'the network "%s" %s' % (self.ssid, unjoined.why(wlan))
        except (OSError, RuntimeError) as e:
            return "the radio does not work (%s)" % e
        except ValueError as e:
            return "the radio refuses what [wifi] says (%s): check country, hostname, ssid and password" % e
        finally:
            sys.modules.pop("unjoined", None)

    async def run(self):
        """Keeps the network for ever."""
        while True:
            trouble = await self.join()
            if trouble:
                self.failures += 1
                if trouble != self.told:
                    self.told = trouble
                    self.log("wifi", trouble + ". It is tried again")
                self.leave()
                delay = min(_MOST, 1 << min(self.failures, 7))
                await asyncio.sleep(delay + delay * random.getrandbits(8) / 1024)
            else:
                await self.stay()

    async def stay(self):
        """Returns when the network is lost."""
        self.failures = 0
        self.told = None
        self.since = self.clock.uptime()
        self.up = True
        self.log("wifi", 'joined "%s" as %s' % (self.ssid, self.wlan.ifconfig()[0]))
        try:
            if self.on_up:
                self.on_up()
            gone = 0
            while gone < _LOST:
                await asyncio.sleep(1 if gone else _CALM)
                gone = 0 if self.wlan.isconnected() else gone + 1
        finally:
            self.up = False
        self.log("wifi", 'the network "%s" is lost' % self.ssid)
        self.leave()

    def leave(self):
        """Makes the next join() start from the beginning."""
        try:
            self.wlan.disconnect()
            if self.failures % _TIRED == _TIRED - 1:
                self.wlan.active(False)
                self.wlan = None
        except (OSError, RuntimeError, AttributeError):
            self.wlan = None
