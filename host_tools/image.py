"""Images of MicroPython for `edgepost flash`: got from a file or over HTTPS, and checked whole before they are used.

An image for the ESP32 family is what MicroPython's build joins: boot loader, partition table, and MicroPython at the
first partition for an application, as they lie in flash from the boot loader's place on; esptool reads its parts.
One for RP2040 and RP2350 is UF2 (github.com/microsoft/uf2): blocks of 512 octets, each with its number and how many
there are. Neither has a checksum of the whole, so what is downloaded needs its SHA-256.
"""

import hashlib
import http.client
import re
import ssl
import struct
import urllib.error
import urllib.parse
import urllib.request
from collections import namedtuple
from pathlib import Path

from . import build
from .errors import UserError
from .progress import Bar

SITE = "https://micropython.org/resources/firmware/"  # MicroPython's downloads; the pages are download/NAME/
# Board: (its name there, the end of the file's name)
BOARDS = {
    "pico_w": ("RPI_PICO_W", "uf2"),
    "pico2_w": ("RPI_PICO2_W", "uf2"),
    "esp32": ("ESP32_GENERIC", "bin"),
    "esp32s2": ("ESP32_GENERIC_S2", "bin"),
    "esp32s3": ("ESP32_GENERIC_S3", "bin"),
    "esp32c3": ("ESP32_GENERIC_C3", "bin"),
    "esp32c6": ("ESP32_GENERIC_C6", "bin"),
}
OLDEST = (1, 23)  # what the gateway runs on
MOST = 32 << 20  # octets; more is no image
TIMEOUT = 30  # seconds without a word from a server

# The UF2 families of the boot ROMs (picotool, UF2's own list).
RP2040 = 0xE48BFF56
FAMILIES = {RP2040: "RP2040", 0xE48BFF59: "RP2350", 0xE48BFF5A: "RP2350", 0xE48BFF5B: "RP2350"}
_ABSOLUTE = 0xE48BFF57  # a block that RP2350's first revision needs to see (erratum E10), and nobody writes
_IGNORE = 0x9957E304
_UF2 = struct.Struct("<8I476sI")

# kind    "rp2" or "esp"
# chips   names of those it is for, as the boot loader says them
# offset  where in flash it begins (esp)
# needs   octets of flash that its partitions take (esp), or 0
# version, board   as it says them itself, or ""
Image = namedtuple("Image", "name data kind chips offset needs version board")


