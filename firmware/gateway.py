"""The gateway application: reads /config.json, then runs server, relay and sensor rules under one supervisor.

    import gateway
    gateway.alert("Freezer warm", "-12.3 at the top shelf")

A board is a module of boards/: where the flash is, how many sessions fit, what stops it.
"""

import asyncio
import binascii
import json
import sys

import clock
from smtp.listen import server_context
from smtp.message import compose, parse_mailbox
from smtp.queue import Queue, QueueFull
from smtp.relay import Relay, SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener, Server
from smtp.slots import Slots

PRIORITY = {"urgent": 0, "normal": 1, "low": 2}

queue = None
time = None
_mail = {}


class Unusable(Exception):
    """The gateway cannot start; the text says why and what to do."""


def log(area, text):
    """One line of the log. Line ends and control characters in it become "?", so that no peer can forge a line."""
    now = time.now() if time else None
    if now is None:
        stamp = "+%d" % (time.uptime() if time else 0)
    else:
        now += time.offset(now)
        stamp = "%02d:%02d:%02d" % (now // 3600 % 24, now // 60 % 60, now % 60)
    text = "".join([c if c >= " " and c != "\x7f" else "?" for c in text])
    try:
        print("%s %s: %s" % (stamp, area, text))
    except OSError:
        pass  # nobody listens any more: mail goes on


def alert(subject, text="", to=None, priority="normal"):
    """Queues an alert; returns its identity (str) when it is committed in flash and will survive a power cut.

    to: list of addresses, the configuration's [mail] to by default; priority: "urgent", "normal" or "low". Raises
    smtp.queue.QueueFull when there is no room, ValueError for an address that is none.
    """
    now = time.now()
    rcpts = to or _mail["to"]
    meta = {
        "f": parse_mailbox(_mail["from"])[1],
        "r": [parse_mailbox(a)[1] for a in rcpts],
        "t": now or 0,
        "u": time.uptime(),
    }
    pieces = compose(_mail["from"], rcpts, subject, text, now, time.offset(now or 0))
    ident = queue.add(meta, pieces, PRIORITY[priority])
    log("alert", "%s queued: %s" % (ident, subject))
    return ident


class Intake:
    """What the listeners do with mail: into the queue (see smtp.server for the protocol)."""

    devices = None

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
        try:
            return Sink(envelope, queue.new(meta, PRIORITY[device.get("priority", "normal")], envelope.size))
        except QueueFull as e:
            raise full(e)


def full(e):
    log("server", "no room for a mail: %s; the device will try again" % e)
    return SMTPError(452, "4.3.1", "no room: %s" % e)


class Sink:
    """A mail on its way into the queue."""

    def __init__(self, envelope, writer):
        self.envelope = envelope
        self.writer = writer
        self.abort = writer.abort

    def write(self, piece):
        try:
            self.writer.write(piece)
        except QueueFull as e:
            raise full(e)

    def commit(self):
        try:
            ident = self.writer.commit()
        except QueueFull as e:
            self.abort()
            raise full(e)
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
        if time.uptime() - started > 600:
            delay = 1
        await asyncio.sleep(delay)
        delay = min(delay * 2, 60)


def read_config(path="/config.json"):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError:
        raise Unusable("there is no " + path)
    except ValueError:
        raise Unusable(path + " is no JSON: write it again with the host's tools")


async def main(board):
    global queue, time
    config = read_config()
    me = config["board"]
    time = clock.Clock(me["tz"])
    domain = me["domain"]
    if not domain:  # RFC 5321 4.1.3
        domain = board.address()
        domain = "[%s%s]" % ("IPv6:" if ":" in domain else "", domain)
    _mail.update(config["mail"])
    _mail["domain"] = domain
    q = config["queue"]
    queue = Queue("/spool", q["max_bytes"], uptime=time.uptime)
    hosts = [SmartHost(**h) for h in config["smarthost"]]
    relay = Relay(queue, hosts, domain, time, _mail.get("from", ""), lambda text: log("relay", text))
    for name in ("retry", "retry_max", "pause", "pause_max", "delay_notice", "expire", "gather"):
        if name in q:
            setattr(relay, name, max(1, int(q[name])))  # the queue counts in whole seconds
    relay.bounce = q.get("bounce", True)
    relay.admin = _mail.get("admin") or ""
    slots = board.TLS_SLOTS and Slots(board.TLS_SLOTS)
    relay.slots = slots
    # One device that runs wild leaves room for the others.
    server = Server(board.MAX_SESSIONS, board.BUFFER, board.MAX_SESSIONS - max(2, board.MAX_SESSIONS // 4))
    intake = Intake()
    if config.get("device"):
        from devices import Devices

        intake.devices = Devices(config["device"], time.uptime)
    work = [("relay", relay.run)]
    for item in config["listener"]:
        context = None
        if item["tls"] != "none":
            context = server_context(binascii.a2b_base64(item["cert"]), binascii.a2b_base64(item["key"]))
        listener = Listener(
            domain, intake, item["allow"], item["users"], item["tls"], context, item["auth_in_clear"],
            q["max_message"], lambda text: log("server", text))
        listener.dsn = True
        listener.greet_delay = int(item.get("greeting_delay", 0) * 1000)
        listener.bare = item.get("bare_newline", "fix")
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
    for rule in config["sensor"]:
        import sensors

        work.append(("sensor " + rule["name"], sensors.Rule(rule, board, alert, log).run))
    count = len(queue), queue.dead + queue.kept, queue.damaged + queue.junk
    if sum(count):
        log("queue", "%d mails wait, %d dead letters, %d damaged" % count)
    tasks = [asyncio.create_task(supervise(name, w)) for name, w in work]
    log("gateway", "ready")
    await board.stopped()
    log("gateway", "stopping")
    await relay.finish()
    for task in tasks:
        task.cancel()
    await server.close()
    for task in tasks:
        try:
            await task
        except asyncio.CancelledError:
            pass


def run(board):
    """Runs the gateway until `board.stopped()` returns. Raises Unusable when it cannot start."""
    try:
        asyncio.run(main(board))
    except (KeyError, TypeError, ValueError) as e:
        # What runs is under supervise(): this was said of the configuration.
        raise Unusable("the configuration cannot be used (%s: %s): write it again with the host's tools" % (
            type(e).__name__, e))
