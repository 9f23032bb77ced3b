"""A real Postfix as smart host: what the gateway and the library's client hand to it arrives, once
and as it was.
"""

import email
import shutil
import smtplib
import ssl
import subprocess
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import pytest
from edgepost import build, unix
from harness import BOARD, PATIENCE, mail
from kinds import kinds
from postfix import PASSWORD

POSTFIX_BOARD = BOARD.replace('password = "secret"', f'password = "{PASSWORD}"')
IMPATIENT = POSTFIX_BOARD + "[queue]\nretry = '1s'\n"
TO = "office@example.com"


def scan():
    """A mail with an attachment, complete with what a relay would have to add."""
    message = EmailMessage()
    message["From"], message["To"] = "Scanner <scanner@example.com>", TO
    message["Subject"] = "Lieferschein für Zürich"
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="lan.example")
    message.set_content("Grüße vom Scanner\n.\n..\n")
    message.add_attachment(
        bytes(range(256)) * 300, "application", "octet-stream", filename="raw.bin"
    )
    return message


def test_an_alert_arrives_over_verified_tls_and_auth(gateway, postfix):
    host = postfix()
    sensor = '[[sensor]]\nname = "freezer"\ndriver = "file"\npath = "freezer.txt"\nevery = "0.2s"\n'
    one = gateway(POSTFIX_BOARD + sensor + "above = -15.0\n", host)
    (one.path / "freezer.txt").write_text("-12.5\n")
    (got,) = host.wait_for(1)
    assert (got.sender, got.to) == ("cold-store@example.com", "oncall@example.com")
    assert got.subject == "freezer: -12.5, above -15.0"
    assert b"\r\nAuto-Submitted: auto-generated\r\n" in got.content
    assert "using TLSv1.2" in got.trace and "Authenticated sender: gateway" in got.trace
    assert got.trace.count("Received:") == 1  # nobody before Postfix: the gateway wrote it


