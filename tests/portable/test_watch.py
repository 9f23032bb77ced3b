"""firmware/watch.py: the watchdog bites when the loop, the relay, the server or a rule hangs, and only then.

Relay and rule are the real ones, in a world whose time the test makes; the chip's watchdog is simulated."""

import asyncio

import hardware
import sensors
import virtualtime
import watch
import world
from expect import eq
from play import MICROPYTHON, Flash
from smtp import stream


class Socket:
    pass


class Server:
    """A server whose sockets are waited for while `listens`."""

    def __init__(self):
        self.socks = [Socket(), Socket()]

    listens = True


class Waiting:
    """asyncio's queue for sockets, as stream.core has it on MicroPython."""

    def __init__(self, server):
        self.server = server
        self._io_queue = self

    @property
    def map(self):
        return {id(s): s for s in self.server.socks[: 2 if self.server.listens else 1]}


class Stage:
    def __init__(self, path, chip="rp2"):
        hardware.reset(chip)
        hardware.ticks = virtualtime.ticks
        import soc

        self.soc = soc
        self.bites = []
        self.world = world.World(path)
        self.server = Server()
        self.reading = 1.0
        self.hang = False

    async def boot(self):
        """Everything runs that a watchdog looks at."""
        clock = self.world.clock
        told = sensors.Told(self.world.path + "/rules.json", lambda *what: None)
        rule = {"name": "freezer", "driver": "file", "path": "", "every": 60, "above": 5}
        self.rule = sensors.Rule(rule, None, lambda *mail: None, lambda *what: None, clock.uptime, told)
        self.rule.driver = self
        self.dog = watch.everything(
            watch.Watch(clock.uptime, self.bites.append), self.world.relay, self.server, [self.rule])
        self.dog.start(8300)
        self.tasks = [asyncio.create_task(self.dog.run()), asyncio.create_task(self.rule.run())]

    async def read(self):
        while self.hang:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
        return self.reading

    deaf = False

    def run(self, story):
        async def main():
            await self.boot()
            try:
                await story
                eq([t for t in self.tasks if t.done()], [])
            finally:
                self.hang = False
                for task in self.tasks:
                    while not task.done():
                        task.cancel()  # wait_for() of Python 3.11 may swallow one
                        await asyncio.sleep(0)

        real = getattr(stream, "core", None)
        stream.core = Waiting(self.server)
        try:
            self.world.run(main())
        finally:
            if real:
                stream.core = real
            else:
                del stream.core
        eq(hardware.misused, [])

    async def bitten(self, most):
        """Seconds until the chip's watchdog has bitten; fails when that takes more than `most`."""
        for n in range(most):
            if self.soc.bitten():
                return n
            await asyncio.sleep(1)
        raise AssertionError("it did not bite within %d s" % most)

    def quiet(self):
        eq(self.bites, [])
        eq((self.soc.dog is not None, self.soc.bitten()), (True, False))


def staged(test):
    def run():
        with Flash() as path:
            stage = Stage(path)
            stage.run(test(stage))

    return run


@staged
async def test_nothing_happens_for_hours(stage):
    await asyncio.sleep(20000)
    stage.quiet()
    eq(stage.soc.dog[1], 8300)


@staged
async def test_a_loop_that_stands_still_is_bitten_by_the_chip(stage):
    await asyncio.sleep(100)
    virtualtime._now[0] += 6500  # somebody blocks, but not for long
    await asyncio.sleep(1)
    stage.quiet()
    virtualtime._now[0] += 8500
    eq((stage.bites, stage.soc.bitten()), ([], True))


@staged
async def test_a_relay_that_hangs_is_bitten_when_there_is_mail_for_it(stage):
    async def session():
        await asyncio.Event().wait()

    stage.world.relay.session = session
    await asyncio.sleep(7200)
    stage.quiet()
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    seconds = await stage.bitten(3600)
    assert 900 < seconds < 1000, seconds
    eq(len(stage.bites), 1)
    assert stage.bites[0].startswith("the relay did nothing for 9"), stage.bites


