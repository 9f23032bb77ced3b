"""A private Dovecot that takes mail by LMTP into Maildirs.

    with Dovecot(full=["full@example.com"]) as host:
        ...
        host.wait_for("office@example.com", 1)

Its configuration, logs and mail lie in a directory of its own, which goes in the end; neither /etc/dovecot nor a
Dovecot that the system runs is touched. It drops its rights by itself and therefore has to be started by root.
"""

import os
import pwd
from pathlib import Path

from daemon import Daemon, find
from harness import PATIENCE

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
    if not find("dovecot") or not Path("/usr/lib/dovecot/lmtp").exists():
        return "dovecot is not installed (Debian: apt install dovecot-core dovecot-lmtpd)"
    if os.geteuid() != 0:
        return "only root can start a Dovecot"
    return ""


class Dovecot(Daemon):
    """A Dovecot for as long as the context lasts; `port`, `ca` (a path), `mails(user)`. users: addresses that have a
    mailbox; full: those of them whose mailbox takes 100 octets and no more."""

    name = "dovecot"
    logs = ("log",)
    missing = staticmethod(missing)

    def __init__(self, users=("office@example.com",), full=()):
        self.users, self.full = users, full

    def set_up(self, cert, key):
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

    def command(self):
        return [find("dovecot"), "-F", "-c", self.path / "dovecot.conf"]

    def mails(self, user):
        """The mails (bytes, with the line ends of the Maildir) of an address."""
        box = self.path / "mail" / user.partition("@")[0] / "new"
        return [path.read_bytes() for path in sorted(box.glob("*"))]

    def wait_for(self, user, count, timeout=PATIENCE):
        """Waits until `count` have arrived there; gives all. Raises TimeoutError."""
        return self.wait(lambda: self.mails(user), count, timeout)
