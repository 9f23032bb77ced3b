"""`edgepost oauth`: signs in once, in the browser of this computer, and keeps the refresh token that the board needs.

Authorization code grant (RFC 6749 section 4.1) of a native app: PKCE (RFC 7636, S256) and a redirect to a port of this
computer (RFC 8252 section 7.3). The sign-in itself, password and second factor, happens between browser and provider;
what comes here is a code that works once. Microsoft: "Microsoft identity platform and OAuth 2.0 authorization code
flow"; Google: "OAuth 2.0 for iOS & Desktop Apps".
"""

import base64
import binascii
import hashlib
import hmac
import http.server
import json
import os
import re
import secrets
import shlex
import ssl
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from pathlib import Path

from . import config
from .certificates import write_private
from .errors import UserError

# Where a browser is sent, what else it is asked there, and the loopback name that the provider accepts with any port.
_SIGN_IN = {
    "m365": (
        "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        "https://outlook.office.com/SMTP.Send offline_access",
        {"prompt": "select_account"},
        "localhost",
    ),
    "gmail": (
        "https://accounts.google.com/o/oauth2/v2/auth",
        "https://mail.google.com/",
        {"access_type": "offline", "prompt": "consent"},
        "127.0.0.1",
    ),
}
_DONE = "Signed in. You may close this window and go back to the terminal."


class App:
    """What is known of the app and its provider.

    auth_url, token_url, client_id, client_secret, scope   as RFC 6749 has them
    extra      more parameters for auth_url
    loopback   "127.0.0.1" or "localhost", in the redirect
    context    ssl.SSLContext for token_url
    """

    def __init__(self, auth_url, token_url, client_id, client_secret="", scope="", extra=None, loopback="127.0.0.1",
                 context=None):  # fmt: skip
        self.auth_url, self.token_url = auth_url, token_url
        self.client_id, self.client_secret, self.scope = client_id, client_secret, scope
        self.extra, self.loopback = extra or {}, loopback
        self.context = context or ssl.create_default_context()
        self.state = secrets.token_urlsafe(24)
        self.verifier = secrets.token_urlsafe(48)  # RFC 7636 4.1

    def page(self, redirect, user=""):
        """The address that the browser opens."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=")
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect,
            "scope": self.scope,
            "state": self.state,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
            **self.extra,
        }
        if user:
            asked["login_hint"] = user
        mark = "&" if "?" in self.auth_url else "?"
        return self.auth_url + mark + urllib.parse.urlencode({k: v for k, v in asked.items() if v})

    def code(self, query):
        """The code in what the browser was sent back with (the query part of an address).

        Raises UserError when the provider says no, ValueError when this is no answer to our question.
        """
        fields = dict(urllib.parse.parse_qsl(query))
        if not hmac.compare_digest(fields.get("state", "").encode(), self.state.encode()):
            raise ValueError("this is not the answer to this sign-in")
        if "error" in fields:
            raise UserError("the sign-in ended without a token: " + _explain(fields))
        if not fields.get("code"):
            raise ValueError("there is no code in it")
        return fields["code"]

    def redeem(self, code, redirect):
        """The token server's answer to a code, a dict. Raises UserError."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "code_verifier": self.verifier,
        }
        body = urllib.parse.urlencode({k: v for k, v in form.items() if v}).encode()
        where = urllib.parse.urlsplit(self.token_url).netloc
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=self.context), _NoRedirect)
        try:
            with opener.open(self.token_url, body, 30) as answer:
                got = json.loads(answer.read(1 << 20))
        except urllib.error.HTTPError as e:
            try:
                got = json.loads(e.read(1 << 20))
                what = _explain(got) if isinstance(got, dict) else ""
            except (ValueError, OSError):
                what = ""
            raise UserError(f"{where} gives no token: {what or f'it answers {e.code}: check the token URL'}") from None
        except (OSError, ValueError) as e:
            raise UserError(f"{where} gives no token: {getattr(e, 'reason', e)}") from None
        if not isinstance(got, dict) or not got.get("access_token"):
            raise UserError(f"{where} answers without a token: check the token URL")
        if not got.get("refresh_token"):
            raise UserError(
                f"{where} gave no refresh token, without which the board could send for an hour only: Microsoft wants"
                " the scope offline_access, Google access_type=offline and prompt=consent, others a setting of the app"
            )
        return got


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        """A token server does not send a secret elsewhere: the answer is an error."""


