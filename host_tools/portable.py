"""`edgepost test`: the tests of tests/portable on a board, over its serial line.

The board's flash stays as it is: library, firmware and tests are compiled for its MicroPython into a directory of this
computer that it sees as /remote. A batch is tests of one file, after a soft reset; of the file only they are sent. When
memory does not suffice, what failed is run again in halves, and a test that does not fit alone is skipped, and told.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import build, device, virtual
from .errors import UserError

_SHORT = ("MemoryError", "memory allocation failed", "out of memory")  # what is said where memory does not suffice
_ROOM = "2m"  # heap of a virtual board that no test is too big for
SILENCE = 180  # seconds after which a test that says nothing is given up: a board computes slowly
_VIRTUAL_SILENCE = 60
HELPERS = ("expect", "play", "nor", "run", "virtualtime", "world")


def find_tests(named=None):
    """The directory with the tests: as named, or that of the checkout, or that of the package. Raises UserError."""
    here = Path(__file__).resolve().parent
    places = [Path("tests/portable"), here.parent / "tests/portable", here / "board/portable"]
    for place in [Path(named)] if named else places:
        if (place / "run.py").is_file():
            return place
    raise UserError(
        f"there are no tests in {named or places[0]}: --tests names tests/portable of the project's sources, and"
        " without it those of this version are taken"
    )


def names_of(source):
    """The tests of a file, in its order."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.parse(source).body if isinstance(node, kinds) and node.name.startswith("test_")]


