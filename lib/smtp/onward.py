"""What a mail needs of the next hop beyond plain SMTP: SMTPUTF8, REQUIRETLS; and MT-PRIORITY, which it would like.

Loaded when a mail on its way out needs it, and for mail that is urgent or can wait where the next hop tells priorities
apart. A mail that needs what the next hop does not offer is never sent there: the next smart host is asked, and if
there is none, its sender is told.

May use: notify; convert to look for header fields in UTF-8, message to write addresses without them.
Standards: RFC 6531 section 3, RFC 8689 section 4.2.1, RFC 6710 section 4. RFC 6857 section 3.1 has how an address in
UTF-8 is shown to who can read ASCII alone.
"""

from . import const
from .notify import param

_CHUNK = const(256)
_ADDRESSES = (b"from", b"to", b"cc", b"reply-to")

_NO_UTF8 = (
    "there are letters outside ASCII in %s, and the next mail server takes none (it does not offer SMTPUTF8): use an"
    " address and header fields in plain letters, or another smart host")
NO_HEAD = 550, "5.6.7", _NO_UTF8 % "its header fields"
_NO_TLS = "REQUIRETLS support required: the next mail server does not promise verified TLS on the rest of the way"


def wide(text):
    """True when `text` (str) is not ASCII."""
    return len(text) != len(text.encode())


def able(ext):
    """True for a next hop that takes UTF-8 (RFC 6531 3.1: with 8BITMIME)."""
    return "SMTPUTF8" in ext and "8BITMIME" in ext


def asked(job, ext):
    """(parameters of MAIL (str), {number in job.rcpts: reply} of those who cannot have the mail, with -1 for what is
    said of all of them). ext: what the next hop of `job` (relay.Job) offers. The mail itself is not looked at."""
    mail = job.mail
    meta = mail.meta
    extra = meta.get("e", "")
    host = job.host
    params = ""
    no = {}
    if "REQUIRETLS" in extra.split():
        if "REQUIRETLS" in ext and host.security in ("starttls", "tls") and host.verify != "none":
            params = " REQUIRETLS"
        elif meta["f"]:  # a bounce, which has no text of the mail, is sent all the same (RFC 8689 section 5)
            no[-1] = 550, "5.7.30", _NO_TLS
    if "MT-PRIORITY" in ext:
        value = param(extra, "MT-PRIORITY") or ("4", "", "-4")[min(mail.key >> 28, 2)]
        if value:
            params += " MT-PRIORITY=" + value
    if not able(ext):
        if wide(job.sender):
            no[-1] = 550, "5.6.7", _NO_UTF8 % "the address it comes from"
        for n, to in enumerate(job.rcpts):
            if wide(to):
                no[n] = 550, "5.6.7", _NO_UTF8 % "this address"
    elif wide(job.sender + "".join(job.rcpts)) or mail.eight and (
            "SMTPUTF8" in extra or "p" not in meta and odd(mail) & 3):
        job.body = "8BITMIME SMTPUTF8"  # 8-bit in any case: a field may be ours
        from .utf8 import good

        job.out.wide = good
    return params, no


def added(dsn, params, count):
    """`dsn` of a client's job with more parameters of MAIL, which go where there is no DSN, too."""
    mail, rcpts = dsn or ("", [""] * count)
    return mail + params, rcpts


def ready(job, ext, onward):
    """Makes a job fit its next hop, which offers `ext`. Those recipients who cannot have it there are refused; False:
    all of them. onward: there is another host to ask, so that nothing is refused for good."""
    params, no = asked(job, ext)
    mail = job.mail
    if mail.eight and not able(ext) and -1 not in no:
        if "p" not in mail.meta:
            if odd(mail) == 1:
                job.out = Plain(job.out)  # ours are ASCII but for addresses
                job.body = ""
        elif "SMTPUTF8" in mail.meta.get("e", ""):
            found = anywhere(job.out.readinto)
            mail.rewind()
            job.__init__(job.relay, mail, job.host)
            if found:
                no[-1] = NO_HEAD
    if not params and not no:
        return True
    rcpts, index, dsn = job.rcpts, job.index, job.dsn
    refusals = []
    for n in range(len(rcpts)):
        refusal = no.get(-1) or no.get(n)
        if refusal and onward:
            refusal = 450, "4" + refusal[1][1:], refusal[2]
        refusals.append(refusal)

    def done(results):
        # relay.settled() sees the job as it was, and all results in their order.
        job.rcpts, job.index, job.dsn = rcpts, index, dsn
        results = iter(results)
        host = job.host
        host.names = {index[n]: None for n, refusal in enumerate(refusals) if refusal}  # it was not asked, see bounce
        try:
            job.relay.settled(job, [refusal or next(results) for refusal in refusals])
        finally:
            host.names = {}

    if dsn or params:
        mail, each = added(dsn, params, len(rcpts))
        job.dsn = mail, [each[n] for n in range(len(rcpts)) if not refusals[n]]
    job.rcpts = [rcpts[n] for n in range(len(rcpts)) if not refusals[n]]
    job.done = done
    if job.rcpts:
        return True
    done(())


