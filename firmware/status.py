"""The status service over HTTP on the LAN, as far as it is always loaded: its port, the last events, a look for jobs
that hang. docs/status.md has what each URL gives.

Loaded only where [status] is configured. What answers takes 13 to 22 KB on the 64-bit port: it is loaded when somebody
asks, and forgotten when nobody is left. Mail goes first: who asks waits until there is memory.

    web     HTTP, and who may in        unwell   /health
    routes  who answers what            page     the page
    views   JSON, a mail, the log       deeds    what a person may do

May use: gateway, watch, crash, smtp.listen, smtp.network.
"""

import asyncio
import gc
import os
import sys

import gateway
import watch
from crash import clean
from smtp import const, stream
from smtp.listen import accept, listen
from smtp.network import in_networks, parse_ip, parse_network
from smtp.stream import sleep_ms, ticks_diff, ticks_ms

VERSION = "0.1.0"

_EVENTS = const(1200)  # octets of them
_LINE = const(200)  # characters of an event, or of a line
_RING = const(2000)  # octets of log where there is none in flash
_LOOK = const(30)  # seconds between two looks for jobs that hang
_NEED = const(16384)  # octets of heap to be free before web is loaded
MORE = const(20480)  # and then before views is
_PATIENCE = const(80)  # times to look for them, 100 ms apart
_SLOW = const(60000)  # ms from which on an answer gives way to others
_CLOSED = const(30)  # seconds
_MODULES = ("web", "routes", "unwell", "health", "views", "page", "deeds", "smtp.letters")
_EVENT = (" delivered to ", " deferred for ", " refused for ", " given up for ", "smart host", "dead letter")
_BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

relay = board = table = name = server = None
names = networks = ()
most = 2  # connections at a time
asked = False  # over the serial line, just now
visits = []  # of each connection [task, ticks, whether it has begun, whether it has asked]
refused = None  # who was turned away last
closed = 0  # seconds of uptime until which nobody is answered: something else needs the memory
stuck = None  # the job that hangs, as Watch.look() has it
tested = None  # seconds of uptime at the last test mail
# What web knows of passwords: a key of this boot, the hash of the right one under it, {address: (wrong ones, seconds of
# uptime until it may try again)}, whether one is being checked.
key = os.urandom(16)
mark = None
wrong = {}
checking = False


class Ring:
    """The last lines, in one place: many small objects that stay would leave the heap in pieces. Also in the place of
    logfile.Log, where no log in flash is configured."""

    def __init__(self, size=_RING):
        self.buf = bytearray(size)
        self.end = 0  # octets that were ever written

    def add(self, line, now=None, urgent=False):
        line = (clean(line)[:_LINE] + "\n").encode()
        at = self.end % len(self.buf)
        n = min(len(line), len(self.buf) - at)
        self.buf[at : at + n] = line[:n]
        self.buf[: len(line) - n] = line[n:]
        self.end += len(line)

    def error(self, error):
        self.add("%s: %s" % (type(error).__name__, error))

    def flush(self):
        pass

    def lines(self):
        """Each line (str), the oldest first."""
        at = max(0, self.end - len(self.buf))
        line = b""
        first = at > 0  # it is not whole
        while at < self.end:
            i = at % len(self.buf)
            n = min(64, len(self.buf) - i, self.end - at)
            line += self.buf[i : i + n]
            at += n
            while b"\n" in line:
                whole, _, line = line.partition(b"\n")
                if not first:
                    yield str(whole, "utf-8")
                first = False

    def tail(self, octets):
        return "\n".join(list(self.lines()) + [""])[-octets:]


events = Ring(_EVENTS)  # what became of mail: seconds of uptime, a space, text


def note(text):
    """Keeps a line of the relay's log, if it is about what became of a mail."""
    for e in _EVENT:
        if e in text:
            events.add("%d %s" % (gateway.time.uptime(), text))
            break


def log(text):
    gateway.log("status", text)


