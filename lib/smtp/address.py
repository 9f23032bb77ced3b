"""Mailboxes, paths, domains, network addresses: parse and validate, and the envelope they make up.

May use: reply. Standards: RFC 5321 sections 4.1.2, 4.1.3 and 4.5.3.1; RFC 4291 section 2.2.
"""

import re

from .reply import SMTPError

# Expressions here only search for a character that is wrong: one that matches a whole address
# recurses once a character on a board's small stack.
_odd = re.compile(b"[^-a-z0-9.@A-Z]|[-.@][-.@]").search
_unvalue = re.compile(b"[^!-<>-~]").search
# data.strip(SET) leaves nothing exactly when all of data is in SET.
_LDH = b"etaoinsrhldcumfpgwybvkxjqz.-0123456789ETAOINSRHLDCUMFPGWYBVKXJQZ"
_ATEXT = _LDH + b"_+!#$%&'*/=?^`{|}~"
_ENDS = b"-.@"
_KEYWORD = _LDH.replace(b".", b"")
_HEX = b"0123456789abcdefABCDEF"

_MAX_LOCAL = 64  # RFC 5321 4.5.3.1.1
_MAX_DOMAIN = 255  # 4.5.3.1.2
_MAX_PATH = 256  # 4.5.3.1.3, with < and >
_MAX_LABEL = 63  # RFC 1035 2.3.4


class Envelope:
    """What a mail travels with: reverse-path, forward-paths, and where it came from.

    sender  reverse-path, "" for the null one      rcpts  list of str
    size    octets declared with SIZE, 0 unknown   body   "", "7BIT" or "8BITMIME"
    params  other ESMTP parameters or None         peer   IP address as text
    helo    name the peer gave                     user   who authenticated, or None
    tls, esmtp  how it came
    """

    def __init__(self, sender="", rcpts=None, peer="", helo="", user=None, tls=False, esmtp=False):
        self.sender = sender
        self.rcpts = [] if rcpts is None else rcpts
        self.size = 0
        self.body = ""
        self.params = None
        self.peer = peer
        self.helo = helo
        self.user = user
        self.tls = tls
        self.esmtp = esmtp


def _dotted(data):
    """True for a Dot-string (RFC 5321 4.1.2)."""
    return not (
        not data
        or data.strip(_ATEXT)
        or b".." in data
        or data[:1] == b"."
        or data[-1:] == b"."
    )


def _quoted_end(data):
    """Index behind the quoted string that `data` starts with, 0 when it is not well-formed."""
    i = 1
    while i < len(data):
        c = data[i]
        if c == 34:
            return i + 1
        if c == 92:
            i += 1
            if i == len(data):
                break
            c = data[i]
        if not 32 <= c <= 126:
            break
        i += 1
    return 0


def _domain(data):
    """True for a domain name or an address literal."""
    if data[:1] == b"[":
        if data[-1:] != b"]" or b"%" in data:
            return False
        if data[1:6].upper() == b"IPV6:":
            ip = parse_ip(data[6:-1])
            return ip is not None and len(ip) == 16
        ip = parse_ip(data[1:-1])
        return ip is not None and len(ip) == 4
    if not data or len(data) > _MAX_DOMAIN or data.strip(_LDH):
        return False
    for label in data.split(b"."):
        if not 0 < len(label) <= _MAX_LABEL or label[0] == 45 or label[-1] == 45:
            return False
    return True


def _mailbox(data):
    """True for Local-part "@" (Domain / address-literal)."""
    if data[:1] == b'"':
        at = _quoted_end(data)
        if not at or data[at : at + 1] != b"@":
            return False
    else:
        at = data.find(b"@")
        if at < 1 or not _dotted(data[:at]):
            return False
    return at <= _MAX_LOCAL and len(data) <= _MAX_PATH - 2 and _domain(data[at + 1 :])


def valid_mailbox(s):
    """True when `s` (str) can be a sender or recipient: local-part@domain, ASCII only."""
    return _mailbox(s.encode())


def valid_domain(s):
    """True when `s` (str) is a domain name or an address literal, as EHLO wants."""
    return _domain(s.encode())


