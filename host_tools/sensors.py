"""[[sensor]] of board.toml: what its values may be, what goes together, and what the board gets of it.

Used by config, which knows the keys. The board's side is firmware/sensors.py and firmware/drivers/.
"""

import ast
import difflib
import re

from . import build

# For each driver: the keys that it needs, with the reason, and those that it takes.
DRIVERS = {
    "file": ({"path": "reads its values from a file"}, ()),
    "digital": ({"pin": "needs to know where the contact is connected"}, ("pull", "invert", "debounce", "edge")),
    "adc": ({"pin": "needs to know where the voltage is"}, ("points", "factor", "offset")),
    "ds18x20": ({"pin": "needs to know where its bus is connected"}, ("rom",)),
    "dht11": ({"pin": "needs to know where the sensor is connected"}, ("reads",)),
    "dht22": ({"pin": "needs to know where the sensor is connected"}, ("reads",)),
    "chip": ({}, ()),
    "reachable": ({"host": "needs to know whom to reach"}, ("port", "ping")),
    "user": ({"function": "calls a function of your own"}, ("path",)),
}
_REACHABLE = {"on": "reachable", "off": "unreachable", "is": "off"}  # what is taken where nothing else is said
_OF_DRIVERS = sorted({key for needs, takes in DRIVERS.values() for key in (*needs, *takes)})
TEMPLATES = ("subject", "text", "recovery_subject", "recovery_text")
_NAMES = ("name", "value", "unit", "limit", "state", "lasted", "board")
_DAY = 86400


# ---- values, each a function that gives the normalised value or raises ValueError


def pin(value):
    """A number, or a name that the board's machine.Pin knows, such as "GP14"."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 57:
        return value
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]+\d+", value):
        return value
    raise ValueError(f'{value!r} is neither the number of a pin nor a name such as "GP14"')


def rom(value):
    """16 hex digits: family, serial number and check octet of a 1-wire device."""
    text = value.lower().replace("-", "").replace(":", "") if isinstance(value, str) else ""
    if not re.fullmatch(r"[0-9a-f]{16}", text):
        raise ValueError(f"{value!r} is not 16 hex digits; without it, the board's log shows those of all on the bus")
    if text[:2] not in ("10", "22", "28"):
        raise ValueError(f"{value!r} begins with none of 10, 22 and 28: it is no DS18S20, DS1822 or DS18B20")
    crc = 0
    for octet in bytes.fromhex(text):
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    if crc:
        raise ValueError(f"{value!r} has a wrong digit: its last two are not the check of the others")
    return text


def points(value):
    """Two pairs, raw and value: the [factor, offset] of the line through them."""
    try:
        (raw, low), (raw2, high) = value
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in (raw, low, raw2, high)):
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError("is not two pairs of numbers, raw and value") from None
    if raw == raw2:
        raise ValueError(f"has the raw value {raw} twice, where two different ones are needed")
    factor = (high - low) / (raw2 - raw)
    return [factor, low - raw * factor]


def whole(low, high, what):
    """A check for whole numbers from low to high."""

    def check(value):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{value!r} is not {what}, a whole number from {low} to {high}")
        return value

    return check


def state(value):
    """"on" or "off", or the word for it; true and false are that, too."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else word(value)


def word(value):
    if not isinstance(value, str) or not 0 < len(value.strip()) <= 32 or any(ord(c) < 32 for c in value):
        raise ValueError(f"{value!r} is not a short word in quotes")
    return value


def unit(value):
    if not isinstance(value, str) or len(value) > 16 or any(ord(c) < 32 for c in value):
        raise ValueError(f"{value!r} is not a short text in quotes")
    return value


def template(limit, lines):
    """A check for a text with {names} in it; lines: whether it may have several."""

    def check(value):
        if not isinstance(value, str) or not value.strip():
            raise ValueError("is not text in quotes")
        if any(ord(c) < 32 and not (lines and c in "\n\t") or 127 <= ord(c) < 160 for c in value):
            raise ValueError("has a line break or another control character in it")
        if len(value.encode("utf-8", "surrogatepass")) > limit:
            raise ValueError(f"is longer than {limit} bytes")
        left = re.sub(r"\{([^{}]*)\}", "", value)
        if "{" in left or "}" in left:
            raise ValueError("has a { or } that is not part of a name such as {value}")
        for name in re.findall(r"\{([^{}]*)\}", value):
            if name not in _NAMES:
                near = difflib.get_close_matches(name, _NAMES, 1, 0.6)
                known = "known are " + ", ".join(f"{{{n}}}" for n in _NAMES)
                raise ValueError(f"{{{name}}} is not known; " + (f"did you mean {{{near[0]}}}?" if near else known))
        return value

    return check


# ---- what goes together


def check(problem, key, raw, base):
    """Reports what does not go together in the table `raw` by problem(key, text, example=None)."""
    driver = raw.get("driver")
    if isinstance(driver, str) and driver in DRIVERS:
        needs, takes = DRIVERS[driver]
        for name, why in needs.items():
            if name not in raw:
                problem(f"{key}.{name}", f'is missing: driver = "{driver}" {why}')
        for name in _OF_DRIVERS:
            if name in raw and name not in needs and name not in takes:
                problem(f"{key}.{name}", f'has no use with driver = "{driver}"', "")
    if "points" in raw and ("factor" in raw or "offset" in raw):
        problem(f"{key}.points", "says the same as factor and offset: give the points or these two", "")
    if driver == "reachable":
        raw = {**_REACHABLE, **raw}
        if ("port" in raw) == (raw.get("ping") is True):
            problem(f"{key}.port", "or ping = true: say one of the two, how it is to answer")
    if driver == "user" and isinstance(raw.get("function"), str):
        _check_function(problem, key, raw, base)
    _check_limits(problem, key, raw, driver)
    if raw.get("edge") is True and raw.get("for"):
        problem(f"{key}.for", "has no use with edge = true: an impulse is there for one reading only", "")
    for name in TEMPLATES:
        if isinstance(raw.get(name), str):
            if "{unit}" in raw[name] and "unit" not in raw:
                problem(f"{key}.unit", f"is missing, and {name} has {{unit}} in it")
            if name.startswith("recovery") and raw.get("recovery") is not True:
                problem(f"{key}.{name}", "has no use without recovery = true", "recovery = true")


