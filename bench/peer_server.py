"""The peer of our server: aiosmtpd with the least that it can do. python -m bench.peer_server PORT"""

import asyncio
import sys

from aiosmtpd.smtp import SMTP


class Forget:
    async def handle_DATA(self, server, session, envelope):
        return "250 forgotten"


async def main(port):
    loop = asyncio.get_running_loop()

    def session():
        return SMTP(Forget(), data_size_limit=100_000_000, hostname="bench.example.com", loop=loop)

    server = await loop.create_server(session, "127.0.0.1", port, backlog=128)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
