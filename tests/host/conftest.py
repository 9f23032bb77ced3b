"""Fixtures for tests with a real gateway and a smart host."""

import pytest
from edgepost.smarthost import SmartHost
from harness import BOARD, RunningGateway


@pytest.fixture
def smarthost(tmp_path):
    """Starts smart hosts: smarthost(certificate="expired", ...) gives a running SmartHost."""
    started = []

    def start(**kwargs):
        path = tmp_path / f"smarthost{len(started) or ''}"
        started.append(SmartHost(kwargs.pop("path", path), **kwargs))
        return started[-1].start()

    yield start
    for host in started:
        host.stop()


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
