"""Rates, throttling and fail-over: lib/smtp/rate.py, lib/smtp/throttle.py, lib/smtp/relay.py."""

from expect import eq
from smtp.rate import Rate
from smtp.relay import SmartHost
from smtp.reply import SMTPError
from smtp.throttle import pause
from test_bounce import Forever, drain
from test_relay import Box, World

LATER = SMTPError(450, "4.2.0", "busy")


def test_a_rate_holds_in_every_window_of_its_length():
    rate = Rate(5, 60)
    given = []
    now = 1000
    while now < 1400:
        wait = rate.wait(now)
        if not wait:
            rate.count(now)
            given.append(now)
        now += wait or 1
    for start in range(1000, 1400):
        assert len([t for t in given if start <= t < start + 60]) <= 5, (start, given)
    assert len(given) >= 5 * 400 // 70, given  # and little is wasted
    rate = Rate(2, 86400)
    rate.count(100)
    rate.count(100)
    wait = rate.wait(100)
    assert 86400 - 100 <= wait <= 86400 + 7200 or wait <= 7200, wait
    eq(rate.wait(100 + 86400 + 7200), 0)


def test_a_rate_forgets_after_a_long_silence():
    rate = Rate(1, 60)
    rate.count(5)
    eq(rate.wait(10**6), 0)
    rate.count(10**6)
    assert rate.wait(10**6)


def test_replies_that_ask_for_less_are_told_from_those_that_refuse_a_mail():
    for reply, seconds in (
        ((421, "4.7.0", "Try again later, closing connection."), 900),
        ((550, "5.4.5", "Daily user sending limit exceeded."), 3600),
        ((454, "4.7.0", "Too many login attempts, please try again later."), 900),
        ((432, "4.3.2", "STOREDRV.ClientSubmit; sender thread limit exceeded"), 120),
        ((451, "4.7.500", "Server busy. Please try again later"), 900),
        ((550, "5.1.90", "Your message can't be sent because you've reached your daily limit"), 3600),
        ((454, "", "Throttling failure: Maximum sending rate exceeded."), 30),
        ((454, "", "Throttling failure: Daily message quota exceeded."), 3600),
        ((421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred"), 900),
        ((450, "4.7.1", "Error: too much mail from 192.0.2.1"), 900),
        ((421, "4.7.0", "Error: too many connections from 192.0.2.1"), 120),
        ((450, "4.2.1", "The user you are trying to contact is receiving mail at a rate limit"), 0),
        ((450, "4.2.0", "greylisted"), 0),
        ((451, "4.3.0", "queue file write error"), 0),
        ((550, "5.1.1", "no such user, rate limit"), 0),
        ((421, "4.3.2", "shutting down"), 0),
        ((250, "2.0.0", "ok, rate limit"), 0),
    ):
        eq((reply, pause(*reply)), (reply, seconds))


async def test_a_throttling_reply_pauses_the_host_and_costs_no_attempt():
    for where in ("MAIL", "b@example.net", "END"):
        box = Box({where: Forever([SMTPError(451, "4.7.500", "Server busy")])})
        world = World().open(box)
        for _ in range(3):
            world.add()
        world.relay.window = 1
        assert await world.relay.session()
        eq((where, len(box.mails), len(world.queue)), (where, 0, 3))
        eq([world.queue.rows[i + 2] for i in (0, 4, 8)], [0, 0, 0])
        assert "wants less mail" in world.log() and world.log().count("wants less") == 1, world.told
        eq(await world.relay.session(), None)  # nobody may have mail now
        world.clock.up += 901
        box.no.clear()
        assert await world.relay.session()
        eq((where, len(box.mails), len(world.queue)), (where, 3, 0))
        await world.close()


async def test_a_daily_limit_that_is_said_with_5xx_loses_no_mail():
    box = Box({"END": [SMTPError(550, "5.4.5", "Daily user sending limit exceeded")]})
    world = World().open(box)
    world.add()
    assert await world.relay.session()
    eq((len(world.queue), world.queue.dead), (1, 0))
    world.clock.up += 3600
    assert await world.relay.session()
    eq((len(box.mails), len(world.queue)), (1, 0))
    await world.close()


async def test_a_throttled_host_leaves_the_mail_to_the_next():
    first, second = Box({"MAIL": Forever([SMTPError(421, "4.7.0", "too many connections")])}), Box()
    world = World().open(first, second)
    for _ in range(3):
        world.add()
    assert await world.relay.session()
    eq((len(first.mails), len(second.mails), len(world.queue)), (0, 3, 0))
    eq([h is world.hosts[1] for h in world.relay.usable()], [True])
    await world.close()


async def test_mails_a_minute_are_bounded_and_the_rest_waits():
    box = Box()
    world = World(per_minute=4).open(box)
    for _ in range(10):
        world.add()
    for done in (4, 4):
        await world.relay.session()
        eq(len(box.mails), done)
    eq([world.queue.rows[i + 2] for i in range(0, 24, 4)], [0] * 6)
    for _ in range(30):
        wait = world.hosts[0].wait(world.clock.up)
        assert 0 <= wait <= 65, wait
        world.clock.up += wait
        await world.relay.session()
    eq((len(box.mails), len(world.queue)), (10, 0))
    await world.close()


async def test_mails_in_a_session_are_bounded():
    box = Box()
    world = World(per_session=3).open(box)
    for _ in range(8):
        world.add()
    sizes = []
    while len(world.queue):
        before = len(box.mails)
        assert await world.relay.session()
        sizes.append(len(box.mails) - before)
    eq(sizes, [3, 3, 2])
    await world.close()


async def test_what_one_host_defers_the_next_one_takes_at_once():
    for where in ("MAIL", "b@example.net", "DATA", "END"):
        first, second = Box({where: Forever([LATER])}), Box()
        world = World().open(first, second)
        for _ in range(12):
            world.add("b@example.net", "c@example.net")
        for _ in range(3):
            if not len(world.queue):
                break
            assert await world.relay.session()
        got = []
        for _, rcpts, _ in first.mails + second.mails:
            got += rcpts
        eq((where, sorted(got), len(world.queue)), (where, ["b@example.net"] * 12 + ["c@example.net"] * 12, 0))
        await world.close()


async def test_what_all_hosts_defer_costs_one_attempt():
    first, second = Box({"MAIL": Forever([LATER])}), Box({"MAIL": Forever([LATER])})
    world = World().open(first, second)
    world.add()
    await drain(world)
    eq((len(world.queue), world.queue.rows[2]), (1, 1))
    assert world.queue.due() >= world.clock.up + 60
    await world.stop(1)  # and when the second one is not there
    world.clock.up += 100
    world.relay.first = 0
    await drain(world)
    eq((len(world.queue), world.queue.rows[2]), (1, 2))
    await world.close()


async def test_the_host_that_worked_is_asked_first_for_a_while():
    first, second = Box(), Box()
    world = World().open(first, second)
    world.hosts[0].port, port = 9, world.hosts[0].port
    world.add()
    await drain(world)
    eq(len(second.mails), 1)
    world.hosts[0].port = port
    world.add()
    await drain(world)
    eq((len(first.mails), len(second.mails)), (0, 2))
    world.clock.up += 601
    world.add()
    await drain(world)
    eq((len(first.mails), len(second.mails)), (1, 2))
    await world.close()


def test_a_host_without_limits_never_waits():
    host = SmartHost("127.0.0.1")
    eq((host.wait(0), host.wait(10**9)), (0, 0))
