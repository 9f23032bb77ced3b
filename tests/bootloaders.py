"""The boot loaders of boards, simulated: an ESP32's at a pseudo-terminal, and the drive of a Pico's; images for them.

    with Esp32() as board:
        ... esptool writes to board.port; board.flash has what was written

`unplug` counts exchanges, requests with their answers, until the cable is pulled.
"""

import contextlib
import hashlib
import os
import pty
import select
import struct
import threading
import tty
import zlib
from pathlib import Path

OHAI = b"OHAI"


def slip(data):
    """A SLIP frame (RFC 1055)."""
    return b"\xc0" + data.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def unslip(data):
    return data.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")


class Esp32:
    """The serial loader of an ESP32 (or another chip) without modem lines: always in its boot loader, until something
    that is no SLIP arrives, which goes to `board`, a VirtualBoard, when there is one: MicroPython runs.

    magic    the word at 0x40001000 that tells the chip; chip_id what GET_SECURITY_INFO says, on chips that know it
    size     the exponent of the flash's size: 22 is 4 MB
    """

    def __init__(self, magic=0x00F01D83, chip_id=None, size=22, unplug=None, board=None, lies=False):
        self.magic, self.chip_id, self.unplug, self.board, self.lies = magic, chip_id, unplug, board, lies
        self.flash_id = size << 16 | 0x40EF
        self.flash = bytearray(b"\xff" * (1 << size))
        self.ram = bytearray()  # what was sent as stub
        self.registers = {0x40001000: magic}
        self.exchanges = 0
        self.erased = 0  # times that all was erased
        self.written = 0  # octets that went to flash
        self.begun = 0  # octets that were erased to be written
        self.stub = False
        self.master, slave = pty.openpty()
        self.port = os.ttyname(slave)
        tty.setraw(slave)
        os.set_blocking(self.master, False)
        self._slave = slave  # else the master says that it is hung up until somebody opens the port
        self._ends, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        os.write(self._end, b"!")
        self._thread.join()
        for fd in (self._ends, self._end):
            os.close(fd)
        self._pull()

    def _pull(self):
        if self.master >= 0:
            os.close(self._slave)
            os.close(self.master)
            self.master = -1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _run(self):
        held, through = b"", None
        while self.master >= 0:
            ready = select.select([self.master, self._ends, *([through] if through else [])], [], [])[0]
            if self._ends in ready:
                break
            if through in ready:
                with contextlib.suppress(OSError):
                    self._send(os.read(through, 4096))
            if self.master not in ready:
                continue
            try:
                held += os.read(self.master, 65536)
            except OSError:
                continue
            if through or held[:1] not in (b"\xc0", b""):
                if through is None and self.board:
                    through = os.open(self.board.port, os.O_RDWR | os.O_NOCTTY)
                if through:
                    os.write(through, held)
                held = b""
            while held.startswith(b"\xc0") and b"\xc0" in held[1:]:
                frame, _, held = held[1:].partition(b"\xc0")
                if frame:
                    self._frame(unslip(frame))
                    if self.master < 0:
                        break
                else:
                    held = b"\xc0" + held
        if through:
            os.close(through)

    def _send(self, data):
        while data:
            select.select([], [self.master], [], 10)
            data = data[os.write(self.master, data) :]

    def _frame(self, frame):
        self.exchanges += 1
        if self.unplug is not None and self.exchanges > self.unplug:
            self._pull()
            return
        direction, op, size, _ = struct.unpack("<BBHI", frame[:8])
        data = frame[8:]
        assert direction == 0 and size == len(data), frame[:40]
        value, answer, status, after = 0, b"", b"\0\0", b""
        if op == 0x08:  # SYNC, whose answer comes eight times; a ROM says something, a stub zero
            value = 0 if self.stub else 0x20120707
            after = 7 * self._answer(op, value, b"", status)
        elif op == 0x0A:  # READ_REG
            value = self.registers.get(struct.unpack("<I", data)[0], 0)
        elif op == 0x09:  # WRITE_REG
            where, word, mask, _ = struct.unpack("<IIII", data[:16])
            self._register(where, self.registers.get(where, 0) & ~mask | word & mask)
        elif op == 0x14:  # GET_SECURITY_INFO
            if self.chip_id is None:
                status = b"\1\5"
            else:
                answer = struct.pack("<I8BII", 0, *bytes(8), self.chip_id, 0)
        elif op in (0x05, 0x07, 0x06):  # MEM_BEGIN, MEM_DATA, MEM_END
            if op == 0x07:
                self.ram += data[16:]
            elif op == 0x06:
                self.stub = True
                after = slip(OHAI)
        elif op in (0x0B, 0x0D, 0x0F):  # SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE
            pass
        elif op == 0xD0:  # ERASE_FLASH
            self.flash[:] = b"\xff" * len(self.flash)
            self.erased += 1
        elif op == 0x10:  # FLASH_DEFL_BEGIN
            self.begun, _, _, self.at = struct.unpack("<IIII", data[:16])
            self.inflate = zlib.decompressobj()
            first = self.at
            self.flash[first : first + self.begun] = b"\xff" * self.begun
        elif op == 0x11:  # FLASH_DEFL_DATA
            plain = self.inflate.decompress(data[16:])
            self.flash[self.at : self.at + len(plain)] = plain
            self.at += len(plain)
            self.written += len(plain)
        elif op in (0x04, 0x12):  # FLASH_END, FLASH_DEFL_END
            pass
        elif op == 0x13:  # SPI_FLASH_MD5
            at, length, _, _ = struct.unpack("<IIII", data)
            answer = hashlib.md5(self.flash[at : at + length] + (b"!" if self.lies else b"")).digest()
        else:
            status = b"\1\5"
        self._send(self._answer(op, value, answer, status) + after)

    def _answer(self, op, value, data, status):
        status += b"" if self.stub else b"\0\0"
        return slip(struct.pack("<BBHI", 1, op, len(data + status), value) + data + status)

    def _register(self, where, word):
        """The SPI controller: a command that is started is done at once."""
        self.registers[where] = word
        if where & 0xFFF == 0 and where >> 12 in (0x3FF42, 0x60002) and word >> 18 & 1:
            base = where
            command = self.registers.get(base + 0x24, 0) & 0xFF  # SPI_USR2
            if where >> 12 == 0x60002:
                command = self.registers.get(base + 0x20, 0) & 0xFF
            results = {0x9F: self.flash_id, 0x5A: 0x50444653}
            self.registers[base + (0x80 if where >> 12 == 0x3FF42 else 0x58)] = results.get(command, 0)
            self.registers[where] = 0


