"""firmware/told.py, limits.py and fetch.py: what a board may be told by mail, and by whom."""

import asyncio
import os

import dmarc
import fetch
import gateway
import limits
import told
from expect import eq, raises
from play import CUTS, Flash, play
from smtp.queue import Queue
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.slots import Slots
from smtp.stream import Wire
from test_relay import Clock

BOSS = "boss@example.com"


class Rule:
    """As much of a sensors.Rule as orders see."""

    fault = None
    value = -18.0
    words = None

    class over:
        raised = None

    def __init__(self, name="Freezer 1", **bounds):
        self.name = name
        self.rule = bounds
        self.limits = dict(bounds)


class Relay:
    name = "b7.example"


class Board:
    """A gateway with a queue and two sensors, that fetches its mail: `with Board() as board`."""

    def __init__(self, senders=(BOSS,), forward=""):
        self.senders = senders
        self.forward = forward

    def __enter__(self):
        self.flash = Flash()
        path = self.flash.__enter__()
        limits.PATH = path + "/limits.json"
        self.clock = Clock()
        self.said = []
        self.old = gateway.queue, gateway.time, list(gateway.rules), gateway.log, dict(gateway._mail)
        gateway.queue = self.queue = Queue(path + "/spool", uptime=self.clock.uptime)
        gateway.time = self.clock
        gateway.rules[:] = self.rules = [Rule(above=-15, below=-30), Rule("door", above=0.5)]
        self.rules[1].words = ["shut", "open"]
        gateway.log = lambda area, text, urgent=False: self.said.append(text)
        gateway._mail.update({"from": "cold@b7.example", "admin": "admin@example.com", "domain": "b7.example"})
        self.box = fetch.Letterbox(["b7.example"], self.forward, gateway.Intake(100000))
        if self.senders:
            self.box.told = told.Told(self.senders, "cold-store", Relay)
        return self

    def __exit__(self, *error):
        gateway.queue, gateway.time, gateway.rules[:], gateway.log, mail = self.old
        gateway._mail.clear()
        gateway._mail.update(mail)
        limits.PATH = "/limits.json"
        self.flash.__exit__()

    def talk(self, text, cut=None):
        wire = Wire(bytearray(2048))
        session = Session(wire, "192.0.2.1", Listener("b7.example", self.box))
        session.user = "board7"
        return play(session.run(), wire, "S: 220 b7.example ESMTP\nC: HELO mx\nS: 250 b7.example\n" + text, cut)

    def tell(self, subject, to="board@b7.example", sender=BOSS, answer="S: 250 2.0.0 done", more="", **fields):
        self.talk("""
            C: MAIL FROM:<%s>
            S: 250 2.1.0 ok
            C: RCPT TO:<%s>
            S: 250 2.1.5 ok
            C: DATA
            S: 354 end with a dot on a line of its own
            C: From: %s
            C: Subject: %s
            C: Message-ID: <1@example.com>
            %s
            C! \\r\\n
            C: the text
            C: .
            %s
        """ % (sender, to, fields.get("author", "The Boss <Boss@Example.com>"), subject, more, answer))

    def answer(self):
        """(recipients, mail as text) of the next mail in the queue, which leaves it; None when there is none."""
        mail = self.queue.take()
        if mail:
            buf = bytearray(4000)
            text = str(bytes(buf[: mail.read(buf)]), "utf-8")
            mail.close()
            self.queue.settle(mail.key, 1, 1, 0)
            return mail.meta["f"], mail.meta["r"], text


def test_status_is_answered_with_what_a_heartbeat_says():
    for subject, to in (("status", "x@b7.example"), ("Re: Status", "x@b7.example"), ("", "STATUS@b7.example")):
        with Board() as board:
            board.tell(subject, to)
            sender, rcpts, text = board.answer()
            eq((sender, rcpts), ("", [BOSS]))
            for word in ("Subject: cold-store: all is well", "Freezer 1: -18.0", "In-Reply-To: <1@example.com>",
                         "Auto-Submitted: auto-replied\r\n", "References: <1@example.com>",
                         "X-Auto-Response-Suppress: All", "From: cold@b7.example"):
                assert word in text, (word, text)


