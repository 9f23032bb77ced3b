"""`edgepost flash`: writes MicroPython itself to a board, and nothing of ours.

A board of the ESP32 family is written over its serial line by esptool, as a library; a Pico W by copying a UF2 file to
the drive that its boot loader is. The image is checked whole before anything else, the chip on the line has to be the
one it is for before anything is erased, and nothing is done until MicroPython has answered. A board is known by where
it is plugged in and by its serial number, for its port has another name after a reset; of two boards none is guessed.
"""

import contextlib
import os
import re
import string
import sys
import time
from collections import namedtuple
from pathlib import Path

import serial
import serial.tools.list_ports

from . import device, image
from .errors import UserError
from .progress import Bar

BAUD = 460800  # once the loader runs; what all common bridges do
DRIVE = 20  # seconds until a drive is there: a desktop mounts it, after a while
ANSWER = 40  # seconds until MicroPython answers: at its first start it makes its file system
BOOTS = 4  # seconds in which a board at a bridge says its prompt, before it is called
CALL = 5  # seconds that it is called
_LOOK = 0.1  # seconds between two looks

# USB vendor and product: (how it is flashed, what it is)
KNOWN = {
    (0x2E8A, 0x0005): ("rp2", "Raspberry Pi Pico with MicroPython"),
    (0x2E8A, 0x000A): ("rp2", "Raspberry Pi Pico with another program"),
    (0x303A, 0x4001): ("usb", "ESP32-S2 or S3 with MicroPython, own USB"),
    (0x303A, 0x1001): ("esp", "ESP32 with its own USB"),
    (0x303A, 0x0002): ("esp", "ESP32-S2 in its boot loader"),
    (0x303A, 0x0009): ("esp", "ESP32-S3 in its boot loader"),
    (0x10C4, 0xEA60): ("esp", "bridge CP210x, as on ESP32 boards"),
    (0x10C4, 0xEA71): ("esp", "bridge CP2108, as on ESP32 boards"),
    (0x1A86, 0x7523): ("esp", "bridge CH340, as on ESP32 boards"),
    (0x1A86, 0x55D3): ("esp", "bridge CH343, as on ESP32 boards"),
    (0x1A86, 0x55D4): ("esp", "bridge CH9102, as on ESP32 boards"),
    (0x0403, 0x6001): ("esp", "bridge FTDI FT232R, as on ESP32 boards"),
    (0x0403, 0x6010): ("esp", "bridge FTDI FT2232, as on ESP32 boards"),
    (0x0403, 0x6014): ("esp", "bridge FTDI FT232H, as on ESP32 boards"),
    (0x0403, 0x6015): ("esp", "bridge FTDI FT-X, as on ESP32 boards"),
}
_ROMS = {"RPI-RP2": "RP2040", "RP2350": "RP2350"}  # Board-ID in INFO_UF2.TXT

# where is the port, or the drive; how: "rp2", "drive", "usb", "esp" or None; number: the USB serial number
Found = namedtuple("Found", "where how what usb number location chip", defaults=("", "", "", ""))


# ---- what is plugged in


def _location(text):
    """"1-4.2" of "1-4.2:1.0": the socket, without the interface."""
    return (text or "").partition(":")[0]


def _as_found(port):
    how, what = KNOWN.get((port.vid, port.pid), (None, port.product or port.description or "unknown"))
    usb = f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None else ""
    return Found(port.device, how, what, usb, port.serial_number or "", _location(port.location))


def ports():
    """All serial ports of USB devices, as Found."""
    return [_as_found(p) for p in sorted(serial.tools.list_ports.comports()) if p.vid is not None]


def volumes():
    """The directories where file systems are mounted, each with its device."""
    if sys.platform == "win32":
        return [(f"{letter}:\\", "") for letter in string.ascii_uppercase if os.path.exists(f"{letter}:\\")]
    if sys.platform == "darwin":
        return [(str(path), "") for path in Path("/Volumes").glob("*")]
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return []
    found = [line.split()[:2] for line in lines if line.startswith("/dev/")]
    return [(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), where), source) for source, where in found]


def _socket_of(source):
    """Where the USB device behind a block device is plugged in, on Linux, or ""."""
    try:
        parts = Path("/sys/class/block", os.path.basename(source)).resolve().parts
    except OSError:
        return ""
    return _location(next((part for part in parts if re.fullmatch(r"\d+-[\d.]+:[\d.]+", part)), ""))


