"""The kinds of values that board.toml has. Each is a function that gives the normalised value, or raises ValueError
with what follows the name of the key. Some want pydantic's `info`: its context has `base`, the directory of
board.toml, and `env`, the environment.
"""

import binascii
import datetime
import ipaddress
import re
import unicodedata

from cryptography import x509
from cryptography.hazmat.primitives import serialization as ser

from . import board as boards
from . import build, timezone

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
# A board holds its CAs in RAM while it connects: a whole trust store does not fit.
MAX_CAS = 8


def show(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) < 50 else text[:46] + "...'"


def text(value, what="text", limit=255):
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text in quotes")
    if not value.strip():
        raise ValueError(f"is empty: {what} is needed")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise ValueError("has a line break or another control character in it")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ValueError(f"is longer than {limit} bytes")
    return value


def choice(*allowed):
    def check(value):
        if value not in allowed:
            choices = ", ".join(f'"{a}"' for a in allowed)
            raise ValueError(f"{show(value)} is none of {choices}")
        return value

    return check


def flag(value):
    if not isinstance(value, bool):
        raise ValueError(f"{show(value)} is neither true nor false (without quotes)")
    return value


def port(value):
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError(f"{show(value)} is not a port, a whole number from 1 to 65535")
    return value


def count(value):
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise ValueError(f"{show(value)} is not a whole number from 1 to 1,000,000, or 0 for no limit")
    return value


def most(value):
    if count(value) == 0:
        raise ValueError("0 would be a queue that takes no mail")
    return value


def reserve(value):
    value = size(value)
    if value < 8192:
        raise ValueError("is less than 8KB, two blocks of flash, without which no mail can be put aside")
    return value


def window(value):
    """As duration(), or 0; the board counts in whole seconds."""
    if value == 0 and not isinstance(value, bool) or value == "0s":
        return 0
    seconds = duration(value)
    if seconds < 1:
        raise ValueError(f"{show(value)} is less than 1s; 0 switches it off")
    return seconds


def number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{show(value)} is not a number (without quotes)")
    if not abs(value) < 1e30:
        raise ValueError(f"{value} is not a number that a sensor can reach")
    return float(value)


def not_negative(value):
    if number(value) < 0:
        raise ValueError(f"{value} is below zero")
    return float(value)


def size(value):
    """Bytes, from a number or a text such as "512KB" (1 KB is 1,024 bytes)."""
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        found = isinstance(value, str) and re.fullmatch(
            r"\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)(?:i?[bB])?\s*", value
        )
        if not found:
            raise ValueError(f"{show(value)} is not a size: a number with B, KB, MB or GB")
        count = int(float(found[1]) * _SIZES[found[2].upper()])
    if count < 1024:
        raise ValueError(f"{show(value)} is too small: not even one mail fits in less than 1KB")
    if count > 1 << 40:
        raise ValueError(f"{show(value)} is more than any board or disk image holds")
    return count


