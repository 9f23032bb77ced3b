"""What the private servers of the tests have in common: a directory of their own, which goes in the end, one process,
and a port of 127.0.0.1 that greets with 220."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from edgepost import certificates
from harness import PATIENCE, free_port


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Daemon:
    """A server for as long as the context lasts; `port`, `path`, `ca` (the path of what signed its certificate).

    A kind of it has `name`; missing(), which says why it cannot run here, or ""; set_up(), which makes its files;
    command(); and `logs`, the names of the files below `path` that tell why it failed.
    """

    process = path = None

    def __enter__(self):
        why = self.missing()
        if why:
            pytest.skip(why)
        # Not below pytest's tmp_path, which only its owner can enter: the processes of a server cannot.
        self.path = Path(tempfile.mkdtemp(prefix=f"edgepost-{self.name}-"))
        self.path.chmod(0o755)
        try:
            authority = certificates.Authority(self.path / "tls")
            self.ca = authority.pem
            self.port = free_port()
            self.set_up(*authority.issue())
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self.path:  # or else it was skipped
            shutil.rmtree(self.path, ignore_errors=True)

    def start(self):
        with (self.path / "output").open("wb") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                    sock.settimeout(PATIENCE)
                    if sock.recv(4) == b"220 ":
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start:\n{self.log()}")
            time.sleep(0.05)

    def log(self):
        """What it logged, for failures."""
        parts = [p for p in (self.path / "output", *(self.path / name for name in self.logs)) if p.exists()]
        return "\n".join(p.read_text(errors="replace") for p in parts)

    def wait(self, mails, count, timeout):
        """Waits until mails() gives `count` in all; gives all that have arrived. Raises TimeoutError."""
        end = time.monotonic() + timeout
        while len(found := mails()) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {count} mails arrived:\n{self.log()}")
            time.sleep(0.05)
        return found
