"""SMTP server, RFC 5321: sessions that take bytes and give bytes, and the listener that runs them.

The protocol is here; the policy is a backend, any object with

    open(envelope)              called at DATA: gives a sink, or raises SMTPError (452 when there is no room)
    mail(envelope), rcpt(envelope, address)     optional: raise SMTPError to refuse; rcpt may return another address
    limit()                     optional: the most octets that a mail may have now, for SIZE

A sink has `write(piece)` (bytes-like, valid only during the call), `commit()`, which returns a text for the 250 once
the mail is safe, and `abort()`. Everything a session needs to say no is an SMTPError. What takes time, open(), write()
and commit() may return as an awaitable: the session waits for it, and reads nothing meanwhile (a piece is valid so
long).

May use: stream, listen, reply, address, path, network, and auth where there are users.
"""

import asyncio
from errno import ETIMEDOUT

from . import const
from .address import valid_domain
from .listen import accept, listen
from .network import in_networks, parse_ip, parse_network
from .path import Envelope, parse_params, parse_path
from .reply import PLAIN, SMTPError
from .scan import chunk, data
from .stream import CHUNK, DATA, LINE, SEND, TLS, Stream, Wire, sleep_ms, ticks_add, ticks_diff, ticks_ms

# A wire reads mail where there is a server: a client never loads that.
Wire.data = data
Wire.chunk = chunk


async def hold(self, request):
    """Waits for what the session asked for, an awaitable, and gives the session its value or its exception. Neither
    reads meanwhile nor counts the time against the peer. Returns what the session asks for next."""
    try:
        try:
            value = await request
        except Exception as e:
            return self.session.throw(e)
        return self.send(value)
    except StopIteration:
        return SEND  # what it said last goes out, then run() sees the end


Stream.hold = hold

_MAX_RCPTS = const(100)  # RFC 5321 4.5.3.1.8: at least 100; the queue keeps a bit for each
_MAX_ERRORS = const(10)
_MAX_COMMANDS = const(1000)  # in a session, without a mail among them
_MAX_HOPS = const(30)  # Received fields, RFC 5321 6.3 asks for a limit of 100 at the most
_TIMEOUT = const(300000)  # ms for a command, RFC 5321 4.5.3.2.7
_MAIL_TIMEOUT = const(600000)  # ms for a whole mail, however slowly it trickles

_MAX_LINE = const(512)  # RFC 5321 4.5.3.1.5, CRLF included

_OK = b"250 2.0.0 ok\r\n"
_GO = b"354 end with a dot on a line of its own\r\n"


def _clean(text):
    """Printable ASCII from a str: controls become spaces, everything else outside it "?"."""
    return "".join(
        [c if " " <= c <= "~" else " " if c < " " or c == "\x7f" else "?" for c in text]
    ).encode()


def line(code, enhanced, text):
    """Bytes of one reply with CRLF; each "\\n" in `text` (str) starts another line of it.

    `enhanced` is "" where RFC 2034 section 4 allows none (greeting, EHLO, 334, 354).
    """
    start = str(code).encode()
    enhanced = (" " + enhanced + " ").encode() if enhanced else b" "
    if "\n" not in text:
        body = text.encode()
        if body.strip(PLAIN):
            body = _clean(text)
        return (start + enhanced + body)[: _MAX_LINE - 2] + b"\r\n"
    lines = [enhanced[1:] + _clean(part) for part in text.split("\n")]
    out = []
    while lines:
        part = lines.pop(0)
        out.append((start + (b"-" if lines else b" ") + part)[: _MAX_LINE - 2])
    out.append(b"")
    return b"\r\n".join(out)


