"""What the README shows is run as it stands there, on both interpreters; only names and ports are this machine's."""

import email
import email.policy
import os
import re
import smtplib
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgepost import build, config, unix
from harness import PATIENCE, free_port

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(kind, word):
    """The one block of `kind` that contains `word`."""
    (found,) = [b for b in re.findall(rf"```{kind}\n(.*?)```", README, re.S) if word in b]
    return found


@pytest.fixture(params=["cpython", "micropython"])
def script(request, tmp_path):
    """Starts a text as a program; gives the process, whose output is its standard output."""
    running = []

    def start(text):
        (tmp_path / "script.py").write_text(text)
        lib = str(build.library().parent)
        if request.param == "cpython":
            command, path = [sys.executable, "-u"], {"PYTHONPATH": lib}
        else:
            command, path = [unix.find_micropython().path], {"MICROPYPATH": f"{lib}:.frozen"}
        running.append(
            subprocess.Popen(
                [*command, "script.py"],
                cwd=tmp_path,
                env={**os.environ, **path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_sending_a_mail(script, smarthost, tmp_path):
    host = smarthost(username="node7")
    (tmp_path / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(Path(host.ca).read_text()))
    text = block("python", "open_session(").replace('"smtp.example.com", 587', f'"localhost", {host.port}')
    output, _ = script(text).communicate(timeout=PATIENCE)
    assert output == "accepted\n"
    (mail,) = host.mails
    assert mail.message["Subject"] == "Füllstand"
    assert mail.message.get_content().strip() == "Tank 3 is at 12 %."


def test_making_a_mail_with_more_in_it(script):
    text = block("python", "mime.recipients") + 'print(" ".join(recipients))\nprint(b"".join(mail).decode(), end="")\n'
    output, _ = script(text).communicate(timeout=PATIENCE)
    recipients, _, mail = output.partition("\n")
    assert recipients == "oncall@example.com porter@example.com archive@example.com"
    parsed = email.message_from_string(mail, policy=email.policy.default)
    assert (parsed["Cc"], parsed["Reply-To"], parsed["Bcc"]) == ("porter@example.com", "desk@example.com", None)
    assert [part.get_content_type() for part in parsed.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html", "image/jpeg"]
    assert [part.get_content() for part in parsed.iter_attachments()] == [b"..."]


PORTER = """
import os, sys
sys.path.append({firmware!r})
import gateway
from clock import Clock
from smtp.queue import Queue
gateway.queue = Queue("spool")
gateway.time = Clock([0])
gateway._mail = dict([("from", "door@example.com"), ("to", ["oncall@example.com"])])
"""


def test_queuing_alerts(script, tmp_path):
    (tmp_path / "door.log").write_text("open\n")
    text = block("python", "Freezer warm") + block("python", "picture()").replace('"/door.log"', '"door.log"')
    output, _ = script(PORTER.format(firmware=str(build.firmware())) + text).communicate(timeout=PATIENCE)
    assert "queued: Freezer warm" in output and "queued: Somebody is at the door" in output, output


def test_running_a_server(script):
    port = free_port()
    text = block("python", "Server()").replace("2525", str(port)).replace("0.0.0.0", "127.0.0.1")
    process = script(text.replace("192.168.1.0/24", "127.0.0.0/8"))
    for _ in range(PATIENCE * 10):
        try:
            client = smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE)
            break
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise AssertionError(process.stdout.read()) from None
            time.sleep(0.1)
    with client:
        client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nhello\r\n")
    assert process.stdout.readline() == "a@example.com -> ['b@example.com'] 21 octets\n"


def test_the_configuration_is_accepted_as_it_stands(smarthost, tmp_path):
    (tmp_path / "ca.pem").write_text(Path(smarthost().ca).read_text())
    (tmp_path / "board.toml").write_text(block("toml", "[board]"))
    values, warnings = config.load(tmp_path / "board.toml", {"SMTP_PASSWORD": "secret"})
    assert values["board"]["domain"] == "cold-store.example.com"
    assert not warnings
