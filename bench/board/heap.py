"""What a board's heap holds after importing modules: heap.py [MODULE ...], octets."""

import gc
import sys

for name in sys.argv[1:]:
    __import__(name)
del sys.argv[:]
gc.collect()
print(gc.mem_alloc())
