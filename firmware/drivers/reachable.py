"""Whether a host on the network answers: 1 or 0.

rule: host: its name or IP address; port: it takes a TCP connection there; or ping: it answers an ICMP echo (RFC 792,
IPv4 only); timeout: seconds that it has.

Silence is a value. What keeps this board from asking, its own network above all, is none.
"""

import asyncio
import errno
import os
import socket
import sys

import gateway
from sensors import NotNow
from smtp.network import parse_ip
from smtp.stream import connect, sleep_ms, ticks_add, ticks_diff, ticks_ms

_EVERY = 700  # ms between two pings
_POLL = 50
_OURS = (errno.ENETDOWN if hasattr(errno, "ENETDOWN") else 100, 101)  # and ENETUNREACH
_heard = []  # what was answered lately: on lwIP one socket swallows the answers for all


class Driver:
    def __init__(self, rule, board):
        self.host = rule["host"]
        self.port = rule.get("port")
        self.most = rule.get("timeout", 10) * 0.8  # the rest is for the name

    async def read(self):
        organs = sys.modules.get("organs")
        if organs and organs.station and not organs.station.up:
            raise NotNow("this board has no network itself")
        ip = self.host if parse_ip(self.host) else (await gateway.resolve(self.host))[0]
        try:
            if not self.port:
                return await self.ping(ip)
            stream = await asyncio.wait_for(connect(ip, self.port, int(self.most * 1000), 1), self.most)
            stream.close()
            return 1
        except asyncio.TimeoutError:
            return 0
        except OSError as e:
            if e.args[0] in _OURS:
                raise NotNow("this board has no network itself")
            return 0

    async def ping(self, ip):
        """1 when it answers in time. A ping is tried a few times: each may get lost."""
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        except OSError:
            try:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)  # what Linux and macOS let everybody do
            except OSError as e:
                raise ValueError("this computer lets only root ping (%s): give `port` instead" % e)
        try:
            sock.setblocking(False)
            where = socket.getaddrinfo(ip, 1)[0][4]
            mark = os.urandom(8)
            end = ticks_add(ticks_ms(), int(self.most * 1000))
            again = ticks_ms()
            n = 0
            while True:
                now = ticks_ms()
                if ticks_diff(now, again) >= 0:
                    n += 1
                    again = ticks_add(again, _EVERY)
                    sock.sendto(echo(n, mark), where)
                await sleep_ms(_POLL)
                listen(sock)
                if mark in _heard:
                    _heard.remove(mark)
                    return 1
                if ticks_diff(now, end) >= 0:
                    return 0
        finally:
            sock.close()


def echo(n, mark):
    """An echo request with the number n and 8 octets that come back."""
    packet = bytearray(b"\x08\0\0\0ep\0\0" + mark)
    packet[7] = n & 255
    total = 0
    for i in range(0, 16, 2):
        total += packet[i] << 8 | packet[i + 1]
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet[2] = total >> 8
    packet[3] = total & 255
    return packet


def listen(sock):
    """Notes the answers that have come."""
    for _ in range(16):
        try:
            packet = sock.recv(128)
        except OSError:
            return  # no more
        start = (packet[0] & 15) * 4 if packet and packet[0] >> 4 == 4 else 0  # behind an IP header, where there is one
        if packet[start : start + 1] == b"\0":
            _heard.append(bytes(packet[start + 8 : start + 16]))
            if len(_heard) > 16:
                _heard.pop(0)
