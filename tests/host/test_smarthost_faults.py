"""What the development smart host does on order: faults, one by one, and the manners of three providers."""

import contextlib
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from edgepost.errors import UserError
from edgepost.faults import CERTIFICATES, POINTS, parse
from edgepost.providers import PROVIDERS, explain
from harness import BOARD, PATIENCE, edgepost, mail
from smtp import throttle

ACCOUNT = "gateway@example.com"


@contextlib.contextmanager
def session(host, login=True):
    """A client that has signed in."""
    client = smtplib.SMTP("localhost", host.port, timeout=PATIENCE)
    try:
        client.starttls(context=ssl.create_default_context(cafile=host.ca))
        if login:
            client.login(host.username, host.password)
        yield client
    finally:
        client.close()


def send(host, **kwargs):
    """Sends one mail; gives the refusal as text, or "" """
    try:
        with session(host) as client:
            client.send_message(mail(**kwargs))
    except smtplib.SMTPRecipientsRefused as e:
        (code, text), *_ = e.recipients.values()
    except smtplib.SMTPResponseException as e:
        code, text = e.smtp_code, e.smtp_error
    except (smtplib.SMTPServerDisconnected, ConnectionError):
        return "gone"
    except smtplib.SMTPNotSupportedError as e:
        return str(e)
    else:
        return ""
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


@pytest.mark.parametrize(("kind", "digit"), [("refuse", "5"), ("defer", "4")])
@pytest.mark.parametrize("point", ["connect", "auth", "mail", "rcpt", "data", "end"])
def test_it_refuses_or_defers_at_each_point_and_takes_the_next_mail(smarthost, kind, digit, point):
    # smtplib tries a second mechanism when the first is refused
    host = smarthost(faults=[f"{kind}:{point}"], times=2 if point == "auth" else 1)
    assert send(host)[:1] == digit
    assert host.mails == []
    assert send(host) == ""
    assert len(host.wait_for(1)) == 1


@pytest.mark.parametrize(("kind", "codes"), [("refuse", (550, 502)), ("defer", (421, 454))])
def test_it_refuses_ehlo_and_starttls(smarthost, kind, codes):
    for point, code in zip(("ehlo", "starttls"), codes, strict=True):
        host = smarthost(faults=[f"{kind}:{point}"], times=1)
        with smtplib.SMTP("localhost", host.port, timeout=PATIENCE) as client:
            if point == "starttls":
                client.ehlo()
            assert client.docmd("EHLO me" if point == "ehlo" else "STARTTLS")[0] == code
        assert send(host) == ""


@pytest.mark.parametrize("point", ["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body"])
def test_it_drops_the_connection_at_each_point_and_has_no_mail_of_it(smarthost, point):
    host = smarthost(faults=[f"drop:{point}"], times=1)
    assert send(host) == "gone"
    assert host.mails == []
    assert send(host) == ""


def test_a_drop_at_the_end_keeps_the_mail_and_does_not_say_so(smarthost):
    host = smarthost(faults=["drop:end"], times=1)
    assert send(host) == "gone"
    assert len(host.wait_for(1)) == 1


@pytest.mark.parametrize("point", ["connect", "mail", "end"])
def test_it_stalls_and_ends_all_the_same(smarthost, point):
    host = smarthost(faults=[f"stall:{point}"])
    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        if point == "connect":
            smtplib.SMTP("localhost", host.port, timeout=0.2)
        with session(host) as client:
            client.sock.settimeout(0.2)
            client.mail(ACCOUNT)
            client.rcpt("office@example.com")
            client.data(b"x\r\n")
    host.stop()
    assert len(host.mails) == (point == "end")


def test_a_reply_of_ones_own_is_said_word_by_word(smarthost):
    host = smarthost(faults=["refuse:rcpt=550 5.1.1 nobody of that name"])
    assert send(host) == "550 5.1.1 nobody of that name"


