"""Our client on MicroPython: client.py HOST PORT COUNT OCTETS one|batch [CA USER PASSWORD]

Sends COUNT mails in one session, each with send() ("one") or as a relay does ("batch"), over STARTTLS
when a CA (a DER file) is given. Prints two times in ms to the last 250: from before the connection,
and from when the session was ready.
"""

import asyncio
import sys
import time

from smtp.client import open_session, quit, send
from smtp.single import Mail

SENDER = "bench@example.com"
RCPTS = ["someone@example.com"]


class Batch:
    """A source of mails for Client.mails(), which counts those that were taken."""

    def __init__(self, count, message):
        self.left = count
        self.message = message
        self.taken = 0

    def next(self):
        if not self.left:
            return None
        self.left -= 1
        mail = Mail(SENDER, RCPTS, self.message)
        mail.done = self.done
        return mail

    def done(self, results):
        self.taken += results[0][0] == 250


async def main(host, port, count, octets, way, ca=None, user="", password=""):
    context = None
    if ca:
        from smtp.stream import client_context

        with open(ca, "rb") as f:
            context = client_context([f.read()])
    message = b"Subject: bench\r\n\r\n" + (b"x" * 62 + b"\r\n") * max(1, octets // 64)
    security = "starttls" if ca else "none"
    start = time.ticks_us()
    session = await open_session(host, port, "bench.example.com", security, context, user, password)
    ready = time.ticks_us()
    if way == "one":
        taken = 0
        for _ in range(count):
            taken += not await send(session, SENDER, RCPTS, message)
    else:
        batch = Batch(count, message)
        await session[0].run(session[1].mails(batch))
        taken = batch.taken
    end = time.ticks_us()
    await quit(session)
    if taken != count:
        raise RuntimeError("%d of %d mails were taken" % (taken, count))
    print(time.ticks_diff(end, start) / 1000, time.ticks_diff(end, ready) / 1000)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]))
