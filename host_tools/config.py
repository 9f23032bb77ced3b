"""From board.toml, which a person writes, to config.json, which the board reads.

`load` reads and checks everything and tells all that is wrong at once. What the board gets is
normalised: times in seconds, sizes in bytes, certificates as base64 of their DER form, the time
zone as a rule, passwords of LAN users as SCRAM verifiers (RFC 5803), so that those passwords never
reach the board.
"""

import base64
import binascii
import datetime
import difflib
import importlib
import ipaddress
import os
import re
import sys
import tomllib
import unicodedata
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization as ser
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from . import board as boards
from . import build, sensors, timezone
from .errors import UserError

# A board holds its CAs in RAM while it connects: a whole trust store does not fit.
MAX_CAS = 8
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_TLS = ("none", "starttls", "tls")
# RFC 1918, 4193, 4291 2.5.6, and this machine itself.
_PRIVATE = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"]

# What is right, for each key: shown with everything that is wrong.
EXAMPLES = {
    "board": '[board] and below it name = "cold-store"',
    "board.name": 'name = "cold-store"',
    "board.domain": 'domain = "cold-store.example.com"',
    "board.timezone": 'timezone = "Europe/Berlin"',
    "board.dns": 'dns = ["192.168.1.1"]',
    "board.ntp": 'ntp = ["pool.ntp.org"]',
    "board.led": "led = true",
    "board.watchdog": "watchdog = true",
    "board.profile": 'profile = "pico_w"',
    "wifi": '[wifi] and below it ssid = "barn" and password = { env = "WIFI_PASSWORD" }',
    "wifi.ssid": 'ssid = "barn"',
    "wifi.password": 'password = { env = "WIFI_PASSWORD" }',
    "wifi.country": 'country = "DE"',
    "wifi.hostname": 'hostname = "cold-store"',
    "wifi.address": 'address = "192.168.1.9"',
    "wifi.netmask": 'netmask = "255.255.255.0"',
    "wifi.gateway": 'gateway = "192.168.1.1"',
    "wifi.dns": 'dns = "192.168.1.1"',
    "wifi.power_save": "power_save = false",
    "log": '[log] and below it max_bytes = "32KB"',
    "sleep": '[sleep] and below it every = "10m" and batch = "6h"',
    "sleep.every": 'every = "10m"',
    "sleep.batch": 'batch = "6h"',
    "sleep.urgent": 'urgent = "urgent"',
    "sleep.awake": 'awake = "1m"',
    "sleep.wake_pin": "wake_pin = 33",
    "ping": '[ping] and below it url = { env = "PING_URL" } and ca = "ca.pem"',
    "ping.url": 'url = { env = "PING_URL" }',
    "ping.ca": 'ca = "ca.pem"',
    "ping.verify": 'verify = "full"',
    "ping.every": 'every = "5m"',
    "ping.oldest": 'oldest = "1h"',
    "log.max_bytes": 'max_bytes = "32KB"',
    "status": '[status] and below it password = { env = "STATUS_PASSWORD" }',
    "status.port": "port = 8080",
    "status.address": 'address = "192.168.1.10"',
    "status.password": 'password = { env = "STATUS_PASSWORD" }',
    "status.allow": 'allow = ["192.168.1.0/24"]',
    "status.names": 'names = ["cold-store.example.com"]',
    "status.health": "health = false",
    "status.health_age": 'health_age = "1h"',
    "smarthost": '[smarthost] and below it host = "smtp.example.com"',
    "smarthost.host": 'host = "smtp.example.com"',
    "smarthost.by": 'by = "mx" and security = "opportunistic"',
    "smarthost.protocol": 'protocol = "lmtp"',
    "smarthost.port": "port = 587",
    "smarthost.security": 'security = "starttls"',
    "smarthost.verify": 'verify = "full"',
    "smarthost.ca": 'ca = "ca.pem"',
    "smarthost.username": 'username = "gateway"',
    "smarthost.password": 'password = { env = "SMTP_PASSWORD" }',
    "smarthost.auth": 'auth = "oauth2" and a table [smarthost.oauth]',
    "smarthost.oauth": '[smarthost.oauth] and below it provider = "m365" and client_id = "..."',
    "smarthost.oauth.provider": 'provider = "m365"',
    "smarthost.oauth.tenant": 'tenant = "example.onmicrosoft.com"',
    "smarthost.oauth.token_url": 'token_url = "https://login.example.com/token"',
    "smarthost.oauth.client_id": 'client_id = "11112222-bbbb-3333-cccc-4444dddd5555"',
    "smarthost.oauth.client_secret": 'client_secret = { env = "OAUTH_SECRET" }',
    "smarthost.oauth.scope": 'scope = "https://mail.example.com/send"',
    "smarthost.oauth.refresh_token": 'refresh_token = { file = "refresh-token.txt" }',
    "smarthost.oauth.grant": 'grant = "client_credentials"',
    "smarthost.oauth.ca": 'ca = "ca.pem"',
    "smarthost.oauth.mechanism": 'mechanism = "OAUTHBEARER"',
    "smarthost.sender": 'sender = "gateway@example.com"',
    "smarthost.per_minute": "per_minute = 30",
    "smarthost.per_day": "per_day = 500",
    "smarthost.per_session": "per_session = 100",
    "fetch": '[fetch] and below it host = "odmr.example.com" and domains = ["board7.example.com"]',
    "fetch.host": 'host = "odmr.example.com"',
    "fetch.port": "port = 366",
    "fetch.security": 'security = "starttls"',
    "fetch.verify": 'verify = "full"',
    "fetch.ca": 'ca = "ca.pem"',
    "fetch.username": 'username = "board7"',
    "fetch.password": 'password = { env = "FETCH_PASSWORD" }',
    "fetch.domains": 'domains = ["board7.example.com"]',
    "fetch.every": 'every = "15m"',
    "fetch.senders": 'senders = ["boss@example.com"]',
    "fetch.verified_by": 'verified_by = "mx.example.com"',
    "fetch.forward": 'forward = "ops@example.com"',
    "mail": '[mail] and below it from = "cold-store@example.com" and to = ["oncall@example.com"]',
    "mail.from": 'from = "cold-store@example.com"',
    "mail.to": 'to = ["oncall@example.com"]',
    "mail.admin": 'admin = "admin@example.com"',
    "mail.fold": 'fold = "10m"',
    "mail.heartbeat": 'heartbeat = "1d"',
    "listener": '[[listener]] and below it port = 2525 and allow = ["192.168.1.0/24"]',
    "listener.address": 'address = "192.168.1.10"',
    "listener.port": "port = 2525",
    "listener.tls": 'tls = "starttls"',
    "listener.cert": 'cert = "cert.pem"',
    "listener.key": 'key = "key.pem"',
    "listener.allow": 'allow = ["192.168.1.0/24"]',
    "listener.users": 'users = { printer = { env = "PRINTER_PASSWORD" } }',
    "listener.auth_in_clear": "auth_in_clear = true",
    "listener.greeting_delay": 'greeting_delay = "2s"',
    "listener.bare_newline": 'bare_newline = "refuse"',
    "listener.smtputf8": "smtputf8 = true",
    "listener.requiretls": "requiretls = true",
    "listener.mt_priority": "mt_priority = true",
    "listener.protocol": 'protocol = "lmtp"',
    "listener.etrn": 'etrn = ["example.com"]',
    "listener.atrn": 'atrn = { board7 = ["board7.example.com"] }',
    "queue": '[queue] and below it max_bytes = "512KB"',
    "queue.max_bytes": 'max_bytes = "512KB"',
    "queue.max_count": "max_count = 1000",
    "queue.reserve": 'reserve = "32KB"',
    "queue.displace": 'displace = "oldest"',
    "queue.max_message": 'max_message = "10MB"',
    "queue.cut_through": "cut_through = false",
    "queue.retry": 'retry = "1m"',
    "queue.retry_max": 'retry_max = "1h"',
    "queue.pause": 'pause = "5s"',
    "queue.pause_max": 'pause_max = "5m"',
    "queue.delay_notice": 'delay_notice = "4h"',
    "queue.expire": 'expire = "5d"',
    "queue.gather": 'gather = "5m"',
    "queue.bounce": "bounce = false",
    "device": '[[device]] and below it address = "192.168.1.20" and sender = "scanner@example.com"',
    "device.address": 'address = "192.168.1.20"',
    "device.user": 'user = "printer"',
    "device.sender": 'sender = "scanner@example.com"',
    "device.per_hour": "per_hour = 60",
    "device.priority": 'priority = "low"',
    "sensor": '[[sensor]] and below it name = "freezer"',
    "sensor.name": 'name = "freezer"',
    "sensor.driver": 'driver = "file"',
    "sensor.path": 'path = "freezer.txt"',
    "sensor.every": 'every = "30s"',
    "sensor.above": "above = -15.0",
    "sensor.below": "below = 5.0",
    "sensor.is": 'is = "open"',
    "sensor.on": 'on = "open"',
    "sensor.off": 'off = "closed"',
    "sensor.hysteresis": "hysteresis = 0.5",
    "sensor.for": 'for = "5m"',
    "sensor.repeat": 'repeat = "1h"',
    "sensor.recovery": "recovery = true",
    "sensor.failures": "failures = 3",
    "sensor.timeout": 'timeout = "10s"',
    "sensor.unit": 'unit = "°C"',
    "sensor.decimals": "decimals = 1",
    "sensor.subject": 'subject = "{name}: {value} {unit}"',
    "sensor.text": 'text = "{name} on {board} is {state} {limit}: {value} {unit}"',
    "sensor.recovery_subject": 'recovery_subject = "{name} is fine again"',
    "sensor.recovery_text": 'recovery_text = "It took {lasted}."',
    "sensor.pin": "pin = 14",
    "sensor.pull": 'pull = "up"',
    "sensor.invert": "invert = true",
    "sensor.debounce": 'debounce = "50ms"',
    "sensor.edge": "edge = true",
    "sensor.points": "points = [[0, 0.0], [65535, 10.0]]",
    "sensor.factor": "factor = 0.00152",
    "sensor.offset": "offset = -20.0",
    "sensor.rom": 'rom = "28ff641e84160333"',
    "sensor.reads": 'reads = "humidity"',
    "sensor.host": 'host = "192.168.1.20"',
    "sensor.port": "port = 9100",
    "sensor.ping": "ping = true",
    "sensor.function": 'function = "oil_level"',
    "sensor.to": 'to = ["oncall@example.com"]',
    "sensor.priority": 'priority = "urgent"',
}

