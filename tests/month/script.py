"""What happens around a board: a script, a line for each event, made from a seed, and shrunk when it shows a failure.

    0 06:31:10 wifi away 312 silent     for 312 s; connections stand still ("silent") or break ("resets")
    0 07:00:00 power cut 12 60          with the 12th flash operation from here (0: at once; or in an hour), for 60 s
    1 00:00:00 ntp silent 200000        all time servers, for so many seconds
    1 00:00:00 ntp lies 86400 -3600     the first of three is an hour late
    4 18:00:00 host down 172800 silent  the smart host; it does not answer ("silent") or "refuses"
    2 10:00:00 host busy 900            it defers all mail
    2 10:00:00 host breaks 700          its next connection breaks after 700 octets
    2 11:00:00 freezer 3600 -5.5        a sensor's value for an hour; freezer: or "dead", "short", "crc"; oil: or "dead"
    2 11:00:00 door 60 1
    2 12:00:00 mail m1-3000             a device on the LAN sends one with 3,000 octets of text
    3 00:00:00 rtc reset                the board's clock says 2021
    3 01:00:00 flash fails 5            the fifth operation from here: EIO
    3 02:00:00 hang relay               or: loop, rule, server
    29 23:00:00 end
"""

import random

DAYS = 30
DAY = 86400
CALM = 1.5  # days at the end in which nothing happens any more


def stamp(seconds):
    day, rest = divmod(int(seconds), DAY)
    return f"{day} {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def seconds(line):
    day, clock = line.split()[:2]
    h, m, s = map(int, clock.split(":"))
    return int(day) * DAY + h * 3600 + m * 60 + s


def month(seed, days=DAYS):
    """The script (list of str) of a seed."""
    dice = random.Random(f"month {seed}")
    end = int((days - CALM) * DAY)
    share = days / DAYS
    events = []

    def often(count):
        """So many moments, fewer in a shorter month."""
        return sorted(dice.randrange(600, end) for _ in range(max(1, round(count * share))))

    def add(at, *words):
        """An event that lasts (its third word) is over before the calm."""
        events.append((int(at), " ".join(map(str, words))))

    def last(at, most):
        return max(1, min(int(most), end - int(at)))

    for at in often(500):
        kind = dice.random()
        span = dice.randrange(*((5, 60) if kind < 0.6 else (60, 1200) if kind < 0.96 else (1200, 14400)))
        add(at, "wifi away", last(at, span), dice.choice(("silent", "resets")))
    for at in often(30):
        add(at, "power cut", dice.choice((0, 1, 2, 3, 5, 8, 13, 21, 34)), dice.choice((2, 2, 60, 900)))
    add(days * 0.1 * DAY, "ntp silent", int(3.2 * DAY * share))
    for at in often(4):
        add(at, "ntp silent", last(at, dice.randrange(600, 40000)))
    add(days * 0.5 * DAY, "ntp lies", int(DAY * share), dice.choice((-7200, 3600, 40 * DAY)))
    # From Friday evening to Sunday evening; the month begins on a Sunday at noon.
    add(5.25 * DAY * share, "host down", int(2 * DAY * share), "silent")
    for at in often(12):
        add(at, "host down", last(at, dice.randrange(30, 7200)), dice.choice(("silent", "refuses")))
    for at in often(6):
        add(at, "host busy", last(at, dice.randrange(60, 3600)))
    for at in often(25):
        add(at, "host breaks", dice.randrange(20, 3000))
    for at in often(8):  # it flaps
        for _ in range(dice.randrange(4, 15)):
            span = dice.randrange(120, 1500)
            if at + span < end:
                add(at, "freezer", span, dice.choice((-11.5, -9.25, -2.0, -12.5, -11.0)))
            at += span + dice.randrange(60, 1200)
    for at in often(7):  # it stays warm
        add(at, "freezer", last(at, dice.randrange(1800, 40000)), round(dice.uniform(-11, 8), 2))
    for at in often(4):
        add(at, "freezer", last(at, dice.randrange(600, 20000)), dice.choice(("dead", "dead", "short", "crc")))
    for at in often(70):
        add(at, "door", last(at, dice.choice((60, 200, 600, 3000, 15000))), 1)
    for at in often(8):
        add(at, "oil", last(at, dice.randrange(600, 50000)), round(dice.uniform(0, 30), 1))
    for at in often(3):
        add(at, "oil", last(at, dice.randrange(300, 30000)), "dead")
    for n, at in enumerate(often(90)):
        add(at, "mail", f"m{n}-{dice.choice((100, 400, 900, 3000, 9000))}")
    for at in often(3):
        add(at, "rtc reset")
    for at in often(20):
        add(at, "flash fails", dice.randrange(1, 30))
    events.append((days * DAY, "end"))
    return [f"seed {seed}"] + [f"{stamp(at)} {text}" for at, text in sorted(events, key=lambda e: e[0])]


# -- a failing script becomes a short one


def clip(events, until):
    """The events before a moment, over by then."""
    out = []
    for event in events:
        at = seconds(event)
        if at < until:
            n, long = length(event)
            out.append(event if not n or at + long <= until else shorter(event, n, until - at))
    return out


def length(event):
    """(which word, its value) of the seconds that an event lasts, or (0, 0)."""
    words = event.split()
    for n in (3, 4):
        if len(words) > n and words[2] not in ("power", "flash", "mail") and words[3] != "breaks":
            if words[n].isdigit():
                return n, int(words[n])
    return 0, 0


def shorter(event, n, long):
    words = event.split()
    words[n] = str(max(1, int(long)))
    return " ".join(words)


def shrink(lines, fails, calm=7200):
    """A script as short as can be that still fails. lines: one that does; fails(lines): whether another one fails in
    the same way; calm: seconds behind its last event in which all that waits has to arrive."""
    head, *events = [line for line in lines if line.split()[2:] != ["end"]]

    def script(events, until):
        return [head, *events, f"{stamp(until + calm)} end"]

    until = seconds(lines[-1])
    best = lines
    # First the time, for each try takes as long as its script.
    low, high = 0, until
    while high - low > 7200:
        middle = (low + high) // 2
        some = clip(events, middle)
        if fails(script(some, middle)):
            high, best, events, until = middle, script(some, middle), some, middle
        else:
            low = middle
    # Then pieces of the list, ever smaller ones (Zeller and Hildebrandt's ddmin).
    size = max(1, len(events) // 2)
    while events:
        at = 0
        while at < len(events):
            some = events[:at] + events[at + size :]
            if fails(script(some, until)):
                events, best = some, script(some, until)
            else:
                at += size
        if size == 1:
            break
        size = max(1, size // 2)
    # Then what is left lasts shorter.
    for at, event in enumerate(events):
        while True:
            n, long = length(events[at])
            if not n or long < 20:
                break
            some = events[:at] + [shorter(event, n, long // 2)] + events[at + 1 :]
            if not fails(script(some, until)):
                break
            events, best = some, script(some, until)
    # And happens sooner.
    if events:
        early = seconds(events[0]) - 600
        if early > 0:
            some = [f"{stamp(seconds(e) - early)} {' '.join(e.split()[2:])}" for e in events]
            if fails(script(some, until - early)):
                best = script(some, until - early)
    return best
