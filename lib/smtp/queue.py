"""The spool in flash: mail that was accepted and is not yet delivered. Knows files, not SMTP.

One message is one file in one directory; its state is in its name, so each change of state is one rename, which
littlefs commits whole or not at all:

    KKKKKKKK            waiting. K: 8 hex digits, priority (0 urgent, 1 normal, 2 low) and a running number
    KKKKKKKK.A.D.F      waiting after A attempts; D and F are bit sets (hex) of the recipients done and failed
    KKKKKKKK.A.D.F-dead a dead letter: F are those who never got it
    KKKKKKKK...-bad     damaged: set aside
    KKKKKKKK-why        why: a line "number code enhanced text" for each failed recipient, written before F is

All names of a mail begin alike, so littlefs renames within one piece of its directory: a rename from one piece to
another needs free blocks, and one that fails for want of them makes littlefs (2.9) drop the file at its next change.

The file: a line of JSON (the envelope), the mail with CRLF line ends, "8" where it has 8-bit characters or "7", and 9
octets, the CRC-32 of all before in hex and "\\n".

Why nothing is lost: commit() returns after close(), and littlefs shows a file empty until close() has committed it; an
empty file was never accepted and goes at the next start. On file systems that show part of a file, the CRC tells.
Every later step is one rename or one removal, made after the fact that it records. Why little is sent twice: the
removal is made as soon as the next hop has answered.

May use: nothing but files.
"""

import binascii
import json
import os
from array import array

from . import const

URGENT, NORMAL, LOW = 0, 1, 2

_ROW = const(4)  # key, due, attempts, octets
_HELD = const(0xFFFFFFFF)  # due: taken and not yet given back
_TRAILER = const(10)
_HEAD = const(65536)  # octets of envelope, more than 100 recipients can need
_LOW = const(65536)  # octets of free flash from which on care is taken
_NONE = array("I")


class QueueFull(Exception):
    """No room. The text says what is full."""


class Damaged(Exception):
    """A spool file that is not as it was written; it has been set aside."""


def _scan(path):
    """(name, octets) of the files in a directory."""
    if hasattr(os, "ilistdir"):
        for item in os.ilistdir(path):
            yield item[0], item[3]
    else:
        for item in os.scandir(path):
            yield item.name, item.stat().st_size


class Aborted(Exception):
    """A spool file that was given up while it arrived: nobody was promised it."""


