"""swaks and smtplib as devices on the LAN: who may send through the gateway's listeners, and how."""

import shutil
import smtplib
import ssl
import subprocess

import pytest
from edgepost import certificates
from edgepost.smarthost import SmartHost
from harness import BOARD, PATIENCE, RunningGateway, mail

needs_swaks = pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")

PASSWORD = "geh heim, 4711"
# First listener: by network, without TLS. Second: only with a password, and TLS.
USERS = """
[[listener]]
port = {port2}
tls = "TLS"
cert = "lan/lan.pem"
key = "lan/lan.key"
allow = []
users = { printer = "geh heim, 4711", "plc@line 1" = "another" }
[queue]
max_message = "100KB"
"""
FORGER = dict(sender="printer@example.com", to="office@example.com")


@pytest.fixture
def host(tmp_path):
    with SmartHost(tmp_path / "smarthost") as host:
        yield host


@pytest.fixture
def lan(host, tmp_path):
    """Makes a gateway whose second listener has a certificate of the CA lan("starttls").ca."""
    made = []

    def start(tls):
        authority = certificates.Authority(tmp_path / "lan", "CA of the LAN")
        authority.issue(label="lan")
        one = RunningGateway(tmp_path, BOARD + USERS.replace("TLS", tls), host)
        made.append(one)
        one.ca = authority.pem
        return one.start()

    yield start
    for one in made:
        one.kill()


def connect(one, tls):
    """A device that verifies the listener's certificate."""
    context = ssl.create_default_context(cafile=one.ca)
    if tls == "tls":
        return smtplib.SMTP_SSL("localhost", one.port2, timeout=PATIENCE, context=context)
    device = smtplib.SMTP("localhost", one.port2, timeout=PATIENCE)
    device.starttls(context=context)
    device.ehlo()
    return device


