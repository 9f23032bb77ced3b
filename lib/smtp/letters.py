"""Dead letters and damaged files of a queue: what is behind its methods of the same names, which say what each does.

May use: queue, spool.
"""

import os

from . import const
from .queue import Aborted, Damaged, Mail, QueueFull
from .spool import files

_BATCH = const(16)  # letters that are listed at a time
_AGAIN = const(2)  # flag: its age does not count
_LETTERS = ("dead", "kept", "bad", "junk")


def letters(queue):
    # In a directory they are in the order of their names, and there may be more of them than there is memory for.
    last = -1
    while True:
        batch = []
        for _, key, _, mark, size in files(queue.path):
            number = key & 0xFFFFFFF
            if mark in _LETTERS and number > last:
                batch.append((number, key, mark, size))
                if len(batch) > _BATCH:
                    batch.sort()
                    batch.pop()
        batch.sort()
        for number, key, mark, size in batch:
            last = number
            yield key, mark, size
        if len(batch) < _BATCH:
            return


def find(queue, key):
    """(name, mark, octets, bit set of recipients done) of a letter."""
    found = None
    for name, k, state, mark, size in files(queue.path):  # to its end: that closes the directory
        if k == key and mark in _LETTERS:
            found = name, mark, size, state[1] if state else 0
    if not found:
        raise KeyError(key)
    return found


def open_letter(queue, key):
    name = find(queue, key)[0]
    try:
        mail = Mail(queue, key, queue.path + "/" + name)
    except (Aborted, ValueError, KeyError, OSError) as e:
        raise Damaged("spool file %s: %s" % (name, e))
    try:
        with open(queue.path + "/%08x-why" % key, "rb") as f:
            return mail, str(f.read(), "utf-8").split("\n")[:-1]
    except (OSError, ValueError):
        return mail, []


def resend(queue, key):
    name, mark, size, done = find(queue, key)
    if mark not in ("dead", "kept"):
        open_letter(queue, key)  # set aside because it could not be read for a while, perhaps
    if len(queue) >= queue.max_count:
        raise QueueFull("%d mails wait, which is the limit" % len(queue))
    queue.rename(name, queue.name(key, 0, done, 0, _AGAIN))
    queue.remove_file("%08x-why" % key)
    queue.count(mark, -1)
    queue.keep(key, done, 0, _AGAIN)
    queue.enter(key, queue.uptime(), 0, size)
    if queue.on_commit:
        queue.on_commit()


def delete(queue, key):
    name, mark, size, _ = find(queue, key)
    os.remove(queue.path + "/" + name)
    queue.remove_file("%08x-why" % key)
    queue.count(mark, -1)
    queue.used -= queue.cost(size)


def reported(queue, key):
    name, mark, _, _ = find(queue, key)
    new = {"dead": "kept", "bad": "junk"}.get(mark)
    if new:
        queue.rename(name, name[: -len(mark)] + new)
        queue.count(mark, -1)
        queue.count(new, 1)
