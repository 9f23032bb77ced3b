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
        for name in ("README", "-why", "-", "notes.txt", "10000009-other"):
            write(flash + "/spool/" + name, b"mine")
        queue = Queue(flash + "/spool")
        eq(list(all_of(queue).values()), [b"good"])
        eq(len(files(flash + "/spool")), 6)


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
