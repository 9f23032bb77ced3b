"""lib/smtp/lmtp.py and lmtpd.py: LMTP, both sides, as transcripts; and from a queue through both."""

from expect import eq
from play import CUTS, play
from smtp import lmtpd
from smtp.client import SessionError
from smtp.extra import Extra
from smtp.lmtp import LMTP
from smtp.onward import traced
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import Wire
from smtp.trace import received
from test_client import Source, one
from test_relay import Box as Smart
from test_relay import World
from test_server import LAN, NETWORKS, STRANGER, Box, Late

THREE = ("a@x.example", "b@x.example", "c@x.example")
NO = (550, "5.1.1", "no such user")


# -- the client


def start(text, fails=None):
    for cut in CUTS:
        client = LMTP(Wire(bytearray(2048)), "me.example.com")
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(client.start("none"), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq(player.error.reason, fails)
    return client


def mails(text, *jobs, fails=False):
    for cut in CUTS:
        made = [make() for make in jobs]
        client = LMTP(Wire(bytearray(2048)), "me.example.com")
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(client.mails(Source(made)), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq(player.error.reason, "lost")
    return [job.replies for job in made]


def test_a_session_opens_with_lhlo():
    client = start("""
        S: 220 mx LMTP
        C: LHLO me.example.com
        S: 250-mx
        S: 250-PIPELINING
        S: 250-CHUNKING
        S: 250-8BITMIME
        S: 250 SIZE 1000
    """)
    eq(client.ext, {"8BITMIME": "", "SIZE": "1000"})


def test_a_server_that_knows_no_lhlo_is_not_greeted_otherwise():
    start("""
        S: 220 mx ESMTP
        C: LHLO me.example.com
        S: 500 5.5.2 what
    """, "reply")  # fmt: skip


ENVELOPE = """
    C: MAIL FROM:<a@example.com>
    S: 250 ok
    C: RCPT TO:<a@x.example>
    S: 250 ok
    C: RCPT TO:<b@x.example>
    S: %s
    C: RCPT TO:<c@x.example>
    S: 250 ok
    C: DATA
    S: 354 go
    C: hello
    C: .
"""


def test_each_recipient_has_a_reply_of_his_own_behind_the_mail():
    results = mails(ENVELOPE % "250 ok" + """
        S: 250 2.0.0 a has it
        S: 452 4.2.2 b is full
        S: 550 5.1.1 no such user
    """, one(THREE))  # fmt: skip
    eq(results, [[(250, "2.0.0", "a has it"), (452, "4.2.2", "b is full"), NO]])


def test_who_was_refused_before_has_no_reply_behind_the_mail():
    results = mails(ENVELOPE % "550 5.1.1 no such user" + """
        S: 250 2.0.0 a
        S: 250 2.0.0 c
        C: MAIL FROM:<a@example.com>
        S: 250 ok
        C: RCPT TO:<d@x.example>
        S: 250 ok
        C: DATA
        S: 354 go
        C: hello
        C: .
        S: 250 2.0.0 d
    """, one(THREE), one(("d@x.example",)))  # fmt: skip
    eq(results, [[(250, "2.0.0", "a"), NO, (250, "2.0.0", "c")], [(250, "2.0.0", "d")]])


def test_a_session_that_ends_between_the_replies_keeps_those_that_came():
    for end in ("-- GONE --", "-- TIMEOUT --", "S: 421 4.3.2 shutting down", "S: what"):
        eq(mails(ENVELOPE % "250 ok" + "S: 250 2.0.0 a has it\n" + end, one(THREE), fails=True),
           [[(250, "2.0.0", "a has it"), None, None]])  # fmt: skip


def test_a_mail_that_nobody_takes_is_not_sent():
    eq(mails("""
        C: MAIL FROM:<a@example.com>
        S: 250 ok
        C: RCPT TO:<a@x.example>
        S: 550 5.1.1 no such user
        C: RSET
        S: 250 ok
    """, one(("a@x.example",))), [[NO]])  # fmt: skip


def test_data_that_is_refused_is_refused_for_all():
    eq(mails("""
        C: MAIL FROM:<a@example.com>
        S: 250 ok
        C: RCPT TO:<a@x.example>
        S: 250 ok
        C: DATA
        S: 452 4.3.1 no room
        C: RSET
        S: 250 ok
    """, one(("a@x.example",))), [[(452, "4.3.1", "no room")]])  # fmt: skip


# -- the server


def talk(text, peer=LAN, fail="", error=None):
    for cut in (5,) + CUTS:
        box = (Late if cut == 5 else Box)(fail, error)
        listener = Listener("mx.example.com", box, networks=NETWORKS)
        listener.commands = lmtpd.COMMANDS
        lmtpd.greet(listener)
        wire = Wire(bytearray(2048))
        play(Session(wire, peer, listener).run(), wire, "S: 220 mx.example.com LMTP\n" + text, cut)
    return box


LHLO = """
    C: LHLO client.example.com
    S: 250-mx.example.com
    S: 250-PIPELINING
    S: 250-SIZE 10485760
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250 ENHANCEDSTATUSCODES
"""
TWO = LHLO + """
    C: MAIL FROM:<a@example.com>
    S: 250 2.1.0 ok
    C: RCPT TO:<b@example.net>
    S: 250 2.1.5 ok
    C: RCPT TO:<unknown@example.net>
    S: 550 5.1.1 no such user
    C: RCPT TO:<c@example.net>
    S: 250 2.1.5 ok
"""


def test_the_server_knows_lhlo_and_neither_ehlo_nor_helo():
    talk("""
        C: EHLO client.example.com
        S: 500 5.5.2 command not recognized
        C: HELO client.example.com
        S: 500 5.5.2 command not recognized
    """ + LHLO)  # fmt: skip


def test_the_server_answers_once_for_each_recipient_that_it_accepted():
    box = talk(TWO + """
        C: DATA
        S: 354 end with a dot on a line of its own
        C: hello
        C: .
        S: 250 2.0.0 queued
        S: 250 2.0.0 queued
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 ok
        C: BDAT 5
        C! hello
        S: 250 2.0.0 5 octets
        C: BDAT 2 LAST
        C! \\r\\n
        S: 250 2.0.0 queued
    """)  # fmt: skip
    eq([(e.rcpts, data) for e, data in box.mails],
       [(["b@example.net", "c@example.net"], b"hello\r\n"), (["b@example.net"], b"hello\r\n")])  # fmt: skip


def test_a_chunk_that_is_the_last_is_answered_once_for_each():
    talk(TWO + """
        C: BDAT 7 LAST
        C! hello\\r\\n
        S: 250 2.0.0 queued
        S: 250 2.0.0 queued
        C: NOOP
        S: 250 2.0.0 ok
    """)  # fmt: skip


def test_what_goes_wrong_behind_the_mail_is_said_once_for_each():
    for fail in ("commit", "write"):
        talk(TWO + """
            C: DATA
            S: 354 end with a dot on a line of its own
            C: hello
            C: .
            S: 452 4.3.1 no room
            S: 452 4.3.1 no room
        """, fail=fail)  # fmt: skip
        talk(TWO + """
            C: BDAT 7 LAST
            C! hello\\r\\n
            S: 452 4.3.1 no room
            S: 452 4.3.1 no room
        """, fail=fail)  # fmt: skip


def test_what_goes_wrong_before_the_mail_is_said_once():
    talk(TWO + """
        C: DATA
        S: 452 4.3.1 no room
        C: NOOP
        S: 250 2.0.0 ok
    """, fail="open")  # fmt: skip
    talk(LHLO + """
        C: DATA
        S: 503 5.5.1 no valid recipients
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: DATA
        S: 503 5.5.1 no valid recipients
        C: DATA x
        S: 501 5.5.4 DATA takes no argument
        C: BDAT 2 LAST
        C! hi
        S: 554 5.5.1 no valid recipients
    """)  # fmt: skip


def test_what_came_by_lmtp_says_so_in_its_received_field():
    for utf8, user, keyword in ((False, None, "LMTP"), (True, None, "UTF8LMTP"), (False, "printer", "LMTPA")):
        box = Box()
        listener = Listener("mx.example.com", box, networks=NETWORKS)
        listener.commands = lmtpd.COMMANDS
        lmtpd.greet(listener)
        if utf8:
            Extra(listener, ("SMTPUTF8",))
        wire = Wire(bytearray(2048))
        session = Session(wire, LAN, listener)
        session.user = user
        play(session.run(), wire, """
            S: 220 mx.example.com LMTP
            C: LHLO client.example.com
            S: 250-mx.example.com
            S: 250-PIPELINING
            S: 250-SIZE 10485760
            S: 250-8BITMIME
            S: 250-CHUNKING
            %s
            S: 250 ENHANCEDSTATUSCODES
            C: MAIL FROM:<a@example.com>%s
            S: 250 2.1.0 ok
            C: RCPT TO:<b@example.net>
            S: 250 2.1.5 ok
            C: DATA
            S: 354 end with a dot on a line of its own
            C: .
            S: 250 2.0.0 queued
        """ % ("S: 250-SMTPUTF8" if utf8 else "", " SMTPUTF8" if utf8 else ""))  # fmt: skip
        field = str(traced(received(box.mails[0][0], "gw", "1", ""), box.mails[0][0].extra), "utf-8")
        assert " with %s id 1\r\n" % keyword in field, field


def test_an_lmtp_server_is_no_open_relay():
    talk(LHLO + """
        C: MAIL FROM:<a@example.com>
        S: 550 5.7.1 relaying denied
    """, STRANGER)  # fmt: skip


# -- both


async def test_a_queue_delivers_by_lmtp_and_who_is_deferred_waits_alone():
    box = Smart({"c@example.net": SMTPError(450, "4.2.1", "busy")})
    world = World().open(box)
    world.servers[0][2].commands = lmtpd.COMMANDS
    world.hosts[0].kind = LMTP
    world.add("b@example.net", "c@example.net", "d@example.net")
    world.add("b@example.net", text=b"Subject: y\r\n\r\n.\r\n..\r\n")
    assert await world.relay.session()
    eq([m[1] for m in box.mails], [["b@example.net", "d@example.net"], ["b@example.net"]])
    assert box.mails[1][2].endswith(b"\r\n\r\n.\r\n..\r\n")
    eq(len(world.queue), 1)
    box.no = {}
    world.clock.up += 100
    assert await world.relay.session()
    eq((box.mails[2][1], len(world.queue)), (["c@example.net"], 0))
    await world.close()
