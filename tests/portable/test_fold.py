"""lib/smtp/fold.py: alerts of one rule become one mail with a count, whole at any time, and no rule fills the queue."""

import gc

from expect import eq, raises
from play import MICROPYTHON, Flash
from smtp.fold import Storms, span
from smtp.queue import LOW, NORMAL, URGENT, Queue, QueueFull

NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000


class Board:
    """A queue and its storms; time goes by when a test says so. `clock`: what now - up is, None: nobody has set it."""

    def __init__(self, flash, clock=None, window=600, **limits):
        self.path = flash + "/spool"
        self.clock = clock
        self.window = window
        self.limits = limits
        self.start()

    def start(self):
        """The power comes back."""
        self.up = 5
        self.queue = Queue(self.path, uptime=lambda: self.up, **self.limits)
        self.storms = Storms(self.queue, self.window, lambda epoch: 3600)

    def alert(self, rule="door", subject="open", text="It is open.", priority=NORMAL, to=("oncall@example.com",)):
        """Gives how many alerts are in its mail."""
        now = self.clock + self.up if self.clock else 0
        meta = {"f": "board@example.com", "r": list(to), "t": now, "u": self.up}
        ident, count = self.storms.add(
            rule, meta, subject, text, lambda s, t: [b"Subject: " + s.encode() + b"\r\n\r\n", t.encode()], priority)
        eq(len(ident), 8)
        return count

    def take(self):
        """(meta, subject, text) of the mail that is due; it is delivered. None when none is."""
        mail = self.queue.take()
        if mail is None:
            return None
        buf = bytearray(2000)
        text = str(bytes(buf[: mail.read(buf)]), "utf-8")
        mail.close()
        self.queue.settle(mail.key, len(mail.meta["r"]), (1 << len(mail.meta["r"])) - 1, 0)
        subject, _, text = text.partition("\r\n\r\n")
        return mail.meta, subject[9:], text

    def waits(self):
        """Seconds until each mail is due."""
        rows = self.queue.rows
        return [max(0, rows[i] - self.up) for i in range(1, len(rows), 4)]


def test_the_first_alert_goes_at_once_and_says_nothing_of_others():
    with Flash() as flash:
        board = Board(flash)
        eq((board.alert(), board.waits()), (1, [0]))
        meta, subject, text = board.take()
        eq((subject, text, meta["s"], meta["u"]), ("open", "It is open.", ["door", 1, 0, 5], 5))


def test_alerts_that_come_while_one_waits_are_one_mail_in_its_place():
    with Flash() as flash:
        board = Board(flash)
        board.alert("window")
        board.alert()
        board.alert("lamp")
        for n in range(2, 13):
            board.up += 191
            eq(board.alert(subject="open %d" % n, text="Now %d." % n), n)
        eq(board.waits(), [0, 0, 0])  # the network was away: there is nothing to wait for
        eq(board.take()[0]["s"][0], "window")
        meta, subject, text = board.take()
        eq((subject, text), ("[12x] open 12", "Now 12.\n\nRaised 12 times in 35 min 1 s.\n"))
        eq((meta["s"], meta["u"]), (["door", 12, 0, 5], 5 + 11 * 191))
        eq(board.take()[0]["s"][0], "lamp")
        eq(board.take(), None)


def test_where_the_clock_is_known_the_mail_says_when():
    with Flash() as flash:
        board = Board(flash, NOON - 5)
        board.alert(text="")
        board.up += 2110
        board.alert(text="")
        eq(board.take()[2], "Raised 2 times in 35 min 10 s, first at Sun, 22 Nov 2026 13:00:00 +0100, "
                            "last at Sun, 22 Nov 2026 13:35:10 +0100.\n")


def test_an_alert_from_before_the_clock_was_set_gets_its_true_date():
    with Flash() as flash:
        board = Board(flash)
        board.alert(text="")
        board.up += 60
        board.alert(text="")
        board.clock = NOON - 125
        board.up += 60
        eq(board.alert(text=""), 3)
        meta, _, text = board.take()
        eq(text, "Raised 3 times in 2 min, first at Sun, 22 Nov 2026 12:58:00 +0100, "
                 "last at Sun, 22 Nov 2026 13:00:00 +0100.\n")
        eq(meta["s"], ["door", 3, NOON - 120, 5])


