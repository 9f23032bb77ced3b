"""What follows MAIL FROM: and RCPT TO:, RFC 5321 section 4.1.2, and the envelope it makes up.

May use: address, reply.
"""

import re

from . import const
from .address import LDH, is_domain, is_mailbox, quoted_end
from .reply import SMTPError

# Expressions here only search for a character that is wrong: one that matches a whole address
# recurses once a character on a board's small stack.
_odd = re.compile(b"[^-a-z0-9.@A-Z]|[-.@][-.@]").search
_unvalue = re.compile(b"[^!-<>-~]").search
_ENDS = b"-.@"
_KEYWORD = LDH.replace(b".", b"")
_MAX_PATH = const(256)  # RFC 5321 4.5.3.1.3, with < and >
_MAX_KNOWN = const(6)
_known = {}  # some addresses that were found good: devices write to the same people again and again


class Envelope:
    """What a mail travels with: reverse-path, forward-paths, and where it came from.

    sender  reverse-path, "" for the null one      rcpts  list of str
    size    octets declared with SIZE, 0 unknown   body   "", "7BIT" or "8BITMIME"
    dsn     " RET=... ENVID=..." as given, or ""   notify  None, or for each of rcpts " NOTIFY=... ORCPT=..." or ""
    peer    IP address as text
    helo    name the peer gave                     user   who authenticated, or None
    tls, esmtp  how it came
    """

    size = 0
    body = dsn = ""
    notify = user = None
    tls = esmtp = False

    def __init__(self, sender="", rcpts=None, peer="", helo="", user=None, tls=False, esmtp=False):
        self.sender = sender
        self.rcpts = [] if rcpts is None else rcpts
        self.peer = peer
        self.helo = helo
        # Most mails have none of these: a dictionary that stays small is built in fewer steps.
        if user is not None:
            self.user = user
        if tls:
            self.tls = tls
        if esmtp:
            self.esmtp = esmtp


def parse_path(arg, lenient=False, enhanced="5.1.7"):
    """(address, rest) from what follows "FROM:" or "TO:" (bytes).

    The address (str) is "" for <> and may be a bare postmaster; a source route is dropped
    (RFC 5321 appendix C). `rest` holds the parameters (bytes, stripped). `lenient` takes an address
    without angle brackets, and spaces before it, as old devices send them.
    Raises SMTPError 501 `enhanced` for what is no path, 553 5.6.7 for 8-bit characters.
    """
    # Nearly every path is short and plain; 64 octets in all keep the limits of its parts.
    end = arg.find(b">")
    if 3 < end <= 65 and arg[0] == 60:
        path = arg[1:end]
        rest = arg[end + 1 :]
        if not rest or rest[0] == 32:
            address = _known.get(path)
            if address is None and not _odd(path) and path.count(b"@") == 1:
                if path[0] not in _ENDS and path[-1] not in _ENDS:
                    address = str(path, "utf-8")
                    if len(_known) >= _MAX_KNOWN:
                        _known.clear()
                    _known[path] = address
            if address is not None:
                return address, rest.strip()
    return _careful(arg, lenient, enhanced)


def _careful(arg, lenient, enhanced):
    if lenient:
        arg = arg.strip()
    start = 1
    stop = 62
    if arg[:1] != b"<":
        if not lenient or not arg:
            raise SMTPError(501, enhanced, "an address in angle brackets is missing")
        start = 0
        stop = 32
    end = start
    while end < len(arg) and arg[end] != stop:
        if arg[end] == 34:
            end += quoted_end(arg[end:]) or len(arg)
        else:
            end += 1
    path = arg[start:end]
    for c in path:
        if c > 127:
            raise SMTPError(553, "5.6.7", "8-bit characters in an address need SMTPUTF8")
    if end >= len(arg) and start:
        raise SMTPError(501, enhanced, "the address has no closing angle bracket")
    rest = arg[end + start :]
    if rest[:1] not in (b"", b" "):
        raise SMTPError(501, "5.5.4", "a space is missing behind the address")
    box = path
    good = end - start <= _MAX_PATH - 2
    while good and box[:1] == b"@":  # source route: @a,@b:user@c
        i = box.find(b"]") if box[1:2] == b"[" else 1
        while 0 < i < len(box) and box[i] not in b",:":
            i += 1
        good = is_domain(box[1:i])
        if box[i : i + 1] == b":":
            box = box[i + 1 :]
            break
        box = box[i + 1 :]
        good = good and box[:1] == b"@"
    if good and ((start and not path) or box.lower() == b"postmaster" or is_mailbox(box)):
        return str(box, "utf-8"), rest.strip()
    raise SMTPError(
        501,
        enhanced,
        "not an address by RFC 5321 section 4.1.2: "
        + "".join([chr(c) if 32 <= c <= 126 else "?" for c in path[:80]]),
    )


def parse_params(rest):
    """{keyword in upper case: value or None} from the parameters of MAIL or RCPT (bytes).

    Raises SMTPError 501 5.5.4 when one is malformed or given twice (RFC 5321 4.1.2).
    """
    params = {}
    for item in rest.split():
        key, equals, value = item.partition(b"=")
        ok = key and not key.strip(_KEYWORD) and key[0] != 45
        if ok and (not equals or (value and not _unvalue(value))):
            name = str(key, "utf-8").upper()
            if name not in params:
                params[name] = str(value, "utf-8") if equals else None
                continue
        raise SMTPError(501, "5.5.4", "a parameter is malformed or given twice")
    return params
