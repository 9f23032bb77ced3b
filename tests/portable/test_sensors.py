"""firmware/sensors.py and heartbeat.py: rules tell what they are to tell, each thing once. The test makes the time."""

import asyncio
import json

import heartbeat
import sensors
from expect import eq
from play import MICROPYTHON, Flash
from smtp.queue import QueueFull


class Board:
    def path(self, name):
        return name


class Stage:
    """A rule with readings, a clock and mails that the test sees. Readings are numbers or exceptions."""

    def __init__(self, path, **rule):
        self.told = path + "/rules.json"
        self.rule = {"name": "freezer", "driver": "file", "path": "", "every": 10}
        self.rule.update(rule)
        self.base = self.time = 0
        self.mails = []
        self.lines = []
        self.full = False
        self.boot()

    def boot(self):
        """The power was away, and uptime starts again."""
        self.base = self.time
        self.kept = sensors.Told(self.told, self.log)
        self.one = sensors.Rule(self.rule, Board(), self.alert, self.log, lambda: self.time - self.base, self.kept)
        self.one.driver = self

    def log(self, area, text):
        self.lines.append(text)

    def alert(self, subject, text="", to=None, priority="normal", rule=None):
        if self.full:
            raise QueueFull("the spool is full")
        self.mails.append((subject, text, to, priority, rule))

    def read(self):
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading

    def at(self, time, reading):
        """What is mailed when `reading` is there at this second: the subjects."""
        self.time = time
        self.reading = reading
        before = len(self.mails)
        asyncio.run(self.one.step())
        return [m[0] for m in self.mails[before:]]

    def play(self, readings, every=10):
        """The subjects by time, of readings `every` seconds from now on."""
        said = []
        for reading in readings:
            for subject in self.at(self.time + every, reading):
                said.append((self.time, subject))
        return said


def test_a_value_above_its_limit_is_told_once():
    with Flash() as path:
        s = Stage(path, above=-15.0, unit="°C", to=["a@example.com"], priority="urgent")
        eq(s.play([-18, -15, -14.9, -9.5, -12]), [(30, "freezer: -14.9 °C, above -15.0 °C")])
        eq(s.mails, [(
            "freezer: -14.9 °C, above -15.0 °C", "freezer is -14.9 °C, above the limit of -15.0 °C.",
            ["a@example.com"], "urgent", "freezer")])
        eq(s.play([-15, -9]), [(70, "freezer: -9.0 °C, above -15.0 °C")])


def test_a_value_below_its_limit_is_told_once():
    with Flash() as path:
        s = Stage(path, below=2.0, decimals=0)
        eq(s.play([3, 2, 1.4, 0, 2, 1]), [(30, "freezer: 1, below 2"), (60, "freezer: 1, below 2")])


def test_above_and_below_together_are_a_range():
    with Flash() as path:
        s = Stage(path, above=8, below=2, recovery=True)
        eq(s.play([5, 9, 5, 1, 5]), [
            (20, "freezer: 9.0, above 8.0"), (30, "freezer: 5.0, ok after 10 s"),
            (40, "freezer: 1.0, below 2.0"), (50, "freezer: 5.0, ok after 10 s")])


def test_from_one_end_of_the_range_to_the_other_is_an_alert_and_one_outage():
    with Flash() as path:
        s = Stage(path, above=8, below=2, recovery=True)
        eq(s.play([9, 1, 9, 5]), [
            (10, "freezer: 9.0, above 8.0"), (20, "freezer: 1.0, below 2.0"), (30, "freezer: 9.0, above 8.0"),
            (40, "freezer: 5.0, ok after 30 s")])


def test_hysteresis_counts_on_the_way_back_from_above():
    with Flash() as path:
        s = Stage(path, above=10, hysteresis=2, recovery=True)
        eq(s.play([9, 10, 10.1, 9, 8.1, 10.5]), [(30, "freezer: 10.1, above 10.0")])
        eq(s.play([8, 9, 10]), [(70, "freezer: 8.0, ok after 40 s")])
        eq(s.play([10.1]), [(100, "freezer: 10.1, above 10.0")])


