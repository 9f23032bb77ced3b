"""SMTP for MicroPython and CPython: client, server, queue, relay and message.

Each module can be imported alone; none is imported here: a board pays only for what it uses.
"""

__version__ = "0.1.0"
