"""Takes what is due from the queue and delivers it to a smart host; decides between delivered, later, and dead letter.

All that is due goes in one session. A recipient who is refused for good becomes part of a dead letter, one who is
refused for now is tried again, alone; what stops the session itself (no network, no TLS, no AUTH) costs no attempt.

What the queue keeps of a mail (its meta): f reverse-path, r forward-paths, t arrival (epoch seconds, 0 when the clock
was not set), u arrival (seconds of uptime); where they were asked for, d the DSN parameters of MAIL and n those of each
recipient (RFC 3461), and e the others of MAIL, " SMTPUTF8 REQUIRETLS MT-PRIORITY=3"; of a mail that came in by SMTP p
the peer's address, h what it called itself, x how it came: 1 ESMTP, 2 TLS, 4 AUTH. The queue adds i identity, b boot.

May use: queue, client, trace, date, path, stream; dsn, convert and onward when a mail needs them, advice.
"""

import asyncio
import binascii
import random

from . import const
from .client import Client, SessionError, open_session, quit
from .date import date
from .path import Envelope
from .queue import Damaged
from .stream import client_context, sleep_ms
from .trace import Outgoing, received

_REMEMBER = const(600)  # seconds for which the host that worked is asked first
_TRIES = const(8)  # failed attempts before a clock is believed that says that a mail of another boot is old
_NOTICED = const(1)  # flag in the queue: the sender heard that his mail is late
_AGAIN = const(2)  # it was a dead letter: its age does not count


class SmartHost:
    """A next hop. `ca`: list of DER certificates, bytes or base64 text. `sender`: the only sender that it accepts, or
    "". per_minute, per_day, per_session: mails that it takes, 0: any number. oauth: oauth.Tokens instead of a
    password."""

    kind = Client  # the protocol

    def __init__(self, host, port=587, security="starttls", verify="full", ca=(), username="", password="", sender="",
                 per_minute=0, per_day=0, per_session=0, oauth=None):
        self.host = host
        self.port = port
        self.security = security
        self.verify = verify
        self.ca = ca
        self.username = username
        self.password = password
        self.sender = sender
        self.per_session = per_session
        self.oauth = oauth
        self.limit = 0  # octets that it said it takes, 0: not known
        self.paused = 0  # seconds of uptime until which it wants no mail
        self.rates = []
        if per_minute or per_day:
            from .rate import Rate

            self.rates = [Rate(n, span) for n, span in ((per_minute, 60), (per_day, 86400)) if n]

    def wait(self, now):
        """Seconds until it may have a mail, at `now` seconds of uptime."""
        wait = self.paused - now
        for rate in self.rates:
            wait = max(wait, rate.wait(now))
        return max(wait, 0)

    def context(self):
        """A fresh SSLContext: it costs memory that is wanted back between sessions."""
        if self.security == "none":
            return None
        ca = [binascii.a2b_base64(c) if isinstance(c, str) else c for c in self.ca]
        return client_context(ca, self.verify != "none")

    def __str__(self):
        return "%s:%d" % (self.host, self.port)


