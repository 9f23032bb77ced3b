"""lib/smtp/bounce.py and lib/smtp/relay.py: who is told what became of a mail, and when a mail is given up."""

from expect import eq
from smtp.bounce import nowhere
from smtp.reply import SMTPError
from test_relay import NOON, Box, Clock, World, fields

GONE = SMTPError(550, "5.1.1", "no such user")
LATER = SMTPError(450, "4.2.0", "busy")
SMTP = {"p": "192.168.1.9", "h": "printer", "x": 1}


class Forever(list):
    """An answer that is never used up."""

    def pop(self, n):
        return self[0]


async def drain(world):
    """Sessions until nothing is due."""
    for _ in range(10):
        due = world.queue.due()
        if due is None or due > world.clock.up:
            return
        await world.relay.session()
    raise AssertionError("it never ends: " + world.log())


async def test_a_refused_mail_of_a_device_is_bounced_to_its_sender_and_gone():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.add("b@example.net", "c@example.net", **SMTP)
    await drain(world)
    eq([m[:2] for m in box.mails], [("a@example.com", ["c@example.net"]), ("", ["a@example.com"])])
    report = box.mails[1][2]
    for text in (b"multipart/report", b"Action: failed", b"Status: 5.1.1", b"550 5.1.1 no such user", b"Subject: x",
                 b"Remote-MTA: dns; 127.0.0.1"):
        assert text in report, (text, report)
    assert b"c@example.net" not in report
    eq((len(world.queue), world.queue.dead, world.queue.kept, world.files()), (0, 0, 0, []))
    await world.close()


async def test_a_bounce_that_is_refused_becomes_a_dead_letter_and_is_not_bounced():
    box = Box({"b@example.net": GONE, "a@example.com": GONE})
    world = World().open(box)
    world.add("b@example.net", **SMTP)
    await drain(world)
    eq((box.mails, len(world.queue), world.queue.dead), ([], 0, 1))
    await world.close()


async def test_what_would_bounce_to_nowhere_goes_to_the_admin_in_one_mail():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    for _ in range(3):
        world.add("b@example.net", sender="printer@office.lan", text=b"Subject: page\r\n\r\nx\r\n", **SMTP)
    world.add("b@example.net", text=b"Subject: Freezer\r\n warm\r\n\r\nx\r\n")  # an alert of our own
    world.add("b@example.net", sender="", **SMTP)
    await drain(world)
    eq((box.mails, world.queue.dead), ([], 5))
    eq(world.relay.report, world.clock.up + 300)  # more may come
    from smtp.bounce import report

    report(world.relay)
    eq((world.queue.dead, world.queue.kept, len(world.queue)), (0, 5, 1))
    await drain(world)
    eq([m[1] for m in box.mails], [["admin@example.com"]])
    content = box.mails[0][2]
    for text in (b"5 mails were not delivered", b"printer@office.lan", b"550 5.1.1 no such user", b"Subject: Freezer",
                 b"Subject: page", b"<b@example.net>"):
        assert text in content, (text, content)
    eq(fields(content, "Auto-Submitted"), ["auto-generated"])
    report(world.relay)  # nothing new
    eq((len(world.queue), len(box.mails)), (0, 1))
    await world.close()


async def test_a_report_that_is_refused_is_kept_and_not_reported():
    box = Box({"b@example.net": GONE, "admin@example.com": GONE})
    world = World().open(box)
    world.add("b@example.net")
    await drain(world)
    from smtp.bounce import report

    report(world.relay)
    await drain(world)
    eq((box.mails, world.queue.dead, world.queue.kept, len(world.queue)), ([], 0, 2, 0))
    await world.close()


async def test_a_report_is_bounded_and_the_rest_comes_with_the_next():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    for _ in range(20):
        world.add("b@example.net")
    await drain(world)
    from smtp.bounce import report

    report(world.relay)
    eq((world.queue.dead, world.queue.kept), (5, 15))
    assert world.relay.report is not None
    report(world.relay)
    eq((world.queue.dead, world.queue.kept), (0, 20))
    await world.close()


async def test_after_a_restart_what_was_not_reported_is():
    import asyncio

    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.add("b@example.net")
    await drain(world)
    world.restart()
    world.relay.report = None
    world.relay.gather = 0
    task = asyncio.create_task(world.relay.run())
    for _ in range(200):
        if box.mails:
            break
        await asyncio.sleep(0.02)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    eq([m[1] for m in box.mails], [["admin@example.com"]])
    await world.close()


async def test_notify_never_makes_no_bounce():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.add("b@example.net", n=[" NOTIFY=NEVER"], **SMTP)
    await drain(world)
    eq((box.mails, world.queue.dead), ([], 1))
    await world.close()


async def test_ret_full_gives_the_whole_mail_back_to_a_sender_who_wants_it():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.add("b@example.net", d=" RET=FULL ENVID=Q1", text=b"Subject: x\r\n\r\nall of it\r\n", **SMTP)
    world.add("b@example.net", text=b"Subject: x\r\n\r\nall of it\r\n", **SMTP)
    await drain(world)
    eq([b"all of it" in m[2] for m in box.mails], [True, False])
    assert b"Original-Envelope-Id: Q1" in box.mails[0][2]
    await world.close()


async def test_bounces_can_be_switched_off_but_for_who_asks():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.relay.bounce = False
    world.add("b@example.net", **SMTP)
    world.add("b@example.net", n=[" NOTIFY=FAILURE"], **SMTP)
    await drain(world)
    eq((len(box.mails), world.queue.dead), (1, 1))
    await world.close()


