"""HTTP/1.1 (RFC 9112) for the status service: a request, bounded in time and memory, who may in, and who answers.
Loaded while somebody asks.

A connection has one request and ends with its answer. Of the request only what means something here is kept, so that
nothing that a stranger sends takes memory.

Who may in: peers of the configured networks, with the password (HTTP Basic, RFC 7617; any user name). The board has a
SCRAM verifier of it (RFC 5803), as of LAN users, not a plain hash: 4,096 rounds make each guess dear for who has a copy
of the flash. They take a board a second, once: after a success it remembers a hash of the password with a key of this
boot, which nobody else ever sees. One password is checked at a time, a wrong one takes a second longer, and from the
third on its sender has to wait. In HTTP the password crosses the LAN in the clear.

A page elsewhere may make a browser in the LAN ask here, with the password that it knows: what changes something needs
the Origin of this very host, or none at all, as of a program (Fetch standard, "Origin" header). A name that somebody
else's name server points here (DNS rebinding) is refused: see named().

Why not microdot: it takes 23 KB of heap for as long as the gateway runs, this takes 13 for a moment.

May use: status, routes, smtp.stream, smtp.network; smtp.auth while a password is checked.
"""

import binascii
import hashlib
import re
import sys

import gateway
import status
from routes import answer, respond
from smtp import const
from smtp.network import parse_ip
from smtp.stream import Stream, sleep_ms, ticks_add, ticks_ms

_BUFFER = const(1024)  # octets, and of the longest line that counts
_HEAD = const(16384)  # octets of a request
_URL = const(200)
_BODY = const(256)  # octets, which are not looked at: nothing here has a body, but empty forms
_ASK = const(10000)  # ms for a request to come
_TAKE = const(15000)  # ms for a piece of the answer to go
_PIECE = const(700)  # octets that are sent at once
_PATIENCE = const(20)  # times to try it again when there was no memory
_WRONG = const(8)  # peers with wrong passwords that are remembered

_odd = re.compile(b"[^!-$&-~]").search  # in a target: no %, which nothing here has
_FIELDS = (b"host", b"authorization", b"origin", b"sec-fetch-site", b"content-length")
_LOCAL = (".local", ".lan", ".home", ".internal", ".localhost", ".home.arpa")
_TOP = """HTTP/1.1 %d %s\r
Content-Type: %s; charset=utf-8\r
Content-Security-Policy: %s\r
Connection: close\r
Cache-Control: no-store\r
X-Content-Type-Options: nosniff\r
Referrer-Policy: same-origin\r
Cross-Origin-Resource-Policy: same-origin\r
%s\r
"""


class Peer:
    """A connection and its request: method, path, query (str), fields (of _FIELDS, str)."""

    def __init__(self, sock, ip):
        self.ip = ip
        self.method = self.path = self.query = ""
        self.fields = {}
        self.room = _HEAD
        self.sent = False
        self.s = s = Stream(sock, _BUFFER)
        s.eol = b"\n"
        s.due = ticks_add(ticks_ms(), _ASK)

    async def fill(self):
        s = self.s
        held = s.hi - s.lo
        while not s.fill():
            await s.wait(False)
        self.room -= s.hi - held
        if self.room < 0:
            raise ValueError("it is too long")
        await sleep_ms(0)  # one that sends without end keeps nobody waiting

    async def line(self):
        while True:
            line = self.s.line()
            if line is not None:
                return line
            await self.fill()

    async def ask(self):
        """Reads the request. Raises ValueError when it is none, EOFError, OSError."""
        parts = (await self.line() or b"").split(b" ")
        if len(parts) != 3 or not parts[0].isalpha() or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise ValueError("its first line is none of HTTP/1")
        url = parts[1]
        if url[:1] != b"/" or len(url) > _URL or _odd(url):
            raise ValueError("there is no such thing here")
        self.method = str(parts[0], "utf-8")
        self.path, _, self.query = str(url, "utf-8").partition("?")
        while True:
            line = await self.line()
            if line == b"":
                break
            name, colon, value = (line or b":").partition(b":")  # what does not fit is nothing that is needed
            name = name.lower()
            if not colon or name in self.fields:
                raise ValueError("its header is wrong")
            if name in _FIELDS:
                self.fields[name] = str(value.strip(), "utf-8")
        s = self.s
        left = int(self.field(b"content-length") or 0)
        if not 0 <= left <= _BODY:
            raise ValueError("its body is too long")
        while s.hi - s.lo < left:
            await self.fill()

    def field(self, name):
        return self.fields.get(name, "")

    async def send(self, status, body, kind, more, policy):
        if isinstance(body, str):
            body = body.encode()
            more += "Content-Length: %d\r\n" % len(body)
            body = (body,)
        word = {200: "OK", 202: "Accepted", 303: "See Other"}.get(status, "Refused")
        out = (_TOP % (status, word, kind, policy, more)).encode()
        for piece in body if self.method != "HEAD" else ():
            if isinstance(piece, str):
                piece = piece.encode()
            if len(out) + len(piece) > _PIECE:
                await self.flush(out)
                out = piece
            else:
                out += piece
        await self.flush(out)

    async def flush(self, out):
        self.sent = True
        s = self.s
        s.due = ticks_add(ticks_ms(), _TAKE)
        out = memoryview(out)
        while len(out):
            n = s.put(out)
            if n is None:
                await s.wait(True)
            else:
                out = out[n:]
        await sleep_ms(0)


