"""lib/smtp/queue.py: what was accepted survives, what was not leaves nothing; in a littlefs on MicroPython."""

import gc
import os

from expect import eq, raises
from play import MICROPYTHON, Flash, Random
from smtp.queue import LOW, NORMAL, URGENT, Damaged, Queue, QueueFull

META = {"f": "a@example.com", "r": ["b@example.net"]}


class Time:
    """Seconds of uptime that a test sets."""

    def __init__(self):
        self.now = 100

    def __call__(self):
        return self.now


def meta(*rcpts):
    return {"f": "a@example.com", "r": list(rcpts or META["r"])}


def content(mail):
    """What a mail holds; closes it."""
    out = b""
    buf = bytearray(100)
    while True:
        n = mail.read(buf)
        if not n:
            break
        out += buf[:n]
    mail.close()
    return out


def all_of(queue):
    """{identity: content} of all that can be taken; it stays taken."""
    out = {}
    while True:
        mail = queue.take()
        if mail is None:
            return out
        out[mail.meta["i"]] = content(mail)


def files(path):
    return sorted(os.listdir(path))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def test_what_was_added_is_taken_with_its_envelope():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        ident = queue.add(meta("b@example.net", "c@example.net"), [b"Subject: x\r\n", bytearray(b"\r\nhello\r\n")])
        eq(len(queue), 1)
        mail = queue.take()
        eq(mail.meta["r"], ["b@example.net", "c@example.net"])
        eq((mail.meta["f"], mail.meta["i"]), ("a@example.com", ident))
        eq(mail.size, 21)
        eq(content(mail), b"Subject: x\r\n\r\nhello\r\n")
        eq(queue.take(), None)  # nobody else gets it meanwhile


def test_mails_of_any_size_come_back_as_they_were():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        wanted = {}
        for size in (0, 1, 99, 100, 101, 511, 512, 513, 4095, 4096, 4097, 20000):
            data = bytes([i * 7 & 255 for i in range(size)])
            wanted[queue.add(meta(), [data[i : i + 1000] for i in range(0, size, 1000)])] = data
        eq(all_of(Queue(flash + "/spool")), wanted)


def test_the_urgent_go_first_and_within_a_priority_the_oldest():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        idents = [queue.add(meta(), [b"x"], p) for p in (LOW, NORMAL, URGENT, NORMAL, URGENT, LOW)]
        wanted = [idents[i] for i in (2, 4, 1, 3, 0, 5)]
        again = Queue(flash + "/spool")
        for q in (queue, again):
            eq([q.take().meta["i"] for _ in range(6)], wanted)


def test_a_mail_that_was_given_back_waits_its_delay_and_keeps_its_place():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        first = queue.add(meta(), [b"1"])
        second = queue.add(meta(), [b"2"])
        mail = queue.take()
        queue.settle(mail.key, 1, 0, 0, delay=60)
        eq(queue.due(), 100)
        eq(queue.take().meta["i"], second)
        eq((queue.take(), queue.due()), (None, 160))
        time.now = 159
        eq(queue.take(), None)
        time.now = 160
        eq(queue.take().meta["i"], first)
        eq(queue.due(), None)


def test_an_empty_queue_has_nothing_due():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        eq((queue.due(), queue.take(), len(queue)), (None, None, 0))


def test_a_delivered_mail_is_gone_for_good():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        used = queue.used
        queue.add(meta(), [b"x" * 5000])
        assert queue.used > used
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 1, 1, 0), "gone")
        eq((len(queue), queue.used, files(flash + "/spool")), (0, used, []))
        eq(all_of(Queue(flash + "/spool")), {})


def test_attempts_are_counted_over_a_restart():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        queue.add(meta(), [b"x"])
        for n in range(3):
            mail = queue.take()
            mail.close()
            if n == 1:
                queue.settle(mail.key, 1, 0, 0, attempt=True)
            else:
                eq(queue.settle(mail.key, 1, 0, 0, (), 0, True), "waiting")
            queue = Queue(flash + "/spool", uptime=time)
            eq((n, len(queue), queue.rows[2]), (n, 1, n + 1))
        eq(content(queue.take()), b"x")


def test_who_was_served_is_remembered_over_a_restart():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x", "c@x", "d@x"), [b"x"])
        for done, failed, told in ((1, 0, (1, 0, 0)), (0, 2, (1, 2, 0)), (4, 0, (5, 2, 0))):
            mail = queue.take()
            mail.close()
            eq(queue.settle(mail.key, 4, done, failed, ["1 550 no"] if failed else ()), "waiting")
            eq(queue.partial[mail.key], told)
            queue = Queue(flash + "/spool")
            eq(queue.partial[mail.key], told)
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 4, 8, 0), "dead")  # one of them failed
        eq((len(queue), queue.dead, queue.partial), (0, 1, {}))


def test_a_hundred_recipients_have_a_bit_each():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(*["r%d@example.net" % i for i in range(100)]), [b"x"])
        mail = queue.take()
        mail.close()
        even = sum([1 << i for i in range(0, 100, 2)])
        eq(queue.settle(mail.key, 100, even, 0), "waiting")
        queue = Queue(flash + "/spool")
        eq(queue.partial[mail.key], (even, 0, 0))
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 100, (1 << 100) - 1 - even, 0), "gone")


def test_a_dead_letter_is_kept_with_the_reason():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x"), [b"hello"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 2, 0, 2, ["1 550 5.1.1 no such user"])
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 2, 0, 1, ["0 554 5.7.1 no"]), "dead")
        names = files(flash + "/spool")
        eq(names, ["10000001-why", "10000001.0.0.3-dead"])
        eq(read(flash + "/spool/" + names[0]), b"1 550 5.1.1 no such user\n0 554 5.7.1 no\n")
        assert b"hello" in read(flash + "/spool/" + names[1])
        again = Queue(flash + "/spool")
        eq((again.dead, len(again), again.take()), (1, 0, None))
        eq(files(flash + "/spool"), names)
        assert again.used > 0


def test_a_reason_without_its_letter_goes_at_the_next_start():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        write(flash + "/spool/10000001-why", b"0 550 no\n")
        queue = Queue(flash + "/spool")
        eq((files(flash + "/spool"), len(queue)), ([], 0))


