"""esp32, simulated: the chip's temperature, by either of its two names. Not there on other boards. See hardware."""

import hardware
from hardware import use

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