def swaks(port, *options, **kwargs):
    return subprocess.run(
        ["swaks", "--server", "localhost", "--port", str(port), "--from", FORGER["sender"]]
        + ["--to", FORGER["to"], "--h-Subject", "by swaks", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **kwargs,
    )


def by_swaks(one, tls, *options):
    return swaks(
        one.port2, "--tls" if tls == "starttls" else "--tls-on-connect",
        "--tls-verify", "--tls-ca-path", one.ca, *options,
    )  # fmt: skip


# ---- from an allowed network


def test_smtplib_sends_in_plain_smtp_from_an_allowed_network(lan, host):
    lan("starttls").inject(mail("plain"), to=["office@example.com"])
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "plain"
    assert "with ESMTP id" in got.message["Received"]


@needs_swaks
@pytest.mark.parametrize("protocol", ["SMTP", "ESMTP"])
def test_swaks_sends_in_plain_smtp_from_an_allowed_network(lan, host, protocol):
    one = lan("starttls")
    done = swaks(one.port, "--protocol", protocol)
    assert done.returncode == 0, done.stdout + done.stderr
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "by swaks"
    assert f"with {protocol} id" in got.message["Received"]


# ---- with a password


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_smtplib_signs_in(lan, host, tls, mechanism):
    one = lan(tls)
    with connect(one, tls) as device:
        device.ehlo()
        assert mechanism in device.esmtp_features["auth"].split()
        device.user, device.password = "printer", PASSWORD
        auth = getattr(device, f"auth_{mechanism.lower()}")
        assert device.auth(mechanism, auth)[0] == 235
        device.send_message(mail("signed in"))
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "signed in"
    assert "with ESMTPSA id" in got.message["Received"]


@needs_swaks
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_swaks_signs_in(lan, host, tls, mechanism):
    one = lan(tls)
    done = by_swaks(
        one, tls, "--auth", mechanism, "--auth-user", "plc@line 1", "--auth-password", "another"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "~> AUTH" in done.stdout  # the arrow of what goes over TLS
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "by swaks"


def test_no_password_ever_reaches_the_log(lan, host):
    one = lan("tls")
    with connect(one, "tls") as device:
        device.login("printer", PASSWORD)
        device.send_message(mail())
    with connect(one, "tls") as device, pytest.raises(smtplib.SMTPAuthenticationError):
        device.login("printer", "geh heim, 4712")
    host.wait_for(1)
    one.stop()
    assert "geh heim" not in one.log()


# ---- refused


@pytest.mark.parametrize(
    ("mechanism", "user", "password"),
    [("PLAIN", "printer", "wrong"), ("LOGIN", "printer", ""), ("LOGIN", "nobody", PASSWORD)],
)
def test_a_wrong_name_or_password_is_refused(lan, host, mechanism, user, password):
    one = lan("tls")
    with connect(one, "tls") as device:
        device.ehlo()
        device.user, device.password = user, password
        with pytest.raises(smtplib.SMTPAuthenticationError) as refusal:
            device.auth(mechanism, getattr(device, f"auth_{mechanism.lower()}"))
        assert refusal.value.smtp_code == 535
        assert device.mail("printer@example.com")[0] == 530
    one.wait_for("wrong user name or password from 127.0.0.1")
    one.stop()
    assert host.mails == []


@needs_swaks
def test_swaks_with_a_wrong_password_is_refused(lan, host):
    one = lan("starttls")
    done = by_swaks(one, "starttls", "--auth-user", "printer", "--auth-password", "wrong")
    assert done.returncode == 28  # swaks: the login failed
    assert " 535 5.7.8 " in done.stdout
    one.stop()
    assert host.mails == []


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_without_a_password_nothing_is_taken_outside_allowed_networks(lan, host, tls):
    one = lan(tls)
    with connect(one, tls) as device:
        device.ehlo()
        assert device.mail("printer@example.com")[0] == 530
        assert device.rcpt("office@example.com")[0] == 503
        assert device.docmd("DATA")[0] == 503
    one.stop()
    assert host.mails == []


def test_in_the_clear_auth_is_neither_offered_nor_taken(lan, host):
    one = lan("starttls")
    with smtplib.SMTP("localhost", one.port2, timeout=PATIENCE) as device:
        device.ehlo()
        assert not device.has_extn("auth") and device.has_extn("starttls")
        assert device.docmd("AUTH", "PLAIN AHByaW50ZXIAZ2VoIGhlaW0sIDQ3MTE=")[0] == 538
        assert device.mail("printer@example.com")[0] == 530
    one.stop()
    assert host.mails == []


def test_a_client_that_does_not_trust_the_listeners_ca_does_no_harm(lan, host):
    one = lan("tls")
    with pytest.raises(ssl.SSLError):
        smtplib.SMTP_SSL("localhost", one.port2, timeout=PATIENCE,
                         context=ssl.create_default_context())  # fmt: skip
    one.wait_for("TLS handshake with 127.0.0.1 failed")
    with connect(one, "tls") as device:
        device.login("printer", PASSWORD)
        device.send_message(mail("after it"))
    assert host.wait_for(1)[0].message["Subject"] == "after it"


# ---- SIZE


def test_smtplib_learns_the_limit_and_a_bigger_mail_is_refused_before_it_is_sent(lan, host):
    one = lan("starttls")
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        device.ehlo()
        assert device.esmtp_features["size"] == "102400"
        with pytest.raises(smtplib.SMTPSenderRefused) as refusal:  # it declares the size
            device.send_message(big())
        assert refusal.value.smtp_code == 552
        device.send_message(mail("small"))
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "small"
    one.stop()
    assert len(host.mails) == 1


@needs_swaks
def test_a_mail_that_grows_beyond_the_limit_is_refused_after_it(lan, host, tmp_path):
    one = lan("starttls")
    (tmp_path / "page").write_bytes(b"0123456789" * 15000)
    done = swaks(one.port, "--attach", f"@{tmp_path / 'page'}")  # swaks declares no size
    assert done.returncode == 26  # swaks: the mail was refused
    assert " 552 5.3.4 " in done.stdout
    one.stop()
    assert host.mails == []


def big():
    return mail("big", ("x" * 70 + "\n") * 2000)