def test_it_leaves_out_starttls_or_auth(smarthost):
    host = smarthost(faults=["no-starttls"], times=1)
    assert "STARTTLS" in send(host)
    assert send(host) == ""
    host = smarthost(faults=["no-auth"])
    with session(host, login=False) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.mail(ACCOUNT)[0] == 530


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("which", "why"),
    [("expired", "certificate has expired"), ("wrong-name", "Hostname mismatch"), ("other-ca", "local issuer")],
)
def test_it_shows_a_bad_certificate_once_and_then_the_good_one(smarthost, which, why, tls):
    host = smarthost(faults=[f"certificate:{which}"], times=1, tls=tls)
    context = ssl.create_default_context(cafile=host.ca)

    def shake():
        if tls:
            smtplib.SMTP_SSL("localhost", host.port, timeout=PATIENCE, context=context).close()
        else:
            with session(host, login=False):
                pass

    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        shake()
    shake()


@pytest.mark.parametrize(
    ("text", "provider", "why"),
    [
        ("refuse", "", "where.*connect, ehlo"),
        ("refuse:body", "", "where"),
        ("drop:body=550 x", "", "no answer"),
        ("refuse:mail=250 ok", "", "from 400 to 599"),
        ("refuse:mail=550 a\r\nb", "", "is a line"),
        ("certificate:old", "", "expired, wrong-name, other-ca"),
        ("app-password", "", "add --as gmail"),
        ("app-password", "ses", "is not known.*sandbox"),
        ("flood", "", "is not known: take refuse"),
    ],
)
def test_a_fault_that_is_none_is_explained(text, provider, why):
    with pytest.raises(UserError, match=why):
        parse(text, provider)


# -- providers


def as_provider(smarthost, name, **kwargs):
    return smarthost(provider=name, username=kwargs.pop("username", ACCOUNT), **kwargs)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_takes_the_mail_of_its_account(smarthost, name):
    host = as_provider(smarthost, name)
    with session(host) as client:
        assert client.esmtp_features["size"] == str(PROVIDERS[name].size)
        assert set(client.esmtp_features["auth"].split()) == set(PROVIDERS[name].mechanisms)
        client.send_message(mail(sender=ACCOUNT))
    assert host.wait_for(1)[0].sender == ACCOUNT


@pytest.mark.parametrize(("name", "reply"), [("m365", "550 5.7.60"), ("ses", "554 Message rejected: Email address is")])
def test_microsoft_and_amazon_refuse_a_foreign_sender_after_the_mail(smarthost, name, reply):
    host = as_provider(smarthost, name)
    assert send(host).startswith(reply)
    message = mail(sender="printer@example.com")
    with session(host) as client, pytest.raises(smtplib.SMTPDataError):
        client.send_message(message, from_addr=ACCOUNT)  # the header counts as well
    assert host.mails == []


def test_gmail_puts_its_own_sender_in_place_of_a_foreign_one(smarthost):
    host = as_provider(smarthost, "gmail")
    assert send(host, text="kept as it is: é\n") == ""
    (got,) = host.wait_for(1)
    assert (got.sender, got.message["From"]) == (ACCOUNT, ACCOUNT)
    assert got.message["X-Google-Original-From"] == "printer@example.com"
    assert got.message.get_content().strip() == "kept as it is: é"


def test_a_domain_may_be_verified_as_a_whole(smarthost):
    host = as_provider(smarthost, "ses", username="AKIAEXAMPLE", senders=["example.com"])
    assert send(host) == ""
    assert "not verified" in send(host, sender="printer@example.org")


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_wrong_password_gets_the_providers_own_words(smarthost, name):
    host = as_provider(smarthost, name)
    with session(host, login=False) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@example.com>")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login(ACCOUNT, "wrong")
    assert PROVIDERS[name].replies["auth"].encode().startswith(b"535 " + caught.value.smtp_error[:10])


@pytest.mark.parametrize(
    ("name", "limit"), [(name, limit) for name in PROVIDERS for limit in ("per_minute", "per_day", "per_session")]
)
def test_a_rate_is_kept_and_the_relay_understands_the_reply(smarthost, name, limit):
    host = as_provider(smarthost, name, limits={limit: 2})
    reply = ""
    with session(host) as client:
        for _ in range(3):
            try:
                client.send_message(mail(sender=ACCOUNT))
            except smtplib.SMTPResponseException as e:
                reply = f"{e.smtp_code} {e.smtp_error.decode()}"
    assert len(host.mails) == 2
    assert reply == PROVIDERS[name].replies[limit]
    enhanced = re.match(r"\d+ (\d\.\d+\.\d+)?", reply)[1] or ""
    if limit != "per_session" or name != "ses":
        assert throttle.pause(int(reply[:3]), enhanced, reply[4 + len(enhanced) :].strip()) > 0


