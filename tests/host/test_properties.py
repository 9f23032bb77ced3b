"""Parsers and composers against the standard library, over inputs that nobody thought of.

The fuzz tests draw from a seed that EDGEPOST_SEED sets, and as many inputs as EDGEPOST_FUZZ says.
"""

import datetime
import email
import email.policy
import email.utils
import hashlib
import hmac
import io
import ipaddress
import os
import random
import re
import zoneinfo

import clock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp import address, auth, message, network, path, sasl
from smtp.reply import Parser, SMTPError
from smtp.sender import split_mailbox
from smtp.server import line
from smtp.trace import Outgoing

SEED = int(os.environ.get("EDGEPOST_SEED", "1"))
ROUNDS = int(os.environ.get("EDGEPOST_FUZZ", "3000"))

settings.register_profile("edgepost", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("edgepost")

# Text without the lone surrogates that no encoding has.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
printable = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=120)
atoms = st.from_regex(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,12}", fullmatch=True)
mailboxes = st.builds("{}@{}.example".format, atoms, st.from_regex("[a-z0-9]{1,9}", fullmatch=True))


def returned(generator):
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def composed(*args, **named):
    data = b"".join(message.compose(*args, **named))
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b"")
    assert data.isascii() and max(len(x) for x in data.split(b"\r\n")) <= 76
    return email.message_from_bytes(data, policy=email.policy.default)


def one_line(text):
    """What a header may keep of a text: controls of ASCII are spaces."""
    return "".join(" " if c < " " or c == "\x7f" else c for c in text).strip()


@given(printable)
def test_a_subject_reads_the_same_in_the_standard_library(subject):
    assert composed("a@b.example", "c@d.example", subject, "")["Subject"] == subject.strip()


@given(words)
def test_no_text_in_any_field_adds_one(text):
    clean = text.replace("<", "").replace(">", "")
    parsed = composed(
        clean + " <a@b.example>",
        ["c@d.example", clean + "<e@f.example>"],
        text,
        "body",
        extra=[("X-Extra", text)],
    )
    assert parsed.keys() == [
        "From", "To", "Subject", "X-Extra", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    ]  # fmt: skip
    assert parsed["From"].addresses[0].addr_spec == "a@b.example"
    assert [a.addr_spec for a in parsed["To"].addresses] == ["c@d.example", "e@f.example"]
    assert parsed.get_content().strip() == "body"


@given(printable.filter(lambda name: "=?" not in name))
def test_a_display_name_reads_the_same_in_the_standard_library(name):
    text = name + " <a@b.example>"
    (box,) = composed(text, "c@d.example", "", "")["From"].addresses
    assert box.addr_spec == "a@b.example"
    # The library squeezes spaces where a field is folded.
    wanted, _ = message.parse_mailbox(text)
    assert "".join(box.display_name.split()) == "".join(wanted.split())


@given(words)
def test_a_body_reads_the_same_in_the_standard_library(text):
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    if wanted and not wanted.endswith("\n"):
        wanted += "\n"
    parsed = composed("a@b.example", "c@d.example", "", text)
    got = parsed.get_payload(decode=True).decode(parsed.get_content_charset())
    assert got.replace("\r\n", "\n") == wanted


