"""A virtual board from power on to its REPL. This runs on the unix port of MicroPython; virtual.py starts it:

    micropython -X heapsize=280k power.py IMAGE BLOCKS PLATFORM MACHINE SIMULATED WORLD main|raw

IMAGE is the flash, a littlefs of BLOCKS blocks of 4096 octets in pages of 256; SIMULATED the directory with the modules
machine, network and their like, which are told by the file WORLD what is around the board. What a board does is done:
boot.py and main.py of the flash are run, main.py not when the soft reset came from the raw REPL. What is left is the
REPL, in the globals of main.py. A mark on standard output says that the board is there, and another that the REPL comes
next. The computer's own files are not to be seen: whoever empties the board must not empty the computer.
"""


def _power_on():
    import os
    import sys
    import time
    from collections import namedtuple

    import vfs

    del globals()["_power_on"]
    image, blocks, platform, machine, simulated, world, then = sys.argv[1:]
    blocks = int(blocks)

    class Flash:
        def __init__(self):
            self.f = open(image, "r+b")

        def readblocks(self, n, buf, offset=0):
            self.f.seek(n * 4096 + offset)
            self.f.readinto(buf)

        def writeblocks(self, n, buf, offset=0):
            self.f.seek(n * 4096 + offset)
            self.f.write(buf)

        def ioctl(self, op, arg):
            if op == 3:
                self.f.flush()
            return {4: blocks, 5: 4096}.get(op, 0)

    class Sys:
        """sys as the board has it: lib and firmware/ look there for what they run on."""

        def __getattr__(self, name):
            return getattr(sys, name)

    flash = Flash()
    try:
        fs = vfs.VfsLfs2(flash, progsize=256, readsize=256)
    except OSError:  # empty: as the firmware of a board does at its first start
        vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256)
        fs = vfs.VfsLfs2(flash, progsize=256, readsize=256)
    sys.path[:] = [simulated, ".frozen"]
    import hardware

    host = vfs.VfsPosix(world.rsplit("/", 1)[0])
    hardware.reset("rp2" if platform == "rp2" else "esp32")
    hardware.open = lambda path, mode="r": host.open("/" + path.rsplit("/", 1)[1], mode)
    hardware.follow("/" + world.rsplit("/", 1)[1])
    for name in ("machine", "network", "onewire", "ds18x20", "dht") + (("esp32",) if platform == "esp32" else ()):
        __import__(name)
    sys.modules["soc"].open = hardware.open
    sys.modules["machine"].lightsleep = time.sleep_ms  # a test's takes no time
    vfs.umount("/")
    vfs.mount(fs, "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.argv[:] = [""]
    board = Sys()
    board.platform = platform
    kinds = ("name", "version", "_machine", "_mpy")
    of = sys.implementation
    board.implementation = namedtuple("implementation", kinds)(of.name, of.version, machine, getattr(of, "_mpy", 0))
    sys.modules["sys"] = board
    sys.stdout.write("\x1eon\x1e")
    names = ["boot.py", "main.py"][: 2 if then == "main" else 1]
    while names:
        try:
            name = names.pop(0)
            if name in os.listdir():
                execfile(name, globals())  # noqa: F821
        except (KeyboardInterrupt, Exception) as e:
            try:
                sys.print_exception(e)
            except KeyboardInterrupt:
                pass
    os.putenv("MICROPYINSPECT", "1")  # not with -i: then a reset in main.py would end in the REPL, too
    sys.stdout.write("\x1erepl\x1e")


_power_on()
