"""Runs the real firmware through a script (see script.py) on a simulated board, in virtual time:

    micropython -X heapsize=16m live.py SCRIPT CONFIG FIRMWARE [--break WHAT]

FIRMWARE: a directory as host_tools/build.py makes it. Each start of the board is life.main() with modules of its own on
what the flash holds. Facts and the board's log go to standard output, see outside.py. --break: the gateway is broken on
purpose: "alert", one alert in four of the door is lost.
"""

import asyncio
import gc
import json
import os
import random
import sys
from asyncio import core

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
if HERE[:1] != "/":
    HERE = os.getcwd() + "/" + HERE


def absolute(path):
    return path if path[:1] == "/" else os.getcwd() + "/" + path


SCRIPT, CONFIG, FIRMWARE = [absolute(path) for path in sys.argv[1:4]]
BROKEN = sys.argv[5] if len(sys.argv) > 5 else ""
PATHS = [HERE, HERE + "/../portable", HERE + "/../sim", FIRMWARE]
sys.path[:] = PATHS + [".frozen"]

# Also what the firmware finds in sys.modules is its own from here on: it is forgotten at each start.
import hardware  # noqa: E402
import vfs  # noqa: E402
from outside import RTC, VALID, Bitten, End, Outside, PowerCut, now  # noqa: E402

OURS = ("hardware", "outside", "nor", "virtualtime", "world", "play", "time", "socket", "hooks", "__main__", "vfs")
LATE = 1 << 29  # ms: so many ticks are left until they wrap, at some starts


def forget():
    for name in list(sys.modules):
        first = name.split(".")[0]
        if first not in OURS and first != "asyncio":
            del sys.modules[name]


class Hooks:
    """The module that the user's own function on the board asks."""

    def __init__(self, out):
        self.out = out

    def pump(self):
        if self.out.hang == "loop":
            while True:
                sys.modules["time"].sleep(1)
        if self.out.hang == "rule":
            return self.deaf()
        return 1

    async def deaf(self):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass


USER = "import hooks\n\ndef pump():\n    return hooks.pump()\n"


def mount(flash):
    vfs.umount("/")
    vfs.mount(vfs.VfsLfs2(flash, progsize=flash.PAGE, readsize=flash.PAGE), "/")
    os.chdir("/")


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def spool():
    try:
        return sorted([n for n in os.listdir("/spool")])
    except OSError:
        return []


def prepare(out, cause, seed):
    """What a board finds around it when it starts."""
    out.close_files()
    forget()
    gc.collect()
    core.new_event_loop()
    core._io_queue = out.io
    out.origin = now[0] - (random.getrandbits(29) if random.getrandbits(2) else LATE * 2 - 7200000)
    if cause == "power on":
        out.rtc = RTC * 1000 - now[0]
    hardware.reset("rp2")
    hardware.ticks = lambda: now[0]
    out.wire()
    import soc

    soc.cause = cause
    watch(out, soc)
    import network  # noqa: F401

    out.sky()
    import sensors

    observe(out, sensors)
    from smtp import relay

    certify(out, relay)
    import watch as dog

    dog._FEED = 3  # nothing blocks here but sleep(), and most of what happens in a month is this
    if BROKEN == "alert":
        lose(out)
    random.seed(seed)


def watch(out, soc):
    class WDT:
        def __init__(self, id=0, timeout=5000):
            assert 0 < timeout <= 8388
            out.patience = timeout
            self.feed()
            out.io.limit = 0

        def feed(self):
            out.fed = now[0]

    real = soc.RTC.datetime

    def datetime(self, when=None):
        real(self, when)
        out.rtc = soc.rtc * 1000 - now[0]

    soc.WDT = WDT
    soc.RTC.datetime = datetime


def observe(out, sensors):
    real = sensors.Rule.read

    async def read(self):
        try:
            value = await real(self)
        except Exception as e:
            out.power()
            out.fact("sample", self.name, None, str(e))
            raise
        out.power()
        out.fact("sample", self.name, value, None)
        return value

    sensors.Rule.read = read


def certify(out, relay):
    """Stands for TLS: the certificate of the smart host is checked by the system's clock."""
    real = relay.open_session

    async def open_session(*how, **named):
        if sys.modules["time"].time() < VALID:
            raise relay.SessionError("tls future", "the certificate is not valid yet")
        return await real(*how, **named)

    relay.open_session = open_session


def lose(out):
    import gateway

    real = gateway.alert
    count = [0]

    def alert(subject, *more, **named):
        if subject.startswith("door"):
            count[0] += 1
            if count[0] % 4 == 1:
                return "lost"
        return real(subject, *more, **named)

    gateway.alert = alert


def start(out, cause, seed):
    """From power on until the board ends, or is ended; gives the cause of the next start."""
    out.fact("boot", cause, json.loads(read("/rules.json") or "{}"), spool())
    try:
        prepare(out, cause, seed)
        import life

        life.main()
    except PowerCut:
        out.fact("cut")
        return "power on"
    except Bitten:
        out.fact("bite", json.loads(read("/crash.json") or "{}").get("why", ""))
        return "watchdog"
    except SystemExit:
        out.fact("reset", json.loads(read("/crash.json") or "{}").get("why", ""))
        return "reset"
    out.fact("wrong", "the board does not start the gateway again")
    raise End


def idle(out, seconds):
    """Time goes by while the board has no power."""
    out.flash.dead = True
    end = now[0] + 1000 * seconds
    while now[0] < end:
        try:
            out.io.pass_time(end - now[0])
        except PowerCut:
            pass


def main():
    with open(SCRIPT) as f:
        lines = [line.strip() for line in f if line.strip() and line[0] != "#"]
    seed = 1
    if lines[0].startswith("seed"):
        seed = int(lines.pop(0).split()[1])
    with open(CONFIG) as f:
        config = f.read()
    out = Outside(lines, seed=seed)
    sys.modules["hooks"] = Hooks(out)
    out.install()
    vfs.VfsLfs2.mkfs(out.flash, progsize=256, readsize=256)
    vfs.mount(vfs.VfsPosix(), "/host")
    sys.path[:] = ["/host" + path for path in PATHS] + [".frozen"]
    mount(out.flash)
    for path, text in (("/config.json", config), ("/user.py", USER)):
        with open(path, "w") as f:
            f.write(text)
    random.seed(seed)
    cause = "power on"
    starts = 0
    try:
        while True:
            cause = start(out, cause, seed * 1000 + starts)
            starts += 1
            out.unplug()
            if hardware.misused:
                out.fact("wrong", "misused: %s" % hardware.misused)
            if out.flash.faults and not out.flash.failed:  # after a failed write littlefs finds out and goes elsewhere
                out.fact("wrong", "%d pages were programmed twice" % out.flash.faults)
            if cause == "power on":
                idle(out, out.off)
            flash = out.flash
            out.flash = flash.power()
            out.close_files()
            mount(out.flash)
    except End:
        out.fact("end", spool(), starts)
    out.close_files()
    sys.stdout.flush() if hasattr(sys.stdout, "flush") else None


main()
