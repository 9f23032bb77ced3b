"""One request over verified HTTPS (RFC 9112), a POST as token servers want it, or a GET: bounded, without redirects,
without blocking.

`exchange` holds the protocol as a generator for stream.Stream.run and does no I/O itself; `post` and `get` are the
coroutines. May use: stream, tlserror.
"""

from . import const
from .stream import CHUNK, LINE, client_context, connect

MOST = const(16384)  # octets of an answer's body; Microsoft's have some 4,000
_LINES = const(100)  # of status and headers
_TIMEOUT = const(30000)  # ms for the connection, and for each piece of the answer

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_HEX = b"0123456789abcdefABCDEF"
_TLS = {
    "ca": "its certificate is not signed by the CA in %s.ca: set it to the one that this server uses",
    "name": "its certificate is for another name: check %s",
    "expired": "its certificate has expired, or this clock is wrong",
    "future": "its certificate is not valid yet: is this clock right?",
    "memory": "not enough memory for TLS now",
}


def form(fields):
    """application/x-www-form-urlencoded (bytes) of pairs of str; pairs without a value are left out."""
    out = bytearray()
    for name, value in fields:
        if value:
            out += b"&%s=" % name.encode()
            for c in value.encode():
                if c in _SAFE:
                    out.append(c)
                else:
                    out += b"%%%02X" % c
    return bytes(out[1:])


def _buffered(io):
    """What has arrived of the `io.want` octets that are still to come, or None."""
    n = min(io.hi - io.lo, io.want)
    if n:
        io.lo += n
        io.want -= n
        return bytes(io.mv[io.lo - n : io.lo])


def _take(io, body, n):
    """Generator: appends the next `n` octets to `body`, a bytearray."""
    if len(body) + n > MOST:
        raise ValueError("its answer is too long")
    io.want = n
    while io.want:
        body += yield CHUNK


def exchange(io, request):
    """Generator: sends a request (bytes), returns (status, seconds of Retry-After or 0, body).

    Raises ValueError for what is no answer, and what the transport raises.
    """
    io.eol = b"\n"
    io.timeout = _TIMEOUT
    io.chunk = lambda: _buffered(io)  # octets as they are: scan mends line ends
    io.out += request
    status = lines = 0
    while True:
        line = yield LINE
        lines += 1
        if lines > _LINES:
            raise ValueError("its answer has too many header lines")
        if not status:
            status = int(line[9:12]) if line and line[:7] == b"HTTP/1." and line[9:12].isdigit() else 0
            if status < 100:
                raise ValueError("its answer is no HTTP")
            chunked = False
            size = None
            wait = 0
        elif line == b"":
            if status >= 200:
                break
            status = 0  # 100 (Continue): the answer follows
        elif line:  # False: longer than the buffer, as cookies are
            name, _, value = line.partition(b":")
            name = name.lower()
            value = value.strip()
            if name == b"content-length":
                size = int(value) if value.isdigit() else MOST + 1
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"retry-after" and value.isdigit():
                wait = int(value[:6])
    body = bytearray()
    while chunked:
        line = ((yield LINE) or b"").split(b";")[0].strip()
        if not 0 < len(line) < 7 or line.strip(_HEX):
            raise ValueError("its answer is not in chunks")
        size = int(line, 16)
        if not size:
            break
        yield from _take(io, body, size)
        if (yield LINE) != b"":
            raise ValueError("its answer is not in chunks")
    if not chunked:
        try:
            yield from _take(io, body, MOST if size is None else size)
        except (EOFError, OSError):
            if size is not None:
                raise  # else the end of the connection is that of the answer
    return status, wait, body


def place(url, verify="full"):
    """(host, port, "host[:port]", path without its first /) of an https URL; with verify "none" http will do, too.
    ValueError for any other text."""
    scheme, _, rest = url.partition("://")
    where, _, path = rest.partition("/")
    host, _, port = where.partition(":")
    plain = scheme == "http" and verify == "none"
    if scheme != "https" and not plain or not host or not (port or "1").isdigit() or min(url) <= " " or max(url) > "~":
        raise ValueError("%r is no https://host/path" % url)
    return host, int(port or (80 if plain else 443)), where, path


async def _ask(method, url, rest, ca, resolve, key, verify="full"):
    """What exchange() gives. rest: header lines, the empty line and the body (bytes); key: that of the configuration
    with the URL, for errors."""
    host, port, where, path = place(url, verify)
    context = client_context(ca, verify != "none")
    stream = await connect(host, port, _TIMEOUT, 2048, resolve)
    try:
        if url[:6] == "https:":
            stream.context = context, host
            stream.start_tls()
        head = "%s /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: edgepost\r\nConnection: close\r\n" % (method, path, where)
        return await stream.run(exchange(stream, head.encode() + rest))
    except (OSError, ValueError, EOFError) as e:
        if not stream.shaking:
            raise
        from .tlserror import tls_reason

        text = _TLS.get(tls_reason(e)) or "the TLS handshake failed: %s" % e
        raise ValueError(text.replace("%s.ca", key.rpartition(".")[0] + ".ca").replace("%s", key))
    finally:
        stream.close()


async def post(url, body, ca, resolve=None):
    """Sends a form (bytes) to `url` and returns what exchange() does. ca: DER certificates, the only ones trusted.

    Raises OSError, EOFError and ValueError, whose texts say what is wrong, and MemoryError.
    """
    head = "Accept: application/json\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n"
    return await _ask("POST", url, (head % len(body)).encode() + body, ca, resolve, "smarthost.oauth.token_url")


async def get(url, ca, resolve=None, key="url", verify="full"):
    """As post(). verify "none": anybody may answer; then url may begin with http:// as well. key: see _ask()."""
    return await _ask("GET", url, b"\r\n", ca, resolve, key, verify)
