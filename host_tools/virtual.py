"""A board that is a process: MicroPython with a flash image, on a pseudo-terminal that looks like a serial port.

The state directory holds `flash.img`, `world.json` (what is around the board: Wi-Fi networks, levels of pins, sensors;
see tests/sim/hardware.py) and `lock`. Pulling the plug is SIGKILL, and all that lasts is in the image.

The process has no terminal but a socket, so nothing that is typed ahead is lost. Between the socket and the
pseudo-terminal stands relay(), which does what the chip does on a board: it turns Ctrl-C into an interrupt while
a program runs, ends lines with CR LF, starts the interpreter again after a soft or hard reset, and gives it back
the raw REPL. Linux only: macOS does not tell whether a program runs.
"""

import contextlib
import ctypes
import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from pathlib import Path

from . import build, unix
from .errors import UserError

# Board: (sys.platform, sys.implementation._machine, blocks of 4096 octets for files)
BOARDS = {
    "pico_w": ("rp2", "Raspberry Pi Pico W with RP2040 (virtual)", 212),
    "esp32": ("esp32", "Generic ESP32 module with ESP32 (virtual)", 512),
}
HEAP = "280k"  # the 256k of a gateway, and what the simulated hardware takes
ON, REPL = b"\x1eon\x1e", b"\x1erepl\x1e"  # what power.py says
RAW = b"raw REPL; CTRL-B to exit\r\n>"
WORLD = '{"wifi": {"virtual": {"key": "no real network"}}, "pins": {}, "celsius": 25}\n'
CALM = 0.5  # seconds that a program may compute on before a Ctrl-C interrupts it all the same
MOST = 65536  # octets that wait for one who is slow
RESET, SLEEP, LOADER = 3, 4, 5  # exit status of machine.reset(), machine.deepsleep() and machine.bootloader()


