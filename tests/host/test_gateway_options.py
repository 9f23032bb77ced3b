"""Options of a listener that board.toml has and most boards leave alone, on a running gateway."""

import smtplib
import socket

import pytest
from harness import BOARD, PATIENCE


def test_who_talks_before_the_greeting_is_sent_away(gateway):
    one = gateway(BOARD + 'greeting_delay = "2s"\n')
    with socket.create_connection(("127.0.0.1", one.port), PATIENCE) as eager:
        eager.sendall(b"EHLO x.example.com\r\n")
        assert eager.makefile("rb").read().startswith(b"554 ")
    one.inject()
    one.wait_for("queued: from <printer@example.com>")


def test_a_mail_with_a_lone_line_feed_is_refused_or_mended_as_the_listener_says(gateway):
    for option, accepted in (("", True), ('bare_newline = "refuse"\n', False)):
        one = gateway(BOARD + option)
        with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("a@example.com")
            client.rcpt("b@example.com")
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(b"Subject: x\r\n\r\none\ntwo\r\n.\r\n")
            code, text = client.getreply()
            assert (code == 250) is accepted, text
            if not accepted:
                assert (code, text[:6]) == (554, b"5.6.0 ")


@pytest.mark.parametrize("word", ["GET", "POST"])
def test_a_browser_is_no_mail_client(gateway, word):
    one = gateway()
    with socket.create_connection(("127.0.0.1", one.port), PATIENCE) as browser:
        browser.sendall(f"{word} / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@example.com>\r\n".encode())
        said = browser.makefile("rb").read()
    assert said.splitlines()[1].startswith(b"421 "), said


def test_without_a_domain_the_gateway_calls_itself_by_its_address(gateway, smarthost):
    host = smarthost()
    one = gateway(BOARD.replace('domain = "cold-store.example.com"\n', ""), host)
    one.inject()
    host.wait_for(1)
    (mail,) = host.mails
    assert mail.helo in ("[127.0.0.1]", "[IPv6:::1]")
    assert mail.message["Message-ID"].endswith(("@127.0.0.1>", "@[127.0.0.1]>", "@[IPv6:::1]>"))
