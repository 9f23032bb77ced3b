"""Takes what is due from the queue and delivers it to a smart host; decides between delivered, later, and dead letter.

All that is due goes in one session. A recipient who is refused for good becomes part of a dead letter, one who is
refused for now is tried again, alone; what stops the session itself (no network, no TLS, no AUTH) costs no attempt.

What the queue keeps of a mail (its meta): f reverse-path, r forward-paths, t arrival (epoch seconds, 0 when the clock
was not set), u arrival (seconds of uptime); where they were asked for, d the DSN parameters of MAIL and n those of each
recipient (RFC 3461); of a mail that came in by SMTP p the peer's address, h what it called itself, x how it came: 1
ESMTP, 2 TLS, 4 AUTH. The queue adds i identity, b boot.

May use: queue, client, trace, message, path, stream; dsn and convert when a mail needs them.
"""

import asyncio
import binascii
import random

from .client import SessionError, open_session, quit
from .message import date, header
from .path import Envelope
from .queue import Damaged, QueueFull
from .stream import client_context, sleep_ms
from .trace import Outgoing, received

_WHAT_TO_DO = {
    "connect": "check the network, smarthost.host and smarthost.port",
    "reply": "look for this reply in the smart host's documentation",
    "starttls": "nothing is sent in the clear; check smarthost.port (587 for STARTTLS), or set security = \"tls\"",
    "tls name": "the certificate is for another name: set smarthost.host to a name that it carries",
    "tls expired": "the certificate has expired, or this clock is wrong: the smart host's operator must renew it",
    "tls future": "the certificate is not valid yet: is this clock right?",
    "tls ca": "the certificate is not signed by the CA in smarthost.ca: set it to the CA that the smart host uses",
    "tls gone": "the smart host closed the connection in the handshake",
    "tls memory": "not enough memory for TLS now",
    "tls": "check smarthost.security and smarthost.port",
    "auth-missing": "check smarthost.port; without smarthost.username no AUTH is tried",
    "auth": "check smarthost.username and smarthost.password",
    "lost": "it is tried again",
}


