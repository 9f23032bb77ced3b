"""lib/smtp/relay.py: from a real queue through real sessions to this library's own server."""

import asyncio
import os

from expect import eq
from play import Flash, somewhere
from smtp import auth
from smtp.queue import Queue
from smtp.relay import Relay, SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener, Server

NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000


class Clock:
    """Time that a test sets: seconds of uptime, and of the day once it is known."""

    def __init__(self, epoch=NOON):
        self.up = 1000
        self.epoch = epoch

    def uptime(self):
        return self.up

    def now(self):
        return self.epoch

    def offset(self, when):
        return 3600


class Box:
    """A smart host that refuses what it is told to.

    no: {address, or "MAIL", "DATA" or "END": SMTPError, or a list of them, used up one by one (None: accepted)}
    """

    def __init__(self, no=None):
        self.no = no or {}
        self.mails = []  # (sender, recipients, content)
        self.asked = []  # what the clients asked for, in order

    def check(self, what):
        self.asked.append(what)
        error = self.no.get(what)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error:
            raise error

    def mail(self, envelope):
        self.check("MAIL")

    def rcpt(self, envelope, address):
        self.check(address)

    def open(self, envelope):
        self.check("DATA")
        return Sink(self, envelope)


class Sink:
    def __init__(self, box, envelope):
        self.box = box
        self.envelope = envelope
        self.data = b""

    def write(self, piece):
        self.data += bytes(piece)

    def commit(self):
        self.box.check("END")
        self.box.mails.append((self.envelope.sender, list(self.envelope.rcpts), self.data))
        return "queued"

    def abort(self):
        pass


class World:
    """A queue, a relay, and smart hosts for it: await open(box, ...), at the end await close()."""

    def __init__(self, clock=None, **settings):
        self.clock = clock or Clock()
        self.settings = settings  # of SmartHost
        self.flash = Flash()
        self.path = self.flash.__enter__() + "/spool"
        self.queue = Queue(self.path, uptime=self.clock.uptime)
        self.servers = []
        self.told = []
        self.hosts = []

    def open(self, *boxes, **options):
        for box in boxes:
            server = Server()
            listener = Listener("mx.example.net", box, ["127.0.0.0/8"], **options)
            port, serve = somewhere(lambda port, s=server, li=listener: s.bind("127.0.0.1", port, li))
            task = asyncio.create_task(serve())
            self.servers.append((server, task, listener))
            self.hosts.append(SmartHost("127.0.0.1", port, security="none", **self.settings))
        self.relay = Relay(
            self.queue, self.hosts, "gw.example.com", self.clock, "alerts@example.com", self.told.append)
        self.relay.admin = "admin@example.com"
        return self

    async def stop(self, n=0):
        """The smart host `n` goes away."""
        server, task, _ = self.servers[n]
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        await server.close()

    async def close(self):
        for n in range(len(self.servers)):
            await self.stop(n)
        self.flash.__exit__()

    def add(self, *rcpts, sender="a@example.com", text=b"Subject: x\r\n\r\nhello\r\n", **more):
        meta = {"f": sender, "r": list(rcpts or ["b@example.net"]), "t": NOON - 60, "u": self.clock.up}
        meta.update(more)
        return self.queue.add(meta, [text])

    def restart(self):
        """The queue as it is after a power cut."""
        self.queue = Queue(self.path, uptime=self.clock.uptime)
        self.relay.queue = self.queue
        return self.queue

    def log(self):
        return "\n".join(self.told)

    def files(self):
        return sorted(os.listdir(self.path))


def fields(content, name):
    """The values of a header field."""
    head = content.split(b"\r\n\r\n", 1)[0] + b"\r\n"
    out = []
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name.lower().encode() + b":"):
            out.append(str(line[len(name) + 1 :].strip(), "utf-8"))
    return out


async def test_a_mail_is_delivered_once_and_gone():
    box = Box()
    world = World().open(box)
    ident = world.add("b@example.net", "c@example.net")
    eq(await world.relay.session(), True)
    eq(len(box.mails), 1)
    sender, rcpts, content = box.mails[0]
    eq((sender, rcpts), ("a@example.com", ["b@example.net", "c@example.net"]))
    assert content.endswith(b"\r\n\r\nhello\r\n"), content
    eq((len(world.queue), world.files(), world.relay.delivered), (0, [], 1))
    assert ident + " delivered to b@example.net" in world.log(), world.told
    eq(await world.relay.session(), True)
    eq(len(box.mails), 1)
    await world.close()


