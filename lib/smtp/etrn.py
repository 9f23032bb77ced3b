"""ETRN (RFC 1985), the server: a peer that may relay asks that the mail which waits for a domain is tried now.

May use: server, waiting. Loaded only for a listener that offers it.
"""

from . import const
from .address import valid_domain
from .reply import SMTPError
from .stream import PAUSE
from .waiting import waiting

MOST = 100  # mails that are counted
_HELD = const(0x3FFFFFFF)  # as in queue
_COST = const(50)  # commands that one ETRN counts for: it reads the whole spool
_MAX_COMMANDS = const(1000)  # as in server


def offer(listener, word, command):
    """`listener` knows the command `word` (bytes) from here on, a function of session and argument, and says so in
    EHLO."""
    listener.commands = commands = dict(listener.commands)
    hello = commands[b"EHLO"]

    def ehlo(session, arg):
        hello(session, arg)
        out = bytes(session.io.out)
        at = out.rfind(b"250 ")
        session.io.out = out[:at] + b"250-" + word + b"\r\n" + out[at:]

    commands[b"EHLO"] = ehlo
    commands[word] = command


def serve(listener, relay, domains):
    """ETRN on `listener` for the mail that `relay` has for `domains` (lower case)."""
    offer(listener, b"ETRN", lambda session, arg: etrn(session, arg, relay, domains))


def etrn(session, arg, relay, domains):
    if session.mail or session.sink:
        raise SMTPError(503, "5.5.1", "not within a mail")
    try:
        name = str(arg.strip(), "utf-8").lower()
    except UnicodeError:
        name = ""
    under = name[:1] == "@"  # the domain, and all below it
    domain = name[1:] if under else name
    if name[:1] == "#":
        raise SMTPError(458, "4.5.4", "no queue has a name here")
    if not valid_domain(domain):
        raise SMTPError(501, "5.5.4", "say ETRN domain")
    if not session.known and session.user is None:
        raise SMTPError(459, "4.7.1", "node %s not allowed: you may not relay here" % name)
    if domain not in domains:
        raise SMTPError(459, "4.7.1", "node %s not allowed: it is not among the domains of this listener" % name)
    session.commands += _COST
    if session.commands > _MAX_COMMANDS:
        raise SMTPError(421, "4.7.0", "too many commands")
    return start(session, relay, name, domain, "." + domain if under else None)


def start(session, relay, name, domain, below):
    """Generator: makes the mail due."""
    queue = relay.queue
    count = busy = 0
    n = 0
    try:
        for key, bits, _ in waiting(queue, lambda d: d == domain or below and d.endswith(below)):
            n += 1
            if bits:
                try:
                    if queue.rows[queue.row(key) + 1] == _HELD:
                        busy += 1  # it is on its way
                    else:
                        queue.release(key)
                        count += 1
                except KeyError:
                    pass
            if n & 15 == 0:
                yield PAUSE
    except OSError as e:
        session.on.log("ETRN %s: %s" % (name, e))
        raise SMTPError(458, "4.3.0", "unable to queue messages for node %s" % name)
    if count > MOST:
        text = b"252 2.0.0 pending messages for node %s started\r\n" % name.encode()
    elif count:
        text = b"253 2.0.0 %d pending messages for node %s started\r\n" % (count, name.encode())
    elif busy:
        text = b"250 2.0.0 queuing for node %s started\r\n" % name.encode()
    else:
        text = b"251 2.0.0 no messages waiting for node %s\r\n" % name.encode()
    session.io.out += text
    if count:
        session.on.log("ETRN of %s: %d mails for %s are tried now" % (session.peer, count, name))
        relay.wake.set()
        if relay.stir:
            relay.stir.set()
