"""lib/smtp/server.py: what a session answers, as transcripts."""

import errno

from expect import eq, raises
from play import CUTS, Player, Random, play
from smtp import auth, sasl
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import Wire

LAN = "10.0.0.9"  # in the allowed network
STRANGER = "192.0.2.1"
NETWORKS = ("10.0.0.0/8", "2001:db8::/32")
USERS = {"printer": auth.make_verifier("secret", 4)}
TOKEN = sasl.b64(b"\0printer\0secret").decode()  # AUTH PLAIN
WRONG = sasl.b64(b"\0printer\0wrong").decode()


class Box:
    """A backend that keeps what it gets; it refuses where it is told to, and counts what was given up."""

    def __init__(self, fail="", error=None):
        self.mails = []  # (envelope, bytes)
        self.aborted = 0
        self.opened = 0
        self.fail = fail
        self.error = error or SMTPError(452, "4.3.1", "no room")

    def check(self, where):
        if self.fail == where:
            raise self.error

    def rcpt(self, envelope, address):
        if address.startswith("unknown@"):
            raise SMTPError(550, "5.1.1", "no such user")
        if address.lower() == "postmaster":
            return "admin@example.com"

    def open(self, envelope):
        self.check("open")
        self.opened += 1
        return Sink(self, envelope)


class Sink:
    def __init__(self, box, envelope):
        self.box = box
        self.envelope = envelope
        self.data = bytearray()
        self.ended = False

    def write(self, piece):
        assert not self.ended, "written to after its end"
        self.box.check("write")
        self.data += piece

    def commit(self):
        assert not self.ended, "committed after its end"
        self.box.check("commit")
        self.ended = True
        self.box.mails.append((self.envelope, bytes(self.data)))
        return "queued"

    def abort(self):
        if not self.ended:
            self.ended = True
            self.box.aborted += 1


class Late(Box):
    """The same, and all that takes time it gives as an awaitable."""

    def open(self, envelope):
        return self.in_time(envelope)

    async def in_time(self, envelope):
        return LateSink(Box.open(self, envelope))


class LateSink:
    def __init__(self, sink):
        self.sink = sink
        self.abort = sink.abort

    def write(self, piece):
        return self.late(self.sink.write, piece)

    def commit(self):
        return self.late(self.sink.commit)

    async def late(self, function, *args):
        return function(*args)


def session(box, peer=LAN, size=2048, **options):
    options["networks"] = options.get("networks", NETWORKS)
    listener = Listener("mx.example.com", box, **options)
    wire = Wire(bytearray(size))
    return Session(wire, peer, listener).run(), wire


def talk(text, peer=LAN, size=2048, fail="", error=None, **options):
    """Plays a transcript for each cut, and with a backend that takes its time; gives the box, which has to be the same
    after each."""
    seen = None
    for cut in (5,) + CUTS:
        box = (Late if cut == 5 else Box)(fail, error)
        generator, wire = session(box, peer, size, **options)
        box.player = play(generator, wire, "S: 220 mx.example.com ESMTP\n" + text, cut)
        state = [m[1] for m in box.mails], box.aborted, box.opened
        if seen is None:
            seen = state
        eq((cut, state), (cut, seen))
    return box


def took(box):
    """The mails that were committed, as (sender, recipients, content)."""
    return [(e.sender, e.rcpts, data) for e, data in box.mails]




def hello(*more, size=10485760):
    """The transcript of an EHLO that is answered with all that is always offered, and `more`."""
    names = ("mx.example.com", "PIPELINING", "SIZE %d" % size, "8BITMIME", "CHUNKING") + more
    lines = ["C: EHLO client.example.com"] + ["S: 250-" + name for name in names]
    return "\n".join(lines + ["S: 250 ENHANCEDSTATUSCODES\n"])


HELLO = "\n" + hello()
MAIL = """
    C: MAIL FROM:<a@example.com>
    S: 250 2.1.0 ok
    C: RCPT TO:<b@example.net>
    S: 250 2.1.5 ok
"""
DATA = (
    MAIL
    + """
    C: DATA
    S: 354 end with a dot on a line of its own
"""
)
QUIT = """
    C: QUIT
    S: 221 2.0.0 bye
    -- END --
"""
ONE = [("a@example.com", ["b@example.net"], b"Subject: x\r\n\r\nhello\r\n")]
HELLO_MAIL = """
    C: Subject: x
    C:{space}
    C: hello
    C: .
    S: 250 2.0.0 queued
""".replace("{space}", " ")


def test_ehlo_offers_exactly_what_there_is():
    talk(HELLO + QUIT)


def test_helo_is_answered_in_one_line():
    talk("C: HELO client\nS: 250 mx.example.com" + QUIT)


def test_commands_are_known_in_any_case():
    talk(HELLO.replace("EHLO", "ehlO") + QUIT.replace("QUIT", "qUiT"))


def test_a_mail_is_taken_and_acknowledged_once_it_is_committed():
    eq(took(talk(HELLO + DATA + HELLO_MAIL + QUIT)), ONE)


def test_the_envelope_says_how_the_mail_came():
    box = talk(HELLO + DATA + HELLO_MAIL)
    e = box.mails[0][0]
    eq((e.peer, e.helo, e.user, e.tls, e.esmtp), (LAN, "client.example.com", None, False, True))
    box = talk("C: HELO [10.0.0.9]\nS: 250 mx.example.com" + DATA + HELLO_MAIL)
    e = box.mails[0][0]
    eq((e.helo, e.esmtp), ("[10.0.0.9]", False))