async def test_many_mails_go_in_one_session_each_once_and_in_order():
    box = Box()
    world = World().open(box)
    for n in range(30):
        size = (50, 1500, 9000, 0)[n % 4]
        world.add("r%d@example.net" % n, text=b"Subject: %d\r\n\r\n" % n + b"x" * size + b"\r\n")
    sessions = []
    count = world.servers[0][0].session
    world.servers[0][0].session = lambda *a: sessions.append(1) or count(*a)
    eq(await world.relay.session(), True)
    eq([m[1] for m in box.mails], [["r%d@example.net" % n] for n in range(30)])
    eq([fields(m[2], "Subject") for m in box.mails], [["%d" % n] for n in range(30)])
    eq([len(m[2].split(b"\r\n\r\n", 1)[1]) - 2 for m in box.mails], [(50, 1500, 9000, 0)[n % 4] for n in range(30)])
    eq((len(world.queue), world.files(), len(sessions)), (0, [], 1))
    await world.close()


async def test_who_is_refused_for_good_is_kept_with_the_reply_and_the_others_are_served_once():
    box = Box({"b@example.net": SMTPError(550, "5.1.1", "no such user")})
    world = World().open(box)
    world.add("a@example.net", "b@example.net", "c@example.net")
    eq(await world.relay.session(), True)
    eq([m[1] for m in box.mails], [["a@example.net", "c@example.net"]])
    eq((len(world.queue), world.queue.dead), (0, 1))
    eq(world.files(), ["10000001-why", "10000001.0.5.2-dead"])
    with open(world.path + "/10000001-why") as f:
        eq(f.read(), "1 550 5.1.1 no such user\n")
    assert "refused for b@example.net: 550 5.1.1 no such user" in world.log(), world.told
    queue = world.restart()
    eq((queue.dead, len(queue)), (1, 0))
    await world.relay.session()
    eq(len(box.mails), 1)
    await world.close()


async def test_who_is_refused_for_now_is_tried_again_alone():
    busy = SMTPError(450, "4.2.0", "busy")
    box = Box({"b@example.net": [busy, busy]})
    world = World().open(box)
    world.add("a@example.net", "b@example.net", "c@example.net")
    eq(await world.relay.session(), True)
    eq([m[1] for m in box.mails], [["a@example.net", "c@example.net"]])
    eq(await world.relay.session(), True)  # it is not due
    eq(len(box.asked), 6)
    assert 60 <= world.queue.due() - world.clock.up <= 76, world.queue.due()
    world.clock.up += 80
    eq(await world.relay.session(), True)
    eq(box.asked[6:8], ["MAIL", "b@example.net"])
    assert "a@example.net" not in box.asked[6:] and "c@example.net" not in box.asked[6:], box.asked
    assert 120 <= world.queue.due() - world.clock.up <= 151, world.queue.due()
    world.restart()  # due at once after a restart
    eq(await world.relay.session(), True)
    eq([m[1] for m in box.mails], [["a@example.net", "c@example.net"], ["b@example.net"]])
    eq((len(world.queue), world.queue.dead, world.files()), (0, 0, []))
    await world.close()


async def test_a_mail_that_is_refused_as_a_whole_becomes_a_dead_letter():
    for where, error in (
        ("END", SMTPError(554, "5.7.1", "spam")),
        ("DATA", SMTPError(552, "5.3.4", "too big")),
        ("MAIL", SMTPError(552, "5.3.4", "too big")),
    ):
        box = Box({where: [error]})
        world = World().open(box)
        world.add("a@example.net", "b@example.net")
        world.add("c@example.net")
        eq(await world.relay.session(), True)
        eq((where, [m[1] for m in box.mails]), (where, [["c@example.net"]]))
        eq((where, len(world.queue), world.queue.dead), (where, 0, 1))
        with open(world.path + "/10000001-why") as f:
            eq([line.split(" ", 1)[1] for line in f.read().split("\n") if line], [str(error)] * 2)
        await world.close()