class Pico:
    """The drive of a Pico's boot loader: `loader()` mounts it; a whole UF2 file makes it go, and `board` run."""

    def __init__(self, where, board, name="RPI-RP2", model="Raspberry Pi RP2"):
        self.where, self.board, self.name, self.model = Path(where), board, name, model
        self.flash = b""  # what was copied
        self._stop = threading.Event()
        self._thread = None

    def loader(self):
        """It enters its boot loader."""
        self.where.mkdir(exist_ok=True)
        info = f"UF2 Bootloader v3.0\r\nModel: {self.model}\r\nBoard-ID: {self.name}\r\n"
        (self.where / "INFO_UF2.TXT").write_text(info)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        file = self.where / "edgepost.uf2"
        while not self._stop.wait(0.01):
            data = file.read_bytes() if file.exists() else b""
            blocks = len(data) // 512
            if blocks and blocks == struct.unpack_from("<I", data, (blocks - 1) * 512 + 24)[0]:
                self.flash = data
                (self.where / "INFO_UF2.TXT").unlink()
                file.unlink()
                self.board.power(True)
                return

    def close(self):
        self._stop.set()
        if self._thread:
            self._thread.join()


# ---- images


def banner(version="v1.26.1", board="Generic ESP32 module with ESP32"):
    """The words in which MicroPython says what it is, as they stand in its image."""
    return f"MicroPython {version} on 2025-09-11\0{board}\0".encode()


def program(chip_id=0, payload=b"", app=False):
    """One program of an ESP image: header, segment, checksum, SHA-256."""
    description = struct.pack("<I", 0xABCD5432) + bytes(252) if app else b""
    body = description + payload
    body += bytes(-len(body) % 4)
    image = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000)
    image += struct.pack("<BBBBHBHH4sB", 0xEE, 0, 0, 0, chip_id, 0, 0, 65535, bytes(4), 1)
    image += struct.pack("<II", 0x3FFE8000, len(body)) + body
    image += bytes(15 - len(image) % 16)
    checksum = 0xEF
    for octet in body:
        checksum ^= octet
    image += bytes([checksum])
    return image + hashlib.sha256(image).digest()


def partitions(entries=((1, 2, 0x9000, 0x6000), (0, 0, 0x10000, 0x1F0000), (1, 0x81, 0x200000, 0x200000))):
    """A partition table with its MD5; entries: (type, subtype, offset, size)."""
    table = b"".join(struct.pack("<2sBBII16sI", b"\xaa\x50", *e, b"p", 0) for e in entries)
    return (table + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()).ljust(0xC00, b"\xff")


def esp_image(chip_id=0, start=0x1000, text=None, size=3000, table=None):
    """An image for the ESP32 family as MicroPython's build makes it, but small."""
    text = banner() if text is None else text
    image = program(chip_id, b"boot" * 300).ljust(0x8000 - start, b"\xff") + (partitions() if table is None else table)
    filler = hashlib.sha512(b"filler").digest() * (size // 64)
    return image.ljust(0x10000 - start, b"\xff") + program(chip_id, text + filler, app=True)


def uf2_block(number, total, payload, family=0xE48BFF56, flags=0x2000, address=None):
    """One block of UF2."""
    address = 0x10000000 + 256 * number if address is None else address
    head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, flags, address, len(payload), number, total, family)
    return head + payload.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30)


def e10_block():
    """What comes first in images for RP2350, and is to be ignored."""
    payload = b"\xef" * 256 + struct.pack("<I", 0x9957E304)
    block = uf2_block(0, 2, payload, 0xE48BFF57, 0xA000, 0x10FFFF00)
    return block[:16] + struct.pack("<I", 256) + block[20:]


def uf2_image(family=0xE48BFF56, text=None, blocks=20):
    """An image for a Pico."""
    text = banner(board="Raspberry Pi Pico W with RP2040") if text is None else text
    flash = text.ljust(256 * blocks, b"\x5a")[: 256 * blocks]
    return b"".join(uf2_block(n, blocks, flash[256 * n : 256 * n + 256], family) for n in range(blocks))
