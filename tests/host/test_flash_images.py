"""What `edgepost flash` takes for an image, and what it says of all that is none."""

import gzip
import hashlib
import http.server
import struct
import threading
from types import SimpleNamespace

import pytest
from bootloaders import banner, e10_block, esp_image, partitions, program, uf2_block, uf2_image
from edgepost import certificates, image
from edgepost.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st

RP2040, RP2350 = 0xE48BFF56, 0xE48BFF59
QUICK = settings(deadline=None, max_examples=60, derandomize=True, database=None)
ESP = esp_image(size=640)
UF2 = uf2_image(blocks=8)


def test_an_image_for_an_esp32_is_understood():
    img = image.check(ESP, "x.bin")
    assert (img.kind, img.chips, img.offset, img.needs) == ("esp", ("ESP32",), 0x1000, 4 << 20)
    assert (img.version, img.board) == ("v1.26.1", "Generic ESP32 module with ESP32")


@pytest.mark.parametrize(
    "number, start, chip", [(2, 0x1000, "ESP32-S2"), (9, 0, "ESP32-S3"), (5, 0, "ESP32-C3"), (13, 0, "ESP32-C6")]
)
def test_an_image_for_another_of_its_family_is_understood(number, start, chip):
    img = image.check(esp_image(number, start, size=640), "x.bin")
    assert (img.chips, img.offset) == ((chip,), start)


@pytest.mark.parametrize("family, chip", [(RP2040, "RP2040"), (RP2350, "RP2350"), (0xE48BFF5A, "RP2350")])
def test_an_image_for_a_pico_is_understood(family, chip):
    img = image.check(uf2_image(family, banner("v1.25.0", f"Raspberry Pi Pico W with {chip}")), "x.uf2")
    assert (img.kind, img.chips, img.version) == ("rp2", (chip,), "v1.25.0")
    assert img.board == f"Raspberry Pi Pico W with {chip}"


def test_the_block_before_an_image_for_rp2350_is_passed_over():
    assert image.uf2(e10_block() + uf2_image(RP2350), "x") == ("RP2350",)


def test_an_image_for_both_chips_is_for_both():
    assert image.uf2(uf2_image(RP2040) + uf2_image(RP2350), "x") == ("RP2040", "RP2350")


def changed(data, at, octets):
    return data[:at] + octets + data[at + len(octets) :]


