"""A spool that is not as it was written: what is damaged is set aside and told of, the rest is delivered, and nobody
ever gets half a mail."""

import os

from expect import eq
from nor import PAGE, Nor
from play import MICROPYTHON, Flash, Random
from world import PowerCut, World

PATTERNS = (0x01, 0x80, 0x20, 0xFF)
SETTINGS = {"admin": "admin@example.com", "gather": 10, "queue": {"max_count": 5, "displace": "oldest"}}


async def filling(world):
    """Leaves two mails that wait, a dead letter with its reason, and the note of what gave way."""
    host = world.hosts[0]
    world.alert("d1-100", ["d1-100.1@gone.example.net", "d1-100.2@gone.example.net"])
    await world.sleep(1)
    host.up = False
    world.send("m1-700", ["m1-700.1@example.net", "m1-700.2@example.net"])
    world.alert("a1-200", ["a1-200.1@example.net"])
    for n in range(6):
        world.alert("l%d-90" % n, ["l%d-90.1@example.net" % n], "low")


class Spool:
    """Files of a spool in their first state, and the world that lives on them when one was changed."""

    def __init__(self, path):
        self.path = path + "/spool"
        world = World(self.path, **SETTINGS)
        world.run(filling(world))
        self.files = {name: self.read(name) for name in os.listdir(self.path)}
        marks = sorted([name.partition("-")[2] for name in self.files])
        eq(marks, ["", "", "", "", "", "dead", "gone", "why"])

    def read(self, name):
        with open(self.path + "/" + name, "rb") as f:
            return f.read()

    def find(self, text, mark=""):
        for name, data in self.files.items():
            if text in data and name.partition("-")[2] == mark:
                return name

    def boot(self, name, data):
        """The world, after it has done all it can with `data` in the file `name`."""
        for old in os.listdir(self.path):
            os.remove(self.path + "/" + old)
        for other, good in self.files.items():
            with open(self.path + "/" + other, "wb") as f:
                f.write(data if other == name else good)
        world = World(self.path, **SETTINGS)
        world.run(world.drain(3600))
        eq([fact for fact in world.facts if fact[0] == "wrong"], [])
        return world

    def check(self, name, data, what):
        """Nobody gets what was damaged, everybody else gets his."""
        world = self.boot(name, data)
        taken = sorted([fact[1] for fact in world.facts if fact[0] == "taken" and fact[1][:3] != "to "])
        lost = self.rcpts(name)
        wanted = sorted([r for n in self.files for r in self.rcpts(n) if r not in lost])
        eq((what, taken), (what, wanted))
        queue = world.queue
        eq((what, len(queue), queue.junk, queue.damaged), (what, 0, 1 if lost and data else 0, 0))
        if lost and data:
            assert [1 for line in world.lines if name in line and "set aside" in line], (what, world.lines)
        return world

    def rcpts(self, name):
        """Who is to get the mail in a file."""
        if "-" in name:
            return []
        data = self.files[name]
        mail = data.partition(b"Subject: ")[2].partition(b"\r")[0].decode()
        return [mail + ".1@example.net"] + ([mail + ".2@example.net"] if mail[0] == "m" else [])


