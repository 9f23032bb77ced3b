"""A pack: one version of the gateway's code in one file, which firmware/main.py mounts on the board to import from.

In littlefs each file of more than half a KB takes whole blocks of 4 KB: as files, the gateway takes 492 KB, as a pack
212 KB. Layout, numbers little-endian:

    edgepost 1 TABLE LIST SHA256\\n    octets of table and list, in six digits; the SHA-256 of all behind this line
    table                    for each path, also of directories: CRC-32 of it, and where it is (0: a directory)
    list                     for the host: a line for each file, path, hash and size
    each file                four octets of size, and the file

Paths begin with "/" and have their suffix, as MicroPython's import looks for them.
"""

import binascii
import hashlib
from collections import namedtuple

from .errors import UserError

LINE = len("edgepost 1 000000 000000 ") + 64 + 1
Entry = namedtuple("Entry", "path hash size at")  # at: where the four octets of its size are


def digest(data):
    """What tells the content of a file from another: the whole of a pack has its SHA-256 besides."""
    return hashlib.sha256(data).hexdigest()[:16]


def make(files):
    """The octets of a pack. `files`: {path without the first "/": bytes}."""
    names = sorted(files)
    directories = sorted({name[:i] for name in names for i, c in enumerate(name) if c == "/"})
    listing = "".join(f"/{name} {digest(files[name])} {len(files[name])}\n" for name in names).encode()
    at = LINE + 8 * (len(names) + len(directories)) + len(listing)
    table = {f"/{name}": 0 for name in directories}
    for name in names:
        table[f"/{name}"] = at
        at += 4 + len(files[name])
    keys = {path: binascii.crc32(path.encode()) for path in table}
    if len(set(keys.values())) < len(keys):
        raise UserError("two of the files cannot be told apart on the board (CRC-32); give one another name")
    rest = b"".join(keys[path].to_bytes(4, "little") + where.to_bytes(4, "little") for path, where in table.items())
    rest += listing + b"".join(len(files[name]).to_bytes(4, "little") + files[name] for name in names)
    line = f"edgepost 1 {8 * len(table):06} {len(listing):06} {hashlib.sha256(rest).hexdigest()}\n"
    return line.encode() + rest


def sizes(line):
    """(octets of the table, octets of the list) from the first line of a pack, or None when it is none."""
    words = line.split()
    if len(line) != LINE or words[:2] != [b"edgepost", b"1"] or len(words) != 5:
        return None
    return int(words[2]), int(words[3])


def entries(line, listing):
    """{path: Entry} of a pack, from its first line and its list."""
    found = {}
    at = LINE + sum(sizes(line))
    for row in listing.decode().splitlines():
        path, mark, size = row.rsplit(" ", 2)
        found[path] = Entry(path, mark, int(size), at)
        at += 4 + int(size)
    return found