@given(st.integers(0, 2**32), st.integers(-50400 // 60, 50400 // 60))
def test_a_date_is_that_of_the_standard_library(epoch, minutes):
    zone = datetime.timezone(datetime.timedelta(minutes=minutes))
    wanted = datetime.datetime.fromtimestamp(epoch, zone)
    assert email.utils.parsedate_to_datetime(message.date(epoch, minutes * 60)) == wanted
    assert message.date(epoch, minutes * 60)[:3] == wanted.strftime("%a")


@given(st.binary(max_size=80), st.binary(max_size=40), st.integers(1, 200))
def test_pbkdf2_is_that_of_the_standard_library(password, salt, iterations):
    wanted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    assert returned(auth.pbkdf2(password, salt, iterations)) == wanted


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_hmac_is_that_of_the_standard_library(key, msg):
    assert auth.hmac(key, msg) == hmac.digest(key, msg, "sha256")


@given(words, words)
def test_a_verifier_knows_its_password_only(password, other):
    # HMAC fills a short key up with NUL, so NUL at the end makes no other password (RFC 2104).
    password, other = password.replace("\0", ""), other.replace("\0", "")
    verifier = auth.make_verifier(password, 2)
    assert returned(auth.check(verifier, password))
    assert returned(auth.check(verifier, other)) == (password == other)


@given(st.binary(max_size=60))
def test_base64_comes_back(data):
    assert sasl.unb64(sasl.b64(data)) == data


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_an_ip_address_is_that_of_the_standard_library(ip):
    assert network.parse_ip(str(ip)) == ip.packed
    assert network.parse_ip(ip.exploded) == ip.packed


def ip_or_none(text):
    try:
        return ipaddress.ip_address(text.partition("%")[0] if ":" in text else text).packed
    except ValueError:
        return None


@given(st.text("0123456789abcdefABCDEF:.", max_size=30))
def test_what_looks_like_an_ip_address_is_one_for_both_or_neither(text):
    assert network.parse_ip(text) == ip_or_none(text)


@given(st.lists(st.sampled_from(":: : 0 1 ffff 00ab 1.2.3.4 . 256".split()), max_size=17))
def test_pieces_of_ip_addresses_make_one_for_both_or_neither(parts):
    text = "".join(parts)
    assert network.parse_ip(text) == ip_or_none(text)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.data())
def test_networks_are_those_of_the_standard_library(ip, data):
    bits = data.draw(st.integers(0, ip.max_prefixlen))
    wanted = ipaddress.ip_network((ip, bits), strict=False)
    parsed = network.parse_network(str(wanted))
    for one in (ip, data.draw(st.ip_addresses(v=ip.version))):
        # IPv4 in IPv6 clothes counts as IPv4, so it is in no larger IPv6 network.
        if bits >= 96 or not getattr(one, "ipv4_mapped", None):
            assert network.in_networks(one.packed, [parsed]) == (one in wanted)
    if wanted.network_address != ip:
        with pytest.raises(ValueError, match="beyond"):
            network.parse_network(f"{ip}/{bits}")


@given(mailboxes, st.sampled_from([b"", b" SIZE=10", b" BODY=8BITMIME  X=<y>"]))
def test_a_path_comes_back(box, rest):
    if len(box) <= 254 and box.split("@")[0].strip("."):
        assert path.parse_path(f"<{box}>".encode() + rest) == (box, rest.strip())


@given(st.binary(max_size=80), st.booleans())
def test_what_a_path_gives_is_null_postmaster_or_a_valid_mailbox(arg, lenient):
    for one in (arg, b"<" + arg + b">"):
        try:
            got, rest = path.parse_path(one, lenient)
        except SMTPError as error:
            assert error.code in (501, 553)
        else:
            assert got == "" or got.lower() == "postmaster" or address.valid_mailbox(got)
            assert one.strip().endswith(rest)


@given(st.integers(200, 599), printable, st.integers(0, 999), st.integers(0, 999))
def test_a_reply_that_is_written_is_read_again(code, text, subject, detail):
    enhanced = f"{code // 100}.{subject}.{detail}"
    parser = Parser()
    lines = line(code, enhanced, text + "\nmore").split(b"\r\n")[:-1]
    assert [parser.feed(one) for one in lines[:-1]] == [None] * (len(lines) - 1)
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    assert parser.feed(lines[-1]) == (code, enhanced, shown + "\nmore")


def leave(mail, size, **more):
    outgoing = Outgoing(io.BytesIO(mail).readinto, len(mail), **more)
    buf = bytearray(size)
    out = b""
    while n := outgoing.readinto(buf):
        out += bytes(buf[:n])
    assert outgoing.rest == 0
    return out


MORE = {
    "top": b"Received: here\r\n",
    "missing": ((b"date", b"Date: now\r\n"), (b"message-id", b"Message-ID: <1@2>\r\n")),
    "sender": "gw@e.example",
}
names = st.sampled_from(["From", "from", "To", "Reply-To", "Date", "DATE", "Message-ID", "Subject"])
values = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=60),
    st.builds("{} <{}>".format, words.map(one_line), mailboxes),
    st.lists(st.sampled_from(list('"<>(),:;@\\ ab.=?') + ["=?utf-8?Q?x?=", "a@b", "\r\n "])).map(
        "".join
    ),
)


@given(st.lists(st.tuples(names, values), max_size=8), st.binary(max_size=40), st.integers(1, 700))
def test_a_rewritten_mail_is_the_same_for_every_buffer_and_from_the_sender_only(
    fields, body, size
):
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    mail = head + b"\r\n" + body
    out = leave(mail, 4096, **MORE)
    assert leave(mail, size, **MORE) == out
    assert out.startswith(MORE["top"]) and out.endswith(b"\r\n\r\n" + body)
    parsed = email.message_from_bytes(out, policy=email.policy.compat32)
    lower = [name.lower() for name in parsed.keys()]
    for name in ("from", "date", "message-id"):
        assert lower.count(name) >= 1, name
    assert lower.count("from") == 1
    assert email.utils.parseaddr(parsed["From"])[1].lower() == "gw@e.example"
    assert len(email.utils.getaddresses([parsed["From"]])) == 1


@given(words.map(one_line).filter(lambda name: "=?" not in name and "<" not in name), mailboxes)
def test_the_name_and_address_of_a_rewritten_sender_can_be_read(name, box):
    if box.lower() == MORE["sender"]:
        return
    field = message.mailbox(name, box)
    mail = f"From: {field}\r\n\r\n".encode()
    parsed = email.message_from_bytes(leave(mail, 512, **MORE), policy=email.policy.default)
    sender = parsed["From"].addresses[0]
    assert sender.addr_spec == "gw@e.example"
    assert box.replace(" ", "") in sender.display_name.replace(" ", "")
    assert parsed["Reply-To"].addresses[0].addr_spec == box


