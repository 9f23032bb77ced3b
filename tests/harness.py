"""Helpers for tests that run a real gateway: a device on a LAN, a gateway and a smart host, all on
this machine.

    from harness import RunningGateway, free_port

The fixtures `gateway` and `smarthost` of tests/host and tests/interop are made of them.
"""

import contextlib
import email.message
import itertools
import os
import random
import select
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path

from edgepost import config, unix
from edgepost.log import Log
from edgepost.smarthost import SmartHost

# What is not worth waiting longer for, even on a busy machine.
PATIENCE = 30

BOARD = """
[board]
name = "cold-store"
domain = "cold-store.example.com"
timezone = "Europe/Berlin"
[smarthost]
host = "{host}"
port = {smarthost_port}
security = "starttls"
ca = "{ca}"
username = "gateway"
password = "secret"
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
admin = "admin@example.com"
[[listener]]
address = "127.0.0.1"
port = {port}
allow = ["127.0.0.0/8"]
"""


def _ports():
    """Ports below those that a system gives to connections that go out, or one of them has it before it is used; in an
    order that no other process has."""
    ports = list(range(10000, 30000))
    random.Random(os.urandom(8)).shuffle(ports)
    return itertools.cycle(ports)


_some = _ports()


def free_port():
    """A TCP port of 127.0.0.1 that is free now."""
    for port in _some:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def mail(
    subject="a page", text="one line\n", sender="printer@example.com", to="office@example.com"
):
    """A mail as a LAN device would send it, as email.message.EmailMessage."""
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message.set_content(text)
    return message


class RunningGateway:
    """A gateway under MicroPython with its own board.toml, state directory and ports.

    board  the text of board.toml. `{port}` in it is the first listener's port, `{port2}` one more;
           `{ca}`, `{host}` and `{smarthost_port}` belong to `smarthost` (a SmartHost, or None for
           one that is not there)
    path   an empty directory: board.toml goes there, files that it names may lie there
    """

    def __init__(self, path, board=BOARD, smarthost=None, heapsize="256k", flash=None, env=None):
        self.path = Path(path)
        self.port, self.port2 = free_port(), free_port()
        self.heapsize, self.flash, self.env = heapsize, flash, env or {}
        smarthost_port = smarthost.port if smarthost and smarthost.port else free_port()
        ca = smarthost.ca if smarthost else SmartHost(self.path / "smarthost").ca
        for name, value in {
            "port": self.port,
            "port2": self.port2,
            "ca": ca,
            "host": "localhost",
            "smarthost_port": smarthost_port,
        }.items():
            board = board.replace("{" + name + "}", str(value))
        self.smarthost_port = smarthost_port
        self.board = self.path / "board.toml"
        self.board.write_text(board)
        self.state = unix.State(self.path / "board.state")
        self.messages = Log()
        self.exit = None
        self._gateway = None

    def start(self, ready=True):
        """Starts it; waits until it listens unless ready is False. May be called again after kill
        or stop.
        """
        values, _ = config.load(
            self.board, {**os.environ, **self.env}, unix.old_config(self.state.path)
        )
        self.exit = None
        since = self.mark()
        self._gateway = unix.Gateway(
            values, self.state, self.heapsize, self.flash, self.messages.add, subprocess.PIPE
        )
        self.messages.follow(self._gateway.process.stdout)
        if ready:
            self.wait_for("gateway: ready", since=since)
        return self

    def log(self):
        """All of its log so far, of every start, as one text."""
        return self.messages.text()

    def mark(self):
        """The number of log lines so far: for wait_for(..., since=mark)."""
        return self.messages.mark()

    def wait_for(self, text, timeout=PATIENCE, since=0):
        """Waits for a log line that contains `text`; gives it. Raises TimeoutError with the log."""
        return self.messages.wait_for(text, timeout, since)

    def _ended(self, status):
        self.messages.join(PATIENCE)
        self.exit, self._gateway = status, None
        return status

    def kill(self):
        """SIGKILL, the same as a power cut."""
        return self._ended(self._gateway.kill()) if self._gateway else self.exit

    def stop(self):
        """A clean stop; gives the exit status."""
        return self._ended(self._gateway.stop()) if self._gateway else self.exit

    def wait(self, timeout=PATIENCE):
        """Waits until it ends by itself; gives the exit status."""
        return self._ended(self._gateway.wait(timeout)) if self._gateway else self.exit

    @property
    def process(self):
        """The subprocess.Popen of the running gateway, or None."""
        return self._gateway.process if self._gateway else None

    def inject(self, message=None, sender=None, to=None, port=None, **kwargs):
        """Sends a mail as a LAN device does, in plain SMTP; when it returns, the gateway has
        answered 250.
        """
        message = message or mail(**kwargs)
        with smtplib.SMTP("127.0.0.1", port or self.port, timeout=PATIENCE) as client:
            return client.send_message(message, sender, to)

    def __enter__(self):
        return self.start() if self._gateway is None else self

    def __exit__(self, *exc):
        self.kill()


def switch_on(board, wait):
    """Switches a VirtualBoard on, and waits until it has said this: one that is starting may answer a call twice."""
    board.power(False)  # behind which its port is there again, if its cable was pulled
    fd = os.open(board.port, os.O_RDWR | os.O_NOCTTY)
    try:
        board.power(True)
        said = b""
        end = time.monotonic() + PATIENCE
        while wait not in said:
            assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], said
            said += os.read(fd, 1000)
    finally:
        os.close(fd)


def edgepost(*args, env=None, cwd=None, timeout=60):
    """Runs the edgepost command; gives a CompletedProcess with its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "edgepost", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
