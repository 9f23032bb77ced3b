"""Our server on MicroPython: server.py PORT forget|queue|watch [CERT KEY PASSWORD CHUNKING|DATA]

With a certificate it offers STARTTLS, AUTH to the user "bench", and with the word DATA no CHUNKING. It says
"ready", then answers one line to each line of its standard input:

    heap        octets of heap in use, and the most that was seen in a mail ("watch" only)
    empty       removes what the queue holds; says how many mails that were
"""

import asyncio
import gc
import sys
from asyncio import core

from ram import mount
from smtp.server import Listener, Server

BLOCKS = 4096


def heap():
    gc.collect()
    return gc.mem_alloc()


class Forget:
    """A backend, and the sink of all its mails, that keeps nothing."""

    def open(self, envelope):
        return self

    def write(self, piece):
        pass

    def commit(self):
        return "forgotten"

    def abort(self):
        pass


class Watch(Forget):
    """The same, and looks at the heap once a megabyte."""

    size = high = 0

    def write(self, piece):
        self.size += len(piece)
        if self.size > 1000000:
            self.size = 0
            self.high = max(self.high, heap())


class Keep:
    """A backend that commits each mail to the queue, with the envelope that the gateway keeps."""

    def __init__(self):
        from smtp.queue import Queue

        mount(BLOCKS, read=1024)  # as boards/unix.py does where there is memory for it
        self.queue = Queue("/flash/spool", max_bytes=BLOCKS * 4096, max_count=5000)

    def open(self, envelope):
        meta = {
            "f": envelope.sender,
            "r": envelope.rcpts,
            "t": 1800000000,
            "u": 1000,
            "p": envelope.peer,
            "h": envelope.helo,
            "x": 1,
        }
        return self.queue.new(meta, size=envelope.size)

    def empty(self):
        queue = self.queue
        count = len(queue)
        for key in [queue.rows[i] for i in range(0, len(queue.rows), 4)]:
            queue.settle(key, 1, 1, 0)
        return count


def readable(f):
    yield core._io_queue.queue_read(f)


async def main(port, kind, cert=None, key=None, password=None, way=None):
    backend = {"forget": Forget, "queue": Keep, "watch": Watch}[kind]()
    listener = Listener("bench.example.com", backend, ["127.0.0.0/8"], max_size=100000000)
    listener.log = lambda text: sys.stderr.write("server: " + text + "\n")
    if cert:
        from smtp.auth import make_verifier
        from smtp.listen import server_context

        with open(cert, "rb") as c, open(key, "rb") as k:
            listener.context = server_context(c.read(), k.read())
        listener.tls = "starttls"
        listener.users = {"bench": make_verifier(password, 1)}  # round trips are counted, not key derivation
    if way == "DATA":
        listener.hello = listener.hello.replace(b"250-CHUNKING\r\n", b"")
    server = Server(64, 4096)
    asyncio.create_task(server.bind("127.0.0.1", port, listener, 128)())
    print("ready")
    while True:
        await readable(sys.stdin)
        word = sys.stdin.readline().strip()
        if word == "heap":
            await asyncio.sleep_ms(300)  # the last session has ended by then
            print(heap(), getattr(backend, "high", 0))
        elif word == "empty":
            print(backend.empty())
        else:
            return


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
