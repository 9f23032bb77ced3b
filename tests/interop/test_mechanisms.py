"""AUTH with other people's software, in the clear and over STARTTLS: smtplib, aiosmtplib, swaks and curl with our
server, our client with aiosmtpd and Postfix, and ours with ours; CPython and MicroPython.
"""

import asyncio
import itertools
import json
import shutil
import smtplib
import ssl
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography.hazmat.primitives import serialization as ser
from edgepost import build, certificates, unix
from edgepost.log import Log
from harness import PATIENCE, free_port
from postfix import Postfix

sys.path.insert(0, str(build.library().parent))

from smtp.auth import CLEAR, make_verifier  # noqa: E402

INTERPRETERS = ["cpython", "micropython"]
WAYS = ["clear", "starttls"]
# Who logs in, by mechanism: CRAM-MD5 is only for those who are stored in the clear.
PRINTER, PLC = ("printer", "geh heim, 4711"), ("plc@line 1", "an=other:")
WHO = {"CRAM-MD5": PLC, "LOGIN": PLC, "PLAIN": PRINTER, "SCRAM-SHA-256": PRINTER}
_number = itertools.count(1)


def command(interpreter, script, *args):
    """The command that runs a script of this directory with the library."""
    python = [sys.executable, "-u"]
    if interpreter == "micropython":
        python = [unix.find_micropython().path, "-X", "heapsize=4m"]
    return python + [str(Path(__file__).with_name(script)), str(build.library().parent), *map(str, args)]


def der(authority, label="server"):
    """(certificate, key, CA), files in DER."""
    pem, key = authority.issue(label=label)
    path = authority.path
    private = ser.load_pem_private_key(key.read_bytes(), None)
    kind = ser.Encoding.DER, ser.PrivateFormat.PKCS8, ser.NoEncryption()
    for name, data in (
        ("cert.der", ssl.PEM_cert_to_DER_cert(pem.read_text())),
        ("key.der", private.private_bytes(*kind)),
        ("ca.der", ssl.PEM_cert_to_DER_cert(authority.pem.read_text())),
    ):
        (path / name).write_bytes(data)
    return path / "cert.der", path / "key.der", path / "ca.der"