def test_a_new_mail_never_takes_the_name_of_an_old_one():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        for _ in range(3):
            queue.add(meta(), [b"old"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 0, 1, ["0 550 no"])
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"new"], URGENT)
        queue.add(meta(), [b"new"])
        eq(sorted(all_of(queue).values()), [b"new", b"new", b"old", b"old"])


def test_a_flag_is_remembered_over_a_restart():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x"), [b"x"])
        mail = queue.take()
        mail.close()
        eq(queue.state(mail.key), (0, 0, 0))
        queue.settle(mail.key, 2, 0, 0, attempt=True, flags=1)
        eq((queue.state(mail.key), files(flash + "/spool")), ((0, 0, 1), ["10000001.1.0.0.1"]))
        queue = Queue(flash + "/spool")
        eq((queue.state(mail.key), queue.rows[2]), ((0, 0, 1), 1))
        queue.take().close()
        queue.settle(mail.key, 2, 1, 0, flags=2)
        eq((queue.state(mail.key), files(flash + "/spool")), ((1, 0, 3), ["10000001.1.1.0.3"]))
        queue = Queue(flash + "/spool")
        queue.take().close()
        eq(queue.settle(mail.key, 2, 0, 2, ["1 550 no"]), "dead")
        eq(files(flash + "/spool"), ["10000001-why", "10000001.1.1.2.3-dead"])


def test_a_mail_that_goes_on_to_the_next_host_stays_taken():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x"), [b"x"])
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 2, 1, 0, delay=None), "waiting")
        eq((queue.due(), queue.take(), queue.state(mail.key)), (None, None, (1, 0, 0)))
        eq(queue.settle(mail.key, 2, 2, 0), "gone")


def test_a_mail_that_is_released_is_as_it_was():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        queue.add(meta(), [b"x"])
        names = files(flash + "/spool")
        mail = queue.take()
        mail.close()
        queue.release(mail.key, 7)
        eq((queue.due(), queue.take(), files(flash + "/spool")), (107, None, names))
        time.now = 107
        eq(queue.take().key, mail.key)
        raises(KeyError, queue.release, 5)


def test_a_recipient_who_failed_and_was_told_of_is_done():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x"), [b"x"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 2, 0, 1, ["0 550 no"])
        eq(queue.state(mail.key), (0, 1, 0))
        queue.settle(mail.key, 2, 1, 0)
        eq(queue.state(mail.key), (1, 0, 0))
        eq(queue.settle(mail.key, 2, 2, 0), "gone")
        queue.add(meta(), [b"x"])
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 2, 0, 1, ["0 550 no"]), "waiting")
        eq(queue.settle(mail.key, 2, 3, 0), "gone")
        eq(files(flash + "/spool"), ["10000001-why"])  # it was there when the second reason would have been written


def test_a_mail_may_wait_before_its_first_attempt():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        held = queue.add(meta(), [b"later"], hold=30)
        now = queue.add(meta(), [b"now"])
        eq((queue.take().meta["i"], queue.take(), queue.due()), (now, None, 130))
        time.now = 130
        eq(queue.take().meta["i"], held)
        eq(len(all_of(Queue(flash + "/spool", uptime=time))), 2)  # a new start has no patience


def test_mails_are_found_in_whatever_order_they_came():
    random = Random(7)
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        left = {}
        for i in range(60):
            priority = random.below(3)
            queue.add(meta(), [b"x"], priority)
            left[priority << 28 | i + 1] = None
        for q in (queue, Queue(flash + "/spool")):
            eq([q.rows[i] for i in range(0, len(q.rows), 4)], sorted(left))
        while left:
            key = random.choice(sorted(left))
            del left[key]
            mail = queue.take()
            mail.close()
            queue.release(mail.key)
            eq(queue.rows[queue.row(key)], key)
            eq(queue.settle(key, 1, 1, 0), "gone")
            raises(KeyError, queue.row, key)
            eq([queue.rows[i] for i in range(0, len(queue.rows), 4)], sorted(left))


def test_no_number_is_taken_twice_and_none_is_zero():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.last = 0xFFFFFFE
        for _ in range(3):
            queue.add(meta(), [b"x"], URGENT)
        eq(files(flash + "/spool"), ["00000001", "00000002", "0fffffff"])


# -- dead letters


def kill(queue, marks=("dead",), size=1):
    """Adds a mail for each mark and makes it a letter; gives their keys."""
    keys = []
    for mark in marks:
        queue.add(meta("a@x", "b@x", "c@x"), [b"x" * size])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 3, 1, 0)
        queue.take().close()
        queue.settle(mail.key, 3, 0, 2, ["1 550 5.1.1 no such user"], attempt=True, flags=1)
        queue.take().close()
        eq(queue.settle(mail.key, 3, 0, 4, ["2 554 5.7.1 no"], mark=mark), "dead")
        keys.append(mail.key)
    return keys


def damage(queue):
    """Adds a mail, damages it, has it set aside; gives its key."""
    queue.add(meta(), [b"x"], URGENT)
    key = queue.rows[0]
    name = queue.path + "/%08x" % key
    write(name, read(name)[:-1])
    raises(Damaged, queue.take)
    return key


def test_every_kind_of_letter_is_counted_over_a_restart():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        told = []
        queue.on_dead = lambda: told.append(1)
        dead, kept = kill(queue, ("dead", "kept"))
        eq(len(told), 1)  # of the other one somebody knows
        one, two = damage(queue), damage(queue)
        eq(len(told), 3)
        queue.reported(two)
        for q in (queue, Queue(flash + "/spool")):
            eq((q.dead, q.kept, q.damaged, q.junk, len(q)), (1, 1, 1, 1, 0))
            eq([(key, mark) for key, mark, _ in q.letters()], [
                (dead, "dead"), (kept, "kept"), (one, "bad"), (two, "junk")])
        eq(len(told), 3)


