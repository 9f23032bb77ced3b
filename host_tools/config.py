"""From board.toml, which a person writes, to config.json, which the board reads.

`load` reads and checks everything and tells all that is wrong at once. What the board gets is
normalised: times in seconds, sizes in bytes, certificates as base64 of their DER form, the time
zone as a rule, passwords of LAN users as SCRAM verifiers (RFC 5803), so that those passwords never
reach the board.
"""

import base64
import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization as ser
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from . import board as boards
from . import build, kinds, sensors
from .errors import UserError
from .examples import EXAMPLES

_TLS = ("none", "starttls", "tls")
# RFC 1918, 4193, 4291 2.5.6, and this machine itself.
_PRIVATE = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"]

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


# ---- the tables


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _is(check, default=..., alias=None):
    """A field's type: `check` decides, nothing is converted behind the person's back."""
    return Annotated[Any, PlainValidator(check), Field(default, alias=alias)]


class Board(_Table):
    name: _is(lambda v: kinds.text(v, "a name", 64))
    domain: _is(kinds.domain, "")
    timezone: _is(kinds.zone, [0])
    dns: _is(kinds.name_servers, None)
    ntp: _is(boards.servers(kinds.is_domain), None)
    led: _is(boards.led, None)
    watchdog: _is(kinds.flag, None)
    profile: _is(boards.profile, None)


class Wifi(_Table):
    ssid: _is(boards.ssid)
    password: _is(kinds.wifi_password, "")
    country: _is(boards.country, None)
    hostname: _is(boards.hostname, None)
    address: _is(boards.ipv4, None)
    netmask: _is(boards.netmask, None)
    gateway: _is(boards.ipv4, None)
    dns: _is(boards.ipv4, None)
    power_save: _is(kinds.flag, None)


class Log(_Table):
    max_bytes: _is(boards.log_size(kinds.size), 32 << 10)


class Sleep(_Table):
    every: _is(kinds.pace, 600.0)
    batch: _is(kinds.pace, 21600.0)
    urgent: _is(kinds.choice("urgent", "normal", "low"), "urgent")
    awake: _is(boards.awake(kinds.duration), 60.0)
    wake_pin: _is(sensors.pin, None)


class Ping(_Table):
    url: _is(kinds.ping_url)
    ca: _is(kinds.cas, [])
    verify: _is(kinds.choice("full", "none"), "full")
    every: _is(kinds.pace, 300.0)
    oldest: _is(kinds.pace, 3600.0)


class Status(_Table):
    port: _is(kinds.port, 80)
    address: _is(kinds.ip, "0.0.0.0")
    password: _is(kinds.status_password)
    allow: _is(kinds.readers, _PRIVATE)
    names: _is(kinds.names, [])
    health: _is(kinds.flag, True)
    health_age: _is(kinds.age, 3600)


class SmartHost(_Table):
    by: _is(kinds.choice("mx"), None)
    host: _is(kinds.host, "")
    protocol: _is(kinds.choice("smtp", "lmtp"), "smtp")
    port: _is(kinds.port, None)
    security: _is(kinds.choice("starttls", "tls", "none", "opportunistic"), "starttls")
    verify: _is(kinds.choice("full", "none"), "full")
    ca: _is(kinds.cas, [])
    username: _is(kinds.user_name, "")
    password: _is(kinds.password, "")
    auth: _is(kinds.choice("password", "oauth2"), "password")
    oauth: _is(lambda v: v, None)
    sender: _is(kinds.mailbox_or_none, "")
    per_minute: _is(kinds.count, None)
    per_day: _is(kinds.count, None)
    per_session: _is(kinds.count, None)


class Fetch(_Table):
    host: _is(kinds.host)
    port: _is(kinds.port, 366)
    security: _is(kinds.choice("starttls", "tls", "none"), "starttls")
    verify: _is(kinds.choice("full", "none"), "full")
    ca: _is(kinds.cas, [])
    username: _is(kinds.user_name)
    password: _is(kinds.password)
    domains: _is(kinds.domain_list)
    every: _is(kinds.pace, 900.0)
    senders: _is(kinds.mailboxes, [])
    verified_by: _is(lambda v: kinds.domain(v).lower(), "")
    forward: _is(kinds.forward, "")


class OAuth(_Table):
    provider: _is(kinds.choice(*PROVIDERS), None)
    tenant: _is(kinds.tenant, None)
    token_url: _is(kinds.token_url, None)
    client_id: _is(lambda v: kinds.text(v, "the client's ID"))
    client_secret: _is(kinds.password, "")
    scope: _is(lambda v: kinds.text(v, "a scope", 1000), None)
    refresh_token: _is(kinds.refresh_token, "")
    grant: _is(kinds.choice("refresh_token", "client_credentials"), "refresh_token")
    ca: _is(kinds.cas, None)
    mechanism: _is(kinds.choice("XOAUTH2", "OAUTHBEARER"), None)