def test_hysteresis_counts_on_the_way_back_from_below():
    with Flash() as path:
        s = Stage(path, below=10, hysteresis=2, recovery=True)
        eq(s.play([11, 10, 9.9, 11, 11.9]), [(30, "freezer: 9.9, below 10.0")])
        eq(s.play([12, 11, 10, 9.9]), [(60, "freezer: 12.0, ok after 30 s"), (90, "freezer: 9.9, below 10.0")])


def test_hysteresis_counts_for_the_limit_that_was_crossed_only():
    with Flash() as path:
        s = Stage(path, above=10, below=0, hysteresis=3, recovery=True)
        eq(s.play([11, 2, 8, -1, 8]), [
            (10, "freezer: 11.0, above 10.0"), (20, "freezer: 2.0, ok after 10 s"),
            (40, "freezer: -1.0, below 0.0"), (50, "freezer: 8.0, ok after 10 s")])


def test_a_condition_has_to_hold_for_its_minimum_duration_to_the_second():
    with Flash() as path:
        s = Stage(path, above=10, **{"for": 300})
        eq(s.at(1000, 11), [])
        eq(s.at(1299, 11), [])
        eq(s.at(1300, 12), ["freezer: 12.0, above 10.0"])
        eq(s.mails[0][1], "freezer is 12.0, above the limit of 10.0. This has lasted 5 min.")


def test_what_is_over_before_its_minimum_duration_starts_anew():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True, **{"for": 300})
        eq(s.at(1000, 11), [])
        eq(s.at(1299, 10), [])
        eq(s.at(1300, 11), [])
        eq(s.at(1599, 11), [])
        eq(s.at(1600, 11), ["freezer: 11.0, above 10.0"])
        eq(s.at(1660, 5), ["freezer: 5.0, ok after 6 min"])


def test_a_flapping_value_without_hysteresis_is_told_each_time():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        eq(len(s.play([11, 9] * 20)), 40)
        eq({m[4] for m in s.mails}, {"freezer", "freezer\tok"})  # folded with their like only


def test_a_flapping_value_with_a_minimum_duration_is_not_told():
    with Flash() as path:
        s = Stage(path, above=10, **{"for": 15})
        eq(s.play([11, 9] * 20), [])


def test_it_is_told_again_while_it_lasts():
    with Flash() as path:
        s = Stage(path, above=10, repeat=60, unit="bar")
        eq(s.play([11] * 14), [
            (10, "freezer: 11.0 bar, above 10.0 bar"), (70, "freezer: still 11.0 bar, above 10.0 bar"),
            (130, "freezer: still 11.0 bar, above 10.0 bar")])
        eq(s.mails[2][1], "freezer is 11.0 bar, above the limit of 10.0 bar. This has lasted 2 min.")
        eq(s.mails[2][4], "freezer")
        eq(s.play([9, 11]), [(160, "freezer: 11.0 bar, above 10.0 bar")])
        eq(s.play([11] * 6), [(220, "freezer: still 11.0 bar, above 10.0 bar")])


def test_a_recovery_says_how_long_it_was():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True, unit="%")
        s.at(0, 11)
        eq(s.at(3660, 5), ["freezer: 5.0 %, ok after 1 h 1 min"])
        eq(s.mails[1][1], "freezer is 5.0 %. It was above the limit of 10.0 % for 1 h 1 min.")


def test_without_recovery_its_end_is_only_in_the_log():
    with Flash() as path:
        s = Stage(path, above=10)
        eq(s.play([11, 9]), [(10, "freezer: 11.0, above 10.0")])
        eq(s.lines, ["freezer: 9.0, ok after 10 s"])


def test_an_input_has_words_for_its_states():
    with Flash() as path:
        s = Stage(path, name="door", above=0.5, words=["closed", "open"], recovery=True, repeat=60, **{"for": 60})
        eq(s.play([0] + [1] * 13 + [0]), [
            (80, "door: open"), (140, "door: still open"), (150, "door: closed, ok after 2 min 10 s")])
        eq([m[1] for m in s.mails], [
            "door is open. This has lasted 1 min.", "door is open. This has lasted 2 min.",
            "door is closed. It was open for 2 min 10 s."])


