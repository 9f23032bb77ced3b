"""Sensor rules: read a sensor every so often, tell when it crosses its limit, when that is over, and when the sensor
cannot be read.

A driver is a module of drivers/ with a class Driver(rule, board) and its method read(), a function or a coroutine,
which gives a number or raises; it is loaded only when a rule names it, by the rule's own task: what is wrong with one
sensor is a failed reading of this one. All times are seconds of uptime; the time of day decides nothing.

What people were told outlives a power cut, in a file that is written only when that changes: no alert again for a
freezer that is still warm, and its recovery is not forgotten. An alert in the making has a "?" there. After a cut
nobody knows whether it was queued: it is raised again, or its recovery is told in any case.

May use: wording, smtp.queue, smtp.fold.
"""

import asyncio
import json
import os

from smtp import const
from smtp.queue import QueueFull

_WAITING = const(8)  # mails that a rule keeps while there is no room for them; then it waits itself
_LATE = const(60)  # seconds after which a mail says so, and what waits is tried again
_NEVER = const(0x3FFFFFFF)


class NotNow(Exception):
    """A driver cannot tell, and it is not the sensor's fault: as if it had not been asked."""


class Told:
    """What people were told last: {"freezer": "above"}, in the file `path`."""

    def __init__(self, path, log):
        self.path = path
        self.log = log
        self.now = {}
        self.dirty = False
        try:
            with open(path) as f:
                self.old = {k: str(v) for k, v in json.load(f).items()}
        except (OSError, ValueError, AttributeError):
            self.old = {}

    def set(self, key, word):
        if self.now.get(key) == word and not self.dirty:
            return
        self.now[key] = word
        if not word:
            self.now.pop(key)
        try:
            with open(self.path + ".new", "w") as f:
                json.dump(self.now, f)
            os.rename(self.path + ".new", self.path)
            self.dirty = False
        except OSError as e:
            self.dirty = True
            self.log("sensor", "cannot write %s: %s. An alert may come twice after a restart" % (self.path, e))


class Alarm:
    """Something that can be wrong, by a word such as "above", and when to tell of it."""

    def __init__(self, key, words, hold, repeat, told, now):
        self.key = key
        self.hold = hold  # seconds that it lasts before it is told
        self.repeat = repeat  # seconds between two mails while it lasts, or 0
        self.start = now
        self.due = now + repeat  # of the next of those
        self.seen = None  # the word of the last reading
        self.since = now  # since when it is that
        self.began = None  # when this began; None: before this start
        self.raised = told.old.get(key)  # what was told
        if (self.raised or "").rstrip("?") not in words:
            self.raised = None  # another configuration
        if self.raised:
            told.now[key] = self.raised

    def see(self, word, now):
        """What to tell: "alert", "repeat", "recovery" or None. word: what is wrong, or None."""
        if word != self.seen:
            self.seen = word
            self.since = now
        raised = self.raised
        if word is None:
            self.raised = None
            return raised and "recovery"
        if word != raised:
            if now - self.since < self.hold:
                return None
            if not raised:
                self.began = self.since
            self.raised = word
        elif not self.repeat or now < self.due:
            return None
        self.due = now + self.repeat
        return "repeat" if word == raised else "alert"


