"""A month of a board in virtual time: the real firmware on a simulated board, flash, network, clock and sensors, see
tests/month. What the mailboxes hold at the end is compared with what the rules owe.

EDGEPOST_MONTHS=N runs so many months, each with a seed of its own. A month that fails is shrunk to a script that a
person can read, and that can be added to MENDED below.
"""

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT, find_micropython
from edgepost import build, config, unix

MONTH = ROOT / "tests" / "month"
sys.path.insert(0, str(MONTH))

import owed  # noqa: E402
import script  # noqa: E402

MONTHS = int(os.environ.get("EDGEPOST_MONTHS", "0"))
PATIENCE = 180  # seconds to make a failing script short
HEAP = "6m"  # a flash of 512 KB is in it, and what the neighbours of the board need


class World:
    def __init__(self, path, fold=0):
        self.path = path
        text = (MONTH / "board.toml").read_text().replace('fold = "0s"', f'fold = "{fold}s"')
        (path / "board.toml").write_text(text)
        (path / "user.py").write_text("def pump():\n    return 1\n")
        self.config, _ = config.load(path / "board.toml", {})
        (path / "config.json").write_text(json.dumps(self.config))
        interpreter, why = find_micropython()
        if interpreter is None:
            pytest.fail(why, pytrace=False)
        firmware = build.build(unix.find_micropython().mpy, print)
        self.command = [interpreter, "-X", f"heapsize={HEAP}", MONTH / "live.py", path / "script.txt",
                        path / "config.json", firmware]  # fmt: skip

    def run(self, lines, broken=""):
        """(what is wrong, all that was said) after a script."""
        (self.path / "script.txt").write_text("\n".join(lines) + "\n")
        more = ["--break", broken] if broken else []
        done = subprocess.run([*self.command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
        said = done.stdout.decode(errors="replace").splitlines()
        facts = [json.loads(line) for line in said if line.startswith('["')]
        wrong = owed.judge(lines, facts, self.config)
        if done.returncode:
            wrong.append(owed.Broken("wrong", f"exit status {done.returncode}"))
        return wrong, said

    def shrink(self, lines, wrong, broken=""):
        """A short script with which something of the same kind is wrong, and that; as short as PATIENCE allows."""
        found = [wrong]
        end = time.monotonic() + PATIENCE

        def fails(some):
            if time.monotonic() > end:
                return False
            now = [w for w in self.run(some, broken)[0] if same(w, wrong)]
            found[:] = now[:1] or found
            return bool(now)

        return script.shrink(lines, fails), found[0]

    def holds(self, lines):
        wrong, said = self.run(lines)
        if wrong:
            short, what = self.shrink(lines, wrong[0])
            parts = (
                "\n".join(f"{w.rule}: {w.text}" for w in wrong[:20]),
                "The first of them happens with this script as well:",
                f"{what.rule}: {what.text}",
                '"""' + "\n".join(short) + '"""',
                "The end of what the board said:",
                "\n".join(s for s in said if '["sample"' not in s)[-6000:],
            )
            pytest.fail("\n\n".join(parts), pytrace=False)
        return said


def same(one, other):
    return one.rule == other.rule and one.text.partition(":")[0] == other.text.partition(":")[0] or (
        one.rule == other.rule and one.rule not in ("lost", "invented"))


def counted(said, what):
    return sum(line.startswith(f'["{what}"') for line in said)


# A whole month, and days in which alerts of one rule fold into one mail.
SCRIPTS = [(1, 30, 0), (2, 4, 600)] if not MONTHS else [(n, 30, n % 2 * 600) for n in range(1, MONTHS + 1)]


@pytest.mark.parametrize("seed, days, fold", SCRIPTS)
def test_what_the_rules_owe_arrives_in_a_month_of_trouble(tmp_path, seed, days, fold):
    lines = script.month(seed, days)
    said = World(tmp_path, fold).holds(lines)
    lost = sum("wifi away" in line for line in lines)
    assert lost == round(500 * days / 30) and counted(said, "cut") >= 20 * days / 30
    print(f"seed {seed}: {days} days, Wi-Fi lost {lost} times, {counted(said, 'cut')} power cuts, "
          f"{counted(said, 'eio')} writes of the flash failed, {counted(said, 'taken')} mails came")


MENDED = {
    "the system's clock was lost, and mail waited for the next time server": """seed 1
0 01:00:00 rtc reset
0 01:00:10 ntp silent 80000
0 01:10:00 door 300 1
0 08:00:00 end""",
}


@pytest.mark.parametrize("name", MENDED)
def test_what_was_mended_stays_so(tmp_path, name):
    World(tmp_path).holds(MENDED[name].split("\n"))


HANGS = """seed 5
0 01:00:00 hang loop
0 02:00:00 hang relay
0 02:00:10 mail m1-400
0 05:00:00 hang server
0 05:01:00 mail m2-400
0 08:00:00 hang rule
0 12:00:00 mail m3-400
0 13:00:00 wifi away 7200 silent
0 13:10:00 door 300 1
0 23:00:00 end"""


def test_the_watchdog_bites_whatever_hangs_and_the_board_recovers_by_itself(tmp_path):
    said = World(tmp_path).holds(HANGS.split("\n"))
    bites = [json.loads(line)[1:] for line in said if line.startswith('["bite"')]
    assert [reason.rpartition("board: ")[2].partition(" did")[0] for _, reason in bites] == [
        "", "the relay", "the server", "the sensor pump"]  # the first is the chip's own
    for (at, _), since, most in zip(bites, (3600, 7210, 18000, 28800), (600 + 9, 1000, 400, 600 + 1000), strict=True):
        assert since < at < since + most


def test_a_failing_month_is_shrunk_to_a_script_that_a_person_can_read(tmp_path):
    world = World(tmp_path)
    lines = script.month(1, 2)
    wrong, _ = world.run(lines, "alert")
    lost = [w for w in wrong if w.rule == "lost"]
    assert lost and lost[0].text.startswith("door: ")
    short, what = world.shrink(lines, lost[0], "alert")
    print("\n".join(short), what.text, sep="\n")
    assert len(lines) > 40 and len(short) == 3, short
    assert short[0] == "seed 1" and short[1].split()[2] == "door" and short[2].endswith(" end")
    assert script.seconds(short[2]) < script.DAY
    assert not world.run(short)[0], "it is the broken gateway that loses it"
