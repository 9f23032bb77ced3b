"""What happens to a gateway while its power is cut: see cuts.py.

See Story for what each has: run(world) is what happens, finish(world) what happens after a cut.
"""

import os


class Story:
    blocks = 64
    window = 5  # mails that may come again after a cut: what the relay has in flight
    settings = {"hosts": 2}

    def prepare(self, root):
        pass

    def spares(self, rcpt):
        """True when a recipient's mail may give way to an alert."""
        return False

    async def finish(self, world):
        await world.drain()


class day(Story):
    """Mail comes in while the network is away, comes and goes."""

    async def run(self, world):
        first, second = world.hosts
        first.up = second.up = False
        world.alert("a1-200", ["a1-200.1@example.net", "a1-200.2@example.net"])
        world.send("m1-300", ["m1-300.1@example.net", "m1-300.2@busy.example.net"])
        world.send("m2-5000", ["m2-5000.1@example.net"], chunk=3000)
        world.send("m3-6000", ["m3-6000.1@example.net"], stop=7)  # goes away in the middle of it
        world.alert("a2-900", ["a2-900.1@example.net"], "urgent")
        world.send("m4-9000", ["m4-9000.%d@example.net" % n for n in range(4)])
        await world.sleep(20)
        # Another device sends while the relay does, and a third never ends.
        first.up = second.up = True
        first.meanwhile = world.device("m5-4000", ["m5-4000.1@example.net"])
        third = world.device("m6-3000", ["m6-3000.1@example.net"])
        for _ in range(5):
            next(third)
        await world.sleep(1)
        for _ in first.meanwhile:
            pass
        third.close()
        await world.sleep(20)
        # What the first defers the second takes; what both defer waits.
        world.send("m7-100", ["m7-100.1@busy.example.net", "m7-100.2@example.net"])
        world.alert("a3-2500", ["a3-2500.1@slow.example.net"])
        await world.sleep(1)
        # The connection breaks in the middle of a session, once and again.
        for n in range(5):
            world.alert("b%d-700" % n, ["b%d-700.1@example.net" % n])
        second.breaks = first.breaks = 3500
        await world.sleep(1)
        first.up = False
        world.send("m8-300", ["m8-300.1@example.net"])
        await world.sleep(30)
        # A clean restart while mail waits.
        second.up = False
        world.alert("a4-300", ["a4-300.1@example.net"], "low")
        world.send("m9-1200", ["m9-1200.1@example.net", "m9-1200.2@busy.example.net"])
        await world.restart()
        for n in range(3):
            world.alert("c%d-200" % n, ["c%d-200.1@example.net" % n])
        first.up = second.up = True
        await world.drain()


class night(Story):
    """Mail that nobody takes: bounces, dead letters, and the report about them."""

    settings = {
        "hosts": 2, "admin": "admin@example.com", "gather": 120, "retry": 60, "retry_max": 900, "delay_notice": 600,
        "expire": 2400,
    }

    async def run(self, world):
        world.send("m1-300", ["m1-300.1@gone.example.net", "m1-300.2@example.net"])
        world.send("m2-5000", ["m2-5000.1@example.net", "m2-5000.2@spam.example.net"])
        world.send("m3-100", ["m3-100.1@gone.example.net", "m3-100.2@gone.example.net"], sender="m3-100@printer.local")
        world.alert("a1-200", ["a1-200.1@gone.example.net", "a1-200.2@example.net"])
        world.send("m4-900", ["m4-900.1@gone.example.net"], sender="m4-900@gone.example.com")  # the bounce bounces
        await world.sleep(5)
        world.send("m5-700", ["m5-700.1@never.example.net", "m5-700.2@example.net"])
        world.alert("a2-400", ["a2-400.1@never.example.net"])
        world.send("m6-100", ["m6-100.1@slow.example.net", "m6-100.2@never.example.net", "m6-100.3@gone.example.net"])
        await world.drain()

    async def finish(self, world):
        relay = world.relay
        relay.gather = relay.retry = relay.retry_max = 20
        relay.delay_notice, relay.expire = 40, 80
        await world.drain()


