"""A mail every so often that says how the sensors are. When it stays away, the gateway is dead or cut off.

The first one goes as soon as each rule has tried its sensor after a start.

May use: wording, smtp.queue, smtp.fold. Knows sensors.Rule.
"""

import asyncio

from smtp.fold import span
from smtp.queue import QueueFull

_PATIENCE = 120  # seconds to wait for the first reading of each sensor


def compose(name, rules, queue, up):
    """(subject, text)"""
    import wording

    bad = [r for r in rules if r.fault or r.over.raised]
    if bad:
        subject = "%s: %d of %d sensors need%s attention" % (name, len(bad), len(rules), "" if len(bad) > 1 else "s")
    else:
        subject = name + ": all is well"
    lines = [wording.status(r) for r in rules]
    lines.append("%d mails wait, %d dead letters. Up for %s." % (len(queue), queue.dead + queue.kept, span(up)))
    return subject, "\n".join(lines)


async def run(every, name, rules, queue, uptime, alert, log):
    """every: seconds; name: the board's; rules: list of sensors.Rule; alert and log as in gateway."""
    start = due = uptime()
    while uptime() - start < _PATIENCE and [r for r in rules if r.value is None and not r.fault]:
        await asyncio.sleep(1)
    while True:
        while uptime() < due:
            await asyncio.sleep(min(3600, due - uptime()))  # ticks wrap after some days
        due = uptime() + every
        try:
            alert(*compose(name, rules, queue, uptime()), rule="\theartbeat")
        except (QueueFull, OSError) as e:
            log("sensor", "no room for the heartbeat: %s" % e)
            due = uptime() + min(every, 60)
