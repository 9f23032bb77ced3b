"""What stands behind the simulated modules machine, onewire, ds18x20, dht and esp32: one board, which a test wires up.

    import hardware
    hardware.reset("rp2")                   a new board: "rp2" (Pico W), "esp32" or "esp32s3"
    hardware.drive(14, 0)                   the world puts a level on a pin; None: nothing is connected
    hardware.volts[26] = 1.65               at an analogue input
    hardware.celsius = 31.0                 the chip's own temperature
    probe = hardware.thermometer(4, 21.5)   a DS18B20 on the bus at pin 4; probe.rom, probe.celsius, probe.unplug()
    hardware.climate[15] = (21.5, 40.0)     a DHT at pin 15: °C and %
    hardware.fault("adc", OSError(5), 3)    the next three uses of an ADC fail; without a number all of them
    hardware.mend("adc")                    and no more

The modules are strict: what would go unnoticed on one board and fail on another raises Misuse, which `misused` counts
as well, for a driver's exceptions are caught. `ticks` is the simulation's clock in ms, which a test may replace.

follow(path) has a JSON file drive the board, for a gateway in another process:

    {"pins": {"14": 0}, "volts": {"26": 1.65}, "celsius": 31, "thermometers": {"4": {"28ff641e84160333": 21.5}},
     "climate": {"15": [21.5, 40]}, "faults": {"adc": "text"}}

It is read again at each use of the hardware. The environment variables EDGEPOST_SIM_FILE and EDGEPOST_SIM_CHIP do that
from the start.

More of a board (watchdog, sleep, network) goes into its own module beside machine.py with its state here.
"""

import binascii
import json
import os
import sys
import time

PINS = {"rp2": range(30), "esp32": [n for n in range(40) if n not in (20, 24, 28, 29, 30, 31)], "esp32s3": range(49)}
LED = 64  # the number that stands for the pin "LED" of a Pico W, which is behind its Wi-Fi chip
told = {}  # what the file of follow() said
ANALOG = {"rp2": range(26, 30), "esp32": range(32, 40), "esp32s3": range(1, 11)}


class Misuse(AssertionError):
    """The hardware is used in a way that a real board does not take, or that one board takes and another does not."""


def _now():
    return time.ticks_ms() if hasattr(time, "ticks_ms") else int(time.monotonic() * 1000)


def reset(kind="rp2"):
    """A new board without anything connected: import the drivers again."""
    global chip, levels, volts, celsius, climate, buses, faults, misused, roles, pins, ticks, followed
    chip = kind
    levels = {}  # pin: 0 or 1
    volts = {}
    celsius = 25.0
    climate = {}
    buses = {}  # pin: [Probe]
    faults = {}  # what: [exception, times or None]
    misused = []
    roles = {}  # pin: what it is used as
    pins = {}  # pin: its machine.Pin
    ticks = _now
    followed = None
    # What was imported knows the old board.
    for name in list(sys.modules):
        known = ("machine", "onewire", "ds18x20", "dht", "esp32", "soc", "network", "wifi")
        if name in known or name.startswith("drivers.") or name.startswith("boards"):
            del sys.modules[name]


def misuse(text):
    misused.append(text)
    raise Misuse(text)


def claim(pin, role):
    """A pin is used as one thing only."""
    if roles.setdefault(pin, role) != role:
        misuse("pin %s is used as %s and as %s" % (pin, roles[pin], role))


def drive(pin, level):
    """The world changes a level; whoever asked for it is told at once."""
    old = level_of(pin)
    levels[pin] = level
    new = level_of(pin)
    if old != new and pin in pins:
        pins[pin].edge(new)


def level_of(pin, pull=None):
    """0 or 1, or None when it floats."""
    level = levels.get(pin)
    if level is None:
        if pull is None and pin in pins:
            pull = pins[pin].pull
        level = pull
    return level


def fault(what, error, times=None):
    faults[what] = [error, times]


def mend(what):
    faults.pop(what, None)


def use(*what):
    """Something is used, by its kinds, such as "adc" and "adc26": raises what was ordered for one of them."""
    _look()
    for name in what:
        ordered = faults.get(name)
        if ordered:
            if ordered[1] is not None:
                ordered[1] -= 1
                if ordered[1] <= 0:
                    del faults[name]
            raise ordered[0]


# -- one wire


def crc8(data):
    """That of Maxim's 1-wire devices: x^8 + x^5 + x^4 + 1, the lowest bit first."""
    crc = 0
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


class Probe:
    """A DS18B20. celsius: where it lies; broken: "crc" (a bad cable), "short" (only zeros come), or None."""

    def __init__(self, bus, rom, celsius):
        self.bus = bus
        self.rom = rom
        self.celsius = celsius
        self.broken = None
        self.power()

    def power(self):
        """Its power was away for a moment."""
        self.held = 85.0
        self.ready = None

    def unplug(self):
        self.bus.remove(self)

    def scratch(self):
        """Its nine octets, as its data sheet has them."""
        if self.broken == "short":
            return bytes(9)
        raw = int(self.held * 16 // 1) & 0xFFFF
        data = bytes([raw & 255, raw >> 8, 0x4B, 0x46, 0x7F, 0xFF, 0x0C, 0x10])
        return data + bytes([crc8(data) ^ (self.broken == "crc")])


def thermometer(pin, celsius, serial=None):
    bus = buses.setdefault(pin, [])
    data = b"\x28" + (serial or (0xA1B2C300 + 16 * pin + len(bus)).to_bytes(6, "little"))
    bus.append(Probe(bus, data + bytes([crc8(data)]), celsius))
    return bus[-1]


# -- a test in another process


def follow(path):
    global followed
    followed = path


def _look():
    global celsius
    if not followed:
        return
    try:
        with open(followed) as f:
            said = json.load(f)
    except (OSError, ValueError):
        return  # not there yet, or being written
    told.update(said)
    for pin, level in said.get("pins", {}).items():
        drive(int(pin), level)
    for pin, value in said.get("volts", {}).items():
        volts[int(pin)] = value
    for pin, value in said.get("climate", {}).items():
        climate[int(pin)] = value
    celsius = said.get("celsius", celsius)
    for pin, probes in said.get("thermometers", {}).items():
        bus = buses.setdefault(int(pin), [])
        known = {binascii.hexlify(p.rom).decode(): p for p in bus}
        bus[:] = [p for rom, p in known.items() if rom in probes]
        for rom, value in probes.items():
            if rom in known:
                known[rom].celsius = value
            else:
                bus.append(Probe(bus, binascii.unhexlify(rom), value))
    faults.clear()
    for what, text in said.get("faults", {}).items():
        fault(what, OSError(text))


reset()
if hasattr(os, "getenv") and os.getenv("EDGEPOST_SIM_FILE"):
    reset(os.getenv("EDGEPOST_SIM_CHIP") or "rp2")
    follow(os.getenv("EDGEPOST_SIM_FILE"))
