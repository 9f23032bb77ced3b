"""Lines and mail over a socket: the one room that knows sockets, asyncio, ssl and the interpreter.

Two classes. `Wire` frames bytes and does no I/O: a test feeds it by hand, cut anywhere. `Stream` is a wire with a
non-blocking socket under it, TCP or TLS.

A protocol session is a generator that owns a wire. It appends what it says to `wire.out` and yields what it needs:

    PAUSE   let the others run                       (sent back: None)
    LINE    a line without its end                   (bytes; False: it did not fit the buffer and was dropped)
    DATA    a piece of a dot-stuffed mail            (memoryview or bytes; False: the end. Set `wire.bol` first)
    CHUNK   a piece of `wire.want` raw octets        (memoryview)
    SEND    what is in `out` to be sent now          (None)
    TLS     TLS with `wire.context` from here on     (None; what was read ahead is thrown away, CVE-2011-0411)
    SLEEP   `wire.timeout` milliseconds              (None)

`out` also goes out whenever the wire has to wait for input, so answers to a pipelined group leave in one write (RFC 2920).
A failure of the transport is raised inside the generator: EOFError when the peer has gone, OSError(ETIMEDOUT) when
`wire.timeout` (ms, counted from the request, not from the last byte) has passed, any other OSError or ValueError as
the socket or TLS raised it.
"""

import asyncio
import errno
import socket
import ssl
import sys
import time

from .scan import clean

PAUSE = None
LINE = 1
DATA = 2
CHUNK = 3
SEND = 4
TLS = 5
SLEEP = 6
_OVER = 7  # the session has ended

MICROPYTHON = sys.implementation.name == "micropython"
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS)
_CONNECTED = (106, 56, 127)  # EISCONN of Linux and MicroPython, of BSD, of lwIP
_SWEEP = 200  # ms between two looks at the deadlines
_SPARE = 4  # buffers kept for the next sessions

if MICROPYTHON:
    from asyncio import core

    ticks_ms = time.ticks_ms
    ticks_add = time.ticks_add
    ticks_diff = time.ticks_diff
    sleep_ms = asyncio.sleep_ms
else:

    def ticks_ms():
        return int(time.monotonic() * 1000)

    def ticks_add(a, b):
        return a + b

    def ticks_diff(a, b):
        return a - b

    def sleep_ms(ms):
        return asyncio.sleep(ms / 1000)


class Wire:
    """Frames of SMTP, without I/O. `size` octets of buffer bound the longest line."""

    def __init__(self, buf):
        self.buf = buf
        self.mv = memoryview(buf)
        self.lo = self.hi = 0  # what was received and not yet taken: buf[lo:hi]
        self.out = b""
        self.eol = b"\r\n"  # b"\n" takes a line feed alone as the end of a command, for old devices
        self.skip = False
        self.bol = True  # the next octet of DATA begins a line
        self.bare = False  # a CR or LF alone was seen in DATA
        self.want = 0
        self.timeout = 300000
        self.context = None
        self.shaking = False  # a TLS handshake is under way

    def line(self):
        """The next line, None when it has not arrived whole, False when it was longer than the buffer."""
        lo = self.lo
        eol = self.eol
        i = self.buf.find(eol, lo, self.hi)
        if i < 0:
            if self.hi - lo == len(self.buf):
                self.skip = True
                self.buf[0] = self.buf[-1]  # may be the CR of the line's end
                self.lo, self.hi = 0, 1
            return None
        self.lo = i + len(eol)
        if self.skip:
            self.skip = False
            return False
        if len(eol) == 1 and i > lo and self.buf[i - 1] == 13:
            i -= 1
        return bytes(self.mv[lo:i])

    def data(self):
        """The next piece of a mail in DATA with its dots taken off, None when more must arrive, False at its end.

        Only CRLF "." CRLF ends it (RFC 5321 4.1.1.4, 4.5.2). A piece never splits a CRLF; a CR or LF that stands
        alone sets `bare`, and is mended in what is returned: LF becomes CRLF, CR goes.
        """
        buf = self.buf
        lo = self.lo
        hi = self.hi
        if lo == hi:
            return None
        if self.bol and buf[lo] == 46:
            if hi - lo < 3 and (hi - lo < 2 or buf[lo + 1] == 13):
                return None
            if buf[lo + 1] == 13 and buf[lo + 2] == 10:
                self.lo = lo + 3
                return False
            lo += 1
        self.bol = False
        end = clean(buf, lo, hi)
        if end > lo:
            self.lo = end
            self.bol = buf[end - 1] == 10
            return self.mv[lo:end]
        # A CR or LF alone, or a CR whose LF may still come.
        self.lo = lo
        if buf[lo] == 13 and hi - lo == 1:
            return None
        self.bare = True
        self.lo = lo + 1
        return b"" if buf[lo] == 13 else b"\r\n"

    def chunk(self):
        """Up to `want` octets as they are, None when none has arrived."""
        lo = self.lo
        if lo == self.hi:
            return None
        end = min(self.hi, lo + self.want)
        self.lo = end
        return self.mv[lo:end]


