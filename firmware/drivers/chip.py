"""The temperature of the chip itself in °C: some degrees above that of the room, and better for trends than for values.

ESP32: the original one measures in °F, later ones in °C. RP2040 and RP2350: a diode at the ADC, as their data sheets
have it (RP2040, section 4.9.5: 0.706 V at 27 °C, -1.721 mV for each °C).
"""

try:
    import esp32
except ImportError:
    esp32 = None


class Driver:
    def __init__(self, rule, board):
        if hasattr(esp32, "mcu_temperature"):
            self.read = esp32.mcu_temperature
        elif hasattr(esp32, "raw_temperature"):
            self.read = self.fahrenheit
        else:
            from machine import ADC

            self.adc = ADC(getattr(ADC, "CORE_TEMP", 4))
            self.read = self.diode

    def fahrenheit(self):
        return (esp32.raw_temperature() - 32) / 1.8

    def diode(self):
        volts = sum([self.adc.read_u16() for _ in range(16)]) * 3.3 / (16 * 65535)
        return 27 - (volts - 0.706) / 0.001721
