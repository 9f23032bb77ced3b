"""`edgepost deploy`: the gateway's code onto a board, so that a cut at any moment leaves one whole version on it.

A version is one file (pack.py), /a.pack or /b.pack. The new one is put together beside the one that runs: what has not
changed is copied on the board, the rest is sent. When it is whole, /slot.json names it in one rename, the board is
reset, and firmware/trial.py gives it one start to show that it is good. boot.py and main.py, which nothing can roll
back, are replaced before that, each in one rename, only when they differ; they get on with packs of before and after.
"""

import binascii
import contextlib
import hashlib
import json
import shutil
import sys
import time
import tomllib
from pathlib import Path

import serial

from . import build, device, pack, progress
from .errors import UserError

OLDEST = (1, 23)  # MicroPython; firmware/ needs its module vfs
TRIAL = 90 + 300 + 60  # seconds that a trial may take, see firmware/trial.py
START = 120  # seconds until a gateway that is not on trial is up
_PIECE = 1024  # octets that are sent at a time
_BLOCK = 4096
_SPARE = 6  # blocks that a deploy needs besides a pack
_STAY = ("boards/unix.py", "smtp/cpython.py", "smtp/cpython.mpy", "boot.py", "main.py")
_STARTS = ("boot.py", "main.py")
_HEAD = """def _head(p):
 with open(p,'rb') as f:
  w=f.readline()
  print(w.decode(),end='')
  w=w.split()
  f.seek(int(w[2]),1)
  n=int(w[3])
  while n>0:
   l=f.readline()
   if not l:break
   n-=len(l)
   print(l.decode(),end='')
"""
_WRITER = """import binascii
_f=open(%r,'wb')
def _w(b):
 _f.write(binascii.a2b_base64(b))
def _c(p,at,n):
 with open(p,'rb') as s:
  s.seek(at)
  while n>0:
   b=s.read(min(n,1024))
   if not b:break
   _f.write(b)
   n-=len(b)
"""


class Version:
    """What is to run on a board: `pack` (bytes) and `starts` ({"boot.py": bytes, ...})."""

    def __init__(self, info, users, say):
        made = build.build(info.mpy, say)
        files = {path.relative_to(made).as_posix(): path.read_bytes() for path in made.rglob("*") if path.is_file()}
        self.starts = {name: files[name] for name in _STARTS}
        files = {name: data for name, data in files.items() if name not in _STAY}
        if users:
            own = {path.name: path.read_bytes() for path in users}
            for name in own:
                if {name, Path(name).with_suffix(".mpy").name} & set(files):
                    raise UserError(f"{name} has the name of a module of the gateway; call it user.py, or otherwise")
            made = build.build(info.mpy, lambda line: None, files=own)
            files |= {path.name: path.read_bytes() for path in made.iterdir()}
        self.pack = pack.make(files)
        self.line = self.pack[: pack.LINE]
        self.entries = pack.entries(self.line, self.pack[pack.LINE :][slice(*_span(self.line))])
        self.name = self.line.split()[4].decode()[:8]


def _span(line):
    table, listing = pack.sizes(line)
    return table, table + listing


def user_files(toml, named):
    """The person's own Python files that the gateway imports: `named`, or those that rules of board.toml name."""
    if named:
        found = [Path(name) for name in named]
    else:
        path = Path(toml or "board.toml")
        if not toml and not path.is_file():
            return []
        try:
            rules = tomllib.loads(path.read_text()).get("sensor", [])
            names = [rule.get("path", "user.py") for rule in rules if rule.get("driver") == "user"]
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as e:
            raise UserError(f"{path} is wrong: {e}") from None
        found = [path.parent / name for name in dict.fromkeys(names)]
    for path in found:
        if not path.is_file():
            raise UserError(f"{path} is not there: a sensor rule of driver \"user\" needs it, see --user")
    return found


