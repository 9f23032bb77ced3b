"""What is to be read out of a refusal: which replies ask for less mail rather than refuse one, as the big providers
document them, and which are about who sends. Loaded when there is one. May use: nothing.

Sources, as of 2026: Gmail SMTP errors (Google Workspace Admin Help, "SMTP error reference" and "Gmail sending limits"),
Exchange Online ("Exchange Online limits", "Fix issues with multifunction printers, devices and applications that send
e-mail using Microsoft 365", the NDR code list), Amazon SES ("Errors related to the sending quotas"), Yahoo ("SMTP error
codes": TSS04), Postfix (the texts of its anvil limits, smtpd(8)).
"""

from . import const

_SHORT = const(120)
_LONG = const(900)
_DAY = const(3600)  # a day's quota: asked again each hour

# How a reply's "code enhanced text" begins, what else is in it (in lower case), and for how many seconds the
# host is left alone. The first row that fits counts.
_ROWS = (
    ("450 4.2.1", "receiving mail", 0),  # Gmail: about one recipient, who alone is deferred
    ("550 5.4.5", "", _DAY),  # Gmail: daily user sending limit exceeded
    ("421 4.7.28", "", _LONG),  # Gmail: an unusual rate
    ("421 4.7.0", "try again later", _LONG),  # Gmail
    ("454", "too many login attempts", _LONG),  # Gmail
    ("5", "5.1.90", _DAY),  # Exchange Online: daily limit for message recipients
    ("5", "submissionquotaexceeded", _DAY),  # Exchange Online
    ("432", "", _SHORT),  # Exchange Online: concurrent connections or sender threads exceeded
    ("421 4.4.2", "submission rate", _SHORT),  # Exchange
    ("451 4.7.5", "", _LONG),  # Exchange Online: server busy
    ("454", "maximum sending rate", 30),  # SES
    ("454", "daily message quota", _DAY),  # SES
    ("421", "tss0", _LONG),  # Yahoo
    ("4", "too many connections", _SHORT),  # Postfix and others
    ("4", "concurrent connections", _SHORT),
    ("4", "too much mail", _LONG),
    ("4", "too many new tls sessions", _LONG),
    ("4", "too many auth commands", _LONG),
    ("4", "too many recipients from", _LONG),
    ("4", "rate limit", _SHORT),
    ("4", "rate exceeded", _SHORT),
    ("4", "throttl", _SHORT),
)


def pause(code, enhanced, text):
    """Seconds for which a host that answers so is to be left alone, 0 when the reply is about this mail only."""
    said = ("%d %s %s" % (code, enhanced, text)).lower()
    for start, rest, seconds in _ROWS:
        if said.startswith(start) and rest in said:
            return seconds
    return 0


def about_sender(job, code, enhanced, text):
    """What to do (str) when a refusal is most likely about who sends, else "": then a setting mends it, and the mail
    waits for that.

    Postfix and others say so at RCPT (553 5.7.1 Sender address rejected), Microsoft 365 after the mail (5.7.60
    SendAsDenied).
    """
    if job.host.sender or not job.sender or code == 552:
        return ""
    text = text.lower()
    if enhanced in ("5.1.7", "5.1.8", "5.7.60") or (
            ("sender" in text or "from address" in text or "send as" in text) and "relay" not in text):
        return "set smarthost.sender to an address that it accepts, and this mail goes through"
    return ""