async def test_a_mail_that_is_deferred_as_a_whole_is_tried_again_for_all():
    for where in ("MAIL", "DATA", "END"):
        box = Box({where: [SMTPError(452, "4.3.1", "full")]})
        world = World().open(box)
        world.add("a@example.net", "b@example.net")
        eq(await world.relay.session(), True)
        eq((where, box.mails, len(world.queue)), (where, [], 1))
        eq(world.queue.rows[2], 1)  # an attempt
        world.clock.up += 80
        eq(await world.relay.session(), True)
        eq((where, [m[1] for m in box.mails]), (where, [["a@example.net", "b@example.net"]]))
        await world.close()


async def test_a_sender_that_is_refused_keeps_the_mail_and_names_the_setting():
    for where, error in (
        ("MAIL", SMTPError(550, "5.7.60", "SMTP; Client does not have permissions to send as this sender")),
        ("b@example.net", SMTPError(553, "5.7.1", "<a@example.com>: Sender address rejected: not owned by user gw")),
        ("END", SMTPError(554, "5.7.60", "SendAsDenied")),
    ):
        box = Box({where: [error]})
        world = World().open(box)
        world.add()
        await world.relay.session()
        eq((where, box.mails, len(world.queue), world.queue.dead), (where, [], 1, 0))
        assert "smarthost.sender" in world.log() and "a@example.com" in world.log(), world.told
        world.clock.up += 80
        world.hosts[0].sender = "gw@example.com"
        await world.relay.session()
        eq((where, [m[0] for m in box.mails], len(world.queue)), (where, ["gw@example.com"], 0))
        await world.close()


async def test_with_a_sender_the_envelope_and_from_change_and_replies_go_to_the_original():
    box = Box()
    world = World(sender="gw@example.com").open(box)
    world.add(text=b"From: Printer <p@lan.example>\r\nSubject: x\r\n\r\nFrom: me\r\n")
    world.add(sender="", text=b"From: daemon@lan.example\r\n\r\nbounce\r\n")
    await world.relay.session()
    sender, _, content = box.mails[0]
    eq(sender, "gw@example.com")
    eq(fields(content, "From"), ['"Printer (p@lan.example)" <gw@example.com>'])
    eq(fields(content, "Reply-To"), ['"Printer" <p@lan.example>'])
    assert content.endswith(b"\r\n\r\nFrom: me\r\n"), content
    eq(box.mails[1][0], "")  # a bounce never bounces
    await world.close()


async def test_the_first_smart_host_that_works_is_taken():
    first, second = Box(), Box()
    world = World().open(first, second)
    world.add()
    await world.stop(0)
    eq(await world.relay.session(), True)
    eq((len(first.mails), len(second.mails), len(world.queue)), (0, 1, 0))
    assert "127.0.0.1:%d" % world.hosts[0].port in world.log() and "heck the network" in world.log(), world.told
    await world.close()


async def test_a_network_that_is_gone_costs_no_attempt_and_no_mail():
    box = Box()
    world = World().open(box)
    for _ in range(3):
        world.add()
    await world.stop()
    for _ in range(3):
        eq(await world.relay.session(), False)
    eq((len(world.queue), world.queue.dead), (3, 0))
    eq([world.queue.rows[i + 2] for i in (0, 4, 8)], [0, 0, 0])
    eq(world.queue.due(), world.clock.up)
    eq(len(world.told), 1)  # said once
    assert "3 mails wait" in world.log(), world.told
    await world.close()


async def test_a_server_that_closes_in_the_middle_gets_the_rest_later_and_nothing_twice():
    for where in ("MAIL", "b@example.net", "DATA", "END"):
        box = Box({where: [None, None, SMTPError(421, "4.3.2", "closing")]})
        world = World().open(box)
        for _ in range(6):
            world.add()
        eq(await world.relay.session(), False)
        eq((where, len(box.mails), len(world.queue)), (where, 2, 4))
        eq([world.queue.rows[i * 4 + 2] for i in range(4)], [0] * 4)
        eq(await world.relay.session(), True)
        eq((where, len(box.mails), len(world.queue), world.queue.dead), (where, 6, 0, 0))
        await world.close()