async def run(conn, ip, visit):
    """Answers one request on a connection. visit: see status."""
    peer = Peer(conn, ip)
    try:
        try:
            await peer.ask()
            visit[3] = True
        except ValueError as e:
            await peer.send(*answer(400, "this request cannot be answered: %s\n" % e))
            return
        told = await guard(peer)
        for n in range(_PATIENCE):
            try:
                await peer.send(*told or await respond(peer))
                break
            except MemoryError:
                if peer.sent or n == _PATIENCE - 1 or peer.method not in ("GET", "HEAD"):
                    raise
                await sleep_ms(200)
    except (OSError, EOFError):
        pass  # it has gone
    except MemoryError:
        raise
    except Exception as e:
        status.log("no answer to %s %s:" % (peer.method, peer.path))
        sys.print_exception(e)
        gateway.file.error(e)
    finally:
        peer.s.close()


# -- who may in

async def guard(peer):
    """None, or the answer that says why not."""
    host = peer.field(b"host").lower()
    if not named(host):
        return answer(421, "this gateway does not answer to that name: use its IP address, or add the name to "
                           "status.names\n")
    reads = peer.method in ("GET", "HEAD")
    if peer.path == "/health" and reads and status.table["health"]:
        return None
    if not await right(peer.field(b"authorization"), peer.ip):
        wait = status.wrong.get(peer.ip, (0, 0))[1] - gateway.time.uptime()
        if wait > 0:
            return answer(429, "too many wrong passwords: wait %d s\n" % wait, more="Retry-After: %d\r\n" % wait)
        return answer(401, "the password is missing or wrong\n",
                      more='WWW-Authenticate: Basic realm="edgepost", charset="UTF-8"\r\n')
    origin = peer.field(b"origin")
    if not reads and (origin and origin.partition("://")[2].lower() != host
                      or peer.field(b"sec-fetch-site") not in ("", "none", "same-origin")):
        return answer(403, "this was asked for by a page of somebody else\n")

def named(host):
    """Is this host name one of ours? An address, a name without a dot or of a zone that is nobody's on the internet
    (RFC 6761, 6762, 8375 and custom), the gateway's own, or one of status.names."""
    name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
    if name[-1:] == ".":
        name = name[:-1]
    return name and (
        parse_ip(name) or "." not in name or name in status.names or [z for z in _LOCAL if name.endswith(z)])

async def right(given, ip):
    """Is the password right in an Authorization field?"""
    scheme, _, value = given.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        password = str(binascii.a2b_base64(value.encode()), "utf-8").partition(":")[2]
    except ValueError:
        password = ""
    if not password:
        return False
    mark = hashlib.sha256(status.key + password.encode()).digest()
    if mark == status.mark:
        return True
    while status.checking:
        await sleep_ms(100)
    count, until = status.wrong.get(ip, (0, 0))
    if until > gateway.time.uptime():
        return False
    status.checking = True
    try:
        if await verify(status.table["verifier"], password):
            status.mark = mark
            status.wrong.pop(ip, None)
            return True
        count += 1
        if not count & count - 1:
            status.log("wrong password from %s, %d in all" % (ip, count))
        if len(status.wrong) >= _WRONG and ip not in status.wrong:
            status.wrong.pop(min([(w[1], a) for a, w in status.wrong.items()])[1])
        status.wrong[ip] = count, gateway.time.uptime() + min(1 << count, 300) if count > 2 else 0
        await sleep_ms(1000)
        return False
    finally:
        status.checking = False


async def verify(verifier, password):
    """Is it the password that `verifier` was made from?"""
    loaded = "smtp.auth" in sys.modules
    from smtp import auth

    work = auth.check(verifier, password)
    try:
        while True:
            next(work)
            await sleep_ms(0)
    except StopIteration as e:
        if not loaded:
            gateway.unload("smtp.auth")  # 7 KB that are needed once
        return e.value