def _explain(fields):
    """An error of RFC 6749 4.1.2.1 or 5.2, with what to do."""
    error = _printable(fields.get("error", ""))
    more = _printable(fields.get("error_description", ""))
    text = f"{error}: {more}" if more else error
    for pattern, what in (
        (r"AADSTS50011|redirect_uri_mismatch",
         "register the redirect http://localhost in the app, under Authentication, Mobile and desktop applications"),
        (r"AADSTS7000218|AADSTS7000215|invalid_client",
         "the client's secret is missing or wrong; or, at Microsoft, allow public client flows in the app"),
        (r"AADSTS65001|AADSTS90094|consent", "an administrator has to consent to the app's permissions"),
        (r"AADSTS700016|unauthorized_client", "check the client ID and the tenant"),
        (r"access_denied", "somebody pressed Cancel, or the account may not use this app"),
        (r"invalid_grant", "the code was too old or used before: sign in once more"),
        (r"invalid_scope", "check the scope"),
    ):  # fmt: skip
        if re.search(pattern, text):
            return f"{text}. What to do: {what}"
    return text


def _printable(text):
    return "".join(c if c.isprintable() else " " for c in str(text))[:300]


class Loopback:
    """A web server for one request: the browser that comes back. `redirect` is where it is sent."""

    def __init__(self, app, port=0):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                status, text = 404, "There is nothing here."
                if path == "/" and query:
                    try:
                        outer.code, status, text = app.code(query), 200, _DONE
                    except ValueError as e:
                        status, text = 400, str(e)
                    except UserError as e:
                        outer.error, status, text = e, 400, str(e)
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)
                if outer.code or outer.error:
                    outer.done.set()

            def log_message(self, *args):
                """Says nothing: the code stands in the request."""

        self.code = self.error = None
        self.done = threading.Event()
        try:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as e:
            raise UserError(f"port {port} of this computer cannot be used: {e.strerror}; take another") from None
        self.server.daemon_threads = True
        self.redirect = f"http://{app.loopback}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    def wait(self, timeout):
        """The code. Raises UserError."""
        end = time.monotonic() + timeout
        while not self.done.wait(0.2):
            if time.monotonic() > end:
                raise UserError(f"nobody signed in within {timeout:g} s; try again")
        if self.error:
            raise self.error
        return self.code

    def close(self):
        self.server.shutdown()
        self.server.server_close()


# ---- the command


def _from_board(path):
    """(table of [smarthost.oauth], table of the [smarthost]) of a board.toml, which need not be complete."""
    try:
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{path} is not valid TOML: {e}") from None
    hosts = raw.get("smarthost", [])
    for host in hosts if isinstance(hosts, list) else [hosts]:
        if isinstance(host, dict) and isinstance(host.get("oauth"), dict):
            return host["oauth"], host
    raise UserError(f"{path} has no table [smarthost.oauth] with provider and client_id; see docs/providers.md")


def _secret(value, base, env):
    """A secret as board.toml may have it: text, { env = ... } or { file = ... }."""
    if isinstance(value, dict) and "env" in value:
        name = str(value["env"])
        if name not in env:
            raise UserError(f"the variable {name} is not set: it holds the client's secret")
        return env[name]
    if isinstance(value, dict) and "file" in value:
        try:
            return (base / str(value["file"])).read_text("utf-8").strip()
        except OSError as e:
            raise UserError(f"{base / str(value['file'])} cannot be read: {e.strerror}") from None
    return value if isinstance(value, str) else ""