def test_several_mails_in_one_session_keep_their_own_recipients():
    box = talk(
        HELLO
        + DATA
        + HELLO_MAIL
        + """
        C: MAIL FROM:<c@example.com> SIZE=20 BODY=8BITMIME
        S: 250 2.1.0 ok
        C: RCPT TO:<d@example.net>
        S: 250 2.1.5 ok
        C: RCPT TO:<e@example.net>
        S: 250 2.1.5 ok
        C: DATA
        S: 354 ...
        C: two
        C: .
        S: 250 2.0.0 queued
    """
        + QUIT
    )
    eq(took(box), ONE + [("c@example.com", ["d@example.net", "e@example.net"], b"two\r\n")])
    eq((box.mails[1][0].size, box.mails[1][0].body), (20, "8BITMIME"))


def test_rset_forgets_the_transaction():
    box = talk(
        HELLO
        + MAIL
        + """
        C: RSET
        S: 250 2.0.0 ok
        C: DATA
        S: 503 5.5.1 say MAIL first
        C: MAIL FROM:<c@example.com>
        S: 250 2.1.0 ok
        C: DATA
        S: 554 5.5.1 no valid recipients
    """
        + QUIT
    )
    eq(box.mails, [])


def test_a_new_ehlo_forgets_the_transaction():
    talk(HELLO + MAIL + HELLO + "C: DATA\nS: 503 5.5.1 say MAIL first" + QUIT)


def test_the_commands_that_do_nothing():
    talk("""
        C: NOOP
        S: 250 2.0.0 ok
        C: NOOP and some words
        S: 250 2.0.0 ok
        C: HELP
        S: 214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY AUTH STARTTLS
        C: VRFY root
        S: 252 2.0.0 cannot verify, send mail to try
        C: EXPN all
        S: 502 5.5.1 not implemented
        C: TURN
        S: 502 5.5.1 not implemented
        C: XYZZY
        S: 500 5.5.2 command not recognized
        C:\x20
        S: 500 5.5.2 command not recognized
        C! \\x00\\xff\\r\\n
        S: 500 5.5.2 command not recognized
    """)


def test_commands_in_the_wrong_order_get_503():
    talk(
        HELLO
        + """
        C: RCPT TO:<b@example.net>
        S: 503 5.5.1 say MAIL first
        C: DATA
        S: 503 5.5.1 say MAIL first
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: MAIL FROM:<a@example.com>
        S: 503 5.5.1 one mail at a time
        C: DATA
        S: 554 5.5.1 no valid recipients
    """
    )
    talk("C: MAIL FROM:<a@example.com>\nS: 503 5.5.1 say EHLO first", STRANGER)


def test_a_device_that_never_says_helo_is_served_in_its_own_network():
    eq(took(talk(DATA + HELLO_MAIL)), ONE)


def test_malformed_commands_get_501():
    talk("C: EHLO\nS: 501 5.5.4 ...\nC: EHLO a_b\nS: 501 5.5.4 ...\nC: HELO\nS: 501 5.5.4 ...", STRANGER)
    talk(
        HELLO
        + """
        C: MAIL
        S: 501 5.5.4 say MAIL FROM:<address>
        C: MAIL TO:<a@example.com>
        S: 501 5.5.4 say MAIL FROM:<address>
        C: MAIL FROM:<a@@example.com>
        S: 501 5.1.7 ...
        C: MAIL FROM:<a@example.com
        S: 501 5.1.7 ...
        C: MAIL FROM:<a@example.com> SIZE=many
        S: 501 5.5.4 SIZE takes a number
        C: MAIL FROM:<a@example.com> SIZE
        S: 501 5.5.4 SIZE takes a number
        C: MAIL FROM:<a@example.com> BODY=BINARYMIME
        S: 501 5.5.4 BODY is 7BIT or 8BITMIME
        C: MAIL FROM:<a@example.com> SIZE=1 SIZE=2
        S: 501 5.5.4 ...
        C: MAIL FROM:<a@example.com> XYZ=1
        S: 555 5.5.4 parameter XYZ is not supported
    """
    )
    talk(
        HELLO
        + """
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: RCPT
        S: 501 5.5.4 say RCPT TO:<address>
        C: RCPT TO:<>
        S: 501 5.1.3 ...
        C: RCPT TO:<b>
        S: 501 5.1.3 ...
        C: RCPT TO:<b@example.net> NOTIFY=NEVER
        S: 555 5.5.4 ...
        C! RCPT TO:<b\\xc3\\xbc@example.net>\\r\\n
        S: 553 5.6.7 ...
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 ok
        C: DATA now
        S: 501 5.5.4 DATA takes no argument
    """
    )


def test_a_refused_recipient_does_not_disturb_the_others():
    box = talk(
        HELLO
        + """
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: RCPT TO:<unknown@example.net>
        S: 550 5.1.1 no such user
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 ok
        C: DATA
        S: 354 ...
    """
        + HELLO_MAIL
    )
    eq(took(box), ONE)


def test_a_backend_may_change_a_recipient():
    box = talk(HELLO + DATA.replace("<b@example.net>", "<Postmaster>") + HELLO_MAIL)
    eq(took(box)[0][1], ["admin@example.com"])


def test_a_pipelined_group_is_answered_in_one_write():
    box = talk(
        HELLO
        + """
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<unknown@example.net>
        C: DATA
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 550 5.1.1 no such user
        S: 354 ...
        C: x
        C: .
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C: QUIT
        S: 250 2.0.0 queued
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 221 2.0.0 bye
        -- END --
    """
    )
    eq(len(box.mails), 1)
    box = Box()
    p = Player(*session(box))
    p.feed(b"EHLO x\r\n")
    before = p.writes
    p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
    eq(p.writes, before + 1)


