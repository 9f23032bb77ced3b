"""`edgepost doctor`: what is wrong between here and the smart host, line by line, and what to do about it.

It speaks the board's own library (smtp.client), so it sees what the board will see: TLS 1.2, only the CAs of the
configuration, the same choice of an AUTH mechanism. It signs in and asks whether the sender is welcome; no mail is sent
unless that is asked for. What it cannot see is the board's own network: it runs on this computer. With a board
at hand, that looks itself (checkup.py).
"""

import asyncio
import base64
import datetime
import errno
import ipaddress
import json
import os
import shutil
import smtplib
import socket
import ssl
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from cryptography import x509

from . import build, config, kinds, unix
from .errors import UserError
from .providers import PROVIDERS, explain, known

GOOD, BAD, NOTE = "good", "bad", "note"
_SOON = 21  # days before its end that a certificate is worth a line
_CLOCK = 60  # seconds that a clock may be wrong
_VERBS = ("CONNECT", "EHLO", "HELO", "LHLO", "STARTTLS", "MAIL", "RCPT", "RSET", "ATRN", "QUIT")
_DOMAINS = 5  # whose mail exchangers are examined
# Token servers whose refresh tokens go on after they were used: asking there takes nothing away from the board.
_LASTING = ("https://login.microsoftonline.com/", "https://oauth2.googleapis.com/")


