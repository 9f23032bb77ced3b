"""How little memory is enough, from .mpy and with TLS, on the 64-bit port, whose objects are twice those of a board."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from edgepost import build, unix
from harness import BOARD, mail

ROOT = Path(__file__).resolve().parents[2]

DOOR = """
[[sensor]]
name = "door"
driver = "file"
path = "../door"
above = 1
every = "1s"
"""
SENSORS_ONLY = BOARD[: BOARD.index("[[listener]]")] + DOOR


@pytest.mark.parametrize(("heap", "board"), [("160k", SENSORS_ONLY), ("190k", BOARD + DOOR)], ids=["sensors", "both"])
def test_mail_and_alerts_arrive_from_a_small_heap(gateway, smarthost, tmp_path, heap, board):
    (tmp_path / "door").write_text("0")
    host = smarthost()
    one = gateway(board, host, heapsize=heap)
    letters = 0 if board is SENSORS_ONLY else 10
    for n in range(letters):
        one.inject(mail(f"letter {n}"))
    host.wait_for(letters)
    (tmp_path / "door").write_text("5")
    host.wait_for(letters + 1)
    assert "memory" not in one.log()


# What few gateways have. Each is loaded by the configuration that asks for it, or by a mail that needs it.
SELDOM = ["extra", "onward", "utf8", "mx", "lmtp", "lmtpd", "etrn", "atrn", "odmr", "waiting"]
SELDOM = {"smtp." + name for name in SELDOM} | {"hops", "fetch", "told", "limits"}
USER = """
import sys


def level():
    print("modules " + " ".join(sys.modules))
    return 5
"""
LEVEL = """
[[sensor]]
name = "oil"
driver = "user"
path = "../user.py"
function = "level"
above = 9
every = "0.1s"
"""


def test_a_gateway_loads_nothing_of_what_it_is_not_configured_to_do(gateway, smarthost, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    host = smarthost()
    one = gateway(BOARD + LEVEL, host)
    one.inject(mail())
    host.wait_for(1)
    one.wait_for("delivered to")
    loaded = set(one.wait_for("modules ", since=one.mark()).split())
    assert {"gateway", "smtp.relay", "smtp.server"} <= loaded
    assert not loaded & SELDOM


# Octets of heap after import, without what asyncio, socket and ssl take: as measured and 0.5 KB at the most. Hooks
# for what few gateways have must not add to it. What adds to it for everybody: make room elsewhere, or say why here.
MOST = {
    ("smtp.client", "smtp.single"): 24_576,
    ("smtp.server",): 43_456,
    ("smtp.relay", "smtp.queue"): 63_488,
    ("gateway", "smtp.listen", "smtp.relay", "smtp.server", "smtp.dns"): 109_056,
}


@pytest.mark.parametrize("modules", MOST, ids=" ".join)
def test_modules_take_no_more_heap_than_they_did(tmp_path, modules):
    micropython = unix.find_micropython()
    (tmp_path / "b").symlink_to(build.build(micropython.mpy))  # each module keeps its path: it has to be the same
    shutil.copy(ROOT / "bench" / "board" / "heap.py", tmp_path)

    def used(names):
        command = [str(micropython.path), "-X", "heapsize=1m", "heap.py", *names]
        env = {**os.environ, "MICROPYPATH": "b:.frozen"}
        run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(run.stdout)

    octets = used(modules) - used(("asyncio", "socket", "ssl"))
    assert octets <= MOST[modules]