def test_a_limit_is_set_and_outlives_a_restart_until_the_configuration_changes():
    with Board() as board:
        board.tell("set limit freezer 1 above -12.5")
        assert "above is -12.5 now, it was -15" in board.answer()[2]
        eq(board.rules[0].limits, {"above": -12.5, "below": -30})
        again = Rule(above=-15, below=-30)
        limits.restore([again])
        eq(again.limits, {"above": -12.5, "below": -30})
        board.tell("set limit Freezer 1 above -11")
        other = Rule(above=-15, below=-30), Rule(above=-20)
        limits.restore(other)
        eq([r.limits for r in other], [{"above": -11.0, "below": -30}, {"above": -20}])


def test_what_is_no_limit_is_answered_and_changes_nothing():
    with Board() as board:
        for order, why in (
            ("set limit cellar above 3", "no sensor cellar"),
            ("set limit door above 3", "no limit above"),
            ("set limit freezer 1 over 3", "no limit over"),
            ("set limit freezer 1 above warm", "no number"),
            ("set limit freezer 1 above nan", "no number"),
            ("set limit freezer 1 above 1e99", "no number"),
            ("set limit freezer 1 above -31", "wrong at any value"),
            ("set limit above 3", "Orders"),
            ("please", "Orders"),
            ("", "Orders"),
        ):
            board.box.told.helped = None
            board.tell(order)
            text = board.answer()[2]
            assert why in text, (order, text)
        eq(board.rules[0].limits, {"above": -15, "below": -30})
        assert not [name for name in os.listdir(board.flash.path if hasattr(board.flash, "path") else "/t")
                    if "limits" in name]


def test_a_machine_that_answers_our_answers_and_does_not_say_that_it_is_one_is_answered_once_an_hour():
    with Board() as board:
        said = []
        for _ in range(5):
            board.tell("Re: cold-store: all is well", answer="S: 250 2.0.0 " + ("dropped" if said else "done"))
            said.append(board.answer() is not None)
        eq(said, [True, False, False, False, False])
        assert "is no order: cold-store: all is well" in board.said[-1], board.said
        for order in ("help", "status", "set limit to 3"):
            board.tell(order)
            assert board.answer(), order
        board.clock.up += 3600
        board.tell("gone fishing")
        assert "Orders" in board.answer()[2]


def test_an_order_is_found_behind_all_the_fields_that_mail_from_far_has():
    far = "\n".join(["C: ARC-Seal: i=%d; a=rsa-sha256;\nC! \\t%s\\r\\n" % (n, "x" * 900) for n in range(12)])
    for more, obeyed in (("", True), ("C: From: boss@example.com", False), ("C: List-Id: <all.example.com>", False)):
        with Board() as board:
            board.tell("x\n%s\nC: %s" % (far, more[3:] or "X-Last: 1"), "status@b7.example", answer="S: 250 2.0.0 done"
                       if obeyed else "S: 550 5.7.1 the From of this mail is nobody who may give orders"
                       if "From" in more else "S: 250 2.0.0 dropped")
            eq(bool(board.answer()), obeyed)
    # In pieces of any size, and with a field that is too long, it is the same.
    mail = b"FROM: The Boss\r\n <boss@example.com>\r\nSubject: %s\r\nX: y\r\n\r\nFrom: x\r\n" % (b"status " * 400)
    for size in (1, 2, 3, 7, 100, 2000, 5000):
        fields = told.Fields()
        for at in range(0, len(mail), size):
            fields.feed(mail[at : at + size])
        eq(fields.found["from"], "The Boss <boss@example.com>")
        assert fields.found["subject"][:20] == "status status status" and len(fields.found["subject"]) < 1001
        eq(sorted(fields.found), ["from", "subject"])
    # One without an end has no author.
    fields = told.Fields()
    for _ in range(70):
        fields.feed(b"From: boss@example.com\r\n" if not fields.found else b"X: %s\r\n" % (b"x" * 1000))
    eq(fields.found, {"from": None})


