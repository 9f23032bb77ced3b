"""Delivery status notifications as the standard library reads them, whatever peers said and sent."""

import email
import email.message
import email.policy
import email.utils
import io
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp import dsn, notify

settings.register_profile("edgepost", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("edgepost")

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120)
words = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=20)
addresses = st.builds("{}@{}.example".format, *[st.from_regex("[a-z0-9]{1,20}", fullmatch=True)] * 2)
actions = st.sampled_from(["failed", "delayed", "relayed", "delivered"])
enhanced = st.one_of(st.just(""), st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True))
replies = st.one_of(st.none(), st.tuples(st.integers(200, 599), enhanced, anything))
results = st.lists(st.tuples(addresses, actions, replies, st.none(), words), min_size=1, max_size=5)
hostile = st.lists(
    st.tuples(anything, actions, st.tuples(st.integers(200, 599), anything, anything), anything, anything),
    min_size=1,
    max_size=3,
)
header_lines = st.lists(st.builds("{}: {}".format, st.from_regex("X-[A-Za-z]{1,9}", fullmatch=True), words), min_size=1)


def told(results, mail=None, meta=None, to="sender@lan.example", now=1795003600, **more):
    read = None if mail is None else io.BytesIO(mail).readinto
    pieces = list(dsn.report("gw.example", to, meta or {}, results, now, 3600, read, **more))
    assert all(0 < len(piece) < 1024 for piece in pieces)
    return b"".join(pieces)


