"""IP addresses and networks, RFC 4291 section 2.2. May use: nothing else of this package."""

_HEX = b"0123456789abcdefABCDEF"


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
