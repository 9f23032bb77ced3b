"""A smart host for development and for tests: it stands for Gmail, Microsoft 365 or the company's
Postfix.

It takes mail for anybody over STARTTLS after AUTH (PLAIN or LOGIN), shows it and keeps it in a
Maildir. Its CA and certificate are its own, made on first use. Tests can make it misbehave in the
ways that real ones do.
"""

import asyncio
import base64
import binascii
import contextlib
import email
import email.headerregistry
import email.policy
import errno
import hmac
import logging
import mailbox
import os
import re
import secrets
import signal
import socket
import ssl
import threading
import time
import warnings
import weakref
from email.utils import formatdate
from pathlib import Path

from aiosmtpd.smtp import AuthResult, LoginPassword

from . import certificates
from .errors import UserError
from .faults import Rates, Session, parse
from .providers import PROVIDERS

_PASSWORD, _TOKEN = ("LOGIN", "PLAIN"), ("XOAUTH2", "OAUTHBEARER")
_ACCOUNT = "gateway@example.com"  # who sends where the user name is no address


class Mail:
    """One mail as it arrived: envelope, content as bytes, and how it came."""

    def __init__(self, sender, recipients, content, session, tls):
        self.sender, self.recipients, self.content = sender, recipients, content
        self.time = time.time()
        self.peer = session.peer[0] if session.peer else ""
        self.helo = session.host_name or ""
        self.user = session.auth_data or ""
        self.tls = tls

    @property
    def message(self):
        """The mail parsed by the standard library."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


class SmartHost:
    """The server, in a thread of its own: start(), then `.mails`, `.wait_for(count)`, stop().

    host, port       where it listens; port 0 picks a free one, see `.port` after start()
    path             directory for ca.pem, certificates and the Maildir `mail`
    username, password  the one account
    starttls, auth   False: not offered (auth False: mail is taken without)
    tokens           a TokenServer: AUTH XOAUTH2 and OAUTHBEARER with its access tokens, and no password
    tls              True: TLS from the start, as on port 465
    certificate      "good", "expired", "wrong-name" or "other-ca"
    refuse           a function of ("mail" | "rcpt" | "data", address) that gives a reply such as
                     "550 5.1.1 no such user" to refuse, or None
    on_mail          a function that is called with each Mail, in the server's thread
    faults           texts such as "drop:end", or faults.Fault; see faults.HELP
    times            how many times each fault works, None: always
    provider         "", "m365", "gmail" or "ses": behaves like that one
    senders          addresses and domains that the account may send as, with a provider; without: username
    limits           per_minute, per_day, per_session: in place of the provider's
    on_fault         a function that is called with a fault's text when it works, in the server's thread
    """

    def __init__(
        self,
        path,
        host="localhost",
        port=0,
        username="gateway",
        password="secret",
        starttls=True,
        auth=True,
        tls=False,
        certificate="good",
        refuse=None,
        on_mail=None,
        max_size=64 << 20,
        tokens=None,
        faults=(),
        times=None,
        provider="",
        senders=(),
        limits=None,
        on_fault=None,
    ):
        self.path = Path(path)
        self.host, self.port = host, port
        self.username, self.password = username, password
        self.starttls, self.auth, self.tls = starttls and not tls, auth, tls
        self.tokens = tokens
        self.refuse = refuse or (lambda verb, address: None)
        self.on_mail = on_mail
        self.max_size = PROVIDERS[provider].size if provider else max_size
        self.provider = provider
        self.faults = [parse(f, provider, times) if isinstance(f, str) else f for f in faults]
        self.rates = Rates(PROVIDERS.get(provider), **limits or {})
        self.senders = list(senders) or [username if "@" in username else _ACCOUNT]
        self.on_fault = on_fault or (lambda text: None)
        self.mails = []
        self.connections = 0
        self.logins = []  # (user name, whether it was right), in the order of the attempts
        self.refused = []  # (verb, address, reply)
        self._arrived = threading.Condition()
        self._thread = self._loop = None
        self._sessions = weakref.WeakSet()
        authority = certificates.Authority(self.path)
        self.ca = authority.pem
        self._context = self._server_context(authority, certificate)
        bad = {f.point: None for f in self.faults if f.kind == "certificate"}
        if bad:
            bad = {which: self._server_context(authority, which) for which in bad}

            def choose(sock, name, context):
                for fault in self.faults:
                    if fault.kind == "certificate" and fault.take():
                        sock.context = bad[fault.point]
                        self.on_fault(fault.text)
                        return

            self._context.sni_callback = choose
        mail = self.path / "mail"
        self._maildir = mailbox.Maildir(mail, factory=None, create=True)

    def _server_context(self, authority, certificate):
        signer = authority
        if certificate == "other-ca":
            signer = certificates.Authority(self.path / "other-ca", "some other CA")
        names = ("mail.elsewhere.example",) if certificate == "wrong-name" else certificates.NAMES
        label = "server" if certificate == "good" else certificate
        return certificates.server_context(*signer.issue(names, certificate == "expired", label))

    def open_sessions(self):
        """How many connections there are now."""
        return sum(session.transport is not None for session in self._sessions)

    def start(self):
        """Starts listening. Raises UserError when the port is taken or the address is not ours."""
        if self._thread:
            return self
        try:
            sockets = _listen(self.host, self.port)
        except OSError as e:
            raise UserError(_why(e, self.host, self.port)) from None
        self.port = sockets[0].getsockname()[1]
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # a peer that went away
        serving = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(sockets, serving), daemon=True)
        self._thread.start()
        serving.wait()
        return self

    def stop(self):
        """Stops listening and ends every session."""
        if self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None

    def _serve(self, sockets, serving):
        asyncio.set_event_loop(self._loop)
        tls = self._context if self.tls else None
        servers = [
            self._loop.run_until_complete(
                self._loop.create_server(self._session, sock=sock, ssl=tls)
            )
            for sock in sockets
        ]
        self._loop.call_soon(serving.set)
        self._loop.run_forever()
        for server in servers:
            server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for session in self._sessions:
            if session.transport:
                # asyncio's TLS transport has lost its protocol when the peer was faster
                with contextlib.suppress(AttributeError):
                    session.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _session(self):
        self.connections += 1
        missing = set()
        for fault in self.faults:
            if fault.kind in ("no-starttls", "no-auth") and fault.take():
                missing.add(fault.kind)
                self.on_fault(fault.text)
        starttls = self.starttls and "no-starttls" not in missing
        taken = PROVIDERS[self.provider].mechanisms if self.provider else _PASSWORD
        taken = _TOKEN if self.tokens else taken if self.auth else ()
        with warnings.catch_warnings():
            # aiosmtpd warns of AUTH without TLS, which tests make on purpose.
            warnings.simplefilter("ignore")
            session = Session(
                self,
                self.faults,
                hostname="localhost",
                ident="edgepost development smart host",
                tls_context=self._context if starttls else None,
                require_starttls=self.starttls,
                auth_required=self.auth,
                auth_require_tls=self.starttls,
                auth_exclude_mechanism=[m for m in _PASSWORD + _TOKEN if m not in taken],
                authenticator=self._login,
                data_size_limit=self.max_size,
                enable_SMTPUTF8=True,
                loop=self._loop,
            )
        session.no_auth = not self.auth or "no-auth" in missing
        self._sessions.add(session)
        return session

    __enter__ = start

    def __exit__(self, *exc):
        self.stop()

    def wait_for(self, count=1, timeout=20):
        """Waits until `count` mails have arrived in all; gives the list. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.mails) >= count, timeout):
                raise TimeoutError(f"{len(self.mails)} of {count} mails arrived in {timeout} s")
            return list(self.mails)

    # ---- what aiosmtpd calls

    def _login(self, server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword)
        good = good and hmac.compare_digest(data.login, self.username.encode())
        good = good and hmac.compare_digest(data.password, self.password.encode())
        user = data.login.decode("utf-8", "replace") if isinstance(data, LoginPassword) else ""
        self.logins.append((user, good))
        if good:
            return AuthResult(success=True, auth_data=user)
        return AuthResult(success=False, handled=False)

    async def auth_XOAUTH2(self, server, args):
        return await self._token_login(server, args, rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]+)\x01\x01")

    async def auth_OAUTHBEARER(self, server, args):
        return await self._token_login(server, args, rb"n,a=([^,\x01]*),\x01auth=Bearer ([^\x01]+)\x01\x01")

    async def _token_login(self, server, args, pattern):
        line = args[1].encode() if len(args) > 1 else await _ask(server, b"")
        try:
            found = re.fullmatch(pattern, base64.b64decode(line, validate=True))
        except binascii.Error:
            found = None
        user, token = (part.decode("utf-8", "replace") for part in found.groups()) if found else ("", "")
        good = self.tokens.check(user, token)
        self.logins.append((user, good))
        if good:
            return AuthResult(success=True, auth_data=user)
        # RFC 7628 3.2.2: the reason comes as a challenge, and the refusal after the client's answer.
        await _ask(server, b'{"status":"400","schemes":"Bearer"}')
        return AuthResult(success=False, handled=False)

    def _answer(self, verb, address):
        reply = self.refuse(verb, address)
        if reply:
            self.refused.append((verb, address, reply))
        return reply

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        if server.no_auth:
            responses = [line for line in responses if not line[4:].startswith("AUTH")]
        if self.provider in ("m365", "gmail"):
            responses.insert(1, "250-PIPELINING")
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        reply = self._answer("mail", address or "")
        if reply:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 sender taken"

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = self._answer("rcpt", address)
        if reply:
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 recipient taken"

    async def handle_DATA(self, server, session, envelope):
        fault = server.find("end")
        reply = self._answer("data", envelope.mail_from or "") or fault and fault.reply
        sender, content = envelope.mail_from or "", envelope.original_content
        if not reply and self.provider:
            reply, sender, content = self._as_provider(sender, content)
        reply = reply or server.limit("per_minute", "per_day")
        if reply:
            return reply
        mail = Mail(
            sender,
            list(envelope.rcpt_tos),
            content,
            session,
            server.transport.get_extra_info("sslcontext") is not None,
        )
        trace = (
            f"Return-Path: <{mail.sender}>\r\n"
            + "".join(f"Delivered-To: {r}\r\n" for r in mail.recipients)
            + f"Received: from {mail.helo} ([{mail.peer}]) by localhost with"
            f" ESMTP{'S' if mail.tls else ''}{'A' if mail.user else ''};"
            f" {formatdate(mail.time)}\r\n"
        )
        try:
            self._maildir.add(trace.encode() + mail.content)
        except OSError as e:
            return f"452 4.3.1 cannot keep it: {e.strerror}"
        with self._arrived:
            self.mails.append(mail)
            self._arrived.notify_all()
        if self.on_mail:
            self.on_mail(mail)
        server.sent += 1
        self.rates.count()
        if fault:
            await server.act(fault)
        return "250 2.0.0 kept"

    def _as_provider(self, sender, content):
        """(refusal or None, sender, content) of a mail, as the provider takes it from this account."""
        row = PROVIDERS[self.provider]
        message = email.message_from_bytes(content, policy=email.policy.SMTP)
        try:
            authors = [a.addr_spec for a in message["From"].addresses]
        except AttributeError:
            authors = []
        foreign = [a for a in (sender, *authors) if a and not self._may_send_as(a)]
        if not foreign:
            return None, sender, content
        if row.sender == "refuse":
            reply = row.replies["sender"]
            return (reply % foreign[0] if "%s" in reply else reply), sender, content
        account = self.senders[0]
        if any(not self._may_send_as(a) for a in authors):
            message["X-Google-Original-From"] = str(message["From"])
            names = [a.display_name for a in message["From"].addresses]
            del message["From"]
            message["From"] = email.headerregistry.Address(names[0], addr_spec=account)
            content = message.as_bytes()
        return None, account if sender else "", content

    def _may_send_as(self, address):
        address = address.lower()
        return any(address == s.lower() or address.endswith("@" + s.lower()) for s in self.senders)


