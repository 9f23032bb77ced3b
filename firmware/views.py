"""What the status service shows, as JSON and plain text: the queue, sensors, events, log. Loaded while somebody asks.

Nothing is whole in memory but one line or item: answers are generators of pieces.

May use: status, unwell, gateway, smtp.letters.
"""

import gc
import json
import os
import sys

import gateway
import status
from crash import clean
from routes import answer
from smtp import const
from smtp.letters import find
from unwell import health

_ROW = const(4)  # as in queue
_HELD = const(0x3FFFFFFF)
_AGAIN = const(2)
_HEAD = const(4096)  # octets of an envelope that are read
_SHOWN = const(3)  # recipients of a mail
_LINE = const(200)  # characters
_PAGE = const(20)  # mails in one answer
_JSON = "application/json"


def envelope(path):
    """The envelope of a spool file, {} when it is too long or cannot be read."""
    try:
        head = b""
        with open(path, "rb") as f:
            while head[-1:] != b"\n" and len(head) < _HEAD:
                piece = f.readline(256)
                if not piece:
                    return {}
                head += piece
        return json.loads(head)
    except (OSError, ValueError):
        return {}


def age(meta, attempts, again):
    """Seconds since a mail arrived, None when nobody can tell. See relay.Relay.age()."""
    queue = gateway.queue
    if not again:
        if meta.get("b") == queue.boot:
            return queue.uptime() - meta.get("u", 0)
        now = gateway.time.now()
        if now and meta.get("t"):
            return max(0, now - meta["t"])
    least = sum([status.relay.delay(n) for n in range(attempts)])
    return least if again else max(least, queue.uptime())  # it was there at the start


def reply(ident):
    """What was last said of a mail that waits, or None."""
    found = None
    for line in status.events.lines():
        text = line.partition(" ")[2]
        if text.startswith(ident + " deferred for "):
            found = text[len(ident) + 1 :]
    return found


def describe(key, meta, mark, size, attempts, done, again):
    """A mail as JSON has it."""
    to = meta.get("r", ())
    left = [r for i, r in enumerate(to) if not done >> i & 1]
    return {
        "id": "%08x" % key,
        "queued_as": meta.get("i"),
        "state": mark,
        "priority": ("urgent", "normal", "low")[key >> 28],
        "from": meta.get("f"),
        "to": left[:_SHOWN],
        "more": max(0, len(left) - _SHOWN),
        "age": age(meta, attempts, again),
        "size": size,
        "attempts": attempts,
        "due": None,
        "reply": None,
    }


def waiting(key):
    """A waiting mail. Raises KeyError."""
    queue = gateway.queue
    i = queue.row(key)
    due, attempts, size = queue.rows[i + 1], queue.rows[i + 2], queue.rows[i + 3]
    done, failed, flags = queue.state(key)
    meta = envelope(queue.path + "/" + queue.name_now(i))
    item = describe(key, meta, "waiting", size, attempts, done | failed, flags & _AGAIN)
    if due == _HELD:
        item["state"] = "on its way"
    else:
        item["due"] = max(0, due - queue.uptime())
    item["reply"] = reply(meta.get("i") or "-")
    return item


def letter(key):
    """A dead letter or damaged file. Raises KeyError."""
    queue = gateway.queue
    file, mark, size, done = find(queue, key)
    item = describe(key, envelope(queue.path + "/" + file), mark, size, 0, done, False)
    try:
        with open(queue.path + "/%08x-why" % key, "rb") as f:
            f.seek(max(0, f.seek(0, 2) - _LINE))
            item["reply"] = str(f.read(), "utf-8").split("\n")[-2].partition(" ")[2]  # behind the recipient's number
    except (OSError, ValueError, IndexError):
        pass
    return item


def mails(kind, after, most):
    """`most` mails behind the key `after`, in the order of the queue; kind: "w" for those that wait, "d" for dead
    letters and damaged files."""
    queue = gateway.queue
    if kind == "d":
        for key, _, _ in queue.letters():
            if most and key & 0xFFFFFFF > after:
                most -= 1
                try:
                    yield letter(key)
                except KeyError:
                    pass  # it has gone meanwhile
        return
    while most:
        i = queue.slot(after + 1)
        if i >= len(queue.rows):
            return
        after = queue.rows[i]
        most -= 1
        yield waiting(after)


def signal():
    """dBm of the Wi-Fi, or None."""
    if status.board.BARE:
        try:
            import network

            return network.WLAN(network.STA_IF).status("rssi")
        except (OSError, ValueError, AttributeError):
            pass


def sensor(rule):
    """A rule as JSON has it."""
    value = rule.value
    state = rule.over.raised
    shown = None
    unit = rule.rule.get("unit")
    if value is not None:  # as wording.show() has it, which would take 5 KB
        shown = rule.words[value > 0.5] if rule.words else "%.*f" % (rule.rule.get("decimals", 1), value)
        if unit:
            shown += " " + unit
    return {
        "name": rule.name,
        "value": value,
        "shown": shown,
        "unit": unit,
        "age": None if value is None else gateway.time.uptime() - rule.at,
        "state": "failed" if rule.fault else "unread" if value is None else state.rstrip("?") if state else "ok",
        "fault": rule.fault and clean(rule.fault)[:_LINE],
    }


