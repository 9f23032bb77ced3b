"""A fault at every point of a client's session, and what becomes of each recipient: EXPECTED is the answer.

A cell of the matrix is a kind of session, a point in it and a fault. Two mails of two recipients each go from a real
queue through Relay and Client to `Peer`, a server without sockets that does its part right, but for that one fault.
Then the files of the queue say what was delivered, what is tried again and what has failed. Cells that break the
session are also played with a recipient who was refused before.

All of it runs on both interpreters; nothing is sampled. Not in the matrix, because no client can tell: a reply that
comes before its command while that command may be on its way already, and a 250 in the middle of a body that the client
reads only after the body's end. Each counts as an answer, in order.
"""

import errno
import os

from expect import eq
from play import Flash
from smtp.client import Client, SessionError
from smtp.queue import Queue
from smtp.relay import Relay, SmartHost
from smtp.stream import LINE, SEND, TLS, Wire

# What becomes of a mail's two recipients, and of the next mail's:
#   delivered
#   failed      a dead letter
#   again       the server deferred it: an attempt is counted
#   waits       the session broke: no attempt is counted
# `break` is all that leaves no way to go on: 421, a reply of a kind that does not fit, no reply, no connection.
# `order` is 503 and 53x: about the order of commands, TLS or AUTH, so a mail is not to fail for it.
EXPECTED = """
    point           fault    first      second     next mail
    opening         *        waits      waits      waits
    MAIL            4xx      again      again      delivered
    MAIL            order    again      again      delivered
    MAIL            5xx      failed     failed     delivered
    first RCPT      4xx      again      delivered  delivered
    first RCPT      order    again      delivered  delivered
    first RCPT      5xx      failed     delivered  delivered
    second RCPT     4xx      delivered  again      delivered
    second RCPT     order    delivered  again      delivered
    second RCPT     552      delivered  again      delivered
    second RCPT     5xx      delivered  failed     delivered
    DATA            4xx      again      again      delivered
    DATA            order    again      again      delivered
    DATA            5xx      failed     failed     delivered
    chunk           4xx      again      again      delivered
    chunk           order    again      again      delivered
    chunk           5xx      failed     failed     delivered
    body            4xx      again      again      delivered
    body            order    again      again      delivered
    body            5xx      failed     failed     delivered
    end             4xx      again      again      delivered
    end             order    again      again      delivered
    end             5xx      failed     failed     delivered
    RSET            break    failed     again      waits
    RSET            *        failed     again      delivered
    QUIT            *        delivered  delivered  delivered
    *               break    waits      waits      waits
    *               none     delivered  delivered  delivered
"""
# The mail before the one with the fault is delivered in every cell.

OPENING = ("connect", "greeting", "EHLO", "STARTTLS", "handshake", "EHLO again", "AUTH", "user name", "password")
MAIL = {
    "chunks": ("MAIL", "first RCPT", "second RCPT", "chunk", "body", "end"),
    "groups": ("MAIL", "first RCPT", "second RCPT", "DATA", "body", "end"),
    "slow": ("MAIL", "first RCPT", "second RCPT", "DATA", "body", "end"),
}
OFFERS = {"chunks": ("PIPELINING", "CHUNKING"), "groups": ("PIPELINING",), "slow": ()}

# What fits, the first of them as the well-behaved server says it.
FITS = {
    "greeting": (220,),
    "EHLO": (250,),
    "STARTTLS": (220,),
    "EHLO again": (250,),
    "AUTH": (334, 235),
    "user name": (334, 235),
    "password": (235,),
    "MAIL": (250,),
    "first RCPT": (250,),
    "second RCPT": (250,),
    "DATA": (354,),
    "chunk": (250,),
    "end": (250,),
    "RSET": (250,),
    "QUIT": (221,),
}
# Commands that the client has sent when the reply before theirs comes: an early reply is simply the next one.
SENT_AHEAD = {
    "chunks": (("first RCPT", "second RCPT", "chunk", "end", "MAIL 2"), "QUIT"),
    "groups": (("first RCPT", "second RCPT", "DATA", "MAIL 2"), "QUIT"),
    "slow": ((), "QUIT"),
}

