"""lib/smtp/stream.py: frames of lines, mail and chunks however the octets are cut; and real sockets."""

import asyncio
import errno
import socket

from expect import eq
from play import CUTS, Random, listen_somewhere, somewhere
from smtp import stream as stream_module
from smtp.client import Client
from smtp.listen import accept
from smtp.reply import SMTPError
from smtp.server import Listener, Server, Session
from smtp.stream import CHUNK, DATA, LINE, PAUSE, SEND, SLEEP, Stream, Wire, connect


def begin(wire):
    """What a server sets before a mail."""
    wire.bol = True
    wire.bare = wire.cr = False


class Feed:
    """Puts octets into a wire as a socket would, `cut` at a time; `get` is Wire.line, data or chunk."""

    def __init__(self, data, cut, size=64):
        self.wire = Wire(bytearray(size))
        begin(self.wire)
        self.data = data
        self.cut = cut

    def fill(self):
        wire = self.wire
        held = bytes(wire.mv[wire.lo : wire.hi])
        piece = self.data[: min(self.cut or 1000000, len(wire.buf) - len(held))]
        assert piece or not self.data, "a full buffer, and still it waits"
        self.data = self.data[len(piece) :]
        held += piece
        wire.buf[: len(held)] = held
        wire.lo = 0
        wire.hi = len(held)
        return bool(piece)

    def next(self, get):
        """What `get` gives, None when all is used up."""
        while True:
            value = get()
            if value is not None or not self.fill():
                return value if value is None or value is False else bytes(value)

    def all(self, get):
        out = []
        while True:
            value = self.next(get)
            if value is None:
                return out
            out.append(value)


def lines(data, cut, size=64, eol=b"\r\n"):
    feed = Feed(data, cut, size)
    feed.wire.eol = eol
    return feed.all(feed.wire.line)


def mail(data, cut, size=64):
    """(the mail, a lone CR or LF was seen, what follows it) of DATA; None for a mail that has not ended."""
    feed = Feed(data, cut, size)
    out = b""
    while True:
        piece = feed.next(feed.wire.data)
        if piece is None:
            return None
        if piece is False:
            wire = feed.wire
            return out, wire.bare, bytes(wire.mv[wire.lo : wire.hi]) + feed.data
        assert not piece.endswith(b"\r"), "a CRLF was split"
        out += piece


# -- lines


def test_lines_are_the_same_however_they_are_cut():
    data = b"one\r\n\r\ntwo three\r\n\x00\xff\r\n.\r\nrest"
    for cut in CUTS:
        eq((cut, lines(data, cut)), (cut, [b"one", b"", b"two three", b"\x00\xff", b"."]))


def test_only_crlf_ends_a_line():
    for cut in CUTS:
        eq(lines(b"a\nb\rc\r\r\nd\n\r\n\r\n", cut), [b"a\nb\rc\r", b"d\n", b""])


def test_a_line_feed_alone_ends_a_line_where_that_was_asked_for():
    for cut in CUTS:
        eq(lines(b"a\nb\r\n\nc\rd\n\r\n", cut, 64, b"\n"), [b"a", b"b", b"", b"c\rd", b""])


def test_a_line_longer_than_the_buffer_is_dropped_whole_and_the_next_one_is_read():
    for size in (3, 8, 64):
        for cut in CUTS:
            for length in (size - 2, size - 1, size, size + 1, 2 * size - 1, 2 * size, 10 * size):
                got = lines(b"x" * length + b"\r\n" + b"ok\r\n" * (size > 3), cut, size)
                wanted = b"x" * length if length <= size - 2 else False
                eq((size, cut, length, got), (size, cut, length, [wanted] + [b"ok"] * (size > 3)))


def test_a_long_line_that_ends_with_a_line_feed_is_dropped_too():
    for cut in CUTS:
        for length in (62, 63, 64, 65, 127, 128, 500):
            got = lines(b"x" * length + b"\nok\n", cut, 64, b"\n")
            eq((cut, length, got), (cut, length, [b"x" * length if length < 64 else False, b"ok"]))


def test_a_long_line_of_carriage_returns_is_one_line():
    for cut in CUTS:
        eq(lines(b"\r" * 200 + b"\nok\r\n", cut), [False, b"ok"])


# -- mail in DATA


