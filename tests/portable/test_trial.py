"""firmware/main.py and trial.py: which version starts, wherever the power goes while a new one arrives, is tried, is
taken or is rolled back. Each start runs one whole version, a new one gets one start, what was rolled back is told."""

import binascii
import hashlib
import json
import os
import sys

import crash
import hardware
from expect import eq
from play import MICROPYTHON

if MICROPYTHON:  # a littlefs is needed, and modules that are imported from a file system of one's own
    import vfs
    from nor import PAGE, Nor

BLOCKS = 16


def pack(files):
    """As host_tools/pack.py makes it, without a list."""
    names = sorted(files)
    folders = sorted(set(name[: name.rfind("/")] for name in names if name.rfind("/") > 0))
    at = 90 + 8 * (len(names) + len(folders))
    table = b""
    rest = b""
    for name in folders:
        table += binascii.crc32(name.encode()).to_bytes(4, "little") + bytes(4)
    for name in names:
        table += binascii.crc32(name.encode()).to_bytes(4, "little") + (at + len(rest)).to_bytes(4, "little")
        rest += len(files[name]).to_bytes(4, "little") + files[name]
    rest = table + rest
    mark = binascii.hexlify(hashlib.sha256(rest).digest()).decode()
    line = "edgepost 1 %06d %06d %s\n" % (len(table), 0, mark)
    eq(len(line), 90)
    return line.encode() + rest


def version(word):
    return pack({
        "/version.py": b"import parts.one\nVERSION = %r + parts.one.WORD\n" % (word + " "),
        "/parts/one.py": b"WORD = %r\n" % word,
        "/other.py": b"#" * 3000,
    })  # fmt: skip


def source():
    for place in sys.path:
        try:
            with open((place + "/" if place else "") + "main.py") as f:
                text = f.read()
        except OSError:
            continue
        if "/slot.json" in text:
            return text.replace('"/slot.json"', '"/n/slot.json"').replace('"/%s.pack"', '"/n/%s.pack"')


class Reset(BaseException):
    pass


class Life:
    """Stands for life: what starts. judge(slot): what a new version does in its trial."""

    TIMER = -1
    WATCHDOG = 8300

    def __init__(self, judge):
        self.judge = judge
        self.ran = []
        self.trials = 0
        self.said = []
        self.reason = "power on"

    def say(self, text):
        self.said.append(text)

    def profile(self):
        return self

    def reset_reason(self):
        return self.reason

    def restart(self):
        self.reason = "reset"
        raise Reset

    def main(self):
        import version

        self.ran.append(version.VERSION)

    def trial(self, slot, feed, timer):
        self.trials += 1
        self.main()
        self.judge(slot)


class Board:
    """A flash, and starts from it."""

    def __init__(self, judge):
        self.life = Life(judge)
        self.main = source()

    def format(self):
        self.flash = Nor(BLOCKS)
        vfs.VfsLfs2.mkfs(self.flash, progsize=PAGE, readsize=PAGE)
        self.mount()

    def mount(self):
        vfs.mount(vfs.VfsLfs2(self.flash, progsize=PAGE, readsize=PAGE), "/n")

    def umount(self, *paths):
        for path in paths or ("/app", "/n"):
            try:
                vfs.umount(path)
            except OSError:
                pass

    def power(self, memory=None):
        """Away and back, perhaps with another content."""
        self.umount()
        self.flash = self.flash.power()
        if memory:
            self.flash.memory[:] = memory
        self.life.reason = "power on"
        self.mount()

    def start(self):
        """Gives what ran, none when the power went."""
        import trial

        trial.life = sys.modules["life"] = self.life
        trial.main = self.life.trial
        trial.PATH, trial.PACK, crash.PATH = "/n/slot.json", "/n/%s.pack", "/n/crash.json"
        hardware.reset("rp2")
        del self.life.ran[:], self.life.said[:]
        self.umount("/app")
        path, modules = sys.path[:], set(sys.modules)
        trial.print = crash.print = lambda *words: None
        try:
            exec(self.main, {"__name__": "__main__"})
        except Reset:
            pass
        finally:
            del trial.print, crash.print
            sys.path[:] = path
            for name in list(sys.modules):
                if name not in modules:
                    del sys.modules[name]
        return self.life.ran

    def deploy(self, word):
        """What `edgepost deploy` does there."""
        import trial

        trial.PATH = "/n/slot.json"
        trial.write({"run": "a"})
        if "b.pack" in os.listdir("/n"):
            os.remove("/n/b.pack")
        with open("/n/b.part", "wb") as f:
            data = version(word)
            for at in range(0, len(data), 1024):
                f.write(data[at : at + 1024])
        os.rename("/n/b.part", "/n/b.pack")
        trial.write({"run": "a", "new": "b", "left": 1})

    def state(self):
        with open("/n/slot.json") as f:
            return json.load(f)


