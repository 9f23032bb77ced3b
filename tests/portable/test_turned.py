"""lib/smtp/etrn.py, atrn.py and odmr.py: mail that waits until it is asked for, as transcripts and over sockets."""

import asyncio

import smtp.etrn as etrn
from expect import eq
from play import CUTS, play, somewhere
from smtp import atrn, odmr
from smtp.client import Client, SessionError
from smtp.relay import SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener, Server, Session
from smtp.stream import Wire
from test_relay import Box, World
from test_server import LAN, NETWORKS, STRANGER, TOKEN, USERS

ALL = (
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nFrom: a@example.com\r\nMessage-ID: <1@example.com>\r\n"
    b"Subject: x\r\n\r\nhello\r\n"
)
MAIL = """
    S: Date: Sun, 22 Nov 2026 12:00:00 +0000
    S: From: a@example.com
    S: Message-ID: <1@example.com>
    S: Subject: x
    S! \\r\\n
    S: hello
    S: .
"""
BOARD = {"printer": ["b7.example", "b8.example"]}


def provider(box=None, kept=("b7.example", "b8.example")):
    """A world whose relay keeps mail for ATRN, with a smart host for all other mail."""
    world = World().open(box or Box())
    old = world.relay
    world.relay = relay = atrn.Keeping(
        world.queue, world.hosts, old.name, world.clock, "alerts@example.com", world.told.append)
    relay.kept = kept
    relay.admin = "admin@example.com"
    return world


def listener(world, box=None, domains=("x.example",), **options):
    on = Listener("mx.example.com", box or Box(), networks=NETWORKS, log=world.told.append, **options)
    if options.get("users"):
        atrn.serve(on, world.relay, BOARD)
    else:
        etrn.serve(on, world.relay, domains)
    return on


def talk(world, text, peer=LAN, cut=None, **options):
    wire = Wire(bytearray(2048))
    session = Session(wire, peer, listener(world, **options))
    return play(session.run(), wire, "S: 220 mx.example.com ESMTP\n" + text, cut)


HELLO = """
    C: EHLO b7.example
    S: 250-mx.example.com
    S: 250-PIPELINING
    S: 250-SIZE 10485760
    S: 250-8BITMIME
    S: 250-CHUNKING
"""


# -- ETRN


async def test_etrn_makes_the_mail_for_a_domain_due():
    world = provider(kept=())
    for to in ("a@X.example", "b@sub.x.example", "c@y.example"):
        world.add(to)
    for key in [world.queue.rows[i] for i in range(0, 12, 4)]:
        world.queue.release(key, 5000)
    stir = world.relay.stir = asyncio.Event()
    for cut in CUTS:
        talk(world, HELLO + """
            S: 250-ETRN
            S: 250 ENHANCEDSTATUSCODES
            C: ETRN x.example
            S: 253 2.0.0 1 pending messages for node x.example started
            C: etrn @X.EXAMPLE
            S: 253 2.0.0 2 pending messages for node @x.example started
            C: ETRN none.example
            S: 251 2.0.0 no messages waiting for node none.example
        """, cut=cut, domains=("x.example", "none.example"))  # fmt: skip
    due = [world.queue.rows[i + 1] for i in range(0, 12, 4)]
    eq([n - world.clock.up for n in due], [0, 0, 5000])
    assert stir.is_set() and world.relay.wake.is_set()
    await world.close()


async def test_etrn_says_when_the_mail_is_on_its_way_and_when_there_is_much_of_it():
    world = provider(kept=())
    world.add("a@x.example")
    mail = world.queue.take()
    talk(world, "C: ETRN x.example\nS: 250 2.0.0 queuing for node x.example started")
    world.queue.release(mail.key)
    etrn.MOST = 2
    try:
        for _ in range(20):
            world.add("a@x.example")
        talk(world, "C: ETRN x.example\nS: 252 2.0.0 pending messages for node x.example started")
    finally:
        etrn.MOST = 100
    await world.close()


