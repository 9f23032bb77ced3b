"""The spool in flash: mail that was accepted and is not yet delivered. Knows files, not SMTP.

One message is one file in one directory; its state is in its name, so each change of state is one rename, which
littlefs commits whole or not at all:

    KKKKKKKK                    waiting. K: 8 hex digits, priority (0 urgent, 1 normal, 2 low) and a running number
    KKKKKKKK.A.D.F[.W]          waiting after A attempts; D: bit set (hex) of the recipients that are done, delivered or
                                told of in a bounce; F: of those that failed and nobody was told of; W: flags, 1: the
                                sender knows that it is late, 2: it was a dead letter and is sent again
    KKKKKKKK[.A.D.F[.W]]-dead   a dead letter: F are those who never got it. -kept: somebody knows of it
    KKKKKKKK[.A.D.F[.W]]-bad    damaged: set aside. -junk: somebody knows of it
    KKKKKKKK-why                why: a line "number code enhanced text" for each failed recipient, written before F is
    KKKKKKKK-new                what will take the place of the waiting K, on its way there
    00000000[.N.0.0]-gone       what gave way to alerts, a line each; N: how many more there were

All names of a mail begin alike, so littlefs renames within one piece of its directory: a rename from one piece to
another needs free blocks, and one that fails for want of them makes littlefs (2.9) drop the file at its next change.

The file: a line of JSON (the envelope), the mail with CRLF line ends, "8" where it has 8-bit characters or "7", and 9
octets, the CRC-32 of all before in hex and "\\n".

Why nothing is lost, whenever the power fails. Each step is one commit of the file system, and what lies between two
steps is put right by spool.load():

    arrival      commit() returns after close(), and littlefs shows a file empty until close() has committed it; an
                 empty file was never accepted and goes. On file systems that show part of a file, the CRC tells
    progress     one rename, made after the fact that it records. Of a cut before it the mail is sent once more
    delivery     one removal, made as soon as the next hop has answered. Its -why goes behind it
    failure      -why, then the rename that sets F. Between: the recipient is tried again, and the line is there twice
    resend       the rename that clears A, F and W, then the -why goes. Between: lines about nobody, the last one counts
    delete       the letter, then its -why. Between: a -why of no mail, which goes
    replacement  -new is written and closed, then renamed over the old name. Until then the old mail is there, whole,
                 and a -new beside it goes; on FAT, where the old one is removed first, a -new alone takes its place
    displacement the line in -gone, then the removal. Between: it is noted as gone and is still delivered

May use: nothing but files; spool at the start; letters and displace, loaded when they are needed.
"""

import binascii
import json
import os
from array import array

from . import const

URGENT, NORMAL, LOW = 0, 1, 2

_ROW = const(4)  # key, due, attempts, octets
_HELD = const(0x3FFFFFFF)  # due: taken and not yet given back
_NUMBER = const(0xFFFFFFF)  # the bits of a key that count
_TRAILER = const(10)
_SMALL = const(768)
_HEAD = const(65536)  # octets of envelope, more than 100 recipients can need
_LOW = const(65536)  # octets of free flash from which on care is taken
_STRIDE = const(13)  # a mail that arrives asks for room every 8 KB
_BUFFERED = const(16384)  # octets of arriving mails that may not be in the flash yet
_WHY = const(4096)  # octets of reasons
_PATIENCE = const(60)  # seconds until a full flash is tried again
_ENOSPC = const(28)
_NONE = array("I")
_UNTOUCHED = (0, 0, 0)
_TOLD = (0, 0, 1)  # of many mails in a long outage: one for all


class QueueFull(Exception):
    """No room. The text says what is full."""


class Damaged(Exception):
    """A spool file that is not as it was written; it has been set aside."""


class Aborted(Exception):
    """A spool file that was given up while it arrived: nobody was promised it."""


def _sized(meta, pieces):
    """(pieces, octets as check_room() wants them): it adds 300 for an envelope, which takes 45 more than `meta`."""
    if hasattr(pieces, "size"):
        size = pieces.size
    else:
        pieces = list(pieces)
        size = sum([len(p) for p in pieces])
    return pieces, size + len(json.dumps(meta)) - 255


