"""lib/smtp/cut.py: from a device through the gateway's intake to a smart host, over real sockets, while it arrives."""

import asyncio
import binascii
import gc

import gateway
from expect import eq
from play import MICROPYTHON, Flash, listen_somewhere, somewhere
from smtp import cut
from smtp import queue as queue_module
from smtp.queue import Queue
from smtp.relay import Relay, SmartHost
from smtp.server import Listener, Server
from smtp.slots import Slots

NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000
ROOM = 16384  # octets of the spool
HEAD = b"From: scanner@office.example.com\r\nSubject: a scan\r\n\r\n"
BIG = HEAD + (b"x" * 70 + b"\r\n") * 300  # many of it are a big mail


def scan(size):
    """A mail of `size` octets at least, with dots at the beginning of lines."""
    out = [HEAD]
    left = size - len(HEAD)
    n = 0
    while left > 0:
        line = (b"." * (n % 5 == 1), b"..", b".")[n % 17 % 3] + b"%d abcdefghijklmnopqrstuvwxyz" % n + b"\r\n"
        if n % 11 == 3:
            line = b".\r\n"
        out.append(line)
        left -= len(line)
        n += 1
    return b"".join(out)


class Clock:
    def __init__(self):
        self.up = 1000

    def uptime(self):
        return self.up

    def now(self):
        return NOON

    def offset(self, epoch):
        return 3600


async def lines(reader):
    """The next reply of a server, its last line."""
    while True:
        line = await reader.readline()
        if not line:
            raise EOFError
        if line[3:4] == b" ":
            return str(line, "utf-8").strip()


class Host:
    """A smart host. `say`: what it answers, by verb or by a recipient's address, "greeting" or "end" (behind the mail);
    what is not there gets 250. "close" closes the connection, "wait" says nothing until `calm` is set.

    stop: (octets of the body, "close" or "wait" or a reply, and then it closes): in the middle of a mail.
    """

    def __init__(self, *offers, stop=None, say=None):
        self.offers = offers
        self.say = say or {}
        self.stop = stop
        self.mails = []  # bodies as they were sent
        self.broken = []  # bodies that never ended
        self.commands = []
        self.octets = 0
        self.keep = True
        self.calm = asyncio.Event()
        self.writers = []

    async def start(self):
        self.port, self.server = await anywhere(self.serve)

    async def close(self):
        self.calm.set()
        self.server.close()
        for w in self.writers:
            await shut(w)

    async def left(self):
        """Until the gateway has gone in the middle of a mail."""
        for _ in range(300):
            if self.broken:
                break
            await asyncio.sleep(0.01)

    async def answer(self, w, what, reply):
        reply = self.say.get(what, reply)
        if reply == "wait":
            await self.calm.wait()
            reply = "close"
        if reply == "close":
            raise EOFError
        w.write(reply.encode() + b"\r\n")
        await w.drain()
        return reply

    async def serve(self, r, w):
        self.writers.append(w)
        try:
            await self.session(r, w)
        except (OSError, EOFError):
            pass
        finally:
            await shut(w)

    async def session(self, r, w):
        await self.answer(w, "greeting", "220 mx.example.net")
        while True:
            line = await r.readline()
            if not line:
                return
            line = str(line, "utf-8").strip()
            self.commands.append(line)
            verb = line[:4].upper()
            if verb == "EHLO":
                offers = ["mx.example.net"] + list(self.offers)
                offers = ["250-" + o for o in offers[:-1]] + ["250 " + offers[-1]]
                await self.answer(w, verb, "\r\n".join(offers))
            elif verb == "RCPT":
                address = line[line.index("<") + 1 : line.index(">")]
                await self.answer(w, address if address in self.say else verb, "250 2.1.5 ok")
            elif verb == "DATA":
                if (await self.answer(w, verb, "354 go"))[0] == "3":
                    await self.body(r, w)
                    await self.answer(w, "end", "250 2.0.0 kept")
            elif verb == "QUIT":
                await self.answer(w, verb, "221 bye")
                return
            else:
                await self.answer(w, verb, "250 2.0.0 ok")

    async def body(self, r, w):
        body = bytearray()
        tail = b"\r\n"
        size = 0
        while True:
            data = await r.read(4096)
            if not data:
                self.broken.append(bytes(body))
                raise EOFError
            size += len(data)
            self.octets += len(data)
            if self.keep:
                body.extend(data)
            tail = (tail + data)[-5:]
            if tail == b"\r\n.\r\n":
                self.mails.append(bytes(body))
                return
            if self.stop and size >= self.stop[0]:
                if self.stop[1] == "wait":
                    await self.calm.wait()
                    self.stop = None
                    continue
                if self.stop[1] != "close":
                    w.write(self.stop[1].encode() + b"\r\n")
                    await w.drain()
                raise EOFError


async def anywhere(serve):
    """(port, server) on 127.0.0.1."""
    port, sock = listen_somewhere()
    sock.close()
    return port, await asyncio.start_server(serve, "127.0.0.1", port)


