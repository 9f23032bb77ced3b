"""The status service of a running gateway: what it tells, what a person may do by it, and who may not."""

import base64
import http.client
import json
import socket
import time

import harness
import pytest
from edgepost import __version__
from edgepost.smarthost import SmartHost
from harness import BOARD, PATIENCE, RunningGateway

PASSWORD = "open sesame"
STATUS = f"""
[status]
port = {{port2}}
address = "127.0.0.1"
password = "{PASSWORD}"
"""
SENSORS = """
[[sensor]]
name = "freezer"
driver = "file"
path = "freezer.txt"
every = "200ms"
above = -15.0
unit = "°C"
[[sensor]]
name = "cool room"
driver = "file"
path = "nowhere.txt"
every = "200ms"
failures = 0
above = 4.0
"""
SLOW = '[queue]\nretry = "1h"\nbounce = false\n[mail]'  # what is deferred stays


def basic(password=PASSWORD, user="anybody"):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


def ask(port, method, path, headers=None, body=None):
    """One request, with the password unless other headers are given."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request(method, path, body, basic() if headers is None else headers)
        return Answer(client.getresponse())
    finally:
        client.close()


def raw(port, data, wait=PATIENCE):
    """What is said to these octets, until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), wait) as sock:
        said = b""
        try:
            sock.sendall(data)
            while piece := sock.recv(4096):
                said += piece
        except ConnectionError:
            pass
        return said


class Stage:
    """A gateway with a status service, and a smart host that judges recipients by the first word of their address."""

    def __init__(self, path, board=BOARD, heapsize="400k", **smarthost):
        self.path = path
        self.mailbox_is_full = True
        self.smarthost = SmartHost(path / "smarthost", refuse=self.judge, **smarthost).start()
        (path / "gateway").mkdir()
        (path / "gateway" / "freezer.txt").write_text("-18")
        board = board.replace("[mail]", SLOW) + STATUS + SENSORS
        self.gateway = RunningGateway(path / "gateway", board, self.smarthost, heapsize).start()
        self.port = self.gateway.port2

    def judge(self, verb, address):
        if verb == "rcpt" and address.startswith("dead"):
            return "550 5.1.1 <script>alert(1)</script> nobody of that name" if self.mailbox_is_full else None
        if verb == "rcpt" and address.startswith("later") and self.mailbox_is_full:
            return "450 4.2.1 the mailbox is full"

    def ask(self, *args, **kwargs):
        return ask(self.port, *args, **kwargs)

    def mails(self):
        """Each mail that GET /queue tells of, page after page."""
        found, path = [], "/queue"
        while path:
            page = self.ask("GET", path).json
            found += page["mails"]
            path = page["next"]
        return found

    def find(self, recipient, state=None):
        """The mail to `recipient`, as soon as its state is that."""
        end = time.monotonic() + PATIENCE
        while True:
            found = [m for m in self.mails() if recipient in m["to"] and state in (None, m["state"])]
            if found and (state != "waiting" or found[0]["attempts"]):
                return found[0]
            assert time.monotonic() < end, self.mails()
            time.sleep(0.05)

    def close(self):
        self.gateway.kill()
        self.smarthost.stop()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("status"))
    yield stage
    stage.close()