CODES = (250, 354, 334, 220, 235, 421, 450, 451, 452, 454, 500, 502, 503, 530, 535, 550, 552, 554)
NOISE = ("garbage", "an empty line", "a code that changes", "100,000 lines", "a line without end")
CUTS = ("silence", "reset", "end of file")
SPEED = ("a byte at a time", "early")
CUT = {"silence": errno.ETIMEDOUT, "reset": errno.ECONNRESET}

BODY = b"\r\n.dot\r\n" + b"one line of the body\r\n" * 130 + b".\r\n"
HEADER = b"Subject: x\r\nDate: y\r\nFrom: <a@example.com>\r\nMessage-ID: <x@y>\r\n"
HEADER += b"X-Long: 0123456789012345678901234567890123456789\r\n" * 60  # more than the client's buffer: so a chunk


def expected(point, fault):
    for line in EXPECTED.split("\n"):
        row = [line[4:20].strip(), line[20:29].strip()]
        if row[0] in (point, "*") and row[1] in (fault, "*"):
            return line[29:].split()
    raise AssertionError("no row for %s, %s" % (point, fault))


def kind(mode, point, number, fault):
    """What the table calls a fault."""
    if fault == "a byte at a time":
        return "none"
    if fault == "early":
        ahead = SENT_AHEAD[mode][0]
        return "none" if point in ahead or "%s %d" % (point, number) in ahead else "break"
    if not isinstance(fault, int) or fault == 421:
        return "break"
    if fault in FITS.get(point, ()):
        return "none"
    if fault < 400:
        return "break"
    if point == "second RCPT" and fault == 552:  # RFC 5321 4.5.3.1.10
        return "552"
    return "4xx" if fault < 500 else "order" if fault in (503, 530, 535) else "5xx"


