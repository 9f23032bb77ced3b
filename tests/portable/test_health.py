"""firmware/health.py: how long the oldest mail has waited, and whether mail and rules get on."""

import health
from expect import eq
from play import Flash
from smtp.queue import LOW, NORMAL, URGENT, Queue

NOON = 1795348800


class Time:
    """Seconds of uptime, and seconds since 1970 when it knows them."""

    def __init__(self, up=0, epoch=None):
        self.up = up
        self.epoch = epoch

    def uptime(self):
        return self.up

    def now(self):
        return self.epoch


class Relay:
    def __init__(self, clock):
        self.clock = clock


class Rule:
    name = "freezer"
    rule = {"every": 60}

    def __init__(self, alive):
        self.alive = alive


def add(queue, time, priority=NORMAL):
    meta = {"f": "a@example.com", "r": ["b@example.net"], "t": time.epoch or 0, "u": time.up}
    queue.add(meta, [b"Subject: x\r\n\r\nhello\r\n"], priority)


def test_an_empty_queue_is_well():
    with Flash() as path:
        time = Time(10)
        queue = Queue(path + "/spool", uptime=time.uptime)
        eq(health.oldest(queue), None)
        eq(health.well(queue, Relay(time), [], time.uptime, 3600), "")


def test_the_oldest_of_all_priorities_counts():
    with Flash() as path:
        time = Time(100)
        queue = Queue(path + "/spool", uptime=time.uptime)
        for at, priority in ((100, LOW), (200, NORMAL), (250, NORMAL), (300, URGENT)):
            time.up = at
            add(queue, time, priority)
        time.up = 400
        eq(health.oldest(queue), 300)
        eq(health.well(queue, Relay(time), [], time.uptime, 300), "")
        time.up = 401
        eq(health.well(queue, Relay(time), [], time.uptime, 300), "the oldest mail has waited for 5 min 1 s")


def test_a_mail_that_is_being_sent_still_waits():
    with Flash() as path:
        time = Time(100)
        queue = Queue(path + "/spool", uptime=time.uptime)
        add(queue, time)
        mail = queue.take()
        time.up = 150
        eq(health.oldest(queue), 50)
        mail.close()
        queue.settle(mail.key, 1, 1, 0)
        eq(health.oldest(queue), None)


def test_a_mail_from_before_the_power_cut_is_as_old_as_the_clock_says_or_else_as_the_start():
    with Flash() as path:
        time = Time(5000, NOON)
        add(Queue(path + "/spool", uptime=time.uptime), time)
        time = Time(7)
        queue = Queue(path + "/spool", uptime=time.uptime)
        time.up = 60
        eq(health.oldest(queue), 60)
        eq(health.oldest(queue, NOON + 9000), 9000)
        eq(health.oldest(queue, NOON - 9000), 60)  # whoever is wrong, it is not younger than that


def test_a_dead_letter_that_is_sent_again_is_not_old():
    with Flash() as path:
        time = Time(100)
        queue = Queue(path + "/spool", uptime=time.uptime)
        add(queue, time)
        mail = queue.take()
        mail.close()
        queue.settle(mail.key, 1, 0, 1, ["0 550 5.1.1 no such user"])
        time.up = 9000
        eq(health.oldest(queue), None)
        queue.resend(mail.key)
        eq(health.oldest(queue), None)
        add(queue, time)
        time.up = 9100
        eq(health.oldest(queue), 100)


def test_a_damaged_mail_does_not_count():
    with Flash() as path:
        time = Time(100)
        queue = Queue(path + "/spool", uptime=time.uptime)
        add(queue, time)
        with open(path + "/spool/" + queue.name_now(0), "wb") as f:
            f.write(b"{half")
        eq(health.oldest(queue), None)


def test_a_rule_that_reads_its_sensor_no_more_is_not_well():
    with Flash() as path:
        time = Time(1000)
        queue = Queue(path + "/spool", uptime=time.uptime)
        eq(health.well(queue, Relay(time), [Rule(630)], time.uptime, 60), "")
        eq(health.well(queue, Relay(time), [Rule(990), Rule(629)], time.uptime, 60),
           "the sensor freezer was not read for 6 min 11 s")
