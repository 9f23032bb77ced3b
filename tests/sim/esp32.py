"""esp32, simulated: the chip's temperature, by either of its two names, and the pin that ends deep sleep. Not there on
other boards. See hardware."""

import hardware
import soc
from hardware import misuse, use

_OF_RTC = (0, 2, 4, 12, 13, 14, 15, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38, 39)


def wake_on_ext0(pin, level):
    if pin.id not in _OF_RTC and hardware.chip == "esp32":
        raise ValueError("invalid pin")
    if pin.mode != pin.IN:
        misuse("pin %d is no input and wakes nobody" % pin.id)
    soc.wakes = pin.id, int(bool(level))


if hardware.chip == "esp32":

    def raw_temperature():
        """In °F."""
        use("chip")
        return round(hardware.celsius * 1.8 + 32)

elif hardware.chip == "esp32s3":

    def mcu_temperature():
        """In °C."""
        use("chip")
        return round(hardware.celsius)

else:
    raise ImportError("no module named 'esp32'")
