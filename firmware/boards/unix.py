"""Board profile (see board.py) of the unix port: a littlefs image in a file is the flash, standard input is the power
switch.

    micropython -X heapsize=256k FIRMWARE/boards/unix.py IMAGE CONFIG

IMAGE is made when it is missing (EDGEPOST_FLASH_SIZE octets, 1 MiB by default); EDGEPOST_ADDRESS is this computer's
address; EDGEPOST_SIM a directory with a simulated `machine` and its like, for tests (tests/sim). CONFIG is copied to
/config.json in it. The flash is mounted at / as on a board, the computer's own files at /host. The gateway stops,
between two flash operations, when standard input ends. Exit status 2 and one line on standard error say why it could
not start.
"""

import gc
import os
import sys
from asyncio import core

import vfs

BLOCK = 4096
PAGE = 256  # octets that are programmed at once, as on a Pico W
MAX_SESSIONS = 32  # or fewer, as many as the heap holds
SESSION = 4608  # octets of heap for a session that takes a mail in, and its buffer
OWN = 65536  # octets of heap for relay, sensors and the gaps between all that
BACKLOG = 128
BUFFER = 4096  # a quarter where memory is short
TLS_SLOTS = 16  # TLS sessions at a time
BARE = False  # the computer looks after its network, clock and crashes


class Flash:
    """A block device for littlefs in a file."""

    def __init__(self, path):
        self.f = open(path, "r+b")
        self.count = self.f.seek(0, 2) // BLOCK

    def readblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.readinto(buf)

    def writeblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.write(buf)

    def ioctl(self, op, arg):
        if op == 4:
            return self.count
        if op == 5:
            return BLOCK
        if op == 3:
            self.f.flush()  # fsync: a mail that was accepted survives the computer, too
        return 0


def fail(text):
    sys.stderr.write("edgepost: " + text + "\n")
    sys.exit(2)


def exists(path):
    try:
        return os.stat(path)[6] > 0
    except OSError:
        return False


def mount(image, size):
    """Mounts the image at /, and what was there at /host."""
    if not exists(image):
        new = image + ".new"
        with open(new, "wb") as f:
            for _ in range(max(size // BLOCK, 16)):
                f.write(b"\xff" * BLOCK)
        flash = Flash(new)
        vfs.VfsLfs2.mkfs(flash, progsize=PAGE, readsize=PAGE)
        flash.f.close()
        os.rename(new, image)
    flash = Flash(image)
    try:
        if not flash.count:
            raise OSError(22)
        # Reading more at once triples the rate of mails where there is memory for it, 4 KB for each open file.
        fs = vfs.VfsLfs2(flash, progsize=PAGE, readsize=4 * PAGE if gc.mem_free() > 524288 else PAGE)
    except OSError as e:
        fail("the flash image %s is damaged (error %s). The mail in it cannot be read: move the file away "
             "and start again with an empty one" % (image, e.args[0]))
    vfs.mount(vfs.VfsPosix(), "/host")
    vfs.umount("/")
    vfs.mount(fs, "/")


def install(config):
    """Copies the configuration into the flash when it is another one."""
    with open("/host" + config, "rb") as f:
        new = f.read()
    try:
        with open("/config.json", "rb") as f:
            if f.read() == new:
                return
    except OSError:
        pass
    with open("/config.new", "wb") as f:
        f.write(new)
    os.rename("/config.new", "/config.json")


def address():
    """The IP address under which others know this gateway."""
    return os.getenv("EDGEPOST_ADDRESS") or "127.0.0.1"


def nameservers():
    """The name servers of this computer."""
    import names

    return names.nameservers("/host/etc/resolv.conf")


def hosts(name):
    """The addresses of a name in this computer's own table."""
    import names

    return names.hosts(name, "/host/etc/hosts")


def path(name):
    """Where a file that the configuration names is found."""
    return "/host" + name


def _readable(f):
    yield core._io_queue.queue_read(f)


async def stopped():
    """Returns when the gateway shall stop."""
    while True:
        await _readable(sys.stdin)
        if not sys.stdin.buffer.read(1):
            return


def main(argv):
    if len(argv) < 3:
        fail("usage: micropython unix.py IMAGE CONFIG")
    here = argv[0].rsplit("/", 2)[0]
    # Collected only when it is full, the heap becomes a checkerboard: what lives long lies between the holes that the
    # garbage of its start has left.
    gc.threshold(4096)
    mount(argv[1], int(os.getenv("EDGEPOST_FLASH_SIZE") or 1048576))
    sys.path[:] = ["/host" + here, ".frozen"]
    if os.getenv("EDGEPOST_SIM"):  # a test's simulated machine
        sys.path.insert(0, "/host" + os.getenv("EDGEPOST_SIM"))
    try:
        install(argv[2])
    except OSError as e:
        fail("cannot copy the configuration into the flash (error %s)" % e.args[0])
    import gateway
    from smtp import relay  # noqa: F401 (its part of the heap does not count below)

    import __main__

    global MAX_SESSIONS, BUFFER
    try:
        if gateway.listens(gateway.read_config()):
            from smtp import listen, server  # noqa: F401 (nor theirs)
    except (gateway.Unusable, KeyError, TypeError):
        pass  # run() says so
    gc.collect()
    if gc.mem_free() < 262144:
        BUFFER = 1024
    else:
        gc.threshold(gc.mem_free() // 8)
    MAX_SESSIONS = max(4, min(MAX_SESSIONS, (gc.mem_free() - OWN) // (SESSION + BUFFER)))

    try:
        gateway.run(__main__)
    except gateway.Unusable as e:
        fail(str(e))
    vfs.umount("/")


main(sys.argv)
