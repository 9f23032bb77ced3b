"""A private Postfix as smart host: submission with STARTTLS and SASL AUTH, and a Maildir for all
that it takes.

    with Postfix(refuse={"nobody@example.com": "550 5.1.1 no such user"}) as host:
        ...
        (got,) = host.wait_for(1)

Configuration, queue, passwords and mail lie in a directory of its own, which goes in the end;
neither /etc/postfix nor a Postfix that the system runs is touched. Postfix drops its rights by
itself and therefore has to be started by root.
"""

import grp
import os
import pwd
import subprocess

from daemon import Daemon, find
from harness import PATIENCE

USER, PASSWORD, REALM = "gateway", "a secret: 100% of it", "mail.test"

_MASTER = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

_QUEUE = {
    "active": 0o700, "bounce": 0o700, "corrupt": 0o700, "defer": 0o700, "deferred": 0o700,
    "flush": 0o700, "hold": 0o700, "incoming": 0o700, "private": 0o700, "saved": 0o700,
    "trace": 0o700, "maildrop": 0o730, "public": 0o710,
}  # fmt: skip


def missing():
    """Why Postfix cannot run here, or ""."""
    for program in ("postconf", "saslpasswd2"):
        if not find(program):
            return f"{program} is not installed (Debian: apt install postfix sasl2-bin)"
    if os.geteuid() != 0:
        return "only root can start a Postfix"
    return ""


class Postfix(Daemon):
    """A Postfix for as long as the context lasts; `port`, `ca` (a path), `mails()`.

    refuse    {address: "550 5.1.1 text"}: what RCPT answers for it; `set_refused` changes it
    senders   the only envelope senders that the account may use, None for any
    hide      what EHLO shall not offer, such as ["chunking"]
    settings  more of main.cf
    """

    name = "postfix"
    logs = ("maillog",)
    missing = staticmethod(missing)

    def __init__(self, refuse=None, senders=None, hide=(), **settings):
        self.refuse, self.senders, self.hide, self.settings = refuse or {}, senders, hide, settings

    def set_up(self, cert, key):
        self.user, self.password = USER, PASSWORD
        self.box = self.path / "box"
        owner, group = pwd.getpwnam("postfix"), grp.getgrnam("postdrop").gr_gid
        nobody = pwd.getpwnam("nobody")
        for name, mode in _QUEUE.items():
            there = self.path / "queue" / name
            there.mkdir(parents=True)
            os.chown(there, owner.pw_uid, group if mode != 0o700 else -1)
            there.chmod(mode)
        for name in ("queue/pid", "config", "config/sasl", "sasl"):
            (self.path / name).mkdir()
        for name, who in (("data", owner), ("box", nobody)):
            (self.path / name).mkdir()
            os.chown(self.path / name, who.pw_uid, who.pw_gid)
        self.set_refused(self.refuse)
        senders = " ".join(f"{a}={USER}@{REALM}" for a in self.senders or [])
        restrictions = f"check_recipient_access hash:{self.path}/refused"
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self.path / "queue",
            "data_directory": self.path / "data",
            "maillog_file": self.path / "maillog",
            "maillog_file_prefixes": self.path,
            "myhostname": "mail.test",
            "mydestination": "",
            "mynetworks": "",
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "biff": "no",
            "local_header_rewrite_clients": "",  # no header field is added that a client left out
            # Everything is kept here, a copy for each recipient; nothing leaves this machine.
            "default_transport": "error:this Postfix sends nothing",
            "relay_transport": "error:this Postfix sends nothing",
            "virtual_mailbox_domains": "static:all",
            "virtual_mailbox_base": self.box,
            "virtual_mailbox_maps": "static:all/",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_cert_file": cert,
            "smtpd_tls_key_file": key,
            "smtpd_tls_auth_only": "yes",
            "smtpd_tls_received_header": "yes",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "cyrus",
            "smtpd_sasl_path": "smtpd",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_sasl_local_domain": REALM,
            "smtpd_sender_login_maps": f"inline:{{{senders}}}" if senders else "",
            "smtpd_sender_restrictions": "reject_sender_login_mismatch" if senders else "",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_recipient_restrictions": restrictions,
            "smtpd_discard_ehlo_keywords": ", ".join(self.hide),
            "smtpd_error_sleep_time": "0",
            "message_size_limit": "20480000",
            **self.settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.path / "config" / "main.cf").write_text(lines)
        (self.path / "config" / "master.cf").write_text(_MASTER.format(port=f"127.0.0.1:{self.port}"))
        database = self.path / "sasl" / "sasldb2"
        (self.path / "config" / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n"
            f"sasldb_path: {database}\n"
        )
        subprocess.run(
            [find("saslpasswd2"), "-p", "-c", "-f", database, "-u", REALM, USER],
            input=PASSWORD.encode(), check=True, capture_output=True,
        )  # fmt: skip
        os.chown(database, owner.pw_uid, owner.pw_gid)

    def set_refused(self, refuse):
        """Changes which recipients are refused, while it runs."""
        table = self.path / "refused"
        table.write_text("".join(f"{address} {reply}\n" for address, reply in refuse.items()))
        subprocess.run(
            [find("postmap"), "-c", self.path / "config", f"hash:{table}"]
            if (self.path / "config" / "main.cf").exists()
            else [find("postmap"), f"hash:{table}"],
            check=True, capture_output=True,
        )  # fmt: skip

    def command(self):
        daemons = subprocess.run([find("postconf"), "-dh", "daemon_directory"], capture_output=True, text=True)
        return [f"{daemons.stdout.strip()}/master", "-c", self.path / "config", "-d"]

    def mails(self):
        """All that has arrived, as Delivered, one for each recipient of each mail, in order."""
        # A file comes here by a rename: it is whole.
        mails = [Delivered(path.read_bytes()) for path in (self.box / "all" / "new").glob("*")]
        return sorted(mails, key=lambda mail: (mail.to, mail.subject))

    def wait_for(self, count, timeout=PATIENCE):
        """Waits until `count` have arrived in all; gives all that have. Raises TimeoutError."""
        return self.wait(self.mails, count, timeout)


class Delivered:
    """A mail as Postfix delivered it: `sender`, `to`, `trace` (header fields that hops added at its
    top, as one text) and `content`, the rest as bytes with CRLF line ends.
    """

    HOPS = (b"Return-Path:", b"X-Original-To:", b"Delivered-To:", b"Received:")

    def __init__(self, data):
        lines = data.split(b"\n")
        n = 0
        while lines[n].startswith(self.HOPS) or (n and lines[n][:1] in (b" ", b"\t")):
            n += 1
        self.trace = b"\n".join(lines[:n]).decode()
        self.content = b"\r\n".join(lines[n:])
        fields = dict(line.split(": ", 1) for line in self.trace.split("\n") if ": " in line)
        self.sender = fields["Return-Path"].strip("<>")
        self.to = fields["Delivered-To"]
        head = self.content.split(b"\r\n\r\n")[0].decode("latin-1")
        self.subject = next(
            (line[9:] for line in head.split("\r\n") if line.startswith("Subject: ")), ""
        )