def oracle(data):
    """The same by RFC 5321 4.5.2, octet by octet."""
    out = b""
    bare = False
    start = True  # of a line
    i = 0
    while True:
        if start and data[i : i + 3] == b".\r\n":
            return out, bare, data[i + 3 :]
        if start and data[i : i + 1] == b".":
            if i + 2 >= len(data) and data[i + 1 : i + 2] in (b"", b"\r"):
                return None
            i += 1
        start = False
        if i >= len(data):
            return None
        if data[i : i + 2] == b"\r\n":
            out += b"\r\n"
            i += 2
            start = True
        elif data[i] == 10:
            out += b"\r\n"
            bare = True
            i += 1
        elif data[i] == 13:
            if i + 1 == len(data):
                return None
            bare = True
            i += 1
        else:
            out += data[i : i + 1]
            i += 1


def test_mail_is_what_the_standard_says_for_random_octets_and_every_cut():
    random = Random(11)
    parts = (b".", b"\r", b"\n", b"\r\n", b"x", b"\r\n.", b"..", b"\x00", b"abc" * 30, b"\r\n..")
    for _ in range(150):
        data = b"".join([random.choice(parts) for _ in range(random.below(25))])
        if random.below(3):
            data += b"\r\n.\r\nQUIT\r\n"
        wanted = oracle(data)
        for cut in CUTS + (5, 64):
            for size in (8, 64):
                eq((data, cut, size, mail(data, cut, size)), (data, cut, size, wanted))


def test_every_mail_of_five_octets_that_matter_is_read_right():
    every = [b""]
    for _ in range(5):
        every += [e + c for e in every[-4 ** len(every[-1]) :] for c in (b"\r", b"\n", b".", b"x")]
    for data in every:
        for cut in (None, 1, 2):
            eq((data, cut, mail(data, cut, 8)), (data, cut, oracle(data)))
            eq((data, cut, mail(data + b"\r\n.\r\n", cut, 8)), (data, cut, oracle(data + b"\r\n.\r\n")))


def test_a_mail_may_follow_a_mail():
    feed = Feed(b"a\r\n.\r\n.\r\n..\r\n.\r\n", 3)
    got = []
    for _ in range(3):
        begin(feed.wire)
        out = b""
        while True:
            piece = feed.next(feed.wire.data)
            if piece is False:
                break
            out += piece
        got.append(out)
    eq(got, [b"a\r\n", b"", b".\r\n"])


# -- chunks


def test_a_chunk_takes_what_was_announced_and_no_more():
    random = Random(5)
    parts = (b"\r\n", b"x", b".", b"\r\n.\r\n", b"abc" * 20, b"\x00\xff")
    for _ in range(60):
        data = b"".join([random.choice(parts) for _ in range(random.below(20))])
        for cut in CUTS:
            for size in (8, 64):
                feed = Feed(data + b"QUIT\r\n", cut, size)
                wire = feed.wire
                wire.want = len(data)
                out = b""
                while wire.want:
                    out += feed.next(wire.chunk)
                eq((cut, size, out, wire.bare), (cut, size, data, False))
                eq(feed.next(wire.line), b"QUIT")


def test_a_lone_cr_or_lf_in_chunks_is_mended_wherever_they_are_cut():
    for data, wanted in (
        (b"a\nb", b"a\r\nb"), (b"a\rb", b"ab"), (b"\r\r\n", b"\r\n"), (b"a\n\r\nb\r\r", b"a\r\n\r\nb"),
        (b"\n.\n", b"\r\n.\r\n"), (b"\r\n\n\r", b"\r\n\r\n"),
    ):  # fmt: skip
        for cut in CUTS:
            for split in range(len(data) + 1):
                feed = Feed(data, cut)
                out = b""
                for n in (split, len(data) - split):
                    feed.wire.want = n
                    while feed.wire.want:
                        out += feed.next(feed.wire.chunk)
                eq((data, cut, split, out), (data, cut, split, wanted))


# -- sockets


class Peer:
    """A listener whose connections run `session(stream)`, a generator; `with` is not for coroutines, so close() it."""

    def __init__(self, session, size=2048):
        self.session = session
        self.size = size
        self.port, self.sock = listen_somewhere()
        self.tasks = []
        self.errors = []
        self.addresses = []
        self.task = asyncio.create_task(accept(self.sock, self.serve))

    def serve(self, conn, address):
        self.addresses.append(address)
        self.tasks.append(asyncio.create_task(self.run(Stream(conn, self.size))))

    async def run(self, stream):
        try:
            await stream.run(self.session(stream))
        except (OSError, EOFError) as e:
            self.errors.append(e)
        finally:
            stream.close()

    async def connect(self):
        return await connect("127.0.0.1", self.port)

    async def close(self):
        for task in self.tasks + [self.task]:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        self.sock.close()


