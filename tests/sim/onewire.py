"""onewire, simulated: a bus is a pin with Probes. See hardware."""

import hardware
from hardware import use


class OneWireError(Exception):
    pass


class OneWire:
    def __init__(self, pin):
        pin.init(pin.OPEN_DRAIN, pin.PULL_UP)
        self.pin = pin

    def probes(self):
        return hardware.buses.get(self.pin.id, [])

    def reset(self, required=False):
        """Whether anybody answers."""
        use("onewire", "onewire%d" % self.pin.id)
        found = bool(self.probes())
        if required and not found:
            raise OneWireError
        return found

    def scan(self):
        return [bytearray(p.rom) for p in self.probes()] if self.reset() else []