class Device:
    """A device on the LAN, a step at a time."""

    def __init__(self, site):
        self.site = site

    async def connect(self, hello="EHLO scanner"):
        self.r, self.w = await asyncio.open_connection("127.0.0.1", self.site.port)
        await lines(self.r)
        if hello:
            await self.ask(hello)
        return self

    async def ask(self, line):
        self.w.write(line.encode() + b"\r\n")
        await self.w.drain()
        return await lines(self.r)

    async def envelope(self, rcpts=("b@example.net",), sender="a@example.com", more=""):
        """The reply to MAIL, or of the first recipient that is refused, or the last one."""
        reply = await self.ask("MAIL FROM:<%s>%s" % (sender, more))
        for rcpt in rcpts:
            if reply[0] != "2":
                break
            to, _, notify = rcpt.partition(" ")
            reply = await self.ask("RCPT TO:<%s> %s" % (to, notify) if notify else "RCPT TO:<%s>" % to)
        return reply

    async def data(self, mail, chunk=0, piece=8192):
        """Sends a mail with DATA, or with BDAT in chunks; its last reply. A pair: (a piece of mail, how many of it)."""
        if isinstance(mail, tuple):
            self.sent = 0
            reply = "" if chunk else await self.ask("DATA")
            for n in range(mail[1]):
                if chunk:
                    self.w.write(b"BDAT %d%s\r\n" % (len(mail[0]), b" LAST" if n + 1 == mail[1] else b""))
                self.w.write(mail[0])
                await self.w.drain()
                self.sent += 1
                if chunk:
                    reply = await lines(self.r)
                    if reply[0] != "2":
                        break
            return reply if chunk else await self.ask(".")
        if chunk:
            for lo in range(0, len(mail), chunk):
                part = mail[lo : lo + chunk]
                last = " LAST" if lo + chunk >= len(mail) else ""
                self.w.write(b"BDAT %d%s\r\n" % (len(part), last.encode()) + part)
                await self.w.drain()
                reply = await lines(self.r)
                if reply[0] != "2":
                    break
            return reply
        reply = await self.ask("DATA")
        if reply[:3] != "354":
            return reply
        mail = stuffed(mail)
        for lo in range(0, len(mail), piece):
            self.w.write(mail[lo : lo + piece])
            await self.w.drain()
        return await self.ask(".")

    async def close(self):
        await shut(self.w)


async def shut(writer):
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


def stuffed(mail):
    return b"\r\n".join([b"." + line if line[:1] == b"." else line for line in mail.split(b"\r\n")])


class Site:
    """A gateway with its smart hosts: `async with Site(Host(...), ...) as site`. What becomes of its flash is seen:
    `written` counts the files that were opened for writing."""

    def __init__(self, *hosts, room=ROOM, through=True, most=100000000, **smart):
        self.hosts = hosts
        self.room = room
        self.through = through
        self.most = most
        self.smart = smart
        self.written = 0
        self.log = []

    async def __aenter__(self):
        self.flash = Flash(32)
        path = self.flash.__enter__()
        for host in self.hosts:
            await host.start()
        self.clock = clock = Clock()
        self.queue = queue = Queue(path + "/spool", max_bytes=self.room, uptime=clock.uptime)
        smart = [SmartHost("127.0.0.1", h.port, security="none", **self.smart) for h in self.hosts]
        self.relay = relay = Relay(queue, smart, "gw.example.com", clock, "gw@example.com", self.log.append)
        gateway.queue = queue
        gateway.time = clock
        gateway.log = lambda area, text: self.log.append(text)
        gateway._mail.update({"from": "gw@example.com", "to": [], "domain": "gw.example.com"})
        self.intake = gateway.Intake(self.most, relay if self.through else None)
        self.listener = Listener("gw.example.com", self.intake, ["127.0.0.0/8"], max_size=self.most)
        self.listener.dsn = True
        self.listener.log = self.log.append
        self.server = Server()
        self.port, serve = somewhere(lambda port: self.server.bind("127.0.0.1", port, self.listener))
        self.task = asyncio.create_task(serve())
        queue_module.open = self.open
        cut.turns = Slots(2)
        return self

    def open(self, path, mode="r"):
        self.written += mode[0] == "w"
        return open(path, mode)

    async def __aexit__(self, *error):
        self.task.cancel()
        try:
            await self.task
        except asyncio.CancelledError:
            pass
        await self.server.close()
        for host in self.hosts:
            await host.close()
        for _ in range(5):
            await asyncio.sleep(0)
        del queue_module.open
        eq((cut.turns.free, cut.turns.holders, cut.turns.line), (2, [], []))
        self.flash.__exit__()

    async def device(self, hello="EHLO scanner"):
        return await Device(self).connect(hello)

    async def send(self, mail, rcpts=("b@example.net",), chunk=0, declared=True, more="", sender="a@example.com"):
        """A device comes, sends a mail and goes: the last reply."""
        device = await self.device()
        size = len(mail[0]) * mail[1] if isinstance(mail, tuple) else len(mail)
        reply = await device.envelope(rcpts, sender, (" SIZE=%d" % size if declared else "") + more)
        if reply[0] == "2":
            reply = await device.data(mail, chunk)
        await device.close()
        await self.calm()
        return reply

    async def calm(self):
        """Until no mail passes through any more."""
        for _ in range(300):
            if not cut.turns.holders:
                break
            await asyncio.sleep(0.01)

    async def add_waiting(self, size):
        """A mail of this size waits in the spool."""
        self.queue.add({"f": "x@example.com", "r": ["y@example.net"]}, [b"Subject: x\r\n\r\n", b"x" * size, b"\r\n"])
        self.written = 0


