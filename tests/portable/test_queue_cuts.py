"""lib/smtp/queue.py: the power goes at each operation of the flash, in each step that a queue can take.

What is found at the next start is as before the step or as behind it, and all files are in order.
"""

import json

from expect import eq
from play import MICROPYTHON
from smtp.queue import LOW, NORMAL, URGENT, Queue, QueueFull
from smtp.spool import files

if MICROPYTHON:  # a littlefs is needed
    import vfs
    from nor import PAGE, Nor

LIMITS = {"max_bytes": 24576, "reserve": 8192, "displace": "oldest"}
META = {"f": "a@example.com", "r": ["b@example.net", "c@example.net"], "u": 0}
BLOCKS = 24


def mount(flash):
    fs = vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE)
    vfs.mount(fs, "/n")
    return Queue("/n/spool", **LIMITS)


def read(name):
    with open("/n/spool/" + name, "rb") as f:
        return f.read()


def look(queue):
    """All that is in the spool, and that the queue knows of it."""
    found = {}
    used = 0
    waiting = []
    for name, key, state, mark, size in files("/n/spool"):
        data = read(name)
        eq(len(data), size)
        if mark == "why":
            data = data[-20:]  # a line may be there twice
        elif mark == "gone":
            continue  # a note may tell of what is still there
        else:
            used += queue.cost(size)
            assert mark != "new", name
            head, _, data = data.partition(b"\n")
            head = json.loads(head)
            data = (head["f"], head["r"], data[:-9])  # its identity and so its check sum are new each time
            if not mark:
                waiting.append(key)
        assert (key, mark == "why") not in found, name
        found[key, mark == "why"] = (state, mark, data)
    for key, why in list(found):
        if why and found[key, False][1] == "":
            del found[key, True]  # the reason of nobody yet
    eq((queue.used, [queue.rows[i] for i in range(0, len(queue.rows), 4)]), (used, sorted(waiting)))
    marks = [mark for _, mark, _ in found.values()]
    eq([queue.dead, queue.kept, queue.damaged, queue.junk], [marks.count(m) for m in ("dead", "kept", "bad", "junk")])
    return found


def cut_everywhere(prepare, step, between=()):
    """Prepares a queue, and cuts the power at each operation of step(queue). between: functions that do parts of it."""
    flash = Nor(BLOCKS)
    vfs.VfsLfs2.mkfs(flash, progsize=PAGE, readsize=PAGE)
    prepare(mount(flash))
    vfs.umount("/n")
    image = bytes(flash.memory)
    allowed = []
    for part in [lambda queue: None] + list(between) + [step]:
        flash = Nor(BLOCKS, memory=memoryview(bytearray(image)))
        queue = mount(flash)
        start = flash.ops
        part(queue)
        count = flash.ops - start
        eq(flash.faults, 0)
        vfs.umount("/n")
        queue = mount(flash.power())
        allowed.append(look(queue))
        notes = queue.gone()
        vfs.umount("/n")
    assert count and allowed[0] != allowed[-1]
    for n in range(1, count + 1):
        flash.memory[:] = image
        flash = Nor(BLOCKS, n, flash.memory)
        queue = mount(flash)
        flash.cut_at = flash.ops + n
        try:
            step(queue)
        except (OSError, QueueFull):
            pass
        assert flash.dead, n
        vfs.umount("/n")
        queue = mount(flash.power())
        found = look(queue)
        assert found in allowed, (n, count, found)
        assert len(notes) >= len(queue.gone()) >= len([1 for key in allowed[0] if key not in found and not key[1]]) or (
            notes == []), (n, queue.gone())
        vfs.umount("/n")
    return count


def add(queue, *sizes, priority=NORMAL):
    for size in sizes:
        queue.add(dict(META), [b"x" * size], priority)


def settle(queue, *args, **named):
    mail = queue.take()
    mail.close()
    queue.settle(mail.key, 2, *args, **named)


def dead(queue, mark="dead"):
    settle(queue, 1, 2, ["1 550 5.1.1 no such user"], mark=mark)


def first(queue):
    return list(queue.letters())[0][0]


def test_a_mail_is_there_whole_or_not_at_all():
    if MICROPYTHON:
        for size in (100, 600, 9000):
            cut_everywhere(lambda queue: add(queue, 50), lambda queue, size=size: add(queue, size))


def test_one_mail_or_the_other_is_there_whole():
    if not MICROPYTHON:
        return
    for old, new in ((100, 120), (100, 5000), (5000, 100)):
        for attempt in (False, True):
            def prepare(queue, old=old, attempt=attempt):
                add(queue, 30, old, 40)
                if attempt:
                    queue.take().close()
                    settle(queue, 0, 0, attempt=True)

            cut_everywhere(prepare, lambda queue, new=new: queue.replace(queue.rows[4], dict(META), [b"y" * new]))


def test_what_became_of_a_mail_is_known_or_not_yet():
    if not MICROPYTHON:
        return
    for size in (100, 5000):
        def prepare(queue, size=size):
            add(queue, size)
            settle(queue, 0, 0, attempt=True)

        for step in (
            lambda queue: settle(queue, 1, 0),
            lambda queue: settle(queue, 0, 0, attempt=True, flags=1),
            lambda queue: settle(queue, 0, 1, ["0 550 no"]),
            lambda queue: settle(queue, 3, 0),
            dead,
            lambda queue: dead(queue, "kept"),
        ):
            cut_everywhere(prepare, step)


def test_a_letter_is_there_or_waits_again_or_is_gone():
    if not MICROPYTHON:
        return
    for size in (100, 5000):
        def prepare(queue, size=size):
            add(queue, size)
            dead(queue)
            add(queue, 60)

        for step in (
            lambda queue: queue.resend(first(queue)),
            lambda queue: queue.delete(first(queue)),
            lambda queue: queue.reported(first(queue)),
        ):
            cut_everywhere(prepare, step)


def crowd(queue):
    add(queue, 100)
    dead(queue, "kept")
    add(queue, 5000)
    dead(queue, "kept")
    add(queue, 200, 100, 300, priority=LOW)
    add(queue, 50, 60)


def fill(queue):
    while queue.used < LIMITS["max_bytes"]:
        add(queue, 10, priority=URGENT)


def test_what_gives_way_is_noted_before_it_goes_and_all_else_stays():
    if not MICROPYTHON:
        return

    def prepare(queue):
        crowd(queue)
        fill(queue)

    def alert(queue, size):
        queue.add(dict(META), [b"a" * size], NORMAL, True)

    def drop(queue, number):
        """The first so many that go."""
        keys = [key for key, _, _ in queue.letters()] + [queue.rows[i] for i in range(0, len(queue.rows), 4)
                                                         if queue.rows[i] >> 28 == LOW]
        for key in keys[:number]:
            try:
                queue.settle(key, 2, 3, 0)
            except KeyError:
                queue.delete(key)

    cut_everywhere(prepare, lambda queue: alert(queue, 100), [lambda queue: drop(queue, 1)])
    cut_everywhere(prepare, lambda queue: alert(queue, 12000), [
        lambda queue, n=n: drop(queue, n) for n in range(1, 6)])


def test_a_note_that_is_full_is_counted_on():
    if not MICROPYTHON:
        return

    def prepare(queue):
        crowd(queue)
        with open("/n/spool/00000000.2.0.0-gone", "wb") as f:
            f.write(b"%s\n" % (b"n" * 99) * 41)
        fill(queue)

    def alert(queue):
        queue.add(dict(META), [b"a"], NORMAL, True)

    def drop(queue):
        queue.delete(first(queue))

    cut_everywhere(prepare, alert, [drop])