def test_what_follows_quit_is_not_looked_at():
    box = talk("C: QUIT\nC: NOOP\nC: MAIL FROM:<a@b>\nS: 221 2.0.0 bye\n-- END --")
    eq(box.opened, 0)


def test_a_web_page_cannot_send_mail_through_a_browser():
    for verb in ("POST", "GET", "PUT", "OPTIONS", "CONNECT", "HEAD"):
        page = "C: %s / HTTP/1.1\nC: EHLO x\nC: MAIL FROM:<a@b>\n" % verb
        box = talk(page + "S: 421 4.7.0 this is not the web\n-- END --")
        eq(box.opened, 0)


def test_a_mail_too_big_is_refused_before_it_is_sent():
    talk(
        hello(size=1000)
        + """
        C: MAIL FROM:<a@example.com> SIZE=1001
        S: 552 5.3.4 the limit is 1000 octets
        C: MAIL FROM:<a@example.com> SIZE=99999999999999999999
        S: 552 5.3.4 the limit is 1000 octets
        C: MAIL FROM:<a@example.com> SIZE=1000
        S: 250 2.1.0 ok
    """,
        max_size=1000,
    )


def test_a_mail_that_grows_too_big_is_refused_at_its_end_and_the_next_is_served():
    for size, wanted in ((98, b"250 "), (99, b"552 5.3.4 "), (5000, b"552 5.3.4 ")):
        for cut in CUTS:
            box = Box()
            p = Player(*session(box, max_size=100), cut)
            p.feed(b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            p.said()
            p.feed(b"x" * size + b"\r\n.\r\n")
            assert p.sent.startswith(wanted), (size, cut, p.sent)
            good = int(size < 99)
            eq((len(box.mails), box.aborted), (good, 1 - good))
            p.said()
            p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nok\r\n.\r\n")
            assert p.sent.endswith(b"250 2.0.0 queued\r\n"), p.sent
            eq(box.mails[-1][1], b"ok\r\n")


def test_the_null_reverse_path_is_taken():
    box = talk(HELLO + DATA.replace("a@example.com", "") + HELLO_MAIL)
    eq(took(box)[0][0], "")


def test_dots_are_taken_off_once():
    box = talk(
        HELLO
        + DATA
        + """
        C: ..
        C: ...
        C: .x
        C: ..x.
        C: x.
        C: .
        S: 250 2.0.0 queued
    """
    )
    eq(box.mails[0][1], b".\r\n..\r\nx\r\n.x.\r\nx.\r\n")


def test_an_empty_mail_is_a_mail():
    eq(talk(HELLO + DATA + "C: .\nS: 250 2.0.0 queued" + QUIT).mails[0][1], b"")


# Ways to end a mail that only some servers take for an end: what follows them belongs to this mail
# (SMTP smuggling, CVE-2023-51764 and its like). The second column is what the mail then holds.
SMUGGLING = (
    (b"\n.\n", b"\r\n.\r\n"),
    (b"\r.\r", b"."),
    (b"\n.\r\n", b"\r\n.\r\n"),
    (b"\r\n.\n", b"\r\n\r\n"),
    (b"\r\n.\r", b"\r\n"),
    (b"\r.\r\n", b".\r\n"),
    (b"\n.\r", b"\r\n."),
    (b"\r.\n", b".\r\n"),
    (b"\n\n.\r\n", b"\r\n\r\n.\r\n"),
    (b"\r\r.\r\r", b"."),
    (b"\r\n\x00.\r\n", b"\r\n\x00.\r\n"),
    (b"\r\n.\x00\r\n", b"\r\n\x00\r\n"),
    (b"\r\n..\r\n", b"\r\n.\r\n"),
    (b"\r\n. \r\n", b"\r\n \r\n"),
    (b"\r\n.\r\r\n", b"\r\n\r\n"),
    (b"\r\n\r.\r\n", b"\r\n.\r\n"),
)


def test_only_crlf_dot_crlf_ends_a_mail():
    evil = b"MAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nevil\r\n"
    for peer, users in ((LAN, {}), (STRANGER, USERS)):
        for way, content in SMUGGLING:
            for cut in CUTS:
                box = Box()
                p = Player(*session(box, peer, users=users, auth_in_clear=True), cut)
                p.feed(b"EHLO x\r\n")
                if users:
                    p.feed(b"AUTH PLAIN " + TOKEN.encode() + b"\r\n")
                p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
                p.said()
                p.feed(b"first" + way + evil + b".\r\n")
                eq((way, cut, p.said()), (way, cut, b"250 2.0.0 queued\r\n"))
                eq((way, cut, len(box.mails)), (way, cut, 1))
                eq((way, cut, box.mails[0][1]), (way, cut, b"first" + content + evil))


def test_a_command_ends_with_crlf_unless_the_peer_is_a_device_of_our_network():
    p = Player(*session(Box(), LAN))
    p.said()
    p.feed(b"NOOP\nNOOP\r\n")
    eq(p.said(), b"250 2.0.0 ok\r\n" * 2)
    p = Player(*session(Box(), STRANGER))
    p.said()
    p.feed(b"NOOP\nNOOP\r\n")
    eq(p.said(), b"500 5.5.2 command not recognized\r\n")
    p.feed(b"NOOP\rNOOP\r\n")
    eq(p.said(), b"500 5.5.2 command not recognized\r\n")


def test_a_line_of_a_megabyte_gets_one_500_and_no_memory():
    for peer in (LAN, STRANGER):
        generator, wire = session(Box(), peer, 512)
        p = Player(generator, wire)
        p.said()
        piece = b"x" * 4096
        for _ in range(256):
            p.feed(piece)
        eq((p.said(), len(wire.buf)), (b"", 512))
        p.feed(b"\r\nNOOP\r\n")
        eq(p.said(), b"500 5.5.2 line too long\r\n250 2.0.0 ok\r\n")


def test_a_line_just_as_long_as_the_buffer_is_read():
    for cut in CUTS:
        for size, wanted in ((510, b"250 "), (511, b"500 5.5.2 line too long")):
            p = Player(*session(Box(), STRANGER, 512), cut)
            p.said()
            p.feed(b"NOOP " + b"x" * (size - 5) + b"\r\n")
            assert p.sent.startswith(wanted), (size, cut, p.sent)


def test_a_line_of_a_megabyte_in_a_mail_is_mail():
    box = Box()

    class Counts:
        size = 0

        def write(self, piece):
            self.size += len(piece)

        def commit(self):
            box.mails.append(self.size)
            return "queued"

    box.open = lambda envelope: Counts()
    p = Player(*session(box, LAN, 512))
    p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    piece = b"x" * 4096
    for _ in range(256):
        p.feed(piece)
    p.said()
    p.feed(b"\r\n.\r\n")
    eq((p.said(), box.mails), (b"250 2.0.0 queued\r\n", [1048578]))


def test_ten_thousand_recipients_get_452_and_in_the_end_421():
    p = Player(*session(Box()))
    p.feed(b"EHLO x\r\nMAIL FROM:<a@b>\r\n")
    p.said()
    p.feed(b"RCPT TO:<c@d>\r\n" * 100)
    eq(p.said(), b"250 2.1.5 ok\r\n" * 100)
    asked = 100
    while not p.ended:
        p.feed(b"RCPT TO:<c@d>\r\n" * 100)
        asked += 100
        assert asked <= 10000, "it never ends"
    lines = p.said().split(b"\r\n")
    assert lines[-2].startswith(b"421 4.7.0 "), lines[-2]
    eq(len([x for x in lines if x.startswith(b"452 4.5.3 ")]), len(lines) - 2)


def test_a_mail_to_more_than_a_hundred_reaches_the_first_hundred():
    # RFC 5321 4.5.3.1.10: the client sends the mail to those who were taken, and the rest again.
    box = Box()
    p = Player(*session(box))
    p.feed(b"EHLO x\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<c@d>\r\n" * 250 + b"DATA\r\n")
    assert p.said().endswith(b"\r\n354 end with a dot on a line of its own\r\n")
    p.feed(b"x\r\n.\r\n")
    eq(p.said(), b"250 2.0.0 queued\r\n")
    eq(len(box.mails[0][0].rcpts), 100)


def test_nul_and_any_other_octet_pass_in_a_mail():
    every = bytes([c for c in range(256) if c not in (10, 13)])
    for cut in CUTS:
        box = Box()
        p = Player(*session(box), cut)
        p.feed(b"MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nDATA\r\n" + every + b"\r\n.\r\n")
        eq(box.mails[0][1], every + b"\r\n")


def test_a_client_that_leaves_in_the_middle_of_a_mail_leaves_nothing():
    start = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nhello\r\n.\r"
    for n in range(len(start) + 1):
        box = Box()
        p = Player(*session(box))
        p.feed(start[:n])
        p.throw(EOFError())
        assert p.ended
        eq((n, box.mails, box.aborted), (n, [], box.opened))
    for how in ("close", "throw"):
        box = Box()
        p = Player(*session(box))
        p.feed(start)
        if how == "close":
            p.close()  # what a cancelled task does
        else:
            p.throw(OSError(errno.ECONNRESET))
        eq((box.mails, box.aborted, box.opened), ([], 1, 1))


def test_a_client_that_is_silent_too_long_hears_421():
    talk(HELLO + "-- TIMEOUT --\nS: 421 4.4.2 timed out, closing\n-- END --")
    box = talk(HELLO + DATA + "C: Subject: x\n-- TIMEOUT --\nS: 421 4.4.2 timed out, closing\n-- END --")
    eq((box.mails, box.aborted), ([], 1))


def test_a_backend_without_room_answers_452_and_the_session_goes_on():
    for where in ("open", "write", "commit"):
        go = "S: 452 4.3.1 no room" if where == "open" else "S: 354 ...\nC: x\nC: .\nS: 452 4.3.1 no room"
        box = talk(HELLO + MAIL + "C: DATA\n" + go + MAIL, fail=where)
        eq((where, box.mails, box.aborted), (where, [], box.opened))


def test_a_flash_that_fails_never_acknowledges_a_mail():
    for where in ("open", "write", "commit"):
        told = []
        go = "S: 451 4.3.0 ..." if where == "open" else "S: 354 ...\nC: x\nC: .\nS: 451 4.3.0 ..."
        error = OSError(errno.EIO, "flash")
        box = talk(HELLO + MAIL + "C: DATA\n" + go + MAIL, fail=where, error=error, log=told.append)
        eq((where, box.mails, box.aborted), (where, [], box.opened))
        eq(told, ["cannot store mail: %s" % error] * (len(CUTS) + 1))


def test_a_mail_that_was_refused_is_not_written_any_more():
    box = Box("write")
    p = Player(*session(box), 7)
    p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + b"x" * 1000 + b"\r\n")
    box.fail = ""
    p.said()
    p.feed(b"more\r\n.\r\n")
    eq((p.said(), box.mails, box.aborted), (b"452 4.3.1 no room\r\n", [], 1))