def duration(value):
    """Seconds as a float, from a number of seconds or a text such as "500ms", "1s", "5m", "2h"."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = isinstance(value, str) and re.fullmatch(
            r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*", value
        )
        if not found:
            raise ValueError(f"{show(value)} is not a time: a number with ms, s, m, h or d")
        seconds = float(found[1]) * _TIMES[found[2]]
    if not 0.01 <= seconds <= 31 * 86400:
        raise ValueError(f"{show(value)} is not between 10ms and 31d")
    return round(seconds, 3)


def within_a_day(value):
    seconds = duration(value)
    if seconds > 86400:
        raise ValueError(f"{show(value)} is more than a day")
    return seconds


def pace(value):
    seconds = within_a_day(value)
    if seconds < 1:
        raise ValueError(f"{show(value)} is less than 1s")
    return seconds


def debounce(value):
    seconds = duration(value)
    if seconds > 1:
        raise ValueError(f"{show(value)} is more than 1s; a condition that has to last is said by for = ...")
    return seconds


def is_domain(text):
    """Whether text is a host name of RFC 1123, with underscores, which local networks have."""
    return len(text) <= 253 and bool(re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*\.?", text))


def domain(value):
    if value == "":
        return value
    text(value, "a domain")
    if not value.isascii():
        raise ValueError(f"{show(value)} has letters outside ASCII; write its xn-- form")
    if not is_domain(value) or re.fullmatch(r"[\d.]+", value):
        raise ValueError(f"{show(value)} is not a domain name")
    return value.rstrip(".")


def host(value):
    text(value, "a host name")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    if re.search(r":\d+$", value):
        raise ValueError(f"{show(value)} has a port in it, which goes into port = ...")
    if not is_domain(value) or re.fullmatch(r"[\d.]+", value):
        raise ValueError(f"{show(value)} is neither a host name nor an IP address")
    return value.rstrip(".")


def ip(value):
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            f"{show(value)} is not an IP address of this machine (0.0.0.0 is all of them)"
        ) from None


def name_servers(value):
    """Pairs of IP address and port, from one or a list of "192.168.1.1", "192.168.1.1:5353" or "[fd00::1]:53"."""
    servers, wrong = [], []
    for item in value if isinstance(value, list) else [value]:
        try:
            host, _, port = item.rpartition(":")
            if ":" in host and not host.endswith("]") or not host:
                host, port = item, 53  # all of it is an address
            ip = ipaddress.ip_address(host.strip("[]"))
            if ip.is_unspecified or ip.is_multicast or not 1 <= int(port) <= 65535:
                raise ValueError
            servers.append([str(ip), int(port)])
        except (AttributeError, ValueError):
            wrong.append(f"{show(item)} is not the IP address of a name server")
    if not 1 <= len(servers) + len(wrong) <= 3:
        wrong.append("takes one to three name servers; leave it out for those that the network names")
    if wrong:
        raise ValueError("; ".join(wrong))
    return servers


def mailbox(value):
    """An e-mail address as RFC 5321, section 4.1.2, or RFC 6531 has it, without the rarely seen quoted form. A domain
    becomes what DNS knows it by."""
    text(value, "an e-mail address", 1000)
    if "<" in value or " " in value:
        raise ValueError(f"{show(value)} has more than the address in it; leave out the name")
    shown = value
    if not value.isascii():
        value = unicodedata.normalize("NFC", value)
        try:
            value = build.module("smtp.utf8").normal(value)
        except ValueError:
            raise ValueError(f"{show(shown)} is no e-mail address") from None
        if not value.isascii():
            return value
    local, at, domain = value.rpartition("@")
    if not at:
        raise ValueError(f"{show(value)} has no @")
    if len(local) > 64 or not re.fullmatch(rf"{_ATEXT}(?:\.{_ATEXT})*", local):
        raise ValueError(f"{show(value)} has something before the @ that no address may have")
    literal = re.fullmatch(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]", domain)
    try:
        good = ipaddress.ip_address(literal[1]) if literal else is_domain(domain)
    except ValueError:
        good = False
    if not good or domain.endswith("."):
        raise ValueError(f"{show(value)} has no domain after the @")
    return value


def mailbox_or_none(value):
    return "" if value == "" else mailbox(value)


def mailboxes(value):
    """One address or a list of them."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"{show(value)} is not a list of addresses")
    if not value:
        raise ValueError("is empty: nobody would get the mail")
    right, wrong = [], []
    for item in value:
        try:
            right.append(mailbox(item))
        except ValueError as e:
            wrong.append(str(e))
    if wrong:
        raise ValueError("; ".join(wrong))
    return list(dict.fromkeys(right))


def networks(value):
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"{show(value)} is not a list of networks")
    nets, wrong = [], []
    for item in value:
        if not isinstance(item, str):
            wrong.append(f"{show(item)} is not a network such as 192.168.1.0/24")
            continue
        try:
            net = ipaddress.ip_network(item)
        except ValueError:
            try:  # host bits set: what was meant is known
                meant = ipaddress.ip_network(item, strict=False)
                wrong.append(f'{item!r} has bits after its prefix; the network is "{meant}"')
            except ValueError:
                wrong.append(f"{show(item)} is not a network such as 192.168.1.0/24")
            continue
        if net.prefixlen < (8 if net.version == 4 else 7):  # the largest private ones
            wrong.append(f"{item!r} is much of the internet: this would be an open relay")
        nets.append(str(net))
    if wrong:
        raise ValueError("; ".join(wrong))
    return nets


def domain_list(value):
    """Domains of recipients, in lower case."""
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{show(value)} is not a list of domains")
    return list(dict.fromkeys(domain(text(v, "a domain")).lower() for v in value))


def fetchers(value):
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{show(value)} is not a table of users and their domains")
    return {user_name(user): domain_list(domains) for user, domains in value.items()}


def forward(value):
    return value if value in ("", "*") else mailbox(value)


def readers(value):
    """The networks that may see the status page."""
    try:
        return networks(value)
    except ValueError as e:
        raise ValueError(str(e).replace("this would be an open relay", "anybody could try passwords")) from None


def names(value):
    if not isinstance(value, list) or not all(isinstance(v, str) and is_domain(v) for v in value):
        raise ValueError(f"{show(value)} is not a list of host names")
    return value


def age(value):
    seconds = duration(value)
    if seconds < 60:
        raise ValueError(f"{show(value)} is less than 1m: mail that is deferred once waits longer than that")
    return int(seconds)


def status_password(value, info):
    secret = password(value, info)
    if len(secret) < 8:
        raise ValueError("is shorter than 8 characters, and everybody on the network may guess")
    return secret


def device_network(value):
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not an IP address or network such as 192.168.1.20")
    return networks([value])[0]


def zone(value):
    return timezone.rule(text(value, "the name of a time zone"))


def read(value, info):
    """The bytes of a file that board.toml names; its path is relative to board.toml."""
    path = info.context["base"] / text(value, "the name of a file", 4096)
    try:
        return path.read_bytes()
    except OSError as e:
        raise ValueError(f"the file {path} cannot be read: {e.strerror}") from None