@staged
async def test_delivery_by_mx_that_hangs_is_bitten_though_it_has_taken_all_mail_that_was_due(stage):
    relay = stage.world.relay

    async def session():
        relay.parcels = [relay.queue.take()]
        await asyncio.Event().wait()

    relay.session = session
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    seconds = await stage.bitten(3600)
    assert 900 < seconds < 1000, seconds
    assert stage.bites[0].startswith("the relay did nothing for 9"), stage.bites


@staged
async def test_a_relay_whose_task_was_lost_is_bitten(stage):
    stage.world.task.cancel()
    await asyncio.sleep(1)
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    await stage.bitten(3600)
    stage.world.boot()  # for the end of the story


@staged
async def test_a_relay_that_delivers_is_left_alone(stage):
    for n in range(16):
        stage.world.alert("m%d-300" % n, ["m%d-300.1@%s.example.net" % (n, ("busy", "slow", "good", "never")[n % 4])])
        await asyncio.sleep(1000)
    stage.quiet()
    eq(stage.world.relay.delivered, 12)


@staged
async def test_a_smart_host_that_is_away_for_hours_is_no_hanging_relay(stage):
    stage.world.hosts[0].up = False
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    await asyncio.sleep(20000)
    stage.quiet()
    assert stage.world.relay.failures > 30
    stage.world.hosts[0].up = True
    await stage.world.drain()
    stage.quiet()


@staged
async def test_a_network_that_is_away_is_no_hanging_relay(stage):
    class Gate:
        def wait(self, now):
            return 1

        def count(self, now):
            pass

    stage.world.relay.hosts[0].rates = [Gate()]
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    await asyncio.sleep(20000)
    stage.quiet()
    eq((stage.world.relay.failures, stage.world.relay.told), (0, None))


@staged
async def test_a_smart_host_that_wants_no_mail_for_a_while_is_no_hanging_relay(stage):
    stage.world.relay.hosts[0].paused = stage.world.clock.uptime() + 7200
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    await asyncio.sleep(7000)
    stage.quiet()


@staged
async def test_who_waits_for_his_turn_with_tls_does_not_hang(stage):
    class Slots:
        line = [stage.world.relay]
        holders = [1]

        def take(self, who):
            return False

        def give(self, who):
            pass

    stage.world.relay.slots = Slots()
    stage.world.relay.hosts[0].security = "starttls"
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    await asyncio.sleep(1500)
    stage.quiet()


@staged
async def test_a_session_that_waits_for_its_smart_host_does_not_hang(stage):
    class Waits:
        waiter = due = None

    one = Waits()
    stream._open.append(one)

    async def session():
        await asyncio.Event().wait()

    stage.world.relay.session = session
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    try:
        for _ in range(30):
            one.waiter = 1
            one.due = stream.ticks_add(stream.ticks_ms(), 300000)
            await asyncio.sleep(100)
            stage.quiet()
        one.waiter = None  # it waits for something that is no socket
        await stage.bitten(2000)
    finally:
        stream._open.remove(one)


@staged
async def test_a_session_of_a_device_does_not_speak_for_the_relay(stage):
    class Waits:
        waiter = 1
        due = task = None

    one = Waits()
    stream._open.append(one)

    async def session():
        await asyncio.Event().wait()

    stage.world.relay.session = session
    stage.world.alert("m1-100", ["m1-100.1@good.example.net"])
    try:
        await stage.bitten(2000)
    finally:
        stream._open.remove(one)


@staged
async def test_deadlines_that_nobody_sweeps_any_more_are_bitten(stage):
    class Waits:
        waiter = 1
        task = None

    one = Waits()
    one.due = stream.ticks_add(stream.ticks_ms(), -59000)
    stream._open.append(one)
    try:
        await asyncio.sleep(600)
        stage.quiet()
        one.due = stream.ticks_add(stream.ticks_ms(), -70000)
        seconds = await stage.bitten(600)
        assert 120 < seconds < 200, seconds
        assert "deadlines" in stage.bites[0]
    finally:
        stream._open.remove(one)


