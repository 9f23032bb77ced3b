"""`edgepost monitor` and `edgepost queue` with a gateway on a virtual board, over its serial line and over the LAN."""

import io
import json
import os
import pty
import re
import select
import smtplib
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from fcntl import ioctl

import pytest
import serial
from edgepost import asking, cli, config, device, monitor, queue, virtual, wording
from edgepost.errors import UserError
from edgepost.log import Log
from edgepost.smarthost import SmartHost
from harness import PATIENCE, free_port, mail
from plant import gateway as code
from plant import plant

pytestmark = pytest.mark.xdist_group("monitor")  # they share a board

PASSWORD = "open sesame"
BOARD = """
[board]
name = "cold-store"
domain = "cold-store.example.com"
watchdog = true
[wifi]
ssid = "barn"
password = "hay and straw"
[smarthost]
host = "127.0.0.1"
port = {smarthost}
security = "none"
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
[queue]
retry = "1h"
bounce = false
[[listener]]
address = "127.0.0.1"
port = {port}
allow = ["127.0.0.0/8"]
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
every = "100ms"
"""
STATUS = f"""
[status]
port = {{status}}
address = "127.0.0.1"
password = "{PASSWORD}"
"""
AROUND = {"wifi": {"barn": {"key": "hay and straw"}}, "pins": {"14": 0}, "hurry": 10}


class Stage:
    """A gateway on a virtual board, and a smart host that judges recipients by the first word of their address."""

    def __init__(self, path, board=BOARD + STATUS, heapsize="480k"):
        self.path = path
        self.full = True
        self.smarthost = SmartHost(path / "smarthost", refuse=self.judge, starttls=False, auth=False).start()
        self.port, self.status = free_port(), free_port()
        for name, value in (("smarthost", self.smarthost.port), ("port", self.port), ("status", self.status)):
            board = board.replace("{" + name + "}", str(value))
        (path / "board.toml").write_text(board)
        self.values, _ = config.load(path / "board.toml", {})
        self.values["board"].pop("ntp", None)
        self.board = virtual.VirtualBoard(path / "state", link=path / "port", heapsize=heapsize)
        self.board.world.write_text(json.dumps(AROUND))
        plant(self.board, code(self.values), path / "plant")
        self.log = []
        self.board.power(True)
        self.started()
        self.ways = {"serial": ["--port", str(self.board.link)], "lan": ["--host", f"127.0.0.1:{self.status}"]}

    def judge(self, verb, address):
        if verb == "rcpt" and address.startswith("dead"):
            return "550 5.1.1 nobody of that name" if self.full else None
        if verb == "rcpt" and address.startswith("later") and self.full:
            return "450 4.2.1 the mailbox is full"

    def listen(self, silence=PATIENCE):
        return asking.Serial(self.board.link, self.log.append, silence)

    def started(self):
        """Waits until the gateway answers and mail may go."""
        with self.listen() as gateway:
            end = time.monotonic() + PATIENCE
            while gateway.json("GET", "/status.json")["signal"] is None:
                assert time.monotonic() < end, self.log
                time.sleep(0.1)

    def inject(self, to, subject="a page"):
        with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as client:
            client.send_message(mail(subject, to=to))

    def find(self, to, *states):
        """The mail to this recipient, as soon as it is in one of these states."""
        end = time.monotonic() + PATIENCE
        while True:
            with self.listen() as gateway:
                mails = list(queue.mails(gateway))
            for item in mails:
                if to in item["to"] and item["state"] in states and (item["attempts"] or item["state"] != "waiting"):
                    return item
            assert time.monotonic() < end, mails
            time.sleep(0.1)

    def close(self):
        self.board.close()
        self.smarthost.stop()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("monitor"))
    yield stage
    stage.close()


@pytest.fixture(params=["serial", "lan"])
def run(stage, request, capfd, monkeypatch):
    """Runs a command in this process, over one of the two ways; gives (exit status, output, errors)."""
    monkeypatch.setenv("EDGEPOST_PASSWORD", PASSWORD)

    def run(*words):
        status = cli.main([*map(str, words), *stage.ways[request.param]])
        return status, *capfd.readouterr()

    return run


