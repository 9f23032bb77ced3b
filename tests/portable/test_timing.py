"""Whatever the clock says, a mail is tried at the right times, given up at the right age, and carries a Date that is
true or none: the real queue and relay in virtual time."""

from expect import eq
from play import Flash
from world import NOON, World, field, ticks

DAY = 86400
YEAR = 365 * DAY
RETRIES = [0, 60, 120, 240, 480, 960, 1920, 3600, 3600]  # seconds between the attempts, and up to a quarter more each


class Times(World):
    """Notes when each attempt of a mail was made, and the dates of what arrived."""

    def __init__(self, path, **more):
        World.__init__(self, path, **more)
        self.tries = []  # seconds since the test began
        self.dates = {}  # recipient -> (Date, Received)
        host = self.hosts[0]
        judge = host.rcpt

        def rcpt(envelope, address):
            if address.startswith("n"):
                self.tries.append(self.seconds())
            judge(envelope, address)

        host.rcpt = host.listener.rcpt_hook = rcpt

    def seconds(self):
        return ticks() // 1000 - self.began

    def took(self, host, envelope, data):
        self.dates[envelope.rcpts[0]] = field(b"\r\n" + data, b"Date"), received(data)
        World.took(self, host, envelope, data)

    def gaps(self):
        return [b - a for a, b in zip([self.tries[0]] + self.tries, self.tries)]


def received(data):
    """The date in the topmost Received field, "" when there is none."""
    head = data[:10] == b"Received: " and data[: data.find(b"\r\nFrom:")]
    return head.rpartition(b";")[2].strip().split(b"\r\n")[0].decode() if head and b";" in head else ""


def sane(gaps):
    """As the retry schedule wants it."""
    for gap, wanted in zip(gaps, RETRIES):
        assert wanted <= gap <= wanted + wanted // 4 + 2, (gaps, wanted)


def play(story, **more):
    """Runs a story on an empty flash; gives its world, whose facts hold nothing that is wrong."""
    with Flash() as flash:
        world = Times(flash + "/spool", **more)
        world.began = ticks() // 1000
        world.run(story(world))
        eq([fact for fact in world.facts if fact[0] == "wrong"], [])
    return world


def test_a_clock_that_is_never_set_makes_no_false_date():
    async def story(world):
        await world.sleep(500)
        world.alert("a1-100", ["a1-100.1@example.net"])
        world.send("m1-100", ["m1-100.1@example.net"])
        await world.sleep(60)
        world.alert("n1-100", ["n1-100.1@never.example.net"])
        await world.sleep(7500)

    world = play(story, epoch=None)
    eq(world.dates, {"a1-100.1@example.net": ("", ""), "m1-100.1@example.net": ("", "")})
    sane(world.gaps())


def test_a_clock_that_is_set_late_gives_the_mail_from_before_its_true_date():
    async def story(world):
        world.hosts[0].up = False
        await world.sleep(100)
        world.alert("a1-100", ["a1-100.1@example.net"])
        world.send("m1-100", ["m1-100.1@example.net"])
        await world.sleep(2 * 3600)
        world.clock.set(NOON)
        world.hosts[0].up = True
        await world.sleep(600)

    world = play(story, epoch=None)
    for rcpt in ("a1-100.1@example.net", "m1-100.1@example.net"):
        date, trace = world.dates[rcpt]
        eq((rcpt, date), (rcpt, "Sun, 22 Nov 2026 11:00:00 +0100"))
        eq((rcpt, trace), (rcpt, date if rcpt[0] == "m" else ""))


def test_a_mail_of_an_earlier_start_without_a_clock_is_dated_when_it_is_sent():
    async def story(world):
        world.hosts[0].up = False
        world.alert("a1-100", ["a1-100.1@example.net"])
        await world.sleep(1000)
        await world.restart()
        await world.sleep(50)
        world.clock.set(NOON)
        world.hosts[0].up = True
        await world.sleep(600)

    date = play(story, epoch=None).dates["a1-100.1@example.net"][0]
    assert "Sun, 22 Nov 2026 13:00:00 +0100" <= date <= "Sun, 22 Nov 2026 13:09:00 +0100", date


