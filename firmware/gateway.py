"""The gateway application: reads /config.json, then runs server, relay and sensor rules under one supervisor.

    import gateway
    gateway.alert("Freezer warm", "-12.3 at the top shelf")

A board is a module of boards/: where the flash is, how many sessions fit, what stops it.
"""

import asyncio
import binascii
import gc
import json
import sys

import clock
from smtp.message import compose, parse_mailbox
from smtp.queue import Queue, QueueFull
from smtp.reply import SMTPError

_AMPLE = 98304  # octets of free heap from which on what is seldom used is loaded at the start
PRIORITY = {"urgent": 0, "normal": 1, "low": 2}

queue = None
time = None
rules = []  # a sensors.Rule for each [[sensor]]
resolve = None  # as smtp.dns.Resolver.resolve, where there is one
file = None  # the logfile.Log, where [log] is configured
_mail = {}
_storms = None


class Unusable(Exception):
    """The gateway cannot start; the text says why and what to do."""


def log(area, text, urgent=False):
    """One line of the log. Line ends and control characters in it become "?", so that no peer can forge a line.
    urgent: it is written to flash at once, where there is a log."""
    now = time.now() if time else None
    if now is None:
        stamp = "+%d" % (time.uptime() if time else 0)
    else:
        now += time.offset(now)
        stamp = "%02d:%02d:%02d" % (now // 3600 % 24, now // 60 % 60, now % 60)
    for c in text:  # without a list: there may be little memory
        if c < " " or c == "\x7f":
            text = text.replace(c, "?")
    text = "%s %s: %s" % (stamp, area, text)
    try:
        print(text)
    except OSError:
        pass  # nobody listens any more: mail goes on
    if file:
        file.add(text, now, urgent)


def alert(subject, text="", to=None, priority="normal", rule=None, html=None, cc=(), bcc=(), reply_to=(),
          attachments=(), inline=()):
    """Queues an alert; returns its identity (str) when it is committed in flash and will survive a power cut.

    to, cc, bcc: lists of addresses, to is the configuration's [mail] to by default; priority: "urgent", "normal" or
    "low"; rule: a name (str): alerts of one rule that follow one another within [mail] fold become one mail with their
    number, and the attachments of the last. html, reply_to, attachments, inline, and a text that is no str: see
    smtp.mime.compose; a file is named as open() takes it. Nothing else runs while an attachment is read.
    Raises smtp.queue.QueueFull when there is no room, ValueError for an address that is none, OSError for a file that
    cannot be read, and whatever an attachment raises: then nothing is queued.
    """
    global _storms
    now = time.now()
    sender = _mail["from"]
    if to is None:
        to = _mail["to"]
    elif isinstance(to, str):
        to = [to]
    mime = None
    extra = ()
    if html or cc or bcc or reply_to or attachments or inline or not isinstance(text, str):
        from smtp import mime

        rcpts = mime.recipients(to, cc, bcc)
    else:
        rcpts = [parse_mailbox(a)[1] for a in to]
        if priority != "normal":
            from smtp.urgency import fields

            extra = fields(priority)
    if not rcpts:
        raise ValueError("this alert is for nobody: give it a `to`, or set [mail] to")
    meta = {
        "f": parse_mailbox(sender)[1],
        "r": rcpts,
        "t": now or 0,
        "u": time.uptime(),
    }

    def mail(subject, whole):
        """whole: the text, with what a fold adds to it."""
        offset = time.offset(now or 0)
        if not mime:
            return compose(sender, to, subject, whole, now, offset, None, extra)
        shown = html
        if html and whole is not text:
            shown = html + "<p>" + whole[len(text) :]
        return mime.compose(sender, to, subject, whole if text or not html else "", shown, cc, reply_to, attachments,
                            inline, priority, now, offset)

    window = _mail.get("fold", 600)
    if rule and window and isinstance(text, str) and (not html or isinstance(html, str)):
        if _storms is None:
            from smtp.fold import Storms

            _storms = Storms(queue, int(window), time.offset)
        ident, count = _storms.add(rule, meta, subject, text, mail, PRIORITY[priority])
    else:
        ident, count = queue.add(meta, mail(subject, text), PRIORITY[priority], True), 1
    log("alert", "%s queued%s: %s" % (ident, ", %d alerts in one mail" % count if count > 1 else "", subject))
    return ident


class Intake:
    """What the listeners do with mail (see smtp.server for the protocol): into the queue, and what has no room there
    through `relay` to the smart host while it arrives, unless that is None."""

    devices = None

    def __init__(self, most, relay=None):
        self.most = most  # octets that a mail may have
        self.relay = relay
        if relay and getattr(gc, "mem_free", int)() > _AMPLE:
            from smtp import cut  # noqa: F401 (now: later it would leave the heap in pieces)
        room = min(queue.max_bytes, queue.free() + queue.used - queue.reserve)
        self.room = room - room // 128 - queue.block  # and that a mail may have in an empty spool
        self.large = []  # peers that sent more without saying so first

    def limit(self):
        if not self.relay:
            return min(self.most, self.room)
        limits = [host.limit for host in self.relay.hosts]
        return min(self.most, 0 not in limits and max(limits) or self.most)

    def rcpt(self, envelope, address):
        # RFC 5321 4.5.1: mail for postmaster reaches a person.
        if address.lower() in ("postmaster", "postmaster@" + _mail["domain"].lower()):
            to = _mail.get("admin") or (_mail.get("to") or [""])[0]
            if not to:
                raise SMTPError(550, "5.1.1", "nobody is postmaster here, [mail] admin is not set")
            return parse_mailbox(to)[1]

    def open(self, envelope):
        how = (1 if envelope.esmtp else 0) | (2 if envelope.tls else 0) | (4 if envelope.user else 0)
        meta = {
            "f": envelope.sender,
            "r": envelope.rcpts,
            "t": time.now() or 0,
            "u": time.uptime(),
            "p": envelope.peer,
            "h": envelope.helo,
            "x": how,
        }
        if envelope.dsn:
            meta["d"] = envelope.dsn
        if envelope.notify:
            meta["n"] = envelope.notify
        device = self.devices.find(envelope) if self.devices else {}
        if device.get("sender"):
            meta["q"] = device["sender"]
        priority = PRIORITY[device.get("priority", "normal")]
        if envelope.extra:
            from smtp.extra import level

            meta["e"] = envelope.extra
            if "priority" not in device:
                priority = level(envelope.extra, priority)
        if self.relay and not envelope.size and envelope.peer in self.large:
            return self.through(envelope, meta, priority)
        try:
            return Sink(self, envelope, meta, queue.new(meta, priority, envelope.size, "dead"))
        except QueueFull as e:
            if self.relay:
                return self.through(envelope, meta, priority, e)
            raise full(e)

    async def through(self, envelope, meta, priority, why=None):
        """A sink that passes the mail on. why: the QueueFull that kept it out of the queue, or None."""
        try:
            from smtp import cut

            return await cut.through(self.relay, envelope, meta)
        except SMTPError as e:
            if e.code >= 500 or envelope.size > self.room:
                raise
        try:
            if why:
                raise why
            return Sink(self, envelope, meta, queue.new(meta, priority, 0, "dead"))
        except QueueFull as e:
            raise full(e)


def full(e):
    log("server", "no room for a mail: %s; the device will try again" % e)
    return SMTPError(452, "4.3.1", "no room: %s" % e)


class Sink:
    """A mail on its way into the queue."""

    def __init__(self, intake, envelope, meta, writer):
        self.intake = intake
        self.envelope = envelope
        self.meta = meta
        self.writer = writer

    def write(self, piece):
        try:
            return self.writer.write(piece)
        except QueueFull as e:
            if self.intake.relay:
                return self.switch(piece)
            raise full(e)

    async def switch(self, piece):
        intake = self.intake
        peer = self.envelope.peer
        if peer not in intake.large:
            intake.large = intake.large[-7:] + [peer]
        from smtp import cut

        self.writer = await cut.switch(intake.relay, self.envelope, self.meta, self.writer, piece)

    def abort(self):
        self.writer.abort()

    def commit(self):
        try:
            ident = self.writer.commit()
        except QueueFull as e:
            self.abort()
            raise full(e)
        if not isinstance(ident, str):  # not the queue's: it passes through
            return ident
        e = self.envelope
        log("server", "%s queued: from <%s> at %s to %s, %d octets" % (
            ident, e.sender, e.peer, ", ".join(e.rcpts), self.writer.size))
        return "queued as " + ident


async def supervise(name, work):
    """Runs `work()`, a function that gives a coroutine, for ever: when it fails, says so and starts it again."""
    delay = 1
    while True:
        started = time.uptime()
        try:
            await work()
        except Exception as e:
            log(name, "failed, starts again in %d s:" % delay)
            sys.print_exception(e)
            if file:
                file.error(e)
        if time.uptime() - started > 600:
            delay = 1
        await asyncio.sleep(delay)
        delay = min(delay * 2, 60)


async def end(tasks):
    """Ends tasks. MicroPython's wait_for() loses a cancel that comes just when what it waits for is there."""
    while tasks:
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.02)
        tasks = [t for t in tasks if not t.done()]