# -- what takes time


async def wait_for(event, value):
    """What a session may wait for; an exception is raised."""
    await event.wait()
    if isinstance(value, Exception):
        raise value
    return value


async def test_what_was_said_arrives_before_the_session_waits_and_its_value_comes_back():
    event = asyncio.Event()
    got = []

    def session(io):
        io.out += b"354 go\r\n"
        got.append((yield wait_for(event, "safe")))
        io.out += b"250 ok\r\n"
        got.append((yield LINE))

    peer = Peer(session)
    stream = await peer.connect()
    heard = []

    def client(io):
        heard.append((yield LINE))
        event.set()
        io.out += b"QUIT\r\n"
        heard.append((yield LINE))

    await stream.run(client(stream))
    await asyncio.sleep(0.05)
    eq((got, heard), (["safe", b"QUIT"], [b"354 go", b"250 ok"]))
    stream.close()
    await peer.close()


async def test_an_exception_of_what_is_waited_for_is_raised_in_the_session():
    got = []

    def session(io):
        for error in (OSError(28), ValueError("odd"), SMTPError(452, "4.3.1", "full"), EOFError("gone")):
            event = asyncio.Event()
            event.set()
            try:
                yield wait_for(event, error)
            except Exception as e:
                got.append(e is error)
        io.out += b"250 ok\r\n"
        event = asyncio.Event()
        event.set()
        return (yield wait_for(event, 7))  # it may end behind it

    peer = Peer(session)
    stream = await peer.connect()

    def client(io):
        got.append((yield LINE))

    await stream.run(client(stream))
    eq(got, [True] * 4 + [b"250 ok"])
    stream.close()
    await peer.close()


async def test_no_deadline_of_the_peer_passes_while_a_session_waits():
    event = asyncio.Event()
    got = []

    def session(io):
        io.timeout = 100
        got.append((yield LINE))
        got.append((yield wait_for(event, "safe")))
        got.append((yield LINE))

    peer = Peer(session)
    stream = await peer.connect()

    def client(io):
        io.out += b"one\r\ntwo\r\n"
        yield SEND

    await stream.run(client(stream))
    await asyncio.sleep(0.6)
    event.set()
    await asyncio.sleep(0.05)
    eq((got, peer.errors), ([b"one", "safe", b"two"], []))
    stream.close()
    await peer.close()


async def test_a_session_that_is_cancelled_as_it_waits_cleans_up():
    got = []

    async def for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            got.append("awaited")

    def session(io):
        try:
            yield for_ever()
        finally:
            got.append("session")

    peer = Peer(session)
    stream = await peer.connect()
    await asyncio.sleep(0.05)
    await peer.close()
    eq(got, ["awaited", "session"])
    stream.close()


# -- over sockets, again


def echo(io):
    """Says each line again."""
    while True:
        line = yield LINE
        if line is False:
            io.out += b"too long\r\n"
        else:
            io.out += line + b"\r\n"
        if line == b"QUIT":
            return


def ask(io, *lines):
    """Sends lines, gives those that come back."""
    io.out = b"".join([line + b"\r\n" for line in lines])
    got = []
    for _ in lines:
        got.append((yield LINE))
    return got


async def failure(stream, session):
    """The exception that ends a session; closes the stream."""
    try:
        await stream.run(session)
    except Exception as e:
        return e
    finally:
        stream.close()
    raise AssertionError("it did not fail")


async def test_a_stream_carries_what_a_session_says():
    peer = Peer(echo)
    stream = await peer.connect()
    eq(await stream.run(ask(stream, b"one", b"", b"\x00\xff")), [b"one", b"", b"\x00\xff"])
    eq(await stream.run(ask(stream, b"again")), [b"again"])
    stream.close()
    eq(peer.addresses, ["127.0.0.1"])
    await peer.close()


async def test_a_session_that_ends_has_said_its_last_word():
    peer = Peer(echo)
    stream = await peer.connect()
    eq(await stream.run(ask(stream, b"QUIT")), [b"QUIT"])
    error = await failure(stream, ask(stream, b"more"))
    assert isinstance(error, (EOFError, OSError)), error
    await peer.close()


async def test_a_connection_that_is_refused_is_an_oserror():
    port, sock = listen_somewhere()
    sock.close()
    try:
        await connect("127.0.0.1", port)
    except OSError as e:
        eq(e.errno, errno.ECONNREFUSED)
    else:
        raise AssertionError("connected to a closed port")


