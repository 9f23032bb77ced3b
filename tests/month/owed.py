"""What a gateway owes to those whom it tells: worked out from the script of a month, from what its sensors said when
they were read, and from nothing else of the gateway; and whether the mailboxes hold that.

judge(lines, facts, config) gives a list of Broken: lines of the script, facts as outside.py tells them. Its rules are
those of docs/configuration.md (see "When it tells") and docs/queue.md. What a power cut may rightly do:

    an alert in the making may come twice, or its recovery even where none is asked for (docs: "After a power cut")
    a mail that was in flight when a connection, the power or one write of the flash failed may come twice
    readings while the power is off do not exist, and `for` starts anew

May use: script.
"""

import email.header
import email.utils
from collections import Counter, defaultdict, namedtuple

import script

START = 1795348800  # seconds since 1970 at which a script begins, as in world
_SOON = 2.0  # seconds in which a reading and all that follows from it are over
_LATE = 5100  # seconds for which a mail may wait while all is well: an hour between two attempts, and a quarter more

_RETRY = 65  # seconds between two tries to write an alert

Broken = namedtuple("Broken", "rule text")
Event = namedtuple("Event", "t name kind word boot")
KINDS = ("alert", "repeat", "recovery", "failed", "failed again", "read again")


class Boot:
    def __init__(self, fact):
        _, self.start, self.cause, self.told, self.spool = fact
        self.end = None
        self.how = "end"
        self.samples = defaultdict(list)


