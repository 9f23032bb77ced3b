"""A gateway with its neighbours, in one process and in virtual time: nothing depends on a kernel, a clock or the speed
of this computer, and each run is the same.

    world = World(path)                   a directory for the spool
    world.run(story(world))               async def story(world): world.alert("a1"); await world.sleep(60)

The queue, the relay, its client, the listener's sessions and gateway.alert are the real ones. Instead of sockets there
is a Link: it runs the client's session and that of a smart host against each other. The smart hosts, the devices on the
LAN and what they know (`facts`) have no part in the gateway's power.

What becomes of a mail is in its addresses. A mail's name, "m3-5000", is its sender, its subject, and its recipients up
to the dot; behind the "-" is the size of its text. The domain of a recipient says how a smart host treats it: see Host.

Facts, in order: (what, recipient or ...):

    promised   the mail's 250 was seen, or alert() returned     taken     a smart host answered 250 for a whole mail
    raised     an alert of a rule is about to be queued         stormed   ... and was promised
    recorded   the queue has committed a step of a mail         settled   ... what became of this recipient
    noting     the queue is about to commit a notification      told      a smart host took one about this recipient
    folded     a smart host took so many alerts of a rule       reported  the admin was told about this recipient
    broke      a connection broke                               cut       the power went
    wrong      what must never be: half a mail, a strange one

May use: play, virtualtime.
"""

import asyncio
import os
import random
import sys

import gateway
from play import Player
from play import Random as Dice
from smtp import displace as displace_module
from smtp import dsn as dsn_module
from smtp import letters as letters_module
from smtp import queue as queue_module
from smtp import relay as relay_module
from smtp.client import Client, SessionError, open_session
from smtp.queue import Queue, QueueFull
from smtp.relay import Relay, SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import CHUNK, DATA, LINE, SEND, SLEEP, Wire
from virtualtime import NOON, Clock, run, ticks  # noqa: F401 (also for those who import world)

MICROPYTHON = sys.implementation.name == "micropython"


class PowerCut(BaseException):
    """The gateway has no power any more."""


# -- mail


def text(name):
    """The text of a mail, lines with CRLF."""
    size = int(name.rpartition("-")[2])
    out = []
    n = 0
    while size > 2:
        line = b"." * (n % 7 == 3) + ("%s %d " % (name, n)).encode()
        line += b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[n % 9 :]
        line = line[: min(size - 2, 70)]
        out.append(line + b"\r\n")
        size -= len(line) + 2
        n += 1
    return b"".join(out)


def name_of(rcpt):
    return rcpt.partition("@")[0].partition(".")[0]


class End(Wire):
    """The gateway's end of a connection, as stream.Stream is one. The other end runs when this one waits: put(data)
    gives it what was said, what it answers goes into `inbox`; more() says whether an answer may still come."""

    def __init__(self, world, size):
        Wire.__init__(self, bytearray(size))
        self.world = world
        self.inbox = b""

    def flush(self):
        self.world.power()
        out = bytes(self.out)
        self.out = b""
        if out:
            self.put(out)

    def fill(self):
        held = bytes(self.mv[self.lo : self.hi])
        piece = self.inbox[: len(self.buf) - len(held)]
        self.inbox = self.inbox[len(piece) :]
        held += piece
        self.buf[: len(held)] = held
        self.lo = 0
        self.hi = len(held)
        return bool(piece)

    async def run(self, session):
        send = session.send
        value = fault = None
        try:
            while True:
                try:
                    if fault:
                        e, fault = fault, None
                        request = session.throw(e)
                    else:
                        request = send(value)
                except StopIteration as e:
                    self.flush()
                    return e.value
                value = None
                try:
                    while True:
                        if request is LINE:
                            value = self.line()
                        elif request is DATA:
                            value = self.data()
                        elif request is CHUNK:
                            value = self.chunk()
                        if value is not None:
                            break
                        self.flush()
                        if request is LINE or request is DATA or request is CHUNK:
                            if self.fill():
                                continue
                            if not self.more():
                                raise EOFError("the peer closed the connection")
                            if self.inbox:
                                continue
                            await asyncio.sleep(self.timeout / 1000)
                            raise OSError(110)
                        elif request is SLEEP:
                            await asyncio.sleep(self.timeout / 1000)
                        elif request is None:
                            await asyncio.sleep(0)
                        elif request is not SEND:
                            value = await request
                        break
                except (OSError, EOFError, ValueError, SMTPError) as e:
                    fault = e
        finally:
            session.close()


