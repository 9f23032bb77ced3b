"""`edgepost deploy`, onto a virtual board: a small gateway with the firmware's own main.py, life.py, trial.py, crash.py
and watch.py. The virtual board's watchdog never bites, so that these tests do it."""

import argparse
import json
import re
import shutil
import threading
import time

import pytest
import serial
from edgepost import build, config, deploy, device, pack, virtual
from edgepost.errors import UserError
from harness import PATIENCE, edgepost, free_port

REAL = ("boot.py", "main.py", "life.py", "ended.py", "crash.py", "trial.py", "watch.py", "boards/board.py",
        "boards/pico_w.py", "smtp/__init__.py", "smtp/stream.py")  # fmt: skip
GATEWAY = '''
import asyncio, json, time as _time
import word
rules = []
file = None
class Unusable(Exception):
    pass
class time:
    uptime = lambda: _time.ticks_ms() // 1000
def log(area, text, urgent=False):
    print("+0 %s: %s" % (area, text))
def read_config(path="/config.json"):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError:
        raise Unusable("there is no " + path)
async def supervise(name, work):
    await work()
async def work():
    await asyncio.sleep(1000)
async def main(board):
    import start
    config = read_config()
    log("gateway", "version %s, word %s" % (VERSION, word.VERSION))
    jobs = [("work", work)] + start.equip(board, config, None, None, ())
    tasks = [asyncio.create_task(start.supervise(name, job)) for name, job in jobs]
    log("gateway", "ready")
    await board.stopped()
def run(board):
    asyncio.run(main(board))
'''
START = "from gateway import supervise\ndef equip(board, config, relay, server, listeners):\n    return []\n"
JUDGE = "def everything(watch, one, server, rules):\n    return watch\n"


@pytest.fixture(scope="module")
def firmware():
    """Sources of a version: firmware("two", **{"gateway.py": more lines})."""
    read = {name: path.read_bytes() for root, sub in ((build.firmware(), ""), (build.library(), "smtp/"))
            for name in REAL if (path := root / name.removeprefix(sub)).is_file() and name.startswith(sub)}  # fmt: skip
    read["trial.py"] = re.sub(rb"_CALM = \d+", b"_CALM = 0", read["trial.py"])
    read["life.py"] = re.sub(rb"_PAUSE = \d+", b"_PAUSE = 0", read["life.py"])
    read["watch.py"] += JUDGE.encode()

    def version(word, **more):
        text = f"VERSION = {word!r}\n"
        own = {"gateway.py": text + GATEWAY, "word.py": text, "start.py": START}
        files = {**read, **{name: lines.encode() for name, lines in own.items()}}
        for name, lines in more.items():
            name = name.replace("_", ".")
            files[name] = files.get(name, b"") + lines.encode()
        return files

    return version