class storm(Story):
    """Rules that raise alerts again and again: they are folded into few mails."""

    async def run(self, world):
        host, other = world.hosts
        for n in range(1, 5):  # the first goes at once, the others wait for each other
            world.storm("rA", n)
            await world.sleep(40)
        world.storm("rB", 1)
        await world.sleep(1)
        host.up = other.up = False
        for n in range(2, 6):
            world.storm("rB", n)
            world.storm("rA", n + 3)
            await world.sleep(90)
        await world.restart()  # a mail of an earlier start takes more of them
        for n in range(6, 9):
            world.storm("rB", n)
            world.storm("rC", n)
            await world.sleep(200)
        host.up = other.up = True
        await world.drain()

    async def finish(self, world):
        world.storm("rA", 20)
        await world.sleep(1)
        world.storm("rB", 21)
        world.storm("rA", 22)
        await world.drain()


class crowd(Story):
    """More mail than the queue may hold: what is less important gives way to alerts."""

    settings = {
        "hosts": 1, "admin": "admin@example.com", "gather": 60, "queue": {"displace": "oldest", "max_bytes": 40000},
    }

    def spares(self, rcpt):
        return rcpt[:1] != "u"

    async def run(self, world):
        host = world.hosts[0]
        world.alert("a0-300", ["a0-300.1@gone.example.net"])
        await world.sleep(2)
        host.up = False
        for n in range(4):
            world.send("m%d-2000" % n, ["m%d-2000.1@example.net" % n, "m%d-2000.2@gone.example.net" % n])
            world.alert("l%d-300" % n, ["l%d-300.1@example.net" % n], "low")
            world.alert("n%d-300" % n, ["n%d-300.1@example.net" % n])
        for n in range(7):
            assert world.alert("u%d-900" % n, ["u%d-900.1@example.net" % n], "urgent")
            if n == 4:
                await world.restart()
        assert world.send("m9-2000", ["m9-2000.1@example.net"]) == 452
        assert world.queue.displaced > 5, world.queue.displaced
        host.up = True
        await world.drain()

    async def finish(self, world):
        world.relay.gather = 20
        await world.drain()


class brim(Story):
    """A flash that is nearly full, with so many mails that their directory is in pieces."""

    blocks = 40
    settings = {"hosts": 1, "queue": {"reserve": 32768}}
    ballast = 12  # blocks that an application holds

    def spares(self, rcpt):
        return "@gone." in rcpt  # a dead letter

    def prepare(self, root):
        with open(root + "/ballast", "wb") as f:
            for _ in range(self.ballast * 4):
                f.write(bytes(1024))

    async def run(self, world):
        host = world.hosts[0]
        host.up = False
        n = 0
        kinds = ("example.net", "gone.example.net", "busy.example.net", "slow.example.net")
        for size in (300, 3000, 100):
            # Three times until it is full, then there is room for some.
            while world.alert("a%d-%d" % (n, size), ["a%d-%d.1@%s" % (n, size, kinds[n % 4])], "urgent"):
                n += 1
            code = world.send("m%d-%d" % (n, size), ["m%d-%d.%d@%s" % (n, size, i, kinds[i]) for i in range(3)])
            assert code == 452, code
            free = world.queue.free()
            assert 20000 < free < 50000, free  # the reserve, about: the directory grows with the last mail
            await world.restart()
            host.up = True
            host.breaks = 4000
            await world.sleep(3)
            host.up = False
            world.send("m%d-90" % n, ["m%d-90.1@example.net" % n, "m%d-90.2@gone.example.net" % n])
            await world.sleep(20)
        host.up = True
        await world.drain()


