"""Cuts the power at each flash operation of a story, boots again, lets it finish, and asks which promises were kept:

    micropython -X heapsize=4m cuts.py STORY [--part N/M] [--seed N] [--twice N] [--only N] [-v]

A story runs once, to its end; each operation on the flash is taken down with what the neighbours knew then. So for each
operation there is a flash on which it was the last and was not finished. On that the gateway boots again, with smart
hosts that work. `--twice N`: in so many samples the power goes a second time while it recovers. Prints one line of
figures; stops with the first promise that was broken.
"""

import gc
import os
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path[:0] = [HERE + "/../portable", HERE + "/../../firmware", HERE + "/../../lib", HERE]

import stories  # noqa: E402
import vfs  # noqa: E402
from nor import BLOCK, PAGE, Nor  # noqa: E402
from oracle import judge, letters  # noqa: E402
from play import Random  # noqa: E402
from world import NOON, PowerCut, World  # noqa: E402

_LIVE = 40  # one in so many cuts happens to a running gateway, to see that it makes no difference
# Three images of the flash, now, while there is memory in one piece.
_IMAGES = [memoryview(bytearray(64 * BLOCK)) for _ in range(3)]
ROOT = "/n"
SPOOL = ROOT + "/spool"


def mount(flash, read=PAGE):
    vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=read), ROOT)


def free():
    return os.statvfs(ROOT)[3]


class Cuts:
    def __init__(self, story, seed=1):
        self.story = story
        self.seed = seed
        self.cuts = self.copies = self.with_copies = self.worst = self.seconds = 0
        self.ops = self.erases = self.took = 0
        size = story.blocks * BLOCK
        self.start, self.rolling, self.scratch = [Nor(story.blocks, seed, memory[:size]) for memory in _IMAGES]
        for at in range(0, size, BLOCK):
            self.scratch.do("erase", at, None)

    def record(self):
        """The story without a cut: [(kind, at, data, facts known)], the flash before it, facts."""
        flash = self.scratch
        vfs.VfsLfs2.mkfs(flash, progsize=PAGE, readsize=PAGE)
        mount(flash)
        self.story.prepare(ROOT)
        os.mkdir(SPOOL)
        self.free = free()
        vfs.umount(ROOT)
        self.start.memory[:] = self.rolling.memory[:] = flash.memory
        mount(flash)
        tape = []
        world = self.last = self.world(flash, [])
        flash.watch = lambda kind, at, data: tape.append((kind, at, data, len(world.facts)))
        try:
            world.run(self.story.run(world))
            flash.watch = None
            self.check(world, flash)
        finally:
            vfs.umount(ROOT)
        self.facts = world.facts
        self.ops = len(tape)
        self.erases = sum([1 for t in tape if t[0] == "erase"])
        return tape

    def world(self, flash, facts, epoch=NOON):
        return World(SPOOL, flash, facts=facts, epoch=epoch, seed=self.seed + 1000 * len(facts), **self.story.settings)

    def check(self, world, flash):
        """All promises, when nothing waits any more."""
        self.last = world
        assert flash.faults == 0, "%d pages were programmed twice" % flash.faults
        left = letters(SPOOL)
        copies = judge(world.facts, left, self.story)
        for name in os.listdir(SPOOL):
            os.remove(SPOOL + "/" + name)
        assert free() >= self.free, "%d blocks are lost" % (self.free - free())
        return copies

    def recover(self, flash, facts, cut_at=0):
        """Boots and finishes; the copies it took, or None when the power went once more."""
        flash.cut_at = cut_at
        world = self.last = self.world(flash, facts, NOON + 7200)
        world.patient = True
        mount(flash, 4 * PAGE)  # as a board with memory does it; it takes half the time
        try:
            world.run(self.story.finish(world))
            flash.cut_at = 0
            copies = self.check(world, flash)
        except PowerCut:
            copies = None
        finally:
            vfs.umount(ROOT)
        return copies

    def run(self, part=0, parts=1, twice=0, only=None):
        tape = self.record()
        random = Random(self.seed + part)
        chances = twice and max(1, len(tape) // parts // twice)
        for n, (kind, at, data, known) in enumerate(tape):
            if n == only or only is None and n % parts == part:
                self.cut(n, *self.torn(n, kind, at, data, known), 0)
                if twice and self.took and random.below(chances) == 0:
                    # How many operations the recovery takes is known from the one before.
                    self.cut(n, *self.torn(n, kind, at, data, known), 1 + random.below(self.took))
                if random.below(_LIVE) == 0:
                    self.cut(n, *self.live(n), 0)
            self.rolling.do(kind, at, data)

    def live(self, n):
        """The flash and the facts after a cut at operation `n` as it happens, to a running gateway."""
        flash = self.scratch
        flash.memory[:] = self.start.memory
        flash = flash.power(self.seed)
        flash.cut_at = n + 1
        mount(flash)
        world = self.last = self.world(flash, [])
        try:
            world.run(self.story.run(world))
        except PowerCut:
            pass
        finally:
            vfs.umount(ROOT)
        assert flash.dead, "the story has fewer operations this time"
        return flash, world.facts

    def torn(self, n, kind, at, data, known):
        """The same as the tape has it, without running it again."""
        flash = self.scratch
        flash.memory[:] = self.rolling.memory
        flash.ops = n + 1
        flash.tear(kind, at, data)
        return flash, self.facts[:known]

    def cut(self, n, flash, facts, second):
        """Recovers from a cut; `second`: the operation of that at which the power goes once more, or 0."""
        facts.append(("cut",))
        try:
            flash = flash.power()
            copies = self.recover(flash, facts, second)
            if copies is None:
                self.seconds += 1
                flash = flash.power()
                facts.append(("cut",))
                copies = self.recover(flash, facts)
            elif not second:
                self.took = flash.ops
        except BaseException:
            print("story %s, seed %d, power cut at operation %d of %d%s" % (
                type(self.story).__name__, self.seed, n, self.ops, ", again at %d" % second if second else ""))
            raise
        self.cuts += 1
        self.copies += copies
        self.with_copies += copies > 0
        self.worst = max(self.worst, copies)


def main(argv):
    options = {"--part": "0/1", "--seed": "1", "--twice": "0", "--only": ""}
    names = []
    verbose = False
    while argv:
        word = argv.pop(0)
        if word in options:
            options[word] = argv.pop(0)
        elif word == "-v":
            verbose = True
        else:
            names.append(word)
    part, parts = map(int, options["--part"].split("/"))
    for name in names:
        cuts = Cuts(getattr(stories, name)(), int(options["--seed"]))
        try:
            cuts.run(part, parts, int(options["--twice"]), int(options["--only"]) if options["--only"] else None)
        except BaseException:
            for fact in cuts.last.facts if verbose else ():
                print("   ", *fact)
            for line in cuts.last.lines if verbose else ():
                print("   ", line)
            raise
        print("%s: %d operations, %d erases; %d cuts, %d of them followed by another; %d cuts made copies, %d in all, "
              "%d at most" % (name, cuts.ops, cuts.erases, cuts.cuts, cuts.seconds, cuts.with_copies, cuts.copies,
                              cuts.worst))
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
