"""Mails with attachments against the standard library, which has to read them as they were meant; and one from a
gateway whose heap could not hold what it sends.
"""

import email
import email.policy
import email.utils
import hashlib
import re

from harness import BOARD
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp import mime, plain

settings.register_profile("edgepost", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("edgepost")

# Text without the lone surrogates that no encoding has.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
printable = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=120)
atoms = st.from_regex(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,12}", fullmatch=True)
mailboxes = st.builds("{}@{}.example".format, atoms, st.from_regex("[a-z0-9]{1,9}", fullmatch=True))
ids = st.from_regex(r"[-A-Za-z0-9._@+]{1,40}", fullmatch=True)
long = st.text(st.characters(exclude_categories=["Cs"]), max_size=120).flatmap(
    lambda text: st.integers(1, 40).map(lambda n: text * n)
)
kinds = st.sampled_from([None, "image/jpeg", "application/octet-stream", "text/csv", "application/vnd.x-y+z"])


def composed(*args, **named):
    """What the standard library makes of a mail, which is 7-bit, in short lines with CRLF, and in small pieces."""
    made = mime.compose("a@b.example", "c@d.example", *args, **named)
    pieces = list(made)
    assert all(0 < len(p) < 1024 for p in pieces)
    data = b"".join(pieces)
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b"")
    assert data.isascii() and max(len(x) for x in data.split(b"\r\n")) <= 76
    assert b"\0" not in data
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    for part in parsed.walk():
        assert not part.defects, part.defects
        assert not (part.is_multipart() and (part.preamble or part.epilogue or "").strip())
    return parsed


def kept(name):
    """What is kept of a name: controls of ASCII are spaces."""
    return "".join(" " if c < " " or c == "\x7f" else c for c in name).strip() or "file"


def lines(text):
    """A text as it arrives: its line ends are CRLF, and there is one at its end."""
    text = re.sub("\r\n|\r|\n", "\r\n", text)
    return text if not text or text.endswith("\r\n") else text + "\r\n"


def read(part):
    """The text of a text part, its line ends as they came."""
    return part.get_payload(decode=True).decode(part.get_content_charset())


@st.composite
def pieces_of(draw, data):
    """`data` in an iterator that gives it in pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    edges = [0, *cuts, len(data)]
    return iter([data[a:b] for a, b in zip(edges, edges[1:], strict=False)])


@given(st.lists(st.tuples(words, st.binary(max_size=400), kinds), min_size=1, max_size=4), st.data())
def test_names_types_and_octets_of_attachments_are_those_of_the_standard_library(items, data):
    given_ = [(name, data.draw(pieces_of(octets)), kind) for name, octets, kind in items]
    parsed = composed("s", "text", attachments=given_)
    assert parsed.get_content_type() == "multipart/mixed"
    got = list(parsed.iter_attachments())
    for part, (name, octets, kind) in zip(got, items, strict=True):
        assert part.get_filename() == kept(name)
        assert part["Content-Disposition"].params["filename"] == kept(name)
        assert part.get_content_disposition() == "attachment"
        assert part.get_payload(decode=True) == octets
        if kind:
            assert part.get_content_type() == kind


@given(st.one_of(words, words.map(lambda name: name * 9)))
def test_an_old_mail_program_finds_the_name_in_encoded_words(name):
    (part,) = composed("s", attachments=[(name, b"x")]).iter_attachments()
    raw = re.search(r'name="(.*?)"\r?\n', part.as_bytes(policy=email.policy.compat32).decode(), re.S)[1]
    old = re.sub(r"\r?\n ", " ", raw)
    decoded = email.header.make_header(email.header.decode_header(old)) if "=?" in old else old
    assert str(decoded) == kept(name)


@given(printable, words, words, st.lists(st.tuples(words, mailboxes), max_size=4), mailboxes)
def test_no_text_in_any_field_adds_one(subject, name, extra, cc, reply_to):
    clean = [("".join(c for c in n if c not in "<>"), box) for n, box in cc]
    parsed = composed(
        subject,
        name,
        html=name or "x",
        cc=[f"{n} <{box}>" for n, box in clean],
        reply_to=reply_to,
        attachments=[(name, b"x")],
        extra=[("X-Extra", extra)],
        priority="low",
    )
    names = ["From", "To", "Subject", "X-Extra", "X-Priority", "Importance", "Priority", "X-Mailer", "Auto-Submitted"]
    names += ["MIME-Version", "Cc", "Reply-To", "Content-Type"]
    assert parsed.keys() == [n for n in names if cc or n != "Cc"]
    assert parsed["Subject"] == subject.strip()
    assert [a.addr_spec for a in (parsed["Cc"].addresses if cc else ())] == [box for _, box in clean]
    assert parsed["Reply-To"].addresses[0].addr_spec == reply_to
    assert [p.get_content_type() for p in parsed.walk()][:4] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html"]
    assert len(list(parsed.walk())) == 5


@given(long, long.filter(bool), st.data())
def test_text_and_html_read_the_same_in_the_standard_library(text, html, data):
    for a, b in ((text or "x", html), (data.draw(pieces_of(text)), data.draw(pieces_of(html)))):
        parsed = composed("s", a, html=b)
        assert parsed.get_content_type() == "multipart/alternative"
        assert read(parsed.get_body(["html"])) == lines(html)
        assert read(parsed.get_body(["plain"])) == lines(text or "x" if isinstance(a, str) else text)


@given(st.lists(st.tuples(ids, st.binary(max_size=100)), min_size=1, max_size=3, unique_by=lambda i: i[0]))
def test_images_are_found_by_the_name_that_the_html_gives(images):
    html = "".join(f'<img src="cid:{name}">' for name, _ in images)
    parsed = composed("s", "text", html=html, inline=[(name, data, "image/png") for name, data in images])
    shown = parsed.get_body(["related"])
    root, *parts = shown.iter_parts()
    assert read(root) == html + "\r\n"
    assert shown.get_param("type") == root.get_content_type() == "text/html"
    assert [(p["Content-ID"], p.get_payload(decode=True)) for p in parts] == [(f"<{n}>", d) for n, d in images]
    assert {p.get_content_disposition() for p in parts} == {"inline"}


@given(st.lists(mailboxes, max_size=4), st.lists(mailboxes, max_size=4), st.lists(mailboxes, max_size=4))
def test_the_envelope_has_everybody_once(to, cc, bcc):
    got = mime.recipients(to, cc, bcc)
    assert got == list(dict.fromkeys(to + cc + bcc))


tags = st.sampled_from("<p> </p> <br> <b> < > <style> </style> <!-- --> &lt; &#60; &".split())


@given(st.lists(st.one_of(tags, words)).map("".join))
def test_any_html_has_words_and_ends(html):
    for text in plain.words(html):
        assert text


@given(st.lists(st.from_regex("[a-z&;<>\"0-9é]{1,9}", fullmatch=True), min_size=1))
def test_what_is_written_as_html_is_read_as_it_was(found):
    escaped = [w.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for w in found]
    assert "".join(plain.words("<p>" + " \n<i>".join(escaped) + "</p>")).split() == found


# What a person writes beside board.toml. It is called every second.
USER = """
import gc
import hashlib
import os

