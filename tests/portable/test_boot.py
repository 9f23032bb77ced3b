"""firmware/life.py, crash.py and report.py: a board that starts, crashes, starts again, tells of it once, and gives up.

The board is simulated; the gateway is one that does what the test wants."""

import asyncio
import json
import sys

import crash
import hardware
import virtualtime
from expect import eq, raises
from play import Flash
from smtp.queue import QueueFull


class PowerOn(Exception):
    pass


class Time:
    """The module time, for life: its ticks are seconds that the gateway has run."""

    def __init__(self):
        self.ms = 0
        self.slept = []

    def ticks_ms(self):
        return self.ms

    def ticks_diff(self, a, b):
        return a - b

    def sleep(self, seconds):
        self.slept.append(seconds)


class Gc:
    def collect(self):
        pass

    def mem_free(self):
        return 80000

    def threshold(self, octets):
        self.at = octets


class Unusable(Exception):
    pass


class Gateway:
    """Stands for the module gateway. work(): what run() does."""

    Unusable = Unusable

    def __init__(self, stage, work):
        self.stage = stage
        self.work = work
        self.file = None
        self.lines = []
        self.alerts = []
        self._mail = {"admin": "admin@example.com"}
        self.time = stage
        self.refuses = None

    def run(self, board):
        self.stage.runs += 1
        self.stage.board = board
        self.work()

    def log(self, area, text, urgent=False):
        self.lines.append(area + ": " + text)

    def alert(self, subject, text, to):
        if self.refuses:
            raise self.refuses
        self.alerts.append((subject, text, to))


class Stage:
    """One board with its flash, through any number of starts."""

    def __init__(self, path, chip="rp2"):
        self.path = path
        self.chip = chip
        self.said = []
        self.runs = 0
        self.cause = "power on"
        self.time = Time()
        self.gateway = Gateway(self, self.nothing)
        crash.PATH = path + "/crash.json"

    def nothing(self):
        pass

    def uptime(self):
        return self.time.ms // 1000

    def crashes(self, seconds=1, error=None):
        """A gateway that crashes after so many seconds."""

        def work():
            self.time.ms += seconds * 1000
            raise error or OSError("the flash is gone")

        return work

    def start(self, work=None, cause=None):
        """A start; gives what was said on the console. The cause of the next one is what ended this one."""
        hardware.reset(self.chip)
        import soc

        soc.cause = cause or self.cause
        self.soc = soc
        self.time.ms = 0
        for name in ("life", "ended", "report", "watch"):
            sys.modules.pop(name, None)
        self.gateway.work = work or self.nothing
        sys.modules["gateway"] = self.gateway
        import life

        life.time = self.time
        life.gc = Gc()
        life.print = crash.print = lambda *text: said.append(" ".join([str(t) for t in text]))
        life._PROFILES = {sys.platform: "pico_w" if self.chip == "rp2" else "esp32"}
        import ended

        ended.print = life.print
        said = []
        try:
            life.main()
            self.cause = "power on"
        except SystemExit:
            self.cause = "reset"
        finally:
            del sys.modules["gateway"]
            crash.print = print
        self.said = said
        return "\n".join(said)

    def report(self, seconds=0):
        """What the gateway does about the last crash, for so long."""
        sys.modules["gateway"] = self.gateway
        sys.modules.pop("report", None)
        import report

        start = virtualtime.ticks()

        class Uptime:
            def uptime(self):
                return (virtualtime.ticks() - start) // 1000

        self.gateway.time = Uptime()

        async def main():
            task = asyncio.create_task(report.run("cold-store"))
            await asyncio.sleep(seconds)
            eq(task.done(), False)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        try:
            virtualtime.run(main())
        finally:
            del sys.modules["gateway"]
            self.gateway.time = self
        found = self.gateway.alerts
        self.gateway.alerts = []
        return found

    def record(self):
        return crash.read()


