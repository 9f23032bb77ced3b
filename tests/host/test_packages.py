"""What installs the project: pip on a computer; on a board package.json for mip, and the manifests. Each has all."""

import json
import os
import tomllib
from pathlib import Path

import pytest
from edgepost import __version__, build, portable

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = {p.name for p in (ROOT / "lib" / "smtp").glob("*.py")} - {"manifest.py", "cpython.py"}
FIRMWARE = {p.relative_to(ROOT / "firmware").as_posix() for p in (ROOT / "firmware").rglob("*.py")} - {
    "manifest.py", "boards/unix.py",
}  # fmt: skip


class Manifest:
    """As much of MicroPython's tools/manifestfile.py as these manifests use: `frozen` is {name on the board: file}."""

    def __init__(self, variables):
        self.variables = variables
        self.frozen = {}
        self.metadata = []

    def resolve(self, path):
        for name, value in self.variables.items():
            path = path.replace(f"$({name})", str(value))
        return Path(os.path.abspath(path))

    def include(self, path):
        path = self.resolve(path)
        text = path.read_text()
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            exec(text, {
                "include": self.include, "module": self.module, "metadata": self.update,
            })  # fmt: skip
        finally:
            os.chdir(before)

    def update(self, **data):
        assert not self.metadata, "Duplicate call to metadata()."
        self.metadata.append(data)

    def module(self, path, base_path="."):
        file = self.resolve(base_path) / path
        assert file.is_file() and path.endswith(".py")
        assert path not in self.frozen, f"{path} is frozen twice"
        self.frozen[path] = file


def test_mip_installs_each_module_of_the_library_and_nothing_else():
    package = json.loads((ROOT / "package.json").read_text())
    assert {target for target, _ in package["urls"]} == {f"smtp/{name}" for name in LIBRARY}
    for target, source in package["urls"]:
        assert source == f"lib/{target}" and (ROOT / source).is_file()
    assert package["version"] == __version__ and package["deps"] == []
    assert len(package["urls"]) == len(LIBRARY)


@pytest.fixture
def port(tmp_path):
    """A board without a manifest of its own in a port that has one."""
    (tmp_path / "boards" / "BOARD").mkdir(parents=True)
    (tmp_path / "boards" / "_boot.py").write_text("")
    (tmp_path / "boards" / "manifest.py").write_text("module('_boot.py')\n")
    return {"PORT_DIR": tmp_path, "BOARD_DIR": tmp_path / "boards" / "BOARD"}


def test_the_librarys_manifest_freezes_all_of_it():
    manifest = Manifest({})
    manifest.include(str(ROOT / "lib" / "smtp" / "manifest.py"))
    assert set(manifest.frozen) == {f"smtp/{name}" for name in LIBRARY}
    for target, file in manifest.frozen.items():
        assert file == ROOT / "lib" / target
    assert [m["version"] for m in manifest.metadata] == [__version__]


def test_the_gateways_manifest_freezes_library_application_and_what_the_board_has(port):
    manifest = Manifest(port)
    manifest.include(str(ROOT / "firmware" / "manifest.py"))
    assert set(manifest.frozen) == {f"smtp/{name}" for name in LIBRARY} | FIRMWARE | {"_boot.py"}
    assert {"main.py", "boot.py", "boards/esp32.py", "drivers/file.py"} <= set(manifest.frozen)


def test_a_boards_own_manifest_comes_before_that_of_its_port(port):
    (port["BOARD_DIR"] / "ssl.py").write_text("")
    (port["BOARD_DIR"] / "manifest.py").write_text("include('$(PORT_DIR)/boards/manifest.py')\nmodule('ssl.py')\n")
    manifest = Manifest(port)
    manifest.include(str(ROOT / "firmware" / "manifest.py"))
    assert {"ssl.py", "_boot.py"} <= set(manifest.frozen)


def in_wheel():
    """The files that the wheel has, by what pyproject.toml tells setuptools: paths in the checkout."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(table["package-dir"]) == set(table["packages"]) and not table["include-package-data"]
    found = set()
    for package, place in table["package-dir"].items():
        for pattern in ["*.py", *table["package-data"].get(package, ())]:
            found |= {path for path in (ROOT / place).glob(pattern) if path.is_file()}
    return found


def test_the_wheel_has_all_that_the_commands_read_when_they_run():
    needed = {
        path for place in ("host_tools", "lib/smtp", "firmware", "tests/sim", "tests/portable", "tests/devices")
        for path in (ROOT / place).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }  # fmt: skip
    assert sorted(needed - in_wheel()) == []


def test_what_the_package_finds_beside_itself_is_where_the_wheel_puts_it(tmp_path, monkeypatch):
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, place in table["package-dir"].items():
        if package != "edgepost":
            target = tmp_path / "site" / package.replace(".", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(ROOT / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "_HERE", tmp_path / "site/edgepost")
    monkeypatch.setattr(portable, "__file__", str(tmp_path / "site/edgepost/portable.py"))
    board = tmp_path / "site/edgepost/board"
    assert [build.library(), build.firmware(), build.simulated(), portable.find_tests()] == [
        board / name for name in ("smtp", "firmware", "sim", "portable")
    ]  # fmt: skip
    assert (portable.find_tests().parent / "devices").is_dir()
