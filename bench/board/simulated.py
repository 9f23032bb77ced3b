"""Stands in the place of life.py: what a simulated board's heap holds without a gateway, octets."""

import gc

for name in ("asyncio", "socket", "ssl", "hardware", "soc", "machine", "network", "onewire", "ds18x20", "dht"):
    __import__(name)
gc.collect()
print(gc.mem_alloc())