class Clear(str):
    """A password that the board is to store as it is."""


def lan_secret(value, info):
    """A LAN user's password: as password; with store = "clear" in its table it is a Clear."""
    if not isinstance(value, dict) or "store" not in value:
        return password(value, info)
    value = dict(value)
    store = value.pop("store")
    if store not in ("verifier", "clear"):
        raise ValueError(f'store = {show(store)} is neither "verifier" (what is best) nor "clear" (for CRAM-MD5)')
    secret = password(value, info)
    return Clear(secret) if store == "clear" else secret


def password(value, info):
    """A password: text, { env = "NAME" } or { file = "NAME" }."""
    if isinstance(value, dict):
        if set(value) == {"env"}:
            name = text(value["env"], "the name of a variable")
            secret = info.context["env"].get(name)
            if secret is None:
                raise ValueError(
                    f"the environment variable {name} is not set; set it first: export {name}='...'"
                )
            what = f"the environment variable {name}"
        elif set(value) == {"file"}:
            try:
                secret = read(value["file"], info).decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"the file {value['file']} is not text in UTF-8") from None
            what = f"the file {value['file']}"
        else:
            raise ValueError('a table here has one key: { env = "NAME" } or { file = "NAME" }')
    elif isinstance(value, str):
        secret, what = value, "the password"
    else:
        raise ValueError("is neither text in quotes nor { env = ... }")  # it may be one all the same: not shown
    if not secret:
        raise ValueError(f"{what} is empty")
    if len(secret.encode("utf-8", "surrogatepass")) > 4096:
        raise ValueError(f"{what} is longer than 4,096 bytes")
    if any(c in secret for c in "\0\r\n"):
        raise ValueError(f"{what} has a line break or NUL in it")
    try:
        secret.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not text in UTF-8") from None
    return secret


def wifi_password(value, info):
    return boards.wifi_password(password(value, info))


def refresh_token(value, info):
    secret = password(value, info).strip()
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError("has something in it that no refresh token has, such as a space")
    return secret


def token_url(value):
    text(value, "the address of a token server", 1000)
    if value.startswith("http://"):
        raise ValueError("begins with http://: secret and tokens could be read on the way; only https:// will do")
    found = re.fullmatch(r"https://([^/?#:@]+)(?::(\d+))?(/[!-~]*)?", value)
    if not found or not is_domain(found[1]) or "#" in value or not 1 <= int(found[2] or 1) <= 65535:
        raise ValueError(f"{show(value)} is not the https:// address of a token server")
    return value


def ping_url(value, info):
    """A secret: who knows it can say that all is well."""
    url = password(value, info)
    found = re.fullmatch(r"https?://([^/?#:@]+)(?::(\d+))?(/[!-~]*)?", url)
    if not found or not is_domain(found[1]) or "#" in url or not 1 <= int(found[2] or 1) <= 65535:
        raise ValueError("is not the https:// address of something that waits for a ping")
    return url


def tenant(value):
    if not isinstance(value, str) or not is_domain(value):
        raise ValueError(f"{show(value)} is neither the ID nor a domain of a tenant")
    return value


def b64(data):
    return binascii.b2a_base64(data, newline=False).decode()


def certificates(value, info, what):
    data = read(value, info)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        hint = ""
        if data[:1] == b"\x30":
            hint = f"; it looks like DER, turn it round: openssl x509 -inform der -in {value}"
        raise ValueError(f"the file {value} holds no {what} in PEM form{hint}") from None


def cas(value, info):
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list) or not files:
        raise ValueError(f"{show(value)} is not the name of a file")
    certs = [c for name in files for c in certificates(name, info, "CA certificate")]
    if len(certs) > MAX_CAS:
        raise ValueError(
            f"holds {len(certs)} certificates, and a board has memory for {MAX_CAS}: give only"
            " the CA"
            " that signed the smart host's certificate"
        )
    now = datetime.datetime.now(datetime.UTC)
    if all(c.not_valid_after_utc < now for c in certs):
        raise ValueError(f"expired on {certs[0].not_valid_after_utc:%Y-%m-%d}: get the present one")
    return [b64(c.public_bytes(ser.Encoding.DER)) for c in certs]


def cert(value, info):
    return b64(certificates(value, info, "certificate")[0].public_bytes(ser.Encoding.DER))


def key(value, info):
    data = read(value, info)
    try:
        key = ser.load_pem_private_key(data, None)
        # The traditional form is the one that every mbedTLS reads.
        der = key.private_bytes(
            ser.Encoding.DER, ser.PrivateFormat.TraditionalOpenSSL, ser.NoEncryption()
        )
    except TypeError:
        raise ValueError(
            f"the key in {value} has a pass phrase, which a board cannot ask"
        ) from None
    except Exception:
        raise ValueError(f"the file {value} holds no RSA or EC private key in PEM form") from None
    return b64(der)


def user_name(value):
    return text(value, "a user's name")
