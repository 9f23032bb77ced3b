"""firmware/sleep.py: when a board on battery wakes, when its radio is on, what it knows after sleep. No time passes.

Queue, rules and alerts are the real ones; the session is one here that takes all that is due, or fails. Each wake-up is
a new start that knows nothing but the flash and RTC memory.
"""

import asyncio
import json
import sys
import time

import clock as clocks
import gateway
import sensors
import sleep
from expect import eq, raises
from play import Flash, Random
from smtp.queue import Queue

NOON = 1795348800
MINUTE = 60
HOUR = 3600


class Time:
    """The module time of a board: `now` seconds since power on."""

    def __init__(self):
        self.now = 0.0
        self.booted = 0.0
        self.gmtime = time.gmtime

    def time_ns(self):
        return int((NOON + self.now) * 1000) * 1000000

    def monotonic(self):
        return self.now - self.booted

    def ticks_ms(self):
        return int(self.monotonic() * 1000)

    def ticks_diff(self, a, b):
        return a - b


class Stage:
    """A board that sleeps. `rules`: tables of sensors; `reads`: name: value or exception; table: more of [sleep].

    sessions   [(seconds since power on, subjects)], of those that failed the subjects are None
    wakes      seconds since power on
    """

    def __init__(self, path, rules=(), sets=False, beat=0, **table):
        self.path = path
        self.table = {"every": 600, "batch": 6 * HOUR, "urgent": "urgent", "awake": 60}
        self.table.update(table)
        self.rules = [dict({"driver": "file", "every": 10, "path": ""}, **rule) for rule in rules]
        self.reads = {rule["name"]: 0 for rule in self.rules}
        self.sets = sets
        self.beat = beat
        self.time = Time()
        self.network = True
        self.defers = 0  # seconds for which the smart host defers everything
        self.sessions = []
        self.wakes = []
        self.lines = []
        self.memory = b""

    def log(self, area, text, urgent=False):
        self.lines.append(text)

    def boot(self, woken=True):
        self.time.booted = self.time.now
        clock = clocks.Clock((0,), False)
        gateway.queue = Queue(self.path + "/spool", uptime=clock.uptime)
        gateway.time = clock
        gateway.log = self.log
        gateway._storms = None
        gateway._mail.update({"from": "a@example.com", "to": ["b@example.net"], "domain": "x"})
        told = sensors.Told(self.path + "/rules.json", self.log)
        rules = []
        for table in self.rules:
            rules.append(sensors.Rule(table, None, gateway.alert, self.log, clock.uptime, told))
            rules[-1].driver = Driver(self.reads, table["name"])
        self.sleeper = sleep.Sleeper(self.table, gateway.queue, rules, clock, self.sets, self.beat, "shed")
        known = self.sleeper.load(self.memory, woken)
        if not known:
            clock.base = NOON * 1000 + int(self.time.now * 1000)
        return known

    def session(self):
        queue, at = gateway.queue, self.time.now
        if not self.network:
            self.time.now += 10
            self.sleeper.over(False)
            self.sessions.append((int(at), None))
            return
        subjects = []
        self.time.now += 4
        while True:
            mail = queue.take()
            if not mail:
                break
            buf = bytearray(300)
            text = bytes(buf[: mail.read(buf)])
            subjects.append(text.split(b"Subject: ")[1].split(b"\r\n")[0].decode())
            mail.close()
            if self.defers:
                queue.settle(mail.key, 1, 0, 0, (), self.defers, True)
            else:
                queue.settle(mail.key, 1, 1, 0)
        self.sleeper.set = self.sleeper.clock.uptime()
        self.sleeper.over(True)
        self.sessions.append((int(at), subjects))

    def wake(self):
        """What a board does between two sleeps; gives the seconds of the next."""
        self.wakes.append(int(self.time.now))
        sleeper = self.sleeper
        asyncio.run(sleeper.read())
        at, why = sleeper.radio()
        if at is not None and at <= sleeper.clock.uptime():
            self.session()
        seconds = sleeper.wake()
        self.memory = sleeper.dump(2048, seconds * 1000)
        assert 8 < len(self.memory) <= 2048
        return seconds

    def live(self, seconds, most=3000):
        """So many seconds, each wake-up from deep sleep."""
        end = self.time.now + seconds
        real = clocks.time, gateway.log
        clocks.time = self.time
        try:
            while self.time.now < end:
                self.boot()
                most -= 1
                assert most, "it wakes all the time"
                left = self.wake()
                eq(type(left), int)
                self.time.now += left + 0.5  # the start takes a moment
        finally:
            clocks.time, gateway.log = real
        return self

    def subjects(self):
        return [subjects for _, subjects in self.sessions if subjects]