def staged(test):
    def run():
        for chip in ("rp2", "esp32"):
            with Flash() as path:
                test(Stage(path, chip))
            eq(hardware.misused, [])

    return run


@staged
def test_a_board_starts_its_gateway_and_writes_nothing(stage):
    said = stage.start()
    eq((stage.runs, stage.record()), (1, {}))
    assert "has ended" in said
    eq(stage.board.__name__, "boards.pico_w" if stage.chip == "rp2" else "boards.esp32")


@staged
def test_why_it_starts_is_known(stage):
    for cause in ("power on", "watchdog", "reset"):
        stage.start(cause=cause)
        eq(stage.board.reset_reason(), cause)
    if stage.chip == "esp32":
        stage.start(cause="deep sleep")
        eq(stage.board.reset_reason(), "deep sleep")


@staged
def test_a_crash_is_shown_kept_and_ends_in_a_reset(stage):
    said = stage.start(stage.crashes(7))
    assert "Traceback" in said and "OSError: the flash is gone" in said and "starts again in 5 s" in said, said
    eq(stage.time.slept, [5])
    eq(stage.cause, "reset")
    record = stage.record()
    eq((record["n"], record["all"], record["up"], record["tell"], record["own"]), (1, 1, 7, True, True))
    eq(record["why"], "OSError: the flash is gone")
    assert "Traceback" in record["text"]


@staged
def test_it_is_mailed_at_the_next_start_and_once(stage):
    stage.start(stage.crashes(7))
    stage.start()
    ((subject, text, to),) = stage.report()
    eq((subject, to), ("cold-store: started again after a crash", ["admin@example.com"]))
    for part in ("OSError: the flash is gone", "Traceback", "It had been up for 7 s."):
        assert part in text, text
    for _ in range(3):
        stage.start()
        eq(stage.report(), [])


@staged
def test_three_crashes_in_a_row_are_the_end_until_the_power_was_away(stage):
    for _ in range(3):
        assert "SAFE MODE" not in stage.start(stage.crashes(20))
    for _ in range(3):
        said = stage.start(stage.crashes(20), "reset")
        assert "SAFE MODE. The gateway crashed 3 times in a row" in said, said
        assert "the flash is gone" in said and "remove %s" % crash.PATH in said
        eq(stage.runs, 3)
        if stage.chip == "rp2":
            eq(hardware.levels[hardware.LED], 1)
    stage.start(cause="power on")
    eq((stage.runs, stage.record()["n"]), (4, 0))


@staged
def test_removing_the_record_leaves_safe_mode(stage):
    import os

    for _ in range(4):
        stage.start(stage.crashes(20))
    assert "SAFE MODE" in stage.said[0]
    os.remove(crash.PATH)
    stage.start(cause="reset")
    eq(stage.runs, 4)


@staged
def test_crashes_after_minutes_of_work_are_not_in_a_row(stage):
    for _ in range(10):
        said = stage.start(stage.crashes(301))
        assert "SAFE MODE" not in said
    eq((stage.runs, stage.record()["n"], stage.record()["all"]), (10, 1, 10))


@staged
def test_a_start_that_succeeded_ends_the_row(stage):
    for _ in range(2):
        stage.start(stage.crashes(20))
    stage.start()
    stage.report(1000)
    eq(stage.record()["n"], 0)
    for _ in range(3):
        assert "SAFE MODE" not in stage.start(stage.crashes(20))


@staged
def test_a_watchdog_counts_as_a_crash(stage):
    for n in range(3):
        said = stage.start(cause="watchdog")
        eq(stage.record()["n"], n + 1)
    assert "SAFE MODE" in said and "the watchdog reset the board" in said, said
    eq(stage.runs, 2)


