"""SMTP client, RFC 5321: one session with a next hop, in as few round trips as it allows.

`Client` holds the protocol as generators for stream.Stream.run and does no I/O itself. `open_session()`, `send()` and
`quit()` are the coroutines that most callers want; `Client.mails(source)` is what a relay uses.

A source has `next()`, which returns a job or None. A job is one mail:

    sender, rcpts       reverse-path and forward-paths (str)
    body                "", or "8BITMIME", or "8BITMIME SMTPUTF8" (RFC 6531): what the server has to offer
    dsn                 None, or a pair: more parameters of MAIL, such as " RET=..." for a server that offers DSN (RFC
                        3461), and a list of " NOTIFY=..." for the recipients
    size                octets, about
    out                 its readinto(buf) gives the mail with CRLF line ends, not dot-stuffed; its `rest` are the octets
                        still to come, None while that is not known. Set to None once the mail has been sent
    done(results)       called once: for each recipient (code, enhanced, text) as the server said it, or None when the
                        session ended before its fate was known

With PIPELINING and CHUNKING (RFC 2920, 3030) nothing waits: envelope, mail and the next envelopes go out together. With
PIPELINING alone only DATA waits. What is in flight is bounded by `window` mails and `window_bytes`.

May use: stream, reply, sasl; single for send().
"""

from . import const
from .reply import PLAIN, Parser, SMTPError
from .stream import LINE, SEND, TLS, connect

# Time-outs in ms, RFC 5321 4.5.3.2
_CONNECT = const(30000)
_REPLY = const(300000)
_FINAL = const(600000)

_MAIL = const(0)
_RCPT = const(1)
_CHUNK = const(2)
_DATA = const(3)
_END = const(4)
_RSET = const(5)
_BODY = const(6)  # as _END, while the mail has not been sent whole

_PENDING = const(100)  # replies that may wait unread: more would fill the buffers between us (RFC 2920 3.1)
_READY = const(640)  # octets of a mail that are made ready before the server asks for it
_HIGH = const(1400)  # octets of `out` from which a mail's body is sent on


class SessionError(Exception):
    """No session, or none any more. `reason`: "connect", "reply", "starttls", "tls", "auth-missing", "auth", "lost";
    for "tls" the second word says more (tlserror.tls_reason): "tls name". `reply` is (code, enhanced, text) when the
    server said it."""

    def __init__(self, reason, text, reply=None):
        super().__init__(text)
        self.reason = reason
        self.reply = reply


