"""Plays transcripts against a session of smtp.server or smtp.client; and what tests of sockets and
files share: a port that is free, a flash to put a queue in.

A transcript is read line by line; indentation and lines that start with # do not count:

    S: 220 mx.example.com ESMTP     the server's line; CRLF is added
    S: 250-...                      when the session says it: this is how it begins
    C: EHLO client.example.com      the client's line
    C! NOOP\\r\\nQU                   the same without CRLF: \\r \\n \\\\ and \\x00 are escapes
    -- TLS --                       the session asks for TLS here, and has it from here on
    -- GONE --                      the peer closes the connection
    -- TIMEOUT --                   the session has waited too long
    -- END --                       the session has ended
    -- FAILS --                     the session has ended with an exception: see Player.error

What comes from the peer is fed to the session as one write, or cut into pieces of `cut` octets.
What the session says has to be exactly what the transcript says, neither more nor less, and so has
its end. No socket takes part, so a transcript can be played for every cut.
"""

import errno
import os
import sys

from smtp.listen import listen
from smtp.stream import CHUNK, DATA, LINE, SLEEP, TLS

MICROPYTHON = sys.implementation.name == "micropython"
CUTS = (None, 1, 2, 3, 7)


class Player:
    """Gives a session what it asks for, as smtp.stream.Stream does, from bytes instead of a socket.

    sent    what it said and nobody has compared yet      writes  how many times it said something
    ended   it has ended     value  what it returned      error   the exception that ended it
    sleeps  milliseconds of each SLEEP
    """

    def __init__(self, session, wire, cut=None):
        self.session = session
        self.wire = wire
        self.cut = cut
        self.inbox = b""
        self.sent = b""
        self.writes = 0
        self.most = 0  # octets in one write
        self.sleeps = []
        self.ended = False
        self.value = self.error = None
        self.request = None
        self.resume(session.send, None)
        self.run()

    def resume(self, how, value):
        try:
            self.request = how(value)
        except StopIteration as e:
            self.value = e.value
            self.ended = True
        except Exception as e:
            self.error = e
            self.ended = True

    def flush(self):
        out = self.wire.out
        if out:
            self.wire.out = b""
            self.sent += bytes(out)
            self.writes += 1
            self.most = max(self.most, len(out))

    def run(self):
        """Goes on until the session waits for what has not come, for TLS, or has ended."""
        wire = self.wire
        while not self.ended:
            request = self.request
            value = None
            if request is LINE:
                value = wire.line()
            elif request is DATA:
                value = wire.data()
            elif request is CHUNK:
                value = wire.chunk()
            elif request is not None and not isinstance(request, int):
                self.flush()
                self.hold(request)
                continue
            if value is None:
                self.flush()
                if request is LINE or request is DATA or request is CHUNK:
                    if self.inbox:
                        self.fill()
                        continue
                    return self
                if request is TLS:
                    return self
                if request is SLEEP:
                    self.sleeps.append(wire.timeout)
            self.resume(self.session.send, value)
        self.flush()
        return self

    def hold(self, what):
        """The session waits for an awaitable: it runs to its end."""
        try:
            while True:
                what.send(None)
        except StopIteration as e:
            self.resume(self.session.send, e.value)
        except Exception as e:
            self.resume(self.session.throw, e)

    def fill(self):
        wire = self.wire
        held = bytes(wire.mv[wire.lo : wire.hi])
        room = len(wire.buf) - len(held)
        assert room, "the session waits for more than its buffer can hold"
        piece = self.inbox[: min(self.cut or room, room)]
        self.inbox = self.inbox[len(piece) :]
        held += piece
        wire.buf[: len(held)] = held
        wire.lo = 0
        wire.hi = len(held)

    def feed(self, data):
        """The peer says `data` (bytes)."""
        self.inbox += data
        return self.run()

    def throw(self, error):
        """The transport fails where the session waits."""
        assert not self.ended, "the session has ended already"
        self.resume(self.session.throw, error)
        return self.run()

    def upgrade(self):
        """TLS is there. What was sent before it in the clear is not for the session."""
        assert self.request is TLS and not self.ended, "the session does not ask for TLS"
        self.inbox = b""
        self.wire.lo = self.wire.hi = 0
        self.resume(self.session.send, None)
        return self.run()

    def said(self):
        """What the session has said since this was asked last."""
        out = self.sent
        self.sent = b""
        return out

    def close(self):
        self.session.close()


def unescape(text):
    out = b""
    for short, long in (("\\\\", "\\x5c"), ("\\r", "\\x0d"), ("\\n", "\\x0a")):
        text = text.replace(short, long)
    for i, part in enumerate(text.split("\\x")):
        out += bytes([int(part[:2], 16)]) + part[2:].encode() if i else part.encode()
    return out


def compare(said, wanted):
    """`wanted`: (text, raw) of each line that the session has to say."""
    rest = said
    for text, raw in wanted:
        line = unescape(text) if raw else text.encode() + b"\r\n"
        if not raw and text.endswith("..."):
            end = rest.find(b"\r\n") + 2
            good = end > 1 and rest.startswith(text[:-3].encode())
        else:
            end = len(line)
            good = rest.startswith(line)
        if not good:
            raise AssertionError("it says %r where %r belongs" % (rest[:300], text))
        rest = rest[end:]
    if rest:
        raise AssertionError("it also says %r, behind %r" % (rest[:300], wanted[-1:]))


