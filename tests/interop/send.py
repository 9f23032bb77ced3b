"""Sends the mails of kinds.py with the library's client, each to all of the recipients, in one
session. Run by CPython and by MicroPython: send.py LIB PORT CA.der USER PASSWORD RECIPIENT...

Prints a line for each refused recipient, and "sent N" at the end.
"""

import asyncio
import sys

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, sys.argv[0].rsplit("/", 1)[0])

from kinds import kinds  # noqa: E402
from smtp.client import open_session, quit, send  # noqa: E402
from smtp.stream import client_context  # noqa: E402


async def main(port, ca, user, password, rcpts):
    with open(ca, "rb") as f:
        context = client_context([f.read()])
    session = await open_session(
        "localhost", int(port), "board.example.com", "starttls", context, user, password
    )
    count = 0
    for name, mail in kinds().items():
        refused = await send(session, "gateway@example.com", rcpts, mail)
        for address, reply in refused.items():
            print("refused", name, address, reply[0], reply[1])
        count += 1
    await quit(session)
    print("sent", count)


asyncio.run(main(*sys.argv[2:6], sys.argv[6:]))
