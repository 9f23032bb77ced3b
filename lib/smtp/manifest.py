# Freezes the library into a firmware of MicroPython 1.23 or later: include() this file in the manifest of a board.

metadata(description="SMTP client, server, queue and relay", version="0.1.0", license="MIT")

import os

for name in sorted(os.listdir()):
    # cpython.py is for CPython alone.
    if name.endswith(".py") and name not in ("manifest.py", "cpython.py"):
        module("smtp/" + name, base_path="..")