def _defines(node):
    """The names that a statement of a module defines and does no more, or None when it may do more."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(n.asname or n.name).split(".")[0] for n in node.names}
    calls = any(isinstance(n, ast.Call) for n in ast.walk(node))
    if isinstance(node, ast.Assign) and not calls and all(isinstance(t, ast.Name) for t in node.targets):
        return {t.id for t in node.targets}
    return None


def only(source, names):
    """As much of the source of a file as these names of it need; its lines keep their numbers. What is not needed takes
    memory on a board, and so do the modules that it imports."""
    nodes = [(node, _defines(node)) for node in ast.parse(source).body]
    needed, kept = set(names), []
    while True:
        new = [n for n in nodes if n[0] not in kept and (n[1] is None or n[1] & needed)]
        if not new:
            break
        for node, _ in new:
            kept.append(node)
            needed |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    lines = source.split("\n")
    for node, _ in nodes:
        if node not in kept:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            lines[first - 1 : node.end_lineno] = [""] * (node.end_lineno - first + 1)
    return "\n".join(lines)


def borrowed(path, source):
    """{file with tests: what of its names this source of a file needs}."""
    found, waiting = {}, [source]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("test_"):
                other, names = path.with_name(f"{node.module}.py"), {n.name for n in node.names}
            elif isinstance(node, ast.Import) and node.names[0].name.startswith("test_"):
                other, names = path.with_name(f"{node.names[0].name}.py"), None  # any of them
            else:
                continue
            if not other.is_file():
                continue
            if names is None:
                names = {n for one in ast.parse(other.read_text()).body for n in _defines(one) or ()}
                names = {n for n in names if not n.startswith("test_")}
            if not names <= found.get(other, set()):
                found[other] = found.get(other, set()) | names
                waiting.append(only(other.read_text(), found[other]))
    return found


class Run:
    """The tests on one board. `results` has (file, test, outcome, what was said) of each."""

    def __init__(self, board, tests, stage, say=print, silence=SILENCE):
        self.board, self.root, self.say = board, stage, say
        self.stage = stage = stage / "portable"
        self.results = []
        self.silence = silence
        if (tests.parent / "devices").is_dir():  # transcripts that tests read
            shutil.copytree(tests.parent / "devices", self.root / "devices")
        info = board.info()
        shutil.copytree(build.build(info.mpy, say), stage, dirs_exist_ok=True)
        cross, version = build.compiler() or (None, "")
        self.cross = cross if info.mpy and version == build.mpy_version(info.mpy) else None
        self.arch = build.mpy_arch(info.mpy)
        for path in [*build.simulated().glob("*.py"), *(tests / f"{name}.py" for name in HELPERS)]:
            if path.is_file() and path.name != "power_on.py":
                self.put(path.name, path.read_text())

    def put(self, name, source):
        """Puts a module where the board finds it, compiled when that is possible."""
        target = self.stage / name
        target.write_text(source)
        if self.cross:
            command = [self.cross, *([f"-march={self.arch}"] if self.arch else []), "-s", name, str(target)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                target.unlink()

    def remove(self, path):
        for name in (path.with_suffix(".mpy").name, path.name):
            (self.stage / name).unlink(missing_ok=True)

    def file(self, path, names):
        """Runs tests of a file."""
        source = path.read_text()
        waiting = [names]
        whole = set()  # tests that failed with a part of the file: an import may do more than it says
        while waiting:
            batch = waiting.pop(0)
            part = source if whole.intersection(batch) else only(source, batch)
            self.put(path.name, part)
            others = borrowed(path, part)
            for other, wanted in others.items():
                self.put(other.name, only(other.read_text(), wanted))
            said, error = self.batch(path.stem, batch)
            # One that fails in a batch may lack the memory that the others took, however it says so.
            short = [n for n in batch if said.get(n, ("FAILED", ""))[0] == "FAILED"]
            for name in batch:
                if name not in short:
                    self.result(path, name, *said[name])
            if len(batch) == 1 and short:
                what = said.get(short[0], ("", error))[1]
                fits = not any(word in what for word in _SHORT)
                if fits and not whole.intersection(batch):
                    whole.update(batch)
                    waiting.insert(0, batch)
                    continue
                self.result(path, short[0], "FAILED" if fits else "SKIPPED", what if fits else "does not fit its heap")
            elif short:
                half = (len(short) + 1) // 2
                waiting[:0] = [part for part in (short[:half], short[half:]) if part]
            for other in [path, *others]:
                self.remove(other)

    def batch(self, module, names):
        """Runs tests in one go; gives {name: (outcome, what was said)} of those that ended, and why it broke off."""
        said, about, rest = {}, [], bytearray()

        def take(data):
            rest.extend(data)
            while b"\n" in rest:
                line, _, after = bytes(rest).partition(b"\n")
                rest[:] = after
                line = line.decode("utf-8", "replace").rstrip("\r").lstrip("\x04")
                word, _, name = line.partition(" ")
                if word in ("PASS", "FAIL") and name in names:
                    said[name] = (word + "ED", "\n".join(about))
                    about.clear()
                else:
                    about.append(line)

        self.board.soft_reset()
        self.board.mount(self.root)
        code = "import gc, os\nos.chdir('/remote/portable')\nimport run\ngc.collect()\n"
        code += f"run.each(__import__({module!r}), {names!r})"
        error = ""
        try:
            self.board.exec(code, self.silence, take)
        except device.Raised as e:
            error = e.trace
        except device.TimedOut:
            error = f"said nothing for {self.silence} s, and was given up"
            self.board.interrupt()
        return said, "\n".join([*about, error])

    def result(self, path, name, outcome, said):
        self.results.append((path, name, outcome, said))
        self.say(f"{path.name}::{name} {outcome}")


def summary(results, info, seconds, say):
    """Tells what failed and how many did what; gives the exit status."""
    for path, name, outcome, said in results:
        if outcome == "FAILED":
            say(f"\n____ {path.name}::{name} ____\n{said}")
    for path, name, outcome, said in results:
        if outcome == "SKIPPED":
            say(f"SKIPPED {path.name}::{name}: {said}")
    count = {kind: sum(r[2] == kind for r in results) for kind in ("FAILED", "PASSED", "SKIPPED")}
    parts = ", ".join(f"{n} {kind.lower()}" for kind, n in count.items() if n) or "no tests ran"
    version = ".".join(str(n) for n in info.version if n != "")
    say(f"==== {parts} in {seconds:.0f} s on {info.machine or info.platform}, MicroPython {version} ====")
    return 1 if count["FAILED"] or not count["PASSED"] else 0


def run(port=None, on_virtual=False, tests=None, words="", files=(), say=None, heapsize=None):
    """`edgepost test`: gives the exit status."""
    say = say or (lambda line: print(line, flush=True))
    tests = find_tests(tests)
    chosen = []
    for path in sorted(tests.glob("test_*.py")):
        if not files or path.name in files or path.stem in files:
            names = [n for n in names_of(path.read_text()) if words in f"{path.name}::{n}"]
            if names:
                chosen.append((path, names))
    if not chosen:
        raise UserError("no test has that name; `edgepost test` without -k and files runs all of them")
    start = time.monotonic()
    heapsize = heapsize or virtual.HEAP
    with tempfile.TemporaryDirectory(prefix="edgepost-test-") as work:
        there = virtual.VirtualBoard(Path(work) / "board", heapsize=heapsize, log=say) if on_virtual else None
        try:
            if there:
                there.power(True)
                port = there.port
            with device.connect(port or device.find()) as board:
                info = board.info()
                say(f"edgepost: tests on {info.machine or info.platform} at {board.port}, {info.heap_free} octets free")
                stage = Path(work).resolve() / "stage"
                stage.mkdir()
                here = Run(board, tests, stage, say, _VIRTUAL_SILENCE if there else SILENCE)
                try:
                    for path, names in chosen:
                        here.file(path, names)
                except (KeyboardInterrupt, device.BoardError) as e:
                    print(f"edgepost: {e or 'interrupted'}", file=sys.stderr)
                    summary(here.results, info, time.monotonic() - start, say)
                    return 130 if isinstance(e, KeyboardInterrupt) else 2
        finally:
            if there:
                there.close()
        results = here.results
        failed = [r for r in results if r[2] == "FAILED"]
        if there and failed:  # of memory, although nothing says so?
            with virtual.VirtualBoard(Path(work) / "roomy", heapsize=_ROOM, log=say) as roomy:
                with device.connect(roomy.port) as board:
                    stage = Path(work).resolve() / "again"
                    stage.mkdir()
                    again = Run(board, tests, stage, lambda line: None, _VIRTUAL_SILENCE)
                    for path, name, _, _ in failed:
                        again.file(path, [name])
            well = {r[:2] for r in again.results if r[2] == "PASSED"}
            why = f"does not fit its heap: it fails with {heapsize}, and passes with {_ROOM}"
            results = [(*r[:2], "SKIPPED", why) if r[:2] in well and r[2] == "FAILED" else r for r in results]
        return summary(results, info, time.monotonic() - start, say)
