"""What `edgepost doctor` says of a smart host that has one thing wrong: the cause, and what to do."""

import asyncio
import contextlib
import json
import os
import socket
import socketserver
import struct
import threading
import time
from pathlib import Path

import pytest
from edgepost import config, doctor
from edgepost.providers import PROVIDERS, explain
from edgepost.smarthost import SmartHost
from edgepost.tokens import TokenServer
from harness import PATIENCE, edgepost, free_port
from test_gateway_hops import MX, A, NameServer, wire

BOARD = """
[board]
name = "cold-store"
domain = "cold-store.example.com"
ntp = ["127.0.0.1:{ntp}"]
[smarthost]
host = "localhost"
port = {port}
ca = "{ca}"
username = "{user}"
password = "secret"
sender = "{sender}"
{more}
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
"""
ACCOUNT = "gateway@example.com"


@pytest.fixture(scope="module")
def ntp():
    """Time servers: ntp(0) gives the port of one that is right, ntp(3600) of one that is an hour ahead."""
    with contextlib.ExitStack() as stack:
        ports = {}

        def serve(sock, ahead):
            with contextlib.suppress(OSError):
                while True:
                    asked, peer = sock.recvfrom(100)
                    now = int(time.time() + ahead) + 2208988800
                    sock.sendto(struct.pack("!BBxx20x8sIIII", 0x24, 2, asked[40:48], now, 0, now, 1 << 31), peer)

        def start(ahead):
            if ahead not in ports:
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("127.0.0.1", 0))
                threading.Thread(target=serve, args=(sock, ahead), daemon=True).start()
                ports[ahead] = sock.getsockname()[1]
            return ports[ahead]

        yield start


@pytest.fixture
def visit(smarthost, tmp_path, ntp):
    """visit(SmartHost's settings) gives the Report on it; more: lines for [smarthost]."""

    def start(more="", board=BOARD, ca=None, ahead=0, host=None, to="", send=False, patience=PATIENCE, oauth=False,
              sender=None, replace=(), **settings):
        host = host or smarthost(**settings)
        text = board.format(
            port=host.port, ca=ca or host.ca, user=host.username, ntp=ntp(ahead), more=more, sender=sender or ACCOUNT)
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "board.toml").write_text(text)
        values, _ = config.load(tmp_path / "board.toml", os.environ)
        return asyncio.run(doctor.examine(doctor.Report(), values, to, send, oauth, patience))

    return start


def states(report, state=doctor.BAD):
    return [check for _, check, s, _, _ in report.rows if s == state]


def bad(report):
    """The one bad line, as (check, text and what to do)."""
    rows = [(check, f"{text} -> {do}") for _, check, state, text, do in report.rows if state == doctor.BAD]
    assert len(rows) == 1, report.rows
    return rows[0]


def test_all_is_good_and_no_mail_is_sent(visit, smarthost):
    host = smarthost()
    report = visit(host=host)
    assert report.ok
    assert states(report, doctor.GOOD) == [
        "clock", "name", "port", "greeting", "TLS", "expiry", "AUTH", "SIZE", "sender"]  # fmt: skip
    assert host.mails == [] and host.logins == [("gateway", True)]
    (tls,) = [text for _, check, _, text, _ in report.rows if check == "TLS"]
    assert "TLSv1.2" in tls and '"edgepost development CA" of smarthost.ca' in tls


def test_what_addresses_and_listeners_need_of_the_smart_host_is_told(visit, monkeypatch):
    people = [('to = ["oncall@example.com"]', 'to = ["почта@example.com"]')]
    report = visit(replace=people, to="müller@example.com")
    assert report.ok and {"SMTPUTF8", "recipient"} <= set(states(report, doctor.GOOD))
    more = '[[listener]]\nallow = ["10.0.0.0/8"]\nsmtputf8 = true\nmt_priority = true\n'
    read = doctor.Examination.extensions

    def lacking(self, offered):
        offered.pop("SMTPUTF8")
        read(self, offered)

    monkeypatch.setattr(doctor.Examination, "extensions", lacking)
    check, text = bad(visit(replace=people, to="müller@example.com"))
    assert check == "SMTPUTF8" and "почта@example.com needs it" in text
    report = visit(board=BOARD + more)
    assert report.ok and "SMTPUTF8" in states(report, doctor.NOTE)


