"""lib/smtp/dns.py against a name server of its own, UDP and TCP, in the same loop."""

import asyncio
import errno
import os
import socket

import smtp.dns as dns
import smtp.stream as stream
from expect import eq, raises
from play import Random, somewhere
from smtp.client import SessionError, open_session
from smtp.dns import AAAA, A, Resolver, encode, parse
from smtp.listen import accept, listen
from smtp.stream import Stream, connect, ready, sleep_ms

CNAME = 5
MX1 = bytes((192, 0, 2, 1))
MX2 = bytes((192, 0, 2, 2))
SIX = bytes((0x20, 1, 0xD, 0xB8)) + bytes(11) + b"\1"
SIX_TEXT = "2001:db8:0:0:0:0:0:1"
NAME = "mx.example.com"


# -- messages, written down here once more from RFC 1035 section 4


def wire(name):
    return b"".join([bytes((len(label),)) + label.encode() for label in name.split(".")]) + b"\0"


def u16(n):
    return bytes((n >> 8, n & 255))


def rr(owner, kind, data, ttl=300, size=None):
    """One record. `owner`: a name, or its bytes; `data`: bytes, or the name that an alias stands for."""
    owner = wire(owner) if isinstance(owner, str) else owner
    data = wire(data) if isinstance(data, str) else data
    size = len(data) if size is None else size
    return owner + u16(kind) + u16(1) + u16(ttl >> 16) + u16(ttl & 65535) + u16(size) + data


