"""Lines and mail over a socket: the one room that knows sockets, asyncio, ssl and the interpreter.

Two classes. `Wire` frames bytes and does no I/O: a test feeds it by hand, cut anywhere. `Stream` is a wire with a
non-blocking socket under it, TCP or TLS.

A protocol session is a generator that owns a wire. It appends what it says to `wire.out` and yields what it needs:

    PAUSE   let the others run                       (sent back: None)
    LINE    a line without its end                   (bytes; False: it did not fit the buffer and was dropped)
    DATA    a piece of a dot-stuffed mail            (memoryview or bytes; False: the end. Set `wire.bol` first)
    CHUNK   a piece of `wire.want` octets of BDAT    (memoryview or bytes; `want` counts down; both are in scan)
    SEND    what is in `out` to be sent now          (None)
    TLS     TLS with `wire.context` from here on     (None; what was read ahead is thrown away, CVE-2011-0411)
    SLEEP   `wire.timeout` milliseconds              (None)

or an awaitable object, when `out` has been sent: its value is sent back, an exception of it is raised in the generator
(where there is a server: hold() is in server).

`out` also goes out whenever the wire has to wait for input, so answers to a pipelined group leave in one write (RFC
2920). A failure of the transport is raised inside the generator: EOFError when the peer has gone, OSError(ETIMEDOUT)
when `wire.timeout` (ms, counted from the request, not from the last byte) has passed, any other OSError or ValueError
as the socket or TLS raised it.
"""

import asyncio
import errno
import socket
import ssl
import sys
import time

from . import const

PAUSE = None
LINE = const(1)
DATA = const(2)
CHUNK = const(3)
SEND = const(4)
TLS = const(5)
SLEEP = const(6)
_OVER = const(7)  # the session has ended

MICROPYTHON = sys.implementation.name == "micropython"
_SWEEP = const(200)  # ms between two looks at the deadlines

if MICROPYTHON:
    from asyncio import core

    ticks_ms = time.ticks_ms
    ticks_add = time.ticks_add
    ticks_diff = time.ticks_diff
    sleep_ms = asyncio.sleep_ms

    def ready(sock, write):
        if write:
            yield core._io_queue.queue_write(sock)
        else:
            yield core._io_queue.queue_read(sock)

else:
    from .cpython import fit, ready, sleep_ms, ticks_add, ticks_diff, ticks_ms  # noqa: F401 (listen uses ready)


class Wire:
    """Frames of SMTP, without I/O. `size` octets of buffer bound the longest line."""

    def __init__(self, buf):
        self.buf = buf
        self.mv = memoryview(buf)
        self.lo = self.hi = 0  # what was received and not yet taken: buf[lo:hi]
        self.out = b""
        self.eol = b"\r\n"  # b"\n" takes a line feed alone as the end of a command, for old devices
        self.skip = False
        self.timeout = 300000
        self.context = None
        self.tls = False
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