def rom_of(where):
    """(Board-ID, model) that a boot loader's drive says of itself, or None when it is none."""
    try:
        text = Path(where, "INFO_UF2.TXT").read_text("utf-8", "replace")[:2000]
    except OSError:
        return None
    fields = dict(re.findall(r"^([\w-]+): *(.*?)\s*$", text, re.M))
    return fields.get("Board-ID", ""), fields.get("Model", "")


def drives():
    """The drives that are boot loaders of RP2040 or RP2350, as Found."""
    found = []
    for where, source in volumes():
        name, model = rom_of(where) or ("", "")
        if name in _ROMS:
            what = f"{model or name} in its boot loader"
            found.append(Found(where, "drive", what, "", "", _socket_of(source) if source else "", _ROMS[name]))
    return found


def same(one, other):
    """Whether both are the same board: in the same socket, or where that is not known, with the same number."""
    if one.location and other.location:
        return one.location == other.location
    return bool(one.number) and one.number == other.number


def listing(say=print):
    """`edgepost flash --list`: tells what is there; gives the exit status."""
    known = [f for f in ports() if f.how] + drives()
    others = [f for f in ports() if not f.how]
    for f in known + others:
        about = [f.usb, f.number and f"number {f.number}", f.location and f"socket {f.location}"]
        about = ", ".join(filter(None, about))
        say(f"{f.where}\n    {f.what if f.how else f'no known board: {f.what}'}" + (f"\n    {about}" if about else ""))
    if not known:
        say(f"edgepost: {_NONE}")
    return 0 if known else 1


_NONE = (
    "no board was found: plug it in with a cable that carries data; for a Pico W hold BOOTSEL while you do. A port that"
    " is not known as a board's is named with --port"
)


def choose(port=None, drive=None, ask=None):
    """The board to write. Never guesses between two: `ask(list)` gives one of them, or without it UserError."""
    if drive:
        rom = rom_of(drive)
        if rom is None:
            raise UserError(
                f"{drive} is not the drive of a boot loader (it has no INFO_UF2.TXT): hold BOOTSEL while you plug the"
                " board in, and name the drive that appears"
            )
        if rom[0] not in _ROMS:
            raise UserError(f"{drive} is the boot loader of {rom[1] or rom[0]}, which is no Pico W or Pico 2 W")
        there = [d for d in drives() if os.path.realpath(d.where) == os.path.realpath(drive)]
        return there[0] if there else Found(drive, "drive", rom[1], chip=_ROMS[rom[0]])
    if port:
        real = os.path.realpath(port)
        there = [p for p in ports() if port == p.where or real == os.path.realpath(p.where)]
        return there[0] if there else Found(port, None, "")
    known = [f for f in ports() if f.how] + drives()
    if not known:
        raise UserError(_NONE)
    if len(known) == 1:
        return known[0]
    if ask:
        return ask(known)
    names = ", ".join(f"{f.where} ({f.what})" for f in known)
    raise UserError(f"there is more than one board: {names}. Name the right one: --port PORT, or --drive DIR")


