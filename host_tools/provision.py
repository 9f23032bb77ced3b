"""`edgepost provision`: from a board.toml, or from questions, to a configuration on a board that works.

It checks the file as `run` does, signs in at the smart host as `doctor` does, finds the roots that verify it, writes
/config.json on the board, whole or not at all, and resets it, until the gateway says that it is up. Certificates and
keys are in config.json itself, so that one rename changes everything or nothing. Code is not touched.

Exit status: 0 done, 1 something is wrong with the smart host or the gateway did not come up, 2 the person can put it
right.
"""

import asyncio
import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import shutil
import socket
import tempfile
import textwrap
import urllib.parse
from pathlib import Path

import tomlkit
from cryptography import x509

from . import certificates, config, device, doctor, fleet, kinds, roots, start, wizard
from .ask import agree, ask
from .board import hostname_of
from .errors import UserError
from .providers import known

OLDEST = (1, 23)  # of MicroPython
_CA_DIRECTORY = "edgepost-ca"
_DAYS = 820  # that a listener's certificate lasts: some devices take none that lasts for more than 825
_RENEW = 90  # days before its end from which on it is made anew
_MISSING_CA = ("smarthost", ".ca: is missing")


class Failed(Exception):
    """Exit status 1: everything that is to be said has been said."""


class File:
    """A TOML file that is read, and changed with all its comments. `raw`: its tables; save() writes what was set."""

    def __init__(self, path, dry=False):
        self.path, self.dry = Path(path), dry
        self.raw = config.read(path)
        self.changes = []

    def set(self, name, key, value, number=0, member=None):
        """name: a table; number: which, where there are several; member: the number of the [[board]] it stands in."""
        self.changes.append((name, key, value, number, member))
        _set(self.raw, *self.changes[-1])

    def save(self):
        if self.dry or not self.changes:
            return
        draft = self.path.with_name(self.path.name + ".new")
        try:
            doc = tomlkit.parse(self.path.read_bytes().decode())
            for change in self.changes:
                _set(doc, *change)
            text = tomlkit.dumps(doc).encode()
            draft.write_bytes(text)
            shutil.copymode(self.path, draft)
            draft.replace(self.path)
        except OSError as e:
            raise UserError(f"{self.path} cannot be written: {e.strerror}") from None
        self.changes = []


def _set(tables, name, key, value, number, member):
    at = tables if member is None else tables["board"][member]
    if name not in at:
        at[name] = {} if isinstance(tables, dict) and not isinstance(tables, tomlkit.TOMLDocument) else tomlkit.table()
    at = at[name]
    if isinstance(at, list):
        at = at[number]
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        value = inline if isinstance(tables, tomlkit.TOMLDocument) else value
    at[key] = value


class Task:
    """One board's configuration: `raw` its tables, `label` what the person knows it by, `file` the File it stands in,
    `member` its fleet.Member or None."""

    def __init__(self, file, raw, label, member=None):
        self.file, self.raw, self.label, self.member = file, raw, label, member

    def smarthosts(self):
        hosts = self.raw.get("smarthost", [])
        return [h for h in (hosts if isinstance(hosts, list) else [hosts]) if isinstance(h, dict)]

    def set(self, number, key, value):
        """Sets a key of a smart host, also in the file: where the board's own table has one, there."""
        self.smarthosts()[number][key] = value
        member = None
        if self.member and isinstance(self.member.table.get("smarthost"), dict):
            own = self.member.table["smarthost"]
            if {"host", "username", key} & own.keys():
                member = self.member.n
        elif self.member and "smarthost" in self.member.table:
            member = self.member.n
        self.file.set("smarthost", key, value, number, member)

    def load(self, env, previous=None):
        return config.load(self.file.path, env, previous, self.raw, self.label)