def test_letters_come_in_the_order_of_their_age_however_many_there_are():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        wanted = []
        for i in range(37):
            queue.add(meta(), [b"x"], (NORMAL, URGENT, LOW)[i % 3])
            mail = queue.take()
            mail.close()
            queue.settle(mail.key, 1, 0, 1, ["0 550 no"])
            wanted.append(mail.key)
        queue.add(meta(), [b"it waits"])
        eq([key for key, _, _ in queue.letters()], wanted)
        seen = []
        for key, _, octets in queue.letters():
            assert octets > 60, octets
            seen.append(key)
            queue.delete(key)
            if len(seen) == 20:
                queue.reported(wanted[30])
        eq((seen, list(queue.letters()), len(queue)), (wanted, [], 1))


def test_a_dead_letter_can_be_read_with_the_reasons():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        (key,) = kill(queue, size=600)
        mail, whys = queue.open_letter(key)
        eq((content(mail), mail.meta["r"], mail.key), (b"x" * 600, ["a@x", "b@x", "c@x"], key))
        eq(whys, ["1 550 5.1.1 no such user", "2 554 5.7.1 no"])
        os.remove(flash + "/spool/%08x-why" % key)
        mail, whys = queue.open_letter(key)
        eq((content(mail), whys), (b"x" * 600, []))
        bad = damage(queue)
        raises(Damaged, queue.open_letter, bad)
        queue.add(meta(), [b"it waits"])
        for other in (queue.rows[0], 5, key + 1):
            raises(KeyError, queue.open_letter, other)


def test_a_long_reason_is_cut_and_many_are_not_all_kept():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(*["r%d@x" % i for i in range(100)]), [b"x"])
        mail = queue.take()
        mail.close()
        eq(queue.settle(mail.key, 100, 0, (1 << 100) - 1, ["%d 550 " % i + "\xe4" * 1000 for i in range(100)]), "dead")
        size = len(read(flash + "/spool/%08x-why" % mail.key))
        assert 4000 < size < 5000, size
        eq(len(queue.open_letter(mail.key)[1]), 7)


def test_a_dead_letter_that_is_sent_again_goes_to_those_who_never_got_it():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        keys = kill(queue, ("dead", "kept"))
        used = queue.used
        woken = []
        queue.on_commit = lambda: woken.append(1)
        for n, key in enumerate(keys):
            queue.resend(key)
            eq((len(woken), queue.state(key), queue.due()), (n + 1, (1, 0, 2), 100))
            raises(KeyError, queue.resend, key)
        eq(files(flash + "/spool"), ["10000001.0.1.0.2", "10000002.0.1.0.2"])
        for q in (queue, Queue(flash + "/spool", uptime=time)):
            eq((len(q), q.dead, q.kept, q.used, q.rows[2]), (2, 0, 0, used, 0))
            eq([q.state(key) for key in keys], [(1, 0, 2)] * 2)
        for key in keys:
            mail = queue.take()
            eq((mail.key, content(mail)), (key, b"x"))
            eq(queue.settle(key, 3, 6, 0), "gone")
        eq((files(flash + "/spool"), queue.used), ([], 0))


def test_a_letter_that_nobody_got_has_no_attempts_when_it_is_sent_again():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"x"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 0, 0, attempt=True, flags=1)
        queue.take().close()
        eq(queue.settle(mail.key, 1, 0, 1, ["0 550 no"]), "dead")
        queue.resend(mail.key)
        eq((files(flash + "/spool"), queue.partial), (["10000001.0.0.0.2"], {mail.key: (0, 0, 2)}))


def test_a_damaged_file_is_not_sent_again_but_one_that_could_not_be_read_for_a_while_is():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        bad = damage(queue)
        raises(Damaged, queue.resend, bad)
        eq((queue.damaged, len(queue)), (1, 0))
        ident = queue.add(meta(), [b"whole"])
        os.rename(flash + "/spool/10000002", flash + "/spool/10000002-junk")
        queue = Queue(flash + "/spool")
        queue.resend(0x10000002)
        eq((queue.junk, all_of(queue)), (0, {ident: b"whole"}))


def test_a_queue_that_is_full_by_number_takes_no_letter_back():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_count=1)
        (key,) = kill(queue)
        queue.add(meta(), [b"x"])
        raises(QueueFull, queue.resend, key)
        eq((queue.dead, len(queue)), (1, 1))


def test_a_deleted_letter_is_gone_with_its_reasons():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        one, two = kill(queue, ("dead", "kept"), 5000)
        bad = damage(queue)
        for key in (one, two, bad):
            queue.delete(key)
            raises(KeyError, queue.delete, key)
        eq((files(flash + "/spool"), queue.used, queue.dead, queue.kept, queue.damaged), ([], 0, 0, 0, 0))
        queue.add(meta(), [b"it waits"])
        raises(KeyError, queue.delete, queue.rows[0])


def test_what_somebody_knows_of_is_marked_once():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        (key,) = kill(queue)
        bad = damage(queue)
        for _ in range(2):
            queue.reported(key)
            queue.reported(bad)
            eq((queue.dead, queue.kept, queue.damaged, queue.junk), (0, 1, 0, 1))
        eq(files(flash + "/spool"), ["00000002-junk", "10000001-why", "10000001.1.1.6.1-kept"])
        raises(KeyError, queue.reported, 5)