def test_an_input_may_be_wrong_when_it_is_off():
    with Flash() as path:
        s = Stage(path, name="pump", below=0.5, words=["standing", "running"], recovery=True)
        eq(s.play([1, False, True]), [(20, "pump: standing"), (30, "pump: running, ok after 10 s")])
        eq(s.mails[1][1], "pump is running. It was standing for 10 s.")


def test_subject_and_text_are_templates():
    with Flash() as path:
        s = Stage(
            path, above=10, recovery=True, unit="°C", decimals=2, board="cellar",
            subject="{board}/{name} {state}: {value}{unit} ({limit})", text="for {lasted}\n{nothing}",
            recovery_subject="{name} {state} {lasted}")  # fmt: skip
        eq(s.play([11, 9]), [(10, "cellar/freezer above: 11.00°C (10.00)"), (20, "freezer ok 10 s")])
        eq(s.mails[0][1], "for 0 s\n")
        eq(s.mails[1][1], "freezer is 9.00 °C. It was above the limit of 10.00 °C for 10 s.")


def test_what_a_template_puts_in_is_not_read_again():
    with Flash() as path:
        s = Stage(path, name="{value}", above=10, subject="{name}")
        eq(s.play([11]), [(10, "{value}")])


FAIL = OSError("no answer")


def test_a_sensor_that_fails_three_times_is_told_and_when_it_works_again():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True, repeat=60)
        eq(s.play([5, FAIL, FAIL, 5, FAIL, FAIL]), [])
        eq(s.play([FAIL]), [(70, "freezer: cannot be read")])
        eq(s.mails[0][1], (
            "freezer cannot be read: no answer. Until it can, nobody hears when it crosses its limit."
            " It was 5.0 30 s ago."))
        eq(s.play([FAIL] * 6), [(130, "freezer: still cannot be read")])
        eq(s.play([6]), [(140, "freezer: 6.0, can be read again")])
        eq(s.mails[2][1], "freezer can be read again, and is 6.0. It could not be read for 1 min 30 s.")
        eq([m[4] for m in s.mails], ["freezer\tfailed", "freezer\tfailed", "freezer\tfailed\tok"])


def test_how_many_failures_are_told_is_configured():
    with Flash() as path:
        eq(Stage(path, above=10, failures=1).play([FAIL, FAIL]), [(10, "freezer: cannot be read")])
    with Flash() as path:
        s = Stage(path, above=10, failures=0)
        eq(s.play([FAIL] * 20), [])
        eq(s.lines, ["freezer cannot be read: no answer"])


def test_a_failure_does_not_end_an_alert():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        eq(s.play([11, FAIL, FAIL, FAIL, 12, 9]), [
            (10, "freezer: 11.0, above 10.0"), (40, "freezer: cannot be read"),
            (50, "freezer: 12.0, can be read again"), (60, "freezer: 9.0, ok after 50 s")])


def test_a_value_that_comes_back_crossed_is_told_after_the_failure():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        eq(s.play([5, FAIL, FAIL, FAIL, 12]), [
            (40, "freezer: cannot be read"), (50, "freezer: 12.0, can be read again"),
            (50, "freezer: 12.0, above 10.0")])


def test_one_failed_reading_does_not_interrupt_a_minimum_duration():
    with Flash() as path:
        s = Stage(path, above=10, **{"for": 30})
        eq(s.play([11, FAIL, FAIL, 11]), [(40, "freezer: 11.0, above 10.0")])


def test_a_failure_that_was_told_interrupts_a_minimum_duration():
    with Flash() as path:
        s = Stage(path, above=10, **{"for": 30})
        eq(s.play([11, FAIL, FAIL, FAIL, 11, 11, 11]), [(40, "freezer: cannot be read")])
        eq(s.play([11]), [(80, "freezer: 11.0, above 10.0")])


