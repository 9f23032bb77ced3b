"""A token server for development and for tests: it stands for the sign-in servers of Microsoft and Google (RFC 6749).

It speaks HTTPS with a certificate of its own CA, knows one account and one client, and gives access tokens for refresh
tokens (section 6), for client credentials (section 4.4) and for codes of its authorization endpoint (section 4.1, with
PKCE, RFC 7636), where everybody is signed in at once. A smart host of smarthost.py takes the access tokens. Tests
can make it misbehave in the ways that real ones do.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import secrets
import ssl
import threading
import time
import urllib.parse
from pathlib import Path

from . import certificates


class TokenServer:
    """The server, in threads of its own: start(), then `.url`, `.requests`, stop().

    path            directory for ca.pem and the certificate
    username        whose mailbox the access tokens open
    client_id, client_secret  the one client; "" is a client without a secret
    rotate          "strict": each refresh token works once; "lax": a new one each time, the old ones go on (Microsoft);
                    "": there is never a new one (Google)
    expires_in      seconds of an access token, None: not said
    length          characters of an access token
    chunked         answers come in chunks, without a length
    certificate     "good", "expired", "wrong-name" or "other-ca"
    faults          what the next requests get instead of an answer, one each: (status, dict of header fields, body as
                    bytes or as what JSON can hold), or "drop": the connection ends
    requests        the forms that arrived, as dicts
    consent         what happens at the authorization endpoint: "" signs in, else an error such as "access_denied"
    offline         whether a sign-in gives a refresh token
    """

    def __init__(
        self,
        path,
        username="gateway",
        client_id="edgepost",
        client_secret="a secret",
        rotate="strict",
        expires_in=3600,
        length=1500,
        chunked=False,
        certificate="good",
        port=0,
    ):
        self.path = Path(path)
        self.username, self.client_id, self.client_secret = username, client_id, client_secret
        self.rotate, self.expires_in, self.length, self.chunked = rotate, expires_in, length, chunked
        self.port = port
        self.faults, self.requests = [], []
        self.consent, self.offline = "", True
        self.codes = {}  # code: (redirect_uri, code_challenge)
        self.refresh_tokens, self.access_tokens = [], {}  # those that work; when they end
        self._arrived = threading.Condition()
        self._server = None
        authority = signer = certificates.Authority(self.path, "edgepost development token CA")
        self.ca = authority.pem
        if certificate == "other-ca":
            signer = certificates.Authority(self.path / "other-ca", "some other CA")
        names = ("login.elsewhere.example",) if certificate == "wrong-name" else certificates.NAMES
        self._context = certificates.server_context(*signer.issue(names, certificate == "expired"))

    def start(self):
        """Starts listening on localhost; port 0 picks a free one."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.tokens, self._server.context = self, self._context
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Stops listening."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    __enter__ = start

    def __exit__(self, *exc):
        self.stop()

    @property
    def url(self):
        """Where tokens are asked for."""
        return f"https://localhost:{self.port}/token"

    @property
    def auth_url(self):
        """Where a browser signs in."""
        return f"https://localhost:{self.port}/authorize"

    def authorize(self, fields):
        """(status, header fields, body) for a browser that asks with these fields."""
        redirect = fields.get("redirect_uri", "")
        here = urllib.parse.urlsplit(redirect).hostname in ("127.0.0.1", "localhost")
        if fields.get("client_id") != self.client_id or not here:
            return _error(400, "invalid_request", "this client, or its redirect, is not known")  # not sent on, 4.1.2.1
        answer = {"state": fields.get("state", "")}
        if self.consent:
            answer["error"] = self.consent
        elif fields.get("response_type") != "code" or fields.get("code_challenge_method") != "S256":
            answer["error"] = "invalid_request"
        else:
            answer["code"] = secrets.token_urlsafe(30)
            self.codes[answer["code"]] = redirect, fields["code_challenge"]
        return 302, {"Location": redirect + "?" + urllib.parse.urlencode(answer)}, {}

    def sign_in(self):
        """A new refresh token, as a person gets it who signs in."""
        self.refresh_tokens.append("refresh-" + secrets.token_urlsafe(60))
        return self.refresh_tokens[-1]

    def revoke(self):
        """Access tokens stop to work; refresh tokens go on."""
        self.access_tokens.clear()

    def check(self, user, token):
        """Whether an access token opens the mailbox of `user` now."""
        return user == self.username and self.access_tokens.get(token, 0) > time.monotonic()

    def wait_for(self, count, timeout=20):
        """Waits until `count` requests have arrived in all; gives the list. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} token requests arrived in {timeout} s")
            return list(self.requests)

    def answer(self, fields):
        """(status, header fields, body) for a form."""
        fault = self.faults.pop(0) if self.faults else None
        try:
            return fault or self._grant(fields)
        finally:
            with self._arrived:
                self.requests.append(fields)
                self._arrived.notify_all()

    def _grant(self, fields):
        secret = fields.get("client_secret", "")
        if (fields.get("client_id"), secret) != (self.client_id, self.client_secret):
            return _error(401, "invalid_client", "the client or its secret is not known")
        given = {"token_type": "Bearer"}
        if fields.get("grant_type") == "refresh_token":
            token = fields.get("refresh_token", "")
            if token not in self.refresh_tokens:
                return _error(400, "invalid_grant", "the refresh token has expired or was used before")
            if self.rotate == "strict":
                self.refresh_tokens.remove(token)
            if self.rotate:
                given["refresh_token"] = self.sign_in()
        elif fields.get("grant_type") == "authorization_code":
            proof = hashlib.sha256(fields.get("code_verifier", "").encode()).digest()
            known = self.codes.pop(fields.get("code"), None)
            if known != (fields.get("redirect_uri"), base64.urlsafe_b64encode(proof).rstrip(b"=").decode()):
                return _error(400, "invalid_grant", "the code is not known, or its redirect or verifier is another")
            if self.offline:
                given["refresh_token"] = self.sign_in()
        elif fields.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", "refresh_token or client_credentials, please")
        given["access_token"] = token = secrets.token_urlsafe(self.length)[: self.length]
        self.access_tokens[token] = time.monotonic() + (self.expires_in or 3600)
        if self.expires_in is not None:
            given["expires_in"] = self.expires_in
        return 200, {}, given


def _error(status, code, description):
    return status, {}, {"error": code, "error_description": description}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    tokens = context = None

    def finish_request(self, request, client_address):
        # The handshake belongs to the connection's own thread; a client that trusts another CA ends it.
        request.settimeout(20)
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as sock:
            super().finish_request(sock, client_address)
            with contextlib.suppress(OSError, ssl.SSLError):
                sock.unwrap()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        fields = dict(urllib.parse.parse_qsl(form, strict_parsing=True))
        tokens = self.server.tokens
        self.answer(_error(404, "not_found", "") if self.path != "/token" else tokens.answer(fields))

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/authorize":
            self.answer(self.server.tokens.authorize(dict(urllib.parse.parse_qsl(query))))
        else:
            self.send_error(501)

    def answer(self, answer):
        tokens = self.server.tokens
        self.close_connection = True
        if answer == "drop":
            return
        status, headers, body = answer
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")  # RFC 6749 5.1
        for name, value in headers.items():
            self.send_header(name, value)
        if tokens.chunked:
            pieces = [body[i : i + 700] for i in range(0, len(body), 700)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing."""