def test_a_mail_with_an_attachment_sent_by_smtplib_arrives_as_it_was(gateway, postfix):
    host = postfix()
    one = gateway(POSTFIX_BOARD, host)
    message = scan()
    sent = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        device.sendmail("scanner@example.com", [TO], sent)
    (got,) = host.wait_for(1)
    assert got.content == sent
    assert (got.sender, got.to) == ("scanner@example.com", TO)
    assert got.trace.count("Received:") == 2  # the gateway's and Postfix's
    assert "by cold-store.example.com" in got.trace


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")
def test_a_mail_with_an_attachment_sent_by_swaks_arrives_as_it_was(gateway, postfix, tmp_path):
    host = postfix()
    one = gateway(POSTFIX_BOARD, host)
    (tmp_path / "page.bin").write_bytes(bytes(range(256)) * 100)
    done = subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(one.port), "--from", "ups@example.com"]
        + ["--to", TO, "--attach", f"@{tmp_path / 'page.bin'}", "--body", "On battery\n.\n..\n"]
        + ["--header", "Subject: power"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What it shows of DATA is what it sent, dots doubled.
    shown = [line[4:] for line in done.stdout.split(" -> DATA\n")[1].splitlines()[1:]]
    shown = shown[: shown.index(".")]
    sent = [line[1:] if line.startswith(".") else line for line in shown]
    (got,) = host.wait_for(1)
    assert got.content.decode().split("\r\n")[:-1] == sent
    assert got.subject == "power"


def test_mail_of_every_kind_arrives_as_it_was_sent(gateway, postfix):
    host = postfix()
    queue = "[queue]\nmax_bytes = '4MB'\n"
    one = gateway(POSTFIX_BOARD + queue, host)
    sent = {}
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        for number, content in enumerate(kinds().values()):
            to = f"kind{number}@example.com"
            sent[to] = content
            options = [] if content.isascii() else ["BODY=8BITMIME"]
            device.sendmail("printer@example.com", [to], content, options)
    got = {g.to: g.content for g in host.wait_for(len(sent))}
    for to, content in sent.items():
        assert got[to] == content
    one.stop()
    assert len(host.mails()) == len(sent)


def test_a_mail_that_lacks_date_and_message_id_gets_them(gateway, postfix):
    host = postfix()
    one = gateway(POSTFIX_BOARD, host)
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        device.sendmail("ups@example.com", [TO], b"Subject: on battery\r\n\r\nhelp\r\n")
    (got,) = host.wait_for(1)
    head, body = got.content.split(b"\r\n\r\n", 1)
    names = sorted(line.split(b":")[0].lower() for line in head.split(b"\r\n"))
    assert names == [b"date", b"from", b"message-id", b"subject"]
    assert b"From: " in head and b"ups@example.com" in head
    assert body == b"help\r\n"


def test_a_recipient_refused_for_good_leaves_the_others_delivered_once_and_the_sender_hears_of_it(gateway, postfix):
    host = postfix(refuse={"gone@example.com": "550 5.1.1 left in 1987"})
    one = gateway(IMPATIENT, host)
    one.inject(mail("for three"), to=["a@example.com", "gone@example.com", "b@example.com"])
    one.wait_for("printer@example.com is told")
    one.inject(mail("later"), to=["c@example.com"])  # the way is free for others
    got = {g.to: g for g in host.wait_for(4)}
    assert sorted(got) == ["a@example.com", "b@example.com", "c@example.com", "printer@example.com"]
    assert "refused for gone@example.com: 550 5.1.1" in one.log()
    report = email.message_from_bytes(got["printer@example.com"].content, policy=email.policy.SMTP)
    assert report.get_content_type() == "multipart/report"
    _, told, _ = report.iter_parts()
    (about,) = told.get_payload()[1:]
    assert (about["Final-Recipient"], about["Status"]) == ("rfc822; gone@example.com", "5.1.1")
    assert "left in 1987" in about["Diagnostic-Code"]
    # That is settled: nothing of it is tried again.
    assert one.stop() == 0
    mark = one.mark()
    one.start()
    one.inject(mail("much later"), to=["c@example.com"])
    host.wait_for(5)
    assert one.stop() == 0
    assert len(host.mails()) == 5
    assert "mails wait" not in "\n".join(one.messages.lines[mark:])


def test_a_recipient_refused_for_now_is_tried_again_alone(gateway, postfix):
    host = postfix(refuse={"busy@example.com": "450 4.2.1 full for the moment"})
    one = gateway(IMPATIENT, host)
    one.inject(mail("for three"), to=["a@example.com", "busy@example.com", "b@example.com"])
    one.wait_for("deferred for busy@example.com: 450 4.2.1")
    assert [g.to for g in host.wait_for(2)] == ["a@example.com", "b@example.com"]
    host.set_refused({})
    assert [g.to for g in host.wait_for(3)] == ["a@example.com", "b@example.com", "busy@example.com"]
    one.wait_for("delivered to busy@example.com")
    assert one.stop() == 0
    assert len(host.mails()) == 3
    assert one.log().count("delivered to a@example.com") == 1


def test_a_recipient_refused_for_now_is_remembered_over_a_power_cut(gateway, postfix):
    host = postfix(refuse={"busy@example.com": "450 4.2.1 full for the moment"})
    one = gateway(POSTFIX_BOARD, host)
    one.inject(mail("for two"), to=["a@example.com", "busy@example.com"])
    one.wait_for("deferred for busy@example.com")
    host.wait_for(1)
    host.set_refused({})
    one.kill()
    one.start()
    one.wait_for("delivered to busy@example.com")
    assert [g.to for g in host.wait_for(2)] == ["a@example.com", "busy@example.com"]
    assert one.stop() == 0
    assert len(host.mails()) == 2


def test_the_log_proposes_a_sender_and_with_it_the_waiting_mail_gets_through(gateway, postfix):
    host = postfix(senders=["gateway@example.com"])
    one = gateway(IMPATIENT, host)
    one.inject(mail("from the printer", sender="Printer <printer@lan.example>"), to=[TO])
    line = one.wait_for("set smarthost.sender")
    assert "printer@lan.example" in line
    assert one.stop() == 0
    assert host.mails() == []
    board = one.board.read_text()
    one.board.write_text(
        board.replace('username = "gateway"', 'username = "gateway"\nsender = "gateway@example.com"')
    )
    one.start()
    (got,) = host.wait_for(1)
    assert got.sender == "gateway@example.com"
    head = got.content.split(b"\r\n\r\n")[0].decode()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n"))
    assert "<gateway@example.com>" in fields["From"] and "Printer" in fields["From"]
    assert "printer@lan.example" in fields["Reply-To"]
    assert fields["Subject"] == "from the printer"
    one.wait_for("delivered to")
    assert one.stop() == 0
    assert len(host.mails()) == 1


INTERPRETERS = ["cpython", "micropython"]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("way", ["CHUNKING", "DATA", "DATA without PIPELINING"])
def test_the_library_sends_mail_of_every_kind_to_postfix(postfix, tmp_path, interpreter, way):
    hide = {"CHUNKING": [], "DATA": ["chunking"]}.get(way, ["chunking", "pipelining"])
    host = postfix(refuse={"gone@example.com": "550 5.1.1 left in 1987"}, hide=hide)
    ca = tmp_path / "ca.der"
    ca.write_bytes(ssl.PEM_cert_to_DER_cert(host.ca.read_text()))
    python = sys.executable
    if interpreter == "micropython":
        python = unix.find_micropython().path
    command = [python] + (["-X", "heapsize=8m"] if interpreter == "micropython" else [])
    command += [str(Path(__file__).with_name("send.py")), str(build.library().parent)]
    command += [str(host.port), str(ca), host.user, host.password, TO, "gone@example.com"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)
    expected = kinds()
    said = [f"refused {kind} gone@example.com 550 5.1.1" for kind in expected]
    assert sorted(done.stdout.splitlines()) == sorted([*said, f"sent {len(expected)}"]), done.stderr
    got = sorted(g.content for g in host.wait_for(len(expected)))
    assert got == sorted(expected.values())
    used = "bdat" if way == "CHUNKING" else "data"
    assert f" {used}={len(expected)}" in host.log()
