"""What gives way when the queue is full, by the rule that the user chose (Queue.displace):

    "never"     nothing
    "dead"      dead letters and damaged files that somebody knows of, the oldest first: to any mail, or a cupboard full
                of them would take no more
    "oldest"    then also, to an alert alone, waiting mail that is not more important and not on its way: the least
    "newest"    important first, and of those the oldest, or the newest

Each is noted in the file -gone before it is removed: 4 KB of lines, from then on only their number. A power cut in
between leaves the note of a mail that is still there and will be delivered.

May use: queue, letters, fold (for the words of an age).
"""

import json

from . import const
from .fold import span
from .letters import find
from .queue import QueueFull

_ROW = const(4)  # as in queue
_HELD = const(0x3FFFFFFF)
_LINES = const(4096)  # octets
_HEAD = const(8192)  # octets of an envelope
_ENOUGH = const(65536)  # octets that are freed beyond what is needed: more would not help, others fill this flash


def make_room(queue, size, instead, meta, key, lack, waiting=True):
    """Removes mails until one of `size` octets fits, as Queue.check_room() has it. Raises `lack`, a QueueFull, when all
    that may give way would not be enough, and then removes none (but when others have filled the flash: what a removal
    frees there is not known before).

    meta: the envelope of the mail to come; key: its own, or the first of its priority; instead: see check_room();
    waiting: waiting mail may go, too.
    """
    rows = queue.rows
    waiting = waiting and queue.displace != "dead"
    need = queue.cost(size + 300) + queue.coming
    known = ("kept", "junk") if queue.reports else ("dead", "kept", "bad", "junk")  # nobody else will ever know
    gain = sum([queue.cost(octets) for _, mark, octets in queue.letters() if mark in known])
    count = 0
    if waiting:
        for i in range(0, len(rows), _ROW):
            if _may_go(rows, i, key):
                gain += queue.cost(rows[i + 3])
                count += 1
    if (
        (not instead and len(queue) - count >= queue.max_count)
        or queue.used - gain + need - instead > queue.max_bytes
        or queue.look(need) + gain < need
    ):
        raise lack
    least = queue.used - need - _ENOUGH

    def fits():
        try:
            queue.check_room(size, instead)
            return True
        except QueueFull:
            if queue.used < least:
                raise
            return False

    def drop():
        i = _first(queue, key) if waiting else None
        if i is None:
            raise lack
        name = queue.name_now(i)
        _note(queue, meta, rows[i], name, queue.state(rows[i])[0], "it waited")
        if not queue.remove_file(name):
            raise lack
        if queue.state(rows[i])[1]:
            queue.remove_file("%08x-why" % rows[i])
        queue.used -= queue.cost(rows[i + 3])
        queue.forget(i)
        _told(queue)

    while not instead and len(queue) >= queue.max_count:
        drop()
    for k, mark, _ in queue.letters():
        if mark in known:
            if fits():
                return
            name, _, _, done = find(queue, k)
            _note(queue, meta, k, name, done, "damaged" if mark in ("bad", "junk") else "a dead letter")
            queue.delete(k)
            _told(queue)
    while not fits():
        drop()


def _may_go(rows, i, key):
    return rows[i] >> 28 >= key >> 28 and rows[i + 1] != _HELD and rows[i] != key


def _first(queue, key):
    """The row of the waiting mail that goes first, or None."""
    rows = queue.rows  # in the order of keys: the least important last, and of those the newest
    found = None
    for i in range(0, len(rows), _ROW):
        if _may_go(rows, i, key) and (
            found is None or queue.displace == "newest" or rows[i] >> 28 > rows[found] >> 28
        ):
            found = i
    return found


def _told(queue):
    queue.displaced += 1
    if queue.on_dead:
        queue.on_dead()


def _line(queue, meta, key, name, done, what):
    """What a person needs to know of a mail that goes. meta: of the one that comes, which knows what time it is."""
    try:
        head = b""
        with open(queue.path + "/" + name, "rb") as f:
            while head[-1:] != b"\n" and len(head) < _HEAD:
                head += f.readline(256)
        his = json.loads(head)
        to = [r for n, r in enumerate(his["r"]) if not done >> n & 1]
        text = "%s (%08x) from <%s> to %s" % (his["i"], key, his["f"], ", ".join(["<%s>" % r for r in to[:3]]))
        if len(to) > 3:
            text += " and %d more" % (len(to) - 3)
        age = None
        if his["b"] == queue.boot and "u" in his:
            age = queue.uptime() - his["u"]
        elif his.get("t") and meta.get("t"):
            age = meta["t"] - his["t"]
        if age is not None and age >= 0:
            text += ", %s old" % span(age)
    except (OSError, ValueError, KeyError, TypeError, MemoryError):
        text = "%08x" % key
    return text + ", " + what


def _note(queue, meta, key, name, done, what):
    line = _line(queue, meta, key, name, done, what)
    if queue.log:
        queue.log("gives way: " + line)
    old = _name(queue)
    try:
        with open(queue.path + "/" + old, "ab") as f:
            if f.seek(0, 2) < _LINES:
                f.write(line.encode() + b"\n")
                return
        queue.rename(old, queue.name(0, queue.unnamed + 1, 0, 0, 0) + "-gone")
        queue.unnamed += 1
    except OSError:
        pass  # a flash so full takes no note; the log has it


def _name(queue):
    return queue.name(0, queue.unnamed, 0, 0, 0) + "-gone"


def gone(queue):
    try:
        with open(queue.path + "/" + _name(queue), "rb") as f:
            lines = str(f.read(), "utf-8").split("\n")[:-1]
    except (OSError, ValueError):
        lines = []
    if queue.unnamed:
        lines.append("and %d more" % queue.unnamed)
    return lines