def _clean(text):
    """What a server said, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:400]


class Report:
    """What was found: `rows` of (about, check, state, text, what to do)."""

    def __init__(self, on_row=None):
        self.rows, self.about, self.on_row = [], "", on_row

    def add(self, check, state, text, do=""):
        self.rows.append((self.about, check, state, _clean(text), do))
        if self.on_row:
            self.on_row(self.rows[-1])

    def good(self, check, text):
        self.add(check, GOOD, text)

    def bad(self, check, text, do):
        self.add(check, BAD, text, do)

    def note(self, check, text, do=""):
        self.add(check, NOTE, text, do)

    @property
    def ok(self):
        return not any(state == BAD for _, _, state, _, _ in self.rows)

    def json(self):
        keys = ("about", "check", "state", "text", "do")
        return json.dumps({"ok": self.ok, "checks": [dict(zip(keys, r, strict=True)) for r in self.rows]}, indent=2)


class Examination:
    """One smart host of a configuration. `host`: its table as the board gets it; `values`: the whole."""

    def __init__(self, report, host, values, to="", send=False, oauth=False, patience=20):
        self.report, self.values = report, values
        self.host, self.port, self.table = host["host"], host["port"], host
        self.to, self.send, self.oauth, self.patience = to, send, oauth, patience
        self.lmtp = host.get("protocol") == "lmtp"
        self.provider = known(self.host)
        self.said = []  # (command, reply) of the session, without secrets
        self.greeting = ""
        self.stranger = False  # nobody has signed in, because no token was asked for
        self.foreign = ""  # a sender that the smart host refuses, or will refuse by what its provider says

    async def run(self):
        report = self.report
        report.about = f"{self.host} port {self.port}"
        addresses = await self.name()
        stream = addresses and await self.connect(addresses)
        if not stream:
            return
        try:
            client = await self.start(stream)
            if client:
                await self.mail(stream, client)
        finally:
            stream.close()

    # -- down to a connection

    async def name(self):
        host, servers = self.host, self.values["board"].get("dns")
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            if servers:
                asked = "by " + ", ".join(ip for ip, _ in servers)
                resolve = build.module("smtp.dns").Resolver([tuple(s) for s in servers], time.monotonic).resolve
                found = await asyncio.wait_for(resolve(host), self.patience)
            else:
                asked = "by this computer"
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(address[0] for *_, address in found))
        except (OSError, ValueError, TimeoutError) as e:
            self.report.bad(
                "name", f"{host} has no address, asked {asked}: {e.args[-1] if e.args else 'no answer'}",
                "check smarthost.host for a typing error, and board.dns or this computer's network",
            )  # fmt: skip
            return []
        self.report.good("name", f"{host} is {', '.join(map(str, found[:4]))}, asked {asked}")
        return found

    async def connect(self, addresses):
        connect = build.module("smtp.stream").connect
        why = {}
        for address in addresses:
            try:
                start = time.monotonic()
                stream = await connect(str(address), self.port, int(self.patience * 1000))
                took = (time.monotonic() - start) * 1000
                self.report.good("port", f"{address} answers on port {self.port} in {took:.0f} ms")
                return stream
            except OSError as e:
                why[str(address)] = e.errno
        self.report.bad(
            "port",
            f"no connection to {', '.join(why)} port {self.port}: "
            + ", ".join(dict.fromkeys(os.strerror(n).lower() if n else "timed out" for n in why.values())),
            self.unreachable(set(why.values())),
        )
        return None

    def unreachable(self, numbers):
        if numbers == {errno.ECONNREFUSED}:
            ports = "24 is usual for LMTP" if self.lmtp else "587 for STARTTLS, 465 for TLS"
            return f"nobody listens there: check smarthost.port ({ports}), and the server"
        if self.port == 25 and "by" in self.table:
            return "many networks block port 25: ask the provider of this one to open it, or take a smart host"
        if self.port == 25:
            return "many networks block port 25: use the provider's port 587 or 465"
        return (
            "a firewall drops it, or the server is off: allow outgoing connections to this port, and check"
            " smarthost.host and smarthost.port"
        )

    # -- the session, as the board begins it

    async def start(self, stream):
        """A client.Client that may send mail, or None."""
        table = self.table
        client_module = build.module("smtp.client")
        security = table["security"]
        tls, kind = None, client_module.Client
        if self.lmtp:
            kind = build.module("smtp.lmtp").LMTP
        if security == "opportunistic":
            kind = build.module("smtp.mx").Opportunistic
            context = build.module("smtp.stream").client_context((), False)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # a board speaks no other
            stream.context = tls = (context, self.host)
        elif security != "none":
            context = self.context(table["verify"] == "full")
            if context is None:
                return None
            stream.context = tls = (context, self.host)
        password, mechanism = table.get("password", ""), None
        if "oauth" in table:
            password, mechanism = await self.token()
        client = kind(stream, self.values["board"].get("domain") or "[127.0.0.1]")
        ask = client.ask

        def listen(command, code=0, reason="reply"):
            verb = (command or b"connect").split()[0].decode("ascii", "replace").upper()
            verb = verb if verb in _VERBS else "AUTH"
            self.said.append([verb, None])
            try:
                reply = yield from ask(command, code, reason)
            except client_module.SessionError as e:
                self.said[-1][1] = e.reply
                raise
            self.said[-1][1] = reply
            if verb == "CONNECT":
                self.greeting = reply[2]
            return reply

        client.ask = listen
        if security == "tls":
            stream.start_tls()
        wait = None
        user = table.get("username", "") if password or "oauth" not in table else ""
        try:
            await asyncio.wait_for(
                stream.run(client.start(security, tls, user, password, mechanism)), self.patience
            )
        except TimeoutError:
            wait = "time-out"
        except client_module.SessionError as e:
            wait = e
        self.provider = self.provider or known(self.host, self.greeting)
        self.tell(stream, client, wait)
        return None if wait else client

    def context(self, verify):
        ders = [base64.b64decode(c) for c in self.table.get("ca", ())]
        now = datetime.datetime.now(datetime.UTC)
        for der in ders:
            cert = x509.load_der_x509_certificate(der)
            days = (cert.not_valid_after_utc - now).days
            if days < 0:
                self.report.bad(
                    "CA", f"{_name(cert)} of smarthost.ca has expired on {_day(cert.not_valid_after_utc)}",
                    "take the CA's new certificate; the old one verifies nothing",
                )  # fmt: skip
            elif days < 90:
                self.report.note(
                    "CA", f"{_name(cert)} of smarthost.ca ends in {days} days",
                    "find out which CA the smart host goes to, and add it now: up to 8 are allowed",
                )  # fmt: skip
        try:
            context = build.module("smtp.stream").client_context(ders, verify)
        except (ValueError, ssl.SSLError) as e:
            self.report.bad("CA", f"smarthost.ca cannot be used: {e}", "give the CA as a PEM file")
            return None
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # a board speaks no other
        if verify:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # nor does it insist on a root
        return context

    async def token(self):
        oauth = dict(self.table["oauth"])
        where, mechanism = oauth["token_url"], oauth.get("mechanism", "XOAUTH2")
        grant = oauth.get("grant", "refresh_token")
        if grant == "refresh_token" and not where.startswith(_LASTING) and not self.oauth:
            self.stranger = True
            self.report.note(
                "token", f"{where} was not asked: where a refresh token works once, that would take it from the board",
                "if the board has not used it yet, or it lasts: --oauth",
            )  # fmt: skip
            return "", mechanism
        tokens_module, session_error = build.module("smtp.oauth"), build.module("smtp.client").SessionError
        oauth["ca"] = oauth.get("ca") or self.table.get("ca", ())
        with tempfile.TemporaryDirectory() as path:
            try:
                tokens = tokens_module.Tokens(path=path + "/token", uptime=time.monotonic, **oauth)
                password = await asyncio.wait_for(tokens.token(), self.patience)
            except TimeoutError:
                self.report.bad("token", f"{where} does not answer", "check smarthost.oauth.token_url and the network")
            except (session_error, ValueError) as e:
                self.report.bad("token", str(e), 'see "What the log says" in docs/providers.md')
            else:
                self.report.good("token", f"{where} gave an access token")
                if tokens.dirty or tokens.refresh != oauth.get("refresh_token", ""):
                    self.report.note(
                        "token", "it gave a new refresh token, which is thrown away here",
                        "if the board is now told invalid_grant: sign in again with edgepost oauth",
                    )  # fmt: skip
                return password, mechanism
        return "", mechanism

    def tell(self, stream, client, wait):
        """Says how the session began. wait: None, "time-out" or a SessionError."""
        report, said = self.report, self.said
        verbs = [verb for verb, reply in said]
        reason = getattr(wait, "reason", wait or "")
        last, reply = said[-1] if said else ("CONNECT", None)
        if self.greeting:
            report.good("greeting", self.greeting)
        shaking = stream.tls and stream.shaking
        if wait and last == "CONNECT" and not reason.startswith("tls") and not shaking:
            return self.no_greeting(wait, reply)
        security = self.table["security"]
        if reason == "starttls" and last != "STARTTLS":
            return report.bad(
                "STARTTLS", "the server does not offer STARTTLS: nothing is sent in the clear",
                "if another network sees it offered, something on the way strips it (a firewall's mail inspection, or"
                " an attacker): use another network or switch that off; else check smarthost.port (587), or port 465"
                ' with security = "tls"',
            )  # fmt: skip
        if security == "opportunistic" and reason.startswith("tls"):
            return report.note("TLS", "the handshake fails: its mail goes in the clear, and can be read on the way",
                               "by MX that is up to this server; the board speaks TLS 1.2")  # fmt: skip
        if wait and (last == "STARTTLS" or reason.startswith("tls") or shaking):
            if reply and reply[0] != 220:
                return self.refused("STARTTLS", reply, "try again later, or ask whoever runs the server")
            if reason.startswith("tls") or shaking:
                return self.bad_tls(wait, reason)
        if security == "opportunistic":
            if stream.tls:
                report.good("TLS", f"{stream.sock.version()}, whoever's certificate it is: so it is by MX")
            elif not wait:
                report.note("TLS", "is not offered: its mail can be read on the way", "by MX that is up to this server")
        elif security == "none":
            report.note("TLS", "the connection is not encrypted", 'set security = "starttls" or "tls" if it offers it')
        elif stream.tls:
            self.good_tls(stream)
        if wait and reason != "auth-missing" and last in ("CONNECT", "EHLO", "HELO", "LHLO", "STARTTLS"):
            if reply and last == "LHLO":
                return self.refused("LHLO", reply, 'this is no LMTP server: check smarthost.port (24), or take out'
                                    ' protocol = "lmtp"')  # fmt: skip
            if reply:
                return self.refused("EHLO", reply, "check board.domain, which is what EHLO says")
            return self.broken("EHLO", wait, last)
        user = self.table.get("username", "")
        if reason == "auth-missing":
            do = "check smarthost.port: 587 and 465 are for those who sign in"
            if not client.ext.get("AUTH"):
                text = "the server offers no AUTH here" + ("" if stream.tls else " without TLS")
            else:
                text = f"the server offers AUTH {client.ext['AUTH']}, none of which the board knows or may use"
                if self.provider == "m365":
                    do = 'use auth = "oauth2" (docs/providers.md)'
            return report.bad("AUTH", text, do)
        if wait and reply and verbs[-1] == "AUTH":
            return self.refused("AUTH", reply, "check smarthost.username and smarthost.password")
        if wait:
            return self.broken("AUTH" if last == "AUTH" else "session", wait, last)
        if "AUTH" in verbs:
            report.good("AUTH", f"signed in as {user}")
        elif not self.table.keys() & {"oauth", "by", "protocol"}:
            report.note("AUTH", "no user name is configured: the server has to know the board's address")

    def no_greeting(self, wait, reply):
        if reply:
            return self.refused("greeting", reply, "try again later, or ask whoever runs the server")
        if wait == "time-out":
            do = (
                'port 465 begins with TLS: set security = "tls"' if self.table["security"] != "tls" and self.port == 465
                else "it may be overloaded, or no mail server: check smarthost.host and smarthost.port"
            )  # fmt: skip
            return self.report.bad("greeting", f"no greeting within {self.patience:g} s", do)
        return self.report.bad(
            "greeting", "the server ends the connection without a greeting",
            'check smarthost.port and security (port 465 is security = "tls"); it may not want this address',
        )  # fmt: skip

    def broken(self, check, wait, last):
        what = {"CONNECT": "the connection"}.get(last, last)
        if wait == "time-out":
            text = f"no answer to {what} within {self.patience:g} s"
            do = "the server hangs, or a firewall holds the connection; the board tries again later"
        else:
            text = f"the server ended the connection after {what}"
            do = "it may be restarting, or reject this address: try again, then ask whoever runs it"
        self.report.bad(check, text, do)

    def refused(self, check, reply, do, what=""):
        """A reply that says no."""
        text = " ".join(filter(None, (str(reply[0]), reply[1], reply[2])))
        meaning, remedy = explain(text, self.provider)
        temporary = " (for now)" if reply[0] < 500 else ""
        self.report.bad(
            check, f"{what} is refused{temporary}: {text}" if what else f"it says {text}{temporary}",
            f"{meaning}: {remedy}" if meaning else do,
        )  # fmt: skip

    # -- TLS

    def good_tls(self, stream):
        sock, report = stream.sock, self.report
        if self.table["verify"] != "full":
            report.note(
                "TLS", "the certificate is not verified: anybody on the way can read the password and every mail",
                'take out verify = "none", and give the CA with ca = "..."',
            )  # fmt: skip
            return
        chain = _chain(sock)
        leaf = chain[0]
        trusted = self.trusted(chain)
        text = f"{sock.version()}, the certificate is for {self.host} and signed by {trusted or _name(leaf, True)}"
        report.good("TLS", text)
        now = datetime.datetime.now(datetime.UTC)
        first = min(chain, key=lambda c: c.not_valid_after_utc)
        days = (first.not_valid_after_utc - now).days
        text = f"the chain is good until {_day(first.not_valid_after_utc)}, {days} days"
        if days < _SOON:
            report.note("expiry", text, "see that its operator renews it: mail stops on that day")
        else:
            report.good("expiry", text)

    def trusted(self, chain):
        """The configured CA under which a chain stands, by name, or "" """
        mine = {c.subject: c for c in map(x509.load_der_x509_certificate, self.ders())}
        for cert in chain:
            for name in (cert.subject, cert.issuer):
                if name in mine:
                    return f"{_name(mine[name])} of smarthost.ca"
        return ""

    def ders(self):
        return [base64.b64decode(c) for c in self.table.get("ca", ())]

    def bad_tls(self, wait, reason):
        report = self.report
        if wait == "time-out":
            return report.bad(
                "TLS", f"the TLS handshake did not end within {self.patience:g} s",
                "check security and port: a server that waits for plain commands does not answer TLS",
            )  # fmt: skip
        if "WRONG_VERSION" in str(wait) or "wrong version" in str(wait):
            return report.bad(
                "TLS", "what answers on this port does not begin with TLS", 'set security = "starttls", with port 587'
            )
        try:
            chain = self.look()
        except (OSError, ValueError, smtplib.SMTPException):
            chain = []
        now = datetime.datetime.now(datetime.UTC)
        which = reason.partition(" ")[2]
        if not chain:
            which = which if which in ("name", "expired", "future", "ca") else ""
        if which == "expired":
            old = [f"{_name(c)} ended on {_day(c.not_valid_after_utc)}" for c in chain if c.not_valid_after_utc < now]
            return report.bad(
                "TLS", "the certificate has expired: " + (", ".join(old) or "so it was in the board's session"),
                "its operator must renew it; if it is good elsewhere, this computer's clock is wrong",
            )  # fmt: skip
        if which == "future":
            return report.bad("TLS", "the certificate is not valid yet", "set this computer's clock")
        if which == "name":
            names = ", ".join(_names(chain[0])) if chain else "another name"
            return report.bad(
                "TLS", f"the certificate is for {names}, not for {self.host}",
                "set smarthost.host to a name of the certificate; if you know none of them, somebody else answers",
            )  # fmt: skip
        if which == "ca":
            mine = ", ".join(_name(x509.load_der_x509_certificate(d)) for d in self.ders()) or "nothing"
            theirs = f": it is signed by {_name(chain[-1], True)}" if chain else ""
            return report.bad(
                "TLS", f"the certificate stands under no CA of smarthost.ca{theirs}; smarthost.ca has {mine}",
                "if the server is the right one, put that CA's certificate into the file of smarthost.ca; if you do not"
                " know that CA, somebody stands between here and the server",
            )  # fmt: skip
        if which == "gone":
            text = "the server ends the connection in the TLS handshake"
        else:
            text = f"the TLS handshake fails: {wait}"
        do = 'check security and port; the board speaks TLS 1.2: a server with TLS 1.3 alone does not suit it'
        return report.bad("TLS", text, do)

    def look(self):
        """The certificates that the server shows, its own first, over a session in which nothing is said."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.table["security"] == "tls":
            with smtplib.SMTP_SSL(self.host, self.port, timeout=self.patience, context=context) as server:
                return _chain(server.sock)
        with smtplib.SMTP(self.host, self.port, timeout=self.patience) as server:
            server._host = self.host
            server.starttls(context=context)
            return _chain(server.sock)

    # -- mail

    async def mail(self, stream, client):
        report, provider = self.report, self.provider
        limit, most = client.limit(), self.values["queue"]["max_message"]
        if limit and limit < most:
            report.note(
                "SIZE", f"it takes mails of {_size(limit)}, this board up to {_size(most)}: what is between bounces",
                f'set queue.max_message = "{_size(limit).replace(" ", "")}"',
            )  # fmt: skip
        else:
            report.good("SIZE", f"it takes mails of {_size(limit)}" if limit else "it says no limit")
        self.extensions(client.ext)
        row = PROVIDERS.get(provider)
        if row:
            report.good("provider", row.title)
            slow = [n for n in ("per_minute", "per_day") if getattr(row, n) and not self.table.get(n)]
            if slow and provider != "ses":
                rates = ", ".join(f"{name} = {getattr(row, name)}" for name in slow)
                report.note("rates", f"{row.title} documents a limit that is not configured", f"set {rates}, or less")
        for sender in () if self.stranger else self.senders():
            await self.sender(stream, client, sender)
            if client.ended:
                return
        if self.send and self.to and report.ok and not self.stranger:
            await self.deliver(stream, client)
        await self.ask(stream, client, b"QUIT")

    def senders(self):
        own = self.table.get("sender") or self.values["mail"].get("from") or ""
        if not own:
            self.report.note(
                "sender", "neither smarthost.sender nor mail.from is configured: no sender is tried",
                'set smarthost.sender if the smart host takes one sender only',
            )  # fmt: skip
        # Mail of devices with one of their own goes out under that, unless the smart host has one.
        others = () if self.table.get("sender") else (d.get("sender") for d in self.values.get("device", ()))
        return list(dict.fromkeys(filter(None, (own, *others))))

    async def ask(self, stream, client, command):
        """The reply to a command, or None when the session is over, which is said."""
        client.ended = False

        def one():
            return (yield from client.ask(command))

        wait = None
        try:
            reply = await asyncio.wait_for(stream.run(one()), self.patience)
        except TimeoutError:
            wait = "time-out"
        except Exception as e:  # whatever the library makes of a broken session
            if isinstance(e, (MemoryError, RecursionError)):
                raise
            wait = e
        if wait is None:
            return reply
        client.ended = True
        if command != b"QUIT":
            verb = command.split()[0].decode()
            self.broken({"MAIL": "sender", "RCPT": "recipient"}.get(verb, "session"), wait, verb)
        return None

    def extensions(self, offered):
        """What is configured and needs the smart host to do its part."""
        mail, report = self.values["mail"], self.report
        people = [mail["from"], mail["admin"], *mail["to"], self.table.get("sender", ""), self.to or ""]
        people += [a for sensor in self.values["sensor"] for a in sensor.get("to", ())]
        odd = [a for a in people if not a.isascii()]
        words = {word for listener in self.values["listener"] for word in listener.get("extra", ())} - {"MT-PRIORITY"}
        for word in sorted(words | {"SMTPUTF8"} if odd else words):
            if word in offered:
                report.good(word, "is offered")
            elif odd and word == "SMTPUTF8":
                report.bad(
                    word, f"is not offered, and {odd[0]} needs it: such mail comes back with 5.6.7",
                    "take an address in plain letters, or another smart host",
                )  # fmt: skip
            else:
                report.note(
                    word, "is not offered: mail of devices that needs it comes back",
                    f"take {word.lower()} = true out of the listener, and devices hear at once that it is not there",
                )  # fmt: skip

    async def sender(self, stream, client, sender):
        report, provider = self.report, self.provider
        more = b""
        if not (sender + (self.to or "")).isascii():
            client.ended = False
            if "SMTPUTF8" not in client.ext:
                return
            more = b" SMTPUTF8"
        reply = await self.ask(stream, client, b"MAIL FROM:<%s>%s" % (sender.encode(), more))
        if reply is None:
            return
        if reply[0] != 250:
            self.foreign = sender if reply[0] in (550, 553, 554) else ""
            return self.refused(
                "sender", reply, "set smarthost.sender to an address that this user may send as", f"sender {sender}"
            )
        user = self.table.get("username", "")
        if provider in ("m365", "gmail") and sender.lower() != user.lower():
            self.foreign = "" if self.table.get("sender") else sender
            what = "says only after a mail" if provider == "m365" else "puts the account's own in place of others"
            report.note(
                "sender", f"{sender} is not refused yet: {PROVIDERS[provider].title} {what}, and {user} signs in",
                f'set smarthost.sender = "{user}", unless it may send as {sender}; --to ADDRESS --send tries it',
            )  # fmt: skip
        elif provider == "ses":
            report.note(
                "sender", f"{sender} is not refused yet: Amazon SES says only after a mail whether it is verified",
                "--to ADDRESS --send tries it",
            )  # fmt: skip
        else:
            report.good("sender", f"{sender} is accepted")
        if not self.table.get("sender") and self.values["listener"]:
            report.note(
                "devices", "mail of devices goes on with the devices' own senders, which were not tried",
                f'if the smart host takes one sender only: smarthost.sender = "{user if "@" in user else sender}"',
            )  # fmt: skip
        if self.to:
            reply = await self.ask(stream, client, b"RCPT TO:<%s>" % self.to.encode())
            if reply is None:
                return
            if reply[0] in (250, 251):
                report.good("recipient", f"{self.to} is accepted")
            else:  # Postfix refuses a foreign sender here
                _, remedy = explain(" ".join(map(str, reply)), provider)
                self.foreign = sender if "smarthost.sender" in remedy else self.foreign
                self.refused("recipient", reply, "check the address", f"recipient {self.to}")
        await self.ask(stream, client, b"RSET")

    async def deliver(self, stream, client):
        compose, client_module = build.module("smtp.message").compose, build.module("smtp.client")
        sender = self.senders()[0]
        board = self.values["board"]["name"]
        text = "edgepost doctor sent this mail to try the way to its reader. Nothing is wrong."
        mail = compose(sender, [self.to], f"Test of {board}", text, int(time.time()))
        try:
            refused = await asyncio.wait_for(
                client_module.send((stream, client), sender, [self.to], b"".join(mail)), self.patience
            )
        except TimeoutError:
            client.ended = True
            return self.broken("mail", "time-out", "a mail")
        except client_module.SessionError as e:
            client.ended = True
            if e.reply:
                _, remedy = explain(" ".join(map(str, e.reply)), self.provider)
                self.foreign = sender if "smarthost.sender" in remedy else ""
                return self.refused("mail", e.reply, "look for this reply in the smart host's documentation", "a mail")
            return self.broken("mail", e, "a mail")
        if refused:
            _, remedy = explain(" ".join(map(str, refused[self.to])), self.provider)
            self.foreign = sender if "smarthost.sender" in remedy else ""
            return self.refused("mail", refused[self.to], "see what the reply says", f"a mail from {sender}")
        self.report.good("mail", f"a test mail to {self.to} was taken: see that it arrives")