def test_a_test_mail_is_sent_when_it_is_asked_for(visit, smarthost):
    host = smarthost()
    report = visit(host=host, to="oncall@example.com")
    assert "recipient" in states(report, doctor.GOOD) and host.mails == []
    report = visit(host=host, to="oncall@example.com", send=True)
    assert report.ok and "mail" in states(report, doctor.GOOD)
    (got,) = host.wait_for(1)
    assert (got.sender, got.recipients, got.message["Subject"]) == (
        ACCOUNT, ["oncall@example.com"], "Test of cold-store")  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("refuse:connect", "greeting", "554 5.3.2"),
        ("defer:connect", "greeting", "(for now)"),
        ("drop:connect", "greeting", "without a greeting"),
        ("defer:ehlo", "EHLO", "421 4.3.2"),
        ("drop:ehlo", "EHLO", "ended the connection after EHLO"),
        ("refuse:starttls", "STARTTLS", "502 5.5.1"),
        ("defer:starttls", "STARTTLS", "454 4.7.0"),
        ("drop:starttls", "EHLO", "after STARTTLS"),
        ("no-starttls", "STARTTLS", "strips it"),
        ("no-auth", "AUTH", "offers no AUTH"),
        ("certificate:expired", "TLS", "expired: \"localhost\" ended on 20"),
        ("certificate:wrong-name", "TLS", "is for mail.elsewhere.example, not for localhost"),
        ("certificate:other-ca", "TLS", 'signed by "some other CA"; smarthost.ca has "edgepost development CA"'),
        ("refuse:auth", "AUTH", "check username and password"),
        ("defer:auth", "AUTH", "the board tries again"),
        ("drop:auth", "AUTH", "ended the connection after AUTH"),
        ("refuse:mail", "sender", "set smarthost.sender"),
        ("drop:mail", "sender", "ended the connection after MAIL"),
        ("refuse:rcpt", "recipient", "oncall@example.com is refused: 550 5.1.1"),
        ("drop:rcpt", "recipient", "after RCPT"),
        ("refuse:data", "mail", "554 5.5.1"),
        ("refuse:end", "mail", "554 5.7.1"),
        ("drop:body", "mail", "ended the connection"),
        ("drop:end", "mail", "ended the connection"),
    ],
)
def test_each_fault_is_named(visit, fault, check, words):
    found, text = bad(visit(faults=[fault], to="oncall@example.com", send=True))
    assert found == check and words in text


@pytest.mark.parametrize(
    ("point", "check"),
    [("connect", "greeting"), ("ehlo", "EHLO"), ("auth", "AUTH"), ("mail", "sender"), ("end", "mail")],
)
def test_a_server_that_hangs_is_named_with_the_command_that_it_leaves_open(visit, point, check):
    found, text = bad(visit(faults=[f"stall:{point}"], to="oncall@example.com", send=True, patience=1))
    assert found == check and "within 1 s" in text


def test_a_wrong_name_a_wrong_port_and_a_wrong_security_are_told_apart(visit, smarthost):
    host = smarthost()
    found, text = bad(visit(host=host, replace=[('host = "localhost"', 'host = "nowhere.invalid"')]))
    assert found == "name" and "check smarthost.host" in text
    port = free_port()
    found, text = bad(visit(host=host, replace=[(f"port = {host.port}", f"port = {port}")]))
    assert found == "port" and "nobody listens there" in text
    found, text = bad(visit('security = "tls"', host=host))
    assert found == "TLS" and 'set security = "starttls"' in text
    found, text = bad(visit(tls=True, patience=1))
    assert found == "greeting"