def test_a_mail_that_goes_round_in_a_circle_is_refused():
    for hops in (30, 31, 100):
        answer = "250 2.0.0 queued" if hops <= 30 else "554 5.4.6 ..."
        for field in ("Received: from a\nC:  by b", "received: x", "RECEIVED: y"):
            text = HELLO + DATA + "C: Subject: x\n" + ("C: %s\n" % field) * hops
            box = talk(text + "C: \nC: Received: no more\nC: .\nS: " + answer)
            eq((hops, len(box.mails)), (hops, int(hops <= 30)))


def test_received_in_the_body_is_no_hop():
    body = "C: Received: from a\n" * 50
    box = talk(HELLO + DATA + "C: \n" + body + "C: .\nS: 250 2.0.0 queued")
    eq(len(box.mails), 1)


def test_too_many_errors_end_the_session():
    wrong = "C: XYZZY\nS: 500 5.5.2 command not recognized\n"
    end = "S: 421 4.7.0 too many errors, closing\n-- END --"
    talk(wrong * 10 + end)
    p = Player(*session(Box()))
    p.feed(b"XYZZY\r\n" * 1000)
    eq(p.sent.count(b"\r\n"), 12)


def test_commands_without_end_end_the_session():
    p = Player(*session(Box()))
    for _ in range(11):
        if not p.ended:
            p.feed(b"NOOP\r\n" * 100)
    assert p.ended and p.sent.endswith(b"421 4.7.0 too many commands\r\n"), p.sent[-60:]


