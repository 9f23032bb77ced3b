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

    def __init__(self, slot):
        self.path = "/%s.pack" % slot
        with open(self.path, "rb") as f:
            self.table = f.read(int(f.readline().split()[2]))

    def find(self, path):
        key = crc32(path.encode()).to_bytes(4, "little")
        i = self.table.find(key)
        while i & 7:  # across two entries, or -1
            if i < 0:
                raise OSError(2)
            i = self.table.find(key, i + 1)
        return int.from_bytes(self.table[i + 4 : i + 8], "little")

    def mount(self, *how):
        pass

    umount = mount

    def stat(self, path):
        return (0x8000 if self.find(path) else 0x4000,) * 10

    def open(self, path, mode):
        at = self.find(path)
        f = open(self.path, "rb")
        try:
            f.seek(at)
            size = int.from_bytes(f.read(4), "little")
            if path[-3:] == ".py":  # ends where its file ends; an .mpy says so itself
                import io

                data = io.BytesIO(f.read(size))
                f.close()
                return data
            return f
        except OSError:
            f.close()
            raise


try:
    with open("/slot.json") as f:
        state = json.load(f)
    vfs.mount(Pack(state["run"]), "/app")
    sys.path.insert(0, "/app")
except (OSError, ValueError, KeyError, TypeError):
    state = ()
f = None  # it has a buffer
if "new" in state:
    import trial

    trial.start(state, Pack)
else:
    import life

    life.main()