class Ours:
    """Our server in a process of its own: `port`, `ca` (PEM), `ca_der`, `got(sender)`."""

    def __init__(self, path, interpreter):
        authority = certificates.Authority(path)
        cert, key, self.ca_der = der(authority)
        self.ca, self.port = authority.pem, free_port()
        users = {PRINTER[0]: make_verifier(PRINTER[1]), PLC[0]: CLEAR + PLC[1]}
        self.process = subprocess.Popen(
            command(interpreter, "serve.py", self.port, cert, key, json.dumps(users)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log = Log()
        self.log.follow(self.process.stdout)
        self.log.wait_for("ready", PATIENCE)

    def took(self, sender, user, way):
        """A mail of this sender came, after AUTH of this user, in this way."""
        line = self.log.wait_for(f"mail {sender} ", PATIENCE)
        return f'from "{user}" {"tls" if way == "starttls" else "clear"} ' in line

    def context(self):
        return ssl.create_default_context(cafile=self.ca)


@pytest.fixture(scope="module", params=INTERPRETERS)
def server(request, tmp_path_factory):
    ours = Ours(tmp_path_factory.mktemp("ours"), request.param)
    yield ours
    ours.process.kill()
    ours.process.wait()


@pytest.fixture
def sender():
    return f"device{next(_number)}@example.com"


def mail(sender):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "office@example.com", "signed in"
    message.set_content("hello\n")
    return message


def each(*mechanisms):
    """Runs a test with each mechanism in each way."""

    def wrap(test):
        test = pytest.mark.parametrize("mechanism", mechanisms)(test)
        return pytest.mark.parametrize("way", WAYS)(test)

    return wrap


# -- our server


@each("PLAIN", "LOGIN", "CRAM-MD5")
def test_smtplib_logs_in(server, way, mechanism, sender):
    with smtplib.SMTP("localhost", server.port, timeout=PATIENCE) as device:
        if way == "starttls":
            device.starttls(context=server.context())
        device.ehlo()
        assert device.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]
        method = getattr(device, "auth_" + mechanism.lower().replace("-", "_"))
        device.user, device.password = WHO[mechanism][0], "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as refusal:
            device.auth(mechanism, method)
        assert refusal.value.smtp_code == 535
        device.password = WHO[mechanism][1]
        assert device.auth(mechanism, method)[0] == 235
        device.send_message(mail(sender))
    assert server.took(sender, WHO[mechanism][0], way)


@each("plain", "login", "crammd5")
def test_aiosmtplib_logs_in(server, way, mechanism, sender):
    who = WHO[mechanism.upper().replace("CRAMMD5", "CRAM-MD5")]

    async def talk():
        tls = {"start_tls": True, "tls_context": server.context()} if way == "starttls" else {"start_tls": False}
        async with aiosmtplib.SMTP(hostname="localhost", port=server.port, timeout=PATIENCE, **tls) as device:
            await device.ehlo()
            method = getattr(device, "auth_" + mechanism)
            with pytest.raises(aiosmtplib.SMTPAuthenticationError) as refusal:
                await method(who[0], "wrong")
            assert refusal.value.code == 535
            await method(*who)
            await device.send_message(mail(sender))

    asyncio.run(talk())
    assert server.took(sender, who[0], way)


def run(args, **more):
    return subprocess.run(args, capture_output=True, text=True, timeout=PATIENCE, **more)


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed (Debian: apt install swaks)")
@each("PLAIN", "LOGIN", "CRAM-MD5")
def test_swaks_logs_in(server, way, mechanism, sender):
    args = ["swaks", "--server", "localhost", "--port", str(server.port), "--from", sender, "--to", "a@example.com"]
    if way == "starttls":
        args += ["--tls", "--tls-verify", "--tls-ca-path", str(server.ca)]
    user, password = WHO[mechanism]
    args += ["--auth", mechanism, "--auth-user", user, "--auth-password"]
    done = run([*args, password])
    if "requires Digest::" in done.stdout + done.stderr:
        pytest.skip(f"this swaks has no {mechanism} (Debian: apt install libdigest-hmac-perl)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.took(sender, user, way)
    done = run([*args, "wrong"])
    assert done.returncode == 28 and " 535 5.7.8 " in done.stdout, done.stdout


def curl_missing(mechanism):
    """Why curl cannot do this mechanism, or ""."""
    if not shutil.which("curl"):
        return "curl is not installed"
    about = run(["curl", "--version"]).stdout
    if " smtp " not in about:
        return "this curl has no SMTP"
    if mechanism.startswith("SCRAM") and " gsasl" not in about:
        return "this curl was built without gsasl, so it has no SCRAM-SHA-256"
    return ""


@pytest.mark.parametrize("initial", [True, False], ids=["in one step", "in two steps"])
@each("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")
def test_curl_logs_in(server, way, mechanism, initial, sender, tmp_path):
    if why := curl_missing(mechanism):
        pytest.skip(why)
    (tmp_path / "mail").write_bytes(mail(sender).as_bytes())
    user, password = WHO[mechanism]
    args = ["curl", "--silent", "--show-error", f"smtp://localhost:{server.port}/device.example.com"]
    args += ["--mail-from", sender, "--mail-rcpt", "office@example.com", "--upload-file", str(tmp_path / "mail")]
    args += ["--crlf", "--login-options", f"AUTH={mechanism}"] + (["--sasl-ir"] if initial else [])
    args += ["--ssl-reqd", "--cacert", str(server.ca)] if way == "starttls" else []
    # curl takes the name up to the first colon.
    done = run([*args, "--user", f"{user}:{password}"])
    assert done.returncode == 0, done.stderr
    assert server.took(sender, user, way)
    done = run([*args, "--user", f"{user}:wrong"])
    assert done.returncode == 67, done.stderr  # curl: login denied


# -- our client


def log_in(interpreter, port, ca, user, password, mechanism, sender):
    """What login.py prints."""
    args = command(interpreter, "login.py", port, ca or "none", user, password, mechanism, sender)
    done = run(args)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@each("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "best")
def test_our_client_logs_in_to_our_server(server, interpreter, way, mechanism, sender):
    user, password = WHO.get(mechanism, PLC)
    ca = server.ca_der if way == "starttls" else None
    assert log_in(interpreter, server.port, ca, user, password, mechanism, sender) == "sent"
    assert server.took(sender, user, way)
    said = log_in(interpreter, server.port, ca, user, "wrong", mechanism, sender)
    assert said.startswith("auth ") and "535" in said


class Aiosmtpd(Controller):
    """aiosmtpd with one account, in a thread; STARTTLS and AUTH in the clear are both offered."""

    def __init__(self, path):
        self.authority = certificates.Authority(path)
        self.mails = []
        cert, key = self.authority.issue()
        super().__init__(
            self, "localhost", free_port(), tls_context=certificates.server_context(cert, key),
            authenticator=self.check, auth_required=True, auth_require_tls=False,
        )  # fmt: skip

    def check(self, server, session, envelope, mechanism, data):
        right = data == LoginPassword(b"printer", PRINTER[1].encode())
        return AuthResult(success=right, auth_data=mechanism, handled=right)

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.mail_from, session.auth_data, session.ssl is not None))
        return "250 2.0.0 ok"


@pytest.fixture
def aiosmtpd(tmp_path):
    controller = Aiosmtpd(tmp_path)
    controller.start()
    yield controller
    controller.stop()


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@each("PLAIN", "LOGIN", "best")
def test_our_client_logs_in_to_aiosmtpd(aiosmtpd, interpreter, way, mechanism, sender):
    ca = der(aiosmtpd.authority, "again")[2] if way == "starttls" else None
    assert log_in(interpreter, aiosmtpd.port, ca, *PRINTER, mechanism, sender) == "sent"
    used = "PLAIN" if mechanism == "best" else mechanism
    assert aiosmtpd.mails == [(sender, used, way == "starttls")]
    said = log_in(interpreter, aiosmtpd.port, ca, "printer", "wrong", mechanism, sender)
    assert said.startswith("auth ") and "535" in said
    assert len(aiosmtpd.mails) == 1


class Saslauth(Postfix):
    """A Postfix that offers all that Cyrus SASL can do with stored passwords, TLS or not."""

    MECHS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")

    def __init__(self):
        super().__init__(smtpd_tls_security_level="may", smtpd_tls_auth_only="no")

    def set_up(self, cert, key):
        super().set_up(cert, key)
        conf = self.path / "config" / "sasl" / "smtpd.conf"
        conf.write_text(conf.read_text().replace(": PLAIN LOGIN\n", ": " + " ".join(self.MECHS) + "\n"))


@pytest.fixture(scope="module")
def saslauth():
    with Saslauth() as host:
        yield host


def offered(host):
    with smtplib.SMTP("localhost", host.port, timeout=PATIENCE) as device:
        device.ehlo()
        return device.esmtp_features.get("auth", "").split()


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@each(*Saslauth.MECHS, "best")
def test_our_client_logs_in_to_postfix(saslauth, interpreter, way, mechanism, sender, tmp_path):
    there = offered(saslauth)
    if mechanism != "best" and mechanism not in there:
        pytest.skip(f"this Postfix offers no {mechanism}: Cyrus SASL's module for it is missing (libsasl2-modules)")
    (tmp_path / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(saslauth.ca.read_text()))
    ca = tmp_path / "ca.der" if way == "starttls" else None
    user, password = saslauth.user, saslauth.password
    assert log_in(interpreter, saslauth.port, ca, user, password, mechanism, sender) == "sent"
    best = "PLAIN" if way == "starttls" else next(m for m in reversed(Saslauth.MECHS) if m in there)
    methods = [n for n in saslauth.log().splitlines() if "sasl_method=" in n]
    assert f"sasl_method={best if mechanism == 'best' else mechanism}," in methods[-1]
    said = log_in(interpreter, saslauth.port, ca, user, "wrong", mechanism, sender)
    assert said.startswith("auth ") and "535" in said
