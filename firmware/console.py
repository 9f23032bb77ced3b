"""The serial line while the gateway runs: who sits there asks what the status service answers, and the gateway goes on.

A request is a line that begins with ENQ, which nobody types by chance (Ctrl-E):

    ENQ ID METHOD PATH CRC LF       ID: four characters that the answer repeats; METHOD and PATH as in docs/status.md;
                                    CRC: that of binascii, in eight hex digits, of "ID METHOD PATH"

inquiry.py answers it, and is loaded for that. What else is typed is dropped; Ctrl-C interrupts, as ever: it is never
read here. A board's console is whoever holds its cable, so no password is asked for.

May use: nothing. Loaded where there is a serial line (start.py). One octet is read at a time, or it would wait.
"""

import asyncio
import gc
import sys
from asyncio import core

from smtp import const

_MOST = const(100)  # octets of a request: an ESP32's buffer holds 260 while the gateway does something else


def readable():
    yield core._io_queue.queue_read(sys.stdin)


async def run(*around):
    """For ever. around: the board's profile, its name, Relay, and Server or None, for inquiry.answer()."""
    line = None
    while True:
        await readable()
        c = sys.stdin.buffer.read(1)
        if not c:  # nobody will ever type
            await asyncio.sleep(86400)
        elif c == b"\5":
            line = b""
        elif line is not None and c in b"\r\n":
            for _ in range(20):
                gc.collect()
                try:
                    import inquiry
                except MemoryError:
                    await asyncio.sleep(0.5)
                    continue
                await inquiry.answer(line, *around)
                break
            sys.modules.pop("inquiry", None)
            line = None
        elif line is not None:
            line = line + c if len(line) < _MOST else None