def test_what_waits_to_be_sent_stays_small_however_much_is_asked_at_once():
    p = Player(*session(Box(), size=4096))
    p.feed(b"EHLO x\r\n" * 900)
    eq(p.sent.count(b"250 ENHANCEDSTATUSCODES\r\n"), 900)
    assert p.most < 4096, p.most


# -- who may relay

TRICKS = (
    "b@example.net", "b%example.net@mx.example.com", "b%example.net", "example.net!b",
    "example.net!b@mx.example.com", "@mx.example.com:b@example.net", "@a,@b:c@d",
    '"b@example.net"', '"b@example.net"@mx.example.com', '"b%example.net"@mx.example.com',
    "b@[192.0.2.7]", "b@[127.0.0.1]", "b@[IPv6:::1]", "b@localhost", "b@mx.example.com",
    "b@example.net@mx.example.com", "postmaster", "",
)  # fmt: skip


def test_a_stranger_may_send_nothing_to_nobody_whatever_the_address_looks_like():
    for options in (
        {},
        {"networks": ()},
        {"users": USERS},
        {"users": USERS, "auth_in_clear": True},
        {"users": USERS, "tls": "starttls"},
        {"tls": "starttls"},
    ):
        for sender in ("a@example.com", "", "a@mx.example.com", "postmaster@mx.example.com"):
            box = Box()
            p = Player(*session(box, STRANGER, **options))
            p.feed(b"EHLO mx.example.com\r\n")
            p.said()
            p.feed(b"MAIL FROM:<" + sender.encode() + b"> AUTH=<>\r\n")
            assert p.said()[:4] in (b"530 ", b"550 "), (options, sender)
        for trick in TRICKS:
            box = Box()
            p = Player(*session(box, STRANGER, **options))
            p.feed(b"EHLO mx.example.com\r\nMAIL FROM:<a@example.com>\r\n")
            p.said()
            p.feed(b"RCPT TO:<" + trick.encode() + b">\r\nDATA\r\n")
            eq([x[:4] for x in p.said().split(b"\r\n")], [b"503 ", b"503 ", b""])
            p.feed(b"RSET\r\nHELO localhost\r\nMAIL FROM:<a@b>\r\n")
            assert p.said().split(b"\r\n")[-2][:3] in (b"530", b"550")
            eq(box.opened, 0)


def test_a_stranger_hears_how_to_get_in_where_there_is_a_way():
    mail = "C: MAIL FROM:<a@b>\n"
    talk(HELLO + mail + "S: 550 5.7.1 relaying denied", STRANGER)
    talk(
        AUTH + mail + "S: 530 5.7.0 authentication required",
        STRANGER, users=USERS, auth_in_clear=True,
    )  # fmt: skip
    talk(
        CLEAR + mail + "S: 530 5.7.0 say STARTTLS, then authenticate",
        STRANGER, users=USERS, tls="starttls",
    )  # fmt: skip


def test_an_allowed_network_may_relay_and_its_neighbours_may_not():
    for peer, good in (
        ("10.0.0.1", True), ("10.255.255.255", True), ("11.0.0.1", False), ("9.255.255.255", False),
        ("2001:db8::1", True), ("2001:db9::1", False), ("::1", False), ("127.0.0.1", False),
    ):  # fmt: skip
        p = Player(*session(Box(), peer))
        p.feed(b"EHLO x\r\n")
        p.said()
        p.feed(b"MAIL FROM:<a@b>\r\n")
        eq((peer, p.said()[:3]), (peer, b"250" if good else b"550"))


def test_one_peer_after_another_is_judged_by_its_own_address():
    listener = Listener("mx.example.com", Box(), NETWORKS)
    for _ in range(2):
        for peer, known in ((LAN, True), (LAN, True), (STRANGER, False), (STRANGER, False)):
            eq(Session(Wire(bytearray(64)), peer, listener).known, known)


# -- AUTH

MECHANISMS = "AUTH SCRAM-SHA-256 PLAIN LOGIN"
AUTH = hello(MECHANISMS)


def login(text, **options):
    options["users"] = USERS
    options["auth_in_clear"] = options.get("auth_in_clear", True)
    return talk(text, STRANGER, **options)