def on_board(test):
    def run():
        if not MICROPYTHON:
            return
        import life  # noqa: F401 (trial takes the real one when it is loaded)
        import trial

        real, main, kept = sys.modules["life"], trial.main, crash.PATH
        board = Board(None)
        board.format()
        with open("/n/a.pack", "wb") as f:
            f.write(version("one"))
        with open("/n/slot.json", "w") as f:
            f.write('{"run": "a"}')
        try:
            test(board)
        finally:
            board.umount()
            sys.modules["life"] = trial.life = real
            trial.main, trial.PATH, trial.PACK, crash.PATH = main, "/slot.json", "/%s.pack", kept

    return run


def good(slot):
    import trial

    trial.write({"run": slot})


def crashes(slot):
    raise OSError("the new one is broken")


def hangs(slot):
    raise Reset  # the watchdog has bitten


@on_board
def test_without_a_new_version_the_one_that_runs_is_started_and_nothing_is_written(board):
    ops = board.flash.ops
    for _ in range(3):
        eq(board.start(), ["one one"])
    eq((board.flash.ops, board.life.trials, board.life.said), (ops, 0, []))


@on_board
def test_a_good_version_is_tried_and_stays(board):
    board.life.judge = good
    board.deploy("two")
    eq(board.start(), ["two two"])
    eq(board.state(), {"run": "b"})
    for _ in range(3):
        board.power()
        eq(board.start(), ["two two"])
    eq(board.life.trials, 1)


@on_board
def test_a_version_that_crashes_or_hangs_is_tried_once_and_that_is_told_once(board):
    for judge, reason, why in (
        (crashes, "reset", "OSError: the new one is broken"),
        (hangs, "watchdog", "it hung, and the watchdog reset the board"),
        (hangs, "power on", "it was reset, or lost its power"),
    ):
        board.life.judge, board.life.trials = judge, 0
        board.deploy("two")
        eq(board.start(), ["two two"])
        board.power()
        board.life.reason = reason
        eq(board.start(), ["one one"])
        (line,) = board.life.said
        assert line.startswith("the new version was rolled back: ") and why in line, line
        record = crash.read()
        eq((record["why"], record["n"], record["tell"]), (line, 0, True))
        eq(board.state(), {"run": "a", "bad": "b"})
        board.power()
        eq(board.start(), ["one one"])
        eq((board.life.said, board.life.trials), ([], 1))


@on_board
def test_a_crash_of_the_old_version_does_not_hide_a_roll_back_that_was_not_told_yet(board):
    board.life.judge = crashes
    board.deploy("two")
    board.start()
    board.power()
    board.start()
    crash.note("MemoryError: no room")
    eq(crash.read()["why"],
       "the new version was rolled back: OSError: the new one is broken. Then: MemoryError: no room")
    record = crash.read()
    record["tell"] = False
    crash.write(record)
    crash.note("MemoryError: no room")
    eq(crash.read()["why"], "MemoryError: no room")