class Peer:
    """A server and the wire to it, in memory. `where`: (point, number of the mail) of the one fault."""

    slams = False  # it resets the connection after an answer in the middle of a body

    def __init__(self, mode, where, fault, refused=None):
        self.wire = Wire(bytearray(2048))
        self.mode = mode
        self.where = where
        self.fault = fault
        self.refused = refused or {}
        self.data = b""
        self.inbox = b""
        self.lines = 0  # to come of a reply without end
        self.cut = None  # the exception that each wait ends with from now on
        self.slowly = False
        self.tls = False
        self.asking = None  # the part of AUTH that comes next
        self.most = 0  # octets of wire.out
        self.mail = 0  # the mail of the open transaction
        self.taken = 0  # its recipients
        self.body = None
        self.left = 0
        self.ended = False  # the mail's end was answered in its middle
        self.bad = False
        self.good = {}  # point -> 250 was said there
        self.five = {}  # point -> 5xx was said there
        self.early = None
        self.thrown = False
        self.fired = where[0] == "connect"
        order = [(p, 0) for p in OPENING if p not in ("connect", "handshake")]
        order += [(p, n) for n in (1, 2) for p in MAIL[mode] if p != "body"] + [("QUIT", 0)]
        if fault == "early":
            self.early = order[order.index(where) - 1]
        if where[0] == "connect":
            self.cut = broken(fault)
        else:
            self.answer("greeting")

    # -- the server

    def right(self, point):
        code = FITS[point][0]
        if point[:4] == "EHLO":
            more = OFFERS[self.mode] + (("AUTH LOGIN",) if self.tls else ("STARTTLS",))
            return b"250-mx.example.net\r\n" + b"\r\n".join([("250-" + e).encode() for e in more]) + b"\r\n250 HELP\r\n"
        return b"%d %s\r\n" % (code, b"VXNlcm5hbWU6" if code == 334 else b"told")

    def answer(self, point, number=0):
        """Answers a command; gives the code that counts, None when there is no sane one."""
        here = (point, number)
        again = self.fired and here == self.where  # the second chunk
        self.fired = self.fired or here == self.where
        if self.cut:
            return None
        code = self.refused.get(here, 0)
        if here == self.where and self.fault not in SPEED:
            code = self.do_fault(point)
        elif code:
            self.inbox += b"%d told\r\n" % code
        elif here == self.where and self.fault == "early" and not again:
            code = FITS[point][0]  # it was said
            if point == "EHLO again":  # but in the clear
                self.cut = broken("silence")
        else:
            code = FITS[point][0]
            self.slowly = self.slowly or here == self.where
            self.inbox += self.right(point)
            if here == self.early:
                self.inbox += self.right(self.where[0])
        self.remember(here, code)
        return code

    def remember(self, here, code):
        if code == 250:
            self.good[here] = True
        elif code and code >= 500:
            self.five[here] = True

    def do_fault(self, point):
        fault = self.fault
        code = FITS.get(point, (250,))[0]
        if fault in FITS.get(point, ()):
            self.inbox += self.right(point) if fault == code else b"%d told\r\n" % fault
            return fault
        if isinstance(fault, int):
            self.inbox += b"%d VXNlcm5hbWU6\r\n" % fault
            if fault == 421:
                self.cut = EOFError()
            return fault
        if fault == "garbage":
            self.inbox += b"\x00\xff\xfe?\x80 hello\r\n"
        elif fault == "an empty line":
            self.inbox += b"\r\n"
        elif fault == "a code that changes":
            self.inbox += b"%d-one\r\n%d two\r\n" % (code, 550 if code != 550 else 250)
        elif fault == "100,000 lines":
            self.line = b"%d-more and more\r\n" % code
            self.lines = 100000
            self.cut = broken("end of file")
        elif fault == "a line without end":
            self.inbox += b"%d " % code + b"x" * 10000
            self.cut = broken("silence")
        else:
            self.cut = broken(fault)
        return None

    def hear(self, said):
        self.data += said
        while not self.cut and self.next():
            pass

    def next(self):
        if self.left:  # in BDAT
            n = min(self.left, len(self.data))
            self.body += self.data[:n]
            self.data = self.data[n:]
            self.left -= n
            if self.left:
                self.in_body()
                return False
            self.chunk()
            return True
        if self.body is not None and self.mode != "chunks":
            end = (b"\r\n" + self.data).find(b"\r\n.\r\n")
            if end < 0:
                if self.data:
                    self.in_body()
                return False
            self.body = (b"\r\n" + self.data[:end]).replace(b"\r\n.", b"\r\n")[2:]
            self.data = self.data[end + 3 :]
            self.end()
            return True
        end = self.data.find(b"\r\n")
        if end < 0:
            return False
        line = str(self.data[:end], "utf-8")
        self.data = self.data[end + 2 :]
        self.command(line)
        return True

    def in_body(self):
        if self.where == ("body", self.mail) and not self.ended:
            self.ended = self.fired = True
            self.remember(("body", self.mail), self.do_fault("body"))
            if self.slams:
                self.cut = broken("reset")

    def command(self, line):
        if self.asking:
            point = self.asking
            self.asking = None
            if self.answer(point) == 334 and point == "user name":
                self.asking = "password"
            return
        verb = line.split(" ")[0]
        number = self.mail
        if verb == "EHLO":
            self.answer("EHLO again" if self.tls else "EHLO")
        elif verb == "HELO":
            self.inbox += b"250 mx.example.net\r\n"
        elif verb == "AUTH":
            if self.answer("AUTH") == 334:
                self.asking = "user name"
        elif verb == "MAIL":
            number = int(line[len("MAIL FROM:<m")])
            if self.mail:
                self.inbox += b"503 5.5.1 nested MAIL\r\n"
            elif self.answer("MAIL", number) == 250:
                self.mail = number
                self.taken = 0
                self.bad = self.ended = False
        elif verb in ("RCPT", "DATA", "BDAT") and not number:
            if verb == "BDAT":
                self.left = int(line.split(" ")[1])
                self.bad = self.last = True
                self.body = b""
                if "LAST" not in line:
                    self.last = False
            else:
                self.inbox += b"503 5.5.1 MAIL first\r\n"
        elif verb == "RCPT":
            first = line[len("RCPT TO:<m1")] == "a"
            if self.answer("first RCPT" if first else "second RCPT", number) == 250:
                self.taken += 1
        elif verb == "DATA":
            if not self.taken:
                self.inbox += b"554 5.5.1 no valid recipients\r\n"
            elif self.answer("DATA", number) == 354:
                self.body = b""
        elif verb == "BDAT":
            words = line.split(" ")
            self.left = int(words[1])
            self.last = len(words) > 2
            self.body = self.body or b""
        elif verb == "RSET":
            self.mail = 0
            self.answer("RSET")
        elif verb == "STARTTLS":
            self.answer("STARTTLS")
        elif verb == "QUIT":
            self.answer("QUIT")
        elif verb == "*":
            self.inbox += b"501 cancelled\r\n"
        else:
            raise AssertionError("what is %r?" % line)

    def chunk(self):
        if self.bad or not self.taken:
            self.inbox += b"554 5.5.1 no valid recipients\r\n" if self.mail else b"503 5.5.1 MAIL first\r\n"
            if self.last:
                self.over()
        elif self.last:
            self.end()
        elif self.answer("chunk", self.mail) != 250:
            self.bad = True

    def end(self):
        number = self.mail
        if self.ended:
            pass  # it was answered before its time
        elif self.answer("end", number) == 250:
            assert self.body.endswith(BODY), "that is not mail %d: %r" % (number, self.body[-100:])
        self.over()

    def over(self):
        self.body = None
        self.mail = 0

    # -- the wire

    def run(self, session):
        """Runs a session of the client to its end, as Stream.run does; gives its exception or None."""
        wire = self.wire
        size = len(wire.buf)
        resume, value = session.send, None
        steps = 0
        while True:
            steps += 1
            assert steps < 3000, "it goes on for ever"
            try:
                request = resume(value)
            except StopIteration:
                self.flush()
                return None
            except SessionError as e:
                return e
            resume, value = session.send, None
            if request is TLS:
                self.flush()
                self.inbox = b""
                wire.lo = wire.hi = 0
                self.tls = wire.tls = wire.shaking = True
                if self.where[0] == "handshake":
                    self.fired = True
                    self.cut = broken(self.fault)
            elif request is SEND:
                self.flush()
                if isinstance(self.cut, OSError):
                    resume, value = session.throw, self.cut
            elif request is LINE:
                while True:
                    value = wire.line()
                    if value is not None:
                        break
                    self.flush()
                    if self.lines and not self.inbox:
                        self.inbox = self.line * min(50, self.lines)
                        self.lines -= 50
                    if not self.inbox:
                        assert self.cut, "both wait, at %r" % (self.where,)
                        if isinstance(self.cut, OSError) and self.thrown:
                            assert wire.timeout <= 5000, "a connection that failed is waited for %d ms" % wire.timeout
                        resume, value = session.throw, self.cut
                        self.thrown = True
                        break
                    self.fill()
            self.check(size)

    def flush(self):
        out = self.wire.out
        self.wire.out = b""
        self.most = max(self.most, len(out))
        if out and not isinstance(self.cut, OSError):
            self.hear(bytes(out))

    def fill(self):
        wire = self.wire
        held = bytes(wire.mv[wire.lo : wire.hi])
        n = 1 if self.slowly else len(wire.buf) - len(held)
        held += self.inbox[:n]
        self.inbox = self.inbox[n:]
        wire.buf[: len(held)] = held
        wire.lo, wire.hi = 0, len(held)
        wire.shaking = False

    def check(self, size):
        eq(len(self.wire.buf), size)
        assert self.most <= 4096, "it holds %d octets to be sent" % self.most


