"""`edgepost capture`: what it writes of a device plays as a test, and has nothing in it that is somebody's."""

import base64
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys

import pytest
import test_devices
from edgepost import capture
from edgepost.errors import UserError
from edgepost.smarthost import SmartHost
from harness import PATIENCE, RunningGateway, mail
from play import CUTS

DEVICES = [d.name for d in test_devices.devices()]


def passes(text, name="captured.txt"):
    """Plays a transcript as tests/portable/test_devices.py does; gives the Device."""
    device = test_devices.Device(name, text)
    for cut in CUTS:
        p, box = test_devices.player(device, device.network, cut)
        test_devices.converse(device, p)
        assert [(e.sender, e.rcpts, data) for e, data in box.mails] == device.mails
    test_devices.ends_its_mail_properly(device)
    test_devices.is_nobody_elsewhere(device)
    return device


def session(device):
    """The events of a session with a device of tests/devices/, as the proxy sees them."""
    p, _ = test_devices.player(device, device.network)
    events = [("S", p.said())]
    said = b""
    for kind, text in device.steps:
        if kind in ("C:", "C!"):
            said += test_devices.spoken(kind, text)
            continue
        if said:
            events.append(("C", said))
            p.feed(said)
            said = b""
        if text == "TLS":
            events.append(("TLS", b""))
            p.upgrade()
        elif text == "TIMEOUT":
            test_devices.event(p, text)
        elif text == "GONE":
            events.append(("GONE", b""))
        heard = p.said()
        if heard:
            events.append(("S", heard))
    return events


@pytest.mark.parametrize("name", DEVICES)
def test_each_dialect_that_is_known_survives(name):
    (device,) = [d for d in test_devices.devices() if d.name == name]
    text, other = capture.transcript(session(device), "A device.", device.network)
    assert other == []
    again = passes(text)
    assert len(again.mails) == len(device.mails)
    kinds, wanted = ([kind for kind, _ in d.steps] for d in (again, device))
    assert kinds == wanted or "C!" in wanted  # where lines end otherwise, each has its own line here
    for word in ("printer", "copier", "scan2mail", "Passwort", "thermo", "Papier", "Rolle"):
        assert word not in text


def talk(*parts):
    return [(kind, octets if isinstance(octets, bytes) else octets.encode()) for kind, octets in parts]


LOGIN = talk(
    ("S", "220 hello\r\n"), ("C", "EHLO HP_Laser.corp.lan\r\n"), ("S", "250-hello\r\n250 AUTH LOGIN PLAIN\r\n"),
    ("C", "AUTH LOGIN\r\n"), ("S", "334 VXNlcm5hbWU6\r\n"), ("C", base64.b64encode(b"scan@corp.lan") + b"\r\n"),
    ("S", "334 UGFzc3dvcmQ6\r\n"), ("C", base64.b64encode(b"Geheim1") + b"\r\n"), ("S", "235 2.7.0 ok\r\n"),
    ("C", "MAIL FROM: <scan@corp.lan> SIZE=300\r\n"), ("S", "250 ok\r\n"),
    ("C", "rcpt to:boss@corp.lan\r\n"), ("S", "250 ok\r\n"), ("C", "RCPT TO:<Scan@Corp.lan>\r\n"), ("S", "250 ok\r\n"),
    ("C", "DATA\r\n"), ("S", "354 go\r\n"),
    ("C", b"From: \"Flur 3\" <scan@corp.lan>\r\nSubject: Vertrag M\xfcller\r\nX-Serial: CN4711\r\n"
          b"Content-Type: multipart/mixed;\r\n boundary=\"Corp7\"\r\n\r\n--Corp7\r\n"
          b"Content-Type: application/pdf; name=\"Vertrag.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
          b"R2VoZWlt\r\n..dots\r\nmail boss@corp.lan\r\n--Corp7--\r\n.\r\nQUIT\r\n"),
    ("S", "250 kept\r\n221 bye\r\n"),
)  # fmt: skip