IN = "S: 235 2.7.0 welcome\n"
BAD = "S: 535 5.7.8 wrong user name or password\n"


def test_plain_with_an_initial_response():
    box = login(AUTH + "C: AUTH PLAIN " + TOKEN + "\n" + IN + DATA + HELLO_MAIL)
    eq((took(box), box.mails[0][0].user), (ONE, "printer"))


def test_plain_that_waits_to_be_asked():
    login(AUTH + "C: auth plain\nS: 334 \nC: " + TOKEN + "\n" + IN + MAIL)


def test_login_asks_for_name_and_password():
    login(
        AUTH
        + """
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: cHJpbnRlcg==
        S: 334 UGFzc3dvcmQ6
        C: c2VjcmV0
    """
        + IN
        + MAIL
    )


def test_login_with_the_name_in_the_line():
    login(AUTH + "C: AUTH LOGIN cHJpbnRlcg==\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n" + IN)


def test_a_client_may_cancel_and_try_again():
    login(
        AUTH
        + """
        C: AUTH PLAIN
        S: 334{space}
        C: *
        S: 501 5.0.0 cancelled
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: *
        S: 501 5.0.0 cancelled
    """.replace("{space}", " ")
        + "C: AUTH PLAIN "
        + TOKEN
        + "\n"
        + IN
    )


def test_a_wrong_password_lets_nobody_in():
    box = login(AUTH + "C: AUTH PLAIN " + WRONG + "\n" + BAD + "C: MAIL FROM:<a@b>\nS: 530 5.7.0 ...")
    eq(box.player.sleeps, [1000])


def test_an_unknown_user_hears_the_same():
    nobody = sasl.b64(b"\0nobody\0secret").decode()
    login(AUTH + "C: AUTH PLAIN " + nobody + "\n" + BAD)


def test_the_third_failure_ends_the_session():
    text = "C: AUTH PLAIN " + WRONG + "\n" + BAD
    box = login(AUTH + text * 2 + "C: AUTH PLAIN " + WRONG + "\nS: 421 4.7.0 too many failures, closing\n-- END --")
    eq(box.player.sleeps, [1000, 2000, 3000])


def test_malformed_base64_gets_501():
    login(
        AUTH
        + """
        C: AUTH PLAIN ====
        S: 501 5.5.2 that is not base64
        C: AUTH PLAIN AA
        S: 501 5.5.2 that is not base64
        C: AUTH PLAIN AHUAcA== AA==
        S: 501 5.5.2 that is not base64
        C: AUTH PLAIN
        S: 334{space}
        C! \\xff\\x00\\r\\n
        S: 501 5.5.2 that is not base64
        C: AUTH PLAIN =
        S: 501 5.5.2 ...
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C:{space}
        S: 334 UGFzc3dvcmQ6
        C:{space}
        S: 501 5.5.2 ...
    """.replace("{space}", " ")
    )


def test_a_response_too_long_gets_500():
    for cut in CUTS:
        p = Player(*session(Box(), STRANGER, 512, users=USERS, auth_in_clear=True), cut)
        p.feed(b"EHLO x\r\nAUTH PLAIN\r\n")
        p.said()
        p.feed(b"A" * 3000 + b"\r\nNOOP\r\n")
        eq(p.said(), b"500 5.5.6 line too long\r\n250 2.0.0 ok\r\n")


def test_a_mechanism_that_is_not_offered_gets_504():
    text = AUTH
    for name in ("GSSAPI", "", "plain2", "XOAUTH2", "PLA\u00dcN"):
        text += "C: AUTH " + name + "\nS: 504 5.5.4 mechanism not supported\n"
    login(text)
    login(AUTH + "C: AUTH\nS: 504 5.5.4 mechanism not supported")


def test_nobody_logs_in_twice_or_during_a_mail():
    inside = AUTH + "C: AUTH PLAIN " + TOKEN + "\n" + IN
    login(inside + "C: AUTH PLAIN " + TOKEN + "\nS: 503 5.5.1 ...")
    login(inside + AUTH + "C: AUTH PLAIN " + TOKEN + "\nS: 503 5.5.1 ...\n" + MAIL)
    talk(AUTH + MAIL + "C: AUTH PLAIN " + TOKEN + "\nS: 503 5.5.1 ...", LAN, users=USERS, auth_in_clear=True)


def test_a_password_is_not_taken_in_the_clear():
    login(CLEAR + "C: AUTH PLAIN " + TOKEN + "\nS: 538 5.7.11 say STARTTLS first", tls="starttls", auth_in_clear=False)
    login(HELLO + "C: AUTH PLAIN " + TOKEN + "\nS: 538 5.7.11 ...", auth_in_clear=False)


def test_auth_is_unknown_where_there_are_no_users():
    talk(HELLO + "C: AUTH PLAIN " + TOKEN + "\nS: 502 5.5.1 no AUTH here")


# -- STARTTLS

CLEAR = hello("STARTTLS")
GO = "C: STARTTLS\nS: 220 2.0.0 go ahead\n-- TLS --\n"


def test_starttls_is_offered_once_and_forgets_what_was_said_before():
    box = talk(CLEAR + MAIL + GO + "C: DATA\nS: 503 5.5.1 say MAIL first" + HELLO + DATA + HELLO_MAIL, tls="starttls")
    e = box.mails[0][0]
    eq((took(box), e.tls, e.helo), (ONE, True, "client.example.com"))
    talk(CLEAR + GO + HELLO + "C: STARTTLS\nS: 503 5.5.1 TLS is on already", tls="starttls")
    box = talk(CLEAR + GO + MAIL, tls="starttls")
    box = talk(CLEAR + GO + "C: MAIL FROM:<a@b>\nS: 503 5.5.1 say EHLO first", STRANGER, tls="starttls")


