"""lib/smtp/queue.py under random operations, restarts, power cuts and failures at any file operation: what is on the
disk is always what a model says, or, where the operation failed, what it was before or should have become.
"""

import builtins
import os
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import smtp.displace
import smtp.letters
import smtp.queue
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from smtp.queue import Damaged, Queue, QueueFull

NAME = re.compile(r"([0-9a-f]{8})(?:\.([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)(?:\.([0-9a-f]+))?)?(?:-([a-z]+))?")


class Cut(BaseException):
    """The power went."""


class Disk:
    """Stands where the queue has `os` and `open`: counts what changes or reads a file, and fails when it is told to."""

    def __init__(self):
        self.plan = None  # (how many operations go well before, Cut or an error number)
        self.dead = False

    def op(self):
        if self.dead:
            raise Cut
        if self.plan:
            left, kind = self.plan
            self.plan = (left - 1, kind)
            if left == 0:
                self.plan = None
                if kind is Cut:
                    self.dead = True
                    raise Cut
                raise OSError(kind, "injected")

    def __getattr__(self, name):
        if name == "ilistdir":
            raise AttributeError
        return getattr(os, name)

    def rename(self, old, new):
        self.op()
        os.rename(old, new)

    def remove(self, path):
        self.op()
        os.remove(path)

    def open(self, path, mode="r"):
        self.op()
        return File(self, builtins.open(path, mode, buffering=0))


class File:
    """Unbuffered: what is written is there, so that a cut leaves a part."""

    def __init__(self, disk, f):
        self.disk, self.f = disk, f

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __getattr__(self, name):
        method = getattr(self.f, name)

        def call(*args):
            self.disk.op()
            return method(*args)

        return call

    def close(self):
        self.f.close()
        self.disk.op()


class Mail(tuple):
    """What a file says: (attempts, done, failed, flags, mark, octets, number of recipients)."""

    __slots__ = ()
    attempts, done, failed, flags, mark, octets, count = (property(lambda self, i=i: self[i]) for i in range(7))

    def but(self, **changes):
        names = ("attempts", "done", "failed", "flags", "mark", "octets", "count")
        return Mail(changes.get(name, old) for name, old in zip(names, self, strict=True))


def body(number, size):
    return b"%08d" % number + b"x" * size


def look(path):
    """({(key, number): Mail} of all whole files, {name: octets} of the others, keys of reasons)."""
    found, trash, whys = {}, {}, set()
    for file in Path(path).iterdir():
        parts = NAME.fullmatch(file.name)
        assert parts, file.name
        key, mark = int(parts[1], 16), parts[6] or ""
        data = file.read_bytes()
        if mark == "why":
            whys.add(key)
        elif mark != "gone":
            crc = data[-9:]
            if len(data) < 20 or crc != b"%08x\n" % zlib.crc32(data[:-9]):
                trash[file.name] = len(data)
            else:
                head, _, rest = data.partition(b"\n")
                number = int(rest[:8])
                state = [int(parts[i] or "0", 16) for i in range(2, 6)]
                assert (key, number) not in found
                found[key, number] = Mail([*state, mark, len(data), head.count(b"r@x")])
    return found, trash, whys


SIZE = st.one_of(st.integers(0, 300), st.integers(0, 300), st.integers(0, 9000))
fault = st.one_of(
    st.none(), st.tuples(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 6, 9, 14, 20]), st.sampled_from([Cut, 5, 28]))
)