# What the sign-in servers of providers want; the scope depends on the grant. Microsoft: "Authenticate an IMAP, POP or
# SMTP connection using OAuth" (learn.microsoft.com, Exchange client developer). Google: "OAuth 2.0 Mechanism" (Gmail)
# and "Using OAuth 2.0 to Access Google APIs" (developers.google.com); a refresh keeps the scope that was consented to.
PROVIDERS = {
    "m365": {
        "token_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        "refresh_token": "https://outlook.office.com/SMTP.Send offline_access",
        "client_credentials": "https://outlook.office365.com/.default",
        "mechanism": "XOAUTH2",
    },
    "gmail": {
        "token_url": "https://oauth2.googleapis.com/token",
        "refresh_token": "",
        "mechanism": "XOAUTH2",
    },
}


class ConfigError(UserError):
    """What is wrong with a board.toml: `problems` is a list of lines, each with key, fault and
    example.
    """

    def __init__(self, path, problems):
        self.problems = problems
        if len(problems) == 1:
            text = f"{path}: {problems[0]}"
        else:
            lines = "".join(f"\n  {line}" for line in problems)
            if any(re.match(r"\w+\[\d+\]", line) for line in problems):
                lines += "\n(tables of the same name are counted from 1)"
            text = f"{path}: {len(problems)} problems, nothing was started:{lines}"
        super().__init__(text)


# ---- values, each a function that gives the normalised value or raises ValueError


def _show(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) < 50 else text[:46] + "...'"


def _text(value, what="text", limit=255):
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not text in quotes")
    if not value.strip():
        raise ValueError(f"is empty: {what} is needed")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise ValueError("has a line break or another control character in it")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ValueError(f"is longer than {limit} bytes")
    return value


def _choice(*allowed):
    def check(value):
        if value not in allowed:
            choices = ", ".join(f'"{a}"' for a in allowed)
            raise ValueError(f"{_show(value)} is none of {choices}")
        return value

    return check


def _flag(value):
    if not isinstance(value, bool):
        raise ValueError(f"{_show(value)} is neither true nor false (without quotes)")
    return value


def _port(value):
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError(f"{_show(value)} is not a port, a whole number from 1 to 65535")
    return value


def _count(value):
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise ValueError(f"{_show(value)} is not a whole number from 1 to 1,000,000, or 0 for no limit")
    return value


def _most(value):
    if _count(value) == 0:
        raise ValueError("0 would be a queue that takes no mail")
    return value


def _reserve(value):
    value = size(value)
    if value < 8192:
        raise ValueError("is less than 8KB, two blocks of flash, without which no mail can be put aside")
    return value


def _window(value):
    """As duration(), or 0; the board counts in whole seconds."""
    if value == 0 and not isinstance(value, bool) or value == "0s":
        return 0
    seconds = duration(value)
    if seconds < 1:
        raise ValueError(f"{_show(value)} is less than 1s; 0 switches it off")
    return seconds


