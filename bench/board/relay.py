"""The relay on MicroPython, from a queue in littlefs to a smart host over STARTTLS:
relay.py HOST PORT COUNT OCTETS CA USER PASSWORD

Queues COUNT alerts, then prints two times in ms to the removal of the last one from flash: from before the connection,
and from when the session was ready.
"""

import asyncio
import gc
import sys
import time

from ram import PAGE, mount
from smtp import relay as module
from smtp.message import compose
from smtp.queue import Queue
from smtp.relay import Relay, SmartHost

SENDER = "bench@example.com"
RCPTS = ["someone@example.com"]


class Clock:
    def now(self):
        return 1800000000

    def offset(self, when):
        return 0


async def main(host, port, count, octets, ca, user, password):
    mount(64 + count, read=4 * PAGE)  # as `edgepost run` does where memory is not short
    queue = Queue("/flash/spool", count * 8192, count + 1)
    for _ in range(count):
        pieces = list(compose(SENDER, RCPTS, "bench", "x" * 60, 1800000000))
        pieces.append(b"x" * (octets - sum([len(p) for p in pieces]) - 2) + b"\r\n")
        queue.add({"f": SENDER, "r": RCPTS, "t": 1800000000, "u": 0}, pieces)
    with open(ca, "rb") as f:
        ca = [f.read()]
    relay = Relay(queue, [SmartHost(host, port, ca=ca, username=user, password=password)], "bench.example.com", Clock())
    ready = []
    opened = module.open_session

    async def open_session(*args, **more):
        session = await opened(*args, **more)
        ready.append(time.ticks_us())
        return session

    module.open_session = open_session
    gc.collect()  # what queueing left behind is no work of the relay
    start = time.ticks_us()
    went = await relay.session()
    end = time.ticks_us()
    if not went or len(queue) or relay.delivered != count:
        raise RuntimeError("%d of %d mails were delivered" % (relay.delivered, count))
    print(time.ticks_diff(end, start) / 1000, time.ticks_diff(end, ready[0]) / 1000)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]))