class Life(RuleBasedStateMachine):
    """A queue and its model: `self.disk_says`, what look() has found after the last operation."""

    @initialize(displace=st.sampled_from(["never", "dead", "oldest", "newest"]), small=st.booleans())
    def begin(self, displace, small):
        self.path = tempfile.mkdtemp()
        self.limits = {"max_bytes": 16384 if small else 65536, "max_count": 6 if small else 30, "displace": displace}
        self.disk = Disk()
        for module in (smtp.queue, smtp.letters, smtp.displace):
            module.os = self.disk
            module.open = self.disk.open
        self.now = 100
        self.number = 0
        self.start()
        self.known = look(self.path)[0]

    def teardown(self):
        for module in (smtp.queue, smtp.letters, smtp.displace):
            module.os = os
            del module.open
        if hasattr(self, "path"):
            shutil.rmtree(self.path)

    def start(self):
        self.disk.dead, self.disk.plan = False, None
        self.queue = Queue(self.path, uptime=lambda: self.now, **self.limits)
        self.lost = set()  # keys of files that the queue forgot because they could not be removed or set aside
        self.held = []

    def attempt(self, plan, operation, *args):
        """What the operation returns or raises, and what is on the disk then; after a cut, behind the next start."""
        self.disk.plan = plan
        try:
            result = operation(*args)
        except (Cut, OSError, QueueFull, Damaged, KeyError) as e:
            result = e
        failed = plan is not None and self.disk.plan is None
        self.disk.plan = None
        if self.disk.dead:
            self.start()
            assert not [n for n in os.listdir(self.path) if n.endswith("-new")]
        return result, look(self.path), failed

    def settle_on(self, looked, *allowed):
        """The disk says one of `allowed`, or a part of it that is not whole and that nobody was promised."""
        found, trash, whys = looked
        assert found in allowed, (found, allowed)
        queue = self.queue
        waiting = {key for (key, _), mail in found.items() if not mail.mark}
        parts = {int(name[:8], 16) for name in trash}
        rows = [queue.rows[i] for i in range(0, len(queue.rows), 4)]
        assert rows == sorted(set(rows))
        self.lost &= waiting
        assert waiting - self.lost <= set(rows) <= waiting | parts
        for (key, _), mail in found.items():
            if not mail.mark and key not in self.lost:
                i = queue.row(key)
                assert queue.rows[i + 2 : i + 4].tolist() == [mail.attempts, mail.octets]
                assert queue.partial.get(key, (0, 0, 0)) == (mail.done, mail.failed, mail.flags)
                assert os.path.exists(f"{self.path}/{queue.name_now(i)}")
            if mail.failed and mail.mark in ("dead", "kept"):
                assert key in whys or self.whys_failed
        if not trash and not self.lost:
            assert queue.used == sum(queue.cost(mail.octets) for mail in found.values())
            marks = [mail.mark for mail in found.values()]
            assert (queue.dead, queue.kept) == (marks.count("dead"), marks.count("kept"))
            assert (queue.damaged, queue.junk) == (marks.count("bad"), marks.count("junk"))
        self.known = found

    whys_failed = False  # a reason could not be written, which is allowed: the log has it

    # -- operations

    @rule(priority=st.integers(0, 2), rcpts=st.integers(1, 3), size=SIZE, plan=fault,
          alert=st.booleans(), hold=st.integers(0, 2))  # fmt: skip
    def add(self, priority, rcpts, size, plan, alert, hold):
        self.number += 1
        number, queue, before = self.number, self.queue, self.known
        meta = {"f": "s@x", "r": ["r@x"] * rcpts, "u": self.now}
        victims = self.victims(priority, size + 8, before) if alert else []
        text = body(number, size)
        result, looked, failed = self.attempt(
            plan, queue.add, meta, [text[:100], text[100:]], priority, alert, hold)
        key = priority << 28 | queue.last
        new = [k for k in looked[0] if k[1] == number]
        with_it = {}
        if new:
            ((key, _),) = new
            with_it = {new[0]: Mail([0, 0, 0, 0, "", looked[0][new[0]].octets, rcpts])}
        states = [{k: m for k, m in before.items() if k not in victims[:n]} for n in range(len(victims) + 1)]
        if isinstance(result, str):
            assert with_it, "promised, and not there"
            states = [s | with_it for s in states]
        elif failed:
            states += [s | with_it for s in states]
        else:
            assert isinstance(result, QueueFull) and not new, result
            if not self.lost and not looked[1]:
                states = states[:1]  # nothing gives way in vain
        gone = [k for k in before if k not in looked[0]]
        notes = "\n".join(self.queue.gone())
        if not queue.unnamed and not failed:
            for k, _ in gone:
                assert f"({k:08x})" in notes, "gone without a note"
        self.settle_on(looked, *states)

    def victims(self, priority, size, before):
        """Keys of all that may give way, in order."""
        rule = self.limits["displace"]
        if rule == "never":
            return []
        letters = [k for k, m in before.items() if m.mark in ("kept", "junk")]
        letters.sort(key=lambda k: k[0] & 0xFFFFFFF)
        waiting = [
            k for k, m in before.items()
            if not m.mark and k[0] >> 28 >= priority and k[0] not in self.held and k[0] not in self.lost
        ]  # fmt: skip
        order = 1 if rule == "oldest" else -1
        waiting.sort(key=lambda k: (-(k[0] >> 28), order * (k[0] & 0xFFFFFFF)))
        crowded = len(self.queue) >= self.limits["max_count"]
        if rule == "dead":
            return [] if crowded else letters
        if crowded:
            return waiting[:1] + letters + waiting[1:]
        return letters + waiting

    def take(self, plan=None):
        """Takes a mail; (key, number) or None."""
        before = self.known
        mail, looked, failed = self.attempt(plan, self.queue.take)
        if isinstance(mail, (Damaged, OSError)):
            changed = [k for k in before if before[k] != looked[0].get(k)]
            if changed:  # it could not be read, and was set aside
                assert failed
                (k,) = changed
                self.settle_on(looked, before | {k: before[k].but(mark="bad")})
            else:
                rows = {self.queue.rows[i] for i in range(0, len(self.queue.rows), 4)}
                self.lost |= {k[0] for k, m in before.items() if not m.mark and k[0] not in rows}
                self.settle_on(looked, before)
            return None
        if isinstance(mail, Cut):
            self.settle_on(looked, before, *[
                before | {k: m.but(mark="bad")} for k, m in before.items() if not m.mark])
            return None
        self.settle_on(looked, before)
        if mail is None:
            return None
        buf = bytearray(20000)
        size = mail.read(buf)
        mail.close()
        number = int(bytes(buf[:8]))
        assert (mail.key, number) in before, "nobody was promised this"
        assert bytes(buf[:size]) == body(number, size - 8)
        assert mail.key not in self.held
        best = min(k for k, _ in before if not before[k, _].mark and k not in self.lost and k not in self.held
                   and self.queue.rows[self.queue.row(k) + 1] <= self.now or k == mail.key)
        assert mail.key == best
        return mail.key, number

    @precondition(lambda self: len(self.held) < min(3, len(self.queue)))
    @rule(plan=fault)
    def hold(self, plan):
        taken = self.take(plan)
        if taken:
            self.held.append(taken[0])

    @precondition(lambda self: self.held)
    @rule(delay=st.integers(0, 3))
    def release(self, delay):
        self.queue.release(self.held.pop(), delay)

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: len(self.queue))
    @rule(data=st.data(), plan=fault, attempt=st.booleans(), flags=st.sampled_from([0, 0, 1, 2]),
          mark=st.sampled_from(["dead", "kept"]), delay=st.sampled_from([0, 5, None]))  # fmt: skip
    def settle(self, data, plan, attempt, flags, mark, delay):
        taken = self.take()
        if not taken:  # all wait, or are taken
            self.queue.recall()
            self.held = []
            self.now += 100
            taken = self.take()
        if not taken:
            return
        key = taken[0]
        queue, before = self.queue, self.known
        mail = before[taken]
        was = queue.state(key)
        every = (1 << mail.count) - 1
        words = st.sampled_from(["done", "failed", "failed", "later"])
        said = data.draw(st.lists(words, min_size=3, max_size=3), "said")
        said = [n if (was[0] | was[1]) >> i & 1 == 0 and i < mail.count else "" for i, n in enumerate(said)]
        done = sum(1 << i for i, n in enumerate(said) if n == "done")
        failed = sum(1 << i for i, n in enumerate(said) if n == "failed")
        whys = [f"{n} 550 no" for n in range(mail.count) if failed >> n & 1]
        result, looked, broken = self.attempt(
            plan, queue.settle, key, mail.count, done, failed, whys, delay, attempt, flags, mark)
        self.whys_failed = self.whys_failed or broken
        new = mail.but(done=was[0] | done, failed=(was[1] | failed) & ~done, flags=was[2] | flags,
                       attempts=mail.attempts + attempt)
        after = dict(before)
        if new.done | new.failed == every:
            if new.failed:
                after[taken] = new.but(mark=mark, attempts=mail.attempts)
                wanted = "dead"
            else:
                del after[taken]
                wanted = "gone"
        else:
            after[taken] = new
            wanted = "waiting"
        if not broken:
            assert result == wanted
        elif result == "gone" and taken in looked[0]:
            self.lost.add(key)  # delivered, and could not be removed
        elif isinstance(result, OSError):
            queue.recall()  # as the relay does
            self.held = []
        elif result == "waiting" and queue is self.queue:
            assert queue.state(key)[0] == new.done
        self.settle_on(looked, before, after) if broken else self.settle_on(looked, after)
        if delay is None and result == "waiting" and not self.disk.dead and queue is self.queue:
            self.held.append(key)

    @precondition(lambda self: any(not m.mark and k[0] not in self.lost for k, m in self.known.items()))
    @rule(data=st.data(), size=SIZE, plan=fault, alert=st.booleans())
    def replace(self, data, size, plan, alert):
        waiting = sorted(k for k, m in self.known.items() if not m.mark and k[0] not in self.lost)
        old = data.draw(st.sampled_from(waiting), "which")
        key = old[0]
        queue, before = self.queue, self.known
        self.number += 1
        number = self.number
        allowed = key not in self.held and not queue.state(key)[0] and not queue.state(key)[1]
        victims = [k for k in self.victims(key >> 28, size + 8, before) if k != old] if alert else []
        if len(queue) >= self.limits["max_count"]:
            victims = []
            alert = False
        meta = {"f": "s@x", "r": ["r@x"], "u": self.now}
        result, looked, failed = self.attempt(plan, queue.replace, key, meta, [body(number, size)], alert)
        new = [k for k in looked[0] if k[1] == number]
        states = [{k: m for k, m in before.items() if k not in victims[:n]} for n in range(len(victims) + 1)]
        done = []
        if new:
            assert new == [(key, number)] and allowed
            mail = before[old].but(octets=looked[0][new[0]].octets, count=1)
            done = [{k: m for k, m in s.items() if k != old} | {new[0]: mail} for s in states]
        if isinstance(result, KeyError):
            assert not allowed
            states = [before]
        elif isinstance(result, str):
            states = done
            assert new
        else:
            assert failed or isinstance(result, QueueFull), result
            states += done
        self.settle_on(looked, *states)

    @precondition(lambda self: any(mail.mark for mail in self.known.values()))
    @rule(data=st.data(), plan=fault, what=st.sampled_from(["resend", "delete", "reported"]))
    def letter(self, data, plan, what):
        letters = sorted(k for k, m in self.known.items() if m.mark)
        assert [k for k, _, _ in self.queue.letters() if k in {key for key, _ in letters}] == [
            k for k, _ in sorted(letters, key=lambda k: k[0] & 0xFFFFFFF)]
        which = data.draw(st.sampled_from(letters), "which")
        before = self.known
        mail = before[which]
        after = dict(before)
        if what == "resend":
            after[which] = mail.but(failed=0, flags=smtp.letters._AGAIN, attempts=0, mark="")
        elif what == "delete":
            del after[which]
        else:
            after[which] = mail.but(mark={"dead": "kept", "bad": "junk"}.get(mail.mark, mail.mark))
        result, looked, failed = self.attempt(plan, getattr(self.queue, what), which[0])
        if failed:
            self.settle_on(looked, before, after)
        elif isinstance(result, QueueFull):
            assert what == "resend" and len(self.queue) >= self.limits["max_count"]
            self.settle_on(looked, before)
        else:
            assert result is None, result
            self.settle_on(looked, after)

    @rule()
    def report_what_is_gone(self):
        self.queue.gone()
        self.queue.gone_reported()
        assert self.queue.gone() == [] and self.queue.displaced == 0

    @rule()
    def restart(self):
        displaced, failed = self.queue.displaced, self.lost
        self.start()
        if not failed:
            assert self.queue.displaced <= displaced
        self.settle_on(look(self.path), self.known)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