def _number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{_show(value)} is not a number (without quotes)")
    if not abs(value) < 1e30:
        raise ValueError(f"{value} is not a number that a sensor can reach")
    return float(value)


def _not_negative(value):
    if _number(value) < 0:
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
            raise ValueError(f"{_show(value)} is not a size: a number with B, KB, MB or GB")
        count = int(float(found[1]) * _SIZES[found[2].upper()])
    if count < 1024:
        raise ValueError(f"{_show(value)} is too small: not even one mail fits in less than 1KB")
    if count > 1 << 40:
        raise ValueError(f"{_show(value)} is more than any board or disk image holds")
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
            raise ValueError(f"{_show(value)} is not a time: a number with ms, s, m, h or d")
        seconds = float(found[1]) * _TIMES[found[2]]
    if not 0.01 <= seconds <= 31 * 86400:
        raise ValueError(f"{_show(value)} is not between 10ms and 31d")
    return round(seconds, 3)


def _every(value):
    seconds = duration(value)
    if seconds > 86400:
        raise ValueError(f"{_show(value)} is more than a day")
    return seconds


def _pace(value):
    if _every(value) < 1:
        raise ValueError(f"{_show(value)} is less than 1s")
    return duration(value)


def _debounce(value):
    seconds = duration(value)
    if seconds > 1:
        raise ValueError(f"{_show(value)} is more than 1s; a condition that has to last is said by for = ...")
    return seconds


def is_domain(text):
    """Whether text is a host name of RFC 1123, with underscores, which local networks have."""
    return len(text) <= 253 and bool(re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*\.?", text))


def _domain(value):
    if value == "":
        return value
    _text(value, "a domain")
    if not value.isascii():
        raise ValueError(f"{_show(value)} has letters outside ASCII; write its xn-- form")
    if not is_domain(value) or re.fullmatch(r"[\d.]+", value):
        raise ValueError(f"{_show(value)} is not a domain name")
    return value.rstrip(".")


def _host(value):
    _text(value, "a host name")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    if re.search(r":\d+$", value):
        raise ValueError(f"{_show(value)} has a port in it, which goes into port = ...")
    if not is_domain(value) or re.fullmatch(r"[\d.]+", value):
        raise ValueError(f"{_show(value)} is neither a host name nor an IP address")
    return value.rstrip(".")


def _ip(value):
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            f"{_show(value)} is not an IP address of this machine (0.0.0.0 is all of them)"
        ) from None


def _name_servers(value):
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
            wrong.append(f"{_show(item)} is not the IP address of a name server")
    if not 1 <= len(servers) + len(wrong) <= 3:
        wrong.append("takes one to three name servers; leave it out for those that the network names")
    if wrong:
        raise ValueError("; ".join(wrong))
    return servers


def mailbox(value):
    """An e-mail address as RFC 5321, section 4.1.2, or RFC 6531 has it, without the rarely seen quoted form. A domain
    becomes what DNS knows it by."""
    _text(value, "an e-mail address", 1000)
    if "<" in value or " " in value:
        raise ValueError(f"{_show(value)} has more than the address in it; leave out the name")
    shown = value
    if not value.isascii():
        value = unicodedata.normalize("NFC", value)
        try:
            value = _library("utf8").normal(value)
        except ValueError:
            raise ValueError(f"{_show(shown)} is no e-mail address") from None
        if not value.isascii():
            return value
    local, at, domain = value.rpartition("@")
    if not at:
        raise ValueError(f"{_show(value)} has no @")
    if len(local) > 64 or not re.fullmatch(rf"{_ATEXT}(?:\.{_ATEXT})*", local):
        raise ValueError(f"{_show(value)} has something before the @ that no address may have")
    literal = re.fullmatch(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]", domain)
    try:
        good = ipaddress.ip_address(literal[1]) if literal else is_domain(domain)
    except ValueError:
        good = False
    if not good or domain.endswith("."):
        raise ValueError(f"{_show(value)} has no domain after the @")
    return value


def _mailbox_or_none(value):
    return "" if value == "" else mailbox(value)


def _mailboxes(value):
    """One address or a list of them."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"{_show(value)} is not a list of addresses")
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


def _networks(value):
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"{_show(value)} is not a list of networks")
    nets, wrong = [], []
    for item in value:
        if not isinstance(item, str):
            wrong.append(f"{_show(item)} is not a network such as 192.168.1.0/24")
            continue
        try:
            net = ipaddress.ip_network(item)
        except ValueError:
            try:  # host bits set: what was meant is known
                meant = ipaddress.ip_network(item, strict=False)
                wrong.append(f'{item!r} has bits after its prefix; the network is "{meant}"')
            except ValueError:
                wrong.append(f"{_show(item)} is not a network such as 192.168.1.0/24")
            continue
        if net.prefixlen < (8 if net.version == 4 else 7):  # the largest private ones
            wrong.append(f"{item!r} is much of the internet: this would be an open relay")
        nets.append(str(net))
    if wrong:
        raise ValueError("; ".join(wrong))
    return nets


def _domains(value):
    """Domains of recipients, in lower case."""
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{_show(value)} is not a list of domains")
    return list(dict.fromkeys(_domain(_text(v, "a domain")).lower() for v in value))


def _fetchers(value):
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{_show(value)} is not a table of users and their domains")
    return {_user(user): _domains(domains) for user, domains in value.items()}


def _forward(value):
    return value if value in ("", "*") else mailbox(value)


def _readers(value):
    """The networks that may see the status page."""
    try:
        return _networks(value)
    except ValueError as e:
        raise ValueError(str(e).replace("this would be an open relay", "anybody could try passwords")) from None


def _names(value):
    if not isinstance(value, list) or not all(isinstance(v, str) and is_domain(v) for v in value):
        raise ValueError(f"{_show(value)} is not a list of host names")
    return value


def _age(value):
    seconds = duration(value)
    if seconds < 60:
        raise ValueError(f"{_show(value)} is less than 1m: mail that is deferred once waits longer than that")
    return int(seconds)


def _status_password(value, info):
    secret = _secret(value, info)
    if len(secret) < 8:
        raise ValueError("is shorter than 8 characters, and everybody on the network may guess")
    return secret


def _device_network(value):
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not an IP address or network such as 192.168.1.20")
    return _networks([value])[0]


def _zone(value):
    return timezone.rule(_text(value, "the name of a time zone"))


def _read(value, info):
    """The bytes of a file that board.toml names; its path is relative to board.toml."""
    path = info.context["base"] / _text(value, "the name of a file", 4096)
    try:
        return path.read_bytes()
    except OSError as e:
        raise ValueError(f"the file {path} cannot be read: {e.strerror}") from None


class _Clear(str):
    """A password that the board is to store as it is."""


def _lan_secret(value, info):
    """A LAN user's password: as _secret; with store = "clear" in its table it is a _Clear."""
    if not isinstance(value, dict) or "store" not in value:
        return _secret(value, info)
    value = dict(value)
    store = value.pop("store")
    if store not in ("verifier", "clear"):
        raise ValueError(f'store = {_show(store)} is neither "verifier" (what is best) nor "clear" (for CRAM-MD5)')
    secret = _secret(value, info)
    return _Clear(secret) if store == "clear" else secret


