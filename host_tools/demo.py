"""`edgepost demo`: an alert and a printer's mail survive a power cut and reach the inbox, told as
it happens.

Everything runs on this machine, on ports that are free, in a directory that is removed at the end.
"""

import email.message
import hashlib
import os
import smtplib
import socket
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path

from . import config, unix
from .errors import UserError
from .log import Log
from .smarthost import SmartHost, block

HEAP = "256k"
BOARD = """\
[board]
name = "cold-store"
domain = "cold-store.example.com"
timezone = "Europe/Berlin"

[smarthost]
host = "localhost"
port = {smarthost}
security = "starttls"
ca = "ca.pem"
username = "gateway"
password = {{ env = "SMTP_PASSWORD" }}
sender = "gateway@example.com"

[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
admin = "admin@example.com"

[[listener]]
address = "127.0.0.1"
port = {listener}
allow = ["127.0.0.0/8"]

[[sensor]]
name = "freezer"
driver = "file"
path = "freezer.txt"
every = "0.5s"
above = -15.0
"""


class Failed(Exception):
    """The demo did not end as it should: the text says where."""


class _Story:
    def __init__(self):
        self.start = time.monotonic()
        self.log = Log(self.from_gateway)
        self.gateway = None

    def say(self, text):
        """What happens, with the time since the start."""
        stamp = f"{time.monotonic() - self.start:5.1f} s  "
        print()
        text = text.replace(" °C", "\N{NO-BREAK SPACE}°C")
        print(textwrap.fill(text, 92, initial_indent=stamp, subsequent_indent=" " * len(stamp)))

    def from_gateway(self, line):
        """A line of the gateway's log, as it is."""
        print(f"         | {line}", flush=True)

    def boot(self, values, state):
        """Starts the gateway and waits until it listens."""
        since = self.log.mark()
        self.gateway = unix.Gateway(values, state, HEAP, log=self.log.add, output=subprocess.PIPE)
        self.log.follow(self.gateway.process.stdout)
        self.log.wait_for("gateway: ready", 15, since)


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _scan():
    """What a scanner sends: a text and a PDF of 40 KB. Gives (mail, bytes of the attachment)."""
    noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(1280))
    data = b"%PDF-1.4\n" + noise
    mail = email.message.EmailMessage()
    mail["From"], mail["To"] = "scanner@lan.example", "office@example.com"
    mail["Subject"] = "Delivery note 4711"
    mail.set_content("Scanned at the gate.\n.\nA line with a single dot is part of the mail.\n")
    mail.add_attachment(data, "application", "pdf", filename="delivery-note.pdf")
    return mail, data


def _tell(story, path):
    password = "demo-" + os.urandom(6).hex()
    listen, smarthost_port = _free_ports(2)
    server = SmartHost(path / "smarthost", "localhost", smarthost_port, password=password)
    (path / "ca.pem").write_bytes(server.ca.read_bytes())
    board = path / "board.toml"
    board.write_text(BOARD.format(listener=listen, smarthost=smarthost_port))
    freezer = path / "freezer.txt"
    freezer.write_text("-18.0\n")
    values, _ = config.load(board, {"SMTP_PASSWORD": password})
    state = unix.State(path / "board.state")

    story.say(
        f"A gateway starts: MicroPython with {HEAP} of memory and a flash of 1 MB. Its smart host,"
        " which would take its mail to the inbox, is not in reach. Lines with a bar are its"
        " own log."
    )
    story.boot(values, state)

    story.say("The freezer is at -18.0°C. Now it gets too warm: -9.5°C, and the limit is -15.0°C.")
    since = story.log.mark()
    freezer.write_text("-9.5\n")
    story.log.wait_for(" queued: ", 10, since)
    story.say("The alert is in flash.")

    story.say(
        "An old scanner sends a page with an attachment to the gateway, in plain SMTP: it knows no"
        " TLS and no password."
    )
    scan, attachment = _scan()
    with smtplib.SMTP("127.0.0.1", listen, timeout=10) as device:
        device.send_message(scan)
    story.say("The gateway answered 250: from now on the mail is its duty. It is in flash.")
    story.log.wait_for("mails wait", 10, since)

    story.say("Power cut! The gateway is killed (SIGKILL) and has no chance to tidy up.")
    story.gateway.kill()
    story.log.join(5)
    freezer.write_text("-18.0\n")

    with server:
        story.say(
            f"The smart host is back, on port {smarthost_port}. It insists on STARTTLS and AUTH."
        )
        story.say("The power is back, too: the gateway starts again on the same flash.")
        story.boot(values, state)
        try:
            server.wait_for(2, 15)
        except TimeoutError as e:
            raise Failed(f"{e}: not all mail reached the smart host") from None
        time.sleep(1.5)  # long enough for a second copy, if there were one
        story.say("Nothing more arrives. The gateway is stopped, this time politely.")
        status = story.gateway.stop()
        story.log.join(5)
    mails = server.mails
    story.say(f"What the smart host took, {len(mails)} mails:")
    for number, mail in enumerate(mails, 1):
        print()
        print(textwrap.indent(block(f"mail {number}", mail), "         "))
    print()
    _check(mails, attachment, scan, status, story.log.text())


def _check(mails, attachment, scan, status, log):
    """Prints what was checked; raises Failed at the first thing that is not so."""
    alerts = [m for m in mails if m.recipients == ["oncall@example.com"]]
    scans = [m for m in mails if m.recipients == ["office@example.com"]]
    parts = [list(m.message.iter_attachments()) for m in scans]
    body = scan.get_body().get_content()
    bodies = [m.message.get_body().get_content().replace("\r\n", "\n") for m in scans]
    for text, good in (
        ("the alert arrived exactly once", len(alerts) == 1),
        ("the scan arrived exactly once", len(scans) == 1),
        ("nothing else arrived", len(mails) == 2),
        (
            "its text and its attachment are as they were sent, byte by byte",
            bodies == [body] and [[p.get_content() for p in ps] for ps in parts] == [[attachment]],
        ),
        ("both came over TLS, verified against the CA in board.toml", all(m.tls for m in mails)),
        ("both came after the gateway had signed in", all(m.user == "gateway" for m in mails)),
        ("the gateway had no error of its own in its log", "Traceback" not in log),
        ("the gateway ended cleanly", status == 0),
    ):
        print(f"         {'ok  ' if good else 'FAIL'} {text}")
        if not good:
            raise Failed(f"this is not so: {text}")


def run():
    """Runs the demo. Gives 0, or 1 when something went wrong."""
    story = _Story()
    with tempfile.TemporaryDirectory(prefix="edgepost-demo-", ignore_cleanup_errors=True) as path:
        try:
            _tell(story, Path(path))
        except (Failed, TimeoutError, UserError, OSError, smtplib.SMTPException) as e:
            first = str(e).splitlines()[0] if str(e) else type(e).__name__
            print(f"\nedgepost: the demo failed: {first}", flush=True)
            return 1
        finally:
            if story.gateway:
                story.gateway.kill()
    print(
        f"\nDone in {time.monotonic() - story.start:.1f} s: two mails, one power cut, nothing lost."
    )
    return 0