def test_what_is_no_number_is_a_failed_reading():
    for nonsense in (float("nan"), float("inf"), -float("inf"), None, "5", 1e31, [5], 1j):
        with Flash() as path:
            s = Stage(path, above=10, failures=1)
            eq(s.at(10, nonsense), ["freezer: cannot be read"])
            assert " is no value." in s.mails[0][1], s.mails


def test_whatever_a_driver_raises_is_a_failed_reading():
    for error in (KeyError("x"), ZeroDivisionError(), MemoryError(), Exception("CRC error"), ImportError("dht")):
        with Flash() as path:
            s = Stage(path, above=10, failures=1)
            eq(s.at(10, error), ["freezer: cannot be read"])


def test_a_driver_that_is_not_there_is_a_failed_reading():
    with Flash() as path:
        s = Stage(path, above=10, failures=2, driver="nowhere")
        s.one.driver = None
        eq(s.at(10, 0), [])
        eq(s.at(20, 0), ["freezer: cannot be read"])
        assert "nowhere" in s.mails[0][1], s.mails


async def test_a_driver_that_hangs_is_given_up_and_the_others_go_on():
    class Hangs:
        async def read(self):
            await asyncio.sleep(100)

    with Flash() as path:
        s = Stage(path, above=10, failures=1, timeout=0.01)
        other = Stage(path, above=10)
        s.one.driver = Hangs()
        other.reading = 11
        await asyncio.gather(s.one.step(), other.one.step())
        eq([m[0] for m in s.mails + other.mails], ["freezer: cannot be read", "freezer: 11.0, above 10.0"])
        assert "no answer within 0.01 s" in s.mails[0][1], s.mails


async def test_what_waits_is_tried_each_minute_though_the_next_reading_is_hours_away():
    class Time:
        TimeoutError = asyncio.TimeoutError

        async def sleep(self, seconds):
            s.time += seconds
            s.full = s.time < 200
            if s.time >= 3600:
                raise PowerCut

    with Flash() as path:
        s = Stage(path, above=10, every=3600)
        s.reading, s.full = 11, True
        sensors.asyncio = Time()
        try:
            await s.one.run()
        except PowerCut:
            pass
        finally:
            sensors.asyncio = asyncio
        eq([m[0] for m in s.mails], ["freezer: 11.0, above 10.0"])
        assert "This was 4 min ago" in s.mails[0][1], s.mails
        eq(s.time, 3600)


async def test_a_reading_may_take_its_time():
    class Slow:
        async def read(self):
            await asyncio.sleep(0.01)
            return 11

    with Flash() as path:
        s = Stage(path, above=10)
        s.one.driver = Slow()
        await s.one.step()
        eq(s.one.value, 11)
        eq(len(s.mails), 1)


def test_while_the_queue_is_full_an_alert_waits_and_is_sent_later():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        s.full = True
        eq(s.play([11, 11]), [])
        eq(s.lines, ["freezer: no room for an alert, it waits: the spool is full"])
        s.full = False
        eq(s.play([11]), [(30, "freezer: 11.0, above 10.0")])
        eq(s.play([9]), [(40, "freezer: 9.0, ok after 30 s")])


def test_what_happens_while_the_queue_is_full_is_told_in_its_order_and_says_its_age():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        s.full = True
        s.play([11, 9, 12, 9])
        s.full = False
        eq(s.at(3640, 9), [
            "freezer: 11.0, above 10.0", "freezer: 9.0, ok after 10 s", "freezer: 12.0, above 10.0",
            "freezer: 9.0, ok after 10 s"])
        assert s.mails[0][1].endswith("\n\nThis was 1 h 30 s ago; there was no room for this mail."), s.mails[0]


def test_only_a_mail_that_waited_for_more_than_a_minute_says_so():
    for wait in (60, 61):
        with Flash() as path:
            s = Stage(path, above=10)
            s.full = True
            s.at(100, 11)
            s.full = False
            s.at(100 + wait, 11)
            eq("This was 1 min 1 s ago" in s.mails[0][1], wait == 61)


