"""What the benchmarks share: rows of the table, rounds against a peer, processes on both
interpreters.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edgepost import build, unix

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PATIENCE = 60  # seconds in which a process must answer


class Missing(Exception):
    """A tool that is not there; the text says what to install."""


class Row:
    """One line of the table, all text but `met`: True, False or None where there is no goal."""

    def __init__(self, what, ours="", peer="", ratio="", goal="", met=None):
        self.what, self.ours, self.peer = what, ours, peer
        self.ratio, self.goal, self.met = ratio, goal, met


def ratio_row(what, ours, peer, goal, unit, digits=0):
    """A row from the rates of each round, ours and the peer's: the higher the better."""
    ratios = [o / p for o, p in zip(ours, peer, strict=True)]
    middle = statistics.median(ratios)
    return Row(
        what,
        f"{statistics.median(ours):,.{digits}f} {unit}",
        f"{statistics.median(peer):,.{digits}f} {unit}",
        f"{middle:.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
        f"at least {goal:g}",
        middle >= goal,
    )


def limit_row(what, ours, peer, goal, unit, digits=0, slack=0.0):
    """A row of a figure that must not exceed `goal`; `peer` may be None."""
    return Row(
        what,
        f"{ours:,.{digits}f} {unit}",
        f"{peer:,.{digits}f} {unit}" if peer is not None else "",
        f"{ours / peer:.2f}" if peer else "",
        f"at most {goal:,g}" if goal is not None else "",
        ours < goal + slack if goal is not None else None,
    )


class Bench:
    """What every benchmark is given: a temporary directory, the compiled library, how long to take."""

    def __init__(self, path, quick):
        self.path, self.quick = Path(path), quick
        self.micropython = unix.find_micropython()
        self.built = build.build(self.micropython.mpy, cache=self.path / "built")
        (self.path / "b").symlink_to(self.built)  # each module keeps its path in the heap: short, as on a board
        self.rounds = 3 if quick else 9

    def size(self, full):
        """How much of something to do: a fifth of it with --quick."""
        return full // 5 if self.quick else full

    def rates(self, ours, peer):
        """The rates that two functions return, called in turn for so many rounds."""
        pairs = [(ours(), peer()) for _ in range(self.rounds)]
        return [o for o, _ in pairs], [p for _, p in pairs]

    def board(self, script, *args, heap="2m"):
        """A script of bench/board that runs on MicroPython with the compiled library: Process."""
        command = [self.micropython.path, "-X", f"heapsize={heap}", HERE / "board" / script, *args]
        return Process(list(map(str, command)), {"MICROPYPATH": "b:.frozen"}, self.path)

    def python(self, module, *args):
        """A module that runs on this CPython: Process."""
        return Process([sys.executable, "-m", module, *map(str, args)])


class Process:
    """A process that is spoken to by lines; used with `with`, which ends it."""

    def __init__(self, command, env=None, cwd=ROOT):
        self.name = next(a for a in command[1:] if not a.startswith(("-", "heapsize")))
        self.run = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )

    def read(self):
        """The next line that it prints."""
        line = self.run.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.run.wait(PATIENCE)}")
        return line.strip()

    def ask(self, line):
        self.run.stdin.write(line + "\n")
        self.run.stdin.flush()
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.run.stdin.close()
        self.run.kill()
        self.run.wait()
        self.run.stdout.close()


@contextlib.contextmanager
def on_core(number):
    """What is started in it runs on one core, where there are two. Client and server are two machines in life, but a
    kernel puts processes that talk on one core and leaves the other idle, so that nothing overlaps."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    if number < len(cores) > 1:
        os.sched_setaffinity(0, {sorted(cores)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for_port(port):
    """Returns when somebody listens on it."""
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def tool(name):
    """The path of a program of Debian's package postfix. Raises Missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is missing: install Debian's package postfix")
    return path


def source(port, count, octets=1024, sessions=10):
    """Sends mails with smtp-source, a connection for each; gives mails a second."""
    command = [tool("smtp-source"), "-s", str(sessions), "-l", str(octets), "-m", str(count)]
    start = time.perf_counter()
    # No timeout: with one, Python looks only every 50 ms whether it has ended, and all figures are steps.
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
    return count / (time.perf_counter() - start)


@contextlib.contextmanager
def sink(*options):
    """A running smtp-sink; gives its port."""
    port = free_port()
    if os.geteuid() == 0:
        options = ("-u", "nobody", *options)
    run = subprocess.Popen([tool("smtp-sink"), *options, f"127.0.0.1:{port}", "128"])
    try:
        wait_for_port(port)
        yield port
    finally:
        run.kill()
        run.wait()