def test_tls_from_the_start_is_good(visit):
    report = visit('security = "tls"', tls=True)
    assert report.ok and "expiry" in states(report, doctor.GOOD)


def test_what_is_not_verified_or_not_encrypted_is_noted(visit):
    report = visit('verify = "none"', certificate="expired", replace=[("ca = ", "# ")])
    assert report.ok and "TLS" in states(report, doctor.NOTE)
    report = visit('security = "none"', starttls=False, replace=[("ca = ", "# ")])
    assert report.ok and "TLS" in states(report, doctor.NOTE)


def test_a_wrong_clock_is_told(visit):
    report = visit(ahead=7200)
    assert states(report) == ["clock"]
    assert "2 hours slow" in bad(report)[1]


def test_a_certificate_that_ends_soon_is_noted(visit, monkeypatch):
    monkeypatch.setattr(doctor, "_SOON", 400)
    assert "expiry" in states(visit(), doctor.NOTE)


def test_a_limit_below_what_the_board_takes_is_noted(visit):
    report = visit(max_size=2 << 20)
    (row,) = [r for r in report.rows if r[1] == "SIZE"]
    assert row[2] == doctor.NOTE and 'set queue.max_message = "2MB"' in row[4]


# -- providers


def provider(visit, name, **settings):
    settings.setdefault("username", ACCOUNT)
    # No mechanism of these is one that the board may not use: Microsoft's LOGIN goes over TLS.
    return visit(provider=name, to="oncall@example.com", send=True, **settings)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_known_by_its_greeting_and_all_is_good(visit, name):
    report = provider(visit, name)
    assert report.ok and "mail" in states(report, doctor.GOOD)
    assert any(text == PROVIDERS[name].title for _, check, _, text, _ in report.rows)
    assert ("rates" in states(report, doctor.NOTE)) == (name != "ses")


@pytest.mark.parametrize(("name", "words"), [("m365", "grant it Send As"), ("ses", "verify the sender's domain")])
def test_a_foreign_sender_is_noted_and_a_test_mail_shows_it(visit, smarthost, name, words):
    host = smarthost(provider=name, username=ACCOUNT)
    report = visit(host=host, sender="other@example.org")
    assert report.ok and "sender" in states(report, doctor.NOTE)
    found, text = bad(visit(host=host, sender="other@example.org", to="oncall@example.com", send=True))
    assert found == "mail" and words in text


def test_gmail_replaces_a_foreign_sender_which_is_noted(visit):
    report = provider(visit, "gmail", sender="other@example.org")
    (row,) = [r for r in report.rows if r[1] == "sender"]
    assert row[2] == doctor.NOTE and "account's own" in row[3] and f'smarthost.sender = "{ACCOUNT}"' in row[4]


