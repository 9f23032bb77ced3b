"""The rule that a board gets says the same as the time zone database, in every zone."""

import calendar
import datetime
import zoneinfo

import pytest
from edgepost import timezone


def local_offset(rule, now):
    """The offset in seconds at `now` (UTC, naive), by a rule: what a board computes."""
    if len(rule) == 1:
        return rule[0]
    standard, summer, start, end = rule

    def moment(change, offset_before):
        month, week, day, seconds = change
        days = [
            week_of[(day - 1) % 7]
            for week_of in calendar.monthcalendar(now.year, month)
            if week_of[(day - 1) % 7]
        ]
        midnight = datetime.datetime(now.year, month, days[min(week, len(days)) - 1])
        return midnight + datetime.timedelta(seconds=seconds - offset_before)

    begins, ends = moment(start, standard), moment(end, summer)
    if begins < ends:
        return summer if begins <= now < ends else standard
    return standard if ends <= now < begins else summer


@pytest.fixture
def database():
    """The package tzdata alone: the computer's own files may be older or newer."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    yield zoneinfo.ZoneInfo.no_cache
    zoneinfo.reset_tzpath(to=before)


def test_berlin_changes_on_the_last_sundays_of_march_and_october():
    assert timezone.rule("Europe/Berlin") == [3600, 7200, [3, 5, 0, 7200], [10, 5, 0, 10800]]


def test_a_zone_without_summer_time_is_one_offset():
    assert timezone.rule("Asia/Kolkata") == [19800]
    assert timezone.rule("UTC") == [0]


def test_a_change_may_be_before_midnight_or_after_the_day():
    assert timezone.parse("<-02>2<-01>,M3.5.0/-1,M10.5.0/0")[2] == [3, 5, 0, -3600]
    assert timezone.parse("EET-2EEST,M3.4.4/50,M10.4.4/50")[3] == [10, 4, 4, 180000]


# Summer time pauses in Ramadan there, which no rule can say: the board keeps to the other months.
BY_THE_MOON = {"Africa/Casablanca", "Africa/El_Aaiun", "Asia/Gaza", "Asia/Hebron"}


def test_every_zone_agrees_with_the_database_all_through_a_year_to_come(database):
    wrong = set()
    for zone in timezone.names():
        rule = timezone.rule(zone)
        info = database(zone)
        now = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
        for _ in range(675):  # every 13 hours, so that every hour of the day comes round
            now += datetime.timedelta(hours=13)
            offset = now.astimezone(info).utcoffset().total_seconds()
            if local_offset(rule, now.replace(tzinfo=None)) != offset:
                wrong.add(zone)
                break
    assert wrong <= BY_THE_MOON | {"Morocco"}


def test_a_misspelt_zone_is_answered_with_the_right_spelling():
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        timezone.rule("Europe/Berlinn")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/localtime", "", "Europe"])
def test_a_name_that_is_no_zone_opens_no_file(name):
    with pytest.raises(ValueError, match="not the name of a time zone"):
        timezone.rule(name)
