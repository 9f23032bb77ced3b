"""A NOR flash for littlefs, as a board has it: pages, erase blocks, and power that goes in the middle of an operation.

    flash = Nor(64)                       64 blocks, all erased
    vfs.VfsLfs2.mkfs(flash, progsize=flash.PAGE, readsize=flash.PAGE)
    flash.cut_at = flash.ops + 7          the seventh operation from here is the last, and is not finished
    flash = flash.power()                 the power is back: the same memory

An operation is the programming of a page or the erasure of a block; reading does not count. A page must be erased when
it is programmed (NOR clears bits, only an erasure sets them): one that was not is a fault of the file system, it is
counted in `faults`, and the memory holds what a real one would. An operation that is cut leaves a torn page or a block
of garbage, the same ones for the same `seed`. From then on each operation fails with EIO and changes nothing.

The methods give a number instead of raising: littlefs is C, and what is thrown through it leaves its state half
changed. What a dead device does takes no memory, so it may even be asked by the finaliser of a forgotten file.

May use: play's Random.
"""

from array import array

from play import Random

BLOCK = 4096
PAGE = 256
_EIO = -5
_ERASED = b"\xff" * PAGE


def _make_noise():
    random = Random(20261122)
    noise = bytearray(3 * BLOCK)
    for i in range(len(noise)):
        noise[i] = random.below(256)
    return noise


_NOISE = _make_noise()


class Nor:
    """ops, programmed, erases: operations, octets programmed, blocks erased since the power is there; wear: how often
    each block was erased in its life. watch: None, or called with ("page", at, data) or ("erase", at, None) before each
    operation, at: where in `memory`.
    """

    PAGE = PAGE

    def __init__(self, blocks, seed=1, memory=None, wear=None):
        self.blocks = blocks
        self.seed = seed
        self.memory = memory or memoryview(bytearray(_ERASED * (blocks * BLOCK // PAGE)))
        self.wear = wear or array("H", bytes(2 * blocks))
        self.ops = self.programmed = self.erases = self.faults = 0
        self.cut_at = 0
        self.dead = False
        self.watch = None

    def power(self, seed=None):
        """The same memory when the power is back. The old device stays dead."""
        self.dead = True
        return Nor(self.blocks, seed or self.seed + 1, self.memory, self.wear)

    # -- what littlefs asks for

    def readblocks(self, n, buf, offset=0):
        if self.dead:
            return _EIO
        at = n * BLOCK + offset
        buf[:] = self.memory[at : at + len(buf)]
        return 0

    def writeblocks(self, n, buf, offset=0):
        if self.dead:
            return _EIO
        at = n * BLOCK + offset
        for lo in range(0, len(buf), PAGE):
            if not self.begin("page", at + lo, bytes(buf[lo : lo + PAGE])):
                return _EIO
        return 0

    def ioctl(self, op, arg):
        if op == 4:
            return self.blocks
        if op == 5:
            return BLOCK
        if op == 6 and (self.dead or not self.begin("erase", arg * BLOCK, None)):
            return _EIO
        return 0

    # -- what happens

    def begin(self, kind, at, data):
        """Counts an operation and does it. False when the power went."""
        if self.watch:
            self.watch(kind, at, data)
        self.ops += 1
        if self.ops == self.cut_at:
            self.tear(kind, at, data)
            self.dead = True
            return False
        self.do(kind, at, data)
        return True

    def do(self, kind, at, data):
        memory = self.memory
        if kind == "erase":
            self.erases += 1
            self.wear[at // BLOCK] += 1
            for lo in range(at, at + BLOCK, PAGE):
                memory[lo : lo + PAGE] = _ERASED
            return
        self.programmed += len(data)
        if memory[at : at + len(data)] != _ERASED:
            self.faults += 1
            data = bytes([a & b for a, b in zip(memory[at : at + len(data)], data)])
        memory[at : at + len(data)] = data

    def tear(self, kind, at, data):
        """What an operation leaves that is cut."""
        random = Random(self.seed * 7919 + at + self.ops)
        random.below(1)
        memory = self.memory
        much = random.below(8)  # one time in eight nothing has happened yet, in another all has
        if kind == "erase":
            # Behind `hi` nothing has happened yet, before `lo` all is erased, between them the bits are on their way.
            lo, hi = sorted((random.below(BLOCK + 1), random.below(BLOCK + 1)))
            if much < 2:
                lo = hi = (0, BLOCK)[much]
            elif much < 4:
                lo, hi = 0, BLOCK
            memory[at : at + lo] = b"\xff" * lo
            start = random.below(2 * BLOCK)
            memory[at + lo : at + hi] = _NOISE[start : start + hi - lo]
            return
        n = (0, PAGE)[much] if much < 2 else random.below(PAGE)
        torn = data[:n]
        if much > 1:
            torn += bytes([data[n] | random.below(256)])  # some of its bits are not cleared yet
        for i in range(len(torn)):
            memory[at + i] &= torn[i]
