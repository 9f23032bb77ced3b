"""Who is told what became of a mail: its sender by a notification, or the admin by a report about many.

May use: dsn, notify, queue; message for a report. Standards: RFC 3461 (what a sender may ask for), RFC 3464
(notifications), RFC 5321 sections 4.5.5 and 6.1 (a bounce never bounces).
"""

from . import const
from .date import date
from .dsn import report as notification
from .notify import wanted
from .queue import Damaged, QueueFull

_MOST = const(15)  # mails in one report to the admin
# Where no mail arrives: RFC 2606, 6761, 6762, 8375, and what devices make up.
_NOWHERE = ("local", "localhost", "localdomain", "lan", "home", "internal", "invalid", "test", "example", "arpa", "]")


def nowhere(address):
    """True for a sender that nobody reads: made up by a device, or none at all."""
    domain = address.rpartition("@")[2].lower()
    return "." not in domain or domain[-1] == "]" or domain.rpartition(".")[2] in _NOWHERE


def tell(relay, mail, notices, host, admin=""):
    """Queues the notification that a mail's sender wants, before the mail itself goes: a power cut in between makes two
    rather than none. Returns the bit set of the recipients it is about.

    notices: (number, address, action as in dsn.report, reply); host: the SmartHost that said so; admin: who is told of
    all of them instead, for a mail that cannot be kept as a dead letter.
    """
    meta = mail.meta
    to = admin or meta["f"]
    asked = meta.get("n")
    if not admin and (not to or nowhere(to)):
        return 0
    told = 0
    results = []
    names = getattr(host, "names", {})  # one for each, of a waiting.Verdict
    for n, address, action, result in notices:
        how = asked[n] if asked else ""
        if admin or wanted(how, action) and (how or relay.bounce):
            told |= 1 << n
            results.append((address, action, result, how, names.get(n, host.host)))
    if not results:
        return 0
    clock, queue = relay.clock, relay.queue
    now = clock.now() or 0
    start = meta.get("t") or now
    until = start + relay.expire if now else None
    safe = "REQUIRETLS" in meta.get("e", "")  # the text of such a mail does not go where it may be read on the way
    for full in (True, False) if "RET=FULL" in meta.get("d", "") and not safe else (False,):
        mail.rewind()
        try:
            envelope = {"f": "", "r": [to], "t": now, "u": queue.uptime()}
            if admin:
                envelope["k"] = 1
            if safe:
                envelope["e"] = " REQUIRETLS"
            queue.add(envelope, notification(
                relay.name, to, meta, results, now, clock.offset(now), mail.read, full, mail.eight, until))
            relay.log("%s: %s is told" % (meta["i"], to))
            return told
        except QueueFull as e:
            relay.log("%s: no room to tell %s: %s" % (meta["i"], to, e))
        finally:
            mail.close()
    return 0


def _subject(mail):
    """The Subject of a mail as it stands there, of the first 1 KB of its header section."""
    buf = bytearray(1024)
    try:
        head = b"\n" + bytes(buf[: mail.read(buf)])
    finally:
        mail.close()
    at = head.lower().find(b"\nsubject:") + 9
    if at < 9:
        return ""
    return "".join([chr(c) if 32 <= c < 127 else "?" for c in head[at : at + 200].split(b"\r")[0].strip()])


def _entry(relay, key):
    """Lines about a dead letter."""
    mail, whys = relay.queue.open_letter(key)
    meta = mail.meta
    when = meta.get("t")
    yield "%s (%08x) from <%s>%s" % (
        meta["i"], key, meta["f"], ", " + date(when, relay.clock.offset(when)) if when else "")
    text = _subject(mail)
    if text:
        yield "    Subject: " + text
    for why in whys[:10]:
        n, _, said = why.partition(" ")
        yield "    to <%s>: %s" % (meta["r"][int(n)], said[:300])
    if len(whys) > 10:
        yield "    and %d more recipients" % (len(whys) - 10)


def report(relay):
    """One mail to the admin about all that nobody else could be told: alerts, mails of made-up senders and bounces that
    could not be delivered, damaged spool files, mails that made room for alerts."""
    queue = relay.queue
    lines = []
    keys = []
    more = 0
    for key, mark, _ in queue.letters():
        if mark != "dead" and mark != "bad":
            continue
        if len(keys) == _MOST:
            more += 1
            continue
        keys.append(key)
        try:
            if mark == "dead":
                lines.extend(_entry(relay, key))
            else:
                lines.append("%08x is damaged and was set aside" % key)
        except (Damaged, KeyError, ValueError, IndexError, OSError) as e:
            lines.append("%08x cannot be read: %s" % (key, e))
    gone = queue.gone()
    count = len(keys) + more
    if not count and not gone:
        return
    text = []
    if count:
        text.append("Mail that could not be delivered, and nobody else could be told. It is kept as dead letters until "
                    "you send it again or delete it.\n")
        text += lines
        if more:
            text.append("And %d more: the next report has them." % more)
    if gone:
        text.append("\nTo make room for alerts these mails were given up:\n")
        text += gone
    from .message import compose

    clock = relay.clock
    now = clock.now()
    meta = {"f": relay.origin, "r": [relay.admin], "t": now or 0, "u": queue.uptime(), "k": 1}
    mail = (relay.origin or "postmaster@" + relay.name, relay.admin, "%s: %d mails were not delivered" % (
        relay.name, count + len(gone)), "\n".join(text), now, clock.offset(now or 0))
    try:
        try:
            queue.add(meta, compose(*mail))
        except QueueFull:
            # What is told of may give way to the telling.
            for key in keys:
                queue.reported(key)
            queue.add(meta, compose(*mail), displace=True)
    except QueueFull as e:
        relay.log("no room to tell %s of %d dead letters: %s" % (relay.admin, count, e))
    else:
        relay.log("%s is told of %d mails" % (relay.admin, count + len(gone)))
        for key in keys:
            queue.reported(key)
        if gone:
            queue.gone_reported()
    if more:
        relay.died()