def play(session, wire, text, cut=None, us="S"):
    """Plays a transcript; `us` is "S" for a session of a server and "C" for one of a client.

    Gives the Player. A session that the transcript leaves running is closed, as a stream does.
    """
    p = Player(session, wire, cut)
    wanted = []
    fed = b""
    steps = [line.lstrip() for line in text.split("\n")] + ["-- STOP --"]
    closed = False
    for step in steps:
        if not step or step[0] == "#":
            continue
        kind = step[:2]
        if kind == "--":
            verb = step.strip("- ")
        elif kind in ("C:", "C!", "S:", "S!"):
            verb = "us" if kind[0] == us else "them"
        else:
            raise ValueError("no line of a transcript: " + step)
        if verb != "them" and fed:
            p.feed(fed)
            fed = b""
        if verb == "us":
            wanted.append((step[3:], kind[1] == "!"))
            continue
        if not fed:
            compare(p.said(), wanted)
            wanted = []
        if verb == "them":
            fed += unescape(step[3:]) if kind[1] == "!" else step[3:].encode() + b"\r\n"
        elif verb == "TLS":
            p.upgrade()
        elif verb == "GONE":
            p.throw(EOFError("the peer closed the connection"))
        elif verb == "TIMEOUT":
            p.throw(OSError(errno.ETIMEDOUT, "timed out"))
        elif verb in ("END", "FAILS"):
            assert p.ended, "it goes on"
            if verb == "END" and p.error:
                raise p.error
            assert verb == "END" or p.error, "it ended without an exception"
            closed = True
        elif verb == "STOP":
            if not closed and p.error:
                raise p.error
            assert closed or not p.ended, "it has ended"
        else:
            raise ValueError("no line of a transcript: " + step)
    p.close()
    return p


class Random:
    """The same numbers on each interpreter and at each run."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % n

    def choice(self, things):
        return things[self.below(len(things))]


def somewhere(bind):
    """(port, bind(port)) for a port that is free."""
    while True:
        seed = os.urandom(2)
        port = 20000 + (seed[0] << 8 | seed[1]) % 12000
        try:
            return port, bind(port)
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise


def listen_somewhere():
    """(port, listening socket) on 127.0.0.1."""
    return somewhere(lambda port: listen("127.0.0.1", port))


class RamFlash:
    """A block device in RAM with blocks of 4096 octets, which littlefs fills in pages of 256."""

    BLOCK = 4096

    def __init__(self, blocks):
        # Not in one piece, which a heap in use may not have.
        self.data = [bytearray(self.BLOCK) for _ in range(blocks)]

    def readblocks(self, n, buf, offset=0):
        buf[:] = memoryview(self.data[n])[offset : offset + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        self.data[n][offset : offset + len(buf)] = buf

    def ioctl(self, op, arg):
        return {4: len(self.data), 5: self.BLOCK}.get(op, 0)


class SparseFlash:
    """The same for a board, whose heap holds no whole flash: only the pages that were written take memory."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.pages = {}  # number of a page: its octets
        self.full = False

    def readblocks(self, n, buf, offset=0):
        at = n * 16 + offset // 256
        offset %= 256
        done = 0
        while done < len(buf):
            size = min(256 - offset, len(buf) - done)
            page = self.pages.get(at)
            buf[done : done + size] = memoryview(page)[offset : offset + size] if page else b"\xff" * size
            done += size
            at += 1
            offset = 0

    def writeblocks(self, n, buf, offset=0):
        assert not offset % 256 and not len(buf) % 256, "a part of a page is written"
        at = n * 16 + offset // 256
        try:
            buf = memoryview(buf)
            for i in range(len(buf) // 256):
                self.pages[at + i] = bytes(buf[256 * i : 256 * i + 256])
        except MemoryError:  # an exception would leave littlefs in the middle of what it does
            if not self.full:
                self.full = True
                print("MemoryError: what a test writes to flash does not fit the heap")
            return -5  # EIO

    def ioctl(self, op, arg):
        if op == 6:
            for at in range(16 * arg, 16 * arg + 16):
                self.pages.pop(at, None)
        return {4: self.blocks, 5: 4096}.get(op, 0)


class Flash:
    """An empty directory, `with Flash() as path`: in a littlefs on MicroPython, in a temporary
    directory of this computer on CPython."""

    def __init__(self, blocks=128):
        self.blocks = blocks

    def __enter__(self):
        if MICROPYTHON:
            import gc

            import vfs

            try:
                vfs.umount("/t")  # a test that failed has left it
            except OSError:
                pass
            gc.collect()
            flash = (RamFlash if gc.mem_free() > 2 * self.blocks * 4096 else SparseFlash)(self.blocks)
            vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256)
            vfs.mount(vfs.VfsLfs2(flash, progsize=256, readsize=256), "/t")
            return "/t"
        import tempfile

        self.path = tempfile.mkdtemp()
        return self.path

    def __exit__(self, *error):
        if MICROPYTHON:
            import gc

            import vfs

            gc.collect()
            vfs.umount("/t")
        else:
            import shutil

            shutil.rmtree(self.path)