RULES = {
    "Europe/Berlin": [3600, 7200, [3, 5, 0, 7200], [10, 5, 0, 10800]],
    "America/New_York": [-18000, -14400, [3, 2, 0, 7200], [11, 1, 0, 7200]],
    "Australia/Lord_Howe": [37800, 39600, [10, 1, 0, 7200], [4, 1, 0, 7200]],
    "Asia/Kolkata": [19800],
    "America/Santiago": [-14400, -10800, [9, 1, 6, 86400], [4, 1, 6, 86400]],
    "Africa/Cairo": [7200, 10800, [4, 5, 5, 0], [10, 5, 4, 86400]],
}


@given(st.sampled_from(sorted(RULES)), st.integers(1767225600, 2147483647))
def test_the_offset_of_a_time_zone_is_that_of_the_standard_library(zone, epoch):
    wanted = datetime.datetime.fromtimestamp(epoch, zoneinfo.ZoneInfo(zone)).utcoffset()
    assert clock.offset(RULES[zone], epoch) == wanted.total_seconds()


def mutations(seeds, rounds=ROUNDS):
    """The seeds (bytes) cut, doubled, spliced and overwritten at random."""
    chance = random.Random(SEED)
    special = b"<>@\"\\,.:;()[] =?\r\n\0\t%!-+\x7f\x80\xff0a"
    for _ in range(rounds):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0:
                    data[at : at + chance.randrange(4)] = b""
                case 1:
                    data[at:at] = bytes([chance.choice(special)])
                case 2:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 3:
                    data[at:at] = data[at // 2 : at] * chance.choice((1, 1, 1, 30))
                case 4:
                    other = chance.choice(seeds)
                    data[at:] = other[chance.randrange(len(other) + 1) :]
            del data[5000:]
        yield bytes(data)


PATHS = [
    b"<a@b.example> SIZE=100 BODY=8BITMIME",
    b"<>",
    b'<@a.example,@b.example:"q \\" s"@[IPv6:2001:db8::1]> RET=FULL',
    b"<user%host@[10.0.0.1]>",
    b" a@b.example AUTH=<>",
    b"<Postmaster>",
]


def test_no_path_or_parameter_raises_anything_but_a_refusal():
    refused = 0
    for data in mutations(PATHS):
        for lenient in (False, True):
            try:
                got, rest = path.parse_path(data, lenient)
                assert not got or got.lower() == "postmaster" or address.valid_mailbox(got), data
                path.parse_params(rest)
            except SMTPError as error:
                refused += 1
                assert error.code in (501, 553)
    assert 0 < refused < 2 * ROUNDS


def test_no_reply_raises_anything_but_a_refusal_or_takes_more_than_its_bound():
    seeds = [b"250-2.1.0 fine", b"250 ok", b"550 5.1.1 no", b"421 4.3.2 later", b"250-SIZE 1000"]
    parser = Parser()
    parser.lines = []
    for data in mutations(seeds):
        try:
            answer = parser.feed(data)
        except SMTPError as error:
            assert (error.code, error.enhanced) == (421, "4.5.0")
            continue
        if answer:
            assert 200 <= answer[0] <= 599 and len(answer[2]) <= 2000
    assert len(parser.lines) <= 64


def test_no_auth_response_raises_anything_but_a_refusal():
    seeds = [b"\0user\0secret", b"user\0user\0secret", b"user", b"secret", b"AHUAcA=="]
    responses = list(mutations(seeds))
    for first, second in zip(responses, responses[1:], strict=False):
        for mechanism in ("PLAIN", "LOGIN"):
            server = auth.server(mechanism)
            try:
                next(server)
                asked = server.send(first)
                if asked == b"Password:":
                    asked = server.send(second)
                user, password = asked
                assert user and isinstance(password, str)
            except SMTPError as error:
                assert error.code == 501
            except StopIteration as end:
                assert end.value is None
        try:
            sasl.unb64(first)
        except SMTPError as error:
            assert error.code == 501


def test_no_mail_leaves_broken_however_it_came():
    seeds = [
        b'From: "P, r" <p@lan>\r\nTo: x\r\nReply-To: y@z\r\n\r\nbody\r\n',
        b"Date: x\r\nFrom: =?utf-8?Q?B=C3=BCro?=\r\n <p@lan>\r\n\r\n",
        b"From: a@b (c (d) e), f@g\r\nMessage-ID: <x>\r\n\r\nFrom: body\r\n",
        b"no header at all\r\n",
    ]
    chance = random.Random(SEED)
    for mail in mutations(seeds):
        out = leave(mail, 4096, **MORE)
        assert leave(mail, chance.randrange(1, 900), **MORE) == out
        split_mailbox(mail)
        # What the spool holds has no line end but CRLF; then a header always has its end.
        mail = re.sub(rb"\r\n|\r|\n", b"\r\n", mail)
        out = leave(mail, 4096, **MORE)
        header, empty, _ = out.partition(b"\r\n\r\n")
        assert header.startswith(MORE["top"].strip()) and empty, mail
        assert len(re.findall(rb"(?i)\r\nfrom[ \t]*:", header)) == 1, mail
