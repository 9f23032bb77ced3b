"""The power goes: at each flash operation of a story (tests/power/cuts.py, on a simulated flash), and at any moment of
one on a directory of this computer.

EDGEPOST_CUTS=N runs each story with N seeds, and cuts N times as many recoveries; EDGEPOST_ALERTS=N raises so many.
"""

import json
import os
import random
import re
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, find_micropython
from edgepost import build, unix

POWER = ROOT / "tests" / "power"
sys.path.insert(0, str(POWER))

import oracle  # noqa: E402
import stories  # noqa: E402

SEEDS = int(os.environ.get("EDGEPOST_CUTS", "1"))
ALERTS = int(os.environ.get("EDGEPOST_ALERTS", "5000"))
HEAP = "300k"  # 256k for the gateway; the rest is for its simulated neighbours
TWICE = 20 if SEEDS == 1 else 100  # recoveries of a part that are cut again
PARTS = {"day": 1, "storm": 1, "scan": 1, "night": 2, "crowd": 2, "shared": 2, "brim": 2, "crammed": 2}


def micropython():
    path, why = find_micropython()
    if path is None:
        pytest.fail(why, pytrace=False)
    return path


def run(heap, script, *args, **env):
    """What a script of tests/power says on MicroPython, when all went well."""
    done = subprocess.run(
        [micropython(), "-X", f"heapsize={heap}", POWER / script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.parametrize("story, part, parts", [(s, n, parts) for s, parts in PARTS.items() for n in range(parts)])
def test_each_promise_is_kept_wherever_the_power_is_cut(story, part, parts):
    for seed in range(1, SEEDS + 1):
        said = run("4m", "cuts.py", story, "--part", f"{part}/{parts}", "--seed", seed, "--twice", TWICE)
        operations, _, cuts, again = map(int, re.findall(r"\d+", said.partition(":")[2])[:4])
        assert operations > 100 and cuts >= operations // parts + again and again > 0, said
        print(f"seed {seed}, part {part + 1} of {parts}: {said}", end="")


def test_a_flash_that_others_filled_to_the_last_block_loses_no_mail():
    print(run("2m", "full.py", 1, 20 * SEEDS), end="")


def test_alerts_without_end_use_up_neither_heap_nor_flash(tmp_path):
    gateway = build.build(unix.find_micropython().mpy, print, tmp_path / "build")
    print(run(HEAP, "endless.py", tmp_path / "flash", ALERTS, MICROPYPATH=f"{gateway}:.frozen"), end="")


class Killed:
    """A gateway on a directory of this computer, and what its neighbours know: `facts`."""

    def __init__(self, path, story, interpreter):
        self.path, self.story = path, story
        self.command = [sys.executable] if interpreter == "cpython" else [micropython(), "-X", "heapsize=2m"]
        self.facts = []
        self.life = 0

    def run(self, kill_after=None, delay=0.0):
        """Runs the story, or what comes after it; kills it `delay` seconds after that many facts. True when it came to
        its end."""
        process = subprocess.Popen(
            [*self.command, POWER / "kill.py", self.path, self.story, str(self.life)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.life += 1
        seen = 0
        said = []
        for line in process.stdout:
            if line[:1] != b"[":
                said.append(line.decode())
            elif line[-1:] == b"\n":  # else it was cut by the kill, and the smart host had not answered yet
                self.facts.append(tuple(json.loads(line)))
                seen += 1
                if seen == kill_after:
                    threading.Timer(delay, process.kill).start()
        process.wait()
        process.stdout.close()
        assert not said, "".join(said)
        if self.facts and self.facts[-1] == ("end",):
            self.facts.pop()
            return True
        self.facts.append(("cut",))
        return False


@pytest.mark.parametrize("interpreter", ["cpython", "micropython"])
def test_no_mail_is_lost_when_the_gateway_is_killed_on_a_file_system_of_this_computer(tmp_path, interpreter):
    dice = random.Random(f"20261123 {interpreter}")
    copies = killed = 0
    for n in range(8 * SEEDS):
        name = ("day", "night", "storm", "crowd")[n % 4]
        path = tmp_path / f"spool{n}"
        gateway = Killed(path, name, interpreter)
        killed += not gateway.run(kill_after=dice.randrange(1, 60), delay=dice.random() * 0.01)
        if dice.random() < 0.5:
            killed += not gateway.run(kill_after=dice.randrange(1, 20), delay=dice.random() * 0.01)
        assert gateway.run()
        left = oracle.letters(str(path), torn=True)
        copies += oracle.judge(gateway.facts, left, getattr(stories, name)())
    print(f"{interpreter}: {killed} kills, no mail lost, {copies} came again")
    assert killed >= 4 * SEEDS, "most gateways came to their end before they were killed"
