"""lib/smtp/client.py: what a session says and how it judges each recipient, as transcripts."""

import errno

from expect import eq, raises
from play import CUTS, Player, play
from smtp.client import Client, SessionError
from smtp.single import Mail
from smtp.stream import Wire

SLOW = {"SIZE": ""}
GROUPS = {"PIPELINING": "", "SIZE": ""}
CHUNKS = {"PIPELINING": "", "CHUNKING": "", "SIZE": ""}
MODES = (SLOW, GROUPS, CHUNKS, {"CHUNKING": ""})


class Source:
    """Gives jobs one after another, and remembers how many it was asked for."""

    def __init__(self, jobs):
        self.jobs = list(jobs)
        self.given = 0

    def next(self):
        if self.given < len(self.jobs):
            self.given += 1
            return self.jobs[self.given - 1]


def new(ext=None, size=2048):
    client = Client(Wire(bytearray(size)), "me.example.com")
    client.ext = dict(ext or {})
    return client


def start(text, security="none", fails=None, **more):
    """Plays the opening of a session for each cut; gives the client and what it failed with."""
    for cut in CUTS:
        client = new()
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(client.start(security, **more), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq((cut, player.error.reason), (cut, fails))
    return client, player.error


def mails(text, ext, *jobs, fails=False, window=None, buf=None):
    """Plays mails for each cut. jobs: functions that make one; gives the results of each."""
    for cut in CUTS:
        made = [make() for make in jobs]
        client = new(ext)
        if window:
            client.window = window
        if buf:
            client.buf = bytearray(buf)
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(client.mails(Source(made)), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq(player.error.reason, "lost")
    return [job.replies for job in made]


def one(rcpts=("b@example.net",), message=b"hello\r\n"):
    return lambda: Mail("a@example.com", rcpts, message)


THREE = ("a@x.example", "b@x.example", "c@x.example")
OK = (250, "2.0.0", "queued")

GREETING = """
    S: 220 mx.example.net ESMTP
    C: EHLO me.example.com
"""


# -- opening


def test_a_greeting_of_several_lines_is_a_greeting():
    client, _ = start("""
        S: 220-mx.example.net
        S: 220 no spam please
        C: EHLO me.example.com
        S: 250 mx.example.net
    """)
    eq(client.ext, {})


def test_extensions_are_read_in_any_case():
    client, _ = start(GREETING + """
        S: 250-mx.example.net greets you
        S: 250-pipelining
        S: 250-SIZE 1000
        S: 250-8BitMime
        S: 250-X-EMPTY{space}
        S: 250 AUTH PLAIN LOGIN
    """.replace("{space}", " "))  # fmt: skip
    eq(
        client.ext,
        {"PIPELINING": "", "SIZE": "1000", "8BITMIME": "", "X-EMPTY": "", "AUTH": "PLAIN LOGIN"},
    )


def test_line_feeds_alone_end_the_lines_of_an_odd_server():
    client, _ = start(r"""
        S! 220 mx\n
        C: EHLO me.example.com
        S! 250-mx\n250 SIZE 7\n
    """)
    eq(client.ext, {"SIZE": "7"})


def test_a_server_that_does_not_want_us_is_believed():
    for code in (421, 450, 554):
        _, error = start("S: %d go away" % code, fails="reply")
        assert str(code) in str(error) and "go away" in str(error), error
        eq(error.reply, (code, "", "go away"))


def test_helo_where_ehlo_is_refused():
    for code in (500, 502, 550):
        text = GREETING + "S: %d what?\nC: HELO me.example.com\nS: 250 mx.example.net" % code
        client, _ = start(text)
        eq(client.ext, {})


def test_no_helo_where_ehlo_is_deferred_and_none_where_it_is_refused_as_well():
    start(GREETING + "S: 451 later", fails="reply")
    start(GREETING + "S: 421 closing", fails="reply")
    start(GREETING + "S: 502 what?\nC: HELO me.example.com\nS: 550 no", fails="reply")


def test_starttls_that_is_not_offered_is_an_error():
    for hello in ("S: 250 mx", "S: 250-mx\nS: 250 AUTH PLAIN", "S: 502 what?\nC: HELO me.example.com\nS: 250 mx"):
        _, error = start(GREETING + hello, "starttls", "starttls", user="u", password="p")
        assert "STARTTLS" in str(error), error


def test_starttls_that_is_refused_is_an_error():
    for code in (421, 454, 501):
        text = GREETING + "S: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: %d no" % code
        _, error = start(text, "starttls", "starttls", user="u", password="p")
        eq(error.reply[0], code)


TLS = GREETING + """
    S: 250-mx
    S: 250-AUTH LOGIN
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 go
    -- TLS --
    C: EHLO me.example.com
"""  # fmt: skip


def test_after_starttls_only_what_is_said_under_tls_counts():
    client, _ = start(TLS + "S: 250-mx\nS: 250 SIZE 1", "starttls", tls=("context", "mx"))
    eq((client.ext, client.io.context), ({"SIZE": "1"}, ("context", "mx")))


def test_replies_injected_behind_starttls_are_thrown_away():
    text = TLS.replace("S: 220 go\n", "S: 220 go\n    S: 250-evil\n    S: 250 AUTH PLAIN\n")
    assert "evil" in text
    client, _ = start(text + "S: 250-mx\nS: 250 SIZE 1", "starttls")
    eq(client.ext, {"SIZE": "1"})


def test_a_handshake_that_fails_says_why():
    for error, reason in (
        (ValueError("certificate has expired"), "tls expired"),
        (OSError(errno.ECONNRESET), "tls gone"),
        (EOFError(), "tls gone"),
        (OSError(errno.ENOMEM), "tls memory"),
        (ValueError("something else"), "tls"),
    ):
        client = new()
        p = Player(client.start("starttls"), client.io)
        p.feed(b"220 mx\r\n")
        p.feed(b"250-mx\r\n250 STARTTLS\r\n")
        p.feed(b"220 go\r\n")
        client.io.shaking = True
        p.throw(error)
        eq((error, p.error.reason), (error, reason))


AUTH = GREETING + "S: 250-mx\nS: 250 AUTH %s\n"
PLAIN = "AHVzZXIAc2VjcmV0"  # \0user\0secret
USER = {"user": "user", "password": "secret"}


def test_auth_that_is_not_offered_is_an_error():
    _, error = start(GREETING + "S: 250 mx", fails="auth-missing", **USER)
    _, error = start(AUTH % "GSSAPI NTLM", fails="auth-missing", **USER)
    assert "GSSAPI NTLM" in str(error), error
    start(AUTH % "LOGIN", fails="auth-missing", auth="PLAIN", **USER)


def test_auth_plain():
    start(AUTH % "LOGIN PLAIN" + "C: AUTH PLAIN " + PLAIN + "\nS: 235 2.7.0 ok", **USER)


def test_auth_that_is_offered_in_the_old_form():
    start(GREETING + "S: 250-mx\nS: 250 AUTH=LOGIN PLAIN\nC: AUTH PLAIN " + PLAIN + "\nS: 235 ok", **USER)
    client, _ = start(GREETING + "S: 250-mx\nS: 250-AUTH=LOGIN\nS: 250 AUTH LOGIN GSSAPI")
    eq(client.ext["AUTH"].split(), ["LOGIN", "LOGIN", "GSSAPI"])


LOGIN = """
    C: AUTH LOGIN
    S: 334 VXNlcm5hbWU6
    C: dXNlcg==
    S: 334 UGFzc3dvcmQ6
    C: c2VjcmV0
"""


def test_auth_login():
    start(AUTH % "LOGIN" + LOGIN + "S: 235 ok", **USER)
    start(AUTH % "PLAIN LOGIN" + LOGIN + "S: 235 ok", auth="LOGIN", **USER)


def test_a_refused_password_is_an_error_that_says_so():
    for code in (535, 454, 530, 501):
        text = AUTH % "PLAIN" + "C: AUTH PLAIN " + PLAIN + "\nS: %d 5.7.8 no" % code
        _, error = start(text, fails="auth", **USER)
        eq(error.reply, (code, "5.7.8" if code >= 500 else "", "no" if code >= 500 else "5.7.8 no"))
        assert "no" in str(error)


def test_a_server_that_asks_for_too_much_or_for_nonsense_is_told_to_stop():
    for nonsense in ("334 AAAA", "334 ???", "334"):
        plain = "C: AUTH PLAIN " + PLAIN + "\n"
        text = AUTH % "PLAIN" + plain + "S: %s\nC: *\nS: 501 cancelled" % nonsense
        start(text, fails="auth", **USER)
        start(text.replace("501 cancelled", "334 once more"), fails="auth", **USER)


def test_no_auth_without_a_user():
    start(AUTH % "PLAIN")


def test_a_connection_lost_while_it_opens():
    script = AUTH % "PLAIN" + "C: AUTH PLAIN " + PLAIN + "\nS: 235 ok"
    lines = [x.strip()[3:] for x in script.split("\n") if x.strip().startswith("S")]
    for n in range(len(lines)):
        for error in (EOFError("gone"), OSError(errno.ECONNRESET), OSError(errno.ETIMEDOUT)):
            client = new()
            p = Player(client.start("none", **USER), client.io)
            for line in lines[:n]:
                p.feed(line.encode() + b"\r\n")
            p.throw(error)
            eq((n, error, p.error.reason), (n, error, "lost"))


def test_an_answer_that_makes_no_sense_while_it_opens():
    for bad in (b"hello\r\n", b"\xff\xfe\r\n", b"2200 x\r\n", b"220-x\r\n250 y\r\n", b"199 x\r\n", b"\r\n"):
        client = new()
        p = Player(client.start("none"), client.io)
        p.feed(bad)
        eq((bad, p.error.reason), (bad, "reply"))
    client = new(size=512)
    p = Player(client.start("none"), client.io)
    p.feed(b"220 " + b"x" * 5000)
    p.feed(b"\r\n")
    eq(p.error.reason, "reply")


def test_a_reply_without_end_is_not_read_for_ever():
    client = new()
    p = Player(client.start("none"), client.io)
    fed = 0
    while not p.ended:
        p.feed(b"220-more\r\n" * 50)
        fed += 50
        assert fed <= 1000, "it reads for ever"
    eq(p.error.reason, "reply")


# -- one mail in each mode


def test_without_extensions_each_command_waits():
    text = """
        C: MAIL FROM:<a@example.com>
        S: 250 ok
        C: RCPT TO:<b@example.net>
        S: 250 ok
        C: DATA
        S: 354 go
        C: hello
        C: .
        S: 250 2.0.0 queued
    """
    eq(mails(text, {}, one()), [[OK]])


def test_size_is_told_where_it_is_understood():
    text = "C: MAIL FROM:<a@example.com> SIZE=7\nS: 550 no"
    eq(mails(text, {"SIZE": "1000"}, one()), [[(550, "", "no")]])


def test_with_pipelining_only_data_waits():
    text = """
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 2.0.0 queued
    """
    eq(mails(text, {"PIPELINING": ""}, one()), [[OK]])


def test_with_chunking_nothing_waits():
    mail = "C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.net>\nC: BDAT 7 LAST\nC: hello\n"
    reply = "S: 250 ok\nS: 250 ok\nS: 250 2.0.0 queued\n"
    both = {"PIPELINING": "", "CHUNKING": ""}
    eq(mails(mail + reply, both, one()), [[OK]])
    eq(mails(mail * 3 + reply * 3, both, one(), one(), one()), [[OK]] * 3)


def test_with_chunking_but_no_pipelining_each_command_waits():
    text = """
        C: MAIL FROM:<a@example.com>
        S: 250 ok
        C: RCPT TO:<b@example.net>
        S: 250 ok
        C: BDAT 7 LAST
        C: hello
        S: 250 2.0.0 queued
    """
    eq(mails(text, {"CHUNKING": ""}, one()), [[OK]])


def test_two_mails_in_one_session():
    text = """
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        C: MAIL FROM:<a@example.com>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 2.0.0 queued
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 452 4.3.1 full
    """
    eq(mails(text, {"PIPELINING": ""}, one(), one()), [[OK], [(452, "4.3.1", "full")]])


# -- a server that answers by a script, in every mode


class Script:
    """A server for a client's session: answers command after command, as many as have come.

    answers: {verb: reply or list of replies, the last one for all that follow}; bodies get the reply for "END".
    """

    def __init__(self, client, jobs, answers=None):
        self.client = client
        self.jobs = jobs
        self.source = Source(jobs)
        self.answers = {"DATA": "354 go", "END": "250 2.0.0 queued"}
        self.answers.update(answers or {})
        self.player = Player(client.mails(self.source), client.io)
        self.data = b""
        self.bodies = []
        self.body = None  # the mail in DATA or BDAT
        self.left = 0
        self.verbs = []
        self.replies = []

    def answer(self, verb):
        reply = self.answers.get(verb, "250 ok")
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        self.verbs.append(verb)
        self.replies.append(reply)
        return reply

    def listen(self):
        """Takes what the client has said; gives the replies to it."""
        self.data += self.player.said()
        out = []
        while True:
            if self.left:
                n = min(self.left, len(self.data))
                self.body += self.data[:n]
                self.data = self.data[n:]
                self.left -= n
                if self.left:
                    return out
                if self.last:
                    self.bodies.append(self.body)
                    self.body = None
                out.append(self.answer("END" if self.last else "BDAT"))
                continue
            if self.body is not None and not self.chunks:
                end = (b"\r\n" + self.data).find(b"\r\n.\r\n")
                if end < 0:
                    return out
                body = self.data[:end]
                self.data = self.data[end + 3 :]
                self.bodies.append((b"\r\n" + body).replace(b"\r\n.", b"\r\n")[2:])
                self.body = None
                out.append(self.answer("END"))
                continue
            end = self.data.find(b"\r\n")
            if end < 0:
                return out
            line = str(self.data[:end], "utf-8")
            self.data = self.data[end + 2 :]
            verb = line.split(" ")[0]
            if verb == "BDAT":
                words = line.split(" ")
                self.left = int(words[1])
                self.last = len(words) > 2
                self.chunks = True
                self.body = self.body or b""
                if not self.left:
                    if self.last:
                        self.bodies.append(self.body)
                        self.body = None
                    out.append(self.answer("END" if self.last else "BDAT"))
                continue
            reply = self.answer(verb)
            if verb == "DATA" and reply[:3] == "354":
                self.chunks = False
                self.body = b""
            out.append(reply)

    def run(self, most=10000):
        """Answers until the session ends or `most` replies were given; gives the results of each job."""
        while not self.player.ended and most > 0:
            replies = self.listen()
            assert replies or self.player.ended, "both wait: %r" % self.data
            for reply in replies:
                if most > 0 and not self.player.ended:
                    self.player.feed(reply.encode() + b"\r\n")
                    most -= 1
        return [getattr(job, "replies", None) for job in self.jobs]


def codes(results):
    return [r and [x and x[0] for x in r] for r in results]


def test_each_recipient_gets_the_reply_that_is_his():
    for ext in MODES:
        for replies, verdict in (
            (["250 ok", "450 4.2.0 busy", "550 5.1.1 unknown"], [250, 450, 550]),
            (["550 5.1.1 unknown", "250 ok", "450 4.2.0 busy"], [550, 250, 450]),
            (["450 4.2.0 busy", "550 5.1.1 unknown", "251 will forward"], [450, 550, 250]),
            (["250 ok", "252 well", "251 will forward"], [250, 250, 250]),
        ):
            client = new(ext)
            script = Script(client, [one(THREE)(), one(THREE)()], {"RCPT": list(replies) + list(replies)})
            results = script.run()
            eq((ext, codes(results)), (ext, [verdict, verdict]))
            eq(script.bodies, [b"hello\r\n"] * 2)
            eq(script.player.error, None)


def test_a_recipient_who_was_taken_gets_the_reply_to_the_mail():
    for ext in MODES:
        for code in (250, 452, 554):
            answers = {"RCPT": ["250 ok", "550 5.1.1 unknown", "250 ok"], "END": "%d told" % code}
            results = Script(new(ext), [one(THREE)()], answers).run()
            eq((ext, results), (ext, [[(code, "", "told"), (550, "5.1.1", "unknown"), (code, "", "told")]]))


def test_a_refused_sender_is_the_verdict_for_every_recipient():
    for ext in MODES:
        for code in (451, 550):
            no = ["%d 5.7.1 not you" % code, "250 ok"]
            answers = {"MAIL": no, "RCPT": ["503 5.5.1 MAIL first"], "DATA": ["503 no"], "END": ["503 no"]}
            if ext is SLOW or ext == {"CHUNKING": ""}:
                answers = {"MAIL": no}
            script = Script(new(ext), [one(THREE)()], answers)
            eq((ext, codes(script.run())), (ext, [[code] * 3]))
            eq((ext, "RSET" in script.verbs), (ext, False))
            eq(script.player.error, None)


def test_a_mail_whose_recipients_were_all_refused_is_not_sent_and_the_next_is():
    for ext in MODES:
        answers = {
            "RCPT": ["550 5.1.1 a", "450 4.1.1 b", "550 5.1.1 c", "250 ok"],
            "DATA": ["554 5.5.1 no valid recipients", "354 go"],
            "END": ["554 5.5.1 no valid recipients", "250 2.0.0 queued"],
        }
        if ext is not CHUNKS:
            answers["END"].pop(0)
            if ext is not GROUPS:
                answers["DATA"].pop(0)
        script = Script(new(ext), [one(THREE)(), one()()], answers)
        eq((ext, codes(script.run())), (ext, [[550, 450, 550], [250]]))
        # A transaction that stays open would have the next MAIL refused with 503.
        eq((ext, "RSET" in script.verbs), (ext, ext is not CHUNKS))


def test_a_server_that_wants_a_mail_for_nobody_gets_an_empty_one():
    answers = {"RCPT": "550 5.1.1 no", "END": "554 5.5.1 no recipients"}
    script = Script(new(GROUPS), [one(THREE)()], answers)
    eq(codes(script.run()), [[550] * 3])
    eq(script.bodies, [b""])


def test_refused_data_is_the_verdict_and_clears_the_transaction():
    for ext in (SLOW, GROUPS):
        for code in (451, 554):
            answers = {"DATA": ["%d no" % code, "354 go"], "RCPT": ["250 ok", "550 5.1.1 no", "250 ok"]}
            script = Script(new(ext), [one(THREE)(), one()()], answers)
            eq((ext, codes(script.run())), (ext, [[code, 550, code], [250]]))
            assert script.verbs.index("RSET") < len(script.verbs) - 1 - script.verbs[::-1].index("MAIL")


def test_a_refused_chunk_is_the_verdict_even_when_the_last_one_is_taken():
    pieces = lambda: Mail("a@example.com", THREE, iter([b"x" * 100] * 40))  # noqa: E731
    for replies in (["552 5.3.4 too big", "250 ok"], ["250 ok", "452 4.3.1 full", "250 ok"]):
        wanted = int([r for r in replies if r[0] != "2"][0][:3])
        for last in ("503 5.5.1 no", "250 2.0.0 queued"):
            script = Script(new(CHUNKS), [pieces()], {"BDAT": list(replies), "END": last})
            eq(codes(script.run()), [[wanted] * 3])


def test_the_session_ends_with_421_at_any_reply():
    for ext in MODES:
        total = len(scripted(ext).replies)
        for n in range(total):
            script = scripted(ext, n)
            before = [job.replies for job in script.jobs]
            script.player.feed(b"421 4.3.2 closing\r\n")
            judge(ext, n, script, before)
            eq(script.player.error.reply, (421, "4.3.2", "closing"))


def test_the_connection_is_lost_at_any_reply():
    for ext in MODES:
        total = len(scripted(ext).replies)
        for n in range(total):
            for error in (EOFError("gone"), OSError(errno.ECONNRESET), OSError(errno.ETIMEDOUT)):
                script = scripted(ext, n)
                before = [job.replies for job in script.jobs]
                script.player.throw(error)
                if not script.player.ended:  # what has arrived may still be read
                    script.player.throw(EOFError())
                judge(ext, n, script, before)


def test_a_reply_that_makes_no_sense_ends_the_session():
    for ext in MODES:
        total = len(scripted(ext).replies)
        for n in range(total):
            for bad in (b"hello", b"\x00\xff", b"25 x", b"250-a\r\n251 b", b"600 x", b"220 x", b"334 x"):
                script = scripted(ext, n)
                before = [job.replies for job in script.jobs]
                script.player.feed(bad + b"\r\n")
                judge(ext, n, script, before)


def scripted(ext, most=10000):
    """Two mails to three recipients; one recipient is refused for good, one for now."""
    answers = {"RCPT": ["550 5.1.1 a", "250 b", "450 4.2.0 c", "250 a", "250 b", "250 c"]}
    script = Script(new(ext), [one(THREE)(), one(THREE)()], answers)
    script.run(most)
    return script


def judge(ext, n, script, before):
    """After a break: who was refused for good stays so, who was served stays so, all others are undecided."""
    eq((ext, n, script.player.ended), (ext, n, True))
    error = script.player.error
    assert isinstance(error, SessionError) and error.reason == "lost", (ext, n, error)
    answered = script.verbs[: n]
    refused = [550] if "RCPT" in answered else [None]
    for i, job in enumerate(script.jobs):
        if i >= script.source.given:
            eq((ext, n, i, job.replies), (ext, n, i, None))  # never begun
            continue
        got = codes([job.replies])[0]
        if before[i]:
            eq((ext, n, i, got), (ext, n, i, [[550, 250, 450], [250] * 3][i]))
        elif i == 0:
            eq((ext, n, i, got), (ext, n, i, refused + [None, None]))
        else:
            eq((ext, n, i, got), (ext, n, i, [None] * 3))


def test_each_mail_that_was_taken_from_the_source_gets_its_verdict_once():
    class Counting(Mail):
        times = 0

        def done(self, results):
            self.times += 1
            Mail.done(self, results)

    for ext in MODES:
        for how in ("all", "closed", "lost", "memory"):
            for n in range(14):
                jobs = [Counting("a@b.example", THREE, b"x\r\n") for _ in range(3)]
                script = Script(new(ext), jobs)
                script.run(n if how != "all" else 10000)
                if not script.player.ended:
                    if how == "closed":
                        script.player.close()  # as a cancelled task does
                    else:
                        script.player.throw(MemoryError() if how == "memory" else EOFError())
                given = script.source.given
                eq((ext, how, n, [j.times for j in jobs]), (ext, how, n, [1] * given + [0] * (3 - given)))


def test_the_wrong_kind_of_reply_ends_the_session():
    for ext in MODES:
        data = "END" if "CHUNKING" in ext else "DATA"
        for verb, reply in (("MAIL", "354 go"), ("RCPT", "354 go"), (data, "250 ok"), ("END", "354 go")):
            if data == "END" and verb == "END" and reply == "250 ok":
                continue
            script = Script(new(ext), [one(THREE)()], {verb: reply})
            results = script.run()
            eq((ext, verb, codes(results)), (ext, verb, [[None] * 3]))
            eq((ext, verb, script.player.error.reason), (ext, verb, "lost"))


def test_no_more_than_the_window_is_in_flight():
    for window in (1, 2, 5):
        client = new(CHUNKS)
        client.window = window
        script = Script(client, [one()() for _ in range(12)])
        replies = script.listen()
        eq((window, script.verbs.count("MAIL")), (window, window))
        sent = window
        while not script.player.ended:
            for reply in replies:
                script.player.feed(reply.encode() + b"\r\n")
            replies = script.listen()
            done = len([j for j in script.jobs if j.replies])
            sent = script.verbs.count("END")
            assert sent - done <= window, (sent, done)
        eq(len(script.bodies), 12)


def test_no_more_than_the_octets_of_the_window_are_in_flight():
    client = new(CHUNKS)
    client.window_bytes = 2500
    script = Script(client, [one(message=b"x" * 998 + b"\r\n")() for _ in range(6)])
    script.listen()
    eq(script.verbs.count("END"), 2)
    for reply in list(script.replies):
        script.player.feed(reply.encode() + b"\r\n")
    eq(codes(script.run()), [[250]] * 6)


def test_a_mail_larger_than_the_window_is_sent_once_somebody_takes_it():
    client = new(CHUNKS)
    client.window_bytes = 2500
    big = one(message=b"x" * 4998 + b"\r\n")
    script = Script(client, [one()(), big(), one()()])
    replies = script.listen()
    eq(script.verbs, ["MAIL", "RCPT", "END"])  # one mail at a time beside a big one
    for reply in replies:
        script.player.feed(reply.encode() + b"\r\n")
    script.listen()
    eq(script.verbs[3:], ["MAIL", "RCPT"])
    for reply in script.replies[3:]:
        script.player.feed(reply.encode() + b"\r\n")
    eq(codes(script.run()), [[250]] * 3)
    eq([len(b) for b in script.bodies], [7, 5000, 7])


def test_replies_that_nobody_reads_stay_few():
    # More than the buffers between client and server hold, and both would wait for each other.
    def most(script):
        unread = 0
        while not script.player.ended:
            replies = script.listen()
            unread = max(unread, len(replies))
            for reply in replies:
                script.player.feed(reply.encode() + b"\r\n")
        return unread

    endless = Mail("a@example.com", ["b@example.net"], iter([b"x" * 62 + b"\r\n"] * 400))
    client = new(CHUNKS)
    client.buf = bytearray(64)
    script = Script(client, [endless])
    assert most(script) <= 110
    eq((len(script.bodies[0]), codes([endless.replies])), (25600, [[250]]))
    many = [one(["r%d@example.net" % i for i in range(100)]) for _ in range(5)]
    script = Script(new(CHUNKS), [make() for make in many])
    assert most(script) <= 110
    eq(codes([j.replies for j in script.jobs]), [[250] * 100] * 5)


def test_a_mail_that_the_server_has_no_room_for_is_not_sent():
    for size, sent in (("6", 0), ("7", 1), ("0", 1), ("", 1), ("many", 1)):
        for ext in MODES:
            ext = dict(ext)
            ext["SIZE"] = size
            script = Script(new(ext), [one(THREE)()])
            results = script.run()
            eq((size, script.verbs.count("MAIL")), (size, sent))
            eq((size, codes(results)), (size, [[250 if sent else 552] * 3]))


def test_8_bit_mail_is_not_sent_to_a_server_that_does_not_take_it():
    for ext, sent in ((CHUNKS, 0), ({"PIPELINING": "", "8BITMIME": ""}, 1)):
        mail = one()()
        mail.body = "8BITMIME"
        script = Script(new(ext), [mail])
        script.listen()
        eq(script.verbs.count("MAIL"), sent)


def test_a_server_that_says_nothing_more_after_an_error_in_sending():
    # The server refused a big mail in its middle and closed: its reply has arrived, though sending failed.
    client = new(CHUNKS)
    script = Script(client, [one()()])
    script.listen()
    script.player.throw(OSError(errno.ECONNRESET))
    script.player.feed(b"250 ok\r\n250 ok\r\n552 5.3.4 too big\r\n")
    eq(script.player.error.reason, "lost") if script.player.ended else script.player.throw(EOFError())
    eq(script.jobs[0].replies, [(552, "5.3.4", "too big")])


# -- the mail itself


def test_dots_are_stuffed_wherever_the_buffer_ends():
    for mail in (
        b".", b"..", b".\r\n", b".\r\n.\r\n", b"a\r\n.b\r\n..c\r\n.\r\n", b"\r\n.\r\n.", b"x.\r\n.x\r\n",
        b"abc\r\n.def\r\n\r\n.\r\n", b"\r\n\r\n\r\n.", b"ab.\r\n", b"", b"x", b"12345678\r\n.\r\n",
    ):  # fmt: skip
        wanted = (b"\r\n" + mail).replace(b"\r\n.", b"\r\n..")[2:]
        wanted += b".\r\n" if not mail or mail.endswith(b"\r\n") else b"\r\n.\r\n"
        for size in (1, 2, 3, 4, 5, 6, 7, 8, 9, 1024):
            client = new({})
            client.buf = bytearray(size)
            p = Player(client.mails(Mail("a@b.example", ["c@d.example"], mail)), client.io)
            for reply in (b"250 ok\r\n", b"250 ok\r\n"):
                p.feed(reply)
            p.said()
            p.feed(b"354 go\r\n")
            eq((mail, size, p.said()), (mail, size, wanted))


def test_with_data_a_mail_is_ready_before_the_server_asks_for_it():
    for answer, wanted in ((b"250 ok\r\n", b"..x\r\n.\r\n"), (b"550 no\r\n", b".\r\n")):
        mail = Mail("a@b.example", ["c@d.example"], b".x\r\n")
        client = new(GROUPS)
        p = Player(client.mails(mail), client.io)
        eq(p.said().count(b"DATA"), 1)
        eq(mail.rest, 0)
        p.feed(b"250 ok\r\n" + answer)
        eq(p.said(), b"")
        p.feed(b"354 go\r\n")
        eq(p.said(), wanted)


def test_a_mail_arrives_the_same_in_every_mode_and_for_every_buffer():
    mail = b"Subject: x\r\n\r\n.dots\r\n..\r\n.\r\n" + b"long " * 300 + b"\r\n\r\n.\r\n"
    for ext in MODES:
        for size in (1, 2, 3, 7, 64, 1024):
            client = new(ext)
            client.buf = bytearray(size)
            script = Script(client, [one(message=mail)()])
            eq((ext, size, codes(script.run())), (ext, size, [[250]]))
            eq((ext, size, script.bodies), (ext, size, [mail]))


def test_line_ends_become_crlf_whatever_they_were():
    for message, wanted in (
        ("a\nb\n", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (bytearray(b"a\n\nb"), b"a\r\n\r\nb"),
        (b"a\r\r\n\nb", b"a\r\n\r\n\r\nb"),
        ([b"a\r", b"\nb\r", b"", b"\n", b"\nc"], b"a\r\nb\r\n\r\nc"),
        ([b"a", bytearray(b"\n"), memoryview(b"b\n")], b"a\r\nb\r\n"),
        (iter([]), b""),
        ("\u00e4\n", b"\xc3\xa4\r\n"),
    ):
        for size in (1, 2, 3, 100):
            mail = Mail("a@b.example", ["c@d.example"], list(message) if isinstance(message, list) else message)
            if size > 1 and not isinstance(message, (bytes, bytearray, str, list)):
                continue  # an iterator can be used once
            got = b""
            buf = bytearray(size)
            while True:
                n = mail.readinto(buf)
                if not n:
                    break
                got += buf[:n]
            eq((message, size, got), (message, size, wanted))
            eq(mail.rest, 0)


def test_a_lone_line_feed_cannot_end_the_mail_or_begin_a_command():
    for mail in (b"a\n.\nMAIL FROM:<evil@x>", b"a\r.\rQUIT", b"a\n.\r\nQUIT\n", b"a\r\n.\nQUIT"):
        client = new({})
        p = Player(client.mails(Mail("a@b.example", ["c@d.example"], mail)), client.io)
        p.feed(b"250 ok\r\n")
        p.feed(b"250 ok\r\n")
        p.said()
        p.feed(b"354 go\r\n")
        body = p.said()
        eq(body.count(b"\r\n.\r\n"), 1)
        eq((body.count(b"\r"), body.count(b"\n")), (body.count(b"\r\n"),) * 2)


def test_what_is_no_address_is_refused():
    for bad in (
        "a@b\r\nRCPT TO:<evil@x.example>", "a@b\n", "a@b\r", "a b@c.example", "a@b c", "<a@b.example>", "a@b>",
        "a@b.example> SIZE=1", "", "a", "a@b\0", "\u00e4@b.example\n", "\u00e4", "a@b\tc",
    ):  # fmt: skip
        raises(ValueError, Mail, "a@b.example", [bad], b"x")
        raises(ValueError, Mail, "a@b.example", ["c@d.example", bad], b"x")
        if bad:
            raises(ValueError, Mail, bad, ["c@d.example"], b"x")
    raises(ValueError, Mail, "a@b.example", [], b"x")
    Mail("", ["c@d.example"], b"x")  # the null reverse-path


def test_the_name_for_ehlo_cannot_hold_a_command():
    for bad in ("", "a\r\nMAIL FROM:<x@y>", "a\n", "a b", "\u00e4"):
        raises(ValueError, Client, Wire(bytearray(64)), bad)
    Client(Wire(bytearray(64)), "[IPv6:::1]")


def test_quit_does_not_insist_on_an_answer():
    for answer in (b"221 bye\r\n", b"garbage\r\n", None, OSError(errno.ETIMEDOUT), EOFError()):
        client = new()
        p = Player(client.quit(), client.io)
        eq(p.said(), b"QUIT\r\n")
        if isinstance(answer, bytes):
            p.feed(answer)
        elif answer:
            p.throw(answer)
        eq((p.ended, p.error), (answer is not None, None))