def test_a_clock_that_was_wrong_by_years_and_is_set_right_changes_no_retry_and_no_date_of_mail_from_this_start():
    for wrong in (-20 * YEAR, 15 * YEAR):
        async def story(world, wrong=wrong):
            world.alert("n1-100", ["n1-100.1@never.example.net"])
            world.send("m2-100", ["m2-100.1@slow.example.net"])
            world.send("m1-100", ["m1-100.1@busy.example.net"])
            await world.sleep(30)
            world.clock.set(NOON)
            await world.sleep(7500)

        world = play(story, epoch=NOON + wrong)
        sane(world.gaps())
        for name in ("m2-100.1@slow.example.net", "m1-100.1@busy.example.net"):
            date, trace = world.dates[name]
            eq((wrong, name, date, trace), (wrong, name, date, date))
            assert "Sun, 22 Nov 2026 12:59:2" <= date <= "Sun, 22 Nov 2026 13:00:00 +0100", (wrong, name, date)
        eq([fact for fact in world.facts if fact[0] == "told"], [])


def test_a_clock_that_jumps_gives_nothing_up_and_hastens_nothing():
    for jump in (-30 * YEAR, -DAY, 3600, 10 * DAY, 30 * YEAR):
        async def story(world, jump=jump):
            world.send("n1-100", ["n1-100.1@never.example.net"])
            await world.sleep(200)
            world.clock.set(NOON + jump)
            await world.sleep(7300)

        world = play(story)
        sane(world.gaps())
        eq((jump, [fact for fact in world.facts if fact[0] == "told"]), (jump, []))
        assert len(world.tries) > 6, (jump, world.tries)


def test_after_a_restart_with_a_clock_that_is_years_ahead_mail_is_tried_for_hours_before_it_is_given_up():
    async def story(world):
        world.send("n1-100", ["n1-100.1@never.example.net"])
        await world.sleep(100)
        world.clock.set(NOON + 20 * YEAR)
        await world.restart()
        await world.sleep(2 * 3600)
        eq([fact for fact in world.facts if fact[0] == "told" and fact[2] == "failed"], [])

    world = play(story)
    assert len(world.tries) > 6, world.tries


def test_after_a_restart_with_a_clock_that_was_set_back_mail_is_given_up_in_the_end():
    async def story(world):
        world.send("n1-100", ["n1-100.1@never.example.net"])
        await world.sleep(100)
        world.clock.set(NOON - 20 * YEAR)
        await world.restart()
        await world.drain(7 * DAY)
        world.end = world.seconds()

    world = play(story)
    eq([fact[2] for fact in world.facts if fact[0] == "told"], ["delayed", "failed"])
    assert 4 * DAY < world.end < 6 * DAY, world.end


def test_a_mail_that_nobody_takes_is_late_after_hours_and_given_up_after_days_without_any_clock():
    seen = []

    async def story(world):
        world.send("n1-100", ["n1-100.1@never.example.net"])
        fact = world.fact
        world.fact = lambda *f: (f[0] == "told" and seen.append((f[2], world.seconds()))) or fact(*f)
        await world.drain(7 * DAY)

    play(story, epoch=None)
    (late, hours), (failed, days) = seen
    eq((late, failed), ("delayed", "failed"))
    assert 4 * 3600 <= hours <= 6 * 3600 and 5 * DAY <= days <= 5 * DAY + 5000, seen


def test_what_a_notification_says_of_times_is_true_when_the_clock_was_wrong_by_years():
    texts = []

    async def story(world):
        world.send("n1-100", ["n1-100.1@never.example.net"])
        notice = world.took_notice
        world.took_notice = lambda host, envelope, data: texts.append(data) or notice(host, envelope, data)
        await world.sleep(60)
        world.clock.set(NOON)
        await world.drain(7 * DAY)

    play(story, epoch=NOON + 15 * YEAR)
    eq(len(texts), 2)
    for n, text in enumerate(texts):
        eq((n, field(text, b"Arrival-Date")), (n, "Sun, 22 Nov 2026 12:59:00 +0100"))
        assert " Nov 2026 " in field(text, b"Date"), text
    eq(field(texts[0], b"Will-Retry-Until"), "Fri, 27 Nov 2026 12:59:00 +0100")
