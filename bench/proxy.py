"""A TCP proxy that makes the way longer: 50 ms each way, for what is said and for the connection."""

import asyncio
import threading

ROUND_TRIP = 100  # ms
_EACH_WAY = 0.0495  # seconds: asyncio counts in whole ms and rounds up, half a ms on average


class Proxy:
    """Listens on `port` of localhost and forwards to `target`; used with `with`.

    A client finds itself connected at once: the round trip of the TCP handshake is not in what it measures. Its
    last packet still has to reach the server, which greets it one round trip later.
    """

    def __init__(self, target):
        self.target = target

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    async def serve(self, reader, writer):
        await asyncio.sleep(_EACH_WAY)
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self.carry(reader, other_writer), self.carry(other_reader, writer))

    async def carry(self, reader, writer):
        data = b"-"
        while data:
            data = await reader.read(65536)
            self.loop.call_later(_EACH_WAY, self.put, writer, data)

    def put(self, writer, data):
        if data:
            writer.write(data)
        else:
            writer.close()