class Flash:
    """What the board's flash holds of all this. `state` is /slot.json, {} when there is none."""

    def __init__(self, board):
        self.board = board
        board.exec(_HEAD)
        names = {entry.name: entry.size for entry in board.listdir("/")}
        self.names = names
        self.state = {}
        if "slot.json" in names:
            with contextlib.suppress(device.Raised):
                self.state = board.eval("__import__('json').load(open('/slot.json'))")
        if not isinstance(self.state, dict):
            self.state = {}
        self.heads = {slot: self._head(slot) for slot in "ab" if f"{slot}.pack" in names}
        self.run = self.state.get("run")
        if self.run not in self.heads or not self.heads[self.run]:
            self.run = None  # what slot.json names is not there: nothing runs

    def _head(self, slot):
        """(first line, list), or None when it is no pack."""
        try:
            said = self.board.exec(f"_head('/{slot}.pack')").replace(b"\r\n", b"\n")
        except device.Raised:
            return None
        line, listing = said[: pack.LINE], said[pack.LINE :]
        return (line, listing) if pack.sizes(line) and len(listing) == pack.sizes(line)[1] else None

    def has(self, slot, version):
        """Whether a slot holds this version, whole."""
        head = self.heads.get(slot)
        return bool(head and head[0] == version.line) and (
            self.board.hash(f"/{slot}.pack") == hashlib.sha256(version.pack).hexdigest()
        )

    def write_state(self, state):
        self.board.write("/slot.json", json.dumps(state).encode())
        self.state = state


def parts(version, head):
    """A pack as [(octets, None or where they are in the pack that `head` is of)], in order; neighbours are one."""
    known = {}
    if head:
        line, listing = head
        at = pack.LINE + pack.sizes(line)[0]
        for row in listing.splitlines(keepends=True):
            known[row] = at
            at += len(row)
        for entry in pack.entries(line, listing).values():
            known[entry.hash, entry.size] = entry.at
    data = version.pack
    start, end = (pack.LINE + at for at in _span(version.line))
    pieces = [(data[:start], None)]
    pieces += [(row, known.get(row)) for row in data[start:end].splitlines(keepends=True)]
    for entry in sorted(version.entries.values(), key=lambda entry: entry.at):
        pieces.append((data[entry.at : entry.at + 4 + entry.size], known.get((entry.hash, entry.size))))
    joined = []
    for octets, at in pieces:
        if joined:
            before, where = joined[-1]
            if at is None and where is None or None not in (at, where) and where + len(before) == at:
                joined[-1] = (before + octets, where)
                continue
        joined.append((octets, at))
    return joined


def changed(version, head):
    """The entries of a version that a pack lacks."""
    there = set()
    if head:
        there = {(entry.hash, entry.size) for entry in pack.entries(*head).values()}
    return [entry for entry in version.entries.values() if (entry.hash, entry.size) not in there]


