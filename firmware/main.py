"""What a board runs after boot.py: the gateway, out of /a.pack or /b.pack. What is in a pack: host_tools/pack.py.

/slot.json says which runs, and whether there is a new one to be tried, which is trial.py's work. Without it the gateway
is frozen into the firmware, or lies in flash as it is. Nothing rolls this file back: it stays small.
"""

import json
import sys
from binascii import crc32

import vfs


class Pack:
    """A pack as a file system that modules are imported from. Its table stays in memory, 8 octets for each path: CRC-32
    of it, and where it is; 0: a directory."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.table = f.read(int(f.readline().split()[2]))

    def find(self, path):
        key = crc32(path.encode()).to_bytes(4, "little")
        i = self.table.find(key)
        while i >= 0 and i & 7:
            i = self.table.find(key, i + 1)
        if i < 0:
            raise OSError(2)
        return int.from_bytes(self.table[i + 4 : i + 8], "little")

    def mount(self, readonly, mkfs):
        pass

    def umount(self):
        pass

    def stat(self, path):
        return (0x8000 if self.find(path) else 0x4000,) + (0,) * 9

    def open(self, path, mode):
        at = self.find(path)
        f = open(self.path, "rb")
        try:
            f.seek(at)
            size = int.from_bytes(f.read(4), "little")
        except OSError:
            f.close()
            raise
        if path[-4:] == ".mpy":
            return f  # it says itself where it ends
        import io

        with f:
            return io.BytesIO(f.read(size))


def mount(slot):
    try:
        vfs.umount("/app")
    except OSError:
        pass
    vfs.mount(Pack("/%s.pack" % slot), "/app")


try:
    with open("/slot.json") as f:
        state = json.load(f)
    mount(state["run"])
    sys.path.insert(0, "/app")
except (OSError, ValueError, KeyError, TypeError):
    state = ()
if "new" in state:
    import trial

    trial.start(state, mount)
else:
    import life

    life.main()