def _secret(value, info):
    """A password: text, { env = "NAME" } or { file = "NAME" }."""
    if isinstance(value, dict):
        if set(value) == {"env"}:
            name = _text(value["env"], "the name of a variable")
            secret = info.context["env"].get(name)
            if secret is None:
                raise ValueError(
                    f"the environment variable {name} is not set; set it first: export {name}='...'"
                )
            what = f"the environment variable {name}"
        elif set(value) == {"file"}:
            try:
                secret = _read(value["file"], info).decode().rstrip("\r\n")
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


def _wifi_password(value, info):
    return boards.wifi_password(_secret(value, info))


def _refresh_token(value, info):
    secret = _secret(value, info).strip()
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError("has something in it that no refresh token has, such as a space")
    return secret


def _token_url(value):
    _text(value, "the address of a token server", 1000)
    if value.startswith("http://"):
        raise ValueError("begins with http://: secret and tokens could be read on the way; only https:// will do")
    found = re.fullmatch(r"https://([^/?#:@]+)(?::(\d+))?(/[!-~]*)?", value)
    if not found or not is_domain(found[1]) or "#" in value or not 1 <= int(found[2] or 1) <= 65535:
        raise ValueError(f"{_show(value)} is not the https:// address of a token server")
    return value


def _ping_url(value, info):
    """A secret: who knows it can say that all is well."""
    url = _secret(value, info)
    found = re.fullmatch(r"https?://([^/?#:@]+)(?::(\d+))?(/[!-~]*)?", url)
    if not found or not is_domain(found[1]) or "#" in url or not 1 <= int(found[2] or 1) <= 65535:
        raise ValueError("is not the https:// address of something that waits for a ping")
    return url


def _tenant(value):
    if not isinstance(value, str) or not is_domain(value):
        raise ValueError(f"{_show(value)} is neither the ID nor a domain of a tenant")
    return value


def _b64(data):
    return binascii.b2a_base64(data, newline=False).decode()


def _certificates(value, info, what):
    data = _read(value, info)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        hint = ""
        if data[:1] == b"\x30":
            hint = f"; it looks like DER, turn it round: openssl x509 -inform der -in {value}"
        raise ValueError(f"the file {value} holds no {what} in PEM form{hint}") from None


def _cas(value, info):
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list) or not files:
        raise ValueError(f"{_show(value)} is not the name of a file")
    certs = [c for name in files for c in _certificates(name, info, "CA certificate")]
    if len(certs) > MAX_CAS:
        raise ValueError(
            f"holds {len(certs)} certificates, and a board has memory for {MAX_CAS}: give only"
            " the CA"
            " that signed the smart host's certificate"
        )
    now = datetime.datetime.now(datetime.UTC)
    if all(c.not_valid_after_utc < now for c in certs):
        raise ValueError(f"expired on {certs[0].not_valid_after_utc:%Y-%m-%d}: get the present one")
    return [_b64(c.public_bytes(ser.Encoding.DER)) for c in certs]


def _cert(value, info):
    return _b64(_certificates(value, info, "certificate")[0].public_bytes(ser.Encoding.DER))


def _key(value, info):
    data = _read(value, info)
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
    return _b64(der)


def _user(value):
    return _text(value, "a user's name")


# ---- the tables


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _is(check, default=..., alias=None):
    """A field's type: `check` decides, nothing is converted behind the person's back."""
    return Annotated[Any, PlainValidator(check), Field(default, alias=alias)]


class Board(_Table):
    name: _is(lambda v: _text(v, "a name", 64))
    domain: _is(_domain, "")
    timezone: _is(_zone, [0])
    dns: _is(_name_servers, None)
    ntp: _is(boards.servers(is_domain), None)
    led: _is(boards.led, None)
    watchdog: _is(_flag, None)
    profile: _is(boards.profile, None)


class Wifi(_Table):
    ssid: _is(boards.ssid)
    password: _is(_wifi_password, "")
    country: _is(boards.country, None)
    hostname: _is(boards.hostname, None)
    address: _is(boards.ipv4, None)
    netmask: _is(boards.netmask, None)
    gateway: _is(boards.ipv4, None)
    dns: _is(boards.ipv4, None)
    power_save: _is(_flag, None)


class Log(_Table):
    max_bytes: _is(boards.log_size(size), 32 << 10)


class Sleep(_Table):
    every: _is(_pace, 600.0)
    batch: _is(_pace, 21600.0)
    urgent: _is(_choice("urgent", "normal", "low"), "urgent")
    awake: _is(boards.awake(duration), 60.0)
    wake_pin: _is(sensors.pin, None)


class Ping(_Table):
    url: _is(_ping_url)
    ca: _is(_cas, [])
    verify: _is(_choice("full", "none"), "full")
    every: _is(_pace, 300.0)
    oldest: _is(_pace, 3600.0)


class Status(_Table):
    port: _is(_port, 80)
    address: _is(_ip, "0.0.0.0")
    password: _is(_status_password)
    allow: _is(_readers, _PRIVATE)
    names: _is(_names, [])
    health: _is(_flag, True)
    health_age: _is(_age, 3600)


class SmartHost(_Table):
    by: _is(_choice("mx"), None)
    host: _is(_host, "")
    protocol: _is(_choice("smtp", "lmtp"), "smtp")
    port: _is(_port, None)
    security: _is(_choice("starttls", "tls", "none", "opportunistic"), "starttls")
    verify: _is(_choice("full", "none"), "full")
    ca: _is(_cas, [])
    username: _is(_user, "")
    password: _is(_secret, "")
    auth: _is(_choice("password", "oauth2"), "password")
    oauth: _is(lambda v: v, None)
    sender: _is(_mailbox_or_none, "")
    per_minute: _is(_count, None)
    per_day: _is(_count, None)
    per_session: _is(_count, None)


class Fetch(_Table):
    host: _is(_host)
    port: _is(_port, 366)
    security: _is(_choice("starttls", "tls", "none"), "starttls")
    verify: _is(_choice("full", "none"), "full")
    ca: _is(_cas, [])
    username: _is(_user)
    password: _is(_secret)
    domains: _is(_domains)
    every: _is(_pace, 900.0)
    senders: _is(_mailboxes, [])
    verified_by: _is(lambda v: _domain(v).lower(), "")
    forward: _is(_forward, "")


