"""A fleet: one TOML file for many boards. What all have in common stands in it as in a board.toml, and each board has
a [[board]] with its name, where it is found, and what is different on it.

    [common]                    # what would be [board] for all of them
    timezone = "Europe/Berlin"
    domain = "{board}.example.com"

    [[board]]
    name = "barn-1"
    serial = "e6614c311b7e6f2a" # of its USB; or port = "/dev/ttyACM0"
    smarthost.sender = "barn-1@example.com"

A table of a board is laid over the common one, key by key; a list ([[listener]], [[sensor]], [[device]]) takes the
place of the common one. `{board}` in a text is the board's name; in [[sensor]] the board fills it in itself.
"""

import copy
import os

import serial.tools.list_ports

from . import config
from .errors import UserError

_OWN = ("port", "serial")  # keys of a [[board]] that are not its gateway's


class Member:
    """One board of a fleet: name, port, serial ("" where they are not given), `raw`: the tables of its board.toml;
    `table`: its own [[board]], number `n` of the file."""

    def __init__(self, n, table, raw):
        self.n, self.table, self.raw = n, table, raw
        self.name = table["name"]
        self.port, self.serial = (str(table.get(key, "")) for key in _OWN)

    def find(self):
        """Its port, or "" when it is not plugged in."""
        if self.serial:
            for port in serial.tools.list_ports.comports():
                if (port.serial_number or "").lower() == self.serial.lower():
                    return port.device
            return ""
        return self.port if self.port and os.path.exists(self.port) else ""


def is_one(raw):
    """Whether these tables are a fleet's."""
    return isinstance(raw.get("board"), list)


def members(raw, path):
    """The boards of a fleet, a list of Member. Raises UserError."""
    found, problems = [], []
    common = {key: value for key, value in raw.items() if key not in ("board", "common")}
    for n, table in enumerate(raw["board"]):
        where = f"board[{n + 1}]"
        try:
            config.check_value("board.name", table.get("name"))
        except ValueError as e:
            problems.append(f'{where}.name: {e}; for example: name = "barn-1"')
            continue
        name = table["name"]
        if name in [m.name for m in found]:
            problems.append(f"{where}.name: {name!r} is the name of another board already")
        for key in _OWN:
            same = [m.name for m in found if table.get(key) and m.table.get(key) == table[key]]
            if same:
                problems.append(f"{where}.{key}: {table[key]!r} is that of {same[0]} already")
        found.append(Member(n, table, _filled(_merged(common, raw.get("common", {}), table), name)))
    if not raw["board"]:
        problems.append('board: there is none; for example: [[board]] and below it name = "barn-1"')
    if problems:
        raise config.ConfigError(path, problems)
    return found


def _merged(common, board, own):
    """The tables of one board; board: [common], own: its [[board]]."""
    raw = copy.deepcopy(common)
    raw["board"] = dict(board)
    for key, value in own.items():
        if key in _OWN:
            continue
        there = raw.get(key)
        if not isinstance(value, (dict, list)) or key in config.Board.model_fields:
            raw["board"][key] = value
        elif isinstance(value, dict) and isinstance(there, dict):
            there.update(value)
        elif isinstance(value, dict) and isinstance(there, list):
            raw[key] = [{**item, **value} for item in there]
        else:
            raw[key] = copy.deepcopy(value)
    return raw


def _filled(value, name):
    if isinstance(value, str):
        return value.replace("{board}", name)
    if isinstance(value, list):
        return [_filled(item, name) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "sensor" else _filled(item, name) for key, item in value.items()}
    return value


def chosen(found, name, port, path):
    """The one board that was asked for."""
    if name:
        for member in found:
            if member.name == name:
                return member
        raise UserError(f"{path} has no board {name!r}; it has {', '.join(m.name for m in found)}")
    here = [m for m in found if m.find()]
    names = ", ".join(m.name for m in found[:8]) + (" ..." if len(found) > 8 else "")
    if port or len(here) != 1:
        raise UserError(f"{path} is of {len(found)} boards ({names}): say which one by --board NAME, or --all")
    return here[0]