def test_auth_is_offered_under_tls():
    box = login(CLEAR + GO + AUTH + "C: AUTH PLAIN " + TOKEN + "\n" + IN + DATA + HELLO_MAIL,
                tls="starttls", auth_in_clear=False)  # fmt: skip
    e = box.mails[0][0]
    eq((e.user, e.tls, e.esmtp), ("printer", True, True))


def test_a_login_does_not_outlive_starttls():
    text = hello("STARTTLS", MECHANISMS) + "C: AUTH PLAIN " + TOKEN + "\n" + IN
    login(text + GO + AUTH + "C: MAIL FROM:<a@b>\nS: 530 5.7.0 ...", tls="starttls")


def test_commands_injected_behind_starttls_are_thrown_away():
    injected = "C: RSET\nC: MAIL FROM:<evil@b>\nC: RCPT TO:<c@d>\nC: DATA\nC: evil\nC: .\n"
    text = CLEAR + "C: STARTTLS\n" + injected + "S: 220 2.0.0 go ahead\n-- TLS --\n"
    box = talk(text + HELLO + "C: DATA\nS: 503 5.5.1 say MAIL first" + DATA + HELLO_MAIL, tls="starttls")
    eq(took(box), ONE)


def test_starttls_where_there_is_none_and_with_an_argument():
    talk(HELLO + "C: STARTTLS\nS: 502 5.5.1 no TLS here" + MAIL)
    talk(CLEAR + "C: STARTTLS now\nS: 501 5.5.4 STARTTLS takes no argument" + MAIL, tls="starttls")
    talk(HELLO + "C: STARTTLS\nS: 502 5.5.1 no TLS here", tls="tls")


def test_a_handshake_that_fails_ends_the_session_and_is_logged():
    for error in (OSError(errno.ECONNRESET), ValueError("no shared cipher"), EOFError()):
        told = []
        generator, wire = session(Box(), tls="starttls", log=told.append)
        p = Player(generator, wire)
        p.feed(b"STARTTLS\r\n")
        wire.shaking = True
        p.throw(error)
        assert p.ended and p.error is None, p.error
        assert len(told) == 1 and "TLS" in told[0] and LAN in told[0], told


# -- a mail, cut at random

def test_any_mail_comes_in_the_same_however_it_is_cut():
    random = Random(7)
    parts = (b".", b"\r\n", b"\r", b"\n", b"x", b"..", b"Received:", b" ", b"\x00", b"long " * 200, b"\r\n.")
    for _ in range(40):
        mail = b"".join([random.choice(parts) for _ in range(random.below(20))])
        if (b"\r\n" + mail + b"\r\n.\r\n").find(b"\r\n.\r\n") != len(mail) + 2:
            continue  # this one ends earlier
        seen = None
        for cut in CUTS + (5, 11, 64):
            box = Box()
            p = Player(*session(box, size=64 if cut else 2048), cut)
            p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            p.said()
            p.feed(mail + b"\r\n.\r\n")
            eq((mail, cut, p.said()), (mail, cut, b"250 2.0.0 queued\r\n"))
            data = box.mails[0][1]
            if seen is None:
                seen = data
            eq((mail, cut, data), (mail, cut, seen))
            eq((data.count(b"\r"), data.count(b"\n")), (data.count(b"\r\n"),) * 2)


# -- BDAT


def test_chunks_become_one_mail_as_they_are():
    box = talk(
        HELLO
        + MAIL
        + r"""
        C! BDAT 12\r\nSubject: x\r\n
        S: 250 2.0.0 12 octets
        C! BDAT 0\r\n
        S: 250 2.0.0 0 octets
        C! BDAT 11\r\n\r\n.\r\n..\r\nhe
        S: 250 2.0.0 11 octets
        C! bdat 5 last\r\nllo\r\n
        S: 250 2.0.0 queued
    """
        + MAIL
        + r"""
        C! BDAT 3 LAST\r\nx\r\n
        S: 250 2.0.0 queued
    """
        + QUIT
    )
    eq([m[2] for m in took(box)], [b"Subject: x\r\n\r\n.\r\n..\r\nhello\r\n", b"x\r\n"])


def test_pipelined_chunks_of_two_mails():
    mail = r"""
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C! BDAT 2\r\nMABDAT 6 LAST\r\nQUIT\r\n
    """
    reply = "S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250 2.0.0 2 octets\nS: 250 2.0.0 queued\n"
    box = talk(HELLO + mail + mail + reply + reply)
    eq([m[2] for m in took(box)], [b"MAQUIT\r\n"] * 2)


def test_the_last_chunk_may_be_empty():
    box = talk(HELLO + MAIL + r"""
        C! BDAT 3\r\nx\r\n
        S: 250 2.0.0 3 octets
        C: BDAT 0 LAST
        S: 250 2.0.0 queued
    """)  # fmt: skip
    eq(box.mails[0][1], b"x\r\n")


def test_chunks_that_nobody_asked_for_are_skipped_and_refused():
    box = talk(
        HELLO
        + r"""
        C! BDAT 6\r\nQUIT\r\n
        S: 503 5.5.1 say MAIL first
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: RCPT TO:<unknown@example.net>
        S: 550 5.1.1 no such user
        C! BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n
        S: 554 5.5.1 no valid recipients
        S: 554 5.5.1 no valid recipients
    """
        + DATA
        + HELLO_MAIL
    )
    eq(took(box), ONE)