class OAuth(_Table):
    provider: _is(_choice(*PROVIDERS), None)
    tenant: _is(_tenant, None)
    token_url: _is(_token_url, None)
    client_id: _is(lambda v: _text(v, "the client's ID"))
    client_secret: _is(_secret, "")
    scope: _is(lambda v: _text(v, "a scope", 1000), None)
    refresh_token: _is(_refresh_token, "")
    grant: _is(_choice("refresh_token", "client_credentials"), "refresh_token")
    ca: _is(_cas, None)
    mechanism: _is(_choice("XOAUTH2", "OAUTHBEARER"), None)


class Mail(_Table):
    from_: _is(mailbox, "", "from")
    to: _is(_mailboxes, [])
    admin: _is(_mailbox_or_none, "")
    fold: _is(_window, None)
    heartbeat: _is(_window, None)


class Listener(_Table):
    address: _is(_ip, "127.0.0.1")
    port: _is(_port, 2525)
    tls: _is(_choice(*_TLS), "none")
    cert: _is(_cert, "")
    key: _is(_key, "")
    allow: _is(_networks, [])
    users: dict[Annotated[Any, PlainValidator(_user)], Annotated[Any, PlainValidator(_lan_secret)]] = {}
    auth_in_clear: _is(_flag, False)
    greeting_delay: _is(duration, 0)
    bare_newline: _is(_choice("fix", "refuse"), "fix")
    smtputf8: _is(_flag, False)
    requiretls: _is(_flag, False)
    mt_priority: _is(_flag, False)
    protocol: _is(_choice("smtp", "lmtp"), "smtp")
    etrn: _is(_domains, None)
    atrn: _is(_fetchers, None)


class Queue(_Table):
    max_bytes: _is(size, 512 << 10)
    max_count: _is(_most, None)
    reserve: _is(_reserve, None)
    displace: _is(_choice("never", "dead", "oldest", "newest"), None)
    max_message: _is(size, 10 << 20)
    cut_through: _is(_flag, None)
    retry: _is(duration, None)
    retry_max: _is(duration, None)
    pause: _is(duration, None)
    pause_max: _is(duration, None)
    delay_notice: _is(duration, None)
    expire: _is(duration, None)
    gather: _is(duration, None)
    bounce: _is(_flag, None)


class Device(_Table):
    address: _is(_device_network, "")
    user: _is(_user, "")
    sender: _is(_mailbox_or_none, "")
    per_hour: _is(_count, 0)
    priority: _is(_choice("urgent", "normal", "low"), "normal")


class Sensor(_Table):
    name: _is(lambda v: _text(v, "a name", 64))
    driver: _is(_choice(*sensors.DRIVERS))
    path: _is(lambda v: _text(v, "the name of a file", 1024), None)
    every: _is(_every, 10.0)
    timeout: _is(_every, None)
    above: _is(_number, None)
    below: _is(_number, None)
    is_: _is(sensors.state, None, "is")
    on: _is(sensors.word, None)
    off: _is(sensors.word, None)
    hysteresis: _is(_not_negative, 0.0)
    for_: _is(_window, None, "for")
    repeat: _is(_window, None)
    recovery: _is(_flag, None)
    failures: _is(sensors.whole(0, 1000, "a number of readings (0 for never)"), None)
    unit: _is(sensors.unit, None)
    decimals: _is(sensors.whole(0, 6, "a number of digits"), None)
    subject: _is(sensors.template(200, False), None)
    text: _is(sensors.template(2000, True), None)
    recovery_subject: _is(sensors.template(200, False), None)
    recovery_text: _is(sensors.template(2000, True), None)
    pin: _is(sensors.pin, None)
    pull: _is(_choice("up", "down", "none"), None)
    invert: _is(_flag, None)
    debounce: _is(_debounce, None)
    edge: _is(_flag, None)
    points: _is(sensors.points, None)
    factor: _is(_number, None)
    offset: _is(_number, None)
    rom: _is(sensors.rom, None)
    reads: _is(_choice("temperature", "humidity"), None)
    host: _is(_host, None)
    port: _is(_port, None)
    ping: _is(_flag, None)
    function: _is(lambda v: _text(v, "the name of a function", 64), None)
    to: _is(_mailboxes, [])
    priority: _is(_choice("urgent", "normal", "low"), "normal")


_SINGLE = {"board": Board, "mail": Mail, "queue": Queue, "wifi": Wifi, "log": Log, "sleep": Sleep, "ping": Ping,
           "status": Status, "fetch": Fetch}
_LISTS = {"smarthost": SmartHost, "listener": Listener, "device": Device, "sensor": Sensor}


class _Checker:
    """One board.toml on its way through: what is wrong and what is worth a warning."""

    def __init__(self, base, env):
        self.context = {"base": base, "env": env}
        self.problems = []
        self.warnings = []

    def problem(self, key, text, example=None):
        section = re.sub(r"\[\d+\]", "", key)
        if example is None:
            parts = section.split(".")[:2]
            example = EXAMPLES.get(section) or EXAMPLES.get(".".join(parts), EXAMPLES.get(parts[0]))
        line = f"{key}: {text}"
        if example:
            line += f"; for example: {example}"
        self.problems.append(line)

    def table(self, model, raw, key):
        """The checked table, or None; what is wrong is noted under `key`."""
        if not isinstance(raw, dict):
            self.problem(key, f"{_show(raw)} is not a table")
            return None
        try:
            return model.model_validate(raw, context=self.context)
        except ValidationError as e:
            for error in e.errors(include_url=False):
                self.fault(model, key, error)
            return None

    def fault(self, model, key, error):
        loc = [str(part) for part in error["loc"] if part != "[key]"]
        path = ".".join([key, *loc])
        if error["type"] == "extra_forbidden":
            known = [f.alias or name for name, f in model.model_fields.items()]
            near = difflib.get_close_matches(loc[-1], known, 1, 0.6)
            example = EXAMPLES.get(f"{re.sub(r'[^a-z.]', '', key)}.{near[0]}") if near else ""
            if near:
                self.problem(path, f"is not a known key; did you mean {near[0]}?", example)
            else:
                self.problem(path, f"is not a known key; known are {', '.join(known)}", "")
        elif error["type"] == "missing":
            self.problem(path, "is missing")
        elif error["type"] == "value_error":
            self.problem(path, str(error["ctx"]["error"]))
        elif error["type"] == "dict_type":
            self.problem(path, f"{_show(error['input'])} is not a table")
        else:
            self.problem(path, error["msg"])