def broken(fault):
    return EOFError("gone") if fault == "end of file" else (
        OSError(CUT[fault]) if fault in CUT else ValueError("bad record"))  # fmt: skip


class Clock:
    def now(self):
        return 1790000000

    def offset(self, when):
        return 0


class Watched(Relay):
    """A relay that counts how often it is told a verdict on a job, and how many jobs it gave."""

    def next(self):
        job = Relay.next(self)
        if job:
            self.jobs.append(job.mail.meta["f"])
        return job

    def settled(self, job, results):
        self.verdicts.append(job.mail.meta["f"])
        eq(len(results), len(job.rcpts))
        Relay.settled(self, job, results)


def play(path, mode, where, fault, refused=None):
    """Plays a cell. Gives (peer, [[fate of each recipient] of each mail])."""
    for name in os.listdir(path):
        os.remove(path + "/" + name)
    queue = Queue(path, reserve=0, uptime=lambda: 100)
    for n in "12":
        queue.add({"f": "m%s@x.example" % n, "r": ["m%sa@y.example" % n, "m%sb@y.example" % n]}, [HEADER, BODY])
    relay = Watched(queue, [], "me.example.com", Clock())
    relay.host = SmartHost("mx.example.net")
    relay.jobs, relay.verdicts = [], []
    peer = Peer(mode, where, fault, refused)
    client = Client(peer.wire, "me.example.com")
    error = peer.run(client.start("starttls", ("context", "mx"), "user", "secret"))
    if error is None:
        relay.ext = client.ext
        error = peer.run(client.mails(relay))
        parser = client.feed
        assert not hasattr(parser, "text") or len(parser.text) <= 2200, "the reply's text grows"
        eq(relay.verdicts, relay.jobs)  # each once, in order
        if error is None:
            eq(peer.run(client.quit()), None)
    else:
        eq((relay.jobs, client.feed.lines is None or len(client.feed.lines) <= 64), ([], True))
    return peer, fates(path)


