"""How a board is while the gateway runs: its network and clock, what its LED shows, and what is said when the watchdog
bites. start.equip() makes all that, where board.BARE.
"""

import gateway

CLOCK = "/clock"  # the last time that was known

station = None  # the wifi.Station, where there is one
keeper = None  # the ntp.Time


def introduce(domain, relay, listeners):
    """From here on the gateway calls itself `domain`, an address literal (RFC 5321 4.1.3)."""
    relay.name = gateway._mail["domain"] = domain
    for listener in listeners:
        listener.domain = domain
        listener.greeting = b"220 %s ESMTP\r\n" % domain.encode()
        listener.resize(listener.max_size)


def state(relay, station):
    """How things are: a key of led.PATTERNS."""
    queue = gateway.queue
    if station and not station.up:
        return "no network" if station.failures or station.since else "start"
    if relay.told or queue.dead or queue.damaged or [r for r in gateway.rules if r.fault]:
        return "trouble"
    return "mail waits" if len(queue) else "ok"


def bite(text):
    """The watchdog is not fed any more."""
    import crash

    gateway.log("watchdog", text + ": the board is reset", True)
    crash.note("the watchdog reset the board: " + text, "", gateway.time.uptime())


def stop():
    """Before a clean end."""
    if keeper and gateway.time.now():
        import ntp

        try:
            ntp.keep(CLOCK, gateway.time.now(), 3600)
        except OSError as e:
            gateway.log("clock", "cannot write %s: %s" % (CLOCK, e))
