"""Puts the gateway together: out of the configuration, all that runs. It is done once, then gateway.main() gives its
memory back; only with [sleep] it is done for each session.

May use: gateway, and what is configured. What it makes must not need its functions later, nor be looked up in it.
"""

import asyncio
import binascii
import gc

import clock
import gateway
from gateway import Intake, _mail, alert, log, rules, supervise
from smtp import const
from smtp.queue import Queue

_LITTLE = const(40960)  # octets of free heap below which what makes alerts is not kept


def prepare(board):
    """Reads the configuration and makes what all else needs: clock, log, queue, rules. Returns (config, work)."""
    config = gateway.read_config()
    if gateway.listens(config):
        from smtp import listen, relay, server  # noqa: F401 (now: later they would leave the heap in pieces)
    me = config["board"]
    gateway.time = time = clock.Clock(me["tz"], not (board.BARE and me.get("ntp")))
    time.offset(0)  # a wrong rule is found now, not in the first line of the log that has a time
    work = []
    if board.BARE or config.get("log") or config.get("status"):
        import crash

        crash.learn(config)
    if config.get("log"):
        import logfile

        gateway.file = file = logfile.Log(
            "/log.txt", config["log"]["max_bytes"], config["queue"].get("reserve", 32768), time.uptime)
        work.append(("log", file.run))
    if config.get("status"):
        import status  # now: later it would leave the heap in pieces

        gateway.file = gateway.file or status.Ring()
    if board.BARE and board.reset_reason() != "deep sleep":
        log("gateway", "starts after: " + board.reset_reason())
    domain = me["domain"]
    if not domain:  # RFC 5321 4.1.3
        # To ask for it costs an ESP32 as much as to switch the radio on; organs.py knows it then.
        domain = "0.0.0.0" if board.BARE and config.get("sleep") else board.address()
        domain = "[%s%s]" % ("IPv6:" if ":" in domain else "", domain)
    _mail.update(config["mail"])
    _mail["domain"] = domain
    q = config["queue"]
    gateway.queue = queue = Queue(
        "/spool", q["max_bytes"], q.get("max_count", 1000), q.get("reserve", 32768), time.uptime,
        q.get("displace", "dead"))
    queue.log = lambda text: log("queue", text)
    gateway._storms = None
    if config["sensor"]:
        import sensors

        told = sensors.Told("/rules.json", log)
        again = gateway.read_config()["sensor"]  # the names that sensors.py knows as well are in memory once now
        rules[:] = [sensors.Rule(rule, board, alert, log, time.uptime, told) for rule in again]
        if config.get("fetch", {}).get("senders"):
            import limits

            limits.restore(rules)
    if board.BARE and config.get("sleep"):
        return config, work
    work += [("sensor " + rule.name, rule.run) for rule in rules]
    if _mail.get("heartbeat"):
        import heartbeat

        every, name = _mail["heartbeat"] + 0, me["name"]
        work.append(("heartbeat", lambda: heartbeat.run(every, name, rules, queue, time.uptime, alert, log)))
    return config, work


