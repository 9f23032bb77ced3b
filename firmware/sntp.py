"""One question to one time server, by SNTP (RFC 4330, RFC 5905 section 14), without stopping the board.

A reply counts when it carries our random transmit timestamp back. May use: smtp.stream.
"""

import asyncio
import errno
import os
import socket

from smtp import const
from smtp.stream import Stream, ticks_add, ticks_diff, ticks_ms

_UNIX = const(2208988800)  # seconds from 1900, where NTP starts, to 1970


class Refused(Exception):
    """A kiss-o'-death: the server does not want to be asked. Its code (bytes) is the argument (RFC 5905 7.4)."""


def parse(reply, sent):
    """Milliseconds since 1970 that a reply (bytes) to the transmit timestamp `sent` (8 bytes) says, or None when it is
    no reply to that. Raises ValueError when it gives no time, or Refused."""
    if len(reply) < 48 or reply[24:32] != sent or reply[0] & 7 != 4:
        return None  # forged, or late
    if not reply[1]:
        raise Refused(bytes(reply[12:16]))
    if reply[0] >> 6 == 3 or reply[1] > 15:
        raise ValueError("its own clock is not set")
    seconds = int.from_bytes(reply[40:44], "big")
    if not seconds:
        raise ValueError("it gives no time")
    if seconds < 0x80000000:
        seconds += 0x100000000  # 2036 and later, RFC 4330 section 3
    return (seconds - _UNIX) * 1000 + int.from_bytes(reply[44:46], "big") * 1000 // 65536


async def ask(ip, port=123, wait=2000):
    """Milliseconds since 1970, as the server at an IP address has it now. wait: ms for its answer. Raises OSError,
    ValueError, Refused."""
    sent = os.urandom(8)  # not our own time, which is nobody's business
    where = socket.getaddrinfo(ip, port)[0]
    s = Stream(socket.socket(where[0], socket.SOCK_DGRAM), 0)
    try:
        s.raw.setblocking(False)
        start = ticks_ms()
        s.due = ticks_add(start, wait)
        s.raw.connect(where[4])  # nobody else is heard from here on
        s.raw.send(b"\x23" + bytes(39) + sent)  # version 4, from a client
        while True:
            try:
                said = parse(s.raw.recv(128), sent)
                if said is not None:
                    return said + ticks_diff(ticks_ms(), start) // 2
                await asyncio.sleep(0)  # a flood of forged replies stops nobody
                if ticks_diff(ticks_ms(), s.due) > 0:
                    raise OSError(errno.ETIMEDOUT)
            except OSError as e:
                if e.errno != errno.EAGAIN:
                    raise
                await s.wait(False)
    finally:
        s.close()
