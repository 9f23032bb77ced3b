"""[ping] on a running gateway: a dead-man switch hears of it while mail gets on, and not when it does not."""

import http.server
import threading
import time

import pytest
from edgepost import certificates
from harness import BOARD, PATIENCE

SECRET = "0b9f6a72-4c1e-ping"
PING = """
[ping]
url = {{ env = "PING_URL" }}
every = "1s"
oldest = "1s"
"""


class Switch(http.server.ThreadingHTTPServer):
    """What waits for a ping: the paths that were asked for are in `pings`."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.pings = []
        self.status = 200
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request, address):
        request.settimeout(PATIENCE)
        if self.context:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return  # a client that trusts another CA
        super().finish_request(request, address)
        request.close()

    def wait_for(self, count):
        end = time.monotonic() + PATIENCE
        while len(self.pings) < count:
            assert time.monotonic() < end, f"{len(self.pings)} of {count} pings arrived"
            time.sleep(0.05)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.pings.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def switch(tmp_path):
    """switch(tls=True) gives a Switch."""
    made = []

    def start(tls=True):
        authority = certificates.Authority(tmp_path / "ping")
        made.append(Switch(certificates.server_context(*authority.issue()) if tls else None))
        made[-1].ca = authority.pem
        scheme = "https" if tls else "http"
        made[-1].url = f"{scheme}://localhost:{made[-1].server_port}/ping/{SECRET}"
        return made[-1]

    yield start
    for one in made:
        one.shutdown()
        one.server_close()


def board(keys):
    return BOARD + PING.format() + "".join(f"{k} = {v!r}\n" for k, v in keys.items())


def test_it_is_pinged_again_and_again_and_its_address_stays_a_secret(gateway, smarthost, switch):
    one = switch()
    gate = gateway(board({"ca": str(one.ca)}), smarthost(), env={"PING_URL": one.url})
    one.wait_for(3)
    assert set(one.pings) == {f"/ping/{SECRET}"}
    gate.wait_for("ping: localhost answers")
    assert SECRET not in gate.log() and gate.log().count("ping: ") == 1


def test_no_ping_goes_while_a_mail_waits_for_too_long(gateway, smarthost, switch):
    one = switch()
    host = smarthost(password="another")
    gate = gateway(board({"ca": str(one.ca)}), host, env={"PING_URL": one.url})
    one.wait_for(1)
    gate.inject()
    gate.wait_for("ping: none is sent while the oldest mail has waited for")
    count = len(one.pings)
    time.sleep(2)
    assert len(one.pings) == count


def test_only_who_has_the_right_certificate_is_pinged(gateway, smarthost, switch, tmp_path):
    one = switch()
    other = certificates.Authority(tmp_path / "other").pem
    gate = gateway(board({"ca": str(other)}), smarthost(), env={"PING_URL": one.url})
    line = gate.wait_for("ping: no answer from localhost")
    assert "not signed by the CA in ping.ca" in line and one.pings == [] and SECRET not in gate.log()


def test_an_answer_that_is_none_is_in_the_log(gateway, smarthost, switch):
    one = switch()
    one.status = 404
    gate = gateway(board({"ca": str(one.ca)}), smarthost(), env={"PING_URL": one.url})
    assert "it says 404: check ping.url" in gate.wait_for("ping: no answer from localhost")


def test_without_tls_it_goes_in_words_only(gateway, smarthost, switch):
    one = switch(tls=False)
    gateway(board({"verify": "none"}), smarthost(), env={"PING_URL": one.url})
    one.wait_for(1)