class Link(End):
    """A connection to a smart host."""

    def __init__(self, world, host):
        End.__init__(self, world, 2048)
        self.host = host
        wire = Wire(bytearray(4096))
        self.peer = Player(Session(wire, "192.0.2.7", host.listener).run(), wire)
        self.inbox = self.peer.said()
        self.sent = 0

    def put(self, out):
        self.world.power()
        out = bytes(out)
        host = self.host
        if host.breaks is not None and self.sent + len(out) > host.breaks:
            self.peer.feed(out[: host.breaks - self.sent])
            host.breaks = None
            self.close()
            self.world.fact("broke")
            raise OSError(104)  # what it had answered is lost
        self.sent += len(out)
        self.peer.feed(out)
        self.inbox += self.peer.said()
        if self.peer.error:
            raise self.peer.error
        return len(out)

    def more(self):
        return not self.peer.ended

    def close(self):
        if not self.peer.ended:
            self.peer.throw(EOFError("the peer closed the connection"))


class Caller(End):
    """A connection from a device, which says `steps`, each when the one before is answered, until it is refused."""

    def __init__(self, world, steps):
        End.__init__(self, world, 1024)
        self.steps = steps
        self.code = 220

    def put(self, out):
        self.code = int(out.split(b"\r\n")[-2][:3])

    def more(self):
        if self.code >= 400 or not self.steps:
            return False
        self.inbox += self.steps.pop(0)
        return True


class Host:
    """A smart host. How it treats a recipient by his domain:

    gone.example.net     550, always            busy.example.net     450, the first time
    never.example.net    450, always            spam.example.net     554 behind the whole mail, always
    slow.example.net     450, the first time behind the whole mail
    """

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.up = True
        self.breaks = None  # octets that a session takes before its connection breaks
        self.busy = set()
        self.meanwhile = None  # a generator that goes a step on whenever a mail has come whole
        self.listener = Listener("mx.example.net", self, ["192.0.2.0/24"])

    def once(self, address):
        if address in self.busy or self.world.patient:
            return False
        self.busy.add(address)
        return True

    def rcpt(self, envelope, address):
        kind = address.partition("@")[2].partition(".")[0]
        if kind == "gone":
            raise SMTPError(550, "5.1.1", "no such user")
        if kind == "never" or kind == "busy" and self.once(address):
            raise SMTPError(450, "4.2.0", "the mailbox is busy")

    def open(self, envelope):
        return Sink(self, envelope)


class Sink:
    def __init__(self, host, envelope):
        self.host = host
        self.envelope = envelope
        self.data = []

    def write(self, piece):
        self.data.append(bytes(piece))

    def commit(self):
        for rcpt in self.envelope.rcpts:
            kind = rcpt.partition("@")[2].partition(".")[0]
            if kind == "spam":
                raise SMTPError(554, "5.7.1", "this is spam")
            if kind == "slow" and self.host.once(rcpt):
                raise SMTPError(450, "4.2.0", "the mailbox is busy")
        self.host.world.took(self.host, self.envelope, b"".join(self.data))
        if self.host.meanwhile:
            next(self.host.meanwhile, None)

    def abort(self):
        pass


