"""OAuth 2 access tokens for a smart host, renewed on the board: RFC 6749 sections 6 (refresh token) and 4.4 (client
credentials).

A server may give a new refresh token with each access token, and may stop to take the old one. So the newest is kept in
two files, `path`.0 and `path`.1, written in turn and never renamed, one line each: "count mark time token crc". The
higher count is the newer. mark is a short hash of the configured refresh token that this one comes from: a newly
configured one wins. time is that of the renewal (epoch seconds, 0: no clock). crc is of all before it. While one file
is written the other holds the token before: whatever a power cut leaves, a torn file too, one token can be read. What
nobody can close: a power cut between the answer of a server that withdraws the old token at once and our file's close.

May use: client (SessionError), stream, https.
"""

import asyncio
import binascii
import hashlib
import json

from . import const
from .client import SessionError
from .https import form, place, post
from .stream import sleep_ms

_TOKEN = const(4096)  # octets of a token
_ALL = const(90)  # s for a renewal
_LIFE = const(1800)  # s of an access token's life when the server does not say; an earlier end shows as 535
_SOON = const(10)  # s before another try where trying may help
_HOUR = const(3600)  # s where a person is needed, who may mend it at the server
_DAY = const(86400)
_WEEK = const(604800)  # unused, a refresh token ends after 90 days at Microsoft and after 6 months at Google
_LOOK = const(600)  # s between two looks whether it is time

_LATER = ("temporarily_unavailable", "server_error", "internal_failure", "slow_down")
_OURS = ("invalid_client", "unauthorized_client", "invalid_scope", "invalid_request", "unsupported_grant_type")


def _plain(value):
    """Whether it is a token that may stand in a command: printable ASCII, neither empty nor endless."""
    return isinstance(value, str) and 0 < len(value) <= _TOKEN and min(value) > " " and max(value) <= "~"