async def test_etrn_is_refused_to_strangers_for_other_domains_and_for_what_is_none():
    world = provider(kept=())
    talk(world, """
        C: ETRN x.example
        S: 459 4.7.1 node x.example not allowed: you may not relay here
    """, STRANGER)  # fmt: skip
    for cut in CUTS:
        talk(world, r"""
            C: ETRN y.example
            S: 459 4.7.1 node y.example not allowed: it is not among the domains of this listener
            C: ETRN
            S: 501 5.5.4 say ETRN domain
            C: ETRN @
            S: 501 5.5.4 say ETRN domain
            C! ETRN \xff.example\r\n
            S: 501 5.5.4 say ETRN domain
            C: ETRN x.example y.example
            S: 501 5.5.4 say ETRN domain
            C: ETRN #slow
            S: 458 4.5.4 no queue has a name here
            C: MAIL FROM:<a@x.example>
            S: 250 2.1.0 ok
            C: ETRN x.example
            S: 503 5.5.1 not within a mail
            C: TURN
            S: 502 5.5.1 not implemented
        """, cut=cut)  # fmt: skip
    await world.close()


async def test_a_flash_that_fails_makes_etrn_458():
    world = provider(kept=())
    world.add("a@x.example")

    def broken(key):
        raise OSError(5)

    world.queue.release = broken
    talk(world, "C: ETRN x.example\nS: 458 4.3.0 unable to queue messages for node x.example")
    await world.close()


async def test_a_session_can_say_etrn_twenty_times_and_no_more_without_a_mail():
    # Each reads the whole spool, and makes the relay try again.
    world = provider(kept=())
    line = "C: ETRN x.example\nS: 251 2.0.0 no messages waiting for node x.example\n"
    talk(world, line * 19 + "C: ETRN x.example\nS: 421 4.7.0 too many commands\n-- END --")
    await world.close()


async def test_without_a_word_of_it_there_is_no_etrn_and_no_atrn():
    wire = Wire(bytearray(2048))
    play(Session(wire, LAN, Listener("mx.example.com", Box(), NETWORKS)).run(), wire, """
        S: 220 mx.example.com ESMTP
    """ + HELLO + """
        S: 250 ENHANCEDSTATUSCODES
        C: ETRN x.example
        S: 502 5.5.1 not implemented
        C: ATRN
        S: 500 5.5.2 command not recognized
    """)  # fmt: skip


# -- ATRN, the provider's end


LOGIN = HELLO + """
    S: 250-AUTH SCRAM-SHA-256 PLAIN LOGIN
    S: 250-ATRN
    S: 250 ENHANCEDSTATUSCODES
    C: AUTH PLAIN %s
    S: 235 2.7.0 welcome
""" % TOKEN
TURN = LOGIN + """
    C: ATRN
    S: 250 2.0.0 OK now reversing the connection
    C: 220 b7.example ESMTP
    S: EHLO mx.example.com
    C: 250-b7.example
    C: 250 SIZE 100000
"""


def ask(world, text, **options):
    talk(world, text, STRANGER, users=USERS, auth_in_clear=True, **options)


async def test_the_roles_turn_and_the_mail_of_the_users_domains_flows_to_the_caller():
    for cut in CUTS:
        world = provider()
        world.add("1@b7.example", "2@other.example", "3@B8.example", text=ALL)
        world.add("4@other.example", text=ALL)
        ask(world, TURN + """
            S: MAIL FROM:<a@example.com> SIZE=...
            C: 250 ok
            S: RCPT TO:<1@b7.example>
            C: 250 ok
            S: RCPT TO:<3@B8.example>
            C: 250 ok
            S: DATA
            C: 354 go
        """ + MAIL + """
            C: 250 2.0.0 safe
            S: QUIT
            C: 221 bye
            -- END --
        """, cut=cut)  # fmt: skip
        assert "delivered to 1@b7.example" in world.log() and "delivered to 3@B8.example" in world.log(), world.log()
        eq(len(world.queue), 2)
        assert await world.relay.session()  # what is left is the smart host's
        eq(len(world.queue), 0)
        await world.close()


async def test_what_the_caller_defers_waits_and_what_it_refuses_is_over():
    world = provider()
    world.add("1@b7.example", "2@b7.example", "3@b7.example", text=ALL)
    ask(world, TURN + """
        S: MAIL FROM:<a@example.com> SIZE=...
        C: 250 ok
        S: RCPT TO:<1@b7.example>
        C: 450 4.2.1 later
        S: RCPT TO:<2@b7.example>
        C: 550 5.1.1 no such user
        S: RCPT TO:<3@b7.example>
        C: 250 ok
        S: DATA
        C: 354 go
    """ + MAIL + """
        C: 250 2.0.0 safe
        S: QUIT
        C: 221 bye
        -- END --
    """)  # fmt: skip
    log = world.log()
    assert "deferred for 1@b7" in log and "refused for 2@b7" in log and "delivered to 3@b7" in log, log
    eq((len(world.queue), world.queue.rows[2]), (1, 1))
    assert world.queue.due() > world.clock.up
    await world.close()


