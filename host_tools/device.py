"""A board at a serial port, or a virtual one: what all commands that talk to a board use.

    with device.connect("/dev/ttyACM0") as board:
        print(board.info().version, board.eval("6 * 7"))
        board.write("/config.json", data)

The line is mpremote's (mpremote.transport_serial), with its raw REPL and raw paste; a board that answers mpremote
answers this. Whatever goes wrong is a BoardError, a UserError whose text says what to do: Raised for an exception on
the board, TimedOut, Gone for a board that was unplugged, and BoardError itself.
"""

import ast
import binascii
import contextlib
import errno
import hashlib
import io
import os
import re
import select
import stat as modes
import time
from collections import namedtuple

import serial
import serial.tools.list_ports
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialIntercept, SerialTransport

from . import build
from .errors import UserError

try:
    from termios import error as LINE_ERROR  # which pyserial lets through
except ImportError:  # Windows has none
    LINE_ERROR = OSError

BAUD = 115200
TIMEOUT = 20  # seconds for what takes a moment; a board that collects a big heap or erases flash is slow
_PIECE = 384  # octets of a file that are in the board's memory at a time, and as text twice that
_KINDS = {"rp2": "pico_w", "esp32": "esp32"}
_INFO = """import sys,os,gc
gc.collect()
i=sys.implementation
s=os.statvfs('/')
m=getattr(i,'_machine','')
print(repr((sys.platform,m,tuple(i.version)[:3],getattr(i,'_mpy',0),gc.mem_free(),gc.mem_alloc(),s[0]*s[2],s[0]*s[3])))"""
_HASH = """import hashlib,binascii
def _h(p):
 h=hashlib.sha256()
 b=bytearray(512)
 m=memoryview(b)
 with open(p,'rb') as f:
  while 1:
   n=f.readinto(b)
   if not n:break
   h.update(m[:n])
 return binascii.hexlify(h.digest()).decode()"""

Info = namedtuple("Info", "platform machine version mpy heap_free heap flash flash_free kind")
Entry = namedtuple("Entry", "name is_dir size")


class BoardError(UserError):
    """Something is wrong with the board or the way to it."""


class Gone(BoardError):
    """The line is broken: unplugged, or the board was reset."""


class TimedOut(BoardError):
    """The board did not answer in time."""


class Raised(BoardError):
    """Code on the board raised an exception: `trace` is its traceback, `error` the last line of it."""

    def __init__(self, trace):
        self.trace = trace.replace("\r\n", "\n").strip()
        self.error = self.trace.rpartition("\n")[2]
        super().__init__(f"the board says: {self.error}")

    @property
    def errno(self):
        """The number of an OSError, or None."""
        found = re.match(r"OSError: (?:\[Errno (\d+)\]|(\d+)|(E[A-Z]+))", self.error)
        return (int(found[1] or found[2] or 0) or getattr(errno, found[3] or "", None)) if found else None


def _why(port):
    """Says why a port cannot be opened, as a BoardError."""
    try:
        serial.Serial(port, BAUD, timeout=1, exclusive=True).close()
    except (OSError, ValueError) as e:
        number = getattr(e, "errno", None)
        text = str(e).lower()
        if not os.path.exists(port) or number in (errno.ENXIO, errno.ENODEV):
            return BoardError(
                f"{port} is not there: is the board plugged in, with a cable that carries data? `mpremote connect list`"
                " shows the ports of this computer"
            )
        if number == errno.EACCES or "permission" in text:
            return BoardError(
                f"you may not use {port}: on Linux, join the group that owns it (sudo usermod -aG dialout $USER), log"
                " in again, and try again"
            )
        if number in (errno.EBUSY, errno.EAGAIN) or "exclusive" in text or "busy" in text:
            return BoardError(
                f"{port} is in use by another program; end what talks to the board (a terminal, an IDE, mpremote,"
                " edgepost monitor), and try again"
            )
        return BoardError(f"{port} is not a serial port of a board; `mpremote connect list` shows those there are")
    return BoardError(f"{port} could not be opened at first, and can be now: try again")


