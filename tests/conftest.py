"""Runs each test under tests/portable twice, on CPython and on MicroPython; and fixtures with a real gateway."""

import asyncio
import functools
import inspect
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from edgepost import unix
from edgepost.errors import UserError
from edgepost.smarthost import SmartHost
from harness import BOARD, RunningGateway

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PORTABLE = TESTS / "portable"
TIME_OUT = 120  # seconds for one test on MicroPython

together = {}  # path: names of its tests that are to run on MicroPython, until they have
said_of = {}  # (path, name): what its test said in the end, "PASS name" as its last line

# CPython 3.11 does not count down all of what an exception that is thrown into a generator has counted up.
sys.setrecursionlimit(1_000_000)

# A shell without job control starts what it starts with "&" deaf to Ctrl-C, and all the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

for directory in (TESTS / "sim", PORTABLE, ROOT / "firmware", ROOT / "lib"):
    sys.path.insert(0, str(directory))


@functools.cache
def find_micropython():
    """(path of the MicroPython that `edgepost run` takes, or None; why there is none)."""
    try:
        return unix.find_micropython().path, ""
    except UserError as e:
        return None, str(e)


def pytest_generate_tests(metafunc):
    if PORTABLE in metafunc.definition.path.parents:
        metafunc.fixturenames.append("interpreter")
        # The tests of a file run in one process on MicroPython: its start costs more than most tests.
        group = pytest.mark.xdist_group(f"micropython {metafunc.definition.path.stem}")
        metafunc.parametrize("interpreter", ["cpython", pytest.param("micropython", marks=group)])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if PORTABLE not in pyfuncitem.path.parents:
        return None
    if pyfuncitem.callspec.params["interpreter"] == "micropython":
        run_on_micropython(pyfuncitem.path, pyfuncitem.originalname)
    else:
        from smtp import client, relay

        relay.open_session = client.open_session  # a simulated world has another
        if inspect.iscoroutinefunction(pyfuncitem.obj):
            asyncio.run(pyfuncitem.obj())
        else:
            pyfuncitem.obj()
    return True


def pytest_collection_finish(session):
    for item in session.items:
        if PORTABLE in item.path.parents and item.callspec.params["interpreter"] == "micropython":
            together.setdefault(item.path, []).append(item.originalname)


def run_on_micropython(path, name):
    names = together.pop(path, ())
    if len(names) > 1:
        start_micropython(path, names, 2 * TIME_OUT)
    status = 0
    if (path, name) not in said_of:  # it is the only one, or one before it brought the interpreter down
        status = start_micropython(path, [name], TIME_OUT)
    said = said_of.get((path, name), "")
    if f"PASS {name}" not in said.splitlines():
        pytest.fail(f"{said}\nexit status {status} on MicroPython", pytrace=False)
    print(said, end="")


def start_micropython(path, names, timeout):
    """Runs tests of one file in one process, and notes what they said; gives the exit status, or why there is none."""
    micropython, why = find_micropython()
    if micropython is None:
        pytest.fail(why, pytrace=False)
    command = [micropython, "-X", "heapsize=2m", str(PORTABLE / "run.py"), str(path), *names]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        said, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as e:
        said, status = e.stdout or b"", f"none after {timeout} s"
    about = ""
    for line in said.decode(errors="replace").splitlines(keepends=True):
        about += line
        word, _, name = line.rstrip().partition(" ")
        if word in ("PASS", "FAIL") and name in names:
            said_of[path, name] = about
            about = ""
    if about:
        print(about, end="")
    return status


def micropython_version():
    micropython, _ = find_micropython()
    if micropython is None:
        return "(not found)"
    ask = "import sys; print(*sys.implementation[1][:3], sep='.')"
    done = subprocess.run([micropython, "-c", ask], stdout=subprocess.PIPE, text=True)
    return re.sub(r"\.0$", "", done.stdout.strip())


def pytest_terminal_summary(terminalreporter):
    counts = {"cpython": 0, "micropython": 0}
    # Reports of xdist's workers reach this process as well; only the node id travels with them.
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            there = re.search(r"\bportable/.*\[(cpython|micropython)\](@|$)", report.nodeid)
            if there and report.when == "call":
                counts[there[1]] += 1
    if any(counts.values()):
        terminalreporter.write_line(
            f"portable tests: {counts['cpython']} on cpython {platform.python_version()}, "
            f"{counts['micropython']} on micropython {micropython_version()}"
        )


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
