"""Names to IP addresses without stopping the board: a stub resolver (RFC 1035, 2181, 5452, 6761, 7766).

getaddrinfo() stops every task until a name server has answered. Here each query is a UDP socket that only its own task
waits for, and TCP when the reply was cut short.

A reply counts when it comes from the address and port that were asked, to the port that asked (a random one for each
query), with the query's random id and its question, and can be read to its end. Anything else is as if it had not
come: the wait goes on (RFC 5452 section 9).

May use: stream, network; advice where a name is none.
"""

import asyncio
import errno
import os
import socket

from . import const
from .network import parse_ip
from .stream import Stream, connect, sleep_ms, ticks_add, ticks_diff, ticks_ms

A = const(1)
AAAA = const(28)

_CUT = const(16)  # no code of RFC 1035 4.1.1: the reply has the TC bit
_DAY = const(86400)  # seconds: no answer is kept longer, whatever its TTL
_KEPT = const(16)  # answers in the cache: A and AAAA of 8 names
READ = {}  # of another kind of record: a function of a reply and where the data begin, that gives them and what follows
_LABEL = b"abcdefghijklmnopqrstuvwxyz0123456789-_"


def encode(host):
    """`host` (str) as bytes of a query, in lower case. ValueError when no name can be so (RFC 1035 2.3.4)."""
    out = b""
    for label in host.encode().lower().split(b"."):
        if not 0 < len(label) < 64 or label.strip(_LABEL):
            raise ValueError
        out += bytes((len(label),)) + label
    if len(out) > 254:
        raise ValueError
    return out + b"\0"


def _name(reply, at):
    """The name at `at`, without pointers and in lower case, and what follows it (RFC 1035 4.1.4)."""
    out = b""
    end = 0
    start = at
    for _ in range(128):  # pointers in a circle end here
        n = reply[at]
        if n > 191:
            end = end or at + 2
            at = (n & 63) << 8 | reply[at + 1]
            if at >= start:
                break  # they point back
            continue
        at += n + 1
        out += reply[at - n - 1 : at]
        if n > 63 or at > len(reply) or len(out) > 255:
            break
        if not n:
            return out.lower(), end or at
    raise ValueError


def parse(reply, id, name, kind, part=False):
    """What `reply` (bytes) says to the query with `id` (2 bytes) for the records of `kind` of `name` (encode()).

    None when it does not count, else (code, name, found, ttl). code: as in RFC 1035 4.1.1, 16 for a reply that was cut
    short; name: what the name is an alias of in the end; found: list of addresses (text); ttl in seconds. With `part`
    the end of `reply` may be missing. Raises nothing.
    """
    question = name + bytes((0, kind, 0, 1))
    at = 12 + len(question)
    # The id, a response to a standard query, one question and that is ours.
    if reply[:2] != id or reply[4:6] != b"\0\1" or reply[12:at].lower() != question or reply[2] & 0xF8 != 0x80:
        return None
    if reply[2] & 2:
        return _CUT, name, [], 0
    aliases = {}
    records = []
    try:
        for _ in range(min(reply[6] << 8 | reply[7], 64)):
            owner, at = _name(reply, at)
            what = reply[at : at + 4]
            end = at + 10 + (reply[at + 8] << 8 | reply[at + 9])
            data = reply[at + 10 : end]
            # RFC 2181 section 8: a TTL with its top bit set is 0.
            ttl = 0 if reply[at + 4] > 127 else int.from_bytes(reply[at + 4 : at + 8], "big")
            if what == b"\0\5\0\1":
                target, at = _name(reply, at + 10)
                aliases[owner] = target, ttl
            elif what == question[-4:]:
                at += 10
                if kind == A:
                    address = "%d.%d.%d.%d" % tuple(data)
                    at += 4
                elif kind == AAAA:
                    address = ":".join(["%x" % (data[i] << 8 | data[i + 1]) for i in range(0, 16, 2)])
                    at += 16
                else:
                    address, at = READ[kind](reply, at)
                records.append((owner, address, ttl))
            else:
                at = end
            if at != end or end > len(reply):
                raise ValueError
    except (IndexError, TypeError, ValueError):
        if not part:
            return None
    code = reply[3] & 15
    if not (code or aliases or records or reply[3] & 128 or reply[2] & 4):
        code = 5  # it neither knows nor asks: another server may
    ttl = _DAY
    while name in aliases:
        name, least = aliases.pop(name)
        ttl = min(ttl, least)
    found = [r for r in records if r[0] == name]
    return code, name, [r[1] for r in found], min([ttl] + [r[2] for r in found])