class Client:
    """The protocol of one session over `io`, a Wire. `name` is what EHLO says: a domain or an address literal."""

    def __init__(self, io, name):
        self.io = io
        self.name = name.encode()
        if not name or " " in name or self.name.strip(PLAIN):
            raise ValueError("%r is no name for EHLO: take a domain or an address literal" % name)
        self.feed = Parser()
        self.ext = {}  # what EHLO offered: KEYWORD -> parameters
        self.window = 5
        self.window_bytes = 65536
        self.buf = None
        self.hurry = 0  # ms for each reply once sending has failed
        self.ahead = None  # the job that was fetched before its turn
        self.owed = None  # (job, reply): its fate is told once the next mail is on its way

    def unasked(self):
        """SMTPError when there is a reply to nothing: which one belongs to what could not be told any more."""
        io = self.io
        if io.lo < io.hi:
            raise SMTPError(421, "4.5.0", "it answers before it is asked")

    def ask(self, command, code=0, reason="reply"):
        """Generator: sends a command, or None, and takes the next reply, as (code, enhanced, text). SessionError when
        it is not `code`."""
        if command is not None:
            self.unasked()
            self.io.out += command + b"\r\n"
        feed = self.feed.feed
        reply = None
        while reply is None:
            reply = feed((yield LINE))
        if code and reply[0] != code:
            what = command[:8].split()[0].decode() if command else "the connection"
            raise SessionError(reason, "it answers %s with %d %s" % (what, reply[0], reply[2]), reply)
        return reply

    def start(self, security, tls=None, user="", password="", auth=None):
        """Generator: greeting, EHLO, STARTTLS, AUTH; then mail can be sent. Raises SessionError.

        security: "starttls", "tls" (the wire has it already) or "none"; tls: (SSLContext, host name) for
        "starttls". A server that does not offer what is asked for is an error, never a fallback.
        """
        io = self.io
        io.eol = b"\n"
        io.timeout = _REPLY
        try:
            yield from self.ask(None, 220)
            yield from self.hello()
            if security == "starttls":
                if "STARTTLS" not in self.ext:
                    raise SessionError(security, "it does not offer STARTTLS")
                yield from self.ask(b"STARTTLS", 220, security)
                io.context = tls
                yield TLS
                self.feed = Parser()
                yield from self.hello()
            if user:
                from .sasl import login  # a server that trusts the network needs none

                trouble = yield from login(self.ask, self.ext.get("AUTH", "").split(), io.tls, user, password, auth)
                if trouble:
                    raise SessionError(*trouble)
        except SMTPError as e:
            raise SessionError("reply", e.text)
        except (OSError, ValueError, EOFError) as e:
            if io.shaking:
                from .tlserror import tls_reason

                raise SessionError(("tls " + tls_reason(e)).strip(), "the TLS handshake failed: %s" % e)
            raise SessionError("lost", "the connection was lost: %s" % e)

    def hello(self):
        self.feed.lines = lines = []
        reply = yield from self.ask(b"EHLO " + self.name)
        self.feed.lines = None
        self.ext = ext = {}
        if reply[0] >= 500:
            yield from self.ask(b"HELO " + self.name, 250)
        elif reply[0] != 250:
            raise SessionError("reply", "it answers EHLO with %d %s" % (reply[0], reply[2]), reply)
        else:
            for words in lines[1:]:
                words = words.upper().replace("AUTH=", "AUTH ").split(None, 1)  # the form before RFC 4954
                if words:
                    ext[words[0]] = " ".join([ext.get(words[0], "")] + words[1:]).strip()

    # -- mail

    def limit(self):
        """The octets that the server takes for a mail (RFC 1870), 0 when it does not say."""
        limit = self.ext.get("SIZE", "")
        return int(limit) if limit.isdigit() else 0

    def mails(self, source):
        """Generator: sends what `source` gives, until it gives None. Raises SessionError when the session has ended;
        each job it was given has had its done() by then."""
        flying = []  # (what is answered, job) in the order of the replies to come
        job = None
        self.source = source
        try:
            while True:
                job = self.next()
                self.ahead = None
                if job is None:
                    if not flying:
                        return
                    yield from self.settle(flying)
                    continue
                yield from self.offer(job, flying)
                job = None
        except SMTPError as e:
            raise SessionError("lost", e.text, (e.code, e.enhanced, e.text))
        except (OSError, ValueError, EOFError) as e:
            io = self.io
            io.out = b""
            if not isinstance(e, EOFError):
                # Sending failed, perhaps because the server had said something first: what has arrived counts.
                self.hurry = 1000
                try:
                    while flying:
                        yield from self.settle(flying)
                except (SMTPError, OSError, ValueError, EOFError):
                    pass
            raise SessionError("lost", "the connection was lost: %s" % e)
        finally:
            self.give_up(flying, job)

    def next(self):
        """The job that comes next, or None."""
        job = self.ahead or self.source.next()
        if job is not None and self.ahead is None:
            job.result = [None] * len(job.rcpts)
            job.nomail = job.refused = None  # MAIL's refusal; the first refused chunk
        return job

    def give_up(self, flying, job):
        """What had no answer stays undecided; a recipient who was refused for good stays refused."""
        self.pay()
        ahead, self.ahead = self.ahead, None
        for j in self.jobs(flying) + [job, ahead]:
            if j is not None and j.result is not None:
                j.done([r if r and r[0] >= 500 else None for r in [j.nomail or r or j.refused for r in j.result]])
                j.result = None

    def jobs(self, flying):
        """The mails that are in flight."""
        jobs = []
        for _, job in flying:
            if job is not None and not (jobs and jobs[-1] is job):  # "in" compares, which takes its time
                jobs.append(job)
        return jobs

    def offer(self, job, flying):
        """Sends one mail, without waiting where the server allows it."""
        io = self.io
        ext = self.ext
        fast = "PIPELINING" in ext
        chunking = "CHUNKING" in ext
        limit = self.limit()
        if 0 < limit < job.size:  # better not sent than sent in vain
            self.finish(job, (552, "5.3.4", "the mail has %d octets, the server takes %d" % (job.size, limit)))
            return
        for word in job.body.split():
            if word not in ext:
                self.finish(job, (554, "5.6.3" if word < "A" else "5.6.7", "the server does not offer " + word))
                return
        # A window, so that little has to be sent twice when the session breaks.
        while flying:
            jobs = self.jobs(flying)
            if len(jobs) < self.window and sum([j.size for j in jobs]) + job.size <= self.window_bytes:
                break
            yield from self.settle(flying)
        yield from self.envelope(job, flying)
        if not fast or (chunking and job.size > self.window_bytes):
            # Slow servers, and mail too big to send in vain: see first whether anyone takes it.
            yield from self.drain(flying)
            if not job.taken:
                if not job.nomail:  # a transaction is open that nobody wants
                    self.say(b"RSET", _RSET, None, flying)
                self.finish(job, None)
                if not fast:
                    yield from self.drain(flying)
                return
        if self.buf is None:
            self.buf = bytearray(1536)
        if chunking:
            yield from self.send_chunks(job, flying, fast)
        else:
            self.say(b"DATA", _DATA, job, flying)
            yield SEND
            self.pay()
            # While the server is at work: it waits for the mail once it has said 354.
            tail = b"\r\n"
            n = job.out.readinto(memoryview(self.buf)[:_READY])
            if n:
                tail = self.stuff(n, tail)
            text, io.out = io.out, b""
            self.ahead = self.next()
            while flying:  # all that came before is answered first
                kind, other = flying[0]
                reply = yield from self.settle(flying)
                if kind == _DATA and other is job:
                    break
            if reply[0] == 354:
                flying.append((_BODY, job))
                if job.taken:
                    io.out += text
                    yield from self.send_data(job, tail)
                else:
                    io.out += b".\r\n"
                self.whole(flying)
            else:
                if not job.nomail:  # the transaction is open still
                    self.say(b"RSET", _RSET, None, flying)
                self.finish(job, reply)
            if not fast:
                yield from self.drain(flying)

    def envelope(self, job, flying):
        """MAIL and RCPTs, in one group where that is allowed."""
        io = self.io
        ext = self.ext
        fast = "PIPELINING" in ext
        job.left = len(job.rcpts)  # RCPTs without an answer
        job.taken = 0  # RCPTs accepted
        command = b"MAIL FROM:<%s>" % job.sender.encode()
        if "SIZE" in ext and job.size:
            command += b" SIZE=%d" % job.size
        if job.body and "8BITMIME" in ext:
            command += b" BODY=" + job.body.encode()
        dsn = job.dsn
        if dsn:
            command += dsn[0].encode()
        self.say(command, _MAIL, job, flying)
        if not fast:
            yield from self.drain(flying)
        for n, rcpt in enumerate(job.rcpts):
            if job.nomail:
                break
            self.say(b"RCPT TO:<%s>%s" % (rcpt.encode(), dsn[1][n].encode() if dsn else b""), _RCPT, job, flying)
            if not fast:
                yield from self.drain(flying)
            elif len(io.out) > _HIGH:
                yield SEND
            while len(flying) > _PENDING:
                yield from self.settle(flying)

    def send_chunks(self, job, flying, fast):
        """The mail in BDAT chunks: as many as its header section needs, and the rest in one."""
        io = self.io
        buf = self.buf
        mv = memoryview(buf)
        out = job.out
        while True:
            n = out.readinto(buf)
            rest = out.rest
            if rest is None:
                self.say(b"BDAT %d" % n, _CHUNK, job, flying)
                io.out += mv[:n]
                yield SEND
                while len(flying) > (_PENDING if fast else 0):
                    yield from self.settle(flying)
                continue
            self.say(b"BDAT %d LAST" % (n + rest), _BODY, job, flying)
            io.out += mv[:n]
            while rest > 0:
                if len(io.out) > _HIGH:
                    yield SEND
                n = out.readinto(buf)
                if n == 0:
                    raise SMTPError(421, "4.3.0", "the mail ended before its time")
                rest -= n
                io.out += mv[:n]
            self.whole(flying)
            yield SEND
            if not fast:
                yield from self.drain(flying)
            return

    def send_data(self, job, tail):
        """The mail with its dots stuffed (RFC 5321 4.5.2), and the dot at its end. tail: the last two octets sent."""
        readinto = job.out.readinto
        while True:
            n = readinto(self.buf)
            if n == 0:
                break
            tail = self.stuff(n, tail)
            if len(self.io.out) > _HIGH:
                yield SEND
                self.pay()
        self.io.out += b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"

    def stuff(self, n, tail):
        """buf[:n] into `out`, with a dot before each that begins a line. tail: the last two octets that were sent;
        returns the new ones."""
        io = self.io
        buf = self.buf
        mv = memoryview(buf)
        lo = 0
        head = tail + mv[:2]
        if head[:3] == b"\r\n.":
            io.out += b"."
        elif n > 1 and head[1:4] == b"\r\n.":
            io.out += mv[:1]
            io.out += b"."
            lo = 1
        while True:
            i = buf.find(b"\r\n.", lo, n)
            if i < 0:
                break
            io.out += mv[lo : i + 2]
            io.out += b"."
            lo = i + 2
        io.out += mv[lo:n]
        return bytes(mv[n - 2 : n]) if n > 1 else tail[1:] + mv[:1]

    def say(self, command, kind, job, flying):
        """Sends a command, whose reply is settled as `kind` of `job`."""
        if not flying:
            self.unasked()
        self.io.out += command + b"\r\n"
        flying.append((kind, job))

    def whole(self, flying):
        """The mail's last octet is in `out`. A refusal may have come before it, but nobody can have taken the mail."""
        io = self.io
        if len(flying) == 1 and io.lo < io.hi and io.buf[io.lo] < 52:  # "4"
            self.unasked()
        job = flying[-1][1]
        flying[-1] = _END, job
        job.out = None  # it may be large, and the answer may take long

    def drain(self, flying):
        while flying:
            yield from self.settle(flying)

    def settle(self, flying):
        """Takes the next reply and gives it to whom it belongs. Returns it."""
        kind, job = flying[0]
        io = self.io
        if io.lo == io.hi:
            self.pay()
        io.timeout = self.hurry or (_FINAL if kind >= _CHUNK else _REPLY)
        while True:
            line = io.line() if io.lo < io.hi else None
            reply = self.feed.feed(line if line is not None else (yield LINE))
            if reply is not None:
                break
        code = reply[0]
        if code == 421:
            raise SMTPError(*reply)
        if code < 250 or (code < 400 and (code != 354 if kind == _DATA else kind == _BODY or code >= 300)):
            raise SMTPError(421, "4.5.0", "its answer does not fit: %d %s" % (code, reply[2]))
        flying.pop(0)
        if job is None or job.result is None:
            return reply
        if kind == _MAIL:
            if code >= 400:
                job.nomail = reply
        elif kind == _RCPT:
            if code == 552 and job.taken and reply[1] in ("", "5.5.3"):  # too many recipients, RFC 5321 4.5.3.1.10
                reply = 452, "4.5.3", reply[2]
            if code >= 400:
                job.result[len(job.rcpts) - job.left] = reply
            else:
                job.taken += 1
            job.left -= 1
        elif kind == _CHUNK:
            if code >= 400 and not job.refused:
                job.refused = reply
        elif kind != _DATA:
            self.owed = job, job.refused or reply
            if not flying or flying[-1][0] != _DATA:
                self.pay()
        return reply

    def pay(self):
        """Tells the fate of the mail before. Its removal from flash has time until the next one is on its way."""
        if self.owed:
            owed, self.owed = self.owed, None
            self.finish(*owed)

    def finish(self, job, reply):
        """The verdict on a mail: a recipient is judged by MAIL's refusal, then RCPT's, then the mail's own reply."""
        self.pay()
        result = job.result
        job.result = None
        job.done([job.nomail or r or reply for r in result])

    def quit(self):
        """Generator: says QUIT and does not insist on an answer."""
        self.io.timeout = 5000
        try:
            yield from self.ask(b"QUIT")
        except (SMTPError, OSError, EOFError, ValueError):
            pass