class Stream(Wire):
    """A wire over a connected, non-blocking socket. `size`: octets of buffer; 0 for UDP, which only needs wait()."""

    keep = 4  # buffers for the streams to come

    def __init__(self, sock, size=2048):
        global _sweeper
        Wire.__init__(self, _buffers.pop() if _buffers and len(_buffers[-1]) >= size else bytearray(size))
        self.raw = sock  # what is waited for
        self.use(sock)
        self.rest = None  # what of `out` the socket has not taken yet
        self.waiter = None
        self.due = None
        self.expired = False
        if size:
            try:
                # Nagle and delayed ACK cost 40 ms a mail. The number is lwIP's own on a Pico W, and no name on unix.
                sock.setsockopt(6, getattr(socket, "TCP_NODELAY", 1), 1)
            except OSError:
                pass
        _open.append(self)
        if _sweeper is None or _sweeper.done():
            _sweeper = asyncio.create_task(_sweep())

    async def run(self, session):
        """Gives a session what it asks for until it ends, sends what it said last, and returns its value."""
        self.session = session
        self.send = send = session.send
        line = self.line
        fill = self.fill
        request = SEND
        fault = result = None
        turns = 0
        try:
            while True:
                value = None
                try:
                    if self.rest:
                        n = self.put(self.rest)
                        if n is None:
                            # During a handshake it is the peer's turn, otherwise the socket is full.
                            await self.wait(not self.shaking)
                            continue
                        self.shaking = False
                        self.rest = self.rest[n:]
                        continue
                    if self.lo < self.hi:
                        if request is LINE:
                            value = line()
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
                            turns += 1
                            if turns & 31:
                                if not fill():
                                    await self.wait(False)
                                continue
                            # A fast peer must not keep the others waiting. One that never stops to send never lets us
                            # wait, and is never swept.
                            if self.due is None:
                                self.due = ticks_add(ticks_ms(), self.timeout)
                            await sleep_ms(0)
                            if ticks_diff(ticks_ms(), self.due) > 0:
                                raise OSError(errno.ETIMEDOUT, "timed out")
                            continue
                        if request is TLS:
                            self.start_tls()
                        elif request is PAUSE or request is SLEEP:
                            await sleep_ms(0 if request is PAUSE else self.timeout)
                        elif request is _OVER:
                            return result
                except (OSError, ValueError, EOFError) as e:
                    self.rest = None
                    if request is _OVER:
                        raise
                    fault = e
                self.due = None
                try:
                    if fault:
                        e, fault = fault, None
                        request = session.throw(e)
                    elif value is not None or request is None or isinstance(request, int):
                        request = send(value)
                    else:
                        request = await self.hold(request)
                except StopIteration as e:
                    result = e.value
                    request = _OVER
        finally:
            session.close()  # nothing else runs its clean-up on MicroPython

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
        self.tls = self.shaking = True
        if name is None:
            self.use(context.wrap_socket(self.raw, server_side=True, do_handshake_on_connect=False))
        else:
            self.use(context.wrap_socket(self.raw, server_hostname=name, do_handshake_on_connect=False))
        if not MICROPYTHON:
            self.raw = self.sock  # CPython took the socket over

    def close(self):
        """Closes the socket, whatever state it is in."""
        if self in _open:
            _open.remove(self)
            if self.buf:
                _buffers.append(self.buf)
                _buffers.sort(key=len)
                if len(_buffers) > self.keep:
                    _buffers.pop(0)
        for s in (self.sock, self.raw):
            try:
                s.close()
            except (OSError, ValueError):
                pass

    def use(self, sock):
        self.sock = sock
        self.get = sock.readinto
        self.put = sock.write

    def wait(self, write):
        """Waits until the socket can be read or written. OSError(ETIMEDOUT) when `due` passes first, by default
        `timeout` from now."""
        if self.due is None:
            self.due = ticks_add(ticks_ms(), self.timeout)
        # A generator is awaitable on MicroPython. The raw socket is polled by the kernel; a TLS object would be asked
        # 1,000 times a second.
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
        """Ends wait(): the deadline has passed."""
        # Only a task that still waits for its socket may be cancelled: one that was woken is queued already.
        if id(self.raw) in core._io_queue.map:
            self.expired = True
            self.waiter.cancel()


if not MICROPYTHON:
    fit(Stream)


async def connect(host, port, timeout=30000, size=2048, resolve=None):
    """A Stream to `host` (a name or an address), or OSError. `timeout` in ms (RFC 5321 4.5.3.2.1 asks for minutes
    in all: the next address, the next smart host and the next attempt follow). resolve: an async function that gives
    the addresses (text) of a name, instead of getaddrinfo, which stops the board."""
    error = None
    items = []
    for address in await resolve(host) if resolve else (host,):
        items += socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)
    for item in items:
        sock = socket.socket(*item[:3])
        try:
            stream = Stream(sock, size)
        except MemoryError:
            sock.close()  # nobody else would
            raise
        try:
            stream.sock.setblocking(False)
            stream.due = ticks_add(ticks_ms(), timeout)
            try:
                stream.sock.connect(item[4])
            except OSError:
                await stream.wait(True)
                try:
                    stream.sock.connect(item[4])  # a second call tells how the first one ended
                except OSError as e:
                    if e.errno not in (106, 56, 127):  # EISCONN of Linux and MicroPython, of BSD, of lwIP
                        raise
            return stream
        except OSError as e:
            error = e
            stream.close()
        except BaseException:
            stream.close()
            raise
    raise error or OSError(errno.EHOSTUNREACH)


def client_context(ca, verify=True):
    """An SSLContext for a client: `ca` is a list of DER certificates, the only ones that are trusted.

    `verify` False switches verification off. Raises ValueError when a certificate cannot be read or none is given.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify and not ca:
        raise ValueError("no CA certificate is given: nothing can be verified")
    if not MICROPYTHON:
        context.check_hostname = verify
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    for der in ca:
        context.load_verify_locations(cadata=der)
    return context
