"""Extensions that a listener offers only when it is configured to: SMTPUTF8, REQUIRETLS, MT-PRIORITY.

    Extra(listener, ("SMTPUTF8", "REQUIRETLS"))

What a mail asked for stands in `extra` of its envelope, as the parameters of MAIL, " SMTPUTF8 MT-PRIORITY=3"; the queue
keeps it, and onward passes it on.

It takes the place of the commands EHLO, MAIL and RCPT of its listener and hands on to them what any server knows. A
listener of another protocol (lmtpd) or with other commands (etrn) has to have them first.

May use: notify, path, reply; utf8 where an address is not ASCII. Standards: RFC 6531, RFC 8689 section 4, RFC 6710
section 4.
"""

from .notify import param
from .path import parse_params, parse_path
from .reply import SMTPError


class Extra:
    """Makes `listener` (server.Listener) offer `words`, a tuple of the three keywords."""

    def __init__(self, listener, words):
        self.words = words
        self.hooks = listener.mail_hook, listener.rcpt_hook
        listener.extra = self
        listener.mail_hook = self.mail_hook
        listener.rcpt_hook = self.rcpt_hook
        listener.commands = commands = dict(listener.commands)
        self.mail, self.rcpt = commands[b"MAIL"], commands[b"RCPT"]
        commands[b"MAIL"], commands[b"RCPT"] = self.mail_, self.rcpt_
        verb = b"EHLO" if b"EHLO" in commands else b"LHLO"
        hello = commands[verb]

        def ehlo(session, arg):
            hello(session, arg)
            out = bytes(session.io.out)
            at = out.rfind(b"250 ")
            session.io.out = out[:at] + self.hello(session.tls) + out[at:]

        commands[verb] = ehlo

    def parse(self, arg, lenient, enhanced="5.1.7"):
        """As path.parse_path, for MAIL and RCPT of who may give an address in UTF-8. Gives what the server may read
        in its place; the hook, which follows at once, puts it right."""
        self.odd = "SMTPUTF8" in self.words and max(arg + b" ") > 127
        parse = parse_path
        if self.odd:
            from .utf8 import parse_path as parse
        self.box, rest = parse(arg, lenient, enhanced)
        return b"<x@x.x>" if self.box else b"<>", rest

    def mail_(self, session, arg):
        # Who may not send, or not now, hears so first.
        may = session.known or session.user is not None and session.helo is not None
        self.asked = ""
        if may and not session.mail and not session.sink and arg[:5].upper() == b"FROM:":
            box, rest = self.parse(arg[5:], session.known)
            left = b""
            for word in rest.split():
                for key, value in parse_params(word).items():
                    mine = self.take(session.tls, key, value)
                    self.asked += mine
                    if not mine:
                        left += b" " + word
            if rest:
                parse_params(rest)
            arg = b"FROM:" + box + left
        self.mail(session, arg)

    def rcpt_(self, session, arg):
        if session.mail and arg[:3].upper() == b"TO:":
            box, rest = self.parse(arg[3:], session.known, "5.1.3")
            arg = b"TO:" + box + (b" " + rest if rest else b"")
        self.rcpt(session, arg)

    def hello(self, tls):
        """Lines (bytes) for the reply to EHLO; REQUIRETLS is for sessions that have TLS (RFC 8689 4.1)."""
        return b"".join([b"250-%s\r\n" % word.encode() for word in self.words if tls or word != "REQUIRETLS"])

    def take(self, tls, key, value):
        """A parameter of MAIL as the envelope carries it, "" when it is none of ours. Raises SMTPError."""
        if key not in self.words or key == "REQUIRETLS" and not tls:
            return ""
        if key == "MT-PRIORITY":
            digits = (value or "").lstrip("-")
            if len(digits) != 1 or not digits.isdigit() or len(value) > 2 or value == "-0":
                raise SMTPError(501, "5.5.4", "MT-PRIORITY takes a number from -9 to 9")
            key += "=" + value
        elif value is not None:
            raise SMTPError(501, "5.5.4", key + " takes no value")
        return " " + key

    def allowed(self, mail):
        if self.odd and "SMTPUTF8" not in mail.extra:
            raise SMTPError(553, "5.6.7", "an address with letters outside ASCII needs MAIL with SMTPUTF8")

    def mail_hook(self, mail):
        mail.sender = self.box
        mail.extra = self.asked
        self.allowed(mail)
        if self.hooks[0]:
            self.hooks[0](mail)

    def rcpt_hook(self, mail, address):
        self.allowed(mail)
        return self.hooks[1] and self.hooks[1](mail, self.box) or self.box


class Wishes:
    """As firmware's devices.Devices, around one or None: what the mail itself asked for counts, too."""

    def __init__(self, devices):
        self.devices = devices

    def find(self, envelope):
        found = self.devices.find(envelope) if self.devices else {}
        extra = getattr(envelope, "extra", "")  # of a listener that offers none it has none
        if extra:
            found = dict(found)
            found["meta"] = meta = dict(found.get("meta", {}))
            meta["e"] = extra
            if "priority" not in found:
                found["priority"] = ("urgent", "normal", "low")[level(extra, 1)]
        return found


def level(extra, default=None):
    """0, 1 or 2 (urgent, normal or low in the queue) for MT-PRIORITY in `extra`; `default` when it is not there.

    The levels of the queue are those of MIXER (RFC 6710 appendix B), 4, 0 and -4. What lies between counts as the next
    higher one: nothing waits because a number was not known.
    """
    value = param(extra, "MT-PRIORITY")
    if not value:
        return default
    value = int(value)
    return 0 if value > 0 else 1 if value > -4 else 2
