"""Fixtures for tests with a real mail server and real clients."""

import sys
from pathlib import Path

import pytest
from harness import BOARD, RunningGateway

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


@pytest.fixture
def gateway(tmp_path):
    """Makes gateways: gateway(board, smarthost=...) gives a RunningGateway that is started."""
    made = []

    def start(board=BOARD, smarthost=None, ready=True, **kwargs):
        path = tmp_path / f"gateway{len(made) or ''}"
        path.mkdir()
        made.append(RunningGateway(path, board, smarthost, **kwargs))
        return made[-1].start(ready)

    yield start
    for one in made:
        one.kill()