def passed(sent, got):
    """Fails when what the smart host got is not what was sent, with a Received field on top and dots stuffed."""
    top, found, rest = got.partition(b"\r\nFrom: scanner@")
    assert found and top.startswith(b"Received: from scanner ([127.0.0.1])\r\n\tby gw.example.com with ESMTP id "), top
    head, _, body = (found + rest)[2:].partition(b"\r\n\r\n")
    assert b"\r\nDate: Sun, 22 Nov 2026 13:00:00 +0100\r\nMessage-ID: <" in head, head
    eq(binascii.crc32(body), binascii.crc32(stuffed(sent).partition(b"\r\n\r\n")[2] + b".\r\n"))


# -- it arrives


async def test_a_mail_that_is_too_big_for_the_spool_passes_through_and_no_file_is_written():
    mail = scan(40000)
    for chunk in (0, 1000, 16000, 1000000):
        for offers in ((), ("PIPELINING", "SIZE 300000", "8BITMIME"), ("CHUNKING", "PIPELINING")):
            async with Site(Host(*offers)) as site:
                reply = await site.send(mail, ("b@example.net", "c@example.net"), chunk)
                assert reply.startswith("250 2.0.0 passed on as "), (chunk, offers, reply)
                host = site.hosts[0]
                eq((len(host.mails), host.broken, site.written, len(site.queue)), (1, [], 0, 0))
                passed(mail, host.mails[0])
                eq(host.commands[-1], "QUIT")
                assert "RCPT TO:<c@example.net>" in host.commands


async def test_the_smart_host_is_told_the_size_and_that_there_may_be_8_bit_characters():
    mail = HEAD + b"x" * 20000 + b"\r\n"
    async with Site(Host("SIZE", "8BITMIME")) as site:
        await site.send(mail)
        line = [c for c in site.hosts[0].commands if c.startswith("MAIL")][0]
        start = "MAIL FROM:<a@example.com> SIZE="
        assert line.startswith(start) and line.endswith(" BODY=8BITMIME"), line
        assert len(site.hosts[0].mails[0]) <= int(line[len(start) :].split()[0]) < len(mail) + 1000


async def test_a_mail_whose_size_nobody_told_switches_over_when_the_spool_is_full():
    mail = scan(40000)
    for chunk in (0, 7777):
        async with Site(Host()) as site:
            reply = await site.send(mail, chunk=chunk, declared=False)
            assert reply.startswith("250 2.0.0 passed on as "), reply
            passed(mail, site.hosts[0].mails[0])
            eq((site.written, len(site.queue), site.queue.used, site.queue.coming), (1, 0, 0, 0))
            eq(len(Queue(site.queue.path)), 0)
            # What a device did once it does again: the spool is spared.
            reply = await site.send(mail, chunk=chunk, declared=False)
            assert reply.startswith("250 2.0.0 passed on as "), reply
            passed(mail, site.hosts[0].mails[1])
            eq((site.written, len(site.queue)), (1, 0))


async def test_a_device_that_is_known_for_large_mails_still_has_the_spool_while_the_smart_host_is_away():
    async with Site(Host()) as site:
        await site.send(scan(40000), declared=False)
        site.hosts[0].say["greeting"] = "421 4.3.2 closed"
        reply = await site.send(scan(5000), declared=False)
        assert reply.startswith("250 2.0.0 queued as "), reply
        eq(len(site.queue), 1)


async def test_a_small_mail_passes_through_when_the_spool_is_full():
    async with Site(Host()) as site:
        await site.add_waiting(11000)
        for declared in (True, False):
            reply = await site.send(scan(6000), declared=declared)
            assert reply.startswith("250 2.0.0 passed on as "), reply
        site.hosts[0].say["greeting"] = "421 4.3.2 closed"
        reply = await site.send(scan(6000))
        assert reply.startswith("452 4.3.1 no room"), reply
        eq(len(site.queue), 1)


