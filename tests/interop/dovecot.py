"""A private Dovecot that takes mail by LMTP into Maildirs.

    with Dovecot(full=["full@example.com"]) as host:
        ...
        host.wait_for("office@example.com", 1)

Its configuration, logs and mail lie in a directory of its own, which goes in the end; neither /etc/dovecot nor a
Dovecot that the system runs is touched. It drops its rights by itself and therefore has to be started by root.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from edgepost import certificates
from harness import PATIENCE, free_port

_CONF = """\
base_dir = {path}/run
state_dir = {path}/state
log_path = {path}/log
protocols = lmtp
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
mail_location = maildir:{path}/mail/%n
mail_plugins = quota
first_valid_uid = 1
auth_mechanisms = plain
passdb {{
  driver = passwd-file
  args = username_format=%u {path}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {path}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0
  }}
}}
service anvil {{
  chroot =
}}
plugin {{
  quota = maildir:box
  quota_rule = *:storage=100M
}}
"""


def missing():
    """Why Dovecot cannot run here, or ""."""
    if not _find("dovecot") or not Path("/usr/lib/dovecot/lmtp").exists():
        return "dovecot is not installed (Debian: apt install dovecot-core dovecot-lmtpd)"
    if os.geteuid() != 0:
        return "only root can start a Dovecot"
    return ""


def _find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Dovecot:
    """A Dovecot for as long as the context lasts; `port`, `ca` (a path), `mails(user)`. users: addresses that have a
    mailbox; full: those of them whose mailbox takes 100 octets and no more."""

    def __init__(self, users=("office@example.com",), full=()):
        why = missing()
        if why:
            pytest.skip(why)
        self.users, self.full = users, full
        self.process = None

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix="edgepost-dovecot-"))
        self.path.chmod(0o755)
        try:
            self._set_up()
            self._start()
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
        shutil.rmtree(self.path, ignore_errors=True)

    def _set_up(self):
        self.authority = certificates.Authority(self.path / "tls")
        self.ca = self.authority.pem
        cert, key = self.authority.issue()
        self.port = free_port()
        mail = self.path / "mail"
        mail.mkdir()
        owner = pwd.getpwnam("nobody")
        os.chown(mail, owner.pw_uid, owner.pw_gid)
        lines = ""
        for user in self.users:
            more = "userdb_quota_rule=*:bytes=100" if user in self.full else ""
            lines += f"{user}:{{PLAIN}}x:{owner.pw_uid}:{owner.pw_gid}::{mail}::{more}\n"
        (self.path / "users").write_text(lines)
        (self.path / "dovecot.conf").write_text(_CONF.format(path=self.path, cert=cert, key=key, port=self.port))

    def _start(self):
        with (self.path / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [_find("dovecot"), "-F", "-c", self.path / "dovecot.conf"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
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
                raise RuntimeError(f"Dovecot does not start:\n{self.log()}")
            time.sleep(0.05)

    def log(self):
        """What it logged, for failures."""
        parts = [p for p in (self.path / "output", self.path / "log") if p.exists()]
        return "\n".join(p.read_text(errors="replace") for p in parts)

    def mails(self, user):
        """The mails (bytes, with the line ends of the Maildir) of an address."""
        box = self.path / "mail" / user.partition("@")[0] / "new"
        return [path.read_bytes() for path in sorted(box.glob("*"))]

    def wait_for(self, user, count, timeout=PATIENCE):
        """Waits until `count` have arrived there; gives all. Raises TimeoutError."""
        end = time.monotonic() + timeout
        while len(mails := self.mails(user)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(mails)} of {count} mails arrived:\n{self.log()}")
            time.sleep(0.05)
        return mails
