"""machine, simulated: watchdog, timers, clock, resets. A part of machine; a test that has a new board imports it anew.

    soc.cause             why this board started: "power on", "brown-out", "watchdog", "reset", "deep sleep"
    soc.dog               milliseconds of the last feed and time-out of the watchdog, or None while it is off
    soc.bitten()          whether the watchdog has reset the board by now
    soc.rtc               seconds since 1970 that the clock was set to, or None
    soc.timers            the timers that run; soc.memory: what RTC memory holds
    soc.slept             milliseconds of sleep since the very beginning

reset() and deepsleep() raise Reset, a SystemExit, since real ones never return. In a process of its own,
EDGEPOST_SIM_CAUSE says why it starts, and the watchdog writes its time-out to the file EDGEPOST_SIM_DOG whenever it is
fed. Deep sleep, and a write to RTC memory, write the JSON file EDGEPOST_SIM_SLEEP: "ms", "memory" (hex), "slept",
"writes" (of flash), "wakes" ([pin, level]), "network" (whether that module was loaded). The process ends with status 4;
with another cause than "power on" the next one goes on from that file. Light sleep takes no time: the file of
hardware.follow() has in "sleep" the milliseconds that may be slept in all, and when they are over it waits for more.
"""

import binascii
import json
import os
import sys
import time

import hardware
from hardware import misuse, use

_RP2 = hardware.chip == "rp2"
_MARK = 0x6AB73121  # what the SDK leaves in scratch register 4 while the watchdog runs


def _env(name):
    return os.getenv(name) if hasattr(os, "getenv") else None


cause = _env("EDGEPOST_SIM_CAUSE") or "power on"
dog = None
bites = 0
rtc = None
memory = b""
slept = 0
writes = 0  # of flash, which power_on counts
wakes = None  # (pin, level) that ends deep sleep
timers = []
if _env("EDGEPOST_SIM_SLEEP") and cause != "power on":
    try:
        with open(_env("EDGEPOST_SIM_SLEEP")) as _f:
            _kept = json.load(_f)
        slept = _kept["slept"]
        memory = binascii.unhexlify(_kept["memory"])
    except OSError:
        pass

if _RP2:
    CAUSES = {"PWRON_RESET": 1, "WDT_RESET": 3}
else:
    CAUSES = {"PWRON_RESET": 1, "HARD_RESET": 2, "WDT_RESET": 3, "DEEPSLEEP_RESET": 4, "SOFT_RESET": 5}


class Reset(SystemExit):
    pass


def reset():
    raise Reset(3)


def bootloader():
    raise Reset(5)


def reset_cause():
    if cause in ("power on", "brown-out"):
        return CAUSES["PWRON_RESET"]
    if cause == "watchdog" or _RP2:
        return CAUSES["WDT_RESET"]  # an RP2 calls each reset by software so
    return CAUSES["HARD_RESET" if cause == "reset" else "DEEPSLEEP_RESET"]


def _may_sleep(ms):
    use("sleep")
    if not isinstance(ms, int) or not 0 < ms < 1 << 30:
        misuse("sleep of %r ms" % (ms,))
    network = sys.modules.get("network")
    if network and network.made and network.made.powered:
        misuse("it goes to sleep with the radio on")


def _save(ms):
    if _env("EDGEPOST_SIM_SLEEP"):
        with open(_env("EDGEPOST_SIM_SLEEP"), "w") as f:
            json.dump({"ms": ms, "memory": binascii.hexlify(memory).decode(), "slept": slept + ms, "writes": writes,
                       "wakes": wakes, "network": "network" in sys.modules}, f)


def deepsleep(ms):
    if _RP2:
        misuse("a Pico W forgets everything in deep sleep, and saves no more than in light sleep")
    _may_sleep(ms)
    _save(ms)
    print("sim: deep sleep")
    raise Reset(4)


def lightsleep(ms):
    global slept
    _may_sleep(ms)
    if ms > 4294967:
        raise ValueError("sleep too long")
    print("sim: light sleep")
    if dog and ms > dog[1]:
        misuse("the watchdog bites in this sleep")
    while slept + ms > hardware.told.get("sleep", 0):
        time.sleep(0.02)
        hardware._look()
    slept += ms


class _Memory:
    def __getitem__(self, address):
        if not _RP2 or address != 0x4005801C:
            misuse("nobody may read %x" % address)
        return _MARK if cause == "watchdog" else 0


mem32 = _Memory()


class WDT:
    def __init__(self, id=0, timeout=5000):
        global dog
        if id != 0 or timeout <= 0 or _RP2 and timeout > 8388:
            raise ValueError("timeout exceeds 8388")
        dog = [hardware.ticks(), timeout]
        self.feed()

    def feed(self):
        global bites
        use("wdt")
        if bitten():
            bites += 1  # a real board is gone
        dog[0] = hardware.ticks()
        path = _env("EDGEPOST_SIM_DOG")
        if path:
            with open(path, "w") as f:
                f.write(str(dog[1]))


def bitten():
    return bites > 0 or dog is not None and hardware.ticks() - dog[0] > dog[1]


class Timer:
    ONE_SHOT = 0
    PERIODIC = 1

    def __init__(self, id=-1):
        if id not in ((-1,) if _RP2 else (0, 1, 2, 3)):
            raise ValueError("Timer doesn't exist")

    def init(self, mode=PERIODIC, period=-1, callback=None):
        if callback is None or period <= 0:
            misuse("a timer without a period or a callback")
        self.mode, self.period, self.callback = mode, period, callback
        timers.append(self)

    def deinit(self):
        if self in timers:
            timers.remove(self)


class RTC:
    def datetime(self, when=None):
        global rtc
        if when is None:
            misuse("nobody has a use for this")
        year, month, day, weekday, hour, minute, second, sub = when
        use("rtc")
        a = (14 - month) // 12
        y = year + 4800 - a
        days = day + (153 * (month + 12 * a - 3) + 2) // 5 + 365 * y + y // 4 - y // 100 + y // 400 - 2472633
        if weekday != (days + 3) % 7:
            misuse("the weekday is wrong")
        rtc = days * 86400 + hour * 3600 + minute * 60 + second

    if not _RP2:

        def memory(self, data=None):
            global memory
            if data is None:
                return memory
            if len(data) > 2048:
                raise ValueError("buffer too long")
            memory = bytes(data)
            _save(0)