def test_health_needs_no_password_and_tells_nothing_else(stage):
    answer = stage.ask("GET", "/health", {})
    assert answer.status == 200
    assert answer.json == {"status": "ok", "age": None, "why": []}
    head = stage.ask("HEAD", "/health", {})
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/status.json", "/queue", "/queue/10000001", "/log", "/nowhere", "/queue/start"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic !!!"}, {"Authorization": "Bearer open sesame"}])
def test_everything_else_needs_the_password(stage, path, headers):
    for method in ("GET", "POST", "DELETE"):
        answer = stage.ask(method, path, headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert b"cold-store" not in answer.body


def test_any_user_name_will_do_and_the_password_is_checked(stage):
    assert stage.ask("GET", "/status.json", basic(user="ädmin")).status == 200
    assert stage.ask("GET", "/status.json", basic(user="")).status == 200


def test_the_status_as_json(stage):
    stage.gateway.inject(to="office@example.com")
    stage.gateway.wait_for("delivered to office@example.com")
    status = stage.ask("GET", "/status.json").json
    assert set(status) == {
        "name", "version", "micropython", "time", "uptime", "health", "queue", "delivered", "sessions", "trouble",
        "heap", "signal", "sensors", "mails", "letters", "events", "log",
    }  # fmt: skip
    assert status["name"] == "cold-store" and status["version"] == __version__
    assert abs(status["time"] - time.time()) < PATIENCE
    assert status["delivered"] >= 1 and status["trouble"] is None and status["signal"] is None
    assert status["queue"]["max_bytes"] == 512 << 10 and status["queue"]["free"] > 1 << 16
    freezer, room = status["sensors"]
    assert (freezer["name"], freezer["value"], freezer["shown"]) == ("freezer", -18.0, "-18.0 °C")
    assert (freezer["state"], freezer["fault"]) == ("ok", None) and freezer["age"] < PATIENCE
    assert (room["value"], room["state"], room["age"]) == (None, "failed", None) and "ENOENT" in room["fault"]
    assert any(e["text"].endswith("delivered to office@example.com") for e in status["events"])
    assert "gateway: ready" in "".join(status["log"])


def test_the_log_is_text(stage):
    answer = stage.ask("GET", "/log")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert b"status: listening on 127.0.0.1 port" in answer.body


def test_mail_that_waits_and_dead_letters_are_listed_page_by_page(stage):
    for n in range(22):
        stage.gateway.inject(to=f"later{n}@example.com")
    since = stage.gateway.mark()
    stage.gateway.inject(to=["dead@example.com", "office@example.com"])
    stage.gateway.wait_for("delivered to office@example.com", since=since)
    later = stage.find("later21@example.com", "waiting")
    assert later["reply"] == "deferred for later21@example.com: 450 4.2.1 the mailbox is full"
    assert 3000 < later["due"] <= 4500 and later["from"] == "printer@example.com" and later["priority"] == "normal"
    dead = stage.find("dead@example.com")
    assert dead["to"] == ["dead@example.com"] and dead["state"] in ("dead", "kept") and dead["due"] is None
    assert dead["reply"] == "550 5.1.1 <script>alert(1)</script> nobody of that name"
    mails = stage.mails()
    assert len(mails) == len({m["id"] for m in mails}) >= 23
    first = stage.ask("GET", "/queue").json
    assert len(first["mails"]) == 20 and first["next"] and first["waiting"] >= 22 and first["dead"] >= 1
    for wrong in ("x1", "w", "wzz", "w1;", ""):
        assert stage.ask("GET", "/queue?after=" + wrong).status == 400


def test_a_mail_can_be_read_as_text(stage):
    stage.gateway.inject(to="later-text@example.com", subject="a page", text="Grüße\n" * 500)
    mail = stage.find("later-text@example.com")
    answer = stage.ask("GET", f"/queue/{mail['id']}")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"Subject: a page\r\n" in answer.body and answer.body.count(b"\r\n") > 500
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    head = stage.ask("HEAD", f"/queue/{mail['id']}")
    assert head.body == b"" and head.headers["Content-Length"] == answer.headers["Content-Length"]
    assert stage.ask("GET", f"/queue/{mail['id']}/envelope").json["id"] == mail["id"]


def test_a_mail_that_waits_cannot_be_deleted(stage):
    stage.gateway.inject(to="later-keep@example.com")
    mail = stage.find("later-keep@example.com", "waiting")
    assert stage.ask("DELETE", f"/queue/{mail['id']}").status == 409
    assert stage.find("later-keep@example.com")


def test_a_dead_letter_can_be_deleted_once(stage):
    stage.gateway.inject(to="dead-delete@example.com")
    mail = stage.find("dead-delete@example.com")
    while mail["state"] not in ("dead", "kept"):
        mail = stage.find("dead-delete@example.com")
    path = f"/queue/{mail['id']}"
    assert stage.ask("DELETE", path).status == 202
    assert stage.ask("DELETE", path).status == stage.ask("GET", path).status == 404
    assert not [m for m in stage.mails() if m["id"] == mail["id"]]


def test_a_dead_letter_is_sent_again_and_deferred_mail_is_due_at_once(stage):
    stage.gateway.inject(to="dead-again@example.com")
    stage.gateway.inject(to="later-again@example.com")
    stage.gateway.inject(to="later-start@example.com")
    later = stage.find("later-again@example.com", "waiting")
    stage.find("later-start@example.com", "waiting")
    dead = stage.find("dead-again@example.com")
    while dead["state"] not in ("dead", "kept"):
        dead = stage.find("dead-again@example.com")
    stage.mailbox_is_full = False
    try:
        for mail in (dead, later):
            assert stage.ask("POST", f"/queue/{mail['id']}/send").status == 202
        stage.gateway.wait_for("delivered to dead-again@example.com")
        stage.gateway.wait_for("delivered to later-again@example.com")
        assert stage.ask("POST", "/queue/start").status == 202
        stage.gateway.wait_for("delivered to later-start@example.com")
    finally:
        stage.mailbox_is_full = True


def test_a_test_mail_reaches_the_inbox_and_the_next_one_has_to_wait(stage):
    answer = stage.ask("POST", "/test-mail")
    assert answer.status == 202
    stage.gateway.wait_for(answer.json["queued_as"] + " delivered to oncall@example.com")
    assert any(m.message["Subject"] == "Test mail from cold-store" for m in stage.smarthost.mails)
    assert stage.ask("POST", "/test-mail").status == 429


def test_a_form_of_the_page_leads_back_to_it(stage):
    answer = stage.ask("POST", "/queue/start?page")
    assert (answer.status, answer.headers["Location"]) == (303, "/?start")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),  # another port is somebody else
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Origin": "http://127.0.0.1:{port}"}, 202),
        ({"Origin": "http://127.0.0.1:{port}", "Content-Type": "application/x-www-form-urlencoded"}, 202),
    ],
)
def test_a_page_of_somebody_else_can_do_nothing_here(stage, headers, status):
    headers = {name: value.replace("{port}", str(stage.port)) for name, value in headers.items()}
    for path in ("/queue/start", "/queue/start?x"):
        assert stage.ask("POST", path, {**basic(), **headers}).status == status
    assert stage.ask("DELETE", "/queue/10ffffff", {**basic(), **headers}).status == (403 if status == 403 else 404)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example.com", 421), ("evil.example.com:80", 421), ("", 421), ("127.0.0.1.evil.example", 421),
        ("127.0.0.1", 200), ("192.168.1.9:80", 200), ("[fd00::1]:80", 200), ("cold-store", 200),
        ("localhost:8080", 200), ("cold-store.local", 200), ("COLD-STORE.lan.", 200), ("cold-store.example.com", 200),
    ],
)  # fmt: skip
def test_a_name_that_leads_here_from_outside_is_refused(stage, host, status):
    """DNS rebinding: the page of evil.example.com asks what is now at that name."""
    for path in ("/health", "/status.json"):
        assert stage.ask("GET", path, {**basic(), "Host": host}).status == status


