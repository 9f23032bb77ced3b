"""The simulated flash of nor.py keeps the rules of a real one, whatever littlefs makes of it."""

import os

from expect import eq, raises
from nor import BLOCK, PAGE, Nor
from play import MICROPYTHON

PATTERN = bytes(range(256))


def page(flash, n, at=0):
    return bytes(flash.memory[n * BLOCK + at : n * BLOCK + at + PAGE])


def test_it_is_erased_when_it_is_new_and_keeps_what_is_programmed():
    flash = Nor(2)
    eq(flash.writeblocks(1, PATTERN, 512), 0)
    eq((page(flash, 1, 512), page(flash, 1, 256), page(flash, 0, 512)), (PATTERN, b"\xff" * 256, b"\xff" * 256))
    buf = bytearray(100)
    eq(flash.readblocks(1, buf, 600), 0)
    eq(bytes(buf), PATTERN[88:188])
    eq((flash.ioctl(4, 0), flash.ioctl(5, 0), flash.ops, flash.programmed, flash.faults), (2, 4096, 1, 256, 0))


def test_programming_clears_bits_and_a_page_that_was_not_erased_is_a_fault():
    flash = Nor(1)
    flash.writeblocks(0, b"\xf0" * PAGE)
    eq(flash.faults, 0)
    flash.writeblocks(0, b"\x3c" * PAGE)
    eq((page(flash, 0), flash.faults), (b"\x30" * PAGE, 1))
    flash.writeblocks(0, b"\xff" * PAGE)
    eq((page(flash, 0), flash.faults), (b"\x30" * PAGE, 2))
    flash.ioctl(6, 0)
    flash.writeblocks(0, b"\x3c" * PAGE)
    eq((page(flash, 0), flash.faults), (b"\x3c" * PAGE, 2))


def test_an_erasure_takes_one_whole_block_and_wears_it():
    flash = Nor(3)
    for n in range(3):
        flash.writeblocks(n, bytes(BLOCK))
    eq((flash.ops, flash.programmed), (48, 3 * BLOCK))
    eq(flash.ioctl(6, 1), 0)
    eq((bytes(flash.memory[BLOCK : 2 * BLOCK]), page(flash, 0, 3840)), (b"\xff" * BLOCK, bytes(PAGE)))
    flash.ioctl(6, 1)
    eq((flash.erases, list(flash.wear), flash.ops), (2, [0, 2, 0], 50))
    eq(list(flash.power().wear), [0, 2, 0])


def test_each_page_of_a_long_write_is_an_operation():
    flash = Nor(1)
    flash.cut_at = 3
    eq(flash.writeblocks(0, bytes(4 * PAGE)), -5)
    eq((page(flash, 0), page(flash, 0, 256), page(flash, 0, 768)), (bytes(PAGE), bytes(PAGE), b"\xff" * PAGE))


def test_a_page_that_is_cut_is_torn_at_any_bit():
    lengths = set()
    torn = set()
    for seed in range(300):
        flash = Nor(1, seed)
        flash.cut_at = 1
        eq(flash.writeblocks(0, bytes(PAGE)), -5)
        left = page(flash, 0)
        n = len(left) - len(left.lstrip(b"\0"))
        lengths.add(n)
        if n < PAGE:
            torn.add(left[n])
        eq(left[n + 1 :], b"\xff" * len(left[n + 1 :]))
    assert min(lengths) < 10 and max(lengths) > 246 and len(lengths) > 100, lengths
    assert len(torn) > 50, torn


def test_a_torn_page_sets_no_bit():
    for seed in range(100):
        flash = Nor(1, seed)
        flash.writeblocks(0, b"\x0f" * PAGE)
        flash.cut_at = 2
        flash.writeblocks(0, b"\xf3" * PAGE)
        for octet in page(flash, 0):  # at most what it was, at least what both agree on
            eq((octet | 0x0F, octet & 0x03), (0x0F, 0x03))


