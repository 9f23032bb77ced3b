"""Random and mutated octets for LMTP, ETRN, ATRN, MX records and orders by mail; test_fuzz.py runs them, too."""

import asyncio
import errno
import random
import re
import tempfile

import dmarc
import limits
import told
from play import Player
from smtp import atrn, etrn, lmtpd, odmr
from smtp.client import Client, SessionError
from smtp.dns import encode, parse
from smtp.lmtp import LMTP
from smtp.mx import MX, Opportunistic, exchangers
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import TLS
from test_fuzz import COMMANDS, REPLIES, STORY, TOKEN, USERS, Box, Once, Source, answers, finish, likely, mutate, wires

SHORT = 250
HOME = tempfile.TemporaryDirectory()  # for the file of limits


class Relay:
    """As much of a relay as ETRN and ATRN see of one; without mail."""

    ending = onward = False
    broken = suspect = stir = None
    clock = None
    name, origin = "mx.example.com", ""

    class queue:
        path = "/nowhere"
        rows = ()

    class wake:
        set = staticmethod(lambda: None)


def fuzz_lmtp_server(rng):
    """LMTP on the listener: never more recipients answered than there are, and no mail without an answer."""
    box = Box(rng)
    listener = Listener("mx.example.com", box, ["10.0.0.0/8"], None, "none", None, False, 20000)
    listener.commands = lmtpd.COMMANDS
    lmtpd.greet(listener)
    wire = wires(rng)
    player = Player(Session(wire, "10.0.0.9", listener).run(), wire, rng.choice((None, 1, 3, 50)))
    story = (b"LHLO x\r\n", STORY[2], STORY[3], STORY[3], *STORY[4:])
    wild = rng.choice((0.02, 0.2, 0.6))
    for at in range(rng.randrange(1, 40)):
        if player.ended:
            break
        before = box.mails
        player.feed(likely(rng, COMMANDS, story[at % len(story)], wild))
        said = player.said()
        assert box.mails - before <= said.count(b"250 2.0.0 queued") <= 100 * (box.mails - before)
    finish(rng, player)
    assert box.open_sinks == 0
    assert player.error is None or isinstance(player.error, (EOFError, OSError)), repr(player.error)
    player.box = box
    return player


def run_client(rng, client, session, source=None):
    """Plays `session` of `client` against a server that is good, bad or mad."""
    wire = client.io
    player = Player(session, wire, rng.choice((None, None, 1, 3, 50)))
    wild = rng.choice((0.02, 0.2, 0.6))
    player.feed(likely(rng, REPLIES, REPLIES[0], wild))
    for _ in range(rng.randrange(1, 50)):
        if player.ended:
            break
        if player.request is TLS:
            if rng.random() < 0.2:
                wire.shaking = True
                player.throw(rng.choice((OSError(errno.ECONNRESET, "x"), ValueError("bad"), EOFError())))
                break
            player.upgrade()
            continue
        said = player.said().replace(b"LHLO", b"EHLO").replace(b"ATRN", b"RSET")
        player.feed(likely(rng, REPLIES, answers(said, rng) * (3 if said.endswith(b"\r\n.\r\n") else 1), wild))
        assert wire.hi <= len(wire.buf)
    finish(rng, player)
    if player.error:
        assert isinstance(player.error, SessionError), repr(player.error)
    return player


def fuzz_lmtp_client(rng):
    client = LMTP(wires(rng), "me.example.com")
    source = Source(rng)
    counts = [Once(job) for job in source.jobs]

    def session():
        yield from client.start("none")
        yield from client.mails(source)
        yield from client.quit()

    player = run_client(rng, client, session())
    for i, count in enumerate(counts):
        assert count.times == int(i < source.given), (i, count.times, source.given)
    return player


def fuzz_opportunistic(rng):
    client = Opportunistic(wires(rng), "me.example.com")
    return run_client(rng, client, client.start("none", (rng.choice(("context", None)), "mx")))


def fuzz_odmr(rng):
    client = Client(wires(rng), "me.example.com")

    def session():
        yield from client.start("none", None, rng.choice(("", "user")), "secret")
        try:
            yield from odmr.ask(client, ["b7.example"])
        except (OSError, EOFError, ValueError) as e:  # as fetch() does
            raise SessionError("lost", str(e)) from None

    return run_client(rng, client, session())


class FakeBag(atrn.Bag):
    """Mail without a queue."""

    def find(self):
        self.keys = [1]
        yield

    def next(self):
        return self.source.next()


def fuzz_turned(rng):
    """ETRN and ATRN on the listener, and what comes after the turn."""
    box = Box(rng)
    known = rng.random() < 0.5
    listener = Listener("mx.example.com", box, ["10.0.0.0/8"], USERS, "none", None, True, 20000)
    etrn.serve(listener, Relay, ["x.example"])
    atrn.serve(listener, Relay, {"printer": ["b7.example"]})
    source = Source(rng)
    counts = [Once(job) for job in source.jobs]
    FakeBag.source = source
    wire = wires(rng)
    real, atrn.Bag = atrn.Bag, FakeBag
    try:
        peer = "10.0.0.9" if known else "192.0.2.1"
        player = Player(Session(wire, peer, listener).run(), wire, rng.choice((None, 1, 3, 50)))
        story = (STORY[0], b"ETRN x.example\r\n", b"AUTH PLAIN " + TOKEN + b"\r\n", b"ATRN b7.example\r\n")
        words = [*COMMANDS, b"ETRN @x.example\r\n", b"ETRN #x\r\n", b"ATRN\r\n", b"ATRN b7.example,x\r\n"]
        wild = rng.choice((0.02, 0.2, 0.6))
        turned = False
        at = 0
        for _ in range(rng.randrange(4, 60)):
            if player.ended:
                break
            if turned:
                player.feed(likely(rng, REPLIES, answers(player.said(), rng), wild))
            else:
                player.feed(likely(rng, words, story[at % 4], wild))
                at += 1
                if b"reversing" in player.sent:
                    turned = True
                    player.said()
                    player.feed(likely(rng, REPLIES, REPLIES[0], wild))
            assert wire.hi <= len(wire.buf)
        finish(rng, player)
    finally:
        atrn.Bag = real
    assert player.error is None or isinstance(player.error, (EOFError, OSError)), repr(player.error)
    for i, count in enumerate(counts):
        assert count.times == int(i < source.given), (i, count.times, source.given)
    player.turned = turned
    return player