class Mail(_Table):
    from_: _is(kinds.mailbox, "", "from")
    to: _is(kinds.mailboxes, [])
    admin: _is(kinds.mailbox_or_none, "")
    fold: _is(kinds.window, None)
    heartbeat: _is(kinds.window, None)


class Listener(_Table):
    address: _is(kinds.ip, "127.0.0.1")
    port: _is(kinds.port, 2525)
    tls: _is(kinds.choice(*_TLS), "none")
    cert: _is(kinds.cert, "")
    key: _is(kinds.key, "")
    allow: _is(kinds.networks, [])
    users: dict[Annotated[Any, PlainValidator(kinds.user_name)], Annotated[Any, PlainValidator(kinds.lan_secret)]] = {}
    auth_in_clear: _is(kinds.flag, False)
    greeting_delay: _is(kinds.duration, 0)
    bare_newline: _is(kinds.choice("fix", "refuse"), "fix")
    smtputf8: _is(kinds.flag, False)
    requiretls: _is(kinds.flag, False)
    mt_priority: _is(kinds.flag, False)
    protocol: _is(kinds.choice("smtp", "lmtp"), "smtp")
    etrn: _is(kinds.domain_list, None)
    atrn: _is(kinds.fetchers, None)


class Queue(_Table):
    max_bytes: _is(kinds.size, 512 << 10)
    max_count: _is(kinds.most, None)
    reserve: _is(kinds.reserve, None)
    displace: _is(kinds.choice("never", "dead", "oldest", "newest"), None)
    max_message: _is(kinds.size, 10 << 20)
    cut_through: _is(kinds.flag, None)
    retry: _is(kinds.duration, None)
    retry_max: _is(kinds.duration, None)
    pause: _is(kinds.duration, None)
    pause_max: _is(kinds.duration, None)
    delay_notice: _is(kinds.duration, None)
    expire: _is(kinds.duration, None)
    gather: _is(kinds.duration, None)
    bounce: _is(kinds.flag, None)


class Device(_Table):
    address: _is(kinds.device_network, "")
    user: _is(kinds.user_name, "")
    sender: _is(kinds.mailbox_or_none, "")
    per_hour: _is(kinds.count, 0)
    priority: _is(kinds.choice("urgent", "normal", "low"), "normal")


class Sensor(_Table):
    name: _is(lambda v: kinds.text(v, "a name", 64))
    driver: _is(kinds.choice(*sensors.DRIVERS))
    path: _is(lambda v: kinds.text(v, "the name of a file", 1024), None)
    every: _is(kinds.within_a_day, 10.0)
    timeout: _is(kinds.within_a_day, None)
    above: _is(kinds.number, None)
    below: _is(kinds.number, None)
    is_: _is(sensors.state, None, "is")
    on: _is(sensors.word, None)
    off: _is(sensors.word, None)
    hysteresis: _is(kinds.not_negative, 0.0)
    for_: _is(kinds.window, None, "for")
    repeat: _is(kinds.window, None)
    recovery: _is(kinds.flag, None)
    failures: _is(sensors.whole(0, 1000, "a number of readings (0 for never)"), None)
    unit: _is(sensors.unit, None)
    decimals: _is(sensors.whole(0, 6, "a number of digits"), None)
    subject: _is(sensors.template(200, False), None)
    text: _is(sensors.template(2000, True), None)
    recovery_subject: _is(sensors.template(200, False), None)
    recovery_text: _is(sensors.template(2000, True), None)
    pin: _is(sensors.pin, None)
    pull: _is(kinds.choice("up", "down", "none"), None)
    invert: _is(kinds.flag, None)
    debounce: _is(kinds.debounce, None)
    edge: _is(kinds.flag, None)
    points: _is(sensors.points, None)
    factor: _is(kinds.number, None)
    offset: _is(kinds.number, None)
    rom: _is(sensors.rom, None)
    reads: _is(kinds.choice("temperature", "humidity"), None)
    host: _is(kinds.host, None)
    port: _is(kinds.port, None)
    ping: _is(kinds.flag, None)
    function: _is(lambda v: kinds.text(v, "the name of a function", 64), None)
    to: _is(kinds.mailboxes, [])
    priority: _is(kinds.choice("urgent", "normal", "low"), "normal")


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
            self.problem(key, f"{kinds.show(raw)} is not a table")
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
            self.problem(path, f"{kinds.show(error['input'])} is not a table")
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
    already. For a kinds.Clear one, the password itself, marked.
    """
    auth = build.module("smtp.auth")
    if isinstance(password, kinds.Clear):
        return auth.CLEAR + password
    make = auth.make_verifier
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
