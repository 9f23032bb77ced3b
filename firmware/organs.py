"""What a board needs while the gateway runs, and nobody else looks after: network, clock, LED, watchdog, and news of
the last crash. Each is loaded only when it is configured. Loaded by gateway where board.BARE.
"""

import gateway

CLOCK = "/clock"  # the last time that was known

station = None  # the wifi.Station, where there is one
keeper = None  # the ntp.Time


def work(board, config, relay, server, listeners):
    """What is to run: a list of (name, function without arguments that gives a coroutine)."""
    global station, keeper
    me = config["board"]
    clock = gateway.time
    log = gateway.log
    jobs = []
    if config.get("wifi"):
        import wifi

        def up():
            if not me["domain"]:
                introduce("[%s]" % board.address(), relay, listeners)

        station = wifi.Station(config["wifi"], log, clock, up, 120 if me.get("ntp") else 0)
        for host in relay.hosts:
            host.rates.append(station)
        jobs.append(("wifi", station.run))
    if me.get("ntp"):
        import ntp

        start = ntp.early(CLOCK)
        if clock.system() < start:
            board.set_clock(start)
        keeper = ntp.Time(
            me["ntp"], clock, relay.resolve, CLOCK, lambda: not station or station.up, log, board.set_clock)
        jobs.append(("clock", keeper.run))
    if me.get("led") not in (None, False):
        import led
        from machine import Pin

        try:
            pin = Pin(board.LED if me["led"] is True else me["led"], Pin.OUT)
        except (TypeError, ValueError) as e:
            raise gateway.Unusable("board.led is %r, and this board has no such pin (%s)" % (me["led"], e))
        jobs.append(("led", lambda: led.run(pin.value, lambda: state(relay, station))))
    if not config.get("sleep"):
        import console

        jobs.append(("console", lambda: console.run(board, config, relay, server)))
    import crash

    if crash.read():
        import report

        jobs.append(("report", lambda: report.run(me["name"])))
    if me.get("watchdog"):
        import watch

        rules = () if config.get("sleep") else gateway.rules
        dog = watch.everything(watch.Watch(clock.uptime, bite), relay, server, rules)
        dog.start(board.WATCHDOG)  # before the first sensor is read, which may hang
        jobs.append(("watchdog", dog.run))
    return jobs


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


def stop(config):
    """Before a clean end."""
    if config["board"].get("ntp") and gateway.time.now():
        import ntp

        try:
            ntp.keep(CLOCK, gateway.time.now(), 3600)
        except OSError as e:
            gateway.log("clock", "cannot write %s: %s" % (CLOCK, e))