def build(board, config, work, network=True):
    """Starts relay, server and `work`. network: devices may connect. Returns (relay, server or None, tasks)."""
    from smtp.network import parse_ip
    from smtp.relay import Relay, SmartHost
    from smtp.slots import Slots

    me = config["board"]
    queue, time = gateway.queue, gateway.time
    q = config["queue"]
    domain = _mail["domain"]
    accounts = ()
    smart = [dict(h) for h in config["smarthost"]]  # with [sleep] this is run again
    if [h for h in smart if "oauth" in h]:
        from accounts import sign_in

        accounts = sign_in(smart, time, log)
    hops = config.get("hops") and __import__("hops")  # what few gateways have
    hosts = hops.hosts(smart) if hops else [SmartHost(**h) for h in smart]
    if [h for h in hosts if h.username]:
        from smtp import sasl  # noqa: F401 (now: later it would leave the heap in pieces)
    if [h for h in hosts if h.sender]:
        from smtp import sender  # noqa: F401 (likewise)
    relay = (hops.relay(config) if hops else Relay)(
        queue, hosts, domain, time, _mail.get("from", ""), lambda text: log("relay", text))
    for name in ("retry", "retry_max", "pause", "pause_max", "delay_notice", "expire", "gather"):
        if name in q:
            setattr(relay, name, max(1, int(q[name])))  # the queue counts in whole seconds
    relay.bounce = q.get("bounce", True)
    relay.admin = _mail.get("admin") or ""
    queue.reports = bool(relay.admin)
    names = [h.host for h in hosts] + [r["host"] for r in config["sensor"] if "host" in r]
    if config.get("fetch"):
        names.append(config["fetch"]["host"])
    if [n for n in names if not parse_ip(n)] or accounts or board.BARE and me.get("ntp") or config.get("ping"):
        from smtp.dns import Resolver

        resolver = Resolver(me.get("dns") or board.nameservers, time.uptime, board.hosts)
        relay.resolve = gateway.resolve = resolver.resolve
        if hops:
            relay.resolver = resolver
    slots = board.TLS_SLOTS and Slots(board.TLS_SLOTS)
    relay.slots = slots
    server = None
    if gateway.listens(config) and network:
        from smtp.listen import server_context
        from smtp.server import Listener, Server

        most = board.MAX_SESSIONS - (1 if config.get("status") else 0)  # it needs a socket, too
        # One device that runs wild leaves room for the others.
        server = Server(most, board.BUFFER, most - max(2, most // 4))
        intake = Intake(q["max_message"], relay if q.get("cut_through", True) else None)
        if config.get("device"):
            from devices import Devices

            intake.devices = Devices(config["device"], time.uptime)
    work.append(("relay", relay.run))
    listeners = []
    for tokens in accounts:
        tokens.slots = slots
        work.append(("oauth", lambda tokens=tokens: tokens.keep(relay.resolve)))
    for item in config["listener"]:
        context = None
        if item["tls"] != "none":
            context = server_context(binascii.a2b_base64(item["cert"]), binascii.a2b_base64(item["key"]))
        listener = Listener(
            domain, intake, item["allow"], item["users"], item["tls"], context, item["auth_in_clear"],
            q["max_message"], lambda text: log("server", text))
        listeners.append(listener)
        listener.dsn = True
        listener.greet_delay = int(item.get("greeting_delay", 0) * 1000)
        listener.bare = item.get("bare_newline", "fix")
        if hops:
            hops.listen(listener, item, relay)
        if item.get("extra") or item.get("protocol"):
            from smtp import onward, utf8  # noqa: F401 (now: later they would leave the heap in pieces)
            from smtp.extra import Extra, Wishes

            intake.devices = Wishes(intake.devices)
            if item.get("extra"):
                Extra(listener, item["extra"])
        if slots:
            listener.slots = slots
            listener.timeout = 60000  # a device that does nothing keeps others from TLS
        where = "%s port %d" % (item["address"], item["port"])
        try:
            work.append(("server", server.bind(item["address"], item["port"], listener, board.BACKLOG)))
        except OSError as e:
            raise gateway.Unusable(
                "cannot listen on %s (error %s): stop the program that uses this port, or set another listener.port"
                % (where, e.args[0]))
        log("server", "listening on " + where)
    if config.get("ping") and network:
        import health
        import ping

        work.append(("ping", lambda table=config["ping"]: ping.Ping(table, slots, log).run(
            lambda: health.well(queue, relay, rules, time.uptime, table["oldest"]), relay.resolve)))
    if config.get("status") and network:
        import status

        work += status.work(board, config, relay, server)
    if config.get("fetch"):
        work.append(("fetch", hops.fetching(config, relay)))
    if board.BARE:
        work += equip(board, config, relay, server, listeners)
    count = len(queue), queue.dead + queue.kept, queue.damaged + queue.junk
    if sum(count):
        log("queue", "%d mails wait, %d dead letters, %d damaged" % count)
    gc.collect()
    little = _LITTLE * 2 if config.get("status") else _LITTLE
    if getattr(gc, "mem_free", lambda: little)() < little:
        gateway.lent = "wording", "smtp.mime", "smtp.message"
    elif rules:
        from smtp import message  # noqa: F401 (now: later it would leave the heap in pieces)
    tasks = [asyncio.create_task(supervise(name, w)) for name, w in work]
    log("gateway", "ready")
    return relay, server, tasks


def equip(board, config, relay, server, listeners):
    """What a board needs and nobody else looks after: network, clock, LED, watchdog, and news of the last crash. Each
    is loaded only when it is configured. Returns what is to run: a list of (name, function that gives a coroutine)."""
    import organs

    station = organs.station = organs.keeper = None
    me = config["board"]
    name = me["name"]
    clock = gateway.time
    log = gateway.log
    jobs = []
    if config.get("wifi"):
        import wifi

        def up():
            organs.introduce("[%s]" % board.address(), relay, listeners)

        station = organs.station = wifi.Station(
            config["wifi"], log, clock, None if me["domain"] else up, 120 if me.get("ntp") else 0)
        for host in relay.hosts:
            host.rates.append(station)
        jobs.append(("wifi", station.run))
    if me.get("ntp"):
        import ntp

        start = ntp.early(organs.CLOCK)
        if clock.system() < start:
            board.set_clock(start)
        organs.keeper = ntp.Time(
            me["ntp"], clock, relay.resolve, organs.CLOCK, lambda: not station or station.up, log, board.set_clock)
        jobs.append(("clock", organs.keeper.run))
    if me.get("led") not in (None, False):
        import led
        from machine import Pin

        try:
            pin = Pin(board.LED if me["led"] is True else me["led"], Pin.OUT)
        except (TypeError, ValueError) as e:
            raise gateway.Unusable("board.led is %r, and this board has no such pin (%s)" % (me["led"], e))
        jobs.append(("led", lambda: led.run(pin.value, lambda: organs.state(relay, station))))
    if not config.get("sleep"):
        import console

        jobs.append(("console", lambda: console.run(board, name, relay, server)))
    import crash

    if crash.read():
        import report

        jobs.append(("report", lambda: report.run(name)))
    if me.get("watchdog"):
        import watch

        rules = () if config.get("sleep") else gateway.rules
        dog = watch.everything(watch.Watch(clock.uptime, organs.bite), relay, server, rules)
        dog.start(board.WATCHDOG)  # before the first sensor is read, which may hang
        jobs.append(("watchdog", dog.run))
    return jobs
