"""How much of a board's heap each part takes, on the 64-bit port, where it is about twice a board's."""

import json
import shutil
import subprocess
import time

from edgepost import build, config

from .gateway import Gateway
from .tools import HERE, ROOT, Process, Row, limit_row, sink

_KB = 1024
_SMALL = 240  # KB of heap in which all of it runs, as tests/host/test_board.py shows
_PARTS = (
    ("client", ("smtp.client", "smtp.single"), 24),
    ("client and message", ("smtp.client", "smtp.single", "smtp.message"), 36),
    ("client, message and mime", ("smtp.client", "smtp.single", "smtp.message", "smtp.mime"), 45),
    ("server", ("smtp.server",), 48),
    ("relay, queue, client", ("smtp.relay", "smtp.queue"), None),
)

# All that a board may have, but sleep and the pages over HTTP.
_BOARD = """
[board]
name = "bench"
ntp = ["127.0.0.1:9"]
led = true
watchdog = true
[wifi]
ssid = "barn"
password = "hay and straw"
country = "DE"
[[smarthost]]
host = "localhost"
port = {port}
security = "none"
[[smarthost]]
host = "localhost"
port = {port}
security = "none"
[mail]
from = "bench@example.com"
to = ["oncall@example.com"]
admin = "admin@example.com"
heartbeat = "1d"
[log]
[[listener]]
address = "127.0.0.1"
port = 0
allow = ["127.0.0.0/8"]
users = {{ printer = "swordfish12345" }}
[[device]]
address = "192.168.1.20"
priority = "low"
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
[[sensor]]
name = "freezer"
driver = "ds18x20"
pin = 4
above = -12
[[sensor]]
name = "oil"
driver = "adc"
pin = 26
below = 20
"""
_AROUND = {
    "wifi": {"barn": {"key": "hay and straw"}},
    "pins": {"14": 1},
    "thermometers": {"4": {"28ff641e84160333": -5}},
}


def _board(bench, port, base):
    """Octets of heap in use on a simulated board, without what simulates it, once its alarms are raised. base: what
    every board program has."""
    path = bench.path / "whole"
    path.mkdir()
    firmware = path / "firmware"
    shutil.copytree(bench.built, firmware)
    shutil.copy(HERE / "board" / "heapwatch.py", firmware / "drivers")
    for source in (ROOT / "tests" / "sim").glob("*.py"):
        if source.name != "power_on.py":
            subprocess.run([build.compiler()[0], "-o", firmware / f"{source.stem}.mpy", source], check=True)
    (path / "board.toml").write_text(_BOARD.format(port=port).replace("port = 0", "port = 2525"))
    values, _ = config.load(path / "board.toml", {})
    values["sensor"].append({"name": "heap", "driver": "heapwatch", "every": 1, "above": 1})
    (path / "config.json").write_text(json.dumps(values))
    (path / "world.json").write_text(json.dumps(_AROUND))
    env = {"EDGEPOST_SIM_FILE": f"/host{path}/world.json", "EDGEPOST_SIM_CHIP": "rp2"}

    def power_on(octets, firmware):
        command = [bench.micropython.path, "-X", f"heapsize={octets}", ROOT / "tests" / "sim" / "power_on.py",
                   path / "flash.img", firmware, path / "config.json"]  # fmt: skip
        return Process(list(map(str, command)), env)

    bare = path / "bare"  # the same without a gateway
    shutil.copytree(firmware, bare)
    (bare / "life.mpy").unlink()
    shutil.copy(HERE / "board" / "simulated.py", bare / "life.py")
    with power_on(1 << 20, bare) as process:
        simulated = int(process.read()) - base
    with power_on(_SMALL * _KB + simulated, firmware) as process:
        used, end = 0, time.monotonic() + 8
        while time.monotonic() < end or not used:
            line = process.run.stdout.readline()
            if not line:
                raise RuntimeError("the simulated board does not run")
            if line.startswith("heap "):
                used = int(line.split()[1])
            if " sensor: oil" in line or "delivered" in line and used:
                end = min(end, time.monotonic() + 2)
    return used - simulated


def heap(bench):
    """gc.mem_alloc() after gc.collect()."""

    def used(*modules):
        with bench.board("heap.py", *modules, heap="1m") as process:
            return int(process.read())

    base = used("asyncio", "socket", "ssl")  # what every board program has
    for what, modules, goal in _PARTS:
        yield limit_row(f"heap beyond asyncio, {what}", (used(*modules) - base) / _KB, base / _KB, goal, "KB", 1, 0.05)
    gateway = ("gateway", "smtp.listen", "smtp.relay", "smtp.server", "smtp.dns")
    alone = used(*gateway)
    for what, modules in (
        ("status service", ("status",)),
        ("status service while somebody asks", ("status", "web", "views")),
        ("SMTPUTF8 and its like on a listener", ("smtp.extra",)),
        ("an address in UTF-8", ("smtp.utf8",)),
        ("a mail that needs SMTPUTF8 or its like", ("smtp.onward",)),
        ("delivery by MX", ("hops", "smtp.mx")),
        ("LMTP to the next hop", ("hops", "smtp.lmtp")),
        ("LMTP on a listener", ("hops", "smtp.lmtpd")),
        ("ETRN", ("hops", "smtp.etrn")),
        ("ATRN for others", ("hops", "smtp.atrn")),
        ("ATRN to fetch mail", ("hops", "fetch")),
        ("ATRN to fetch mail, and orders by mail", ("hops", "fetch", "told", "limits")),
    ):
        loaded = used(*gateway, *modules)
        yield Row(
            f"heap, gateway with / without {what}", f"{loaded / _KB:,.1f} KB", f"{alone / _KB:,.1f} KB",
            f"+{(loaded - alone) / _KB:,.1f} KB",
        )  # fmt: skip
    with sink() as port, Gateway(bench, port, "1m", 1 << 20) as gateway:
        at_start = gateway.heap
    yield limit_row("heap, whole gateway at start / asyncio", at_start / _KB, base / _KB, None, "KB", 1)
    with sink() as port:
        whole = _board(bench, port, base)
    yield limit_row("heap, a board with all it may have / asyncio", whole / _KB, base / _KB, 200, "KB", 1)
