"""ds18x20, simulated: a conversion takes 750 ms, and who reads before it is over is told. See hardware."""

import hardware
from hardware import misuse

_CONVERSION = 750  # ms, at 12 bits


class DS18X20:
    def __init__(self, onewire):
        self.ow = onewire

    def scan(self):
        return [rom for rom in self.ow.scan() if rom[0] in (0x10, 0x22, 0x28)]

    def convert_temp(self):
        self.ow.reset(True)
        for probe in self.ow.probes():
            probe.held = probe.celsius
            probe.ready = hardware.ticks() + _CONVERSION

    def read_scratch(self, rom):
        self.ow.reset(True)
        for probe in self.ow.probes():
            if probe.rom == bytes(rom):
                break
        else:
            raise Exception("CRC error")  # nobody pulls the line down: all ones
        if probe.ready is not None and probe.ready > hardware.ticks():
            misuse("a DS18B20 is read before its conversion is over")
        data = probe.scratch()
        if hardware.crc8(data):
            raise Exception("CRC error")
        return bytearray(data)

    def read_temp(self, rom):
        data = self.read_scratch(rom)
        raw = data[1] << 8 | data[0]
        return (raw - 65536 if raw & 0x8000 else raw) / 16