@on_board
def test_a_damaged_version_is_not_tried(board):
    for at in (95, 200, 3000):
        board.deploy("two")
        with open("/n/b.pack", "r+b") as f:
            f.seek(at)
            octet = f.read(1)[0]
            f.seek(at)
            f.write(bytes([octet ^ 1]))
        eq(board.start(), ["one one"])
        assert "is damaged and is not tried" in board.life.said[0], board.life.said
        eq((board.state(), board.life.trials), ({"run": "a", "bad": "b"}, 0))
    board.deploy("two")
    os.remove("/n/b.pack")
    eq(board.start(), ["one one"])


@on_board
def test_a_path_that_looks_like_another_in_the_table_is_not_found(board):
    """Its CRC-32 stands there across two entries."""
    key = binascii.crc32(b"/absent.py").to_bytes(4, "little")
    table = b"\1\2\3" + key + b"\4" + binascii.crc32(b"/there.py").to_bytes(4, "little") + b"\x6a\0\0\0"
    with open("/n/a.pack", "wb") as f:
        f.write(b"edgepost 1 %06d 000000 %s\n" % (len(table), b"0" * 64) + table + b"\5\0\0\0N = 7")
    seen = []

    def look():
        try:
            import absent  # noqa: F401

            seen.append("absent")
        except ImportError:
            pass
        import there

        seen.append(there.N)

    board.life.main = look
    board.start()
    eq(seen, [7])


def cut_everywhere(board, judge, confirms):
    """The power goes at each operation of a deploy, of the trial and of the start behind it, and once more in each
    start that follows; gives the number of cuts."""
    life = board.life
    life.judge = judge

    def story():
        life.trials = 0
        board.deploy("two")
        board.start()
        life.reason = "watchdog" if judge is hangs else "reset"
        board.start()

    def recover():
        """Starts until nothing changes any more; gives the last that ran."""
        last = None
        for _ in range(3):
            board.power()
            ran = board.start()
            eq(len(ran), 1)
            assert ran[0] in ("one one", "two two"), ran
            last = ran[0]
        return last

    board.deploy("zero")
    board.life.judge = crashes
    board.start()
    board.power()
    board.start()  # so that the deploy has something to clear away
    life.judge = judge
    begin = bytes(board.flash.memory)
    board.power(begin)
    start = board.flash.ops
    story()
    total = board.flash.ops - start
    eq(recover(), "two two" if confirms else "one one")
    cuts = 0
    seen = set()
    for n in range(1, total + 1):
        board.power(begin)
        board.flash.cut_at = board.flash.ops + n
        try:
            story()
        except Exception:  # what reads from a flash without power fails
            assert board.flash.dead
        assert board.flash.dead, n
        assert life.trials <= 1, n
        after = bytes(board.flash.memory)
        tried = life.trials
        board.power(after)
        before = board.flash.ops
        first = board.start()
        eq(len(first), 1)
        steps = board.flash.ops - before
        last = recover()
        eq(life.trials <= 1, True)
        if not confirms:
            eq(last, "one one")
            if life.trials:
                assert crash.read()["why"].startswith("the new version was rolled back: "), n
        eq(board.flash.faults, 0)
        seen.add(last)
        cuts += 1
        for m in range(1 + n % 2, steps + 1, 2):  # and again
            life.trials = tried
            board.power(after)
            board.flash.cut_at = board.flash.ops + m
            try:
                board.start()
            except Exception:
                assert board.flash.dead
            last = recover()
            assert life.trials <= 1, (n, m)
            if not confirms:
                eq(last, "one one")
            cuts += 1
    eq(seen, {"one one", "two two"} if confirms else {"one one"})
    return cuts


@on_board
def test_wherever_the_power_goes_one_whole_version_starts_and_a_new_one_gets_one_start(board):
    for judge, confirms in ((good, True), (crashes, False), (hangs, False)):
        cuts = cut_everywhere(board, judge, confirms)
        assert cuts > 50, cuts
