"""A server of the library for tests with other people's clients. Run by CPython and by MicroPython:
serve.py LIB PORT CERT.der KEY.der USERS, where USERS is {name: verifier} as JSON.

Offers STARTTLS, and AUTH with TLS and without. Takes mail only after AUTH, prints "ready" and then
a line for each: its sender, who authenticated, "tls" or "clear", its octets.
"""

import asyncio
import json
import sys

sys.path.insert(0, sys.argv[1])

from smtp.listen import server_context  # noqa: E402
from smtp.server import Listener, Server  # noqa: E402


class Sink:
    def __init__(self, envelope):
        self.envelope = envelope
        self.size = 0

    def write(self, piece):
        self.size += len(piece)

    def commit(self):
        e = self.envelope
        print("mail", e.sender, "from", json.dumps(e.user), "tls" if e.tls else "clear", self.size)

    def abort(self):
        pass


class Backend:
    def open(self, envelope):
        return Sink(envelope)


def read(path):
    with open(path, "rb") as f:
        return f.read()


async def main(port, cert, key, users):
    context = server_context(read(cert), read(key))
    listener = Listener(
        "mx.example.com", Backend(), (), json.loads(users), "starttls", context, auth_in_clear=True, log=print
    )
    serve = Server().bind("127.0.0.1", int(port), listener)
    print("ready")
    await serve()


asyncio.run(main(*sys.argv[2:]))
