"""Cut-through: a mail that the spool has no room for goes into a session with a smart host while it arrives.

Our answer follows the smart host's: 250 after its 250, its 5xx when it refuses the mail for good, and 451 for all else:
then nobody has accepted anything, and the device tries again. Flash is not touched. Memory does not grow with the mail:
as long as the smart host has not taken a piece, the device waits with the next (RFC 5321 4.5.3.2 says how long).

A recipient who is deferred (4xx) defers the whole mail, to the next smart host first. When some are refused for good
and others are not, the mail goes to those, and the sender is told of the rest by a notification that is queued before
our 250.

The mail goes with DATA: one reply for all of it, where chunks of unknown number would have one each. Without the dot at
its end nobody can take it for whole.

May use: relay, client, slots, stream; bounce when somebody was refused.
"""

import asyncio
import binascii
import gc
import os

from . import const
from .client import quit
from .queue import QueueFull
from .relay import Job
from .reply import SMTPError
from .slots import Slots
from .stream import SEND, sleep_ms

_MOST = const(4)  # mails at a time, where there is
_MEMORY = const(65536)  # for each
_SLICE = const(1536)  # octets that are handled at once
_HIGH = const(512)  # and from which on they are sent
_LENGTH = const(0x3FFFFFFF)  # of a mail whose length nobody knows
_KEPT = const(2048)  # octets of the header section that a notification gives back
_NOTICE = const(8192)  # octets of a notification, at most

OPEN = 100  # seconds until there is a session, RFC 5321 4.5.3.2.4: a device waits 2 minutes for 354
BLOCK = 150000  # ms until a piece is taken, 4.5.3.2.5: a device waits 3 minutes
FINAL = 600000  # ms for the reply to the mail, 4.5.3.2.6

