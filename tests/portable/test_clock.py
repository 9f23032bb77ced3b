"""firmware/clock.py: time zones by rule, a clock that may not be set."""

import clock
from expect import eq

BERLIN = [3600, 7200, [3, 5, 0, 7200], [10, 5, 0, 10800]]
NEW_YORK = [-18000, -14400, [3, 2, 0, 7200], [11, 1, 0, 7200]]
SYDNEY = [36000, 39600, [10, 1, 0, 7200], [4, 1, 0, 10800]]
LORD_HOWE = [37800, 39600, [10, 1, 0, 7200], [4, 1, 0, 7200]]
DUBLIN = [0, 3600, [3, 5, 0, 3600], [10, 5, 0, 7200]]
NUUK = [-7200, -3600, [3, 5, 0, -3600], [10, 5, 0, 0]]  # changes on Saturday evening
CAIRO = [7200, 10800, [4, 5, 5, 0], [10, 5, 4, 86400]]


class Time:
    """A time module whose clocks stand where the test puts them."""

    def __init__(self, now=0, ticks=0):
        self.now = now
        self.ticks = ticks

    def time(self):
        return self.now

    def ticks_ms(self):
        return self.ticks % 2**30

    def ticks_diff(self, a, b):
        return (a - b + 2**29) % 2**30 - 2**29


def with_time(fake, function):
    real = clock.time
    clock.time = fake
    try:
        return function()
    finally:
        clock.time = real


def changes(tz, at, before, after):
    """The offset changes at the second `at`, not before and not later."""
    eq((clock.offset(tz, at - 1), clock.offset(tz, at)), (before, after))


def test_a_zone_without_summer_time_has_one_offset():
    eq(clock.offset([19800], 1795344183), 19800)
    eq(clock.offset([0], 0), 0)


def test_summer_time_starts_and_ends_on_the_second_in_the_north():
    changes(BERLIN, 1774746000, 3600, 7200)  # 2026-03-29 01:00 UTC
    changes(BERLIN, 1792890000, 7200, 3600)  # 2026-10-25 01:00 UTC
    changes(NEW_YORK, 1772953200, -18000, -14400)  # 2026-03-08 07:00 UTC
    changes(NEW_YORK, 1793512800, -14400, -18000)  # 2026-11-01 06:00 UTC
    changes(DUBLIN, 1774746000, 0, 3600)


def test_summer_time_spans_the_new_year_in_the_south():
    changes(SYDNEY, 1775318400, 39600, 36000)  # 2026-04-04 16:00 UTC
    changes(SYDNEY, 1791043200, 36000, 39600)  # 2026-10-03 16:00 UTC
    eq(clock.offset(SYDNEY, 1798761600), 39600)  # 2027-01-01 00:00 UTC
    eq(clock.offset(SYDNEY, 1798718400 + 3600), 39600)  # 2027-01-01 00:00 in Sydney
    changes(LORD_HOWE, 1775314800, 39600, 37800)  # half an hour only


def test_a_change_may_lie_before_midnight_or_behind_it():
    changes(NUUK, 1774746000, -7200, -3600)
    changes(CAIRO, 1776981600, 7200, 10800)  # 2026-04-24 00:00 in Cairo
    changes(CAIRO, 1793307600, 10800, 7200)  # 2026-10-30 00:00 in Cairo, the Thursday's end


def test_the_fifth_week_is_the_last_also_in_a_leap_february():
    tz = [0, 3600, [2, 5, 0, 0], [3, 5, 0, 3600]]
    changes(tz, 1771718400, 0, 3600)  # 2026-02-22
    changes(tz, 1961625600, 0, 3600)  # 2032-02-29


def test_a_clock_that_nobody_has_set_does_not_know_the_time():
    eq(with_time(Time(1577836800), clock.Clock().now), None)  # 2020, where many chips start
    eq(with_time(Time(1767225599), clock.Clock().now), None)
    eq(with_time(Time(1767225600), clock.Clock().now), 1767225600)


def test_a_clock_that_counts_from_2000_gives_seconds_since_1970():
    real = clock._EPOCH
    clock._EPOCH = 946684800
    try:
        eq(with_time(Time(0), clock.Clock().now), None)
        eq(with_time(Time(1795344183 - 946684800), clock.Clock().now), 1795344183)
    finally:
        clock._EPOCH = real


def test_the_system_clock_counts_as_set():
    assert clock.Clock().now() >= 1767225600


def test_uptime_goes_on_when_its_counter_wraps():
    fake = Time(ticks=2**30 - 500)

    def run():
        made = clock.Clock()
        eq(made.uptime(), 0)
        for _ in range(40):
            fake.ticks += 86400000
            made.uptime()
        eq(made.uptime(), 40 * 86400)

    with_time(fake, run)


def test_uptime_does_not_lose_parts_of_a_second():
    fake = Time()

    def run():
        made = clock.Clock()
        for _ in range(10):
            fake.ticks += 999
            made.uptime()
        eq(made.uptime(), 9)

    with_time(fake, run)


def test_a_clock_that_is_not_trusted_knows_the_time_only_when_it_is_told():
    fake = Time(1795344183)

    def run():
        made = clock.Clock(trusted=False)
        eq((made.now(), made.system()), (None, 1795344183))
        fake.ticks += 5000
        made.base = 1795348800000 - 5000  # it is 1795348800 at uptime 5
        eq((made.now(), made.uptime(), made.system()), (1795348800, 5, 1795344183))
        fake.ticks += 999
        eq(made.now(), 1795348800)
        fake.ticks += 1
        fake.now -= 86400
        eq(made.now(), 1795348801)  # whatever becomes of the system's

    with_time(fake, run)


def test_a_clock_that_was_told_goes_on_when_its_counter_wraps():
    fake = Time(ticks=2**30 - 500)

    def run():
        made = clock.Clock(trusted=False)
        made.base = 1795348800000
        for day in range(40):
            eq(made.now(), 1795348800 + day * 86400)
            fake.ticks += 86400000

    with_time(fake, run)
