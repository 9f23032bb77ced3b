"""The project that docs/ci.md shows is made and tested as it stands there, by the commands of its workflow."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()
PATIENCE = 300  # it waits for processes of its own


def block(kind, word):
    """The one block of `kind` that contains `word`."""
    (found,) = [b for b in re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S) if word in b]
    return found


def test_the_project_of_the_page_passes_its_tests(tmp_path):
    for name, text in {
        "board.toml": block("toml", "[board]"),
        "user.py": block("python", "def litres"),
        "tests/test_gateway.py": block("python", "import pytest"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    commands = re.findall(r"- run: (.*)", block("yaml", "jobs:"))
    assert commands[0] == "python -m pip install edgepost pytest"  # both are here
    for command in commands[1:]:
        program, *words = shlex.split(command)
        assert program == "python"
        words += ["-p", "no:cacheprovider", "-p", "no:xdist"]
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"^3 passed in ", done.stdout, re.M), done.stdout