@staged
def test_a_watchdog_that_had_a_reason_counts_once(stage):
    stage.start()
    crash.note("the watchdog reset the board: the relay did nothing for 900 s", "", 4000)
    stage.start(cause="watchdog")
    record = stage.record()
    eq((record["n"], record["all"]), (1, 1))
    ((subject, text, _),) = stage.report()
    assert "the relay did nothing for 900 s" in text and "up for 1 h" in text, text
    stage.start(cause="watchdog")
    eq((stage.record()["n"], stage.record()["all"]), (2, 2))


@staged
def test_resets_that_somebody_asks_for_are_no_crashes(stage):
    for _ in range(10):
        assert "SAFE MODE" not in stage.start(cause="reset")
    eq(stage.record(), {})


@staged
def test_a_crash_in_a_row_of_hours_is_not_mailed_each_time(stage):
    mails = 0
    for _ in range(40):
        stage.start(stage.crashes(400))
        mails += len(stage.report())
    eq(mails, 6)  # 1, 2, 4, 8, 16, 32
    stage.start()
    stage.report(90000)
    eq(stage.record()["all"], 0)
    stage.start(stage.crashes(400))
    eq(len(stage.report()), 1)


@staged
def test_a_crash_in_the_mailing_does_not_become_a_mail_at_each_start(stage):
    stage.start(stage.crashes(20))
    crashed = []

    def alert(subject, text, to):
        crashed.append(subject)
        raise RuntimeError("in the middle of it")

    stage.gateway.alert = alert
    for _ in range(3):
        stage.start()
        sys.modules["gateway"] = stage.gateway
        import report

        try:
            raises(RuntimeError, report.tell, "x", stage.record()) if not crashed else None
            eq(stage.record()["tell"], False)
        finally:
            del sys.modules["gateway"]
        eq(stage.report(1000), [])
    eq(len(crashed), 1)


@staged
def test_a_full_queue_only_delays_the_report(stage):
    stage.start(stage.crashes(20))
    stage.start()
    stage.gateway.refuses = QueueFull("10 mails wait, which is the limit")
    eq(stage.report(700), [])
    eq(stage.record()["tell"], True)
    assert "cannot be mailed yet: 10 mails wait" in stage.gateway.lines[-1], stage.gateway.lines
    stage.gateway.refuses = None
    eq(len(stage.report(700)), 1)
    eq(stage.record()["tell"], False)


@staged
def test_without_an_admin_the_alerts_receiver_is_told_and_without_both_nobody(stage):
    stage.start(stage.crashes(20))
    stage.gateway._mail = {"admin": ""}
    ((_, _, to),) = stage.report()
    eq(to, None)
    stage.start(stage.crashes(20))
    stage.gateway.refuses = ValueError("this alert is for nobody")
    eq(stage.report(10000), [])
    eq(len([line for line in stage.gateway.lines if "is not mailed" in line]), 1)


@staged
def test_the_end_of_the_log_comes_with_the_report(stage):
    class File:
        def tail(self, octets):
            return "12:00:00 relay: the last thing that it did\n"[-octets:]

        def flush(self):
            pass

        def error(self, e):
            pass

    stage.gateway.file = File()
    stage.start(stage.crashes(20))
    ((_, text, _),) = stage.report()
    assert text.endswith("The end of its log:\n\n12:00:00 relay: the last thing that it did\n"), text


@staged
def test_a_traceback_shows_no_secret(stage):
    crash.secrets[:] = []
    crash.learn({"wifi": {"password": "hay and straw"}})
    try:
        stage.start(stage.crashes(1, RuntimeError("cannot join with hay and straw")))
    finally:
        crash.secrets[:] = []
    with open(crash.PATH) as f:
        text = f.read()
    assert "cannot join with ***" in text and "straw" not in text, text


@staged
def test_a_configuration_that_cannot_be_used_is_said_and_the_repl_is_there(stage):
    def work():
        raise Unusable("there is no /config.json")

    for _ in range(5):
        said = stage.start(work)
        assert "the gateway does not run: there is no /config.json" in said, said
        assert "put a right /config.json here, and reset the board" in said
        eq((stage.record(), stage.cause), ({}, "power on"))