class Provider(Examination):
    """Where the mail of this board is fetched, [fetch]: down to AUTH, and whether it knows ATRN. Nothing is fetched."""

    def __init__(self, report, table, values, patience):
        self.to_tell = report
        super().__init__(Report(), table, values, patience=patience)

    async def run(self):
        await super().run()
        for about, *row in self.report.rows:
            self.to_tell.about = about
            self.to_tell.add(*(text.replace("smarthost.", "fetch.") for text in row))

    async def mail(self, stream, client):
        if "ATRN" in client.ext:
            self.report.good("ATRN", "is offered")
        else:
            self.report.bad("ATRN", "is not offered: no mail can be fetched there",
                            "check fetch.port (366), or ask the provider for on-demand mail relay")  # fmt: skip
        await self.ask(stream, client, b"QUIT")


async def exchangers(report, host, values, to, send, patience):
    """Delivery by MX, `host` its table: the exchangers for the domain of each recipient that is configured (of `to`
    alone, when that is given), and the first of them that takes mail."""
    mail = values["mail"]
    people = [to] if to else [mail["admin"], *mail["to"], *(a for sensor in values["sensor"] for a in sensor["to"])]
    domains = list(dict.fromkeys(person.rpartition("@")[2].lower() for person in people if "@" in person))
    report.about = "delivery by MX"
    if not domains:
        report.note("MX", "no recipient is configured: no domain is tried", "--to ADDRESS tries that one's")
    mx, refusal = build.module("smtp.mx"), build.module("smtp.reply").SMTPError
    servers = [tuple(server) for server in values["board"].get("dns") or ()]
    servers = servers or build.module("names").nameservers("/etc/resolv.conf")
    resolver = build.module("smtp.dns").Resolver(servers, time.monotonic)
    for domain in domains[:_DOMAINS]:
        report.about = f"mail for {domain}"
        try:
            route = await mx.exchangers(resolver, domain, values["board"].get("domain", "").lower())
        except refusal as e:
            do = "such mail comes back: check the address"
            if e.code < 500:
                do = "check board.dns, or this computer's network; such mail waits"
            report.bad("MX", e.text, do)
            continue
        named = ", ".join(f"{name} ({preference})" for preference, name in route)
        if [name for _, name in route] == [domain]:
            report.note("MX", f"{domain} names no mail exchanger: it is asked itself, as RFC 5321 has it")
        else:
            report.good("MX", f"{domain} has {named}")
        for n, (_, name) in enumerate(route):
            one = Report()
            await Examination(one, host | {"host": name, "verify": "none"}, values, to, send, False, patience).run()
            for about, check, state, text, do in one.rows:
                report.about = about
                if state == BAD and n + 1 < len(route):
                    state, do = NOTE, "mail goes to the next one; if it is yours, mend it"
                report.add(check, state, text, do)
            if one.ok:
                break


