"""What a board profile is, and what those of microcontrollers have in common.

A profile is one module of this directory: a new board is one new file. It starts with

    from boards.board import *

and then says what is different on its board. Its flash is the file system that is mounted at /. It has

    BARE            True: nobody else looks after network, clock, watchdog and crashes: start.py does, and life.py
    MAX_SESSIONS    SMTP sessions at a time; the next device hears 421. Each takes a socket and about 5 KB
    BUFFER          octets of buffer for each, which bounds a command line
    BACKLOG         connections that wait to be accepted
    TLS_SLOTS       TLS sessions at a time, each takes about 45 KB; 0: any number
    address()       the IP address under which others know this gateway (text)
    nameservers()   IP addresses of name servers (list of texts)
    hosts(name)     IP addresses of a name that need not be asked for, or nothing
    path(name)      where a file that the configuration names is found
    stopped()       coroutine that returns when the gateway shall end

and where it is BARE:

    LED             what machine.Pin takes for the LED on the board, None: there is none that can be relied on
    WATCHDOG        milliseconds after which the chip's watchdog bites
    TIMER           number of a machine.Timer that may be used
    SLEEPS          how [sleep] saves energy: "deep", machine.deepsleep() with machine.RTC().memory(), and waking is a
                    start; or "light", machine.lightsleep(), in which everything stays as it is
    RTC_MEMORY      octets that machine.RTC().memory() keeps in deep sleep
    reset_reason()  why it started: "power on", "watchdog", "reset", "deep sleep", "soft reset" or something else
    restart()       resets the board
    set_clock(now)  sets the system's clock, by which certificates are checked; seconds since 1970

What is loaded only when it is called for is imported there.
"""

import asyncio

import machine

BARE = True
MAX_SESSIONS = 4
BUFFER = 1024
BACKLOG = 2
TLS_SLOTS = 1
LED = None
WATCHDOG = 8000
TIMER = -1
SLEEPS = "light"
RTC_MEMORY = 0

_end = asyncio.Event()


def _ifconfig():
    import network

    wlan = network.WLAN(network.STA_IF)
    return wlan.ifconfig() if wlan.active() else ("0.0.0.0",) * 4


def address():
    return _ifconfig()[0]


def nameservers():
    return [ip for ip in _ifconfig()[3:] if ip != "0.0.0.0"]


def hosts(name):
    return ()


def path(name):
    """Files that the configuration names lie at the top of the flash."""
    return "/" + name[name.rfind("/") + 1 :]


async def stopped():
    await _end.wait()


def stop():
    """Ends the gateway, cleanly. What runs in the REPL or in user.py may call it."""
    _end.set()


def reset_reason():
    cause = machine.reset_cause()
    for name, word in (
        ("PWRON_RESET", "power on"),
        ("HARD_RESET", "reset"),
        ("WDT_RESET", "watchdog"),
        ("DEEPSLEEP_RESET", "deep sleep"),
        ("SOFT_RESET", "soft reset"),
    ):
        if cause == getattr(machine, name, None):
            return word
    return "reason %s" % cause


def restart():
    machine.reset()


def set_clock(now):
    import time

    from clock import _EPOCH

    year, month, day, hour, minute, second, weekday = time.gmtime(now - _EPOCH)[:7]
    machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))