@pytest.mark.parametrize(
    "path",
    ["/../config.json", "/config.json", "//", "/queue/", "/queue/..", "/queue/../config.json", "/queue/1",
     "/queue/xxxxxxxx", "/queue/1000000G", "/queue/10000001/../x", "/queue/-0000001", "/queue/ffffffff",
     "/queue/00000000", "/health/", "/queue/10ffffff/envelope", "/status.json/"],
)  # fmt: skip
def test_a_path_that_is_none_is_not_found(stage, path):
    assert stage.ask("GET", path).status == 404


def test_a_wrong_method_is_told(stage):
    for method, path in (("POST", "/"), ("DELETE", "/health"), ("GET", "/test-mail"), ("PUT", "/queue"),
                         ("BREW", "/log"), ("OPTIONS", "/status.json"), ("GET", "/queue/start")):  # fmt: skip
        assert stage.ask(method, path).status == 405, (method, path)


AUTH = ("Authorization: " + basic()["Authorization"] + "\r\n").encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n", b"GET /%2e%2e HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" * 50 + b"\r\n",
        b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 20000, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
        b"POST /queue/start HTTP/1.1\r\nHost: a\r\n" + AUTH + b"Content-Length: 300\r\n\r\n" + b"x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_harms_nobody(stage, data):
    said = raw(stage.port, data)
    assert said.startswith(b"HTTP/1.1 400 ") or not said
    assert b"\r\n\r\n" in said or not said
    assert stage.ask("GET", "/health", {}).status == 200
    assert "Traceback" not in stage.gateway.log()


def test_a_header_that_is_long_or_not_ascii_is_no_hindrance_where_it_means_nothing(stage):
    head = b"Cookie: " + b"c" * 8000 + b"\r\nX-Y: \xff\xfe\r\nhOsT: localhost\r\n\r\n"
    said = raw(stage.port, b"GET /health HTTP/1.1\r\n" + head)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")