# ---- certificates in words


def _chain(sock):
    """The certificates of a TLS connection as x509.Certificate, the server's first."""
    if hasattr(sock, "get_unverified_chain"):  # Python 3.13
        ders = sock.get_unverified_chain()
    else:
        inner = getattr(sock, "_sslobj", None)
        certs = inner.get_unverified_chain() if hasattr(inner, "get_unverified_chain") else None
        ders = [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in certs or ()] or [sock.getpeercert(True)]
    return [x509.load_der_x509_certificate(d) for d in ders]


def _name(cert, issuer=False):
    """A certificate's subject, or its issuer, as a person knows it."""
    name = cert.issuer if issuer else cert.subject
    for oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATIONAL_UNIT_NAME, x509.NameOID.ORGANIZATION_NAME):
        found = name.get_attributes_for_oid(oid)
        if found:
            return f'"{found[0].value}"'
    return name.rfc4514_string() or "a CA without a name"


def _names(cert):
    try:
        alt = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [_name(cert)]
    return [str(name.value) for name in alt][:8] or [_name(cert)]


def _day(moment):
    return moment.strftime("%Y-%m-%d")


def _size(octets):
    for unit, name in ((1 << 20, "MB"), (1 << 10, "KB")):
        if octets >= unit:
            return f"{octets // unit} {name}"
    return f"{octets} B"