async def test_without_room_for_a_bounce_the_mail_is_a_dead_letter():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.add("b@example.net", **SMTP)
    world.queue.max_count = 1
    await drain(world)
    eq((box.mails, world.queue.dead), ([], 1))
    assert "no room to tell a@example.com" in world.log(), world.told
    await world.close()


async def test_without_an_admin_dead_letters_are_only_kept():
    box = Box({"b@example.net": GONE})
    world = World().open(box)
    world.relay.admin = ""
    world.add("b@example.net")
    await drain(world)
    eq((world.queue.dead, world.queue.kept, world.relay.report), (0, 1, None))
    await world.close()


async def test_a_late_mail_is_told_of_once_and_given_up_at_its_time():
    box = Box({"b@example.net": Forever([LATER])})
    world = World().open(box)
    world.relay.delay_notice, world.relay.expire = 1000, 5000
    world.add("b@example.net", **SMTP)
    for _ in range(40):
        await drain(world)
        if not len(world.queue):
            break
        wait = world.queue.due() - world.clock.up
        world.clock.up += wait
        world.clock.epoch += wait
    told = [m[2] for m in box.mails]
    eq([b"Action: delayed" in t for t in told], [True, False])
    eq([b"Action: failed" in t for t in told], [False, True])
    assert b"Will-Retry-Until: Sun, 22 Nov 2026 14:22:20 +0100" in told[0], told[0]
    assert b"450 4.2.0 busy" in told[1] and b"given up" in told[1].replace(b"\r\n", b" "), told[1]
    eq((len(world.queue), world.queue.dead, world.queue.kept, world.files()), (0, 0, 0, []))
    await world.close()


async def test_a_delay_is_told_once_across_restarts():
    box = Box({"b@example.net": Forever([LATER])})
    world = World().open(box)
    world.relay.delay_notice = 1
    world.add("b@example.net", **SMTP)
    for _ in range(4):
        world.clock.up += 4000
        await drain(world)
        world.restart()
    eq([m[1] for m in box.mails], [["a@example.com"]])
    await world.close()


async def test_nobody_hears_of_the_delay_of_an_alert_or_with_notify_failure():
    box = Box({"b@example.net": Forever([LATER])})
    world = World().open(box)
    world.relay.delay_notice = 1
    world.add("b@example.net")
    world.add("b@example.net", n=[" NOTIFY=FAILURE"], **SMTP)
    world.clock.up += 100
    await drain(world)
    eq((box.mails, len(world.queue)), ([], 2))
    await world.close()


async def test_an_alert_that_is_given_up_is_kept_and_the_admin_hears_of_it():
    box = Box({"b@example.net": Forever([LATER])})
    world = World().open(box)
    world.relay.expire = 1000
    world.add("b@example.net")
    world.clock.up += 1000
    await drain(world)
    eq((len(world.queue), world.queue.dead), (0, 1))
    assert world.relay.report
    await world.close()


async def test_a_dead_network_gives_up_no_mail_however_long_it_takes():
    box = Box()
    world = World().open(box)
    world.relay.expire = 1000
    world.add("b@example.net", **SMTP)
    await world.stop()
    for _ in range(3):
        world.clock.up += 5000
        eq(await world.relay.session(), False)
    eq(len(world.queue), 1)
    await world.close()


async def test_a_clock_that_jumps_years_gives_up_no_mail_before_it_was_tried_often():
    box = Box({"b@example.net": Forever([LATER])})
    world = World(Clock(NOON)).open(box)
    world.add("b@example.net", **SMTP)
    world.restart()  # another boot: the clock is all there is
    world.queue.boot = "another"
    world.clock.epoch += 10 * 365 * 86400
    tries = 0
    while len(world.queue) and tries < 50:
        await drain(world)
        tries += 1
        world.clock.up += 3700
    assert 8 <= tries < 12, tries
    # Without any clock the retries tell the time: 5 days of them, an hour apart at most.
    world.add("b@example.net", **SMTP)
    world.queue.boot = "a third"
    world.clock.epoch = None
    tries = 0
    while len(world.queue) and tries < 400:
        await drain(world)
        tries += 1
        world.clock.up += 4600
    assert 120 <= tries < 140, tries
    await world.close()


async def test_a_dead_letter_that_is_sent_again_is_not_given_up_at_once_for_its_age():
    box = Box({"b@example.net": Forever([LATER])})
    world = World().open(box)
    world.relay.expire = 1000
    world.add("b@example.net", **SMTP)
    world.clock.up += 1000
    world.relay.bounce = False
    await drain(world)
    eq((len(world.queue), world.queue.dead), (0, 1))
    ((key, _, _),) = world.queue.letters()
    world.queue.resend(key)
    tries = 0
    while len(world.queue) and tries < 20:
        await drain(world)
        tries += 1
        world.clock.up += 4600
    eq((tries, world.queue.dead), (5, 1))  # 60 + 120 + 240 + 480 + 960 s of retries
    await world.close()


def test_senders_that_nobody_reads():
    for address in ("printer", "root@nas", "scan@office.lan", "a@[192.168.1.2]", "x@nas.local", "y@host.localdomain"):
        assert nowhere(address), address
    for address in ("a@example.com", "a@mail.example.co.uk"):
        assert not nowhere(address), address
