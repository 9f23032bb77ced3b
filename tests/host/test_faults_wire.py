"""What a smart host and the network can do to a session, over real sockets and TLS: the mail stays in the queue or
becomes a dead letter as it must, attempts are counted as they must, and once the fault is gone it is delivered once.

The host's side of TLS runs in memory, so that a handshake can be cut within a flight. Faults at each command without
sockets are in portable/test_faults.py.
"""

import asyncio
import os
import socket
import ssl
import struct
import threading

import pytest
from edgepost import certificates
from smtp import client
from smtp.queue import Queue
from smtp.relay import Relay, SmartHost

PATIENCE = 20  # s until a host that nobody talks to gives up
DEADLINE = 1500  # ms that the relay waits for a host with a fault, instead of minutes
FAST = ("PIPELINING", "CHUNKING")
MODES = {"chunks": FAST, "groups": ("PIPELINING",), "slow": ()}


class Over(Exception):
    """The host ends the connection."""


class Link:
    """The host's end of a connection, with TLS from shake() on."""

    def __init__(self, sock):
        self.sock = sock
        self.tls = None
        self.buf = b""

    def send(self, data):
        if self.tls:
            self.tls.write(data)
            data = self.outgoing.read()
        self.sock.sendall(data)

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Over
        if not self.tls:
            self.buf += data
            return
        self.incoming.write(data)
        self.decrypt()

    def decrypt(self):
        try:
            while piece := self.tls.read(65536):
                self.buf += piece
        except ssl.SSLWantReadError:
            pass

    def line(self):
        while b"\r\n" not in self.buf:
            self.more()
        line, _, self.buf = self.buf.partition(b"\r\n")
        return line.decode()

    def shake(self, context, cut=None):
        """The handshake; cut: (how many flights are sent whole, octets of the next one that still are)."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        flights = 0
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            if flight := self.outgoing.read():
                if cut and cut[0] == flights:
                    self.sock.sendall(flight[: cut[1]])
                    raise Over
                flights += 1
                self.sock.sendall(flight)
            if not done:
                data = self.sock.recv(65536)
                if not data:
                    raise Over
                self.incoming.write(data)
        self.tls = tls
        self.decrypt()  # the client's first line may have come with its last flight


class Host:
    """A smart host with a fault: `fault` is (point, function of the Host and its Link), or None once all is well."""

    def __init__(self, path, offers=FAST, tls=False):
        authority = certificates.Authority(path)
        self.ca = ssl.PEM_cert_to_DER_cert(authority.pem.read_text())
        self.context = certificates.server_context(*authority.issue())
        self.offers = offers
        self.tls = tls
        self.fault = None
        self.faults = 0
        self.mails = []
        self.calm = threading.Event()  # set once the fault is over
        self.threads = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.listening = threading.Thread(target=self.listen, daemon=True)
        self.listening.start()

    def listen(self):
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            self.threads.append(threading.Thread(target=self.serve, args=(sock,), daemon=True))
            self.threads[-1].start()

    def stop(self):
        self.calm.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.listening.join(PATIENCE)
        for thread in self.threads:
            thread.join(PATIENCE)

    def at(self, point, link):
        """Gives True when the fault of this point stands for the host's answer."""
        if self.fault and self.fault[0] == point:
            self.faults += 1
            return self.fault[1](self, link) or True
        return False

    def serve(self, sock):
        with sock:
            try:
                self.session(Link(sock))
            except (Over, OSError):
                pass

    def session(self, link):
        sender, rcpts = None, []
        if not self.at("greeting", link):
            link.send(b"220 localhost\r\n")
        while True:
            line = link.line()
            verb = line.split()[0]
            reply = b"250 2.0.0 ok\r\n"
            if self.at("EHLO again" if verb == "EHLO" and link.tls else verb, link):
                continue
            if verb == "EHLO":
                more = self.offers + (() if link.tls or not self.tls else ("STARTTLS",))
                reply = "".join([f"250-{e}\r\n" for e in ("localhost",) + more]).encode() + b"250 SIZE\r\n"
            elif verb == "STARTTLS":
                link.send(b"220 2.0.0 go\r\n")
                if not self.at("handshake", link):
                    link.shake(self.context)
                continue
            elif verb == "MAIL":
                sender, rcpts = line, []
            elif verb == "RCPT":
                rcpts.append(line)
            elif verb == "DATA":
                link.send(b"354 go\r\n")
                if not self.at("body", link):
                    self.data(link)
                    self.mails.append((sender, rcpts))
            elif verb == "BDAT":
                words = line.split()
                left = int(words[1])
                if words[-1] == "LAST" and self.at("body", link):
                    continue
                self.octets(link, left)
                if words[-1] == "LAST":
                    self.mails.append((sender, rcpts))
            link.send(b"221 2.0.0 bye\r\n" if verb == "QUIT" else reply)
            if verb == "QUIT":
                return

    def data(self, link):
        tail = b"\r\n"
        while True:
            at = (tail + link.buf).find(b"\r\n.\r\n")
            if at >= 0:
                link.buf = link.buf[at + 5 - len(tail) :]
                return
            tail = (tail + link.buf)[-4:]
            link.buf = b""
            link.more()

    def octets(self, link, left):
        while len(link.buf) < left:
            left -= len(link.buf)
            link.buf = b""
            link.more()
        link.buf = link.buf[left:]