# ---- the clock


async def clock(report, values, servers=None):
    """Compares this computer's clock with a time server: certificates are checked by it."""
    report.about = "this computer"
    if servers is None:
        servers = values["board"].get("ntp") or ["pool.ntp.org"]
    sntp = build.module("sntp")
    for server in servers:
        name, port = server if isinstance(server, (list, tuple)) else (server, 123)
        try:
            loop = asyncio.get_running_loop()
            found = await asyncio.wait_for(loop.getaddrinfo(name, port, type=socket.SOCK_DGRAM), 3)
            off = await sntp.ask(found[0][4][0], port) / 1000 - time.time()
        except (OSError, ValueError, TimeoutError, sntp.Refused):
            continue
        if abs(off) > _CLOCK:
            return report.bad(
                "clock", f"this computer's clock is {_span(off)}, says {name}",
                "set it: certificates are checked by the clock; a board asks a time server itself",
            )  # fmt: skip
        return report.good("clock", f"right to {max(abs(off), 0.1):.1f} s, says {name}")
    names = ", ".join(s if isinstance(s, str) else s[0] for s in servers)
    report.note("clock", f"no time server answered ({names}): the clock was not compared")


def _span(off):
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if abs(off) >= unit:
            return f"{abs(off) / unit:.0f} {name} {'slow' if off > 0 else 'fast'}"
    return f"{abs(off):.0f} s {'slow' if off > 0 else 'fast'}"