class Provision:
    """What is said and known during one command."""

    def __init__(self, args):
        self.args = args
        self.env = os.environ
        self.secrets = []
        self.store = None
        self.drafts = None  # where what is not to be written goes
        self.found = {}  # (host, port): the file of its roots
        self.seen = set()  # what was examined at smart hosts

    def say(self, text=""):
        for secret in self.secrets:
            text = text.replace(secret, "***")
        print(text, flush=True)

    def note(self, text):
        width = max(40, shutil.get_terminal_size((80, 24)).columns)
        self.say("\n".join(textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False,
                                         break_on_hyphens=False)))  # fmt: skip

    def learn(self, values):
        """Remembers what may not be shown."""
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if isinstance(value, (dict, list)):
                self.learn(value)
            elif key in ("password", "client_secret", "refresh_token", "key", "url") and len(value) > 3:
                self.secrets.append(value)

    # ---- the configuration

    def prepare(self, task):
        """Everything up to the board: gives nothing, raises UserError or Failed."""
        if "wifi" not in task.raw:
            example = config.EXAMPLES["wifi"]
            raise config.ConfigError(task.label, [f"wifi: is missing: a board needs a network; for example: {example}"])
        if self.args.certificate:
            self.certificate(task)
        try:
            task.load(self.env)
        except config.ConfigError as e:
            problems = [p for p in e.problems if not (p.startswith(_MISSING_CA[0]) and _MISSING_CA[1] in p)]
            if problems:
                raise config.ConfigError(task.label, problems) from None
        self.roots(task)
        values, warnings = task.load(self.env)
        self.learn(values)
        for warning in warnings:
            self.note(f"  note  {warning}")
        if not self.args.no_connect:
            self.examine(task, values)

    # ---- roots

    def roots(self, task):
        """Finds the roots of those smart hosts whose `ca` is not given."""
        for number, host in enumerate(task.smarthosts()):
            oauth = host.get("oauth") if isinstance(host.get("oauth"), dict) else {}
            security = host.get("security", "starttls")
            if "ca" in host or security not in ("starttls", "tls") or host.get("verify") == "none":
                continue
            if not host.get("host") or host.get("protocol", "smtp") != "smtp":
                continue
            port = host.get("port", 465 if security == "tls" else 587)
            name = f"{host['host']}.roots.pem"
            asked = (host["host"], port) in self.found
            if not asked:
                self.found[host["host"], port] = self.find(task, host, port, security, oauth, name)
            path = self.found[host["host"], port]
            host["ca"] = str(path) if self.args.check else path.name
            told = f'ca = "{path.name}" in {task.file.path}'
            if asked:
                pass  # and refused
            elif self.args.check:
                self.say(f"edgepost: would write {path} and {told}")
            elif agree(f"Write {told}?", self.args.yes):
                task.set(number, "ca", path.name)
                task.file.save()
            else:
                self.say(f"edgepost: {task.file.path} stays as it is; the roots are found again each time")

    def find(self, task, host, port, security, oauth, name):
        """The file with the roots of a smart host."""
        if self.store is None:
            self.store = roots.trusted()
        provider = known(host["host"])
        found = {}
        if not self.args.no_connect:
            self.reach(task, host["host"], port, security)
            try:
                domain = task.raw["board"].get("domain") or "[127.0.0.1]"
                found, greeting = roots.today(host["host"], port, security, self.store, self.args.timeout, domain)
                provider = known(host["host"], greeting)
                where = config.PROVIDERS.get(oauth.get("provider"), {}).get("token_url", "")
                where = urllib.parse.urlsplit(oauth.get("token_url") or where)
                if where.hostname and "ca" not in oauth:
                    of = roots.today(where.hostname, where.port or 443, "tls", self.store, self.args.timeout)
                    found.update(of[0])
            except OSError as e:
                raise UserError(f"{host['host']} port {port}: {e.strerror or e}; try again") from None
        chosen = roots.choose(found, provider, self.store)
        if not chosen:
            raise UserError(
                f"{host['host']} was not asked (--no-connect), and its roots are not known without that: give"
                f' smarthost.ca = "ca.pem" in {task.file.path}'
            )
        self.say(f"edgepost: roots for {host['host']}, {roots.sizes(chosen)}:")
        for root in chosen:
            self.note(f"  {root.name}, until {root.end:%Y-%m-%d}: {root.why}")
        if len(chosen) == len(found):
            self.note("  note  which root it may change to is not known: when it does, run this command again")
        if self.args.check:
            self.drafts = self.drafts or tempfile.TemporaryDirectory(prefix="edgepost-")
            path = Path(self.drafts.name) / name
        else:
            path = task.file.path.absolute().with_name(name)
        roots.write(path, host["host"], chosen)
        return path

    def reach(self, task, host, port, security):
        """Fails, in doctor's words, when there is no connection."""
        report = doctor.Report(self.row_of_trouble)
        board = task.raw["board"] if isinstance(task.raw.get("board"), dict) else {}
        dns = config.check_value("board.dns", board["dns"]) if "dns" in board else None
        table = {"host": host, "port": port, "security": security}
        examination = doctor.Examination(report, table, {"board": {"dns": dns}}, patience=self.args.timeout)
        report.about = f"{host} port {port}"

        async def try_it():
            addresses = await examination.name()
            stream = addresses and await examination.connect(addresses)
            if stream:
                stream.close()

        asyncio.run(try_it())
        self.end(report)

    def row_of_trouble(self, row):
        if row[2] == doctor.BAD:
            self.row(row)

    def row(self, row):
        self.say("\n".join(doctor.lines(row, shutil.get_terminal_size((80, 24)).columns)))

    def end(self, report):
        if not report.ok:
            self.say(f"edgepost: {report.about}: nothing is written on the board; --no-connect goes on without asking")
            raise Failed

    # ---- the smart host

    def examine(self, task, values):
        for number, host in enumerate(values["smarthost"]):
            mark = hashlib.sha256(json.dumps([host, values["mail"], bool(values["listener"])]).encode()).digest()
            if mark in self.seen or not host.get("host") or host.get("protocol", "smtp") != "smtp":
                continue
            self.seen.add(mark)
            examination = self.session(host, values)
            if examination.foreign and self.propose(task, number, host, examination):
                values, _ = task.load(self.env)
                examination = self.session(values["smarthost"][number], values)
            self.end(examination.report)

    def session(self, host, values):
        report = doctor.Report(self.row)
        self.say(f"{host['host']} port {host['port']}")
        mail = values["mail"]
        to = self.args.to or (mail["to"] or [mail["admin"]])[0]  # many refuse a sender only with a recipient
        examination = doctor.Examination(report, host, values, to, bool(self.args.to), patience=self.args.timeout)
        asyncio.run(examination.run())
        return examination

    def propose(self, task, number, host, examination):
        """Proposes a sender that the smart host takes; gives whether that was agreed."""
        user = host.get("username", "")
        sender = user if "@" in user else ""
        if not sender and not self.args.yes:
            try:
                sender = ask("An address that it may send as", wizard.checked("smarthost.sender"), "")
            except UserError:
                sender = ""
        if not sender or sender.lower() == examination.foreign.lower():
            return False
        what = f'smarthost.sender = "{sender}"'
        if self.args.check:
            self.say(f"edgepost: would propose {what}")
            return False
        if not agree(f"Write {what} into {task.file.path}?", self.args.yes):
            return False
        task.set(number, "sender", sender)
        task.file.save()
        return True

    # ---- a listener's certificate

    def certificate(self, task):
        """Makes or renews the certificates of listeners with TLS."""
        listeners = task.raw.get("listener", [])
        listeners = listeners if isinstance(listeners, list) else [listeners]
        with_tls = [t for t in listeners if isinstance(t, dict) and t.get("tls") in ("starttls", "tls")]
        if not with_tls:
            raise UserError(
                f'{task.label}: --certificate is for a listener with TLS, and there is none: set tls = "starttls" in'
                " [[listener]]"
            )
        base = task.file.path.absolute().parent
        names = self.names(task)
        label = hostname_of(str(task.raw["board"].get("name", "")))
        for table in with_tls:
            number = next(n for n, t in enumerate(listeners) if t is table)
            here = [f"{_CA_DIRECTORY}/{label}.{kind}" for kind in ("pem", "key")]
            cert, key = (table.get(name, there) for name, there in zip(("cert", "key"), here, strict=True))
            if self.args.check:
                if not (base / cert).exists():
                    raise UserError(f"{task.label}: {cert} is not made yet, and --check makes nothing")
                continue
            directory = base / _CA_DIRECTORY
            try:
                directory.mkdir(mode=0o700, exist_ok=True)
                directory.chmod(0o700)
                authority = certificates.Authority(directory, "edgepost CA of " + socket.gethostname()[:40])
                if _is_good(base / cert, base / key, authority, names):
                    self.say(f"edgepost: the certificate {cert} is good and stays")
                else:
                    made = authority.issue(names, label=label, days=_DAYS)
                    for source, target in zip(made, (base / cert, base / key), strict=True):
                        if source != target:
                            certificates.write_private(target, source.read_bytes())
                            source.unlink()
                    self.say(f"edgepost: made the certificate {cert} for {', '.join(names)}, good for {_DAYS} days")
            except OSError as e:
                raise UserError(f"{e.filename} cannot be written: {e.strerror}") from None
            member = task.member.n if task.member and "listener" in task.member.table else None
            for name, path in (("cert", cert), ("key", key)):
                if name not in table:
                    table[name] = path
                    if not task.member or member is not None:
                        task.file.set("listener", name, path, number, member)
            task.file.save()
            self.note(
                f"edgepost: devices have to trust {directory / 'ca.pem'}; {directory} stays with you alone: who has its"
                " key can make certificates that they trust"
            )

    def names(self, task):
        """The names and addresses of a board, for a certificate."""
        board, wifi = task.raw.get("board", {}), task.raw.get("wifi", {})
        host = wifi.get("hostname") or hostname_of(str(board.get("name", "")))
        found = [board.get("domain"), host, f"{host}.local", wifi.get("address"), *self.args.name]
        for name in self.args.name:
            try:
                config.check_value("smarthost.host", name)
            except ValueError as e:
                raise UserError(f"--name {name}: {e}") from None
        return list(dict.fromkeys(n for n in found if isinstance(n, str) and n))

    # ---- the board

    def port(self, task):
        if self.args.port:
            return self.args.port
        if not task.member or not (task.member.port or task.member.serial):
            return device.find()
        port = task.member.find()
        if not port:
            raise UserError(
                f"{task.member.name} is not plugged in"
                f" ({'USB serial number ' + task.member.serial if task.member.serial else task.member.port})"
            )
        return port

    def write(self, task):
        """Writes the configuration on the board, and waits till the gateway is up."""
        port = self.port(task)
        board = device.connect(port)
        previous, hard = None, False
        try:
            info = self.check_board(board, task)
            previous = _config_of(board)
            hard = bool(isinstance(previous, dict) and _dig(previous, "board", "watchdog"))
            values, _ = task.load(self.env, previous)
            data = json.dumps(values, separators=(",", ":")).encode()
            there = board.hash("/config.json") == hashlib.sha256(data).hexdigest()
            name = values["board"]["name"]
            if self.args.check:
                what = "has this configuration already" if there else f"would get {len(data)} octets of configuration"
                self.say(f"edgepost: {name} at {port} {what}; nothing was written")
                self.go_on(board, hard)
                return
            if there:
                self.say(f"edgepost: {name} at {port} has this configuration already")
            else:
                board.write("/config.json", data)
                self.say(f"edgepost: {name} at {port} has its configuration, {len(data)} octets; it starts ...")
        except BaseException:
            self.go_on(board, hard)
            raise
        up = start.again(board, hard, bool(values.get("wifi")))
        self.tell(up, values, info)

    def check_board(self, board, task):
        info = board.info()
        if tuple(info.version[:2]) < OLDEST:
            version = ".".join(str(n) for n in info.version)
            raise device.BoardError(
                f"the board at {board.port} has MicroPython {version}, and edgepost needs 1.23 or later: edgepost flash"
            )
        profile = _dig(task.raw, "board", "profile")
        if not info.kind and not profile:
            raise device.BoardError(
                f"the board at {board.port} is of a kind that is not known here ({info.platform}): set board.profile"
            )
        if info.kind and profile in ("pico_w", "esp32") and profile != info.kind:
            raise device.BoardError(
                f"{task.label} is for a board with profile {profile}, and what is at {board.port} is a"
                f" {info.machine or info.platform}: name the port of the right one: --port"
            )
        return info

    def go_on(self, board, hard):
        """What ran on the board before runs again."""
        with contextlib.suppress(device.BoardError):
            start.again(board, hard, False, 20)

    def tell(self, up, values, info):
        if not up.code:
            self.say("edgepost: there is no gateway on it yet; next: edgepost deploy")
            return
        if not up.ready:
            self.say("edgepost: the gateway did not come up. Its console says:")
            self.say("\n".join("  | " + line for line in up.said[-12:]) or "  | nothing")
            raise Failed
        where = f"; its address is {up.address}" if up.address else ""
        ports = up.listens or [f"{t['address']} port {t['port']}" for t in values["listener"]]
        listens = f" and listens on {', '.join(ports)}" if ports else ""
        self.say(f"edgepost: the gateway is up{listens}{where}")
        if up.network:
            self.note(f"edgepost: but it has no network: {up.network}. Put it right and run this again")
            raise Failed
        if values.get("wifi") and not up.address and not up.asleep:
            self.note("edgepost: but it has not joined its network yet; its console says more")
            raise Failed
        for table in values["listener"]:
            if up.address and table["tls"] != "none" and up.address not in _names_in(table["cert"]):
                self.note(
                    f"  note  devices that call it by {up.address} will not accept its certificate: run this again with"
                    f" --certificate --name {up.address}"
                )
                break