# What doctor says of each refusal that a provider documents, and of a wrong password: some words of it.
SAID = {
    ("m365", "auth-disabled"): "Set-CASMailbox",
    ("m365", "policy"): "Conditional Access",
    ("m365", "daily-limit"): "10,000 recipients",
    ("m365", "tenant-limit"): "the Exchange admin center shows who",
    ("m365", "threads"): "more than three connections",
    ("m365", "busy"): "may be on a block list",
    ("m365", "blocked"): "Restricted entities in the Defender portal",
    ("m365", "refuse:auth"): "the mailbox's full address",
    ("gmail", "app-password"): "myaccount.google.com/apppasswords",
    ("gmail", "browser"): "sign in once in a browser on this network",
    ("gmail", "logins"): "check the password, which may be wrong and be tried again and again",
    ("gmail", "refuse:auth"): "app password (16 letters)",
    ("gmail", "daily-limit"): "per_day = 500",
    ("gmail", "relay-denied"): "SMTP relay service in the Google Admin console",
    ("gmail", "recipient-busy"): "this recipient gets too much mail",
    ("gmail", "busy"): "a quarter of an hour",
    ("ses", "auth-later"): "could not check the credentials just now",
    ("ses", "refuse:auth"): "not your AWS access key",
    ("ses", "sandbox"): "in the sandbox",
    ("ses", "rate"): "60 times the rate",
    ("ses", "daily-limit"): "request production access or a higher quota",
    ("ses", "denied"): "ses:SendRawEmail",
}
# And of its limits and orders, by the name in its replies.
LIMITS = {
    "need-tls": {"m365": "set username and password", "gmail": 'security = "starttls"', "ses": 'security = "starttls"'},
    "need-auth": dict.fromkeys(PROVIDERS, "set username and password"),
    "auth": {"m365": "full address", "gmail": "app password", "ses": "SMTP credentials in the SES console"},
    "sender": {"m365": "grant it Send As", "ses": "verify the sender's domain"},
    "per_minute": {"m365": "per_minute = 30", "gmail": "set per_minute", "ses": "set per_minute to 60 times"},
    "per_day": {"m365": "set per_day", "gmail": "per_day = 500", "ses": "set per_day"},
    "per_session": {"m365": "per_minute", "gmail": "per_session", "ses": "per_session"},
    "connections": {"m365": "a mailbox of its own", "gmail": "fewer connections", "ses": "who else signs in"},
    "rcpts": dict.fromkeys(PROVIDERS, "the rest goes in another mail"),
    "size": dict.fromkeys(PROVIDERS, "queue.max_message"),
}


@pytest.mark.parametrize(("name", "fault"), [
    (name, fault) for name, row in PROVIDERS.items() for fault in [*row.named, "refuse:auth"]
])  # fmt: skip
def test_each_refusal_of_a_provider_is_explained(visit, name, fault):
    assert SAID[name, fault] in bad(provider(visit, name, faults=[fault]))[1]


@pytest.mark.parametrize(("name", "limit"), [
    (name, limit) for name, row in PROVIDERS.items() for limit in row.replies
])  # fmt: skip
def test_each_limit_of_a_provider_is_explained(name, limit):
    meaning, remedy = explain(PROVIDERS[name].replies[limit], name)
    assert meaning and LIMITS[limit][name] in f"{meaning} -> {remedy}"


# -- OAuth

OAUTH = """
auth = "oauth2"
[smarthost.oauth]
token_url = "{url}"
client_id = "edgepost"
client_secret = "a secret"
refresh_token = "{token}"
ca = "{ca}"
"""


def test_a_token_is_asked_for_only_when_it_is_allowed_to(visit, smarthost, tmp_path):
    with TokenServer(tmp_path / "tokens", rotate="strict") as tokens:
        host = smarthost(tokens=tokens)

        def go(token, **kwargs):
            more = OAUTH.format(url=tokens.url, token=token, ca=tokens.ca)
            return visit(more, host=host, replace=[('password = "secret"', "")], **kwargs)

        report = go(tokens.sign_in())
        assert tokens.requests == [] and "token" in states(report, doctor.NOTE)
        report = go(tokens.sign_in(), oauth=True)
        assert "AUTH" in states(report, doctor.GOOD) and "token" in states(report, doctor.NOTE)
        assert host.logins == [("gateway", True)]
        assert "invalid_grant" in [r for r in go("gone", oauth=True).rows if r[1] == "token"][0][3]


# -- the command