async def test_a_listener_on_a_taken_port_is_an_oserror():
    from smtp.listen import listen

    port, sock = listen_somewhere()
    try:
        listen("127.0.0.1", port)
    except OSError as e:
        eq(e.errno, errno.EADDRINUSE)
    else:
        raise AssertionError("two listeners on one port")
    finally:
        sock.close()


async def test_a_peer_that_closes_is_an_eoferror():
    def bye(io):
        io.out = b"bye\r\n"
        yield SEND

    peer = Peer(bye)
    stream = await peer.connect()

    def twice(io):
        first = yield LINE
        eq(first, b"bye")
        yield LINE

    error = await failure(stream, twice(stream))
    assert isinstance(error, EOFError), error
    await peer.close()


def silent(io):
    while True:
        yield LINE


async def test_a_session_that_waits_too_long_gets_etimedout():
    peer = Peer(silent)
    stream = await peer.connect()
    seen = []

    def patient(io):
        io.timeout = 50
        for _ in range(2):
            try:
                yield LINE
            except OSError as e:
                seen.append(e.errno)
        return "went on"

    eq(await stream.run(patient(stream)), "went on")
    eq(seen, [errno.ETIMEDOUT] * 2)
    stream.close()
    await peer.close()


async def test_a_peer_that_trickles_does_not_put_off_the_deadline():
    def trickle(io):
        while True:
            io.out = b"x"
            io.timeout = 20
            yield SLEEP

    peer = Peer(trickle)
    stream = await peer.connect()

    def patient(io):
        io.timeout = 300
        yield LINE

    error = await failure(stream, patient(stream))
    eq(error.args[0], errno.ETIMEDOUT)
    await peer.close()


async def test_a_peer_that_reads_nothing_is_given_up():
    def deaf(io):
        io.timeout = 60000
        yield SLEEP

    peer = Peer(deaf)
    stream = await peer.connect()

    def talk(io):
        io.timeout = 300
        while True:
            io.out = b"x" * 65536
            yield SEND

    error = await failure(stream, talk(stream))
    eq(error.args[0], errno.ETIMEDOUT)
    await peer.close()