class Tokens:
    """The access tokens of one account.

    token_url: https://host[:port]/path; path: where the refresh token is kept, without ".0" and ".1"; uptime(): seconds
    that never go back; grant: "refresh_token" or "client_credentials"; ca: DER certificates, bytes or base64 text, the
    only ones that are trusted; mechanism: of AUTH; now(): epoch seconds or None; log(text); slots: slots.Slots, for
    keep(). Raises ValueError for a URL that is none, and where there is no refresh token to begin with.
    """

    def __init__(self, token_url, client_id, path, uptime, client_secret="", scope="", refresh_token="",
                 grant="refresh_token", ca=(), mechanism="XOAUTH2", now=None, log=None, slots=None):
        self.token_url = token_url
        self.where = place(token_url)[2]
        self.client_id = client_id
        self.path = path
        self.uptime = uptime
        self.client_secret = client_secret
        self.scope = scope
        self.refresh = refresh_token
        self.grant = grant
        self.ca = ca
        self.mechanism = mechanism
        self.now = now or (lambda: None)
        self.log = log or (lambda text: None)
        self.slots = slots
        self.access = None  # good until
        self.until = 0
        self.error = None  # why there is none; nobody is asked until
        self.hold = 0
        self.renewed = None  # uptime of the last renewal
        self.dropped = -_HOUR  # and of the last refused()
        self.busy = self.dirty = False
        self.told = None  # what was logged last
        self.count = self.time = 0
        if grant == "refresh_token":
            if not _plain(refresh_token):
                raise ValueError("there is no refresh token: sign in, and set smarthost.oauth.refresh_token")
            mark = hashlib.sha256((client_id + " " + refresh_token).encode()).digest()
            self.mark = binascii.hexlify(mark[:6]).decode()
            self.load()

    def tell(self, text):
        if text != self.told:
            self.told = text
            self.log(text)

    # -- the refresh token in flash

    def load(self):
        """Takes the newest refresh token that comes from the configured one."""
        for n in (0, 1):
            try:
                with open("%s.%d" % (self.path, n), "rb") as f:
                    text, _, crc = f.read(_TOKEN + 100).rpartition(b" ")
                count, mark, time, token = str(text, "utf-8").split(" ")
                if int(crc, 16) == binascii.crc32(text) and mark == self.mark and int(count) > self.count:
                    self.count, self.time, self.refresh = int(count), int(time), token
            except (OSError, ValueError):
                pass  # not there, or torn

    def save(self):
        """Writes the refresh token over the older of the two, unless nothing has changed."""
        if not self.dirty:
            return
        text = ("%d %s %d %s" % (self.count + 1, self.mark, self.time, self.refresh)).encode()
        try:
            with open("%s.%d" % (self.path, self.count + 1 & 1), "wb") as f:
                f.write(text + b" %08x\n" % binascii.crc32(text))
        except OSError as e:
            self.tell("the new refresh token cannot be stored (error %s): it is used, and stored when that works. If "
                      "the power fails before, you may have to sign in again. Is the flash full?" % e.args[0])
            return
        self.count += 1
        self.dirty = False

    # -- tokens

    async def token(self, resolve=None):
        """The access token (str), from memory while it is good. resolve: as for stream.connect.

        Raises client.SessionError, reason "oauth": its text says to sign in again, what to check, or what it waits for.
        """
        while self.busy:
            await sleep_ms(50)
        now = self.uptime()
        if now >= self.until:
            if self.error and now < self.hold:
                raise SessionError("oauth", self.error)
            self.busy = True
            try:
                await self.fetch(resolve)
            finally:
                self.busy = False
        self.save()
        return self.access

    def refused(self):
        """The smart host refused the token: the next token() gets another. False when that was done within the hour:
        the token is not what is wrong."""
        now = self.uptime()
        if now - self.dropped < _HOUR:
            return False
        self.dropped = now
        self.until = 0
        return True

    def due(self):
        """Whether a week has passed since the last renewal: by the clock, or else by uptime, as if it had been a week
        ago but one hour at the start."""
        if self.grant != "refresh_token":
            return False
        now = self.now() or 0
        if self.renewed is None and 0 < self.time <= now:
            return now - self.time >= _WEEK
        return self.uptime() - (_HOUR - _WEEK if self.renewed is None else self.renewed) >= _WEEK

    async def keep(self, resolve=None):
        """Renews an idle refresh token, for ever, so that it does not end for want of use."""
        while True:
            await asyncio.sleep(_LOOK)
            self.save()
            if self.due():
                try:
                    while self.slots and not self.slots.take(self):
                        await sleep_ms(100)
                    await self.token(resolve)
                    self.told = None
                    self.log("the idle refresh token was renewed")
                except SessionError as e:
                    self.tell("%s. This was to keep the refresh token alive: no mail waits for it" % e)
                finally:
                    if self.slots:
                        self.slots.give(self)

    async def fetch(self, resolve):
        """Gets an access token, and perhaps a new refresh token with it."""
        self.error = "no access token from %s: " % self.where
        ca = [binascii.a2b_base64(c) if isinstance(c, str) else c for c in self.ca]
        body = form((
            ("grant_type", self.grant), ("client_id", self.client_id), ("client_secret", self.client_secret),
            ("refresh_token", self.refresh), ("scope", self.scope)))
        try:
            status, wait, body = await asyncio.wait_for(post(self.token_url, body, ca, resolve), _ALL)
        except (OSError, ValueError, EOFError, MemoryError, asyncio.TimeoutError) as e:
            self.fail(str(e) or "not in time, or not enough memory")
        try:
            got = json.loads(body)
        except (ValueError, RuntimeError, MemoryError):  # RuntimeError: nested too deeply
            got = None
        if not isinstance(got, dict):
            got = {}
        token = got.get("access_token")
        if status == 200 and _plain(token) and str(got.get("token_type", "bearer")).lower() == "bearer":
            return self.take(token, got)
        error = got.get("error")
        said = "it answers %d" % status
        if not isinstance(error, str):
            error = ""
        for text in (error, got.get("error_description")):
            if text:
                said += ": " + self.clean(str(text))
        if status in (408, 429) or status >= 500 or error in _LATER:
            self.fail(said, wait)
        if not error:
            self.fail(said + " without a token: check smarthost.oauth.token_url")
        if error in _OURS or self.grant != "refresh_token":
            said += ". Check smarthost.oauth.client_id, client_secret and scope: a secret may have expired"
        else:
            said += ". Sign in again, and set smarthost.oauth.refresh_token to the new refresh token"
        self.fail(said, _HOUR)

    def take(self, token, got):
        """Keeps what a good answer brought."""
        try:
            life = min(int(str(got.get("expires_in"))[:9]), _DAY)
        except ValueError:
            life = _LIFE
        self.access = token
        self.error = None
        self.renewed = self.uptime()
        self.until = self.renewed + life - min(300, life // 2)
        if self.grant == "refresh_token":
            new = got.get("refresh_token")
            if _plain(new) and new != self.refresh:
                self.refresh = new
                self.dirty = True
            epoch = self.now() or 0
            if self.dirty or epoch - self.time > _DAY:  # not each hour: flash wears out
                self.time = epoch
                self.dirty = True

    def fail(self, why, wait=0):
        """Raises SessionError, for `wait` seconds from now."""
        self.error += why
        self.hold = self.uptime() + min(max(wait, _SOON), _HOUR)
        raise SessionError("oauth", self.error)

    def clean(self, text):
        """What a server said, fit for a log: short, printable, and without our secrets or what looks like one."""
        for secret in (self.client_secret, self.refresh):
            if secret:
                text = text.replace(secret, "...").replace(form((("", secret),)).decode()[1:], "...")
        text = "".join([c if " " <= c <= "~" else " " for c in text[:1000]])
        return " ".join([w if len(w) <= 40 else "..." for w in text.split()])[:200]
