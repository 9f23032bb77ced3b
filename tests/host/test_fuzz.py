"""Random and mutated octets for the sessions of server and client: python tests/host/test_fuzz.py 1000000

However hostile the peer, a session ends with one of its documented exceptions or goes on, keeps what it holds in memory
bounded, and accepts no mail that was not sent.
"""

import errno
import io
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for directory in ("lib", "firmware", "tests/portable"):
    if str(ROOT / directory) not in sys.path:
        sys.path.insert(0, str(ROOT / directory))

from play import Player  # noqa: E402
from smtp import auth, onward, sasl, utf8  # noqa: E402
from smtp.client import Client, SessionError  # noqa: E402
from smtp.extra import Extra, level  # noqa: E402
from smtp.reply import SMTPError  # noqa: E402
from smtp.server import Listener, Session  # noqa: E402
from smtp.single import Mail  # noqa: E402
from smtp.stream import TLS, Wire  # noqa: E402
from smtp.trace import Outgoing  # noqa: E402

SHORT = 2500
USERS = {"printer": auth.make_verifier("secret", 2), "camera": "{CLEAR}secret"}
TOKEN = sasl.b64(b"\0printer\0secret")

COMMANDS = [
    b"EHLO client.example.com\r\n", b"HELO x\r\n", b"MAIL FROM:<a@example.com>\r\n", b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME\r\n", b"RCPT TO:<b@example.net>\r\n",
    b"MAIL FROM:<a@b> RET=FULL ENVID=x+20y\r\n", b"RCPT TO:<b@c> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b@c\r\n",
    "MAIL FROM:<müller@bücher.example> SMTPUTF8 BODY=8BITMIME\r\n".encode(), "RCPT TO:<почта@c>\r\n".encode(),
    b"MAIL FROM:<a@b> REQUIRETLS MT-PRIORITY=-4\r\n", 'RCPT TO:<"ü b"@ü> ORCPT=utf-8;ö\\x{FC}@c\r\n'.encode(),
    b'RCPT TO:<"b c"@[IPv6:::1]>\r\n', b"RCPT TO:<@a,@b:c@d>\r\n", b"DATA\r\n", b"BDAT 5\r\nhello", b"BDAT 0 LAST\r\n",
    b"BDAT 12 LAST\r\nsecond part\n", b"BDAT 99999999\r\n", b"RSET\r\n", b"NOOP\r\n", b"HELP\r\n", b"VRFY x\r\n",
    b"EXPN x\r\n", b"STARTTLS\r\n", b"AUTH PLAIN " + TOKEN + b"\r\n", b"AUTH PLAIN\r\n", TOKEN + b"\r\n",
    b"AUTH LOGIN\r\n", b"cHJpbnRlcg==\r\n", b"c2VjcmV0\r\n", b"AUTH SCRAM-SHA-256 biwsbj1wcmludGVyLHI9YWJj\r\n",
    b"AUTH SCRAM-SHA-256\r\n", b"biwsbj1wcmludGVyLHI9YWJj\r\n", b"AUTH CRAM-MD5\r\n", b"*\r\n", b"QUIT\r\n",
    b"Subject: x\r\n\r\n", b"Received: from x\r\n" * 8, b".\r\n", b"\r\n.\r\n", b"\n.\n", b"..\r\n", b"x" * 3000,
    b"\x00\xff\xfe\r\n", b"\r\n", b"\n", b"\r",
]  # fmt: skip

REPLIES = [
    b"220 mx ESMTP\r\n", b"250 ok\r\n", b"250-mx\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n250 DSN\r\n",
    b"250-mx\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5\r\n",
    b"250-mx\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n",
    b"250-mx\r\n250 STARTTLS\r\n", b"250-AUTH=LOGIN\r\n", b"235 ok\r\n", b"334 \r\n", b"334 VXNlcm5hbWU6\r\n",
    b"334 cj1hYmMscz1hYmNkLGk9NDA5Ng==\r\n", b"334 ???\r\n", b"354 go\r\n", b"421 bye\r\n", b"450 4.2.0 busy\r\n",
    b"452 4.3.1 full\r\n", b"500 what\r\n", b"503 no\r\n", b"535 5.7.8 no\r\n", b"550 5.1.1 unknown\r\n",
    b"552 5.3.4 too big\r\n", b"250-" + b"x" * 3000 + b"\r\n", b"250-a\r\n" * 60, b"999 x\r\n", b"25\r\n",
    b"\x00\xff\r\n", b"\r\n", b"\n", b"250 2.0.0\n", b"220 go\r\n",
]  # fmt: skip