def test_what_a_cut_leaves_between_two_steps_is_put_right_at_the_next_start():
    with Flash() as flash:
        path = flash + "/spool"
        queue = Queue(path)
        queue.add(meta("a@x", "b@x"), [b"one"])
        one = read(path + "/10000001")
        queue.add(meta("a@x", "b@x"), [b"two"])
        two = read(path + "/10000002")
        why = b"0 550 no\n"
        line = b"1a2b3c4d from <a@x>, it waited\n"
        for before, after, counts in (
            # a reason whose recipient has not failed yet; sent again, the reason still there
            ({"10000001": one, "10000001-why": why}, None, (1, 0, 0)),
            ({"10000001.0.1.0": one, "10000001-why": why}, None, (1, 0, 0)),
            # delivered or deleted, and the reason still there
            ({"10000001-why": why}, {}, (0, 0, 0)),
            ({"10000001-why": why, "10000002": two}, {"10000002": two}, (1, 0, 0)),
            # a replacement that is not complete, that is, and that was about to be alone
            ({"10000001": one, "10000001-new": b""}, {"10000001": one}, (1, 0, 0)),
            ({"10000001": one, "10000001-new": two}, {"10000001": one}, (1, 0, 0)),
            ({"10000001.2.0.0.1": one, "10000001-new": two}, {"10000001.2.0.0.1": one}, (1, 0, 0)),
            ({"10000001-new": two}, {"10000001": two}, (1, 0, 0)),
            # an empty mail, an empty note
            ({"10000001": b"", "10000002": two}, {"10000002": two}, (1, 0, 0)),
            ({"00000000-gone": b"", "10000002": two}, {"10000002": two}, (1, 0, 0)),
            # a note of what is still there
            ({"10000001": one, "00000000-gone": line}, None, (1, 0, 1)),
            ({"10000001": one, "00000000.3.0.0-gone": line}, None, (1, 0, 4)),
            # the file that a rename makes sure with
            ({"00000000-why": b"\n", "00000000-gone": line}, {"00000000-gone": line}, (0, 0, 1)),
            # a letter with its reasons
            ({"10000001.1.0.3-kept": one, "10000001-why": why}, None, (0, 1, 0)),
        ):
            for name in files(path):
                os.remove(path + "/" + name)
            for name in before:
                write(path + "/" + name, before[name])
            for _ in range(2):  # the second start finds all in order
                queue = Queue(path)
                eq({name: read(path + "/" + name) for name in files(path)}, before if after is None else after)
                eq((before, len(queue), queue.kept, queue.displaced), (before,) + counts)
            for text in all_of(queue).values():
                assert text in (b"one", b"two"), text


# -- in place of another one


def test_a_mail_that_takes_the_place_of_another_is_the_only_one():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        first = queue.add(meta(), [b"first"])
        queue.add(meta(), [b"old"], hold=50)
        last = queue.add(meta(), [b"last"])
        key = queue.rows[4]
        for size in (3, 9000, 20):
            ident = queue.replace(key, meta("b@x"), [b"n" * size])
            eq(len(queue), 3)
            eq(files(flash + "/spool"), ["10000001", "10000002", "10000003"])
            eq(Queue(flash + "/spool").used, queue.used)
        for q in (queue, Queue(flash + "/spool", uptime=time)):
            eq([q.take().meta["i"] for _ in range(2 if q is queue else 1)], [first, last] if q is queue else [first])
            time.now = 150
            mail = q.take()
            eq((mail.key, mail.meta["i"], mail.meta["r"], content(mail)), (key, ident, ["b@x"], b"n" * 20))


def test_the_attempts_of_a_mail_outlive_it():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"old"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 0, 0, attempt=True, flags=1)
        queue.replace(mail.key, meta(), [b"new"])
        eq(files(flash + "/spool"), ["10000001.1.0.0.1"])
        eq(list(all_of(queue).values()), [b"new"])


def test_a_mail_that_is_on_its_way_or_has_reached_somebody_is_not_replaced():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        ident = queue.add(meta("a@x", "b@x"), [b"old"])
        mail = queue.take()
        mail.close()
        raises(KeyError, queue.replace, mail.key, meta(), [b"new"])
        queue.settle(mail.key, 2, 1, 0)
        raises(KeyError, queue.replace, mail.key, meta(), [b"new"])
        raises(KeyError, queue.replace, 5, meta(), [b"new"])
        eq(all_of(queue), {ident: b"old"})
        queue.settle(mail.key, 2, 2, 0)
        raises(KeyError, queue.replace, mail.key, meta(), [b"new"])
        eq(files(flash + "/spool"), [])


def test_a_replacement_that_fails_leaves_the_old_mail():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=20000, max_count=2)
        ident = queue.add(meta(), [b"old"])
        queue.add(meta(), [b"x" * 9000])
        key = queue.rows[0]
        used = queue.used
        raises(QueueFull, queue.replace, key, meta(), [b"n" * 9000])
        raises(ZeroDivisionError, queue.replace, key, meta(), fails())
        rename = queue.rename
        queue.rename = lambda old, new: fail(28)
        raises(QueueFull, queue.replace, key, meta(), [b"new"])
        queue.rename = lambda old, new: fail(5)
        raises(OSError, queue.replace, key, meta(), [b"new"])
        queue.rename = rename
        eq((files(flash + "/spool"), queue.used, queue.coming), (["10000001", "10000002"], used, 0))
        eq(all_of(queue)[ident], b"old")


def fail(code):
    raise OSError(code)


def test_a_queue_that_is_full_has_room_for_a_replacement():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=4096, max_count=2)
        for _ in range(2):
            queue.add(meta(), [b"old"])
        raises(QueueFull, queue.add, meta(), [b"old"])
        queue.replace(queue.rows[0], meta(), [b"new"])
        eq(sorted(all_of(queue).values()), [b"new", b"old"])


# -- on its way in


def test_nothing_counts_before_it_is_committed():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        writer = queue.new(meta())
        writer.write(b"half a ")
        eq((len(queue), queue.take(), queue.due()), (0, None, None))
        writer.write(b"mail")
        ident = writer.commit()
        eq(all_of(queue), {ident: b"half a mail"})


def test_a_mail_that_was_given_up_leaves_nothing():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        for size in (0, 1, 600, 10000):
            writer = queue.new(meta())
            for _ in range(0, size, 500):
                writer.write(b"x" * min(500, size))
            writer.abort()
            writer.abort()  # twice is as good as once
            eq((size, files(flash + "/spool"), queue.coming, queue.used, len(queue)), (size, [], 0, 0, 0))
        raises(ZeroDivisionError, queue.add, meta(), fails())
        eq((files(flash + "/spool"), queue.coming), ([], 0))


def fails():
    yield b"x"
    raise ZeroDivisionError


def test_a_mail_given_up_while_the_power_failed_is_known_and_removed():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"good"])
        name = files(flash + "/spool")[0]
        data = read(flash + "/spool/" + name)
        write(flash + "/spool/10000002", b"ABRT" + data[4:])
        queue = Queue(flash + "/spool")
        used = queue.cost(len(data))
        eq(list(all_of(queue).values()), [b"good"])
        eq((files(flash + "/spool"), queue.damaged, queue.used), ([name], 0, used))