@staged
def test_a_half_copied_gateway_is_a_crash(stage):
    def work():
        raise ImportError("no module named 'smtp.relay'")

    stage.start(work)
    eq((stage.record()["n"], stage.cause), (1, "reset"))


@staged
def test_a_crash_counts_also_where_what_tells_of_it_cannot_be_loaded(stage):
    class Broken:
        """As a module whose file has gone."""

        def __getattr__(self, name):
            raise OSError("the flash is gone, too")

    def breaks():
        sys.modules["ended"] = Broken()
        raise ValueError("it crashed")

    for n in range(crash.MOST):
        stage.start(breaks)
        eq((stage.runs, stage.cause, crash.read()["n"]), (n + 1, "reset", n + 1))
    assert "it crashed" in crash.read()["why"]
    sys.modules.pop("ended")
    assert "SAFE MODE" in stage.start()
    eq(stage.runs, crash.MOST)


@staged
def test_ctrl_c_leaves_the_repl_and_is_no_crash(stage):
    def work():
        raise KeyboardInterrupt

    said = stage.start(work)
    assert "stopped by Ctrl-C" in said
    eq((stage.record(), stage.cause, stage.soc.timers), ({}, "power on", []))


@staged
def test_a_watchdog_that_runs_is_fed_for_the_repl(stage):
    def work():
        import watch

        hardware.ticks = virtualtime.ticks
        watch.Watch(lambda: 0, None).start(stage.board.WATCHDOG)
        raise KeyboardInterrupt

    stage.start(work)
    (timer,) = stage.soc.timers
    for _ in range(20):
        eq(timer.period, 1000)
        virtualtime._now[0] += timer.period
        timer.callback(timer)
    eq((stage.soc.dog[1], stage.soc.bitten()), (stage.board.WATCHDOG, False))


@staged
def test_a_record_that_makes_no_sense_is_none(stage):
    for text in ("", "{", "[]", "5", "null", '{"n": "x", "all": 1}', '{"n": 9}', '"text"', "\x00\xff"):
        with open(crash.PATH, "w") as f:
            f.write(text)
        assert "SAFE MODE" not in stage.start(cause="reset"), text
    stage.start(stage.crashes(1))
    eq(stage.record()["n"], 1)


def test_a_flash_that_fails_does_not_hide_the_crash():
    with Flash() as path:
        stage = Stage(path + "/no such directory")
        said = stage.start(stage.crashes(1))
        assert "cannot write" in said and "OSError: the flash is gone" in said, said
        eq(stage.cause, "reset")


def test_the_profile_is_that_of_the_configuration_or_of_the_port():
    import life

    real = life._PROFILES
    opened = []

    def fake(path):
        opened.append(path)
        return open(config)

    hardware.reset("rp2")
    try:
        with Flash() as path:
            config = path + "/config.json"
            life.open = fake
            said = []
            life.print = said.append
            life._PROFILES = {sys.platform: "esp32"}
            for text, wanted in (
                ('{"board": {"profile": "pico_w"}}', "boards.pico_w"), ('{"board": {}}', "boards.esp32"),
                ("{", "boards.esp32"), ("[]", "boards.esp32"), ('{"board": {"profile": null}}', "boards.esp32"),
            ):  # fmt: skip
                with open(config, "w") as f:
                    f.write(text)
                eq(life.profile().__name__, wanted)
            with open(config, "w") as f:
                json.dump({"board": {"profile": "toaster"}}, f)
            eq(life.profile(), None)
            assert "set board.profile" in said[-1], said
        eq(set(opened), {"/config.json"})
    finally:
        life._PROFILES = real
        del life.open, life.print
        hardware.reset("rp2")


# -- profiles


