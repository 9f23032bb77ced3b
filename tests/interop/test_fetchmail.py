"""A real client of ETRN and of on-demand mail relay: fetchmail, against a gateway that is the provider."""

import os
import shutil
import subprocess

import pytest
from harness import BOARD, PATIENCE, mail

pytestmark = pytest.mark.skipif(not shutil.which("fetchmail"), reason="fetchmail is not installed (Debian: fetchmail)")

PROVIDER = """
[[listener]]
port = {port2}
allow = []
users = { board7 = { env = "BOARD7", store = "clear" } }
auth_in_clear = true
atrn = { board7 = ["b7.example.com"] }
"""


def fetchmail(path, text):
    """Runs it once, with this configuration; gives (exit status, what it said)."""
    (path / "rc").write_text(text)
    (path / "rc").chmod(0o600)
    done = subprocess.run(
        ["fetchmail", "-f", str(path / "rc"), "-v", "-v", "--nodetach", "--sslproto", ""],
        env=dict(os.environ, FETCHMAILHOME=str(path), HOME=str(path), LC_ALL="C"),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_fetchmail_fetches_by_odmr_what_waits_and_starts_the_queue_by_etrn(gateway, smarthost, tmp_path, monkeypatch):
    monkeypatch.setenv("BOARD7", "a word")
    host, home = smarthost(), smarthost(auth=False, starttls=False)
    allow = 'allow = ["127.0.0.0/8"]'
    assert allow in BOARD
    provider = gateway(BOARD.replace(allow, allow + '\netrn = ["b7.example.com"]') + PROVIDER, host)
    provider.inject(mail("for the board"), to=["x@b7.example.com"])
    odmr = f"""poll 127.0.0.1 proto ODMR port {provider.port2} auth cram-md5
        user "board7" password "a word" fetchdomains b7.example.com smtphost "127.0.0.1/{home.port}"
    """
    status, said = fetchmail(tmp_path, odmr)
    assert status == 0 and "Turnaround now" in said, said
    (got,) = home.wait_for(1)
    assert (got.sender, got.recipients, got.message["Subject"]) == (
        "printer@example.com", ["x@b7.example.com"], "for the board")  # fmt: skip
    provider.wait_for("delivered to x@b7.example.com")
    status, said = fetchmail(tmp_path, odmr)
    assert "453 4.2.0 you have no mail" in said, said
    status, said = fetchmail(tmp_path, odmr.replace('"a word"', '"guess"'))
    assert status and "535 5.7.8" in said, said
    domains = "smtphost b7.example.com fetchdomains b7.example.com"
    status, said = fetchmail(tmp_path, f"poll 127.0.0.1 proto ETRN port {provider.port} {domains}\n")
    assert status == 0 and "251 2.0.0 no messages waiting for node b7.example.com" in said, said
    assert provider.stop() == 0
