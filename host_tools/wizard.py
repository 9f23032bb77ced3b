"""Makes a board.toml by questions, and asks for what one lacks. Each answer is checked at once, as config.load does.

Secrets go into files beside it that only their owner can read, or stay in the environment; board.toml only names them.
"""

import os
import socket

import tomlkit

from . import config, kinds, sensors
from .ask import ask, choice, secret
from .certificates import write_private
from .errors import UserError

_KNOWN = {
    "m365": ("smtp.office365.com", "per_minute = 30                      # what Microsoft 365 takes\n"),
    "gmail": ("smtp.gmail.com", "per_day = 500                        # what Gmail takes; 2000 with Workspace\n"),
}


def checked(key):
    """A check of an answer to be given to ask()."""

    def check(text):
        config.check_value(key, text)
        return text

    return check


def number(key, kind=int):
    """The same for a number."""

    def check(text):
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number") from None
        config.check_value(key, value)
        return value

    return check


def q(value):
    """A value as TOML has it."""
    return tomlkit.item(value).as_string()


class Secrets:
    """Where what is typed goes: `file` names, made when save() is called."""

    def __init__(self, path):
        self.path, self.files = path, {}

    def ask(self, what, key, name, optional=False):
        """The value for board.toml, { file = ... } or { env = ... }, or None."""
        found = secret(what, checked(key), optional)
        if not found:
            return None
        if found[0] == "env":
            return {"env": found[1]}
        file = f"{self.path.stem}.{name}"
        self.files[file] = found[1]
        return {"file": file}

    def save(self):
        for name, text in self.files.items():
            try:
                write_private(self.path.with_name(name), text.encode() + b"\n")
            except OSError as e:
                raise UserError(f"{self.path.with_name(name)} cannot be written: {e.strerror}") from None


def inline(table):
    """{ env = "NAME" } as TOML."""
    ((key, value),) = table.items()
    return f"{{ {key} = {q(value)} }}"


def zone():
    """The name of this computer's time zone, or ""."""
    _, there, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    try:
        config.check_value("board.timezone", name)
    except ValueError:
        return ""
    return name if there else ""


