"""firmware/logfile.py: what is in flash after a crash, how much of it, and how often flash is written."""

import asyncio
import os

import crash
import logfile
import virtualtime
from expect import eq
from play import MICROPYTHON, Flash, Random

NOON = virtualtime.NOON
RESERVE = 32768


class Uptime:
    seconds = 0

    def __call__(self):
        return self.seconds


class Stage:
    """A log with a clock that the test sets. `writes` counts how often a file was opened to be written."""

    def __init__(self, path, most=8192, reserve=0):
        self.path = path + "/log.txt"
        self.most = most
        self.reserve = reserve
        self.uptime = Uptime()
        self.writes = 0
        self.broken = None
        logfile.open = self.open
        self.boot()

    def boot(self):
        """The power was away: what was not written is gone."""
        self.log = logfile.Log(self.path, self.most, self.reserve, self.uptime)
        return self

    def open(self, path, mode):
        if mode == "ab":
            self.writes += 1
            if self.broken:
                raise self.broken
        return open(path, mode)

    def text(self):
        """What is in flash, the older first."""
        out = b""
        for path in (self.path + ".old", self.path):
            try:
                with open(path, "rb") as f:
                    out += f.read()
            except OSError:
                pass
        return out.decode()

    def octets(self):
        return len(self.text().encode())


def test_lines_are_gathered_and_errors_are_written_at_once():
    with Flash() as path:
        stage = Stage(path)
        stage.log.add("12:00:00 relay: one")
        stage.log.add("12:00:01 relay: two")
        eq(stage.text(), "")
        stage.log.add("12:00:02 relay: failed", None, True)
        eq(stage.text(), "12:00:00 relay: one\n12:00:01 relay: two\n12:00:02 relay: failed\n")
        eq(stage.writes, 1)


def test_what_was_written_is_there_after_a_crash_and_goes_on():
    with Flash() as path:
        stage = Stage(path)
        stage.log.add("before", None, True)
        stage.log.add("lost")
        stage.boot().log.add("after", None, True)
        eq(stage.text(), "before\nafter\n")


def test_a_buffer_that_is_full_is_written():
    with Flash() as path:
        stage = Stage(path)
        for n in range(100):
            stage.log.add("line %d of a hundred, which says nothing" % n)
        assert 3 <= stage.writes <= 5, stage.writes
        assert stage.text().startswith("line 0 of")


def test_old_lines_are_written_by_themselves_but_not_each_minute():
    with Flash() as path:
        stage = Stage(path)
        clock = virtualtime.Clock(None)
        stage.log.uptime = clock.uptime

        async def main():
            task = asyncio.create_task(stage.log.run())
            for _ in range(24 * 60):
                stage.log.add("a line a minute")
                await asyncio.sleep(60)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        virtualtime.run(main())
        assert 100 < stage.writes < 150, stage.writes
        assert stage.text().count("\n") > 400


def test_a_day_of_silence_writes_nothing():
    with Flash() as path:
        stage = Stage(path)

        async def main():
            task = asyncio.create_task(stage.log.run())
            await asyncio.sleep(86400)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        virtualtime.run(main())
        eq(stage.writes, 0)


def test_errors_one_after_the_other_are_not_one_write_each():
    with Flash() as path:
        stage = Stage(path)
        for n in range(1000):
            stage.uptime.seconds = n // 10
            stage.log.add("an error", None, True)
        assert stage.writes <= 22, stage.writes


def test_both_files_together_never_hold_more_than_they_may():
    with Flash() as path:
        stage = Stage(path)
        dice = Random(5)
        for n in range(3000):
            stage.log.add("%d %s" % (n, "x" * dice.below(250)), None, dice.below(10) == 0)
            if n % 50 == 0:
                assert stage.octets() <= 8192, stage.octets()
            if n % 700 == 0:
                stage.boot()
        stage.log.flush()
        text = stage.text()
        assert stage.octets() > 3000
        lines = text.split("\n")[:-1]
        eq(lines[-1].split(" ")[0], "2999")
        numbers = [int(line.split(" ")[0]) for line in lines]
        eq(numbers, sorted(numbers))


def test_a_long_line_is_cut():
    with Flash() as path:
        stage = Stage(path)
        stage.log.add("ä" * 5000, None, True)
        eq(stage.text(), "ä" * 300 + "\n")


def test_each_day_has_its_date():
    with Flash() as path:
        stage = Stage(path)
        stage.log.add("+5 gateway: starts")
        stage.log.add("12:00:00 clock: set", NOON)
        stage.log.add("13:00:00 relay: works", NOON + 3600)
        stage.log.add("00:00:00 relay: works", NOON + 43200, True)
        eq(stage.text().split("\n"), [
            "+5 gateway: starts", "-- 22 Nov 2026", "12:00:00 clock: set", "13:00:00 relay: works", "-- 23 Nov 2026",
            "00:00:00 relay: works", ""])


