"""Mails what went wrong before this start, once, and forgets it when nothing goes wrong for a while. See crash.

A crash in this very mail must not become a mail at each start: that it is told is written down first.
"""

import asyncio

import crash
import gateway
from smtp.fold import span
from smtp.queue import QueueFull

_CALM = 300  # seconds after which a start has succeeded
_DAY = 86400


def compose(name, record):
    """(subject, text)"""
    up = record.get("up")
    lines = [record["why"], ""]
    if up is not None:
        lines += ["It had been up for %s." % span(up)]
    if record["all"] > 1:
        lines += ["This was crash number %d without a day in between; not each one is mailed." % record["all"]]
    lines += ["It has started again, and no accepted mail is lost."]
    log = gateway.file.tail(2000) if gateway.file else ""
    if record["why"] not in log:
        lines += ["", record["text"]]
    if log:
        lines += ["", "The end of its log:", "", log]
    return "%s: started again after a crash" % name, "\n".join(lines)


def tell(name, record):
    """True when that is done, or not worth it."""
    total = record["all"]
    if total & (total - 1):
        return True
    to = gateway._mail.get("admin")
    record["tell"] = False
    crash.write(record)
    try:
        gateway.alert(*compose(name, record), to=[to] if to else None)
        return True
    except (QueueFull, OSError) as e:
        gateway.log("report", "the last crash cannot be mailed yet: %s" % e)
    except ValueError as e:  # there is nobody to tell
        gateway.log("report", "the last crash is not mailed: %s" % e)
        return True
    record["tell"] = True
    crash.write(record)
    return False


async def run(name):
    """For ever."""
    record = crash.read()
    delay = 60
    told = not record.get("tell") or tell(name, record)
    uptime = gateway.time.uptime
    while True:
        for key, seconds in (("n", _CALM), ("all", _DAY)):
            if uptime() >= seconds:
                crash.over(key)
        if not told:
            told = tell(name, crash.read())
        await asyncio.sleep(delay if uptime() < _DAY or not told else _DAY)
        delay = min(2 * delay, 3600)
