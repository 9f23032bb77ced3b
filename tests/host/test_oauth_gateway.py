"""A gateway whose smart host takes tokens only, with a token server beside it: over TLS, from sign-in to power cut."""

import subprocess

import pytest
from edgepost import build, unix
from edgepost.tokens import TokenServer
from harness import BOARD, mail

PASSWORD = 'username = "gateway"\npassword = "secret"\n'
OAUTH = """username = "gateway"
auth = "oauth2"
[smarthost.oauth]
token_url = "{url}"
client_id = "edgepost"
client_secret = {{ env = "OAUTH_SECRET" }}
ca = "{ca}"
"""
REFRESH = 'refresh_token = { env = "OAUTH_TOKEN" }\n'
assert PASSWORD in BOARD


@pytest.fixture
def account(tmp_path, smarthost, gateway):
    """account(...) gives (token server, smart host, gateway), all running. At the end no secret may be in the log."""
    servers, gateways = [], []

    def start(more="", grant=REFRESH, token=None, **kwargs):
        server = TokenServer(tmp_path / "tokens", **kwargs).start()
        servers.append(server)
        board = BOARD.replace(PASSWORD, OAUTH.format(url=server.url, ca=server.ca) + grant + more)
        env = {"OAUTH_SECRET": server.client_secret, "OAUTH_TOKEN": token or server.sign_in()}
        host = smarthost(tokens=server)
        gateways.append(gateway(board, host, env=env))
        return server, host, gateways[-1]

    yield start
    for server, one in zip(servers, gateways, strict=True):
        server.stop()
        log = one.log()
        assert "Traceback" not in log
        secrets = [server.client_secret, *one.env.values(), *server.refresh_tokens, *server.access_tokens]
        secrets += [f["refresh_token"] for f in server.requests if "refresh_token" in f]
        assert not [s for s in secrets if s in log]


def deliver(one, subject):
    """A mail through the gateway and into the smart host."""
    since = one.mark()
    one.inject(mail(subject))
    one.wait_for("delivered to office@example.com", since=since)


@pytest.mark.parametrize(
    ("settings", "server"),
    [
        ("", {"length": 200}),
        ('scope = "https://mail.example.com/ offline"\n', {"length": 2500}),
        ('mechanism = "OAUTHBEARER"\n', {"chunked": True, "rotate": "lax"}),
        ("", {"client_secret": "sp ace&=+%/\u00fc", "expires_in": None, "rotate": ""}),
    ],
    ids=["short token", "long token", "OAUTHBEARER, chunked", "odd secret, no expiry, no rotation"],
)
def test_mail_goes_to_a_smart_host_that_takes_tokens_only(account, settings, server):
    tokens, _, one = account(settings, **server)
    deliver(one, "with a token")
    deliver(one, "with the same one")
    (form,) = tokens.requests
    assert form["grant_type"] == "refresh_token"
    assert form.get("scope", "") == ("https://mail.example.com/ offline" if "scope" in settings else "")
    assert one.stop() == 0


def test_client_credentials_need_nobody_to_sign_in(account):
    tokens, _, one = account(grant='grant = "client_credentials"\nscope = "https://mail.example.com/.default"\n')
    deliver(one, "from a service")
    assert [f["grant_type"] for f in tokens.requests] == ["client_credentials"]
    assert "refresh_token" not in tokens.requests[0]


def test_a_token_that_has_ended_is_renewed_before_it_is_used(account):
    tokens, _, one = account(expires_in=0)
    for n in range(3):
        deliver(one, f"mail {n}")
    assert len(tokens.requests) == 3
    assert len({f["refresh_token"] for f in tokens.requests}) == 3  # each works once


def test_a_token_that_is_withdrawn_is_renewed_when_the_smart_host_refuses_it(account):
    tokens, host, one = account()
    deliver(one, "before")
    tokens.revoke()
    deliver(one, "after")
    assert [good for _, good in host.logins] == [True, False, True]
    assert [m.message["Subject"] for m in host.mails] == ["before", "after"]
    assert {m.user for m in host.mails} == {"gateway"}
    assert len(tokens.requests) == 2


def test_a_new_refresh_token_survives_power_cuts(account):
    tokens, _, one = account()
    for n in range(4):
        deliver(one, f"mail {n}")
        one.kill()
        one.start()
    deliver(one, "the last one")
    used = [f["refresh_token"] for f in tokens.requests]
    assert used[0] == one.env["OAUTH_TOKEN"]
    assert len(used) == len(set(used)) == 5


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("other-ca", "its certificate is not signed by the CA"),
        ("wrong-name", "its certificate is for another name"),
        ("expired", "its certificate has expired, or this clock is wrong"),
    ],
)
def test_a_token_server_that_cannot_be_trusted_gets_no_secret(account, certificate, why):
    tokens, _, one = account(certificate=certificate)
    one.inject()
    line = one.wait_for("relay: smart host localhost")
    assert f"no access token from localhost:{tokens.port}: " in line and why in line
    assert "1 mails wait" in line
    assert tokens.requests == []


def test_a_sign_in_that_has_ended_says_so_once_and_the_mail_waits_for_the_next(account):
    tokens, _, one = account(token="refresh-of-long-ago")
    one.inject(mail("patient"))
    line = one.wait_for("relay: smart host localhost")
    for part in ("400: invalid_grant: the refresh token has expired", "Sign in again", "smarthost.oauth.refresh_token"):
        assert part in line
    assert "1 mails wait" in line
    one.inject(mail("also patient"))
    assert one.stop() == 0
    assert one.log().count("Sign in again") == 1
    assert len(tokens.requests) == 1

    one.env["OAUTH_TOKEN"] = tokens.sign_in()
    since = one.mark()
    one.start()
    one.wait_for("2 mails wait", since=since)
    for _ in range(2):
        since = one.messages.lines.index(one.wait_for("delivered to", since=since), since) + 1
    assert one.stop() == 0


def test_a_token_server_in_trouble_costs_no_mail(account):
    tokens, _, one = account()
    tokens.faults.append((503, {"Retry-After": "120"}, b"<html>busy</html>"))
    one.inject(mail("patient"))
    line = one.wait_for("relay: smart host localhost")
    assert "it answers 503" in line and "1 mails wait" in line and "ign in" not in line
    one.stop()
    moved, endless, nonsense = (302, {"Location": "https://localhost/"}, b""), (200, {}, b"[" * 20000), (200, {}, b"x")
    for fault in ("drop", moved, endless, nonsense):
        tokens.faults[:] = [fault]
        since = one.mark()
        one.start()
        assert "no access token from localhost" in one.wait_for("relay: smart host localhost", since=since)
        one.kill()
    since = one.mark()
    one.start()
    one.wait_for("delivered to office@example.com", since=since)


def test_a_gateway_with_a_password_loads_nothing_of_it():
    lib = build.library().parent
    ask = (
        f"import sys; sys.path[:] = [{str(lib)!r}, {str(build.firmware())!r}, '.frozen']; import gateway, smtp.client;"
        "print([m for m in sys.modules if m.split('.')[-1] in ('oauth', 'https', 'accounts', 'client')])"
    )
    done = subprocess.run([unix.find_micropython().path, "-c", ask], capture_output=True, text=True)
    assert done.stdout == "['smtp.client']\n", done
