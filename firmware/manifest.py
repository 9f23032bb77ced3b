# Freezes the gateway and its library into a firmware of MicroPython 1.23 or later: its code then takes no heap. In
# ports/rp2 or ports/esp32 of MicroPython's source:
#   make BOARD=RPI_PICO_W FROZEN_MANIFEST=/path/to/edgepost/firmware/manifest.py
#   make BOARD=ESP32_GENERIC FROZEN_MANIFEST=/path/to/edgepost/firmware/manifest.py

import os

try:
    include("$(BOARD_DIR)/manifest.py")  # what the board has anyway: asyncio, ssl
except Exception:  # it has none of its own
    include("$(PORT_DIR)/boards/manifest.py")
include("../lib/smtp/manifest.py")

for path, _, names in sorted(os.walk(".")):
    for name in sorted(names):
        where = os.path.relpath(os.path.join(path, name), ".").replace(os.sep, "/")
        if name.endswith(".py") and where not in ("manifest.py", "boards/unix.py"):
            module(where)