async def test_a_password_that_is_refused_or_not_asked_for_sends_nothing_and_says_what_to_do():
    users = {"gateway": auth.make_verifier("secret", 2)}
    for password, options, words in (
        ("wrong", {"users": users, "auth_in_clear": True}, ("smarthost.username", "535")),
        ("secret", {}, ("does not offer AUTH", "smarthost.port")),
    ):
        box = Box()
        world = World(username="gateway", password=password).open(box, **options)
        world.add()
        eq(await world.relay.session(), False)
        eq((box.asked, len(world.queue), world.queue.rows[2]), ([], 1, 0))
        for word in words:
            assert word in world.log(), (word, world.told)
        await world.close()
    box = Box()
    world = World(username="gateway", password="secret").open(box, users=users, auth_in_clear=True)
    world.add()
    eq(await world.relay.session(), True)
    eq(len(box.mails), 1)
    await world.close()


async def test_a_smart_host_without_starttls_gets_nothing():
    box = Box()
    world = World().open(box)
    world.hosts[0].security = "starttls"
    world.hosts[0].verify = "none"
    world.add()
    eq(await world.relay.session(), False)
    eq((box.asked, len(world.queue), world.queue.rows[2]), ([], 1, 0))
    assert "STARTTLS" in world.log() and "othing is sent in the clear" in world.log(), world.told
    await world.close()


async def test_what_is_missing_in_the_header_is_added_once():
    box = Box()
    world = World().open(box)
    ident = world.add()
    have = b"DATE: Sat, 21 Nov 2026 00:00:00 +0000\r\nfrom: x@lan.example\r\nMessage-Id: <1@lan.example>\r\n"
    world.add(text=have + b"Subject: x\r\n\r\nhello\r\n")
    world.add(sender="", text=b"no header at all\r\n")
    await world.relay.session()
    content = box.mails[0][2]
    eq(fields(content, "Date"), ["Sun, 22 Nov 2026 12:59:00 +0100"])
    eq(fields(content, "From"), ["a@example.com"])
    eq(len(fields(content, "Message-ID")), 1)
    told = fields(content, "Message-ID")[0]
    assert told.startswith("<" + ident) and told.endswith("@gw.example.com>"), told
    content = box.mails[1][2]
    eq(fields(content, "Date"), ["Sat, 21 Nov 2026 00:00:00 +0000"])
    eq((fields(content, "From"), fields(content, "Message-ID")), (["x@lan.example"], ["<1@lan.example>"]))
    content = box.mails[2][2]
    eq(fields(content, "From"), ["alerts@example.com"])
    assert content.endswith(b"\r\n\r\nno header at all\r\n"), content
    await world.close()


async def test_a_mail_keeps_its_message_id_at_each_attempt():
    box = Box({"END": [SMTPError(451, "4.3.0", "later")]})
    world = World().open(box)
    world.add()
    seen = []
    commit = Sink.commit
    Sink.commit = lambda self: seen.append(fields(self.data, "Message-ID")) or commit(self)
    try:
        await world.relay.session()
        world.clock.up += 80
        world.clock.epoch += 80
        await world.relay.session()
    finally:
        Sink.commit = commit
    eq((len(seen), seen[0]), (2, seen[1]))
    eq(fields(box.mails[0][2], "Date"), ["Sun, 22 Nov 2026 12:59:00 +0100"])
    await world.close()


async def test_a_mail_from_before_the_clock_was_set_gets_its_true_date():
    clock = Clock(None)
    box = Box()
    world = World(clock).open(box)
    world.add(t=0)  # at uptime 1000
    clock.up = 1600
    clock.epoch = NOON
    await world.relay.session()
    eq(fields(box.mails[0][2], "Date"), ["Sun, 22 Nov 2026 12:50:00 +0100"])
    # Of another boot nothing is known but that it was before now.
    clock.epoch = None
    world.add(t=0)
    clock.up = 5
    clock.epoch = NOON
    world.restart()
    await world.relay.session()
    eq(fields(box.mails[1][2], "Date"), ["Sun, 22 Nov 2026 13:00:00 +0100"])
    await world.close()


async def test_a_mail_that_came_in_by_smtp_carries_where_it_came_from():
    box = Box()
    world = World().open(box)
    ident = world.add(p="192.168.1.9", h="printer", x=7)
    world.add()
    await world.relay.session()
    content = box.mails[0][2]
    top = b"Received: from printer ([192.168.1.9])\r\n\tby gw.example.com with ESMTPSA id "
    assert content.startswith(top), content
    assert ident.encode() in content.split(b"\r\nSubject")[0], content
    eq(fields(box.mails[1][2], "Received"), [])
    await world.close()


