"""lib/smtp/oauth.py and https.py: answers of a token server however they are cut, tokens that end, refresh tokens that
survive a power cut, and what a person is told."""

import asyncio
import errno
import json
import os

from expect import eq, raises
from play import CUTS, MICROPYTHON, Flash, Player
from smtp import oauth
from smtp.client import SessionError
from smtp.https import exchange, form, place
from smtp.oauth import Tokens
from smtp.slots import Slots
from smtp.stream import Wire

NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000
URL = "https://login.example.com/tenant/token"
SECRETS = ("configured-refresh", "cl~ent se/cret", "access-", "rotated-")
BODY = b'{"access_token": "x", "expires_in": 3600}'


# -- HTTP


def get(answer, cut=None, gone=False, size=2048):
    """What exchange() makes of an answer (bytes), or the exception that it ends with; gone: the connection ends."""
    wire = Wire(bytearray(size))
    p = Player(exchange(wire, b"POST"), wire, cut)
    eq(p.said(), b"POST")
    p.feed(answer)
    if gone and not p.ended:
        p.throw(EOFError("the peer closed the connection"))
    assert p.ended, "it waits for more"
    if p.error:
        raise p.error
    return p.value


def test_an_answer_is_the_same_however_it_is_cut():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    n = b"Content-Length: %d\r\n" % len(BODY)
    answers = (
        (head + n + b"\r\n" + BODY, (200, 0, BODY)),
        (head + n.lower() + b"Set-Cookie: " + b"x" * 5000 + b"\r\n\r\n" + BODY, (200, 0, BODY)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\n" + head + n + b"\r\n" + BODY,
         (200, 0, BODY)),
        (head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00D; a=b\r\n\r\na \nlone \r \n\r\n0\r\nX: y\r\n\r\n",
         (200, 0, b"hello\r\na \nlone \r \n")),
        (head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", (200, 0, b"hello")),
        (b"HTTP/1.1 429 Slow down\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", (429, 17, b"")),
        (b"HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", (503, 0, b"")),
        (b"HTTP/1.0 302 Moved\nLocation: http://x/\nContent-Length: 0\n\n", (302, 0, b"")),
    )  # fmt: skip
    for answer, wanted in answers:
        for cut in CUTS:
            eq(get(answer, cut), wanted)


def test_an_answer_without_a_length_ends_with_the_connection():
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    for cut in CUTS:
        eq(get(head + BODY, cut, True), (200, 0, BODY))
        eq(get(head + b"x" * 20000, cut, True)[2], b"x" * 16384)


def test_an_answer_that_ends_too_early_is_an_error():
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    for answer in (whole, chunks):
        for n in range(len(answer)):
            raises(EOFError, get, answer[:n], None, True)


def test_what_is_no_http_or_too_long_is_an_error():
    head = b"HTTP/1.1 200 OK\r\n"
    chunks = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for answer in (
        b"220 mx ESMTP\r\n", b"\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2x0 OK\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 042 x\r\n",
        b"x" * 3000 + b"\r\n", head + b"A: b\r\n" * 100, b"HTTP/1.1 100 x\r\n\r\n" * 60,
        head + b"Content-Length: 16385\r\n\r\n", head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 99999999999999999999\r\n\r\n", head + b"Content-Length: 0x10\r\n\r\n",
        chunks + b"4001\r\n", chunks + b"4000\r\n" + b"x" * 16384 + b"\r\n1\r\n", chunks + b"-5\r\n",
        chunks + b"0x5\r\n", chunks + b"\r\n", chunks + b"5 5\r\n", chunks + b"1000000\r\n", chunks + b"3\r\nhello\r\n",
        chunks + b"1" * 3000 + b"\r\n",
    ):  # fmt: skip
        for cut in (None, 1, 7):
            error = raises(ValueError, get, answer, cut)
            assert str(error).startswith("its answer"), error
    eq(len(get(chunks + b"4000\r\n" + b"x" * 16384 + b"\r\n0\r\n")[2]), 16384)


def test_a_form_is_encoded_octet_by_octet():
    eq(form((("a", "b"), ("c", ""), ("d", "e"))), b"a=b&d=e")
    eq(form((("k", "AZaz09-._~ &=+/%\u00fc\u20ac\x00\r\n"),)),
       b"k=AZaz09-._~%20%26%3D%2B%2F%25%C3%BC%E2%82%AC%00%0D%0A")
    eq(form(()), b"")


def test_only_an_https_address_is_asked():
    eq(place("https://a.example/b/c?d=e"), ("a.example", 443, "a.example", "b/c?d=e"))
    eq(place("https://a.example:8443"), ("a.example", 8443, "a.example:8443", ""))
    for url in (
        "http://a.example/", "https:///b", "https://", "a.example/b", "", "ftp://a/b", "https://u:p@a.example/b",
        "https://a.example:x/", "https://a.example/b c", "https://a.example/b\r\nX: y", "https://\u00e4.example/",
    ):  # fmt: skip
        raises(ValueError, place, url)
        raises(ValueError, Tokens, url, "id", "/nowhere", lambda: 0, refresh_token="x")


def test_a_url_without_tls_is_one_only_where_nothing_is_verified():
    eq(place("http://a.example/b", "none"), ("a.example", 80, "a.example", "b"))
    eq(place("https://a.example/b", "none"), ("a.example", 443, "a.example", "b"))
    raises(ValueError, place, "http://a.example/b")
    raises(ValueError, place, "http://a.example/b", "full")
    raises(ValueError, place, "ftp://a.example/b", "none")


# -- tokens, from a server that a test writes


class World:
    """A clock, a flash, and a token server that gives `answers`: triples, or exceptions. `asked`: the forms it got."""

    def __init__(self, *answers, **settings):
        self.up = 50
        self.epoch = NOON
        self.answers = list(answers)
        self.asked = []
        self.told = []
        self.settings = {"client_secret": SECRETS[1], "refresh_token": SECRETS[0]}
        self.settings.update(settings)

    def __enter__(self):
        self.flash = Flash()
        self.path = self.flash.__enter__() + "/oauth"
        self.was = oauth.post
        oauth.post = self.post
        return self

    def __exit__(self, *error):
        oauth.post = self.was
        self.flash.__exit__()
        for text in self.told:
            for secret in SECRETS:
                assert secret not in text, text

    async def post(self, url, body, ca, resolve=None):
        eq(url, URL)
        self.asked.append(dict([pair.split("=") for pair in body.decode().split("&")]))
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tokens(self, **more):
        """A Tokens as after a start."""
        settings = dict(self.settings)
        settings.update(more)
        return Tokens(
            URL, "client", self.path, lambda: self.up, now=lambda: self.epoch, log=self.told.append, **settings)

    async def fails(self, tokens):
        """The text of the error instead of a token."""
        try:
            got = await tokens.token()
        except SessionError as e:
            eq(e.reason, "oauth")
            for secret in SECRETS:
                assert secret not in str(e), e
            return str(e)
        raise AssertionError("a token: " + got)

    def sent(self):
        """The refresh tokens that the server was asked with."""
        return [asked.get("refresh_token") for asked in self.asked]


def good(n=1, refresh=None, **more):
    got = {"access_token": "access-%d" % n, "token_type": "Bearer", "expires_in": 3600}
    if refresh:
        got["refresh_token"] = refresh
    got.update(more)
    return 200, 0, json.dumps({k: v for k, v in got.items() if v is not None}).encode()


def bad(error, status=400, wait=0, **more):
    more["error"] = error
    return status, wait, json.dumps(more).encode()


async def test_a_refresh_token_is_exchanged_for_an_access_token():
    with World(good()) as w:
        eq(await w.tokens(scope="https://mail.example.com/ offline").token(), "access-1")
        (asked,) = w.asked
        eq(asked, {
            "grant_type": "refresh_token", "client_id": "client", "client_secret": "cl~ent%20se%2Fcret",
            "refresh_token": "configured-refresh", "scope": "https%3A%2F%2Fmail.example.com%2F%20offline"})
        eq(w.told, [])


async def test_client_credentials_need_no_refresh_token_and_no_flash():
    with World(good(refresh="rotated-1")) as w:
        tokens = w.tokens(grant="client_credentials", refresh_token="", scope="s")
        eq(await tokens.token(), "access-1")
        eq(w.asked, [{"grant_type": "client_credentials", "client_id": "client", "client_secret": "cl~ent%20se%2Fcret",
                      "scope": "s"}])
        w.up += 10000000
        eq((tokens.due(), os.listdir(w.path[:-6])), (False, []))


def test_without_a_refresh_token_there_is_nothing_to_begin_with():
    with World() as w:
        for token in ("", "two words", "line\nend", "x" * 5000):
            assert "sign in" in str(raises(ValueError, w.tokens, refresh_token=token))


async def test_a_token_is_used_until_shortly_before_its_end_by_uptime():
    answers = good(1), good(2), good(3, expires_in="400"), good(4, expires_in=None), good(5, expires_in=0), good(6)
    with World(*answers) as w:
        tokens = w.tokens()
        for step, wanted in ((0, 1), (3299, 1), (1, 2), (3300, 3), (199, 3), (1, 4), (1499, 4), (1, 5), (0, 6)):
            w.up += step
            w.epoch += 7 * step - 100000  # what the clock says has no part in it
            eq(await tokens.token(), "access-%d" % wanted)


async def test_a_life_that_makes_no_sense_is_half_an_hour_and_a_long_one_a_day():
    for life, seconds in (
        ("soon", 1500), (True, 1500), ([1], 1500), (None, 1500), ("", 1500), (10**30, 86100),
        ("999999999999999", 86100), (86400 * 365, 86100), (100, 50), (1, 1), (-5, 0),
    ):  # fmt: skip
        with World(good(expires_in=life), good(2)) as w:
            tokens = w.tokens()
            await tokens.token()
            w.up += seconds - 1
            eq(len(w.asked), 1)
            if seconds > 0:
                eq(await tokens.token(), "access-1")
            w.up += 1
            eq(await tokens.token(), "access-2")


async def test_a_refused_token_is_renewed_but_not_again_and_again():
    with World(good(1), good(2), good(3)) as w:
        tokens = w.tokens()
        eq(await tokens.token(), "access-1")
        eq(tokens.refused(), True)
        eq(await tokens.token(), "access-2")
        eq(tokens.refused(), False)  # the token is not what is wrong
        w.up += 3000
        eq(tokens.refused(), False)
        eq(await tokens.token(), "access-2")
        w.up += 600
        eq(tokens.refused(), True)
        eq(await tokens.token(), "access-3")


async def test_two_who_ask_at_the_same_time_get_one_token():
    with World(good(1)) as w:
        tokens = w.tokens()
        eq(await asyncio.gather(tokens.token(), tokens.token(), tokens.token()), ["access-1"] * 3)
        eq(len(w.asked), 1)


# -- refresh tokens in flash


async def test_a_new_refresh_token_is_used_from_then_on_and_after_a_start():
    with World(good(1, "rotated-1"), good(2, "rotated-2"), good(3), good(4, "rotated-3"), good(5)) as w:
        tokens = w.tokens()
        for _ in range(3):
            await tokens.token()
            w.up += 3600
        tokens = w.tokens()
        for _ in range(2):
            await tokens.token()
            w.up += 3600
        eq(w.sent(), ["configured-refresh", "rotated-1", "rotated-2", "rotated-2", "rotated-3"])


async def test_nothing_is_written_unless_it_has_changed():
    with World(*[good(n) for n in range(8)]) as w:
        saved = []
        tokens = w.tokens()
        for hours in (0, 1, 1, 20, 3, 1, 24 * 30, 1):
            w.up += hours * 3600
            w.epoch += hours * 3600
            await tokens.token()
            saved.append(tokens.count)
        eq(saved, [1, 1, 1, 1, 2, 2, 3, 3])  # the time, once a day
    with World(*[good(n) for n in range(4)]) as w:
        w.epoch = None
        tokens = w.tokens()
        for _ in range(4):
            w.up += 86400
            await tokens.token()
        eq(os.listdir(w.path[:-6]), [])


async def test_a_newly_configured_refresh_token_wins_over_what_is_in_flash():
    with World(good(1, "rotated-1"), good(2, "rotated-2"), good(3), good(4)) as w:
        await w.tokens().token()
        await w.tokens(refresh_token="configured-refresh-2").token()
        await w.tokens(refresh_token="configured-refresh-2").token()
        await w.tokens(refresh_token="configured-refresh-3").token()
        eq(w.sent()[1:], ["configured-refresh-2", "rotated-2", "configured-refresh-3"])


async def test_a_refresh_token_that_is_none_is_not_taken():
    for new in (5, ["x"], {"a": 1}, "", "two words", "x" * 4097, "caf\u00e9", "nul\x00", "\x7f"):
        with World(good(1, new), good(2)) as w:
            tokens = w.tokens()
            await tokens.token()
            w.up += 4000
            await tokens.token()
            eq(w.sent(), ["configured-refresh"] * 2)


def write(name, data):
    with open(name, "wb") as f:
        f.write(data)


def read(name):
    try:
        with open(name, "rb") as f:
            return f.read()
    except OSError:
        return None


async def test_of_a_file_that_is_torn_the_other_one_counts():
    with World(*[good(n, "rotated-%d" % n) for n in range(1, 6)]) as w:
        tokens = w.tokens()
        for n in range(1, 6):
            await tokens.token()
            w.up += 3600
            last = "%s.%d" % (w.path, n & 1)
            data = read(last)
            other = "rotated-%d" % (n - 1) if n > 1 else "configured-refresh"
            # Cut short as on FAT and POSIX, nothing of it, zeros or old octets at its end; then every octet wrong.
            damaged = [data[:k] for k in range(len(data) - 1)]
            damaged += [data[:k] + b"\0" * (len(data) - k) for k in (0, 9, 40)]
            for k in range(len(data) - 1):
                damaged.append(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
            for torn in damaged:
                write(last, torn)
                eq(w.tokens().refresh, other)
            os.remove(last)
            eq(w.tokens().refresh, other)
            write(last, data + b"old octets")
            assert w.tokens().refresh in ("rotated-%d" % n, other)
            write(last, data)
            eq(w.tokens().refresh, "rotated-%d" % n)


class PowerCut(Exception):
    pass


class Cut:
    """Instead of open(): after `left` operations (open, write, close) the power goes, in the middle of the last one."""

    def __init__(self, left, error=None):
        self.left = left
        self.error = error or PowerCut()
        self.f = None

    def step(self):
        self.left -= 1
        if self.left == 0:
            if self.f:
                self.f.close()
            raise self.error

    def __call__(self, name, mode):
        if mode != "wb":
            return open(name, mode)
        self.step()
        self.f = open(name, mode)
        return self

    def __enter__(self):
        return self

    def write(self, data):
        self.f.write(data[: len(data) // 2])
        self.step()
        self.f.write(data[len(data) // 2 :])
        self.step()

    def __exit__(self, *error):
        self.f.close()
        if not error[0]:
            self.step()


async def test_a_power_cut_while_it_is_stored_leaves_the_new_one_or_the_one_before():
    for cut in (1, 2, 3, 4):
        with World(*[good(n, "rotated-%d" % n) for n in range(1, 8)]) as w:
            newest = "configured-refresh"
            for n in range(1, 8):
                tokens = w.tokens()
                oauth.open = Cut(cut)
                try:
                    await tokens.token()
                    raise AssertionError("the power was to go")
                except PowerCut:
                    pass
                finally:
                    del oauth.open
                before, newest = newest, w.tokens().refresh
                wanted = {3: (before, "rotated-%d" % n), 4: ("rotated-%d" % n,)}.get(cut, (before,))
                assert newest in wanted, (cut, newest, wanted)
                if cut < 4:
                    tokens.save()  # the same without a cut
                    newest = w.tokens().refresh
                    eq(newest, "rotated-%d" % n)


async def test_a_flash_that_is_full_is_told_once_and_written_later():
    for cut in (1, 2, 3, 4):
        with World(good(1, "rotated-1"), good(2)) as w:
            tokens = w.tokens()
            for _ in range(3):
                oauth.open = Cut(cut, OSError(28))
                try:
                    eq(await tokens.token(), "access-1")
                finally:
                    del oauth.open
            eq(len(w.told), 1)
            assert "cannot be stored" in w.told[0] and "flash full" in w.told[0], w.told
            w.up += 3600
            eq(await tokens.token(), "access-2")
            eq(w.sent(), ["configured-refresh", "rotated-1"])
            eq(w.tokens().refresh, "rotated-1")


async def test_a_power_cut_at_each_operation_of_the_flash_leaves_one_token():
    if not MICROPYTHON:
        return  # a littlefs is needed
    import vfs
    from nor import PAGE, Nor

    def mount(flash):
        vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/n")

    for size in (40, 1400):  # in the directory's own block; in blocks of its own, as Microsoft's
        first = Nor(16)
        vfs.VfsLfs2.mkfs(first, progsize=PAGE, readsize=PAGE)
        names = ["rotated-%d-%s" % (n, "x" * size) for n in range(5)]
        cut = ops = 0
        kept = set()
        while cut <= ops:
            flash = Nor(16, cut + 1, memoryview(bytearray(first.memory)))
            flash.cut_at = cut
            mount(flash)
            given = 0
            with World(*[good(n, names[n]) for n in range(5)]) as w:
                w.path = "/n/oauth"
                tokens = w.tokens()
                while given < 5 and not flash.dead:
                    await tokens.token()
                    given += 1
                    w.up += 3600
                ops = max(ops, flash.ops)
                vfs.umount("/n")
                mount(flash.power())
                found = w.tokens().refresh
                vfs.umount("/n")
                possible = (["configured-refresh"] + names)[given - 1 : given + 1]
                assert found in possible, (cut, given, found)
                kept.add(possible.index(found))
                assert given < 5 or flash.dead or found == names[4]
            cut += 1
        assert ops > 5 and kept == {0, 1}, (ops, kept)


# -- an idle refresh token


def test_without_a_clock_it_is_renewed_an_hour_after_the_start_and_each_week():
    with World() as w:
        w.epoch = None
        w.up = 0
        tokens = w.tokens()
        eq(tokens.due(), False)
        w.up = 3599
        eq(tokens.due(), False)
        w.up = 3600
        eq(tokens.due(), True)
        tokens.renewed = 3600
        eq(tokens.due(), False)
        w.up += 604799
        eq(tokens.due(), False)
        w.up += 1
        eq(tokens.due(), True)


async def test_with_a_clock_the_last_renewal_counts_that_was_before_the_power_cut():
    week = 604800
    with World(good()) as w:
        await w.tokens().token()
        for up, later, due in (
            (0, 60, False), (3600, week - 1, False), (0, week, True), (3600, week + 1, True), (0, 90 * 86400, True),
            (0, -5, False), (3599, -86400 * 400, False), (3600, -86400 * 400, True),  # a clock that was set back
        ):  # fmt: skip
            w.up = up
            w.epoch = NOON + later
            eq((up, later, w.tokens().due()), (up, later, due))
        w.epoch = None
        eq((w.tokens().due(), w.tokens(refresh_token="another").due()), (True, True))
    with World(good()) as w:
        tokens = w.tokens()
        await tokens.token()
        w.epoch += 90 * 86400  # the clock is set: that is no time that has passed
        eq(tokens.due(), False)
        w.up += week
        eq(tokens.due(), True)


class Naps:
    """Instead of asyncio in oauth: who sleeps for minutes is woken after `count` times at the earliest."""

    TimeoutError = asyncio.TimeoutError
    wait_for = staticmethod(asyncio.wait_for)

    def __init__(self, world, count):
        self.world = world
        self.left = count

    async def sleep(self, seconds):
        if not self.left:
            raise EOFError("enough")
        self.left -= 1
        self.world.up += seconds
        if self.world.epoch:
            self.world.epoch += seconds


async def keep(world, tokens, naps):
    oauth.asyncio = Naps(world, naps)
    try:
        await tokens.keep()
    except EOFError:
        pass
    finally:
        oauth.asyncio = asyncio


async def test_an_idle_token_is_renewed_each_week_with_a_slot_and_mail_keeps_it_alive():
    with World(*[good(n, "rotated-%d" % n) for n in range(1, 6)]) as w:
        slots = Slots(1)
        tokens = w.tokens(slots=slots)
        w.epoch = None
        taken = []
        post = oauth.post

        async def look(*args):
            taken.append(tokens in slots.holders)
            return await post(*args)

        oauth.post = look
        await keep(w, tokens, 6)
        eq(len(w.asked), 1)  # an hour after the start
        await keep(w, tokens, 2 * 1008)
        eq((len(w.asked), taken, slots.free), (3, [True] * 3, 1))
        eq(w.told, ["the idle refresh token was renewed"] * 3)
        w.up += 604000
        await tokens.token()  # for a mail
        eq(taken[3:], [False])
        await keep(w, tokens, 1007)
        eq(len(w.asked), 4)
        eq(w.tokens().refresh, "rotated-4")


async def test_what_could_not_be_stored_is_stored_when_there_is_room_though_there_is_no_mail():
    with World(good(1, "rotated-1")) as w:
        tokens = w.tokens()
        oauth.open = Cut(1, OSError(28))
        try:
            await tokens.token()
        finally:
            del oauth.open
        eq(w.tokens().refresh, "configured-refresh")
        await keep(w, tokens, 1)
        eq((w.tokens().refresh, len(w.asked)), ("rotated-1", 1))


async def test_a_renewal_that_fails_is_told_once_and_hands_its_slot_back():
    with World(bad("invalid_grant"), bad("invalid_grant"), OSError(113), OSError(113), good()) as w:
        slots = Slots(1)
        tokens = w.tokens(slots=slots)
        w.epoch = None
        await keep(w, tokens, 12)  # the server is asked once an hour
        eq((len(w.asked), len(w.told), slots.free, slots.line), (2, 1, 1, []))
        assert "Sign in again" in w.told[0] and "no mail waits" in w.told[0], w.told
        await keep(w, tokens, 18)
        eq((len(w.asked), len(w.told), slots.free), (5, 3, 1))
        eq(w.told[2], "the idle refresh token was renewed")


# -- what goes wrong


async def test_what_needs_a_person_says_what_to_do_and_is_asked_again_after_an_hour():
    sign_in = "Sign in again, and set smarthost.oauth.refresh_token"
    check = "Check smarthost.oauth.client_id, client_secret and scope"
    for answer, what in (
        (bad("invalid_grant", error_description="AADSTS700082: The refresh token has expired\r\nTrace ID: x"), sign_in),
        (bad("interaction_required", suberror="basic_action"), sign_in), (bad("consent_required"), sign_in),
        (bad("something_new", 403), sign_in), (bad("invalid_grant", 200), sign_in),
        (bad("invalid_client", 401, error_description="AADSTS7000215: Invalid client secret provided"), check),
        (bad("unauthorized_client"), check), (bad("invalid_scope", error_description=["odd"]), check),
    ):  # fmt: skip
        with World(answer, good()) as w:
            tokens = w.tokens()
            text = await w.fails(tokens)
            error = json.loads(answer[2])
            for part in (what, "no access token from login.example.com: ", str(answer[0]), error["error"]):
                assert part in text, text
            if "AADSTS" in str(error):
                assert error["error_description"].split("\r")[0] in text, text
            assert not [c for c in text if not " " <= c <= "~"], text
            w.up += 3599
            eq(await w.fails(tokens), text)
            eq(len(w.asked), 1)
            w.up += 1
            eq(await tokens.token(), "access-1")
            eq(tokens.error, None)
    with World(bad("invalid_grant")) as w:
        assert check in await w.fails(w.tokens(grant="client_credentials"))


async def test_what_passes_by_itself_is_asked_again_soon():
    moved = "check smarthost.oauth.token_url"
    for answer, words, wait in (
        (OSError(errno.ECONNREFUSED), "", 10), (OSError(errno.ETIMEDOUT), "", 10), (EOFError("gone"), "gone", 10),
        (ValueError("its answer is no HTTP"), "no HTTP", 10), (MemoryError(), "memory", 10),
        (asyncio.TimeoutError(), "in time", 10),
        ((500, 0, b"<html>"), "500", 10), ((503, 30, b""), "503", 30), (bad("invalid_grant", 503, 5), "503", 10),
        (bad("invalid_grant", 429, 7200), "429", 3600), ((429, 0, b""), "429", 10), ((408, 11, b"x"), "408", 11),
        (bad("temporarily_unavailable", 400, 99), "temporarily_unavailable", 99),
        (bad("server_error"), "server_error", 10),
        ((200, 0, b""), moved, 10), ((200, 0, b"no JSON"), moved, 10), ((200, 0, b"[1]"), moved, 10),
        ((200, 0, b'"x"'), moved, 10), ((200, 0, b"[" * 16000), moved, 10), ((200, 0, b"\xff\xfe"), moved, 10),
        ((302, 0, b""), moved, 10), ((404, 50, b"<html>not here</html>"), moved, 10), ((400, 0, b"{}"), moved, 10),
        ((400, 0, b'{"error": {"code": 400, "status": "INVALID"}}'), moved, 10),
        ((200, 0, b'{"error": null}'), moved, 10),
        (good(access_token=None), moved, 10), (good(access_token=17), moved, 10), (good(access_token=""), moved, 10),
        (good(access_token="two words"), moved, 10), (good(access_token="line\r\nend"), moved, 10),
        (good(access_token="x" * 4097), moved, 10), (good(access_token="\u20ac"), moved, 10),
        (good(token_type="mac"), moved, 10), (good(token_type=["bearer"]), moved, 10),
        ((404, 0, good()[2]), moved, 10),
    ):  # fmt: skip
        with World(answer, good(2)) as w:
            tokens = w.tokens()
            text = await w.fails(tokens)
            assert words in text and text.startswith("no access token from login.example.com: "), (answer, text)
            assert "ign in" not in text and len(text) > 42, text
            w.up += wait - 1
            eq(await w.fails(tokens), text)
            eq(len(w.asked), 1)
            w.up += 1
            eq(await tokens.token(), "access-2")


async def test_who_is_cancelled_while_he_waits_leaves_it_open_for_the_next():
    with World(good(1), good(2)) as w:
        tokens = w.tokens()
        waits = []
        post = oauth.post

        async def slow(*args):
            if not waits:
                waits.append(1)
                await asyncio.sleep(100)
            return await post(*args)

        oauth.post = slow
        task = asyncio.create_task(tokens.token())
        while not waits:
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        eq(await tokens.token(), "access-1")


async def test_no_secret_is_in_what_a_server_makes_us_say():
    secret = SECRETS[1]
    for said in (
        "wrong: " + secret, "wrong: cl~ent%20se%2Fcret", "token configured-refresh!", "configured-refresh" * 30,
        "x" * 190 + " configured-refresh", "Bearer eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6IlNvbWVUaGluZyJ9.abc",
    ):  # fmt: skip
        for answer in (bad("invalid_grant", error_description=said), bad(said), bad(said, 503)):
            with World(answer) as w:
                text = await w.fails(w.tokens())
                assert "eyJ0" not in text and "se%2F" not in text, text
                assert len(text) < 600, text
                assert "..." in text, text


async def test_a_description_cannot_forge_a_line_of_the_log_or_fill_it():
    said = "a\r\n12:00:00 relay: forged \x1b[2J \u20ac " + "b c " * 4000
    with World(bad("invalid_grant", error_description=said)) as w:
        text = await w.fails(w.tokens())
        assert "a 12:00:00 relay: forged [2J b c" in text and len(text) < 400, text