def serve(conn, ip):
    """Takes a connection."""
    global refused
    if not in_networks(parse_ip(ip), networks):
        conn.close()
        if ip != refused:
            refused = ip
            log("%s is in no network of status.allow and is not answered" % ip)
        return
    try:
        if gateway.time.uptime() < closed or len(visits) >= most and not make_room():
            busy(conn)
            return
        visit = [None, ticks_ms(), False, False]
        visits.append(visit)
        visit[0] = asyncio.create_task(attend(conn, ip, visit))
        server.tasks.append(visit[0])
    except MemoryError:
        conn.close()
        if visits and visits[-1][0] is None:
            visits.pop()


def busy(conn):
    try:
        conn.send(_BUSY)
    except OSError:
        pass
    conn.close()


def give_way():
    """Something else had too little memory: whoever asks has to ask later."""
    global closed
    closed = gateway.time.uptime() + _CLOSED
    for visit in visits:
        if visit[2]:
            visit[0].cancel()


def make_room():
    """True when one of those who are there could be sent away: who has not asked, or takes for ever."""
    found = None
    for visit in visits:
        # A task that is cancelled before it has begun does not clean up.
        if visit[2] and (not visit[3] or ticks_diff(ticks_ms(), visit[1]) > _SLOW):
            if found is None or found[3] and not visit[3]:
                found = visit
    if found:
        visits.remove(found)
        found[0].cancel()
    return found


async def load(name, need):
    """A module, as soon as there is memory; None when there is none for long. need: octets that have to be free, and
    half as much again while others are connected: mail goes first."""
    for _ in range(_PATIENCE):
        gc.collect()
        free = gc.mem_free()
        if name in sys.modules or free > need and (free > need * 3 // 2 or len(stream._open) <= len(visits)):
            try:
                return __import__(name)
            except MemoryError:
                gateway.unload(name)
        await sleep_ms(100)


async def attend(conn, ip, visit):
    """Answers on a connection."""
    visit[2] = True
    try:
        web = await load("web", _NEED)
        if web:
            await web.run(conn, ip, visit)
        else:
            busy(conn)
    except MemoryError:
        log("out of memory in an answer to %s: it was dropped" % ip)
    finally:
        conn.close()
        if visit[0] in server.tasks:
            server.tasks.remove(visit[0])
        if visit in visits:
            visits.remove(visit)
        forget()


def forget():
    """Forgets what answers, when nobody is there any more."""
    if not visits and not asked:
        for module in _MODULES:
            gateway.unload(module)


async def look(dog):
    """For ever: looks for what hangs."""
    global stuck
    while True:
        found = dog.look()
        if found and not stuck:
            gateway.log("status", "%s has done nothing for %d s" % found)
        stuck = found
        await asyncio.sleep(_LOOK)


def work(profile, config, one, listening):
    """What is to run, as for start.equip(). profile: the board's; one: the Relay; listening: the Server, which ends
    what runs at the end. Raises gateway.Unusable when it cannot listen."""
    global relay, board, table, name, names, networks, most, server
    relay = one
    board = profile
    server = listening
    table = config["status"]
    name = config["board"]["name"]
    names = [n.lower() for n in table["names"] + [config["board"]["domain"]]]
    networks = [parse_network(n) for n in table["allow"]]
    most = max(2, profile.MAX_SESSIONS // 3)
    say = relay.log

    def hear(text):
        say(text)
        note(text)

    relay.log = hear
    relay.starved = gateway.starved = give_way  # mail goes first
    where = "%s port %d" % (table["address"], table["port"])
    try:
        server.socks.append(listen(table["address"], table["port"], 2))
    except OSError as e:
        raise gateway.Unusable("cannot listen on %s (error %s): stop the program that uses this port, or set another "
                               "status.port; one below 1024 is for root alone" % (where, e.args[0]))
    log("listening on " + where)
    sock = server.socks[-1]
    dog = watch.everything(watch.Watch(gateway.time.uptime, None), relay, server, gateway.rules)
    return [("status", lambda: accept(sock, serve)), ("status", lambda: look(dog))]