class Listener:
    """How one port behaves. All of it may be set after construction.

    domain: str, the name in the greeting; backend: see above; networks: CIDR texts whose hosts may relay without AUTH;
    users: {name: verifier of auth.make_verifier}; context: SSLContext of listen.server_context, for tls "starttls"
    (offered) or "tls" (from the start); auth_in_clear: True offers AUTH without TLS too; max_size: octets a mail may
    have; log: called with a text.
    """

    def __init__(self, domain, backend, networks=(), users=None, tls="none", context=None, auth_in_clear=False,
                 max_size=10485760, log=None):
        self.domain = domain
        self.backend = backend
        self.networks = [parse_network(n) for n in networks]
        self.users = users or {}
        self.tls = tls
        self.context = context
        self.auth_in_clear = auth_in_clear
        self.log = log or str  # which does nothing with it, and is there already
        self.bare = "fix"  # a CR or LF alone in a mail is mended; "refuse" refuses the mail
        self.greet_delay = 0  # ms in which nobody may talk before the greeting
        self.dsn = False  # True: the backend sees to delivery status notifications (RFC 3461), DSN is offered
        self.slots = None  # slots.Slots: the TLS sessions that there is memory for
        self.timeout = _TIMEOUT
        self.mail_timeout = _MAIL_TIMEOUT
        self.last = (None, False)
        self.rcpt_hook = getattr(backend, "rcpt", None)
        self.mail_hook = getattr(backend, "mail", None)
        self.limit = getattr(backend, "limit", None)
        self.greeting = b"220 %s ESMTP\r\n" % domain.encode()
        self.names = None
        self.resize(max_size)

    def resize(self, size):
        """From here on a mail may have `size` octets, and EHLO says so."""
        self.max_size = size
        self.hello = b"250-%s\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n250-CHUNKING\r\n" % (
            self.domain.encode(), size)

    def mechanisms(self):
        """The names of the AUTH mechanisms. A listener without users never loads the module."""
        if self.names is None:
            from .auth import mechanisms

            self.names = mechanisms(self.users)
        return self.names


def dsn_param(key, value):
    """A parameter of RFC 3461 as it goes on to the next hop, checked."""
    from .notify import CHECK

    try:
        CHECK[key](value or "")
    except ValueError as e:
        raise SMTPError(501, "5.5.4", "%s: %s" % (key, e))
    return " %s=%s" % (key, value.upper() if key == "RET" else value)


