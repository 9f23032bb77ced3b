"""Whether the gateway does its work, for those who have to hear that mail is dead without mail: [ping], GET /health.

May use: smtp.fold for durations. Knows smtp.queue.Queue and sensors.Rule. Loaded where one of the two is set.
"""

import json

from smtp import const

_ROW = const(4)  # of Queue.rows
_HEAD = const(65536)
_AGAIN = const(2)  # flag in the queue: it was a dead letter and is sent again: its age does not count
_RULE = const(300)  # seconds that a rule may be late, as for the watchdog


def oldest(queue, now=None):
    """Seconds for which the oldest mail has waited, or None when none waits. now: seconds since 1970, None: not known;
    then a mail from before this start is as old as this start at least."""
    rows = queue.rows
    up = queue.uptime()
    most = done = None
    for i in range(0, len(rows), _ROW):  # in the order of priority, and then of arrival
        key = rows[i]
        if key >> 28 == done or queue.state(key)[2] & _AGAIN:
            continue
        try:
            head = b""
            with open(queue.path + "/" + queue.name_now(i), "rb") as f:
                while head[-1:] != b"\n" and len(head) < _HEAD:
                    piece = f.readline(512)  # more would be allocated at once
                    if not piece:
                        break
                    head += piece
            meta = json.loads(head)
            age = up
            if meta["b"] == queue.boot:
                age = up - meta["u"]
            elif now and meta["t"]:
                age = max(age, now - meta["t"])
        except (OSError, ValueError, KeyError):
            continue  # it is damaged: the relay sets it aside
        done = key >> 28
        if most is None or age > most:
            most = age
    return most


def well(queue, relay, rules, uptime, most):
    """What is wrong, or "" when all is well. relay: smtp.relay.Relay; rules: list of sensors.Rule; uptime(): seconds;
    most: seconds for which a mail may wait."""
    age = oldest(queue, relay.clock.now())
    from smtp.fold import span

    if age is not None and age > most:
        return "the oldest mail has waited for %s" % span(age)
    for rule in rules:
        late = uptime() - rule.alive
        if late > rule.rule["every"] + rule.rule.get("timeout", 10) + _RULE:
            return "the sensor %s was not read for %s" % (rule.name, span(late))
    return ""