def test_an_erasure_that_is_cut_leaves_garbage_in_its_block_only():
    seen = set()
    for seed in range(60):
        flash = Nor(3, seed)
        for n in range(3):
            flash.writeblocks(n, bytes(BLOCK))
        flash.cut_at = flash.ops + 1
        eq(flash.ioctl(6, 1), -5)
        left = bytes(flash.memory[BLOCK : 2 * BLOCK])
        seen.add((0 in left, 255 in left, len(set(left)) > 2))  # old, erased, neither
        eq((page(flash, 0, 3840), page(flash, 2)), (bytes(PAGE), bytes(PAGE)))
        eq(list(flash.wear), [0, 0, 0])
    for kind in ((True, True, True), (True, False, False), (False, True, False)):
        assert kind in seen, (kind, seen)


def test_the_same_seed_makes_the_same_damage():
    left = []
    for seed in (5, 5, 6):
        flash = Nor(1, seed)
        flash.writeblocks(0, bytes(BLOCK))
        flash.cut_at = flash.ops + 1
        flash.ioctl(6, 0)
        left.append(bytes(flash.memory))
    assert left[0] == left[1] != left[2]


def test_without_power_everything_fails_and_nothing_changes():
    flash = Nor(2)
    flash.writeblocks(0, PATTERN)
    flash.cut_at = 2
    flash.writeblocks(1, PATTERN)
    before = bytes(flash.memory)
    buf = bytearray(PAGE)
    eq((flash.readblocks(0, buf), flash.writeblocks(0, PATTERN, 256), flash.ioctl(6, 0)), (-5, -5, -5))
    eq((bytes(flash.memory), flash.ops, bytes(buf)), (before, 2, bytes(PAGE)))
    again = flash.power()
    eq((again.readblocks(0, buf), bytes(buf), again.ops, again.cut_at), (0, PATTERN, 0, 0))


def test_who_watches_sees_each_operation_before_it_is_done():
    flash = Nor(2)
    seen = []
    flash.watch = lambda kind, at, data: seen.append((kind, at, data, flash.memory[at]))
    flash.writeblocks(1, PATTERN, 512)
    flash.ioctl(6, 1)
    eq(seen, [("page", BLOCK + 512, PATTERN, 255), ("erase", BLOCK, None, 255)])


def test_littlefs_lives_on_it_and_survives_a_cut_at_each_operation():
    if not MICROPYTHON:
        return  # a littlefs is needed
    import vfs

    first = Nor(16)
    vfs.VfsLfs2.mkfs(first, progsize=PAGE, readsize=PAGE)
    new = bytes(first.memory)
    cut = 0
    while True:
        cut += 1
        flash = Nor(16, cut, memoryview(bytearray(new)))
        flash.cut_at = cut
        vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/n")
        done = []
        try:
            for n in range(5):
                name = "/n/%d" % n
                with open(name, "wb") as f:
                    f.write(PATTERN * (n * n))
                done.append(n)
                os.rename(name, name + "-done")
                done[-1] = -n
        except OSError as e:
            eq(e.args[0], 5)
        vfs.umount("/n")
        faults = flash.faults
        whole = not flash.dead
        flash = flash.power()
        vfs.mount(vfs.VfsLfs2(flash, progsize=PAGE, readsize=PAGE), "/n")
        names = os.listdir("/n")
        for n in done:
            name = "%d-done" % -n if n <= 0 else str(n)
            if name not in names:
                name = "%d-done" % n  # the cut rename may have happened
            with open("/n/" + name, "rb") as f:
                eq((cut, n, f.read()), (cut, n, PATTERN * (n * n)))
        with open("/n/new", "wb") as f:
            f.write(PATTERN * 20)
        vfs.umount("/n")
        eq((cut, faults, flash.faults), (cut, 0, 0))
        if whole:
            break
    assert cut > 25, cut
    raises(OSError, os.stat, "/n/new")
