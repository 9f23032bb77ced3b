"""SMTP server, RFC 5321: sessions that take bytes and give bytes, and the listener that runs them.

The protocol is here; the policy is a backend, any object with

    open(envelope)              called at DATA: gives a sink, or raises SMTPError (452 when there is no room)
    mail(envelope), rcpt(envelope, address)     optional: raise SMTPError to refuse; rcpt may return another address

A sink has `write(piece)` (bytes-like, valid only during the call), `commit()`, which returns a text for the 250 once
the mail is safe, and `abort()`. Everything a session needs to say no is an SMTPError.

May use: stream, reply, sasl, address.
"""

import asyncio

from . import sasl
from .address import Envelope, in_networks, parse_ip, parse_network, parse_params, parse_path, valid_domain
from .reply import SMTPError, line
from .stream import DATA, LINE, SLEEP, TLS, Stream, accept, listen, sleep_ms, tls_reason

_MAX_RCPTS = 100  # RFC 5321 4.5.3.1.8: at least 100; the queue keeps a bit for each
_MAX_ERRORS = 10
_MAX_COMMANDS = 1000  # in a session, without a mail among them
_MAX_LOGINS = 3
_MAX_HOPS = 30  # Received fields, RFC 5321 6.3 asks for a limit of 100 at the most
_TIMEOUT = 300000  # ms for a command, RFC 5321 4.5.3.2.7
_MAIL_TIMEOUT = 600000  # ms for a whole mail, however slowly it trickles

_OK = b"250 2.0.0 ok\r\n"
_GO = b"354 end with a dot on a line of its own\r\n"