def find():
    """The port of the one board that is plugged in. Raises BoardError when there is none, or more than one."""
    ports = sorted(p.device for p in serial.tools.list_ports.comports() if p.vid is not None)
    if not ports:
        raise BoardError(
            "no board was found: plug it in, with a cable that carries data, or name its port: --port /dev/ttyACM0"
        )
    if len(ports) > 1:
        raise BoardError(f"there is more than one board ({', '.join(ports)}): name the port of the right one: --port")
    return ports[0]


def open_line(port):
    """The serial line of a port (serial.Serial), and what runs on the board goes on. Raises BoardError."""
    try:
        return serial.serial_for_url(port, BAUD, timeout=1, write_timeout=TIMEOUT, exclusive=True)
    except (OSError, ValueError):
        raise _why(port) from None


def connect(port, timeout=TIMEOUT):
    """A Board at this port, in the raw REPL: what ran on it is interrupted, nothing is reset. Raises BoardError."""
    port = os.fspath(port)
    try:
        line = SerialTransport(port, baudrate=BAUD, timeout=timeout)
    except (TransportError, OSError, ValueError):
        raise _why(port) from None
    line.is_pty = False  # else a time-out is none
    board = Board(port, line)
    try:
        for left in (2, 1, 0):
            board.interrupt(timeout)
            try:
                name = board.eval("__import__('sys').implementation.name")
                break
            except (Gone, TimedOut, Raised):
                raise
            except BoardError:  # what came was said to a Ctrl-C from before
                if not left:
                    raise
        if "micropython" not in name:
            raise BoardError(f"what is at {port} is Python, but not MicroPython; flash the board first: edgepost flash")
    except BaseException:
        board.close()
        raise
    return board


class _Mounted(SerialIntercept):
    """A line over which the board reads files: it is served as soon as it asks, where mpremote looks each 10 ms."""

    def inWaiting(self):
        line = self.orig_serial
        while not self.buf:
            if hasattr(line, "fd") and os.name == "posix":
                select.select([line.fd], [], [], 0.01)
            if not line.inWaiting():
                break
            self._check_input(False)
        return len(self.buf)

    in_waiting = property(inWaiting)