def test_an_empty_file_was_never_accepted():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"good"])
        write(flash + "/spool/10000002", b"")
        queue = Queue(flash + "/spool")
        eq((len(files(flash + "/spool")), len(queue)), (1, 1))
        eq(list(all_of(queue).values()), [b"good"])


def test_files_that_are_not_the_queues_stay_untouched():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"good"])
        mine = ["README", "-why", "-", "notes.txt", "10000009-other", "cafe", "face-dead", "10000009.1", "1000000-why",
                "10000009.1.2.3.4.5", "10000009x"]
        for name in mine:
            write(flash + "/spool/" + name, b"mine")
        queue = Queue(flash + "/spool")
        eq((list(all_of(queue).values()), list(queue.letters())), ([b"good"], []))
        eq(len(files(flash + "/spool")), 1 + len(mine))


def test_two_mails_at_once_do_not_mix():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        one = queue.new(meta())
        two = queue.new(meta())
        for _ in range(300):
            one.write(b"1111111111")
            two.write(b"2222222222")
        assert queue.coming > 6000
        a = one.commit()
        b = two.commit()
        eq(queue.coming, 0)
        eq(all_of(queue), {a: b"1" * 3000, b: b"2" * 3000})


# -- damage


def test_each_flipped_octet_is_found_and_the_rest_goes_on():
    with Flash() as flash:
        path = flash + "/spool"
        queue = Queue(path)
        queue.add(meta(), [b"hello\r\n"])
        name = files(path)[0]
        data = read(path + "/" + name)
        good = "20000002"
        write(path + "/" + good, data)  # less important
        for i in range(len(data)):
            bad = bytearray(data)
            bad[i] ^= (1, 0x20, 0x80)[i % 3]
            write(path + "/" + name, bad)
            queue = Queue(path)
            error = raises(Damaged, queue.take)
            assert name in str(error), error
            eq((i, queue.damaged, files(path)), (i, 1, [name + "-bad", good]))
            eq(list(all_of(queue).values()), [b"hello\r\n"])
            queue = Queue(path)
            eq((queue.damaged, len(queue)), (1, 1))
            os.remove(path + "/" + name + "-bad")


def test_a_file_that_was_cut_at_any_length_is_never_half_a_mail():
    with Flash() as flash:
        path = flash + "/spool"
        queue = Queue(path)
        queue.add(meta(), [b"hello\r\n"])
        name = files(path)[0]
        data = read(path + "/" + name)
        for n in range(len(data) + 3):
            write(path + "/" + name, data[:n] if n <= len(data) else data + b"\0" * (n - len(data)))
            queue = Queue(path)
            if n == 0:
                eq((queue.take(), files(path)), (None, []))
            elif n == len(data):
                eq(content(queue.take()), b"hello\r\n")
            else:
                raises(Damaged, queue.take)
                eq((n, queue.take(), files(path)), (n, None, [name + "-bad"]))
                os.remove(path + "/" + name + "-bad")


def test_a_damaged_mail_keeps_what_is_known_of_its_recipients():
    with Flash() as flash:
        path = flash + "/spool"
        queue = Queue(path)
        queue.add(meta("a@x", "b@x"), [b"hello"])
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 2, 1, 0)
        name = files(path)[0]
        write(path + "/" + name, read(path + "/" + name)[:-1])
        raises(Damaged, queue.take)
        eq((files(path), queue.partial, len(queue)), ([name + "-bad"], {}, 0))


def test_garbage_in_place_of_a_mail_is_set_aside():
    random = Random(3)
    with Flash() as flash:
        path = flash + "/spool"
        Queue(path)
        for size in (1, 8, 9, 10, 200, 5000):
            write(path + "/10000001", bytes([random.below(256) for _ in range(size)]))
            raises(Damaged, Queue(path).take)
            os.remove(path + "/10000001-bad")


# -- full


def test_the_queue_is_full_by_number():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_count=3)
        for _ in range(3):
            queue.add(meta(), [b"x"])
        error = raises(QueueFull, queue.add, meta(), [b"x"])
        assert "3" in str(error), error
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 1, 0)
        queue.add(meta(), [b"x"])


def test_the_queue_is_full_by_octets():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=20000)
        accepted = {}
        while True:
            try:
                accepted[queue.add(meta(), [b"x" * 1000] * 3)] = b"x" * 3000
            except QueueFull:
                break
        assert 2 <= len(accepted) <= 5, len(accepted)
        assert queue.used <= 20000 + queue.block, queue.used
        eq(queue.coming, 0)
        # Known to be too big before a single octet arrives.
        raises(QueueFull, queue.new, meta(), NORMAL, 20000)
        # Found out while it arrives.
        writer = Queue(flash + "/other", max_bytes=20000).new(meta())
        error = None
        for _ in range(100):
            try:
                writer.write(b"x" * 1000)
            except QueueFull as e:
                error = e
                break
        writer.abort()
        assert error and "20000" in str(error), error
        eq((files(flash + "/other"), all_of(Queue(flash + "/spool"))), ([], accepted))


def test_dead_letters_and_damaged_files_count_as_octets_too():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=20000)
        queue.add(meta(), [b"x" * 7000])
        used = queue.used
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 0, 1, ["0 550 no"])
        eq(queue.used, used)
        eq(Queue(flash + "/spool").used, used)