def parsed(data):
    """The report as email.message.EmailMessage, without any defect in it."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["auto-submitted"] == "auto-replied" and message["message-id"] is None
    for part in message.walk():
        assert not part.defects, part.defects
        for name in part:
            assert not getattr(part[name], "defects", ()), (name, part[name])
    return message


def blocks(message):
    status = list(message.iter_parts())[1]
    assert status.get_content_type() == "message/delivery-status"
    return status.get_payload()


@given(results)
def test_the_standard_library_reads_the_same_results(results):
    message = parsed(told(results))
    assert message["from"].addresses[0].addr_spec == "postmaster@gw.example"
    assert message["to"].addresses[0].addr_spec == "sender@lan.example"
    about, *rest = blocks(message)
    assert about["reporting-mta"] == "dns; gw.example" and len(rest) == len(results)
    for block, (address, action, reply, _, host) in zip(rest, results, strict=True):
        assert block["final-recipient"] == "rfc822; " + address
        assert block["action"] == action
        assert block["remote-mta"] == "dns; " + host
        assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", block["status"])
        if reply and reply[1]:
            assert block["status"] == reply[1]
        assert (block["diagnostic-code"] is None) == (reply is None)
        if reply:
            assert block["diagnostic-code"].startswith(f"smtp; {reply[0]}")
    text = next(message.iter_parts()).get_content()
    assert all(f"<{r[0]}>: " in text for r in results)


@given(hostile, anything, anything)
def test_whatever_a_peer_said_the_report_keeps_its_shape(results, sender, envid):
    meta = {"f": sender, "t": 1, "d": " ENVID=" + envid}
    data = told(results, b"A: b\r\n\r\n", meta, to=sender)
    to = sender if "@" in sender else sender + "@gw.example"
    odd = any(map(dsn._odd, [to, sender, *(r[0] for r in results)]))
    assert data.isascii() or odd
    assert not re.search(r"[^\r\n -~\xa0-\U0010ffff]|[\u2028\u2029]|\r(?!\n)|(?<!\r)\n", data.decode())
    assert max(map(len, data.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(data, policy=email.policy.default)
    names = ["From", "To", "Subject", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"]
    assert message.keys() == names + ["Content-Transfer-Encoding"] * odd
    parts = list(message.iter_parts())
    kinds = ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    if dsn._odd(to):
        kinds[1:] = "message/global-delivery-status", "message/global-headers"
    assert [p.get_content_type() for p in parts] == kinds
    if dsn._odd(to):  # which the standard library takes for a mail
        return
    about, *rest = parts[1].get_payload()
    assert len(rest) == len(results)
    assert set(about.keys()) <= {"Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"}
    for block, result in zip(rest, results, strict=True):
        assert [k for k in block.keys() if k not in ("Original-Recipient", "Remote-MTA")] == [
            "Final-Recipient", "Action", "Status", "Diagnostic-Code"
        ]  # fmt: skip
        assert block["Action"] == result[1] and re.fullmatch(r"\d\.[0-9]+\.[0-9]+", block["Status"])


@given(header_lines, st.binary(max_size=2000), st.booleans())
def test_the_original_comes_back_whole(header, body, eight):
    if not eight:
        body = bytes(c & 127 for c in body).replace(b"\x7f", b"")
    mail = "\r\n".join(header).encode() + b"\r\n\r\n" + body
    data = told([("a@b.example", "failed", (550, "5.1.1", "no"), None, "mx")], mail, full=True, eight=eight)
    edge = b"\r\n--" + re.search(rb'boundary="([^"]+)"', data)[1]
    part = data.split(edge)[3]
    assert part.split(b"\r\n\r\n", 1)[1] == mail
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert (message["content-transfer-encoding"] == "8bit") == eight
    last = list(message.iter_parts())[2]
    assert last.get_content_type() == "message/rfc822"
    assert last["content-transfer-encoding"] == ("8bit" if eight else "7bit")
    assert [f"{k}: {v}" for k, v in last.get_content().items()] == header


@given(header_lines, st.binary(max_size=300))
def test_the_header_alone_comes_back_without_the_body(header, body):
    mail = "\r\n".join(header).encode() + b"\r\n\r\nbody" + body
    message = parsed(told([("a@b.example", "failed", (550, "5.1.1", "no"), None, "mx")], mail))
    last = list(message.iter_parts())[2]
    assert last.get_content_type() == "text/rfc822-headers"
    assert last.get_content().splitlines() == header


@given(st.binary(max_size=3000), st.booleans(), st.integers(1, 600))
def test_any_octets_at_all_come_back_as_ascii_unless_declared(mail, full, most):
    file = io.BytesIO(mail)

    def read(buf):
        part = file.read(min(most, len(buf)))
        buf[: len(part)] = part
        return len(part)

    result = ("a@b.example", "failed", None, None, "")
    data = b"".join(dsn.report("gw.example", "a@b.example", {}, [result], 0, 0, read, full))
    assert data.isascii()
    edge = b"\r\n--" + re.search(rb'boundary="([^"]+)"', data)[1]
    copy = data.split(edge)[3].split(b"\r\n\r\n", 1)[1]
    wanted = bytes(c if c < 127 else 63 for c in mail)
    assert copy == wanted if full else wanted.startswith(copy)


@given(printable)
def test_xtext_comes_back_and_is_a_parameters_value(text):
    coded = notify.xtext(text)
    assert not re.search(r"[^!-<>-~]", coded)
    assert notify.unxtext(coded) == text


@given(st.one_of(anything, st.text("+=0123456789ABCDEFabcdef ~", max_size=12)))
def test_what_is_read_as_xtext_is_printable_ascii(text):
    try:
        plain = notify.unxtext(text)
    except ValueError:
        return
    assert re.fullmatch("[ -~]*", plain) and notify.unxtext(notify.xtext(plain)) == plain


@given(anything)
def test_a_parameter_is_right_or_a_value_error(text):
    for check in notify.CHECK.values():
        try:
            check(text)
        except ValueError as e:
            assert str(e)


@given(st.sets(st.sampled_from(["SUCCESS", "FAILURE", "DELAY"]), min_size=1))
def test_notify_means_what_it_says(asked):
    value = ",".join(asked)
    assert notify.parse_notify(value) == asked
    kinds = {"failed": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS", "delivered": "SUCCESS"}
    for action, kind in kinds.items():
        given = f" NOTIFY={value} ORCPT=rfc822;x"
        assert notify.wanted(value, action) == notify.wanted(given, action) == (kind in asked)


@pytest.mark.parametrize("action", ["failed", "delayed"])
def test_dates_are_those_of_the_clock_and_its_zone(action):
    data = told([("a@b.example", action, None, None, "")], meta={"t": 1795000000}, until=1795090000)
    message = parsed(data)
    about, recipient = blocks(message)
    assert message["date"].datetime.timestamp() == 1795003600
    assert message["date"].datetime.utcoffset().seconds == 3600
    assert email.utils.parsedate_to_datetime(about["arrival-date"]).timestamp() == 1795000000
    until = recipient["will-retry-until"]
    assert until is None if action == "failed" else email.utils.parsedate_to_datetime(until).timestamp() == 1795090000
