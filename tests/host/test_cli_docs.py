"""docs/cli.md names each command and option of `edgepost`; the help of each has an example, and fits 80 columns."""

import argparse
import re
from pathlib import Path

import pytest
from edgepost import cli

GUIDE = (Path(__file__).parents[2] / "docs/cli.md").read_text()
SECTIONS = re.split(r"^## ", GUIDE, flags=re.M)


def below(parser):
    """The commands of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


COMMANDS = below(cli.parser())


def section(name):
    (text,) = [s for s in SECTIONS if f"`edgepost {name}`" in s.splitlines()[0]]
    return text


def options(parser):
    """The long options, those of its own commands too; -k has no long one."""
    found = {o for a in parser._actions for o in a.option_strings if o.startswith("--") or len(a.option_strings) == 1}
    for part in below(parser).values():
        found |= options(part)
    return found - {"--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_guide_tells_of_each_command_and_its_options(name):
    text = section(name)
    missing = [o for o in sorted(options(COMMANDS[name])) if not re.search(rf"(?<![\w-]){o}(?![\w-])", text)]
    assert not missing
    assert [w for w in below(COMMANDS[name]) if not re.search(rf"\b{w}\b", text)] == []
    assert f"`{name}`" in section_of_statuses()


def section_of_statuses():
    (text,) = [s for s in SECTIONS if s.startswith("Exit statuses")]
    return text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example_and_fits_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = COMMANDS[name].format_help()
    assert re.search(rf"examples?:\s+edgepost {name}", text)
    assert [line for line in text.splitlines() if len(line) > 80] == []
