"""dht, simulated: who asks a sensor more often than it can measure is told. See hardware."""

import errno

import hardware
from hardware import misuse, use


class _Base:
    def __init__(self, pin):
        pin.init(pin.OPEN_DRAIN, pin.PULL_UP)
        self.pin = pin.id
        self.last = None
        self.said = None

    def measure(self):
        now = hardware.ticks()
        if self.last is not None and now - self.last < self.pause:
            misuse("a DHT is asked twice within %d ms" % self.pause)
        self.last = now
        use("dht", "dht%d" % self.pin)
        climate = hardware.climate.get(self.pin)
        if climate is None:
            raise OSError(errno.ETIMEDOUT)
        if climate == "noise":
            raise Exception("checksum error")
        self.said = climate

    def known(self):
        if self.said is None:
            misuse("a DHT is read before it measures")
        return self.said

    def temperature(self):
        return self.exact(self.known()[0])

    def humidity(self):
        return self.exact(self.known()[1])


class DHT11(_Base):
    pause = 1000

    def exact(self, value):
        return int(value)


class DHT22(_Base):
    pause = 2000

    def exact(self, value):
        return round(value * 10) * 0.1
