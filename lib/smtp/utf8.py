"""Addresses that are not ASCII, RFC 6531 section 3.3. Loaded when there is one, or where a listener takes them.

An address is kept in the plainest form there is: info@bücher.example becomes info@xn--bcher-kva.example (RFC 5891),
which any mail server takes. What is not ASCII after that has a local part that only SMTPUTF8 can carry.

May use: address, path, reply. Standards: RFC 3492 (Punycode), RFC 3629 (UTF-8), RFC 6533 section 3 (ORCPT).
"""

from . import const
from .address import is_domain, is_mailbox
from .path import parse_path as parse_ascii
from .reply import SMTPError

_BASE = const(36)  # RFC 3492 section 5
_TMIN = const(1)
_TMAX = const(26)
_SKEW = const(38)
_DAMP = const(700)
_MOST = const(254)  # octets of an address, RFC 5321 4.5.3.1.3
_MAX_LOCAL = const(64)  # octets
_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def text(data):
    """Str of bytes that are UTF-8 by RFC 3629, and without what could harm a log: C1 controls, separators of lines, and
    what turns the direction of writing. Raises ValueError for others. MicroPython alone would let much more pass."""
    out = str(data, "utf-8")
    size = 0
    for c in out:
        c = ord(c)
        size += 1 if c < 0x80 else 2 if c < 0x800 else 3 if c < 0x10000 else 4
        if c > 0x10FFFF or 0xD800 <= c < 0xE000 or 0x80 <= c < 0xA0 or 0x2028 <= c <= 0x202E or 0x2066 <= c <= 0x2069:
            raise ValueError("not UTF-8")
    if size != len(data):  # a character in more octets than it needs
        raise ValueError("not UTF-8")
    return out


def punycode(label):
    """A label of a domain (str) as RFC 3492 section 6.3 encodes it, without the prefix."""
    out = "".join([c for c in label if c < "\x80"])
    done = basic = len(out)
    if basic:
        out += "-"
    n = 128
    delta = 0
    bias = 72
    while done < len(label):
        least = min([ord(c) for c in label if ord(c) >= n])
        delta += (least - n) * (done + 1)
        n = least
        for c in label:
            c = ord(c)
            if c < n:
                delta += 1
            elif c == n:
                q = delta
                k = _BASE
                while True:
                    t = min(max(k - bias, _TMIN), _TMAX)
                    if q < t:
                        break
                    out += _DIGITS[t + (q - t) % (_BASE - t)]
                    q = (q - t) // (_BASE - t)
                    k += _BASE
                out += _DIGITS[q]
                delta = delta // _DAMP if done == basic else delta // 2
                done += 1
                delta += delta // done
                k = 0
                while delta > (_BASE - _TMIN) * _TMAX // 2:
                    delta //= _BASE - _TMIN
                    k += _BASE
                bias = k + (_BASE - _TMIN + 1) * delta // (delta + _SKEW)
                delta = 0
        delta += 1
        n += 1
    return out


def _lower(c):
    """A letter (int) as domains have it: small. Of the scripts with two cases, the common ones."""
    if 0x41 <= c <= 0x5A or 0xC0 <= c <= 0xDE and c != 0xD7 or 0x391 <= c <= 0x3A9 or 0x410 <= c <= 0x42F:
        return c + 32
    if 0x400 <= c <= 0x40F:
        return c + 80
    if 0x100 <= c <= 0x137 or 0x14A <= c <= 0x177:
        return c | 1
    if 0x139 <= c <= 0x148 or 0x179 <= c <= 0x17E:
        return c + (c & 1)
    return c