def test_a_rule_that_flaps_makes_one_mail_for_each_window_with_all_of_it():
    with Flash() as flash:
        board = Board(flash)
        raised = told = 0
        sent = []
        for second in range(7200):
            board.up += 1
            if second % 30 == 0:
                board.alert()
                raised += 1
            assert len(board.queue) <= 1, second
            mail = board.take()
            if mail:
                sent.append(second)
                told += mail[0]["s"][1]
        eq(sent, [0] + list(range(600, 7200, 600)))
        board.up += 600
        eq(raised, told + board.take()[0]["s"][1])


def test_after_a_quiet_window_an_alert_goes_at_once_again():
    with Flash() as flash:
        board = Board(flash)
        board.alert()
        board.take()
        board.up += 599
        eq((board.alert(), board.waits()), (1, [1]))
        board.up += 1
        eq(board.take()[2], "It is open.")
        board.up += 600
        eq((board.alert(), board.waits()), (1, [0]))


def test_after_a_long_outage_the_next_mail_waits_a_window_after_the_last_alert():
    with Flash() as flash:
        board = Board(flash)
        board.alert()
        board.up += 100000
        eq(board.alert(), 2)
        board.up += 10
        eq(board.take()[1], "[2x] open")
        board.up += 10
        eq((board.alert(), board.waits()), (1, [580]))


def test_a_mail_that_is_on_its_way_is_left_alone():
    with Flash() as flash:
        board = Board(flash)
        board.alert()
        mail = board.queue.take()
        eq((board.alert(), len(board.queue)), (1, 2))
        eq(board.alert(), 2)
        board.queue.release(mail.key)  # it was not delivered: now two wait, the newer one grows
        eq((board.alert(), len(board.queue)), (3, 2))
        eq([board.take()[1], board.waits()], ["open", [600]])


def test_a_mail_that_has_reached_somebody_is_left_alone():
    with Flash() as flash:
        board = Board(flash)
        board.alert(to=["a@x", "b@x"])
        mail = board.queue.take()
        mail.close()
        board.queue.settle(mail.key, 2, 1, 0)
        eq((board.alert(to=["a@x", "b@x"]), len(board.queue)), (1, 2))
        eq((board.alert(to=["a@x", "b@x"]), len(board.queue)), (2, 2))


def test_another_priority_another_recipient_and_another_rule_have_mails_of_their_own():
    with Flash() as flash:
        board = Board(flash)
        kinds = [
            {}, {"priority": URGENT}, {"priority": LOW}, {"to": ["a@x"]}, {"to": ["a@x", "b@x"]}, {"rule": "lamp"},
        ]
        for n in range(3):
            for kind in kinds:
                eq(board.alert(**kind), n + 1)
        eq(board.waits(), [0] * 6)
        eq(board.take()[0]["s"], ["door", 3, 0, 5])


def test_sixteen_rules_are_remembered_and_the_seventeenth_is_a_new_mail_again():
    with Flash() as flash:
        board = Board(flash)
        for n in (1, 2, 3):
            for i in range(16):
                eq(board.alert("rule %d" % i), n)
        eq(board.alert("rule 16"), 1)
        eq(board.alert("rule 0"), 1)  # the longest without an alert: forgotten
        eq(board.alert("rule 2"), 4)
        for i in range(200):
            board.alert("rule %d" % i)
        eq(len(board.storms.rules), 16)


def test_a_storm_of_many_rules_takes_no_more_memory():
    if not MICROPYTHON:
        return  # this is about a board's heap
    with Flash() as flash:
        board = Board(flash)
        used = []
        for _ in range(2):
            for n in range(60):
                board.alert("rule %d" % (n % 20))
                board.take()
                board.up += 1000
            gc.collect()
            used.append(gc.mem_alloc())
        assert used[1] - used[0] < 500, used


