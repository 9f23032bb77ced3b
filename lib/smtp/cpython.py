"""What stream needs on CPython in place of MicroPython's asyncio and sockets. A board never loads it."""

import asyncio
import errno
import ssl
import time

_WANT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def ticks_ms():
    return int(time.monotonic() * 1000)


def ticks_add(a, b):
    return a + b


def ticks_diff(a, b):
    return a - b


def sleep_ms(ms):
    return asyncio.sleep(ms / 1000)


async def ready(sock, write, future=None):
    """Waits until a socket can be read or written, or `future` is set."""
    loop = asyncio.get_running_loop()
    future = future or loop.create_future()
    fd = sock.fileno()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        remove(fd)


def use(self, sock):
    self.sock = sock


def get(self, into):
    try:
        return self.sock.recv_into(into)
    except _WANT:
        return None
    except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
        return 0


def put(self, data):
    try:
        return self.sock.send(data)
    except _WANT:
        return None


async def wait(self, write):
    if self.due is None:
        self.due = ticks_ms() + self.timeout
    self.waiter = asyncio.get_running_loop().create_future()
    try:
        await ready(self.raw, write, self.waiter)
    finally:
        self.waiter = None


def expire(self):
    if not self.waiter.done():
        self.waiter.set_exception(OSError(errno.ETIMEDOUT, "timed out"))


def fit(stream):
    """Gives the class Stream its methods for CPython."""
    for method in (use, get, put, wait, expire):
        setattr(stream, method.__name__, method)


def load_der(context, cert, key):
    """SSLContext.load_cert_chain for DER, which ssl takes from files in PEM only."""
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
