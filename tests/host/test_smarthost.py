"""The development smart host: its certificates, what it insists on, and how it can misbehave for
tests.
"""

import mailbox
import os
import re
import signal
import smtplib
import ssl
import stat
import subprocess
import sys

import pytest
from edgepost import certificates
from edgepost.errors import UserError
from edgepost.smarthost import describe
from harness import edgepost, free_port, mail


def connect(host, name="localhost"):
    """A client that verifies the smart host's certificate, after STARTTLS."""
    client = smtplib.SMTP("127.0.0.1", host.port, timeout=20)
    client._host = name
    client.starttls(context=ssl.create_default_context(cafile=host.ca))
    return client


@pytest.mark.parametrize("name", certificates.NAMES)
def test_its_certificate_is_good_for_each_name_of_this_machine(smarthost, name):
    with connect(smarthost(), name) as client:
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("expired", "certificate has expired"),
        ("wrong-name", "Hostname mismatch"),
        ("other-ca", "unable to get local issuer"),
    ],
)
def test_a_broken_certificate_is_broken_in_just_that_way(smarthost, certificate, why):
    host = smarthost(certificate=certificate)
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        connect(host)


def test_its_ca_stays_the_same_from_start_to_start(smarthost, tmp_path):
    first = smarthost(path=tmp_path / "dir").ca.read_bytes()
    assert smarthost(path=tmp_path / "dir").ca.read_bytes() == first


def test_its_private_keys_are_for_its_owner_only(smarthost):
    keys = list(smarthost().path.glob("*.key"))
    assert len(keys) == 2
    assert {stat.S_IMODE(k.stat().st_mode) for k in keys} == {0o600}


def test_it_takes_mail_after_tls_and_auth_and_keeps_it(smarthost):
    host = smarthost()
    with connect(host) as client:
        client.login("gateway", "secret")
        client.send_message(mail("kept", "first\n.\nlast\n"))
    (got,) = host.wait_for(1)
    assert (got.sender, got.recipients) == ("printer@example.com", ["office@example.com"])
    assert (got.tls, got.user) == (True, "gateway")
    (kept,) = mailbox.Maildir(host.path / "mail")
    assert kept["Subject"] == "kept"
    assert kept["Return-Path"] == "<printer@example.com>"
    assert "with ESMTPSA" in kept["Received"]
    assert kept.get_payload() == "first\n.\nlast\n"


def test_without_starttls_nobody_may_send(smarthost):
    with smtplib.SMTP("localhost", smarthost().port, timeout=20) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.mail("a@example.com")[0] == 530


def test_without_auth_nobody_may_send(smarthost):
    with connect(smarthost()) as client:
        client.ehlo()
        assert client.mail("a@example.com")[0] == 530


def test_a_wrong_password_is_refused_and_noted(smarthost):
    host = smarthost()
    with connect(host) as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("gateway", "wrong")
    assert ("gateway", False) in host.logins


def test_it_can_leave_out_starttls_or_auth(smarthost):
    with smtplib.SMTP("localhost", smarthost(starttls=False).port, timeout=20) as client:
        client.ehlo()
        assert not client.has_extn("starttls") and client.has_extn("auth")
    with connect(smarthost(auth=False)) as client:
        client.ehlo()
        assert not client.has_extn("auth")


def test_it_can_speak_tls_from_the_start(smarthost):
    host = smarthost(tls=True)
    context = ssl.create_default_context(cafile=host.ca)
    with smtplib.SMTP_SSL("localhost", host.port, timeout=20, context=context) as client:
        client.login("gateway", "secret")
        client.send_message(mail())
    (got,) = host.wait_for(1)
    assert (got.tls, got.user) == (True, "gateway")


def test_it_refuses_what_a_test_wants_refused(smarthost):
    replies = {"bad@example.com": "550 5.1.1 no such user", "late@example.com": "451 4.3.0 later"}
    host = smarthost(refuse=lambda verb, address: replies.get(address))
    with connect(host) as client:
        client.login("gateway", "secret")
        to = ["good@example.com", *replies]
        refused = client.sendmail("a@example.com", to, b"Subject: x\r\n\r\n")
    assert {a: code for a, (code, _) in refused.items()} == {to[1]: 550, to[2]: 451}
    assert host.wait_for(1)[0].recipients == ["good@example.com"]
    assert host.refused == [("rcpt", a, reply) for a, reply in replies.items()]


def test_a_taken_port_is_told_at_once(smarthost):
    with pytest.raises(UserError, match=r"port \d+ on localhost is in use"):
        smarthost(port=smarthost().port)


def test_a_port_is_free_again_after_a_stop(smarthost):
    host = smarthost()
    host.stop()
    smarthost(port=host.port)


def test_nothing_in_a_mail_can_play_with_the_terminal(smarthost):
    host = smarthost()
    with connect(host) as client:
        client.login("gateway", "secret")
        client.sendmail(
            "a@example.com",
            ["b@example.com"],
            b"Subject: \x1b[2J\x07x\r\n\r\nred \x1b[31m text\r\n",
        )
    text = describe(host.wait_for(1)[0])
    assert "red ?[31m text" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_the_command_shows_each_mail_and_ends_on_sigterm(tmp_path):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "smarthost", "--port", str(port), "--dir", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SMTP_PASSWORD": "hush"},
    )
    try:
        start = [process.stdout.readline() for _ in range(4)]
        assert f"port {port}" in start[0] and "Ctrl-C" in start[3]
        assert "hush" not in "".join(start)
        client = smtplib.SMTP("localhost", port, timeout=20)
        client.starttls(context=ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        client.login("gateway", "hush")
        client.send_message(mail("Zeitüberschreitung", "text of the mail\n"))
        client.quit()
        shown = ""
        while "└" not in shown:
            shown += process.stdout.readline()
        assert "Subject: Zeitüberschreitung" in shown and "│ text of the mail" in shown
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_the_command_makes_up_a_password_and_shows_it(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "SMTP_PASSWORD"}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "smarthost", "--port", "0", "--dir", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert re.search(r"user gateway, password [\w-]{16}\n", lines[2])
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_the_command_says_in_one_line_that_the_port_is_taken(smarthost, tmp_path):
    port = smarthost().port
    done = edgepost("smarthost", "--port", port, "--dir", tmp_path / "another")
    assert done.returncode == 2
    assert done.stderr == (
        f"edgepost: port {port} on localhost is in use; stop what listens there, or take another:"
        f" --port {port + 1}\n"
    )


def test_the_command_says_in_one_line_that_its_directory_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    done = edgepost("smarthost", "--port", "0", "--dir", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.startswith("edgepost: ") and done.stderr.count("\n") == 1
    assert "--dir" in done.stderr