class Relay:
    """Delivers the mail of `queue` to the first of `hosts` (SmartHost) that works.

    name: str, what EHLO says; clock: has now() (epoch seconds or None) and offset() (seconds east of UTC); origin:
    the address in a From that a device left out; log(text).

    May be set, all in seconds: `retry`, `retry_max`: before the second attempt, doubled each time, and their limit;
    `pause`, `pause_max`: the same while no smart host can be reached; `delay_notice`: age at which a sender hears that
    his mail is late; `expire`: age at which a mail that is deferred once more is given up; `gather`: what is to be told
    to `admin` (address, or "") waits so long for more of it. `bounce` False: senders are told what they asked for only.
    """

    def __init__(self, queue, hosts, name, clock, origin="", log=None):
        self.queue = queue
        self.hosts = hosts
        self.name = name
        self.clock = clock
        self.origin = origin
        self.log = log or str  # which does nothing with it, and is there already
        self.retry, self.retry_max = 60, 3600
        self.pause, self.pause_max = 5, 300
        self.delay_notice, self.expire = 14400, 432000  # RFC 5321 4.5.4.1: 4 to 5 days
        self.bounce = True
        self.admin = ""
        self.gather = 300
        self.failures = 0
        self.window = 5
        self.buf = bytearray(1536)  # now: later there may be no room in one piece
        self.slots = None  # slots.Slots: the TLS sessions that there is memory for
        self.resolve = None  # looks names up: dns.Resolver.resolve
        self.delivered = 0
        self.busy = self.ending = False
        self.host = None
        self.first, self.until = 0, 0  # the host that is asked first, and for how long
        self.over = {}  # key -> (job, results): deferred, and the next host has not been asked yet
        self.onward = False  # there is one
        self.given = self.passed = 0  # mails of this session, and those of them that go to the next host
        self.ext = {}  # what the host at hand offers
        self.broken = self.suspect = None  # the mail at which this session broke, and the one before
        self.told = None  # the trouble that was logged last
        self.starved = None  # called when there was no memory for a session
        self.report = None  # seconds of uptime when the admin is told what nobody else can be told
        self.quiet = 0  # and before which he is left alone
        self.wake = asyncio.Event()
        self.stir = None  # of the last pause: an Event, set by who wants it to be over
        queue.on_commit = self.wake.set
        queue.on_dead = self.died

    def died(self):
        """There is something to tell the admin."""
        if self.admin and self.report is None:
            self.report = max(self.queue.uptime() + self.gather, self.quiet)
            self.wake.set()

    async def run(self):
        """Delivers for ever. When it fails (no memory, say) it may be called again."""
        self.queue.recall()
        self.over.clear()
        if self.queue.dead or self.queue.damaged or self.queue.gone():
            self.died()
        while not self.ending:
            now = self.queue.uptime()
            if self.report is not None and self.report <= now:
                from .bounce import report

                self.report = None
                self.quiet = now + 12 * self.gather
                report(self)
            due = self.queue.due()
            if due is None or self.report is not None and self.report < due:
                due = self.report
            if due is None or due > now:
                self.wake.clear()
                try:
                    # Now and then without a reason, so that the seconds counted by uptime() never wrap unseen.
                    await asyncio.wait_for(self.wake.wait(), 3600 if due is None else min(due - now, 3600))
                except asyncio.TimeoutError:
                    pass
                continue
            went = await self.session()
            if went:
                self.failures = 0
            elif went is None:  # nobody may have mail now
                now = self.queue.uptime()
                await self.rest(max(1, min([h.wait(now) for h in self.hosts] + [3600])))
            else:
                self.failures += 1
                await self.rest(self.jitter(min(self.pause << min(self.failures - 1, 16), self.pause_max)))

    async def rest(self, seconds):
        self.stir = asyncio.Event()
        try:
            await asyncio.wait_for(self.stir.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def finish(self):
        """Before the end: takes no more mail, and waits 5 s for the answers to what is in flight, so that none of it is
        sent again at the next start."""
        self.ending = True
        for _ in range(50):
            if not self.busy:
                break
            await sleep_ms(100)

    def jitter(self, seconds):
        return seconds + seconds * random.getrandbits(8) // 1024  # up to a quarter more

    def usable(self):
        """The hosts that may have mail now, in the order to ask them."""
        now = self.queue.uptime()
        if now >= self.until:
            self.first = 0
        return [h for h in self.hosts[self.first :] + self.hosts[: self.first] if not h.wait(now)]

    async def session(self):
        """Delivers all that is due in one session with the first smart host that lets us in, and what that one defers
        to the next. True when that went well, False when it did not, None when no host may have mail now."""
        hosts = self.usable()
        went = None
        for host in hosts:
            self.onward = host is not hosts[-1]
            slots = self.slots if host.security != "none" else None
            try:
                while slots and not slots.take(self):
                    await sleep_ms(100)
                came = await self.session_with(host)
            finally:
                if slots:
                    slots.give(self)
            went = came or went or False
            if came:
                self.first = self.hosts.index(host)
                self.until = self.queue.uptime() + _REMEMBER
                if not self.over:
                    break
            # One that defers, or breaks, does not keep the mail from the others.
            for key in self.over:
                self.queue.release(key)
        self.onward = False
        while self.over:  # nobody else could be asked
            key = list(self.over)[0]
            job, results = self.over.pop(key)
            try:
                self.settled(job, results)
            except KeyError:
                pass  # it was displaced, or set aside
        return went

    async def open(self, host):
        """A session with a smart host (stream, client), or None."""
        tries = 2 if host.oauth else 1
        while tries:
            tries -= 1
            try:
                password, auth = host.password, None
                if host.oauth:
                    password, auth = await host.oauth.token(self.resolve), host.oauth.mechanism
                session = await open_session(
                    host.host, host.port, self.name, host.security, host.context(), host.username, password, auth,
                    resolve=self.resolve, kind=host.kind)
                self.told = None
                return session
            except (SessionError, ValueError) as e:
                if tries and getattr(e, "reason", "") == "auth" and host.oauth.refused():
                    continue  # a token may end before its time
                self.trouble(host, e)
            except MemoryError:
                self.trouble(host, SessionError("tls memory", "out of memory"))
            return None

    async def session_with(self, host):
        """True when all went well, False when there was no session or it broke."""
        session = await self.open(host)
        if not session:
            return False
        self.host = host
        self.given = self.passed = 0
        self.suspect, self.broken = self.broken, None
        stream, client = session
        self.ext = client.ext
        host.limit = client.limit()
        client.window = self.window
        client.buf = self.buf
        self.busy = True
        try:
            await stream.run(client.mails(self))
            self.busy = False
            await quit(session)
            return True
        except SessionError as e:
            self.trouble(host, e)
            return False
        except MemoryError:
            self.window = max(1, self.window // 2)  # so many in flight are too many
            raise
        finally:
            self.busy = False
            stream.close()

    def throttled(self, host, reply):
        """True when a reply asks for less mail: then `host` gets none for a while, and that costs no attempt."""
        if not reply or reply[0] < 400:
            return False
        from .throttle import pause

        seconds = pause(*reply)
        now = self.queue.uptime()
        if seconds and host.paused <= now:
            self.log("smart host %s wants less mail: %d %s %s. It gets none for %d s" % ((host,) + reply + (seconds,)))
        host.paused = max(host.paused, now + seconds if seconds else 0)
        return seconds > 0

    def trouble(self, host, e):
        """Logs why there is no session, once for each kind."""
        reason = getattr(e, "reason", "setting")
        if reason == "tls memory" and self.starved:
            self.starved()
        if self.throttled(host, getattr(e, "reply", None)):
            return
        told = "%s %s %s" % (host, reason, e)
        if told != self.told:
            self.told = told
            try:
                from .advice import what_to_do

                what = what_to_do(reason)
            except MemoryError:
                what = "There is little memory"
            self.log("smart host %s: %s. %s. %d mails wait" % (host, e, what, len(self.queue)))

    def next(self):
        """The next mail that is due, as a job for Client.mails()."""
        host = self.host
        while not self.ending:
            now = self.queue.uptime()
            # Others wait for TLS, or the host has had enough, or defers so much that the next one is asked.
            n = self.given
            if n >= self.window and self.slots and self.slots.line or n and n == host.per_session or (
                    host.wait(now) or self.passed > 3):
                return None
            try:
                mail = self.queue.take()
            except Damaged as e:
                self.log("%s: set aside, the rest goes on" % e)
                continue
            if mail:
                self.given += 1
                for rate in host.rates:
                    rate.count(now)
                mail = Job(self, mail, host)
                if mail.special or "MT-PRIORITY" in self.ext and mail.mail.key >> 28 != 1:
                    from .onward import ready

                    if not ready(mail, self.ext, self.onward):
                        continue  # none of it can go there
            return mail

    def delay(self, attempts):
        return min(self.retry << min(attempts, 16), self.retry_max)

    def age(self, mail, attempts):
        """Seconds since a mail arrived, as far as can be told: clocks may be wrong by years, retries are not."""
        meta = mail.meta
        least = sum([self.delay(n) for n in range(attempts)])
        if self.queue.state(mail.key)[2] & _AGAIN:
            return least
        if meta["b"] == self.queue.boot:
            return self.queue.uptime() - meta.get("u", 0)
        now = self.clock.now()
        return max(least, now - meta["t"]) if now and meta.get("t") and attempts >= _TRIES else least

    def settled(self, job, results):
        """Records what the smart host said of a mail's recipients."""
        mail = job.mail
        mail.close()
        queue = self.queue
        key = mail.key
        if results.count(None) == len(results) and key in self.over:
            return  # the session broke; what the host before said stands
        self.over.pop(key, None)
        attempts = queue.rows[queue.row(key) + 2]
        done = failed = flags = 0
        later = []
        notices = []
        ident = mail.meta["i"]
        throttled = False
        for at, result in enumerate(results):
            if result is None:
                continue
            n = job.index[at]
            to = job.rcpts[at]
            code, enhanced, text = result
            if code < 300:
                done |= 1 << n
                self.log("%s delivered to %s" % (ident, to))
                if not job.dsn and "n" in mail.meta:
                    notices.append((n, to, "relayed", result))
                continue
            said = "%d %s %s" % (code, enhanced, text.replace("\n", " "))
            if code == 503 or 530 <= code < 540:
                code = 450  # about the order of commands, TLS or AUTH (RFC 5321, 4954): no fault of this mail
            throttled = throttled or self.throttled(job.host, result)
            sender = code >= 500 and self.is_about_sender(job, code, enhanced, text)
            if code < 500 or throttled or sender:
                later.append((n, to, "delayed", result))
                self.log("%s deferred for %s: %s" % (ident, to, said))
                if sender:
                    self.log("the smart host does not accept the sender %s: %s" % (job.sender, sender))
            else:
                failed |= 1 << n
                notices.append((n, to, "failed", result))
                self.log("%s refused for %s: %s" % (ident, to, said))
        attempt = bool(later) and not throttled
        wait = self.jitter(self.delay(attempts)) if attempt else 0
        if later and self.onward:
            wait, attempt = None, False  # the next host is asked first
            self.passed += 1
            over = failed | done
            self.over[key] = job, [r if r and not over >> n & 1 else None for n, r in zip(job.index, results)]
        elif attempt:
            age = self.age(mail, attempts + 1)
            if age >= self.expire:
                for n, to, _, result in later:
                    failed |= 1 << n
                    notices.append((n, to, "failed", result))
                    self.log("%s given up for %s after %d hours" % (ident, to, age // 3600))
            elif age >= self.delay_notice and not queue.state(key)[2] & _NOTICED:
                flags = _NOTICED
                notices += later
        if None in results and not self.broken:
            # The first mail without an answer when the session broke. If that happens again, it may be the mail that
            # does it: it waits, and the others go. That is no attempt: it was the session that failed.
            self.broken = key
            if self.suspect == key and wait == 0:
                wait = self.jitter(self.delay(attempts))
        told = 0
        if notices and mail.meta["f"] and ("n" in mail.meta or "p" in mail.meta):
            from .bounce import tell

            told = tell(self, mail, notices, job.host)
        whys = []
        for n, _, _, (code, enhanced, text) in notices:
            if failed & ~told & 1 << n:
                whys.append("%d %d %s %s" % (n, code, enhanced, text.replace("\n", " ")))
                self.log("%s kept as a dead letter" % ident)
        if done:
            self.delivered += 1
        queue.settle(key, len(mail.meta["r"]), done | failed & told, failed & ~told, whys, wait, attempt, flags,
                     "dead" if self.admin and "k" not in mail.meta else "kept")

    def is_about_sender(self, job, code, enhanced, text):
        """throttle.about_sender(); delivery by MX does not ask."""
        from .throttle import about_sender

        return about_sender(job, code, enhanced, text)


class Job:
    """One queued mail on its way to `host`: what Client.mails() asks of a job. skip: bit set of recipients who are
    left out."""

    def __init__(self, relay, mail, host, skip=0):
        meta = mail.meta
        queue = relay.queue
        over = queue.state(mail.key)
        over = over[0] | over[1] | skip
        rcpts = meta["r"]
        self.relay = relay
        self.host = host
        self.mail = mail
        self.index = index = range(len(rcpts))
        if over:
            self.index = index = [i for i in index if not over >> i & 1]
            rcpts = [rcpts[i] for i in index]
        self.rcpts = rcpts
        sender = host.sender or meta.get("q", "")
        self.sender = sender if sender and meta["f"] else meta["f"]
        self.body = "8BITMIME" if mail.eight else ""
        self.dsn = None
        if "DSN" in relay.ext and ("d" in meta or "n" in meta):
            asked = meta.get("n") or [""] * len(meta["r"])
            self.dsn = (meta.get("d", ""), [asked[i] for i in index])
        # Something that the next hop has to offer an extension for, see onward.
        self.special = "e" in meta or mail.eight and "p" not in meta or [
            a for a in [self.sender] + rcpts if len(a) != len(a.encode())]
        clock = relay.clock
        now = clock.now()
        if now and meta["b"] == queue.boot:
            # While this boot lasts its age is known, whatever the clock said when it came.
            true = now - queue.uptime() + meta.get("u", 0)
            if abs(true - meta.get("t", 0)) > 600:
                meta["t"] = true
        when = meta.get("t") or now
        self.when = when
        missing = [(b"message-id", self.field)]
        if when:
            missing.insert(0, (b"date", self.field))
        if meta["f"] or relay.origin:
            missing.append((b"from", self.field))
        top = b""
        if "p" in meta:
            how = meta["x"]
            top = Envelope("", self.rcpts, meta["p"], meta["h"], how & 4 or None, bool(how & 2), bool(how & 1))
            top = received(top, relay.name, meta["i"], self.date())
            if "e" in meta:
                from .onward import traced

                top = traced(top, meta["e"])
        self.size = mail.size + len(top) + 300
        out = Outgoing(mail.read, mail.size, top, missing, sender)
        if mail.eight and "8BITMIME" not in relay.ext:
            from .convert import SevenBit, obstacle

            marks = bytearray()
            if not obstacle(out.readinto, marks):  # else the client refuses it with 5.6.3 (RFC 6152 section 3)
                self.body = ""
                self.size *= 3  # each octet may become three
            mail.rewind()
            out = Outgoing(mail.read, mail.size, top, missing, sender)
            if not self.body:
                out = SevenBit(out.readinto, marks)
        self.out = out

    def date(self):
        return date(self.when, self.relay.clock.offset(self.when)) if self.when else ""

    def field(self, name):
        """A header field that the mail lacks. Most lack none, and it is not cheap to make."""
        relay = self.relay
        meta = self.mail.meta
        if name == b"date":
            field = "Date: %s\r\n" % self.date()
        elif name == b"from":
            field = "From: %s\r\n" % (meta["f"] or relay.origin)
        else:
            field = "Message-ID: <%s.%x@%s>\r\n" % (meta["i"], self.mail.key, relay.name)
        return field.encode()

    def done(self, results):
        self.relay.settled(self, results)
