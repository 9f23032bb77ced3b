"""A littlefs in RAM, on a block device that counts what a flash would do."""

import vfs

BLOCK = 4096
PAGE = 256  # octets that are programmed at once, as on a Pico W


class Ram:
    """A block device: `programmed` octets and `erases` of whole blocks since it was made."""

    def __init__(self, blocks):
        self.count = blocks
        self.data = memoryview(bytearray(blocks * BLOCK))
        self.programmed = self.erases = 0

    def readblocks(self, n, buf, offset=0):
        at = n * BLOCK + offset
        buf[:] = self.data[at : at + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        at = n * BLOCK + offset
        self.data[at : at + len(buf)] = buf
        self.programmed += len(buf)

    def ioctl(self, op, arg):
        if op == 4:
            return self.count
        if op == 5:
            return BLOCK
        if op == 6:
            self.erases += 1
        return 0


def mount(blocks, where="/flash", read=PAGE):
    """Makes a file system of so many blocks and mounts it; gives its block device."""
    ram = Ram(blocks)
    vfs.VfsLfs2.mkfs(ram, progsize=PAGE, readsize=PAGE)
    vfs.mount(vfs.VfsLfs2(ram, progsize=PAGE, readsize=read), where)
    return ram