import gateway

COUNT = {count}
heap = []
step = 0


def picture(pieces):
    for n in range(pieces):
        if not n % 16:
            gc.collect()
            heap.append(gc.mem_alloc())
        yield hashlib.sha256(b"%d" % n).digest() * 32
    if pieces < COUNT:
        raise ValueError("the camera is gone")


def look():
    global step
    step += 1
    if step == 1:
        gateway.alert("nothing", "No picture yet.", html="<p>x")  # loads what such alerts need
        try:
            gateway.alert("broken", "x", attachments=[("door.jpg", picture(100))])
        except ValueError as e:
            left = [n for n in os.listdir("/spool") if os.stat("/spool/" + n)[6] > 9000]
            print("camera: %s, spool: %s" % (e, left))
        try:
            print("camera: the whole fits", len(bytearray(COUNT * 1024)))
        except MemoryError:
            print("camera: the whole does not fit")
    if step == 2:
        with open("/door.log", "w") as f:
            for _ in range(5000):
                f.write("open\\n")
        del heap[:]
        gateway.alert(
            "The door is open", "Look.", bcc=["guard@example.com"], priority="urgent",
            html='<p>Look: <img src="cid:door.jpg">', inline=[("door.jpg", picture(COUNT), None, COUNT * 1024)],
            attachments=[("Tür 1.csv", ("%d;%d\\n" % (n, n) for n in range(1000))), "/door.log"])
        print("camera: heap +%d" % (max(heap) - heap[0]))
    return 0
"""
COUNT = 200  # KB
SENSOR = """
[[sensor]]
name = "door"
driver = "user"
function = "look"
path = "../user.py"
above = 1
every = "1s"
"""


def test_a_gateway_sends_a_picture_that_its_heap_could_not_hold(gateway, smarthost, tmp_path):
    (tmp_path / "user.py").write_text(USER.replace("{count}", str(COUNT)))
    host = smarthost()
    one = gateway(BOARD + SENSOR, host, heapsize="256k")
    one.wait_for("camera: the camera is gone, spool: []")
    one.wait_for("camera: the whole does not fit")
    grown = one.wait_for("camera: heap +")
    assert int(grown.partition("+")[2]) < 6000, grown
    one.wait_for("delivered to guard@example.com")
    (mail,) = [m for m in host.mails if m.message["Subject"] == "The door is open"]
    assert sorted(mail.recipients) == ["guard@example.com", "oncall@example.com"]
    assert "guard" not in mail.message.as_string()
    assert mail.message["X-Priority"] == "1"
    (picture,) = list(mail.message.get_body(["related"]).iter_parts())[1:]
    assert picture.get_payload(decode=True) == b"".join(hashlib.sha256(b"%d" % n).digest() * 32 for n in range(COUNT))
    table, log = mail.message.iter_attachments()
    assert table.get_filename() == "Tür 1.csv"
    assert table.get_payload(decode=True) == b"".join(b"%d;%d\n" % (n, n) for n in range(1000))
    assert (log.get_filename(), log.get_content_type()) == ("door.log", "text/plain")
    assert log.get_payload(decode=True) == b"open\n" * 5000
    assert "Traceback" not in one.log() and "broken" not in [m.message["Subject"] for m in host.mails]
    assert one.stop() == 0
