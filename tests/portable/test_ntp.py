"""firmware/sntp.py against a time server of its own, and firmware/ntp.py with servers that are silent, late or lie, in
time that the test makes."""

import asyncio
import errno
import os
import socket

import clock
import ntp
import sntp
import virtualtime
from expect import eq, raises
from play import Flash, Random, somewhere
from smtp.stream import ready, sleep_ms
from sntp import Refused, ask, parse

NOON = virtualtime.NOON
YEAR = 365 * 86400


# -- messages, written down here once more from RFC 5905 section 7.3


def stamp(seconds, ms=0):
    """An NTP timestamp of seconds since 1970."""
    return ((seconds + 2208988800) % 2**32).to_bytes(4, "big") + (ms * 2**32 // 1000).to_bytes(4, "big")


def reply(query, seconds=NOON, ms=0, leap=0, version=4, mode=4, stratum=2, code=b"\xc0\0\2\1", origin=None):
    top = bytes((leap << 6 | version << 3 | mode, stratum, 6, 0xEC)) + bytes(8) + code
    return top + stamp(seconds - 600) + (origin or query[40:48]) + stamp(seconds) + stamp(seconds, ms)


QUERY = bytes(40) + b"12345678"
SENT = b"12345678"


def test_a_reply_gives_milliseconds_since_1970():
    eq(parse(reply(QUERY), SENT), NOON * 1000)
    eq(parse(reply(QUERY, NOON, 500), SENT), NOON * 1000 + 500)
    eq(parse(reply(QUERY, NOON, 999), SENT), NOON * 1000 + 998)
    eq(parse(reply(QUERY, version=3), SENT), NOON * 1000)


def test_the_era_that_starts_in_2036_is_understood():
    for year_2036 in (2085978495, 2085978496 + 1, 2524608000, 3913056000):
        eq(parse(reply(QUERY, year_2036), SENT), year_2036 * 1000)


def test_what_is_no_reply_to_this_query_is_none():
    for data in (
        b"", bytes(48), reply(QUERY)[:47], reply(QUERY, origin=b"12345679"), reply(QUERY, origin=bytes(8)),
        reply(QUERY, mode=3), reply(QUERY, mode=5), reply(QUERY, mode=1), QUERY,
    ):  # fmt: skip
        eq(parse(data, SENT), None)


def test_a_server_whose_own_clock_is_not_set_gives_no_time():
    for data in (reply(QUERY, leap=3), reply(QUERY, stratum=16), reply(QUERY, stratum=200)):
        assert "not set" in str(raises(ValueError, parse, data, SENT))
    assert "no time" in str(raises(ValueError, parse, reply(QUERY)[:40] + bytes(8), SENT))


def test_a_kiss_of_death_is_a_refusal():
    for code in (b"DENY", b"RATE", b"RSTR"):
        eq(raises(Refused, parse, reply(QUERY, stratum=0, code=code), SENT).args, (code,))
    eq(parse(reply(QUERY, stratum=0, code=b"DENY", origin=b"x" * 8), SENT), None)  # anybody could send that


def test_any_octets_are_a_time_or_none_or_no_time():
    dice = Random(3)
    for n in range(2000):
        data = bytearray(reply(QUERY))
        for _ in range(1 + n % 6):
            data[dice.below(48)] = dice.below(256)
        data = bytes(data[: 40 + dice.below(20)])
        try:
            found = parse(data, SENT)
            assert found is None or 0 <= found < 2**33 * 1000, found
        except (ValueError, Refused):
            pass


# -- over UDP


def udp(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(socket.getaddrinfo("127.0.0.1", port)[0][4])
    except OSError:
        sock.close()
        raise
    return sock


class Server:
    """answer(sock, query, peer) sends what it likes, and may be a coroutine."""

    def __init__(self, answer):
        self.answer = answer
        self.queries = []
        self.tasks = []

    async def __aenter__(self):
        self.port, self.sock = somewhere(udp)
        self.tasks.append(asyncio.create_task(self.serve()))
        return self

    async def __aexit__(self, *error):
        for task in self.tasks:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        self.sock.close()

    async def serve(self):
        while True:
            try:
                query, peer = self.sock.recvfrom(100)
            except OSError as e:
                eq(e.errno, errno.EAGAIN)
                await ready(self.sock, False)
                continue
            self.queries.append(query)
            step = self.answer(self.sock, query, peer)
            if hasattr(step, "send"):
                self.tasks.append(asyncio.create_task(step))


async def gives(answer, wait=2000):
    async with Server(answer) as server:
        return await ask("127.0.0.1", server.port, wait)


async def fails(answer, kind, wait=2000):
    try:
        await gives(answer, wait)
    except kind as e:
        return e
    raise AssertionError("no %s" % kind)


async def test_a_query_says_nothing_but_that_it_is_one():
    async with Server(lambda sock, query, peer: sock.sendto(reply(query), peer)) as server:
        for _ in range(3):
            await ask("127.0.0.1", server.port)
        for query in server.queries:
            eq((len(query), query[:40]), (48, b"\x23" + bytes(39)))
        eq(len(set([q[40:] for q in server.queries])), 3)


async def test_the_answer_counts_with_half_of_its_way():
    async def late(sock, query, peer):
        await sleep_ms(300)
        sock.sendto(reply(query), peer)

    found = await gives(late) - NOON * 1000
    assert 140 <= found < 1000, found


async def test_a_silent_server_is_given_up():
    eq((await fails(lambda *nothing: None, OSError, 100)).args[0], errno.ETIMEDOUT)


async def test_a_port_where_nobody_listens_is_an_error():
    port, sock = somewhere(udp)
    sock.close()
    try:
        await ask("127.0.0.1", port, 100)
        raise AssertionError("somebody is there")
    except OSError:
        pass


async def test_forged_replies_are_ignored_and_the_right_one_counts():
    def answer(sock, query, peer):
        sock.sendto(reply(query, NOON + YEAR, origin=os.urandom(8)), peer)
        sock.sendto(b"", peer)
        sock.sendto(reply(query, stratum=0, code=b"DENY", origin=bytes(8)), peer)
        sock.sendto(reply(query), peer)

    assert 0 <= await gives(answer) - NOON * 1000 < 1000


async def test_a_reply_from_another_port_is_ignored():
    other = somewhere(udp)[1]

    def answer(sock, query, peer):
        other.sendto(reply(query, NOON + YEAR), peer)
        sock.sendto(reply(query), peer)

    try:
        assert 0 <= await gives(answer) - NOON * 1000 < 1000
    finally:
        other.close()


async def test_a_flood_of_forged_replies_ends_and_stops_nobody():
    turns = []

    async def flood(sock, query, peer):
        while True:
            for _ in range(20):
                try:
                    sock.sendto(reply(query, origin=b"x" * 8), peer)
                except OSError:
                    pass
            await asyncio.sleep(0)

    async def others():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    eq((await fails(flood, OSError, 300)).args[0], errno.ETIMEDOUT)
    assert len(turns) > 20, len(turns)
    task.cancel()


async def test_a_kiss_of_death_and_a_clock_that_is_not_set_are_told():
    eq((await fails(lambda s, q, p: s.sendto(reply(q, stratum=0, code=b"RATE"), p), Refused)).args, (b"RATE",))
    await fails(lambda s, q, p: s.sendto(reply(q, leap=3), p), ValueError)


# -- whom to believe


def test_the_majority_is_right_whatever_the_others_say_and_in_any_order():
    dice = Random(11)
    for _ in range(3000):
        right = 2 + dice.below(4)
        wrong = dice.below(right)
        found = [dice.below(2000) for _ in range(right)] + [
            10000000 + dice.below(2000000000) for _ in range(wrong)]
        for at in range(len(found)):
            other = dice.below(len(found))
            found[at], found[other] = found[other], found[at]
        one = ntp.agreed(found)
        assert one is not None and one < 2000, (one, found)


def test_one_alone_or_two_that_differ_agree_with_nobody():
    eq(ntp.agreed([]), None)
    eq(ntp.agreed([5]), None)
    eq(ntp.agreed([5, 100000]), None)
    eq(ntp.agreed([5, 6, 100000, 100001]), None)
    eq(ntp.agreed([5, 6, 100000]), 5)
    eq(ntp.agreed([100000, 5], 10), 5)
    eq(ntp.agreed([5], 10), 5)
    eq(ntp.agreed([100000], 10), None)


class Clock(clock.Clock):
    """In virtual time; fast: ms by which it is fast in each 1,000 s."""

    fast = 0
    rtc = 0  # what the system's clock said at uptime 0

    def system(self):
        return self.rtc + self.uptime()

    def _ticks(self):
        now = virtualtime.ticks() - getattr(self, "born", 0)
        return now + now // 1000 * self.fast // 1000


class Stage:
    """Time servers "1.0.0.n", by number, each a function of the true time in ms that gives what it says, or raises."""

    def __init__(self, path, *servers, servers_of=None):
        self.path = path + "/clock"
        self.servers = list(servers)
        self.start = virtualtime.ticks()
        self.clock = Clock(trusted=False)
        self.clock.born = self.start
        self.clock._last = 0
        self.lines = []
        self.asked = []  # (seconds, server)
        self.adjusted = []
        self.network = True
        self.names = servers_of or [["1.0.0.%d" % n for n in range(len(servers))]]
        ntp.ask = self.ask
        self.keeper = ntp.Time(
            [["pool%d" % n, 123] for n in range(len(self.names))], self.clock, self.resolve, self.path,
            lambda: self.network, self.log, self.adjust)

    def log(self, area, text):
        eq(area, "clock")
        self.lines.append(text)

    def adjust(self, now):
        self.adjusted.append(now)
        self.clock.rtc = now - self.clock.uptime()

    def seconds(self):
        return (virtualtime.ticks() - self.start) // 1000

    def true(self):
        return NOON * 1000 + virtualtime.ticks() - self.start

    async def resolve(self, name):
        found = self.names[int(name[4:])]
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, ip, port):
        eq(port, 123)
        n = int(ip.rpartition(".")[2])
        self.asked.append((self.seconds(), n))
        await asyncio.sleep(0.02)
        return self.servers[n](self.true())

    def run(self, story):
        async def main():
            task = asyncio.create_task(self.keeper.run())
            await story
            eq(task.done(), False)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        try:
            virtualtime.run(main())
        finally:
            ntp.ask = sntp.ask

    def after(self, seconds):
        async def story():
            step = min(seconds, 3600)
            for _ in range(0, seconds, step):
                await asyncio.sleep(step)

        self.run(story())
        return self

    def error(self):
        """Seconds by which the clock is wrong."""
        return self.clock.now() - self.true() // 1000


def good(now):
    return now


def lies(years):
    return lambda now: now + years * YEAR * 1000


def silent(now):
    raise OSError(errno.ETIMEDOUT)


def unset(now):
    raise ValueError("its own clock is not set")


def test_nobody_knows_the_time_before_a_server_answers_even_if_the_system_has_one():
    with Flash() as path:
        stage = Stage(path, silent)
        stage.after(3600)
        eq(stage.clock.now(), None)
        eq(stage.adjusted, [])


def test_one_server_sets_the_clock_and_the_system():
    with Flash() as path:
        stage = Stage(path, good).after(60)
        assert abs(stage.error()) <= 1
        eq(len(stage.asked), 1)
        eq(stage.adjusted, [NOON])
        eq(stage.lines, ["set by a time server"])


def test_a_systems_clock_that_loses_its_time_gets_it_back_within_minutes():
    with Flash() as path:
        stage = Stage(path, good)

        async def story():
            await asyncio.sleep(7000)
            eq(len(stage.adjusted), 1)
            stage.clock.rtc = 0
            stage.servers[0] = silent
            await asyncio.sleep(70)
            assert abs(stage.clock.system() - stage.true() // 1000) <= 1

        stage.run(story())
        eq([len(stage.asked), len(stage.adjusted)], [1, 2])
        assert "the system's clock was wrong by -" in stage.lines[1], stage.lines


def test_two_that_agree_are_enough():
    with Flash() as path:
        stage = Stage(path, good, good, good, good).after(60)
        eq([n for _, n in stage.asked], [0, 1])
        assert abs(stage.error()) <= 1


def test_one_that_lies_by_years_is_outvoted_wherever_it_stands():
    for years in (-1, 10, 30):
        for place in range(3):
            servers = [good, good]
            servers.insert(place, lies(years))
            with Flash() as path:
                stage = Stage(path, *servers).after(60)
                assert abs(stage.error()) <= 1, (years, place, stage.error())


def test_servers_of_several_names_and_several_addresses_of_one_name_are_asked():
    with Flash() as path:
        stage = Stage(path, lies(5), good, good, servers_of=[["1.0.0.0"], ["1.0.0.1"], ["1.0.0.2"]]).after(60)
        assert abs(stage.error()) <= 1
        eq([n for _, n in stage.asked], [0, 1, 2])


def test_a_name_that_cannot_be_looked_up_does_not_stop_the_others():
    with Flash() as path:
        stage = Stage(path, good, servers_of=[OSError(errno.ENOENT, "it does not exist"), ["1.0.0.0"]]).after(60)
        assert abs(stage.error()) <= 1
    with Flash() as path:
        stage = Stage(path, good, servers_of=[OSError(errno.ENOENT, "it does not exist")]).after(600)
        eq(stage.lines, ["time servers do not help: pool0: it does not exist"])


def test_two_that_differ_are_not_believed_until_a_third_one_helps():
    with Flash() as path:
        stage = Stage(path, good, lies(3), silent).after(300)
        eq(stage.clock.now(), None)
        assert "they differ by 94608000 s: name another one in board.ntp" in stage.lines[0], stage.lines
        assert "1.0.0.2: silent" in stage.lines[0]
        eq(len(stage.lines), 1)
        stage.servers[2] = good
        ntp.ask = stage.ask
        stage.after(1800)
        assert abs(stage.error()) <= 1


def test_the_only_one_that_answers_is_believed_only_until_others_do():
    with Flash() as path:
        stage = Stage(path, lies(3), silent, silent).after(10)
        assert stage.error() > YEAR  # nobody knows better
        stage.servers[1] = stage.servers[2] = good
        ntp.ask = stage.ask
        stage.after(120)
        assert abs(stage.error()) <= 1
        assert "was wrong by -94608000 s" in stage.lines, stage.lines


def test_a_clock_that_is_right_has_a_vote():
    with Flash() as path:
        stage = Stage(path, good, good, silent).after(60)
        stage.servers[:] = [lies(3), good, silent]
        ntp.ask = stage.ask
        stage.after(20000)
        assert abs(stage.error()) <= 1


def test_a_clock_that_is_right_needs_one_answer_only():
    with Flash() as path:
        stage = Stage(path, good, good, good).after(90000)
        times = [t for t, _ in stage.asked]
        assert 5 <= len(times) - 2 <= 7, times


def test_the_only_server_has_to_say_three_times_that_years_have_passed():
    with Flash() as path:
        stage = Stage(path, good).after(60)
        stage.servers[0] = lies(3)
        ntp.ask = stage.ask
        stage.run(_until(stage, 3))
        assert abs(stage.error()) <= 1
        ntp.ask = stage.ask
        stage.run(_until(stage, 4))
        assert stage.error() > YEAR


async def _until(stage, count):
    while len(stage.asked) < count:
        await asyncio.sleep(10)


def test_who_lives_before_this_firmware_was_made_is_not_believed():
    with Flash() as path:
        stage = Stage(path, lambda now: 1700000000000).after(600)
        eq(stage.clock.now(), None)
        eq(stage.lines, ["time servers do not help: 1.0.0.0: it lives in the past"])


def test_a_server_that_denies_is_never_asked_again_and_one_that_is_asked_too_often_only_later():
    def denies(now):
        raise Refused(b"DENY")

    def rate(now):
        raise Refused(b"RATE")

    with Flash() as path:
        stage = Stage(path, denies, rate).after(4 * 86400)
        eq([n for _, n in stage.asked].count(0), 1)
        times = [t for t, n in stage.asked if n == 1]
        assert len(times) > 10 and min([b - a for a, b in zip(times, times[1:])]) >= 7200, times
        eq(stage.lines[0], "time servers do not help: 1.0.0.0 wants to be left alone; 1.0.0.1 wants to be left alone")


def test_a_silent_server_is_asked_less_and_less_often():
    with Flash() as path:
        stage = Stage(path, silent).after(86400)
        times = [t for t, _ in stage.asked]
        gaps = [b - a for a, b in zip(times, times[1:])]
        assert min(gaps) >= 15, gaps  # RFC 4330 section 10
        assert max(gaps) <= 1810 and 40 < len(times) < 70, gaps
        eq(stage.lines, ["time servers do not help: 1.0.0.0: silent"])


def test_nobody_is_asked_without_a_network():
    with Flash() as path:
        stage = Stage(path, good)
        stage.network = False

        async def story():
            await asyncio.sleep(3600)
            eq(stage.asked, [])
            stage.network = True
            await asyncio.sleep(5)
            assert abs(stage.error()) <= 1

        stage.run(story())


def test_a_clock_that_is_fast_is_put_right():
    with Flash() as path:
        stage = Stage(path, good)
        stage.clock.fast = 100  # ms in 1,000 s: a poor crystal

        async def story():
            for _ in range(48):
                await asyncio.sleep(3600)
                assert abs(stage.error()) <= 3, stage.error()

        stage.run(story())
        eq(len(stage.lines), 1)  # nobody wants to read that


def test_the_clock_goes_on_while_servers_are_away_for_days():
    with Flash() as path:
        stage = Stage(path, good, good).after(60)
        stage.servers[:] = [silent, unset]
        ntp.ask = stage.ask
        stage.after(5 * 86400)
        assert abs(stage.error()) <= 1
        eq(len(stage.lines), 2)
        stage.servers[:] = [good, good]
        ntp.ask = stage.ask
        stage.after(3600)
        assert abs(stage.error()) <= 1


# -- what is kept in flash


def writes(stage):
    """Counts from here on how often the time is written."""
    counted = []

    class Counting:
        def rename(self, old, new):
            counted.append(new)
            os.rename(old, new)

    ntp.os = Counting()
    return counted


def test_the_time_is_written_once_a_day_at_most():
    with Flash() as path:
        stage = Stage(path, good, good)
        counted = writes(stage)
        try:
            stage.after(10 * 86400)
        finally:
            ntp.os = os
        assert 9 <= len(counted) <= 11, len(counted)
        assert 0 <= stage.true() // 1000 - ntp.kept(stage.path) < 2 * 86400


def test_at_a_clean_end_the_time_is_written_unless_it_was_just_now():
    with Flash() as path:
        name = path + "/clock"
        ntp.keep(name, NOON)
        ntp.keep(name, NOON + 3600)
        eq(ntp.kept(name), NOON)
        ntp.keep(name, NOON + 3599, 3600)
        eq(ntp.kept(name), NOON)
        ntp.keep(name, NOON + 3600, 3600)
        eq(ntp.kept(name), NOON + 3600)


def test_a_start_knows_the_later_of_the_firmwares_day_and_the_time_that_was_kept():
    with Flash() as path:
        name = path + "/clock"
        built = ntp.built()
        assert 1767225600 <= built < 1767225600 + 20 * YEAR
        eq(ntp.early(name), built)
        for kept, wanted in ((str(built + 5), built + 5), (str(built - 5), built), ("", built), ("soon", built)):
            with open(name, "w") as f:
                f.write(kept)
            eq(ntp.early(name), wanted)


def test_the_firmwares_day_is_that_of_micropythons_build():
    real = ntp.sys

    class System:
        version = "3.4.0; MicroPython v1.28.0 on 2027-03-01"

    ntp.sys = System
    try:
        eq(ntp.built(), 1803859200)
        for text in ("3.4.0; MicroPython v1.23.0 on 2024-06-02", "3.13.1 (main, Dec  3 2024) [GCC 12]", "", "on 2-3"):
            System.version = text
            eq(ntp.built(), 1767225600)
    finally:
        ntp.sys = real


def test_a_time_in_the_future_that_was_kept_is_put_right():
    with Flash() as path:
        with open(path + "/clock", "w") as f:
            f.write(str(NOON + 9 * YEAR))
        stage = Stage(path, good).after(60)
        assert abs(ntp.kept(stage.path) - NOON) < 60
        assert abs(stage.error()) <= 1


def test_a_flash_that_does_not_take_the_time_is_told_and_the_clock_is_right():
    with Flash() as path:
        stage = Stage(path + "/no such directory", good).after(60)
        assert abs(stage.error()) <= 1
        assert stage.lines[1].startswith("cannot write "), stage.lines