class Queue:
    """The mails under `path`, a directory that is made when it is missing. One Queue may have it at a time.

    max_bytes: octets of flash that they may take, counted in whole blocks; max_count: mails; reserve: octets of the
    file system that stay free, so that it can always delete. `uptime()` gives seconds that never go back.
    """

    def __init__(self, path, max_bytes=524288, max_count=1000, reserve=32768, uptime=None):
        self.path = path
        self.max_bytes = max_bytes
        self.max_count = max_count
        self.uptime = uptime or (lambda: 0)
        self.rows = array("I")
        self.partial = {}  # key -> (done, failed), only where one is not 0
        self.used = 0
        self.coming = 0  # octets of the mails that are arriving
        self.dead = 0
        self.damaged = 0
        self.on_commit = None  # called after each commit
        self.boot = binascii.hexlify(os.urandom(4)).decode()
        try:
            os.stat(path)
        except OSError:
            os.mkdir(path)
        self.block = os.statvfs(path)[1]  # [0], the size for fast reading, is 1 MB on macOS
        self.reserve = reserve
        self.room = 0  # what is known to be free; asked again when it runs short
        self.last = 0
        self.load()

    def load(self):
        now = self.uptime()
        found = []
        whys = []
        alive = set()
        for name, size in _scan(self.path):
            try:
                stem, _, mark = name.partition("-")
                parts = [int(p, 16) for p in stem.split(".")]
            except ValueError:
                continue
            key = parts[0]
            if mark not in ("", "dead", "bad", "why"):
                continue
            if mark == "why":
                whys.append(key)
                continue
            if size == 0:
                self.remove_file(name)
                continue
            self.last = max(self.last, key & 0xFFFFFFF)
            self.used += self.cost(size)
            if mark == "bad":
                self.damaged += 1
                continue
            alive.add(key)
            if mark == "dead":
                self.dead += 1
                continue
            if len(parts) == 4:
                if parts[2] or parts[3]:
                    self.partial[key] = (parts[2], parts[3])
            found.append((key, parts[1] if len(parts) == 4 else 0, size))
        found.sort()
        for key, attempts, size in found:
            self.rows.extend(array("I", (key, now, attempts, size)))
        for key in whys:
            if key not in alive:
                self.remove_file("%08x-why" % key)

    def cost(self, size):
        """Octets of flash for a file: a small one shares a block, others take whole ones."""
        return 2048 if size <= 512 else (size + self.block - 1) // self.block * self.block

    def rename(self, old, new):
        """Renames a file. OSError when too little is free for that.

        It must not fail half-way, see above. It may need two blocks, and littlefs counts each block that it has looked
        at since the last write as taken: hence the write.
        """
        path = self.path + "/"
        if self.room < _LOW:
            self.room = self.free() - self.reserve
            if self.room < _LOW:
                with open(path + "00000000-why", "w") as f:
                    f.write("\n")
                os.remove(path + "00000000-why")
                if self.free() < 2 * self.block:
                    raise OSError(28)
        os.rename(path + old, path + new)

    def remove_file(self, name):
        try:
            os.remove(self.path + "/" + name)
        except OSError:
            pass

    def __len__(self):
        return len(self.rows) // _ROW

    # -- in

    def check_room(self, size):
        """Raises QueueFull when a mail of `size` octets does not fit."""
        need = self.cost(size + 300) + self.coming
        if len(self) >= self.max_count:
            raise QueueFull("%d mails wait, which is the limit" % len(self))
        if self.used + need > self.max_bytes:
            raise QueueFull("%d of %d octets are taken" % (self.used, self.max_bytes))
        if self.room < need:
            self.room = self.free() - self.reserve
            if self.room < need:
                raise QueueFull("the flash is full")

    def free(self):
        """Octets that the file system says are free."""
        st = os.statvfs(self.path)
        return (st[3] if st[3] < 0xFFFFFF00 else 0) * st[1]  # a full littlefs was seen to give 2^32 - 2

    def failure(self, e):
        """What to raise for the OSError of a flash: QueueFull when it is full."""
        if e.args[0] != 28:  # ENOSPC
            return e
        self.room = 0
        return QueueFull("the flash is full")

    def new(self, meta, priority=NORMAL, size=0):
        """A Writer for a mail. meta: dict that JSON can hold, the envelope; size: octets, 0 when not known.

        Raises QueueFull.
        """
        self.check_room(size)
        self.last = (self.last + 1) & 0xFFFFFFF
        return Writer(self, (priority << 28) | self.last, meta)

    def add(self, meta, pieces, priority=NORMAL):
        """Commits a mail given as an iterable of bytes-likes; returns its identity (str). Raises QueueFull."""
        w = self.new(meta, priority)
        try:
            for p in pieces:
                w.write(p)
            return w.commit()
        except BaseException:
            w.abort()
            raise

    # -- out

    def row(self, key):
        rows = self.rows
        for i in range(0, len(rows), _ROW):
            if rows[i] == key:
                return i
        raise KeyError(key)

    def name(self, key, attempts, done, failed):
        if attempts or done or failed:
            return "%08x.%x.%x.%x" % (key, attempts, done, failed)
        return "%08x" % key

    def name_now(self, i):
        key = self.rows[i]
        done, failed = self.partial.get(key, (0, 0))
        return self.name(key, self.rows[i + 2], done, failed)

    def due(self):
        """Seconds of uptime when the next mail is due, None when none waits."""
        rows = self.rows
        best = _HELD
        for i in range(1, len(rows), _ROW):
            if rows[i] < best:
                best = rows[i]
        return None if best == _HELD else best

    def take(self):
        """The Mail that is due and most important, oldest first, or None. It is the taker's until settle().

        Raises Damaged after setting a damaged file aside.
        """
        now = self.uptime()
        while True:
            rows = self.rows
            best = -1
            for i in range(0, len(rows), _ROW):
                if rows[i + 1] <= now and (best < 0 or rows[i] < rows[best]):
                    best = i
            if best < 0:
                return None
            name = self.name_now(best)
            try:
                mail = Mail(self, rows[best], self.path + "/" + name)
            except Aborted:
                self.used -= self.cost(rows[best + 3])
                self.forget(best)
                self.remove_file(name)
                continue
            except (ValueError, KeyError, OSError) as e:
                self.forget(best)
                self.damaged += 1
                self.rename(name, name + "-bad")
                raise Damaged("spool file %s: %s" % (name, e))
            rows[best + 1] = _HELD
            return mail

    def forget(self, i):
        self.partial.pop(self.rows[i], None)
        self.rows[i : i + _ROW] = _NONE

    def recall(self):
        """Takes back all that was taken and not given back: the taker has failed."""
        rows = self.rows
        for i in range(1, len(rows), _ROW):
            if rows[i] == _HELD:
                rows[i] = self.uptime()

    def settle(self, key, count, done, failed, whys=(), delay=0, attempt=False):
        """Records what became of a mail's `count` recipients. done, failed: bit sets of those newly so; whys: lines
        (str) for the failed ones. Returns "gone", "dead" or "waiting": due again in `delay` seconds; `attempt` counts
        one."""
        i = self.row(key)
        rows = self.rows
        path = self.path + "/"
        if failed and self.free() > self.reserve // 2:  # the rest of the reserve is for renaming; the log has it too
            with open(path + "%08x-why" % key, "a") as f:
                for why in whys:
                    f.write(why + "\n")
        old = self.name_now(i)
        was = self.partial.get(key, (0, 0))
        done |= was[0]
        failed |= was[1]
        if done | failed == (1 << count) - 1:
            size = rows[i + 3]
            if failed:
                self.rename(old, "%08x.%x.%x.%x-dead" % (key, rows[i + 2], done, failed))
                self.dead += 1
                state = "dead"
            else:
                os.remove(path + old)
                self.used -= self.cost(size)
                state = "gone"
            self.forget(i)
            return state
        if attempt:
            rows[i + 2] += 1
        if done or failed:
            self.partial[key] = (done, failed)
        new = self.name_now(i)
        if new != old:
            self.rename(old, new)
        rows[i + 1] = self.uptime() + delay
        return "waiting"


