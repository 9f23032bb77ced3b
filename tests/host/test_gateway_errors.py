"""What keeps a gateway from starting is one clear line and status 2; what ends it ends it cleanly,
in the middle of its work, too.
"""

import json
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest
from edgepost import build, config, unix
from harness import BOARD, PATIENCE, RunningGateway, edgepost, mail

# ---- the command


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A RunningGateway that does not run yet. Nothing in its board.toml is worth a warning."""
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
    return RunningGateway(tmp_path, BOARD.replace('"secret"', '{ env = "SMTP_PASSWORD" }'))


def one_line(done):
    assert done.returncode == 2, done
    assert re.fullmatch(r"edgepost: [^\n]+\n", done.stderr), done.stderr
    assert "Traceback" not in done.stdout
    return done.stderr


def accepted_and_killed(one, count=3):
    """A gateway that holds mail, ended by a power cut."""
    one.start()
    for number in range(count):
        one.inject(mail(f"page {number}"))
    one.kill()


def test_a_port_in_use_is_named_with_what_to_do(board):
    with socket.create_server(("127.0.0.1", board.port)):
        line = one_line(edgepost("run", board.board))
    assert f"cannot listen on 127.0.0.1 port {board.port}" in line
    assert "stop the program that uses this port, or set another listener.port" in line


def test_a_second_listeners_port_in_use_is_named_and_the_mail_stays(board, smarthost):
    accepted_and_killed(board)
    board.board.write_text(
        board.board.read_text() + f'[[listener]]\nport = {board.port2}\nallow = ["10.0.0.0/8"]\n'
    )
    with socket.create_server(("127.0.0.1", board.port2)):
        assert str(board.port2) in one_line(edgepost("run", board.board))
    host = smarthost(path=board.path / "smarthost", port=board.smarthost_port)
    board.start()
    host.wait_for(3)
    assert board.stop() == 0


def test_an_address_that_this_machine_does_not_have_is_named(board):
    board.board.write_text(board.board.read_text().replace('"127.0.0.1"', '"192.0.2.1"'))
    assert "192.0.2.1" in one_line(edgepost("run", board.board))


@pytest.mark.parametrize("damage", ["garbage", "zeros", "text", "odd size", "first blocks"])
def test_a_damaged_image_is_named_and_left_as_it_is(board, damage):
    accepted_and_killed(board)
    image = board.state.image
    data = bytearray(image.read_bytes())
    if damage == "garbage":
        data = random.Random(1).randbytes(len(data))
    elif damage == "zeros":
        data = bytes(len(data))
    elif damage == "text":
        data = b"not an image\n"
    elif damage == "odd size":
        data = data[:1000]
    else:
        data[: 2 * 4096] = b"\xff" * 2 * 4096
    image.write_bytes(data)
    line = one_line(edgepost("run", board.board))
    assert "flash.img" in line
    assert image.read_bytes() == data


def test_an_image_that_was_cut_short_is_named_and_left_as_it_is(board):
    accepted_and_killed(board, 20)
    image = board.state.image
    data = image.read_bytes()[: 768 << 10]
    image.write_bytes(data)
    line = one_line(edgepost("run", board.board))
    assert "flash.img" in line and "damaged" in line
    assert image.read_bytes() == data


def test_a_missing_password_variable_is_named(board):
    text = board.board.read_text()
    board.board.write_text(text.replace("SMTP_PASSWORD", "NO_SUCH_PASSWORD"))
    line = one_line(edgepost("run", board.board))
    assert "NO_SUCH_PASSWORD is not set" in line and "export NO_SUCH_PASSWORD=" in line


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[board\n", "is not valid TOML"),
        ("[board]\nname = 'a'\n", "smarthost: is missing"),
        ("\xff", "board.toml"),
    ],
)
def test_a_broken_board_toml_is_named(board, text, part):
    board.board.write_text(text, encoding="latin-1")
    done = edgepost("run", board.board)
    assert done.returncode == 2
    assert part in done.stderr and done.stderr.startswith("edgepost: ")
    assert "Traceback" not in done.stdout + done.stderr


# ---- the process on its own, as a supervisor of another make would start it


class Process:
    """The gateway process without the command."""

    def __init__(self, path):
        self.micropython = unix.find_micropython()
        self.firmware = build.build(self.micropython.mpy)
        self.image, self.config = path / "flash.img", path / "config.json"

    def run(self, config, flash=1 << 20):
        self.config.write_text(config if isinstance(config, str) else json.dumps(config))
        return subprocess.run(
            [self.micropython.path, "-X", "heapsize=256k", self.firmware / "boards" / "unix.py"]
            + [self.image, self.config],
            stdin=subprocess.DEVNULL,  # ends at once, and with it a gateway that could start
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "EDGEPOST_FLASH_SIZE": str(flash)},
        )


@pytest.fixture
def process(tmp_path):
    return Process(tmp_path)


@pytest.fixture
def values(board):
    return config.load(board.board)[0]


def test_closed_standard_input_ends_the_process_with_status_0(process, values):
    done = process.run(values)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gateway: ready\n" in done.stdout and done.stdout.endswith("gateway: stopping\n")


def test_a_configuration_that_is_no_json_is_one_line(process, values):
    assert "config.json is no JSON" in one_line(process.run("{"))
    assert process.run(values).returncode == 0  # with the right one the same image starts


@pytest.mark.parametrize("missing", ["board", "smarthost", "mail", "listener", "queue", "sensor"])
def test_a_configuration_that_lacks_something_is_one_line_that_names_it(process, values, missing):
    del values[missing]
    assert missing in one_line(process.run(values))


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [("listener", "cert", "AAAA"), ("listener", "allow", ["nonsense"]), ("listener", "port", "x")],
)
def test_a_configuration_that_cannot_work_is_one_line(process, values, table, key, value):
    values[table][0][key] = value
    if key == "cert":
        values[table][0]["tls"] = "tls"
    one_line(process.run(values))


def test_a_configuration_that_is_not_there_is_one_line(process, values):
    process.run(values)
    process.config.unlink()
    done = subprocess.run(
        [process.micropython.path, process.firmware / "boards" / "unix.py", process.image]
        + [process.config],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert "configuration" in one_line(done)


# ---- an end in the middle of the work

WINDOW = 5  # mails that the relay has in flight


class Flow:
    """Devices that send mail without a pause until they are told to stop; `accepted` are the
    subjects that got their 250.
    """

    def __init__(self, port):
        self.port, self.accepted, self.over = port, [], threading.Event()
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(3)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        count = 0
        while not self.over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as device:
                    while not self.over.is_set():
                        count += 1
                        subject = f"device {number}, mail {count}"
                        device.send_message(mail(subject, "text\n" * 200))
                        with self.changed:
                            self.accepted.append(subject)
                            self.changed.notify_all()
            except (OSError, smtplib.SMTPException):
                pass  # it has ended, or the flash is full

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.accepted) >= count, PATIENCE)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("way", ["SIGTERM", "Ctrl-C", "closed standard input"])
def test_an_end_in_the_middle_of_the_work_is_clean_and_loses_nothing(gateway, smarthost, way):
    host = smarthost()
    one = gateway(BOARD, host)
    one.stop()
    if way == "closed standard input":
        one.start()
        flow = Flow(one.port)
        flow.wait_for(30)
        host.wait_for(5)
        assert one.stop() == 0
    else:
        mark = one.mark()
        process = subprocess.Popen(
            [sys.executable, "-m", "edgepost", "run", one.board, "--heapsize", "256k"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        one.messages.follow(process.stdout)
        try:
            one.wait_for("gateway: ready", since=mark)
            flow = Flow(one.port)
            flow.wait_for(30)
            host.wait_for(5)
            if way == "SIGTERM":
                process.terminate()
            else:  # as the terminal does it: to all of the foreground
                os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
        one.messages.join(PATIENCE)
    flow.stop()
    assert "Traceback" not in one.log()
    # What waited is delivered by the next life, and the flash is whole.
    one.start()
    one.inject(mail("the last one", to="last@example.com"))
    one.wait_for("delivered to last@example.com")
    assert one.stop() == 0
    arrived = Counter(got.message["Subject"] for got in host.mails)
    assert not set(flow.accepted) - set(arrived)
    assert sum(arrived.values()) - len(arrived) <= WINDOW  # what was in flight, and no more
    assert "damaged" not in one.log().replace("0 damaged", "")