def _dig(tables, *keys):
    for key in keys:
        tables = tables.get(key) if isinstance(tables, dict) else None
    return tables


def _config_of(board):
    """The configuration that is on a board, or None."""
    if not board.stat("/config.json"):
        return None
    try:
        return json.loads(board.read_file("/config.json"))
    except ValueError:
        return None


def _alt(cert):
    try:
        alt = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {str(name.value) for name in alt}


def _names_in(b64):
    return _alt(x509.load_der_x509_certificate(base64.b64decode(b64)))


def _is_good(cert, key, authority, names):
    """Whether a certificate is there, of this CA, for all these names and for long enough."""
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        found.verify_directly_issued_by(authority.cert)
        left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    except (OSError, ValueError, TypeError):
        return False
    except Exception as e:
        if type(e).__name__ != "InvalidSignature":
            raise
        return False
    wanted = {_ip(name) for name in names}
    return key.exists() and left.days > _RENEW and wanted <= {_ip(name) for name in _alt(found)}


def _ip(name):
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def run(args):
    """`edgepost provision`, with its arguments. Gives the exit status."""
    path = Path(args.board_toml)
    if args.to:
        try:
            kinds.mailbox(args.to)
        except ValueError as e:
            raise UserError(f"--to {args.to}: {e}") from None
    if not path.exists() and not args.check:
        wizard.make(path)
    file = File(path, args.check)
    work = Provision(args)
    try:
        return _run(work, args, path, file)
    finally:
        if work.drafts:
            work.drafts.cleanup()


