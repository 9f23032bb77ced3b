"""Fixtures for tests with a real mail server and real clients."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from postfix import Postfix  # noqa: E402


@pytest.fixture
def postfix():
    """Starts private Postfixes: postfix(refuse={...}) gives a running one."""
    started = []

    def start(**kwargs):
        started.append(Postfix(**kwargs))
        return started[-1].__enter__()

    yield start
    for one in started:
        one.__exit__()
