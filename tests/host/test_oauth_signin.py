"""`edgepost oauth`: a sign-in in the browser, against the local token server."""

import base64
import hashlib
import os
import queue
import re
import ssl
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from edgepost import cli, config, oauth
from edgepost.errors import UserError
from edgepost.tokens import TokenServer
from harness import PATIENCE, edgepost


@pytest.fixture
def server(tmp_path):
    with TokenServer(tmp_path / "tokens") as running:
        yield running


def visit(server, page):
    """What a browser does: follows the redirects; gives (status, text) of where it ends."""
    try:
        context = ssl.create_default_context(cafile=server.ca)
        with urllib.request.urlopen(page, timeout=PATIENCE, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


@pytest.fixture
def browser(server, monkeypatch):
    """A browser that signs in at once; a queue of (address it opened, status, text at its end)."""
    seen = queue.Queue()

    def show(page):
        threading.Thread(target=lambda: seen.put((page, *visit(server, page))), daemon=True).start()

    monkeypatch.setattr(oauth.webbrowser, "open", show)
    monkeypatch.setenv("OAUTH_SECRET", "a secret")
    return seen


def sign_in(server, *more, client="edgepost"):
    return cli.main(
        ["oauth", "--auth-url", server.auth_url, "--token-url", server.url, "--client-id", client]
        + ["--ca", str(server.ca), "--timeout", str(PATIENCE), *map(str, more)]
    )


def test_a_sign_in_stores_a_refresh_token_for_its_owner_only(server, browser, tmp_path, capsys):
    out = tmp_path / "refresh-token.txt"
    assert sign_in(server, "--out", out, "--user", "gateway@example.com", "--scope", "smtp") == 0
    assert out.read_text().strip() in server.refresh_tokens
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    page, status, text = browser.get(timeout=PATIENCE)
    assert (status, "Signed in" in text) == (200, True)
    said = capsys.readouterr()
    assert out.read_text().strip() not in said.out + said.err and "a secret" not in said.out + said.err
    # the browser is asked what RFC 7636 and RFC 8252 want, and never sees the secret
    asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page).query))
    (form,) = server.requests
    proof = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
    assert asked["code_challenge_method"] == "S256" and len(form["code_verifier"]) >= 43
    assert asked["redirect_uri"] == form["redirect_uri"] and asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert (asked["login_hint"], asked["scope"]) == ("gateway@example.com", "smtp")
    assert "client_secret" not in asked and form["client_secret"] == "a secret"


