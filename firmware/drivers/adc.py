"""A voltage at an analogue input, as the value that it stands for.

rule: pin; factor and offset: value = raw * factor + offset, where raw is 0 to 65535 for the whole range of the input,
about 3.3 V.
"""

from machine import ADC, Pin

_SAMPLES = 16  # a board's supply is not quiet


class Driver:
    def __init__(self, rule, board):
        self.adc = ADC(Pin(rule["pin"]))
        if hasattr(ADC, "ATTN_11DB"):
            self.adc.atten(ADC.ATTN_11DB)  # ESP32: the whole range, not the first volt of it
        self.factor = rule.get("factor", 1)
        self.offset = rule.get("offset", 0)

    def read(self):
        raw = sum([self.adc.read_u16() for _ in range(_SAMPLES)]) / _SAMPLES
        return raw * self.factor + self.offset