# ---- the command

_MARKS = {GOOD: "ok  ", BAD: "BAD ", NOTE: "note"}


def lines(row, width):
    """A row of a report as lines of a terminal of this width."""
    _, check, state, text, do = row
    head = f"  {_MARKS[state]}  {check:<10} "
    indent = " " * (min(len(head), 19) if width >= 60 else 4)  # in a narrow window what is long needs the room
    wrap = {"width": max(width, 20), "subsequent_indent": indent, "break_long_words": False}
    out = textwrap.wrap(head + text, **wrap, break_on_hyphens=False)
    if do:
        out += textwrap.wrap(indent + "-> " + do, **wrap, break_on_hyphens=False)
    return out


async def examine(report, values, to="", send=False, oauth=False, patience=20, ntp=None):
    """All of it, for a configuration as config.load gives it."""
    await clock(report, values, ntp)
    for host in values["smarthost"]:
        if "by" in host:
            await exchangers(report, host, values, to, send, patience)
        else:
            await Examination(report, host, values, to, send, oauth, patience).run()
    if values.get("fetch"):
        await Provider(report, values["fetch"], values, patience).run()
    return report


def run(args):
    """`edgepost doctor`, with its arguments. Gives the exit status: 0 all is good, 1 something is not."""
    if args.send and not args.to:
        raise UserError("--send needs a recipient: --to oncall@example.com")
    to = kinds.mailbox(args.to) if args.to else ""
    values, warnings = config.load(args.board, os.environ, unix.old_config(Path(args.board).with_suffix(".state")))
    width = shutil.get_terminal_size((80, 24)).columns
    about, out = None, sys.stdout  # which is another one while a board is talked to

    def show(row):
        nonlocal about
        if row[0] != about:
            about = row[0]
            print(about, file=out)
        print("\n".join(lines(row, width)), file=out, flush=True)

    report = Report(None if args.json else show)
    report.about = Path(args.board).name
    for warning in warnings:
        report.note("warning", warning)
    report.good("file", "nothing is wrong in it")
    asyncio.run(examine(report, values, to, args.send, args.oauth, args.timeout))
    if args.port or args.on_board:
        from . import checkup

        checkup.run(report, args.board, args.port)
    if args.json:
        print(report.json())
    else:
        bad = sum(state == BAD for _, _, state, _, _ in report.rows)
        print(f"{bad} of {len(report.rows)} lines are bad" if bad else "nothing is bad")
    return 0 if report.ok else 1