async def test_without_cut_through_the_spool_is_all_there_is():
    room = 3 * ROOM
    async with Site(Host(), through=False, room=room) as site:
        device = await site.device("")
        device.w.write(b"EHLO x\r\n")
        await device.w.drain()
        told = 0
        while True:
            line = await device.r.readline()
            if b"SIZE" in line:
                told = int(line.split()[1])
            if line[3:4] == b" ":
                break
        assert room * 3 // 4 < told < room, told
        reply = await device.envelope(more=" SIZE=%d" % (told + 1))
        assert reply.startswith("552 5.3.4"), reply
        await device.close()
        # What it tells it keeps.
        mail = scan(told - 50)
        reply = await site.send(mail, declared=True)
        assert reply.startswith("250 2.0.0 queued as "), reply
        await site.add_waiting(0)
        reply = await site.send(mail, declared=False)
        assert reply.startswith("452 4.3.1"), reply
        eq(site.hosts[0].commands, [])


# -- the header section


async def test_what_is_missing_in_the_header_is_added_however_it_is_cut():
    body = b"\r\n" + b"x" * 78 + b"\r\n"
    for head, wanted in (
        (b"", b"Date: Sun, 22 Nov 2026 13:00:00 +0100\r\nMessage-ID: <ID>\r\nFrom: a@example.com\r\n\r\n"),
        (b"From: x@y\r\nDate: now\r\nMessage-ID: <1@x>\r\n\r\n",
         b"From: x@y\r\nDate: now\r\nMessage-ID: <1@x>\r\n\r\n"),
        (b"Date: now\r\nSubject: a\r\n b\r\n\r\n",
         b"Date: now\r\nSubject: a\r\n b\r\nMessage-ID: <ID>\r\nFrom: a@example.com\r\n\r\n"),
        (b"X: " + b"y" * 9000 + b"\r\nFrom: x@y\r\nDate: now\r\n\r\n",
         b"X: " + b"y" * 9000 + b"\r\nFrom: x@y\r\nDate: now\r\nMessage-ID: <ID>\r\n\r\n"),
        (b"X: y\r\n" * 2000 + b"From: x@y\r\nDate: now\r\n\r\n",
         b"X: y\r\n" * 2000 + b"From: x@y\r\nDate: now\r\nMessage-ID: <ID>\r\n\r\n"),
    ):  # fmt: skip
        for piece in (1, 3, 700):
            if piece == 1 and len(head) > 1000:
                continue
            async with Site(Host(), room=8192) as site:
                device = await site.device()
                await device.envelope(more=" SIZE=100000")
                assert (await device.ask("DATA"))[:3] == "354"
                mail = head + body
                for lo in range(0, len(mail), piece):
                    device.w.write(mail[lo : lo + piece])
                    await device.w.drain()
                    if piece < 100:
                        await asyncio.sleep(0)
                reply = await device.ask(".")
                assert reply.startswith("250"), reply
                await device.close()
                await site.calm()
                got = site.hosts[0].mails[0]
                _, _, got = got.partition(b"22 Nov 2026 13:00:00 +0100\r\n")  # Received
                i = got.find(b"Message-ID: <") + 13
                if got[i : i + 4] != b"1@x>":
                    got = got[:i] + b"ID" + got[got.find(b">", i) :]
                eq(got, wanted + (body if head else body[2:]) + b".\r\n")


async def test_a_mail_that_is_nothing_but_a_header_or_nothing_at_all():
    for mail in (b"Subject: x\r\n", b"Subject: x", b""):
        async with Site(Host(), room=8192) as site:
            device = await site.device()
            await device.envelope(more=" SIZE=100000")
            device.w.write(b"BDAT %d LAST\r\n" % len(mail) + mail)
            await device.w.drain()
            reply = await lines(device.r)
            assert reply.startswith("250"), reply
            await device.close()
            await site.calm()
            got = site.hosts[0].mails[0]
            assert got.endswith(b"From: a@example.com\r\n\r\n.\r\n"), got
            eq(got.count(b"Subject: x\r\n"), 1 if mail else 0)


async def test_the_sender_is_rewritten_where_the_smart_host_wants_that():
    async with Site(Host(), sender="gw@example.com") as site:
        await site.send(scan(20000))
        host = site.hosts[0]
        assert "MAIL FROM:<gw@example.com>" in host.commands
        head = host.mails[0].partition(b"\r\n\r\n")[0]
        assert b'From: "scanner@office.example.com" <gw@example.com>\r\n' in head, head
        assert b"Reply-To: scanner@office.example.com" in head, head


# -- dots


class Out:
    def __init__(self):
        self.out = b""


def test_dots_are_stuffed_wherever_the_pieces_are_cut():
    from smtp.client import Client

    mail = b".a\r\n.\r\n..\r\nb\r\n.c\r.d\n.e\r\n\r\n.\r\n.f."
    for size in (1, 2, 3, 4, 5, 100):
        for cuts in range(1, 6):
            sink = cut.Sink(None, None, {})
            sink.client = client = Client(Out(), "x")
            client.buf = bytearray(size)
            lo = 0
            while lo < len(mail):
                sink.stuff(memoryview(mail)[lo : lo + cuts])
                lo += cuts
            eq(client.io.out, stuffed(mail))
            eq(sink.tail, mail[-2:])


