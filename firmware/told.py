"""What a board can be told by mail, by those who are named in [fetch] senders. The order is the local part of the
address (status@board7.example.com) or the subject:

    status                          how the sensors are, as a heartbeat says it
    set limit freezer above -12     another limit for a sensor; outlives a restart, until board.toml says otherwise
    help                            the orders

Each is answered by mail, and the answer is safe in the queue before the order's 250. Automatic mail (RFC 3834) is
neither obeyed nor answered.

May use: gateway, heartbeat, wording, smtp.message, smtp.queue, smtp.rate.
"""

import gateway
import limits
from smtp.message import compose
from smtp.queue import QueueFull
from smtp.rate import Rate
from smtp.reply import SMTPError

_HEAD = 4096  # octets of a mail that are looked at
_HOURLY = 30

HELP = """Orders, as the subject of a mail or as its address (status@...):

status
set limit SENSOR above|below NUMBER
help"""


def fields(head):
    """{name in lower case: value} of the header section (bytes) of a mail; a field that is there twice has None."""
    found = {}
    name = None
    for line in head.split(b"\r\n"):
        if not line:
            break
        text = "".join([chr(c) if 32 <= c < 127 else " " for c in line])
        if line[:1] in b" \t":
            if name and found.get(name):
                found[name] += text
            continue
        name, colon, value = text.partition(":")
        name = name.strip().lower()
        found[name] = None if name in found or not colon else value.strip()
    return found


def author(value):
    """The address in a From field, in lower case; "" when it is not just one."""
    value = (value or "").strip().lower()
    if value[-1:] == ">":
        value = value[value.rfind("<") + 1 : -1]
    return value if value.count("@") == 1 and " " not in value and "," not in value else ""


class Told:
    def __init__(self, senders, name, relay):
        self.senders = [sender.lower() for sender in senders]
        self.name = name
        self.relay = relay
        self.rate = Rate(_HOURLY, 3600)

    def open(self, envelope):
        now = gateway.time.uptime()
        if self.rate.wait(now):
            raise SMTPError(450, "4.7.1", "%d orders an hour are the limit" % _HOURLY)
        self.rate.count(now)
        return Order(self, envelope)

    def obey(self, words):
        """(subject, text) of the answer to an order, a list of words."""
        order = [word.lower() for word in words[:2]]
        if order[:1] == ["status"]:
            import heartbeat

            return heartbeat.compose(self.name, gateway.rules, gateway.queue, gateway.time.uptime())
        if order == ["set", "limit"] and len(words) > 4:
            return self.name + ": limit", limits.change(
                gateway.rules, " ".join(words[2:-2]), words[-2].lower(), words[-1])
        return self.name + ": orders", HELP


class Order:
    """A mail with an order, as a sink of smtp.server."""

    def __init__(self, told, envelope):
        self.told = told
        self.envelope = envelope
        self.head = b""

    def write(self, piece):
        if len(self.head) < _HEAD and b"\r\n\r\n" not in self.head:
            self.head += bytes(piece[: _HEAD - len(self.head)])

    def abort(self):
        pass

    def commit(self):
        told = self.told
        sender = self.envelope.sender
        found = fields(self.head)
        log = gateway.log
        auto = found.get("auto-submitted", "no")
        if auto is None or auto.split(";")[0].strip().lower() != "no" or (found.get("precedence") or "").lower() in (
                "bulk", "junk", "list"):
            log("told", "automatic mail from <%s> is neither obeyed nor answered" % sender)
            return "dropped"
        if author(found.get("from")) not in told.senders:
            raise SMTPError(550, "5.7.1", "the From of this mail is nobody who may give orders")
        subject = found.get("subject") or ""
        words = self.envelope.rcpts[0].partition("@")[0].split(".")
        if words[0].lower() not in ("status", "help"):
            words = subject.split()
            while words and words[0].lower() in ("re:", "aw:", "fwd:"):
                words.pop(0)
        subject, text = told.obey(words)
        answer = found.get("message-id") or ""
        extra = []
        if answer[:1] == "<" and answer[-1:] == ">":
            extra = [("In-Reply-To", answer)]
        clock = gateway.time
        now = clock.now()
        origin = gateway._mail.get("from") or "postmaster@" + told.relay.name
        meta = {"f": "", "r": [sender], "t": now or 0, "u": clock.uptime()}
        mail = compose(origin, sender, subject, text, now, clock.offset(now or 0), None, extra)
        try:
            gateway.queue.add(meta, mail)
        except QueueFull as e:
            raise SMTPError(452, "4.3.1", "no room for the answer: %s" % e)
        log("told", "<%s> says: %s" % (sender, " ".join(words)))
        return "done"