async def open_session(host, port, name, security="starttls", context=None, user="", password="", auth=None, size=2048,
                       resolve=None, kind=Client):
    """Connects to a server and gets the session ready for mail. Returns (stream, Client), or raises SessionError.

    name: str for EHLO; security: "starttls", "tls" or "none"; context: SSLContext of stream.client_context (with it the
    server's certificate must be valid for `host`); user "" sends no AUTH; auth: a mechanism to insist on;
    resolve: looks `host` up instead of getaddrinfo, see stream.connect; kind: a class like Client.
    """
    if security != "none" and (context is None or security not in ("starttls", "tls")):
        raise ValueError("security is 'starttls' or 'tls' with a context of stream.client_context, or 'none'")
    try:
        stream = await connect(host, port, _CONNECT, size, resolve)
    except OSError as e:
        raise SessionError("connect", "no connection to %s port %d: %s" % (host, port, e.args[-1] if e.args[1:] else e))
    try:
        client = kind(stream, name)
        stream.context = tls = (context, host)
        if security == "tls":
            stream.start_tls()
        await stream.run(client.start(security, tls, user, password, auth))
        return stream, client
    except BaseException:
        stream.close()
        raise


async def send(session, sender, rcpts, message):
    """Sends a mail in a session of open_session(). message: bytes, str or an iterable of bytes. An address that is not
    ASCII needs a server with SMTPUTF8, unless it is so in its domain alone.

    Returns {recipient: (code, enhanced, text)} of those who were refused: empty when all were served. Raises
    SessionError when the session broke, ValueError for an address that is none.
    """
    from .single import Mail  # a relay has jobs of its own

    stream, client = session
    job = Mail(sender, rcpts, message)
    try:
        await stream.run(client.mails(job))
    finally:
        if hasattr(message, "close"):
            message.close()  # a file that is attached
    return {to: r for to, r in zip(rcpts, job.replies) if r[0] >= 300}


async def quit(session):
    """Ends a session of open_session()."""
    stream, client = session
    try:
        await stream.run(client.quit())
    except OSError:
        pass
    stream.close()