class Watched(Queue):
    """The queue, and what it has committed goes to `facts`."""

    def __init__(self, world, **named):
        self.world = world
        self.meta = {}
        Queue.__init__(self, world.path, **named)

    def take(self):
        mail = Queue.take(self)
        if mail:
            self.meta[mail.key] = mail.meta
        return mail

    def settle(self, key, count, done, failed, whys=(), delay=0, attempt=False, *more):
        meta = self.meta[key]
        state = Queue.settle(self, key, count, done, failed, whys, delay, attempt, *more)
        if not self.world.dead():
            saved = key not in self.unsaved  # a flash that is full to the last block takes no note
            for n, rcpt in enumerate(meta["r"]):
                if saved and (done | failed) >> n & 1:
                    self.world.fact("settled", about(meta, rcpt))
            self.world.fact("recorded", name_of(meta["r"][0]))
        if state != "waiting":
            del self.meta[key]
        return state

    def add(self, meta, *more, **named):
        if not meta["f"] or "k" in meta:
            self.world.fact("noting", meta["r"][0])
        return Queue.add(self, meta, *more, **named)


def about(meta, rcpt):
    """What facts call a recipient: a notification to a sender is another thing than a mail to him."""
    if "s" in meta:
        return rcpt + "#" + meta["i"]
    return rcpt if meta["f"] and "k" not in meta else "to " + rcpt


def field(data, name):
    """The first field of that name in a mail."""
    return data.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0].decode()