async def test_a_connection_that_is_lost_after_the_turn_loses_no_mail():
    for end in ("-- GONE --", "-- TIMEOUT --\n-- TIMEOUT --", "C: 421 4.3.2 shutting down"):
        world = provider()
        world.add("1@b7.example", text=ALL)
        ask(world, TURN + "S: MAIL FROM:<a@example.com> SIZE=...\n" + end + "\n-- END --")
        eq((len(world.queue), world.queue.rows[2]), (1, 0))
        eq(world.queue.due(), world.clock.up)  # nobody has it any more
        assert "what is left waits" in world.log(), world.log()
        await world.close()


async def test_a_caller_that_turns_out_to_be_no_server_gets_nothing():
    world = provider()
    world.add("1@b7.example", text=ALL)
    for text in ("C: 554 no", "C: 220 hi\nS: EHLO mx.example.com\nC: 421 no", "C: EHLO b7.example"):
        ask(world, LOGIN + "C: ATRN b7.example\nS: 250 2.0.0 OK now reversing the connection\n" + text + "\n-- END --")
    eq(len(world.queue), 1)
    await world.close()


async def test_atrn_needs_auth_and_a_domain_of_the_user_and_mail():
    world = provider()
    for cut in CUTS:
        ask(world, """
            C: ATRN
            S: 530 5.7.0 authentication required
        """, cut=cut)  # fmt: skip
        ask(world, LOGIN + r"""
            C: ATRN
            S: 453 4.2.0 you have no mail
            C: ATRN b7.example, B8.EXAMPLE
            S: 453 4.2.0 you have no mail
            C: ATRN b7.example,other.example
            S: 450 4.7.1 ATRN request refused: not all of these domains are yours
            C: ATRN b7.example,,
            S: 501 5.5.4 say ATRN domain,domain
            C! ATRN \xff\r\n
            S: 501 5.5.4 say ATRN domain,domain
            C: MAIL FROM:<a@x.example>
            S: 250 2.1.0 ok
            C: ATRN
            S: 503 5.5.1 not within a mail
        """, cut=cut)  # fmt: skip
    await world.close()


async def test_who_talks_before_the_roles_have_turned_is_refused():
    world = provider()
    world.add("1@b7.example", text=ALL)
    ask(world, LOGIN + r"""
        C! ATRN\r\n220 b7.example ESMTP\r\n
        S: 503 5.5.1 wait for the answer to ATRN
        S: 500 5.5.2 command not recognized
    """)  # fmt: skip
    await world.close()


async def test_a_flash_that_fails_makes_it_451():
    world = provider()
    world.add("1@b7.example", text=ALL)

    def broken():
        raise OSError(5)
        yield

    really = atrn.Bag.find
    atrn.Bag.find = lambda bag: broken()
    try:
        ask(world, LOGIN + """
            C: ATRN
            S: 451 4.3.0 unable to process ATRN now
        """)  # fmt: skip
    finally:
        atrn.Bag.find = really
    await world.close()


async def test_mail_that_is_kept_never_goes_to_the_smart_host():
    box = Box()
    world = provider(box)
    world.add("1@b7.example")
    world.add("2@b7.example", "3@other.example")
    assert await world.relay.session()
    assert await world.relay.session()
    eq([m[1] for m in box.mails], [["3@other.example"]])
    eq([world.queue.rows[i] for i in (2, 6)], [1, 1])  # each waits with an attempt: it grows old
    asked = len(box.asked)
    world.clock.up += 100
    assert await world.relay.session()
    eq((len(box.asked), world.queue.rows[2]), (asked, 2))  # not even a session
    world.clock.up += 6 * 86400
    assert await world.relay.session()
    eq((len(world.queue), world.queue.dead), (0, 2))
    await world.close()


# -- ATRN, the caller's end