def some_mx(rng):
    """(reply, id, name) with MX records, good or a little damaged."""
    id, name = rng.randbytes(2), encode("x.example")
    records = b""
    count = rng.choice((0, 1, 1, 2, 5, 70))
    for _ in range(count):
        host = rng.choice((b"\0", b"\xc0\x0c", b"\2mx\xc0\x0c", encode("a.example"), b"\3" + rng.randbytes(3) + b"\0",
                           encode("192.0.2.1"), b"\xc0" + rng.randbytes(1)))  # fmt: skip
        data = rng.randbytes(2) + host
        records += b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
    head = id + b"\x81\x80\0\1" + count.to_bytes(2, "big") + bytes(4) + name + b"\0\x0f\0\1"
    reply = head + records
    return (reply if rng.random() < 0.3 else head[:6] + mutate(rng, reply[6:])), id, name


def fuzz_mx(rng):
    """A reply with MX records gives what can be looked up, or nothing."""
    reply, id, name = some_mx(rng)
    for part in (False, True):
        answer = parse(reply, id, name, MX, part)
        if not answer:
            continue
        assert len(answer[2]) <= 64
        for preference, host in answer[2]:
            assert 0 <= preference < 65536 and (host in ("", "?") or encode(host)), host

        class Resolver:
            found = answer[2]

            async def look(self, name, kind):
                return self.found, (errno.ENOENT, "it has none")

            async def resolve(self, name):
                return ["192.0.2.1"]

        try:
            hosts = asyncio.run(exchangers(Resolver(), "x.example", "gw.example"))
            assert 0 < len(hosts) <= 5 and hosts == sorted(hosts, key=lambda item: item[0])
            assert all(encode(host) for _, host in hosts)
        except SMTPError as e:
            assert e.enhanced in ("5.1.10", "5.4.4"), e
    return answer


HEADS = [b"From: Boss <boss@example.com>", b"From: a@b, c@d", b"Subject: set limit freezer above 3", b"Subject:",
         b"Auto-Submitted: auto-replied; x", b" folded", b"\tmore", b"Precedence: bulk", b":", b"no colon",
         b'Authentication-Results: mx; spf=pass (x) smtp.mailfrom="a\\b"; dmarc=pass']  # fmt: skip


class Rule:
    name, words = "freezer", None
    rule = {"above": 1}

    def __init__(self):
        self.limits = {"above": 1}


def fuzz_orders(rng):
    """Header fields and orders are read whatever is in them."""
    head = b"\r\n".join(mutate(rng, rng.choice(HEADS)) for _ in range(rng.randrange(8)))
    fields = told.Fields()
    while head:
        size = rng.choice((1, 3, 100, 5000))
        fields.feed(head[:size])
        head = head[size:]
        assert len(fields.hold) <= 1000
    found = fields.found
    for name, value in found.items():
        assert value is None or len(value) <= 1000 and all(" " <= c <= "~" for c in name + value)
    assert len(fields.results) <= 4 and dmarc.passed(fields.results, "mx") in (True, False)
    who = told.author(found.get("from"))
    assert who == "" or who.count("@") == 1 and not re.search(r"[ ,\r\n]", who)
    rules = [Rule()]
    number = rng.choice(("nan", "inf", "-1e400", "", "1_0", "٣", "0x3", "1e5", mutate(rng, b"12.5").decode("latin-1")))
    real, limits.PATH = limits.PATH, HOME.name + "/limits.json"
    try:
        said = limits.change(rules, rng.choice(("freezer", "x")), rng.choice(("above", "below", "x")), number)
    finally:
        limits.PATH = real
    assert said and -1e30 < rules[0].limits["above"] < 1e30 and set(rules[0].limits) == {"above"}
    return who


TARGETS = (fuzz_lmtp_server, fuzz_lmtp_client, fuzz_opportunistic, fuzz_odmr, fuzz_turned, fuzz_mx, fuzz_orders)


def test_random_and_mutated_octets_are_harmless_to_the_other_hops():
    count = dict.fromkeys(TARGETS, 0)
    for seed in range(SHORT):
        for fuzz in TARGETS:
            try:
                got = fuzz(random.Random(seed))
            except Exception as e:
                raise AssertionError(f"{fuzz.__name__}(random.Random({seed})): {e!r}") from e
            if isinstance(got, Player):
                good = got.box.mails if fuzz is fuzz_lmtp_server else got.turned if fuzz is fuzz_turned else (
                    got.ended and not got.error)
                count[fuzz] += bool(good)
            else:
                count[fuzz] += bool(got and (fuzz is fuzz_orders or got[2]))
    assert min(count.values()) > SHORT // 100, count