class SmartHost:
    """A next hop. `ca`: list of DER certificates, bytes or base64 text. `sender`: the only sender that it accepts, or
    ""."""

    def __init__(self, host, port=587, security="starttls", verify="full", ca=(), username="", password="", sender=""):
        self.host = host
        self.port = port
        self.security = security
        self.verify = verify
        self.ca = ca
        self.username = username
        self.password = password
        self.sender = sender

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
    the address in a From that a device left out; log(text). `retry`, `retry_max`: seconds before the second attempt,
    doubled each time, and their limit; `pause`, `pause_max`: the same for a smart host that cannot be reached.
    """

    def __init__(self, queue, hosts, name, clock, origin="", log=None):
        self.queue = queue
        self.hosts = hosts
        self.name = name
        self.clock = clock
        self.origin = origin
        self.log = log or (lambda text: None)
        self.retry, self.retry_max = 60, 3600
        self.pause, self.pause_max = 5, 300
        self.failures = 0
        self.window = 5
        self.slots = None  # slots.Slots: the TLS sessions that there is memory for
        self.delivered = 0
        self.busy = self.ending = False
        self.host = None
        self.next_host = 0
        self.ext = {}  # what the host at hand offers
        self.broken = self.suspect = None  # the mail at which this session broke, and the one before
        self.told = None  # the trouble that was logged last
        self.wake = asyncio.Event()
        queue.on_commit = self.wake.set

    async def run(self):
        """Delivers for ever. When it fails (no memory, say) it may be called again."""
        self.queue.recall()
        while True:
            due = self.queue.due()
            wait = None if due is None else due - self.queue.uptime()
            if wait is None or wait > 0:
                self.wake.clear()
                try:
                    # Now and then without a reason, so that the seconds counted by uptime() never wrap unseen.
                    await asyncio.wait_for(self.wake.wait(), min(wait or 3600, 3600))
                except asyncio.TimeoutError:
                    pass
            elif await self.session():
                self.failures = 0
            else:
                self.failures += 1
                await asyncio.sleep(self.jitter(min(self.pause << min(self.failures - 1, 16), self.pause_max)))

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

    async def session(self):
        """Delivers all that is due in one session with the first smart host that lets us in. False when that failed."""
        start = self.next_host
        self.next_host = 0
        for i in range(len(self.hosts)):
            i = (i + start) % len(self.hosts)
            host = self.hosts[i]
            slots = self.slots if host.security != "none" else None
            try:
                while slots and not slots.take(self):
                    await sleep_ms(100)
                went = await self.session_with(host)
            finally:
                if slots:
                    slots.give(self)
            if went is False:
                self.next_host = i + 1  # one that lets us in and then breaks does not keep the mail from the others
            if went is not None:
                return went
        return False

    async def session_with(self, host):
        """True when all went well, False when the session broke, None when there was none."""
        try:
            session = await open_session(
                host.host, host.port, self.name, host.security, host.context(), host.username, host.password)
        except (SessionError, ValueError) as e:
            self.trouble(host, e)
            return None
        except MemoryError:
            self.trouble(host, SessionError("tls memory", "out of memory"))
            return None
        self.host = host
        self.told = None
        self.suspect, self.broken = self.broken, None
        stream, client = session
        self.ext = client.ext
        client.window = self.window
        self.busy = True
        try:
            await stream.run(client.mails(self))
            self.busy = False
            await quit(session)
            return True
        except SessionError as e:
            self.trouble(host, e)
            return False
        finally:
            self.busy = False
            stream.close()

    def trouble(self, host, e):
        """Logs why there is no session, once for each kind."""
        reason = getattr(e, "reason", "tls")
        told = "%s %s %s" % (host, reason, e)
        if told != self.told:
            self.told = told
            what = _WHAT_TO_DO.get(reason) or _WHAT_TO_DO[reason.split()[0]]
            self.log("smart host %s: %s. %s. %d mails wait" % (host, e, what[0].upper() + what[1:], len(self.queue)))

    def next(self):
        """The next mail that is due, as a job for Client.mails()."""
        while not self.ending:
            try:
                mail = self.queue.take()
            except Damaged as e:
                self.log("%s: set aside, the rest goes on" % e)
                continue
            return mail and Job(self, mail, self.host)

    def settled(self, job, results):
        """Records what the smart host said of a mail's recipients."""
        mail = job.mail
        mail.close()
        queue = self.queue
        i = queue.row(mail.key)
        attempts = queue.rows[i + 2]
        done = failed = 0
        attempt = False
        whys = []
        ident = mail.meta["i"]
        notices = []
        for n, to, result in zip(job.index, job.rcpts, results):
            if result is None:
                continue
            code, enhanced, text = result
            said = "%d %s %s" % (code, enhanced, text.replace("\n", " "))
            if code == 503 or 530 <= code < 540:
                code = 450  # about the order of commands, TLS or AUTH (RFC 5321, 4954): no fault of this mail
            if code < 300:
                done |= 1 << n
                self.log("%s delivered to %s" % (ident, to))
                if not job.dsn:
                    notices.append((n, to, "relayed", result))
            elif code >= 500 and not self.is_about_sender(job, code, enhanced, text):
                failed |= 1 << n
                whys.append("%d %s" % (n, said))
                notices.append((n, to, "failed", result))
                self.log("%s refused for %s: %s. Kept as a dead letter" % (ident, to, said))
            else:
                attempt = True
                self.log("%s deferred for %s: %s" % (ident, to, said))
                if code >= 500:
                    self.log("the smart host does not accept the sender %s: set smarthost.sender to an address that it "
                             "accepts, and this mail goes through" % job.sender)
        wait = attempt
        if None in results and not self.broken:
            # The first mail without an answer when the session broke. If that happens again, it may be the mail that
            # does it: it waits, and the others go. That is no attempt: it was the session that failed.
            self.broken = mail.key
            wait = attempt or self.suspect == mail.key
        delay = self.jitter(min(self.retry << min(attempts, 16), self.retry_max)) if wait else 0
        if notices and "n" in mail.meta and mail.meta["f"]:
            self.notify(mail, notices)
        queue.settle(mail.key, len(mail.meta["r"]), done, failed, whys, delay, attempt)
        if done:
            self.delivered += 1

    def notify(self, mail, notices):
        """Queues the notifications that were asked for (RFC 3461): before the mail itself goes, so that a power cut
        in between makes two rather than none."""
        from .dsn import report
        from .notify import wanted

        asked = mail.meta["n"]
        notices = [
            (to, action, result, asked[n], self.host.host)
            for n, to, action, result in notices
            if asked[n] and wanted(asked[n], action)
        ]
        if notices:
            now = self.clock.now() or 0
            meta = {"f": "", "r": [mail.meta["f"]], "t": now, "u": self.queue.uptime()}
            for full in (True, False) if "RET=FULL" in mail.meta.get("d", "") else (False,):
                mail.rewind()
                try:
                    self.queue.add(meta, report(
                        self.name, mail.meta["f"], mail.meta, notices, now, self.clock.offset(now), mail.read, full,
                        mail.eight))
                    break
                except QueueFull as e:
                    self.log("no room to notify %s: %s" % (mail.meta["f"], e))
                finally:
                    mail.close()

    def is_about_sender(self, job, code, enhanced, text):
        """True when a refusal is most likely about who sends: then a setting mends it, and the mail waits for that.

        Postfix and others say so at RCPT (553 5.7.1 Sender address rejected), Microsoft 365 after the mail (5.7.60
        SendAsDenied).
        """
        if self.host.sender or not job.sender or code == 552:
            return False
        text = text.lower()
        return enhanced in ("5.1.7", "5.1.8", "5.7.60") or (
            ("sender" in text or "from address" in text or "send as" in text) and "relay" not in text)