LONG = (b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0"  # 256 octets
POINTER = b"\xc0\x0c"  # to the name in the question


def reply(query, records=(), code=0, flags=0x8180, count=None):
    count = len(records) if count is None else count
    return query[:2] + u16(flags | code) + u16(1) + u16(count) + bytes(4) + query[12:] + b"".join(records)


def question(query):
    """(name, kind) of a query as this resolver sends it."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    eq((query[2:12], query[at + 3 :]), (b"\1\0\0\1\0\0\0\0\0\0", b"\0\1"))
    return ".".join(labels), query[at + 1] << 8 | query[at + 2]


def port_of(peer):
    return peer[1] if isinstance(peer, tuple) else peer[2] << 8 | peer[3]


class NameServer:
    """`zone`: what to say of (name, kind): a list of records, a code, or a function of (server, query, peer) that
    sends what it likes; what is not in it has no records. `cut`: names that UDP has no room for."""

    def __init__(self, zone=None, cut=()):
        self.zone = zone or {}
        self.cut = cut
        self.seen = []  # (name, kind) of each query over UDP
        self.ids = []
        self.ports = []
        self.tcp = []  # (name, kind) of each query over TCP

    def bind(self, port):
        self.udp = udp_socket(port)
        try:
            self.listener = listen("127.0.0.1", port)
        except OSError:
            self.udp.close()
            raise

    async def __aenter__(self):
        port, _ = somewhere(self.bind)
        self.where = "127.0.0.1", port
        self.tasks = [asyncio.create_task(self.serve()), asyncio.create_task(accept(self.listener, self.take))]
        return self

    async def __aexit__(self, *error):
        for task in self.tasks:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        self.udp.close()
        self.listener.close()

    async def serve(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(600)
            except OSError as e:
                eq(e.errno, errno.EAGAIN)
                await ready(self.udp, False)
                continue
            name, kind = asked = question(query)
            self.seen.append(asked)
            self.ids.append(query[:2])
            self.ports.append(port_of(peer))
            told = self.zone.get(asked, [])
            if name in self.cut:
                self.udp.sendto(reply(query, flags=0x8380), peer)
            elif isinstance(told, int):
                self.udp.sendto(reply(query, code=told), peer)
            elif isinstance(told, list):
                self.udp.sendto(reply(query, told), peer)
            else:
                step = told(self, query, peer)
                if step:
                    self.tasks.append(asyncio.create_task(step))

    def take(self, sock, peer):
        self.tasks.append(asyncio.create_task(self.talk(Stream(sock))))

    async def talk(self, s):
        try:
            query = await self.read(s)
            asked = question(query)
            self.tcp.append(asked)
            told = self.zone.get(asked, [])
            out = reply(query, told) if isinstance(told, list) else told(self, query, None)
            if out and out[:2] == query[:2]:
                out = u16(len(out)) + out
            while out:
                n = s.put(out)
                if n is None:
                    await s.wait(True)
                else:
                    out = out[n:]
        except OSError:
            pass  # it has heard enough
        finally:
            s.close()

    async def read(self, s):
        s.due = None
        data = b""
        while len(data) < 2 or len(data) < 2 + (data[0] << 8 | data[1]):
            n = s.get(s.buf)
            if n is None:
                await s.wait(False)
            else:
                if not n:
                    raise OSError(errno.ECONNRESET)
                data += bytes(s.mv[:n])
        return data[2:]


def udp_socket(port=None):
    if port is None:
        return somewhere(udp_socket)[1]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(socket.getaddrinfo("127.0.0.1", port)[0][4])
    except OSError:
        sock.close()
        raise
    return sock


class Uptime:
    seconds = 1000

    def __call__(self):
        return self.seconds


def resolver(*servers, ipv6=True):
    one = Resolver([s.where if isinstance(s, NameServer) else s for s in servers], Uptime())
    one.waits = (100, 100)
    one.ipv6 = ipv6
    return one


async def fails(awaitable, number, *words):
    try:
        found = await awaitable
    except OSError as e:
        for word in words:
            assert word in e.args[1], "%r is not in %r" % (word, e.args[1])
        eq(e.args[0], number)
        return e.args[1]
    raise AssertionError("found %r" % (found,))


def silence(server, query, peer):
    pass


# -- what needs no name server


def nobody():
    raise AssertionError("a name server is asked for")


async def test_addresses_are_their_own_answer():
    one = Resolver(nobody)
    for host, ip in (
        ("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("[2001:db8::1]", "2001:db8::1"), ("fe80::1%eth0", "fe80::1%eth0"),
    ):
        eq(await one.resolve(host), [ip])


async def test_localhost_is_this_computer_whatever_name_servers_say():
    one = Resolver(nobody)
    for ipv6, wanted in ((True, ["127.0.0.1", "::1"]), (False, ["127.0.0.1"])):
        one.ipv6 = ipv6
        for host in ("localhost", "LocalHost", "localhost.", "mail.localhost", "a.b.localhost."):
            eq(await one.resolve(host), wanted)


async def test_what_is_no_host_name_is_refused_before_anybody_is_asked():
    one = Resolver(nobody)
    for host in (
        "", ".", "..", "a..b", ".a", "a b", "a\0b", "bücher.example", "a@b", "x" * 64 + ".example", "a." * 127 + "aa",
        "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.0.0.1", "mail.123", "a\nb", "a/b", "a:b", "[a]",
    ):  # fmt: skip
        await fails(one.resolve(host), errno.EINVAL, "no host name", "xn--")
    for host in ("x" * 63 + ".example", "a." * 126 + "a", "_smtp.a-b.example", "xn--bcher-kva.example"):
        await fails(Resolver([]).resolve(host), errno.EHOSTUNREACH, "no name server is known", "board.dns")


def test_a_name_is_encoded_in_lower_case_and_checked():
    eq(encode("Mx.Example.COM"), b"\2mx\7example\3com\0")
    eq(len(encode("a." * 126 + "a")), 255)
    raises(ValueError, encode, "a." * 126 + "aa")


async def test_the_computers_own_table_of_names_comes_first():
    async with NameServer({(NAME, A): [rr(NAME, A, MX1)]}) as server:
        one = resolver(server)
        one.hosts = lambda name: ["192.0.2.9"] if name == "nas.lan" else []
        eq(await one.resolve("NAS.lan"), ["192.0.2.9"])
        eq(server.seen, [])
        eq(await one.resolve(NAME), ["192.0.2.1"])


# -- answers


async def test_all_addresses_are_given_ipv4_first():
    records = {
        (NAME, A): [rr(POINTER, A, MX1), rr("MX.example.COM", A, MX2)],
        (NAME, AAAA): [rr(POINTER, AAAA, SIX)],
    }
    async with NameServer(records) as server:
        eq(await resolver(server).resolve("Mx.Example.Com."), ["192.0.2.1", "192.0.2.2", SIX_TEXT])
        eq(sorted(server.seen), [(NAME, A), (NAME, AAAA)])


async def test_a_name_with_ipv6_alone_has_that_address():
    async with NameServer({(NAME, AAAA): [rr(POINTER, AAAA, SIX)]}) as server:
        eq(await resolver(server).resolve(NAME), [SIX_TEXT])


async def test_a_board_without_ipv6_does_not_ask_for_it():
    async with NameServer({(NAME, A): [rr(POINTER, A, MX1)]}) as server:
        eq(await resolver("::1", "fe80::1", server, ipv6=False).resolve(NAME), ["192.0.2.1"])
        eq(server.seen, [(NAME, A)])


async def test_the_answer_does_not_wait_for_an_ipv6_address_that_never_comes():
    async with NameServer({(NAME, A): [rr(POINTER, A, MX1)], (NAME, AAAA): silence}) as server:
        one = resolver(server)
        one.waits = (60000,)
        eq(await one.resolve(NAME), ["192.0.2.1"])


async def test_records_of_other_names_classes_and_kinds_are_passed_over():
    other = [
        rr("evil.example", A, MX2), rr(POINTER, 16, b"\4text"), rr(POINTER, A, MX1).replace(b"\0\1\0\1", b"\0\1\0\3"),
        rr(POINTER, 99, b""), rr(POINTER, AAAA, SIX),
    ]  # fmt: skip
    async with NameServer({(NAME, A): other[:3] + [rr(POINTER, A, MX2)] + other[3:]}) as server:
        eq(await resolver(server).resolve(NAME), ["192.0.2.2"])


async def test_a_name_that_does_not_exist_is_told_from_name_servers_that_do_not_answer():
    async with NameServer({("no.example.com", A): 3, ("no.example.com", AAAA): 3}) as server:
        one = resolver(server)
        gone = await fails(one.resolve("no.example.com"), errno.ENOENT, "does not exist")
        bare = await fails(one.resolve(NAME), errno.ENOENT, "no IP address")
    closed = await fails(one.resolve("a.example.com"), errno.ETIMEDOUT, "no name server answers", "127.0.0.1: error")
    eq(len({gone, bare, closed}), 3)
    async with NameServer({(NAME, A): silence, (NAME, AAAA): silence}) as server:
        await fails(resolver(server).resolve(NAME), errno.ETIMEDOUT, "no name server answers", "127.0.0.1 is silent")
        eq(len(server.seen), 4)  # two kinds, two rounds
        # With one kind answered, nobody knows yet that there is no address.
        server.zone = {(NAME, A): silence}
        await fails(resolver(server).resolve(NAME), errno.ETIMEDOUT, "no name server answers")


async def test_an_alias_is_followed_in_one_reply_in_any_order():
    chain = [rr(POINTER, CNAME, "b.example"), rr("b.example", CNAME, "C.example"), rr("c.example", A, MX1, 60)]
    for records in (chain, [chain[2], chain[0], chain[1]], [chain[1], chain[2], chain[0]]):
        async with NameServer({(NAME, A): records}) as server:
            eq(await resolver(server).resolve(NAME), ["192.0.2.1"])
            assert ("c.example", A) not in server.seen


async def test_an_alias_is_followed_to_another_reply():
    zone = {
        (NAME, A): [rr(POINTER, CNAME, "b.example")],
        ("b.example", A): [rr(POINTER, CNAME, "c.example"), rr("c.example", CNAME, "d.example")],
        ("d.example", A): [rr(POINTER, A, MX2)],
    }
    async with NameServer(zone) as server:
        eq(await resolver(server).resolve(NAME), ["192.0.2.2"])
        eq([n for n, kind in server.seen if kind == A], [NAME, "b.example", "d.example"])


async def test_aliases_in_a_circle_end():
    for records in (
        [rr(POINTER, CNAME, POINTER)],
        [rr(POINTER, CNAME, "b.example"), rr("b.example", CNAME, NAME)],
    ):
        async with NameServer({(NAME, A): records}) as server:
            await fails(resolver(server, ipv6=False).resolve(NAME), errno.ENOENT, "no IP address")
            eq(len(server.seen), 1)
    zone = {(NAME, A): [rr(POINTER, CNAME, "b.example")], ("b.example", A): [rr(POINTER, CNAME, NAME)]}
    async with NameServer(zone) as server:
        await fails(resolver(server, ipv6=False).resolve(NAME), errno.ENOENT, "circle")
        eq(len(server.seen), 8)


async def test_an_alias_of_a_name_that_does_not_exist_does_not_exist():
    def alias(server, query, peer):
        server.udp.sendto(reply(query, [rr(POINTER, CNAME, "gone.example")], 3), peer)

    async with NameServer({(NAME, A): alias}) as server:
        await fails(resolver(server, ipv6=False).resolve(NAME), errno.ENOENT, "does not exist")


# -- several name servers


async def test_the_next_name_server_is_asked_when_one_does_not_help():
    def lame(server, query, peer):
        server.udp.sendto(reply(query, flags=0x8100), peer)  # recursion is not available, nor is an answer

    good = {(NAME, A): [rr(POINTER, A, MX1)]}
    for trouble in (2, 5, 4, 1, silence, lame):
        async with NameServer({(NAME, A): trouble}) as first:
            async with NameServer(good) as second:
                eq(await resolver(first, second, ipv6=False).resolve(NAME), ["192.0.2.1"])
                eq((first.seen, second.seen), ([(NAME, A)], [(NAME, A)]))


async def test_all_are_asked_twice_and_named_in_the_end_and_the_fourth_is_not():
    async with NameServer({(NAME, A): 2}) as first:
        async with NameServer({(NAME, A): 5}) as second:
            one = resolver(first, second, "192.0.2.300", first, second, ipv6=False)
            text = await fails(one.resolve(NAME), errno.ETIMEDOUT, "127.0.0.1 says SERVFAIL, 127.0.0.1 says REFUSED")
            eq((text.count("SERVFAIL"), len(first.seen), len(second.seen)), (2, 4, 2))


async def test_a_name_server_that_has_recovered_answers_in_the_second_round():
    def slow(server, query, peer):
        server.zone = {(NAME, A): [rr(POINTER, A, MX2)]}

    async with NameServer({(NAME, A): slow}) as server:
        eq(await resolver(server, ipv6=False).resolve(NAME), ["192.0.2.2"])
        eq(len(server.seen), 2)


async def test_the_list_of_name_servers_is_asked_for_each_time_and_a_name_in_it_is_no_server():
    async with NameServer({(NAME, A): [rr(POINTER, A, MX1)]}) as server:
        lists = [[], ["ns.example.com", ""], [server.where]]
        one = Resolver(lambda: lists.pop(0), Uptime())
        one.ipv6 = False
        for _ in range(2):
            await fails(one.resolve(NAME), errno.EHOSTUNREACH, "no name server is known")
        eq(await one.resolve(NAME), ["192.0.2.1"])


# -- who else may try to answer


def forged(query):
    return reply(query, [rr(POINTER, A, MX2)])


def behind(*forgeries):
    """What sends `forgeries`, functions of the query, before the true answer."""

    def send(server, query, peer):
        for forge in forgeries:
            server.udp.sendto(forge(query), peer)
        server.udp.sendto(reply(query, [rr(POINTER, A, MX1)]), peer)

    return send


def edited(at, data):
    return lambda query: forged(query)[:at] + data + forged(query)[at + len(data) :]


async def test_a_reply_to_another_question_is_ignored():
    other = wire("evil.example.com")[: len(wire(NAME))]
    for name, forge in (
        ("other id", lambda q: bytes((q[0] ^ 1, q[1])) + forged(q)[2:]),
        ("id in wrong order", lambda q: (bytes((q[1], q[0])) if q[0] != q[1] else b"??") + forged(q)[2:]),
        ("other name", edited(12, other)),
        ("other name, one letter", edited(13, b"n")),
        ("other kind", edited(12 + len(wire(NAME)), b"\0\x1c")),
        ("other class", edited(14 + len(wire(NAME)), b"\0\3")),
        ("two questions", edited(4, b"\0\2")),
        ("no question", lambda q: q[:2] + b"\x81\x80\0\0\0\1\0\0\0\0" + rr(NAME, A, MX2)),
        ("a query", edited(2, b"\1")),
        ("a notification", edited(2, b"\xa1")),
        ("nothing", lambda q: b""),
        ("one octet", lambda q: q[:1]),
        ("its id", lambda q: q[:2]),
        ("half a header", lambda q: forged(q)[:11]),
        ("half a question", lambda q: forged(q)[:20]),
        ("noise", lambda q: os.urandom(40)),
    ):
        async with NameServer({(NAME, A): behind(forge)}) as server:
            eq((name, await resolver(server, ipv6=False).resolve(NAME)), (name, ["192.0.2.1"]))
            eq((name, len(server.seen)), (name, 1))


async def test_a_reply_that_cannot_be_read_to_its_end_is_ignored():
    at = 12 + len(wire(NAME)) + 4  # where the records are
    itself = bytes((192, at))
    inside = bytes((192, at + 12))  # to where the data of the first record are
    for name, forge in (
        ("pointer to itself", lambda q: reply(q, [rr(itself, A, MX2)])),
        ("pointer to one to itself", lambda q: reply(q, [rr(POINTER, 16, inside), rr(inside, A, MX2)])),
        ("pointers to each other", lambda q: reply(q, [rr(bytes((192, at + 2, 192, at)), A, MX2)])),
        ("pointer forwards", lambda q: reply(q, [rr(bytes((192, at + 16)), A, MX2), rr(NAME, A, MX2)])),
        ("pointer behind the end", lambda q: reply(q, [rr(b"\xff\xff", A, MX2)])),
        ("label and a pointer to it", lambda q: reply(q, [rr(b"\1a" + itself, A, MX2)])),
        ("alias to itself by pointer", lambda q: reply(q, [rr(POINTER, CNAME, bytes((192, at + 12)))])),
        ("label of an unknown kind", lambda q: reply(q, [rr(b"\x40" + b"a" * 64 + b"\0", A, MX2)])),
        ("name of 256 octets", lambda q: reply(q, [rr(LONG, A, MX2)])),
        ("name without an end", lambda q: reply(q, [b"\3mx1"])),
        ("records that are not there", lambda q: reply(q, [rr(POINTER, A, MX2)], count=2)),
        ("65,535 records", lambda q: reply(q, count=65535)),
        ("address of 3 octets", lambda q: reply(q, [rr(POINTER, A, MX2[:3])])),
        ("address of 5 octets", lambda q: reply(q, [rr(POINTER, A, MX2 + b"x")])),
        ("address of no octets", lambda q: reply(q, [rr(POINTER, A, b"")])),
        ("length of 5, octets 4", lambda q: reply(q, [rr(POINTER, A, MX2, size=5)])),
        ("text that is not all there", lambda q: reply(q, [rr(POINTER, A, MX2), rr(POINTER, 16, b"\3abc", size=9)])),
        ("length of 65535", lambda q: reply(q, [rr(POINTER, A, MX2, size=65535)])),
        ("alias shorter than its length", lambda q: reply(q, [rr(POINTER, CNAME, wire("b.example") + b"x")])),
        ("alias longer than its length", lambda q: reply(q, [rr(POINTER, CNAME, "b.example", size=5)])),
        ("header of a record cut", lambda q: forged(q)[: at + 8]),
    ):
        async with NameServer({(NAME, A): behind(forge)}) as server:
            eq((name, await resolver(server, ipv6=False).resolve(NAME)), (name, ["192.0.2.1"]))
            eq((name, len(server.seen)), (name, 1))


async def test_a_reply_from_another_port_is_ignored():
    other = udp_socket()

    def spoof(server, query, peer):
        other.sendto(forged(query), peer)
        server.udp.sendto(reply(query, [rr(POINTER, A, MX1)]), peer)

    try:
        async with NameServer({(NAME, A): spoof}) as server:
            eq(await resolver(server, ipv6=False).resolve(NAME), ["192.0.2.1"])
        spoof = lambda server, query, peer: other.sendto(forged(query), peer) and None  # noqa: E731
        async with NameServer({(NAME, A): spoof}) as server:
            await fails(resolver(server, ipv6=False).resolve(NAME), errno.ETIMEDOUT, "no name server answers")
    finally:
        other.close()


async def test_forged_replies_without_end_neither_count_nor_stop_the_others():
    turns = [0]

    async def flood(server, query, peer):
        bad = bytes((query[0] ^ 255, query[1])) + forged(query)[2:]
        while True:
            server.udp.sendto(bad, peer)
            turns[0] += 1
            await sleep_ms(0)

    async with NameServer({(NAME, A): flood}) as server:
        await fails(resolver(server, ipv6=False).resolve(NAME), errno.ETIMEDOUT, "no name server answers")
        assert turns[0] > 10


async def test_forged_replies_that_come_all_at_once_are_read_one_at_a_time():
    turns = [0]

    async def work():
        while True:
            turns[0] += 1
            await sleep_ms(0)

    def flood(server, query, peer):
        for _ in range(50):
            server.udp.sendto(bytes((query[0] ^ 255, query[1])) + forged(query)[2:], peer)
        server.udp.sendto(reply(query, [rr(POINTER, A, MX1)]), peer)
        turns[0] = 0

    async with NameServer({(NAME, A): flood}) as server:
        task = asyncio.create_task(work())
        eq(await resolver(server, ipv6=False).resolve(NAME), ["192.0.2.1"])
        task.cancel()
        assert turns[0] > 40, turns


async def test_each_query_has_its_own_port_and_id():
    async with NameServer() as server:
        one = resolver(server)
        for n in range(20):
            await fails(one.resolve("n%d.example.com" % n), errno.ENOENT)
    eq(len(server.ports), 40)
    for things in (server.ports, server.ids):
        assert len(set(things)) > 35, things  # a few may fall together by chance
        steps = {sorted(server.ports)[i + 1] - sorted(server.ports)[i] for i in range(39)}
        assert len(steps) > 20, "they can be guessed: %r" % server.ports
    assert min(server.ports) > 1023


# -- over TCP


async def test_a_reply_that_was_cut_is_asked_for_over_tcp():
    records = [rr(POINTER, A, bytes((192, 0, 2, n))) for n in range(60)]
    async with NameServer({(NAME, A): records}, cut=[NAME]) as server:
        eq(await resolver(server, ipv6=False).resolve(NAME), ["192.0.2.%d" % n for n in range(60)])
        eq((server.seen, server.tcp), ([(NAME, A)], [(NAME, A)]))


async def test_of_64_kb_over_tcp_the_beginning_is_enough():
    records = [rr(POINTER, A, bytes((10, 0, n, 1))) for n in range(10)] + [rr("x.example", 16, b"\xff" * 1000)] * 63
    assert 64000 < len(b"".join(records)) < 65400
    async with NameServer({(NAME, A): records, ("b" + NAME, A): records[10:]}, cut=[NAME, "b" + NAME]) as server:
        eq(await resolver(server, ipv6=False).resolve(NAME), ["10.0.%d.1" % n for n in range(10)])
        await fails(resolver(server, ipv6=False).resolve("b" + NAME), errno.ENOENT, "no IP address")


async def test_a_name_server_whose_tcp_does_not_work_is_one_that_does_not_answer():
    def tcp(data):
        return lambda server, query, peer: data(query)

    for name, data in (
        ("closes at once", lambda q: b""),
        ("closes in its length", lambda q: b"\1"),
        ("closes in its answer", lambda q: u16(len(forged(q))) + forged(q)[:-1]),
        ("no length", lambda q: b"\0\0" + forged(q)),
        ("other id", lambda q: u16(len(forged(q))) + bytes((q[0] ^ 1,)) + forged(q)[1:]),
        ("cut again", lambda q: reply(q, flags=0x8380)),
        ("lying length in a record", lambda q: reply(q, [rr(POINTER, A, MX2, size=9)])),
    ):
        async with NameServer({(NAME, A): tcp(data)}, cut=[NAME]) as first:
            async with NameServer({(NAME, A): [rr(POINTER, A, MX1)]}) as second:
                eq((name, await resolver(first, second, ipv6=False).resolve(NAME)), (name, ["192.0.2.1"]))
                eq((name, first.tcp), (name, [(NAME, A)]))
    # nobody listens, and nobody answers
    async with NameServer(cut=[NAME]) as server:
        server.tasks[1].cancel()
        await sleep_ms(0)
        await fails(resolver(server, ipv6=False).resolve(NAME), errno.ETIMEDOUT, "127.0.0.1 is silent")
        server.listener.close()
        await fails(resolver(server, ipv6=False).resolve(NAME), errno.ETIMEDOUT, "127.0.0.1: error")


# -- what is remembered


async def test_an_answer_is_kept_as_long_as_its_shortest_ttl_but_half_a_minute_at_least_and_a_day_at_most():
    for ttl, kept in ((0, 30), (29, 30), (31, 31), (600, 600), (86399, 86399), (86401, 86400), (0x7FFFFFFF, 86400),
                      (0x80000000, 30), (0xFFFFFFFF, 30)):  # fmt: skip
        for records in (
            [rr(POINTER, A, MX1, ttl), rr(POINTER, A, MX2, 86400)],
            [rr(POINTER, CNAME, "b.example", ttl), rr("b.example", A, MX1, 86400), rr("b.example", A, MX2, 86400)],
        ):
            async with NameServer({(NAME, A): records}) as server:
                one = resolver(server, ipv6=False)
                for after, queries in ((0, 1), (kept - 1, 1), (kept, 2)):
                    one.uptime.seconds = 1000 + after
                    eq(await one.resolve(NAME), ["192.0.2.1", "192.0.2.2"])
                    eq((ttl, after, len(server.seen)), (ttl, after, queries))


async def test_that_there_is_none_is_kept_a_minute():
    for trouble in (3, []):
        async with NameServer({(NAME, A): trouble, (NAME, AAAA): trouble}) as server:
            one = resolver(server)
            for after, queries in ((0, 2), (59, 2), (60, 4)):
                one.uptime.seconds = 1000 + after
                await fails(one.resolve(NAME), errno.ENOENT)
                eq((after, len(server.seen)), (after, queries))


async def test_that_nobody_answers_is_not_kept():
    async with NameServer({(NAME, A): 2}) as server:
        one = resolver(server, ipv6=False)
        await fails(one.resolve(NAME), errno.ETIMEDOUT)
        server.zone = {(NAME, A): [rr(POINTER, A, MX1)]}
        eq(await one.resolve(NAME), ["192.0.2.1"])


async def test_an_old_answer_is_better_than_none_and_is_used_for_half_a_minute_before_the_next_try():
    async with NameServer({(NAME, A): [rr(POINTER, A, MX1, 60)]}) as server:
        one = resolver(server, ipv6=False)
        eq(await one.resolve(NAME), ["192.0.2.1"])
        for trouble, number in ((silence, 2), (2, 2)):
            server.zone = {(NAME, A): trouble}
            one.uptime.seconds += 90000
            del server.seen[:]
            eq(await one.resolve(NAME), ["192.0.2.1"])
            eq(len(server.seen), number)
            one.uptime.seconds += 29
            eq(await one.resolve(NAME), ["192.0.2.1"])
            eq(len(server.seen), number)
        one.uptime.seconds += 1
        server.zone = {(NAME, A): 3}
        await fails(one.resolve(NAME), errno.ENOENT, "does not exist")
        # That it did not exist is no answer to fall back on.
        server.zone = {(NAME, A): silence}
        one.uptime.seconds += 60
        await fails(one.resolve(NAME), errno.ETIMEDOUT)


async def test_seconds_that_start_again_from_zero_keep_nothing_for_ever():
    async with NameServer({(NAME, A): [rr(POINTER, A, MX1, 86400)]}) as server:
        one = resolver(server, ipv6=False)
        one.uptime.seconds = 1 << 30
        await one.resolve(NAME)
        one.uptime.seconds = 0
        await one.resolve(NAME)
        eq(len(server.seen), 2)


async def test_the_cache_holds_eight_names_and_gives_up_the_one_that_expires_first():
    zone = {}
    for n in range(12):
        for kind, data in ((A, MX1), (AAAA, SIX)):
            zone["n%d.example" % n, kind] = [rr(POINTER, kind, data, 1000 + n)]
    async with NameServer(zone) as server:
        one = resolver(server)
        for n in range(9):
            await one.resolve("n%d.example" % n)
            await one.look(encode("n%d.example" % n), AAAA)
        eq(len(one.cache), 16)
        del server.seen[:]
        for n in range(1, 9):
            await one.resolve("n%d.example" % n)
        eq(server.seen, [])
        await one.resolve("n0.example")
        eq(len(server.seen), 2)
        eq(len(one.cache), 16)


async def test_an_answer_that_is_renewed_takes_nobodys_place():
    zone = {}
    for n in range(16):
        zone["n%d.example" % n, A] = [rr(POINTER, A, MX1, 1000 + n)]
    async with NameServer(zone) as server:
        one = resolver(server, ipv6=False)
        for n in range(16):
            await one.resolve("n%d.example" % n)
        one.uptime.seconds += 1100
        await one.resolve("n9.example")
        eq((len(server.seen), len(one.cache)), (17, 16))
        server.zone = {("n0.example", A): silence}
        eq(await one.resolve("n0.example"), ["192.0.2.1"])


# -- beside other tasks


async def test_the_others_run_while_a_name_is_looked_up():
    gate = []

    async def slow(server, query, peer):
        while len(gate) < 10:
            await sleep_ms(1)
        server.udp.sendto(reply(query, [rr(POINTER, A, MX1)]), peer)

    async def work():  # unless this runs, there is no answer
        while len(gate) < 10:
            gate.append(1)
            await sleep_ms(1)

    async with NameServer({(NAME, A): slow}) as server:
        one = resolver(server, ipv6=False)
        one.waits = (60000,)
        task = asyncio.create_task(work())
        eq(await one.resolve(NAME), ["192.0.2.1"])
        await task


async def test_several_look_ups_at_a_time_get_each_their_own():
    zone = {}
    for n in range(6):
        zone["n%d.example" % n, A] = [rr(POINTER, A, bytes((192, 0, 2, n)))]
    async with NameServer(zone) as server:
        one = resolver(server)
        found = await asyncio.gather(*[one.resolve("n%d.example" % n) for n in range(6)])
        eq(found, [["192.0.2.%d" % n] for n in range(6)])


async def test_no_socket_stays_open_whatever_happened():
    zone = {(NAME, A): silence, (NAME, AAAA): silence, ("c." + NAME, A): [rr(POINTER, A, MX1)]}
    async with NameServer(zone, cut=["c." + NAME]) as server:
        one = resolver(server)
        await one.resolve("c." + NAME)
        await fails(one.resolve(NAME), errno.ETIMEDOUT)
        await fails(one.resolve("none.example"), errno.ENOENT)
        task = asyncio.create_task(one.resolve(NAME))
        while len(server.seen) < 8:
            await sleep_ms(1)
        task.cancel()
        try:
            await task
            raise AssertionError("it goes on")
        except asyncio.CancelledError:
            pass
        while stream._open:  # the query for IPv6 ends by itself
            await sleep_ms(10)


async def test_getaddrinfo_never_sees_a_name():
    class Socket:
        """The module, with an eye on getaddrinfo."""

        AF_INET = socket.AF_INET
        SOCK_DGRAM = socket.SOCK_DGRAM
        SOCK_STREAM = socket.SOCK_STREAM
        socket = socket.socket
        seen = set()

        def getaddrinfo(self, host, *rest):
            self.seen.add(host)
            return socket.getaddrinfo(host, *rest)

    async with NameServer({(NAME, A): [rr(POINTER, A, bytes((127, 0, 0, 1)))]}, cut=[NAME]) as server:
        dns.socket = stream.socket = eye = Socket()
        try:
            s = await connect(NAME, server.where[1], 5000, 2048, resolver(server).resolve)
            s.close()
            await fails(resolver("ns.example.com", "::g").resolve(NAME), errno.EHOSTUNREACH)
        finally:
            dns.socket = stream.socket = socket
        eq(eye.seen, {"127.0.0.1", "0.0.0.0"})


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with NameServer({(NAME, A): [rr(POINTER, A, bytes((127, 0, 0, n))) for n in (2, 1)]}) as server:
        s = await connect(NAME, server.where[1], 5000, 2048, resolver(server, ipv6=False).resolve)
        s.close()


async def test_a_session_says_that_the_name_could_not_be_looked_up():
    async with NameServer({(NAME, A): 3, (NAME, AAAA): 3}) as server:
        for where, words in ((server, "it does not exist"), ("192.0.2.300", "no name server is known")):
            try:
                await open_session(NAME, 25, "me.example.com", "none", resolve=resolver(where).resolve)
                raise AssertionError("a session")
            except SessionError as e:
                eq(e.reason, "connect")
                text = str(e)
                start = "no connection to mx.example.com port 25: the name could not be looked up: " + words
                assert text.startswith(start), text


# -- the parser by itself


def test_the_parser_gives_what_was_found_and_for_how_long():
    name = encode(NAME)
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"
    good = reply(query, [rr(POINTER, CNAME, "b.example", 70), rr("b.example", A, MX1, 90)])
    eq(parse(good, b"\x12\x34", name, A), (0, encode("b.example"), ["192.0.2.1"], 70))
    eq(parse(good[:-1], b"\x12\x34", name, A), None)
    eq(parse(good[:-1], b"\x12\x34", name, A, True), (0, encode("b.example"), [], 70))
    eq(parse(good.replace(b"mx\7example", b"Mx\7ExamplE"), b"\x12\x34", name, A)[2], ["192.0.2.1"])
    eq(parse(reply(query, flags=0x8380), b"\x12\x34", name, A)[0], 16)
    for code in range(16):
        eq(parse(reply(query, code=code), b"\x12\x34", name, A)[0], code)
    eq(parse(reply(query, flags=0x8100), b"\x12\x34", name, A)[0], 5)
    eq(parse(reply(query, flags=0x8500), b"\x12\x34", name, A)[0], 0)
    # A name whose labels hold a dot is another name.
    dotted = rr(b"\x0amx.example\3com\0", A, MX1)
    eq(parse(reply(query, [dotted]), b"\x12\x34", name, A)[2], [])


def test_the_parser_raises_nothing_whatever_was_changed_on_the_way():
    random = Random(5)
    name = encode(NAME)
    counts = [0, 0]
    for kind, data in ((A, MX1), (AAAA, SIX)):
        query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + name + bytes((0, kind, 0, 1))
        good = reply(query, [rr(POINTER, CNAME, "b.example"), rr(b"\1b" + POINTER[:1] + b"\x0f", 16, b"\3abc"),
                             rr("b.example", kind, data), rr("b.example", kind, data)])
        for _ in range(1500):
            bad = bytearray(good)
            for _ in range(1 + random.below(4)):
                at = 12 + len(name) + 4 + random.below(len(good) - 16 - len(name)) if random.below(2) else 6
                bad[at] = random.choice((0, 1, 4, 5, 16, 28, 63, 64, 127, 128, 192, 255, random.below(256)))
            bad = bytes(bad[: random.choice((len(good), random.below(len(good) + 1)))])
            for part in (False, True):
                got = parse(bad, b"\x12\x34", name, kind, part)
                counts[got is not None] += 1
                assert got is None or (len(got[2]) < 3 and got[0] in (0, 5) and 0 <= got[3] <= 86400), (bad, got)
    assert min(counts) > 500, counts
