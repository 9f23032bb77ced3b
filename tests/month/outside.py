"""What is around a board for a month, in virtual time: its radio's air, a smart host, time servers, a device on the
LAN, sensors and the power. live.py runs the real firmware in it.

    out = Outside(lines)          lines: of a script, see script.py
    out.install()                 asyncio, time and socket are the simulated ones from here on

Under the firmware lie simulated modules: `time`, whose ticks wrap as a board's do, after 12 days; `socket`, whose
connections end in the neighbours below; and the queue in which asyncio waits for sockets. All else is real. What
happens is told on standard output as facts, a line of JSON each: [what, seconds of the script, ...]:

    boot cause told spool       the board starts; what is in /rules.json and in the spool
    sample rule value fault     a rule has read its sensor
    taken id subject date to    the smart host answers 250        promised name      a device on the LAN saw 250
    cut, bite why, reset why    how a start ends                  eio, broke         a write, a connection failed
    day heap blocks log wear    once a day: octets of heap in use, free blocks, octets of log, erases of a block
    wrong text                  what must never be                end spool          the end; what is left in the spool

May use: world, for the smart host; nor; hardware.
"""

import asyncio
import builtins
import gc
import json
import os
import sys
import time as real_time
from asyncio import core
from collections import OrderedDict

import hardware
from nor import Nor
from world import NOON, Host, Link, PowerCut, SMTPError, World, field

KEY = "hay and straw"
HOST = "192.0.2.25"
NTP = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
VALID = NOON - 30 * 86400  # since when the smart host's certificate is valid
RTC = 1609459200  # what a Pico W's clock says after power on: 2021
BLOCKS = 128
_WRAP = (1 << 30) - 1
_HALF = 1 << 29
_FILES = 64

now = [core.ticks() + 3600000]  # ms; ahead of the real ticks, as in world


class Bitten(BaseException):
    """The watchdog has reset the board."""


class End(BaseException):
    """The script is over."""


# -- time


class Time:
    """The module time."""

    def __init__(self, out):
        self.out = out
        self.gmtime = real_time.gmtime
        self.localtime = real_time.gmtime

    def ticks_ms(self):
        return now[0] - self.out.origin & _WRAP

    def ticks_add(self, ticks, delta):
        return ticks + delta & _WRAP

    def ticks_diff(self, a, b):
        return ((a - b + _HALF) & _WRAP) - _HALF

    def time(self):
        return (now[0] + self.out.rtc) // 1000

    def sleep(self, seconds):
        self.sleep_ms(int(seconds * 1000))

    def sleep_ms(self, ms):
        """Blocks the whole board."""
        end = now[0] + ms
        while now[0] < end:
            self.out.io.pass_time(end - now[0])


class Waiting:
    """asyncio's queue for sockets."""

    def __init__(self, out):
        self.out = out
        self.map = OrderedDict()
        self.dirty = False  # a socket may be ready
        self.limit = 0  # ms of the next thing to do outside

    def queue_read(self, s):
        self.enqueue(s, 0)

    def queue_write(self, s):
        self.enqueue(s, 1)

    def enqueue(self, s, at):
        if s is sys.stdin:  # nobody ever types
            core.cur_task.data = self
            return
        entry = self.map.get(id(s))
        if not entry:
            entry = self.map[id(s)] = [None, None, s]
        entry[at] = core.cur_task
        core.cur_task.data = self
        self.stir()

    def stir(self):
        """A socket may be ready."""
        self.dirty = True
        self.limit = 0

    def remove(self, task):
        for key in list(self.map):
            entry = self.map[key]
            for at in (0, 1):
                if entry[at] is task:
                    entry[at] = None
            if not (entry[0] or entry[1]):
                del self.map[key]

    def wait_io_event(self, ms):
        t = now[0] + ms
        if t < self.limit and ms >= 0:
            now[0] = t
            return
        if self.out.flash.dead:
            raise PowerCut
        if self.dirty and self.scan() or not ms:
            return
        self.pass_time(ms if ms > 0 else 3600000)

    def scan(self):
        """Wakes whose socket is ready. True when there is one."""
        self.dirty = woken = False
        for key in list(self.map):
            entry = self.map[key]
            s = entry[2]
            for at in (0, 1):
                if entry[at] and (s.can_write() if at else s.can_read()):
                    core._task_queue.push(entry[at])
                    entry[at] = None
                    woken = True
            if not (entry[0] or entry[1]):
                del self.map[key]
        return woken

    def pass_time(self, ms):
        """Time goes by, `ms` at most: until something happens outside."""
        out = self.out
        t = now[0] + ms
        event = out.due()
        bite = out.fed + out.patience if out.patience else t + 1
        if bite < min(t, event):
            now[0] = bite
            raise Bitten
        now[0] = min(t, event)
        if event <= t:
            out.happen()
            if out.flash.dead:
                raise PowerCut
        self.limit = 0 if self.dirty else out.due()
        if out.patience:
            self.limit = min(self.limit, out.fed + out.patience)