class Queue:
    """The mails under `path`, a directory that is made when it is missing. One Queue may have it at a time.

    max_bytes: octets of flash that they may take, counted in whole blocks; max_count: mails that wait; reserve: octets
    of the file system that stay free, so that it can always delete; displace: what gives way to an alert, "never",
    "dead", "oldest" or "newest", see displace. `uptime()` gives seconds that never go back.
    """

    def __init__(self, path, max_bytes=524288, max_count=1000, reserve=32768, uptime=None, displace="dead"):
        self.path = path
        self.max_bytes = max_bytes
        self.max_count = max_count
        self.uptime = uptime or int  # which gives 0
        self.displace = displace
        self.rows = array("I")  # in the order of keys
        self.partial = {}  # key -> (done, failed, flags), only where one is not 0
        self.unsaved = {}  # the same, where a full flash did not take it
        self.stay = ()  # names of files that were delivered, when the flash failed to remove them
        self.used = 0
        self.coming = 0  # octets of the mails that are arriving
        self.dead = self.kept = 0  # dead letters that are to be reported, and the others
        self.damaged = self.junk = 0  # damaged files, likewise
        self.displaced = 0  # mails that gave way and are to be reported
        self.unnamed = 0  # those of them that have no line
        self.shown = 0  # those that gone() was asked for
        self.on_commit = None  # called after each commit
        self.on_dead = None  # called when there is something new to report
        self.reports = True  # False: there is nobody to report to
        self.log = None  # log(text)
        self.boot = binascii.hexlify(os.urandom(4)).decode()
        try:
            os.stat(path)
        except OSError:
            os.mkdir(path)
        self.block = os.statvfs(path)[1]  # [0], the size for fast reading, is 1 MB on macOS
        self.reserve = reserve
        self.room = 0  # what is known to be free, and when that was asked
        self.asked = None
        self.last = 0
        from .spool import load

        load(self)

    def cost(self, size):
        """Octets of flash for a file: a small one shares a block, others take whole ones."""
        return 2048 if size <= 512 else (size + self.block - 1) // self.block * self.block

    def rename(self, old, new):
        """Renames a file. OSError when too little is free for that.

        It must not fail half-way, see above. It may need two blocks, and littlefs counts each block that it has looked
        at since the last write as taken: hence the write.
        """
        path = self.path + "/"
        if self.look(_LOW) < _LOW:
            with open(path + "00000000-why", "w") as f:
                f.write("\n")
            os.remove(path + "00000000-why")
            if self.free() < 2 * self.block:
                raise OSError(_ENOSPC)
        os.rename(path + old, path + new)

    def remove_file(self, name):
        """True when it is gone."""
        try:
            os.remove("%s/%s" % (self.path, name))
        except OSError:
            return False
        return True

    def count(self, mark, n):
        """One more or less of a kind of letters."""
        if mark == "kept":
            self.kept += n
        elif mark == "junk":
            self.junk += n
        else:
            if mark == "dead":
                self.dead += n
            else:
                self.damaged += n
            if n > 0 and self.on_dead:
                self.on_dead()

    def __len__(self):
        return len(self.rows) // _ROW

    # -- rows

    def slot(self, key):
        """Where a mail's row is, or would be."""
        rows = self.rows
        lo = 0
        hi = len(rows) // _ROW
        if hi and rows[-_ROW] < key:
            return len(rows)
        while lo < hi:
            mid = (lo + hi) // 2
            if rows[mid * _ROW] < key:
                lo = mid + 1
            else:
                hi = mid
        return lo * _ROW

    def row(self, key):
        """Where the row of a mail that waits is. Raises KeyError."""
        rows = self.rows
        i = 0 if rows and rows[0] == key else self.slot(key)  # most often it is the first
        if i == len(rows) or rows[i] != key:
            raise KeyError(key)
        return i

    def enter(self, key, due, attempts, size):
        i = self.slot(key)
        self.rows[i:i] = array("I", (key, due, attempts, size))

    def forget(self, i):
        key = self.rows[i]
        self.partial.pop(key, None)
        self.unsaved.pop(key, None)
        self.rows[i : i + _ROW] = _NONE

    def keep(self, key, done, failed, flags):
        if done or failed or flags:
            self.partial[key] = _TOLD if (done, failed, flags) == _TOLD else (done, failed, flags)

    def state(self, key):
        """(done, failed, flags) of a waiting mail: bit sets of its recipients, and what settle() was given."""
        return self.unsaved.get(key) or self.partial.get(key, _UNTOUCHED)

    def name(self, key, attempts, done, failed, flags):
        if flags:
            return "%08x.%x.%x.%x.%x" % (key, attempts, done, failed, flags)
        if attempts or done or failed:
            return "%08x.%x.%x.%x" % (key, attempts, done, failed)
        return "%08x" % key

    def name_now(self, i):
        key = self.rows[i]
        return self.name(key, self.rows[i + 2], *self.partial.get(key, _UNTOUCHED))

    # -- in

    def check_room(self, size, instead=0):
        """Raises QueueFull when a mail of `size` octets does not fit; `instead` of one that takes so many."""
        need = self.cost(size + 300) + self.coming
        if len(self) >= self.max_count and not instead:
            raise QueueFull("%d mails wait, which is the limit" % len(self))
        if self.used + need - instead > self.max_bytes:
            raise QueueFull("%d of %d octets are taken" % (self.used, self.max_bytes))
        if self.look(need) < need:
            raise QueueFull("the flash is full")

    def look(self, need):
        """Octets that may still be taken. That is asked again each second, for others use this flash too."""
        now = self.uptime()
        if self.room < need or self.asked != now:
            self.asked = now
            self.room = self.free() - self.reserve + max(0, self.coming - _BUFFERED)
        return self.room

    def free(self):
        """Octets that the file system says are free."""
        st = os.statvfs(self.path)
        return (st[3] if st[3] < 0xFFFFFF00 else 0) * st[1]  # a full littlefs was seen to give 2^32 - 2

    def failure(self, e):
        """What to raise for the OSError of a flash: QueueFull when it is full."""
        if e.args[0] != _ENOSPC:
            return e
        self.room = 0
        return QueueFull("the flash is full")

    def make_room(self, size, instead, displace, meta, key):
        """As check_room(); but what may give way does, see displace."""
        try:
            self.check_room(size, instead)
        except QueueFull as e:
            if not displace or self.displace == "never":
                raise
            from .displace import make_room

            make_room(self, size, instead, meta, key, e, displace is True)

    def new(self, meta, priority=NORMAL, size=0, displace=False, hold=0):
        """A Writer for a mail. meta: dict that JSON can hold, the envelope; size: octets, 0 when not known; displace:
        other mail may give way to it, with "dead" only dead letters; hold: seconds until it is due.

        Raises QueueFull.
        """
        self.make_room(size, 0, displace, meta, priority << 28)
        self.last = self.last % _NUMBER + 1
        return Writer(self, priority << 28 | self.last, meta, hold)

    def add(self, meta, pieces, priority=NORMAL, displace=False, hold=0):
        """Commits a mail given as an iterable of bytes-likes; returns its identity (str). Raises QueueFull.

        How much has to give way with `displace` depends on the size: pieces that have no `size`, as mime.Mail has, are
        all in memory at a time then.
        """
        size = 0
        if displace:
            pieces, size = _sized(meta, pieces)
        return self.new(meta, priority, size, displace, hold).fill(pieces)

    def replace(self, key, meta, pieces, displace=False):
        """Puts another mail in the place of a waiting one, whole or not at all; returns its identity (str).

        Raises KeyError when it does not wait, is taken or has reached somebody; QueueFull. The old one stays then.
        """
        i = self.row(key)
        if self.rows[i + 1] == _HELD or self.state(key)[0] | self.state(key)[1]:
            raise KeyError(key)
        pieces, size = _sized(meta, pieces)
        instead = self.cost(self.rows[i + 3])
        self.make_room(size, instead, displace, meta, key)
        return Writer(self, key, meta, 0, instead).fill(pieces)

    # -- out

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
        rows = self.rows
        while True:
            for i in range(1, len(rows), _ROW):
                if rows[i] <= now:
                    break
            else:
                return None
            i -= 1
            key = rows[i]
            name = self.name_now(i)
            try:
                mail = Mail(self, key, "%s/%s" % (self.path, name))
            except Aborted:
                self.used -= self.cost(rows[i + 3])
                self.forget(i)
                self.remove_file(name)
                continue
            except (ValueError, KeyError, OSError) as e:
                self.forget(i)
                try:
                    self.rename(name, name + "-bad")
                except OSError:
                    pass  # no room for that: it is found again at the next start
                self.count("bad", 1)
                raise Damaged("spool file %s: %s" % (name, e))
            rows[i + 1] = _HELD
            return mail

    def recall(self):
        """Takes back all that was taken and not given back: the taker has failed."""
        rows = self.rows
        for i in range(1, len(rows), _ROW):
            if rows[i] == _HELD:
                rows[i] = self.uptime()

    def release(self, key, delay=0):
        """Gives a taken mail back: it is due in `delay` seconds, and nothing is recorded."""
        self.rows[self.row(key) + 1] = self.uptime() + delay

    def settle(self, key, count, done, failed, whys=(), delay=0, attempt=False, flags=0, mark="dead"):
        """Records what became of a mail's `count` recipients. done (delivered, or a bounce is queued), failed: bit sets
        of those newly so; whys: lines "number code enhanced text" (str) for the failed ones; `attempt` counts one;
        `flags` are added. Returns "gone"; "dead": it is a dead letter with `mark`, "dead" or "kept"; or "waiting": due
        again in `delay` seconds, with None it stays taken."""
        i = self.row(key)
        rows = self.rows
        if self.stay:
            self.stay = [name for name in self.stay if not self.remove_file(name)]
        if failed and self.free() > self.reserve // 2:  # the rest of the reserve is for renaming; the log has it too
            try:
                with open(self.path + "/%08x-why" % key, "ab") as f:
                    for why in whys:
                        if f.seek(0, 2) < _WHY:
                            f.write(why[:300].encode() + b"\n")
            except OSError:
                pass
        old = self.name_now(i)
        was = self.state(key)
        done |= was[0]
        failed = (failed | was[1]) & ~done
        flags |= was[2]
        over = done | failed == (1 << count) - 1
        if over and not failed:
            if not self.remove_file(old):
                self.stay = list(self.stay)[-15:] + [old]
                if self.log:
                    self.log("%s was delivered and cannot be removed: that is tried again, else it is sent again after "
                             "the next start" % old)
            if was[1]:
                self.remove_file("%08x-why" % key)
            self.used -= self.cost(rows[i + 3])
            self.forget(i)
            return "gone"
        attempts = rows[i + 2] + (1 if attempt and not over else 0)
        new = self.name(key, attempts, done, failed, flags)
        if over:
            new += "-" + mark
        try:
            if new != old:
                self.rename(old, new)
        except OSError as e:
            if e.args[0] != _ENOSPC:
                raise
            # Others have filled the flash to the last block. What is done stays done as long as this boot lasts.
            self.unsaved[key] = done, was[1] & ~done, flags
            if delay is not None:
                rows[i + 1] = self.uptime() + max(delay, _PATIENCE)
            return "waiting"
        if over:
            self.forget(i)
            self.count(mark, 1)
            return "dead"
        self.unsaved.pop(key, None)
        self.keep(key, done, failed, flags)
        rows[i + 2] = attempts
        if delay is not None:
            rows[i + 1] = self.uptime() + delay
        return "waiting"

    # -- dead letters, damaged files and what gave way: seldom needed

    def letters(self):
        """(key, mark, octets) of each dead letter ("dead", and "kept" when it was reported) and each damaged file
        ("bad", "junk"), the oldest first. They may be changed and removed meanwhile."""
        from .letters import letters

        return letters(self)

    def open_letter(self, key):
        """(Mail, lines why) of a letter. Raises KeyError when there is none, Damaged."""
        from .letters import open_letter

        return open_letter(self, key)

    def resend(self, key):
        """A dead letter is due now, as if it were new, for those recipients that never got it. Raises KeyError,
        Damaged, QueueFull."""
        from .letters import resend

        resend(self, key)

    def delete(self, key):
        """Removes a letter. Raises KeyError."""
        from .letters import delete

        delete(self, key)

    def reported(self, key):
        """Somebody knows of this letter: "dead" becomes "kept", "bad" becomes "junk". Raises KeyError."""
        from .letters import reported

        reported(self, key)

    def gone(self):
        """Lines (list of str) about the mails that gave way to alerts; one of them may still be there and delivered."""
        self.shown = self.displaced
        if not self.displaced:
            return []
        from .displace import gone

        return gone(self)

    def gone_reported(self):
        """Somebody knows of what gone() gave. When more has gone since then, all of it is told of once more."""
        if self.shown == self.displaced:
            self.remove_file(self.name(0, self.unnamed, 0, 0, 0) + "-gone")
            self.displaced = self.unnamed = 0