async def _ask(ip, port, wait, name, kind):
    """What the server at `ip` answers within `wait` ms, as parse() gives it, else OSError."""
    id = os.urandom(2)
    query = id + b"\1\0\0\1\0\0\0\0\0\0" + name + bytes((0, kind, 0, 1))
    where = socket.getaddrinfo(ip, port)[0]
    s = Stream(socket.socket(where[0], socket.SOCK_DGRAM), 0)
    try:
        s.raw.setblocking(False)
        s.due = ticks_add(ticks_ms(), wait)
        for _ in range(4):  # lwIP counts its ports up, which is easy to guess
            mine = int.from_bytes(os.urandom(2), "big") | 1024
            try:
                s.raw.bind(socket.getaddrinfo("::" if ":" in ip else "0.0.0.0", mine)[0][4])
                break
            except OSError:
                pass  # taken
        s.raw.connect(where[4])  # nobody else is heard from here on
        s.raw.send(query)
        while True:
            try:
                answer = parse(s.raw.recv(512), id, name, kind)
                if answer:
                    break
                await sleep_ms(0)  # a flood of forged replies stops nobody
                if ticks_diff(ticks_ms(), s.due) > 0:
                    raise OSError(errno.ETIMEDOUT)
            except OSError as e:
                if e.errno != errno.EAGAIN:
                    raise
                await s.wait(False)
    finally:
        s.close()
    if answer[0] != _CUT:
        return answer
    s = await connect(ip, port, wait)  # RFC 7766 section 5
    try:
        s.due = ticks_add(ticks_ms(), wait)
        s.put(bytes((len(query) >> 8, len(query) & 255)) + query)
        n, size = 0, 2
        while n < min(size, len(s.buf)):  # what does not fit is more than anybody needs
            more = s.get(s.mv[n:])
            if more is None:
                await s.wait(False)
            elif not more:
                raise OSError(errno.ECONNRESET)
            else:
                n += more
                if n > 1:
                    size = 2 + (s.buf[0] << 8 | s.buf[1])
        answer = parse(bytes(s.mv[2 : min(n, size)]), id, name, kind, n < size)
    finally:
        s.close()
    if not answer:
        raise OSError(errno.EINVAL)
    return answer


class Resolver:
    """Looks names up. `servers`: a function that gives the name servers, each time anew, or a list of them: IP address
    texts, or pairs of that and a port; the first three count.

    uptime: seconds that never go back; hosts: a function that is asked first, and gives a list of the addresses of a
    name that it knows. `ipv6`: whether IPv6 addresses are of use: many a board's lwIP cannot send to them.
    """

    def __init__(self, servers, uptime=None, hosts=None):
        self.servers = servers if callable(servers) else lambda: servers
        self.uptime = uptime or (lambda: ticks_ms() // 1000)
        self.hosts = hosts or {}.get
        self.ipv6 = hasattr(socket, "inet_pton")  # systems have it, boards do not
        self.waits = (2000, 4000)  # ms for each server, in turn
        self.cache = {}  # (name, kind): (when it expires, found, arguments of an OSError)

    async def resolve(self, host):
        """The IP addresses (texts) of `host`, a name or an address, in the order to try. Raises OSError(number, text):
        ENOENT when it does not exist or has none, ETIMEDOUT when no name server answers, EHOSTUNREACH when none is
        known, EINVAL when no name can be so."""
        name = (host[:-1] if host.endswith(".") else host).lower()
        ip = name.strip("[]")
        if parse_ip(ip):
            return [ip]
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
            return ["127.0.0.1", "::1"] if self.ipv6 else ["127.0.0.1"]
        found = self.hosts(name)
        if found:
            return found
        try:
            if name.rsplit(".", 1)[-1].isdigit():
                raise ValueError
            name = encode(name)
        except ValueError:
            from .advice import NO_NAME

            raise OSError(errno.EINVAL, NO_NAME)
        other = asyncio.create_task(self.look(name, AAAA)) if self.ipv6 else None
        found, error = await self.look(name, A)
        if other:
            for ms in range(20):  # who has an IPv4 address does not wait long for others
                if not found or other.done():
                    more, worse = await other
                    found = found + more
                    error = max(error, worse)  # ETIMEDOUT says more than ENOENT
                    break
                await sleep_ms(ms)
        if found:
            return found
        raise OSError(error[0], "the name could not be looked up: " + error[1])

    async def look(self, name, kind):
        """(found, error) of encode(host), from the cache or by asking; error: what OSError says if found is empty."""
        key = name, kind
        hit = self.cache.get(key)
        if hit and 0 < hit[0] - self.uptime() <= _DAY:
            return hit[1:]
        ttl = _DAY
        error = errno.ENOENT, "its aliases lead in a circle, which their owner has to mend"
        try:
            for _ in range(8):
                code, end, found, least = await self.query(name, kind)
                ttl = min(ttl, least)
                if code or found or end == name:
                    error = errno.ENOENT, "it does not exist" if code else "it has no IP address"
                    break
                name = end
        except OSError as e:
            if not (hit and hit[1]):
                return [], e.args
            found = hit[1]  # RFC 8767: an old answer is better than none
            ttl = 0
        if len(self.cache) >= _KEPT and key not in self.cache:
            self.cache.pop(min(self.cache, key=lambda k: self.cache[k][0]))
        self.cache[key] = self.uptime() + (max(ttl, 30) if found else 60), found, error
        return found, error

    async def query(self, name, kind):
        """What the first name server that answers says, as parse() gives it, else OSError."""
        servers = [(s, 53) if isinstance(s, str) else s for s in self.servers()]
        servers = [s for s in servers if parse_ip(s[0]) and (self.ipv6 or ":" not in s[0])][:3]
        if not servers:
            raise OSError(errno.EHOSTUNREACH, "no name server is known; check the network, or set board.dns")
        for wait in self.waits:
            said = []
            for ip, port in servers:
                try:
                    answer = await _ask(ip, port, wait, name, kind)
                    if answer[0] in (0, 3):  # 3: there is no such name
                        return answer
                    said.append("%s says %s" % (ip, {2: "SERVFAIL", 5: "REFUSED"}.get(answer[0], answer[0])))
                except OSError as e:
                    silent = e.args[0] == errno.ETIMEDOUT
                    said.append("%s is silent" % ip if silent else "%s: error %s" % (ip, e.args[0]))
        raise OSError(errno.ETIMEDOUT, "no name server answers (%s); check the network and board.dns" % ", ".join(said))