def a_label(label):
    """A label (str) as it stands in DNS (RFC 5891 4.4), or as it is when that cannot be told without big tables."""
    if not label or max(label) < "\x80" or not is_domain("".join([c if c < "\x80" else "x" for c in label]).encode()):
        return label
    small = "".join([chr(_lower(ord(c))) for c in label])
    for c in small:
        c = ord(c)
        # u with a mark behind it may stand for ü, and a wide letter for another one (RFC 5895). Symbols are in no name.
        if c == 0x130 or 0x300 <= c < 0x370 or 0x2000 <= c < 0x2E00 or 0x3000 <= c < 0x3005 or 0xE000 <= c < 0x10000:
            return label
    return "xn--" + punycode(small)


def normal(address):
    """The plainest form of an address (str), that of RFC 6531 or an ASCII one. Raises ValueError for what is none."""
    data = address.encode()
    text(data)
    at = address.rfind("@")
    local = address[:at]
    domain = ".".join([a_label(part) for part in address[at + 1 :].split(".")])
    # A letter stands for each character, and the rest is as in ASCII.
    plain = "".join([c if c < "\x80" else "x" for c in local + "@" + domain])
    if at < 1 or len(local.encode()) > _MAX_LOCAL or len(data) > _MOST or not is_mailbox(plain.encode()):
        raise ValueError(address)
    return local + "@" + domain


def good(data):
    """True when `data` (bytes) is an address."""
    try:
        return bool(normal(text(data)))
    except ValueError:
        return False


def prepare(job, sender, rcpts):
    """(sender, list of recipients) in their plainest form for `job`, a client.Mail, which asks for SMTPUTF8 when it
    needs that. Raises ValueError for an address that is none."""
    found = []
    for address in ([sender] if sender else []) + list(rcpts):
        try:
            found.append(normal(address))
        except ValueError:
            raise ValueError("%r is no address that mail can be sent to" % (address,))
    text = "".join(found)
    if len(text) != len(text.encode()):
        job.body = "8BITMIME SMTPUTF8"
    return found.pop(0) if sender else "", found


def parse_path(arg, lenient=False, enhanced="5.1.7"):
    """As path.parse_path; the address may be one of RFC 6531, and ORCPT may be in UTF-8 (RFC 6533 3), in `rest` it has
    \\x{FC} for ü then. Raises SMTPError as well when octets are no UTF-8."""
    try:
        arg = text(arg)
        masked = "".join([c if c < "\x80" else "x" for c in arg])
        box, rest = parse_ascii(masked.encode(), lenient, enhanced)
        arg = arg.rstrip()
        end = len(arg) - len(rest)
        words = arg[end:].split(" ")
        for i in range(len(words)):
            if words[i][:12].upper() == "ORCPT=UTF-8;":
                words[i] = embedded(words[i])
        arg = arg[:end].rstrip()
        if arg[-1] == ">":
            arg = arg[:-1]
        if box:
            box = arg[len(arg) - len(box) :]
            if max(box) > "~":
                box = normal(box)
        return box, " ".join(words).encode()
    except ValueError:  # UnicodeError is one
        raise SMTPError(501, enhanced, "not an address in UTF-8 by RFC 6531 section 3.3")


def embedded(word):
    """`word` (str) with \\x{FC} for each ü and its like: of an ORCPT as it came, which has \\x{2B} for + already, or of
    what escaped() gives, the utf-8-addr-xtext of RFC 6533."""
    return "".join([c if c < "\x80" else "\\x{%X}" % ord(c) for c in word])


def escaped(address):
    """An address (str) with \\x{2B} for + and its like, the utf-8-addr-unitext of RFC 6533 section 3."""
    return "".join(["\\x{%X}" % ord(c) if c in "\\+= " else c for c in address])


def raw(word):
    """What embedded() was given."""
    parts = word.split("\\x{")
    for i in range(1, len(parts)):
        code, brace, rest = parts[i].partition("}")
        if not brace or not 1 < len(code) < 7 or code.strip("0123456789ABCDEF"):
            return word
        code = int(code, 16)
        if code < 32 or 0x7F <= code < 0xA0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            return word
        parts[i] = chr(code) + rest
    return "".join(parts)
