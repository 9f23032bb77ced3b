"""Addresses and header fields in UTF-8, from the gateway to a real Postfix and from a real client to the gateway."""

import smtplib

from harness import PATIENCE
from test_postfix_smarthost import POSTFIX_BOARD

SENSOR = '[[sensor]]\nname = "Kühlhaus"\ndriver = "file"\npath = "freezer.txt"\nevery = "0.2s"\nabove = -15.0\n'
PEOPLE = '["müller@example.com", "почта@example.com", "info@bücher.example"]'


def people(board, to):
    assert 'to = ["oncall@example.com"]' in board
    return board.replace('to = ["oncall@example.com"]', f"to = {to}")


def test_an_alert_reaches_mailboxes_in_latin_and_cyrillic_letters(gateway, postfix):
    host = postfix(smtputf8_enable="yes")
    one = gateway(people(POSTFIX_BOARD, PEOPLE) + SENSOR, host)
    (one.path / "freezer.txt").write_text("-12.5\n")
    got = {g.to: g for g in host.wait_for(3)}
    assert set(got) == {"müller@example.com", "почта@example.com", "info@xn--bcher-kva.example"}
    head = got["почта@example.com"].content.split(b"\r\n\r\n")[0].decode()
    assert "To: müller@example.com, почта@example.com, info@xn--bcher-kva.example" in head.replace("\r\n", "")
    assert "with UTF8SMTPSA" in got["müller@example.com"].trace  # so Postfix has seen SMTPUTF8
    one.wait_for("delivered to почта@example.com")
    assert one.stop() == 0


def test_without_smtputf8_the_alert_reaches_whom_it_can_and_the_log_says_who_is_left(gateway, postfix):
    host = postfix(smtputf8_enable="no")
    one = gateway(people(POSTFIX_BOARD, PEOPLE) + SENSOR, host)
    (one.path / "freezer.txt").write_text("-12.5\n")
    (got,) = host.wait_for(1)
    assert got.to == "info@xn--bcher-kva.example"
    assert got.content.isascii() and b"=?utf-8?" in got.content
    line = one.wait_for("refused for почта@example.com")
    assert "5.6.7" in line and "SMTPUTF8" in line
    assert one.stop() == 0


def test_a_device_that_speaks_smtputf8_is_understood_and_its_mail_arrives_as_it_was(gateway, postfix):
    host = postfix(smtputf8_enable="yes")
    allow = 'allow = ["127.0.0.0/8"]'
    assert allow in POSTFIX_BOARD
    one = gateway(POSTFIX_BOARD.replace(allow, allow + "\nsmtputf8 = true"), host)
    content = (
        "From: Jörg <jörg@example.com>\r\nTo: почта@example.com\r\nSubject: größer\r\nDate: Sun, 22 Nov 2026 12:00:00"
        " +0000\r\nMessage-ID: <1@lan.example>\r\n\r\nGrüße\r\n").encode()
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        device.ehlo()
        assert device.has_extn("smtputf8")
        device.sendmail("jörg@example.com", ["почта@example.com"], content, ["SMTPUTF8", "BODY=8BITMIME"])
    (got,) = host.wait_for(1)
    assert (got.sender, got.to, got.content) == ("jörg@example.com", "почта@example.com", content)
    assert got.trace.count("with UTF8SMTP") == 2  # the gateway's Received and Postfix's
    assert one.stop() == 0