def fates(path):
    """What the files of the queue say of the mails' recipients: see smtp.queue for their names."""
    found = [["delivered", "delivered"], ["delivered", "delivered"]]
    for name in os.listdir(path):
        name, _, mark = name.partition("-")
        if mark == "why":
            continue
        parts = [int(p, 16) for p in name.split(".")]
        number = (parts[0] & 0xFFFFFFF) - 1
        key, attempts, done, failed = parts if len(parts) == 4 else (parts[0], 0, 0, 0)
        for i in (0, 1):
            fate = "again" if attempts else "waits"
            found[number][i] = "delivered" if done >> i & 1 else "failed" if failed >> i & 1 else fate
    return found


def judge(peer, got):
    """What must hold in every cell, by what the server said."""
    for number in (1, 2):
        for rcpt, fate in zip(("first RCPT", "second RCPT"), got[number - 1]):
            if fate == "delivered":
                assert (rcpt, number) in peer.good and ("end", number) in peer.good, "reported, but not delivered"
            elif fate == "failed":
                his = [p for p in ("MAIL", rcpt, "DATA", "chunk", "body", "end") if (p, number) in peer.five]
                assert his, "failed without a reason"


def cell(path, mode, where, fault, refused=None, wanted=None):
    point, number = where
    kind_of = kind(mode, point, number, fault)
    row = expected("opening" if point in OPENING and kind_of != "none" else point, kind_of)
    mine, following = row[:2], [row[2]] * 2
    wanted = wanted or ([mine, following] if number < 2 else [["delivered"] * 2, mine])
    try:
        peer, got = play(path, mode, where, fault, refused)
        assert peer.fired or fault == "early", "the session does not come to this point"
        eq(got, wanted)
        judge(peer, got)
    except AssertionError as e:
        raise AssertionError("%s, %s %d, %s: %s" % (mode, point, number, fault, e))


def matrix(mode, points, faults):
    cells = 0
    with Flash(32) as path:
        for where in points:
            for fault in faults(where[0]):
                cell(path, mode, where, fault)
                cells += 1
    return cells


def at(point):
    """The faults that there can be at a point."""
    if point == "connect":
        return CUTS
    if point == "handshake":
        return CUTS + ("garbage",)
    if point == "greeting":
        return CODES + NOISE + CUTS + ("a byte at a time",)  # nothing can come before it
    if point == "body":
        return [c for c in CODES if c >= 400] + list(NOISE + CUTS)
    return CODES + NOISE + CUTS + SPEED


def opening(mode):
    matrix(mode, [(p, 0) for p in OPENING], at)


def mails(mode, number):
    matrix(mode, [(p, number) for p in MAIL[mode]], at)