class Judge:
    def __init__(self, lines, facts, config):
        self.config = config
        self.rules = {rule["name"]: rule for rule in config["sensor"]}
        self.script = [(script.seconds(line), line.split()[2:]) for line in lines if not line.startswith("seed")]
        self.broken = []
        self.boots = []
        self.taken = []  # (t, Message-ID, subject, date, recipients)
        self.promised = {}
        self.trouble = []  # moments after which a mail may come again
        self.eio = []
        self.days = []
        self.end = None
        for fact in facts:
            self.read(fact)
        for at, words in self.script:
            if words[0] == "wifi":
                self.trouble += [at, at + int(words[2])]
        self.trouble.sort()
        self.bad = self.bad_times()

    def read(self, fact):
        what, t = fact[0], fact[1]
        boot = self.boots[-1] if self.boots else None
        if what == "boot":
            self.boots.append(Boot(fact))
        elif what == "sample":
            boot.samples[fact[2]].append((t, fact[3], fact[4]))
        elif what == "taken":
            self.taken.append((t, fact[2], decode(fact[3]), fact[4], fact[5]))
        elif what == "promised":
            self.promised[fact[2]] = t
        elif what == "wrong":
            self.say("wrong", f"{script.stamp(t)} {fact[2]}")
        elif what == "day":
            self.days.append(fact[1:])
        elif what == "broke":
            self.trouble.append(t)
        elif what == "eio":
            self.eio.append(t)
            self.trouble.append(t)
        elif what in ("cut", "bite", "reset", "end"):
            boot.end, boot.how = t, what
            self.trouble.append(t)
            if what == "end":
                self.end = fact
            elif what == "reset":
                self.say("crash", f"{script.stamp(t)} the gateway crashed: {fact[2]}")
            elif what == "bite":
                boot.why = fact[2]

    def say(self, rule, text):
        self.broken.append(Broken(rule, text))

    # -- what was true

    def truth(self, name, t):
        """What the world had for a sensor at `t`."""
        last = {"freezer": -18.0, "door": 0.0, "oil": 80.0, "pump": 1.0}[name]
        for at, words in self.script:
            if words[0] == name and at <= t < at + int(words[1]):
                last = words[2] if words[2][-1:].isalpha() else float(words[2])
        return last

    def check_samples(self):
        for boot in self.boots:
            for name, rule in self.rules.items():
                most = rule["every"] + rule.get("timeout", 10) + 5
                last = boot.start
                for t, value, fault in boot.samples[name]:
                    if t - last > most:
                        self.say("reading", f"{script.stamp(last)} {name} is not read for {t - last:.0f} s")
                    last = t
                    wanted = [self.truth(name, t), self.truth(name, t - _SOON)]
                    if value is None:
                        if not any(isinstance(w, str) for w in wanted):
                            self.say("reading", f"{script.stamp(t)} {name} is well and cannot be read: {fault}")
                    elif not any(not isinstance(w, str) and abs(value - w) < 0.1 for w in wanted):
                        self.say("reading", f"{script.stamp(t)} {name} is {wanted[0]} and is read as {value}")
                if boot.end - last > most and boot.how != "bite":
                    self.say("reading", f"{script.stamp(last)} {name} is not read any more")

    # -- what is owed

    def owed(self, name):
        """(events that are owed, events that may be told as well) of a rule."""
        rule = self.rules[name]
        keys = {"over": name, "ill": name + "\tfailed"}
        sure, maybe = [], []
        told = {"over": None, "ill": None}  # what people were told, as far as a start may know it
        open_events = []  # of the start before, that its end may have cut short
        changed = {"over": -10, "ill": -10}  # when that changed last
        for number, boot in enumerate(self.boots):
            for alarm, key in keys.items():
                found = boot.told.get(key)
                cut_short = [e for e in open_events if (e.kind in KINDS[3:]) == (alarm == "ill")]
                cut = number and self.boots[number - 1].end - changed[alarm] < _SOON
                if found != told[alarm] and not cut_short and not cut and not self.failed_write(number - 1):
                    self.say("memory", f"{script.stamp(boot.start)} {name}: {told[alarm]} was told, {found} is known")
                for e in cut_short:
                    kept = e.kind in ("alert", "failed") and found == e.word
                    kept = kept or e.kind in ("recovery", "read again") and found is None
                    (sure if kept else maybe).append(e)
                told[alarm] = found
            events = self.events(rule, boot, number, told, changed)
            open_events = [e for e in events if self.is_open(e, boot)]
            sure += [e for e in events if e not in open_events]
        return sure + [e for e in open_events if self.boots[-1].how == "end"], maybe

    def failed_write(self, number):
        boot = self.boots[number]
        return any(boot.start <= t <= boot.end for t in self.eio)

    def is_open(self, event, boot):
        """Whether the end of its start may have come before it was told, or recorded as told."""
        if boot.how == "end":
            return False
        again = 2 * _RETRY  # a write that failed is tried again
        return boot.end - event.t < _SOON or boot.end - event.t < 2 * again and any(
            event.t - _SOON <= t <= event.t + again for t in self.eio)

    def events(self, rule, boot, number, told, changed):
        """What a rule tells between a start and its end. told: what was told before; it and `changed` are brought up to
        date."""
        every_so_often = rule.get("repeat") or 0
        limits = {w: rule[w] for w in ("above", "below") if rule.get(w) is not None}
        out = []
        due = {"over": every_so_often, "ill": every_so_often}
        since = None  # (word, when): the last readings say so
        failed = 0

        def tell(kind, word=None):
            out.append(Event(t, rule["name"], kind, word, number))

        for t, value, _ in boot.samples[rule["name"]]:
            up = int(round((t - boot.start) * 1000)) // 1000
            if value is None:
                failed += 1
                most = rule.get("failures", 3)
                if told["ill"] == "failed":
                    if every_so_often and up >= due["ill"]:
                        tell("failed again")
                        due["ill"] = up + every_so_often
                elif most and failed >= most:
                    tell("failed", "failed")
                    told["ill"] = "failed"
                    changed["ill"] = t
                    due["ill"] = up + every_so_often
                if told["ill"]:
                    since = None
                continue
            failed = 0
            if told["ill"]:
                if rule.get("recovery") or told["ill"].endswith("?"):
                    tell("read again")
                told["ill"] = None
                changed["ill"] = t
            word = None
            for side, bound in limits.items():
                slack = rule.get("hysteresis", 0) if told["over"] == side else 0
                if value > bound - slack if side == "above" else value < bound + slack:
                    word = side
                    break
            if word is None:
                since = None
                if told["over"]:
                    if rule.get("recovery") or told["over"].endswith("?"):
                        tell("recovery")
                    told["over"] = None
                    changed["over"] = t
                continue
            if not since or since[0] != word:
                since = word, up
            if told["over"] == word:
                if every_so_often and up >= due["over"]:
                    tell("repeat")
                    due["over"] = up + every_so_often
            elif up - since[1] >= rule.get("for", 0):
                tell("alert", word)
                told["over"] = word
                changed["over"] = t
                due["over"] = up + every_so_often
        return out

    # -- what came

    def check_mails(self):
        first = {}
        by_rule = defaultdict(dict)  # name -> {Message-ID: (t, kind, count, date)}
        others = Counter()
        devices = defaultdict(set)
        for t, ident, subject, date, rcpts in self.taken:
            if ident in first:
                if not any(first[ident] - _SOON <= x <= t for x in self.trouble):
                    self.say("twice", f"{script.stamp(t)} {subject!r} came twice, and nothing was wrong meanwhile")
                continue
            first[ident] = t
            count = 1
            if subject.startswith("["):
                count, _, subject = subject[1:].partition("x] ")
            name = subject.partition(":")[0]
            if name in self.rules:
                by_rule[name][ident] = (t, kind(subject), int(count), date)
            elif name == self.config["board"]["name"]:
                others["report" if "crash" in subject else "heartbeat"] += int(count)
            elif rcpts == [subject + ".1@example.net"]:
                devices[subject].add(ident)
            else:
                self.say("invented", f"{script.stamp(t)} a strange mail: {subject!r}")
        for name in self.rules:
            self.compare(name, by_rule[name])
        self.check_devices(devices, first)
        self.check_heartbeats(others["heartbeat"])
        self.check_reports(others["report"])

    def compare(self, name, mails):
        sure, maybe = self.owed(name)
        if self.config["mail"].get("fold", 600):
            # Recoveries fold among themselves, alerts and repeats too: what counts is how many.
            groups = (("alert", "repeat"), ("recovery",), ("failed", "failed again"), ("read again",))
        else:
            groups = [(k,) for k in KINDS]
        for group in groups:
            what = "/".join(group)
            wanted = [e for e in sure if e.kind in group]
            more = [e for e in maybe if e.kind in group]
            came = [m for m in mails.values() if m[1] in group]
            got = sum(m[2] for m in came)
            if got < len(wanted):
                self.say("lost", f"{name}: {len(wanted)} times {what}, {got} came. {self.gap(wanted, came)}")
            elif got > len(wanted) + len(more) + self.refolded(came):
                self.say("invented", f"{name}: {len(wanted)} times {what} and {len(more)} times perhaps, {got} came. "
                         f"{self.gap(came, wanted + more)}")
            for t, k, count, date in came:
                since = self.stamp(date)
                if since is not None and self.waited(since, t) > _LATE:
                    self.say("late", f"{script.stamp(t)} {name}, {k}: it was raised at {script.stamp(since)}")
                if count == 1 and not self.dated(t, date, wanted + more):
                    self.say("date", f"{script.stamp(t)} {name}, {k}: it is dated {date or 'not at all'}")

    def bad_times(self):
        """(from, to) of what keeps mail from going."""
        bad = [(at, at + int(words[2])) for at, words in self.script
               if words[:2] in (["wifi", "away"], ["host", "down"], ["host", "busy"])]
        bad += [(a.end, b.start + 120) for a, b in zip(self.boots, self.boots[1:], strict=False)]
        return sorted(bad)

    def waited(self, since, until):
        """The longest time between two moments in which nothing kept mail from going, in seconds."""
        most, at = 0, since
        for a, b in self.bad:
            if b > since and a < until:
                most = max(most, a - at)
                at = max(at, b)
        return max(most, until - at)

    def refolded(self, came):
        """Alerts that were on their way already when others of the rule took their place."""
        return sum(m[2] for m in came if any(m[0] - 1 <= x <= m[0] + 400 for x in self.trouble)) if (
            self.config["mail"].get("fold", 600)) else 0

    def gap(self, some, others):
        """The first of `some` that has no counterpart, by its time."""
        there = sorted(self.moment(o) for o in others)
        for one in sorted(some, key=self.moment):
            at = self.moment(one)
            near = [x for x in there if abs(x - at) < 90]
            if not near:
                return f"The first: {script.stamp(at)}"
            there.remove(near[0])
        return ""

    def moment(self, one):
        if isinstance(one, Event):
            return one.t
        stamp = self.stamp(one[3])
        return one[0] if stamp is None else stamp

    def stamp(self, date):
        return email.utils.parsedate_to_datetime(date).timestamp() - START if date else None

    def dated(self, t, date, events):
        """Whether a mail that came at `t` has the date of one of the events."""
        at = self.stamp(date)
        for e in events:
            if at is None:
                if not self.knows_time(e.boot) or e.boot != self.boot_at(t):
                    return True
            elif -5 < at - e.t < 5 + self.delayed(e) or e.boot != self.boot_at(t) and e.t - 5 < at < t + 5:
                return True
        return False

    def delayed(self, event):
        """Seconds that an event may have waited for the flash."""
        return 2 * _RETRY if any(event.t - _SOON <= x <= event.t + _RETRY for x in self.eio) else 0

    def knows_time(self, number):
        """Whether a start had the chance to hear a time server."""
        boot = self.boots[number]
        silent = [(at, at + int(words[2])) for at, words in self.script if words[:2] == ["ntp", "silent"]]
        return not any(a <= boot.end and boot.start <= b for a, b in silent) and boot.end - boot.start > 900

    def boot_at(self, t):
        return max(n for n, boot in enumerate(self.boots) if boot.start <= t)

    def check_devices(self, devices, first):
        sent = {words[1]: at for at, words in self.script if words[0] == "mail"}
        for name in sent:
            if name not in self.promised:
                self.say("refused", f"{name}: no device got it accepted")
            elif name not in devices:
                self.say("lost", f"{name} was accepted at {script.stamp(self.promised[name])} and never came")
        for name, idents in devices.items():
            if name not in sent:
                self.say("invented", f"nobody sent {name}")
            elif len(idents) > 1 and not any(sent[name] - 2 <= x <= self.promised.get(name, 0) for x in self.trouble):
                self.say("twice", f"{name} came {len(idents)} times, and its device was told the first time")

    def check_heartbeats(self, came):
        every = self.config["mail"].get("heartbeat")
        least = most = 0
        for boot in self.boots if every else ():
            length = boot.end - boot.start
            least += max(0, int((length - 140) // (every + 60)) + 1) if length > 140 else 0
            most += int(length // every) + 1
        most += len(self.eio)
        if not least <= came <= most:
            self.say("heartbeat", f"{came} heartbeats came, {least} to {most} are right")

    def check_reports(self, came):
        bites = [boot for boot in self.boots if boot.how == "bite"]
        hangs = [words for _, words in self.script if words[0] == "hang"]
        if len(bites) != len(hangs):
            self.say("watchdog", f"{len(hangs)} things hung, the watchdog bit {len(bites)} times: "
                     + ", ".join(f"{script.stamp(b.end)} {b.why}" for b in bites))
        if bool(came) != bool(bites):
            self.say("report", f"{came} reports of {len(bites)} crashes came")

    # -- bounds

    def check_bounds(self):
        if self.end is None:
            self.say("wrong", "it did not come to its end")
            return
        if self.end[2]:
            self.say("stuck", f"left in the spool: {self.end[2]}")
        most = (self.config.get("log") or {}).get("max_bytes", 0)
        for t, _, _, log, _ in self.days:
            if log > most:
                self.say("bounds", f"{script.stamp(t)} the log has {log} octets, {most} are allowed")
        if len(self.days) > 14:
            # Each start loads what it needs when it needs it: the most of half a month is what all of that takes.
            half = len(self.days) // 2
            heap = max(day[1] for day in self.days[:half])
            heap_after = max(day[1] for day in self.days[half:])
            blocks, blocks_after = self.days[0][2], self.days[-1][2]
            if heap_after > heap + 6144:
                self.say("bounds", f"{heap} octets of heap in the first half, {heap_after} in the second")
            used = 2 * -(-most // 4096) + 4
            if blocks_after < blocks - used:
                self.say("bounds", f"{blocks} blocks of flash were free on the first day, {blocks_after} on the last")

    def all(self):
        if not self.boots or self.boots[-1].end is None:
            self.say("wrong", "it did not come to its end")
            return self.broken
        self.check_samples()
        self.check_mails()
        self.check_bounds()
        return self.broken


def judge(lines, facts, config):
    return Judge(lines, facts, config).all()


def decode(subject):
    return str(email.header.make_header(email.header.decode_header(subject)))


def kind(subject):
    for text, name in (
        ("still cannot be read", "failed again"), ("can be read again", "read again"), ("cannot be read", "failed"),
        ("ok after", "recovery"), (": still ", "repeat"),
    ):  # fmt: skip
        if text in subject:
            return name
    return "alert"