def test_a_file_of_limits_that_is_broken_is_none():
    with Board() as board:
        for text in ("", "{", "[]", "7"):
            with open(limits.PATH, "w") as f:
                f.write(text)
            limits.restore(board.rules)
        eq(board.rules[0].limits, {"above": -15, "below": -30})


def test_orders_come_from_named_senders_only():
    with Board() as board:
        board.talk("""
            C: MAIL FROM:<stranger@example.com>
            S: 250 2.1.0 ok
            C: RCPT TO:<status@b7.example>
            S: 550 5.1.1 nobody reads mail here
            C: RCPT TO:<x@elsewhere.example>
            S: 550 5.7.1 relaying denied
        """)  # fmt: skip
        for author in ("stranger@example.com", "Boss@Example.com, x@example.com", "", "boss"):
            board.tell("status", author=author,
                       answer="S: 550 5.7.1 the From of this mail is nobody who may give orders")
        board.tell("status", more="C: From: boss@example.com",
                   answer="S: 550 5.7.1 the From of this mail is nobody who may give orders")
        eq(board.answer(), None)
    with Board(senders=()) as board:
        board.talk("""
            C: MAIL FROM:<boss@example.com>
            S: 250 2.1.0 ok
            C: RCPT TO:<status@b7.example>
            S: 550 5.1.1 nobody reads mail here
        """)  # fmt: skip


def test_with_a_server_that_vouches_only_what_passed_dmarc_there_is_an_order():
    good = "Authentication-Results: mx.example.com; spf=fail smtp.mailfrom=x; dmarc=pass header.from=example.com"
    bad = good.replace("dmarc=pass", "dmarc=fail")
    no = "S: 550 5.7.1 mx.example.com does not say that this mail has passed DMARC"
    with Board() as board:
        board.box.told.verified_by = "mx.example.com"
        for fields, obeyed in (
            ([good], True),
            (["Authentication-Results: mx.other.example; dmarc=fail", good, bad], True),
            ([], False), ([bad], False), ([bad, good], False),
            ([good.replace("mx.example.com", "mx.other.example")], False),
        ):
            more = "\n".join(["C: " + field for field in fields] or ["C: X: y"])
            board.tell("status", more=more, answer="S: 250 2.0.0 done" if obeyed else no)
            eq(bool(board.answer()), obeyed)
        assert "does not vouch for the From of a mail from <boss@example.com>" in "\n".join(board.said), board.said


def test_what_a_stranger_may_write_into_authentication_results_is_not_taken_for_the_verdict():
    for value, wanted in (
        ("mx.example.com; dmarc=pass", True),
        ("MX.Example.com 1;\t spf=pass smtp.mailfrom=a@b; DMARC/1 = Pass (p=none) header.from=b", True),
        ("mx.example.com (x; y); dkim=fail (\"; dmarc=fail); dmarc=pass", True),
        ("mx.example.com; none", False),
        ("mx.example.com", False),
        ("", False),
        ("mx.example.com.evil.example; dmarc=pass", False),
        ("mx.example.com; dmarc=passed", False),
        ("mx.example.com; xdmarc=pass", False),
        ("mx.example.com; dmarc=fail; dmarc=pass", False),
        ('mx.example.com; spf=none smtp.mailfrom="; dmarc=pass "@b; dmarc=fail', False),
        ('mx.example.com; spf=none smtp.mailfrom="\\"; dmarc=pass "@b; dmarc=fail', False),
        ("mx.example.com; spf=none (a (b) ; dmarc=pass ) smtp.mailfrom=x; dmarc=none", False),
        ("mx.example.com; spf=none (\\) ; dmarc=pass ) smtp.mailfrom=x; dmarc=none", False),
        ('mx.example.com; spf=none (never closed; dmarc=pass', False),
    ):
        eq((value, dmarc.passed([value], "mx.example.com")), (value, wanted))
    eq(dmarc.passed([], "mx.example.com"), False)