# -- what the device hears


TROUBLE = [
    ("greeting", "421 4.3.2 closed", "451 4.4.1"),
    ("greeting", "554 5.7.1 go away", "451 4.4.1"),
    ("greeting", "close", "451 4.4.1"),
    ("EHLO", "421 4.3.2 closed", "451 4.4.1"),
    ("MAIL", "451 4.3.0 later", "451 4.4.0"),
    ("MAIL", "421 4.3.0 later", "451 4.4.0"),
    ("MAIL", "503 5.5.1 order", "451 4.4.0"),
    ("MAIL", "530 5.7.0 log in", "451 4.4.0"),
    ("MAIL", "553 5.1.8 sender address rejected", "451 4.4.0"),
    ("MAIL", "552 5.3.4 too big", "552 5.3.4"),
    ("MAIL", "550 no", "550 5.0.0"),
    ("MAIL", "close", "451 4.4.2"),
    ("RCPT", "450 4.2.0 busy", "451 4.4.0"),
    ("RCPT", "421 4.2.0 busy", "451 4.4.0"),
    ("RCPT", "550 5.1.1 unknown", "550 5.1.1"),
    ("RCPT", "550 5.7.1 sender address rejected", "451 4.4.0"),
    ("RCPT", "close", "451 4.4.2"),
    ("DATA", "451 4.3.0 later", "451 4.4.0"),
    ("DATA", "554 5.7.1 not you", "554 5.7.1"),
    ("DATA", "250 what", "451 4.4.0"),
    ("DATA", "close", "451 4.4.2"),
    ("end", "451 4.3.0 later", "451 4.4.0"),
    ("end", "421 4.3.0 closing", "451 4.4.0"),
    ("end", "452 4.2.2 full", "451 4.4.0"),
    ("end", "554 5.7.1 spam", "554 5.7.1"),
    ("end", "554 5.7.60 send as denied", "451 4.4.0"),
    ("end", "354 what", "451 4.4.0"),
    ("end", "nonsense", "451 4.4.0"),
    ("end", "close", "451 4.4.2"),
]


async def test_what_the_device_hears_for_each_trouble_and_that_its_next_try_succeeds():
    mail = scan(20000)
    for offers in ((), ("PIPELINING",)):
        for chunk in (0, 7000):
            for what, reply, wanted in TROUBLE:
                async with Site(Host(*offers, say={what: reply})) as site:
                    host = site.hosts[0]
                    said = await site.send(mail, chunk=chunk)
                    assert said.startswith(wanted), (offers, chunk, what, reply, said)
                    if wanted[0] == "4":
                        assert "send it again later" in said, said
                    eq((site.written, len(site.queue)), (0, 0))
                    got = len(host.mails)
                    eq(got, 1 if what == "end" else 0)
                    del host.say[what]
                    site.clock.up += 7200  # past any pause
                    said = await site.send(mail, chunk=chunk)
                    assert said.startswith("250 2.0.0 passed on"), (what, reply, said)
                    passed(mail, host.mails[got])
                    eq(site.written, 0)


async def test_a_session_of_the_device_goes_on_after_a_refusal():
    async with Site(Host(say={"RCPT": "450 4.2.0 busy"})) as site:
        for chunk in (0, 5000, 60000):
            device = await site.device()
            await device.envelope(more=" SIZE=20000")
            reply = await device.data(scan(20000), chunk)
            assert reply.startswith("451"), reply
            if chunk:
                assert (await device.ask("RSET")).startswith("250")
            eq((await device.envelope())[:3], "250")
            reply = await device.data(scan(500))
            assert reply.startswith("250 2.0.0 queued"), reply
            await device.close()


async def test_a_smart_host_that_goes_in_the_middle_of_the_mail():
    mail = BIG, 20
    for stop, wanted in (
        ((100000, "close"), "451 4.4.2"),
        ((100000, "552 5.2.2 quota"), ("552 5.2.2", "451 4.4.2")),  # what it said may be lost with the connection
        ((100000, "451 4.3.0 disk"), ("451 4.4.0", "451 4.4.2")),
    ):
        for chunk in (0, 100000):
            async with Site(Host(stop=stop)) as site:
                site.hosts[0].keep = False
                said = await site.send(mail, chunk=chunk)
                assert said.startswith(wanted), (stop, chunk, said)
                eq((site.written, len(site.hosts[0].mails)), (0, 0))
                site.hosts[0].stop = None
                said = await site.send(mail, chunk=chunk)
                assert said.startswith("250"), said
                eq(len(site.hosts[0].mails), 1)


