"""Board profile of the ESP32 family, such as an ESP32 DevKit with 4 MB of flash: 2 MB for files, heap that grows.

There is no LED that all boards have: [board] led names its pin (2 on many DevKits). An exception in machine code
counts as a reset by software: only MicroPython's own crashes, and the watchdog's, are told apart.
"""

from boards.board import *  # noqa: F403

MAX_SESSIONS = 6  # of 10 sockets: listener, relay, name server and clock take the others
BACKLOG = 4
WATCHDOG = 10000
TIMER = 0
SLEEPS = "deep"
RTC_MEMORY = 2048