# What comes from a provider after the roles have turned is a session like any other.


def turned(board, text, cut=None):
    """Plays what follows our greeting, as odmr.fetch() begins it; gives the Player."""
    wire = Wire(bytearray(2048))
    session = Session(wire, "192.0.2.1", Listener("b7.example", board.box))
    session.user = "board7"
    return play(session.run(), wire, "S: 220 b7.example ESMTP\n" + text, cut)


FETCHED = """
    C: EHLO mx.example.com
    S: 250-b7.example
    S: 250-PIPELINING
    S: 250-SIZE ...
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250 ENHANCEDSTATUSCODES
    C: MAIL FROM:<stranger@example.com>
    S: 250 2.1.0 ok
    C: RCPT TO:<x@b7.example>
    S: 250 2.1.5 ok
"""


def test_a_provider_may_not_do_after_the_turn_what_no_peer_may():
    for cut in CUTS:
        with Board(forward="ops@example.com") as board:
            turned(board, """
                C: MAIL FROM:<a@example.com>
                S: 503 5.5.1 say EHLO first
                C: ATRN b7.example
                S: 500 5.5.2 command not recognized
                C: ETRN b7.example
                S: 502 5.5.1 not implemented
                C: STARTTLS
                S: 502 5.5.1 no TLS here
                C: AUTH PLAIN AGEAYg==
                S: 503 5.5.1 not now
            """ + FETCHED + """
                C: RCPT TO:<x@example.com>
                S: 550 5.7.1 relaying denied
                C: RCPT TO:<x%example.com@b7.example>
                S: 250 2.1.5 ok
                C: RCPT TO:<@b7.example:x@example.com>
                S: 550 5.7.1 relaying denied
                C: RCPT TO:<"x@example.com"@elsewhere.example>
                S: 550 5.7.1 relaying denied
                C: NOOP
                S: 250 2.0.0 ok
                C: XYZZY
                S: 500 5.5.2 command not recognized
                C: XYZZY
                S: 500 5.5.2 command not recognized
                S: 421 4.7.0 too many errors, closing
                -- END --
            """, cut)  # fmt: skip
            eq(len(board.queue), 0)


def test_a_provider_that_is_slow_or_goes_away_after_the_turn_leaves_nothing_half_done():
    for end in ("-- TIMEOUT --\nS: 421 4.4.2 timed out, closing\n-- END --", "-- GONE --\n-- FAILS --"):
        with Board(forward="ops@example.com") as board:
            turned(board, FETCHED + """
                C: DATA
                S: 354 end with a dot on a line of its own
                C: Subject: half
            """ + end)  # fmt: skip
            again = Queue(board.queue.path, uptime=board.clock.uptime)
            eq((len(board.queue), len(again)), (0, 0))


async def test_a_provider_that_never_ends_the_session_gives_the_tls_slot_back():
    slots = Slots(1)

    class Sending:
        name, slots, resolve = "b7.example", None, None

    async def for_ever(*more):
        eq(slots.line, [])
        taken.append(slots.take("the relay"))
        await asyncio.sleep(3600)

    Sending.slots = slots
    taken = []
    with Board() as board:
        settings = {"every": 900, "domains": ["b7.example"], "forward": "", "senders": [], "host": "mx.example.com",
                    "port": 366, "username": "b7", "password": "x"}
        one = fetch.Fetch({"fetch": settings, "queue": {"max_message": 1000}, "board": {"name": "b7"}}, Sending)
        eq(one.box.told, None)
        settings.update({"every": 900, "domains": ["b7.example"], "forward": "", "senders": [BOSS],
                         "verified_by": "mx.example.com"})
        told_by = fetch.Fetch({"fetch": settings, "queue": {"max_message": 1000}, "board": {"name": "b7"}}, Sending)
        eq((told_by.box.told.senders, told_by.box.told.verified_by), ([BOSS], "mx.example.com"))
        real = fetch.fetch, fetch.LONGEST
        fetch.fetch, fetch.LONGEST = for_ever, 0.01
        try:
            eq(await one.turn(), False)
        finally:
            fetch.fetch, fetch.LONGEST = real
        eq(taken, [False])
        eq(slots.take("the relay"), True)
        assert "was ended after 0 s; what is left there is asked for again" in board.said[-1], board.said