def test_each_time_that_the_queue_is_full_is_in_the_log_once():
    with Flash() as path:
        s = Stage(path, above=10)
        for _ in range(2):
            s.full = True
            s.play([11, 11, 11])
            s.full = False
            s.play([11, 9])
        eq(len([line for line in s.lines if "no room" in line]), 2)


def test_a_full_queue_does_not_fill_the_memory():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        s.full = True
        s.play([11, 9] * 50)
        assert len(s.one.outbox) <= 9
        s.full = False
        said = s.play([9])
        eq(len(said), 8)
        eq([subject for _, subject in said], ["freezer: 11.0, above 10.0", "freezer: 9.0, ok after 10 s"] * 4)
        eq(s.play([11, 9]), [(1020, "freezer: 11.0, above 10.0"), (1030, "freezer: 9.0, ok after 10 s")])


def test_a_flash_that_fails_is_like_a_full_one():
    with Flash() as path:
        s = Stage(path, above=10)

        def broken(*args):
            raise OSError(5)

        s.one.alert = broken
        eq(s.play([11, 11]), [])
        s.one.alert = s.alert
        eq(s.play([11]), [(30, "freezer: 11.0, above 10.0")])


def test_memory_that_runs_out_while_a_mail_is_written_loses_no_alert():
    import wording

    with Flash() as path:
        s = Stage(path, above=10)
        real = wording.mail

        def poor(*args):
            raise MemoryError

        wording.mail = poor
        try:
            s.at(10, 11)
        except MemoryError:
            pass
        finally:
            wording.mail = real
        eq(s.play([11, 11]), [(20, "freezer: 11.0, above 10.0")])


# -- the power


def told(s):
    try:
        with open(s.told) as f:
            return json.load(f)
    except OSError:
        return {}


def test_after_a_power_cut_what_was_told_is_not_told_again():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        s.play([5, 11])
        eq(told(s), {"freezer": "above"})
        s.boot()
        eq(s.play([11, 12]), [])
        eq(s.play([9]), [(50, "freezer: 9.0, ok after at least 30 s")])
        eq(told(s), {})
        s.boot()
        eq(s.play([9]), [])


def test_hysteresis_counts_after_a_power_cut():
    with Flash() as path:
        s = Stage(path, above=10, hysteresis=3, recovery=True)
        s.play([11])
        s.boot()
        eq(s.play([8]), [])
        eq(s.play([7]), [(30, "freezer: 7.0, ok after at least 20 s")])


def test_an_alert_that_lasts_is_repeated_after_a_power_cut():
    with Flash() as path:
        s = Stage(path, above=10, repeat=60)
        s.play([11])
        s.boot()
        eq(s.play([11] * 7), [(70, "freezer: still 11.0, above 10.0")])


def test_a_failure_that_was_told_is_not_told_again_after_a_power_cut():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True, failures=1)
        s.play([FAIL])
        eq(told(s), {"freezer\tfailed": "failed"})
        s.boot()
        eq(s.play([FAIL, FAIL]), [])
        eq(s.play([5]), [(40, "freezer: 5.0, can be read again")])
        eq(told(s), {})


class PowerCut(BaseException):
    pass


def cut(s, reading, after):
    """The power goes while the alert is queued, before that is committed or after it."""

    def alert(*args):
        if after:
            s.alert(*args)
        raise PowerCut

    s.one.alert = alert
    s.time += 10
    s.reading = reading
    try:
        asyncio.run(s.one.step())
    except PowerCut:
        s.boot()
        return
    raise AssertionError("nothing was sent")


def test_an_alert_that_a_power_cut_may_have_lost_is_raised_again():
    for after in (False, True):
        with Flash() as path:
            s = Stage(path, above=10)
            cut(s, 11, after)
            eq(told(s), {"freezer": "above?"})
            eq(s.play([11, 11]), [(20, "freezer: 11.0, above 10.0")])
            eq(told(s), {"freezer": "above"})