def test_the_last_lines_can_be_read_whole():
    with Flash() as path:
        stage = Stage(path)
        eq(stage.log.tail(100), "")
        for n in range(400):
            stage.log.add("line %03d, of a few" % n)
        eq(stage.log.tail(60), "line 397, of a few\nline 398, of a few\nline 399, of a few\n")
        lines = stage.log.tail(100000).count("\n")
        stage.log.flush()
        eq(lines, stage.text().count("\n"))
        whole = stage.log.tail(4000)
        assert whole.startswith("line ") and whole.endswith("line 399, of a few\n")
        assert 3900 < len(whole) <= 4000, len(whole)


def test_secrets_never_reach_the_flash():
    config = {
        "wifi": {"ssid": "barn", "password": "hay and straw"},
        "smarthost": [{"username": "u", "password": "swordfish", "oauth": {"client_secret": "a-client-secret",
                       "refresh_token": "1//refresh"}}],
        "listener": [{"key": "MHcCAQEE", "users": {"printer": "SCRAM-SHA-256$4096:x"}}],
        "mail": {"password": ""},
    }
    crash.secrets[:] = []
    crash.learn(config)
    try:
        with Flash() as path:
            stage = Stage(path)
            for secret in (
                "hay and straw", "swordfish", "a-client-secret", "1//refresh", "MHcCAQEE", "SCRAM-SHA-256$4096:x",
            ):  # fmt: skip
                stage.log.add("somebody says %s, barn and u" % secret)
            try:
                raise ValueError("no %s here" % "swordfish")
            except ValueError as e:
                stage.log.error(e)
            stage.log.flush()
            text = stage.text()
            eq(text.count("somebody says ***, barn and u"), 6)
            assert "no *** here" in text and "swordfish" not in text, text
    finally:
        crash.secrets[:] = []


def test_a_flash_that_fails_loses_lines_and_says_how_many():
    with Flash() as path:
        stage = Stage(path)
        stage.broken = OSError(5)
        stage.log.add("one")
        stage.log.add("two", None, True)
        stage.broken = None
        stage.uptime.seconds = 60
        stage.log.add("three", None, True)
        eq(stage.text(), "-- 2 lines are missing here: there was no room for them\nthree\n")


def test_what_says_that_lines_are_missing_counts_as_well():
    with Flash() as path:
        stage = Stage(path)
        for n in range(400):
            stage.uptime.seconds += 60
            stage.broken = OSError(5) if n % 2 else None
            stage.log.add("%d: the flash fails every other time" % n, None, True)
            assert stage.octets() <= stage.most, stage.octets()
        eq(" lines are missing here" in stage.text(), True)


def test_a_full_flash_keeps_its_reserve():
    if not MICROPYTHON:
        return  # this computer's disk is not to be filled
    with Flash(32) as path:
        stage = Stage(path, 65536, RESERVE)

        def free():
            st = os.statvfs(path)
            return (st[3] if st[3] < 0xFFFFFF00 else 0) * st[1]

        with open(path + "/mail", "wb") as f:
            while free() > RESERVE + 8192:
                f.write(bytes(1024))
                f.flush()
        for n in range(2000):
            stage.uptime.seconds += 60
            stage.log.add("%d: the flash is nearly full" % n, None, n % 7 == 0)
            if n % 100 == 0:
                assert free() >= RESERVE - 4096, free()
        eq(os.stat(path + "/mail")[6] > 30000, True)
        assert stage.log.lost > 0
        os.remove(path + "/mail")
        stage.uptime.seconds += 60
        stage.log.add("room again", None, True)
        assert stage.text().endswith("room again\n") and " lines are missing here" in stage.text()


def test_its_own_old_lines_make_room_when_the_flash_is_full():
    with Flash() as path:
        stage = Stage(path)
        for n in range(200):
            stage.log.add("line %d of some that fill both files" % n)
        stage.log.reserve = 99000
        os.stat(stage.path + ".old")
        seen = []

        def asked():
            seen.append(1)
            return 100000 if len(seen) > 1 else 99000  # removing the older file has helped

        stage.log.free = asked
        stage.log.flush()
        stage.log.add("it goes on", None, True)
        stage.log.flush()
        try:
            os.stat(stage.path + ".old")
            raise AssertionError("the older file is still there")
        except OSError:
            pass
        assert stage.text().endswith("it goes on\n")