class Driver:
    def __init__(self, reads, name):
        self.reads = reads
        self.name = name

    def read(self):
        value = self.reads[self.name]
        if isinstance(value, Exception):
            raise value
        return value


DOOR = {"name": "door", "above": 0.5, "words": ["closed", "open"], "priority": "urgent"}
FROST = {"name": "frost", "below": 3, "recovery": True}


def test_it_wakes_in_time_and_the_radio_stays_off():
    with Flash() as path:
        s = Stage(path, [DOOR]).live(24 * HOUR)
        eq(s.sessions, [])
        eq(len(s.wakes), 144)
        eq([b - a for a, b in zip(s.wakes, s.wakes[1:]) if not 599 <= b - a <= 601], [])


def test_an_ordinary_mail_waits_for_its_batch_and_an_urgent_one_takes_it_along():
    with Flash() as path:
        s = Stage(path, [DOOR, FROST])
        s.reads["frost"] = 9
        s.live(7 * HOUR)
        s.reads["frost"] = 1
        s.live(HOUR)
        eq(len(s.sessions), 1)  # the first batch had been due for an hour
        s.reads["frost"] = 9
        s.live(4 * HOUR)
        eq(len(s.sessions), 1)
        s.reads["door"] = 1
        s.live(HOUR)
        eq(len(s.sessions), 2)
        eq(s.sessions[1][1][0], "door: open")
        assert s.sessions[1][1][1].startswith("frost: 9.0, ok after")
        s.reads["frost"] = 1
        s.live(5 * HOUR)
        eq(len(s.sessions), 2)  # the batch has started anew
        s.live(2 * HOUR)
        eq(s.subjects()[2], ["frost: 1.0, below 3.0"])
        assert 6 * HOUR <= s.sessions[2][0] - s.sessions[1][0] <= 6 * HOUR + 20


def test_who_does_not_want_batches_has_none():
    with Flash() as path:
        s = Stage(path, [FROST], urgent="low")
        s.reads["frost"] = 9
        s.live(HOUR)
        s.reads["frost"] = 1
        s.live(10 * MINUTE)
        eq(s.subjects(), [["frost: 1.0, below 3.0"]])


def test_a_condition_that_has_to_last_is_told_when_it_has():
    with Flash() as path:
        s = Stage(path, [dict(FROST, priority="urgent", **{"for": 1500.0})])
        s.reads["frost"] = 1
        s.live(HOUR)
        (at, subjects), = s.sessions
        eq(subjects, ["frost: 1.0, below 3.0"])
        assert 25 * MINUTE <= at <= 25 * MINUTE + 2, "not at the reading that decides: %d" % at


def test_a_sensor_that_fails_is_told_after_its_failures_and_logged_once():
    with Flash() as path:
        s = Stage(path, [dict(FROST, priority="urgent", failures=3)])
        s.reads["frost"] = 9
        s.live(HOUR)
        s.reads["frost"] = OSError("no answer")
        began = s.time.now
        s.live(3 * HOUR)
        (at, subjects), = s.sessions
        eq(subjects, ["frost: cannot be read"])
        assert 20 * MINUTE <= at - began <= 21 * MINUTE
        eq([line for line in s.lines if "cannot be read: no" in line], ["frost cannot be read: no answer"])


def test_a_board_that_sleeps_tells_what_one_tells_that_does_not():
    """The same readings for a rule that lives on, and for one that starts anew each time."""
    tables = [
        {"name": "a", "above": 5, "hysteresis": 2, "for": 1500, "repeat": 4000, "recovery": True, "failures": 2},
        {"name": "b", "below": 3, "recovery": True, "priority": "urgent"},
        {"name": "c", "above": 0.5, "words": ["off", "on"], "repeat": 2000, "failures": 0},
    ]
    for seed in range(4):
        with Flash() as path:
            said, heard = compared(path, tables, Random(seed))
            assert len(said) > 30
            eq(heard, said)


