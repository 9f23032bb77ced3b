"""Answers what was asked over the serial line. Loaded for that (console.py), with what the status service answers with,
also where no [status] is configured.

An answer is lines between those of the log:

    ACK ID N TEXT CRC LF            N: 0, 1, 2 ...; CRC: of "ID N TEXT", as in the request

The first TEXT is the status of HTTP, then come pieces of the body in base64, and the last is ".", or "!" when the rest
is missing. So nothing that stands in a mail or a log is taken for an answer, and a bad line is noticed. Whatever is
typed meanwhile ends it: its reader has gone, or asks something else.

May use: routes and what that loads. Those want a module status: where there is no [status], they get a Lent one.
"""

import gc
import select
import sys
from binascii import b2a_base64, crc32

import gateway
from smtp import const
from smtp.stream import sleep_ms

_PIECE = const(180)  # octets; the line of it takes 25 ms at 115,200 baud, in which nothing else goes on
_PATIENCE = const(40)  # times to look for memory, 200 ms apart
_NEED = const(20480)  # octets of heap to be free before views is loaded, as in status
_LENT = ("routes", "unwell", "health", "views", "page", "deeds", "smtp.letters")


class Gone(Exception):
    """Nobody reads the answer any more."""


class Lent:
    """As much of the module status as what answers wants of it."""

    VERSION = "0.1.0"
    MORE = _NEED
    Ring = ()  # no log is one
    table = {"health_age": 3600}  # as it is by default
    stuck = tested = None

    def __init__(self, board, name, relay, server):
        self.board = board
        self.name = name
        self.events = self
        self.relay = relay
        self.server = server
        self.had = [name for name in _LENT if name in sys.modules]

    def lines(self):
        return ()

    async def load(self, name, need):
        for _ in range(_PATIENCE):
            gc.collect()
            if name in sys.modules or gc.mem_free() > need:
                return __import__(name)
            await sleep_ms(200)

    def forget(self):
        for name in _LENT:
            if name not in self.had:
                gateway.unload(name)
        del sys.modules["status"]


class Request:
    """As routes.respond() wants it."""

    ip = "the serial line"

    def __init__(self, ident, method, url):
        self.ident = ident
        self.method = method
        self.path, _, self.query = url.partition("?")
        self.n = 0

    def say(self, text):
        text = "%s %d %s" % (self.ident, self.n, text)
        try:
            print("\x06%s %08x" % (text, crc32(text.encode())))
        except OSError:
            raise Gone()
        self.n += 1

    async def send(self, code, body):
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        self.say(code)
        held = b""
        for piece in (body,) if isinstance(body, str) else body:
            held += piece.encode() if isinstance(piece, str) else piece
            while len(held) >= _PIECE:
                self.piece(held[:_PIECE])
                held = held[_PIECE:]
                await sleep_ms(0)
                if poll.poll(0):
                    raise Gone()
        if held:
            self.piece(held)

    def piece(self, piece):
        self.say(str(b2a_base64(piece)[:-1], "ascii"))


def parse(line):
    """The Request in a line (bytes), or None."""
    try:
        text, _, crc = str(line, "ascii").rpartition(" ")
        if int(crc, 16) == crc32(text.encode()):
            return Request(*text.split(" "))
    except (ValueError, TypeError):
        pass  # the line was disturbed, or a person pressed Ctrl-E


async def answer(line, *around):
    """Answers a request (bytes). around: see console.run()."""
    req = parse(line)
    if not req:
        return
    status = sys.modules.get("status")
    if not status:
        status = sys.modules["status"] = Lent(*around)
    status.asked = True
    try:
        for _ in range(_PATIENCE):
            try:
                routes = await status.load("routes", 0)
                code, body = (await routes.respond(req))[:2]
                await req.send(code, body)
                req.say(".")
                return
            except MemoryError:
                if req.n or req.method != "GET":
                    break
            await sleep_ms(200)
        req.say("!")
    except (Gone, MemoryError):
        pass
    except (KeyError, OSError, ValueError) as e:  # in the middle of it: the mail has gone, or the flash fails
        gateway.log("console", "no answer to %s %s: %s" % (req.method, req.path, e))
        req.say("!")
    finally:
        status.asked = False
        status.forget()
