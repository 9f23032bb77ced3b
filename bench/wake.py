"""What a wake-up of a board on battery costs in computing and in flash: tests/sim is the board, an ESP32."""

import json
import os
import shutil
import statistics
import subprocess

from edgepost import build, config
from edgepost.smarthost import SmartHost

from .tools import PATIENCE, ROOT, Row, limit_row

_SIM = ROOT / "tests" / "sim"
_TOML = """
[board]
name = "shed"
profile = "esp32"
ntp = []
[wifi]
ssid = "barn"
password = { env = "WIFI" }
[sleep]
[smarthost]
host = "127.0.0.1"
port = {port}
ca = "{ca}"
username = "gateway"
password = { env = "SMTP" }
[mail]
from = "shed@example.com"
to = ["oncall@example.com"]
[[sensor]]
name = "cellar"
driver = "digital"
pin = 14
is = "on"
priority = "urgent"
"""


class Board:
    """A simulated ESP32 that is started anew at each wake-up."""

    def __init__(self, bench, host):
        self.path = bench.path / "wake"
        self.firmware = self.path / "firmware"
        shutil.copytree(bench.built, self.firmware)
        made = build.compiler()
        for source in _SIM.glob("*.py"):
            if made and source.name != "power_on.py":
                subprocess.run([made[0], "-o", self.firmware / f"{source.stem}.mpy", source], check=True)
            else:
                shutil.copy(source, self.firmware)
        toml = self.path / "board.toml"
        toml.write_text(_TOML.replace("{port}", str(host.port)).replace("{ca}", str(host.ca)))
        values, _ = config.load(toml, {"WIFI": "hay and straw", "SMTP": "secret"})
        (self.path / "config.json").write_text(json.dumps(values))
        self.files = [self.path / "config.json"]
        self.micropython = bench.micropython.path
        self.state = self.path / "sleep.json"
        self.door(0)

    def door(self, level):
        around = {"wifi": {"barn": {"key": "hay and straw"}}, "pins": {"14": level}}
        (self.path / "world.json").write_text(json.dumps(around))

    def wake(self, cause="deep sleep"):
        """(milliseconds of CPU, writes to flash) of one wake-up."""
        command = [self.micropython, "-X", "heapsize=280k", _SIM / "power_on.py"]
        command += [self.path / "flash.img", self.firmware, *self.files]
        env = {
            "EDGEPOST_SIM_FILE": f"/host{self.path / 'world.json'}", "EDGEPOST_SIM_CHIP": "esp32",
            "EDGEPOST_SIM_CAUSE": cause, "EDGEPOST_SIM_SLEEP": f"/host{self.state}",
        }  # fmt: skip
        cpu, status = cpu_of(command, env)
        if status != 4:
            raise RuntimeError(f"it does not sleep: status {status}")
        self.files = []
        return cpu, json.loads(self.state.read_text())["writes"]


def cpu_of(command, env=None):
    """(milliseconds of CPU, exit status) of a process."""
    run = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    _, status, used = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    run.stdin.close()
    run.wait(PATIENCE)
    return (used.ru_utime + used.ru_stime) * 1000, run.returncode


def wake(bench):
    """A wake-up that only measures, and one with an alert and its session."""
    with SmartHost(bench.path / "wakehost") as host:
        board = Board(bench, host)
        board.wake("power on")
        bare, quiet, writes = [], [], set()
        for _ in range(bench.size(25)):
            bare.append(cpu_of([bench.micropython.path, "-c", "pass"])[0])
            cpu, count = board.wake()
            quiet.append(cpu)
            writes.add(count)
        board.door(1)
        mail, flash = board.wake()
        if len(host.mails) != 1:
            raise RuntimeError("the alert did not arrive")
    start = statistics.median(bare)
    measured = statistics.median(quiet) - start
    yield limit_row("wake-up that measures, CPU beyond MicroPython's start", measured, None, None, "ms", 1)
    yield Row("  writes to flash", f"{max(writes)}", goal="0", met=writes == {0})
    yield limit_row("the same with an urgent mail over TLS / without", mail - start, measured, None, "ms", 1)
    yield Row("  writes to flash", f"{flash}")
