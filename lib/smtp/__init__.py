"""SMTP for MicroPython and CPython: client, server, queue, relay and message.

Each module can be imported alone; none is imported here: a board pays only for what it uses.
"""

try:
    from micropython import const
except ImportError:

    def const(value):
        """On MicroPython the compiler puts a constant where its name stands, and drops `_NAME` altogether."""
        return value