async def test_a_damaged_mail_does_not_stop_the_others():
    box = Box()
    world = World().open(box)
    for n in range(3):
        world.add("r%d@example.net" % n)
    with open(world.path + "/10000002", "rb") as f:
        data = bytearray(f.read())
    data[-20] ^= 1
    with open(world.path + "/10000002", "wb") as f:
        f.write(data)
    eq(await world.relay.session(), True)
    eq([m[1] for m in box.mails], [["r0@example.net"], ["r2@example.net"]])
    eq((world.files(), len(world.queue)), (["10000002-bad"], 0))
    assert "10000002" in world.log() and "set aside" in world.log(), world.told
    await world.close()


async def test_a_dead_relay_left_no_file_open_and_its_mails_go_later():
    box = Box()
    world = World().open(box)
    for _ in range(8):
        world.add(text=b"Subject: x\r\n\r\n" + b"x" * 3000 + b"\r\n")
    taken = []
    take = world.queue.take
    world.queue.take = lambda: taken.append(take()) or taken[-1]
    for turns in range(1, 30, 3):
        task = asyncio.create_task(world.relay.session())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        eq([mail for mail in taken if mail and mail.f], [])
    assert taken
    eq(await world.relay.session(), True)
    eq((len(world.queue), world.files()), (0, []))
    assert len(box.mails) >= 8
    await world.close()


async def test_a_session_that_runs_out_of_memory_is_tried_again_with_fewer_mails_in_flight():
    world = World().open(box := Box())
    for n in range(8):
        world.add("r%d@example.net" % n)
    queue = world.queue
    take = queue.take

    def scarce():
        if list(queue.rows).count(0x3FFFFFFF) > 2:  # they are taken
            raise MemoryError
        return take()

    queue.take = scarce
    try:
        await world.relay.session()
        assert False, "five mails are in flight"
    except MemoryError:
        queue.recall()
    await world.relay.session()
    eq((len(queue), world.relay.window), (0, 2))
    assert {"r%d@example.net" % n for n in range(8)} == {rcpts[0] for _, rcpts, _ in box.mails}
    await world.close()


async def test_others_give_way_when_there_is_no_memory_for_a_session():
    world = World().open(box := Box())
    world.add()

    def full():
        raise MemoryError

    host = world.hosts[0]
    host.context = full
    gave_way = []
    world.relay.starved = lambda: gave_way.append(1)
    for _ in range(2):
        eq(await world.relay.session(), False)
    del host.context
    eq(await world.relay.session(), True)
    eq((gave_way, len(box.mails)), ([1, 1], 1))
    await world.close()


async def test_a_mail_that_was_read_in_part_is_closed_and_still_there():
    world = World().open(Box())
    world.add(text=b"Subject: x\r\n\r\n" + b"x" * 3000)
    world.relay.host = world.hosts[0]
    job = world.relay.next()
    job.out.readinto(bytearray(600))
    assert job.mail.f
    job.done([None])
    eq((job.mail.f, len(world.queue), world.queue.due()), (None, 1, world.clock.up))
    await world.close()


async def eventually(what):
    for _ in range(250):
        if what():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never happens")


async def test_the_relay_wakes_when_a_mail_is_committed():
    box = Box()
    world = World().open(box)
    world.add("first@example.net")
    world.queue.take()  # the relay before this one took it and failed
    task = asyncio.create_task(world.relay.run())
    await eventually(lambda: len(box.mails) == 1 and not len(world.queue))
    box.mails = []
    for n in range(3):
        world.add("r%d@example.net" % n)
        await eventually(lambda n=n: len(box.mails) == n + 1 and not len(world.queue))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    await world.close()


async def test_the_relay_tries_until_the_smart_host_is_there():
    box = Box()
    world = World().open(box)
    await world.stop()
    world.relay.pause = 0
    world.add()
    task = asyncio.create_task(world.relay.run())
    await eventually(lambda: world.relay.failures > 3)
    server, _, listener = world.servers[0]
    again = server.bind("127.0.0.1", world.hosts[0].port, listener)
    world.servers[0] = (server, asyncio.create_task(again()), listener)
    await eventually(lambda: len(box.mails) == 1 and not len(world.queue))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    await world.close()