WRONG = {
    "nothing": (b"", "is empty: download it again"),
    "a web page": (b"\n <!DOCTYPE html><html>", "is a web page, not an image: open micropython.org/download"),
    "a text": (b"Not found\r\n", "is a text, not an image: take the .bin"),
    "gzip": (gzip.compress(ESP), "is packed: unpack it"),
    "zip": (b"PK\3\4" + bytes(600), "is packed: unpack it"),
    "elf": (b"\x7fELF" + bytes(600), "is an ELF file"),
    "noise": (bytes(range(256)) * 4, "is no image: one for an ESP32 begins with"),
    "an ESP8266's": (struct.pack("<BBBBIII", 0xE9, 1, 0, 0, 0x40100000, 0x4010F000, 64) + bytes(64), "an ESP8266"),
    "an unknown chip's": (changed(ESP, 12, b"\x77\0"), "a chip that is not known here .number 119."),
    "an update": (program(0, banner(), app=True), "is the program alone, for updates over the air"),
    "without partitions": (esp_image(table=b"\xff" * 0xC00), "has no partition table at 0x8000"),
    "a damaged table": (changed(ESP, 0x7000 + 40, b"!"), "the checksum of the partition table is wrong"),
    "a damaged loader": (changed(ESP, 100, b"!"), "the checksum of the boot loader is wrong"),
    "a damaged program": (changed(ESP, 0xF000 + 300, b"!"), "the checksum of MicroPython is wrong"),
    "a damaged digest": (ESP[:-1] + bytes([ESP[-1] ^ 1]), "the checksum of MicroPython is wrong"),
    "cut in its header": (ESP[:20], "is not whole: it ends within the boot loader"),
    "cut in its loader": (ESP[:600], "is not whole: it ends within the boot loader"),
    "cut before its table": (ESP[:0x4000], "is not whole: it ends before the partition table"),
    "cut before its program": (ESP[:0xE000], "is not whole: it ends within MicroPython"),
    "cut in its program": (ESP[:-300], "is not whole: it ends within MicroPython"),
    "cut in its digest": (ESP[:-5], "is not whole: it ends within MicroPython"),
    "another program": (esp_image(text=b"Tasmota"), "is a program for ESP32, but it is not MicroPython"),
    "too old": (esp_image(text=banner("v1.19.1")), "is MicroPython v1.19.1, which is too old: edgepost needs 1.23"),
    "a cut block": (UF2[:-7], "it ends in the middle of a block"),
    "a missing block": (UF2[:-512], "is not whole: it has 7 of 8 blocks"),
    "a hole": (UF2[:1024] + UF2[1536:], "is damaged: after 2 blocks of 8 comes number 3"),
    "a block twice": (UF2[:1024] + UF2[512:], "is damaged: after 2 blocks of 8 comes number 1"),
    "two images": (UF2 + UF2, "is damaged: after 8 blocks of 8 comes number 0"),
    "a bad end": (UF2[:-1] + b"!", "is damaged: block 7 is no block of UF2"),
    "a bad begin": (changed(UF2, 1024, b"!"), "is damaged: block 2 is no block of UF2"),
    "no family": (uf2_block(0, 1, b"x", flags=0), "does not say what chip it is for"),
    "a SAMD51's": (uf2_image(0x55114460), "is for another chip .UF2 family 0x55114460., not for a Pico"),
    "not for flash": (uf2_block(0, 1, b"x", flags=0x2001), "does not go to flash"),
    "in memory": (uf2_block(0, 1, b"x", address=0x20000000), "goes to 0x20000000, which is no flash"),
    "absolute": (uf2_block(0, 1, b"x", 0xE48BFF57), "goes to an absolute address"),
    "only what is ignored": (e10_block(), "has nothing in it that goes to flash"),
    "another's program": (uf2_image(text=b"CircuitPython"), "is a program for RP2040, but it is not MicroPython"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_image_is_told_with_what_to_do(what, tmp_path):
    data, says = WRONG[what]
    (tmp_path / "firmware").write_bytes(data)
    with pytest.raises(UserError, match=says) as e:
        image.load(str(tmp_path / "firmware"))
    assert str(e.value).startswith("firmware ")


def test_a_file_that_is_not_there_and_one_that_has_another_hash_are_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        image.load(str(tmp_path / "none"))
    (tmp_path / "a").write_bytes(UF2)
    with pytest.raises(UserError, match="is not what was expected: its SHA-256 is"):
        image.load(str(tmp_path / "a"), "0" * 64)
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        image.load(str(tmp_path / "a"), "abc")
    assert image.load(str(tmp_path / "a"), hashlib.sha256(UF2).hexdigest().upper()).data == UF2


# ---- properties


@given(st.integers(1, 12), st.sampled_from(sorted(image.FAMILIES)), st.integers(1, 476), st.booleans())
@QUICK
def test_each_whole_uf2_is_taken(total, family, size, ignored):
    data = b"".join(uf2_block(n, total, bytes([n]) * size, family) for n in range(total))
    assert image.uf2((e10_block() if ignored else b"") + data, "x") == (image.FAMILIES[family],)


@given(st.integers(0, len(UF2) - 1))
@QUICK
def test_no_part_of_a_uf2_is_taken(length):
    with pytest.raises(UserError):
        image.uf2(UF2[:length], "x")


@given(st.permutations(range(8)))
@QUICK
def test_blocks_in_another_order_are_not_taken(order):
    data = b"".join(UF2[512 * n : 512 * n + 512] for n in order)
    if order != list(range(8)):
        with pytest.raises(UserError):
            image.uf2(data, "x")


@given(st.integers(0, 7), st.integers(0, 31), st.integers(0, 7))
@QUICK
def test_one_bit_that_is_wrong_in_a_header_is_seen_or_changes_neither_chip_nor_order(block, octet, bit):
    at = 512 * block + octet
    data = changed(UF2, at, bytes([UF2[at] ^ 1 << bit]))
    try:
        chips = image.uf2(data, "x")
    except UserError:
        return
    # What can be another and still whole: other flags, the address within flash, and how much of a block counts.
    assert chips == ("RP2040",) and 8 <= octet < 20


@given(st.binary(max_size=1100), st.sampled_from([b"", b"UF2\nWQ]\x9e", b"\xe9", ESP[:24], ESP[:900], UF2[:540]]))
@QUICK
def test_whatever_comes_is_an_image_or_is_told(data, start):
    with pytest.raises(UserError):
        image.check(start + data, "x")


@given(st.integers(0, len(ESP) - 1))
@QUICK
def test_no_part_of_an_esp_image_is_taken(length):
    with pytest.raises(UserError):
        image.check(ESP[:length], "x")


ENDS = len(program(0, b"boot" * 300))


@given(st.one_of(st.integers(0, ENDS - 1), st.integers(0xF000, len(ESP) - 1)), st.integers(0, 7))
@QUICK
def test_one_bit_that_is_wrong_in_an_esp_image_is_seen(at, bit):
    with pytest.raises(UserError):
        image.check(changed(ESP, at, bytes([ESP[at] ^ 1 << bit])), "x")


def test_what_the_partitions_take_is_what_the_flash_has_to_have():
    table = partitions([(0, 0x10, 0x10000, 0x180000), (0, 0x11, 0x190000, 0x180000), (1, 0x81, 0x310000, 0x4F0000)])
    assert image.check(esp_image(table=table, size=640), "x").needs == 8 << 20


# ---- over HTTPS


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server that stands in for the site: `site.files` has {path: octets}, or what it does instead of them."""
    where = tmp_path_factory.mktemp("site")
    authority = certificates.Authority(where)
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = files.get(self.path)
            if isinstance(found, str):
                self.send_response(302)
                self.send_header("Location", found)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif found is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(found) + (100 if "cut" in self.path else 0)))
                self.end_headers()
                self.wfile.write(found)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = certificates.server_context(*authority.issue())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    url = f"https://localhost:{server.server_port}"
    yield SimpleNamespace(files=files, asked=asked, url=url, ca=str(authority.pem))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_release_is_downloaded_checked_and_kept(site):
    address = image.address("pico_w", "20250911-v1.26.1", site.url + "/resources/firmware/")
    assert address == site.url + "/resources/firmware/RPI_PICO_W-20250911-v1.26.1.uf2"
    site.files["/resources/firmware/RPI_PICO_W-20250911-v1.26.1.uf2"] = UF2
    wanted, said = hashlib.sha256(UF2).hexdigest(), []
    site.asked.clear()
    assert image.load(address, wanted, site.ca, said.append).name == "RPI_PICO_W-20250911-v1.26.1.uf2"
    assert image.load(address, wanted, site.ca, said.append).data == UF2
    assert len(site.asked) == 1 and "was downloaded before" in said[0]
    (kept,) = (image.build.cache_dir() / "images").iterdir()
    kept.write_bytes(b"damaged")
    assert image.load(address, wanted, site.ca, said.append).data == UF2
    assert len(site.asked) == 2


def test_a_download_whose_hash_nobody_has_named_is_not_written_but_told(site):
    site.files["/a.uf2"] = UF2
    wanted = hashlib.sha256(UF2).hexdigest()
    with pytest.raises(UserError, match=f"has not been written.*--sha256 {wanted}"):
        image.load(site.url + "/a.uf2", None, site.ca)
    site.files.pop("/a.uf2")  # it is kept
    assert image.load(site.url + "/a.uf2", wanted, site.ca).data == UF2


def test_a_download_that_goes_wrong_is_told(site):
    site.files.update({"/page.uf2": b"<html>", "/cut.uf2": UF2, "/moved.uf2": "http://localhost/x", "/a.bin": ESP})
    for path, says in {
        "/none.uf2": "cannot be downloaded: 404 .*look at its name",
        "/page.uf2": "page.uf2 is a web page",
        "/cut.uf2": "was cut off at 4096 of 4196 octets: try again",
        "/moved.uf2": "leads to http://localhost/x, which is not https",
    }.items():
        with pytest.raises(UserError, match=says):
            image.load(site.url + path, None, site.ca)
    with pytest.raises(UserError, match=f"is not what was expected: its SHA-256 is .*, not {'0' * 64}. It was thrown"):
        image.load(site.url + "/a.bin", "0" * 64, site.ca)
    assert not list(image.build.cache_dir().glob("images/*"))


def test_a_server_that_cannot_be_verified_or_reached_and_plain_http_are_told(site, tmp_path):
    with pytest.raises(UserError, match="the server cannot be verified"):
        image.load(site.url + "/a.uf2")
    with pytest.raises(UserError, match="is not https"):
        image.load("http://localhost/a.uf2")
    with pytest.raises(UserError, match="cannot be downloaded .*--image FILE"):
        image.load("https://localhost:1/a.uf2", None, site.ca)
    (tmp_path / "ca").write_text("x")
    with pytest.raises(UserError, match="is no PEM file of a CA"):
        image.load(site.url + "/a.uf2", None, str(tmp_path / "ca"))


def test_what_is_no_release_is_told():
    for wrong in ("v1.26.1", "latest", "20250911-v1.26.1/../../x"):
        with pytest.raises(UserError, match="is no release"):
            image.address("esp32", wrong)