# -- sockets


class Sock:
    """What socket.socket() gives. peer: has put(data), which what is written goes to, and gone()."""

    def __init__(self, out, kind):
        self.out = out
        self.kind = kind
        self.peer = None
        self.inbox = b""
        self.eof = self.frozen = self.closed = False
        self.held = b""
        self.error = None
        self.backlog = None

    def setblocking(self, yes):
        pass

    def setsockopt(self, *what):
        pass

    def can_read(self):
        return bool(self.error or not self.frozen and (self.inbox or self.eof or self.backlog))

    def can_write(self):
        return bool(self.error or not self.frozen)

    def check(self):
        if self.out.flash.dead:
            raise PowerCut
        if self.closed:
            self.out.fact("wrong", "a socket is used that was closed")
            raise OSError(9)
        if self.error:
            raise OSError(self.error)

    def connect(self, where):
        self.check()
        if self.kind == 2:
            self.where = where
        elif not self.peer:
            self.out.dial(self, where)

    def write(self, data):
        self.check()
        if self.frozen:
            if len(self.held) > 4000:
                return None
            self.held += bytes(data)
        else:
            try:
                self.peer.put(bytes(data))
            except OSError as e:
                self.error = e.args[0]
                raise
        return len(data)

    def readinto(self, buf):
        self.check()
        if self.frozen:
            return None
        n = min(len(self.inbox), len(buf))
        if n:
            buf[:n] = self.inbox[:n]
            self.inbox = self.inbox[n:]
        return n or (0 if self.eof else None)

    def send(self, data):
        self.check()
        self.inbox = self.out.ask_time(self.where, bytes(data))
        return len(data)

    def recv(self, n):
        self.check()
        if not self.inbox:
            raise OSError(11)
        data, self.inbox = self.inbox, b""
        return data

    def bind(self, where):
        pass

    def listen(self, backlog):
        self.backlog = []
        self.out.listener = self

    def accept(self):
        self.check()
        if self.out.deaf:
            raise OSError(23)
        if not self.backlog:
            raise OSError(11)
        return self.backlog.pop(0), ("192.168.1.9", 40000)

    def close(self):
        if not self.closed:
            self.closed = True
            if self in self.out.socks:
                self.out.socks.remove(self)
            if self.peer:
                self.peer.gone()

    def freeze(self):
        self.frozen = True

    def thaw(self):
        self.frozen = False
        if self.held:
            data, self.held = self.held, b""
            try:
                self.write(data)
            except OSError:
                pass


class Sockets:
    """The module socket."""

    AF_INET, AF_INET6, SOCK_STREAM, SOCK_DGRAM, SOL_SOCKET, SO_REUSEADDR, TCP_NODELAY = 2, 10, 1, 2, 1, 2, 1

    def __init__(self, out):
        self.out = out

    def getaddrinfo(self, host, port, *more):
        return [(2, 1, 0, "", (host, port))]

    def socket(self, family=2, kind=1, proto=0):
        s = Sock(self.out, kind)
        self.out.socks.append(s)
        if len(self.out.socks) > 12:
            self.out.fact("wrong", "%d sockets are open" % len(self.out.socks))
        return s


