"""Storms: alerts of one rule that follow one another become one mail, with a count and a span.

The first goes at once. One that comes while a mail of its rule still waits takes its place in the queue; one that comes
within the window after it was due starts a mail that waits for the end of that window. So a rule that flaps makes one
mail per window with all of it in it. A mail that is on its way, or has another priority or other recipients, is left as
it is. The envelope of each has s: [rule, count, arrival of the first, seconds of uptime then].

May use: date; knows the rows of a queue.
"""

from . import const
from .date import date
from .queue import Aborted, Mail

_ROW = const(4)  # as in queue
_HELD = const(0x3FFFFFFF)
_RULES = const(16)  # that are remembered; of the one beyond, the next alert simply is a new mail
_LOOK = const(64)  # mails of earlier starts that are looked at
_SMALL = const(4096)  # octets of those


def span(seconds):
    """A duration in words (str): "35 min 10 s"."""
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        n, seconds = divmod(int(seconds), size)
        if n:
            parts.append("%d %s" % (n, name))
    return " ".join(parts[:2]) or "0 s"


class Storms:
    """What is known of the rules whose alerts went into `queue`.

    window: seconds; offset(epoch): seconds east of UTC, for the dates in a mail.
    """

    def __init__(self, queue, window, offset):
        self.queue = queue
        self.window = window
        self.offset = offset
        self.rules = []  # [rule, priority, recipients, key, due, count, first t, first u], the latest last

    def add(self, rule, meta, subject, text, compose, priority):
        """Queues an alert, alone or in the mail that waits; returns (identity, alerts in that mail).

        meta: its envelope; compose(subject, text) gives the pieces of a mail. Raises QueueFull: what waits stays.
        """
        queue = self.queue
        now, when = meta["u"], meta["t"]
        known = self.find(rule, priority, meta["r"], now)
        if known:
            key, due, count, t, u = known[3:]
            count += 1
            if not t and when and u is not None:
                t = when - (now - u)
            meta["s"] = [rule, count, t, u]
            try:
                ident = queue.replace(key, meta, compose(
                    "[%dx] %s" % (count, subject), text + self.told(text, count, t, u, when, now)), True)
                known[4:] = max(due, now), count, t, u
                return ident, count
            except KeyError:
                pass  # it is on its way
        due = max(now, known[4] + self.window) if known else now
        meta["s"] = [rule, 1, when, now]
        ident = queue.add(meta, compose(subject, text), priority, True, due - now)
        if known:
            self.rules.remove(known)
        self.remember([rule, priority, meta["r"], priority << 28 | queue.last, due, 1, when, now])
        return ident, 1

    def remember(self, entry):
        self.rules.append(entry)
        if len(self.rules) > _RULES:
            self.rules.pop(0)
        return entry

    def told(self, text, count, t, u, when, now):
        """The line about the others."""
        if u is not None:
            length = now - u
        else:
            length = when - t if t and when else None
        out = "Raised %d times" % count
        if length is not None and length >= 0:
            out += " in " + span(length)
        for name, epoch in (("first", t), ("last", when)):
            if epoch:
                out += ", %s at %s" % (name, date(epoch, self.offset(epoch)))
        return ("\n\n" if text else "") + out + ".\n"

    def find(self, rule, priority, rcpts, now):
        """The entry of a rule, or None. It is the latest then."""
        rules = self.rules
        for i in range(len(rules)):
            if rules[i][:3] == [rule, priority, rcpts]:
                rules.append(rules.pop(i))
                return rules[-1]
        # One that waits since before this start, so that a board that starts again and again does not fill its queue.
        queue = self.queue
        rows = queue.rows
        left = _LOOK
        for i in range(len(rows) - _ROW, -1, -_ROW):
            key = rows[i]
            if key >> 28 != priority or key & 0xFFFFFFF > queue.born or rows[i + 3] > _SMALL or rows[i + 1] == _HELD:
                continue
            left -= 1
            if left < 0:
                break
            try:
                mail = Mail(queue, key, queue.path + "/" + queue.name_now(i))
            except (Aborted, ValueError, KeyError, OSError):
                continue  # take() will set it aside
            meta = mail.meta
            if meta.get("s", ("",))[0] == rule and meta["r"] == rcpts:
                _, count, t, _ = meta["s"]
                return self.remember([rule, priority, rcpts, key, now - self.window, count, t, None])
