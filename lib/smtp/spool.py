"""The directory of a queue: what is in it, and how a start makes sense of it. The names are explained in queue.

May use: nothing but files. Loaded when a Queue is made and when somebody asks for dead letters.
"""

import os

from . import const

_NUMBER = const(0xFFFFFFF)  # as in queue
_MARKS = ("", "dead", "kept", "bad", "junk", "why", "new", "gone")


def _scan(path):
    """(name, octets) of the files in a directory."""
    if hasattr(os, "ilistdir"):
        for item in os.ilistdir(path):
            if not item[0]:
                raise OSError(5)  # a directory that cannot be read: MicroPython would go on for ever
            yield item[0], item[3] if len(item) > 3 else os.stat(path + "/" + item[0])[6]
    else:
        for item in os.scandir(path):
            yield item.name, item.stat().st_size


def files(path):
    """(name, key, state, mark, octets) of the spool files; state: [] or [attempts, done, failed, flags ...]."""
    for name, size in _scan(path):
        stem, _, mark = name.partition("-")
        try:
            state = [int(p, 16) for p in stem.split(".")]
        except ValueError:
            continue
        if mark in _MARKS and stem[8:9] in ("", ".") and len(state) in (1, 4, 5) and len(stem) > 7:
            yield name, state.pop(0), state, mark, size


def load(queue):
    """Finds out what is in the directory of a new Queue, and puts right what a power cut has left."""
    now = queue.uptime()
    whys = []  # keys
    news = []
    for name, key, state, mark, size in files(queue.path):
        if size == 0:
            queue.remove_file(name)
        elif mark == "why":
            whys.append(key)
        elif mark == "gone":
            queue.displaced = 1
            queue.unnamed = state[0] if state else 0
        elif mark == "new":
            news.append((key, size))
        else:
            queue.last = max(queue.last, key & _NUMBER)
            queue.used += queue.cost(size)
            if mark:
                queue.count(mark, 1)
            else:
                if len(state) > 3 or state and state[1] | state[2]:
                    queue.keep(key, *(state + [0])[1:4])
                queue.enter(key, now, state[0] if state else 0, size)
    if whys or news:
        alive = [item[1] for item in files(queue.path) if item[1] in whys and item[3] not in ("why", "new", "gone")]
        for key in whys:
            if key not in alive:
                queue.remove_file("%08x-why" % key)
    for key, size in news:
        name = "%08x" % key
        try:
            queue.row(key)
            queue.remove_file(name + "-new")
        except KeyError:
            queue.rename(name + "-new", name)
            queue.last = max(queue.last, key & _NUMBER)
            queue.used += queue.cost(size)
            queue.enter(key, now, 0, size)
    queue.born = queue.last  # mails up to this number are older than this start
    if queue.displaced:
        queue.displaced = len(queue.gone()) + max(0, queue.unnamed - 1)