def test_nothing_of_the_owner_is_left_and_the_dialect_is():
    text, other = capture.transcript(LOGIN, "A printer.")
    assert other == []
    device = passes(text)
    for secret in (
        "corp", "scan@", "boss", "Geheim", "Flur", "Vertrag", "Müller", "4711", "R2Vo", "HP_",
        base64.b64encode(b"Geheim1").decode(),
    ):  # fmt: skip
        assert secret.lower() not in text.lower(), secret
    for kept in (
        "C: EHLO XX_Xxxxx.xxxx.xxx", "C: MAIL FROM: <device@example.com> SIZE=300", "C: rcpt to:office@example.net",
        "C: RCPT TO:<device@example.com>", "# users: device@example.com secret", "multipart/mixed;", "application/pdf",
        "base64", "C: ..xxxx", "Xxxxxxx X\\xe4xxxx", "C: --Xxxx0--", "S: 334 VXNlcm5hbWU6", "-- END --",
    ):  # fmt: skip
        assert kept in text, kept
    assert device.users == {"device@example.com": "secret"}


def test_a_wrong_password_stays_wrong_and_auth_plain_keeps_its_form():
    refused = talk(
        ("S", "220 hello\r\n"), ("C", "EHLO x\r\n"), ("S", "250 AUTH PLAIN\r\n"),
        ("C", b"AUTH PLAIN " + base64.b64encode(b"\0me\0oops") + b"\r\n"), ("S", "535 5.7.8 no\r\n"),
        ("C", b"AUTH PLAIN " + base64.b64encode(b"\0me\0Geheim") + b"\r\n"), ("S", "235 2.7.0 ok\r\n"),
        ("C", "MAIL FROM:<scan@corp.lan> SIZE=300\r\n"), ("S", "250 ok\r\n"),
        ("C", "RCPT TO:<boss@corp.lan>\r\n"), ("S", "250 ok\r\n"),
    ) + LOGIN[-4:]  # fmt: skip
    text, other = capture.transcript(refused, "A printer.", "elsewhere")
    assert other == [] and passes(text).network == "elsewhere"
    sent = [base64.b64decode(x) for x in re.findall(r"AUTH PLAIN (\S+)", text)]
    assert sent == [b"\0device\0wrong", b"\0device\0secret"]


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (b"MAIL FROM:John Doe <john@corp.lan> SIZE=12\r\n", b"MAIL FROM:Xxxx Xxx <device@example.com> SIZE=12\r\n"),
        (b"mail from:<john>\r\n", b"mail from:<xxxx>\r\n"),
        (b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\n"),
        (b"MAIL FROM:<a@b> ENVID=Co7 BODY=7BIT\n", b"MAIL FROM:<device@example.com> ENVID=Xx0 BODY=7BIT\n"),
        (b"RCPT TO: Postmaster\r\n", b"RCPT TO: Postmaster\r\n"),
        (b"RCPT TO:<Jo@Corp> ORCPT=rfc822;jo@corp\r\n",
         b"RCPT TO:<office@example.net> ORCPT=rfc822;office@example.net\r\n"),
        (b"RCPT TO Jane Doe\r\n", b"RCPT XX Xxxx Xxx\r\n"),
        (b"EHLO [10.1.2.3]\r\n", b"EHLO [192.0.2.1]\r\n"),
        (b"helo  Drucker-3.OG \r\n", b"helo  Xxxxxxx-0.XX \r\n"),
        (b"EHLO\r\n", b"EHLO\r\n"),
        (b"Z2VoZWlt\r\n", b"X0XxXXxx\r\n"),
        (b"VRFY jane\r\n", b"VRFY xxxx\r\n"),
        (b"\xffquit\r\n", b"\xe4xxxx\r\n"),
    ],
)  # fmt: skip
def test_a_command_keeps_its_form_and_loses_its_names(line, written):
    assert capture.Redaction().command(line) == written


def test_what_no_transcript_can_hold_is_refused():
    head = talk(("S", "220 hello\r\n"), ("C", "EHLO x\r\n"), ("S", "250 CHUNKING\r\n"))
    with pytest.raises(UserError, match="BDAT"):
        capture.transcript(head + talk(("C", "BDAT 3 LAST\r\nabc")), "x")
    cram = talk(("C", "AUTH CRAM-MD5\r\n"), ("S", "334 PDE+\r\n"), ("C", "YWJj\r\n"), ("S", "235 ok\r\n"))
    with pytest.raises(UserError, match="CRAM-MD5"):
        capture.transcript(head + cram, "x")


def test_what_the_board_would_answer_otherwise_is_told():
    events = talk(("S", "220 hello\r\n"), ("C", "EHLO x\r\n"), ("S", "250 hello\r\n"), ("C", "XYZZY plugh\r\n"))
    text, other = capture.transcript(events + talk(("S", "250 fine\r\n"), ("GONE", b"")), "x")
    assert "\n== " not in text
    (line,) = other
    assert "XXXXX" in line and "50" in line and "said 250" in line and "plugh" not in line