class World:
    """path: directory for the spool; flash: a nor.Nor when its power can go; queue: settings of Queue; hosts: how many
    smart hosts; through: what the queue has no room for passes through; relay: attributes of Relay; facts: what the
    neighbours know already."""

    def __init__(self, path, flash=None, queue=None, hosts=1, facts=None, epoch=NOON, seed=1, log=None, through=False,
                 **relay):
        self.path = path
        self.flash = flash
        self.facts = facts if facts is not None else []
        self.patient = False  # the smart hosts say 450 to nobody but those at never.example.net
        self.lines = []
        self.log = log or self.lines.append
        self.settings = queue or {}
        self.through = through
        self.relay_settings = relay
        self.admin = relay.get("admin")
        self.hosts = [Host(self, "mx%d.example.net" % n) for n in range(hosts)]
        self.clock = Clock(epoch)
        self.epoch = epoch
        self.dice = Dice(seed)
        self.files = []
        self.task = None

    def dead(self):
        return self.flash is not None and self.flash.dead

    def power(self):
        """Raises PowerCut when there is none: nothing leaves the gateway any more."""
        if self.dead():
            raise PowerCut

    def fact(self, *fact):
        self.facts.append(fact)

    # -- the gateway

    def boot(self):
        """As firmware/gateway.py does it: the queue, the relay, the listener."""
        self.clock = clock = Clock(self.clock.now() if self.task else self.epoch)
        queue = self.queue = Watched(self, uptime=clock.uptime, **self.settings)
        gateway.queue = queue
        gateway._storms = None
        gateway.time = clock
        gateway.log = lambda area, text: self.log(area + ": " + text)
        gateway._mail.update({"from": "Cold store <cold@example.com>", "to": [], "domain": "gw.example.com"})
        smart = [SmartHost(h.name, 25, "none") for h in self.hosts]
        self.relay = Relay(queue, smart, "gw.example.com", clock, "cold@example.com", lambda t: self.log("relay: " + t))
        for name, value in self.relay_settings.items():
            assert hasattr(self.relay, name), name
            setattr(self.relay, name, value)
        relay_module.open_session = self.open_session
        intake = gateway.Intake(10485760, self.relay if self.through else None)
        self.listener = Listener("gw.example.com", intake, ["192.168.1.0/24"])
        self.listener.dsn = True
        self.task = asyncio.create_task(self.work())

    async def work(self):
        while True:
            try:
                return await self.relay.run()
            except Exception as e:
                self.power()
                self.fact("wrong", "the relay failed: %r" % e)
                if MICROPYTHON:
                    sys.print_exception(e)
                await asyncio.sleep(60)

    async def halt(self):
        """A clean end, as firmware/gateway.py makes it."""
        await self.relay.finish()
        self.task.cancel()
        try:
            await self.task
        except asyncio.CancelledError:
            pass

    async def restart(self):
        await self.halt()
        self.boot()

    def run(self, story):
        """Boots, runs a coroutine, and halts. PowerCut when the power went."""

        async def main():
            self.boot()
            await story
            self.power()
            await self.halt()

        random.seed(self.dice.below(1 << 30))
        queue_module.os = dsn_module.os = Seeded(self.dice)
        queue_module.open = displace_module.open = letters_module.open = self.open
        try:
            run(main())
        except Exception:
            self.power()  # what fails without power is not a failure
            raise
        finally:
            relay_module.open_session = open_session
            queue_module.os = dsn_module.os = os
            del queue_module.open, displace_module.open, letters_module.open
            # Who lost his power has closed nothing, and the finaliser of a file in littlefs must not have to.
            for f in self.files:
                try:
                    f.close()
                except OSError:
                    pass

    def open(self, *how):
        f = open(*how)
        self.files.append(f)
        return f

    async def sleep(self, seconds):
        """Time goes by; the relay does its work."""
        await asyncio.sleep(seconds)
        self.power()

    async def drain(self, most=864000):
        """Time goes by until nothing waits."""
        queue, relay = self.queue, self.relay
        await self.sleep(1)
        start = ticks()
        while len(queue) or getattr(relay, "report", None) is not None:
            assert ticks() - start < most * 1000, "%d mails wait for ever" % len(queue)
            due = queue.due()
            await self.sleep(min(max(60, (due or 0) - self.clock.uptime()), 3600))
        await self.sleep(1)

    # -- its neighbours

    async def open_session(self, host, port, name, *more, **named):
        self.power()
        host = [h for h in self.hosts if h.name == host][0]
        if not host.up:
            raise SessionError("connect", "no connection to %s" % host.name)
        link = Link(self, host)
        client = Client(link, name)
        await link.run(client.start("none"))
        return link, client

    def took(self, host, envelope, data):
        """A smart host has a whole mail and answers 250."""
        if not envelope.sender:
            return self.took_notice(host, envelope, data)
        if envelope.rcpts == [self.admin]:
            return self.took_report(host, data)
        if b"@storm." in envelope.rcpts[0].encode():
            return self.took_storm(host, envelope.rcpts[0], data)
        name = name_of(envelope.rcpts[0])
        head, _, body = data.partition(b"\r\n\r\n")
        if body != text(name) or b"Subject: " + name.encode() not in head:
            self.fact("wrong", "%s came damaged: %r" % (name, data[:300]))
        for rcpt in envelope.rcpts:
            if name_of(rcpt) != name:
                self.fact("wrong", "%s came for %s" % (name, rcpt))
            self.fact("taken", rcpt, host.name)

    def took_storm(self, host, rcpt, data):
        """Alerts of one rule: [3x] storm 7 is the seventh, and two others are in its mail."""
        count = 1
        subject = field(data, b"Subject")
        if subject[:1] == "[":
            count, _, subject = subject[1:].partition("x] ")
        rule, _, n = subject.partition(" ")
        body = data.partition(b"\r\n\r\n")[2]
        told = b"Raised %d times" % int(count)
        if not body.startswith(text(rule + "-200")) or (told in body) == (count == 1) or body[-2:] != b"\r\n":
            self.fact("wrong", "an alert of a storm came damaged: %r" % data)
        ident = field(data, b"Message-ID")[1:].partition(".")[0]
        self.fact("taken", rcpt + "#" + ident, host.name)
        self.fact("folded", rule, ident, int(count))

    def took_report(self, host, data):
        self.fact("taken", "to " + self.admin, host.name)
        for line in data.replace(b"=\r\n", b"").split(b"\r\n"):
            # "to <somebody>: why", or "... to <one>, <two>, 2 min old": what gave way
            if b" to <" in line:
                for part in line.partition(b" to <")[2].split(b"<"):
                    self.fact("reported", part.partition(b">")[0].decode())

    def took_notice(self, host, envelope, data):
        to = envelope.rcpts[0]
        if not data.endswith(b"--\r\n"):
            self.fact("wrong", "half a notification: %r" % data[-100:])
        self.fact("taken", "to " + to, host.name)
        about = None
        for line in data.split(b"\r\n"):
            if line.startswith(b"Final-Recipient: rfc822; "):
                about = line[25:].decode()
            elif line.startswith(b"Action: ") and about:
                self.fact("told", about, line[8:].decode(), to)

    def alert(self, name, rcpts, priority="normal"):
        """gateway.alert: promised when it returns. False when the queue is full."""
        try:
            gateway.alert(name, text(name).decode().replace("\r\n", "\n")[:-1], rcpts, priority)
        except QueueFull as e:
            self.power()
            self.log("alert: no room for %s: %s" % (name, e))
            return False
        self.power()
        for rcpt in rcpts:
            self.fact("promised", rcpt)
        return True

    def storm(self, rule, n):
        """The alert number `n` of a rule, to storm.example.net."""
        self.fact("raised", rule)
        short = text(rule + "-200").decode().replace("\r\n", "\n")[:-1]
        gateway.alert("%s %d" % (rule, n), short, [rule + ".1@storm.example.net"], "normal", rule)
        self.power()
        self.fact("stormed", rule)

    def steps(self, name, rcpts, sender=None, chunk=0, size=True):
        """What a device says to send a mail. chunk: octets of each BDAT, 0 for DATA; size: whether it says SIZE."""
        if sender is None:
            sender = name + "@office.example.com"
        mail = ("From: %s@printer.local\r\nSubject: %s\r\n\r\n" % (name, name)).encode() + text(name)
        size = b" SIZE=%d" % len(mail) if size else b""
        steps = [b"EHLO printer\r\n", b"MAIL FROM:<%s>%s\r\n" % (sender.encode(), size)]
        steps += [b"RCPT TO:<%s>\r\n" % r.encode() for r in rcpts]
        if chunk:
            for lo in range(0, len(mail), chunk):
                last = b" LAST" if lo + chunk >= len(mail) else b""
                steps.append(b"BDAT %d%s\r\n" % (min(chunk, len(mail) - lo), last) + mail[lo : lo + chunk])
        else:
            steps.append(b"DATA\r\n")
            stuffed = mail.replace(b"\r\n.", b"\r\n..")
            for lo in range(0, len(stuffed), 1400):
                steps.append(stuffed[lo : lo + 1400])
            steps[-1] += b".\r\n"
        return steps

    async def call(self, name, rcpts, **how):
        """A device sends a mail, and waits where the gateway makes it wait; the last reply's code."""
        caller = Caller(self, self.steps(name, rcpts, **how))
        try:
            await caller.run(Session(caller, "192.168.1.8", self.listener).run())
        except EOFError:
            pass  # the device hung up
        if caller.code == 250 and not caller.steps:
            for rcpt in rcpts:
                self.fact("promised", rcpt)
                self.fact("settled", rcpt)  # it may have passed through
        return caller.code

    def device(self, name, rcpts, stop=None, answers=None, **how):
        """Generator: a device on the LAN sends a mail, a step after the other. stop: the step at which it goes away;
        answers: a list for the codes of the replies; how: see steps()."""
        steps = self.steps(name, rcpts, **how)
        wire = Wire(bytearray(1024))
        player = Player(Session(wire, "192.168.1.9", self.listener).run(), wire)
        try:
            for n, step in enumerate(steps):
                if n == stop:
                    return
                yield
                player.feed(step)
                self.power()
                said = player.said()
                if n + 1 == len(steps):
                    break
                if said and said[:1] > b"3":
                    break  # refused
            if answers is not None:
                answers.append(int(said[:3]))
            if said.startswith(b"250") and n + 1 == len(steps):
                for rcpt in rcpts:
                    self.fact("promised", rcpt)
        finally:
            if not player.ended:
                player.throw(EOFError("the peer closed the connection"))
            if player.error and not isinstance(player.error, EOFError):
                raise player.error

    def send(self, *args, **named):
        """A device sends a mail, all at once; the last reply's code."""
        answers = []
        for _ in self.device(*args, answers=answers, **named):
            pass
        return answers[-1] if answers else None


class Seeded:
    """os for a queue whose identities are the same at each run."""

    def __init__(self, dice):
        self.dice = dice

    def urandom(self, n):
        return bytes([self.dice.below(256) for _ in range(n)])

    def __getattr__(self, name):
        return getattr(os, name)