class Progress:
    """How far it is: on a terminal one line that grows, elsewhere nothing."""

    def __init__(self, total):
        self.total, self.sent = total, 0
        self.shows = progress.lively(sys.stdout)

    def add(self, octets):
        self.sent += octets
        if self.shows:
            done = self.sent * 20 // self.total if self.total else 20
            text = f"  {self.sent // 1024} of {self.total // 1024} KB [{'#' * done}{' ' * (20 - done)}]"
            sys.stdout.write("\r" + text[: shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()

    def end(self):
        if self.shows:
            sys.stdout.write("\r" + " " * min(48, shutil.get_terminal_size().columns - 1) + "\r")


def room(board, version, flash, slot, in_place):
    """Raises BoardError when the pack has no room beside what stays."""
    need = -(-len(version.pack) // _BLOCK) + _SPARE
    free = board.eval("(lambda s:(s[0]*min(s[3],s[2]),s[0]*s[2]))(__import__('os').statvfs('/'))")
    goes = [f"{slot}.pack", f"{slot}.part"] + (["a.pack", "b.pack", "a.part", "b.part"] if in_place else [])
    have = free[0] // _BLOCK + sum(flash.names.get(name, 0) // _BLOCK for name in set(goes))
    if need <= have:
        return
    kb = _BLOCK // 1024
    text = f"the board's flash is full: this version needs {need * kb} KB, and {have * kb} KB are free"
    if in_place or not flash.run:
        raise device.BoardError(
            f"{text}. Delete what is not needed (mpremote fs ls, mpremote fs rm), and run the command again"
        )
    if free[1] // _BLOCK < 2 * need:
        text += f", for it holds {free[1] // 1024} KB in all, too little for two versions"
    raise device.BoardError(
        f"{text}. Wait until mail has gone out or delete what is not needed (mpremote fs ls, mpremote fs rm); or deploy"
        " with --in-place, which replaces the version that runs and cannot roll back"
    )


def send(board, version, flash, slot, say, in_place=False):
    """Puts a version into a slot that does not run. What is known of the board is in `flash`. Raises BoardError."""
    path = f"/{slot}.pack"
    room(board, version, flash, slot, in_place)
    if not in_place and flash.run and set(flash.state) != {"run"}:
        flash.write_state({"run": flash.run})  # from here on nothing names the other slot
    for name in ("a.pack", "b.pack", "a.part", "b.part") if in_place else (f"{slot}.pack", f"{slot}.part"):
        if name in flash.names:
            board.remove("/" + name)
    for source in dict.fromkeys((None if in_place else flash.run, None)):
        head = flash.heads[source] if source else None
        todo = parts(version, head)
        new = changed(version, head)
        octets = sum(len(piece) for piece, at in todo if at is None)
        say(f"sending {len(new)} of {len(version.entries)} files, {octets} octets")
        shown = Progress(octets)
        try:
            _write(board, f"/{slot}.part", todo, f"/{source}.pack", shown)
        finally:
            shown.end()
        if board.hash(f"/{slot}.part") == hashlib.sha256(version.pack).hexdigest():
            board.rename(f"/{slot}.part", path)
            return
        board.remove(f"/{slot}.part")
        if source:
            say(f"what was copied from /{source}.pack is not what it should be: everything is sent")
    raise device.BoardError("the version did not arrive whole on the board: a bad cable? Run the command again")


def _write(board, path, todo, source, shown):
    try:
        board.exec(_WRITER % path)
        try:
            for octets, at in todo:
                if at is not None:
                    board.exec(f"_c({source!r},{at},{len(octets)})", 60)
                    continue
                for lo in range(0, len(octets), _PIECE):
                    piece = octets[lo : lo + _PIECE]
                    board.exec(f"_w({binascii.b2a_base64(piece, newline=False)!r})")
                    shown.add(len(piece))
        finally:
            with contextlib.suppress(device.Gone, device.TimedOut):
                board.exec("_f.close()\ndel _f,_w,_c")
    except device.Raised as e:
        with contextlib.suppress(device.BoardError):
            board.remove(path)
        raise device.BoardError(
            f"{path} cannot be written on the board ({e.error}); what runs there is as it was. Delete what is not"
            " needed (mpremote fs ls, mpremote fs rm), and run the command again"
        ) from None


def put_starts(board, version, say):
    """boot.py and main.py, where they differ. One that is not ours is kept beside it."""
    for name, data in version.starts.items():
        path = "/" + name
        mark = board.hash(path)
        if mark == hashlib.sha256(data).hexdigest():
            continue
        if mark:
            first = board.eval(f"(lambda f:(f.readline(),f.close()))(open({path!r}))[0]")
            if not first.startswith('"""') or "a board runs" not in first:
                board.exec(_WRITER % (path + ".before"))
                board.exec(f"_c({path!r},0,1<<20)\n_f.close()\ndel _f,_w,_c")
                say(f"the {name} that was on the board is kept as {path}.before")
        board.write(path, data)


# -- what becomes of it


class Console:
    """What the board says, line by line, from its reset on. A port that goes and comes back, as that of a chip with its
    own USB does, is opened again."""

    def __init__(self, board, away=30):
        self.board, self.away = board, away
        self.lines = []
        self.seen = 0  # of them, in until()
        self.rest = b""

    def restart(self):
        """Resets the board."""
        self.board.reset()
        self.rest = b""
        self.seen = len(self.lines)

    def more(self, wait=0.2):
        """The lines that came within `wait` seconds; the one that is not at its end is in `rest`."""
        try:
            self.rest += self.board.read(wait)
        except device.Gone:
            self._open()
        *lines, self.rest = self.rest.split(b"\n")
        lines = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
        self.lines += lines
        return lines

    def _open(self):
        line = self.board.line
        with contextlib.suppress(OSError, TypeError, AttributeError):
            line.serial.close()
        end = time.monotonic() + self.away
        while True:
            try:
                line.serial = serial.Serial(self.board.port, device.BAUD, timeout=device.TIMEOUT, exclusive=True)
                return
            except (OSError, ValueError):
                if time.monotonic() > end:
                    raise device.Gone(
                        f"the board at {self.board.port} has not come back after its reset; look for its port with"
                        " `mpremote connect list`, and ask it: edgepost deploy --status --port PORT"
                    ) from None
                time.sleep(0.1)

    def until(self, ends, seconds):
        """Waits for a line with one of `ends` in it; gives (that one, the line), or (None, "") after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.more()
            while self.seen < len(self.lines):
                line = self.lines[self.seen]
                self.seen += 1
                for mark in ends:
                    if mark in line:
                        return mark, line
            if self.rest.endswith(b">>> "):
                return None, ""  # it has come to its prompt
        return None, ""


READY = " gateway: ready"
GOOD = "edgepost: the new version is good, and stays"
ROLLED = "edgepost: the new version was rolled back: "
DAMAGED = "is damaged and is not tried"
DOWN = ("edgepost: the gateway does not run: ", "SAFE MODE", "edgepost: crashed;", "there is no profile for this board")


def follow(console, on_trial, say):
    """Tells what becomes of the version that the board starts; gives the exit status."""
    start = len(console.lines)
    if not on_trial:
        mark, line = console.until((READY, *DOWN), START)
        if mark == READY:
            say("the gateway is up")
            return 0
        if mark and "there is no /config.json" in line:
            say("the code is on the board; the gateway starts when it has its configuration: edgepost provision")
            return 0
        return _down(console, start, say, "the gateway is not up")
    say("the board tries the new version; it has to run for a minute without trouble")
    end = time.monotonic() + TRIAL
    ready = False
    while time.monotonic() < end:
        mark, line = console.until((READY, GOOD, ROLLED, DAMAGED), end - time.monotonic())
        if mark == GOOD:
            say("the new version is good, and stays")
            return 0
        if mark == READY and not ready:
            say("the gateway is up")
            ready = True
        elif mark in (ROLLED, DAMAGED):
            if mark == ROLLED:
                say("ROLLED BACK. The new version was no good: " + line.partition(ROLLED)[2])
            else:
                say("the new version was damaged on the board, and was not tried: run the command again")
            mark, _ = console.until((READY, *DOWN), START)
            if mark == READY:
                _tail(console, start)
                say("the version before it is up again")
                return 1
            return _down(console, start, say, "the version before it runs again, but its gateway is not up")
        elif mark is None:
            break
    return _down(console, start, say, "what became of the new version is not known; switch the board's power off and"
                 " on, and ask it: edgepost deploy --status")  # fmt: skip


def _tail(console, start):
    lines = console.lines[start:][-25:]
    if lines:
        print("---- the board said:", *lines, "----", sep="\n", flush=True)


def _down(console, start, say, text):
    _tail(console, start)
    say(text)
    return 1


# -- the command


def check(board):
    info = board.info()
    if tuple(info.version[:2]) < OLDEST:
        found = ".".join(str(n) for n in info.version)
        raise device.BoardError(
            f"the board has MicroPython {found}, and the gateway needs {OLDEST[0]}.{OLDEST[1]} or later: edgepost flash"
        )
    return info


def deploy(board, version, flash, say, in_place=False):
    """Brings a version onto the board. Gives None when nothing was to be done, or else whether it is on trial."""
    if not in_place and set(flash.state) <= {"run", "bad"} and flash.run and flash.has(flash.run, version):
        put_starts(board, version, say)
        return None
    bare = not flash.run or "config.json" not in flash.names  # nothing to roll back to, or nothing to judge by
    slot = flash.run if in_place and flash.run else "b" if flash.run == "a" else "a"
    if in_place and not flash.run:
        in_place = False
    if not flash.has(slot, version):
        send(board, version, flash, slot, say, in_place)
    elif in_place:
        return None
    if in_place or bare:
        flash.write_state({"run": slot})
        put_starts(board, version, say)
        return False
    put_starts(board, version, say)
    flash.write_state({"run": flash.run, "new": slot, "left": 1})
    return True


def status(board, flash, version, say):
    """What is on the board."""
    info = board.info()
    machine, number = info.machine or info.platform, ".".join(str(n) for n in info.version if n != "")
    say(f"{machine}, MicroPython {number}; {info.flash_free // 1024} of {info.flash // 1024} KB of flash are free")
    words = {flash.run: "runs"}
    if "new" in flash.state:
        words[flash.state["new"]] = "is on trial" if not flash.state.get("left") else "is tried at the next start"
    elif "bad" in flash.state:
        words[flash.state["bad"]] = "was rolled back"
    for slot in "ab":
        head = flash.heads.get(slot)
        if f"{slot}.pack" not in flash.names:
            say(f"/{slot}.pack  empty")
        elif not head:
            say(f"/{slot}.pack  is no version of the gateway")
        else:
            name = head[0].split()[4].decode()[:8]
            word = words.get(slot, "the version before")
            there = {(path, entry.hash) for path, entry in pack.entries(*head).items()}
            here = {(path, entry.hash) for path, entry in version.entries.items()}
            count = len({path for path, _ in there ^ here})
            same = f"{count} files differ from those here" if head[0] != version.line else "the same as here"
            say(f"/{slot}.pack  {name} {word}, {same}")
    if not flash.run:
        say("no version runs: edgepost deploy")
    if "config.json" not in flash.names:
        say("it has no configuration: edgepost provision")


def dry_run(flash, version, say):
    head = flash.heads.get(flash.run)
    if head and head[0] == version.line:
        say("nothing: the board has this version")
        return
    for entry in changed(version, head):
        say(f"{entry.size:7} {entry.path[1:]}")
    octets = sum(len(piece) for piece, at in parts(version, head) if at is None)
    say(f"{len(changed(version, head))} of {len(version.entries)} files, {octets} octets with the table")


def stamps(users):
    """What changes when a source does."""
    files = [*build.library().rglob("*.py"), *build.firmware().rglob("*.py"), *users]
    found = {}
    for path in files:
        with contextlib.suppress(OSError):
            entry = path.stat()
            found[path] = entry.st_mtime_ns, entry.st_size
    return found


def watch(board, users, say, console, info, look=0.5):
    """Sends what changes, and shows the console, until Ctrl-C."""
    seen = stamps(users)
    due = 0
    say("watching the sources; Ctrl-C ends this, and leaves the gateway running")
    while True:
        for line in console.more(look):
            print(line, flush=True)
        now = stamps(users)
        if now == seen:
            if not due:
                continue
        else:
            seen, due = now, 1
            continue  # whoever saves may not be done yet
        due = 0
        try:
            version = Version(info, users, say)
        except UserError as e:
            say(str(e))
            continue
        board.interrupt()
        if deploy(board, version, Flash(board), say) is None:
            say("nothing has changed")
        console.restart()


def run(args):
    """`edgepost deploy`: gives the exit status."""

    def say(text):
        print(text if text.startswith("edgepost: ") else "edgepost: " + text, flush=True)

    users = user_files(args.board, args.user)
    port = args.port or device.find()
    with device.connect(port) as board:
        console = Console(board)
        running = True  # until it is known that it is not there, or has been started
        try:
            info = check(board)
            version = Version(info, users, say)
            flash = Flash(board)
            if args.status:
                status(board, flash, version, say)
                return 0
            if args.dry_run:
                dry_run(flash, version, say)
                return 0
            on_trial = deploy(board, version, flash, say, args.in_place)
            if on_trial is None:
                say(f"nothing to send: the board has this version ({version.name})")
            running = False
            console.restart()
            if args.watch:
                watch(board, users, say, console, info)
            return follow(console, bool(on_trial), say)
        except KeyboardInterrupt:
            if args.watch and not running:
                print(file=sys.stderr)
                return 0
            raise
        finally:
            if running:  # it was interrupted to be asked: it goes on
                with contextlib.suppress(UserError, OSError):
                    board.interrupt(3)
                    console.restart()