# The streams whose deadlines are swept, the task that does it, and buffers for the streams to come.
_open = []
_sweeper = None
_buffers = []


async def _sweep():
    while _open:
        await sleep_ms(_SWEEP)
        now = ticks_ms()
        for s in _open:
            if s.waiter is not None and s.due is not None and ticks_diff(now, s.due) > 0:
                s.expire()


_READ, _WRITE, _SLEEP, _DONE = 0, 1, 2, 3  # what advance() waits for


class Stream(Wire):
    """A wire over a connected, non-blocking socket. `size`: octets of buffer."""

    def __init__(self, sock, size=2048):
        global _sweeper
        Wire.__init__(self, _buffers.pop() if _buffers and len(_buffers[-1]) == size else bytearray(size))
        self.raw = sock  # what is waited for
        self.use(sock)
        self.rest = None  # what of `out` the socket has not taken yet
        self.waiter = None
        self.due = None
        self.expired = False
        self.turns = 0
        try:
            sock.setsockopt(6, 1, 1)  # TCP_NODELAY: Nagle and delayed ACK cost 40 ms a mail
        except OSError:
            pass
        _open.append(self)
        if _sweeper is None or _sweeper.done():
            _sweeper = asyncio.create_task(_sweep())

    async def run(self, session):
        """Gives a session what it asks for until it ends, sends what it said last, and returns its value."""
        self.session = session
        self.send = session.send
        self.value = self.fault = None
        self.request = SEND
        try:
            while True:
                wait = self.advance()
                if wait is _DONE:
                    return self.value
                if wait is _SLEEP:
                    await sleep_ms(self.pause)
                    continue
                if self.due is None:
                    self.due = ticks_add(ticks_ms(), self.timeout)
                try:
                    await self.wait(wait is _WRITE)
                except OSError as e:
                    self.fault = e
        finally:
            session.close()  # nothing else runs its clean-up on MicroPython

    def advance(self):
        """Runs the session as far as it goes without waiting; returns what to wait for."""
        request = self.request
        while True:
            value = None
            try:
                if self.fault:
                    e, self.fault = self.fault, None
                    raise e
                if self.rest:
                    # During a handshake it is the peer's turn, otherwise the socket is full.
                    n = self.put(self.rest)
                    if n is None:
                        return _READ if self.shaking else _WRITE
                    self.shaking = False
                    self.rest = self.rest[n:]
                    continue
                if request is LINE:
                    value = self.line()
                elif request is DATA:
                    value = self.data()
                elif request is CHUNK:
                    value = self.chunk()
                if value is None:
                    out = self.out
                    if out:
                        self.out = b""
                        n = self.put(out)
                        if n != len(out):
                            self.rest = memoryview(out)[n or 0 :]
                            continue
                        self.shaking = False
                    if request is LINE or request is DATA or request is CHUNK:
                        # A fast peer must not keep the others waiting.
                        self.turns += 1
                        if not self.turns & 31:
                            self.pause = 0
                            return _SLEEP
                        if not self.fill():
                            return _READ
                        continue
                    if request is TLS:
                        self.start_tls()
                    elif request is PAUSE or request is SLEEP:
                        self.pause = 0 if request is PAUSE else self.timeout
                        self.request = SEND
                        return _SLEEP
                    elif request is _OVER:
                        return _DONE
            except (OSError, ValueError, EOFError) as e:
                self.rest = None
                if request is _OVER:
                    raise
                self.fault = e
            self.due = None
            try:
                if self.fault:
                    e, self.fault = self.fault, None
                    request = self.session.throw(e)
                else:
                    request = self.send(value)
            except StopIteration as e:
                self.value = e.value
                request = _OVER
            self.request = request

    def fill(self):
        """Reads once; False when nothing has arrived. Raises EOFError when the peer has gone."""
        lo = self.lo
        if lo:
            if lo < self.hi:
                self.buf[0 : self.hi - lo] = bytes(self.mv[lo : self.hi])
            self.hi -= lo
            self.lo = 0
        n = self.get(self.mv[self.hi :] if self.hi else self.buf)
        if n is None:
            return False
        if not n:
            raise EOFError("the peer closed the connection")
        self.shaking = False
        self.hi += n
        return True

    def start_tls(self):
        """From here on TLS, with `context`: a pair of an SSLContext and a host name to verify, or None for a server.

        The handshake takes place in the reads and writes that follow, while `shaking` is true.
        """
        context, name = self.context
        self.lo = self.hi = 0
        self.shaking = True
        if name is None:
            self.use(context.wrap_socket(self.raw, server_side=True, do_handshake_on_connect=False))
        else:
            self.use(context.wrap_socket(self.raw, server_hostname=name, do_handshake_on_connect=False))
        if not MICROPYTHON:
            self.raw = self.sock

    def close(self):
        """Closes the socket, whatever state it is in."""
        if self in _open:
            _open.remove(self)
            if len(_buffers) < _SPARE:
                _buffers.append(self.buf)
        for s in (self.sock, self.raw):
            try:
                s.close()
            except (OSError, ValueError):
                pass

    if MICROPYTHON:

        def use(self, sock):
            self.sock = sock
            self.get = sock.readinto
            self.put = sock.write

        def wait(self, write):
            # A generator is awaitable here. The raw socket is polled by the kernel; a TLS object would be asked 1,000
            # times a second.
            self.waiter = core.cur_task
            try:
                if write:
                    yield core._io_queue.queue_write(self.raw)
                else:
                    yield core._io_queue.queue_read(self.raw)
            except asyncio.CancelledError:
                if self.expired:
                    self.expired = False
                    raise OSError(errno.ETIMEDOUT)
                raise
            finally:
                self.waiter = None

        def expire(self):
            # Only a task that still waits for its socket may be cancelled: one that was woken is queued already.
            if id(self.raw) in core._io_queue.map:
                self.expired = True
                self.waiter.cancel()

    else:

        def use(self, sock):
            self.sock = sock

        def get(self, into):
            try:
                return self.sock.recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0

        def put(self, data):
            try:
                return self.sock.send(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None

        async def wait(self, write):
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await _ready(self.raw, write, self.waiter)
            finally:
                self.waiter = None

        def expire(self):
            if not self.waiter.done():
                self.waiter.set_exception(OSError(errno.ETIMEDOUT, "timed out"))


if MICROPYTHON:

    def _ready(sock, write, _=None):
        if write:
            yield core._io_queue.queue_write(sock)
        else:
            yield core._io_queue.queue_read(sock)

else:

    async def _ready(sock, write, future=None):
        loop = asyncio.get_running_loop()
        future = future or loop.create_future()
        fd = sock.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
        add(fd, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            remove(fd)


async def connect(host, port, timeout=30000, size=2048):
    """A Stream to `host` (a name or an address), or OSError. `timeout` in ms (RFC 5321 4.5.3.2.1 asks for minutes
    in all: the next address, the next smart host and the next attempt follow)."""
    error = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        stream = None
        try:
            sock.setblocking(False)
            stream = Stream(sock, size)
            stream.due = ticks_add(ticks_ms(), timeout)
            try:
                sock.connect(address)
            except OSError as e:
                if e.errno not in _AGAIN:
                    raise
                await stream.wait(True)
                try:
                    sock.connect(address)  # a second call tells how the first one ended
                except OSError as e:
                    if e.errno not in _CONNECTED:
                        raise
            return stream
        except OSError as e:
            error = e
            if stream is None:
                sock.close()
            else:
                stream.close()
        except BaseException:
            stream.close()
            raise
    raise error or OSError(errno.EHOSTUNREACH)


def listen(address, port, backlog=8):
    """A listening socket, or OSError (EADDRINUSE: the port is taken)."""
    family, kind, proto, _, where = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


async def accept(sock, serve):
    """Accepts for ever: calls `serve(socket, peer's address as text)` for each connection."""
    while True:
        try:
            conn, peer = sock.accept()
        except OSError as e:
            if e.errno in _AGAIN:
                await _ready(sock, False)
            else:  # out of sockets, or the peer has gone again: go on when there is air
                await sleep_ms(100)
            continue
        conn.setblocking(False)
        serve(conn, peer_ip(peer))


def peer_ip(address):
    """The IP address in what accept() gave, as text: a tuple on boards and CPython, a raw sockaddr on unix."""
    if isinstance(address, tuple):
        ip = address[0]
    else:
        v4 = (address[1] or address[0]) == socket.AF_INET  # BSD has a length before the family
        ip = socket.inet_ntop(*((socket.AF_INET, address[4:8]) if v4 else (socket.AF_INET6, address[8:24])))
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def client_context(ca, verify=True):
    """An SSLContext for a client: `ca` is a list of DER certificates, the only ones that are trusted.

    `verify` False switches verification off. Raises ValueError when a certificate cannot be read or none is given.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        if not MICROPYTHON:
            context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if not ca:
        raise ValueError("no CA certificate given: nothing can be verified")
    context.verify_mode = ssl.CERT_REQUIRED
    for der in ca:
        context.load_verify_locations(cadata=der)
    return context


def server_context(cert, key):
    """An SSLContext for a server from a certificate and its key, both DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if MICROPYTHON:
        context.load_cert_chain(cert, key)
    else:
        _load_der(context, cert, key)
    return context


if not MICROPYTHON:

    def _load_der(context, cert, key):
        import base64
        import os
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as f:
            f.write(ssl.DER_cert_to_PEM_cert(cert))
            f.write("-----BEGIN PRIVATE KEY-----\n%s-----END PRIVATE KEY-----\n" % base64.encodebytes(key).decode())
        try:
            context.load_cert_chain(f.name)
        finally:
            os.unlink(f.name)


def tls_reason(error):
    """What a failed handshake says: "name", "expired", "future", "ca", "memory", "gone", or "" for anything else."""
    if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
        return "memory"
    if isinstance(error, EOFError) or getattr(error, "errno", 0) in (errno.ECONNRESET, 32):
        return "gone"
    text = str(error).lower()
    for word, reason in (
        ("expired", "expired"),
        ("future", "future"),
        ("not yet valid", "future"),
        ("does not match", "name"),
        ("mismatch", "name"),
        ("not valid for", "name"),
        ("not correctly signed", "ca"),
        ("issuer", "ca"),
        ("self-signed", "ca"),
        ("self signed", "ca"),
    ):
        if word in text:
            return reason
    return ""