class Smart(Host):
    """The smart host. deferring: it says 450 to all."""

    deferring = silent = False

    def rcpt(self, envelope, address):
        if self.deferring:
            raise SMTPError(450, "4.2.0", "the mailbox is busy")
        Host.rcpt(self, envelope, address)


class Session(Link):
    """A connection to the smart host."""

    def __init__(self, out, host, sock):
        Link.__init__(self, out, host)
        self.sock = sock
        sock.inbox = self.inbox

    def put(self, data):
        self.inbox = b""
        Link.put(self, data)
        self.sock.inbox += self.inbox
        self.sock.eof = not self.more()
        self.world.io.stir()

    def gone(self):
        self.close()


class Device:
    """A device on the LAN that sends one mail, until it has seen 250."""

    def __init__(self, out, name):
        self.out = out
        self.name = name
        self.done = False
        self.sock = None
        self.call()

    def call(self):
        if self.done:
            return
        out = self.out
        if self.sock:
            self.sock.eof = True
        out.later(300, self.call)
        listener = out.listener
        if not listener or not out.linked():
            return
        self.sock = Sock(out, 1)
        self.sock.peer = self
        out.socks.append(self.sock)
        self.steps = World.steps(None, self.name, [self.name + ".1@example.net"])
        self.said = b""
        listener.backlog.append(self.sock)
        out.io.stir()

    def put(self, data):
        self.said += data
        while self.said[-2:] == b"\r\n":
            code = int(self.said.split(b"\r\n")[-2][:3])
            self.said = b""
            if code >= 400:
                self.steps = []
            elif code == 354:
                self.sock.inbox += b"".join(self.steps)
                self.steps = []
            elif self.steps:
                self.sock.inbox += self.steps.pop(0)
            else:
                self.done = True
                self.out.fact("promised", self.name)
        if not self.steps and (self.done or data[:1] > b"3"):
            self.sock.eof = True
        self.out.io.stir()

    def gone(self):
        pass


# -- all of it