class Writer:
    """A mail on its way in. Nothing of it counts until commit() has returned."""

    def __init__(self, queue, key, meta):
        self.queue = queue
        self.key = key
        self.path = queue.path + "/%08x" % key
        self.ident = meta["i"] = binascii.hexlify(os.urandom(4)).decode()
        meta["b"] = queue.boot
        head = (json.dumps(meta) + "\n").encode()
        self.size = 0
        self.crc = 0
        self.bits = b"7"
        try:
            self.f = open(self.path, "wb")
        except OSError as e:
            raise queue.failure(e)
        try:
            self.write(head)
        except BaseException:
            self.abort()
            raise

    def write(self, piece):
        """Appends a piece. Raises QueueFull, and OSError for a flash that fails."""
        queue = self.queue
        n = len(piece)
        coming = queue.coming + n
        if coming > queue.room or queue.used + coming > queue.max_bytes:
            queue.check_room(n)
        try:
            self.f.write(piece)
        except OSError as e:
            raise queue.failure(e)
        if self.bits == b"7":
            # 8-bit or not, at the speed of C: as UTF-8 it has fewer characters than octets, or is none.
            try:
                if len(str(piece, "utf-8")) != n:
                    self.bits = b"8"
            except UnicodeError:
                self.bits = b"8"
        self.crc = binascii.crc32(piece, self.crc)
        self.size += n
        queue.coming = coming

    def commit(self):
        """Makes the mail the queue's: once this has returned, it survives. Returns its identity (str)."""
        queue = self.queue
        self.write(self.bits)
        self.write(b"%08x\n" % self.crc)
        f = self.f
        self.f = None
        queue.coming -= self.size
        try:
            f.close()
        except OSError as e:
            queue.remove_file("%08x" % self.key)
            raise queue.failure(e)
        cost = queue.cost(self.size)
        queue.used += cost
        queue.room -= 2 * cost  # with its part of the directory, so that `room` is never more than what is free
        queue.rows.extend(array("I", (self.key, queue.uptime(), 0, self.size)))
        if queue.on_commit:
            queue.on_commit()
        return self.ident

    def abort(self):
        """Forgets the mail. May be called at any time before commit() has returned."""
        f = self.f
        self.f = None
        if f is None:
            return
        self.queue.coming -= self.size
        try:
            # Closing would commit a part; marked, the next start knows that nobody was promised it.
            f.seek(0)
            f.write(b"ABRT")
        except OSError:
            pass
        try:
            f.close()
        except OSError:
            pass
        self.queue.remove_file("%08x" % self.key)


class Mail:
    """A queued mail, open for reading: `meta` as it was given, `size` octets of mail, read(buf). Verified whole."""

    def __init__(self, queue, key, path):
        self.queue = queue
        self.key = key
        self.path = path
        buf = bytearray(512)
        mv = memoryview(buf)
        total = os.stat(path)[6]
        with open(path, "rb") as f:
            head = b""
            while head[-1:] != b"\n" and len(head) < min(total, _HEAD):
                head += f.readline(512)
            if head[:4] == b"ABRT":
                raise Aborted()
            crc = binascii.crc32(head)
            left = total - len(head) - _TRAILER
            if left < 0 or head[:1] != b"{":
                raise ValueError("cut short")
            self.start = len(head)
            self.size = left
            while left:
                n = f.readinto(mv[:left] if left < 512 else mv)
                if not n:
                    raise ValueError("cut short")
                crc = binascii.crc32(mv[:n], crc)
                left -= n
            bits = f.read(1)
            if bits not in (b"7", b"8") or f.read(_TRAILER) != b"%08x\n" % binascii.crc32(bits, crc):
                raise ValueError("the check sum does not match")
        self.meta = json.loads(head)
        self.eight = bits == b"8"
        self.left = self.size
        self.f = None

    def read(self, buf):
        """Fills `buf` from the mail, returns how many octets, 0 at its end."""
        if not self.left:
            return 0
        if self.f is None:
            self.f = open(self.path, "rb")
            self.f.seek(self.start)
        n = self.f.readinto(buf if len(buf) <= self.left else memoryview(buf)[: self.left])
        self.left -= n
        if not self.left:
            self.close()
        return n

    def rewind(self):
        """The next read() begins at the start."""
        self.close()
        self.left = self.size

    def close(self):
        if self.f:
            self.f.close()
            self.f = None