def turn(text, fails=None):
    """Plays what follows AUTH; gives whether the roles are to turn."""
    for cut in CUTS:
        client = Client(Wire(bytearray(2048)), "b7.example")
        client.io.eol = b"\n"
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(odmr.ask(client, ["b7.example", "b8.example"]), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq(player.error.reason, fails)
    return client.turned


def test_the_caller_asks_for_its_domains_and_believes_only_a_250():
    atrn = "C: ATRN b7.example,b8.example\n"
    eq(turn(atrn + "S: 250 now reversing"), True)
    eq(turn(atrn + "S: 453 you have no mail"), False)
    for code in (450, 451, 500, 502, 530, 354):
        turn(atrn + "S: %d no" % code, "atrn")
    turn(atrn + "S: what", "atrn")
    client = Client(Wire(bytearray(2048)), "b7.example")
    early = "C: ATRN b7.example\nS! 250 turn\\r\\nEHLO evil.example\\r\\n\n-- FAILS --"  # our greeting comes first
    eq(play(odmr.ask(client, ["b7.example"]), client.io, early, None, "C").error.reason, "atrn")


class Inbox(Box):
    """A board that takes mail for its own domain only."""

    def rcpt(self, envelope, address):
        if not address.endswith("@b7.example"):
            raise SMTPError(550, "5.7.1", "relaying denied")
        Box.rcpt(self, envelope, address)

    def open(self, envelope):
        self.envelope = envelope
        return Box.open(self, envelope)


class Line:
    """A provider on a port, and a board that calls it."""

    def __init__(self, world, inbox):
        self.world = world
        self.server = Server()
        on = listener(world, users=USERS, auth_in_clear=True)
        on.networks = []
        on.last = (None, False)
        self.port, serve = somewhere(lambda port: self.server.bind("127.0.0.1", port, on))
        self.task = asyncio.create_task(serve())
        self.mine = Listener("b7.example", inbox)
        self.host = SmartHost("127.0.0.1", self.port, "none", username="printer", password="secret")

    def fetch(self, *domains):
        return odmr.fetch(self.host, "b7.example", domains, self.mine)

    async def close(self):
        self.task.cancel()
        try:
            await self.task
        except asyncio.CancelledError:
            pass
        await self.server.close()
        await self.world.close()


async def test_mail_flows_from_the_providers_queue_to_the_board_that_calls():
    inbox = Inbox({"3@b7.example": SMTPError(550, "5.1.1", "no such user")})
    world = provider()
    line = Line(world, inbox)
    eq(await line.fetch("b7.example"), False)  # nothing is there yet
    for n in range(12):
        world.add("%d@b7.example" % n, text=ALL + b".\r\n" * n)
    world.add("0@b8.example")
    eq(await line.fetch("b7.example"), True)
    eq([m[1] for m in inbox.mails], [["%d@b7.example" % n] for n in range(12) if n != 3])
    eq(inbox.mails[-1][2][-38:], b"hello\r\n"[2:] + b".\r\n" * 11)
    eq((inbox.envelope.user, inbox.envelope.peer, inbox.envelope.esmtp), ("printer", "127.0.0.1", True))
    eq((len(world.queue), world.queue.dead), (1, 1))
    eq(await line.fetch("b7.example"), False)
    await line.close()


async def test_the_board_keeps_to_its_own_policy_and_limits_after_the_turn():
    inbox = Inbox()
    world = provider()
    line = Line(world, inbox)
    line.mine.resize(2000)
    world.add("1@b8.example")  # it asks for what is not its own
    world.add("2@b7.example", text=ALL + b"x" * 3000 + b"\r\n")
    world.add("3@b7.example", text=b"Received: x\r\n" * 31 + ALL)
    world.add("4@b7.example", text=ALL)
    eq(await line.fetch(), True)
    eq([m[1] for m in inbox.mails], [["4@b7.example"]])
    log = world.log()
    for said in ("1@b8.example: 550 5.7.1", "2@b7.example: 552 5.3.4", "3@b7.example: 554 5.4.6"):
        assert "refused for " + said in log, log
    await line.close()


async def test_a_wrong_password_or_a_provider_that_is_down_is_a_session_error():
    world = provider()
    line = Line(world, Inbox())
    line.host.password = "wrong"
    for reason in ("auth", "connect"):
        try:
            await line.fetch()
            raise AssertionError("it came through")
        except SessionError as e:
            eq(e.reason, reason)
        line.host.port = 1
    await line.close()


async def test_a_board_that_has_no_room_defers_and_gets_the_mail_the_next_time():
    inbox = Inbox({"DATA": [SMTPError(452, "4.3.1", "no room")]})
    world = provider()
    line = Line(world, inbox)
    world.add("1@b7.example", text=ALL)
    eq(await line.fetch("b7.example"), True)
    eq((inbox.mails, len(world.queue)), ([], 1))
    eq(await line.fetch("b7.example"), True)  # it need not be due
    eq(([m[1] for m in inbox.mails], len(world.queue)), ([["1@b7.example"]], 0))
    await line.close()
