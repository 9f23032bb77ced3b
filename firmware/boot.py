"""The first that a board runs, also for the REPL and mpremote: nothing here may fail."""

import micropython

if hasattr(micropython, "alloc_emergency_exception_buf"):
    micropython.alloc_emergency_exception_buf(100)  # or an exception in an interrupt has no traceback
