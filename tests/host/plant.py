"""Puts files into the flash of a virtual board while it is off: {path: bytes, or a Path}."""

import json
import subprocess

from edgepost import build, unix

_CODE = """
import json, os, sys, vfs
image, blocks, list = sys.argv[1:]
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
        return {4: int(blocks), 5: 4096}.get(op, 0)
with open(list) as f:
    files = json.load(f)
flash = Flash()
try:
    fs = vfs.VfsLfs2(flash, progsize=256, readsize=256)
except OSError:
    vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256)
    fs = vfs.VfsLfs2(flash, progsize=256, readsize=256)
vfs.mount(fs, "/flash")
for path, source in files:
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir("/flash" + path[:at])
        except OSError:
            pass
        at = path.find("/", at + 1)
    with open(source, "rb") as f, open("/flash" + path, "wb") as g:
        g.write(f.read())
vfs.umount("/flash")
flash.f.close()
"""


def plant(board, files, work):
    """`board`: a VirtualBoard that is off; `work`: an empty directory."""
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for n, (path, what) in enumerate(files.items()):
        if isinstance(what, bytes):
            (work / str(n)).write_bytes(what)
            what = work / str(n)
        found.append((path, str(what)))
    (work / "code.py").write_text(_CODE)
    (work / "list").write_text(json.dumps(found))
    subprocess.run(
        [unix.find_micropython().path, work / "code.py", board.image, str(board.blocks), work / "list"], check=True
    )


def gateway(values=None):
    """The files of a gateway; values: its configuration as config.load() gives it."""
    root = build.build(unix.find_micropython().mpy, print)
    files = {"/" + path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    if values:
        files["/config.json"] = json.dumps(values).encode()
    return files