def test_nothing_of_a_request_comes_back_in_a_header(stage):
    said = raw(stage.port, b"POST /queue/start?page\rX:1 HTTP/1.1\r\nHost: a\r\n" + AUTH + b"\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    said = raw(stage.port, b"POST /queue/start?page&Location=x HTTP/1.1\r\nHost: a\r\n" + AUTH + b"\r\n")
    assert said.startswith(b"HTTP/1.1 202 ") and b"Location" not in said


def test_who_connects_and_says_nothing_keeps_nobody_out(stage):
    idle = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(12)]
    try:
        idle[0].sendall(b"GET / HT")
        for _ in range(3):
            assert stage.ask("GET", "/status.json").status == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_page_has_a_policy_that_lets_nothing_else_in(stage):
    answer = stage.ask("GET", "/")
    policy = answer.headers["Content-Security-Policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy and answer.body.count(nonce.encode()) == 2
    assert nonce not in stage.ask("GET", "/").headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "same-origin"
    for word in (b"http:", b"https:", b"//", b" onclick", b"innerHTML"):
        assert word not in answer.body


# ---- gateways of their own


@pytest.fixture
def own(tmp_path):
    """Makes stages of their own."""
    made = []

    def make(**kwargs):
        made.append(Stage(tmp_path, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_who_guesses_has_to_wait_and_who_knows_the_password_does_not(own):
    stage = own()
    assert stage.ask("GET", "/status.json").status == 200
    assert [stage.ask("GET", "/status.json", basic(f"guess {n}")).status for n in range(3)] == [401, 401, 429]
    waits = stage.ask("GET", "/status.json", basic("guess 3"))
    assert waits.status == 429 and 0 < int(waits.headers["Retry-After"]) <= 8
    assert stage.ask("GET", "/status.json").status == 200
    assert "status: wrong password from 127.0.0.1" in stage.gateway.log()
    assert "guess" not in stage.gateway.log() and PASSWORD not in stage.gateway.log()
    config = (stage.path / "gateway" / "board.state" / "config.json").read_text()
    assert PASSWORD not in config and "SCRAM-SHA-256" in config


def test_who_is_in_no_allowed_network_is_not_answered(own, monkeypatch):
    monkeypatch.setitem(globals(), "STATUS", STATUS + 'allow = ["10.0.0.0/8"]\n')
    stage = own()
    assert raw(stage.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    stage.gateway.wait_for("127.0.0.1 is in no network of status.allow")


def test_dead_letters_that_nobody_hears_of_are_unwell(own):
    stage = own(board=BOARD.replace('admin = "admin@example.com"\n', ""))
    assert stage.ask("GET", "/health", {}).status == 200
    stage.gateway.inject(to="dead@example.com")
    dead = stage.find("dead@example.com", "kept")
    answer = stage.ask("GET", "/health", {})
    assert answer.status == 503 and "dead letters" in answer.json["why"][0]
    assert stage.ask("HEAD", "/health", {}).status == 503
    stage.ask("DELETE", f"/queue/{dead['id']}")
    assert stage.ask("GET", "/health", {}).status == 200


def test_mail_that_is_too_old_is_unwell_and_health_may_want_the_password(own, monkeypatch):
    load = harness.config.load

    def soon(*args, **kwargs):
        values, warnings = load(*args, **kwargs)
        values["status"]["health_age"] = 0
        return values, warnings

    monkeypatch.setattr(harness.config, "load", soon)
    monkeypatch.setitem(globals(), "STATUS", STATUS + "health = false\n")
    stage = own()
    assert stage.ask("GET", "/health", {}).status == 401
    stage.gateway.inject(to="later@example.com")
    mail = stage.find("later@example.com", "waiting")
    stage.gateway.kill()
    stage.gateway.start()  # another start does not make mail younger
    end = time.monotonic() + PATIENCE
    while (answer := stage.ask("GET", "/health")).status == 200 and time.monotonic() < end:
        time.sleep(0.1)
    assert answer.status == 503 and answer.json["age"] >= max(1, mail["age"])
    assert "waited" in answer.json["why"][0]


def test_in_256_kb_mail_comes_and_goes_while_the_page_is_looked_at(own):
    """A phone that gets no answer asks again: mail goes first."""
    stage = own(heapsize="256k")
    seen = 0
    for n in range(10):
        stage.gateway.inject(to=f"office{n}@example.com", text="a line of text\n" * 60 * n)
        for path in ("/", "/status.json", "/health"):
            try:
                seen += stage.ask("GET", path).status == 200
            except (OSError, http.client.HTTPException):
                pass
    for n in range(10):
        stage.gateway.wait_for(f"delivered to office{n}@example.com")
    assert seen >= 15
    assert stage.ask("GET", "/status.json").json["delivered"] == 10


def test_starting_the_queue_ends_the_pause_before_a_smart_host_that_was_away(own, monkeypatch):
    monkeypatch.setitem(globals(), "SLOW", SLOW.replace("[queue]\n", '[queue]\npause = "1h"\npause_max = "1h"\n'))
    stage = own()
    stage.smarthost.stop()
    stage.gateway.inject(to="office@example.com")
    stage.gateway.wait_for("relay: smart host localhost")
    assert stage.ask("GET", "/status.json").json["trouble"].startswith("localhost:")
    stage.smarthost.start()
    assert stage.ask("POST", "/queue/start").status == 202
    stage.gateway.wait_for("delivered to office@example.com")


def test_a_port_that_is_taken_is_told_with_the_key_to_set(own, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setitem(globals(), "STATUS", STATUS.replace("{port2}", str(taken.getsockname()[1])))
        with pytest.raises(TimeoutError, match="set another status.port"):
            own()