gc.collect()
spare = [bytearray(_SLICE)]  # later there may be no room in one piece
turns = Slots(max(1, min(_MOST, gc.mem_free() // _MEMORY)) if hasattr(gc, "mem_free") else _MOST)


def later(enhanced, why):
    return SMTPError(451, enhanced, "not accepted, send it again later: " + why)


async def through(relay, envelope, meta):
    """A sink of server.Session that is a session with one of the relay's smart hosts. meta: what the queue would keep.

    Raises SMTPError: 451 when there is no such session, 5xx when the mail is refused for good.
    """
    meta["i"] = binascii.hexlify(os.urandom(4)).decode()
    meta["b"] = relay.queue.boot
    sink = Sink(relay, envelope, meta)
    try:
        await asyncio.wait_for(sink.open(), OPEN)
        return sink
    except SMTPError as e:
        error = e
    except asyncio.TimeoutError:
        error = later("4.4.1", "no smart host in time")
    except MemoryError:
        error = later("4.3.2", "no memory")
    finally:
        if not sink.ready:
            sink.abort()
    relay.log("a mail from <%s> at %s cannot pass through: %s" % (envelope.sender, envelope.peer, error))
    raise error


async def switch(relay, envelope, meta, writer, piece):
    """The same for a mail whose beginning is in the spool already, where `piece` has no room any more: what `writer`
    (queue.Writer) has of it goes through, then the piece, and the writer is given up."""
    sink = await through(relay, envelope, meta)
    try:
        f = writer.f
        f.seek(0)
        left = writer.size
        head = b""
        while head[-1:] != b"\n":
            head = f.readline(512)
            left -= len(head)
        buf = memoryview(bytearray(1024))
        while left:
            n = f.readinto(buf[: min(left, len(buf))])
            if not n:
                raise OSError(5)
            left -= n
            wait = sink.write(buf[:n])
            if wait:
                await wait
        wait = sink.write(piece)
        if wait:
            await wait
    except BaseException:
        sink.abort()
        raise
    writer.abort()
    return sink


class Part:
    """What there is of the mail, where Job and bounce.tell() ask for a mail."""

    key = 0x10000000
    size = _LENGTH
    eight = False

    def __init__(self, meta, text=b""):
        self.meta = meta
        self.text = text
        self.at = 0

    def read(self, buf):
        n = min(len(buf), len(self.text) - self.at)
        buf[:n] = self.text[self.at : self.at + n]
        self.at += n
        return n

    def rewind(self):
        self.at = 0

    def close(self):
        pass


class Sink:
    """A mail on its way through. See smtp.server for write(), commit() and abort()."""

    def __init__(self, relay, envelope, meta):
        self.relay = relay
        self.envelope = envelope
        self.part = Part(meta)
        self.stream = self.buf = None
        self.ready = False
        self.octets = 0
        self.tail = b"\r\n"

    # -- until the first octet

    async def open(self):
        """Finds a smart host that takes the envelope. Raises SMTPError."""
        error = later("4.4.1", "the smart hosts want no mail now")
        while not turns.take(self):
            await sleep_ms(100)
        for host in self.relay.usable():
            try:
                await self.enter(host)
                self.ready = True
                return
            except SMTPError as e:
                if self.stream:
                    await quit((self.stream, self.client))
                self.hang_up()
                if e.code >= 500 and e.enhanced not in ("5.6.7", "5.7.30"):  # which another one may take
                    raise
                error = e
        raise error

    async def enter(self, host):
        """A session with `host`, up to the 354."""
        relay = self.relay
        envelope = self.envelope
        slots = relay.slots
        if slots and host.security != "none":
            if envelope.tls and slots.free + len(slots.holders) < 2:
                raise later("4.3.2", "no memory for two TLS sessions, yours is the other one")
            while not slots.take(self):
                await sleep_ms(100)
        session = await relay.open(host)
        if not session:
            raise later("4.4.1", "no session with the smart host")
        self.stream, self.client = session
        ext = self.client.ext
        self.limit = host.limit = self.client.limit()
        if 0 < self.limit < envelope.size:
            raise self.too_big()
        now = relay.queue.uptime()
        for rate in host.rates:
            rate.count(now)
        meta = self.part.meta
        self.job = job = Job(relay, self.part, host)
        job.size = envelope.size and envelope.size + job.size - _LENGTH
        self.seven = "8BITMIME" not in ext
        job.body = "" if self.seven else "8BITMIME"
        job.dsn = None
        if "DSN" in ext and ("d" in meta or "n" in meta):
            job.dsn = (meta.get("d", ""), meta.get("n") or [""] * len(job.rcpts))
        dsn = job.dsn
        if job.special:
            from .onward import NO_HEAD, able, added, asked

            params, no = asked(job, ext)
            if "SMTPUTF8" in meta.get("e", "") and not able(ext):
                no[-1] = no.get(-1) or NO_HEAD  # what its header fields need is not known yet
            if no:
                raise SMTPError(*no[min(no)])
            job.dsn = added(dsn, params, len(job.rcpts))
        job.nomail = None
        job.result = [None] * len(job.rcpts)
        await self.run(self.offer())
        job.dsn = dsn
        if job.nomail:
            raise self.verdict(job.nomail)
        self.refused = []
        error = None
        for n, refusal in enumerate(job.result):
            if refusal:
                error = self.verdict(refusal, job.rcpts[n])
                if error.code < 500:
                    raise error
                self.refused.append((n, job.rcpts[n], "failed", refusal))
        if len(self.refused) == len(job.rcpts):
            raise error
        if self.refused:
            try:
                relay.queue.check_room(_NOTICE)
            except QueueFull as e:
                raise later("4.3.1", "some recipients are refused, and there is no room to tell that: %s" % e)
        reply = await self.run(self.client.ask(b"DATA"))
        if reply[0] != 354:
            raise self.verdict(reply)
        self.head = True
        self.kept = b""
        self.client.buf = self.buf = spare.pop() if spare else bytearray(_SLICE)

    def offer(self):
        """Generator: the envelope."""
        flying = []
        yield from self.client.envelope(self.job, flying)
        yield from self.client.drain(flying)

    def too_big(self):
        return SMTPError(552, "5.3.4", "the smart host takes %d octets" % self.limit)

    def verdict(self, reply, to=None):
        """The SMTPError for what the smart host said. About the order of commands, TLS, AUTH, or a sender that a
        setting mends (see relay): 451, as for a 4xx. `to`: the recipient, then it is logged."""
        code, enhanced, text = reply
        relay = self.relay
        job = self.job
        sender = code >= 500 and relay.is_about_sender(job, code, enhanced, text)
        soft = relay.throttled(job.host, reply) or code < 500 or code == 503 or 530 <= code < 540 or sender
        text = " ".join(("%d %s %s" % (code, enhanced, text)).split())
        if to:
            relay.log("%s %s for %s: %s" % (self.part.meta["i"], "deferred" if soft else "refused", to, text))
        if sender:
            text += ". Set smarthost.sender to an address that it accepts"
        if soft:
            return later("4.4.0", "the smart host says " + text)
        return SMTPError(code, enhanced or "5.0.0", "the smart host says " + text)

    async def run(self, generator):
        """stream.run(), with an SMTPError for whatever goes wrong."""
        try:
            return await self.stream.run(generator)
        except SMTPError as e:
            raise self.verdict((e.code, e.enhanced, e.text))
        except (OSError, ValueError, EOFError) as e:
            raise later("4.4.2", "the connection to the smart host was lost: %s" % e)
        except MemoryError:
            raise later("4.3.2", "no memory")

    # -- the mail

    def write(self, piece):
        self.octets += len(piece)
        if 0 < self.limit < self.octets:
            raise self.too_big()
        return self.slices(piece)

    def slices(self, piece):
        # A heap in pieces may have no room for more in one.
        stream = self.stream
        lo = 0
        while lo < len(piece):
            if stream.out and len(piece) - lo > _HIGH and not self.sent():
                return self.rest(piece[lo:])
            n = _HIGH if self.head else _SLICE
            self.pour(piece[lo : lo + n])
            lo += n
            if len(stream.out) > _HIGH and not self.sent():
                return self.rest(piece[lo:])

    def sent(self):
        """Sends what there is in `out`. False when there is something to wait for, which is rare."""
        stream = self.stream
        out = stream.out
        try:
            n = stream.put(out) or 0
        except (OSError, ValueError):
            return False  # flush() meets it again
        stream.out = b"" if n == len(out) else memoryview(out)[n:]
        return n == len(out)

    async def rest(self, piece):
        await self.flush()
        wait = self.slices(piece)
        if wait:
            await wait

    def pour(self, piece):
        """A piece of the mail into the stream's `out`."""
        try:
            if self.seven:
                try:
                    plain = len(str(piece, "utf-8")) == len(piece)
                except UnicodeError:
                    plain = False
                if not plain:
                    raise SMTPError(554, "5.6.3", "the smart host takes no 8-bit mail")
            if self.head:
                if self.refused and len(self.kept) < _KEPT:
                    self.kept += bytes(piece)
                piece = self.begin(piece)
            self.stuff(piece)
        except MemoryError:
            raise later("4.3.2", "no memory")

    def begin(self, piece, last=False):
        """What can go of a piece of the header section, and what the relay adds to that (bytes)."""
        # trace.Outgoing pulls a stored mail. It is given what has arrived, and asked only while there is something: so
        # it never sees an end before `last`.
        part = self.part
        out = self.job.out
        part.text = piece
        part.at = 0
        text = out._out
        if last:
            out._left = 0
        while out._head and (last or part.at < len(piece)):
            out._scan()
            text += out._out
        out._out = b""
        self.head = out._head
        return text + bytes(piece[part.at :])

    def stuff(self, piece):
        """What goes on of a piece into `out`, its dots stuffed."""
        client = self.client
        io = client.io
        buf = client.buf
        for lo in range(0, len(piece), _SLICE):
            n = min(len(piece) - lo, _SLICE)
            buf[:n] = piece[lo : lo + n]
            if _HIGH < n == len(piece) and not io.out and buf[0] != 46 != buf[1] and buf.find(b"\r\n.", 0, n) < 0:
                io.out = memoryview(buf)[:n]  # as it is, nearly always; it is sent before the next
                self.tail = bytes(buf[n - 2 : n])
            else:
                self.tail = client.stuff(n, self.tail)

    async def flush(self):
        self.stream.timeout = BLOCK
        try:
            await self.run(nothing())
        except SMTPError as e:
            # It may have said why before it went.
            raise await self.last_words(e)

    async def last_words(self, error):
        self.stream.timeout = 1000
        self.stream.out = b""
        try:
            reply = await self.run(self.client.ask(None))
        except SMTPError:
            return error
        return self.verdict(reply) if reply[0] >= 400 else error

    async def commit(self):
        """Ends the mail, and waits for what the smart host says to it. Returns the text of our 250."""
        job = self.job
        relay = self.relay
        meta = self.part.meta
        if self.head:
            self.stuff(self.begin(b"", True))
        await self.flush()
        self.stream.out = b".\r\n" if self.tail == b"\r\n" else b"\r\n.\r\n"
        self.stream.timeout = FINAL
        reply = await self.run(self.client.ask(None))
        if not 250 <= reply[0] < 300:
            raise self.verdict(reply if reply[0] >= 400 else (421, "4.5.0", "%d %s" % (reply[0], reply[2])))
        relay.delivered += 1
        notices = self.refused
        for n, to in enumerate(job.rcpts):
            if not job.result[n]:
                relay.log("%s delivered to %s, passed through from <%s> at %s, %d octets" % (
                    meta["i"], to, meta["f"], self.envelope.peer, self.octets))
                if not job.dsn and "n" in meta:
                    notices.append((n, to, "relayed", reply))
        if notices:
            self.tell(notices)
        asyncio.create_task(self.leave())
        return "passed on as " + meta["i"]

    def tell(self, notices):
        """Queues the notification of recipients that were refused."""
        from .bounce import tell

        meta = self.part.meta
        if "d" in meta:
            meta["d"] = meta["d"].replace("RET=FULL", "RET=HDRS")  # there is no more
        relay = self.relay
        told = tell(relay, Part(meta, self.kept), notices, self.job.host)
        rest = [item for item in notices if item[2] == "failed" and not told >> item[0] & 1]
        if rest and relay.admin:
            told |= tell(relay, Part(meta, self.kept), rest, self.job.host, relay.admin)
        for n, to, _, _ in rest:
            if not told >> n & 1:
                relay.log("%s: nobody is told that it is refused for %s" % (meta["i"], to))

    async def leave(self):
        try:
            await quit((self.stream, self.client))
        finally:
            self.abort()

    def hang_up(self):
        stream = self.stream
        self.stream = None
        if stream:
            stream.close()
        if self.relay.slots:
            self.relay.slots.give(self)

    def abort(self):
        """The end, at any time: without a dot, so what was sent is no mail."""
        self.hang_up()
        turns.give(self)
        if self.buf and not spare:
            spare.append(self.buf)
        self.buf = None


def nothing():
    """A session that has nothing to say."""
    yield SEND
