"""What a gateway says of itself (docs/status.md, JSON) in words for a terminal: of any width, with no colour."""

import textwrap
import unicodedata

from .asking import clean

_INDENT = 9
_PATIENCE = 30  # seconds after its start in which a clock that is not set is nothing to speak of


def span(seconds):
    """A time as people say it."""
    if seconds is None:
        return "?"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            more = seconds % unit * 60 // unit if name == "h" else 0
            return f"{seconds // unit} {name}" + (f" {more} min" if more else "")
    return f"{seconds} s"


def octets(count):
    for unit, name in ((1 << 20, "MB"), (1 << 10, "KB")):
        if count >= 10 * unit:
            return f"{count // unit} {name}"
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def count(number, what):
    return f"{number} {what}" + ("" if number == 1 else "s")


def loudness(dbm):
    """What a Wi-Fi signal is good for."""
    for least, word in ((-60, "good"), (-70, "fair"), (-80, "weak")):
        if dbm >= least:
            return word
    return "too weak"


def columns(text):
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def row(head, text, width):
    """Lines of a row with a heading; the width is at least 20."""
    text = f"{head:<{_INDENT}}{text}"
    if any(ord(c) > 0x2FF for c in text):  # a wide character counts twice, and textwrap counts it once
        width -= sum(columns(c) - 1 for c in text)
    return textwrap.wrap(
        text, max(width, 12), subsequent_indent=" " * min(_INDENT, width // 3), break_on_hyphens=False
    ) or [head]  # fmt: skip


def wrong(status):
    """What is wrong with a gateway, a list; none when all is well. `status`: /status.json."""
    found = list(status["health"]["why"]) if status["health"]["status"] != "ok" else []
    timeless = clock(status)
    if timeless and status["queue"]["waiting"]:
        found.append(timeless[0])
    if status["trouble"] and status["queue"]["waiting"]:
        found.append("no smart host takes mail")
    return found + [f"the sensor {s['name']} fails" for s in status["sensors"] if s["state"] == "failed"]


def clock(status):
    """(what is wrong with its clock, what to do), or None when it is set, or the gateway has just started."""
    if status["time"] is not None or status["uptime"] < _PATIENCE:
        return None
    waiting, oldest = status["queue"]["waiting"], status["health"]["age"]
    text = f"the clock is not set: no time server has answered for {span(status['uptime'])}"
    if waiting:
        text += f"; {count(waiting, 'mail')} {'waits' if waiting == 1 else 'wait'}"
        text += f", the oldest for {span(oldest)}" if oldest is not None else ""
    return text, (
        "see that the board has a network, that it reaches the servers of board.ntp, and that UDP port 123 is open to"
        " them; mail goes two minutes after the network is there all the same, with certificates checked by the day on"
        " which MicroPython was built; `edgepost doctor board.toml --board` tries it"
    )


def state(status, width):
    """The state of a gateway as lines. `status`: /status.json."""
    queue, heap = status["queue"], status["heap"]
    out = []

    def say(head, *texts):
        out.extend(row(head, ", ".join(clean(t) for t in texts if t), width))

    why = wrong(status)
    well = "UNWELL: " + "; ".join(why) if why else "all is well"
    out += textwrap.wrap(clean(f"{status['name']}: {well}"), max(width, 20), subsequent_indent="  ")
    oldest = status["health"]["age"]
    say(
        "queue",
        f"{queue['waiting']} waiting",
        oldest is not None and f"the oldest for {span(oldest)}",
        count(queue["dead"], "dead letter"),
        queue["damaged"] and f"{queue['damaged']} damaged",
        f"{octets(queue['bytes'])} of {octets(queue['max_bytes'])}",
    )
    sessions = status.get("sessions")
    say("mail", f"{status['delivered']} delivered", sessions is not None and count(sessions, "session"))
    timeless = clock(status)
    if timeless:
        say("clock", f"not set -> {timeless[1]}")
    if status["trouble"]:
        say("trouble", status["trouble"])
    for sensor in status["sensors"]:
        word = sensor["state"]
        what = f"{sensor['name']} {sensor['shown'] or '-'}, {word if word in ('ok', 'unread') else word.upper()}"
        age = sensor["age"] or 0
        say("sensor", what, sensor["fault"], age > 60 and f"{span(age)} old")
    if status["signal"] is not None:
        say("wifi", f"{status['signal']} dBm, {loudness(status['signal'])}")
    say("memory", f"heap {octets(heap['free'])} free of {octets(heap['free'] + heap['used'])}",
        f"flash {octets(queue['free'])} free")  # fmt: skip
    say("runs", f"for {span(status['uptime'])}", f"edgepost {status['version']}",
        f"MicroPython {status['micropython']}")  # fmt: skip
    for event in status["events"][-3:]:
        say("last", f"{span(event['age'])} ago: {event['text']}")
    return out


def summary(status):
    """The state of a gateway in one line."""
    queue, why = status["queue"], wrong(status)
    parts = ["UNWELL: " + "; ".join(why) if why else "all is well"]
    parts.append(f"{queue['waiting']} waiting, {count(queue['dead'] + queue['damaged'], 'dead letter')}")
    if status["trouble"]:
        parts.append(status["trouble"])
    parts += [f"{s['name']} {s['shown'] or '-'} {s['state']}" for s in status["sensors"] if s["state"] != "ok"]
    return clean(f"{status['name']}: " + "; ".join(parts))


def mail(item, width):
    """A mail of the queue as lines. `item` as in /queue."""
    out = []
    kind = {"kept": "dead", "bad": "damaged", "junk": "damaged"}.get(item["state"], item["state"])
    parts = [kind + (" (reported)" if item["state"] in ("kept", "junk") else "")]
    if item["priority"] != "normal":
        parts.append(item["priority"])
    parts += [octets(item["size"]), f"{span(item['age'])} old"]
    if kind == "waiting":
        parts.append((f"tried {count(item['attempts'], 'time')}, " if item["attempts"] else "")
                     + (f"due in {span(item['due'])}" if item["due"] else "due now"))  # fmt: skip
    out += row(item["id"], " " + ", ".join(parts), width)
    if item.get("queued_as"):
        out += row("  queued", "as " + clean(item["queued_as"]), width)
    out += row("  from", clean(item["from"] or "<>"), width)
    to = ", ".join(item["to"]) + (f" and {item['more']} more" if item["more"] else "")
    out += row("  to", clean(to or "?"), width)
    if item["reply"]:
        out += row("  said", clean(item["reply"]), width)
    return out