async def test_what_is_more_than_the_socket_takes_at_once_arrives_whole():
    size = 400000

    def speak(io):
        yield LINE
        io.out = b"0123456789" * (size // 10) + b"\r\n.\r\n"
        yield SEND

    peer = Peer(speak)
    stream = await peer.connect()

    def listen(io):
        begin(io)
        io.out = b"go\r\n"
        total = 0
        while True:
            piece = yield DATA
            if piece is False:
                return total
            total += len(piece)
            if total < size // 2:
                yield PAUSE

    eq(await stream.run(listen(stream)), size + 2)
    stream.close()
    await peer.close()


async def test_a_socket_that_takes_a_little_at_a_time_gets_all_in_order():
    text = b"".join([b"%05d" % i for i in range(4000)])
    peer = Peer(echo, 30000)
    stream = await connect("127.0.0.1", peer.port, size=30000)
    put = stream.put
    turns = []

    def little(data):
        turns.append(1)
        return put(data[:777]) if len(turns) % 3 else None

    stream.put = little
    eq(await stream.run(ask(stream, text, b"end")), [text, b"end"])
    stream.close()
    await peer.close()


async def test_big_transfers_in_both_directions_do_not_stop_each_other():
    def speak(io):
        for _ in range(200):
            io.out += b"y" * 2000
            yield SEND
        io.out += b"\r\n.\r\n"

    def hear(io):
        begin(io)
        total = 0
        while True:
            piece = yield DATA
            if piece is False:
                return total
            total += len(piece)

    def both(io):
        """Reads as much as it writes."""
        begin(io)
        total = 0
        while True:
            piece = yield DATA
            if piece is False:
                io.out += b"\r\n.\r\n"
                return
            total += len(piece)
            io.out += b"y" * len(piece)

    up = []
    takes = Peer(lambda io: taking(io, up, hear))
    gives = Peer(speak)
    mirrors = Peer(both)
    one, two, three = await takes.connect(), await gives.connect(), await mirrors.connect()
    three_in = []

    def mirror(io):
        for _ in range(100):
            io.out += b"z" * 2000
            yield SEND
        io.out += b"\r\n.\r\n"
        three_in.append((yield from hear(io)))

    results = await asyncio.gather(one.run(speak(one)), two.run(hear(two)), three.run(mirror(three)))
    for stream in (one, two, three):
        stream.close()
    eq(results[1], 400002)
    eq(three_in, [200004])
    for _ in range(50):
        if up:
            break
        await asyncio.sleep(0.02)
    eq(up, [400002])
    for peer in (takes, gives, mirrors):
        await peer.close()


def taking(io, up, hear):
    up.append((yield from hear(io)))


async def test_a_silent_peer_does_not_disturb_the_others():
    peer = Peer(echo)
    quiet = await peer.connect()
    half = await peer.connect()
    half.sock.send(b"half a li")
    for n in range(20):
        stream = await peer.connect()
        eq(await stream.run(ask(stream, b"%d" % n)), [b"%d" % n])
        stream.close()
    eq(await half.run(ask(half, b"ne")), [b"half a line"])
    eq(await quiet.run(ask(quiet, b"still here")), [b"still here"])
    half.close()
    quiet.close()
    await peer.close()


async def test_a_flood_does_not_keep_the_others_waiting():
    def devour(io):
        while True:
            yield LINE

    peer = Peer(lambda io: devour(io) if len(peer.tasks) == 1 else echo(io))
    flood = await peer.connect()
    turns = []

    def pour(io):
        while len(turns) < 5:
            io.out = b"x" * 500 + b"\r\n"
            yield SEND

    task = asyncio.create_task(flood.run(pour(flood)))
    await asyncio.sleep(0.01)
    stream = await peer.connect()
    for n in range(5):
        eq(await stream.run(ask(stream, b"%d" % n)), [b"%d" % n])
        turns.append(n)
    await task
    flood.close()
    stream.close()
    await peer.close()


async def test_a_line_longer_than_the_buffer_does_not_fill_memory():
    peer = Peer(echo, 128)
    stream = await peer.connect()
    eq(await stream.run(ask(stream, b"x" * 50000, b"ok")), [b"too long", b"ok"])
    stream.close()
    await peer.close()


async def test_a_cancelled_stream_runs_the_clean_up_of_its_session():
    done = []

    def session(io):
        try:
            while True:
                yield LINE
        finally:
            done.append(1)

    peer = Peer(session)
    stream = await peer.connect()
    for _ in range(100):
        if peer.tasks:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    await peer.close()
    eq(done, [1])
    stream.close()


class Plain:
    """An SSLContext that leaves the socket as it is."""

    def wrap_socket(self, sock, **options):
        return sock


class Nowhere:
    """A backend that takes no mail."""


async def test_what_was_sent_ahead_of_tls_is_thrown_away_by_a_server():
    # CVE-2011-0411: otherwise it would count as said under TLS.
    listener = Listener("mx.example.com", Nowhere(), ["127.0.0.0/8"], tls="starttls", context=Plain())
    peer = Peer(lambda io: Session(io, "127.0.0.1", listener).run())
    stream = await peer.connect()

    def client(io):
        got = [(yield LINE)]
        io.out = b"STARTTLS\r\nRSET\r\nMAIL FROM:<evil@example.com>\r\n"
        got.append((yield LINE))
        io.out = b"NOOP\r\nRCPT TO:<b@example.net>\r\nQUIT\r\n"
        for _ in range(3):
            got.append((yield LINE))
        return [line[:3] for line in got]

    eq(await stream.run(client(stream)), [b"220", b"220", b"250", b"503", b"221"])
    stream.close()
    await peer.close()


async def test_what_was_sent_ahead_of_tls_is_thrown_away_by_a_client():
    def server(io):
        io.out = b"220 mx\r\n"
        yield LINE
        io.out = b"250-mx\r\n250 STARTTLS\r\n"
        yield LINE
        io.out = b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"
        yield LINE
        io.out = b"250-mx\r\n250 SIZE 7\r\n"
        yield LINE

    peer = Peer(server)
    stream = await peer.connect()
    client = Client(stream, "me.example.com")
    await stream.run(client.start("starttls", (Plain(), "mx")))
    eq(client.ext, {"SIZE": "7"})
    stream.close()
    await peer.close()


async def test_a_server_over_its_limits_says_421_and_goes_on():
    server = Server(2)
    listener = Listener("mx.example.com", Nowhere())
    port, serve = somewhere(lambda port: server.bind("127.0.0.1", port, listener))
    task = asyncio.create_task(serve())

    def greeting(io):
        return (yield LINE)[:3]

    streams = []
    for wanted in (b"220", b"220", b"421", b"421"):
        streams.append(await connect("127.0.0.1", port))
        eq(await streams[-1].run(greeting(streams[-1])), wanted)
    streams[0].close()
    for _ in range(100):
        if len(server.tasks) < 2:
            break
        await asyncio.sleep(0.01)
    streams.append(await connect("127.0.0.1", port))
    eq(await streams[-1].run(greeting(streams[-1])), b"220")
    for stream in streams:
        stream.close()
    task.cancel()
    await server.close()
    eq((server.tasks, server.peers), ([], []))


class NoMemory:
    """Buffers cannot be had for new streams, or for `only`: `with NoMemory():`."""

    def __init__(self, only=None):
        self.only = only

    def __enter__(self):
        self.init = Wire.__init__

        def init(wire, buf):
            if self.only in (None, wire):
                raise MemoryError("allocating 2048 octets")
            self.init(wire, buf)

        Wire.__init__ = init

    def __exit__(self, *error):
        Wire.__init__ = self.init


async def test_who_comes_while_there_is_no_memory_is_turned_away_and_the_others_stay():
    server = Server()
    port, serve = somewhere(lambda port: server.bind("127.0.0.1", port, Listener("mx.example.com", Nowhere())))
    task = asyncio.create_task(serve())

    def greeting(io):
        return (yield LINE)

    def quit(io):
        io.out += b"QUIT\r\n"
        yield LINE

    # One has been here, and its stream is kept; its connection's number is given to the next one.
    first = await connect("127.0.0.1", port)
    await first.run(greeting(first))
    await first.run(quit(first))
    first.close()
    for _ in range(100):
        if server.spare:
            break
        await asyncio.sleep(0.01)
    eq(len(server.spare), 1)
    kept = server.spare[:]
    server.spare.clear()
    second = await connect("127.0.0.1", port)
    eq(await second.run(greeting(second)), b"220 mx.example.com ESMTP")
    server.spare.extend(kept)
    with NoMemory(kept[0][0]):
        third = await connect("127.0.0.1", port)
        for _ in range(100):
            if not server.spare:
                break
            await asyncio.sleep(0.01)
    third.timeout = 2000
    try:
        await third.run(greeting(third))
    except EOFError:
        pass
    else:
        raise AssertionError("it hears nothing")

    def noop(io):
        io.out += b"NOOP\r\n"
        return (yield LINE)

    eq(await second.run(noop(second)), b"250 2.0.0 ok")
    eq(server.peers, ["127.0.0.1"])
    for stream in (second, third):
        stream.close()
    task.cancel()
    await server.close()


async def test_a_connection_for_which_there_is_no_memory_leaves_no_socket_behind():
    closed = []

    class Sock:
        def __init__(self, *kind):
            pass

        def close(self):
            closed.append(self)

    class Sockets:
        SOCK_STREAM = 1
        socket = Sock

        def getaddrinfo(self, *args):
            return [(2, 1, 0, "", None)]

    stream_module.socket = Sockets()
    try:
        with NoMemory():
            await connect("mx", 25)
    except MemoryError:
        pass
    finally:
        stream_module.socket = socket
    eq(len(closed), 1)


async def alarm(server):
    await asyncio.sleep(5)
    server.tasks = ["close() does not end"]


async def test_a_server_that_is_closed_as_somebody_connects_ends():
    for turns in range(4):
        server = Server()
        listener = Listener("mx.example.com", Nowhere())
        port, serve = somewhere(lambda port, s=server, li=listener: s.bind("127.0.0.1", port, li))
        task = asyncio.create_task(serve())
        await asyncio.sleep(0)
        stream = await connect("127.0.0.1", port)
        for _ in range(500):
            if server.tasks:
                break
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        watch = asyncio.create_task(alarm(server))
        await server.close()
        watch.cancel()
        eq((server.tasks, server.peers), ([], []))
        task.cancel()
        stream.close()


async def test_a_chunk_over_a_socket():
    got = []

    def session(io):
        begin(io)
        io.want = 5000
        out = b""
        while io.want:
            out += bytes((yield CHUNK))
        got.append(out)
        got.append((yield LINE))
        io.out = b"ok\r\n"

    peer = Peer(session, 512)
    stream = await peer.connect()
    stream.out = b"\x00\x01\x02\r\n" * 1000

    def send(io):
        io.out += b"after\r\n"
        return (yield LINE)

    eq(await stream.run(send(stream)), b"ok")
    eq(got, [b"\x00\x01\x02\r\n" * 1000, b"after"])
    stream.close()
    await peer.close()
