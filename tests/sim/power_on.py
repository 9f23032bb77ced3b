"""A simulated board from power on to its next reset, as a process of its own:

    micropython -X heapsize=256k power_on.py IMAGE FIRMWARE [FILE ...]

IMAGE is the flash, FIRMWARE the directory that host_tools/build.py makes, with the simulated modules in it, a path from
the root; it is mounted at /rom. Each FILE is copied to the top of the flash. What a board does is done: boot.py and
main.py are run, and what is left is the REPL, here lines on standard input until it ends. Exit status 3: the board has
been reset; 4: it is in deep sleep. The environment variables are those of hardware and soc.
"""

import os
import sys

import vfs

SIZE = 212 * 4096  # what a Pico W has for files


class Flash:
    def __init__(self, path):
        self.f = open(path, "r+b")

    def readblocks(self, n, buf, offset=0):
        self.f.seek(n * 4096 + offset)
        self.f.readinto(buf)

    def writeblocks(self, n, buf, offset=0):
        soc = sys.modules.get("soc")
        if soc:
            soc.writes += 1
        self.f.seek(n * 4096 + offset)
        self.f.write(buf)

    def ioctl(self, op, arg):
        if op == 3:
            self.f.flush()
        return {4: SIZE // 4096, 5: 4096}.get(op, 0)


def mount(image):
    try:
        os.stat(image)
    except OSError:
        with open(image, "wb") as f:
            for _ in range(SIZE // 4096):
                f.write(b"\xff" * 4096)
        flash = Flash(image)
        vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256)
        flash.f.close()
    fs = vfs.VfsLfs2(Flash(image), progsize=256, readsize=256)
    vfs.mount(vfs.VfsPosix(), "/host")
    vfs.umount("/")
    vfs.mount(fs, "/")


class Time:
    """The module time for the gateway's clock: sleep counts."""

    def __init__(self, soc):
        import time

        self.time_ns = lambda: time.time_ns() + soc.slept * 1000000
        self.time = lambda: time.time() + soc.slept // 1000
        self.ticks_ms = lambda: time.ticks_add(time.ticks_ms(), soc.slept)
        self.ticks_diff = time.ticks_diff
        self.gmtime = time.gmtime


def run(path):
    with open(path) as f:
        code = compile(f.read(), path, "exec")  # apart, or the text stays in memory
    exec(code, {"__name__": "__main__"})


def repl():
    print("sim: the REPL is there")
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        exec(line, {"__name__": "__main__"})
        print("sim: done")


def main(here, image, firmware, *files):
    mount(image)
    vfs.mount(vfs.VfsPosix(firmware), "/rom")
    sys.path[:] = ["/rom", ".frozen"]
    for file in files:
        with open("/host" + file) as f, open(file[file.rfind("/") :], "w") as g:
            g.write(f.read())
    import life

    life._PAUSE = 0  # nobody presses Ctrl-C
    life._PROFILES = {sys.platform: "esp32" if os.getenv("EDGEPOST_SIM_CHIP") == "esp32" else "pico_w"}
    if os.getenv("EDGEPOST_SIM_SLEEP"):
        import clock
        import machine  # noqa: F401 (makes a new board, and soc with it)
        import sleep
        import soc

        sleep._WINDOW = 1
        clock.time = Time(soc)
    try:
        for name in ("boot.py", "main.py"):
            run("/rom/" + name)
        repl()
    except SystemExit as e:
        print("sim: reset")
        vfs.umount("/")
        sys.exit(e.args[0] if e.args else 0)
    vfs.umount("/")


main(*sys.argv)