def test_the_command_prints_lines_and_tells_good_from_bad_by_its_exit_status(smarthost, tmp_path, ntp):
    host = SmartHost(tmp_path / "host", faults=["no-starttls"], times=1)
    with host:
        board = tmp_path / "board.toml"
        board.write_text(
            BOARD.format(port=host.port, ca=host.ca, user="gateway", ntp=ntp(0), sender=ACCOUNT, more="")
        )
        done = edgepost("doctor", board, env={"COLUMNS": "60"})
        assert done.returncode == 1
        assert "BAD   STARTTLS" in done.stdout and "lines are bad" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 60
        done = edgepost("doctor", board, "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["ok"]) == (0, True)
        assert {c["state"] for c in report["checks"]} == {"good", "note"}
        assert "secret" not in done.stdout.replace("password", "")
    assert not Path(tmp_path / "board.state").exists()


BY_MX = (
    ('host = "localhost"', 'by = "mx"\nsecurity = "opportunistic"'), ('ca = "', '# "'), ("username = ", "# "),
    ('password = "secret"\n', ""),
)  # fmt: skip


@pytest.mark.parametrize("starttls", [True, False])
def test_delivery_by_mx_is_followed_to_the_first_exchanger_that_takes_mail(visit, smarthost, starttls):
    names = NameServer({
        ("example.com", MX): [b"\0\x0a" + wire("gone.example.com"), b"\0\x14" + wire("mx.example.com")],
        ("none.example.net", MX): [b"\0\0\0"],
        ("mx.example.com", A): [socket.inet_aton("127.0.0.1")],
        ("alone.example.net", A): [socket.inet_aton("127.0.0.1")],
    })  # fmt: skip
    dns = [('name = "cold-store"', f'name = "cold-store"\ndns = ["{names.where}"]')]
    host = smarthost(auth=False, starttls=starttls, certificate="expired")
    try:
        report = visit(host=host, replace=[*dns, *BY_MX], to="oncall@example.com", send=True)
        assert report.ok
        rows = {(check, state): f"{about}: {text}" for about, check, state, text, _ in report.rows}
        assert rows["MX", doctor.GOOD] == (
            "mail for example.com: example.com has gone.example.com (10), mx.example.com (20)")
        assert rows["name", doctor.NOTE].startswith("gone.example.com port") and rows["name", doctor.GOOD]
        tls = rows["TLS", doctor.GOOD if starttls else doctor.NOTE]
        assert ("whoever's certificate" if starttls else "can be read on the way") in tls
        assert rows["recipient", doctor.GOOD].endswith("oncall@example.com is accepted")
        assert ("AUTH", doctor.NOTE) not in rows
        assert [m.recipients for m in host.mails] == [["oncall@example.com"]]
        # What is configured is asked for where nobody is named.
        three = '"a@none.example.net", "b@alone.example.net", "c@nowhere.example"'
        people = ('"oncall@example.com"', three)
        report = visit(host=host, replace=[*dns, *BY_MX, people])
        rows = [(about, state) for about, check, state, _, _ in report.rows if check == "MX"]
        assert rows == [("mail for none.example.net", doctor.BAD), ("mail for alone.example.net", doctor.NOTE),
                        ("mail for nowhere.example", doctor.BAD)]  # fmt: skip
        assert "null MX" in [text for _, check, _, text, _ in report.rows if check == "MX"][0]
        host.stop()
        check, text = bad(visit(host=host, replace=[*dns, *BY_MX], to="oncall@example.com"))
        assert check == "port" and "-> nobody listens there" in text
    finally:
        names.close()
    report = visit(host=host, replace=[*dns, *BY_MX], to="oncall@example.com")
    assert states(report) == ["MX"] and "such mail waits" in bad(report)[1]


class Lmtp(socketserver.StreamRequestHandler):
    """As RFC 2033 section 4.2 shows it, or what else is listed; a command's reply is that of its first word."""

    said = {b"LHLO": b"250-mx.example.com\r\n250 SIZE 1000"}

    def handle(self):
        self.wfile.write(b"220 mx.example.com LMTP server ready\r\n")
        for line in self.rfile:
            plain = b"500 no" if line[1:4] == b"HLO" else b"250 ok"
            self.wfile.write(self.said.get(line.strip().partition(b" ")[0], plain) + b"\r\n")


class Broken(Lmtp):
    """One that offers STARTTLS and cannot do it."""

    said = {b"EHLO": b"250-mx.example.com\r\n250 STARTTLS", b"STARTTLS": b"220 go"}


def test_an_exchanger_whose_tls_fails_is_noted_as_in_the_clear(visit, smarthost):
    names = NameServer({("example.com", MX): [b"\0\x14" + wire("mx.example.com")],
                        ("mx.example.com", A): [socket.inet_aton("127.0.0.1")]})  # fmt: skip
    dns = [('name = "cold-store"', f'name = "cold-store"\ndns = ["{names.where}"]')]
    with socketserver.TCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        board = BOARD.replace("port = {port}", f"port = {server.server_address[1]}")
        report = visit(board=board, host=smarthost(), replace=[*dns, *BY_MX])
        server.shutdown()
    names.close()
    (tls,) = [(state, text) for _, check, state, text, _ in report.rows if check == "TLS"]
    assert tls == (doctor.NOTE, "the handshake fails: its mail goes in the clear, and can be read on the way")


def test_an_lmtp_server_is_greeted_as_one_and_one_that_is_none_is_told(visit, smarthost):
    with socketserver.TCPServer(("127.0.0.1", 0), Lmtp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        lmtp = [('host = "localhost"', 'host = "127.0.0.1"\nprotocol = "lmtp"\nsecurity = "none"'), *BY_MX[1:]]
        board = BOARD.replace("port = {port}", f"port = {server.server_address[1]}")
        report = visit(board=board, replace=lmtp, to="oncall@example.com")
        server.shutdown()
    assert report.ok
    assert {"greeting", "recipient"} <= set(states(report, doctor.GOOD)) and "SIZE" in states(report, doctor.NOTE)
    host = smarthost(auth=False, starttls=False)
    check, text = bad(visit(host=host, replace=lmtp))
    assert check == "LHLO" and "this is no LMTP server" in text
    host.stop()
    check, text = bad(visit(host=host, replace=lmtp))
    assert check == "port" and "24 is usual for LMTP" in text


def test_where_mail_is_fetched_is_examined_too(visit, smarthost):
    host = smarthost()
    fetch = """[fetch]
host = "localhost"
port = %d
ca = "{ca}"
username = "gateway"
password = "%s"
domains = ["b7.example.com"]
forward = "ops@example.com"
"""
    check, text = bad(visit(board=BOARD + fetch % (host.port, "secret"), host=host))
    assert check == "ATRN" and "check fetch.port (366)" in text
    assert host.logins == [("gateway", True)] * 2
    check, text = bad(visit(board=BOARD + fetch % (host.port, "guess"), host=host))
    assert check == "AUTH" and "check username and password" in text


def test_a_wrong_configuration_is_told_as_run_tells_it(tmp_path):
    (tmp_path / "board.toml").write_text("[board]\n")
    done = edgepost("doctor", tmp_path / "board.toml")
    assert done.returncode == 2 and "smarthost" in done.stderr
    done = edgepost("doctor", tmp_path / "board.toml", "--send")
    assert done.returncode == 2 and "--to" in done.stderr


@pytest.mark.parametrize("width", [24, 40, 80])
def test_lines_fit_a_narrow_window_but_for_what_cannot_be_broken(width):
    row = ("", "sender", doctor.NOTE, "cold-store@example.com is not refused yet", "smarthost.sender tells another one")
    out = doctor.lines(row, width)
    assert max(map(len, out)) <= max(width, 26) and out[0].startswith("  note  sender")
    assert "-> smarthost.sender tells" in " ".join(" ".join(out).split())


def test_a_time_server_that_is_silent_is_named_as_a_person_writes_it():
    report = doctor.Report()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        silent = sock.getsockname()[1]
    asyncio.run(doctor.clock(report, {"board": {"ntp": [["127.0.0.1", silent]]}}))
    (row,) = report.rows
    assert row[2] == doctor.NOTE and row[3] == "no time server answered (127.0.0.1): the clock was not compared"
