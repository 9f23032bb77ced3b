"""What a running gateway does with mail that its smart host does not take: bounce, report; limits for a device."""

import smtplib
import time

import pytest
from harness import BOARD, PATIENCE, mail

QUICK = BOARD.replace("[[listener]]", '[queue]\nretry = "1s"\ngather = "1s"\n{queue}\n[[listener]]')


def refuse_to(*addresses, reply="550 5.1.1 no such user"):
    return lambda verb, address: reply if verb == "rcpt" and address in addresses else None


def wait_for_to(host, address):
    """The mails to an address, as soon as there is one."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = [m for m in list(host.mails) if address in m.recipients]
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"nothing arrived for {address}")


def test_a_device_hears_that_its_mail_was_refused(gateway, smarthost):
    host = smarthost(refuse=refuse_to("gone@example.com"))
    one = gateway(QUICK.replace("{queue}", ""), host)
    one.inject(mail(subject="page 7", to="gone@example.com"))
    (bounce,) = wait_for_to(host, "printer@example.com")
    assert bounce.sender in ("", "<>", None)
    parts = list(bounce.message.walk())
    assert [p.get_content_type() for p in parts[:3]] == [
        "multipart/report", "text/plain", "message/delivery-status"]
    assert "550 5.1.1 no such user" in parts[1].get_content()
    assert parts[-1].get_content_type() == "text/rfc822-headers"
    assert "page 7" in str(parts[-1])
    assert bounce.message["Auto-Submitted"] == "auto-replied"
    assert bounce.message["Message-ID"] and bounce.message["Date"]


def test_what_nobody_else_can_be_told_the_admin_hears_in_one_mail(gateway, smarthost):
    host = smarthost(refuse=refuse_to("gone@example.com"))
    one = gateway(QUICK.replace("{queue}", ""), host)
    for n in range(5):
        one.inject(mail(subject=f"page {n}", sender="scanner@office.lan", to="gone@example.com"))
    (report,) = wait_for_to(host, "admin@example.com")
    text = report.message.get_content()
    assert report.sender == "cold-store@example.com"
    assert "scanner@office.lan" in text and "no such user" in text and "page 0" in text
    told = text.count("Subject: page")
    one.wait_for(f"is told of {told} mails")
    assert one.stop() == 0
    one.start()
    one.wait_for("5 dead letters")


def test_a_mail_that_is_deferred_too_long_is_bounced(gateway, smarthost):
    host = smarthost(refuse=refuse_to("slow@example.com", reply="450 4.2.0 busy"))
    options = 'retry_max = "1s"\ndelay_notice = "1s"\nexpire = "4s"\n'
    one = gateway(QUICK.replace("{queue}", options), host)
    one.inject(mail(to="slow@example.com"))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and len(wait_for_to(host, "printer@example.com")) < 2:
        time.sleep(0.1)
    first, last = wait_for_to(host, "printer@example.com")
    assert "Action: delayed" in first.content.decode() and "Will-Retry-Until:" in first.content.decode()
    assert "Action: failed" in last.content.decode() and "450 4.2.0 busy" in last.content.decode()


def test_a_device_has_a_sender_and_a_limit_of_its_own(gateway, smarthost):
    host = smarthost()
    device = '[[device]]\naddress = "127.0.0.1"\nsender = "scanner@example.com"\nper_hour = 3\n'
    one = gateway(QUICK.replace("{queue}", "") + device, host)
    for _ in range(3):
        one.inject(mail(sender="admin@nas.lan"))
    with pytest.raises(smtplib.SMTPDataError) as e:
        one.inject(mail(sender="admin@nas.lan"))
    assert e.value.smtp_code == 450 and b"3 mails an hour" in e.value.smtp_error
    got = host.wait_for(3)
    assert {m.sender for m in got} == {"scanner@example.com"}
    assert {m.message["Reply-To"] for m in got} == {"admin@nas.lan"}


def test_mails_a_minute_are_bounded_and_the_rest_waits(gateway, smarthost):
    host = smarthost()
    board = QUICK.replace("{queue}", "").replace('username = "gateway"', 'per_minute = 3\nusername = "gateway"')
    one = gateway(board, host)
    for _ in range(5):
        one.inject()
    host.wait_for(3)
    time.sleep(1)
    assert len(host.mails) == 3
    assert one.stop() == 0  # a clean stop in the middle of the wait


def test_a_provider_that_throttles_is_left_alone(gateway, smarthost):
    refused = []

    def refuse(verb, address):
        if verb == "mail":
            refused.append(address)
            return "451 4.7.500 Server busy. Please try again later"

    host = smarthost(refuse=refuse)
    one = gateway(QUICK.replace("{queue}", ""), host)
    one.inject()
    one.wait_for("wants less mail: 451 4.7.500")
    one.inject()
    time.sleep(2)
    assert len(refused) == 1