class VirtualBoard:
    """A virtual board; power(True) switches it on.

    state    its directory, made when it is missing
    board    a key of BOARDS
    link     a path that shall be a link to its port
    log      takes lines for the person
    """

    def __init__(self, state, board="pico_w", heapsize=HEAP, link=None, log=print):
        if not sys.platform.startswith("linux"):
            raise UserError("a virtual board needs Linux (a container or a virtual machine will do)")
        if board not in BOARDS:
            raise UserError(f"{board} is no virtual board; there are: {', '.join(BOARDS)}")
        self.kind, self.heapsize, self.log = board, unix.heap_size(heapsize), log
        self.micropython = unix.find_micropython()
        files = {path.name: path.read_bytes() for path in sorted(build.simulated().glob("*.py"))}
        self.simulated = build.build(self.micropython.mpy, log, files=files)
        self.state = unix.State(state)
        self.world = self.state.path.absolute() / "world.json"
        self.image = self.state.image.absolute()
        self.asleep = self.state.path.absolute() / "sleep.json"  # what lasts in deep sleep
        self.process = self.sock = None
        self.wakes = None  # time.monotonic() when deep sleep ends
        self.link = None
        self.resets = 0  # of any kind since it was made
        self.fuse = None  # octets that come from the port until the cable is pulled; power(True) plugs it in again
        self.loader = None  # called when it enters its boot loader; its port is another then, and power(True) starts it
        self._lock = self.state.lock()
        self.master = -1
        try:
            self._prepare()
            self._open(link)
        except BaseException:
            self.close()
            raise
        self._ask, self._orders = os.pipe()
        self._done = threading.Condition()
        self._order = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _prepare(self):
        try:
            if not self.world.exists():
                self.world.write_text(WORLD)
            if not self.image.exists():
                draft = self.image.with_suffix(".new")
                draft.write_bytes(b"\xff" * 4096 * BOARDS[self.kind][2])
                draft.replace(self.image)
        except OSError as e:
            raise UserError(f"{e.filename} cannot be written: {e.strerror}; name another place: --state DIR") from None
        self.blocks = self.image.stat().st_size // 4096

    def _open(self, link):
        self.master, slave = pty.openpty()
        self.port = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)  # so that it can be seen whether somebody has the port open
        os.set_blocking(self.master, False)
        if link:
            link = Path(link).absolute()
            try:
                if link.is_symlink():
                    link.unlink()
                link.symlink_to(self.port)
            except OSError as e:
                raise UserError(f"{link} cannot be made a link to the board's port: {e.strerror}") from None
            self.link = link

    def _reopen(self):
        """Its port goes away: whoever has it open notices."""
        os.close(self.master)
        self._open(self.link)

    # ---- what others call

    def power(self, on, cause="power on"):
        """Switches it on, or off, which is a power cut. Returns when that is done."""
        with self._done:
            self._order = (on, cause)
            os.write(self._orders, b"!")
            self._done.wait_for(lambda: self._order is None)
        if not self._thread.is_alive():
            raise RuntimeError("the virtual board has failed")

    def cycle(self):
        """The power is cut, and comes back."""
        self.power(False)
        self.power(True)

    def unplug(self):
        """The cable to the computer is pulled: whoever has the port open notices. The board's power is cut, too."""
        self.close()

    def close(self):
        """Switches it off for good."""
        if self.master >= 0 and hasattr(self, "_thread"):
            with self._done:
                self._order = "end"
                os.write(self._orders, b"!")
            self._thread.join()
            os.close(self._ask)
            os.close(self._orders)
        if self.link:
            with contextlib.suppress(OSError):
                self.link.unlink()
            self.link = None
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        self.state.unlock()

    def __enter__(self):
        self.power(True)
        return self

    def __exit__(self, *error):
        self.close()

    # ---- the thread

    def _start(self, cause, raw=False):
        ours, theirs = socket.socketpair()
        prctl = ctypes.CDLL(None).prctl
        platform, machine, _ = BOARDS[self.kind]
        around = {"EDGEPOST_SIM_CAUSE": cause, "EDGEPOST_SIM_SLEEP": str(self.asleep)}
        self.process = subprocess.Popen(
            [self.micropython.path, "-X", f"heapsize={self.heapsize}", Path(__file__).with_name("power.py"),
             self.image, str(self.blocks), platform, machine, self.simulated, self.world, "raw" if raw else "main"],
            stdin=theirs, stdout=theirs, stderr=theirs, pass_fds=[self._lock], start_new_session=True,
            cwd=self.state.path, umask=0o077, env={**os.environ, **around},
            # When the computer's side is killed, it does not live on: PR_SET_PDEATHSIG, of this thread.
            preexec_fn=lambda: prctl(1, signal.SIGKILL),
        )  # fmt: skip
        theirs.close()
        ours.setblocking(False)
        self.sock = ours
        self.resets += 1
        self.raw = raw
        self.phase = ON  # what it has to say next; None: it is in the REPL
        self.cooks = True
        self.said = b""  # the last that it said
        self.held = b""  # what it said and that is not understood yet
        self.to_board = b""

    def _stop(self):
        self.wakes = None
        if self.process:
            self.process.kill()
            self.process.wait()
            self.sock.close()
            self.process = self.sock = None

    def _run(self):
        self.to_port = b""
        try:
            while self._order != "end":
                self._step()
        finally:
            self._stop()
            with self._done:
                self._order = None
                self._done.notify_all()

    def _step(self):
        poll = select.poll()
        poll.register(self._ask, select.POLLIN)
        away = self._hung_up()
        if away:
            self.to_port = b""  # nobody listens, and a serial line keeps nothing
        if self.sock:
            wants = select.POLLIN if len(self.to_port) < MOST else 0
            poll.register(self.sock, wants | (select.POLLOUT if self.to_board and self.phase != ON else 0))
        if not away:
            wants = select.POLLIN if not self.sock or len(self.to_board) < MOST else 0
            poll.register(self.master, wants | (select.POLLOUT if self.to_port else 0))
        wait = 50 if away else None
        if self.wakes:
            wait = max(0, min(wait or 1000, int(1000 * (self.wakes - time.monotonic())) + 1))
        ready = dict(poll.poll(wait))
        if self.wakes and time.monotonic() >= self.wakes:
            self.wakes = None
            self._start("deep sleep")
        if self._ask in ready:
            os.read(self._ask, 100)
            self._obey()
            return
        if self.sock and self.sock.fileno() in ready:
            self._from_board()
        if self.sock and self.to_board and self.phase != ON:
            self._type()
        if self.master in ready or away:
            self._from_port()
        if self.to_port and not self._hung_up():
            with contextlib.suppress(BlockingIOError):
                self.to_port = self.to_port[os.write(self.master, self.to_port) :]

    def _hung_up(self):
        """Whether nobody has the port open."""
        poll = select.poll()
        poll.register(self.master, 0)
        return any(what & select.POLLHUP for _, what in poll.poll(0))

    def _obey(self):
        with self._done:
            if self._order == "end" or self._order is None:
                return
            on, cause = self._order
            self._stop()
            if on:
                self._start(cause)
            self._order = None
            self._done.notify_all()

    def _from_port(self):
        try:
            data = os.read(self.master, 4096)
        except BlockingIOError:
            return
        except OSError as e:  # nobody has it open
            if e.errno != errno.EIO:
                raise
            return
        if self.fuse is not None:
            data = data[: self.fuse]
            self.fuse -= len(data)
            if not self.fuse:
                self.fuse = None
                self._stop()
                self._reopen()
                return
        if self.sock:
            self.to_board += data

    def _type(self):
        """Hands on what was typed; a Ctrl-C interrupts a program that runs."""
        while self.to_board:
            piece, ctrl_c, rest = self.to_board.partition(b"\x03")
            if piece:
                try:
                    done = self.sock.send(piece)
                except BlockingIOError:
                    return
                except OSError:  # it has ended
                    self.to_board = b""
                    return
                self.to_board = self.to_board[done:]
            else:
                if not self._interrupt():
                    try:
                        self.sock.send(b"\x03")
                    except OSError:
                        return
                self.to_board = rest

    def _interrupt(self):
        """Interrupts the program that runs, if one does: in the REPL MicroPython does not catch SIGINT, nor where
        micropython.kbd_intr(-1) was called. It is halted meanwhile, or the signal might come too late and kill it.

        The unix port raises KeyboardInterrupt wherever it is, a board between two steps of a program: what computes is
        given a moment to wait for something, so that littlefs and the collector are not left in the middle of it."""
        pid = self.process.pid
        caught = False
        end = time.monotonic() + CALM
        try:
            while time.monotonic() < end:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SZX":
                    break
                time.sleep(0.002)
            os.kill(pid, signal.SIGSTOP)
            while True:
                text = Path(f"/proc/{pid}/status").read_text()
                fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
                if fields["State"][0] in "TtZX":
                    break
                time.sleep(0.001)
            caught = bool(int(fields.get("SigCgt", "0"), 16) >> (signal.SIGINT - 1) & 1)
            if caught:
                os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGCONT)
        except OSError:
            pass
        return caught

    def _from_board(self):
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        if self.phase is None:
            self._say(data)
            return
        self.held += data
        if self.phase == ON:
            before, mark, rest = self.held.partition(ON)
            if not mark:
                return
            self.phase, self.held = REPL, rest
        if self.phase == REPL:
            before, mark, rest = self.held.partition(REPL)
            if not mark:
                keep = next((n for n in range(len(REPL) - 1, 0, -1) if before.endswith(REPL[:n])), 0)
                self.held = before[len(before) - keep :]
                self._say(before[: len(before) - keep])
                return
            self._say(before)
            self.phase, self.held = (RAW, rest) if self.raw else (None, b"")
            if self.raw:
                self.sock.send(b"\x01")
            else:
                self._say(rest)
        if self.phase == RAW and RAW in self.held:  # its greeting in the friendly REPL is not shown
            self.phase = None
            self._say(self.held[self.held.index(RAW) :])
            self.held = b""

    def _say(self, data):
        if self.cooks:
            text, binary, rest = data.partition(b"\x18")  # mpremote's mount talks binary, which print() does not
            if binary:
                self.cooks = False
            last = self.said[-1:]
            self.said = (self.said + data)[-80:]
            text = (last + text).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            if last == b"\n":
                text = text[2:]
            elif last == b"\r" and text.startswith(b"\r\n"):
                text = text[1:]
            else:
                text = text[len(last) :]
            data = text + binary + rest
        else:
            self.said = (self.said + data)[-80:]
        self.to_port += data

    def _ended(self):
        """MicroPython has ended: a reset, soft or hard, or it crashed."""
        if self.held and self.phase == ON:
            self.log("edgepost: the virtual board does not start: " + self.held.decode("utf-8", "replace").strip())
        started = self.phase != ON
        status = self.process.wait()
        said, raw, typed = self.said, self.raw, self.to_board
        self.sock.close()
        self.process = self.sock = None
        if not started:
            return
        if status == SLEEP:
            self.wakes = time.monotonic() + json.loads(self.asleep.read_bytes())["ms"] / 1000
            return
        if status == LOADER:
            self._reopen()
            if self.loader:
                self.loader()
            return
        if status < 0 or status == RESET:
            if status < 0:
                self.log(f"edgepost: MicroPython was ended by {signal.Signals(-status).name}; the board starts again")
            self._start("reset" if status == RESET else "watchdog")
            return
        if said.endswith(b"OK\r\n"):
            raw = True
        elif said.endswith(b">>> \r\n"):
            raw = False
        else:
            raw = raw or RAW in said
        self.to_port += b"MPY: soft reboot\r\n"
        self._start("soft reset", raw)
        self.to_board = typed


def run(state, board="pico_w", heapsize=HEAP, link=None):
    """`edgepost virtual`: a virtual board until SIGTERM or Ctrl-C. Gives the exit status."""
    ends = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: ends.set())
    virtual = VirtualBoard(state, board, heapsize, link, lambda line: print(line, file=sys.stderr, flush=True))
    try:
        virtual.power(True)
        print(f"edgepost: a virtual {board} is at {virtual.link or virtual.port}", flush=True)
        print(f"edgepost: its flash is {virtual.image}, what is around it is told by {virtual.world}", flush=True)
        print(f"edgepost: try: mpremote connect {virtual.link or virtual.port} repl; Ctrl-C here ends it", flush=True)
        while not ends.wait(0.2):
            pass
    finally:
        virtual.close()
    return 0