def odd(mail):
    """Where a mail (queue.Mail) is not ASCII, a sum: 1 in fields with addresses, 2 in other fields, 4 in its body."""
    buf = bytearray(_CHUNK)
    hold = b""
    head = True
    where = kind = 0
    n = 1
    while n:
        n = mail.read(buf)
        hold += buf[:n]
        while head:
            end = hold.find(b"\r\n") + 2
            if end < 2:
                break
            line = hold[:end]
            hold = hold[end:]
            head = end > 2
            if line[0] not in b" \t":
                kind = 1 if line[: line.find(b":")].lower() in _ADDRESSES else 2
            if max(line) > 127:
                where |= kind
        if not head:
            if hold and max(hold) > 127:
                where |= 4
            hold = b""
    mail.rewind()
    return where


def anywhere(read):
    """True when a header section of a mail is not ASCII, or that of a part of it. `read` is like readinto()."""
    from .convert import SevenBit

    mail = SevenBit(read, bytearray(), True)
    while not mail.ended:
        mail.step()
        if mail.why:
            if mail.why.endswith("SMTPUTF8)") or mail.why[:5] in ("parts", "more "):  # too many to look at
                return True
            mail.why = None  # what else 8-bit mail may be unfit for is no matter here
    return False


class Plain:
    """A mail of ours as it leaves (trace.Outgoing or the like), with each address in UTF-8 in its header fields as an
    empty group, whose name shows it: nobody can answer to it, and everybody can read it."""

    def __init__(self, out):
        self.out = out
        self.hold = b""  # of the header section, as it is
        self.done = b""  # and as it goes
        self.head = True

    @property
    def rest(self):
        rest = self.out.rest
        return None if self.head or rest is None else rest + len(self.done)

    def readinto(self, buf):
        while self.head and len(self.done) < len(buf):
            piece = bytearray(_CHUNK)
            n = self.out.readinto(piece)
            self.hold += piece[:n]
            while self.head:
                end = self.hold.find(b"\r\n") + 2
                if end < 2:
                    break
                line = self.hold[:end]
                self.hold = self.hold[end:]
                self.head = end > 2
                self.done += line if not self.head else plain(line)
            if not self.head or not n:
                self.head = False
                self.done += self.hold
        if not self.done:
            return self.out.readinto(buf)
        n = min(len(buf), len(self.done))
        buf[:n] = self.done[:n]
        self.done = self.done[n:]
        return n


def plain(line):
    """A line of a header field (bytes) without UTF-8."""
    from .words import encode_words

    if max(line) < 128:
        return line
    out = []
    for word in str(line, "utf-8")[:-2].split(" "):
        if wide(word):
            comma = word[-1:] == ","
            if word[0] == "<":
                word = " " + word  # the name before it is in encoded-words, perhaps, between which a space is none
            word = encode_words(word.rstrip(","), 60).replace(" ", "\r\n ") + " :;" + ("," if comma else "")
        out.append(word)
    return " ".join(out).encode() + b"\r\n"


def traced(field, extra):
    """A Received field (bytes) as it tells what the mail asked for, too (RFC 6531 4.3, RFC 6710), or that it came by
    LMTP (RFC 3848)."""
    if "LMTP" in extra.split():
        field = field.replace(b" with ESMTP", b" with LMTP", 1)
    if "SMTPUTF8" in extra:
        field = field.replace(b" with ESMTP", b" with UTF8SMTP", 1).replace(b" with LMTP", b" with UTF8LMTP", 1)
    value = param(extra, "MT-PRIORITY")
    if value:
        at = field.rfind(b";\r\n\t")  # the date, if there is one
        at = at if at >= 0 else len(field) - 2
        field = field[:at] + b"\r\n\tPRIORITY " + value.encode() + field[at:]
    return field
