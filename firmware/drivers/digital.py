"""A contact, or whatever else is on or off: 1 or 0.

rule: pin; pull: "up" (what a contact to ground needs), "down" or "none"; invert: a low level is 1; debounce: seconds
for which the level has to stay the same; edge: an impulse that began and ended since the last reading makes one reading
1.
"""

import asyncio

from machine import Pin
from smtp.stream import ticks_diff, ticks_ms

_SAMPLES = 5  # alike, one after the other, spread over `debounce`
_MOST = 100


class Driver:
    def __init__(self, rule, board):
        pull = rule.get("pull", "up")
        self.pin = Pin(rule["pin"], Pin.IN, None if pull == "none" else getattr(Pin, "PULL_" + pull.upper()))
        self.off = 1 if rule.get("invert") else 0
        self.debounce = rule.get("debounce", 0.05)
        self.began = None  # ticks of an impulse's first edge
        self.impulse = 0
        if rule.get("edge"):
            self.pin.irq(self.changed, Pin.IRQ_RISING | Pin.IRQ_FALLING)

    def changed(self, pin):
        now = ticks_ms()
        if pin.value() != self.off:
            if self.began is None:
                self.began = now
        elif self.began is not None:
            if ticks_diff(now, self.began) >= self.debounce * 1000:
                self.impulse = 1
            self.began = None

    async def read(self):
        level = None
        same = 0
        for _ in range(_MOST):
            now = self.pin.value()
            same = same + 1 if now == level else 1
            level = now
            if same == _SAMPLES:
                break
            await asyncio.sleep(self.debounce / (_SAMPLES - 1))
        else:
            raise OSError("the contact bounces and does not settle")
        impulse = self.impulse
        self.impulse = 0
        return impulse or level ^ self.off