def facts():
    """All but the lists: what is small enough for one piece."""
    queue = gateway.queue
    gc.collect()
    old, why = health()
    return {
        "name": status.name,
        "version": status.VERSION,
        "micropython": "%d.%d.%d" % tuple(sys.implementation[1][:3]),
        "time": gateway.time.now(),
        "uptime": gateway.time.uptime(),
        "health": {"status": "unwell" if why else "ok", "age": old, "why": why},
        "queue": {
            "waiting": len(queue),
            "dead": queue.dead + queue.kept,
            "damaged": queue.damaged + queue.junk,
            "bytes": queue.used,
            "max_bytes": queue.max_bytes,
            "free": queue.free(),
        },
        "delivered": status.relay.delivered,
        "sessions": len(status.server.peers) if status.server else 0,
        "trouble": status.relay.told and clean(status.relay.told),
        "heap": {"used": gc.mem_alloc(), "free": gc.mem_free()},
        "signal": signal(),
    }


# -- answers


def listed(items):
    """The pieces of a JSON list."""
    between = "["
    for item in items:
        yield between + json.dumps(item)
        between = ","
    yield "]" if between == "," else "[]"


def said():
    for line in status.events.lines():
        at, _, text = line.partition(" ")
        yield {"age": gateway.time.uptime() - int(at), "text": text}


def whole():
    """/status.json"""
    yield json.dumps(facts())[:-1]
    for key, items in (
        ("sensors", (sensor(r) for r in gateway.rules)), ("mails", mails("w", 0, 10)), ("letters", mails("d", 0, 10)),
        ("events", said()), ("log", (str(piece, "utf-8", "ignore") for piece in logged(2000))),
    ):
        yield ',"%s":' % key
        yield from listed(items)
    yield "}"


def paged(kind, after):
    """/queue: mails that wait, then dead letters."""
    yield '{"waiting":%d,"dead":%d,"mails":' % (len(gateway.queue), letters())
    last = None
    count = 0
    between = "["
    for item in mails(kind, after, _PAGE):
        count += 1
        last = int(item["id"], 16)
        yield between + json.dumps(item)
        between = ","
    yield "[]" if between == "[" else "]"
    following = None
    if count == _PAGE:
        following = "/queue?after=%s%x" % (kind, last if kind == "w" else last & 0xFFFFFFF)
    elif kind == "w" and letters():
        following = "/queue?after=d0"
    yield ',"next":%s}' % json.dumps(following)


def letters():
    queue = gateway.queue
    return queue.dead + queue.kept + queue.damaged + queue.junk


def spooled(key):
    """(path, octets) of a mail's file, as it is called now. Raises KeyError."""
    queue = gateway.queue
    try:
        i = queue.row(key)
        return queue.path + "/" + queue.name_now(i), queue.rows[i + 3]
    except KeyError:
        file, _, size, _ = find(queue, key)
        return queue.path + "/" + file, size


def contents(start, end, path):
    """Pieces of a file. It is opened for each: meanwhile it may be renamed, or go. path(): its name, or KeyError."""
    while start < end:
        try:
            with open(path(), "rb") as f:
                f.seek(start)
                piece = f.read(min(512, end - start))
        except (OSError, KeyError, MemoryError):
            return  # it was delivered, or there is no memory for it: what is missing tells who reads it
        if not piece:
            return
        start += len(piece)
        yield piece


def logged(most):
    """Pieces (bytes) of the last `most` octets of the log."""
    file = gateway.file
    if not file:
        return
    if isinstance(file, status.Ring):
        for line in file.lines():
            yield (line + "\n").encode()
        return
    parts = []
    for path in (file.path + ".old", file.path):
        try:
            parts.append((os.stat(path)[6], path))
        except OSError:
            pass
    parts.append((sum([len(line) + 1 for line in file.lines]), None))
    skip = sum([size for size, _ in parts]) - most
    for size, path in parts:
        if skip >= size:
            skip -= size
            continue
        lines = [line + b"\n" for line in file.lines]
        for piece in contents(max(0, skip), size, lambda path=path: path) if path else lines:
            if skip > 0:
                skip = 0
                piece = piece[piece.find(b"\n") + 1 :]
            yield piece


def number(ident):
    """The key that an id stands for. Raises KeyError."""
    if len(ident) != 8 or ident.strip("0123456789abcdef"):
        raise KeyError(ident)
    return int(ident, 16)


def everything(req, ident):
    return answer(200, whole(), _JSON)


def log(req, ident):
    return answer(200, logged(1 << 30))


def listing(req, ident):
    kind, after = "w", "0"
    if req.query[:6] == "after=":
        kind, after = req.query[6:7], req.query[7:]
    try:
        return answer(200, paged(("w", "d")["wd".index(kind)], int(after, 16)), _JSON)
    except ValueError:
        return answer(400, "after is none that this gateway gave\n")


def mail(req, ident):
    key = number(ident)
    path, size = spooled(key)
    with open(path, "rb") as f:
        piece = b""
        while piece[-1:] != b"\n":
            piece = f.readline(256)
            if not piece:
                break
        start = f.seek(0, 1)
    size = max(0, size - 10 - start)
    return answer(200, contents(start, start + size, lambda: spooled(key)[0]), more="Content-Length: %d\r\n" % size)


def about(req, ident):
    try:
        return answer(200, json.dumps(waiting(number(ident))), _JSON)
    except KeyError:
        return answer(200, json.dumps(letter(number(ident))), _JSON)