def changes(data, step):
    """(where, data with one octet changed) for each `step`th octet; with 1 at each place a pattern, in turn."""
    for i in range(0, len(data), step):
        bad = bytearray(data)
        bad[i] ^= PATTERNS[i // step % 4]
        yield i, bytes(bad)


def test_a_flipped_octet_anywhere_in_a_mail_is_found_and_told_of_and_the_rest_is_delivered():
    with Flash() as flash:
        spool = Spool(flash)
        for text, step in ((b"a1-200", 5), (b"m1-700", 29)):
            name = spool.find(text)
            for i, data in changes(spool.files[name], step):
                world = spool.check(name, data, (name, i))
            told = [line for line in world.lines if "is told of" in line]
            assert told, world.lines


def test_a_mail_that_was_cut_at_any_length_is_never_sent():
    with Flash() as flash:
        spool = Spool(flash)
        for text, step in ((b"a1-200", 11), (b"m1-700", 37)):
            name = spool.find(text)
            good = spool.files[name]
            for n in range(0, len(good), step):
                spool.check(name, good[:n], (name, n))
                if n % 3 == 0 and n:
                    spool.check(name, good[:n] + b"\xff" * (len(good) - n), (name, n, "erased"))


def test_damage_in_what_was_noted_about_mail_stops_nothing():
    with Flash() as flash:
        spool = Spool(flash)
        for text, mark, step in ((b"d1-100", "dead", 19), (b"", "why", 5), (b"", "gone", 13)):
            name = spool.find(text, mark)
            good = spool.files[name]
            for i, data in changes(good, step):
                world = spool.check(name, data, (name, i))
                assert "is told of" in "".join(world.lines), (name, i, world.lines)
            for n in range(0, len(good), 2 * step):
                spool.check(name, good[:n], (name, n))
                spool.check(name, good[:n] + b"\xff\xfe\x00\n" * 9, (name, n))


def test_a_strange_name_in_the_spool_stops_nothing():
    names = (
        "10000099.ffffffff.0.0", "10000099.1.1.1", "10000099.1.0.0.ffff", "f0000099", "ffffffff", "00000000",
        "10000099.-1.0.0", "10000099.0.0.3-dead", "10000099-why", "10000099-new", "00000000.ffffffff.0.0-gone",
        "00000000.1.2.3-gone", "10000099-dead", "10000099-bad", "0x000099", "1000_099", " 1000099", "10000099.",
        ".10000099", "-", "10000099--dead", "+1000099", "-0000099", "10000099.1e.0.0-junk",
    )
    with Flash() as flash:
        spool = Spool(flash)
        good = spool.files[spool.find(b"a1-200")].replace(b"a1-200", b"z9-200")
        for name in names:
            for content in (good, b"strange\n", b"{}"):
                spool.files[name] = content
                world = spool.boot("", b"")
                del spool.files[name]
                taken = [fact[1] for fact in world.facts if fact[0] == "taken"]
                for who in ("a1-200.1", "m1-700.1", "m1-700.2", "l5-90.1"):
                    assert who + "@example.net" in taken, (name, content[:9], who, world.lines)


def test_a_flash_with_flipped_bits_sends_no_half_mail_and_stops_nobody():
    if not MICROPYTHON:
        return  # a littlefs is needed
    import vfs

    random = Random(20261122)
    first = Nor(24)
    vfs.VfsLfs2.mkfs(first, progsize=PAGE, readsize=PAGE)
    vfs.mount(vfs.VfsLfs2(first, progsize=PAGE, readsize=PAGE), "/n")
    Spool("/n")
    vfs.umount("/n")
    good = bytes(first.memory)
    used = [at for at in range(0, len(good), PAGE) if good[at : at + PAGE] != b"\xff" * PAGE]
    counts = {"mounted": 0, "delivered": 0, "unreadable": 0}
    for _ in range(120):
        flash = Nor(24, memory=first.memory)
        flash.memory[:] = good
        for _ in range(1 + random.below(3)):
            flash.memory[random.choice(used) + random.below(PAGE)] ^= 1 << random.below(8)
        try:
            vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/n")
        except OSError:
            continue
        counts["mounted"] += 1
        world = World("/n/spool", flash, **SETTINGS)
        try:
            world.run(world.drain(3600))
        except (OSError, PowerCut):
            counts["unreadable"] += 1  # a directory, say; the log has it
        finally:
            vfs.umount("/n")
        eq([fact for fact in world.facts if fact[0] == "wrong"], [])
        counts["delivered"] += len([1 for fact in world.facts if fact[0] == "taken"])
    print(counts)
    assert counts["delivered"] > 5 * counts["mounted"] > 400, counts
