"""machine, simulated: Pin and ADC; the rest of it is in soc. See hardware."""

import hardware
import soc
from hardware import claim, misuse, use
from soc import RTC, WDT, Timer, bootloader, deepsleep, lightsleep, mem32, reset, reset_cause  # noqa: F401


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 1
    PULL_DOWN = 2
    IRQ_FALLING = 4
    IRQ_RISING = 8

    def __init__(self, id, mode=-1, pull=-1, value=None):
        if id == "LED" and hardware.chip == "rp2":
            id = hardware.LED
        elif isinstance(id, str):
            id = int(id[2:]) if id[:2] == "GP" and id[2:].isdigit() else -1
        if not isinstance(id, int) or id not in hardware.PINS[hardware.chip] and id != hardware.LED:
            raise ValueError("invalid pin")
        self.id = id
        self.mode = self.pull = self.handler = None
        if mode != -1:
            self.init(mode, pull, value)

    def init(self, mode=-1, pull=-1, value=None):
        if mode not in (self.IN, self.OUT, self.OPEN_DRAIN):
            misuse("pin %d is set to no mode" % self.id)
        fixed = hardware.chip == "esp32" and self.id >= 34
        if fixed and mode != self.IN:
            raise ValueError("pin can only be input")
        if fixed and pull not in (-1, None):
            misuse("pin %d of an ESP32 has no pull resistors" % self.id)
        if pull not in (-1, None, self.PULL_UP, self.PULL_DOWN):
            misuse("pin %d has no pull %r" % (self.id, pull))
        self.mode = mode
        self.pull = {self.PULL_UP: 1, self.PULL_DOWN: 0}.get(pull)
        hardware.pins.setdefault(self.id, self)
        claim(self.id, ("an input", "an output", "a bus")[mode])
        if mode == self.OUT:
            hardware.levels[self.id] = value or 0

    def value(self, level=None):
        use("pin", "pin%d" % self.id)
        if self.mode is None:
            misuse("pin %d has no mode" % self.id)
        if level is not None:
            if self.mode == self.IN:
                misuse("pin %d is an input" % self.id)
            hardware.levels[self.id] = 1 if level else 0
            return None
        level = hardware.level_of(self.id, self.pull)
        if level is None:
            misuse("nothing is connected to pin %d, and it has no pull resistor" % self.id)
        return level

    def __call__(self, level=None):
        return self.value(level)

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def irq(self, handler=None, trigger=IRQ_FALLING | IRQ_RISING):
        # The parameter `hard` is missing: an ESP32 has none.
        if self.mode != self.IN:
            misuse("pin %d is no input, and has no interrupts" % self.id)
        self.handler = handler
        self.trigger = trigger
        hardware.pins[self.id] = self

    def edge(self, level):
        if self.handler and self.trigger & (self.IRQ_RISING if level else self.IRQ_FALLING):
            self.handler(self)


class ADC:
    """Sixteen bits of the whole range. An ESP32's range is 1.1 V until it is set by atten()."""

    if hardware.chip == "rp2":
        CORE_TEMP = 4
    else:
        ATTN_0DB = 0
        ATTN_2_5DB = 1
        ATTN_6DB = 2
        ATTN_11DB = 3

        def atten(self, value):
            if value not in (0, 1, 2, 3):
                raise ValueError("invalid attenuation")
            self.full = (1.1, 1.5, 2.2, 3.3)[value]

    def __init__(self, pin):
        chip = hardware.chip
        if chip == "rp2" and isinstance(pin, int) and 0 <= pin <= 4:  # channels
            self.pin = "core" if pin == 4 else 26 + pin
        else:
            self.pin = pin.id if isinstance(pin, Pin) else Pin(pin).id
            if self.pin not in hardware.ANALOG[chip]:
                raise ValueError("Pin doesn't have ADC capabilities")
        claim(self.pin, "an ADC")
        self.full = 3.3 if chip == "rp2" else 1.1

    def read_u16(self):
        use("adc", "adc%s" % self.pin)
        if self.pin == "core":
            volts = 0.706 - (hardware.celsius - 27) * 0.001721
        else:
            volts = hardware.volts.get(self.pin, 0)
        return max(0, min(65535, int(volts / self.full * 65535 + 0.5)))


globals().update(soc.CAUSES)