def read_config(path="/config.json"):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError:
        raise Unusable("there is no " + path)
    except ValueError:
        raise Unusable(path + " is no JSON: write it again with the host's tools")


def listens(config):
    """True when anybody may connect: else nothing of the server is loaded."""
    return config["listener"] or config.get("status")


async def main(board):
    global queue, time, file, _storms
    config = read_config()
    if listens(config):
        from smtp import listen, relay, server  # noqa: F401 (now: later they would leave the heap in pieces)
    me = config["board"]
    time = clock.Clock(me["tz"], not (board.BARE and me.get("ntp")))
    time.offset(0)  # a wrong rule is found now, not in the first line of the log that has a time
    work = []
    if board.BARE or config.get("log") or config.get("status"):
        import crash

        crash.learn(config)
    if config.get("log"):
        import logfile

        file = logfile.Log("/log.txt", config["log"]["max_bytes"], config["queue"].get("reserve", 32768), time.uptime)
        work.append(("log", file.run))
    if config.get("status"):
        import status  # now: later it would leave the heap in pieces

        file = file or status.Ring()
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
    queue = Queue("/spool", q["max_bytes"], q.get("max_count", 1000), q.get("reserve", 32768), time.uptime,
                  q.get("displace", "dead"))
    queue.log = lambda text: log("queue", text)
    _storms = None
    if config["sensor"]:
        import sensors

        told = sensors.Told("/rules.json", log)
        rules[:] = [sensors.Rule(rule, board, alert, log, time.uptime, told) for rule in config["sensor"]]
        if config.get("fetch", {}).get("senders"):
            import limits

            limits.restore(rules)
    if board.BARE and config.get("sleep"):
        import sleep

        return await sleep.run(board, config, work)
    work += [("sensor " + rule.name, rule.run) for rule in rules]
    if _mail.get("heartbeat"):
        import heartbeat

        every = _mail["heartbeat"] + 0
        work.append(("heartbeat", lambda: heartbeat.run(
            every, me["name"], rules, queue, time.uptime, alert, log)))
    await serve(board, config, work)