def test_the_token_can_go_into_a_variable_instead(server, browser, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sign_in(server, "--env", "OAUTH_REFRESH_TOKEN") == 0
    found = re.fullmatch(r"export OAUTH_REFRESH_TOKEN=([\w-]+)\n", capsys.readouterr().out)
    assert found[1] in server.refresh_tokens
    assert list(tmp_path.glob("*.txt")) == []


def test_board_toml_says_all_that_is_needed_and_is_complete_afterwards(server, browser, tmp_path):
    (tmp_path / "secret.txt").write_text("a secret\n")
    board = tmp_path / "board.toml"
    board.write_text(f"""
[board]
name = "cold-store"
[smarthost]
host = "smtp.example.com"
ca = "{server.ca}"
username = "gateway@example.com"
auth = "oauth2"
[smarthost.oauth]
token_url = "{server.url}"
client_id = "edgepost"
client_secret = {{ file = "secret.txt" }}
refresh_token = {{ file = "token.txt" }}
""")
    with pytest.raises(UserError, match="token.txt"):
        config.load(board)
    args = ["oauth", str(board), "--auth-url", server.auth_url, "--ca", str(server.ca)]
    assert cli.main(args) == 0
    values, _ = config.load(board)
    assert values["smarthost"][0]["oauth"]["refresh_token"] in server.refresh_tokens
    assert "login_hint=gateway%40example.com" in browser.get(timeout=PATIENCE)[0]


@pytest.mark.parametrize(
    ("provider", "page", "wanted", "loopback"),
    [
        ("m365", "https://login.microsoftonline.com/example.com/oauth2/v2.0/authorize?", "offline_access", "localhost"),
        ("gmail", "https://accounts.google.com/o/oauth2/v2/auth?", "access_type=offline&prompt=consent", "127.0.0.1"),
    ],
)
def test_the_presets_send_the_browser_to_the_provider(provider, page, wanted, loopback, monkeypatch):
    line = ["oauth", "--provider", provider, "--client-id", "1", "--tenant", "example.com"]
    app, _, _ = oauth._app(cli.parser().parse_args(line), {})
    address = app.page("http://x")
    assert address.startswith(page) and wanted in address and app.loopback == loopback
    assert app.token_url.startswith("https://") and "{" not in app.token_url


def test_an_answer_to_another_sign_in_is_not_taken(server):
    app = oauth.App(server.auth_url, server.url, "edgepost")
    loopback = oauth.Loopback(app)
    try:
        for query in ("?code=stolen", "?code=stolen&state=guess", "?state=" + app.state, ""):
            status, _ = visit(server, loopback.redirect + "/" + query)
            assert status in (400, 404)
        assert visit(server, loopback.redirect + "/favicon.ico?state=" + app.state)[0] == 404
        assert not loopback.done.is_set()
        assert visit(server, f"{loopback.redirect}/?code=good&state={app.state}")[0] == 200
        assert loopback.wait(PATIENCE) == "good"
    finally:
        loopback.close()


def stderr_of(capsys, status):
    said = capsys.readouterr().err
    assert status == 2
    return said.splitlines()[-1]


def test_what_goes_wrong_is_told_and_nothing_is_stored(server, browser, tmp_path, capsys, monkeypatch):
    out = tmp_path / "token.txt"
    server.consent = "access_denied"
    assert "somebody pressed Cancel" in stderr_of(capsys, sign_in(server, "--out", out))
    server.consent = ""
    server.offline = False
    assert "offline_access" in stderr_of(capsys, sign_in(server, "--out", out))
    server.offline = True
    monkeypatch.setenv("OAUTH_SECRET", "wrong")
    assert "secret is missing or wrong" in stderr_of(capsys, sign_in(server, "--out", out))
    monkeypatch.setenv("OAUTH_SECRET", "a secret")
    server.faults.append((302, {"Location": "https://localhost:1/"}, {}))
    assert "it answers 302" in stderr_of(capsys, sign_in(server, "--out", out))
    server.faults.append((200, {}, b"<html>"))
    assert "gives no token" in stderr_of(capsys, sign_in(server, "--out", out))
    assert "nobody signed in within 0.1 s" in stderr_of(
        capsys, sign_in(server, "--out", out, "--no-browser", "--timeout", 0.1)
    )
    assert not out.exists()


def test_a_code_works_once_and_with_its_own_verifier_only(server):
    def app():
        return oauth.App(
            server.auth_url, server.url, "edgepost", "a secret",
            context=ssl.create_default_context(cafile=server.ca))  # fmt: skip

    def code(app):
        fields = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(app.page("http://127.0.0.1:9")).query))
        return app.code(urllib.parse.urlsplit(server.authorize(fields)[1]["Location"]).query)

    one, other = app(), app()
    first = code(one)
    assert one.redeem(first, "http://127.0.0.1:9")["refresh_token"]
    with pytest.raises(UserError, match="sign in once more"):
        one.redeem(first, "http://127.0.0.1:9")
    with pytest.raises(UserError, match="invalid_grant"):
        other.redeem(code(one), "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (["--provider", "m365", "--client-id", "1"], "--tenant is missing"),
        (["--provider", "m365", "--client-id", "1", "--tenant", "a/../b"], "neither an ID nor a domain"),
        (["--provider", "gmail"], "--client-id is missing"),
        (["--client-id", "1"], "--auth-url is missing"),
        (["--client-id", "1", "--auth-url", "http://a", "--token-url", "https://b"], "does not begin with https"),
        (["--provider", "gmail", "--client-id", "1", "--ca", "none.pem"], "--ca none.pem cannot be used"),
        (["none.toml"], "none.toml cannot be read"),
    ],
)
def test_what_is_missing_is_told_before_a_browser_opens(line, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["oauth", *line]) == 2
    assert why in capsys.readouterr().err


def test_with_a_browser_elsewhere_the_address_is_pasted(server, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "oauth", "--paste", "--auth-url", server.auth_url, "--client-id", "edgepost"]
        + ["--token-url", server.url, "--ca", str(server.ca), "--out", str(tmp_path / "t")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OAUTH_SECRET": "a secret"},
    )
    try:
        page = next(line for line in process.stderr if line.startswith("https://")).strip()
        fields = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page).query))
        _, said = process.communicate(server.authorize(fields)[1]["Location"] + "\n", PATIENCE)
        assert process.returncode == 0, said
        assert (tmp_path / "t").read_text().strip() in server.refresh_tokens
    finally:
        process.kill()
        process.wait()


def test_the_command_has_an_example():
    assert "example: edgepost oauth" in edgepost("oauth", "--help").stdout