class Session:
    """One session. `run()` is the generator for stream.Stream.run."""

    def __init__(self, wire, peer, listener):
        self.io = wire
        wire.bare = wire.cr = False  # for scan: a CR or LF alone was seen; a CR was held back
        self.peer = peer
        self.on = listener
        if peer != listener.last[0]:  # devices call again and again
            listener.last = (peer, bool(listener.networks) and in_networks(parse_ip(peer), listener.networks))
        self.known = listener.last[1]
        self.tls = listener.tls == "tls"
        self.errors = self.commands = self.logins = 0
        self.open = True
        self.sink = None  # where the mail in transfer goes
        if self.known:
            wire.eol = b"\n"
        self.start()

    def start(self):
        """The state after the greeting, and again after STARTTLS (RFC 3207 4.2)."""
        self.helo = None
        self.esmtp = False
        self.user = None
        self.forget()

    def forget(self):
        """No transaction. A mail whose transfer had begun is the client's still."""
        self.mail = None
        sink = self.sink
        self.sink = None
        if sink:
            sink.abort()

    def run(self):
        io = self.io
        on = self.on
        commands = on.commands
        try:
            if on.greet_delay:
                # Who talks before the greeting does not speak SMTP.
                io.timeout = on.greet_delay
                try:
                    yield LINE
                    io.out += b"554 5.5.1 wait for the greeting\r\n"
                    return
                except OSError as e:
                    if e.args[0] != ETIMEDOUT:
                        raise
            io.timeout = on.timeout
            io.out += on.greeting
            while self.open:
                text = yield LINE
                if text is False:
                    self.refuse(SMTPError(500, "5.5.2", "line too long"))
                    continue
                self.commands += 1
                if self.known and text and (text[-1] <= 32 or text[0] <= 32):
                    text = text.strip()  # devices pad their lines
                i = text.find(b" ")
                verb = text if i < 0 else text[:i]
                handler = commands.get(verb) or commands.get(verb.upper())
                try:
                    if handler is None:
                        if verb.upper() in _WEB:
                            raise SMTPError(421, "4.7.0", "this is not the web")
                        raise SMTPError(500, "5.5.2", "command not recognized")
                    more = handler(self, b"" if i < 0 else text[i + 1 :])
                    if more is not None:
                        yield from more
                    elif self.commands > _MAX_COMMANDS:
                        raise SMTPError(421, "4.7.0", "too many commands")
                except SMTPError as e:
                    self.refuse(e)
                if len(io.out) > 1000:
                    yield SEND
        except (OSError, EOFError, ValueError) as e:
            if io.shaking:
                on.log("TLS handshake with %s failed (%s): a device that speaks only TLS 1.0 or 1.1, or does not know "
                       "this certificate, needs a listener with tls = \"none\"" % (self.peer, e))
            elif not isinstance(e, OSError) or e.args[0] != ETIMEDOUT:
                raise
            else:
                io.out += b"421 4.4.2 timed out, closing\r\n"
        finally:
            self.forget()

    def refuse(self, e):
        """Answers with an error; too many of them end the session."""
        self.io.out += line(e.code, e.enhanced, e.text)
        if e.code != 452 or self.commands > _MAX_COMMANDS:  # our limits are not the client's fault
            self.errors += 1
        if e.code == 421:
            self.open = False
        elif self.errors >= _MAX_ERRORS:
            self.io.out += b"421 4.7.0 too many errors, closing\r\n"
            self.open = False

    def hello_(self, arg, esmtp):
        name = arg.strip()
        try:
            name = str(name, "utf-8")
        except UnicodeError:
            name = ""
        if not self.known and not valid_domain(name):
            raise SMTPError(501, "5.5.4", "give your domain or address literal")
        self.forget()
        self.helo = name
        self.esmtp = esmtp
        on = self.on
        if on.limit:
            size = on.limit()
            if size != on.max_size:
                on.resize(size)

    def helo_(self, arg):
        self.hello_(arg, False)
        self.io.out += b"250 %s\r\n" % self.on.domain.encode()

    def ehlo(self, arg):
        self.hello_(arg, True)
        on = self.on
        out = on.hello
        if on.dsn:
            out += b"250-DSN\r\n"
        if on.tls == "starttls" and not self.tls:
            out += b"250-STARTTLS\r\n"
        if self.may_login():
            out += b"250-AUTH %s\r\n" % " ".join(on.mechanisms()).encode()
        self.io.out += out + b"250 ENHANCEDSTATUSCODES\r\n"

    def may_login(self):
        return bool(self.on.users) and (self.tls or self.on.auth_in_clear)

    def mail_(self, arg):
        if arg[:5] != b"FROM:" and arg[:5].upper() != b"FROM:":
            raise SMTPError(501, "5.5.4", "say MAIL FROM:<address>")
        if self.helo is None and not self.known:
            raise SMTPError(503, "5.5.1", "say EHLO first")
        if self.mail or self.sink:
            raise SMTPError(503, "5.5.1", "one mail at a time")
        on = self.on
        if not self.known and self.user is None:
            # Never an open relay (RFC 2505, RFC 5068): without rights nothing is taken, whatever the address looks
            # like.
            if self.may_login():
                raise SMTPError(530, "5.7.0", "authentication required")
            if on.users and on.tls == "starttls" and not self.tls:
                raise SMTPError(530, "5.7.0", "say STARTTLS, then authenticate")
            on.log("refused mail from %s: not in an allowed network, not authenticated" % self.peer)
            raise SMTPError(550, "5.7.1", "relaying denied")
        sender, rest = parse_path(arg[5:], self.known)
        mail = Envelope(sender, None, self.peer, self.helo or "", self.user, self.tls, self.esmtp)
        if rest:
            for key, value in parse_params(rest).items():
                if key == "SIZE":
                    if not value or not value.isdigit():
                        raise SMTPError(501, "5.5.4", "SIZE takes a number")
                    mail.size = int(value)
                elif key == "BODY":
                    mail.body = (value or "").upper()
                    if mail.body not in ("7BIT", "8BITMIME"):
                        raise SMTPError(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
                elif on.dsn and key in ("RET", "ENVID"):
                    mail.dsn += dsn_param(key, value)
                elif key != "AUTH":  # RFC 4954 5: accepted, the submitter is not passed on
                    raise SMTPError(555, "5.5.4", "parameter %s is not supported" % key)
        if mail.size > on.max_size:
            raise self.too_big()
        if on.mail_hook:
            on.mail_hook(mail)
        self.mail = mail
        self.io.out += b"250 2.1.0 ok\r\n"

    def too_big(self):
        return SMTPError(552, "5.3.4", "the limit is %d octets" % self.on.max_size)

    def rcpt(self, arg):
        mail = self.mail
        if not mail:
            raise SMTPError(503, "5.5.1", "say MAIL first")
        if arg[:3] != b"TO:" and arg[:3].upper() != b"TO:":
            raise SMTPError(501, "5.5.4", "say RCPT TO:<address>")
        to, rest = parse_path(arg[3:], self.known, "5.1.3")
        if not to:
            raise SMTPError(501, "5.1.3", "a recipient is needed")
        dsn = ""
        for key, value in parse_params(rest).items() if rest else ():
            if not self.on.dsn or key not in ("NOTIFY", "ORCPT"):
                raise SMTPError(555, "5.5.4", "parameter %s is not supported" % key)
            dsn += dsn_param(key, value)
        if len(mail.rcpts) >= _MAX_RCPTS:
            raise SMTPError(452, "4.5.3", "too many recipients, send the rest in another mail")
        if self.on.rcpt_hook:
            to = self.on.rcpt_hook(mail, to) or to
        mail.rcpts.append(to)
        if dsn or mail.notify:
            mail.notify = (mail.notify or [""] * (len(mail.rcpts) - 1)) + [dsn]
        self.io.out += b"250 2.1.5 ok\r\n"

    def begin(self):
        """Opens the sink for the mail of this transaction. Returns what opened() is to wait for, or None."""
        mail = self.mail
        if not mail:
            raise SMTPError(503, "5.5.1", "say MAIL first")
        if not mail.rcpts:
            raise SMTPError(554, "5.5.1", "no valid recipients")
        try:
            sink = self.on.backend.open(mail)
        except (SMTPError, OSError) as e:
            self.mail = None  # the next BDAT must not begin in the middle
            raise self.failed(e)
        self.size = 0
        self.wrong = None
        self.head = b"\n"  # the end of what was seen of the header section, None behind it
        self.hops = 0
        self.io.bare = self.io.cr = False
        self.until = ticks_add(ticks_ms(), self.on.mail_timeout)
        if not hasattr(sink, "commit"):
            return sink
        self.sink = sink

    def opened(self, late):
        """Generator: waits for the sink."""
        try:
            self.sink = yield late
        except (SMTPError, OSError) as e:
            self.mail = None
            raise self.failed(e)
        self.until = ticks_add(ticks_ms(), self.on.mail_timeout)

    def data(self, arg):
        if arg:
            raise SMTPError(501, "5.5.4", "DATA takes no argument")
        if self.sink:
            raise SMTPError(503, "5.5.1", "BDAT goes on with BDAT")
        return self.receive(self.begin())

    def receive(self, late):
        io = self.io
        if late is not None:
            yield from self.opened(late)
        io.out += _GO
        io.bol = True
        while True:
            self.hurry()
            piece = yield DATA
            if piece is False:
                break
            wait = self.take(piece)
            if wait is not None:
                yield from self.taken(wait)
        wait = self.end()
        if wait is not None:
            yield from self.ended(wait)

    def hurry(self):
        """The time that is left for this mail, however slowly it trickles, bounds the wait for its next piece."""
        left = ticks_diff(self.until, ticks_ms())
        if left <= 0:
            raise OSError(ETIMEDOUT)
        self.io.timeout = left

    def bdat(self, arg):
        """RFC 3030 4.2: the octets follow whatever is answered, so they are read in any case."""
        words = arg.upper().split()
        last = len(words) == 2 and words[1] == b"LAST"
        if not words or len(words[0]) > 10 or not words[0].isdigit() or len(words) > 1 and not last:
            self.open = False  # where the next command begins is anybody's guess
            raise SMTPError(501, "5.5.4", "say BDAT size or BDAT size LAST")
        return self.chunk(int(words[0]), last)

    def chunk(self, size, last):
        io = self.io
        wrong = None
        if not self.sink:
            try:
                late = self.begin()
                if late is not None:
                    yield from self.opened(late)
            except SMTPError as e:
                wrong = e
                self.until = ticks_add(ticks_ms(), self.on.mail_timeout)
        io.want = size
        while io.want > 0:
            self.hurry()
            piece = yield CHUNK
            if not wrong:
                wait = self.take(piece)
                if wait is not None:
                    yield from self.taken(wait)
        io.timeout = self.on.timeout
        if last and io.cr:
            io.bare = True
        if wrong:
            if last:
                self.forget()
            raise wrong
        if last or self.wrong:
            wait = self.end()
            if wait is not None:
                yield from self.ended(wait)
        else:
            io.out += line(250, "2.0.0", "%d octets" % size)

    def take(self, piece):
        """A piece of mail into the sink, unless something was wrong with what came before. Returns what is to be
        waited for, or None."""
        if self.wrong:
            return
        self.size += len(piece)
        if self.size > self.on.max_size:
            self.wrong = self.too_big()
        if self.head is not None:
            self.look(piece)
        if not self.wrong:
            try:
                return self.sink.write(piece)
            except (SMTPError, OSError) as e:
                self.wrong = self.failed(e)
        self.sink.abort()

    def look(self, piece):
        """Counts the Received fields in a piece of the header section, and sees its end."""
        head = self.head
        for lo in range(0, len(piece), 256):
            head += bytes(piece[lo : lo + 256])  # a heap in pieces may have no more room in one
            i = head.find(b"\n\r\n")
            if i >= 0:
                head = head[:i]
            self.hops += head.lower().count(b"\nreceived:")
            if i >= 0:
                head = None
                break
            head = head[-9:]  # less than the pattern: none is counted twice
        self.head = head
        if self.hops > _MAX_HOPS:
            self.wrong = SMTPError(554, "5.4.6", "%d hops: the mail goes round in a circle" % self.hops)

    def taken(self, wait):
        """Generator: waits until the sink has taken a piece."""
        try:
            if not isinstance(wait, int):  # what write() of a file returns
                yield wait
        except (SMTPError, OSError) as e:
            self.wrong = self.failed(e)
            self.sink.abort()

    def failed(self, e):
        """The refusal for what the backend raised."""
        if isinstance(e, SMTPError):
            return e
        self.on.log("cannot store mail: %s" % e)
        return SMTPError(451, "4.3.0", "the mail could not be stored")

    def end(self):
        """All of a mail has arrived: commits it and answers. Returns what is to be waited for before that, or None."""
        io = self.io
        io.timeout = self.on.timeout
        if self.io.bare and self.on.bare == "refuse" and not self.wrong:
            self.wrong = SMTPError(554, "5.6.0", "a CR or LF stands alone: lines end with CRLF")
        if self.wrong:
            self.forget()
            raise self.wrong
        try:
            text = self.sink.commit()
        except (SMTPError, OSError) as e:
            self.forget()
            raise self.failed(e)
        if text is not None and not isinstance(text, str):
            return text
        self.safe(text)

    def ended(self, wait):
        """Generator: waits until the mail is safe."""
        try:
            text = yield wait
        except (SMTPError, OSError) as e:
            self.forget()
            raise self.failed(e)
        self.safe(text)

    def safe(self, text):
        """The mail is safe, and the sender hears that."""
        self.sink = self.mail = None
        self.commands = 0
        text = text.encode() if text else b"ok"
        self.io.out += line(250, "2.0.0", str(text, "utf-8")) if text.strip(PLAIN) else b"250 2.0.0 %s\r\n" % text

    def rset(self, arg):
        self.forget()
        self.io.out += _OK

    def noop(self, arg):
        self.io.out += _OK

    def vrfy(self, arg):
        self.io.out += b"252 2.0.0 cannot verify, send mail to try\r\n"

    def no(self, arg):
        raise SMTPError(502, "5.5.1", "not implemented")

    def help_(self, arg):
        self.io.out += b"214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY AUTH STARTTLS\r\n"

    def quit_(self, arg):
        self.open = False
        self.io.out += b"221 2.0.0 bye\r\n"

    def starttls(self, arg):
        if self.on.tls != "starttls":
            raise SMTPError(502, "5.5.1", "no TLS here")
        if self.tls:
            raise SMTPError(503, "5.5.1", "TLS is on already")
        if arg:
            raise SMTPError(501, "5.5.4", "STARTTLS takes no argument")
        return self.upgrade()

    def upgrade(self):
        io = self.io
        if self.on.slots:
            yield from self.on.slots.wait(self, io)
        io.out += b"220 2.0.0 go ahead\r\n"
        io.context = (self.on.context, None)
        yield TLS
        self.tls = True
        self.start()

    def auth(self, arg):
        if self.user is not None or self.mail or self.sink:
            raise SMTPError(503, "5.5.1", "not now")
        if not self.may_login():
            if self.on.users and not self.tls:
                raise SMTPError(538, "5.7.11", "say STARTTLS first")
            raise SMTPError(502, "5.5.1", "no AUTH here")
        from .auth import login

        return login(self, arg)


# A page in somebody's browser can make it send these, with a mail in the body of the request.
_WEB = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE")

COMMANDS = {
    b"EHLO": Session.ehlo,
    b"HELO": Session.helo_,
    b"MAIL": Session.mail_,
    b"RCPT": Session.rcpt,
    b"DATA": Session.data,
    b"BDAT": Session.bdat,
    b"RSET": Session.rset,
    b"NOOP": Session.noop,
    b"QUIT": Session.quit_,
    b"VRFY": Session.vrfy,
    b"EXPN": Session.no,
    b"TURN": Session.no,
    b"ETRN": Session.no,
    b"HELP": Session.help_,
    b"STARTTLS": Session.starttls,
    b"AUTH": Session.auth,
}
Listener.commands = COMMANDS  # of one listener there may be others


class Server:
    """Runs listeners. At most `max_sessions` sessions at a time, and `max_per_peer` from one address: the next one
    hears 421. `size`: octets of buffer for a session, which bounds a command line.
    """

    def __init__(self, max_sessions=8, size=2048, max_per_peer=None):
        self.max_sessions = max_sessions
        Stream.keep = min(4, max_sessions // 2)  # fewer where there is memory for few
        self.max_per_peer = max_per_peer or max_sessions
        self.peers = []  # the address of each session
        self.size = size
        self.tasks = []
        self.socks = []
        self.spare = []  # streams and sessions of the past: filling their dictionaries again is cheaper than new ones

    def bind(self, address, port, listener, backlog=8):
        """Listens on `address` (text) and `port`; OSError (EADDRINUSE) when the port is taken.

        Returns a function without arguments whose coroutine serves for ever.
        """
        sock = listen(address, port, backlog)
        self.socks.append(sock)

        def serve(conn, peer):
            if len(self.peers) >= self.max_sessions or self.peers.count(peer) >= self.max_per_peer:
                try:
                    conn.setblocking(False)
                    conn.send(b"421 4.3.2 too many sessions, try again later\r\n")
                except OSError:
                    pass
                conn.close()
                return
            stream = None
            self.peers.append(peer)
            try:
                if self.spare:
                    stream, session = self.spare.pop()
                    stream.__init__(conn, self.size)
                    session.__init__(stream, peer, listener)
                else:
                    stream = Stream(conn, self.size)
                    session = Session(stream, peer, listener)
                stream.task = asyncio.create_task(self.session(stream, peer, listener, session))
                self.tasks.append(stream.task)
            except MemoryError:  # this one goes, the listener stays
                self.peers.remove(peer)
                # A spare stream that never got this connection has another, closed one: its number is somebody else's.
                (stream if stream and stream.raw is conn else conn).close()

        return lambda: accept(sock, serve)

    async def session(self, stream, peer, listener, session):
        short = False
        try:
            if listener.tls == "tls":
                for _ in range(200):
                    if not listener.slots or listener.slots.take(session):
                        break
                    await sleep_ms(100)
                else:
                    return  # the device tries again
                stream.context = (listener.context, None)
                stream.start_tls()
            await stream.run(session.run())
        except (OSError, EOFError):
            pass  # the peer has gone: nothing was accepted that is not in the queue
        except MemoryError:
            short = True
        finally:
            self.tasks.remove(stream.task)
            self.peers.remove(peer)
            stream.close()
            if listener.slots:
                listener.slots.give(session)
            if len(self.spare) < Stream.keep:
                stream.buf = stream.mv = stream.session = stream.send = None
                self.spare.append((stream, session))
        if short:  # only now there is memory to say so
            listener.log("out of memory in a session with %s: it was dropped" % peer)

    async def close(self):
        """Ends all sessions, what they had not committed is forgotten, and stops listening."""
        most, self.max_sessions = self.max_sessions, 0  # nobody else gets in
        while self.tasks:
            await sleep_ms(0)  # a task that is cancelled before it has begun does not clean up
            for task in list(self.tasks):
                task.cancel()
        self.max_sessions = most
        for sock in self.socks:
            sock.close()
        self.socks = []