class Outside:
    patient = True  # for Host: its mailboxes are never busy by their names
    admin = "admin@example.com"

    def __init__(self, lines, blocks=BLOCKS, seed=1):
        self.lines = lines
        self.at = 0
        self.agenda = []  # [ms, function, arguments], the last one first
        self.start = now[0]
        self.origin = 0  # ms at which the board's ticks are 0
        self.rtc = 0  # what the board's clock is ahead of `now`, ms
        self.flash = Flash(blocks, seed)
        self.io = Waiting(self)
        self.flash.on_cut = self.io.stir
        self.socks = []
        self.listener = None
        self.deaf = False  # the listener fails, again and again
        self.fed = self.patience = 0  # ms, of the watchdog
        self.off = 0  # seconds for which the power is away
        self.values = {"freezer": [-18.0], "door": [0], "oil": [80.0]}
        self.absent = 0  # outages of the Wi-Fi that overlap
        self.ntp_silent = self.busy = self.down = 0
        self.lie = 0
        self.hang = None
        self.files = [None] * _FILES
        self.opened = 0
        self.host = Smart(self, "mx")
        self.days = 0
        self.later(3600, self.day)
        self.next = self.read()

    def install(self):
        core.new_event_loop()
        core._io_queue = self.io
        core.ticks = lambda: now[0]
        sys.modules["time"] = Time(self)
        sys.modules["socket"] = Sockets(self)
        # What is overridden is found by its hash, the other builtins one by one, which takes a third of the time.
        for name in ("abs", "bytes", "getattr", "hasattr", "id", "int", "isinstance", "len", "list", "max", "min"):
            setattr(builtins, name, getattr(builtins, name))
        real = builtins.open

        def tracked(*how):
            f = real(*how)
            self.files[self.opened % _FILES] = f
            self.opened += 1
            return f

        builtins.open = tracked

    def seconds(self):
        return (now[0] - self.start) / 1000

    def fact(self, what, *more):
        print(json.dumps((what, self.seconds()) + more))

    def power(self):
        if self.flash.dead:
            raise PowerCut

    def unplug(self):
        """The board has ended: its connections are gone, and it counts for nothing what they say."""
        self.io.map.clear()
        self.socks[:] = []
        self.listener = None
        self.deaf = False
        self.hang = None
        self.patience = 0

    def close_files(self):
        """Of a board that lost its power: the finaliser of a file in littlefs must not have to."""
        for n in range(_FILES):
            f, self.files[n] = self.files[n], None
            if f:
                try:
                    f.close()
                except OSError:
                    pass

    # -- what happens, and when

    def read(self):
        """(ms, words) of the next line of the script."""
        if self.at == len(self.lines):
            return None
        day, clock, *words = self.lines[self.at].split()
        self.at += 1
        h, m, s = clock.split(":")
        return self.start + 1000 * (int(day) * 86400 + int(h) * 3600 + int(m) * 60 + int(s)), words

    def later(self, seconds, what, *args):
        at = now[0] + int(seconds * 1000)
        i = len(self.agenda)
        while i and self.agenda[i - 1][0] <= at:
            i -= 1
        self.agenda.insert(i, (at, what, args))
        self.io.limit = 0

    def due(self):
        at = self.next[0] if self.next else now[0] + 3600000
        return min(at, self.agenda[-1][0]) if self.agenda else at

    def happen(self):
        try:
            while self.agenda and self.agenda[-1][0] <= now[0]:
                _, what, args = self.agenda.pop()
                what(*args)
            while self.next and self.next[0] <= now[0]:
                words = self.next[1]
                self.next = self.read()
                getattr(self, "do_" + words[0])(*words[1:])
        except Exception as e:  # no part of the gateway: it must not hear of it
            sys.print_exception(e)
            self.fact("wrong", "the simulation: %r" % e)
            raise End

    def do_end(self):
        raise End

    def do_wifi(self, away, seconds, how):
        self.absent += 1
        self.sky()
        for s in self.socks:
            if s.kind == 1 and s.backlog is None:
                if how == "resets":
                    s.error = 103
                else:
                    s.freeze()
        self.io.stir()
        self.later(int(seconds), self.found, int(seconds) < 60)

    def found(self, soon):
        self.absent -= 1
        self.sky()
        if soon and not self.absent:
            for s in list(self.socks):
                if s.frozen:
                    s.thaw()
            self.io.stir()

    def sky(self):
        network = sys.modules.get("network")
        if network:
            network.air.pop("barn", None)
            if not self.absent:
                network.air["barn"] = network.Router(KEY, "192.168.1.7")

    def linked(self):
        network = sys.modules.get("network")
        return bool(network and not self.absent and network.made and network.made.on and network.made.isconnected())

    def do_power(self, cut, ops, seconds):
        self.off = int(seconds)
        if int(ops):
            flash = self.flash
            flash.cut_at = flash.ops + int(ops)
            self.later(3600, self.pull, flash)
        else:
            self.pull(self.flash)

    def pull(self, flash):
        flash.dead = True  # of an old flash that means nothing
        self.io.limit = 0

    def do_flash(self, fails, ops):
        self.flash.fail_at = self.flash.ops + int(ops)
        self.flash.on_fail = lambda: self.fact("eio")

    def do_ntp(self, what, seconds, by="0"):
        if what == "silent":
            self.ntp_silent += 1
            self.later(int(seconds), self.ntp_back)
        else:
            self.lie = int(by)
            self.later(int(seconds), self.ntp_honest)

    def ntp_back(self):
        self.ntp_silent -= 1

    def ntp_honest(self):
        self.lie = 0

    def do_host(self, what, n, how=""):
        if what == "breaks":
            self.host.breaks = int(n)
        elif what == "busy":
            self.busy += 1
            self.host.deferring = True
            self.later(int(n), self.host_free)
        else:
            self.down += 1
            self.host.silent = how == "silent"
            self.later(int(n), self.host_up)

    def host_free(self):
        self.busy -= 1
        self.host.deferring = self.busy > 0

    def host_up(self):
        self.down -= 1

    def do_rtc(self, reset):
        self.rtc = RTC * 1000 - now[0]

    def do_mail(self, name):
        Device(self, name)

    def do_hang(self, what):
        self.hang = what
        if what == "server":
            self.deaf = True
            for s in self.socks:
                if s.backlog is not None:
                    s.backlog.append(None)  # wakes who accepts
            self.io.stir()
        elif what == "relay":

            async def session(relay):
                await asyncio.Event().wait()

            sys.modules["smtp.relay"].Relay.session = session

    def sensor(self, name, seconds, value):
        held = [float(value) if value[-1:] in "0123456789" else value]  # a list: none is another
        self.values[name].append(held)
        self.wire()
        self.later(int(seconds), self.sensor_over, name, held)

    def sensor_over(self, name, held):
        self.values[name] = [v for v in self.values[name] if v is not held]
        self.wire()

    def do_freezer(self, seconds, value):
        self.sensor("freezer", seconds, value)

    def do_door(self, seconds, value):
        self.sensor("door", seconds, value)

    def do_oil(self, seconds, value):
        self.sensor("oil", seconds, value)

    def truth(self, name):
        last = self.values[name][-1]
        return last[0] if isinstance(last, list) else last

    def wire(self):
        """The sensors of the board are as they are now."""
        value = self.truth("freezer")
        bus = hardware.buses.setdefault(4, [])
        if value == "dead":
            del bus[:]
        else:
            if not bus:
                hardware.thermometer(4, 0.0)
            bus[0].broken = value if isinstance(value, str) else None
            if not isinstance(value, str):
                bus[0].celsius = value
        hardware.drive(14, int(self.truth("door")))
        value = self.truth("oil")
        if value == "dead":
            hardware.fault("adc", OSError(5))
        else:
            hardware.mend("adc")
            hardware.volts[26] = value * 3.3 / 100

    def day(self):
        """Once a day, when nothing happens."""
        self.later(86400, self.day)
        if self.flash.dead:
            return
        gc.collect()
        size = 0
        for name in ("/log.txt", "/log.txt.old"):
            try:
                size += os.stat(name)[6]
            except OSError:
                pass
        self.fact("day", gc.mem_alloc(), os.statvfs("/")[3], size, max(self.flash.wear))

    # -- the neighbours

    def dial(self, sock, where):
        """The board connects to somebody."""
        if where[0] != HOST or not self.linked() or self.down and self.host.silent:
            sock.freeze()
            raise OSError(115)
        if self.down:
            sock.error = 111
            raise OSError(111)
        sock.peer = Session(self, self.host, sock)

    def ask_time(self, where, query):
        if self.ntp_silent or not self.linked() or where[0] not in NTP:
            return b""
        seconds = NOON + (now[0] - self.start) // 1000 + (self.lie if where[0] == NTP[0] else 0)
        stamp = (seconds + 2208988800).to_bytes(4, "big") + bytes(4)
        return b"\x24\2\6\xec" + bytes(12) + stamp + query[40:48] + stamp + stamp

    def took(self, host, envelope, data):
        """The smart host has a whole mail and answers 250."""
        head = data.partition(b"\r\n\r\n")[0]
        date = field(data, b"Date") if b"\r\nDate: " in b"\r\n" + head else ""
        subject = field(data, b"Subject") or field(b"\r\n" + data, b"Subject")
        self.fact("taken", field(b"\r\n" + data, b"Message-ID"), subject, date, envelope.rcpts)


class Flash(Nor):
    """One whose writes fail now and then: operation number `fail_at` does nothing."""

    fail_at = 0
    failed = False
    on_fail = on_cut = None

    def power(self, seed=None):
        self.dead = True
        flash = Flash(self.blocks, seed or self.seed + 1, self.memory, self.wear)
        flash.on_cut = self.on_cut
        return flash

    def begin(self, kind, at, data):
        if self.ops + 1 == self.fail_at:
            self.ops += 1
            self.failed = True
            self.on_fail()
            return False
        done = Nor.begin(self, kind, at, data)
        if not done:
            self.on_cut()
        return done