def read(path):
    """The tables of a TOML file as they stand there, unchecked. Raises UserError."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        raise UserError(
            f"{path} is not valid TOML: {e}; texts need quotes, [[listener]] two brackets"
        ) from None


def check_value(key, value):
    """One value of a board.toml, such as that of "wifi.ssid", normalised. Raises ValueError."""
    table, _, name = key.partition(".")
    model = {**_SINGLE, **_LISTS}[table]
    name = next(n for n, field in model.model_fields.items() if name in (n, field.alias))
    try:
        checked = model.__pydantic_validator__.validate_assignment(
            model.model_construct(), name, value, context={"base": Path(), "env": os.environ}
        )
    except ValidationError as e:
        raise ValueError(str(e.errors(include_url=False)[0]["ctx"]["error"])) from None
    return getattr(checked, name)


def load(path, env=None, previous=None, raw=None, label=None):
    """Reads a board.toml. Returns (config, warnings): the dict of config.json, and lines for the
    person.

    `env` stands for the environment; `previous` is an earlier config.json, whose verifiers are kept
    where the password is still the same, so that nothing is written to flash without need. `raw` are the
    tables, where they are not those of the file, and `label` what the person knows them by. Raises ConfigError.
    """
    path = Path(path)
    env = os.environ if env is None else env
    raw = read(path) if raw is None else raw
    check = _Checker(path.absolute().parent, env)
    raw = dict(raw)
    for name in raw.keys() - _SINGLE.keys() - _LISTS.keys():
        near = difflib.get_close_matches(name, [*_SINGLE, *_LISTS], 1, 0.6)
        known = "board, wifi, smarthost, mail, listener, device, queue, sensor, log, sleep, ping, status, fetch"
        hint = f"did you mean [{near[0]}]?" if near else f"known are {known}"
        check.problem(name, f"is not a known table; {hint}", EXAMPLES[near[0]] if near else "")
    if "board" not in raw:
        check.problem("board", "is missing")
    board, mail, queue, wifi, log, sleep, ping, status, fetch = (
        check.table(model, raw.get(name, {}), name) if name in raw or name in ("mail", "queue") else None
        for name, model in _SINGLE.items()
    )
    lists = {}
    for name, model in _LISTS.items():
        tables = raw.get(name, [])
        tables = tables if isinstance(tables, list) else [tables]
        keys = [name if len(tables) == 1 else f"{name}[{i + 1}]" for i in range(len(tables))]
        lists[name] = list(
            zip(keys, tables, (check.table(model, t, k) for t, k in zip(tables, keys, strict=True)),
                strict=True)
        )  # fmt: skip
    if not lists["smarthost"]:
        check.problem("smarthost", "is missing: mail has nowhere to go")
    for key, table, model in lists["smarthost"]:
        if isinstance(table, dict):
            _check_smarthost(check, key, table)
            _check_oauth(check, key, table, model)
    for key, table, model in lists["listener"]:
        if isinstance(table, dict):
            _check_listener(check, key, table, model)
    for key, table, _ in lists["device"]:
        if isinstance(table, dict) and "address" not in table and "user" not in table:
            check.problem(f"{key}.address", "is missing: say by address = ... or user = ... which device is meant")
    for key, table, _ in lists["sensor"]:
        if isinstance(table, dict):
            sensors.check(check.problem, key, table, check.context["base"])
    if isinstance(raw.get("fetch"), dict):
        _check_fetch(check, raw["fetch"])
    _check_together(check, raw, lists)
    boards.check(check.problem, check.warnings.append, raw)
    boards.check_sleep(check.problem, check.warnings.append, raw)
    if ping:
        boards.check_ping(check.problem, check.warnings.append, raw["ping"], ping.url)
    if queue and (queue.delay_notice or 14400) >= (queue.expire or 432000) and "delay_notice" in raw["queue"]:
        check.problem("queue.delay_notice", "is not less than queue.expire: a mail is given up before it is late")
    if check.problems:
        raise ConfigError(label or path, check.problems)

    people = [mail.from_, mail.admin, *mail.to] if mail else []
    for address in [a for a in people if not a.isascii()]:
        check.warnings.append(f"{address} is not ASCII: its mail needs a smart host that offers SMTPUTF8")

    verifiers = _old_verifiers(previous)
    config = {
        "board": {"name": board.name, "domain": board.domain, "tz": board.timezone},
        "smarthost": [_smarthost(m) for _, _, m in lists["smarthost"]],
        "mail": {"from": mail.from_, "to": mail.to, "admin": mail.admin},
        "listener": [_listener(m, verifiers) for _, _, m in lists["listener"]],
        "queue": queue.model_dump(exclude_none=True),
        "sensor": [_sensor(m, mail, check.context["base"], board.name) for _, _, m in lists["sensor"]],
    }
    if mail.fold is not None:
        config["mail"]["fold"] = mail.fold
    if mail.heartbeat:
        config["mail"]["heartbeat"] = mail.heartbeat
    if wifi and board.ntp is None:
        board.ntp = boards.POOL
    for name in ("dns", "ntp", "led", "watchdog", "profile"):
        if getattr(board, name):
            config["board"][name] = getattr(board, name)
    if wifi:
        config["wifi"] = boards.values(wifi, board)
    if log:
        config["log"] = log.model_dump()
    if sleep:
        config["sleep"] = sleep.model_dump(exclude_none=True)
    if ping:
        config["ping"] = ping.model_dump()
    if status:
        config["status"] = status.model_dump(exclude={"password"})
        config["status"]["verifier"] = verifier(status.password, verifiers.get(_STATUS, ()))
    if fetch:
        config["fetch"] = fetch.model_dump()
    special = [h for h in config["smarthost"] if "by" in h or "protocol" in h]
    if special or [v for v in config["listener"] if "atrn" in v]:
        # Where a mail goes, or who has it, is not said by one reply of one host.
        config["queue"]["cut_through"] = False
    if fetch or special or [v for v in config["listener"] if v.keys() & {"protocol", "etrn", "atrn"}]:
        config["hops"] = True
    if lists["device"]:
        config["device"] = [m.model_dump(exclude_defaults=True) for _, _, m in lists["device"]]
    return config, check.warnings


# ---- what does not go together


def _check_smarthost(check, key, raw):
    security, verify = raw.get("security", "starttls"), raw.get("verify", "full")
    if raw.get("by") == "mx":
        _check_mx(check, key, raw)
        return
    if "host" not in raw:
        check.problem(f"{key}.host", "is missing")
    if security == "opportunistic":
        check.problem(
            f"{key}.security",
            '"opportunistic" is for by = "mx" only: this host can be verified',
            'security = "starttls"',
        )
    if raw.get("protocol") == "lmtp" and raw.get("port") == 25:
        check.problem(f"{key}.port", "25 is for SMTP, LMTP must not use it (RFC 2033)", "port = 24")
    if security in ("starttls", "tls") and verify == "full" and "ca" not in raw:
        check.problem(
            f"{key}.ca",
            f'is missing: security = "{security}" needs the CA that signed the smart host\'s'
            " certificate,"
            " else anybody could take its place and read your password and mail",
        )
    if verify == "none" and security in ("starttls", "tls"):
        check.warnings.append(
            f'{key}.verify = "none": whoever stands between the board and'
            f" {raw.get('host', 'it')} can read"
            ' the password and every mail; give ca = "..." instead'
        )
    if security == "none":
        check.warnings.append(
            f'{key}.security = "none": mail{" and password" if "password" in raw else ""} can'
            " be read by"
            ' everybody on the way; use "starttls" or "tls" if the smart host offers it'
        )
        for name in ("ca", "verify"):
            if name in raw:
                check.problem(
                    f"{key}.{name}",
                    'has no use with security = "none", which has no certificate to verify',
                    'security = "starttls"',
                )
    if "password" in raw and "username" not in raw:
        check.problem(f"{key}.username", "is missing: there is a password, but whose?")
    if "username" in raw and "password" not in raw and "oauth" not in raw and raw.get("auth") != "oauth2":
        check.problem(f"{key}.password", "is missing: there is a username without one")
    if isinstance(raw.get("password"), str):
        check.warnings.append(
            f"{key}.password stands in board.toml for everybody who reads that file to see; better:"
            f" {EXAMPLES['smarthost.password']}"
        )


def _check_mx(check, key, raw):
    """A [smarthost] that is none: each mail goes to the exchangers of its recipients' domains."""
    security = raw.get("security")
    if security == "opportunistic":
        check.warnings.append(
            f'{key}.security = "opportunistic": mail goes out under TLS where it is offered, else in the'
            " clear; nobody's certificate is verified, so whoever stands on the way, or forges the name server's"
            " replies, can read it"
        )
    elif security == "none":
        check.warnings.append(
            f'{key}.security = "none": mail can be read by everybody on the way; "opportunistic" at least uses TLS'
            " where it is offered"
        )
    else:
        check.problem(
            f"{key}.security",
            "has to be said for delivery by MX, where no certificate can be verified: TLS where it is offered, with"
            " anybody",
            'security = "opportunistic"',
        )
    for name in ("host", "verify", "ca", "username", "password", "auth", "oauth", "protocol"):
        if name in raw:
            check.problem(f"{key}.{name}", 'has no use with by = "mx": the recipients\' domains name the hosts', "")