class Listener:
    """How one port behaves. All of it may be set after construction.

    domain: str, the name in the greeting; backend: see above; networks: CIDR texts whose hosts may relay without AUTH;
    users: {name: verifier of sasl.make_verifier}; context: SSLContext of stream.server_context, for tls "starttls"
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
        self.max_size = max_size
        self.log = log or (lambda text: None)
        self.timeout = _TIMEOUT
        self.mail_timeout = _MAIL_TIMEOUT
        self.last = (None, False)
        self.rcpt_hook = getattr(backend, "rcpt", None)
        self.mail_hook = getattr(backend, "mail", None)
        self.greeting = b"220 %s ESMTP\r\n" % domain.encode()
        self.hello = b"250-%s\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n" % (domain.encode(), max_size)


class Session:
    """One session. `run()` is the generator for stream.Stream.run."""

    def __init__(self, wire, peer, listener):
        self.io = wire
        self.peer = peer
        self.on = listener
        if peer != listener.last[0]:  # devices call again and again
            listener.last = (peer, bool(listener.networks) and in_networks(parse_ip(peer), listener.networks))
        self.known = listener.last[1]
        self.tls = listener.tls == "tls"
        self.errors = self.commands = self.logins = 0
        self.open = True
        if self.known:
            wire.eol = b"\n"
        self.start()

    def start(self):
        """The state after the greeting, and again after STARTTLS (RFC 3207 4.2)."""
        self.helo = None
        self.esmtp = False
        self.user = None
        self.mail = None

    def run(self):
        io = self.io
        on = self.on
        io.timeout = on.timeout
        io.out = on.greeting
        try:
            while self.open:
                text = yield LINE
                if text is False:
                    self.refuse(SMTPError(500, "5.5.2", "line too long"))
                    continue
                self.commands += 1
                i = text.find(b" ")
                verb = text.upper() if i < 0 else text[:i].upper()
                handler = COMMANDS.get(verb)
                try:
                    if handler is None:
                        raise SMTPError(500, "5.5.2", "command not recognized")
                    more = handler(self, b"" if i < 0 else text[i + 1 :])
                    if more is not None:
                        yield from more
                    elif self.commands > _MAX_COMMANDS:
                        raise SMTPError(421, "4.7.0", "too many commands")
                except SMTPError as e:
                    self.refuse(e)
        except OSError as e:
            if io.shaking:
                on.log("TLS handshake with %s failed (%s)%s" % (self.peer, tls_reason(e) or e, _TLS_HINT))
                return
            if not self.open or e.args[0] != 110:
                raise
            io.out += b"421 4.4.2 timed out, closing\r\n"
        except ValueError as e:
            on.log("TLS handshake with %s failed (%s)%s" % (self.peer, e, _TLS_HINT))

    def refuse(self, e):
        """Answers with an error; too many of them end the session."""
        self.io.out += line(e.code, e.enhanced, e.text)
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
        if not valid_domain(name) and not self.known:
            raise SMTPError(501, "5.5.4", "give your domain or address literal")
        self.start_keep_user()
        self.helo = name
        self.esmtp = esmtp

    def start_keep_user(self):
        user = self.user
        self.start()
        self.user = user

    def helo_(self, arg):
        self.hello_(arg, False)
        self.io.out += b"250 %s\r\n" % self.on.domain.encode()

    def ehlo(self, arg):
        self.hello_(arg, True)
        on = self.on
        out = on.hello
        if on.tls == "starttls" and not self.tls:
            out += b"250-STARTTLS\r\n"
        if self.may_login():
            out += b"250-AUTH %s\r\n" % " ".join(sasl.MECHANISMS).encode()
        self.io.out += out + b"250 ENHANCEDSTATUSCODES\r\n"

    def may_login(self):
        return bool(self.on.users) and (self.tls or self.on.auth_in_clear)

    def mail_(self, arg):
        if arg[:5].upper() != b"FROM:":
            raise SMTPError(501, "5.5.4", "say MAIL FROM:<address>")
        if self.helo is None and not self.known:
            raise SMTPError(503, "5.5.1", "say EHLO first")
        if self.mail:
            raise SMTPError(503, "5.5.1", "one mail at a time")
        on = self.on
        if not self.known and self.user is None:
            # Never an open relay (RFC 2505, RFC 5068): without rights nothing is taken, whatever the address looks like.
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
        if arg[:3].upper() != b"TO:":
            raise SMTPError(501, "5.5.4", "say RCPT TO:<address>")
        to, rest = parse_path(arg[3:], self.known, "5.1.3")
        if not to:
            raise SMTPError(501, "5.1.3", "a recipient is needed")
        if rest:
            raise SMTPError(555, "5.5.4", "no parameter is supported here")
        if len(mail.rcpts) >= _MAX_RCPTS:
            raise SMTPError(452, "4.5.3", "too many recipients, send the rest in another mail")
        if self.on.rcpt_hook:
            to = self.on.rcpt_hook(mail, to) or to
        mail.rcpts.append(to)
        self.io.out += b"250 2.1.5 ok\r\n"

    def data(self, arg):
        mail = self.mail
        if not mail:
            raise SMTPError(503, "5.5.1", "say MAIL first")
        if not mail.rcpts:
            raise SMTPError(554, "5.5.1", "no valid recipients")
        if arg:
            raise SMTPError(501, "5.5.4", "DATA takes no argument")
        self.mail = None
        return self.body(self.on.backend.open(mail))

    def body(self, sink):
        """Takes a mail in. It is the client's until commit() has returned: whatever ends this early aborts the sink."""
        io = self.io
        io.out += _GO
        io.bol = True
        io.timeout = self.on.mail_timeout
        size = 0
        wrong = None
        head = b"\n"  # the end of what was seen of the header section, None behind it
        hops = 0
        try:
            while True:
                piece = yield DATA
                if piece is False:
                    break
                size += len(piece)
                if wrong:
                    continue
                if size > self.on.max_size:
                    wrong = self.too_big()
                if head is not None:
                    head += piece
                    i = head.find(b"\n\r\n")
                    hops += (head if i < 0 else head[:i]).count(b"\nReceived:")
                    head = head[-10:] if i < 0 else None  # one octet less than the pattern: none is counted twice
                    if hops > _MAX_HOPS:
                        wrong = SMTPError(554, "5.4.6", "%d hops: the mail goes round in a circle" % hops)
                try:
                    sink.write(piece)
                except SMTPError as e:
                    wrong = e
                if wrong:
                    sink.abort()
            if wrong is None:
                done = sink
                sink = None
                self.io.out += line(250, "2.0.0", done.commit() or "ok")
                self.commands = 0
        finally:
            io.timeout = self.on.timeout
            if sink and wrong is None:
                sink.abort()
        if wrong:
            raise wrong

    def rset(self, arg):
        self.mail = None
        self.io.out += _OK

    def noop(self, arg):
        self.io.out += _OK

    def vrfy(self, arg):
        self.io.out += b"252 2.0.0 cannot verify, send mail to try\r\n"

    def no(self, arg):
        raise SMTPError(502, "5.5.1", "not implemented")

    def help_(self, arg):
        self.io.out += b"214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY AUTH STARTTLS\r\n"

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
        io.out += b"220 2.0.0 go ahead\r\n"
        io.context = (self.on.context, None)
        yield TLS
        self.tls = True
        self.start()

    def auth(self, arg):
        if self.user is not None or self.mail:
            raise SMTPError(503, "5.5.1", "not now")
        if not self.may_login():
            if self.on.users and not self.tls:
                raise SMTPError(538, "5.7.11", "say STARTTLS first")
            raise SMTPError(502, "5.5.1", "no AUTH here")
        parts = arg.split(None, 1)
        name = str(parts[0].upper(), "utf-8") if parts and not parts[0].strip(_NAME) else ""
        if name not in sasl.MECHANISMS:
            raise SMTPError(504, "5.5.4", "mechanism not supported")
        initial = None
        if len(parts) > 1:
            initial = b"" if parts[1] == b"=" else sasl.unb64(parts[1])
        return self.login(sasl.server(name, initial))

    def login(self, exchange):
        """Runs a SASL exchange (RFC 4954). Refusals are answered late, and later each time."""
        io = self.io
        user = None
        value = None
        try:
            while True:
                ask = exchange.send(value)
                if isinstance(ask, tuple):
                    value = yield from sasl.check(self.on.users.get(ask[0]), ask[1])
                else:
                    io.out += b"334 " + sasl.b64(ask) + b"\r\n"
                    value = yield LINE
                    if value is False:
                        raise SMTPError(500, "5.5.6", "line too long")
                    if value == b"*":
                        raise SMTPError(501, "5.0.0", "cancelled")
                    value = sasl.unb64(value)
        except StopIteration as e:
            user = e.value
        if user is None:
            self.logins += 1
            self.on.log("wrong user name or password from %s" % self.peer)
            io.timeout = 1000 * self.logins
            yield SLEEP
            io.timeout = self.on.timeout
            if self.logins >= _MAX_LOGINS:
                raise SMTPError(421, "4.7.0", "too many failures, closing")
            raise SMTPError(535, "5.7.8", "wrong user name or password")
        self.user = user
        io.out += b"235 2.7.0 welcome\r\n"