def test_microsoft_takes_three_connections_at_a_time(smarthost):
    host = as_provider(smarthost, "m365")
    with contextlib.ExitStack() as stack:
        for wanted in (b"220", b"220", b"220", b"432"):
            sock = stack.enter_context(socket.create_connection(("localhost", host.port), PATIENCE))
            assert sock.recv(200)[:3] == wanted


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, row in PROVIDERS.items() for fault in row.named])
def test_each_refusal_of_a_provider_is_said_and_can_be_explained(smarthost, name, fault):
    reply = PROVIDERS[name].named[fault][1]
    host = as_provider(smarthost, name, faults=[fault])
    assert send(host, sender=ACCOUNT) == reply
    assert all(explain(reply, name))
    assert explain(reply, name) != explain(reply)  # in more than general words


# -- with a gateway


AS_M365 = BOARD.replace("[mail]", f'sender = "{ACCOUNT}"\n[mail]')


def test_a_gateway_with_the_right_sender_gets_its_mail_through_microsoft(smarthost, gateway):
    host = smarthost(provider="m365", username="gateway", senders=[ACCOUNT])
    gateway(AS_M365, host).inject()
    (got,) = host.wait_for(1, PATIENCE)
    assert got.sender == ACCOUNT and got.message["Reply-To"] == "printer@example.com"


def test_a_gateway_leaves_microsoft_alone_when_it_is_told_to(smarthost, gateway):
    host = smarthost(provider="m365", username="gateway", senders=[ACCOUNT], faults=["threads"], times=1)
    running = gateway(AS_M365, host)
    running.inject()
    running.wait_for("sender thread limit exceeded")
    assert host.mails == []


def test_a_gateway_sends_again_what_was_taken_without_a_word(smarthost, gateway):
    host = smarthost(faults=["drop:end"], times=1)
    running = gateway(BOARD + '[queue]\nretry = "1s"\npause = "1s"\n', host)
    running.inject()
    first, second = host.wait_for(2, PATIENCE)
    assert first.message["Message-ID"] == second.message["Message-ID"]


# -- the command


def test_the_command_says_which_faults_it_has_and_when_they_work(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "smarthost", "--port", "0", "--dir", tmp_path, "--fault", "drop:mail"]
        + ["--times", "1", "--as", "gmail", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SMTP_PASSWORD": "hush"},
    )
    try:
        start = "".join(process.stdout.readline() for _ in range(6))
        assert "fault drop:mail, 1 times" in start and "as Gmail, with mail from gateway@example.com" in start
        with smtplib.SMTP("localhost", int(re.search(r"port (\d+)", start)[1]), timeout=PATIENCE) as client:
            client.starttls(context=ssl.create_default_context(cafile=tmp_path / "ca.pem"))
            client.login(ACCOUNT, "hush")
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.mail(ACCOUNT)
        assert re.fullmatch(r"fault \d\d:\d\d:\d\d: drop:mail\n", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_command_explains_its_faults_and_refuses_others(tmp_path):
    shown = edgepost("smarthost", "--help").stdout
    for word in ("drop", "certificate:WHICH", "app-password", "examples:"):
        assert word in shown
    done = edgepost("smarthost", "--fault", "refuse", "--dir", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "refuse:POINT" in done.stderr
    done = edgepost("smarthost", "--as", "m365", "--user", "scanner", "--dir", tmp_path)
    assert (done.returncode, "is a mailbox" in done.stderr) == (2, True)


def test_the_guide_names_each_fault():
    guide = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    for word in (*POINTS, *CERTIFICATES, *(fault for row in PROVIDERS.values() for fault in row.named)):
        assert f"`{word}`" in guide, word