class Writer:
    """A mail on its way in. Nothing of it counts until commit() has returned."""

    def __init__(self, queue, key, meta, hold=0, instead=0):
        self.queue = queue
        self.key = key
        self.hold = hold
        self.instead = instead  # octets of flash of the mail that it replaces
        self.name = "%08x-new" % key if instead else "%08x" % key
        self.ident = meta["i"] = binascii.hexlify(os.urandom(4)).decode()
        meta["b"] = queue.boot
        head = (json.dumps(meta) + "\n").encode()
        self.size = 0
        self.crc = 0
        self.bits = b"7"
        try:
            self.f = open(queue.path + "/" + self.name, "w+b")  # cut reads it back
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
        size = self.size + n
        if size >> _STRIDE != self.size >> _STRIDE:
            queue.look(0)
        if coming > queue.room or queue.used + coming - self.instead > queue.max_bytes:
            queue.check_room(n, self.instead)
        try:
            self.f.write(piece)
        except OSError as e:
            raise queue.failure(e)
        if self.bits == b"7":
            # 8-bit or not, at the speed of C: as UTF-8 it has fewer characters than octets, or is none. In slices: a
            # full heap has no room for all of it.
            try:
                for i in range(0, n, 512):
                    part = piece[i : i + 512]
                    if len(str(part, "utf-8")) != len(part):
                        self.bits = b"8"
            except UnicodeError:
                self.bits = b"8"
        self.crc = binascii.crc32(piece, self.crc)
        self.size = size
        queue.coming = coming

    def fill(self, pieces):
        """Writes all pieces and commits."""
        try:
            for p in pieces:
                self.write(p)
            return self.commit()
        except BaseException:
            self.abort()
            if hasattr(pieces, "close"):
                pieces.close()  # a file that is attached
            raise

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
            if self.instead:
                queue.rename(self.name, queue.name_now(queue.row(self.key)))
        except OSError as e:
            queue.remove_file(self.name)
            raise queue.failure(e)
        cost = queue.cost(self.size)
        queue.used += cost - self.instead
        queue.room -= 2 * cost  # with its part of the directory, so that `room` is never more than what is free
        if self.instead:
            queue.rows[queue.row(self.key) + 3] = self.size
        else:
            queue.enter(self.key, queue.uptime() + self.hold, 0, self.size)
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
        self.queue.remove_file(self.name)