@staged
async def test_a_server_that_does_not_wait_for_its_socket_is_bitten(stage):
    await asyncio.sleep(1000)
    stage.server.listens = False
    await asyncio.sleep(200)  # it had no sockets for a while
    stage.server.listens = True
    await asyncio.sleep(1000)
    stage.quiet()
    stage.server.listens = False
    seconds = await stage.bitten(600)
    assert 300 < seconds < 330, seconds
    assert stage.bites[0].startswith("the server did nothing"), stage.bites


@staged
async def test_a_gateway_without_a_listener_is_left_alone(stage):
    stage.server.socks = []
    await asyncio.sleep(3600)
    stage.quiet()


@staged
async def test_a_rule_that_hangs_is_bitten(stage):
    await asyncio.sleep(1000)
    stage.hang = stage.deaf = True  # wait_for() cannot end it either
    seconds = await stage.bitten(900)
    assert 300 < seconds < 460, seconds
    assert stage.bites[0].startswith("the sensor freezer did nothing"), stage.bites


@staged
async def test_a_driver_that_is_too_slow_or_fails_is_no_hanging_rule(stage):
    stage.hang = True
    await asyncio.sleep(7200)
    stage.quiet()
    assert "no answer" in stage.rule.fault
    stage.hang = False

    async def fails():
        raise OSError(5)

    stage.read = fails
    await asyncio.sleep(7200)
    stage.quiet()


@staged
async def test_a_rule_that_reads_once_a_day_is_left_alone(stage):
    stage.rule.rule["every"] = 86400
    now = [0]
    dog = watch.everything(watch.Watch(lambda: now[0], None), stage.world.relay, stage.server, [stage.rule])
    for hour in range(48):
        now[0] = hour * 3600
        stage.rule.alive = now[0] // 86400 * 86400
        eq(dog.look(), None)
    now[0] = 86400 + 86400 + 400
    assert "freezer" in dog.look()[0]


@staged
async def test_a_look_without_memory_is_no_hanging_task(stage):
    def look():
        raise MemoryError

    stage.dog.items[1][1] = look
    await asyncio.sleep(1800)
    stage.quiet()


def test_each_board_has_a_watchdog_that_its_chip_can_count():
    for chip, name in (("rp2", "pico_w"), ("esp32", "esp32")):
        hardware.reset(chip)
        from machine import WDT

        board = getattr(__import__("boards." + name), name)
        WDT(timeout=board.WATCHDOG)
        assert board.WATCHDOG >= 8000


def test_on_micropython_a_listening_socket_is_found_in_asyncios_queue():
    """The server of test_server, as watch sees it."""
    if not MICROPYTHON:
        return
    from play import listen_somewhere
    from smtp.listen import accept

    class Real:
        pass

    async def main():
        sock = listen_somewhere()[1]
        server = Real()
        server.socks = [sock]
        eq(watch.listening(server), True)
        task = asyncio.create_task(accept(sock, None))
        await asyncio.sleep(0.01)
        eq(watch.listening(server), None)
        task.cancel()
        await asyncio.sleep(0.01)
        eq(watch.listening(server), True)
        sock.close()

    asyncio.run(main())


def test_streams_are_what_the_watchdog_takes_them_for():
    """Real ones: a device's has a task, a client's has none; who waits has a waiter and a deadline."""
    from play import listen_somewhere
    from smtp.server import Listener, Server
    from smtp.stream import Stream, connect, sleep_ms

    async def silent(client):
        client.due = stream.ticks_add(stream.ticks_ms(), 60000)
        try:
            await client.wait(False)
        finally:
            client.close()

    async def main():
        port, sock = listen_somewhere()
        sock.close()
        server = Server()
        task = asyncio.create_task(server.bind("127.0.0.1", port, Listener("x.example", None))())
        client = await connect("127.0.0.1", port)
        await sleep_ms(50)
        (device,) = [s for s in stream._open if s is not client]
        assert isinstance(device, Stream) and device.task and device.waiter is not None and device.due is not None
        client.get(client.buf)  # the greeting
        waits = asyncio.create_task(silent(client))
        await sleep_ms(50)
        assert client in stream._open and client.waiter is not None and not hasattr(client, "task")
        eq(watch.overdue(), None)
        waits.cancel()
        try:
            await waits
        except asyncio.CancelledError:
            pass
        task.cancel()
        await server.close()

    asyncio.run(main())