def test_fetched_mail_is_in_flash_before_its_250_and_an_order_has_its_answer_there():
    with Board(forward="ops@example.com") as board:
        turned(board, FETCHED + """
            C: DATA
            S: 354 end with a dot on a line of its own
            C: Subject: whole
            C! \\r\\n
            C: .
            S: 250 2.0.0 queued as ...
        """)  # fmt: skip
        board.tell("status")
        # The power goes.
        board.queue = Queue(board.queue.path, uptime=board.clock.uptime)
        eq([board.answer()[1], board.answer()[1], board.answer()], [["ops@example.com"], [BOSS], None])
        board.tell("set limit freezer 1 above 3")
        again = Rule(above=-15, below=-30)
        limits.restore([again])
        eq(again.limits["above"], 3.0)


def test_fetched_mail_without_room_is_deferred():
    with Board(forward="ops@example.com") as board:
        board.queue.max_bytes = 1
        turned(board, FETCHED + """
            C: DATA
            S: 452 4.3.1 no room: 0 of 1 octets are taken
        """)  # fmt: skip
        turned(board, FETCHED.replace("<stranger@example.com>", "<stranger@example.com> SIZE=999999").replace(
            "S: 250 2.1.0 ok", "S: 552 5.3.4 the limit is ...").partition("C: RCPT")[0])  # fmt: skip


def test_automatic_mail_is_neither_obeyed_nor_answered():
    for field in ("Auto-Submitted: auto-replied", "auto-submitted: auto-generated; x=y", "Precedence: bulk",
                  "Auto-Submitted: no\nC: Auto-Submitted: auto-replied"):
        with Board() as board:
            board.tell("set limit freezer 1 above 0", more="C: " + field, answer="S: 250 2.0.0 dropped")
            eq((board.answer(), board.rules[0].limits["above"]), (None, -15))
    with Board() as board:
        board.tell("status", more="C: Auto-Submitted: no")
        assert board.answer()
        board.talk("""
            C: MAIL FROM:<>
            S: 250 2.1.0 ok
            C: RCPT TO:<status@b7.example>
            S: 550 5.1.1 nobody reads mail here
        """)  # fmt: skip


def test_an_order_is_accepted_only_when_its_answer_is_safe():
    with Board() as board:
        board.queue.max_bytes = 1
        board.tell("status", answer="S: 452 4.3.1 no room for the answer: 0 of 1 octets are taken")


def test_there_are_30_orders_an_hour():
    with Board() as board:
        for _ in range(30):
            board.box.told.open(None)
        eq(raises(SMTPError, board.box.told.open, None).code, 450)
        board.clock.up += 4000
        board.box.told.open(None)


def test_other_mail_goes_on_when_that_is_configured_and_postmasters_to_the_admin():
    for cut in CUTS:
        for forward, wanted in (("ops@example.com", "ops@example.com"), ("*", "x@b7.example")):
            with Board(forward=forward) as board:
                board.talk("""
                    C: MAIL FROM:<stranger@example.com>
                    S: 250 2.1.0 ok
                    C: RCPT TO:<x@B7.example>
                    S: 250 2.1.5 ok
                    C: RCPT TO:<postmaster>
                    S: 250 2.1.5 ok
                    C: RCPT TO:<x@B7.example>
                    S: 250 2.1.5 ok
                    C: DATA
                    S: 354 end with a dot on a line of its own
                    C: Subject: x
                    C! \\r\\n
                    C: .
                    S: 250 2.0.0 queued as ...
                """, cut)  # fmt: skip
                eq([r.lower() for r in board.answer()[1]], [wanted, "admin@example.com"])
