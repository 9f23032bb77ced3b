"""A thermometer DS18B20, DS18S20 or DS1822 in °C.

rule: pin; rom: which one, 16 hex digits, where several share a bus. One conversion of 750 ms serves all who ask
meanwhile, and nobody but they waits for it.
"""

import asyncio
from binascii import hexlify, unhexlify

import ds18x20
import onewire
from machine import Pin

_buses = {}


class Bus:
    def __init__(self, pin):
        self.ds = ds18x20.DS18X20(onewire.OneWire(Pin(pin)))
        self.lock = asyncio.Lock()
        self.begun = 0  # conversions
        self.done = 0  # the last one that was waited for


class Driver:
    def __init__(self, rule, board):
        pin = rule["pin"]
        if pin not in _buses:
            _buses[pin] = Bus(pin)
        self.bus = _buses[pin]
        self.rom = unhexlify(rule["rom"]) if rule.get("rom") else None
        self.last = 0

    def find(self):
        roms = self.bus.ds.scan()
        if len(roms) != 1:
            raise OSError("%d thermometers on the bus%s" % (
                len(roms), ", say by rom = which: " + ", ".join([hexlify(r).decode() for r in roms]) if roms else ""))
        return bytes(roms[0])

    async def read(self):
        bus = self.bus
        asked = bus.begun
        async with bus.lock:
            try:
                rom = self.rom or self.find()
                if bus.done <= asked:  # what had begun already may have measured earlier
                    bus.begun += 1
                    bus.ds.convert_temp()
                    await asyncio.sleep(0.75)
                    bus.done = bus.begun
                value = bus.ds.read_temp(rom)
                empty = value == 0 and not any(bus.ds.read_scratch(rom))
            except onewire.OneWireError:
                raise OSError("nothing answers on its bus: look at the wiring, and at the resistor of 4.7 kΩ")
        if empty:
            raise OSError("its bus is shorted to ground")
        if value == 85 and abs(self.last - 85) > 5:
            raise OSError("85 °C, which is what it says when it has lost its power")
        self.last = value
        return value