def _check_fetch(check, raw):
    """The [fetch] table, whose provider is as good as a smart host."""
    _check_smarthost(check, "fetch", {"host": "", "password": "", "username": ""} | raw)
    if raw.get("senders") and raw.get("security") == "none":
        check.problem(
            "fetch.security", '"none" would let anybody on the way give orders in the name of fetch.senders',
            'security = "starttls"')  # fmt: skip
    if raw.get("senders") and not raw.get("verified_by"):
        check.warnings.append(
            "fetch.senders: whoever can send mail in the name of one of them gives orders; verified_by names the mail"
            " server that has to vouch for them (DMARC)"
        )
    if "senders" not in raw and "forward" not in raw:
        check.warnings.append(
            "fetch: all mail that is fetched is refused: name who may give orders (senders), or where it goes (forward)"
        )


def _check_oauth(check, key, raw, model):
    """Checks [smarthost.oauth] with the keys beside it; what it says goes into `model`."""
    asked = raw.get("auth") == "oauth2"
    if not asked and "oauth" in raw:
        check.problem(f"{key}.auth", "is not the one that the table oauth is for", 'auth = "oauth2"')
    if not asked:
        return
    if "password" in raw:
        check.problem(f"{key}.password", 'has no use with auth = "oauth2", where tokens take its place', "")
    elif "username" not in raw:
        example = 'username = "gateway@example.com"'
        check.problem(f"{key}.username", "is missing: whose mailbox do the tokens open?", example)
    if raw.get("security") == "none":
        check.problem(f"{key}.security", '"none" would show the tokens to everybody on the way')
    if "oauth" not in raw:
        check.problem(f"{key}.oauth", 'is missing: auth = "oauth2" needs to know where the tokens come from')
        return
    key += ".oauth"
    table = raw["oauth"]
    oauth = check.table(OAuth, table, key)
    if not isinstance(table, dict):
        return
    name, grant = table.get("provider"), table.get("grant", "refresh_token")
    provider = PROVIDERS.get(name) if isinstance(name, str) else None
    if not name and "token_url" not in table:
        check.problem(f"{key}.token_url", 'is missing; or say provider = "m365" or provider = "gmail"')
    if name == "m365" and "token_url" not in table and "tenant" not in table:
        check.problem(f"{key}.tenant", 'is missing: provider = "m365" needs the ID or a domain of your tenant')
    if name != "m365" and "tenant" in table:
        check.problem(f"{key}.tenant", 'has a use with provider = "m365" only', 'provider = "m365"')
    if grant == "client_credentials":
        if name == "gmail":
            check.problem(f"{key}.grant", "is none that Google offers: sign in, and use a refresh token", "")
        if "client_secret" not in table:
            check.problem(f"{key}.client_secret", 'is missing: it is what grant = "client_credentials" signs in with')
        if "refresh_token" in table:
            check.problem(f"{key}.refresh_token", 'has no use with grant = "client_credentials"', "")
    elif grant == "refresh_token" and "refresh_token" not in table:
        why = "is missing: you get it by signing in with edgepost oauth, see docs/providers.md"
        check.problem(f"{key}.refresh_token", why)
    if "ca" not in table and "ca" not in raw:
        check.problem(f"{key}.ca", "is missing: the CA that signed the token server's certificate")
    for secret in ("client_secret", "refresh_token"):
        if isinstance(table.get(secret), str):
            check.warnings.append(
                f"{key}.{secret} stands in board.toml for everybody who reads that file to see; better:"
                f" {EXAMPLES[f'smarthost.oauth.{secret}']}"
            )
    if oauth and model:
        provider = provider or {"mechanism": "XOAUTH2"}
        oauth.token_url = oauth.token_url or provider.get("token_url", "").replace("{tenant}", oauth.tenant or "")
        oauth.scope = provider.get(grant, "") if oauth.scope is None else oauth.scope
        oauth.mechanism = oauth.mechanism or provider["mechanism"]
        oauth.provider = oauth.tenant = None
        model.oauth = oauth