def parse_path(arg, lenient=False, enhanced="5.1.7"):
    """(address, rest) from what follows "FROM:" or "TO:" (bytes).

    The address (str) is "" for <> and may be a bare postmaster; a source route is dropped
    (RFC 5321 appendix C). `rest` holds the parameters (bytes, stripped). `lenient` takes an address
    without angle brackets, and spaces before it, as old devices send them.
    Raises SMTPError 501 `enhanced` for what is no path, 553 5.6.7 for 8-bit characters.
    """
    # Nearly every path is short and plain; 64 octets in all keep the limits of its parts.
    end = arg.find(b">")
    if 3 < end <= 65 and arg[0] == 60 and arg[end + 1 : end + 2] in b" ":
        path = arg[1:end]
        if not _odd(path) and path.count(b"@") == 1 and path[0] not in _ENDS:
            if path[-1] not in _ENDS:
                return str(path, "utf-8"), arg[end + 1 :].strip()
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
            end += _quoted_end(arg[end:]) or len(arg)
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
        good = _domain(box[1:i])
        if box[i : i + 1] == b":":
            box = box[i + 1 :]
            break
        box = box[i + 1 :]
        good = good and box[:1] == b"@"
    if good and ((start and not path) or box.lower() == b"postmaster" or _mailbox(box)):
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


def parse_ip(text):
    """Packed bytes, 4 or 16 of them, of an IP address (str or bytes), or None when it is none.

    An interface behind % is ignored; 1.2.3 and 010.0.0.1, which systems read differently, are none.
    """
    if isinstance(text, str):
        text = text.encode()
    if b":" not in text:
        parts = text.split(b".")
        if len(parts) != 4:
            return None
        out = bytearray(4)
        for i in range(4):
            part = parts[i]
            if not part.isdigit() or len(part) > 3 or (part[0] == 48 and len(part) > 1):
                return None
            n = int(part)
            if n > 255:
                return None
            out[i] = n
        return bytes(out)
    text = text.partition(b"%")[0]
    tail = b""
    if b"." in text:
        colon = text.rfind(b":") + 1
        tail = parse_ip(text[colon:])
        if tail is None:
            return None
        text = text[:colon] + b"0:0"  # a place for the four bytes
    head, gap, end = text.partition(b"::")
    groups = [g for g in (head.split(b":") if head else [])]
    after = end.split(b":") if end else []
    missing = 8 - len(groups) - len(after)
    if (missing < 1) if gap else missing:
        return None
    groups += [b"0"] * missing
    groups += after
    out = b""
    for g in groups:
        if not 0 < len(g) <= 4 or g.strip(_HEX):
            return None
        n = int(g, 16)
        out += bytes((n >> 8, n & 255))
    return out[:12] + tail if tail else out


def _unmapped(ip):
    """The IPv4 address in an IPv4-mapped IPv6 one, anything else as it is."""
    if len(ip) == 16 and ip[:12] == b"\0\0\0\0\0\0\0\0\0\0\xff\xff":
        return ip[12:]
    return ip


def parse_network(text):
    """(packed, bits) of a network such as "10.0.0.0/8", "fd00::/8" or one address.

    Raises ValueError for anything else, and for bits set beyond the prefix: 192.168.1.9/8 is a slip
    that would let 16 million addresses in.
    """
    address, slash, length = text.partition("/")
    ip = parse_ip(address)
    if ip is None or "%" in address or (slash and not (length.isdigit() and len(length) <= 3)):
        raise ValueError("not a network: %s; write it like 192.168.1.0/24 or fd00::/8" % text)
    size = 8 * len(ip)
    bits = int(length) if slash else size
    if bits > size:
        raise ValueError("%s: the prefix can have %d bits at most" % (text, size))
    if _masked(ip, bits) != ip:
        raise ValueError("%s has bits set beyond its first %d" % (text, bits))
    if bits >= 96:
        short = _unmapped(ip)
        if len(short) < len(ip):
            return short, bits - 96
    return ip, bits


def _masked(ip, bits):
    whole = bits >> 3
    out = ip[:whole]
    if bits & 7:
        out += bytes((ip[whole] & (0xFF00 >> (bits & 7)) & 0xFF,))
    return out + bytes(len(ip) - len(out))


def in_networks(ip, networks):
    """True when the packed address is in one of `networks`, a sequence from parse_network().

    IPv4 in IPv6 clothes (::ffff:10.0.0.1), which dual-stack sockets report, counts as IPv4.
    """
    ip = _unmapped(ip)
    for net, bits in networks:
        if len(net) == len(ip) and _masked(ip, bits) == net:
            return True
    return False