async def test_a_smart_host_that_stops_taking_the_mail_does_not_hold_the_device_for_ever():
    times = cut.OPEN, cut.BLOCK, cut.FINAL
    try:
        cut.BLOCK = cut.FINAL = 400
        async with Site(Host(stop=(10000, "wait"))) as site:
            site.hosts[0].keep = False
            said = await site.send((BIG, 1000))
            assert said.startswith("451 4.4.2"), said
        async with Site(Host(say={"end": "wait"})) as site:
            said = await site.send(scan(20000))
            assert said.startswith("451 4.4.2"), said
        cut.OPEN = 0.4
        for what in ("greeting", "EHLO", "MAIL", "RCPT", "DATA"):
            async with Site(Host(say={what: "wait"})) as site:
                said = await site.send(scan(20000))
                assert said.startswith("451 4.4.1"), (what, said)
                site.hosts[0].calm.set()
    finally:
        cut.OPEN, cut.BLOCK, cut.FINAL = times


async def test_nobody_listens_where_the_smart_host_should_be():
    async with Site(Host()) as site:
        await site.hosts[0].close()
        for _ in range(3):
            await asyncio.sleep(0.01)
        site.relay.hosts[0].port = 1
        said = await site.send(scan(20000))
        assert said.startswith("451 4.4.1"), said
        assert "no connection to 127.0.0.1 port 1" in "\n".join(site.log), site.log


# -- recipients


async def test_recipients_who_are_treated_differently():
    to = ("b@example.net", "c@example.net", "d@example.net")
    for b, c, d, wanted in (
        ("250 ok", "250 ok", "450 4.2.0 busy", "451 4.4.0"),
        ("250 ok", "550 5.1.1 unknown", "450 4.2.0 busy", "451 4.4.0"),
        ("550 5.1.1 unknown", "550 5.1.1 unknown", "450 4.2.0 busy", "451 4.4.0"),
        ("550 5.1.1 unknown", "551 5.1.6 moved", "553 5.1.3 wrong", "553 5.1.3"),
        ("250 ok", "550 5.1.1 unknown", "250 ok", "250 2.0.0 passed on"),
        ("550 5.1.1 unknown", "550 5.1.1 unknown", "250 ok", "250 2.0.0 passed on"),
    ):
        for offers in ((), ("PIPELINING",)):
            async with Site(Host(*offers, say={to[0]: b, to[1]: c, to[2]: d}), room=40960) as site:
                said = await site.send(scan(60000), to)
                assert said.startswith(wanted), (b, c, d, said)
                good = said[0] == "2"
                eq(len(site.hosts[0].mails), int(good))
                eq("DATA" in site.hosts[0].commands, good)
                eq(len(site.queue), int(good))
                if good:
                    note = site.queue.take()
                    eq((note.meta["f"], note.meta["r"]), ("", ["a@example.com"]))
                    text = bytearray(note.size)
                    note.read(text)
                    note.close()
                    text = bytes(text)
                    eq(text.count(b"Action: failed"), (b, c, d).count("550 5.1.1 unknown"))
                    assert b"Final-Recipient: rfc822; c@example.net" in text, text
                    assert b"Final-Recipient: rfc822; d@example.net" not in text, text
                    assert b"Subject: a scan" in text and b"abcdefghijkl" not in text, text


async def test_who_does_not_want_to_hear_of_a_failure_hears_nothing():
    to = ("b@example.net", "c@example.net NOTIFY=NEVER")
    for sender, rcpts in (("a@example.com", to), ("", ("b@example.net", "c@example.net"))):
        async with Site(Host(say={"c@example.net": "550 5.1.1 unknown"}), room=40960) as site:
            said = await site.send(scan(60000), rcpts, sender=sender)
            assert said.startswith("250"), said
            eq(len(site.queue), 0)
            assert "nobody is told" in "\n".join(site.log), site.log


async def test_the_admin_hears_of_a_refusal_that_its_sender_cannot_be_told():
    async with Site(Host(say={"c@example.net": "550 5.1.1 unknown"}), room=40960) as site:
        site.relay.admin = "admin@example.com"
        said = await site.send(scan(60000), ("b@example.net", "c@example.net"), sender="p@printer")
        assert said.startswith("250"), said
        note = site.queue.take()
        eq((note.meta["f"], note.meta["r"]), ("", ["admin@example.com"]))
        text = bytearray(note.size)
        note.read(text)
        note.close()
        assert b"Final-Recipient: rfc822; c@example.net" in text and b"p@printer" in text, text
        assert "nobody is told" not in "\n".join(site.log), site.log


async def test_where_a_refusal_could_not_be_told_the_mail_waits_at_the_device():
    async with Site(Host(say={"c@example.net": "550 5.1.1 unknown"})) as site:
        await site.add_waiting(9000)
        said = await site.send(scan(60000), ("b@example.net", "c@example.net"))
        assert said.startswith("451 4.3.1"), said
        eq((len(site.hosts[0].mails), site.written), (0, 0))