class Job:
    """One queued mail on its way to `host`: what Client.mails() asks of a job."""

    def __init__(self, relay, mail, host):
        meta = mail.meta
        queue = relay.queue
        over = queue.partial.get(mail.key, (0, 0))
        over = over[0] | over[1]
        rcpts = meta["r"]
        self.relay = relay
        self.mail = mail
        self.index = [i for i in range(len(rcpts)) if not over >> i & 1]
        self.rcpts = [rcpts[i] for i in self.index]
        self.sender = host.sender if host.sender and meta["f"] else meta["f"]
        self.body = "8BITMIME" if mail.eight else ""
        self.dsn = None
        if "DSN" in relay.ext and ("d" in meta or "n" in meta):
            asked = meta.get("n") or [""] * len(rcpts)
            self.dsn = (meta.get("d", ""), [asked[i] for i in self.index])
        clock = relay.clock
        now = clock.now() or 0
        # A mail from before the clock was set gets the date that it had: its age is known while this boot lasts.
        when = meta.get("t") or (now - queue.uptime() + meta.get("u", 0) if meta["b"] == queue.boot else now)
        when = date(when, clock.offset(when))
        ident = meta["i"]
        origin = meta["f"] or relay.origin
        missing = [
            (b"date", header("Date", when)),
            (b"message-id", header("Message-ID", "<%s.%x@%s>" % (ident, mail.key, relay.name))),
        ]
        if origin:
            missing.append((b"from", header("From", origin)))
        top = b""
        if "p" in meta:
            how = meta["x"]
            top = Envelope("", self.rcpts, meta["p"], meta["h"], how & 4 or None, bool(how & 2), bool(how & 1))
            top = received(top, relay.name, ident, when)
        self.size = mail.size + len(top) + 300
        out = Outgoing(mail.read, mail.size, top, missing, host.sender)
        if mail.eight and "8BITMIME" not in relay.ext:
            from .convert import SevenBit, obstacle

            marks = bytearray()
            if not obstacle(out.readinto, marks):  # else the client refuses it with 5.6.3 (RFC 6152 section 3)
                self.body = ""
                self.size *= 3  # each octet may become three
            mail.rewind()
            out = Outgoing(mail.read, mail.size, top, missing, host.sender)
            if not self.body:
                out = SevenBit(out.readinto, marks)
        self.out = out
        self.readinto = out.readinto

    @property
    def rest(self):
        return self.out.rest

    def done(self, results):
        self.relay.settled(self, results)