async def _ask(server, challenge):
    """Sends a challenge; gives the line that answers it, which is longer than aiosmtpd's reader takes one."""
    await server.push(b"334 " + base64.b64encode(challenge))
    line = b""
    while not line.endswith(b"\n") and len(line) < 12288:  # RFC 4954 4
        piece = await server._reader.read(4096)
        if not piece:
            break
        line += piece
    return line.strip()


def _listen(host, port):
    """Listening sockets for all addresses of a host, on one port; port 0 picks one. Raises
    OSError.
    """
    sockets = []
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                sock = socket.socket(family, kind)
            except OSError:
                continue  # no IPv6 on this machine
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as e:
                if e.errno == errno.EADDRNOTAVAIL and host == "localhost":
                    sockets.pop().close()
                    continue
                raise
            port = sock.getsockname()[1]
            sock.listen(128)
            sock.setblocking(False)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, "this machine does not have that address")
    return sockets


def _why(e, host, port):
    if e.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use; stop what listens there, or take another:"
            f" --port {port + 1}"
        )
    if e.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be opened by this user; take one above 1023: --port 2587"
    return f"cannot listen on {host} port {port}: {e.strerror or e}"


def describe(mail):
    """A mail in a few lines that a person can read."""
    message = mail.message
    how = f"{'over TLS' if mail.tls else 'WITHOUT TLS'}"
    how += f", signed in as {mail.user}" if mail.user else ", WITHOUT AUTH"
    lines = [f"envelope: <{mail.sender}> to {', '.join(f'<{r}>' for r in mail.recipients)}, {how}"]
    for name in ("From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID"):
        lines += [f"{name}: {value}" for value in message.get_all(name, [])]
    with contextlib.suppress(KeyError, LookupError, ValueError):
        body = message.get_body(("plain", "html"))
        if body:
            lines += ["", *body.get_content().rstrip().splitlines()[:20]]
    for part in message.walk() if message.is_multipart() else ():
        name = part.get_filename()
        if name:
            size = len(part.get_payload(decode=True) or b"")
            lines.append(f"attachment: {name}, {part.get_content_type()}, {size:,} bytes")
    # Mail comes from anywhere: no control character of it may reach the terminal.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def block(title, mail):
    """A mail as one block with a frame on its left."""
    return "\n".join([f"┌ {title}", *(f"│ {line}" for line in describe(mail).splitlines()), "└"])


