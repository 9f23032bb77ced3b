"""The Board object, against a virtual board and what is no board."""

import hashlib
import os
import pty
import tty

import pytest
from edgepost import device, virtual
from edgepost.errors import UserError


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with virtual.VirtualBoard(tmp_path_factory.mktemp("board") / "state") as board:
        yield board


@pytest.fixture
def board(port):
    with device.connect(port.port) as board:
        yield board
        for entry in board.listdir():
            board.remove("/" + entry.name)


def test_it_says_what_it_is(board):
    info = board.info()
    assert info.platform == "rp2" and info.kind == "pico_w" and "Pico W" in info.machine
    assert info.version >= (1, 23) and board.mpy_version().startswith("6.")
    assert 0 < info.heap_free < info.heap < 290_000
    assert 0 < info.flash_free <= info.flash == 212 * 4096


def test_code_runs_and_its_exceptions_are_told(board):
    assert board.exec("print('a')\nprint('b')") == b"a\r\nb\r\n"
    assert board.eval("{'a': [1, b'\\x00', None]}") == {"a": [1, b"\0", None]}
    with pytest.raises(device.Raised, match="the board says: ZeroDivisionError") as e:
        board.exec("def f():\n    1 / 0\nf()")
    assert "line 2, in f" in e.value.trace
    with pytest.raises(device.Raised) as e:
        board.exec("open('/nothing')")
    assert e.value.errno == 2


def test_code_that_takes_too_long_is_given_up_and_the_board_is_there_again(board):
    with pytest.raises(device.TimedOut, match="did not answer while code ran on it"):
        board.exec("while True: pass", timeout=0.5)
    board.interrupt()
    assert board.eval("1 + 1") == 2


def test_a_file_is_written_read_hashed_and_removed(board):
    data = os.urandom(3000) + bytes(range(256)) + b"\x03\x04\x18\r\n"
    board.mkdir("/a/b")
    seen = []
    board.write("/a/b/c", data, seen.append)
    assert seen[-1] == len(data)
    assert board.read_file("/a/b/c") == data
    assert board.hash("/a/b/c") == hashlib.sha256(data).hexdigest()
    assert board.listdir("/a/b") == [("c", False, len(data))] and board.listdir("/") == [("a", True, 0)]
    board.write("/a/b/c", b"")
    assert board.stat("/a/b/c") == (False, 0) and board.read_file("/a/b/c") == b""
    board.remove("/a")
    assert board.stat("/a") is None and board.hash("/a/b/c") is None and board.listdir("/a") == []


def test_a_full_flash_is_told_and_what_was_there_before_is_there_still(board):
    board.write("/kept", b"before")
    fill = "f = open('/big', 'wb')\nfor _ in range(os.statvfs('/')[3] - 5): f.write(bytes(4096))\nf.close()"
    board.exec("import os\n" + fill)
    with pytest.raises(device.BoardError, match="flash is full"):
        board.write("/kept", bytes(40_000))
    assert board.read_file("/kept") == b"before"
    assert [entry.name for entry in board.listdir()] == ["big", "kept"]


def test_a_soft_reset_forgets_and_main_runs_only_when_asked(board):
    board.write("/main.py", b"print('main is here')\n")
    board.exec("n = 1")
    board.soft_reset()
    assert not board.eval("'n' in globals()")
    board.run_main()
    said = b""
    while b">>> " not in said:
        said += board.read(5)
    assert b"main is here" in said
    board.interrupt()
    assert board.eval("2") == 2


def test_a_port_that_is_not_there_or_busy_or_no_port_is_told(port, board, tmp_path):
    with pytest.raises(UserError, match="is not there: is the board plugged in"):
        device.connect("/dev/ttyNOWHERE")
    with pytest.raises(UserError, match="is in use by another program"):
        device.connect(port.port)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a serial port"):
        device.connect(tmp_path / "file")


def test_a_port_that_one_may_not_use_is_told(port, monkeypatch):
    def refuse(*args, **named):  # as pyserial says it; root, who may run these tests, is never refused
        raise device.serial.SerialException(13, f"could not open port {args[0]}: [Errno 13] Permission denied")

    monkeypatch.setattr(device.serial, "Serial", refuse)
    monkeypatch.setattr(device.serial, "serial_for_url", refuse)
    with pytest.raises(UserError, match="dialout"):
        device.connect(port.port)


def test_what_does_not_speak_micropython_is_told():
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        with pytest.raises(UserError, match="does not answer as MicroPython does"):
            device.connect(os.ttyname(slave), timeout=1)
    finally:
        os.close(slave)
        os.close(master)


def test_a_board_that_is_unplugged_is_told(tmp_path):
    there = virtual.VirtualBoard(tmp_path / "state")
    there.power(True)
    board = device.connect(there.port)
    there.unplug()
    with pytest.raises(device.Gone, match="unplugged or reset. Plug it in, and run the command again"):
        board.exec("print(1)")
    board.close()


def test_a_cable_that_is_pulled_while_a_file_is_written_leaves_the_old_file(tmp_path):
    with virtual.VirtualBoard(tmp_path / "state", link=tmp_path / "port") as there:
        with device.connect(there.link) as board:
            board.write("/kept", b"before")
        for fuse in (40, 400, 2000):
            with device.connect(there.link) as board:
                there.fuse = fuse
                with pytest.raises(device.Gone):
                    board.write("/kept", bytes(5000))
            there.power(True)
            with device.connect(there.link) as board:
                assert board.read_file("/kept") == b"before"