def test_no_fault_at_all_delivers_both_mails_in_each_kind_of_session():
    with Flash(32) as path:
        for mode in OFFERS:
            peer, got = play(path, mode, ("none", 0), None)
            eq((mode, got), (mode, [["delivered"] * 2] * 2))
            judge(peer, got)


def test_a_fault_while_a_session_opens():
    for mode in OFFERS:
        opening(mode)


def test_a_fault_in_the_first_mail_of_a_session_that_waits_for_nothing():
    mails("chunks", 1)


def test_a_fault_in_the_second_mail_of_a_session_that_waits_for_nothing():
    mails("chunks", 2)


def test_a_fault_in_the_first_mail_of_a_session_that_waits_at_data():
    mails("groups", 1)


def test_a_fault_in_the_second_mail_of_a_session_that_waits_at_data():
    mails("groups", 2)


def test_a_fault_in_the_first_mail_of_a_session_that_waits_for_each_reply():
    mails("slow", 1)


def test_a_fault_in_the_second_mail_of_a_session_that_waits_for_each_reply():
    mails("slow", 2)


def test_a_fault_at_the_end_of_a_session_changes_nothing():
    for mode in OFFERS:
        matrix(mode, [("QUIT", 0)], at)


def test_a_fault_at_rset_concerns_only_the_mails_after_it():
    refused = {("first RCPT", 1): 550, ("second RCPT", 1): 450}
    with Flash(32) as path:
        for mode in ("groups", "slow"):  # with CHUNKING there is no RSET
            for fault in CODES + NOISE + CUTS + ("a byte at a time",):
                broke = fault not in CODES or fault == 421 or fault < 400 and fault != 250
                broke = broke and fault != "a byte at a time"
                wanted = [["failed", "again"], ["waits" if broke else "delivered"] * 2]
                cell(path, mode, ("RSET", 0), fault, refused, wanted)


def test_who_was_refused_for_good_stays_refused_when_the_session_breaks_later():
    refused = {("first RCPT", 1): 550}
    with Flash(32) as path:
        for mode in OFFERS:
            for point in MAIL[mode][2:]:
                for fault in (421, 354 if point != "DATA" else 250) + NOISE + CUTS:
                    if point == "body" and fault == 354:
                        continue
                    cell(path, mode, (point, 1), fault, refused, [["failed", "waits"], ["waits", "waits"]])


def test_who_was_deferred_is_tried_again_at_no_cost_when_the_session_breaks_later():
    refused = {("first RCPT", 1): 450}
    with Flash(32) as path:
        for mode in OFFERS:
            for point in MAIL[mode][2:]:
                for fault in (421, "garbage") + CUTS:
                    cell(path, mode, (point, 1), fault, refused, [["waits"] * 2] * 2)


def test_a_mail_whose_chunk_was_refused_has_failed_though_the_session_breaks_then():
    with Flash(32) as path:
        for code, fate in ((552, "failed"), (452, "waits")):
            for fault in (421, "garbage") + CUTS:
                cell(path, "chunks", ("body", 1), fault, {("chunk", 1): code}, [[fate] * 2, ["waits"] * 2])


def test_a_refusal_in_the_middle_of_a_body_counts_though_sending_failed_then():
    Peer.slams = True
    try:
        with Flash(32) as path:
            for mode in OFFERS:
                for code, fate in ((250, "waits"), (354, "waits"), (421, "waits"), (452, "again"), (552, "failed")):
                    cell(path, mode, ("body", 1), code, None, [[fate] * 2, ["waits"] * 2])
    finally:
        Peer.slams = False


def test_every_row_of_the_table_is_needed():
    rows = [line for line in EXPECTED.split("\n")[2:] if line.strip()]
    seen = set()
    for mode in OFFERS:
        for point in OPENING + MAIL[mode] + ("RSET", "QUIT"):
            for fault in at(point):
                kind_of = kind(mode, point, 1, fault)
                wanted = expected("opening" if point in OPENING and kind_of != "none" else point, kind_of)
                for row in rows:
                    if row[4:20].strip() not in ("*", "opening", point) or row[20:29].strip() not in ("*", kind_of):
                        continue
                    if row[29:].split() == wanted:
                        seen.add(row)
    eq([row for row in rows if row not in seen], [])