class shared(Story):
    """An application with a log in the same flash, which it fills to the last block."""

    blocks = 28
    settings = {"hosts": 1}
    kinds = ("example.net", "busy.example.net", "example.net", "gone.example.net")

    def prepare(self, root):
        self.root = root
        os.mkdir(root + "/app")

    def grow(self, world, lines):
        """Appends to the log line by line; rotates it at 12 KB. False when the flash is full."""
        log = self.root + "/app/log"
        for n in range(lines):
            try:
                f = world.open(log, "a")
                try:
                    f.write("12:00:%02d sensor: all is well with the freezer at the top shelf of the store\n" % n)
                    full = f.tell() > 12288
                finally:
                    f.close()
                if full:
                    os.rename(log, log + ".old")
            except OSError as e:
                world.power()
                assert e.args[0] == 28, e
                return False
        return True

    def fill(self, world):
        """A file of the application that takes all there is."""
        n = len(os.listdir(self.root + "/app"))
        try:
            while True:
                f = world.open(self.root + "/app/data%d" % n, "wb")
                try:
                    f.write(bytes(4096))
                finally:
                    f.close()
                n += 1
        except OSError as e:
            world.power()
            assert e.args[0] == 28, e
        while self.grow(world, 100):
            pass

    def clear(self):
        for name in os.listdir(self.root + "/app"):
            os.remove(self.root + "/app/" + name)

    async def run(self, world):
        host = world.hosts[0]
        host.up = False
        for n in range(6):
            self.grow(world, 5)
            world.alert("a%d-400" % n, ["a%d-400.1@example.net" % n])
            world.send("m%d-2500" % n, ["m%d-2500.%d@%s" % (n, i, self.kinds[(n + i) % 4]) for i in range(n % 3 + 1)])
        self.fill(world)
        assert not world.alert("x1-400", ["x1-400.1@example.net"])
        assert world.send("x2-400", ["x2-400.1@example.net"]) == 452
        host.up = True
        await world.sleep(200)
        # What was delivered could be removed, and that made room for noting what failed.
        assert (len(world.queue), world.queue.kept) == (0, 2), (list(world.queue.rows), world.queue.kept)
        self.fill(world)
        self.clear()
        assert world.alert("a9-400", ["a9-400.1@example.net"])
        await world.drain()

    async def finish(self, world):
        await world.drain()
        self.clear()


class crammed(shared):
    """So many small mails that their directory is in pieces, in a flash that others have filled to the last block."""

    blocks = 20
    settings = {"hosts": 1, "queue": {"reserve": 8192}}
    window = 100  # what such a flash cannot note is forgotten with the power

    async def run(self, world):
        host = world.hosts[0]
        host.up = False
        kinds = ("busy.example.net", "slow.example.net", "gone.example.net", "example.net", "busy.example.net")
        n = 0
        while n < 14 and world.alert("a%d-300" % n, ["a%d-300.%d@%s" % (n, i, kinds[(n + i) % 5]) for i in range(2)]):
            n += 1
        self.fill(world)
        host.up = True
        await world.sleep(30)
        self.fill(world)
        await world.sleep(300)
        self.clear()
        await world.drain()

    async def finish(self, world):
        await world.sleep(100)
        self.clear()
        await world.drain()


class scan(Story):
    """Mails that the queue has no room for pass through it, while others wait there."""

    blocks = 24
    settings = {
        "hosts": 2, "through": True, "queue": {"max_bytes": 24576, "reserve": 16384}, "admin": "admin@example.com",
        "gather": 60,
    }

    async def run(self, world):
        first, second = world.hosts
        first.up = second.up = False
        world.send("m1-5000", ["m1-5000.1@example.net"])
        world.alert("a1-200", ["a1-200.1@busy.example.net"])
        code = await world.call("s1-30000", ["s1-30000.1@example.net"])
        assert code == 451, code
        first.up = second.up = True
        # The one says how long its mail is; the other does not, and begins in the flash.
        code = await world.call("s2-30000", ["s2-30000.1@example.net", "s2-30000.2@gone.example.net"])
        assert code == 250, code
        code = await world.call("s3-30000", ["s3-30000.1@example.net"], size=False)
        assert code == 250, code
        await world.sleep(1)
        first.breaks = second.breaks = 20000
        code = await world.call("s4-30000", ["s4-30000.1@example.net"])
        assert code == 451, code
        first.breaks = second.breaks = None
        await world.sleep(100)
        to = ["s5-30000.1@example.net", "s5-30000.2@gone.example.net"]
        code = await world.call("s5-30000", to, sender="p@printer")
        assert code == 250, code
        world.send("m2-700", ["m2-700.1@example.net"])
        await world.drain()