class Board:
    """A board in its raw REPL. `port` is where it is; `line` is mpremote's transport."""

    def __init__(self, port, line):
        self.port = port
        self.line = line
        self._hashes = False
        self._info = None
        self._timeout = line.serial.timeout  # which a mount changes

    @contextlib.contextmanager
    def _talk(self, doing="talking to it"):
        """Makes BoardErrors of what the transport raises, and keeps it from printing."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except TransportError as e:
            if "timeout" in str(e) or "could not enter" in str(e):
                raise TimedOut(
                    f"the board at {self.port} did not answer while {doing}; press its reset button, or unplug it and"
                    " plug it in again, and run the command again"
                ) from None
            raise BoardError(f"the board at {self.port} gave no sense while {doing} ({e}); try again") from None
        except (OSError, TypeError, IndexError, ValueError, LINE_ERROR) as e:
            # pyserial and mpremote say so in many ways when a line breaks in the middle of something.
            if isinstance(e, ValueError) and not isinstance(e, UnicodeError):
                raise
            raise Gone(
                f"the board at {self.port} is gone, while {doing}: it was unplugged or reset. Plug it in, and run the"
                " command again"
            ) from None

    def interrupt(self, timeout=TIMEOUT):
        """Interrupts what runs, and enters the raw REPL."""
        end = time.monotonic() + timeout
        while True:
            try:
                with self._talk("it was called"):
                    self.line.enter_raw_repl(soft_reset=False, timeout_overall=min(3, timeout))
                    # One that was starting answers an earlier call as well: what it says to this one is the last.
                    while self.read(0.05):
                        pass
                    self.line.serial.write(b"\x01")
                    self.line.read_until(1, b"CTRL-B to exit\r\n", timeout_overall=3)
                mark = f"called at {time.monotonic()}"
                if mark in self.exec(f"print({mark!r})", 3).decode("utf-8", "replace") or time.monotonic() > end:
                    return
            except Gone:
                raise
            except BoardError:
                if time.monotonic() > end:
                    raise BoardError(
                        f"what is at {self.port} does not answer as MicroPython does: is it a board, and is MicroPython"
                        " on it (edgepost flash)? If it is, press its reset button and try again"
                    ) from None

    # ---- code

    def exec(self, code, timeout=TIMEOUT, out=None):
        """Runs code; gives what it printed (bytes), or hands that piece by piece to `out`.

        `timeout` are seconds without a word from it. Raises Raised, TimedOut, Gone.
        """
        with self._talk("code ran on it"):
            said, error = self.line.exec_raw(code, timeout=timeout, data_consumer=out)
        if error:
            raise Raised(error.decode("utf-8", "replace"))
        return said

    def eval(self, expression, timeout=TIMEOUT):
        """The value of an expression, which has to be one of those that Python has literals for."""
        said = self.exec(f"print(repr({expression}))", timeout).decode("utf-8", "replace").strip()
        try:
            return ast.literal_eval(said)
        except (ValueError, SyntaxError):
            raise BoardError(f"the board at {self.port} gave no sense ({said[:80]}); try again") from None

    def start(self, code):
        """Starts code and does not wait: for what never returns, such as machine.reset()."""
        with self._talk():
            self.line.exec_raw_no_follow(code)

    def soft_reset(self, timeout=TIMEOUT):
        """A soft reset into the raw REPL: boot.py is run, main.py is not. What was mounted is no more."""
        self._hashes = False
        if self.line.mounted:
            self.line.mounted = False
            self.line.serial = self.line.serial.orig_serial
            self.line.serial.timeout = self._timeout
        with self._talk("it made a soft reset"):
            self.line.enter_raw_repl(soft_reset=True, timeout_overall=timeout)

    def run_main(self):
        """A soft reset into boot.py and main.py. From then on read() gives what it says; interrupt() ends that."""
        self._hashes = False
        with self._talk("it made a soft reset"):
            self.line.exit_raw_repl()
            self.line.read_until(1, b">>> ", timeout=TIMEOUT)
            self.line.serial.write(b"\x04")
            self.line.read_until(1, b"soft reboot\r\n", timeout=TIMEOUT)

    def reset(self):
        """A reset as by its button, into boot.py and main.py. From then on read() gives what it says; the port of a
        chip with its own USB goes, and comes back."""
        self._hashes = False
        with contextlib.suppress(TimedOut, Gone):
            self.start("import machine\nmachine.reset()")

    def read(self, wait=0.1):
        """What the board says, after run_main(), reset() or start(): bytes, b"" when none came in `wait` seconds."""
        with self._talk("it ran"):
            end = time.monotonic() + wait
            while True:
                waiting = self.line.serial.in_waiting
                if waiting:
                    return self.line.serial.read(waiting)
                if time.monotonic() >= end:
                    return b""
                time.sleep(0.01)

    def info(self):
        """What board it is: an Info. `kind` is the profile of it, or None; `mpy` is sys.implementation._mpy."""
        if not self._info:
            try:
                found = ast.literal_eval(self.exec(_INFO).decode().strip())
            except (ValueError, SyntaxError):
                raise BoardError(f"the board at {self.port} does not say what it is; reset it, and try again") from None
            platform, machine, version, mpy, free, used, flash, flash_free = found
            free_flash = min(flash_free, flash)  # a full littlefs may say 4294967294 blocks
            kind = _KINDS.get(platform)
            self._info = Info(platform, machine, version, mpy, free, free + used, flash, free_flash, kind)
        return self._info

    def mpy_version(self):
        """The .mpy version that it loads, such as "6.3"."""
        return build.mpy_version(self.info().mpy)

    # ---- files

    def listdir(self, path="/"):
        """The entries of a directory, sorted by name; none when it is missing."""
        code = f"import os\nfor e in os.ilistdir({path!r}):\n print(repr((e[0],e[1],e[3] if len(e)>3 else 0)))"
        try:
            lines = self.exec(code).decode().split("\n")
        except Raised as e:
            if e.errno == errno.ENOENT:
                return []
            raise
        found = [ast.literal_eval(line.strip()) for line in lines if line.strip()]
        return sorted(Entry(name, bool(mode & 0x4000), size) for name, mode, size in found)

    def stat(self, path):
        """(is it a directory, its size), or None when it is not there."""
        try:
            mode, size = self.eval(f"(lambda s:(s[0],s[6]))(__import__('os').stat({path!r}))")
        except Raised as e:
            if e.errno == errno.ENOENT:
                return None
            raise
        return modes.S_ISDIR(mode), size

    def hash(self, path):
        """The SHA-256 of a file in hex, or None when it is not there."""
        if not self._hashes:
            self.exec(_HASH)
            self._hashes = True
        try:
            return self.eval(f"_h({path!r})", 60)
        except Raised as e:
            if e.errno == errno.ENOENT:
                return None
            raise

    def read_file(self, path, progress=None):
        """The octets of a file. `progress(octets so far)` is called. Raises Raised when it is not there."""
        out = bytearray()
        self.exec(f"import binascii\n_f=open({path!r},'rb')")
        try:
            while True:
                piece = binascii.a2b_base64(self.exec(f"print(binascii.b2a_base64(_f.read({_PIECE})))").strip()[2:-1]
                                            .replace(b"\\n", b""))  # fmt: skip
                if not piece:
                    return bytes(out)
                out += piece
                if progress:
                    progress(len(out))
        finally:
            with contextlib.suppress(BoardError):
                self.exec("_f.close()\ndel _f")

    def write(self, path, data, progress=None):
        """Writes a file, whole or not at all: into a draft beside it, which is checked and then takes its place.

        The directory has to be there. `progress(octets so far)` is called. Raises BoardError, with what was there
        before still in place.
        """
        draft = path + ".part"
        try:
            self.exec(f"import binascii\n_f=open({draft!r},'wb')\ndef _w(b):\n _f.write(binascii.a2b_base64(b))")
            try:
                for at in range(0, len(data), _PIECE):
                    piece = binascii.b2a_base64(data[at : at + _PIECE], newline=False)
                    self.exec(f"_w({piece!r})")
                    if progress:
                        progress(min(at + _PIECE, len(data)))
            finally:
                with contextlib.suppress(Gone, TimedOut):
                    self.exec("_f.close()\ndel _f")
        except Raised as e:
            with contextlib.suppress(BoardError):
                self.remove(draft)
            if e.errno in (errno.ENOSPC, errno.EFBIG):
                raise BoardError(
                    f"the board's flash is full: {path} of {len(data)} octets does not fit. Delete what is not needed"
                    " (mpremote fs ls, mpremote fs rm), and run the command again"
                ) from None
            raise BoardError(f"{path} cannot be written on the board: {e.error}") from None
        if self.hash(draft) != hashlib.sha256(data).hexdigest():
            self.remove(draft)
            raise BoardError(f"{path} did not arrive whole on the board: a bad cable? Run the command again")
        self.rename(draft, path)

    def rename(self, old, new):
        """Renames a file; another one of the new name is replaced (on littlefs in one step, FAT knows none)."""
        self.exec(f"import os\ntry:\n os.rename({old!r},{new!r})\nexcept OSError:\n os.remove({new!r})\n"
                  f" os.rename({old!r},{new!r})")  # fmt: skip

    def remove(self, path):
        """Removes a file, or a directory with all that is in it. What is not there is no error."""
        there = self.stat(path)
        if not there:
            return
        if there[0]:
            for entry in self.listdir(path):
                self.remove(f"{path.rstrip('/')}/{entry.name}")
            if path.strip("/"):
                self.exec(f"import os\nos.rmdir({path!r})")
        else:
            self.exec(f"import os\nos.remove({path!r})")

    def mkdir(self, path):
        """Makes a directory and those above it."""
        made = ""
        for part in path.strip("/").split("/"):
            made += "/" + part
            if not self.stat(made):
                self.exec(f"import os\nos.mkdir({made!r})")

    def mount(self, path):
        """Lets the board see a directory of this computer as /remote, and makes that its current directory."""
        with self._talk("a directory was mounted"):
            self.line.mount_local(os.fspath(path))
            self.line.serial = _Mounted(self.line.serial.orig_serial, self.line.cmd)

    def close(self):
        """Leaves the board in its friendly REPL, and gives the port back."""
        with contextlib.suppress(BoardError, TransportError, OSError, TypeError):
            with self._talk():
                if self.line.mounted:
                    self.line.umount_local()
                self.line.exit_raw_repl()
                self.line.serial.flush()
        self.leave()

    def leave(self):
        """Gives the port back, and leaves alone what runs on the board."""
        with contextlib.suppress(OSError, TypeError, TransportError):
            self.line.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
