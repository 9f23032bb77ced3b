"""Faults on order for the development smart host, and the providers that it can stand for.

A fault is text, as `edgepost smarthost --fault` takes it: see HELP. Uses aiosmtpd; what a provider does is a row of
providers.PROVIDERS.
"""

import asyncio
import collections
import re
import textwrap
import time

from aiosmtpd.smtp import SMTP

from .errors import UserError
from .providers import PROVIDERS

POINTS = ("connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "end")
CERTIFICATES = ("expired", "wrong-name", "other-ca")
HELP = """\
faults (--fault, several are allowed, the first that fits a step counts):
  refuse:POINT        answers with a permanent error
  defer:POINT         answers with a temporary error
  drop:POINT          ends the connection without an answer
  stall:POINT         never answers
  no-starttls         does not offer STARTTLS, as when somebody strips it
  no-auth             does not offer AUTH
  certificate:WHICH   shows a bad certificate: expired, wrong-name or other-ca
  NAME                with --as: one of that provider's own refusals, see below

  POINT is connect (instead of the greeting), ehlo, starttls, auth, mail, rcpt,
  data, body (drop and stall only: after the first lines of a mail) or end
  (after a mail's last line; with drop and stall the mail is kept, and the
  sender never hears of it). A reply of your own:
    --fault "refuse:rcpt=550 5.1.1 no such user here"

"""
_REPLIES = {
    "refuse": {
        "connect": "554 5.3.2 no mail here today",
        "ehlo": "550 5.7.1 not with you",
        "starttls": "502 5.5.1 no TLS here today",
        "auth": "535 5.7.8 Authentication credentials invalid",
        "mail": "550 5.7.1 this sender is refused",
        "rcpt": "550 5.1.1 this recipient is refused",
        "data": "554 5.5.1 no mail, please",
        "end": "554 5.7.1 this mail is refused",
    },
    "defer": {
        "connect": "421 4.3.2 not now, come back later",
        "ehlo": "421 4.3.2 not now, come back later",
        "starttls": "454 4.7.0 TLS is not available just now",
        "auth": "454 4.7.0 Temporary authentication failure",
        "mail": "451 4.3.0 this sender later",
        "rcpt": "450 4.2.1 this recipient later",
        "data": "451 4.3.0 no mail just now",
        "end": "451 4.3.0 this mail later",
    },
}


class Fault:
    """One fault. kind: "reply", "drop", "stall", "no-starttls", "no-auth" or "certificate"; left: how many times it
    still works, None: always."""

    def __init__(self, text, kind, point="", reply="", times=None):
        self.text, self.kind, self.point, self.reply, self.left = text, kind, point, reply, times

    def take(self):
        """Whether it works once more."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


def parse(text, provider="", times=None):
    """A Fault from what a person wrote. provider: "" or a key of PROVIDERS. Raises UserError."""
    head, _, reply = text.partition("=")
    kind, colon, point = head.strip().partition(":")
    named = PROVIDERS[provider].named if provider else {}
    if head in named:
        point, own = named[head]
        return Fault(text, "reply", point, reply or own, times)
    if head in ("no-starttls", "no-auth") and not reply:
        return Fault(text, head, times=times)
    if kind == "certificate" and point in CERTIFICATES and not reply:
        return Fault(text, kind, point, times=times)
    points = [p for p in POINTS if p != "body" or kind in ("drop", "stall")]
    if kind in ("refuse", "defer", "drop", "stall") and point in points:
        if kind in ("drop", "stall"):
            if not reply:
                return Fault(text, kind, point, times=times)
            raise UserError(f"--fault {text}: {kind} gives no answer, so there is none to choose")
        if reply and not re.fullmatch(r"[45]\d\d(?: [\x20-\x7e]*)?", reply):
            raise UserError(f"--fault {text}: a reply is a line such as 550 5.1.1 no such user, from 400 to 599")
        return Fault(text, "reply", point, reply or _REPLIES[kind][point], times)
    if kind in ("refuse", "defer", "drop", "stall"):
        raise UserError(f"--fault {text}: where? {kind}:POINT, with a POINT of {', '.join(points)}")
    if kind == "certificate":
        raise UserError(f"--fault {text}: which? certificate:WHICH, with one of {', '.join(CERTIFICATES)}")
    for other, row in PROVIDERS.items():
        if head in row.named and not provider:
            raise UserError(f"--fault {text} is a reply of {row.title}: add --as {other}")
    own = f", or of --as {provider}: {', '.join(named)}" if named else ""
    raise UserError(
        f"--fault {text} is not known: take refuse, defer, drop or stall with :POINT, no-starttls, no-auth or"
        f" certificate:WHICH{own}"
    )


def named_help():
    """The providers' own refusals, for --help."""
    lines = [f"--as {key}: {', '.join(row.named)}" for key, row in PROVIDERS.items()]
    return "".join(f"{textwrap.fill(line, 79, initial_indent='  ', subsequent_indent='    ')}\n" for line in lines)


class Rates:
    """How much one account has sent: `over(limit)` is the name of the limit that one mail more would break, or ""."""

    def __init__(self, provider, now=time.monotonic, **limits):
        self.now = now
        self.times = collections.deque()
        for name in ("per_minute", "per_day", "per_session"):
            setattr(self, name, limits.get(name) or getattr(provider, name, None))

    def over(self, session):
        """`session`: mails that this session has sent."""
        now = self.now()
        while self.times and self.times[0] <= now - 86400:
            self.times.popleft()
        if self.per_session and session >= self.per_session:
            return "per_session"
        if self.per_day and len(self.times) >= self.per_day:
            return "per_day"
        if self.per_minute and sum(t > now - 60 for t in self.times) >= self.per_minute:
            return "per_minute"
        return ""

    def count(self):
        self.times.append(self.now())


class Session(SMTP):
    """aiosmtpd's session with faults in it. `host` is the SmartHost: its `faults`, `provider` and `on_fault`."""

    def __init__(self, host, faults, **settings):
        self.host, self.faults = host, faults
        self.row = PROVIDERS.get(host.provider)
        self.sent = 0
        self.recipients = 0
        if self.row:
            settings["hostname"], _, settings["ident"] = self.row.greeting.partition(" ")
        super().__init__(host, **settings)

    def find(self, point):
        """The fault that takes the place of what belongs here, or None."""
        for fault in self.faults:
            if fault.point == point and fault.kind in ("reply", "drop", "stall") and fault.take():
                self.host.on_fault(fault.text)
                return fault
        return None

    async def act(self, fault):
        """Does what a fault does."""
        if fault.kind == "reply":
            await self.push(fault.reply)
        elif fault.kind == "drop":
            self.transport.abort()
        else:
            self._reset_timeout(86400)
            await asyncio.Event().wait()

    async def trip(self, point):
        """Whether a fault takes the place of what belongs here."""
        fault = self.find(point)
        if fault:
            await self.act(fault)
        return bool(fault)

    async def push(self, status):
        if self.row:
            text = status if isinstance(status, str) else status.decode("ascii", "replace")
            for start, point in (
                ("530 Must issue", "need-tls"),
                ("530 5.7.0 Auth", "need-auth"),
                ("535 5.7.8", "auth"),
                ("552 Error", "size"),
            ):
                if text.startswith(start):
                    status = self.row.replies[point]
        await super().push(status)
        if status[:3] in ("421", b"421") and self.transport:
            self.transport.close()

    async def _handle_client(self):
        row = self.row
        if row and row.connections and self.host.open_sessions() > row.connections:
            await self.push(row.replies["connections"])
        elif not await self.trip("connect"):
            return await super()._handle_client()
        if self.transport:
            self.transport.close()

    async def smtp_EHLO(self, arg):
        if not await self.trip("ehlo"):
            await super().smtp_EHLO(arg)

    async def smtp_HELO(self, arg):
        if not await self.trip("ehlo"):
            await super().smtp_HELO(arg)

    async def smtp_STARTTLS(self, arg):
        if not await self.trip("starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg):
        if not await self.trip("auth"):
            await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg):
        self.recipients = 0
        over = self.limit("per_session")
        if over:
            await self.push(over)
        elif not await self.trip("mail"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg):
        self.recipients += 1
        if self.row and self.row.rcpts and self.recipients > self.row.rcpts:
            await self.push(self.row.replies["rcpts"])
        elif not await self.trip("rcpt"):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg):
        if await self.trip("data"):
            return
        if any(f.point == "body" and f.left != 0 for f in self.faults) and self.envelope.rcpt_tos:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await self._reader.readuntil(b"\r\n")
            await self.trip("body")
            return
        await super().smtp_DATA(arg)

    def limit(self, *names):
        """The reply to one mail more when it would break one of these limits, or None."""
        over = self.host.rates.over(self.sent)
        if over not in names:
            return None
        self.host.on_fault(over)
        return self.row.replies[over] if self.row else f"421 4.7.0 too much mail, {over} is reached"