async def serve(board, config, work, over=None):
    """Runs relay, server and `work` until the board is stopped, or until over(relay), a coroutine, returns."""
    global resolve
    from smtp.network import parse_ip
    from smtp.relay import Relay, SmartHost
    from smtp.slots import Slots

    me = config["board"]
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
        relay.resolve = resolve = resolver.resolve
        if hops:
            relay.resolver = resolver
    slots = board.TLS_SLOTS and Slots(board.TLS_SLOTS)
    relay.slots = slots
    server = None
    if listens(config) and not over:
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
        if item.get("extra"):
            from smtp import onward, utf8  # noqa: F401 (now: later they would leave the heap in pieces)
            from smtp.extra import Extra

            Extra(listener, item["extra"])
        if hops:
            hops.listen(listener, item, relay)
        if slots:
            listener.slots = slots
            listener.timeout = 60000  # a device that does nothing keeps others from TLS
        where = "%s port %d" % (item["address"], item["port"])
        try:
            work.append(("server", server.bind(item["address"], item["port"], listener, board.BACKLOG)))
        except OSError as e:
            raise Unusable("cannot listen on %s (error %s): stop the program that uses this port, or set another "
                           "listener.port" % (where, e.args[0]))
        log("server", "listening on " + where)
    if config.get("ping") and not over:
        import health
        import ping

        patience = config["ping"]["oldest"]
        work.append(("ping", lambda: ping.Ping(config["ping"], slots, log).run(
            lambda: health.well(queue, relay, rules, time.uptime, patience), relay.resolve)))
    if config.get("status") and not over:
        import status

        work += status.work(board, config, relay, server)
    if config.get("fetch"):
        work.append(("fetch", hops.fetching(config, relay)))
    if board.BARE:
        import organs

        work += organs.work(board, config, relay, server, listeners)
    count = len(queue), queue.dead + queue.kept, queue.damaged + queue.junk
    if sum(count):
        log("queue", "%d mails wait, %d dead letters, %d damaged" % count)
    tasks = [asyncio.create_task(supervise(name, w)) for name, w in work]
    log("gateway", "ready")
    await (over(relay) if over else board.stopped())
    log("gateway", "stopping")
    await relay.finish()
    await end(tasks)
    if server:
        await server.close()
    if board.BARE and not over:
        organs.stop(config)
    if file:
        file.flush()


def run(board):
    """Runs the gateway until `board.stopped()` returns. Raises Unusable when it cannot start."""
    try:
        asyncio.run(main(board))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        # What runs is under supervise(): this was said of the configuration.
        import wrong

        raise Unusable("the configuration cannot be used (%s): write it again with the host's tools" % (
            wrong.find(read_config()) or "%s: %s" % (type(e).__name__, e)))
