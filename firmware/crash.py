"""What went wrong last: kept in flash, counted, and mailed once, at the next start.

/crash.json, written only when something went wrong or is over:

    n     crashes in a row, each within _SHORT seconds of its start. From MOST on nothing is started any more
    all   crashes since the last day without one. Only the first, second, fourth, eighth ... of them is mailed
    why   what it was; text: the end of the traceback; up: seconds since the start, or None
    tell  nobody was told yet
    own   it was us who asked for the reset that follows
    rolled  it is a roll back (see trial.py)

May use: nothing but files. Loaded at each start, so that it has to be small.
"""

import io
import json
import os
import sys

from smtp import const

PATH = "/crash.json"
MOST = 3
_SHORT = const(300)
_TEXT = const(1200)  # octets of traceback
_KEYS = ("password", "client_secret", "refresh_token", "key", "url")

secrets = []  # what must not be shown, whatever happens


def learn(table):
    """Finds the secrets in the configuration."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if key == "users":
            secrets.extend(value.values())
        elif key in _KEYS and value:
            secrets.append(value)
        elif isinstance(value, (dict, list)):
            learn(value)


def clean(text):
    """`text` without secrets."""
    for secret in secrets:
        if len(secret) > 3 and secret in text:
            text = text.replace(secret, "***")
    return text


def read():
    """The record, {} when there is none."""
    try:
        with open(PATH) as f:
            record = json.load(f)
        record["n"] + record["all"]
        return record
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write(record):
    try:
        with open(PATH + ".new", "w") as f:
            json.dump(record, f)
        os.rename(PATH + ".new", PATH)
    except OSError as e:
        print("edgepost: cannot write %s: %s" % (PATH, e))


def note(why, text="", up=None, own=True):
    """Counts a crash, after `up` seconds, and keeps what it was. Gives the record."""
    old = read()
    if old.get("rolled") and old["tell"]:
        why = "%s. Then: %s" % (old["why"], why)
    record = {
        "n": old.get("n", 0) + 1 if up is None or up < _SHORT else 1,
        "all": old.get("all", 0) + 1,
        "why": clean(why),
        "text": clean(text)[-_TEXT:],
        "up": up,
        "tell": True,
        "own": own,
    }
    write(record)
    return record


def trace(error):
    """A traceback as text."""
    out = io.StringIO()
    if hasattr(sys, "print_exception"):
        sys.print_exception(error, out)
    else:
        import traceback

        traceback.print_exception(error, file=out)
    return out.getvalue()


def start(reason):
    """The record, at a start; reason: as board.reset_reason()."""
    record = read()
    if record.get("own"):  # counted already
        record["own"] = False
        write(record)
    elif reason == "watchdog":
        record = note("the watchdog reset the board: something stood still for longer than it allows", own=False)
    elif reason == "power on" and record.get("n"):
        record["n"] = 0  # somebody has seen to it
        write(record)
    return record


def over(key):
    """Nothing went wrong for a while: forgets "n" or "all"."""
    record = read()
    if record.get(key):
        record[key] = 0
        write(record)