def _ask(known):
    """Lets the person choose."""
    for number, f in enumerate(known, 1):
        print(f"{number}  {f.where}  {f.what}", file=sys.stderr)
    print(f"Which board is to be written (1 to {len(known)})? ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline().strip()
    if not said.isdigit() or not 1 <= int(said) <= len(known):
        raise UserError("no board was chosen, and nothing was written")
    return known[int(said) - 1]


def _until(look, seconds):
    """What look() gives as soon as that is something, or None after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found or time.monotonic() > end:
            return found
        time.sleep(_LOOK)


def follow(was, before, seconds, hows=("rp2", "usb", "esp")):
    """The port where this board is now, as Found, or None.

    `before` are the ports that were there before: where neither socket nor number is known, it is the one new port, and
    no port when there are two.
    """
    def look():
        now = ports()
        if was.location or was.number:
            return [p for p in now if same(p, was) and p.how in hows]
        return [p for p in now if p.how in hows and p.where not in before]

    found = _until(look, seconds)
    return found[0] if found and len(found) == 1 else None


# ---- MicroPython on it


def answer(find, seconds, say):
    """Waits till MicroPython answers at the port that find() gives; gives (port, its Info), or None."""
    end = time.monotonic() + seconds
    say("edgepost: waiting for MicroPython")
    while True:
        port = find()
        if port:
            try:
                with device.connect(port, timeout=CALL) as board:
                    return port, board.info()
            except device.BoardError:
                pass
        if time.monotonic() > end:
            return None
        time.sleep(_LOOK)


def _done(img, find, say, erase=False):
    """After writing: MicroPython has to answer, and to be the one of the image. Gives the exit status."""
    found = answer(find, ANSWER, say)
    if not found:
        say(
            "edgepost: the image is written, but MicroPython does not answer: press the board's reset button, or"
            " unplug it and plug it in again, and look whether `edgepost flash --list` shows it. If not, run the"
            " command again"
        )
        return 1
    port, info = found
    version = ".".join(str(n) for n in info.version)
    if img.version and image.numbers(img.version) != tuple(info.version):
        say(
            f"edgepost: MicroPython {version} answers at {port}, not {img.version} of the image: that may be another"
            " board, or the old one still. Run the command again"
        )
        return 1
    if erase:
        with device.connect(port) as board:
            wipe(board, say)
    say(f"edgepost: MicroPython {version} answers at {port}: {info.machine or info.platform}")
    say("edgepost: next, its configuration: edgepost provision")
    return 0


_WIPE = """try:
 import vfs
except ImportError:
 import os as vfs
import rp2
f=rp2.Flash()
vfs.umount('/')
for i in range(f.ioctl(4,0)):
 f.ioctl(6,i)
vfs.VfsLfs2.mkfs(f,progsize=256)
vfs.mount(vfs.VfsLfs2(f,progsize=256),'/')"""


def wipe(board, say):
    """Erases the files of a Pico: all of its flash that MicroPython itself does not take."""
    say("edgepost: erasing the files on the board")
    board.exec(_WIPE, timeout=120)


def _enter(board, say):
    """Sends a board from MicroPython into its boot loader. It may be gone before it has said that it understood."""
    say("edgepost: entering the boot loader")
    with contextlib.suppress(device.Gone, device.TimedOut):
        board.start("import machine\nmachine.bootloader()")


# ---- RP2040, RP2350


def _wrong_chip(img, chip, where):
    name = "RPI_PICO2_W" if chip == "RP2350" else "RPI_PICO_W" if chip == "RP2040" else "the image of that board"
    return UserError(
        f"{img.name} is for {' and '.join(img.chips)}, and at {where} is {chip}: nothing was written. Take {name} of"
        " micropython.org/download"
    )


def to_boot_loader(img, found, erase, say):
    """Brings a Pico that runs MicroPython into its boot loader; gives its drive. Raises UserError."""
    by_hand = "hold its BOOTSEL button while you plug it in, and run the command again"
    try:
        board = device.connect(found.where, CALL)
    except device.BoardError as e:
        raise UserError(f"{e}. If MicroPython does not run on it: {by_hand}") from None
    with board:
        info = board.info()
        if info.platform != "rp2":
            raise UserError(
                f"{img.name} is for {' and '.join(img.chips)}, and at {found.where} is {info.machine}: nothing was"
                " written. Take a .bin for an ESP32"
            )
        chip = re.search(r"RP2\d{3}", info.machine)
        if chip and chip[0] not in img.chips:
            raise _wrong_chip(img, chip[0], found.where)
        before = {d.where for d in drives()}
        if erase:
            wipe(board, say)
        _enter(board, say)

    def look():
        now = [d for d in drives() if d.where not in before]
        if found.location:
            now = [d for d in now if d.location in ("", found.location)]
        return now

    new = _until(look, DRIVE)
    if not new:
        label = Path("/dev/disk/by-label/RPI-RP2" if "RP2040" in img.chips else "/dev/disk/by-label/RP2350")
        mount = f"mount it (udisksctl mount -b {label}), and" if label.exists() else "when it is mounted,"
        raise UserError(
            f"the board is in its boot loader, but its drive did not appear within {DRIVE} s: {mount} name it: --drive"
            " DIR. To leave the boot loader, unplug the board; nothing was written"
        )
    if len(new) > 1:
        raise UserError(
            f"more than one drive appeared ({', '.join(d.where for d in new)}): nothing was written. Name the right"
            " one: --drive DIR"
        )
    return new[0]


def copy(img, where):
    """Copies a UF2 image to a drive. Its blocks go to flash as they arrive, and after the last one the drive is"
    " gone."""
    done = 0
    try:
        with open(Path(where, "edgepost.uf2"), "wb", buffering=0) as file, Bar("writing", len(img.data)) as bar:
            try:
                while done < len(img.data):
                    done += file.write(img.data[done : done + 65536])
                    os.fsync(file.fileno())
                    bar(done)
            except OSError:
                if done < len(img.data):
                    raise
    except OSError as e:
        if done == len(img.data):  # it restarts before its drive was closed
            return
        raise UserError(
            f"the drive {where} went away or is full after {done} of {len(img.data)} octets ({e.strerror}): the board"
            " is in its boot loader, or will be when you hold BOOTSEL while you plug it in. Run the command again"
        ) from None


def flash_pico(img, found, erase, say):
    """Writes a Pico; gives the exit status."""
    before = {p.where for p in ports()}
    drive, later = found, False
    if found.how != "drive":
        before.discard(found.where)
        drive = to_boot_loader(img, found, erase, say)
        if not (found.usb or found.number):  # a port that is no USB device's keeps its name
            def find():
                return found.where
        else:
            def find():
                now = follow(found, before, 0)
                return now and now.where
    else:
        later = erase

        def find():
            now = follow(found, before, 0, ("rp2",))
            return now and now.where
    if drive.chip not in img.chips:
        raise _wrong_chip(img, drive.chip, drive.where)
    say(f"edgepost: writing {drive.chip} at {drive.where}")
    copy(img, drive.where)
    return _done(img, find, say, later)


# ---- ESP32 family


@contextlib.contextmanager
def _esptool(bar):
    """esptool's log goes nowhere meanwhile, but its progress to `bar`; gives the list of its warnings."""
    from esp_pylib.logger import EspLog, EspLogBase
    from esptool.reset import ResetStrategy

    warnings = []

    class Log(EspLogBase):
        def print(self, *args, **kwargs):
            pass

        note = hint = debug = set_verbosity = print

        def warn(self, *args, suggestion=None):
            warnings.append(" ".join(map(str, args)))

        err = warning = error = warn

        def progress_bar(self, cur_iter, total_iters, prefix="", suffix="", bar_length=30):
            bar(cur_iter, total_iters)

    before, EspLog.instance = EspLog.instance, Log()
    ResetStrategy.print_once = warnings.append  # it has kept the log that was there when it was imported
    try:
        yield warnings
    finally:
        EspLog.instance = before


def _own_usb(img, found, say):
    """Brings an ESP32-S2 or S3 that runs MicroPython on its own USB into its boot loader; gives where it is then."""
    before = {p.where for p in ports()} - {found.where}
    with device.connect(found.where, CALL) as board:
        _enter(board, say)
    now = follow(found, before, DRIVE, ("esp",))
    if not now:
        raise UserError(
            "the board did not come back as a boot loader: hold its BOOT button, press RESET, let both go, and run the"
            " command again; nothing was written"
        )
    return now


def flash_esp(img, found, erase, baud, say):
    """Writes a board of the ESP32 family; gives the exit status."""
    import esptool.cmds
    from esptool.util import FatalError, flash_size_bytes

    before = {p.where for p in ports()} - {found.where}
    was = found
    if found.how == "usb":
        found = _own_usb(img, found, say)
    bar = None
    state = "nothing was written"

    def progress(done, total):
        nonlocal bar
        if bar is None:
            bar = Bar("writing", total)
        bar(done)

    try:
        line = serial.serial_for_url(found.where, exclusive=True)
    except (OSError, ValueError):
        raise device._why(found.where) from None
    try:
        with _esptool(progress) as warnings:
            try:
                loader = esptool.cmds.detect_chip(line, connect_attempts=3)
            except FatalError:
                raise UserError(
                    f"no ESP32 answers at {found.where}: hold its BOOT button, press EN (or RESET), let both go, and"
                    " run the command again. Is it the right port, and does nothing else sit on the board's pins 0, 1"
                    " and 3?"
                ) from None
            chip = loader.CHIP_NAME
            if chip not in img.chips:
                raise _wrong_chip(img, chip, found.where)
            loader = esptool.cmds.run_stub(loader)
            if baud > 115200:
                loader.change_baud(baud)
            esptool.cmds.attach_flash(loader)
            size = esptool.cmds.detect_flash_size(loader)
            if size is None:
                raise UserError(f"the {chip} at {found.where} finds no flash chip it knows: {' '.join(warnings)}")
            if flash_size_bytes(size) < img.needs:
                raise UserError(
                    f"{img.name} needs {img.needs >> 20} MB of flash, and the {chip} at {found.where} has {size}:"
                    " nothing was written. Take an image for smaller flash"
                )
            say(f"edgepost: {chip} at {found.where}, {size} of flash")
            command = loader.command

            def watched(op=None, *more, **named):
                nonlocal state
                if op in changes:
                    state = "what is on it is not whole"
                return command(op, *more, **named)

            changes = [loader.ESP_CMDS[name] for name in ("FLASH_BEGIN", "FLASH_DEFL_BEGIN", "ERASE_FLASH")]
            loader.command = watched
            # Else esptool opens the port again by its name, which may be another board's by then.
            loader.WRITE_FLASH_ATTEMPTS = 1
            if erase:
                say("edgepost: erasing all of its flash, which may take a minute")
                esptool.cmds.erase_flash(loader)
            esptool.cmds.write_flash(loader, [(img.offset, img.data)])  # and compares by MD5
            state = "it is written, and was not started"
            loader.hard_reset()
            if not loader.uses_usb_otg() and not loader.uses_usb_jtag_serial():
                _prompt(line)
    except FatalError as e:
        first = str(e).partition("\n")[0]
        raise UserError(
            f"the board at {found.where} stopped answering as it should ({first}): {state}. Press its reset button, try"
            " another cable or --baud 115200, and run the command again"
        ) from None
    except UserError:
        raise
    except Exception as e:
        # pyserial raises OSError, TypeError and termios.error, which is none of them, when a port goes away.
        if not isinstance(e, (OSError, TypeError, AttributeError)) and type(e).__module__ != "termios":
            raise
        raise UserError(
            f"the board at {found.where} is gone: it was unplugged, or the cable is bad. Of the image, {state}. Plug"
            " it in, and run the command again"
        ) from None
    finally:
        if bar:
            bar.__exit__(Exception if state == "what is on it is not whole" else None)
        with contextlib.suppress(Exception):
            line.close()
    say("edgepost: written, and compared with the image")

    def find():
        if not (was.location or was.number):
            return found.where
        now = follow(was, before, 0)
        return now and now.where

    return _done(img, find, say)


def _prompt(line):
    """Waits a while for the prompt: what calls a board at its first start disturbs it while it makes its files."""
    line.baudrate, line.timeout = device.BAUD, _LOOK
    end, said = time.monotonic() + BOOTS, b""
    while b">>> " not in said and time.monotonic() < end:
        said = (said + line.read(256))[-600:]


# ---- the command


def run(args, say=None):
    """`edgepost flash`: gives the exit status."""
    say = say or (lambda text: print(text, flush=True))
    if args.list:
        return listing(say)
    source = args.image
    if args.release:
        if not args.board:
            raise UserError("--release needs --board, to know whose image that is: --board esp32")
        source = image.address(args.board, args.release, args.site)
    if not source:
        there = ports() + drives()
        page = "micropython.org/download"
        if args.board:
            page += f"/{image.BOARDS[args.board][0]}/"
        raise UserError(
            f"name the image: --image FILE, or --board NAME --release DATE-vVERSION --sha256 HEX; images are at {page}"
            + (f". Found: {', '.join(f'{f.where} ({f.what})' for f in there)}" if there else "")
        )
    img = image.load(source, args.sha256, args.ca, say)
    of = f" for {img.board or ' and '.join(img.chips)}"
    say(f"edgepost: {img.name}: MicroPython {img.version}{of}, {len(img.data) / 1e6:.1f} MB".replace("  ", " "))
    if img.kind == "rp2" and img.board and " W" not in img.board and img.board.startswith("Raspberry Pi Pico"):
        say("edgepost: note: that is for a Pico without Wi-Fi, and edgepost needs a network: is it not RPI_PICO_W?")
    asks = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
    found = choose(args.port, args.drive, asks)
    rp2 = found.how in ("rp2", "drive")
    if found.how and rp2 != (img.kind == "rp2"):
        raise UserError(
            f"{img.name} is for {' and '.join(img.chips)}, and at {found.where} is {found.what}: nothing was written."
            f" Take {'the .uf2 of RPI_PICO_W or RPI_PICO2_W' if rp2 else 'the .bin for its chip'}"
        )
    try:
        if img.kind == "rp2":
            return flash_pico(img, found, args.erase, say)
        return flash_esp(img, found, args.erase, args.baud, say)
    except KeyboardInterrupt:
        say("edgepost: interrupted: if that was while it wrote, the board is put right by running the command again")
        raise
