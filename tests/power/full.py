"""A queue in a flash that others have filled to the last block, while its mails change their state: full.py FIRST LAST

For each seed from FIRST to LAST: mails of any size, so many that their directory is in pieces; then others take all
there is, and what becomes of each mail is recorded. littlefs (2.9) loses a file whose rename leads from one piece of
its directory to another and fails for want of a block: the queue has to keep out of that. Prints how often it had to.
"""

import os
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path[:0] = [HERE + "/../portable", HERE + "/../../lib"]

import vfs  # noqa: E402
from nor import PAGE, Nor  # noqa: E402
from play import Random  # noqa: E402
from smtp.queue import Queue, QueueFull  # noqa: E402

ROOT = "/n"
RCPTS = 9


class Full:
    def __init__(self):
        self.flash = Nor(48)
        self.now = 0
        self.kept_out = 0

    def uptime(self):
        return self.now

    def mount(self):
        vfs.mount(vfs.VfsLfs2(self.flash, progsize=PAGE, readsize=PAGE), ROOT)

    def fill(self, leave):
        n = 0
        try:
            while True:
                with open(ROOT + "/data%d" % n, "wb") as f:
                    f.write(bytes(4096))
                n += 1
        except OSError:
            for _ in range(leave):
                n -= 1
                os.remove(ROOT + "/data%d" % n)

    def run(self, seed):
        random = Random(seed)
        random.below(1)
        self.flash.memory[:] = b"\xff" * len(self.flash.memory)
        vfs.VfsLfs2.mkfs(self.flash, progsize=PAGE, readsize=PAGE)
        self.mount()
        try:
            self.live(random)
        finally:
            vfs.umount(ROOT)

    def live(self, random):
        queue = Queue(ROOT + "/spool", 1 << 30, uptime=self.uptime, reserve=8192)
        size = random.choice((30, 100, 200, 300))
        there = {}
        for _ in range(10 + random.below(40)):
            meta = {"f": "a@example.com", "r": ["r%d@example.net" % i for i in range(RCPTS)]}
            try:
                there[queue.add(meta, [b"x" * (size + random.below(100))])] = True
            except QueueFull:
                break
        self.fill(random.below(4))
        for _ in range(random.below(100)):
            self.now += 1
            queue.recall()
            for _ in range(random.below(len(queue)) if len(queue) else 0):
                mail = queue.take()  # another one
            mail = queue.take() if len(queue) else None
            if mail is None:
                continue
            before = len(queue.unsaved)
            state = queue.state(mail.key)
            # One more is delivered or has failed for good.
            left = [i for i in range(RCPTS) if not (state[0] | state[1]) >> i & 1]
            who = 1 << random.choice(left)
            fails = random.below(4) == 0
            what = queue.settle(
                mail.key, RCPTS, 0 if fails else who, who if fails else 0, ["0 550 5.1.1 no such user"] * fails, 0,
                random.below(2) == 0, random.below(20) == 0, "kept")
            self.kept_out += len(queue.unsaved) > before
            if what == "gone":
                there.pop(mail.meta["i"])
            if random.below(30) == 0:
                vfs.umount(ROOT)
                self.mount()
                queue = Queue(ROOT + "/spool", 1 << 30, uptime=self.uptime, reserve=8192)
        vfs.umount(ROOT)
        self.mount()
        queue = Queue(ROOT + "/spool", 1 << 30, uptime=self.uptime, reserve=8192)
        found = {queue.open_letter(key)[0].meta["i"]: True for key, _, _ in queue.letters()}
        while True:
            mail = queue.take()
            if mail is None:
                break
            found[mail.meta["i"]] = True
        assert sorted(found) == sorted(there), "%d mails of %d" % (len(found), len(there))


def main(first, last):
    full = Full()
    for seed in range(int(first), int(last) + 1):
        try:
            full.run(seed)
        except BaseException:
            print("seed", seed)
            raise
    print("%d flashes filled to the last block, none lost a mail; %d times a state was not recorded" % (
        int(last) - int(first) + 1, full.kept_out))


if __name__ == "__main__":
    main(*sys.argv[1:])