def test_a_mail_of_which_one_chunk_failed_is_not_taken_in_part():
    for where in ("open", "write"):

        class Once(Box):
            def check(self, here, where=where):
                if self.fail == where == here:
                    self.fail = ""
                    raise self.error

        for cut in CUTS:
            box = Once(where)
            p = Player(*session(box), cut)
            p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
            p.said()
            p.feed(b"BDAT 3\r\none")
            p.feed(b"BDAT 3\r\ntwoBDAT 5 LAST\r\nthree")
            codes = [x[:4] for x in p.said().split(b"\r\n")]
            eq((where, cut, codes), (where, cut, [b"452 ", b"503 ", b"503 ", b""]))
            eq((box.mails, box.aborted), ([], box.opened))
            p.feed(b"MAIL FROM:<a@b>\r\n")
            eq(p.said(), b"250 2.1.0 ok\r\n")


def test_between_two_chunks_nothing_else_belongs():
    box = talk(
        HELLO
        + MAIL
        + r"""
        C! BDAT 3\r\none
        S: 250 2.0.0 3 octets
        C: DATA
        S: 503 5.5.1 BDAT goes on with BDAT
        C: MAIL FROM:<a@example.com>
        S: 503 5.5.1 one mail at a time
        C: RSET
        S: 250 2.0.0 ok
        C! BDAT 3 LAST\r\ntwo
        S: 503 5.5.1 say MAIL first
    """
        + DATA
        + HELLO_MAIL
    )
    eq((took(box), box.aborted), (ONE, 1))


def test_a_malformed_bdat_ends_the_session():
    # Where the next command begins is anybody's guess, and to guess is to let mail become commands.
    for arg in ("", " ", " x", " -1", " 3 FIRST", " 3 LAST x", " 99999999999", " +3", " 3.0"):
        box = talk(HELLO + MAIL + "C: BDAT" + arg + "\nC: MAIL FROM:<evil@b>\nS: 501 5.5.4 ...\n-- END --")
        eq(box.opened, 0)


def test_chunks_that_grow_too_big_are_refused():
    for cut in CUTS:
        box = Box()
        p = Player(*session(box, max_size=100), cut)
        p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        p.said()
        p.feed(b"BDAT 100\r\n" + b"x" * 100)
        eq(p.said(), b"250 2.0.0 100 octets\r\n")
        p.feed(b"BDAT 5000 LAST\r\n" + b"x" * 5000)
        eq((p.said(), box.mails, box.aborted), (b"552 5.3.4 the limit is 100 octets\r\n", [], 1))


def test_a_client_that_leaves_between_chunks_leaves_nothing():
    start = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\nfirstBDAT 4 LAST\r\nlas"
    for n in range(len(start) + 1):
        for error in (EOFError(), OSError(errno.ECONNRESET), OSError(errno.ETIMEDOUT)):
            box = Box()
            p = Player(*session(box))
            p.feed(start[:n])
            p.throw(error)
            assert p.ended
            eq((n, box.mails, box.aborted), (n, [], box.opened))


# -- options of a listener


def test_a_listener_may_refuse_a_mail_with_a_lone_cr_or_lf():
    for lone in (b"a\nb", b"a\rb", b"a\n.\r\nb", b"a\r\r\nb"):
        for how in ("DATA", "BDAT"):
            for cut in CUTS:
                box = Box()
                listener = Listener("mx.example.com", box, NETWORKS)
                listener.bare = "refuse"
                wire = Wire(bytearray(512))
                p = Player(Session(wire, LAN, listener).run(), wire, cut)
                p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
                if how == "DATA":
                    p.feed(b"DATA\r\n" + lone + b"\r\n.\r\n")
                else:
                    p.feed(b"BDAT %d LAST\r\n" % len(lone) + lone)
                assert b"554 5.6.0 " in p.said(), (lone, how, cut)
                eq((box.mails, box.aborted), ([], 1))
                p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nfine\r\n.\r\n")
                eq((lone, how, cut, len(box.mails)), (lone, how, cut, 1))


def test_a_lone_cr_or_lf_in_chunks_is_mended():
    for lone, good in ((b"a\nb\r\n", b"a\r\nb\r\n"), (b"a\rb\r", b"ab"), (b"\n\n", b"\r\n\r\n")):
        for cut in CUTS:
            for split in range(len(lone)):
                box = Box()
                p = Player(*session(box), cut)
                p.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
                p.feed(b"BDAT %d\r\n" % split + lone[:split])
                p.feed(b"BDAT %d LAST\r\n" % (len(lone) - split) + lone[split:])
                eq((lone, cut, split, box.mails[0][1]), (lone, cut, split, good))


def early(delay=50):
    box = Box()
    listener = Listener("mx.example.com", box, NETWORKS)
    listener.greet_delay = delay
    wire = Wire(bytearray(512))
    return Player(Session(wire, LAN, listener).run(), wire)


def test_who_talks_before_the_greeting_is_turned_away():
    p = early()
    p.feed(b"EHLO x\r\nMAIL FROM:<a@b>\r\n")
    assert p.ended
    eq(p.said(), b"554 5.5.1 wait for the greeting\r\n")
    p = early()
    p.throw(OSError(errno.ETIMEDOUT, "timed out"))
    eq(p.said(), b"220 mx.example.com ESMTP\r\n")
    p.feed(b"NOOP\r\n")
    eq(p.said(), b"250 2.0.0 ok\r\n")


def test_a_listener_with_a_wrong_network_is_refused():
    raises(ValueError, Listener, "x", Box(), ["10.0.0.0/99"])