def mutate(rng, data):
    """`data` with a few octets changed, taken out, put in or doubled."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 4)]
        elif kind == 2:
            data[at:at] = bytes(rng.choice(b"\r\n.<>@: \0=\"\\%-0a") for _ in range(rng.randrange(1, 4)))
        elif kind == 3:
            data[at:at] = data[: rng.randrange(1, 20)]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def likely(rng, words, order, wild):
    """The words that carry the session on; or, as often as it is `wild`, one at random, with octets changed."""
    if rng.random() < wild:
        order = rng.choice(words)
    return mutate(rng, order) if rng.random() < wild else order


def answers(said, rng):
    """What a server would say to what a client has said, good or bad."""
    out = []
    for line in said.split(b"\r\n"):
        verb = line[:4]
        if verb == b"EHLO":
            out.append(rng.choice(REPLIES[2:7]))
        elif verb in (b"MAIL", b"RCPT", b"RSET", b"HELO", b"BDAT") or line == b".":
            out.append(rng.choice((b"250 2.0.0 ok\r\n",) * 8 + (b"550 5.1.1 no\r\n", b"450 busy\r\n")))
        elif verb == b"DATA":
            out.append(b"354 go\r\n" if rng.random() < 0.9 else b"554 no\r\n")
        elif verb == b"AUTH":
            out.append(rng.choice((b"235 ok\r\n", b"334 \r\n", b"535 no\r\n")))
        elif verb in (b"QUIT", b"STAR"):
            out.append(b"220 go\r\n" if verb == b"STAR" else b"221 bye\r\n")
    return b"".join(out) or b"250 ok\r\n"


class Box:
    """Keeps count of mails; refuses now and then."""

    def __init__(self, rng):
        self.rng = rng
        self.open_sinks = self.mails = 0

    def maybe(self):
        what = self.rng.randrange(12)
        if what == 0:
            raise SMTPError(452, "4.3.1", "no room")
        if what == 1:
            raise OSError(errno.EIO, "flash")

    def open(self, envelope):
        assert 0 < len(envelope.rcpts) <= 100
        extra = getattr(envelope, "extra", "")
        for address in [envelope.sender, *envelope.rcpts]:
            if not address.isascii():
                assert "SMTPUTF8" in extra and utf8.normal(address) == address, address
            assert address.isprintable() or not address.isascii(), address
        assert "REQUIRETLS" not in extra or envelope.tls
        assert all(n.isascii() for n in envelope.notify or ())
        assert level(extra) in (None, 0, 1, 2)
        self.maybe()
        self.open_sinks += 1
        return Sink(self)


class Sink:
    ended = False

    def __init__(self, box):
        self.box = box
        self.size = 0

    def write(self, piece):
        assert not self.ended
        data = bytes(piece)
        assert data.count(b"\r") >= data.count(b"\r\n") == data.count(b"\n")
        self.size += len(data)
        assert self.size <= 20000
        if not self.box.rng.randrange(8):
            self.box.maybe()

    def end(self):
        if not self.ended:
            self.ended = True
            self.box.open_sinks -= 1

    def commit(self):
        assert not self.ended
        self.box.maybe()
        self.end()
        self.box.mails += 1
        return "queued"

    def abort(self):
        self.end()


def wires(rng):
    return Wire(bytearray(rng.choice((64, 512, 2048))))


def finish(rng, player):
    """Ends a session as a transport does."""
    for _ in range(5):
        if player.ended:
            return
        how = rng.randrange(4)
        if how == 0:
            player.close()
            return
        player.throw((EOFError("gone"), OSError(errno.ETIMEDOUT, "x"), OSError(errno.ECONNRESET, "x"))[how - 1])
    raise AssertionError("it outlives its connection")


STORY = (
    b"EHLO client.example.com\r\n", b"AUTH PLAIN " + TOKEN + b"\r\n", b"MAIL FROM:<a@example.com>\r\n",
    b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\nhello\r\n", b".\r\n",
)  # fmt: skip


def fuzz_server(rng):
    box = Box(rng)
    known = rng.random() < 0.6
    listener = Listener(
        "mx.example.com", box, ["10.0.0.0/8"], USERS if rng.random() < 0.7 else None,
        rng.choice(("none", "starttls", "tls")), None, rng.random() < 0.7, 20000)  # fmt: skip
    listener.bare = rng.choice(("fix", "refuse"))
    listener.greet_delay = 10 if rng.random() < 0.05 else 0
    if rng.random() < 0.5:
        listener.dsn = True
        Extra(listener, tuple(rng.sample(("SMTPUTF8", "REQUIRETLS", "MT-PRIORITY"), rng.randrange(1, 4))))
    wire = wires(rng)
    peer = "10.0.0.9" if known else "192.0.2.1"
    player = Player(Session(wire, peer, listener).run(), wire, rng.choice((None, None, 1, 3, 50)))
    limit = 4096
    wild = rng.choice((0.02, 0.2, 0.6))
    at = 0
    for _ in range(rng.randrange(1, 60)):
        if player.ended:
            break
        if player.request is TLS:
            if rng.random() < 0.2:
                wire.shaking = True
                player.throw(rng.choice((OSError(errno.ECONNRESET, "x"), ValueError("bad"), EOFError())))
                break
            player.upgrade()
            continue
        before = box.mails
        group = [
            likely(rng, COMMANDS, STORY[(at + i) % len(STORY)], wild) for i in range(rng.choice((1, 1, 1, 4, 20)))
        ]
        at += len(group)
        player.feed(b"".join(group))
        said = player.said()
        assert said == b"" or said.endswith(b"\r\n"), said[-50:]
        for line in said.split(b"\r\n")[:-1]:
            assert len(line) <= 510 and line[:3].isdigit() and line[3:4] in b" -", line
            assert all(32 <= c < 127 for c in line), line
        assert box.mails - before <= said.count(b"250 2.0.0 queued"), "accepted and not said"
        assert player.most <= limit, (player.most, limit)
        assert wire.hi <= len(wire.buf) and len(wire.out) == 0
        if not known and not listener.users:
            assert not box.mails, "an open relay"
    finish(rng, player)
    assert box.open_sinks == 0, "a sink was neither committed nor aborted"
    if player.error:
        assert isinstance(player.error, (EOFError, OSError)), repr(player.error)
    player.box = box
    return player


class Source:
    def __init__(self, rng):
        self.jobs = [
            Mail("a@example.com", [f"{rng.choice('rrü')}{i}@example.net" for i in range(rng.choice((1, 2, 5)))],
                 rng.choice((b"x\r\n", b".\r\n..\r\n", b"y" * 3000, b"Subject: x\r\n\r\n" + b"\n." * 500)))
            for _ in range(rng.randrange(1, 8))
        ]  # fmt: skip
        self.given = 0

    def next(self):
        if self.given < len(self.jobs):
            self.given += 1
            return self.jobs[self.given - 1]


class Once:
    """Counts the verdicts of a job."""

    def __init__(self, job):
        self.times = 0
        self.job = job
        self.old = job.done
        job.done = self

    def __call__(self, results):
        self.times += 1
        assert len(results) == len(self.job.rcpts)
        for r in results:
            assert r is None or (200 <= r[0] <= 599 and isinstance(r[1], str) and isinstance(r[2], str)), r
        self.old(results)


def session(client, source, security, user, auth_name):
    yield from client.start(security, ("context", "mx"), user, "secret", auth_name)
    yield from client.mails(source)
    yield from client.quit()


def fuzz_client(rng):
    wire = wires(rng)
    client = Client(wire, "me.example.com")
    source = Source(rng)
    counts = [Once(job) for job in source.jobs]
    security = rng.choice(("none", "none", "starttls"))
    user = rng.choice(("", "user"))
    name = rng.choice((None, None, "PLAIN", "LOGIN"))
    player = Player(session(client, source, security, user, name), wire, rng.choice((None, None, 1, 3, 50)))
    wild = rng.choice((0.02, 0.2, 0.6))
    player.feed(likely(rng, REPLIES, REPLIES[0], wild))
    for _ in range(rng.randrange(1, 60)):
        if player.ended:
            break
        if player.request is TLS:
            if rng.random() < 0.2:
                wire.shaking = True
                player.throw(rng.choice((OSError(errno.ECONNRESET, "x"), ValueError("bad"), EOFError())))
                break
            player.upgrade()
            continue
        said = player.said()
        assert said.isascii() or "SMTPUTF8" in client.ext, said
        answer = likely(rng, REPLIES, answers(said, rng), wild)
        player.feed(answer)
        assert player.most <= 70000, player.most
        assert wire.hi <= len(wire.buf)
    finish(rng, player)
    if player.error:
        assert isinstance(player.error, SessionError), repr(player.error)
        assert player.error.reason.split()[0] in (
            "reply", "starttls", "tls", "auth-missing", "auth", "lost"), player.error.reason  # fmt: skip
    for i, count in enumerate(counts):
        assert count.times == int(i < source.given), (i, count.times, source.given)
    return player


WORDS = [
    b"<", b">", b"@", b'"', b" ", b".", "müller".encode(), "почта".encode(), "bücher".encode(), b"example", b"xn--",
    b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "\u202e".encode(), "u\u0308".encode(), b"ORCPT=utf-8;",
    b"\\x{FC}", b"a", b"To: ", b"Subject: ", b"\r\n", b"\r\n\r\n", b",", b":;", b"--b\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
]  # fmt: skip


def fuzz_utf8(rng):
    """Addresses and header sections of any octets: the documented exceptions, and nothing that is no UTF-8."""
    data = mutate(rng, b"".join(rng.choices(WORDS, k=rng.randrange(1, 12))))
    try:
        address, rest = utf8.parse_path(data, rng.random() < 0.5)
        assert address in ("", "postmaster") or "@" in address or address.lower() == "postmaster", address
        assert not set(address) & set("\r\n\0\u202e"), address
        address.encode()
        if not address.isascii():
            assert utf8.normal(address) == address and len(address.encode()) <= 254
    except SMTPError as e:
        assert e.code in (501, 553), e
    text = data.decode("utf-8", "replace")
    assert utf8.raw(utf8.embedded(text)) == text or "\\x{" in text or not text.isprintable(), text
    assert utf8.embedded(text).isascii()
    assert utf8.punycode(text[:63]) == text[:63].encode("punycode").decode()
    piece = rng.choice((1, 3, 50, 1000))
    for fold in (lambda read: onward.anywhere(read), lambda read: onward.odd(Stored(read))):
        fold(reader(data, piece))
    if data.decode("utf-8", "ignore").encode() == data:
        mail = onward.Plain(Outgoing(reader(data, piece), len(data)))
        buf, out = bytearray(rng.choice((1, 60, 700))), b""
        while n := mail.readinto(buf):
            out += buf[:n]
        head, end, body = data.partition(b"\r\n\r\n") if data[:2] != b"\r\n" else (b"", data[:2], data[2:])
        assert out.endswith(end + body) and mail.rest == 0
        assert not end or out[: len(out) - len(body)].isascii()


def reader(data, piece):
    file = io.BytesIO(data)

    def read(buf):
        part = file.read(min(piece, len(buf)))
        buf[: len(part)] = part
        return len(part)

    return read


class Stored:
    def __init__(self, read):
        self.read = read

    def rewind(self):
        pass


def main(n, first=0):
    """Runs n sessions of each side; the seed of the one that fails is in the message."""
    from test_fuzz_hops import TARGETS

    for seed in range(first, first + n):
        for fuzz in (fuzz_server, fuzz_client, fuzz_utf8, *TARGETS):
            try:
                fuzz(random.Random(seed))
            except Exception as e:
                raise AssertionError(f"{fuzz.__name__}(random.Random({seed})): {e!r}") from e


def test_random_and_mutated_sessions_of_a_server_are_harmless():
    for seed in range(SHORT):
        fuzz_server(random.Random(seed))


def test_random_and_mutated_sessions_of_a_client_are_harmless():
    for seed in range(SHORT):
        fuzz_client(random.Random(seed))


def test_random_octets_are_no_address_in_utf_8_by_mistake():
    for seed in range(SHORT):
        fuzz_utf8(random.Random(seed))


def test_the_fuzz_reaches_what_matters():
    mails = delivered = lost = logins = 0
    for seed in range(600):
        mails += fuzz_server(random.Random(seed)).box.mails
        player = fuzz_client(random.Random(seed))
        delivered += player.ended and player.error is None
        reason = player.error and player.error.reason
        lost += reason == "lost"
        logins += reason == "auth"
    assert min(mails, delivered, lost, logins) > 10, (mails, delivered, lost, logins)


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10 * SHORT
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for start in range(first, first + total, 1000):
        main(min(1000, first + total - start), start)
        print(start + min(1000, first + total - start), flush=True)