def run(args):
    """`edgepost smarthost`, with its arguments: runs until SIGTERM or Ctrl-C. Gives the exit status."""
    host, port, path, provider = args.host, args.port, args.dir, args.provider or ""
    user = args.user or (_ACCOUNT if provider in ("m365", "gmail") else "gateway")
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is not a port from 1 to 65535; for example: --port 2587")
    password = os.environ.get("SMTP_PASSWORD")
    made_up = not password
    password = password or secrets.token_urlsafe(12)
    count = 0

    def show(mail):
        nonlocal count
        count += 1
        if not args.quiet:
            print(block(f"mail {count}, {time.strftime('%H:%M:%S')}", mail), flush=True)
        server.mails.clear()  # the Maildir has it

    def faulted(text):
        print(f"fault {time.strftime('%H:%M:%S')}: {text}", flush=True)

    if provider in ("m365", "gmail") and "@" not in user:
        raise UserError(f"--user {user}: with --as {provider} the user name is a mailbox, such as {_ACCOUNT}")
    if args.senders and not provider:
        raise UserError("--sender has a use with --as only: without it, anybody's mail is taken")
    if args.times is not None and args.times < 1:
        raise UserError(f"--times {args.times}: how often a fault works, 1 or more")
    limits = {name: getattr(args, name) for name in ("per_minute", "per_day", "per_session")}
    bad = [parse(text, provider, args.times) for text in args.fault]
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    try:
        server = SmartHost(
            path, host, port, user, password, tls=args.tls, on_mail=show, faults=bad, provider=provider,
            senders=args.senders, limits=limits, on_fault=faulted,
        )  # fmt: skip
    except (OSError, ssl.SSLError) as e:
        raise UserError(
            f"{path} cannot be used: {e.strerror or e}; name another: --dir DIR"
        ) from None
    of = ", ".join(server.senders)
    with server:
        print(
            f"edgepost: smart host on {host} port {server.port}, "
            f"{'TLS from the start' if args.tls else 'STARTTLS'} and AUTH required\n"
            f"edgepost: its CA is {server.ca}, mail is kept in {Path(path) / 'mail'}\n"
            f"edgepost: user {user}, password "
            + (password if made_up else "from SMTP_PASSWORD")
            + "".join(f"\nedgepost: fault {f.text}" + (f", {f.left} times" if f.left else "") for f in bad)
            + (f"\nedgepost: as {PROVIDERS[provider].title}, with mail from {of}" if provider else "")
            + "\nedgepost: Ctrl-C ends it",
            flush=True,
        )
        while not end.wait(0.5):
            pass
    print(f"edgepost: smart host ended, {count} mails taken", flush=True)
    return 0