def compared(path, tables, dice):
    """What the one says and the other, [(second, subject)]."""
    s = Stage(path, tables)
    said, heard = [], []

    def into(mails):
        return lambda subject, *more: mails.append((int(s.time.now), subject))

    told = sensors.Told(path + "/others.json", s.log)
    others = [sensors.Rule(t, None, into(said), s.log, lambda: int(s.time.now), told) for t in s.rules]
    for rule in others:
        rule.driver = Driver(s.reads, rule.name)
    real = clocks.time, gateway.log, gateway.alert
    clocks.time = s.time
    gateway.alert = into(heard)
    try:
        for _ in range(120):
            for name in s.reads:
                if dice.below(3) == 0:
                    s.reads[name] = dice.choice([0, 1, 2, 4, 6, 9, OSError("gone")])
            s.boot()
            for rule in others:
                asyncio.run(rule.step())
            s.time.now += s.wake()
    finally:
        clocks.time, gateway.log, gateway.alert = real
    return said, heard


def test_a_dead_network_is_tried_less_and_less():
    with Flash() as path:
        s = Stage(path, [DOOR, FROST], batch=2 * HOUR)
        s.reads["frost"] = 9
        s.network = False
        s.reads["door"] = 1
        s.live(12 * HOUR)
        times = [at for at, _ in s.sessions]
        gaps = [b - a for a, b in zip(times, times[1:])]
        assert 50 < gaps[0] < 90 and len(gaps) <= 12, gaps
        for a, b in zip(gaps, gaps[1:]):
            assert b >= a - 2 and b <= 2 * HOUR + 20, gaps
        s.network = True
        s.reads["frost"] = 1
        s.live(3 * HOUR)
        eq(s.subjects(), [["door: open", "frost: 1.0, below 3.0"]])


def test_a_new_urgent_mail_is_tried_once_in_spite_of_a_dead_network():
    with Flash() as path:
        s = Stage(path, [DOOR, dict(FROST, priority="urgent")], batch=6 * HOUR)
        s.reads["frost"] = 9
        s.network = False
        s.reads["door"] = 1
        s.live(7 * HOUR)
        count = len(s.sessions)
        s.reads["frost"] = 1
        s.live(11 * MINUTE)
        eq(len(s.sessions), count + 1)
        s.live(HOUR)
        eq(len(s.sessions), count + 1)


def test_what_a_smart_host_defers_is_due_when_it_was_after_sleep_as_well():
    with Flash() as path:
        s = Stage(path, [DOOR])
        s.reads["door"] = 1
        s.defers = 2500
        s.live(30 * MINUTE)
        eq(len(s.sessions), 1)
        s.defers = 0
        s.live(HOUR)
        eq(len(s.sessions), 2)
        assert 2500 <= s.sessions[1][0] - s.sessions[0][0] <= 2510


def test_the_clock_is_set_once_a_day():
    with Flash() as path:
        s = Stage(path, [FROST], sets=True)
        s.reads["frost"] = 9
        s.live(60 * HOUR)
        eq([round(at / HOUR) for at, _ in s.sessions], [0, 24, 48])


def test_the_heartbeat_goes_with_a_batch():
    with Flash() as path:
        s = Stage(path, [FROST], beat=24 * HOUR)
        s.reads["frost"] = 9
        s.live(30 * HOUR)
        eq([(round(at / HOUR), subjects) for at, subjects in s.sessions], [
            (0, ["shed: all is well"]), (24, ["shed: all is well"])])


def test_time_and_this_boot_go_on():
    with Flash() as path:
        s = Stage(path, [FROST]).live(5 * HOUR)
        boot = gateway.queue.boot
        clocks.time, real = s.time, clocks.time
        try:
            s.boot()
            eq((gateway.queue.boot, gateway.time.uptime()), (boot, int(s.time.now)))
            assert abs(gateway.time.now() - NOON - s.time.now) < 2
            s.memory = b""
            s.boot()
            assert gateway.queue.boot != boot and gateway.time.uptime() == 0
        finally:
            clocks.time = real


