"""The status LED, which somebody at the cupboard can read:

    on                          it starts; or, when it stays on, it does not (see the console)
    on and off, once a second   no network
    a flash every 3 seconds     all is well
    two flashes                 mail waits
    quick flicker               something needs a person: the smart host, a sensor, a mail that nobody got

May use: nothing. Loaded only where [board] led is set.
"""

import asyncio

# ms on, off, on, off ...
PATTERNS = {
    "start": (1000, 0),
    "no network": (500, 500),
    "ok": (60, 2940),
    "mail waits": (60, 240, 60, 2640),
    "trouble": (80, 120),
}


async def run(switch, state):
    """For ever. switch(level) turns the LED on (1) or off (0); state() gives a key of PATTERNS."""
    while True:
        level = 1
        for ms in PATTERNS[state()]:
            if ms:
                switch(level)
                await asyncio.sleep(ms / 1000)
            level = 1 - level
