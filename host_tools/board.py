"""What board.toml says of the board itself: [wifi], [log], [sleep], [ping], and ntp, led, watchdog and profile in
[board].

Used by config, which knows the keys. The board's side is firmware/start.py and what it loads.
"""

import ipaddress
import re

from . import build, sensors

POOL = [["pool.ntp.org", 123]]  # asked when there is a [wifi] and nobody says anything else
_LOG = (8 << 10, 1 << 20)


# ---- values, each a function that gives the normalised value or raises ValueError


def ssid(value):
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not the name of a network in quotes")
    if len(value.encode("utf-8", "surrogatepass")) > 32:
        raise ValueError("is longer than 32 bytes, which no network's name is")
    return value


def wifi_password(value):
    """That of WPA2: 8 to 63 characters, or 64 hex digits."""
    if not (8 <= len(value) <= 63 or re.fullmatch(r"[0-9a-fA-F]{64}", value)):
        raise ValueError(f"has {len(value)} characters, and that of a network has 8 to 63")
    return value


def country(value):
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{2}", value):
        raise ValueError(f"{value!r} is not a country in two capital letters")
    return value


def hostname(value):
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?", value):
        raise ValueError(f"{value!r} is not 1 to 32 letters, digits and - without a - at its ends")
    return value


def hostname_of(name):
    """A host name made of what people call the board."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:32].strip("-").lower() or "edgepost"


def ipv4(value):
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 address such as 192.168.1.9") from None


def netmask(value):
    try:
        return str(ipaddress.IPv4Network("0.0.0.0/" + ipv4(value)).netmask)
    except ValueError:
        raise ValueError(f"{value!r} is not a netmask such as 255.255.255.0") from None


def servers(is_domain):
    """A check for time servers: gives pairs of name and port."""

    def check(value):
        found, wrong = [], []
        for item in value if isinstance(value, list) else [value]:
            host, _, port = item.rpartition(":") if isinstance(item, str) and ":" in item else (item, "", "123")
            try:
                if not is_domain(host) or not 1 <= int(port) <= 65535:
                    raise ValueError
                if re.fullmatch(r"[\d.]+", host):
                    ipaddress.IPv4Address(host)
                found.append([host.rstrip("."), int(port)])
            except (TypeError, ValueError):
                wrong.append(f"{item!r} is not the name or the IPv4 address of a time server")
        if len(found) > 6:
            wrong.append("names more than 6 time servers")
        if wrong:
            raise ValueError("; ".join(wrong))
        return found

    return check


def led(value):
    """True for the board's own LED, False, or a pin."""
    if isinstance(value, bool) or value == "LED":
        return value
    try:
        return sensors.pin(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither true, false nor a pin") from None


def profile(value):
    known = sorted(p.stem for p in (build.firmware() / "boards").glob("*.py") if p.stem not in ("board", "unix"))
    if value not in known:
        raise ValueError(f"{value!r} is none of firmware/boards: {', '.join(known)}")
    return value


def log_size(size):
    """A check of a size, as kinds.size() gives it."""

    def check(value):
        value = size(value)
        if not _LOG[0] <= value <= _LOG[1]:
            raise ValueError("is not between 8KB and 1MB")
        return value

    return check


def awake(duration):
    """A check of a time, as kinds.duration() gives it."""

    def check(value):
        value = duration(value)
        if not 20 <= value <= 900:
            raise ValueError("is not between 20s and 15m: joining the network alone takes seconds")
        return value

    return check


# ---- what goes together


def check(problem, warn, raw):
    """Reports what does not go together by problem(key, text, example=None), and what is risky by warn(text)."""
    wifi = raw.get("wifi")
    board = raw.get("board")
    if isinstance(board, dict) and not isinstance(board.get("led"), bool) and "led" in board:
        tables = raw.get("sensor", [])
        for table in tables if isinstance(tables, list) else [tables]:
            if isinstance(table, dict) and table.get("pin") == board["led"]:
                problem("board.led", f"{board['led']} is the pin of a sensor, too", "led = true")
    if not isinstance(wifi, dict):
        return
    if "password" not in wifi:
        warn("wifi.password is missing: an open network, in which everybody near can read what is sent without TLS")
    elif isinstance(wifi["password"], str):
        warn(
            "wifi.password stands in board.toml for everybody who reads that file to see; better: password = { env ="
            ' "WIFI_PASSWORD" }'
        )
    if "address" not in wifi:
        for name in ("netmask", "gateway", "dns"):
            if name in wifi:
                problem(f"wifi.{name}", "has no use without address, the board's own", 'address = "192.168.1.9"')
    elif "gateway" not in wifi:
        problem("wifi.gateway", "is missing: a fixed address needs the address of the router")
    else:
        try:
            network = ipaddress.IPv4Network((wifi["address"], wifi.get("netmask", "255.255.255.0")), strict=False)
            if ipaddress.IPv4Address(wifi["gateway"]) not in network:
                problem("wifi.gateway", f"{wifi['gateway']} is not in the network of the board, {network}")
        except (TypeError, ValueError):
            pass  # told already
    listeners = raw.get("listener", [])
    for table in listeners if isinstance(listeners, list) else [listeners]:
        if isinstance(table, dict) and str(table.get("address", "127.0.0.1")).startswith("127."):
            warn(
                "a listener's address is that of the board itself, where no device can reach it; set"
                ' listener.address = "0.0.0.0"'
            )


def check_sleep(problem, warn, raw):
    """The same of [sleep]."""
    sleep = raw.get("sleep")
    if not isinstance(sleep, dict):
        return
    for name in ("listener", "status"):
        if name in raw:
            problem(name, "needs a board that is always awake, and with [sleep] it is not: leave out one of them", "")
    tables = raw.get("sensor", [])
    tables = [t for t in (tables if isinstance(tables, list) else [tables]) if isinstance(t, dict)]
    if not tables:
        problem("sensor", "is missing: a board that sleeps has nothing to do but to read its sensors")
    for n, table in enumerate(tables):
        key = "sensor" if len(tables) == 1 else f"sensor[{n + 1}]"
        if table.get("edge") is True:
            problem(f"{key}.edge", "sees nothing while the board sleeps: let sleep.wake_pin wake it", "")
        if table.get("driver") == "reachable":
            problem(f"{key}.driver", '"reachable" needs the network, which a board that sleeps has not', "")
        if "every" in table:
            warn(f"{key}.every has no use with [sleep]: each sensor is read when the board wakes, sleep.every")
    pin = sleep.get("wake_pin")
    if pin is not None and not any(t.get("pin") == pin and t.get("driver") == "digital" for t in tables):
        problem("sleep.wake_pin", f"{pin} is the pin of no [[sensor]] with driver = \"digital\"")
    if "ping" in raw and isinstance(raw["ping"], dict) and "every" in raw["ping"]:
        problem("ping.every", "has no use with [sleep]: there is one ping in each sleep.batch", "")


def check_ping(problem, warn, raw, url):
    """The same of [ping]; url: what it comes to."""
    verify = raw.get("verify", "full")
    if isinstance(raw["url"], str):
        warn(
            "ping.url stands in board.toml for everybody who reads that file to see, and who knows it can say that all"
            ' is well; better: url = { env = "PING_URL" }'
        )
    if url.startswith("http:"):
        if verify != "none":
            problem(
                "ping.url", "begins with http://: everybody on the way can read it, and answer; take https://, or say"
                ' verify = "none"', 'verify = "none"',
            )  # fmt: skip
        if "ca" in raw:
            problem("ping.ca", "has no use with http://", "")
    elif verify == "full" and "ca" not in raw:
        problem("ping.ca", "is missing: the CA that signed the certificate of the host in ping.url")
    if verify == "none":
        warn('ping.verify = "none": whoever stands in between can read ping.url and go on pinging for a dead gateway')


def values(wifi, board):
    """[wifi] as the board gets it: a dict; wifi and board are the checked models."""
    found = wifi.model_dump(exclude_none=True)
    found.setdefault("hostname", hostname_of(board.name))
    if wifi.address:
        found.setdefault("netmask", "255.255.255.0")
        found.setdefault("dns", wifi.gateway)
    if not found["password"]:
        del found["password"]
    return found