def test_a_flash_that_is_full_refuses_and_loses_nothing():
    reserves = (0, 8192, 32768) if MICROPYTHON else (1 << 60,)
    for reserve in reserves:
        for size in (50, 3000, 9000):
            with Flash(32) as flash:
                path = flash + "/spool"
                queue = Queue(path, 1 << 30, reserve=reserve)
                accepted = {}
                refused = 0
                for i in range(1000):
                    piece = b"%08d" % i
                    try:
                        accepted[queue.add(meta(), [piece] * (size // 8))] = piece * (size // 8)
                    except QueueFull as e:
                        assert "full" in str(e), e
                        refused += 1
                        if refused == 3:
                            break
                eq((reserve, size, refused), (reserve, size, 3))
                assert len(accepted) > 3 or not MICROPYTHON
                eq((len(queue), queue.coming), (len(accepted), 0))
                eq(all_of(queue), accepted)
                queue = Queue(path, 1 << 30, reserve=reserve)
                eq(len(queue), len(accepted))
                if not reserve:
                    eq(all_of(queue), accepted)
                    continue
                for _ in range(len(accepted)):
                    mail = queue.take()
                    eq(content(mail), accepted.pop(mail.meta["i"]))
                    eq(queue.settle(mail.key, 1, 1, 0), "gone")
                eq((files(path), accepted), ([], {}))
                if MICROPYTHON:
                    queue.add(meta(), [b"again"])


def test_a_full_flash_still_takes_back_who_was_served_and_what_failed():
    if not MICROPYTHON:
        return  # a littlefs is needed
    with Flash(32) as flash:
        path = flash + "/spool"
        queue = Queue(path, 1 << 30)
        try:
            for _ in range(1000):
                queue.add(meta("a@x", "b@x"), [b"x" * 300])
        except QueueFull:
            pass
        count = len(queue)
        assert count > 10
        for i in range(count):
            mail = queue.take()
            mail.close()
            bad = i % 2
            state = queue.settle(mail.key, 2, 1, 2 * bad, ["1 550 no"] * bad, 60, True)
            eq(state, "dead" if bad else "waiting")
        again = Queue(path, 1 << 30)
        eq((len(again), again.dead), (count - count // 2, count // 2))


def test_space_is_given_back_when_a_mail_does_not_fit():
    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=50000)
        for _ in range(20):
            raises(QueueFull, queue.add, meta(), [b"x" * 1000] * 60)
        eq((queue.coming, queue.used, files(flash + "/spool")), (0, 0, []))
        queue.add(meta(), [b"x" * 1000] * 30)


def test_the_flash_is_asked_again_because_others_use_it_too():
    if not MICROPYTHON:
        return  # a littlefs is needed
    time = Time()
    with Flash(64) as flash:
        queue = Queue(flash + "/spool", 1 << 30, uptime=time)
        accepted = {}
        log = 0
        try:
            while True:
                accepted[queue.add(meta("a@x", "b@x"), [b"x" * 700])] = b"x" * 700
                with open(flash + "/log", "ab") as f:
                    f.write(b"y" * 3000)
                log += 3000
                time.now += 1
        except QueueFull:
            pass
        free = queue.free()
        assert 32768 - 8192 <= free <= 32768 + 16384, free
        with open(flash + "/log", "ab") as f:  # the others do not know of any reserve
            while queue.free() > 8192:
                f.write(b"y" * 1024)
                f.flush()
        count = len(accepted)
        assert count > 10, count
        for i in range(count):
            mail = queue.take()
            eq(content(mail), accepted.pop(mail.meta["i"]))
            queue.settle(mail.key, 2, 1 + i % 2 * 2, 0, (), 60, True)
        again = Queue(flash + "/spool", 1 << 30, uptime=time)
        eq(len(again), count - count // 2)
        eq([again.state(again.rows[i])[0] for i in range(0, len(again.rows), 4)], [1] * len(again))


def test_what_a_flash_without_a_free_block_does_not_take_is_known_until_the_next_start():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", uptime=time)
        queue.add(meta("a@x", "b@x", "c@x"), [b"x"])
        rename = queue.rename
        queue.rename = lambda old, new: fail(28)
        key = queue.take().key
        eq(queue.settle(key, 3, 1, 0, attempt=True), "waiting")
        eq((queue.state(key), queue.take(), queue.due(), queue.rows[2]), ((1, 0, 0), None, 160, 0))
        time.now = 160
        eq(content(queue.take()), b"x")
        eq(queue.settle(key, 3, 2, 4, ["2 550 no"]), "waiting")  # who failed is tried again
        eq((queue.state(key), files(flash + "/spool")[0]), ((3, 0, 0), "10000001"))
        time.now = 220
        queue.take().close()
        queue.rename = rename
        eq(queue.settle(key, 3, 0, 4, ["2 550 no"]), "dead")
        eq((files(flash + "/spool"), queue.unsaved), (["10000001-why", "10000001.0.3.4-dead"], {}))


def test_a_flash_that_fails_to_rename_for_another_reason_says_so():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta("a@x", "b@x"), [b"x"])
        key = queue.take().key
        rename = queue.rename
        queue.rename = lambda old, new: fail(5)
        raises(OSError, queue.settle, key, 2, 1, 0)
        queue.rename = rename
        queue.recall()
        eq((queue.state(key), content(queue.take())), ((0, 0, 0), b"x"))


def test_a_delivered_mail_that_cannot_be_removed_is_removed_with_the_next():
    with Flash() as flash:
        path = flash + "/spool"
        queue = Queue(path)
        queue.add(meta(), [b"one"])
        queue.add(meta(), [b"two"])
        remove = queue.remove_file
        queue.remove_file = lambda name: False
        queue.settle(queue.take().key, 1, 1, 0)
        queue.remove_file = remove
        eq(len(files(path)), 2)
        queue.settle(queue.take().key, 1, 1, 0)
        eq(files(path), [])


def test_a_delivered_mail_that_cannot_be_removed_is_not_sent_again_before_the_next_start():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        said = []
        queue.log = said.append
        queue.add(meta(), [b"x"])
        mail = queue.take()
        mail.close()
        remove = queue.remove_file
        queue.remove_file = lambda name: False
        eq(queue.settle(mail.key, 1, 1, 0), "gone")
        queue.remove_file = remove
        eq((len(queue), queue.take(), len(said)), (0, None, 1))
        eq(len(Queue(flash + "/spool")), 1)


def test_a_damaged_file_that_cannot_be_renamed_does_not_stop_the_others():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        queue.add(meta(), [b"bad"])
        queue.add(meta(), [b"good"])
        name = flash + "/spool/10000001"
        write(name, read(name)[:-1])
        queue.rename = lambda old, new: fail(28)
        raises(Damaged, queue.take)
        eq((list(all_of(queue).values()), queue.damaged), ([b"good"], 1))


# -- what gives way to an alert


def crowd(path, displace, max_count=100, max_bytes=20480, uptime=None):
    """A queue that is full by octets: two that are known to be dead, one that is not, one that is taken, six that wait,
    three of them less important."""
    queue = Queue(path, max_bytes, max_count, uptime=uptime, displace=displace)
    kill(queue, ("kept", "dead", "kept"))
    for priority in (URGENT, LOW, NORMAL, NORMAL, LOW, LOW, NORMAL):
        queue.add(meta(), [b"x"], priority)
    eq((queue.take().key, queue.used), (4, 20480))
    return queue


def waits(queue):
    return [queue.rows[i] & 0xFFFFFFF for i in range(0, len(queue.rows), 4)]


def test_what_gives_way_is_what_the_user_chose():
    every = [4, 6, 7, 10, 5, 8, 9]
    for rule, priority, gone in (
        ("never", URGENT, []),
        ("dead", URGENT, [1, 3]),
        ("oldest", NORMAL, [1, 3, 5, 8, 9, 6, 7, 10]),
        ("newest", NORMAL, [1, 3, 9, 8, 5, 10, 7, 6]),
        ("oldest", LOW, [1, 3, 5, 8, 9]),
        ("newest", LOW, [1, 3, 9, 8, 5]),
    ):
        with Flash() as flash:
            queue = crowd(flash + "/spool", rule)
            told = []
            said = []
            queue.on_dead = lambda told=told: told.append(1)
            queue.log = said.append
            added = []
            for n in range(len(gone)):
                raises(QueueFull, queue.add, meta(), [b"x"], priority)  # a mail that is no alert does not displace
                queue.add(meta(), [b"alert"], URGENT, True) if priority == URGENT else queue.new(
                    meta(), priority, 0, True).abort()
                if priority == URGENT:
                    added.append(queue.last)
                else:
                    queue.max_bytes -= 2048  # as if it had been taken
                eq((rule, priority, len(told), len(said), queue.displaced), (rule, priority, n + 1, n + 1, n + 1))
                numbers = [key & 0xFFFFFFF for key, mark, _ in queue.letters()]
                eq(sorted(numbers), sorted({1, 2, 3} - set(gone[: n + 1])))
                eq(sorted(waits(queue)), sorted([i for i in every if i not in gone[: n + 1]] + added))
            error = raises(QueueFull, queue.new, meta(), priority, 0, True)
            assert "octets are taken" in str(error), error
            eq((rule, priority, len(queue.gone()), queue.displaced), (rule, priority, len(gone), len(gone)))
            for line, number in zip(queue.gone(), gone):
                assert "%07x)" % number in line and "from <a@example.com>" in line, line
            eq(Queue(flash + "/spool").used, queue.used)


def test_only_dead_letters_that_were_reported_give_way_to_a_mail_that_is_no_alert():
    for rule, gone in (("never", []), ("dead", [1, 3]), ("oldest", [1, 3]), ("newest", [1, 3])):
        with Flash() as flash:
            queue = crowd(flash + "/spool", rule)
            before = waits(queue)
            for _ in gone:
                queue.new(meta(), URGENT, 0, "dead").abort()
                queue.max_bytes -= 2048  # as if it had been taken
            raises(QueueFull, queue.new, meta(), URGENT, 0, "dead")
            eq((rule, queue.displaced, waits(queue)), (rule, len(gone), before))
            eq([key & 0xFFFFFFF for key, _, _ in queue.letters()], sorted({1, 2, 3} - set(gone)))


def test_nothing_gives_way_when_that_would_not_be_enough():
    for rule in ("dead", "oldest", "newest"):
        with Flash() as flash:
            queue = crowd(flash + "/spool", rule)
            before = files(flash + "/spool")
            raises(QueueFull, queue.add, meta(), [b"x" * 1000] * 19, NORMAL, True)
            raises(QueueFull, queue.new, meta(), NORMAL, 19000, True)
            eq((files(flash + "/spool"), queue.displaced, queue.gone()), (before, 0, []))
            if rule != "dead":  # 16 KB may give way
                queue.add(meta(), [b"x" * 1000] * 8, NORMAL, True)
                assert 4 <= queue.displaced <= 6, queue.displaced


def test_a_queue_that_is_full_by_number_displaces_mail_and_no_dead_letter():
    for rule, gone in (("dead", None), ("oldest", 5), ("newest", 9)):
        with Flash() as flash:
            queue = crowd(flash + "/spool", rule, 7, 1 << 20)
            letters = list(queue.letters())
            if gone is None:
                raises(QueueFull, queue.add, meta(), [b"x"], NORMAL, True)
            else:
                queue.add(meta(), [b"x"], NORMAL, True)
            eq((list(queue.letters()), len(queue)), (letters, 7))
            assert gone not in waits(queue)


def test_mail_that_is_being_sent_does_not_give_way():
    for rule in ("oldest", "newest"):
        with Flash() as flash:
            queue = Queue(flash + "/spool", 6144, displace=rule)
            for _ in range(3):
                queue.add(meta(), [b"x"])
            taken = [queue.take(), queue.take()]
            for _ in range(3):
                queue.add(meta(), [b"x"], NORMAL, True)
                queue.take()
                queue.release(queue.last | NORMAL << 28)
            eq(waits(queue)[:2], [1, 2])
            raises(QueueFull, queue.add, meta(), [b"x" * 1000] * 4, NORMAL, True)
            queue.release(taken[0].key)
            queue.add(meta(), [b"x" * 900] * 3, NORMAL, True)
            eq(waits(queue), [2, 7])


def test_a_mail_is_not_displaced_by_its_own_replacement():
    with Flash() as flash:
        queue = Queue(flash + "/spool", 6144, 10, displace="newest")
        for text in (b"1", b"2", b"3"):
            queue.add(meta(), [text])
        queue.replace(queue.rows[8], meta(), [b"x" * 900] * 3, True)  # it needs a block now: the newest other one goes
        eq((sorted([len(text) for text in all_of(queue).values()]), queue.displaced), ([1, 2700], 1))


def test_who_gave_way_is_said_so_that_a_person_knows():
    time = Time()
    with Flash() as flash:
        queue = Queue(flash + "/spool", 2048 * 5, uptime=time, displace="oldest")
        mails = (
            meta("b@x", "c@x", "d@x", "e@x", "f@x"),
            {"f": "", "r": ["b@x"], "u": 40},
            {"f": "a@x", "r": ["b@x"], "t": 1000000, "u": 50},
            {"f": "a@x", "r": ["b@x"], "t": 0, "u": 50},
        )
        kill(queue, ("kept",))
        idents = [queue.add(m, [b"x"]) for m in mails]
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 5, 3, 0)
        queue = Queue(flash + "/spool", 2048 * 5, uptime=time, displace="oldest")  # another boot: uptimes say nothing
        time.now = 200
        for _ in range(5):
            queue.add({"f": "a@x", "r": ["b@x"], "t": 1000000 + 90061, "u": 200}, [b"x"], URGENT, True)
        lines = queue.gone()
        eq(lines[0][8:], " (10000001) from <a@example.com> to <b@x>, <c@x>, a dead letter")
        eq(lines[1:], [
            idents[0] + " (10000002) from <a@example.com> to <d@x>, <e@x>, <f@x>, it waited",
            idents[1] + " (10000003) from <> to <b@x>, it waited",
            idents[2] + " (10000004) from <a@x> to <b@x>, 1 d 1 h old, it waited",
            idents[3] + " (10000005) from <a@x> to <b@x>, it waited",
        ])
        queue.max_bytes += 2048
        bad = damage(queue)
        queue.reported(bad)
        time.now = 265
        queue.add({"f": "a@x", "r": ["b@x"], "t": 0, "u": 265}, [b"x"], URGENT, True)
        eq(queue.gone()[5][8:], " (%08x) from <a@x> to <b@x>, 1 min 5 s old, damaged" % bad)
        queue.max_bytes += 2048
        bad = damage(queue)
        name = flash + "/spool/%08x-bad" % bad
        write(name, b"[" + read(name)[1:])
        queue.reported(bad)
        queue.add({"f": "a@x", "r": ["b@x"], "t": 0, "u": 265}, [b"x"], URGENT, True)
        eq(queue.gone()[6], "%08x, damaged" % bad)
        queue.add({"f": "a@x", "r": ["b@x", "c@x", "d@x", "e@x"], "t": 0, "u": 265}, [b"x"], URGENT, True)
        assert queue.gone()[7].endswith(", 1 min 5 s old, it waited"), queue.gone()


def test_the_note_is_made_before_the_removal():
    with Flash() as flash:
        queue = crowd(flash + "/spool", "oldest")
        remove = queue.remove_file
        seen = []

        def spy(name):
            notes = read(flash + "/spool/00000000-gone")
            if name[-4:] != "-why":
                seen.append((notes.count(b"\n"), name[:8].encode() in notes))
            return remove(name)

        queue.remove_file = spy
        for _ in range(6):
            queue.add(meta(), [b"x"], URGENT, True)
        eq(seen, [(3, True), (4, True), (5, True), (6, True)])  # behind the two letters


def test_notes_are_bounded_and_then_counted():
    with Flash() as flash:
        queue = Queue(flash + "/spool", 1 << 20, 5, displace="oldest")
        for _ in range(5 + 100):
            queue.add({"f": "a@example.com", "r": ["b@example.net"], "u": 0}, [b"x"], NORMAL, True)
        eq((queue.displaced, len(queue)), (100, 5))
        for q in (queue, Queue(flash + "/spool", 1 << 20, 5, displace="oldest")):
            lines = q.gone()
            assert 40 < len(lines) < 70, len(lines)
            eq(lines[-1], "and %d more" % (101 - len(lines)))
            eq(q.displaced, 100)
        names = [name for name in files(flash + "/spool") if name[:8] == "00000000"]
        eq(names, ["00000000.%x.0.0-gone" % (101 - len(lines))])
        assert len(read(flash + "/spool/" + names[0])) < 4300
        queue.gone_reported()
        eq((queue.gone(), queue.displaced, len(files(flash + "/spool"))), ([], 0, 5))
        queue.add(meta(), [b"x"], NORMAL, True)
        eq((queue.displaced, len(queue.gone())), (1, 1))
        queue.add(meta(), [b"the report"], NORMAL, True)
        queue.gone_reported()  # the report does not know of what gave way to it
        eq((queue.displaced, len(queue.gone())), (2, 2))
        queue.gone_reported()
        eq((queue.displaced, queue.gone()), (0, []))


def test_an_alert_finds_room_in_a_flash_that_is_full():
    if not MICROPYTHON:
        return  # a littlefs is needed
    for rule in ("oldest", "newest"):
        with Flash(48) as flash:
            queue = Queue(flash + "/spool", 1 << 30, displace=rule)
            count = 0
            try:
                while True:
                    queue.add(meta(), [b"x" * 300])
                    count += 1
            except QueueFull:
                pass
            assert count > 30
            for n in range(200):
                queue.add(meta(), [b"alert %3d" % n], NORMAL, True)
                assert queue.free() >= 32768 - 16384, queue.free()
            left = all_of(queue)
            assert b"alert 199" in left.values(), rule
            eq(len(Queue(flash + "/spool", 1 << 30)), len(left))


# -- the cost of waiting


def test_a_thousand_waiting_mails_cost_little_memory():
    if not MICROPYTHON:
        return  # this is about a board's heap
    with Flash(230) as flash:
        queue = Queue(flash + "/spool", 1 << 30, 5000, 0)
        for _ in range(8):
            queue.add(meta(), [b"x"])
        gc.collect()
        before = gc.mem_alloc()
        for _ in range(1000):
            queue.add(meta(), [b"x"])
        gc.collect()
        cost = (gc.mem_alloc() - before) // 1000
        assert cost <= 64, cost
        eq(len(queue), 1008)
        queue = None
        gc.collect()
        eq(len(Queue(flash + "/spool", 1 << 30, 5000, 0)), 1008)


def test_a_commit_wakes_who_waits():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        woken = []
        queue.on_commit = lambda: woken.append(len(queue))
        writer = queue.new(meta())
        writer.write(b"x")
        eq(woken, [])
        writer.commit()
        queue.new(meta()).abort()
        eq(woken, [1])


def test_what_a_taker_lost_is_taken_back():
    with Flash() as flash:
        queue = Queue(flash + "/spool")
        ident = queue.add(meta(), [b"x"])
        queue.take()
        eq(queue.take(), None)
        queue.recall()
        eq(queue.take().meta["i"], ident)