async def test_what_a_sender_wants_to_hear_goes_on_to_a_smart_host_that_can_tell_it():
    async with Site(Host("DSN"), room=40960) as site:
        said = await site.send(
            scan(60000), ("b@example.net NOTIFY=SUCCESS", "c@example.net"), more=" RET=FULL ENVID=x")
        assert said.startswith("250"), said
        commands = site.hosts[0].commands
        assert "RCPT TO:<b@example.net> NOTIFY=SUCCESS" in commands, commands
        assert [c for c in commands if c.startswith("MAIL") and " RET=FULL" in c and " ENVID=x" in c], commands
        eq(len(site.queue), 0)
    async with Site(Host(), room=40960) as site:
        said = await site.send(
            scan(60000), ("b@example.net NOTIFY=SUCCESS", "c@example.net"), more=" RET=FULL ENVID=x")
        assert said.startswith("250"), said
        note = site.queue.take()
        text = bytearray(note.size)
        note.read(text)
        note.close()
        assert bytes(text).count(b"Action: relayed") == 1, text


# -- smart hosts


async def test_the_next_smart_host_is_asked_when_one_does_not_take_the_mail_now():
    mail = scan(20000)
    for what, reply in (("greeting", "421 4.3.2 no"), ("MAIL", "451 4.3.0 no"), ("RCPT", "450 4.2.0 no"),
                        ("RCPT", "close"), ("DATA", "451 4.3.0 no")):  # fmt: skip
        async with Site(Host(say={what: reply}), Host()) as site:
            said = await site.send(mail)
            assert said.startswith("250 2.0.0 passed on"), (what, reply, said)
            eq((len(site.hosts[0].mails), len(site.hosts[1].mails)), (0, 1))
            passed(mail, site.hosts[1].mails[0])
    async with Site(Host(say={"MAIL": "552 5.3.4 too big"}), Host()) as site:
        said = await site.send(mail)
        assert said.startswith("552 5.3.4"), said
        eq(site.hosts[1].commands, [])


async def test_a_smart_host_that_wants_less_mail_is_left_alone():
    async with Site(Host(say={"MAIL": "421 4.7.28 unusual rate"})) as site:
        said = await site.send(scan(20000))
        assert said.startswith("451"), said
        n = len(site.hosts[0].commands)
        said = await site.send(scan(20000))
        assert said.startswith("451 4.4.1"), said
        eq(len(site.hosts[0].commands), n)


async def test_ehlo_tells_what_the_smart_host_takes_once_it_is_known():
    async with Site(Host("SIZE 30000"), most=500000) as site:
        sizes = []
        for _ in range(2):
            device = await site.device("")
            device.w.write(b"EHLO x\r\n")
            await device.w.drain()
            while True:
                line = await device.r.readline()
                if b"SIZE" in line:
                    sizes.append(int(line.split()[1]))
                if line[3:4] == b" ":
                    break
            if len(sizes) == 1:
                await device.envelope(more=" SIZE=60000")
                reply = await device.data(scan(60000))
                assert reply.startswith("552 5.3.4 the smart host takes 30000"), reply
            else:
                reply = await device.envelope(more=" SIZE=60000")
                assert reply.startswith("552 5.3.4"), reply
            await device.close()
        eq(sizes, [500000, 30000])
        eq([c for c in site.hosts[0].commands if c.startswith("MAIL")], [])


async def test_a_mail_that_grows_beyond_what_the_smart_host_takes_is_refused():
    for chunk in (0, 15000):
        async with Site(Host("SIZE 30000")) as site:
            said = await site.send(scan(60000), chunk=chunk, declared=False)
            assert said.startswith("552 5.3.4"), said
            eq(site.hosts[0].mails, [])


async def test_8_bit_characters_need_a_smart_host_that_takes_them():
    mail = HEAD + b"gr\xc3\xbc\xc3\x9fe\r\n" * 2500
    for body in ("", " BODY=8BITMIME"):
        async with Site(Host()) as site:
            said = await site.send(mail, more=body)
            assert said.startswith("554 5.6.3"), said
            eq(site.hosts[0].mails, [])
        async with Site(Host("8BITMIME")) as site:
            said = await site.send(mail, more=body)
            assert said.startswith("250"), said
            passed(mail, site.hosts[0].mails[0])
    async with Site(Host()) as site:
        said = await site.send(scan(20000), more=" BODY=8BITMIME")  # as some always say
        assert said.startswith("250"), said


# -- together with others