def _check_listener(check, key, raw, model):
    tls = raw.get("tls", "none")
    for name, what in (("cert", "certificate"), ("key", "key")):
        if tls in ("starttls", "tls") and name not in raw:
            check.problem(f"{key}.{name}", f'is missing: tls = "{tls}" needs a {what}')
        if tls == "none" and name in raw:
            check.problem(f"{key}.{name}", 'has no use with tls = "none"', 'tls = "starttls"')
    if model and model.requiretls and tls == "none":
        check.problem(f"{key}.requiretls", 'has no use with tls = "none"', 'tls = "starttls"')
    if model and model.cert and model.key and not _is_pair(model.cert, model.key):
        check.problem(f"{key}.key", f"{raw['key']} is not the key of the certificate {raw['cert']}")
    if raw.get("protocol") == "lmtp" and raw.get("port") == 25:
        check.problem(f"{key}.port", "25 is for SMTP, LMTP must not use it (RFC 2033)", "port = 24")
    for name in ("atrn", "etrn"):
        if raw.get("protocol") == "lmtp" and name in raw:
            check.problem(f"{key}.{name}", 'has no use with protocol = "lmtp"', "")
    for name in raw["atrn"] if isinstance(raw.get("atrn"), dict) else ():
        if not isinstance(raw.get("users"), dict) or name not in raw["users"]:
            check.problem(f"{key}.atrn.{name}", "is none of the users of this listener, and nobody else can fetch", "")
    users, allow, clear = raw.get("users"), raw.get("allow"), raw.get("auth_in_clear", False)
    if users and tls == "none" and clear is False:
        why = (
            "without TLS everybody on the network could read the passwords, so this listener"
            " does not"
            ' offer AUTH; set tls = "starttls", or auth_in_clear = true if you accept that risk'
        )
        if allow:
            check.warnings.append(f"{key}.users cannot log in: {why}")
        else:
            check.problem(f"{key}.users", f"cannot log in, and allow is empty: {why}", "")
    elif users and clear is True:
        check.warnings.append(
            f"{key}.auth_in_clear = true: passwords of these users can be read on the network"
        )
    if not users and not allow:
        check.warnings.append(
            f"{key} lets nobody send: it has neither allow nor users; for example:"
            f" {EXAMPLES['listener.allow']}"
        )
    if isinstance(users, dict):
        for name, value in users.items():
            if isinstance(value, str):
                check.warnings.append(
                    f"{key}.users.{name} has its password in board.toml for all to see; better:"
                    f" {EXAMPLES['listener.users']}"
                )
            elif isinstance(value, dict) and value.get("store") == "clear":
                check.warnings.append(
                    f'{key}.users.{name}: store = "clear" puts this password itself on the board, where whoever holds'
                    " the board or a copy of its flash can read it; only CRAM-MD5 needs that: use a password that is"
                    " used nowhere else"
                )
    for net in model.allow if model else ():
        if ipaddress.ip_network(net).is_global:
            check.warnings.append(
                f"{key}.allow has {net}, a public network: everybody there can send mail in"
                " your name"
            )


def _is_pair(cert, key):
    public = x509.load_der_x509_certificate(base64.b64decode(cert)).public_key()
    return public == ser.load_der_private_key(base64.b64decode(key), None).public_key()


def _check_together(check, raw, lists):
    taken = {}
    status = raw.get("status")
    if isinstance(status, dict) and isinstance(status.get("password"), str):
        check.warnings.append(
            "status.password stands in board.toml for everybody who reads that file to see; better:"
            f" {EXAMPLES['status.password']}"
        )
    if isinstance(status, dict):
        status = {"port": 80, "address": "0.0.0.0"} | status
    for key, table, _ in [*lists["listener"], ("status", status, None)]:
        if not isinstance(table, dict):
            continue
        port, address = table.get("port", 2525), table.get("address", "127.0.0.1")
        for other, other_address in taken.get(port, ()) if isinstance(port, int) else ():
            if address == other_address or {address, other_address} & {"0.0.0.0", "::"}:
                check.problem(
                    f"{key}.port", f"{port} is taken by {other} already", f"port = {port + 1}"
                )
                break
        if isinstance(port, int):
            taken.setdefault(port, []).append((key, address))
    names = {}
    for key, table, _ in lists["sensor"]:
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str):
            if name in names:
                check.problem(f"{key}.name", f"{name!r} is the name of {names[name]} already")
            names.setdefault(name, key)
    sensors.check_pins(check.problem, [(k, t) for k, t, _ in lists["sensor"] if isinstance(t, dict)])
    hosts = [table for _, table, _ in lists["smarthost"] if isinstance(table, dict)]
    if len(hosts) > 1 and [h for h in hosts if "by" in h]:
        check.problem("smarthost", 'by = "mx" is the only one: what an exchanger defers waits for it', "")
    mail = raw.get("mail", {})
    if isinstance(mail, dict) and (lists["sensor"] or mail.get("heartbeat")):
        if "from" not in mail:
            check.problem("mail.from", "is missing: alerts of sensors and heartbeats need a sender")
        if "to" not in mail and (mail.get("heartbeat") or not all(
            isinstance(t, dict) and "to" in t for _, t, _ in lists["sensor"]
        )):  # fmt: skip
            check.problem("mail.to", "is missing: who gets the alerts of the sensors, and heartbeats?")


# ---- what the board gets


def _smarthost(model):
    values = model.model_dump(exclude_none=True, exclude={"auth"})
    values["port"] = model.port or {"starttls": 587, "tls": 465}.get(model.security, 25)
    if values["protocol"] == "smtp":
        del values["protocol"]
    else:
        values["port"] = model.port or 24
    return values


def _listener(model, verifiers):
    values = {k: v for k, v in model.model_dump().items() if v is not None and (k, v) != ("protocol", "smtp")}
    values["users"] = {
        name: verifier(password, verifiers.get(name, ())) for name, password in model.users.items()
    }
    extra = [name.upper().replace("_", "-") for name in ("smtputf8", "requiretls", "mt_priority") if values.pop(name)]
    if extra:
        values["extra"] = extra
    return values


def _sensor(model, mail, base, board):
    values = sensors.normalised(model.model_dump(by_alias=True, exclude_none=True), base, board)
    values["to"] = model.to or mail.to
    return values


def verifier(password, old=()):
    """A password's SCRAM-SHA-256 verifier (RFC 5803); one of `old` if it is of this password
    already. For a _Clear one, the password itself, marked.
    """
    if isinstance(password, _Clear):
        return _auth().CLEAR + password
    make = _auth().make_verifier
    for text in old:
        try:
            _, info, _ = text.split("$")
            iterations, salt = info.split(":")
            same = make(password, int(iterations), base64.b64decode(salt))
        except (ValueError, AttributeError):
            continue
        if same == text:
            return text
    return make(password)


_STATUS = object()  # among the names of users


def _old_verifiers(previous):
    found = {}
    try:
        if "status" in previous:
            found[_STATUS] = [previous["status"]["verifier"]]
        for listener in previous["listener"]:
            for name, text in listener["users"].items():
                found.setdefault(name, []).append(text)
    except (TypeError, KeyError, AttributeError):
        pass
    return found


def _auth():
    return _library("auth")


def _library(name):
    """One of the library's own modules, from the checkout or from inside the wheel."""
    root = str(build.library().parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(f"smtp.{name}")
