"""What a board can be told by mail, by those who are named in [fetch] senders. The order is the local part of the
address (status@board7.example.com) or the subject:

    status                          how the sensors are, as a heartbeat says it
    set limit freezer above -12     another limit for a sensor; outlives a restart, until board.toml says otherwise
    help                            the orders

Each is answered by mail, and the answer is safe in the queue before the order's 250. Automatic mail (RFC 3834) is
neither obeyed nor answered, and what is no order at all is answered once an hour at the most.

May use: gateway, heartbeat, limits, smtp.message, smtp.queue, smtp.rate; dmarc when a server has to vouch for them.
"""

import gateway
import limits
from smtp.queue import QueueFull
from smtp.rate import Rate
from smtp.reply import SMTPError

_HEAD = 65536  # octets of a header section
_LINE = 1000  # of a field that are looked at
_FIELDS = b"auto-submitted", b"precedence", b"list-id", b"from", b"subject", b"message-id"
_RESULTS = 4  # Authentication-Results fields that are looked at, from the top
_HOURLY = 30
_RAISED = b"Auto-Submitted: auto-generated\r\nMIME"  # as an alert is
_REPLIED = b"Auto-Submitted: auto-replied\r\nMIME"  # RFC 3834 section 5

HELP = """Orders, as the subject of a mail or as its address (status@...):

status
set limit SENSOR above|below NUMBER
help"""


class Fields:
    """The header fields that matter here, read from a mail in pieces: those that come from far have many others before.

    `found`: {name in lower case: value}; a field that is there twice has None. `results`: values of the
    Authentication-Results fields, the first four.
    """

    def __init__(self):
        self.found = {}
        self.results = []
        self.name = None
        self.hold = b""
        self.left = _HEAD

    def feed(self, piece):
        """The next piece of the mail (bytes-like)."""
        if self.left <= 0:
            return
        self.left -= len(piece)
        hold = self.hold + bytes(piece)
        end = hold.find(b"\r\n")
        while end > 0:
            self.line(hold[:end])
            hold = hold[end + 2 :]
            end = hold.find(b"\r\n")
        if not end:
            self.left = 0
        elif self.left <= 0:
            self.found["from"] = None  # where its author is, nobody knows
        self.hold = hold if len(hold) < _LINE else hold[: _LINE - 1] + hold[-1:]  # its end may be half a line end

    def line(self, line):
        if line[:1] not in b" \t":
            name, _, line = line.partition(b":")
            name = name.strip().lower()
            if name == b"authentication-results" and len(self.results) < _RESULTS:
                self.results.append("")
                self.name = ""
            else:
                self.name = str(name, "utf-8") if name in _FIELDS else None
            if self.name in self.found:
                self.found[self.name] = self.name = None
            elif self.name:
                self.found[self.name] = ""
        if self.name is None:
            return
        text = "".join([chr(c) if 32 <= c < 127 else " " for c in line[:_LINE]])
        if self.name:
            self.found[self.name] = (self.found[self.name] + text).strip()[:_LINE]
        else:
            self.results[-1] = (self.results[-1] + text)[:_LINE]


def author(value):
    """The address in a From field, in lower case; "" when it is not just one."""
    value = (value or "").strip().lower()
    if value[-1:] == ">":
        value = value[value.rfind("<") + 1 : -1]
    return value if value.count("@") == 1 and " " not in value and "," not in value else ""


class Told:
    """senders: addresses; verified_by: the server that has to vouch for them, or ""."""

    def __init__(self, senders, name, relay, verified_by=""):
        self.verified_by = verified_by
        self.senders = [sender.lower() for sender in senders]
        self.name = name
        self.relay = relay
        self.rate = Rate(_HOURLY, 3600)
        self.helped = None  # seconds of uptime at which what was no order was answered

    def open(self, envelope):
        now = gateway.time.uptime()
        if self.rate.wait(now):
            raise SMTPError(450, "4.7.1", "%d orders an hour are the limit" % _HOURLY)
        self.rate.count(now)
        return Order(self, envelope)

    def obey(self, words):
        """(subject, text) of the answer to an order, a list of words; None for what is no order."""
        order = [word.lower() for word in words[:2]]
        if order[:1] == ["status"]:
            import heartbeat

            return heartbeat.compose(self.name, gateway.rules, gateway.queue, gateway.time.uptime())
        if order == ["set", "limit"] and len(words) > 4:
            return self.name + ": limit", limits.change(
                gateway.rules, " ".join(words[2:-2]), words[-2].lower(), words[-1])
        if order[:1] in (["help"], ["set"]):
            return self.name + ": orders", HELP


class Order:
    """A mail with an order, as a sink of smtp.server."""

    def __init__(self, told, envelope):
        self.told = told
        self.envelope = envelope
        self.fields = Fields()
        self.write = self.fields.feed

    def abort(self):
        pass

    def commit(self):
        told = self.told
        sender = self.envelope.sender
        found = self.fields.found
        log = gateway.log
        auto = found.get("auto-submitted", "no")
        if auto is None or auto.split(";")[0].strip().lower() != "no" or "list-id" in found or (
                found.get("precedence") or "").lower() in ("bulk", "junk", "list"):
            log("told", "automatic mail from <%s> is neither obeyed nor answered" % sender)
            return "dropped"
        if author(found.get("from")) not in told.senders:
            raise SMTPError(550, "5.7.1", "the From of this mail is nobody who may give orders")
        if told.verified_by:
            import dmarc

            if not dmarc.passed(self.fields.results, told.verified_by):
                log("told", "%s does not vouch for the From of a mail from <%s>: refused" % (told.verified_by, sender))
                raise SMTPError(550, "5.7.1", "%s does not say that this mail has passed DMARC" % told.verified_by)
        subject = found.get("subject") or ""
        words = self.envelope.rcpts[0].partition("@")[0].split(".")
        if words[0].lower() not in ("status", "help"):
            words = subject.split()
            while words and words[0].lower() in ("re:", "aw:", "fwd:"):
                words.pop(0)
        clock = gateway.time
        answered = told.obey(words)
        if not answered:
            # Perhaps a machine that does not say that it is one: what answers each of our answers would never end.
            if told.helped is not None and clock.uptime() - told.helped < 3600:
                log("told", "what <%s> says is no order: %s" % (sender, " ".join(words)))
                return "dropped"
            told.helped = clock.uptime()
            answered = told.obey(["help"])
        from smtp.message import compose

        subject, text = answered
        answer = found.get("message-id") or ""
        extra = [("X-Auto-Response-Suppress", "All")]  # what Exchange heeds
        if answer[:1] == "<" and answer[-1:] == ">":
            extra += [("In-Reply-To", answer), ("References", answer)]
        now = clock.now()
        origin = gateway._mail.get("from") or "postmaster@" + told.relay.name
        meta = {"f": "", "r": [sender], "t": now or 0, "u": clock.uptime()}
        mail = (piece.replace(_RAISED, _REPLIED) for piece in compose(
            origin, sender, subject, text, now, clock.offset(now or 0), None, extra))
        try:
            gateway.queue.add(meta, mail)
        except QueueFull as e:
            raise SMTPError(452, "4.3.1", "no room for the answer: %s" % e)
        log("told", "<%s> says: %s" % (sender, " ".join(words)))
        return "done"