def test_an_alert_that_a_power_cut_may_have_lost_and_that_is_over_is_told_in_any_case():
    with Flash() as path:
        s = Stage(path, above=10)  # no recovery mails
        cut(s, 11, False)
        eq(s.play([9, 9]), [(20, "freezer: 9.0, ok after at least 10 s")])
        eq(told(s), {})


def test_a_recovery_that_a_power_cut_may_have_lost_is_told_again():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True)
        s.play([11])
        cut(s, 9, False)
        eq(told(s), {"freezer": "above"})
        eq(s.play([9]), [(30, "freezer: 9.0, ok after at least 10 s")])


def test_an_alert_that_waits_for_room_survives_a_power_cut():
    with Flash() as path:
        s = Stage(path, above=10)
        s.full = True
        s.play([11, 11])
        s.boot()
        s.full = False
        eq(s.play([12]), [(30, "freezer: 12.0, above 10.0")])


def test_the_flash_is_written_when_something_is_told_and_only_then():
    with Flash() as path:
        s = Stage(path, above=10, repeat=20)
        written = []
        real = sensors.os

        class Os:
            def rename(self, a, b):
                written.append(b)
                real.rename(a, b)

        sensors.os = Os()
        try:
            s.play([5] * 10)
            eq(len(written), 0)
            s.play([11] * 10)
            eq(len(written), 2)  # before and after the mail
            s.play([5] * 10)
            eq(len(written), 3)
        finally:
            sensors.os = real


def test_a_power_cut_at_any_flash_operation_loses_nothing_that_is_to_be_told():
    if not MICROPYTHON:
        return  # there is no littlefs
    import vfs
    from nor import Nor

    class Powered(Stage):
        def alert(self, *args):
            if flash.dead:
                raise PowerCut
            Stage.alert(self, *args)

    def mount():
        vfs.mount(vfs.VfsLfs2(flash, progsize=flash.PAGE, readsize=flash.PAGE), "/t")

    twice = 0
    for recovery in (True, False):
        for cut_at in range(1, 100):
            flash = Nor(8)
            vfs.VfsLfs2.mkfs(flash, progsize=flash.PAGE, readsize=flash.PAGE)
            mount()
            s = Powered("/t", above=10, recovery=recovery)
            flash.cut_at = flash.ops + cut_at
            cuts = 0
            for reading in (5, 11, 11, 11, 9, 9, 9):
                try:
                    s.at(s.time + 10, reading)
                except PowerCut:
                    pass
                if flash.dead:
                    cuts += 1
                    vfs.umount("/t")
                    flash = flash.power()
                    mount()
                    s.boot()
            kinds = [m[4] for m in s.mails]
            alerts, over = kinds.count("freezer"), kinds.count("freezer\tok")
            eq(kinds, ["freezer"] * alerts + ["freezer\tok"] * over)
            assert 1 <= alerts <= 1 + cuts and over <= 1 + cuts and alerts + over <= 2 + cuts, kinds
            assert over or not recovery, (cut_at, s.mails)
            twice += alerts + over > 1 + recovery
            eq((told(s), flash.faults), ({}, 0))
            vfs.umount("/t")
            if not cuts:
                break
        assert not cuts and cut_at > 5, cut_at
    assert twice


def test_a_flash_that_does_not_take_what_was_told_does_not_keep_the_mail():
    with Flash() as path:
        s = Stage(path, above=10, recovery=True, repeat=10)
        s.kept.path = path + "/none/rules.json"
        eq(s.play([11, 9]), [(10, "freezer: 11.0, above 10.0"), (20, "freezer: 9.0, ok after 10 s")])
        assert s.lines[0].startswith("cannot write "), s.lines
        eq(s.play([11]), [(30, "freezer: 11.0, above 10.0")])
        s.kept.path = s.told
        eq(s.play([11]), [(40, "freezer: still 11.0, above 10.0")])
        eq(told(s), {"freezer": "above"})


