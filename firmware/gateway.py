"""The gateway application: reads /config.json, then runs server, relay and sensor rules under one supervisor.

    import gateway
    gateway.alert("Freezer warm", "-12.3 at the top shelf")

A board is a module of boards/: where the flash is, how many sessions fit, what stops it.
"""

import asyncio
import gc
import json
import sys

from smtp.queue import QueueFull
from smtp.reply import SMTPError

_AMPLE = 98304  # octets of free heap from which on what is seldom used is loaded at the start
PRIORITY = {"urgent": 0, "normal": 1, "low": 2}

queue = None
time = None
rules = []  # a sensors.Rule for each [[sensor]]
resolve = None  # as smtp.dns.Resolver.resolve, where there is one
file = None  # the logfile.Log, where [log] is configured
starved = None  # called when a job had no memory, as Relay.starved
lent = ()  # modules that are loaded for an alert, and forgotten then: there is little memory
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
    from smtp.message import compose, parse_mailbox

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
    for name in lent:
        unload(name)
    return ident


def unload(name):
    """Forgets a module that was loaded for a moment."""
    if sys.modules.pop(name, None):
        package, _, name = name.rpartition(".")
        if package:
            delattr(sys.modules[package], name)


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
            from smtp.message import parse_mailbox

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
        meta.update(device.get("meta", {}))
        priority = PRIORITY[device.get("priority", "normal")]
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
            try:
                log(name, "failed, starts again in %d s:" % delay)
                sys.print_exception(e)
                if file:
                    file.error(e)
            except MemoryError:
                pass  # to go on is more than to say so
            if isinstance(e, MemoryError) and starved:
                starved()
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


async def attend(board, relay, server, tasks, over=None):
    """Until the board is stopped, or until over(relay), a coroutine, returns; then all of it ends."""
    await (over(relay) if over else board.stopped())
    log("gateway", "stopping")
    await relay.finish()
    await end(tasks)
    if server:
        await server.close()
    if board.BARE and not over:
        import organs

        organs.stop()
    if file:
        file.flush()


async def main(board):
    import start

    config, work = start.prepare(board)
    if board.BARE and config.get("sleep"):
        import sleep

        return await sleep.run(board, config, work)
    parts = start.build(board, config, work)
    # What runs once gives its memory back. Its module lives on in the functions that it has made.
    config = work = None
    del sys.modules["start"], start.prepare, start.build, start.equip
    unload("smtp.spool")
    await attend(board, *parts)


def run(board):
    """Runs the gateway until `board.stopped()` returns. Raises Unusable when it cannot start."""
    try:
        asyncio.run(main(board))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        # What runs is under supervise(): this was said of the configuration.
        import wrong

        raise Unusable("the configuration cannot be used (%s): write it again with the host's tools" % (
            wrong.find(read_config()) or "%s: %s" % (type(e).__name__, e)))