class Rule:
    """One [[sensor]] of the configuration. `alert` and `log` as in gateway; uptime(): seconds; told: a Told.

    For others to see: value, the last good one; at, its time; fault, what the driver says, or None; alive, the end of
    the last step; over.raised and ill.raised, what people were told.
    """

    value = at = fault = driver = None
    failed = 0  # readings, one after the other
    stuck = False

    def __init__(self, rule, board, alert, log, uptime, told):
        get = rule.get
        self.rule = rule
        self.board = board
        self.alert = alert
        self.log = log
        self.uptime = uptime
        self.told = told
        self.name = name = rule["name"]
        self.words = get("words")
        self.limits = {w: rule[w] for w in ("above", "below") if get(w) is not None}
        self.alive = now = uptime()
        repeat = get("repeat", 0)
        self.over = Alarm(name, self.limits, get("for", 0), repeat, told, now)
        self.ill = Alarm(name + "\tfailed", ("failed",), _NEVER, repeat, told, now)
        self.outbox = []

    def crossed(self, value):
        """"above", "below" or None. What was told needs `hysteresis` to be over."""
        for word, bound in self.limits.items():
            slack = self.rule.get("hysteresis", 0) if word == self.over.raised else 0
            if value > bound - slack if word == "above" else value < bound + slack:
                return word

    async def read(self):
        if not self.driver:
            rule = self.rule
            name = rule.get("driver")
            try:
                self.driver = __import__("drivers.%s" % name, None, None, ("Driver",)).Driver(rule, self.board)
            except (AttributeError, ImportError, KeyError, SyntaxError, TypeError, ValueError) as e:
                at = rule.get("path", "") if rule.get("pin") is None else "pin %s" % rule["pin"]
                raise OSError("its driver %s does not start%s: %s%s" % (
                    name, at and " with " + at, e, " is missing" if isinstance(e, KeyError) else ""))
        value = self.driver.read()
        if hasattr(value, "send"):
            most = self.rule.get("timeout", 10)
            try:
                value = await asyncio.wait_for(value, most)
            except asyncio.TimeoutError:
                raise OSError("no answer within %g s" % most)
        if not isinstance(value, (int, float, bool)) or not abs(value) < 1e30:
            raise ValueError("%r is no value" % (value,))
        return value + 0  # a bool is a number

    async def step(self):
        """One reading, and what follows from it."""
        self.flush()
        if len(self.outbox) < _WAITING:
            try:
                value = await self.read()
            except Exception as e:
                fault = str(e) or type(e).__name__
                if fault != self.fault:
                    self.fault = fault
                    self.log("sensor", "%s cannot be read: %s" % (self.name, fault))
                ours = isinstance(e, NotNow)
                if not ours:
                    self.failed += 1
                    most = self.rule.get("failures", 3)
                    self.ill.hold = 0 if most and self.failed >= most else _NEVER
                    self.tell(self.ill, "failed")
                if ours or self.ill.raised:
                    self.over.seen = None  # nobody knows how long it has lasted
            else:
                self.value = value
                self.fault = None
                self.failed = 0
                self.tell(self.ill, None)
                self.tell(self.over, self.crossed(value))
                self.at = self.uptime()
            self.flush()
        self.alive = self.uptime()

    def tell(self, alarm, word):
        """What is wrong now (a word or None), to one of the two alarms: what is to be told goes into the outbox."""
        now = self.uptime()
        was = alarm.raised
        event = alarm.see(word, now)
        if not event:
            return
        try:
            import wording

            key = name = alarm.key
            subject, text = wording.mail(self, event, alarm, word or was.rstrip("?"), now)
            if event == "alert":
                self.told.set(key, word + "?")
            elif event == "recovery":
                name += "\tok"
                if not self.rule.get("recovery") and was[-1] != "?":
                    self.log("sensor", subject)
                    subject = None
            self.outbox.append((subject, text, name, now, key, alarm.raised))
        except MemoryError:
            alarm.raised = was  # the next reading tries again
            raise

    def flush(self):
        """Queues what waits, in its order, as far as there is room."""
        while self.outbox:
            subject, text, name, at, key, word = self.outbox[0]
            if subject:
                late = self.uptime() - at
                if late > _LATE:
                    from smtp.fold import span

                    text += "\n\nThis was %s ago; there was no room for this mail." % span(late)
                try:
                    self.alert(subject, text, self.rule.get("to") or None, self.rule.get("priority", "normal"), name)
                except (QueueFull, OSError) as e:
                    if not self.stuck:
                        self.stuck = True
                        self.log("sensor", "%s: no room for an alert, it waits: %s" % (self.name, e))
                    return
            self.stuck = False
            self.told.set(key, word)
            self.outbox.pop(0)

    async def run(self):
        while True:
            await self.step()
            left = self.rule["every"]
            while self.outbox and left > _LATE:  # it need not wait for the next reading
                await asyncio.sleep(_LATE)
                left -= _LATE
                self.flush()
            await asyncio.sleep(left)