class Mail:
    """A queued mail, open for reading: `meta` as it was given, `size` octets of mail, read(buf). Verified whole."""

    kept = None  # a small file as a whole, until it is sent: to open it once more costs as much as all else
    f = None

    def __init__(self, queue, key, path):
        self.queue = queue
        self.key = key
        self.path = path
        with open(path, "rb") as f:
            data = f.read(_SMALL)
            if data[:4] == b"ABRT":
                raise Aborted()
            self.start = data.find(b"\n") + 1
            if len(data) < _SMALL:
                self.size = len(data) - self.start - _TRAILER
                head = data[: self.start]
                trailer = data[-_TRAILER:]
                self.kept = memoryview(data)
                crc = binascii.crc32(self.kept[: -_TRAILER + 1])
            else:
                head, trailer, crc = self.verify(f)
        if self.size < 0 or head[:1] != b"{":
            raise ValueError("cut short")
        bits = trailer[:1]
        if bits not in (b"7", b"8") or trailer[1:] != b"%08x\n" % crc:
            raise ValueError("the check sum does not match")
        self.meta = json.loads(head)
        self.eight = bits == b"8"
        self.left = self.size

    def verify(self, f):
        """Reads a file that is not small: its envelope, its trailer, and the check sum that should stand there."""
        buf = bytearray(512)
        mv = memoryview(buf)
        total = f.seek(0, 2)
        f.seek(0)
        head = b""
        while head[-1:] != b"\n" and len(head) < min(total, _HEAD):
            head += f.readline(512)
        crc = binascii.crc32(head)
        self.start = len(head)
        self.size = left = total - len(head) - _TRAILER
        while left > 0:
            n = f.readinto(mv[:left] if left < 512 else mv)
            if not n:
                raise ValueError("cut short")
            crc = binascii.crc32(mv[:n], crc)
            left -= n
        trailer = f.read(_TRAILER)
        return head, trailer, binascii.crc32(trailer[:1], crc)

    def read(self, buf):
        """Fills `buf` from the mail, returns how many octets, 0 at its end."""
        if not self.left:
            return 0
        if self.kept:
            n = min(len(buf), self.left)
            at = self.start + self.size - self.left
            buf[:n] = self.kept[at : at + n]
        else:
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
        self.kept = None
        if self.f:
            self.f.close()
            self.f = None