def test_a_board_that_starts_again_and_again_makes_one_mail():
    with Flash() as flash:
        board = Board(flash, NOON)
        for n in range(1, 31):
            board.alert("other", to=["%d@x" % n])
            board.clock += 1000
            eq((board.alert(), len(board.queue)), (n, n + 1))
            board.start()
        sent = [board.take() for _ in range(len(board.queue))]
        ((meta, subject, text),) = [mail for mail in sent if mail[0]["s"][0] == "door"]
        eq((subject, meta["s"]), ("[30x] open", ["door", 30, NOON + 1005, None]))
        eq(text, "It is open.\n\nRaised 30 times in 8 h 3 min, first at Sun, 22 Nov 2026 13:16:45 +0100, "
                 "last at Sun, 22 Nov 2026 21:20:05 +0100.\n")


def test_a_board_without_a_clock_that_starts_again_says_how_often():
    with Flash() as flash:
        board = Board(flash)
        board.alert()
        board.start()
        board.alert()
        board.clock = NOON
        eq(board.alert(), 3)
        eq(board.take()[2], "It is open.\n\nRaised 3 times, last at Sun, 22 Nov 2026 13:00:05 +0100.\n")


def test_a_clock_that_was_set_back_makes_no_duration():
    with Flash() as flash:
        board = Board(flash, NOON)
        board.alert(text="")
        board.start()
        board.clock -= 864000
        board.alert(text="")
        eq(board.take()[2], "Raised 2 times, first at Sun, 22 Nov 2026 13:00:05 +0100, "
                            "last at Thu, 12 Nov 2026 13:00:05 +0100.\n")
        board.alert(text="")
        board.clock += 864000 * 400
        board.up += 7
        board.alert(text="")
        board.up += 600
        assert board.take()[2].startswith("Raised 2 times in 7 s, "), board.queue


def test_only_the_last_mails_of_an_earlier_start_are_looked_at():
    with Flash(256) as flash:
        board = Board(flash, max_bytes=1 << 20)
        board.alert("early")
        board.alert("late")
        for _ in range(63):
            board.queue.add({"f": "", "r": ["x@y"]}, [b"x"])
        board.start()
        eq((board.alert("late"), board.alert("early")), (2, 1))


def test_a_damaged_mail_of_an_earlier_start_does_not_stop_an_alert():
    with Flash() as flash:
        board = Board(flash)
        board.alert()
        board.alert("lamp")
        with open(board.path + "/10000002", "r+b") as f:
            f.seek(20)
            f.write(b"\0")
        board.start()
        eq((board.alert("lamp"), board.alert()), (1, 2))


def test_without_room_the_mail_that_waits_stays_and_the_next_alert_counts_on():
    with Flash() as flash:
        board = Board(flash, max_bytes=4096, displace="oldest")
        board.alert()
        board.alert()
        raises(QueueFull, board.alert, text="x" * 5000)
        eq(len(board.queue), 1)
        eq(board.alert(text=""), 3)
        eq(board.take()[2], "Raised 3 times in 0 s.\n")
        raises(QueueFull, board.alert, "lamp", text="x" * 5000)
        eq((board.alert("lamp"), board.waits()), (1, [0]))


def test_a_full_queue_still_counts_and_others_give_way_to_a_new_rule():
    with Flash() as flash:
        board = Board(flash, max_bytes=8192, displace="newest")
        board.alert()
        for _ in range(3):
            board.queue.add({"f": "", "r": ["x@y"], "u": 5}, [b"x"])
        eq((board.alert(), board.queue.displaced), (2, 0))
        eq((board.alert("lamp"), board.queue.displaced), (1, 1))
        eq((board.alert(), board.alert("lamp"), board.queue.displaced), (3, 2, 1))


def test_durations_are_said_in_two_words():
    for seconds, text in (
        (0, "0 s"), (59, "59 s"), (60, "1 min"), (2110, "35 min 10 s"), (3600, "1 h"), (3661, "1 h 1 min"),
        (86400 * 2 + 3 * 3600 + 5, "2 d 3 h"), (86400 * 400 + 61, "400 d 1 min"),
    ):
        eq(span(seconds), text)
