"""The virtual board, driven by mpremote itself as people run it."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgepost import virtual
from edgepost.errors import UserError
from harness import PATIENCE, edgepost

MPREMOTE = Path(sys.executable).with_name("mpremote")


@pytest.fixture
def board(tmp_path):
    with virtual.VirtualBoard(tmp_path / "state", link=tmp_path / "port") as board:
        yield board


def mpremote(port, *words, status=0, typed=None):
    done = subprocess.run(
        [MPREMOTE, "connect", port, *words], input=typed, stdin=None if typed else subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
    )  # fmt: skip
    said = done.stdout.decode()
    assert done.returncode == status, said
    return said.replace("\r", "")


class Terminal:
    """Somebody who has the port open and types."""

    def __init__(self, board):
        self.fd = os.open(board.port, os.O_RDWR | os.O_NOCTTY)

    def type(self, text, wait):
        """Gives what the board says until `wait` has come."""
        os.write(self.fd, text)
        said = b""
        end = time.monotonic() + PATIENCE
        while wait not in said:
            assert select.select([self.fd], [], [], max(0, end - time.monotonic()))[0], said
            said += os.read(self.fd, 1000)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self.fd)


def test_mpremote_executes_and_runs_and_tells_an_exception(board, tmp_path):
    (tmp_path / "one.py").write_text("print('one')\nprint('zwölf')\n")
    assert mpremote(board.link, "exec", "print(6 * 7)") == "42\n"
    assert mpremote(board.port, "run", tmp_path / "one.py") == "one\nzwölf\n"
    assert "ZeroDivisionError" in mpremote(board.link, "exec", "1 / 0", status=1)
    assert mpremote(board.link, "eval", "__import__('sys').platform") == "rp2\n"


def test_mpremote_copies_lists_shows_and_removes_files(board, tmp_path):
    data = bytes(range(256)) * 20
    (tmp_path / "all.bin").write_bytes(data)
    (tmp_path / "words.txt").write_text("first\nsecond\n")
    port = board.link
    mpremote(port, "fs", "mkdir", ":d", "+", "fs", "cp", tmp_path / "all.bin", tmp_path / "words.txt", ":d/")
    assert "5120 all.bin" in mpremote(port, "fs", "ls", ":d")
    assert mpremote(port, "fs", "cat", ":d/words.txt") == "first\nsecond\n"
    mpremote(port, "fs", "cp", ":d/all.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == data
    mpremote(port, "fs", "rm", ":d/all.bin", "+", "fs", "rm", ":d/words.txt", "+", "fs", "rmdir", ":d")
    assert mpremote(port, "fs", "ls").splitlines() == ["ls :"], "nothing of the computer is there to be removed"


def test_mpremote_mounts_a_directory_and_its_modules_are_imported(board, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.py").write_text("TEXT = 'from the computer'\n" + "# long\n" * 400)
    (tmp_path / "there" / "all.bin").write_bytes(bytes(range(256)))
    code = "import mine; print(mine.TEXT)\nwith open('all.bin', 'rb') as f:\n    print(f.read() == bytes(range(256)))"
    said = mpremote(board.link, "mount", tmp_path / "there", "exec", code)
    assert said.splitlines()[-2:] == ["from the computer", "True"]


def test_a_soft_reset_forgets_what_was_set_and_keeps_files(board):
    port = board.link
    write, show = "n = 1; f = open('kept', 'w'); f.close()", "import os; print('n' in globals(), os.listdir())"
    said = mpremote(port, "exec", write, "+", "soft-reset", "+", "exec", show)
    assert said == "False ['kept']\n"


def test_boot_and_main_run_after_a_soft_reset_and_main_does_not_after_one_from_the_raw_repl(board):
    with Terminal(board) as user:
        user.type(b"\r\x03", b">>> ")
        user.type(b"\x01", virtual.RAW)
        code = b"""for n in ('boot', 'main'):
    f = open(n + '.py', 'w'); f.write('print(%r)\\n%s = 5' % (n, n)); f.close()