# -- faults


def close(host, link):
    raise Over


def reset(host, link):
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Over


def silence(host, link):
    host.calm.wait(PATIENCE)
    raise Over


def some(link):
    """Reads some of the body."""
    for _ in range(3):
        link.buf = b""
        link.more()


def closes_in_the_body(host, link):
    some(link)
    raise Over


def resets_in_the_body(host, link):
    some(link)
    reset(host, link)


def stops_reading(host, link):
    some(link)
    silence(host, link)


def garbage(host, link):
    link.sock.sendall(b"\x00\xff HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
    silence(host, link)


def endless(host, link):
    """A line that never ends, as fast as the relay reads it."""
    while not host.calm.is_set():
        link.send(b"250" + b"x" * 65536)


def says(reply, then=None):
    def fault(host, link):
        link.send(reply + b"\r\n")
        if then:
            then(host, link)

    return fault


def says_in_the_body(reply, then):
    def fault(host, link):
        some(link)
        link.send(reply + b"\r\n")
        then(host, link)

    return fault


def reads_on(host, link):
    """Reads what comes until the relay goes."""
    link.sock.shutdown(socket.SHUT_WR)
    while True:
        link.buf = b""
        link.more()


def shake_cut(flights, octets):
    def fault(host, link):
        link.shake(host.context, (flights, octets))

    return fault


def hello_only(then):
    def fault(host, link):
        link.sock.recv(65536)
        then(host, link)

    return fault


# -- the relay


class Clock:
    def now(self):
        return 1790000000

    def offset(self, when):
        return 0


class Site:
    """A relay with its queue, in the middle of its day."""

    def __init__(self, path, host, address="127.0.0.1"):
        self.path = str(path / "queue")
        self.time = 100
        self.queue = Queue(self.path, max_bytes=64 << 20, uptime=lambda: self.time)
        self.host = host
        self.lines = []
        security = "starttls" if host.tls else "none"
        smart = SmartHost(address, host.port, security, ca=[host.ca])
        self.relay = Relay(self.queue, [smart], "me.example.com", Clock(), "a@example.com", self.lines.append)

    def add(self, size=1000, number=1):
        """Queues a mail of two recipients."""
        meta = {"f": f"m{number}@example.com", "r": [f"m{number}a@example.net", f"m{number}b@example.net"]}
        line = b"x" * 98 + b"\r\n"
        self.queue.add(meta, [b"Subject: x\r\n\r\n"] + [line * 100] * (size // 10000) + [line * (size % 10000 // 100)])

    def session(self):
        """Delivers once; gives whether that went well."""
        return asyncio.run(asyncio.wait_for(self.relay.session(), PATIENCE))

    def files(self):
        """The mails' states by their file names: "waits" for those without an attempt, else "ATTEMPTS.DONE.FAILED"."""
        names = [n for n in sorted(os.listdir(self.path)) if "-" not in n]
        return [n[9:] or "waits" for n in names]

    def dead(self):
        return [n[9:-5] for n in sorted(os.listdir(self.path)) if n.endswith("-kept")]

    def delivered(self):
        return sorted(sender.split("<")[1].split("@")[0] for sender, _ in self.host.mails)

    def recovers(self, mails):
        """The fault goes: what waits is delivered, each mail once and to all of its recipients."""
        self.host.fault = None
        self.host.calm.set()
        self.time += 7200
        client._CONNECT = client._REPLY = client._FINAL = PATIENCE * 1000
        assert self.session() is True, self.lines
        assert self.files() == []
        assert self.delivered() == mails
        assert [len(rcpts) for _, rcpts in self.host.mails] == [2] * len(mails)


@pytest.fixture
def make_host(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_CONNECT", DEADLINE)
    monkeypatch.setattr(client, "_REPLY", DEADLINE)
    monkeypatch.setattr(client, "_FINAL", DEADLINE)
    made = []

    def make(**kwargs):
        made.append(Host(tmp_path / "host", **kwargs))
        return made[-1]

    yield make
    for host in made:
        host.stop()


def test_without_a_fault_all_goes_through_in_each_kind_of_session(make_host, tmp_path):
    for n, (mode, offers) in enumerate(MODES.items()):
        for tls in (False, True):
            host = make_host(offers=offers, tls=tls)
            (tmp_path / f"{n}{tls}").mkdir()
            site = Site(tmp_path / f"{n}{tls}", host)
            site.add(300000, 1)
            site.add(1000, 2)
            assert (mode, site.session(), site.files()) == (mode, True, [])
            assert site.delivered() == ["m1", "m2"]


def refused(host):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return "127.0.0.1", sock.getsockname()[1]


def no_route(host):
    return "255.255.255.255", host.port


def no_name(host):
    return "nobody.invalid", host.port


@pytest.mark.parametrize("where", [refused, no_route, no_name])
def test_a_connection_that_cannot_be_made_costs_no_attempt(make_host, tmp_path, where):
    host = make_host()
    site = Site(tmp_path, host)
    site.add()
    smart = site.relay.hosts[0]
    good = smart.host, smart.port
    smart.host, smart.port = where(host)
    assert site.session() is False
    assert site.files() == ["waits"]
    assert "no connection to" in site.lines[-1] and "1 mails wait" in site.lines[-1]
    smart.host, smart.port = good
    site.recovers(["m1"])


def test_a_host_that_does_not_answer_the_connection_costs_no_attempt(make_host, tmp_path):
    host = make_host()
    site = Site(tmp_path, host)
    site.add()
    smart = site.relay.hosts[0]
    good = smart.port
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        smart.port = full.getsockname()[1]
        waiting = []
        for _ in range(4):  # its queue is full, so that the next one is not answered
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(("127.0.0.1", smart.port))
        assert site.session() is False
        for sock in waiting:
            sock.close()
    assert site.files() == ["waits"]
    smart.port = good
    site.recovers(["m1"])


OPENING = [
    ("greeting", silence, "lost"),
    ("greeting", close, "lost"),
    ("greeting", reset, "reset"),
    ("greeting", endless, "lost"),
    ("greeting", says(b"421 4.3.2 full", close), "421"),
    ("greeting", says(b"554 no", close), "554"),
    ("EHLO", silence, "lost"),
    ("EHLO", close, "lost"),
    ("EHLO", endless, "lost"),
    ("STARTTLS", silence, "lost"),
    ("STARTTLS", close, "lost"),
    ("STARTTLS", says(b"454 4.7.0 not now"), "454"),
    ("EHLO again", silence, "lost"),
    ("EHLO again", close, "lost"),
    ("EHLO again", reset, "lost"),
]


@pytest.mark.parametrize(("point", "fault", "word"), OPENING)
def test_a_session_that_does_not_open_costs_no_attempt(make_host, tmp_path, point, fault, word):
    host = make_host(tls=True)
    site = Site(tmp_path, host, "localhost")
    site.add()
    host.fault = point, fault
    assert site.session() is False
    assert host.faults == 1
    assert word in site.lines[-1]
    assert site.files() == ["waits"]
    site.recovers(["m1"])


HANDSHAKE = {
    "closed before it": (None, close),
    "reset before it": (None, reset),
    "silence before it": (None, silence),
    "closed after the hello": (None, hello_only(close)),
    "reset after the hello": (None, hello_only(reset)),
    "silence after the hello": (None, hello_only(silence)),
    "garbage": (None, garbage),
    "garbage after the hello": (None, hello_only(garbage)),
    "cut in the first flight, TLS 1.3": (ssl.TLSVersion.TLSv1_3, shake_cut(0, 100)),
    "cut after the first flight, TLS 1.3": (ssl.TLSVersion.TLSv1_3, shake_cut(0, 100000)),
    "cut in the tickets, TLS 1.3": (ssl.TLSVersion.TLSv1_3, shake_cut(1, 10)),
    "cut after the tickets, TLS 1.3": (ssl.TLSVersion.TLSv1_3, shake_cut(1, 100000)),
    "cut in the first flight, TLS 1.2": (ssl.TLSVersion.TLSv1_2, shake_cut(0, 100)),
    "cut after the first flight, TLS 1.2": (ssl.TLSVersion.TLSv1_2, shake_cut(0, 100000)),
    "cut in the second flight, TLS 1.2": (ssl.TLSVersion.TLSv1_2, shake_cut(1, 10)),
    "cut after the second flight, TLS 1.2": (ssl.TLSVersion.TLSv1_2, shake_cut(1, 100000)),
}


@pytest.mark.parametrize("name", HANDSHAKE)
def test_a_handshake_that_fails_costs_no_attempt(make_host, tmp_path, name):
    host = make_host(tls=True)
    version, fault = HANDSHAKE[name]
    if version:
        host.context.minimum_version = host.context.maximum_version = version
    site = Site(tmp_path, host, "localhost")
    site.add()
    host.fault = "handshake", fault
    assert site.session() is False
    assert host.faults == 1
    assert "TLS handshake failed" in site.lines[-1] or "connection was lost" in site.lines[-1]
    assert site.files() == ["waits"]
    site.recovers(["m1"])


BODY = [closes_in_the_body, resets_in_the_body, close, reset, says_in_the_body(b"421 4.3.2 closing", reads_on)]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", BODY, ids=["closes", "resets", "closes before", "resets before", "421"])
def test_a_body_that_is_cut_waits_with_all_behind_it_and_goes_once(make_host, tmp_path, fault, mode, tls):
    host = make_host(offers=MODES[mode], tls=tls)
    site = Site(tmp_path, host, "localhost")
    site.add(3000000, 1)
    site.add(1000, 2)
    host.fault = "body", fault
    assert site.session() is False
    assert host.faults == 1
    assert site.files() == ["waits", "waits"]
    assert host.mails == [] and site.dead() == []
    site.recovers(["m1", "m2"])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", MODES)
def test_a_host_that_stops_to_read_is_left(make_host, tmp_path, mode, tls):
    host = make_host(offers=MODES[mode], tls=tls)
    host.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    site = Site(tmp_path, host, "localhost")
    site.add(12000000)
    host.fault = "body", stops_reading
    assert site.session() is False
    assert host.faults == 1
    assert site.files() == ["waits"]
    site.recovers(["m1"])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("then", [reads_on, close], ids=["reads on", "closes"])
def test_a_body_that_is_refused_in_its_middle_is_a_dead_letter_and_what_is_behind_goes(
    make_host, tmp_path, mode, tls, then
):
    host = make_host(offers=MODES[mode], tls=tls)
    site = Site(tmp_path, host, "localhost")
    site.add(3000000, 1)
    site.add(1000, 2)
    host.fault = "body", says_in_the_body(b"554 5.7.1 no such thing", then)
    assert site.session() is False
    assert site.dead() == ["0.0.3"]
    assert site.files() == ["waits"]
    assert len([x for x in site.lines if "554 5.7.1 no such thing" in x]) == 2
    assert len([x for x in site.lines if "kept as a dead letter" in x]) == 2
    site.recovers(["m2"])
    assert site.dead() == ["0.0.3"]


@pytest.mark.parametrize("mode", MODES)
def test_a_body_that_is_deferred_in_its_middle_counts_an_attempt_and_goes_later(make_host, tmp_path, mode):
    host = make_host(offers=MODES[mode])
    site = Site(tmp_path, host)
    site.add(3000000)
    host.fault = "body", says_in_the_body(b"452 4.3.1 full", reads_on)
    site.session()
    assert site.files() == ["1.0.0"]
    site.recovers(["m1"])


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_ends_after_the_last_reply_delivers_nothing_twice(make_host, tmp_path, mode):
    faults = (close, reset, says(b"550 no", close)) + ((silence,) if mode == "slow" else ())  # QUIT waits for 5 s
    for n, fault in enumerate(faults):
        host = make_host(offers=MODES[mode])
        (tmp_path / str(n)).mkdir()
        site = Site(tmp_path / str(n), host)
        site.add(1000, 1)
        site.add(1000, 2)
        host.fault = "QUIT", fault
        assert site.session() is True
        assert host.faults == 1
        assert (site.files(), site.delivered()) == ([], ["m1", "m2"])


@pytest.mark.parametrize("mode", MODES)
def test_many_sessions_that_break_cost_no_attempt(make_host, tmp_path, mode):
    host = make_host(offers=MODES[mode])
    site = Site(tmp_path, host)
    for n in range(1, 4):
        site.add(1000, n)
    for fault in ("MAIL", close), ("RCPT", reset), ("body", close), ("RCPT", says(b"421 4.3.2 bye", close)):
        host.fault = fault
        assert site.session() is False
        assert site.files() == ["waits"] * 3
    site.recovers(["m1", "m2", "m3"])
