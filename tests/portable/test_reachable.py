"""firmware/drivers/reachable.py: a host that answers is 1, one that does not is 0, and our own troubles are neither."""

import asyncio
import errno
import sys

import drivers.reachable as reachable
import gateway
import sensors
import virtualtime
from expect import eq
from play import Flash, listen_somewhere


class Board:
    def path(self, name):
        return name


def driver(**rule):
    return reachable.Driver(rule, Board())


class Wire:
    """Stands for the module socket: hosts that answer pings. answers(packet): the packets that come back (bytes)."""

    AF_INET, SOCK_RAW, SOCK_DGRAM = 2, 3, 1

    def __init__(self, answers, kinds=(3, 1)):
        self.answers = answers
        self.kinds = kinds
        self.inbox = []
        self.sent = []
        self.open = 0

    def socket(self, family, kind, protocol):
        eq(protocol, 1)
        if kind not in self.kinds:
            raise OSError(errno.EPERM)
        self.open += 1
        return self

    def getaddrinfo(self, host, port):
        return [(2, 1, 0, "", (host, port))]

    def setblocking(self, value):
        assert not value

    def sendto(self, packet, where):
        packet = bytes(packet)
        self.sent.append(packet)
        answer = self.answers(packet)
        if isinstance(answer, Exception):
            raise answer
        self.inbox += answer

    def recv(self, most):
        if not self.inbox:
            raise OSError(errno.EAGAIN)
        return self.inbox.pop(0)

    def close(self):
        self.open -= 1


def alive(packet):
    """The echo reply, behind an IP header."""
    return [b"\x45" + bytes(19) + b"\0" + packet[1:]]


def ping(answers, kinds=(3, 1), timeout=10):
    """(value, Wire) of a ping in virtual time."""
    wire = Wire(answers, kinds)
    real = reachable.socket, reachable.ticks_ms, reachable.sleep_ms
    reachable.socket, reachable.ticks_ms = wire, virtualtime.ticks
    reachable.sleep_ms = lambda ms: asyncio.sleep(ms / 1000)
    try:
        value = virtualtime.run(driver(host="192.0.2.1", ping=True, timeout=timeout).read())
    finally:
        reachable.socket, reachable.ticks_ms, reachable.sleep_ms = real
    eq(wire.open, 0)
    return value, wire


async def test_a_port_that_is_open_is_reachable_and_a_closed_one_is_not():
    port, sock = listen_somewhere()
    one = driver(host="127.0.0.1", port=port)
    eq(await one.read(), 1)
    sock.close()
    eq(await one.read(), 0)


async def test_a_name_is_looked_up_by_the_gateway():
    port, sock = listen_somewhere()
    asked = []

    async def resolve(name):
        asked.append(name)
        return ["127.0.0.1"]

    gateway.resolve = resolve
    try:
        eq(await driver(host="printer.lan", port=port).read(), 1)
    finally:
        gateway.resolve = None
        sock.close()
    eq(asked, ["printer.lan"])


def test_a_host_that_answers_a_ping_is_reachable():
    value, wire = ping(alive)
    eq((value, len(wire.sent)), (1, 1))
    packet = wire.sent[0]
    total = sum([packet[i] << 8 | packet[i + 1] for i in range(0, len(packet), 2)])
    eq((packet[0], (total & 0xFFFF) + (total >> 16)), (8, 0xFFFF))  # RFC 1071


def test_without_root_a_computer_pings_by_a_datagram_socket():
    value, wire = ping(lambda packet: [b"\0" + packet[1:]], (1,))
    eq(value, 1)


def test_who_may_not_ping_is_told_to_give_a_port():
    try:
        ping(alive, ())
        raise AssertionError("it pings without a socket")
    except ValueError as e:
        assert "only root" in str(e) and "port" in str(e)


def test_a_silent_host_is_asked_again_and_then_not_reachable():
    value, wire = ping(lambda packet: [], timeout=5)
    eq((value, len(wire.sent)), (0, 6))


def test_answers_to_others_and_nonsense_are_no_answer():
    def others(packet):
        ip = b"\x45" + bytes(19)
        return [b"", b"\x45", ip + b"\0" + bytes(15), packet, ip + b"\x03" + packet[1:]]

    eq(ping(others)[0], 0)


def test_an_answer_that_another_rule_received_counts():
    """On a Pico W one raw socket takes the packets of all."""

    def elsewhere(packet):
        reachable._heard.append(packet[8:16])
        return []

    eq(ping(elsewhere)[0], 1)


def test_a_host_that_nobody_knows_the_way_to_is_not_reachable():
    eq(ping(lambda packet: OSError(errno.EHOSTUNREACH))[0], 0)


class Station:
    up = False


class Organs:
    station = Station


class Stage:
    """A rule that asks for a host; what it mails."""

    def __init__(self, path, port):
        told = sensors.Told(path + "/rules.json", self.log)
        rule = {"name": "printer", "driver": "reachable", "host": "127.0.0.1", "port": port, "every": 60, "for": 100,
                "words": ["unreachable", "reachable"], "below": 0.5, "recovery": True}
        self.time = 0
        self.mails = []
        self.lines = []
        self.rule = sensors.Rule(rule, Board(), self.alert, self.log, lambda: self.time, told)

    def alert(self, subject, text, to, priority, rule):
        self.mails.append((subject, text))

    def log(self, area, text):
        self.lines.append(text)

    async def play(self, seconds):
        for _ in range(seconds // 60):
            self.time += 60
            await self.rule.step()


async def test_a_rule_tells_of_a_host_that_is_gone_and_of_its_return():
    with Flash() as path:
        port, sock = listen_somewhere()
        stage = Stage(path, port)
        await stage.play(60)
        sock.close()
        await stage.play(180)
        eq(stage.mails, [("printer: unreachable", "printer is unreachable. This has lasted 2 min.")])


async def test_a_board_without_a_network_blames_nobody():
    with Flash() as path:
        port, sock = listen_somewhere()
        sock.close()
        stage = Stage(path, port)
        sys.modules["organs"] = Organs
        try:
            await stage.play(6000)
            eq((stage.mails, stage.rule.failed), ([], 0))
            eq(stage.lines, ["printer cannot be read: this board has no network itself"])
            Station.up = True
            await stage.play(120)
            eq(stage.mails, [])  # `for` has started anew
            await stage.play(60)
            eq([m[0] for m in stage.mails], ["printer: unreachable"])
        finally:
            Station.up = False
            del sys.modules["organs"]
