"""A spool with many mails in a flash image of 5 MB: spool.py fill IMAGE COUNT, spool.py start IMAGE

`fill` makes it, of alerts of 300 octets. `start` prints milliseconds until a queue knows them all, octets of heap for
each but the first, and the milliseconds that one of them takes from the queue to its removal when all are delivered.
"""

import gc
import sys
import time

import vfs
from ram import BLOCK, PAGE
from smtp.queue import Queue

LIMITS = (4 << 20, 5000)


class Image:
    """A block device in a file, as boards/unix.py has it."""

    def __init__(self, path, mode):
        self.f = open(path, mode)
        if mode == "w+b":
            for _ in range(1280):
                self.f.write(b"\xff" * BLOCK)
        self.count = self.f.seek(0, 2) // BLOCK

    def readblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.readinto(buf)

    def writeblocks(self, n, buf, offset=0):
        self.f.seek(n * BLOCK + offset)
        self.f.write(buf)

    def ioctl(self, op, arg):
        return {4: self.count, 5: BLOCK}.get(op, 0)


def ms(function, *args):
    start = time.ticks_us()
    result = function(*args)
    return time.ticks_diff(time.ticks_us(), start) / 1000, result


def heap():
    gc.collect()
    return gc.mem_alloc()


def fill(image, count):
    flash = Image(image, "w+b")
    vfs.VfsLfs2.mkfs(flash, progsize=PAGE, readsize=PAGE)
    vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/flash")
    meta = {"f": "cold-store@example.com", "r": ["oncall@example.com"], "t": 1800000000, "u": 1000}
    for path, n in (("/flash/one", 1), ("/flash/spool", count)):
        queue = Queue(path, *LIMITS)
        for _ in range(n):
            queue.add(meta, [b"x" * 62 + b"\r\n"] * 4 + [b"x" * 42 + b"\r\n"])
    vfs.umount("/flash")
    flash.f.close()
    print(queue.used)


def deliver(queue):
    buf = bytearray(512)
    while len(queue):
        mail = queue.take()
        while mail.read(buf):
            pass
        queue.settle(mail.key, 1, 1, 0)


def start(image):
    flash = Image(image, "r+b")
    vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/flash")
    base = heap()
    one = Queue("/flash/one", *LIMITS)
    one = heap() - base
    base = heap()
    took, queue = ms(Queue, "/flash/spool", *LIMITS)
    many = heap() - base
    count = len(queue)
    each = ms(deliver, queue)[0] / count
    print(took, (many - one) / (count - 1), each)
    vfs.umount("/flash")


if sys.argv[1] == "fill":
    fill(sys.argv[2], int(sys.argv[3]))
else:
    start(sys.argv[2])