async def test_a_device_that_goes_in_the_middle_leaves_no_mail_at_the_smart_host():
    mail = scan(60000)
    for chunk in (0, 30000, 1000000):
        for declared in (True, False):
            async with Site(Host()) as site:
                host = site.hosts[0]
                device = await site.device()
                await device.envelope(more=" SIZE=60000" if declared else "")
                if chunk:
                    device.w.write(b"BDAT %d\r\n" % chunk + mail[: min(chunk, 50000)])
                    await device.w.drain()
                    if chunk < 50000:
                        await lines(device.r)
                        device.w.write(b"BDAT %d LAST\r\n" % chunk + mail[chunk : 2 * chunk - 1])
                else:
                    await device.ask("DATA")
                    device.w.write(stuffed(mail[:50000]))
                await device.w.drain()
                for _ in range(300):
                    if host.octets > 20000:
                        break
                    await asyncio.sleep(0.01)
                await device.close()
                await host.left()
                eq((len(host.mails), len(host.broken)), (0, 1))
                assert b"\r\n.\r\n" not in host.broken[0]
                await site.calm()
                eq((len(site.queue), site.queue.coming, len(Queue(site.queue.path))), (0, 0, 0))


async def test_a_device_that_takes_too_long_leaves_no_mail_either():
    async with Site(Host()) as site:
        site.listener.mail_timeout = 300
        device = await site.device()
        await device.envelope(more=" SIZE=60000")
        await device.ask("DATA")
        device.w.write(stuffed(scan(20000)))
        await device.w.drain()
        assert (await lines(device.r)).startswith("421 4.4.2")
        await device.close()
        await site.hosts[0].left()
        eq((site.hosts[0].mails, len(site.hosts[0].broken)), ([], 1))


async def test_others_are_served_while_a_mail_waits_for_the_smart_host():
    for what in ("MAIL", "end"):
        async with Site(Host(say={what: "wait"})) as site:
            big = asyncio.create_task(site.send(scan(60000)))
            for _ in range(300):
                if len([c for c in site.hosts[0].commands if c == "DATA" or what == "MAIL" and c[:4] == "MAIL"]):
                    break
                await asyncio.sleep(0.01)
            device = await site.device()
            await device.envelope()
            said = await device.data(scan(500))
            await device.close()
            assert said.startswith("250 2.0.0 queued"), said
            eq(len(site.queue), 1)
            site.hosts[0].calm.set()
            said = await big
            assert said.startswith("451"), said


async def test_two_mails_pass_at_a_time_and_the_third_waits_its_turn():
    async with Site(Host(say={"end": "wait"})) as site:
        host = site.hosts[0]
        big = [asyncio.create_task(site.send(scan(20000))) for _ in range(3)]
        for _ in range(300):
            if len(host.mails) == 2:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.25)
        eq(len([c for c in host.commands if c[:4] == "MAIL"]), 2)
        host.say.clear()
        host.calm.set()
        said = []
        for task in big:
            said.append((await task)[:3])
        eq(sorted(said), ["250", "451", "451"])


async def test_a_slow_smart_host_makes_the_device_wait_and_memory_does_not_grow():
    rounds = 1000
    async with Site(Host(stop=(10000, "wait"))) as site:
        host = site.hosts[0]
        host.keep = False
        device = await site.device()
        await device.envelope(more=" SIZE=%d" % (rounds * len(BIG)))
        gc.collect()
        before = gc.mem_alloc() if MICROPYTHON else 0
        task = asyncio.create_task(device.data((BIG, rounds)))
        await asyncio.sleep(0.1)
        last = -1
        while last != device.sent:  # until nothing moves any more
            last = device.sent
            await asyncio.sleep(0.3)
        assert device.sent < rounds, "nobody made the device wait"
        gc.collect()
        grown = gc.mem_alloc() - before if MICROPYTHON else 0
        assert grown < 40000, grown  # the device's own piece is in it
        host.calm.set()
        said = await task
        assert said.startswith("250 2.0.0 passed on"), said
        assert host.octets > rounds * len(BIG)
        await device.close()
        await site.calm()


async def test_a_mail_waits_for_its_turn_with_tls_and_leaves_the_line_when_it_takes_too_long():
    opened = cut.OPEN
    try:
        cut.OPEN = 0.4
        async with Site(Host()) as site:
            slots = site.relay.slots = Slots(1)
            site.relay.hosts[0].security = "starttls"
            slots.take("somebody")
            said = await site.send(scan(20000))
            assert said.startswith("451 4.4.1"), said
            eq((slots.line, slots.holders, site.hosts[0].commands), ([], ["somebody"], []))
            slots.give("somebody")
            said = await site.send(scan(20000))  # no CA: there is no session, but a turn
            assert said.startswith("451 4.4.1"), said
            eq((slots.line, slots.holders, slots.free), ([], [], 1))
    finally:
        cut.OPEN = opened


async def test_a_gateway_that_stops_leaves_no_mail_behind():
    async with Site(Host()) as site:
        device = await site.device()
        await device.envelope(more=" SIZE=60000")
        await device.ask("DATA")
        device.w.write(stuffed(scan(20000)))
        await device.w.drain()
        await asyncio.sleep(0.05)
        await site.server.close()
        await site.hosts[0].left()
        eq((site.hosts[0].mails, len(site.hosts[0].broken)), ([], 1))
        await device.close()
