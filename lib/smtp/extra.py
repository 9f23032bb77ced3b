"""Extensions that a listener offers only when it is configured to: SMTPUTF8, REQUIRETLS, MT-PRIORITY.

    Extra(listener, ("SMTPUTF8", "REQUIRETLS"))

What a mail asked for stands in `extra` of its envelope, as the parameters of MAIL, " SMTPUTF8 MT-PRIORITY=3"; the queue
keeps it, and onward passes it on.

May use: notify, path, reply; utf8 where an address is not ASCII. Standards: RFC 6531, RFC 8689 section 4, RFC 6710
section 4.
"""

from .notify import param
from .path import parse_path
from .reply import SMTPError


class Extra:
    """Makes `listener` (server.Listener) offer `words`, a tuple of the three keywords."""

    def __init__(self, listener, words):
        self.words = words
        self.hooks = listener.mail_hook, listener.rcpt_hook
        listener.extra = self
        if "SMTPUTF8" in words:
            listener.parse = self.parse
            listener.mail_hook = self.mail_hook
            listener.rcpt_hook = self.rcpt_hook

    def parse(self, arg, lenient=False, enhanced="5.1.7"):
        """As path.parse_path, for MAIL and RCPT of who may give an address in UTF-8."""
        self.odd = max(arg + b" ") > 127  # until the hook, which follows at once
        if not self.odd:
            return parse_path(arg, lenient, enhanced)
        from .utf8 import parse_path as parse

        return parse(arg, lenient, enhanced)

    def hello(self, tls):
        """Lines (bytes) for the reply to EHLO; REQUIRETLS is for sessions that have TLS (RFC 8689 4.1)."""
        return b"".join([b"250-%s\r\n" % word.encode() for word in self.words if tls or word != "REQUIRETLS"])

    def take(self, mail, key, value):
        """True when this parameter of MAIL is one of ours, which `mail` (Envelope) then carries. Raises SMTPError."""
        if key not in self.words or key == "REQUIRETLS" and not mail.tls:
            return False
        if key == "MT-PRIORITY":
            digits = (value or "").lstrip("-")
            if len(digits) != 1 or not digits.isdigit() or len(value) > 2 or value == "-0":
                raise SMTPError(501, "5.5.4", "MT-PRIORITY takes a number from -9 to 9")
            key += "=" + value
        elif value is not None:
            raise SMTPError(501, "5.5.4", key + " takes no value")
        mail.extra += " " + key
        return True

    def allowed(self, mail):
        if self.odd and "SMTPUTF8" not in mail.extra:
            raise SMTPError(553, "5.6.7", "an address with letters outside ASCII needs MAIL with SMTPUTF8")

    def mail_hook(self, mail):
        self.allowed(mail)
        if self.hooks[0]:
            self.hooks[0](mail)

    def rcpt_hook(self, mail, address):
        self.allowed(mail)
        return self.hooks[1](mail, address) if self.hooks[1] else None


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