def test_what_was_told_is_forgotten_with_its_rule_and_its_limit():
    for kept in ('{"other": "above", "freezer": "below"}', "", "[]", "null", '{"freezer": 5}', '{"freezer"'):
        with Flash() as path:
            with open(path + "/rules.json", "w") as f:
                f.write(kept)
            s = Stage(path, above=10, recovery=True)
            eq(s.play([9]), [])
            s.play([11])
            eq(told(s), {"freezer": "above"})


def test_two_rules_share_the_file():
    with Flash() as path:
        a = Stage(path, above=10)
        b = Stage(path, name="door", above=10)
        b.kept = b.one.told = a.kept
        a.play([11])
        b.play([11])
        eq(told(a), {"freezer": "above", "door": "above"})
        a.play([9])
        eq(told(a), {"door": "above"})


# -- its task, and the heartbeat


async def test_it_reads_every_so_often_and_shows_that_it_is_alive():
    waits = []

    class Time:
        TimeoutError = asyncio.TimeoutError

        async def sleep(self, seconds):
            waits.append(seconds)
            s.time += seconds
            s.reading = s.time
            if len(waits) == 4:
                raise PowerCut

    with Flash() as path:
        s = Stage(path, above=25)
        s.reading = 0
        sensors.asyncio = Time()
        try:
            await s.one.run()
        except PowerCut:
            pass
        finally:
            sensors.asyncio = asyncio
        eq(waits, [10, 10, 10, 10])
        eq([m[0] for m in s.mails], ["freezer: 30.0, above 25.0"])
        eq(s.one.alive, 30)
        eq(s.one.at, 30)


class Queue:
    dead = 1
    kept = 2

    def __len__(self):
        return 4


def test_a_heartbeat_says_how_each_sensor_is():
    with Flash() as path:
        rules = [Stage(path, above=10, unit="°C"), Stage(path, name="door", above=0.5, words=["closed", "open"])]
        rules.append(Stage(path, name="tank", below=2))
        ones = [s.one for s in rules]
        eq(heartbeat.compose("cellar", ones, Queue(), 7)[1].split("\n")[0], "freezer: not read yet")
        for s, value in zip(rules, (5, 0, 3)):
            s.play([value])
        eq(heartbeat.compose("cellar", ones, Queue(), 3700), ("cellar: all is well", "\n".join((
            "freezer: 5.0 °C", "door: closed", "tank: 3.0", "4 mails wait, 3 dead letters. Up for 1 h 1 min."))))
        rules[0].play([11])
        rules[1].play([1])
        rules[2].play([FAIL])
        eq(heartbeat.compose("cellar", ones, Queue(), 0), ("cellar: 3 of 3 sensors need attention", "\n".join((
            "freezer: 11.0 °C, above the limit", "door: open", "tank: cannot be read: no answer",
            "4 mails wait, 3 dead letters. Up for 0 s."))))
        eq(heartbeat.compose("cellar", ones[1:2], Queue(), 0)[0], "cellar: 1 of 1 sensors needs attention")
        eq(heartbeat.compose("cellar", [], Queue(), 0)[0], "cellar: all is well")


async def beats(full):
    """When a heartbeat goes in 200,000 seconds, with a queue that is full at the seconds `full`."""
    now = [0]
    sent = []

    class Time:
        async def sleep(self, seconds):
            assert 0 < seconds <= 3600
            now[0] += seconds
            if now[0] >= 5:
                s.one.value = 1
            if now[0] > 200000:
                raise PowerCut

    def alert(subject, text, rule):
        if now[0] in full:
            raise QueueFull("full")
        sent.append(now[0])
        eq(rule, "\theartbeat")

    with Flash() as path:
        s = Stage(path, above=10)
        heartbeat.asyncio = Time()
        try:
            await heartbeat.run(86400, "x", [s.one], Queue(), lambda: now[0], alert, s.log)
        except PowerCut:
            return sent
        finally:
            heartbeat.asyncio = asyncio


async def test_a_heartbeat_goes_at_the_start_and_then_every_so_often():
    eq(await beats(()), [5, 86405, 172805])


async def test_a_heartbeat_waits_for_room_in_the_queue():
    eq(await beats(range(80000, 90000)), [5, 90005, 176405])
