"""`edgepost test`: the portable tests on a virtual board."""

import shutil
from pathlib import Path

import pytest
from edgepost import cli, portable, virtual
from harness import edgepost

PORTABLE = Path(__file__).resolve().parents[1] / "portable"


@pytest.fixture
def tests(tmp_path):
    """A directory like tests/portable with few tests in it."""
    where = tmp_path / "checkout" / "portable"
    where.mkdir(parents=True)
    for name in ("run.py", "expect.py", "play.py"):
        shutil.copy(PORTABLE / name, where)
    return where


def run(tests, *words):
    return edgepost("test", "--virtual", "--tests", tests, *words, timeout=120)


def test_real_ones_pass_on_a_board():
    done = run(PORTABLE, "test_queue", "-k", "delivered")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_queue.py::test_a_delivered_mail_is_gone_for_good PASSED" in done.stdout
    assert " passed in " in done.stdout and "Pico W with RP2040 (virtual), MicroPython 1." in done.stdout


FAILS = """
from expect import eq

async def test_it_passes():
    eq(2, 2)

def test_it_fails():
    eq(1,
       2)

def test_it_is_too_big():
    bytearray(1000000)

def test_it_raises():
    raise ValueError("of no use")
"""


def test_what_fails_is_told_with_its_traceback_and_what_does_not_fit_is_skipped(tests):
    (tests / "test_mixed.py").write_text(FAILS)
    done = run(tests)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    for line in ("passes PASSED", "fails FAILED", "is_too_big SKIPPED", "raises FAILED"):
        assert f"test_mixed.py::test_it_{line}" in lines
    assert "AssertionError: got 1, wanted 2" in lines and "ValueError: of no use" in lines
    assert any(line.endswith("line 8, in test_it_fails") for line in lines), done.stdout
    assert "SKIPPED test_mixed.py::test_it_is_too_big: does not fit its heap" in lines
    assert lines[-1].startswith("==== 2 failed, 1 passed, 1 skipped in ")


def test_of_a_file_only_what_its_tests_need_goes_to_the_board():
    source = "import os, sys\nfrom a import b\nN = 1\nprint(1)\n\ndef one():\n    return N\n\n"
    source += "@b\ndef test_1():\n    one()\n\ndef two():\n    return sys\n\ndef test_2():\n    two()\n"
    lines = source.split("\n")
    first, second = portable.only(source, {"test_1"}).split("\n"), portable.only(source, {"test_2"}).split("\n")
    assert len(first) == len(second) == len(lines)
    assert [line for line in first if line] == [line for line in lines[1:11] if line]
    assert [n for n, line in enumerate(second) if line] == [0, 3, 12, 13, 15, 16]


def test_what_a_file_borrows_of_another_goes_with_it(tests):
    (tests / "test_lends.py").write_text("from expect import eq\n\ndef same(a):\n    eq(a, a)\n")
    (tests / "test_borrows.py").write_text("from test_lends import same\n\ndef test_it():\n    same(1)\n")
    done = run(tests, "test_borrows")
    assert done.returncode == 0 and "==== 1 passed in " in done.stdout, done.stdout


def test_what_passes_with_more_memory_is_skipped_and_told(tests):
    (tests / "test_tight.py").write_text("import gc\n\ndef test_it():\n    assert gc.mem_free() > 1000000\n")
    done = run(tests)
    assert "it fails with 280k, and passes with 2m" in done.stdout and "==== 1 skipped in " in done.stdout, done.stdout


def test_a_batch_that_does_not_fit_is_run_in_parts(tests):
    big = "".join(f"def test_{n}():\n    kept.append(bytearray(60000))\n\n" for n in range(4))
    (tests / "test_big.py").write_text("kept = []\n\n" + big)
    done = run(tests)
    assert done.returncode == 0 and "==== 4 passed in " in done.stdout, done.stdout


def test_no_tests_is_told(tmp_path, tests):
    done = edgepost("test", "--virtual", "--tests", tmp_path)
    assert done.returncode == 2 and "there are no tests in" in done.stderr and "--tests" in done.stderr
    (tests / "test_one.py").write_text("def test_one():\n    pass\n")
    done = run(tests, "-k", "two")
    assert done.returncode == 2 and "no test has that name" in done.stderr


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with virtual.VirtualBoard(tmp_path_factory.mktemp("board")) as board:
        yield board


def test_a_cable_that_is_pulled_at_any_moment_is_one_line_and_the_next_run_is_good(tests, board, capsys):
    (tests / "test_one.py").write_text("def test_one():\n    pass\n")
    words = ["test", "--port", str(board.link or board.port), "--tests", str(tests)]
    told = 0
    for fuse in (1, 60, 300, 1000, 2000):
        board.fuse = fuse
        status = cli.main(words)
        out, err = capsys.readouterr()
        board.fuse = None
        if "1 passed" not in out:
            told += 1
            assert status == 2 and len(err.splitlines()) == 1, err
            assert "is gone" in err or "did not answer" in err or "does not answer" in err
        board.power(False)
        board.power(True)
        words[2] = str(board.link or board.port)
    assert told >= 3
    assert cli.main(words) == 0 and "==== 1 passed in " in capsys.readouterr().out
