"""The development token server, asked by the library on CPython and by others; a smart host that takes its tokens."""

import asyncio
import http.client
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from edgepost.tokens import TokenServer
from harness import PATIENCE, free_port, mail
from smtp.client import SessionError
from smtp.oauth import Tokens


@pytest.fixture
def server(tmp_path):
    """server(...) starts a TokenServer."""
    running = []

    def start(**kwargs):
        running.append(TokenServer(tmp_path / f"tokens{len(running)}", **kwargs).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


def tokens(server, path, **more):
    ca = [ssl.PEM_cert_to_DER_cert(Path(server.ca).read_text())]
    settings = {"ca": ca, "client_secret": server.client_secret, "refresh_token": server.sign_in(), **more}
    url = settings.pop("url", server.url)
    return Tokens(url, "edgepost", str(path / "oauth"), lambda: 0, **settings)


def fails(tokens, resolve=None):
    with pytest.raises(SessionError) as caught:
        asyncio.run(tokens.token(resolve))
    assert caught.value.reason == "oauth"
    return str(caught.value)


def test_the_library_gets_a_token_on_cpython_too(server, tmp_path):
    one = server(length=3000, chunked=True)
    ours = tokens(one, tmp_path)
    token = asyncio.run(ours.token())
    assert one.check("gateway", token) and not one.check("somebody", token)
    assert ours.refresh == one.refresh_tokens[-1]
    one.revoke()
    assert not one.check("gateway", token)


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("other-ca", "not signed by the CA in smarthost.oauth.ca"),
        ("wrong-name", "for another name: check smarthost.oauth.token_url"),
        ("expired", "has expired, or this clock is wrong"),
    ],
)
def test_the_library_trusts_no_other_server(server, tmp_path, certificate, why):
    one = server(certificate=certificate)
    assert why in fails(tokens(one, tmp_path))
    assert one.requests == []


def test_without_a_ca_nobody_is_trusted(server, tmp_path):
    one = server()
    assert "no CA certificate is given" in fails(tokens(one, tmp_path, ca=()))
    assert one.requests == []


def test_what_the_network_does_is_told(server, tmp_path):
    one = server()
    one.faults.append("drop")
    assert "the peer closed the connection" in fails(tokens(one, tmp_path))
    url = f"https://localhost:{free_port()}/token"
    assert "refused" in fails(tokens(one, tmp_path, url=url)).lower()

    async def nowhere(name):
        raise OSError(113, f"no address for {name}")

    assert "no address for localhost" in fails(tokens(one, tmp_path), nowhere)


def test_the_address_comes_from_the_resolver_that_is_given(server, tmp_path):
    one = server(certificate="good")
    asked = []

    async def resolve(name):
        asked.append(name)
        return ["127.0.0.1"]

    assert one.check("gateway", asyncio.run(tokens(one, tmp_path).token(resolve)))
    assert asked == ["localhost"]


def ask(server, **fields):
    """(status, dict) for a form, as another client of this world sends it."""
    context = ssl.create_default_context(cafile=server.ca)
    data = urllib.parse.urlencode({"client_id": "edgepost", "client_secret": "a secret", **fields}).encode()
    try:
        with urllib.request.urlopen(server.url, data, PATIENCE, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def test_it_tells_the_errors_of_rfc_6749_apart(server):
    one = server()
    token = one.sign_in()
    for fields, status, error in (
        ({"grant_type": "refresh_token", "refresh_token": "no"}, 400, b'"invalid_grant"'),
        ({"grant_type": "refresh_token", "refresh_token": token, "client_id": "x"}, 401, b'"invalid_client"'),
        ({"grant_type": "refresh_token", "refresh_token": token, "client_secret": "x"}, 401, b'"invalid_client"'),
        ({"grant_type": "password"}, 400, b'"unsupported_grant_type"'),
        ({"grant_type": "refresh_token", "refresh_token": token}, 200, b'"access_token"'),
        ({"grant_type": "refresh_token", "refresh_token": token}, 400, b'"invalid_grant"'),  # it works once
        ({"grant_type": "client_credentials"}, 200, b'"access_token"'),
    ):
        got, body = ask(one, **fields)
        assert (got, error in body) == (status, True), (fields, got, body)
    assert len(one.requests) == 7


@pytest.mark.parametrize(("rotate", "new", "old"), [("strict", 1, 0), ("lax", 1, 1), ("", 0, 1)])
def test_it_rotates_as_it_is_told(server, rotate, new, old):
    one = server(rotate=rotate)
    token = one.sign_in()
    _, body = ask(one, grant_type="refresh_token", refresh_token=token)
    assert (b'"refresh_token"' in body) == bool(new)
    assert (token in one.refresh_tokens) == bool(old)


def test_only_its_one_address_and_only_a_post_are_answered(server):
    one = server()
    for method, path, status in (("POST", "/other", 404), ("GET", "/token", 501)):
        connection = http.client.HTTPSConnection(
            "localhost", one.port, context=ssl.create_default_context(cafile=one.ca), timeout=PATIENCE)  # fmt: skip
        connection.request(method, path, "a=b" if method == "POST" else None)
        assert connection.getresponse().status == status
        connection.close()
    assert one.requests == []


# -- the smart host


@pytest.fixture
def login(server, smarthost):
    """login(mechanism, text) gives (reply to AUTH, smart host, token server); `{token}` in text is a good token."""
    one = server(length=2000)
    host = smarthost(tokens=one)

    def start(mechanism, text, send=False):
        _, body = ask(one, grant_type="client_credentials")
        text = text.replace("{token}", next(iter(one.access_tokens)))
        with smtplib.SMTP("localhost", host.port, timeout=PATIENCE) as client:
            client.starttls(context=ssl.create_default_context(cafile=host.ca))
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["OAUTHBEARER", "XOAUTH2"]
            try:
                # The challenge comes twice when it is refused: first it is empty, then it says why.
                replies = iter([text, "\1" if mechanism == "OAUTHBEARER" else ""])
                client.auth(mechanism, lambda challenge=None: next(replies), initial_response_ok=False)
            except smtplib.SMTPAuthenticationError as e:
                return e.smtp_code, host
            if send:
                client.send_message(mail("with a token"))
            return 235, host

    return start


GOOD = {
    "XOAUTH2": "user=gateway\1auth=Bearer {token}\1\1",
    "OAUTHBEARER": "n,a=gateway,\1auth=Bearer {token}\1\1",
}


@pytest.mark.parametrize("mechanism", GOOD)
def test_a_smart_host_takes_the_tokens_that_were_issued(login, mechanism):
    code, host = login(mechanism, GOOD[mechanism], True)
    assert code == 235
    assert [m.user for m in host.wait_for(1)] == ["gateway"]
    assert host.logins == [("gateway", True)]


@pytest.mark.parametrize("mechanism", GOOD)
@pytest.mark.parametrize(("right", "wrong"), [("gateway", "somebody"), ("{token}", "another"), ("auth=", "htua=")])
def test_a_smart_host_takes_nothing_else(login, mechanism, right, wrong):
    code, host = login(mechanism, GOOD[mechanism].replace(right, wrong))
    assert code == 535
    assert [good for _, good in host.logins] == [False]
