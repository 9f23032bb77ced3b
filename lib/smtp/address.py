"""Mailboxes and domains: what can be an address at all, RFC 5321 sections 4.1.2, 4.1.3 and 4.5.3.1.

May use: network for address literals. What a server needs beyond that, paths and their parameters, is in path.
"""

from . import const

# data.strip(SET) leaves nothing exactly when all of data is in SET.
LDH = b"etaoinsrhldcumfpgwybvkxjqz.-0123456789ETAOINSRHLDCUMFPGWYBVKXJQZ"
ATEXT = LDH + b"_+!#$%&'*/=?^`{|}~"

_MAX_LOCAL = const(64)  # RFC 5321 4.5.3.1.1
_MAX_DOMAIN = const(255)  # 4.5.3.1.2
_MAX_PATH = const(256)  # 4.5.3.1.3, with < and >
_MAX_LABEL = const(63)  # RFC 1035 2.3.4


def _dotted(data):
    """True for a Dot-string (RFC 5321 4.1.2)."""
    return not (
        not data
        or data.strip(ATEXT)
        or b".." in data
        or data[:1] == b"."
        or data[-1:] == b"."
    )


def quoted_end(data):
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


def is_domain(data):
    """True for a domain name or an address literal."""
    if data[:1] == b"[":
        from .network import parse_ip

        if data[-1:] != b"]" or b"%" in data:
            return False
        if data[1:6].upper() == b"IPV6:":
            ip = parse_ip(data[6:-1])
            return ip is not None and len(ip) == 16
        ip = parse_ip(data[1:-1])
        return ip is not None and len(ip) == 4
    if not data or len(data) > _MAX_DOMAIN or data.strip(LDH):
        return False
    for label in data.split(b"."):
        if not 0 < len(label) <= _MAX_LABEL or label[0] == 45 or label[-1] == 45:
            return False
    return True


def is_mailbox(data):
    """True for Local-part "@" (Domain / address-literal)."""
    if data[:1] == b'"':
        at = quoted_end(data)
        if not at or data[at : at + 1] != b"@":
            return False
    else:
        at = data.find(b"@")
        if at < 1 or not _dotted(data[:at]):
            return False
    return at <= _MAX_LOCAL and len(data) <= _MAX_PATH - 2 and is_domain(data[at + 1 :])


def valid_mailbox(s):
    """True when `s` (str) can be a sender or recipient: local-part@domain, ASCII only."""
    return is_mailbox(s.encode())


def valid_domain(s):
    """True when `s` (str) is a domain name or an address literal, as EHLO wants."""
    return is_domain(s.encode())