def _app(args, env):
    """(App, user name, file for the refresh token or None)."""
    table, host, base = {}, {}, Path()
    if args.board:
        table, host = _from_board(args.board)
        base = Path(args.board).absolute().parent
    provider = args.provider or table.get("provider", "")
    preset = _SIGN_IN.get(provider, ("", "", {}, "127.0.0.1"))
    tenant = args.tenant or table.get("tenant", "")
    if provider == "m365" and not tenant:
        raise UserError("--tenant is missing: the ID or a domain of your Microsoft 365 tenant")
    if not re.fullmatch(r"[\w.-]*", tenant):
        raise UserError(f"--tenant {tenant!r} is neither an ID nor a domain")
    client_id = args.client_id or table.get("client_id", "")
    if not client_id:
        raise UserError("--client-id is missing: the ID of the app that you registered; see docs/providers.md")
    token_url = args.token_url or table.get("token_url") or config.PROVIDERS.get(provider, {}).get("token_url", "")
    auth_url, token_url = (u.replace("{tenant}", tenant) for u in (args.auth_url or preset[0], token_url))
    for name, url in (("auth", auth_url), ("token", token_url)):
        if not url:
            raise UserError(f"--{name}-url is missing; or say --provider m365 or --provider gmail")
        if not url.startswith("https://") or not urllib.parse.urlsplit(url).hostname:
            raise UserError(f"--{name}-url {url} does not begin with https://")
    secret = _secret(table.get("client_secret"), base, env) or env.get("OAUTH_SECRET", "")
    if args.client_secret_file:
        secret = _secret({"file": args.client_secret_file}, Path(), env)
    try:
        context = ssl.create_default_context(cafile=args.ca)
    except (OSError, ssl.SSLError, binascii.Error) as e:
        raise UserError(f"--ca {args.ca} cannot be used: {e}") from None
    scope = args.scope or table.get("scope") or preset[1]
    app = App(auth_url, token_url, client_id, secret, scope, preset[2], args.loopback or preset[3], context)
    out = args.out
    if not out and not args.env:
        where = table.get("refresh_token")
        out = base / where["file"] if isinstance(where, dict) and "file" in where else "refresh-token.txt"
    return app, args.user or host.get("username", ""), out


def _say(text):
    print(text, file=sys.stderr, flush=True)


def run(args):
    """`edgepost oauth`, with its arguments. Gives the exit status."""
    app, user, out = _app(args, os.environ)
    if args.env and not re.fullmatch(r"[A-Za-z_]\w*", args.env):
        raise UserError(f"--env {args.env} is no name of a variable")
    as_whom = f" as {user}" if user else ""
    if args.paste:
        redirect = f"http://{app.loopback}:{args.port or 8765}"
        _say(
            f"Open this address in a browser, on any computer, and sign in{as_whom}:\n\n{app.page(redirect, user)}\n\n"
            "In the end the browser cannot open a page. Paste that page's address here, within a few minutes:"
        )
        try:
            code = app.code(urllib.parse.urlsplit(input().strip()).query)
        except (EOFError, ValueError) as e:
            raise UserError(f"that is not where this sign-in ends: {e or 'nothing was pasted'}") from None
    else:
        loopback = Loopback(app, args.port or 0)
        redirect = loopback.redirect
        try:
            page = app.page(redirect, user)
            _say(f"Sign in{as_whom} in this computer's browser; if none opens, open this address there:\n\n{page}\n")
            if not args.no_browser:
                webbrowser.open(page)
            code = loopback.wait(args.timeout)
        finally:
            loopback.close()
    got = app.redeem(code, redirect)
    token = str(got["refresh_token"])
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UserError("the refresh token has characters that no token has; nothing was stored")
    if args.env:
        print(f"export {args.env}={shlex.quote(token)}")
        _say(f'who has it can send as this account; in board.toml: refresh_token = {{ env = "{args.env}" }}')
        return 0
    out = Path(out)
    try:
        write_private(out, token.encode() + b"\n")
    except OSError as e:
        raise UserError(f"{out} cannot be written: {e.strerror}; name another with --out, and sign in again") from None
    _say(
        f"The refresh token is in {out}, which only you can read: who has it can send as this account.\n"
        f'In board.toml, under [smarthost.oauth]: refresh_token = {{ file = "{out.name}" }}\n'
        "Then: edgepost doctor board.toml"
    )
    return 0
