"""Board profile of the Raspberry Pi Pico W and Pico 2 W: about 190 KB of heap (Pico W), 848 KB of flash for files.

lwIP has 5 TCP connections there: one for the relay, and the sessions.
"""

import machine
from boards.board import *  # noqa: F403

LED = "LED"  # behind the Wi-Fi chip
WATCHDOG = 8300  # 8388 is the most that the chip can count

# SLEEPS is "light": deep sleep is the same to this port, and a reset behind it in which everything is forgotten.


def reset_reason():
    """The port calls every reset by software one by the watchdog. When it was really the watchdog, the SDK had left a
    mark in its scratch register 4 (RP2040 data sheet 4.7; of an RP2350 the registers lie elsewhere)."""
    if machine.reset_cause() != machine.WDT_RESET:
        return "power on"
    import sys

    base = 0x400D8000 if "RP2350" in getattr(sys.implementation, "_machine", "") else 0x40058000
    return "watchdog" if machine.mem32[base + 0x1C] == 0x6AB73121 else "reset"
