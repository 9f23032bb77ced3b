"""Alerts without end through a flash of 256 KB, while the smart host is there half of the time: endless.py IMAGE COUNT

    micropython -X heapsize=448k endless.py /tmp/flash 100000

In virtual time: an alert every 45 s, of any size and priority; the smart host comes and goes each quarter of an hour.
Each alert has to arrive once and whole, in the order of its priority, and at the end heap and flash have to be as they
were at the start. The flash is a file, so that it takes nothing from the heap. Prints the figures.
"""

import gc
import os
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path[:0] = [HERE + "/../portable"]
sys.path += [HERE + "/../../firmware", HERE + "/../../lib"]  # behind MICROPYPATH, which may name a directory of .mpy

import vfs  # noqa: E402
from world import World, field, text  # noqa: E402

BLOCKS, BLOCK, PAGE = 64, 4096, 256
ROOT = "/n"
PRIORITIES = ("urgent", "normal", "low")
WARM = 500  # alerts after which all is loaded and all caches are full
QUARTER = 900
PARTS = 8  # after each of which is measured


class Image:
    """A flash in a file that counts."""

    dead = False

    def __init__(self, path):
        with open(path, "wb") as f:
            for _ in range(BLOCKS):
                f.write(b"\xff" * BLOCK)
        self.f = open(path, "r+b")
        self.wear = [0] * BLOCKS
        self.programmed = 0

    def readblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.readinto(buf)

    def writeblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.write(buf)
        self.programmed += len(buf)

    def ioctl(self, op, arg):
        if op == 6:
            self.wear[arg] += 1
        return {4: BLOCKS, 5: BLOCK}.get(op, 0)


class Endless(World):
    """Keeps no facts, but counts."""

    def __init__(self, path, flash):
        World.__init__(self, path, flash, log=lambda line: None)
        self.last = [-1, -1, -1]
        self.taken = 0
        self.most = 0

    def fact(self, what, *more):
        if what in ("wrong", "broke"):
            raise AssertionError(more)

    def open(self, *how):
        return open(*how)

    def took(self, host, envelope, data):
        subject, _, name = field(data, b"Subject").partition(" ")
        number, priority = int(subject) // 3, int(subject) % 3
        assert data.endswith(b"\r\n\r\n" + text(name)), data
        assert number > self.last[priority], "%d came behind %d" % (number, self.last[priority])
        self.last[priority] = number
        self.taken += 1

    async def live(self, first, count):
        host = self.hosts[0]
        dice = self.dice
        for n in range(first, first + count):
            priority = (1, 1, 2, 0)[dice.below(4)]
            name = "x-%d" % (50 + dice.below(400))
            self.raise_alert(n, priority, name)
            self.most = max(self.most, len(self.queue))
            await self.sleep(20 + dice.below(50))
            host.up = self.clock.uptime() // QUARTER % 2 == 0
        host.up = True
        await self.drain()

    def raise_alert(self, n, priority, name):
        import gateway

        short = text(name).decode().replace("\r\n", "\n")[:-1]
        gateway.alert("%d %s" % (3 * n + priority, name), short, ["oncall@example.net"], PRIORITIES[priority])


def measure():
    """Octets of heap in use, those of its largest free piece, free blocks of the flash."""
    gc.collect()
    used = gc.mem_alloc()
    size = gc.mem_free()
    step = size // 64
    while size > 0:
        try:
            bytearray(size)
            break
        except MemoryError:
            size -= step
    gc.collect()
    return used, size, os.statvfs(ROOT)[3]


def main(path, count):
    count = int(count) // PARTS * PARTS
    flash = Image(path)
    vfs.VfsLfs2.mkfs(flash, progsize=PAGE, readsize=PAGE)
    vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), ROOT)
    world = Endless(ROOT + "/spool", flash)
    figures = []

    async def story():
        await world.live(0, WARM)
        figures.append(measure())
        for n in range(PARTS):
            await world.live(WARM + n * (count // PARTS), count // PARTS)
            figures.append(measure())

    world.run(story())
    heap, _, blocks = figures[0]
    heap_after, _, blocks_after = figures[-1]
    pieces = [figure[1] for figure in figures[1:]]
    first, last = max(pieces[: PARTS // 2]), max(pieces[PARTS // 2 :])
    assert world.taken == WARM + count, "%d of %d came" % (world.taken, WARM + count)
    assert os.listdir(ROOT + "/spool") == []
    vfs.umount(ROOT)
    print("%d alerts, all came once and in order, %d waited at most; %d days" % (
        count, world.most, world.clock.uptime() // 86400))
    print("heap: %d octets in use before, %d after; the largest free piece %s" % (
        heap, heap_after, ", ".join(str(piece) for piece in pieces)))
    print("flash: %d blocks of %d free before, %d after; %d octets programmed and %.2f erases an alert; a block was "
          "erased %d to %d times" % (blocks, BLOCKS, blocks_after, flash.programmed // (WARM + count),
                              sum(flash.wear) / (WARM + count), min(flash.wear), max(flash.wear)))
    assert heap_after <= heap + 1024, "the heap has grown"
    # It goes up and down between 16 and 48 KB with what happens to lie where; what counts is that it does not go down.
    assert last >= first // 2, "the heap is in pieces"
    assert blocks_after >= blocks, "the flash has shrunk"


if __name__ == "__main__":
    main(*sys.argv[1:])