def test_profiles_say_all_that_the_gateway_asks_for():
    for chip, name in (("rp2", "pico_w"), ("esp32", "esp32")):
        hardware.reset(chip)
        import network

        board = getattr(__import__("boards." + name), name)
        for what in ("MAX_SESSIONS", "BUFFER", "BACKLOG", "TLS_SLOTS", "WATCHDOG", "TIMER", "RTC_MEMORY"):
            assert isinstance(getattr(board, what), int), what
        eq((board.BARE, board.TLS_SLOTS), (True, 1))
        assert board.MAX_SESSIONS >= 3 and board.BUFFER >= 1024  # RFC 5321 4.5.3.1.4: a command line has 512
        eq(board.path("/home/me/board/freezer.txt"), "/freezer.txt")
        eq(board.path("user.py"), "/user.py")
        network.WLAN().active(True)
        eq((board.address(), board.nameservers()), ("0.0.0.0", []))
        assert not board.hosts("localhost")


def test_the_systems_clock_is_set_to_the_second():
    import clock

    for chip, name in (("rp2", "pico_w"), ("esp32", "esp32")):
        hardware.reset(chip)
        import soc

        board = getattr(__import__("boards." + name), name)
        for now in (virtualtime.NOON, 1772323199, 1772323200, 2085978496):
            board.set_clock(now)
            eq(soc.rtc, now)
        eq(clock._EPOCH, 0)


def test_a_board_stops_when_it_is_told_to():
    hardware.reset("rp2")
    board = __import__("boards.pico_w").pico_w

    async def main():
        task = asyncio.create_task(board.stopped())
        await asyncio.sleep(0)
        eq(task.done(), False)
        board.stop()
        await task

    virtualtime.run(main())


# -- LED


def levels(state, ms):
    """[(milliseconds, level)] of an LED that shows a state, or what state() gives."""
    import led

    start = virtualtime.ticks()
    seen = []

    async def main():
        task = asyncio.create_task(led.run(
            lambda level: seen.append((virtualtime.ticks() - start, level)),
            state if callable(state) else lambda: state))
        await asyncio.sleep(ms / 1000)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass

    virtualtime.run(main())
    return seen


def flashes(seen):
    """The times at which it goes on."""
    out = []
    last = 0
    for ms, level in seen:
        if level and not last:
            out.append(ms)
        last = level
    return out


def test_each_state_has_a_pattern_that_can_be_told_apart():
    eq([level for _, level in levels("start", 5000)], [1] * 5)  # steady
    assert 9 <= len(flashes(levels("no network", 9900))) <= 10
    assert 3 <= len(flashes(levels("ok", 9000))) <= 4
    assert 6 <= len(flashes(levels("mail waits", 9000))) <= 8
    assert 40 <= len(flashes(levels("trouble", 9900))) <= 50


def test_the_pattern_follows_the_state():
    states = ["ok", "trouble", "trouble", "ok"]
    eq(len(flashes(levels(lambda: states.pop(0) if states else "ok", 6000))), 4)


def test_the_state_is_that_of_what_needs_a_person_most():
    class Any:
        pass

    relay, station, queue = Any(), Any(), []
    relay.told = None
    station.up, station.failures, station.since = False, 0, 0
    sys.modules["gateway"] = gateway = Any()
    gateway.rules = []

    class Queue(list):
        dead = damaged = 0

    gateway.queue = queue = Queue()
    sys.modules.pop("organs", None)
    try:
        import organs

        eq(organs.state(relay, station), "start")
        station.failures = 1
        eq(organs.state(relay, station), "no network")
        station.up = True
        eq(organs.state(relay, station), "ok")
        eq(organs.state(relay, None), "ok")
        queue.append("a mail")
        eq(organs.state(relay, station), "mail waits")
        queue.dead = 1
        eq(organs.state(relay, station), "trouble")
        queue.dead = 0
        relay.told = "it refuses"
        eq(organs.state(relay, station), "trouble")
        station.up = False
        eq(organs.state(relay, station), "no network")
    finally:
        del sys.modules["gateway"], sys.modules["organs"]
