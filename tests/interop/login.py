"""Logs in with the library's client and sends a mail. Run by CPython and by MicroPython:
login.py LIB PORT CA.der|none USER PASSWORD MECHANISM|best SENDER

With a CA over verified STARTTLS, else in the clear. Prints "sent" or what the SessionError says.
"""

import asyncio
import sys

sys.path.insert(0, sys.argv[1])

from smtp.client import SessionError, open_session, quit, send  # noqa: E402
from smtp.stream import client_context  # noqa: E402


async def main(port, ca, user, password, auth, sender):
    context = None
    if ca != "none":
        with open(ca, "rb") as f:
            context = client_context([f.read()])
    try:
        session = await open_session(
            "localhost", int(port), "board.example.com", "starttls" if context else "none", context, user, password,
            None if auth == "best" else auth,
        )  # fmt: skip
    except SessionError as e:
        print(e.reason, e)
        return
    refused = await send(session, sender, ["office@example.com"], b"Subject: " + auth.encode() + b"\r\n\r\nhello\r\n")
    await quit(session)
    print(refused or "sent")


asyncio.run(main(*sys.argv[2:]))