def _check_limits(problem, key, raw, driver):
    above, below = raw.get("above"), raw.get("below")
    on, off = raw.get("on", "on"), raw.get("off", "off")
    if "is" in raw:
        for name in ("above", "below", "hysteresis", "unit", "decimals"):
            if name in raw:
                problem(f"{key}.{name}", "has no use beside is, which is for what is on or off", "")
        if isinstance(raw["is"], str) and raw["is"] not in ("on", "off", on, off):
            known = f'"{on}" nor "{off}", the words for on and off'
            problem(f"{key}.is", f'"{raw["is"]}" is neither {known}', f'is = "{on}"')
        if isinstance(driver, str) and driver not in ("digital", "user", "file", "reachable") and driver in DRIVERS:
            problem(f"{key}.is", f'has no use with driver = "{driver}", which gives a number', "above = 5.0")
    else:
        for name in ("on", "off"):
            if name in raw:
                problem(f"{key}.{name}", "is the word for a state, and has no use without is", 'is = "open"')
        if driver == "digital":
            problem(f"{key}.is", "is missing: which state raises an alert?")
        elif "above" not in raw and "below" not in raw:
            problem(f"{key}.above", "is missing: say above = ... or below = ... which value raises an alert")
    if on == off:
        problem(f"{key}.off", "is the same word as that for on", 'on = "open" and off = "closed"')
    if _is_number(above) and _is_number(below):
        wide = above - below
        if wide <= 0:
            problem(
                f"{key}.below",
                f"{below} is not less than above = {above}: every value would raise an alert",
                "below = 2.0 and above = 8.0",
            )
        elif _is_number(raw.get("hysteresis")) and raw["hysteresis"] > wide:
            slack = raw["hysteresis"]
            problem(f"{key}.hysteresis", f"{slack} is more than the {wide:g} between the limits: no alert would end")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_function(problem, key, raw, base):
    name, function = raw.get("path", "user.py"), raw["function"]
    if not isinstance(name, str):
        return
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".py")
    if not name.endswith(".py") or not stem.isidentifier():
        return problem(f"{key}.path", f"{name!r} is not the name of a Python file", 'path = "user.py"')
    if (build.firmware() / f"{stem}.py").exists() or stem in ("smtp", "machine", "main", "boot"):
        return problem(f"{key}.path", f"{stem} is the name of a module on the board already", 'path = "user.py"')
    try:
        tree = ast.parse((base / name).read_bytes())
    except OSError as e:
        return problem(f"{key}.path", f"the file {base / name} cannot be read: {e.strerror}", 'path = "user.py"')
    except (SyntaxError, ValueError) as e:
        where = f", line {e.lineno}" if getattr(e, "lineno", None) else ""
        return problem(f"{key}.path", f"{name}{where} is no Python: {getattr(e, 'msg', e)}", "")
    known = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            known.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            known.update(a.asname or a.name for a in node.names)
        elif isinstance(node, ast.Assign):
            known.update(t.id for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, (ast.If, ast.Try)):
            return  # it may come from there
    if function not in known and "*" not in known:
        near = difflib.get_close_matches(function, sorted(known), 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"write: def {function}():"
        problem(f"{key}.function", f"{name} has no function {function}; {hint}", "")


def check_pins(problem, tables):
    """Reports pins that are used twice. tables: pairs of key and table."""
    taken = {}
    for key, table in tables:
        where = table.get("pin")
        if not isinstance(where, (int, str)) or table.get("driver") not in DRIVERS:
            continue
        for other, there in taken.get(where, ()):
            driver = table["driver"]
            if driver != there["driver"] or driver not in ("ds18x20", "dht11", "dht22"):
                problem(f"{key}.pin", f"{where} is used by {other} already", "pin = 15")
            elif driver == "ds18x20" and not ("rom" in table and "rom" in there):
                problem(f"{key}.rom", f"is missing, here or in {other}: which one of those on pin {where} is it?")
            elif driver == "ds18x20" and table["rom"] == there["rom"]:
                continue  # two limits of one thermometer
            break
        taken.setdefault(where, []).append((key, table))


# ---- what the board gets


def normalised(values, base, board):
    """The table of config.json. values: what was given, by the names of board.toml; board: the board's name."""
    driver = values["driver"]
    if driver in ("file", "user"):
        values["path"] = str(base / (values.get("path") or "user.py"))
    else:
        values.pop("path", None)
    if driver == "reachable":
        values = {**_REACHABLE, **values}
    if driver.startswith("dht"):
        values.update(driver="dht", model=int(driver[3:]))
    if "points" in values:
        values["factor"], values["offset"] = values.pop("points")
    on, off = values.pop("on", "on"), values.pop("off", "off")
    wrong = values.pop("is", None)
    if wrong is not None:
        values["words"] = [off, on]
        values["above" if wrong == on or wrong == "on" != off else "below"] = 0.5
    if any("{board}" in values.get(name, "") for name in TEMPLATES):
        values["board"] = board
    return values
