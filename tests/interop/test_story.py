"""From a bare board to a watched gateway, and what may happen to it, with no hardware: the commands as a person runs
them, on simulated boot loaders and a virtual board, with a real Postfix."""

import json
import os
import subprocess
import sys
import time

import pytest
from bootloaders import Esp32, Pico, banner, esp_image, uf2_image
from edgepost import virtual
from harness import PATIENCE, edgepost
from postfix import missing

LONG = 10 * PATIENCE  # for one command
BOARD = """
[board]
name = "cold-store"
domain = "cold-store.example.com"
ntp = []
[wifi]
ssid = "barn"
password = {{ env = "WIFI" }}
[smarthost]
host = "localhost"
port = {port}
ca = "{ca}"
username = "gateway"
password = {{ env = "SMTP" }}
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
fold = 0
[queue]
retry = "1h"
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
every = "100ms"
"""
# What no option says: where drives are mounted, how slow this machine is, and that the sources are broken.
FLASH = """
from edgepost import flash
from esptool.loader import ESPLoader
command = ESPLoader.command
ESPLoader.command = lambda self, *args, timeout=3, **named: command(self, *args, timeout=10 * timeout, **named)
flash.volumes = lambda: [(globals().get("DRIVE", ""), "")]
"""
BROKEN = """
from edgepost import build
sources = build._sources
def broken():
    files = sources()
    files["sensors.py"] += b"\\nRule.read = lambda self: 1 / 0\\nRule.step = Rule.read\\n"
    return files
build._sources = broken
"""


def around(code, *args, **env):
    """The edgepost command with something changed around it; gives a CompletedProcess."""
    code += "\nimport sys\nfrom edgepost import cli\nsys.exit(cli.main(sys.argv[1:]))\n"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=LONG,
        env={**os.environ, **env},
    )  # fmt: skip


def until(look, what):
    """What look() gives, as soon as that is something."""
    end = time.monotonic() + 2 * PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.05)
    return found


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_from_a_bare_board_to_a_gateway_that_outlives_a_dead_smart_host_and_a_broken_version(postfix, tmp_path):
    host = postfix()
    toml = tmp_path / "board.toml"
    toml.write_text(BOARD.format(port=host.port, ca=host.ca))
    secrets = {"WIFI": "hay and straw", "SMTP": host.password}

    def run(*args, status=0):
        done = edgepost(*args, env=secrets, cwd=tmp_path, timeout=LONG)
        assert done.returncode == status, done.stdout + done.stderr
        assert host.password not in done.stdout + done.stderr and "Traceback" not in done.stderr
        return " ".join(done.stdout.split())

    def door(level):
        world = {"wifi": {"barn": {"key": "hay and straw"}}, "pins": {"14": level}, "hurry": 10}
        draft = tmp_path / "world.new"
        draft.write_text(json.dumps(world))
        draft.replace(board.world)

    def state():
        done = edgepost("monitor", "--port", port, "--once", "--json", timeout=LONG)
        return json.loads(done.stdout)["status"] if done.stdout else None

    def again():
        """The door is closed, which the gateway has to see, and opened."""
        door(0)
        until(lambda: (now := state()) and now["sensors"][0]["state"] == "ok", state)
        door(1)

    def arrived(text, count=1):
        return [mail for mail in host.mails() if text in mail.subject][count - 1 :]

    # ---- MicroPython onto both kinds of boards
    board = virtual.VirtualBoard(tmp_path / "pico", link=tmp_path / "port")
    drive = Pico(tmp_path / "drive", board)
    try:
        port = board.link
        door(0)
        ask = "import sys; print('v%d.%d.%d' % sys.implementation[1][:3], end='')"
        version = subprocess.check_output([board.micropython.path, "-c", ask], text=True)
        with virtual.VirtualBoard(tmp_path / "esp", "esp32") as other, Esp32(board=other) as loader:
            data = esp_image(text=banner(version))
            (tmp_path / "esp32.bin").write_bytes(data)
            done = around(FLASH, "flash", "--image", tmp_path / "esp32.bin", "--port", loader.port)
            assert done.returncode == 0, done.stdout + done.stderr
            assert loader.flash[0x1000 : 0x1000 + len(data)] == data
        board.loader = drive.loader
        board.power(True)
        data = uf2_image(text=banner(version, "Raspberry Pi Pico W with RP2040"))
        (tmp_path / "pico.uf2").write_bytes(data)
        code = f"DRIVE = {str(drive.where)!r}\n" + FLASH
        done = around(code, "flash", "--image", tmp_path / "pico.uf2", "--port", port)
        assert done.returncode == 0, done.stdout + done.stderr
        assert drive.flash == data and "next, its configuration: edgepost provision" in done.stdout

        # ---- its configuration, and the gateway
        assert "next: edgepost deploy" in run("provision", toml, "--port", port)
        assert "the gateway is up" in run("deploy", toml, "--port", port)

        # ---- an alert
        door(1)
        until(lambda: arrived("door"), host.log)
        seen = until(lambda: (now := state()) and now["delivered"] and now, "the monitor has not seen the alert")
        assert seen["queue"]["waiting"] == 0 and seen["sensors"][0]["state"] != "ok"
        assert "cold-store: all is well" in run("monitor", "--port", port, "--once")

        # ---- the smart host is dead
        host.process.terminate()
        host.process.wait(PATIENCE)
        again()
        until(lambda: (now := state()) and now["queue"]["waiting"] and now["trouble"], state)
        said = run("queue", "list", "--port", port)
        assert "waiting" in said and "to oncall@example.com" in said and "1 mail in the queue" in said, said
        said = run("doctor", toml, status=1)
        assert "BAD" in said and "nobody listens there" in said, said

        # ---- and well again
        before = len(host.mails())
        host.start()
        run("queue", "start", "--port", port)
        until(lambda: len(host.mails()) > before, host.log)
        until(lambda: (now := state()) and not now["queue"]["waiting"], "the mail still waits")

        # ---- a broken version
        done = around(BROKEN, "deploy", toml, "--port", port)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "ROLLED BACK" in done.stdout and "ZeroDivisionError" in done.stdout, done.stdout
        until(lambda: arrived("started again after a crash"), host.log)
        count = len(arrived("door"))
        again()
        until(lambda: arrived("door", count + 1), host.log)
    finally:
        drive.close()
        board.close()