"""
        user.type(code + b"\x04", b"\x04>")
        assert user.type(b"\x04", virtual.RAW) == b"OK\r\nMPY: soft reboot\r\nboot\r\n" + virtual.RAW
        assert user.type(b"print(boot)\x04", b"\x04>") == b"OK5\r\n\x04\x04>"
        user.type(b"\x02", b">>> ")
        said = user.type(b"\x04", b">>> ")
        assert said.startswith(b"\r\nMPY: soft reboot\r\nboot\r\nmain\r\nMicroPython "), said
        assert b"\r\n10\r\n" in user.type(b"boot + main\r", b"10\r\n>>> "), "main.py's names are the REPL's"


def test_ctrl_c_interrupts_main_and_what_is_typed_ahead_is_not_lost(board):
    main = "import time\nprint('runs')\nwhile True:\n    time.sleep(1)\n"
    mpremote(board.link, "exec", f"f = open('main.py', 'w'); f.write({main!r}); f.close()")
    with Terminal(board) as user:
        user.type(b"\r\x04", b"runs\r\n")
        said = user.type(b"\x03print(1 + 1)\r", b"\r\n2\r\n>>> ")
        assert b"KeyboardInterrupt" in said
    assert mpremote(board.link, "resume", "exec", "print(3)") == "3\n"


def test_a_power_cut_leaves_what_was_written_and_starts_main(board):
    main = "f = open('main.py', 'w'); f.write('import machine; print(machine.reset_cause())'); f.close()"
    mpremote(board.link, "exec", main)
    with Terminal(board) as user:
        board.cycle()
        # Before that may come what the board had said when the power went; behind it, the prompt.
        said = user.type(b"", b"1\r\nMicroPython ").partition(b"1\r\nMicroPython ")[2]
        if b">>> " not in said:
            user.type(b"", b">>> ")
        assert b"3\r\n" in user.type(b"import machine; machine.reset()\r", b"information.\r\n>>> ")


def test_the_heap_is_a_boards(board):
    free = int(mpremote(board.link, "exec", "import gc; gc.collect(); print(gc.mem_free())"))
    assert 200_000 < free < 280_000
    assert "MemoryError" in mpremote(board.link, "exec", "bytearray(300_000)", status=1)


def test_its_hardware_is_what_the_world_says(tmp_path):
    with virtual.VirtualBoard(tmp_path / "state", "esp32") as board:
        board.world.write_text('{"pins": {"14": 1}, "wifi": {"barn": {"key": "hay and straw"}}}')
        code = ("import network, time, machine\n"
                "w = network.WLAN(); w.active(True); w.connect('barn', 'hay and straw')\n"
                "while not w.isconnected(): time.sleep(0.1)\n"
                "print(machine.Pin(14, machine.Pin.IN).value(), w.ifconfig()[0])")  # fmt: skip
        assert mpremote(board.port, "exec", code) == "1 127.0.0.1\n"


def test_what_it_says_to_nobody_does_not_stop_it(board):
    main = """import machine, os
if 'done' not in os.listdir():
    for _ in range(3000):
        print('x' * 100)
    open('done', 'w').close()
    machine.reset()
"""
    write = f"f = open('main.py', 'w'); f.write({main!r}); f.close()"
    mpremote(board.link, "exec", write)
    resets = board.resets
    board.cycle()
    end = time.monotonic() + PATIENCE
    while board.resets < resets + 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert board.resets == resets + 2, "a reset in main.py is one"
    assert mpremote(board.link, "exec", "import os; print(sorted(os.listdir()))") == "['done', 'main.py']\n"


def test_a_board_in_deep_sleep_wakes_and_its_memory_is_kept(tmp_path):
    with virtual.VirtualBoard(tmp_path / "state", "esp32") as board, Terminal(board) as user:
        sleep = b"import machine; machine.RTC().memory(b'kept'); machine.deepsleep(300)\r"
        user.type(b"1 + 1\r", b"\r\n2\r\n>>> ")
        user.type(sleep, b"information.\r\n>>> ")
        said = user.type(b"import machine; machine.reset_cause(), machine.RTC().memory()\r", b"')\r\n")
        assert b"(4, b'kept')\r\n" in said


def test_two_of_them_never_share_a_flash(board):
    with pytest.raises(UserError, match="running on"):
        virtual.VirtualBoard(board.state.path)


def test_the_command_tells_its_port_and_ends_cleanly(tmp_path):
    link = tmp_path / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "virtual", "--state", tmp_path / "s", "--link", link, "--board", "esp32"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert str(link) in process.stdout.readline()
        assert mpremote(link, "exec", "import sys; print(sys.platform)") == "esp32\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not link.is_symlink()


def test_a_command_that_is_killed_leaves_a_flash_that_can_be_used_at_once(tmp_path):
    command = [sys.executable, "-m", "edgepost", "virtual", "--state", tmp_path / "s", "--link", tmp_path / "port"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        mpremote(tmp_path / "port", "exec", "f = open('kept', 'w'); f.close()")
        mpremote(tmp_path / "port", "exec", "--no-follow", "while True: pass")
        process.kill()
    with virtual.VirtualBoard(tmp_path / "s", link=tmp_path / "port") as board:
        assert "kept" in mpremote(board.link, "fs", "ls")


def test_a_board_that_is_none_is_told(tmp_path):
    done = edgepost("virtual", "--board", "toaster", "--state", tmp_path / "s")
    assert done.returncode == 2 and "toaster is no virtual board; there are: pico_w, esp32" in done.stderr
