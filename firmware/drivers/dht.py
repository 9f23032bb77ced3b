"""A DHT11 or DHT22 (AM2302): temperature in °C, or relative humidity in %.

rule: pin; model: 11 or 22; reads: "temperature" or "humidity". The sensor must not be asked more often than every two
seconds; two rules of one pin share its answer. Reading takes 25 ms, in which nothing else runs.
"""

import dht
from machine import Pin
from smtp.stream import ticks_diff, ticks_ms

_PAUSE = 2000  # ms
_probes = {}


class Probe:
    def __init__(self, pin, model):
        self.dht = (dht.DHT11 if model == 11 else dht.DHT22)(Pin(pin))
        self.asked = None
        self.fault = None

    def measure(self):
        now = ticks_ms()
        if self.asked is None or ticks_diff(now, self.asked) >= _PAUSE:
            self.asked = now
            self.fault = None
            try:
                self.dht.measure()
                if not self.dht.humidity() and not self.dht.temperature():
                    raise OSError("its answer is empty")
            except Exception as e:
                self.fault = e
        if self.fault:
            raise self.fault


class Driver:
    def __init__(self, rule, board):
        pin = rule["pin"]
        if pin not in _probes:
            _probes[pin] = Probe(pin, rule.get("model", 22))
        self.probe = _probes[pin]
        self.what = rule.get("reads", "temperature")

    def read(self):
        self.probe.measure()
        return getattr(self.probe.dht, self.what)()
