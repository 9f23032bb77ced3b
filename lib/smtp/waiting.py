"""Mail that waits for somebody: which of it is for some domains, and a source of just that for Client.mails().

May use: queue, relay. Loaded by etrn, atrn and mx.
"""

import json

from . import const
from .queue import Aborted, Mail
from .relay import Job, SmartHost

_ROW = const(4)  # as in queue
_HELD = const(0x3FFFFFFF)
_HEAD = const(65536)

NOBODY = SmartHost(None, 25, "none")  # where no host has said anything


class Verdict:
    """What Relay.settled() asks of a job, for recipients whose fate is known. items: (number, reply, host)."""

    dsn = None

    def __init__(self, mail, items):
        rcpts = mail.meta["r"]
        self.mail = mail
        self.index = [n for n, _, _ in items]
        self.rcpts = [rcpts[n] for n in self.index]
        self.sender = mail.meta["f"]
        self.host = items[0][2]
        for _, _, host in items:
            if host.host != self.host.host:
                self.host = SmartHost("", 25, "none")  # there is no one host to name, see bounce.tell
                self.host.names = {n: host.host for n, _, host in items}
                break
        self.results = [reply for _, reply, _ in items]


def split(queue, key, rcpts, wanted):
    """Two bit sets of the recipients of a mail who are not served yet: those in the domains `wanted`, the others."""
    over = queue.state(key)
    over = over[0] | over[1]
    bits = rest = 0
    for n, to in enumerate(rcpts):
        if not over >> n & 1:
            if wanted(to.rpartition("@")[2].lower()):
                bits |= 1 << n
            else:
                rest |= 1 << n
    return bits, rest


def waiting(queue, wanted):
    """(key, bits, rest) as split() gives them, for each mail; it may change meanwhile. wanted(domain) is asked."""
    for key in [queue.rows[i] for i in range(0, len(queue.rows), _ROW)]:
        try:
            with open(queue.path + "/" + queue.name_now(queue.row(key)), "rb") as f:
                head = b""
                while head[-1:] != b"\n" and len(head) < _HEAD:
                    more = f.readline(512)
                    if not more:
                        break
                    head += more
            bits, rest = split(queue, key, json.loads(head)["r"], wanted)
        except (KeyError, OSError, TypeError, ValueError):
            continue  # gone, or damaged: whoever takes it will see
        yield key, bits, rest


def take(queue, key):
    """The queue's Mail of this key, as Queue.take() gives one; None when somebody has it, or it is no more."""
    try:
        i = queue.row(key)
        if queue.rows[i + 1] != _HELD:
            mail = Mail(queue, key, queue.path + "/" + queue.name_now(i))
            queue.rows[i + 1] = _HELD
            return mail
    except (Aborted, KeyError, OSError, TypeError, ValueError):
        pass


class Bag:
    """The mail for some domains, as a source; to a Job it is the relay. host: a SmartHost that stands for its taker."""

    def __init__(self, relay, host, wanted):
        self.relay = relay
        self.host = host
        self.wanted = wanted
        self.keys = []
        self.ext = {}  # of the session
        self.queue, self.clock = relay.queue, relay.clock
        self.name, self.origin = relay.name, relay.origin

    def find(self):
        """Generator: looks for the mail; lets others run now and then."""
        for n, (key, bits, _) in enumerate(waiting(self.queue, self.wanted)):
            if bits:
                self.keys.append(key)
            if n & 15 == 15:
                yield

    def next(self):
        while self.keys and not self.relay.ending:
            mail = take(self.queue, self.keys.pop(0))
            if mail:
                bits, rest = split(self.queue, mail.key, mail.meta["r"], self.wanted)
                if bits:
                    return Job(self, mail, self.host, ~bits)
                self.queue.release(mail.key)

    def settled(self, job, results):
        relay = self.relay
        if results.count(None) == len(results):
            job.mail.close()
            self.queue.release(job.mail.key)
            return
        was = relay.onward, relay.broken, relay.suspect
        relay.onward, relay.broken, relay.suspect = False, job, None  # those of another session
        try:
            relay.settled(job, results)
        finally:
            relay.onward, relay.broken, relay.suspect = was