def _run(work, args, path, file):
    if not fleet.is_one(file.raw):
        if args.board or args.all:
            raise UserError(f"{path} is of one board: --board and --all are for a fleet, with [[board]] tables")
        if not args.check:
            wizard.fill(file)
        return _one(work, Task(file, file.raw, str(path)))
    boards = fleet.members(file.raw, path)
    if args.all:
        if args.port:
            raise UserError("--port names one board, and --all is all of them")
        return _all(work, file, boards)
    member = fleet.chosen(boards, args.board, args.port, path)
    return _one(work, Task(file, member.raw, f"{path}, board {member.name}", member))


def _one(work, task):
    try:
        work.prepare(task)
        named = work.args.port or task.member and (task.member.port or task.member.serial)
        if work.args.check and not named:
            try:
                device.find()
            except UserError as e:
                work.say(f"edgepost: no board was looked at: {e}")
                return 0
        work.write(task)
    except Failed:
        return 1
    return 0


def _all(work, file, boards):
    """All boards of a fleet that are plugged in; gives the exit status."""
    done, bad = [], []
    here = [m for m in boards if m.find()]
    if not here:
        raise UserError(f"none of the {len(boards)} boards of {file.path} is plugged in")
    for member in here:
        member = fleet.members(file.raw, file.path)[member.n]  # what was agreed for one before is there
        work.say(f"\n{member.name}")
        try:
            status = _one(work, Task(file, member.raw, f"{file.path}, board {member.name}", member))
        except UserError as e:
            work.say(f"edgepost: {e}")
            status = 2
        (bad if status else done).append(member.name)
    away = [m.name for m in boards if m not in here]
    work.say(f"\nedgepost: {len(done)} of {len(here)} boards are done" + (f"; not: {', '.join(bad)}" if bad else ""))
    if away:
        work.note(f"edgepost: not plugged in: {', '.join(away)}")
    return 1 if bad else 0
