"""What the simulated hardware takes of the heap, which on a board is machine code: simulated.py DIRECTORY, octets."""

import gc
import sys

sys.path[:] = [sys.argv[1], ".frozen"]
for name in ("os", "vfs", "binascii", "json", "time", "errno"):
    __import__(name)
gc.collect()
before = gc.mem_alloc()
for name in ("hardware", "soc", "machine", "network", "onewire", "ds18x20", "dht"):
    __import__(name)
gc.collect()
print(gc.mem_alloc() - before)
