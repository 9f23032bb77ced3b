"""A real Dovecot as the next hop: mail goes into its mailboxes by LMTP, and each recipient is judged alone."""

import shutil
import smtplib
import subprocess

import pytest
from dovecot import Dovecot
from harness import BOARD, PATIENCE

LMTP_BOARD = BOARD.replace('username = "gateway"\npassword = "secret"', 'protocol = "lmtp"')
USERS = ("office@example.com", "second@example.com", "full@example.com")
MAIL = (
    b"From: printer@example.com\r\nTo: office@example.com\r\nSubject: a page\r\n\r\n"
    b".\r\n..dots\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)


def test_each_recipient_of_a_mail_has_its_fate_in_dovecots_mailboxes(gateway):
    with Dovecot(USERS, full=USERS[2:]) as host:
        one = gateway(LMTP_BOARD, host)
        with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
            device.sendmail("printer@example.com", [*USERS, "nobody@example.com"], MAIL)
        for user in USERS[:2]:
            (got,) = host.wait_for(user, 1)
            assert got.replace(b"\r\n", b"\n").endswith("\n\n.\n..dots\nGrüße\n".encode())
            assert b"Return-Path: <printer@example.com>" in got and b"with LMTPS" in got
        one.wait_for("refused for full@example.com: 552 5.2.2")
        one.wait_for("refused for nobody@example.com: 550 5.1.1")
        # Its sender hears of both, and has no mailbox there either.
        one.wait_for("refused for printer@example.com: 550 5.1.1")
        assert host.mails("full@example.com") == []


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")
def test_swaks_hands_mail_to_a_listener_by_lmtp(gateway, smarthost):
    host = smarthost()
    one = gateway(BOARD + 'protocol = "lmtp"\n', host)
    to = ["b@example.com", "c@example.com"]
    done = subprocess.run(
        ["swaks", "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(one.port), "--helo", "swaks.example.com",
         "--from", "a@example.com", "--to", ",".join(to)],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    # Its EHLO is LHLO here, and each of the two is told.
    assert done.stdout.count("<-  250 2.0.0 queued as") == 2, done.stdout
    (got,) = host.wait_for(1)
    assert got.recipients == to