def test_the_state_is_shown_once(run):
    status, out, _ = run("monitor", "--once")
    assert out.startswith("cold-store: all is well\n" if status == 0 else "cold-store: UNWELL: there are dead letters")
    for text in ("\nqueue    ", "\nmail ", "\nsensor   door off, ok\n",
                 "\nwifi     -55 dBm, good\n", "\nmemory   heap ", ", flash ", "\nruns     for "):  # fmt: skip
        assert text in out, out
    assert "\x1b" not in out


def test_a_narrow_window_is_enough(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run("monitor", "--once")
    assert max(map(len, out.splitlines())) <= 40 and len(out.splitlines()) > 6


def test_the_state_for_machines_is_a_line_of_json(run):
    _, out, _ = run("monitor", "--once", "--json")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["error"] is None and found["status"]["name"] == "cold-store" and abs(found["at"] - time.time()) < 60


def test_the_queue_is_listed_shown_sent_and_deleted(run, stage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stage.inject("later1@example.com", "Grüße")
    stage.inject("dead1@example.com")
    later = stage.find("later1@example.com", "waiting")
    dead = stage.find("dead1@example.com", "dead", "kept")
    status, out, _ = run("queue", "list")
    assert status == 0 and re.search(r"\n\d+ mails? in the queue, \d+ dead letters?\n$", out)
    assert f"{later['id']}  waiting, " in out and "to     later1@example.com" in out
    words = " ".join(out.split())
    assert "tried 1 time, due in " in words and "said deferred for" in words
    assert "450 4.2.1 the mailbox is full" in words
    assert max(map(len, out.splitlines())) <= 60
    status, out, _ = run("queue", "list", "--dead", "--json")
    ids = [json.loads(line)["id"] for line in out.splitlines()]
    assert dead["id"] in ids and later["id"] not in ids
    status, out, _ = run("queue", "show", later["id"])
    assert status == 0 and out.startswith("From: printer@example.com\r\n") and "one line" in out
    _, out, _ = run("queue", "show", later["queued_as"], "--json")
    assert json.loads(out)["id"] == later["id"]

    status, _, said = run("queue", "delete", later["id"], "--yes")
    assert status == 2 and "only dead letters can be deleted" in said
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, _, said = run("queue", "delete", dead["id"])
    assert status == 2 and "--yes" in said
    status, out, _ = run("queue", "delete", dead["id"], "--yes")
    assert status == 0 and out == f"{dead['id']} is deleted\n"
    status, _, said = run("queue", "delete", dead["id"], "--yes")
    assert status == 2 and f"there is no mail '{dead['id']}' in the queue" in said

    stage.full = False
    try:
        count = len(stage.smarthost.mails)
        assert run("queue", "send", later["id"])[:2] == (0, f"{later['id']} is due now\n")
        stage.smarthost.wait_for(count + 1)
    finally:
        stage.full = True


def test_a_dead_letter_is_sent_again_and_the_queue_is_started(run, stage):
    stage.inject("dead2@example.com")
    stage.inject("later2@example.com")
    dead = stage.find("dead2@example.com", "dead", "kept")
    stage.find("later2@example.com", "waiting")
    stage.full = False
    try:
        count = len(stage.smarthost.mails)
        assert run("queue", "send", dead["id"])[:2] == (0, f"{dead['id']} waits again, and is due now\n")
        stage.smarthost.wait_for(count + 1)
        assert run("queue", "start")[:2] == (0, "all mail is due now\n")
        stage.smarthost.wait_for(count + 2)
    finally:
        stage.full = True


def test_a_test_mail_is_sent(run, stage):
    status, out, said = run("queue", "test")
    assert "is queued as" in out if status == 0 else "wait" in said  # the other way has just sent one
    assert any(run("queue", "test")[2].startswith("edgepost: the ") for _ in range(3)), "a second one is too soon"
    end = time.monotonic() + PATIENCE
    while "Test mail from cold-store" not in [mail.message["Subject"] for mail in stage.smarthost.mails]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_before_a_mail_is_deleted_one_is_asked(stage, monkeypatch, capsys):
    stage.inject("dead3@example.com")
    dead = stage.find("dead3@example.com", "dead", "kept")

    class Keyboard(io.StringIO):
        def isatty(self):
            return True

    command = ["queue", "delete", dead["id"], "--port", str(stage.board.link)]
    for typed, status, said in (("\n", 1, "nothing was deleted"), ("y\n", 0, "is deleted")):
        monkeypatch.setattr("sys.stdin", Keyboard(typed))
        assert cli.main(command) == status
        out = capsys.readouterr().out
        assert said in out and "dead3@example.com" in out and "[y/N]" in out


# ---- the password


def test_a_password_is_needed_and_never_stands_on_the_command_line(stage, monkeypatch, capsys, tmp_path):
    def run(*words):
        status = cli.main(["monitor", "--once", *map(str, words)])
        return status, capsys.readouterr().err

    lan = f"127.0.0.1:{stage.status}"
    monkeypatch.delenv("EDGEPOST_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("--host", lan)[0] == 2
    assert "set the variable EDGEPOST_PASSWORD" in run("--host", lan)[1]
    assert "does not belong on the command line" in run("--host", f"http://:{PASSWORD}@{lan}")[1]
    assert "is no address of a gateway" in run("--host", f"https://{lan}")[1]
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    assert run("--host", lan, "--password-file", tmp_path / "secret")[0] < 2
    assert "cannot be read" in run("--host", lan, "--password-file", tmp_path / "nothing")[1]
    assert "is for --host" in run("--port", stage.board.link, "--password-file", tmp_path / "secret")[1]
    monkeypatch.setenv("EDGEPOST_PASSWORD", "wrong")
    status, said = run("--host", lan)
    assert status == 2 and "does not take this password" in said


def test_nobody_at_the_address_is_told(monkeypatch, capsys):
    monkeypatch.setenv("EDGEPOST_PASSWORD", PASSWORD)
    assert cli.main(["queue", "list", "--host", f"127.0.0.1:{free_port()}"]) == 2
    assert "does not answer (Connection refused): is it on" in capsys.readouterr().err


# ---- the serial line


@pytest.mark.parametrize("words", [["monitor", "--once"], ["queue", "list"], ["test", "test_address.py"]])
def test_a_port_that_is_wrong_or_in_use_is_told(words, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    try:
        with serial.Serial(name, exclusive=True):
            for port, said in (
                ("/dev/nothing", "is not there: is the board plugged in"), (name, "is in use by another program; end"),
                (tmp_path / "file", "is not a serial port of a board"),
            ):  # fmt: skip
                assert cli.main([*words, "--port", str(port)]) == 2
                err = capsys.readouterr().err
                assert err.startswith(f"edgepost: {port} {said}") and len(err.splitlines()) == 1
    finally:
        os.close(master)
        os.close(slave)


def test_who_types_is_not_taken_for_a_request(stage):
    with stage.listen() as gateway:
        for typed in (b"help()\r\n", b"\x05print(1)\r\n", b"\x05" + b"x" * 5000, b"\x05ab01 GET /queue 00000000\n",
                      b"\x05\x05\n", b"\xff\xfe\x00\x05\xff\n", b"\x05" + b"GET / HTTP/1.1\n" * 20,
                      b"\x05"):  # fmt: skip
            gateway.send(typed)
        assert gateway.json("GET", "/status.json")["name"] == "cold-store"
    assert not [line for line in stage.log if "Traceback" in line or "no answer" in line]


def test_an_answer_that_nobody_reads_any_more_ends_and_the_next_one_comes(stage):
    stage.inject("later4@example.com", "x " * 300)
    item = stage.find("later4@example.com", "waiting")
    with stage.listen() as gateway:
        for n in range(5):
            text = b"%04d GET /queue/%s" % (n, item["id"].encode())
            gateway.send(b"\x05%s %08x\n" % (text, asking.binascii.crc32(text)))
        assert gateway.json("GET", "/status.json")["name"] == "cold-store"
    with stage.listen() as gateway:
        assert b"Subject: x x" in gateway.get("GET", f"/queue/{item['id']}")


def test_mail_goes_on_while_the_gateway_is_asked(stage):
    count = len(stage.smarthost.mails)
    ends = threading.Event()
    asked = []

    def ask():
        with stage.listen() as gateway:
            while not ends.is_set():
                asked.append(gateway.json("GET", "/status.json")["delivered"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for n in range(10):
            stage.inject(f"office{n}@example.com")
        stage.smarthost.wait_for(count + 10)
    finally:
        ends.set()
        thread.join(PATIENCE)
    assert asked and asked == sorted(asked)


# ---- what is no board, or has gone


class Fake:
    """A serial port at which one answers as told: each item of `answers` to one request."""

    def __init__(self, *answers):
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self.slave = slave  # held open, or what was said would be lost
        self.asked = []
        self.thread = threading.Thread(target=self.serve, args=(answers,), daemon=True)
        self.thread.start()

    def serve(self, answers):
        for answer in answers:
            line = b""
            while not line.endswith(b"\n"):
                try:
                    line += os.read(self.master, 100)
                except OSError:
                    return
            self.asked.append(line)
            os.write(self.master, answer(line[1:5]) if callable(answer) else answer)

    def close(self):
        os.close(self.slave)  # which ends the thread, unless another has it open
        self.thread.join(PATIENCE)
        os.close(self.master)


def framed(ident, *texts):
    out = b""
    for n, text in enumerate(texts):
        text = b"%s %d %s" % (ident, n, text)
        out += b"\x06%s %08x\r\n" % (text, asking.binascii.crc32(text))
    return out


def whole(ident):
    return framed(ident, b"200", b"eyJhIjog", b"MX0=", b".")  # {"a": 1}


def fake_ask(*answers, silence=0.3, method="GET"):
    log = []
    fake = Fake(*answers)
    try:
        with asking.Serial(fake.port, log.append, silence) as gateway:
            return gateway.json(method, "/status.json"), log, fake
    finally:
        fake.close()


def test_log_lines_between_those_of_an_answer_are_log():
    def mixed(ident):
        lines = whole(ident).split(b"\r\n")
        return b"12:00:00 relay: one\n" + b"\r\n12:00:01 relay: two\r\n".join(lines[:-1]) + b"\r\n"

    found, log, _ = fake_ask(mixed)
    assert found == {"a": 1} and log == ["12:00:00 relay: one"] + ["12:00:01 relay: two"] * 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: said[:40], lambda said: said.replace(b"MX0", b"MX1"), lambda said: said.replace(b"eyJ", b"e\xffJ"),
        lambda said: said.split(b"\r\n", 1)[1], lambda said: b"\r\n".join(said.split(b"\r\n")[::2]) + b"\r\n",
        lambda said: said.replace(b"\x06", b"\x86"), lambda said: said.replace(b"\r\n", b"", 1),
    ],
)  # fmt: skip
def test_an_answer_that_is_damaged_is_asked_for_again(spoil):
    try:
        found, _, fake = fake_ask(lambda ident: spoil(whole(ident)), whole)
        assert found == {"a": 1} and len(fake.asked) == 2
    except asking.Unreachable as e:
        assert "does not answer" in str(e)  # nothing of it was to be seen as an answer


def test_an_answer_that_the_board_breaks_off_is_asked_for_again_and_then_told():
    def broken(ident):
        return framed(ident, b"200", b"eyJhIjog", b"!")

    assert fake_ask(broken, broken, whole)[0] == {"a": 1}
    with pytest.raises(asking.Unreachable, match="it broke off .out of memory"):
        fake_ask(broken, broken, broken)


def test_what_was_done_is_not_done_again_when_its_answer_is_damaged():
    with pytest.raises(asking.Unreachable, match="edgepost queue list"):
        fake_ask(lambda ident: whole(ident).replace(b"MX0", b"MX1"), method="POST")


@pytest.mark.parametrize("said", [b"", b"\x00\xff" * 5000, b"\x06\r\n" * 100, b"\x06ab12 0 200\r\n", b"OK\x04\x04>",
                                  "ünï\n".encode() * 50])  # fmt: skip
def test_garbage_is_no_answer(said):
    with pytest.raises(asking.Unreachable, match="does not answer: does an edgepost gateway run on it"):
        fake_ask(said)


def test_no_json_is_told():
    with pytest.raises(asking.Unreachable, match="gave no sense"):
        fake_ask(lambda ident: framed(ident, b"200", b"eyJh", b"."))


def test_a_cable_that_is_pulled_in_the_middle_of_an_answer_is_told():
    for n in range(1, 4):
        def part(ident, n=n):
            return framed(ident, b"200", b"eyJhIjog", b"MX0=", b".")[: 20 * n]

        fake = Fake(part)
        with asking.Serial(fake.port, silence=PATIENCE) as gateway:
            thread = threading.Thread(target=lambda fake=fake: (fake.thread.join(), time.sleep(0.05), fake.close()))
            thread.start()
            with pytest.raises(asking.Gone, match="is gone: it was unplugged or reset"):
                gateway.ask("GET", "/queue")
            thread.join()


@pytest.mark.parametrize("words", [["monitor", "--once"], ["queue", "list"], ["queue", "show"], ["queue", "send"]])
def test_a_cable_that_is_pulled_at_any_moment_of_a_command_is_one_line_and_the_gateway_goes_on(
    stage, words, monkeypatch, capsys
):
    stage.inject("later5@example.com")
    item = stage.find("later5@example.com", "waiting")
    words = words + [item["id"]] if words[-1] in ("show", "send") else words
    with stage.listen() as gateway:
        uptime = gateway.json("GET", "/status.json")["uptime"]
    read = asking.Serial.read
    left = 0

    def pulled(self, seconds):
        nonlocal left
        left -= 1
        if not left:
            self.line.close()
            self.held = b""
        return read(self, seconds)

    monkeypatch.setattr(asking.Serial, "read", pulled)
    told = 0
    for left in (1, 2, 3, 5, 8, 12, 20):  # noqa: B020 (what pulled() counts down)
        status = cli.main([*words, "--port", str(stage.board.link)])
        said = capsys.readouterr().err
        if left > 0:  # it was over before
            break
        told += 1
        assert status == 2 and len(said.splitlines()) == 1 and "is gone: it was unplugged or reset" in said
    assert told >= 3
    monkeypatch.undo()
    with stage.listen() as gateway:
        assert gateway.json("GET", "/status.json")["uptime"] >= uptime


# ---- the log, and the state in place


STATE = {
    "name": "cold-store", "version": "0.1.0", "micropython": "1.28.0", "time": 1, "uptime": 93784, "delivered": 3,
    "health": {"status": "unwell", "age": 7300, "why": ["mail has waited for more than 3600 s"]}, "sessions": 1,
    "queue": {"waiting": 2, "dead": 1, "damaged": 0, "bytes": 3000, "max_bytes": 524288, "free": 700000},
    "trouble": "localhost: \x1b[31mconnection refused", "heap": {"used": 100000, "free": 90000}, "signal": -83,
    "sensors": [{"name": "冷凍庫", "shown": "-12.0 °C", "state": "above", "age": 2, "fault": None},
                {"name": "tank", "shown": None, "state": "failed", "age": None, "fault": "no such pin"}],
    "mails": [], "letters": [], "log": [],
    "events": [{"age": 5, "text": "abc delivered to a-very-long-address-of-somebody@subdomain.example.com"}],
}  # fmt: skip


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_state_fits_any_window_and_nothing_in_it_moves_the_cursor(width):
    lines = wording.state(STATE, width)
    assert max(map(wording.columns, lines)) <= width, lines
    text = " ".join(" ".join(lines).split())
    assert "\x1b" not in text and ("UNWELL" in text or width == 20)
    if width >= 40:
        for part in ("2 waiting, the oldest for 2 h 1 min, 1 dead letter, 2.9 KB of 512 KB", "-83 dBm, too weak",
                     "冷凍庫 -12.0 °C, ABOVE", "tank -, FAILED, no such pin", "1 session", "for 1 d"):  # fmt: skip
            assert part in text, text


def timeless(waiting, age):
    queue = {**STATE["queue"], "waiting": waiting}
    return {**STATE, "time": None, "uptime": 95, "queue": queue, "health": {"status": "ok", "age": age, "why": []},
            "trouble": None, "sensors": []}  # fmt: skip


def test_a_sensor_that_fails_and_a_smart_host_that_takes_nothing_are_not_well():
    state = {**STATE, "health": {"status": "ok", "age": 5, "why": []}}
    assert wording.wrong(state) == ["no smart host takes mail", "the sensor tank fails"]
    state["queue"] = {**STATE["queue"], "waiting": 0}
    assert wording.wrong(state) == ["the sensor tank fails"]  # nothing waits: the trouble may be over
    assert wording.state({**state, "sensors": []}, 80)[0] == "cold-store: all is well"


def test_a_board_without_memory_for_an_answer_is_asked_again_and_then_told():
    class Full(asking.Gateway):
        where, left, waited = "the board", 9, 0

        def ask(self, method, path):
            self.left -= 1
            return (503, b"there is no memory for an answer now\n") if self.left >= 0 else (200, b"{}")

        def hear(self, seconds):
            self.waited += seconds

    gateway = Full()
    with pytest.raises(asking.Refused, match="the board has no memory for an answer now.*try again in a minute"):
        gateway.get("GET", "/queue")
    assert gateway.waited == 4
    gateway.left = 2
    assert gateway.json("GET", "/queue") == {}
    gateway.left = 1
    with pytest.raises(asking.Refused):  # what does something is not said twice
        gateway.get("POST", "/queue/start")


def test_a_clock_that_nobody_has_set_is_told_with_the_mail_that_waits_and_what_to_do():
    state = timeless(2, 80)
    text = " ".join(" ".join(wording.state(state, 80)).split())
    why = "the clock is not set: no time server has answered for 1 min; 2 mails wait, the oldest for 1 min"
    assert text.startswith(f"cold-store: UNWELL: {why}") and "all is well" not in text
    assert "clock not set -> see that the board has a network" in text and "board.ntp" in text
    assert wording.summary(state).startswith(f"cold-store: UNWELL: {why}; 2 waiting") and wording.wrong(state) == [why]
    assert max(map(len, wording.state(state, 40))) <= 40


def test_a_clock_that_is_not_set_yet_or_that_no_mail_waits_for_is_no_alarm():
    assert wording.wrong(timeless(0, None)) == []  # it may have none on purpose
    text = wording.state(timeless(0, None), 200)
    assert text[0] == "cold-store: all is well" and any(line.startswith("clock    not set") for line in text)
    assert wording.wrong({**timeless(2, 5), "uptime": 5}) == []
    assert wording.clock(STATE) is None


def test_the_list_of_the_queue_says_why_mail_waits(capsys):
    class Gateway:
        def json(self, method, path):
            if path == "/status.json":
                return timeless(1, 80) | {"trouble": "localhost: connection refused"}
            return {"mails": [item], "next": None}

    item = {"id": "10000001", "state": "waiting", "priority": "normal", "size": 300, "age": 80, "attempts": 0, "due": 0,
            "from": "a@example.com", "to": ["b@example.com"], "more": 0, "reply": None}  # fmt: skip
    queue.listing(Gateway(), False, False)
    text = " ".join(capsys.readouterr().out.split())
    assert "1 mail in the queue" in text and "trouble localhost: connection refused" in text
    assert "clock the clock is not set: no time server has answered for 1 min; 1 mail waits" in text


def test_in_a_pipe_there_are_lines_and_the_state_only_when_it_is_another():
    out = io.StringIO()
    screen = monitor.Screen(out, False)
    screen.log("12:00:00 gateway: ready")
    screen.show(STATE)
    screen.show(STATE)
    screen.log("Traceback (most recent call last):")
    screen.lost("the board is gone")
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 and "\x1b" not in out.getvalue()
    assert lines[0] == "12:00:00 gateway: ready"
    assert re.fullmatch(r"\d\d:\d\d:\d\d cold-store: UNWELL: mail has waited .*tank - failed", lines[1])
    assert re.fullmatch(r"\d\d:\d\d:\d\d Traceback .*", lines[2]) and lines[3].endswith("is gone. Waiting for it")


def test_in_a_terminal_the_state_is_written_in_place_below_the_log(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    screen = monitor.Screen(out, True)
    screen.show(STATE)
    height = screen.shown
    assert height == out.getvalue().count("\n")
    out.truncate(0)
    screen.log("12:00:00 relay: a line of the log")
    assert f"\x1b[{height}A\r\x1b[J12:00:00 relay: a" in out.getvalue()
    below = out.getvalue().partition("\n")[2].split("\n")
    assert max(map(wording.columns, below)) <= 40 and screen.shown == height


def test_only_the_new_lines_of_a_log_are_news():
    news = monitor.News()
    assert news.take(["a\nb\n", "c\nd\ne\nf\n"]) == ["b", "c", "d", "e", "f"]
    assert news.take(["a\nb\nc\nd\ne\nf\n"]) == []
    assert news.take(["e\nf\ng\n"]) == ["g"]
    assert news.take(["x\ny\n"]) == ["x", "y"]
    assert news.take([]) == []


def follow(*words, env=None):
    """A command that runs: (its process, a Log of what it says)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    log = Log()
    log.follow(process.stdout)
    return process, log


def stop(process):
    process.send_signal(2)
    assert process.wait(PATIENCE) == 0


def test_a_board_that_is_reset_or_unplugged_is_waited_for(tmp_path):
    # No [status], no listener, and the memory of a small board.
    stage = Stage(tmp_path, re.sub(r"\[\[listener]]\n(.+\n){3}", "", BOARD), "280k")
    try:
        process, log = follow("monitor", "--port", stage.board.link, "--every", "1")
        try:
            log.wait_for("cold-store: all is well", PATIENCE)
            mark = log.mark()
            stage.board.cycle()
            log.wait_for("gateway: ready", PATIENCE, mark)
            mark = log.mark()
            stage.board.fuse = 1
            log.wait_for("is gone: it was unplugged or reset", PATIENCE, mark)
            mark = log.mark()
            stage.board.power(True)
            log.wait_for("is there again", PATIENCE, mark)
            log.wait_for("cold-store: all is well", PATIENCE, mark)
        finally:
            stop(process)
        assert "Traceback" not in log.text()
        # Ctrl-C ends the gateway as ever, and then its prompt is told from it.
        with device.connect(stage.board.link) as board:
            assert board.eval("1 + 1") == 2
        with pytest.raises(UserError, match="no gateway runs on .*: MicroPython's prompt is there"):
            with stage.listen() as gateway:
                gateway.ask("GET", "/queue")
    finally:
        stage.close()


def test_a_terminal_shows_the_state_in_place(stage):
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "monitor", "--every", "1", "--host", f"127.0.0.1:{stage.status}"],
        stdin=slave, stdout=slave, stderr=slave, env={**env, "EDGEPOST_PASSWORD": PASSWORD, "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    said = b""
    try:
        end = time.monotonic() + PATIENCE
        while said.count(b"A\r\x1b[J") < 2:
            assert select.select([master], [], [], max(0, end - time.monotonic()))[0], said
            said += os.read(master, 4096)
        stop(process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    text = said.decode()
    ups = [int(n) for n in re.findall(r"\x1b\[(\d+)A", text)]
    block = re.split(r"\x1b\[\d+A\r\x1b\[J", text)[1]
    assert block.count("\r\n") == ups[1] and "cold-store: " in block
    assert all(wording.columns(line) <= 40 for line in block.split("\r\n"))


def test_help_has_an_example(capsys):
    for words in (["monitor"], ["queue"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
        assert "example: edgepost " in capsys.readouterr().out


