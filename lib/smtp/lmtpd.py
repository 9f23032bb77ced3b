"""LMTP (RFC 2033), the server: `listener.commands = lmtpd.COMMANDS` makes a server.Listener speak it and nothing else.
LHLO instead of EHLO and HELO; behind a mail one reply for each recipient that was accepted. They are all the same: the
mail is one file in the queue, and safe for everybody or for nobody.

May use: server.
"""

from . import server
from .reply import SMTPError
from .server import Session


def greet(listener):
    """The greeting of a listener says LMTP, and so does the Received field of what it takes (onward.traced)."""
    listener.greeting = b"220 %s LMTP\r\n" % listener.domain.encode()
    hook = listener.mail_hook

    def mail_hook(mail):
        mail.extra = getattr(mail, "extra", "") + " LMTP"  # it has one where extra.Extra is
        if hook:
            hook(mail)

    listener.mail_hook = mail_hook


def _others(session):
    """How many recipients the mail has beyond the first. Raises SMTPError (RFC 2033 4.2)."""
    if not session.mail or not session.mail.rcpts:
        raise SMTPError(503, "5.5.1", "no valid recipients")
    return len(session.mail.rcpts) - 1


def _each(session, others, receive):
    """Generator: a mail's transfer, whose reply, the last that it adds, is given once for each recipient."""
    io = session.io
    try:
        yield from receive
    except SMTPError as e:
        io.out += server.line(e.code, e.enhanced, e.text) * others
        raise
    out = bytes(io.out)
    io.out += out[out.rfind(b"\r\n", 0, len(out) - 2) + 2 if out.count(b"\r\n") > 1 else 0 :] * others


def _data(session, arg):
    if arg or session.sink:
        return Session.data(session, arg)  # which refuses it
    others = _others(session)
    late = session.begin()
    return _receive(session, late, others)


def _receive(session, late, others):
    if late is not None:
        yield from session.opened(late)  # refused before 354 is refused once
    yield from _each(session, others, session.receive(None))


def _bdat(session, arg):
    more = Session.bdat(session, arg)
    if not arg.upper().endswith(b"LAST"):
        return more
    others = len(session.mail.rcpts) - 1 if session.mail else 0
    return _each(session, max(0, others), more)


COMMANDS = dict(server.COMMANDS)
for _name in (b"EHLO", b"HELO"):
    COMMANDS.pop(_name)
COMMANDS[b"LHLO"] = Session.ehlo
COMMANDS[b"DATA"] = _data
COMMANDS[b"BDAT"] = _bdat