class Bench:
    """A virtual board, and deploys to it. `says` is what the command said last, `status` its exit status."""

    def __init__(self, path, firmware, monkeypatch):
        self.path, self.firmware, self.monkeypatch = path, firmware, monkeypatch
        self.port = path / "port"
        self.board = None
        self.sent = []

    def power(self, image=None, **more):
        state = self.path / "state"
        if image:
            state.mkdir(exist_ok=True)
            shutil.copy(image, state / "flash.img")
        self.board = virtual.VirtualBoard(state, link=self.port, log=print, **more)
        self.boot()
        return self

    def source(self, word, **more):
        self.monkeypatch.setattr(build, "_sources", lambda: self.firmware(word, **more))

    def deploy(self, word=None, capsys=None, **options):
        if word:
            self.source(word, **options.pop("more", {}))
        if self.board:
            self.wait_for_port()
        words = dict(board=None, port=self.port, user=None, in_place=False, watch=False, dry_run=False, status=False)
        resets = self.board.resets if self.board else 0
        status = deploy.run(argparse.Namespace(**{**words, **options}))
        if options.get("status") or options.get("dry_run"):  # it was interrupted to be asked, and starts again
            end = time.monotonic() + PATIENCE
            while self.board.resets == resets:
                assert time.monotonic() < end
                time.sleep(0.01)
            self.boot()
        return status

    def wait_for_port(self):
        """A board that starts is forked from this process, and has our ports for a moment."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                serial.Serial(str(self.port), exclusive=True).close()
                return
            except serial.SerialException:
                assert time.monotonic() < end
                time.sleep(0.01)

    def connect(self):
        self.wait_for_port()
        return device.connect(self.port)

    def put(self, path, data):
        with self.connect() as board:
            board.write(path, data)

    def boot(self, cause="power on", ends=("gateway: ready\r\n", ">>> ")):
        """Switches the power off and on; gives what is said until the gateway is up or the prompt is there."""
        self.wait_for_port()
        with serial.Serial(str(self.port), timeout=0.05, exclusive=True) as line:
            self.board.power(False)
            line.reset_input_buffer()
            self.board.power(True, cause)
            return self.listen(line, ends)

    def settle(self):
        """Waits until a cable that was pulled is plugged in again."""
        end = time.monotonic() + PATIENCE
        while self.board.fuse is not None or not self.port.exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    def listen(self, line, ends):
        said = ""
        end = time.monotonic() + PATIENCE
        while not any(mark in said for mark in ends):
            assert time.monotonic() < end, said
            said += line.read(4096).decode("utf-8", "replace")
        return said.replace("\r", "")

    def version(self, **named):
        """Which version the board boots, whole."""
        said = self.boot(**named)
        found = re.search(r"gateway: version (\w+), word (\w+)", said)
        assert found, said
        assert found[1] == found[2], "two versions are mixed: " + said
        return found[1]

    def close(self):
        if self.board:
            self.board.close()
            self.board = None


@pytest.fixture
def bench(tmp_path, firmware, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not hasattr(bench_cache, "path"):
        bench_cache.path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench_cache.path))
    monkeypatch.setattr(deploy, "TRIAL", PATIENCE)
    monkeypatch.setattr(deploy, "START", PATIENCE)
    made = Bench(tmp_path, firmware, monkeypatch)
    yield made
    made.close()


class bench_cache:
    """Builds are kept from test to test."""


@pytest.fixture(scope="module")
def image(tmp_path_factory, firmware):
    """The flash of a board that has a configuration, and version "one" in /a.pack."""
    path = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        bench_cache.path = path / "cache"
        made = Bench(path, firmware, monkeypatch).power()
        try:
            assert made.deploy("one") == 0
            made.put("/config.json", b'{"board": {}}')
            assert made.version() == "one"
        finally:
            made.close()
    return path / "state" / "flash.img"


def test_a_bare_board_gets_the_gateway_and_is_told_what_it_lacks(bench, capsys):
    bench.power()
    bench.put("/main.py", b"print('mine')\n")
    assert bench.deploy("one") == 0
    said = capsys.readouterr().out
    assert "the gateway starts when it has its configuration: edgepost provision" in said
    assert "the main.py that was on the board is kept as /main.py.before" in said
    with bench.connect() as board:
        assert board.read_file("/main.py.before") == b"print('mine')\n"
        board.write("/config.json", b'{"board": {}}')
    assert bench.deploy() == 0
    assert "the gateway is up" in capsys.readouterr().out
    assert bench.version() == "one"


def test_what_changed_is_sent_and_nothing_when_nothing_did(bench, image, capsys):
    bench.power(image)
    assert bench.deploy("one") == 0
    said = capsys.readouterr().out
    assert "nothing to send" in said and "sending" not in said
    assert bench.deploy("one", more={"word_py": "# longer\nMORE = 'than before'\n"}) == 0
    said = capsys.readouterr().out
    assert "sending 1 of " in said and "the new version is good, and stays" in said
    octets = int(re.search(r"files, (\d+) octets", said)[1])
    assert octets < 1000, "table, two lines of the list, and a short file"
    assert bench.deploy() == 0
    assert "nothing to send" in capsys.readouterr().out
    with bench.connect() as board:
        assert board.eval("__import__('json').load(open('/slot.json'))") == {"run": "b"}
        assert {"a.pack", "b.pack"} <= {entry.name for entry in board.listdir()}
    assert bench.deploy("three") == 0  # into /a.pack, again
    assert bench.version() == "three"


BAD = {
    "a module that is missing": ({"gateway_py": "import nothing_there\n"}, "no module named 'nothing_there'"),
    "a crash at import": ({"gateway_py": "raise OSError('the module is broken')\n"}, "OSError: the module is broken"),
    "a crash of trial.py": ({"trial_py": "raise OSError('no trial')\n"}, "OSError: no trial"),
    "a crash of life.py": ({"life_py": "def main():\n    raise OSError('no life')\n"}, "OSError: no life"),
    "a crash in run": (
        {"start_py": "def equip(*a):\n    raise OSError('broken in the middle')\n"}, "OSError: broken in the middle"
    ),
    "a job that fails": (
        {"gateway_py": "async def work():\n    raise OSError('no more')\n"}, "work failed: OSError: no more"
    ),
    "an exit": ({"gateway_py": "def run(board):\n    pass\n"}, "the gateway has ended"),
    "a configuration that it does not take": (
        {"gateway_py": "def run(board):\n    raise Unusable('it lacks a key')\n"}, "does not run: it lacks a key"
    ),
    "an exit of the interpreter": ({"gateway_py": "raise SystemExit\n"}, "before it had shown that it is good"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_broken_version_is_rolled_back_and_that_is_told(bench, image, capsys, what):
    more, why = BAD[what]
    bench.power(image)
    assert bench.deploy("two", more=more) == 1
    said = capsys.readouterr().out
    assert "ROLLED BACK. The new version was no good: " in said and why in said, said
    assert "the version before it is up again" in said
    with bench.connect() as board:
        record = json.loads(board.read_file("/crash.json"))
        assert record["why"].startswith("the new version was rolled back: ") and why in record["why"]
        assert record["tell"] and record["n"] == 0
        assert json.loads(board.read_file("/slot.json")) == {"run": "a", "bad": "b"}
    assert bench.version() == "one"
    assert "rolled back" not in bench.boot(), "it is told once"


HANGS = {
    "at import": {"gateway_py": "print('+0 gateway: hangs')\nwhile True:\n    pass\n"},
    "once it is up": {"gateway_py": "async def work():\n    log('gateway', 'hangs')\n    while True:\n        pass\n"},
}


@pytest.mark.parametrize("where", HANGS)
def test_one_that_hangs_is_bitten_and_rolled_back(bench, image, capsys, monkeypatch, where):
    bench.power(image)
    bites = []

    class Bitten(deploy.Console):
        def more(self, wait=0.2):
            lines = super().more(wait)
            if any("gateway: hangs" in line for line in lines):
                bites.append(threading.Thread(target=bench.board.power, args=(True, "watchdog")))
                bites[-1].start()
            return lines

    monkeypatch.setattr(deploy, "Console", Bitten)
    assert bench.deploy("two", more=HANGS[where]) == 1
    assert len(bites) == 1
    bites[0].join(PATIENCE)
    assert "ROLLED BACK. The new version was no good: it hung, and the watchdog reset" in capsys.readouterr().out
    assert bench.version() == "one"


def test_a_power_cut_in_the_trial_leads_back(bench, image):
    bench.power(image)
    bench.source("two", trial_py="_CALM = 1000\n")
    with bench.connect() as board:
        version = deploy.Version(board.info(), (), print)
        assert deploy.deploy(board, version, deploy.Flash(board), print) is True
    assert bench.version() == "two"
    said = bench.boot()
    assert "the new version was rolled back: it was reset, or lost its power" in said and "version one" in said
    assert bench.version() == "one"


def test_safe_mode_of_the_old_version_does_not_keep_the_new_one_from_its_trial(bench, image):
    bench.power(image)
    record = {"n": 3, "all": 3, "why": "it crashed", "text": "", "up": 1, "tell": False, "own": False}
    bench.put("/crash.json", json.dumps(record).encode())
    assert "SAFE MODE" in bench.boot("reset")
    assert bench.deploy("two") == 0
    assert bench.version() == "two"


def test_a_damaged_version_is_not_tried(bench, image, capsys):
    bench.power(image)
    bench.source("two")
    with bench.connect() as board:
        version = deploy.Version(board.info(), (), print)
        assert deploy.deploy(board, version, deploy.Flash(board), print) is True
        board.exec("f = open('/b.pack', 'r+b'); f.seek(5000); f.write(b'?'); f.close()")
    said = bench.boot()
    assert "the new version in /b.pack is damaged and is not tried" in said and "version one" in said
    assert bench.deploy() == 0, "it is sent again"
    assert bench.version() == "two"


def test_a_damaged_version_that_runs_is_no_source_to_copy_from(bench, image, capsys):
    bench.power(image)
    with bench.connect() as board:
        at = pack.entries(*deploy.Flash(board).heads["a"])["/watch.mpy"].at + 50
        board.exec(f"f = open('/a.pack', 'r+b'); f.seek({at}); f.write(b'?'); f.close()")
    assert bench.deploy("two") == 0
    assert "everything is sent" in capsys.readouterr().out
    assert bench.version() == "two"


def octets_of(bench, image, word):
    """Octets to the board in a whole deploy."""
    bench.power(image)
    there = bench.board
    there.fuse = most = 1 << 30
    bench.deploy(word)
    used = most - there.fuse
    bench.close()
    return used


def cut(bench, image, word, at, before):
    """A deploy whose cable is pulled after so many octets; then the board boots, and the command is run again."""
    bench.power(image)
    bench.board.fuse = at
    try:
        status = bench.deploy(word)
        assert status == 1, "it has not noticed"
    except UserError as e:
        assert "run the command again" in str(e) or "try again" in str(e) or "has not come back" in str(e), e
    bench.settle()
    if before:
        assert bench.version() in (before, word), at
    else:
        bench.boot()
    assert bench.deploy() == 0, at
    assert bench.version() == word, at
    bench.close()


def test_a_cable_that_is_pulled_at_any_moment_leaves_one_whole_version(bench, image, monkeypatch):
    monkeypatch.setattr(deploy, "TRIAL", 1)
    monkeypatch.setattr(device, "TIMEOUT", 5)
    total = octets_of(bench, image, "two")
    monkeypatch.setattr(deploy, "TRIAL", PATIENCE)
    for n in range(12):
        cut(bench, image, "two", max(1, total * (2 * n + 1) // 24), "one")


def test_a_cable_that_is_pulled_while_a_bare_board_gets_its_first_version_is_mended_by_another_run(bench, tmp_path):
    bench.power()
    bench.put("/config.json", b'{"board": {}}')
    bench.close()
    bare = tmp_path / "bare.img"
    shutil.copy(tmp_path / "state" / "flash.img", bare)
    total = octets_of(bench, bare, "one")
    for n in range(4):
        cut(bench, bare, "one", total * (2 * n + 1) // 8, None)


def test_what_is_on_the_board_and_what_would_be_sent_is_said_without_a_change(bench, image, capsys):
    bench.power(image)
    assert bench.deploy("two", dry_run=True) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+ gateway.mpy\n", said) and re.search(r"\d+ word.mpy\n", said) and "2 of 12 files" in said
    assert bench.deploy("two", status=True) == 0
    said = capsys.readouterr().out
    assert re.search(r"/a.pack  [0-9a-f]{8} runs, 2 files differ from those here", said), said
    assert "/b.pack  empty" in said and "Pico W" in said
    assert bench.version() == "one"
    assert bench.deploy("two") == 0
    assert bench.deploy("two", dry_run=True, status=False) == 0
    assert "nothing: the board has this version" in capsys.readouterr().out
    assert bench.deploy("two", status=True) == 0
    said = capsys.readouterr().out
    assert "runs, the same as here" in said and "the version before, 2 files differ" in said


def fill(bench, leave):
    code = f"import os\nf = open('/mail', 'wb')\nfor _ in range(os.statvfs('/')[3] - {leave}): f.write(bytes(4096))\n"
    with bench.connect() as board:
        board.exec(code + "f.close()", 60)


def test_a_full_flash_is_told_and_what_runs_goes_on(bench, image, capsys):
    bench.power(image)
    fill(bench, 4)
    with pytest.raises(UserError, match=r"flash is full: this version needs \d+ KB, and 1\d KB are free.*--in-place"):
        bench.deploy("two")
    assert bench.version() == "one"


def test_in_place_replaces_the_version_that_runs(bench, image, capsys):
    bench.power(image)
    fill(bench, 12)
    assert bench.deploy("two", in_place=True) == 0
    assert "sending 12 of 12 files" in capsys.readouterr().out
    with bench.connect() as board:
        assert board.stat("/b.pack") is None
    assert bench.version() == "two"


def test_too_old_a_micropython_is_told(bench, image, monkeypatch):
    bench.power(image)
    info = device.Info("rp2", "Pico W", (1, 22, 2), 6 | 2 << 8, 1, 1, 1, 1, "pico_w")
    monkeypatch.setattr(device.Board, "info", lambda self: info)
    with pytest.raises(UserError, match=r"the board has MicroPython 1\.22\.2, and the gateway needs 1\.23 or later"):
        bench.deploy("two")
    assert bench.version() == "one"


def test_where_mpy_cross_makes_another_mpy_the_sources_are_sent(bench, image, capsys, monkeypatch):
    bench.power(image)
    monkeypatch.setattr(build, "compiler", lambda: ("/bin/false", "6.1"))
    assert bench.deploy("two") == 0
    said = capsys.readouterr().out
    assert "mpy-cross makes .mpy 6.1, this MicroPython loads 6.3: running from source" in said
    assert bench.version() == "two"


def test_a_source_that_does_not_compile_is_told_and_nothing_is_sent(bench, image):
    bench.power(image)
    with pytest.raises(UserError, match="gateway.py does not compile"):
        bench.deploy("two", more={"gateway_py": "def ("})
    assert bench.version() == "one"


def test_the_persons_own_file_travels_with_it(bench, image, tmp_path, capsys):
    (tmp_path / "board.toml").write_text('[[sensor]]\ndriver = "user"\npath = "mine.py"\n')
    with pytest.raises(UserError, match="mine.py is not there"):
        bench.deploy("one", board=str(tmp_path / "board.toml"))
    (tmp_path / "mine.py").write_text("def level():\n    return 42\n")
    bench.power(image)
    assert bench.deploy("one", board=str(tmp_path / "board.toml")) == 0
    assert "sending 1 of 13 files" in capsys.readouterr().out
    with bench.connect() as board:
        assert board.eval("__import__('mine').level()") == 42
    (tmp_path / "life.py").write_text("")
    with pytest.raises(UserError, match="life.py has the name of a module of the gateway"):
        bench.deploy("one", user=[str(tmp_path / "life.py")])


@pytest.mark.parametrize("port, what", [("/dev/ttyNOWHERE", "is not there"), ("file", "is not a serial port")])
def test_a_wrong_port_is_told(bench, tmp_path, port, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=what):
        bench.deploy("one", port=tmp_path / port)


def test_the_command_has_an_example_and_its_exit_status_says_what_to_put_right():
    done = edgepost("deploy", "--help")
    assert done.returncode == 0 and "example: edgepost deploy board.toml --port" in done.stdout
    done = edgepost("deploy", "--port", "/dev/ttyNOWHERE")
    assert done.returncode == 2 and "edgepost: /dev/ttyNOWHERE is not there" in done.stderr


def test_a_port_that_is_in_use_is_told(bench):
    bench.power()
    with bench.connect(), pytest.raises(UserError, match="is in use by another program"):
        there, bench.board = bench.board, None
        try:
            bench.deploy("one")
        finally:
            bench.board = there


def test_it_watches_sends_what_changes_and_shows_the_console(bench, image, capsys, monkeypatch):
    said = []
    more = deploy.Console.more
    end = time.monotonic() + 2 * PATIENCE

    def console(self, wait=0.2):
        assert time.monotonic() < end, (said, self.rest)
        lines = more(self, wait)
        said.extend(lines)
        return lines

    def stamps(users):  # the next version is written when the one before has proved itself
        count = sum(deploy.GOOD in line for line in said)
        if count == 2:
            raise KeyboardInterrupt
        bench.source(("two", "three")[count])
        return count

    monkeypatch.setattr(deploy.Console, "more", console)
    monkeypatch.setattr(deploy, "stamps", stamps)
    bench.power(image)
    assert bench.deploy("two", watch=True) == 0
    shown = capsys.readouterr().out
    assert "watching the sources" in shown and "gateway: version three, word three" in shown
    assert bench.version() == "three"



BOARD = """
[board]
name = "cold-store"
domain = "cold-store.example.com"
[smarthost]
host = "127.0.0.1"
port = {port}
security = "none"
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
[log]
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
every = "100ms"
"""


def test_the_whole_gateway_is_deployed_proves_itself_and_a_broken_one_is_rolled_back_and_mailed(
    bench, tmp_path, monkeypatch, capsys
):
    files = build._sources()
    files["trial.py"] = re.sub(rb"_CALM = \d+", b"_CALM = 2", files["trial.py"])
    files["life.py"] = re.sub(rb"_PAUSE = \d+", b"_PAUSE = 0", files["life.py"])
    monkeypatch.setattr(build, "_sources", lambda: files)
    (tmp_path / "board.toml").write_text(BOARD.replace("{port}", str(free_port())))
    values, _ = config.load(tmp_path / "board.toml", {})
    bench.power()
    bench.put("/config.json", json.dumps(values).encode())
    (tmp_path / "state" / "world.json").write_text('{"pins": {"14": 0}}')
    assert bench.deploy() == 0
    files["names.py"] += b"\nMORE = 1\n"
    assert bench.deploy() == 0
    said = capsys.readouterr().out
    assert "sending 1 of " in said and "good, and stays" in said, said
    files["sensors.py"] += b"\nRule.read = lambda self: 1 / 0\nRule.step = Rule.read\n"
    follow = deploy.follow

    def until_it_is_mailed(console, *more):
        status = follow(console, *more)
        mark, _ = console.until(["cold-store: started again after a crash"], PATIENCE)
        assert mark, console.lines
        return status

    monkeypatch.setattr(deploy, "follow", until_it_is_mailed)
    assert bench.deploy() == 1
    said = capsys.readouterr().out
    assert "ROLLED BACK" in said and "sensor door failed: ZeroDivisionError" in said, said
    with bench.connect() as board:
        mail = b"".join(board.read_file(f"/spool/{entry.name}") for entry in board.listdir("/spool")).decode()
    assert "started again after a crash" in mail and "the new version was rolled back: sensor door failed" in mail
