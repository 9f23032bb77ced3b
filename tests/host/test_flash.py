"""`edgepost flash` with simulated boot loaders: which board, what is written, and what is said when it is not.

Real esptool talks to a simulated ESP32 at a pseudo-terminal, and a virtual board answers as the MicroPython on it. A
Pico's drive is a directory. What no test here shows: modem lines, and how an operating system mounts a drive.
"""

import contextlib
import io
import os
import sys
from types import SimpleNamespace

import pytest
from bootloaders import Esp32, Pico, banner, esp_image, uf2_image
from edgepost import cli, deploy, device, flash, image, progress, virtual
from edgepost.errors import UserError
from harness import PATIENCE, switch_on
from serial.tools.list_ports_common import ListPortInfo

C3, S2 = 5, 0x000007C6


@pytest.fixture(autouse=True)
def bus(monkeypatch):
    """What is plugged in: `bus.ports` as pyserial lists them, `bus.volumes` as (directory, device)."""
    bus = SimpleNamespace(ports=[], volumes=[], tty=False)
    monkeypatch.setattr(flash.serial.tools.list_ports, "comports", lambda: list(bus.ports))
    monkeypatch.setattr(flash, "volumes", lambda: list(bus.volumes))
    for name, value in {"ANSWER": 0, "BOOTS": 0, "DRIVE": PATIENCE, "CALL": 1, "_LOOK": 0.01}.items():
        monkeypatch.setattr(flash, name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return bus


@pytest.fixture
def patient(monkeypatch):
    """esptool waits longer, for a machine that is busy."""
    from esptool.loader import ESPLoader

    command = ESPLoader.command

    def patiently(self, *args, timeout=3, **named):
        return command(self, *args, timeout=10 * timeout, **named)

    monkeypatch.setattr(ESPLoader, "command", patiently)


def port(name, vid=0x10C4, pid=0xEA60, number="0001", location="1-1"):
    """A port as pyserial lists it."""
    found = ListPortInfo(name, skip_link_detection=True)
    found.vid, found.pid, found.serial_number, found.location, found.product = vid, pid, number, location, "x"
    return found


@pytest.fixture
def run(capsys, tmp_path, patient):
    """Runs `edgepost flash` with an image; gives (exit status, what it said, what it said of errors)."""

    def run(data, *words):
        if data is not None:
            (tmp_path / "firmware.img").write_bytes(data)
            words = ("--image", str(tmp_path / "firmware.img"), *words)
        capsys.readouterr()
        status = cli.main(["flash", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and err.count("\n") == (status == 2), err
        return status, out, err

    return run


@pytest.fixture(scope="module")
def esp32(tmp_path_factory):
    with virtual.VirtualBoard(tmp_path_factory.mktemp("esp32") / "state", "esp32") as board:
        yield board


@pytest.fixture(scope="module")
def text(esp32):
    """What the MicroPython of the virtual boards says of itself, as an image has it."""
    with device.connect(esp32.port, PATIENCE) as board:
        version = "v" + ".".join(map(str, board.info().version))
    return lambda board="Generic ESP32 module with ESP32": banner(version, board)


ESP = esp_image()


# ---- ESP32


def test_an_esp32_is_written_and_its_micropython_answers(run, esp32, text, monkeypatch):
    monkeypatch.setattr(flash, "ANSWER", PATIENCE)
    data = esp_image(text=text())
    with Esp32(board=esp32) as board:
        board.flash[0x200000:0x200004] = b"file"
        status, out, err = run(data, "--port", board.port)
        assert status == 0, out + err
        assert board.stub and not board.erased
        assert board.flash[0x1000 : 0x1000 + len(data)] == data
        assert board.flash[0x200000:0x200004] == b"file", "the files of the board stay"
    lines = out.splitlines()
    assert lines[0].startswith("edgepost: firmware.img: MicroPython v1.") and "Generic ESP32 module" in lines[0]
    assert f"edgepost: ESP32 at {board.port}, 4MB of flash" in lines and "writing 100 %" in lines
    assert lines[-2].endswith("(virtual)") and f"answers at {board.port}: Generic ESP32" in lines[-2]
    assert lines[-1] == "edgepost: next, its configuration: edgepost provision"


def test_all_of_its_flash_is_erased_when_asked_for(run):
    with Esp32() as board:
        board.flash[0x200000:0x200004] = b"file"
        status, out, err = run(ESP, "--port", board.port, "--erase")
        assert board.erased == 1 and board.flash[0x200000:0x200004] == b"\xff" * 4
        assert board.flash[0x1000 : 0x1000 + len(ESP)] == ESP
    assert status == 1 and "the image is written, but MicroPython does not answer: press" in out


def test_another_version_that_answers_is_told(run, esp32, monkeypatch):
    monkeypatch.setattr(flash, "ANSWER", PATIENCE)
    with Esp32(board=esp32) as board:
        status, out, err = run(esp_image(text=banner("v1.23.7")), "--port", board.port)
    assert status == 1 and "not v1.23.7 of the image" in out and "provision" not in out


@pytest.mark.parametrize(
    "data, board, says",
    [
        (esp_image(C3, 0), {}, "is for ESP32-C3, and at {} is ESP32: nothing was written"),
        (ESP, {"magic": S2}, "is for ESP32, and at {} is ESP32-S2: nothing was written"),
        (ESP, {"chip_id": C3}, "is for ESP32, and at {} is ESP32-C3: nothing was written"),
        (ESP, {"size": 21}, "needs 4 MB of flash, and the ESP32 at {} has 2MB: nothing was written"),
        (ESP, {"size": 7}, "the ESP32 at {} finds no flash chip it knows"),
        (uf2_image(), {}, "does not answer as MicroPython does"),
    ],
    ids=["image for C3", "S2 on the line", "C3 on the line", "small flash", "unknown flash", "UF2"],
)
def test_nothing_is_written_to_a_board_that_the_image_is_not_for(run, data, board, says):
    with Esp32(**board) as there:
        status, out, err = run(data, "--port", there.port, "--erase")
        assert status == 2 and there.erased == there.written == 0
    assert says is None or says.format(there.port) in err


def test_flash_that_has_not_what_was_written_is_told(run):
    with Esp32(lies=True) as board:
        status, out, err = run(ESP, "--port", board.port)
    assert status == 2 and "what is on it is not whole" in err and "run the command again" in err
    assert "compared with the image" not in out


def test_what_does_not_answer_as_a_boot_loader_is_told(run, monkeypatch):
    monkeypatch.undo()
    with Esp32() as board:
        board._frame = lambda frame: None
        status, _, err = run(ESP, "--port", board.port)
    assert status == 2 and f"no ESP32 answers at {board.port}: hold its BOOT button" in err


def test_a_port_that_is_not_there_or_in_use_is_told(run, tmp_path):
    status, _, err = run(ESP, "--port", "/dev/ttyNOWHERE")
    assert status == 2 and "is not there: is the board plugged in" in err
    with Esp32() as board, flash.serial.Serial(board.port, exclusive=True):
        status, _, err = run(ESP, "--port", board.port)
    assert status == 2 and "is in use by another program" in err


def test_an_esp32_that_is_unplugged_at_any_exchange_is_told_and_written_by_the_next_try(run, monkeypatch):
    with Esp32() as board:
        run(ESP, "--port", board.port)
        total = board.exchanges
    assert total > 50
    seen = set()
    for count in range(0, total, 3):
        with Esp32(unplug=count) as board:
            status, out, err = run(ESP, "--port", board.port)
            assert status == 2 and "is gone: it was unplugged" in err and "run the command again" in err
            assert "compared" not in out and "answers" not in out
            nothing = "nothing was written" in err
            assert nothing != ("is not whole" in err)
            assert not (nothing and board.begun), "what was erased is not whole"
            seen.add(nothing)
        if count % 12 == 0:  # with what is in its flash by then
            monkeypatch.setattr(flash, "CALL", 0.1)
            with Esp32() as again:
                again.flash[:] = board.flash
                run(ESP, "--port", again.port)
                assert again.flash[0x1000 : 0x1000 + len(ESP)] == ESP
    assert seen == {True, False}


def test_a_chip_that_is_locked_is_left_as_it_is(run):
    with Esp32() as board:
        board.registers[0x3FF5A018] = 1 << 4  # EFUSE_RD_ABS_DONE_0: secure boot
        status, _, err = run(ESP, "--port", board.port, "--erase")
        assert status == 2 and board.erased == board.begun == 0
    assert "Active security features detected" in err and "nothing was written" in err


def test_ctrl_c_is_told_with_what_to_do(run, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(flash, "flash_esp", interrupt)
    status, out, _ = run(ESP, "--port", "/dev/ttyNOWHERE")
    assert status == 130 and "the board is put right by running the command again" in out


def test_a_prompt_is_waited_for_before_a_board_is_called(monkeypatch):
    monkeypatch.setattr(flash, "BOOTS", PATIENCE)
    pieces = [b"rst:0x1\r\n", b"", b"MicroPython v1.26.1\r\n>", b">> ", None]
    line = SimpleNamespace(read=lambda n: pieces.pop(0))
    flash._prompt(line)
    assert pieces == [None] and line.baudrate == 115200


def test_a_board_on_its_own_usb_is_followed_to_its_boot_loader(bus, monkeypatch):
    img = image.check(esp_image(9, 0), "x")
    bus.ports = [port("/dev/ttyACM0", 0x303A, 0x4001), port("/dev/ttyACM1", 0x303A, 0x4001, "0002", "1-2")]
    asked = []

    def start(code):
        asked.append(code)
        bus.ports[0] = port("/dev/ttyACM7", 0x303A, 0x0009, "0", "1-1:1.0")

    monkeypatch.setattr(flash.device, "connect", lambda *where: contextlib.nullcontext(SimpleNamespace(start=start)))
    found = flash._own_usb(img, flash.choose("/dev/ttyACM0"), print)
    assert found.where == "/dev/ttyACM7" and asked == ["import machine\nmachine.bootloader()"]
    monkeypatch.setattr(flash, "DRIVE", 0)
    with pytest.raises(UserError, match="hold its BOOT button, press RESET"):
        flash._own_usb(img, flash.choose("/dev/ttyACM1"), print)


# ---- Pico


@pytest.fixture
def pico(tmp_path, bus, monkeypatch):
    """Makes a Pico: a virtual board at tmp_path/"port", with a drive while it is in its boot loader."""
    monkeypatch.setattr(flash, "ANSWER", PATIENCE)
    made = []

    def make(**named):
        board = virtual.VirtualBoard(tmp_path / "state", link=tmp_path / "port")
        drive = Pico(tmp_path / "drive", board, **named)
        board.loader = drive.loader
        bus.volumes.append((str(drive.where), ""))
        made[:] = [drive, board]
        return drive

    yield make
    for it in made:
        it.close()


def uf2(text, chip="RP2040", **named):
    family = {"RP2040": 0xE48BFF56, "RP2350": 0xE48BFF59}[chip]
    return uf2_image(family, text(f"Raspberry Pi Pico W with {chip}"), **named)


RP2 = """class Flash:
    data = bytearray(b'old!' * 16384)
    def ioctl(self, op, arg):
        if op == 6:
            self.data[arg * 4096:arg * 4096 + 4096] = bytes(4096)
        return {4: 16, 5: 4096}.get(op, 0)
    def readblocks(self, n, buf, offset=0):
        buf[:] = self.data[n * 4096 + offset:n * 4096 + offset + len(buf)]
    def writeblocks(self, n, buf, offset=0):
        self.data[n * 4096 + offset:n * 4096 + offset + len(buf)] = buf
"""


def test_a_pico_that_runs_micropython_is_written(run, pico, text):
    drive = pico()
    switch_on(drive.board, b">>> ")
    data = uf2(text)
    status, out, err = run(data, "--port", drive.board.link)
    assert status == 0, out + err
    assert drive.flash == data
    assert f"edgepost: writing RP2040 at {drive.where}" in out and "answers at" in out.splitlines()[-2]


def test_a_pico_in_its_boot_loader_is_found_and_written(run, pico, text, monkeypatch):
    drive = pico()
    drive.loader()
    data = uf2(text, blocks=300)
    runs = [port(str(drive.board.link), 0x2E8A, 5, "e660", "1-3")]  # its port, when MicroPython runs
    monkeypatch.setattr(flash.serial.tools.list_ports, "comports", lambda: runs if drive.flash else [])
    status, out, err = run(data)
    assert status == 0, out + err
    assert drive.flash == data
    assert "\nwriting   0 %\nwriting  25 %\nwriting  75 %\nwriting 100 %\n" in out


def test_the_files_of_a_pico_are_erased_when_asked_for(run, pico, text):
    drive = pico()
    switch_on(drive.board, b">>> ")
    with device.connect(drive.board.link, PATIENCE) as board:
        board.write("/rp2.py", RP2.encode())
        board.exec("import rp2")
        flash.wipe(board, print)
        assert board.listdir() == []
        assert not board.eval("b'old!' in rp2.Flash.data")
    switch_on(drive.board, b">>> ")  # which has its own flash again
    status, out, err = run(uf2(text), "--port", drive.board.link, "--erase")
    assert status == 0, out + err
    assert "erasing the files on the board" in out and drive.flash


def test_a_pico_of_the_other_chip_is_not_written(run, pico, text):
    drive = pico()
    switch_on(drive.board, b">>> ")
    status, _, err = run(uf2(text, "RP2350"), "--port", drive.board.link)
    assert status == 2 and "is for RP2350, and at" in err and "is RP2040: nothing was written. Take RPI_PICO_W" in err
    drive.loader()
    status, _, err = run(uf2(text, "RP2350"), "--drive", drive.where)
    assert status == 2 and "is RP2040: nothing was written" in err and not drive.flash


def test_an_esp32_is_not_taken_for_a_pico(run, esp32, text):
    status, _, err = run(uf2(text), "--port", esp32.port)
    assert status == 2 and "is for RP2040, and at" in err and "with ESP32 (virtual): nothing was written" in err


def test_a_drive_that_is_no_boot_loader_is_told(run, tmp_path, text):
    status, _, err = run(uf2(text), "--drive", tmp_path)
    assert status == 2 and "is not the drive of a boot loader (it has no INFO_UF2.TXT): hold BOOTSEL" in err
    (tmp_path / "INFO_UF2.TXT").write_text("UF2 Bootloader v3\nModel: Feather M4\nBoard-ID: SAMD51J19A-Feather-v0\n")
    status, _, err = run(uf2(text), "--drive", tmp_path)
    assert status == 2 and "is the boot loader of Feather M4, which is no Pico W or Pico 2 W" in err


def test_a_drive_that_does_not_appear_or_is_one_of_two_is_told(run, pico, text, bus, tmp_path, monkeypatch):
    drive = pico()
    switch_on(drive.board, b">>> ")
    bus.volumes.clear()
    monkeypatch.setattr(flash, "DRIVE", 0)
    status, _, err = run(uf2(text), "--port", drive.board.link)
    assert status == 2 and "its drive did not appear within 0 s" in err and "name it: --drive DIR" in err
    switch_on(drive.board, b">>> ")

    other = Pico(tmp_path / "drive2", None)

    def two():
        drive.loader()
        other.loader()
        bus.volumes = [(str(drive.where), ""), (str(other.where), "")]

    drive.board.loader = two
    monkeypatch.setattr(flash, "DRIVE", PATIENCE)
    monkeypatch.setattr(flash, "_LOOK", 0.5)
    status, _, err = run(uf2(text), "--port", drive.board.link)
    assert status == 2 and ("more than one drive appeared" in err)
    assert not drive.flash


def test_a_boot_loader_that_was_there_before_is_another_boards(run, pico, text, bus, tmp_path, monkeypatch):
    drive = pico()
    switch_on(drive.board, b">>> ")
    other = Pico(tmp_path / "other", None)
    other.loader()
    bus.volumes.insert(0, (str(other.where), ""))
    status, out, err = run(uf2(text), "--port", drive.board.link)
    other.close()
    assert status == 0, out + err
    assert drive.flash and not other.flash


def test_a_pico_that_is_unplugged_while_it_is_written_is_told_and_written_again(run, pico, text, monkeypatch):
    drive = pico()
    drive.loader()
    data = uf2(text, blocks=400)
    pieces = -(-len(data) // 65536)
    left = [0]

    def fsync(fd):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    for left[0] in range(pieces - 1):
        status, out, err = run(data, "--drive", drive.where)
        assert status == 2 and "went away or is full" in err and "Run the command again" in err, out
        assert "answers" not in out and "100 %" not in out and not drive.flash
    left[0] = 100
    monkeypatch.setattr(flash, "follow", lambda *_: flash.Found(str(drive.board.link), "rp2", ""))
    status, out, err = run(data, "--drive", drive.where)
    assert status == 0, out + err
    assert drive.flash == data


def test_a_drive_that_goes_with_its_last_block_is_no_error(tmp_path, monkeypatch):
    def fsync(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    flash.copy(image.check(uf2_image(), "x"), tmp_path)


def test_an_image_without_wi_fi_is_noted(run, text, tmp_path):
    data = uf2_image(text=text("Raspberry Pi Pico with RP2040"))
    status, out, err = run(data, "--drive", tmp_path)
    assert status == 2 and "that is for a Pico without Wi-Fi" in out


# ---- which board


TWO = [port("/dev/ttyUSB1", location="1-2"), port("/dev/ttyUSB0", number="0002")]


def test_of_two_boards_none_is_guessed(run, bus):
    bus.ports = TWO
    status, _, err = run(ESP)
    assert status == 2 and "there is more than one board: /dev/ttyUSB0 (bridge CP210x" in err
    assert "/dev/ttyUSB1" in err and "--port PORT" in err


def test_a_board_and_a_drive_are_two_boards(bus, tmp_path, run):
    drive = Pico(tmp_path / "drive", None)
    drive.loader()
    drive.close()
    bus.volumes, bus.ports = [(str(drive.where), "")], [port("/dev/ttyUSB0")]
    status, _, err = run(ESP)
    assert status == 2 and "more than one board" in err and str(drive.where) in err


def test_at_a_terminal_the_person_chooses(bus, monkeypatch, capsys):
    bus.ports = TWO
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\n"))
    assert flash.choose(ask=flash._ask).where == "/dev/ttyUSB1"
    assert "1  /dev/ttyUSB0  bridge CP210x" in capsys.readouterr().err
    for said in ("", "\n", "0\n", "3\n", "x\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        with pytest.raises(UserError, match="no board was chosen, and nothing was written"):
            flash.choose(ask=flash._ask)


def test_no_board_is_told(run):
    status, _, err = run(ESP)
    assert status == 2 and "no board was found: plug it in" in err and "hold BOOTSEL" in err


def test_an_image_for_the_other_kind_of_board_is_told_before_it_is_touched(run, bus):
    bus.ports = [port("/dev/ttyACM0", 0x2E8A, 5)]
    status, _, err = run(ESP)
    assert status == 2 and "is for ESP32, and at /dev/ttyACM0 is Raspberry Pi Pico with MicroPython: nothing" in err
    bus.ports = [port("/dev/ttyUSB0")]
    status, _, err = run(uf2_image())
    assert status == 2 and "is for RP2040, and at /dev/ttyUSB0 is bridge CP210x" in err


def test_a_board_is_followed_by_its_socket_and_else_by_its_number(bus):
    was = flash._as_found(port("/dev/ttyACM0", 0x2E8A, 5, "e660", "1-2.1:1.0"))
    bus.ports = [port("/dev/ttyACM1", 0x2E8A, 5, "e660", "1-3"), port("/dev/ttyACM2", 0x2E8A, 5, "f771", "1-2.1:1.0")]
    assert flash.follow(was, set(), 0).where == "/dev/ttyACM2"
    nowhere = was._replace(location="")
    assert flash.follow(nowhere, set(), 0).where == "/dev/ttyACM1"
    unknown = nowhere._replace(number="")
    assert flash.follow(unknown, {"/dev/ttyACM1"}, 0).where == "/dev/ttyACM2"
    assert flash.follow(unknown, set(), 0) is None, "two are new"
    assert flash.follow(was, set(), 0, ("esp",)) is None
    bus.ports.pop()
    assert flash.follow(was, set(), 0) is None, "another one with its number is in another socket"


def test_what_is_plugged_in_is_listed(run, bus, tmp_path):
    drive = Pico(tmp_path / "drive", None, "RP2350", "Raspberry Pi RP2350")
    drive.loader()
    drive.close()
    bus.volumes = [(str(drive.where), ""), (str(tmp_path), "")]
    bus.ports = [port("/dev/ttyACM0", 0x2E8A, 5, "e660", "1-4.2:1.0"), port("/dev/ttyS9", 0x1234, 5, None, None)]
    status, out, _ = run(None, "--list")
    assert status == 0 and out.splitlines() == [
        "/dev/ttyACM0", "    Raspberry Pi Pico with MicroPython", "    2e8a:0005, number e660, socket 1-4.2",
        str(drive.where), "    Raspberry Pi RP2350 in its boot loader",
        "/dev/ttyS9", "    no known board: x", "    1234:0005",
    ]  # fmt: skip
    bus.volumes, bus.ports = [], []
    status, out, err = run(None, "--list")
    assert status == 1 and "no board was found" in out


def test_without_an_image_it_is_told_where_they_are(run, bus):
    bus.ports = [port("/dev/ttyUSB0")]
    status, _, err = run(None, "--board", "esp32")
    assert status == 2 and "micropython.org/download/ESP32_GENERIC/" in err and "Found: /dev/ttyUSB0" in err
    status, _, err = run(None, "--release", "20250911-v1.26.1")
    assert status == 2 and "--release needs --board" in err


def test_the_command_line_knows_the_boards_and_the_site():
    args = cli.parser().parse_args(["flash"])
    assert args.site == image.SITE and args.baud == flash.BAUD
    for board in image.BOARDS:
        assert cli.parser().parse_args(["flash", "--board", board]).board == board


def test_mounted_volumes_are_found():
    if not sys.platform.startswith("linux"):
        pytest.skip("the list of mounts is that of Linux")
    found = VOLUMES()
    assert all(where.startswith("/") and source.startswith("/dev/") for where, source in found)


VOLUMES = flash.volumes


# ---- how far it is


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_a_bar_fits_its_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with progress.Bar("writing", 200, out) as bar:
        for done in range(201):
            bar(done)
    drawn = out.getvalue().split("\r")[1:]
    assert len(drawn) == 101 and max(map(len, drawn)) <= columns and drawn[-1].startswith("writing 100 %")
    assert drawn[-1].endswith("\n") and ("#" in drawn[-1]) == (columns > 20)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_what_deploy_draws_fits_its_terminal_and_is_taken_away(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    bar = deploy.Progress(209194)
    for _ in range(100):
        bar.add(2092)
    bar.end()
    drawn = out.getvalue().split("\r")[1:]
    assert max(map(len, drawn)) < columns and drawn[0].startswith("  2 of 204 KB") and drawn[-1] == ""
    assert not drawn[-2].strip() and len(drawn[-2]) >= len(drawn[-3])


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_pipe_and_a_dumb_terminal_get_a_line_a_quarter(out, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = out()
    with progress.Bar("writing", 1000, out) as bar:
        for done in range(1000):
            bar(done)
    assert out.getvalue() == "writing   0 %\nwriting  25 %\nwriting  50 %\nwriting  75 %\nwriting 100 %\n"


def test_a_bar_of_what_broke_off_does_not_say_that_it_is_done(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with pytest.raises(KeyError), progress.Bar("writing", 4, out) as bar:
        bar(2)
        raise KeyError
    assert "100" not in out.getvalue() and out.getvalue().endswith("\n")