def test_replies_that_cross_the_next_commands_are_put_in_order():
    events = talk(
        ("S", "220 hello\r\n"), ("C", "EHLO x\r\n"), ("S", "250-x\r\n250 PIPELINING\r\n"),
        ("C", "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"), ("S", "250 ok\r\n"), ("C", "DATA\r\n"),
        ("S", "250 ok\r\n"), ("S", "354 go\r\n"), ("C", "Subject: x\r\n\r\n.\r\n"), ("S", "250 ok\r\n"), ("GONE", ""),
    )  # fmt: skip
    text, other = capture.transcript(events, "A device.")
    assert other == [] and passes(text) and "-- GONE --" in text


def test_a_long_mail_is_cut_down_and_what_is_odd_in_it_stays():
    body = "".join(f"line {n}\r\n" for n in range(500))
    events = LOGIN[:-2] + talk(("C", f"Subject: x\r\n\r\n{body}.. odd\r\n{body}.\r\n"), ("S", "250 ok\r\n"))
    text, other = capture.transcript(events, "A device.")
    assert other == [] and passes(text)
    assert len(text.splitlines()) < 180 and "C: .. xxx" in text


# -- the command, with a real gateway

BOARD = """
[board]
name = "cold-store"
[smarthost]
host = "{host}"
port = {smarthost_port}
ca = "{ca}"
username = "gateway"
password = "secret"
[[listener]]
port = {port}
allow = ["127.0.0.0/8"]
users = { printer = "p4ssw0rd" }
tls = "starttls"
cert = "cert.pem"
key = "key.pem"
"""


@pytest.fixture
def tls_gateway(tmp_path):
    from edgepost import certificates

    path = tmp_path / "gateway"
    path.mkdir()
    authority = certificates.Authority(path)
    for source, name in zip(authority.issue(), ("cert.pem", "key.pem"), strict=True):
        (path / name).write_bytes(source.read_bytes())
    with RunningGateway(path, BOARD) as running:
        running.listener_ca = authority.pem
        yield running


@pytest.mark.parametrize("tls", [False, True])
def test_the_command_captures_a_device_before_a_real_gateway(tls_gateway, tmp_path, tls):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "capture", "A device: smtplib", "--to", f"localhost:{tls_gateway.port}"]
        + ["--host", "127.0.0.1", "--port", "0", "--ca", str(tls_gateway.listener_ca), "--dir", "capture"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        port = int(re.search(r"port (\d+)", process.stdout.readline())[1])
        with smtplib.SMTP("127.0.0.1", port, "office-printer-7", timeout=PATIENCE) as client:
            if tls:
                client._host = "localhost"
                client.starttls(context=ssl.create_default_context(cafile=tmp_path / "capture" / "ca.pem"))
                client.login("printer", "p4ssw0rd")
            client.send_message(mail("Quarterly figures", "very secret\n"))
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "a-device-smtplib.txt").read_text()
    device = passes(text)
    assert device.tls == ("starttls" if tls else "none") and len(device.mails) == 1
    encoded = base64.b64encode(b"p4ssw0rd").decode()
    for secret in ("p4ssw0rd", "Quarterly", "very", "office-printer", "printer@", encoded):
        assert secret not in text


def test_a_device_that_is_unplugged_after_any_command_leaves_no_file_and_the_next_session_does(tmp_path):
    steps = (b"EHLO a\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", b"Subject: ha")
    out = tmp_path / "device.txt"
    with SmartHost(tmp_path / "smarthost", starttls=False, auth=False) as gateway:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgepost", "capture", "A device.", "--to", f"localhost:{gateway.port}"]
            + ["--host", "127.0.0.1", "--port", "0", "--out", out, "--dir", tmp_path / "capture"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            port = int(re.search(r"port (\d+)", process.stdout.readline())[1])
            process.stdout.readline()
            for n in range(len(steps) + 1):
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as device:
                    assert device.recv(1000).startswith(b"220 ")
                    for step in steps[:n]:
                        device.sendall(step)
                        if step.endswith(b"\r\n"):
                            assert device.recv(1000)
                while "came and sent no mail; it waits for another" not in (line := process.stdout.readline()):
                    assert line
                assert not out.exists()
            with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
                client.send_message(mail("whole"))
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert process.returncode in (0, 1) and "wrote " in said, said
    assert "\n== " in out.read_text()