def lan():
    """The network that this computer is in, likely, as text."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
            own = sock.getsockname()[0]
        except OSError:
            own = ""
    if own.startswith(("10.", "192.168.")):
        return own.rpartition(".")[0] + ".0/24"
    return "192.168.1.0/24"


def make(path):
    """Asks, and writes a board.toml to `path`, which is not there yet. Raises UserError when the answers end."""
    print(f"{path} is not there yet: a few questions make it. An empty answer takes what stands in [ ].", flush=True)
    hidden = Secrets(path)
    name = ask("Name of the board", checked("board.name"), "edgepost", key="board.name")
    text = f"# Made by edgepost provision; docs/configuration.md has every key.\n\n[board]\nname = {q(name)}\n"
    if zone():
        text += f"timezone = {q(zone())}\n"
    ssid = ask("Name of the Wi-Fi network", checked("wifi.ssid"), key="wifi.ssid")
    key = hidden.ask("Its password", "wifi.password", "wifi-password", True)
    country = ask("Country, such as DE, or nothing", checked("wifi.country"), "", key="wifi.country")
    text += f"\n[wifi]\nssid = {q(ssid)}\n" + (f"password = {inline(key)}\n" if key else "")
    text += f"country = {q(country)}\n" if country else ""
    smart, user = _smarthost(hidden)
    text += smart
    address = user if "@" in user else ""
    admin = ask("Who gets the alerts and is told of trouble, an address", checked("mail.admin"), key="mail.admin")
    sender = address or ask("Sender of the board's own mail, an address", checked("mail.from"), key="mail.from")
    text += f"\n[mail]\nfrom = {q(sender)}\nto = [{q(admin)}]\nadmin = {q(admin)}\n"
    what = "What is it for: takes mail of devices, or reads a sensor"
    first = choice(what, ("listener", "sensor", "both"), "listener")
    if first != "sensor":
        text += _listener()
    if first != "listener":
        text += _sensor()
    hidden.save()
    try:
        with open(path, "x", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror}") from None
    made = [str(path), *hidden.files]
    print("edgepost: made " + " and ".join(made), flush=True)


def _smarthost(hidden):
    """([smarthost] as text, the user)."""
    provider = choice("Who passes the mail on", ("m365", "gmail", "other"), "other")
    host, more = _KNOWN.get(provider, ("", ""))
    if not host:
        host = ask("Its host name", checked("smarthost.host"), key="smarthost.host")
        port = ask("Its port", number("smarthost.port"), "587", key="smarthost.port")
        more = f"port = {port}\n" + ('security = "tls"\n' if port == 465 else "")
    text = f"\n[smarthost]\nhost = {q(host)}\n{more}"
    if provider != "other":
        user = ask("Mailbox that it signs in with, an address", checked("mail.from"), key="smarthost.username")
        text += f"username = {q(user)}\nsender = {q(user)}\n"
    else:
        user = ask("User name there, or nothing", checked("smarthost.username"), "", key="smarthost.username")
        text += f"username = {q(user)}\n" if user else ""
    how = "password"
    if provider == "m365":
        how = choice("It signs in with (docs/providers.md)", ("oauth2", "password"), "oauth2")
    if how == "oauth2":
        tenant = ask("Tenant: its ID or one of its domains", kinds.tenant, key="smarthost.oauth.tenant")
        client = ask("Application (client) ID", kinds.text, key="smarthost.oauth.client_id")
        value = hidden.ask("Client secret (empty: somebody signs in)", "smarthost.password", "client-secret", True)
        text += 'auth = "oauth2"\n\n[smarthost.oauth]\nprovider = "m365"\n'
        text += f"tenant = {q(tenant)}\nclient_id = {q(client)}\n"
        if value:
            return text + f'client_secret = {inline(value)}\ngrant = "client_credentials"\n', user
        return text + f"refresh_token = {{ file = {q(hidden.path.stem + '.refresh-token')} }}\n", user
    if user:
        what = "App password" if provider == "gmail" else "Password there"
        text += f"password = {inline(hidden.ask(what, 'smarthost.password', 'smtp-password'))}\n"
    return text, user


def _listener():
    def network(text):
        (found,) = config.check_value("listener.allow", [text])
        return found

    port = ask("Port for the devices", number("listener.port"), "2525", key="listener.port")
    allow = ask("Network of the devices", network, lan(), key="listener.allow")
    return f'\n[[listener]]\naddress = "0.0.0.0"\nport = {port}\nallow = [{q(allow)}]\n'


def _sensor():
    name = ask("Name of the sensor", checked("sensor.name"), "freezer", key="sensor.name")
    driver = choice("What it is", ("ds18x20", "digital", "chip"), "ds18x20")
    text = f"\n[[sensor]]\nname = {q(name)}\ndriver = {q(driver)}\n"

    def pin(text):
        return sensors.pin(int(text) if text.isdigit() else text)

    if driver != "chip":
        text += f"pin = {q(ask('Pin that it is at', pin, '4' if driver == 'ds18x20' else '14', key='sensor.pin'))}\n"
    if driver == "digital":
        return text + 'on = "open"\noff = "closed"\nis = "open"\nrecovery = true\n'
    limit = ask("Alert above how many °C", number("sensor.above", float), "30", key="sensor.above")
    return text + f'above = {q(limit)}\nunit = "°C"\nfor = "1m"\nhysteresis = 1.0\nrecovery = true\n'


# ---- what an existing one lacks


def fill(file):
    """Asks for what a File (see provision) lacks, and writes it there. Raises UserError when nobody answers."""
    raw, hidden = file.raw, Secrets(file.path)
    found = {}

    def table(name):
        value = raw.get(name, {})
        return value if isinstance(value, dict) else None

    def lacks(name, key):
        return table(name) is not None and key not in table(name)

    if lacks("board", "name"):
        found["board", "name"] = ask("Name of the board", checked("board.name"), "edgepost", key="board.name")
    if lacks("wifi", "ssid"):
        found["wifi", "ssid"] = ask("Name of the Wi-Fi network", checked("wifi.ssid"), key="wifi.ssid")
        if lacks("wifi", "password"):
            key = hidden.ask("Its password", "wifi.password", "wifi-password", True)
            if key:
                found["wifi", "password"] = key
    if lacks("smarthost", "host"):
        found["smarthost", "host"] = ask("Host name of the smart host", checked("smarthost.host"), key="smarthost.host")
    smart = table("smarthost") or {}
    if "username" in smart and "password" not in smart and "oauth" not in smart and smart.get("auth") != "oauth2":
        found["smarthost", "password"] = hidden.ask("Password at the smart host", "smarthost.password", "smtp-password")
    mail = table("mail") or {}
    if "sensor" in raw or mail.get("heartbeat"):
        if lacks("mail", "from"):
            found["mail", "from"] = ask("Sender of the board's own mail", checked("mail.from"), key="mail.from")
        if lacks("mail", "to"):
            to = ask("Who gets the alerts", checked("mail.admin"), key="mail.to")
            found["mail", "to"] = [to]
    if lacks("mail", "admin") and not (raw.get("listener") and mail.get("to")) and found:
        found["mail", "admin"] = ask("Who is told of trouble, an address", checked("mail.admin"), key="mail.admin")
    if not found:
        return
    hidden.save()
    for (name, key), value in found.items():
        file.set(name, key, value)
    file.save()
    print(f"edgepost: {file.path} has {', '.join('.'.join(key) for key in found)} now", flush=True)