def test_memory_that_is_not_as_it_was_written_is_not_used():
    with Flash() as path:
        s = Stage(path, [FROST]).live(HOUR)
        good = s.memory
        for i in range(len(good)):
            s.memory = good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :]
            assert not s.sleeper.load(s.memory, True), i
        for cut in (0, 5, 8, 9, 20, len(good) - 1):
            assert not s.sleeper.load(good[:cut], True), cut
        assert s.sleeper.load(good, True)


def test_after_power_on_memory_counts_only_if_the_radio_was_on():
    with Flash() as path:
        s = Stage(path, [FROST]).live(HOUR)
        assert not s.sleeper.load(s.memory, False)
        assert s.sleeper.load(s.sleeper.dump(2048, 0, True), False)


def test_more_than_fits_into_memory_is_forgotten_piece_by_piece():
    with Flash() as path:
        rules = [dict(FROST, name="freezer number %d" % n) for n in range(30)]
        s = Stage(path, rules, urgent="low")
        s.live(2 * HOUR)
        eq(sorted(s.sessions[0][1])[0], "freezer number 0: 0.0, below 3.0")
        eq(len(s.subjects()), 1)  # what was told is in flash: nothing is told again
        assert [line for line in s.lines if "is forgotten" in line]
        kept = json.loads(s.memory[9:])["rules"]
        assert 5 < len(kept) < 30, len(kept)


class Esp:
    """The module esp32 of a chip with these functions."""

    def __init__(self, *functions):
        self.calls = []
        for name in functions:
            setattr(self, name, lambda *args, name=name: self.calls.append((name,) + args))


class Machine:
    """The module machine. fails: so often deepsleep() does not take the pin."""

    def __init__(self, fails=0):
        self.fails = fails
        self.memory = lambda data: None

    def RTC(self):
        return self

    def deepsleep(self, ms):
        if self.fails:
            self.fails -= 1
            raise ValueError("wake-up pin not supported")
        raise SystemExit(ms)


class Pin:
    def value(self):
        return 1


def napped(esp32, machine, stage):
    """Puts a board with a door at pin 14 to sleep."""

    class Profile:
        SLEEPS = "deep"
        RTC_MEMORY = 2048

    stage.boot()
    stage.sleeper.rules[0].driver = Pin()
    stage.sleeper.rules[0].driver.pin = pin = Pin()
    gateway.log = stage.log
    kept = {name: sys.modules.get(name) for name in ("esp32", "machine")}
    sys.modules["esp32"], sys.modules["machine"] = esp32, machine
    try:
        raises(SystemExit, sleep.nap, stage.sleeper, Profile, {"sleep": {"wake_pin": 14}}, 600)
    finally:
        for name, module in kept.items():
            if module:
                sys.modules[name] = module
            else:
                del sys.modules[name]
    return pin


def test_another_level_than_now_wakes_each_kind_of_esp32():
    with Flash() as path:
        s = Stage(path, [dict(DOOR, pin=14)])
        esp32 = Esp("wake_on_ext0", "wake_on_gpio")
        pin = napped(esp32, Machine(), s)
        eq(esp32.calls, [("wake_on_ext0", pin, False)])
        esp32 = Esp("wake_on_gpio")
        pin = napped(esp32, Machine(), s)
        eq(esp32.calls, [("wake_on_gpio", (pin,), False)])
        eq(s.lines, [])


def test_a_pin_that_wakes_nobody_is_told_once_and_the_board_sleeps_all_the_same():
    with Flash() as path:
        s = Stage(path, [dict(DOOR, pin=14)])
        esp32 = Esp("wake_on_gpio")
        pin = napped(esp32, Machine(1), s)
        eq(esp32.calls, [("wake_on_gpio", (pin,), False), ("wake_on_gpio", (), False)])
        eq(s.lines, ["sleep.wake_pin cannot wake this board: wake-up pin not supported"])
        napped(Esp(), Machine(), s)
        eq(len(s.lines), 2)
        s.memory = s.sleeper.dump(2048, 600000)
        napped(Esp(), Machine(), s)
        eq(len(s.lines), 2)  # woken from sleep it does not say so again