def plural(count, what):
    """"1 block", "2 blocks"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


# ---- UF2


def uf2(data, name):
    """Checks a UF2 image for RP2040 or RP2350; gives the names of its chips. Raises UserError."""
    if len(data) % 512:
        raise UserError(
            f"{name} is not whole: it ends in the middle of a block ({len(data)} octets). Download it again"
        )
    counts = {}  # family: (blocks so far, blocks in all)
    for at in range(0, len(data), 512):
        block = at // 512
        first, second, flags, address, size, number, total, family, payload, end = _UF2.unpack_from(data, at)
        if (first, second, end) != (0x0A324655, 0x9E5D5157, 0x0AB16F30):
            raise UserError(f"{name} is damaged: block {block} is no block of UF2. Download it again")
        if not flags & 0x2000:
            raise UserError(f"{name} does not say what chip it is for (block {block}): take the image of your board")
        if family == _ABSOLUTE:
            if flags & 0x8000 and size <= 472 and struct.unpack_from("<I", payload, size)[0] == _IGNORE:
                continue
            raise UserError(f"{name} is no image of MicroPython: block {block} goes to an absolute address")
        if flags & 0x1001:
            raise UserError(f"{name} is no image of MicroPython: block {block} does not go to flash")
        if family not in FAMILIES:
            raise UserError(
                f"{name} is for another chip (UF2 family 0x{family:08x}), not for a Pico W or Pico 2 W: take"
                f" {BOARDS['pico_w'][0]} or {BOARDS['pico2_w'][0]} of micropython.org/download"
            )
        if not 0 < size <= 476 or not 0x10000000 <= address <= 0x12000000 - size:
            where = f"block {block} goes to 0x{address:08x}, which is no flash"
            raise UserError(f"{name} is damaged: {where}. Download it again")
        done, wanted = counts.get(family, (0, total))
        if number != done or total != wanted or number >= total:
            raise UserError(
                f"{name} is damaged: after {plural(done, 'block')} of {wanted} comes number {number} of {total}."
                " Download it again"
            )
        counts[family] = done + 1, total
    for done, total in counts.values():
        if done != total:
            raise UserError(f"{name} is not whole: it has {done} of {plural(total, 'block')}. Download it again")
    if not counts:
        raise UserError(f"{name} has nothing in it that goes to flash: take the image of your board")
    return tuple(sorted({FAMILIES[family] for family in counts}))


def _flash_of(data):
    """What a checked UF2 image brings to flash, in the order of its blocks."""
    parts = []
    for at in range(0, len(data), 512):
        size, family = struct.unpack_from("<I", data, at + 16)[0], struct.unpack_from("<I", data, at + 28)[0]
        if family in FAMILIES:
            parts.append(data[at + 32 : at + 32 + size])
    return b"".join(parts)


# ---- ESP32


def _part(rom, data, name, what):
    """Reads one program of an ESP image, and checks it whole."""
    from esptool.bin_image import LoadFirmwareImage
    from esptool.util import FatalError

    cut = UserError(f"{name} is not whole: it ends within {what}. Download it again")
    try:
        part = LoadFirmwareImage(rom.CHIP_NAME, data)
        damaged = part.checksum != part.calculate_checksum()
        if part.append_digest:
            if len(part.stored_digest) < 32:
                raise cut
            damaged = damaged or part.stored_digest != part.calc_digest
    except FatalError as e:
        if "End of file" in str(e):
            raise cut from None
        damaged = True
    except struct.error:
        raise cut from None
    except TypeError:  # ord(b""): its checksum is missing
        raise cut from None
    except RuntimeError:
        damaged = True
    if damaged:
        raise UserError(f"{name} is damaged: the checksum of {what} is wrong. Download it again")
    return part


def esp(data, name):
    """Checks an image for the ESP32 family; gives (name of the chip, where it begins in flash, octets of flash)."""
    from esptool.targets import ROM_LIST

    if len(data) < 32:
        raise UserError(f"{name} is not whole: it ends within the boot loader. Download it again")
    if 0x40100000 <= struct.unpack_from("<I", data, 8)[0] < 0x40200000:
        raise UserError(f"{name} is for an ESP8266, which is too small for edgepost: it needs an ESP32 or a Pico W")
    number = struct.unpack_from("<H", data, 12)[0]
    rom = next((rom for rom in ROM_LIST if rom.IMAGE_CHIP_ID == number), None)
    if rom is None:
        raise UserError(f"{name} is for a chip that is not known here (number {number}), or damaged")
    alone = UserError(
        f"{name} is the program alone, for updates over the air (.app-bin): take the .bin, which has the boot loader"
        " and the partitions, too"
    )
    if struct.unpack_from("<I", data[:36].ljust(36), 32)[0] == 0xABCD5432:  # esp_app_desc_t
        raise alone
    start = rom.BOOTLOADER_FLASH_OFFSET
    _part(rom, data, name, "the boot loader")
    table = data[0x8000 - start : 0x8C00 - start]
    if len(table) < 32:
        raise UserError(f"{name} is not whole: it ends before the partition table. Download it again")
    partitions = []
    for at in range(0, len(table) - 31, 32):
        entry = table[at : at + 32]
        if entry[:2] == b"\xeb\xeb":
            if entry[16:] != hashlib.md5(table[:at], usedforsecurity=False).digest():
                raise UserError(f"{name} is damaged: the checksum of the partition table is wrong. Download it again")
            break
        if entry[:2] != b"\xaa\x50":
            break
        partitions.append(struct.unpack("<2xBBII20x", entry))
    programs = sorted((kind, offset, size) for what, kind, offset, size in partitions if what == 0)
    if not programs:
        raise UserError(
            f"{name} has no partition table at 0x8000: it is no image of MicroPython. Take the .bin of your board"
        )
    _, offset, size = programs[0]
    _part(rom, data[offset - start :], name, "MicroPython")
    return rom.CHIP_NAME, start, max(offset + size for _, _, offset, size in partitions)


# ---- both


def check(data, name):
    """An Image of these octets. Raises UserError that says what they are when they are none."""
    if not data:
        raise UserError(f"{name} is empty: download it again")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{name} is a web page, not an image: open micropython.org/download in a browser, choose your board, and"
            " save what the link of a release leads to"
        )
    if data[:2] in (b"PK", b"\x1f\x8b"):
        raise UserError(f"{name} is packed: unpack it, and name the .bin or .uf2 in it")
    if data[:4] == b"\x7fELF":
        raise UserError(f"{name} is an ELF file, for debuggers: take the .bin or .uf2 of the same build")
    if data[:4] == b"UF2\n":
        kind, chips, offset, needs = "rp2", uf2(data, name), 0, 0
        flash = _flash_of(data)
    elif data[0] == 0xE9:
        chip, offset, needs = esp(data, name)
        kind, chips, flash = "esp", (chip,), data
    elif not re.search(rb"[^\t\r\n\x20-\x7e]", data[:512]):
        raise UserError(f"{name} is a text, not an image: take the .bin (ESP32) or the .uf2 (Pico W) of your board")
    else:
        raise UserError(
            f"{name} is no image: one for an ESP32 begins with the octet 0xe9, one for a Pico W with UF2. Take the"
            " .bin or .uf2 of micropython.org/download"
        )
    found = re.search(rb"MicroPython (v\d+\.\d+[\w.+-]*)", flash)
    if not found and b"MicroPython" not in flash:
        raise UserError(f"{name} is a program for {' and '.join(chips)}, but it is not MicroPython")
    version = found[1].decode() if found else ""
    if version and numbers(version)[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(f"{name} is MicroPython {version}, which is too old: edgepost needs {oldest} or later")
    board = re.search(rb"([\x20-\x7e]{3,60}) with (?:%s)" % b"|".join(re.escape(c.encode()) for c in chips), flash)
    return Image(name, data, kind, chips, offset, needs, version, board[0].decode().strip() if board else "")


def numbers(version):
    """The numbers of "v1.26.1-preview": (1, 26, 1)."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def address(board, release, site=SITE):
    """Where MicroPython's site has the image of a board: release is such as "20250911-v1.26.1"."""
    if not re.fullmatch(r"20\d{6}-v\d+\.\d+[\w.-]*", release):
        raise UserError(f"{release} is no release as in the names of the files: it is such as 20250911-v1.26.1")
    name, end = BOARDS[board]
    return f"{site.rstrip('/')}/{name}-{release}.{end}"


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https://"):
            raise UserError(f"{req.full_url} leads to {newurl}, which is not https: nothing was downloaded from there")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url, sha256=None, ca=None, say=print):
    """The octets that `url` gives, whose SHA-256 has to be this one; taken from the cache when they are there.

    `ca` is a PEM file to verify the server with instead of this computer's own. Raises UserError.
    """
    if not url.startswith("https://"):
        raise UserError(f"{url} is not https: an image comes from a server that can be verified, or from a file")
    cache = build.cache_dir() / "images"
    if sha256 and (cache / sha256).is_file():
        data = (cache / sha256).read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            say(f"edgepost: {url} was downloaded before, and is taken from {cache}")
            return data
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise UserError(f"{ca} is no PEM file of a CA: name one with --ca, or leave it out") from None
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _OnlyHttps)
    data = bytearray()
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            if length > MOST:
                raise UserError(f"{url} is {length >> 20} MB, which is no image: nothing was downloaded")
            with Bar("downloading", length or MOST) as bar:
                while piece := answer.read(65536):
                    data += piece
                    bar(len(data))
                    if len(data) > MOST:
                        raise UserError(f"{url} does not end within {MOST >> 20} MB, and is no image")
                if len(data) < length:
                    raise UserError(f"the download of {url} was cut off at {len(data)} of {length} octets: try again")
    except urllib.error.HTTPError as e:
        what = "there is no such file; look at its name" if e.code == 404 else "try again later"
        raise UserError(f"{url} cannot be downloaded: {e.code} {e.reason}: {what}") from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        reason = getattr(e, "reason", e)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(
                f"{url}: the server cannot be verified ({reason.verify_message}): is this computer's clock right, or"
                " does something stand in between? A server of your own needs --ca FILE"
            ) from None
        raise UserError(
            f"{url} cannot be downloaded ({str(reason) or type(e).__name__}): look at the network, or download it"
            " elsewhere and name the file: --image FILE"
        ) from None
    data = bytes(data)
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        raise UserError(
            f"{url} is not what was expected: its SHA-256 is {found}, not {sha256}. It was thrown away; look whether"
            " both are of the same file"
        )
    check(data, url.rpartition("/")[2])
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft = cache / f".{found}.part"
        draft.write_bytes(data)
        draft.replace(cache / found)
    except OSError as e:
        say(f"edgepost: it is not kept for the next time: {e.strerror}: {e.filename}")
    return data


def load(image, sha256=None, ca=None, say=print):
    """The Image in a file or at an https address, checked. Raises UserError."""
    if sha256 is not None:
        sha256 = sha256.strip().lower().removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise UserError("--sha256 wants the 64 hexadecimal digits of a SHA-256")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", image):
        data = download(image, sha256, ca, say)
        name = urllib.parse.unquote(urllib.parse.urlsplit(image).path.rpartition("/")[2]) or image
        if not sha256:
            found = hashlib.sha256(data).hexdigest()
            raise UserError(
                f"{image} was downloaded, and has not been written: its SHA-256 is {found}. Compare that with what you"
                f" know of it, and run the command again with --sha256 {found}"
            )
    else:
        name = Path(image).name
        try:
            if Path(image).stat().st_size > MOST:
                raise UserError(f"{image} is bigger than {MOST >> 20} MB, and no image")
            data = Path(image).read_bytes()
        except OSError as e:
            raise UserError(
                f"{image} cannot be read: {e.strerror}; images are at micropython.org/download"
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if sha256 and found != sha256:
            raise UserError(f"{image} is not what was expected: its SHA-256 is {found}. Download it again")
    return check(data, name)