_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_abcdefghijklmnopqrstuvwxyz"
_TLS_HINT = ": a device that speaks only TLS 1.0 or 1.1 needs a listener with tls = \"none\""

COMMANDS = {
    b"EHLO": Session.ehlo,
    b"HELO": Session.helo_,
    b"MAIL": Session.mail_,
    b"RCPT": Session.rcpt,
    b"DATA": Session.data,
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


class Server:
    """Runs listeners. At most `max_sessions` sessions at a time, the next one hears 421.

    `size`: octets of buffer for a session, which bounds a command line.
    """

    def __init__(self, max_sessions=8, size=2048):
        self.max_sessions = max_sessions
        self.size = size
        self.tasks = []
        self.socks = []

    def bind(self, address, port, listener, backlog=8):
        """Listens on `address` (text) and `port`; OSError (EADDRINUSE) when the port is taken.

        Returns a function without arguments whose coroutine serves for ever.
        """
        sock = listen(address, port, backlog)
        self.socks.append(sock)

        def serve(conn, peer):
            if len(self.tasks) >= self.max_sessions:
                try:
                    conn.setblocking(False)
                    conn.send(b"421 4.3.2 too many sessions, try again later\r\n")
                except OSError:
                    pass
                conn.close()
                return
            stream = Stream(conn, self.size)
            stream.task = asyncio.create_task(self.session(stream, peer, listener))
            self.tasks.append(stream.task)

        return lambda: accept(sock, serve)

    async def session(self, stream, peer, listener):
        try:
            session = Session(stream, peer, listener)
            if listener.tls == "tls":
                stream.context = (listener.context, None)
                stream.start_tls()
            await stream.run(session.run())
        except (OSError, EOFError):
            pass  # the peer has gone: nothing was accepted that is not in the queue
        except MemoryError:
            listener.log("out of memory in a session with %s: it was dropped" % peer)
        finally:
            self.tasks.remove(stream.task)
            stream.close()

    async def close(self):
        """Ends all sessions, what they had not committed is forgotten, and stops listening."""
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await sleep_ms(0)
        for sock in self.socks:
            sock.close()
        self.socks = []
