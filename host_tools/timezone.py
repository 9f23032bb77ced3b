"""Turns a time zone's name into a rule that a board can apply without a time zone database.

The rule is what the footer of the zone's TZif file (RFC 8536, section 3.3) says in the notation of
POSIX: it holds from the last listed change on, so for today and for the years to come. The files
are those of the package tzdata, so that every host gives the same answer.
"""

import difflib
import importlib.resources
import re

_OFFSET = r"([+-]?)(\d{1,3})(?::(\d\d))?(?::(\d\d))?"
_NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_RULE = r"M(\d{1,2})\.([1-5])\.([0-6])(?:/([^,]+))?"


def names():
    """All names of time zones, as a list of text."""
    text = importlib.resources.files("tzdata").joinpath("zones").read_text("ascii")
    return text.split()


def rule(name):
    """The rule of a zone: [offset] or [offset, offset in summer, start of summer time, its end].

    Offsets are in seconds east of UTC. Start and end are [month 1..12, week 1..5, day, seconds]: at
    that many seconds after local midnight (of the clock in force before the change; may be negative
    or above a day) of the given day of the week (0 is Sunday) of the given week (5 is the last one
    in the month). Raises ValueError with a text for people.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.6)
        raise ValueError(
            f"{name!r} is not the name of a time zone"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    data = importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    return parse(data.rstrip(b"\n").rpartition(b"\n")[2].decode("ascii"))


def parse(text):
    """The rule of a POSIX TZ text such as "CET-1CEST,M3.5.0,M10.5.0/3". Raises ValueError."""
    found = re.fullmatch(f"{_NAME}{_OFFSET}(?:{_NAME}(?:{_OFFSET})?,{_RULE},{_RULE})?", text)
    if not found:
        raise ValueError(f"has the rule {text!r}, which a board cannot apply")
    group = found.groups()
    # POSIX counts westwards: the time to add to local time to get UTC.
    standard = -_seconds(*group[:4])
    if group[8] is None:
        return [standard]
    summer = standard + 3600 if group[5] is None else -_seconds(*group[4:8])
    return [standard, summer, _change(*group[8:12]), _change(*group[12:16])]


def _change(month, week, day, time):
    seconds = 7200  # the default: two o'clock
    if time:
        found = re.fullmatch(_OFFSET, time)
        if not found:
            raise ValueError(f"has the time {time!r} in its rule, which a board cannot apply")
        seconds = _seconds(*found.groups())
    return [int(month), int(week), int(day), seconds]


def _seconds(sign, hours, minutes, seconds):
    total = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return -total if sign == "-" else total
