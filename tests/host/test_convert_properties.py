"""lib/smtp/convert.py against the standard library's idea of the same mail, before and after.

Mails are either well formed, drawn as trees of parts, or soups of what mails are made of. A soup has no meaning that
two parsers would agree on, but nothing that comes out of one may break a rule of the wire.
"""

import base64
import email
import io
import os
import quopri

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from smtp.convert import SevenBit, obstacle

ROUNDS = int(os.environ.get("EDGEPOST_FUZZ", "3000")) // 30
check = settings(deadline=None, derandomize=True, max_examples=ROUNDS)

SIZES = st.sampled_from((1, 2, 3, 7, 100, 511, 512, 513, 1024, 5000))
HEAD = b"From: a@b.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"


def reader(mail, piece):
    source = io.BytesIO(mail)
    return lambda buf: source.readinto(memoryview(buf)[:piece])


def convert(mail, size=4096, piece=4096):
    """The mail in 7 bits, or None when something is in the way."""
    marks = bytearray()
    if obstacle(reader(mail, piece), marks):
        return None
    converted = SevenBit(reader(mail, piece), marks)
    buf = bytearray(size)
    out = b""
    while n := converted.readinto(buf):
        out += buf[:n]
    assert converted.rest == 0
    return out


def assert_fits_the_wire(out):
    assert out.isascii()
    lines = out.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 998


def meaning(mail):
    """What the standard library reads: for each part its type and name, and what a leaf holds decoded."""
    parts = []
    for part in email.message_from_bytes(mail).walk():
        kind = part.get_content_type(), part.get_filename()
        parts.append((*kind, None if part.is_multipart() else part.get_payload(decode=True)))
    return parts


# Lines that are dangerous in one way or another; the delimiters that a tree has all start with "--b_".
words = st.sampled_from((
    b" ", b"\t", b".", b"..", b"=", b"=3D", b"=\xfc", b"From ", b"From", b"--", b"-", b"\x00", b"\x7f", b"a" * 73,
    b"a" * 76,
))  # fmt: skip
text_lines = st.lists(
    st.one_of(
        words,
        st.binary(max_size=90).map(lambda x: x.replace(b"\r", b"").replace(b"\n", b"")),
        st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=60).map(str.encode),
        st.integers(0, 2500).map(lambda n: b"word \xc3\xbc." [: 1 + n % 8] * (n // 4)),
    ),
    max_size=4,
).map(b"".join)
contents = st.lists(text_lines, max_size=5).map(b"\r\n".join).filter(lambda x: b"--b_" not in x)
cases = st.sampled_from((bytes, bytes.lower, bytes.upper))
text_types = st.sampled_from((
    b"", b"text/plain", b"text/plain; charset=utf-8", b"text/html;\r\n\tcharset=iso-8859-1", b"application/json",
    b'application/octet-stream; name="a;b=\\"c.bin"',
))  # fmt: skip


@st.composite
def leaves(draw):
    kind = draw(text_types)
    name = draw(cases)
    fields = [name(b"Content-Type: ") + kind + b"\r\n"] if kind else []
    content = draw(contents)
    encoding = draw(st.sampled_from((b"", b"7bit", b"8bit", b"8BIT", b"binary", b"base64", b"quoted-printable")))
    if encoding == b"base64":
        content = base64.encodebytes(content).replace(b"\n", b"\r\n")
    elif encoding == b"quoted-printable":
        content = quopri.encodestring(content.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
        assume(b"\r" not in content.replace(b"\r\n", b""))
    if encoding:
        fields.insert(draw(st.integers(0, len(fields))), name(b"Content-Transfer-Encoding: ") + encoding + b"\r\n")
    return b"".join(fields) + b"\r\n" + content


class Count:
    """Delimiters are all different, though one may begin like another."""

    def __init__(self):
        self.n = 0

    def boundary(self):
        self.n += 1
        return b"b_" + b"x" * self.n


@st.composite
def entities(draw, depth, count):
    what = draw(st.integers(0, 5)) if depth else 0
    if what < 3:
        return draw(leaves())
    eight = draw(st.sampled_from((b"", b"Content-Transfer-Encoding: 8bit\r\n")))
    if what == 3:
        inner = b"Subject: inner\r\n" + draw(entities(depth - 1, count))
        return eight + b"Content-Type: message/rfc822\r\n\r\n" + inner
    boundary = count.boundary()
    quote = draw(st.sampled_from((b'"%s"', b"%s", b' "%s" ; x=y')))
    kind = draw(st.sampled_from((b"mixed", b"alternative", b"related; type=text/html", b"digest")))
    out = b"Content-Type: multipart/" + kind + b";\r\n boundary=" + quote % boundary + b"\r\n" + eight + b"\r\n"
    out += draw(st.sampled_from((b"", b"preamble\r\n", b"pr\xc3\xa4ambel\r\n")))
    for _ in range(draw(st.integers(1, 3))):
        out += b"--" + boundary + draw(st.sampled_from((b"", b" ", b"\t "))) + b"\r\n"
        part = draw(entities(depth - 1, count))
        if kind == b"digest" and part[:12].lower() != b"content-type":
            part = b"Content-Type: text/plain\r\n" + part
            assume(part.lower().count(b"content-type", 0, part.find(b"\r\n\r\n")) == 1)
        out += part + b"\r\n"
    return out + b"--" + boundary + b"--" + draw(st.sampled_from((b"", b"\r\n", b"\r\nepilogue", b"\r\n\xfcber\r\n")))


@st.composite
def mails(draw):
    return HEAD + draw(entities(3, Count()))


@check
@given(mails())
def test_every_part_decodes_to_the_same_before_and_after(mail):
    out = convert(mail)
    assert out is not None
    assert_fits_the_wire(out)
    assert meaning(out) == meaning(mail)


@check
@given(mails(), SIZES, SIZES)
def test_the_sizes_of_reads_make_no_difference(mail, size, piece):
    assert convert(mail, size, piece) == convert(mail)


@check
@given(mails())
def test_what_has_been_converted_stays_as_it_is(mail):
    out = convert(mail)
    marks = bytearray()
    assert obstacle(reader(out, 4096), marks) is None and not any(marks)
    assert convert(out) == out


@check
@given(contents)
def test_rows_of_quoted_printable_are_76_long_at_most_and_safe(content):
    mail = HEAD + b"Content-Type: text/plain\r\n\r\n\xfc\r\n" + content
    rows = convert(mail).partition(b"\r\n\r\n")[2].split(b"\r\n")
    for row in rows:
        assert len(row) <= 76
        assert not row.startswith((b".", b"--", b"From "))
        assert not row.endswith((b" ", b"\t"))


soup = st.lists(
    st.sampled_from((
        b"\r\n", b"\r\n", b"\r\n\r\n", b"--b", b"--", b"--c--", b"--b--", b" ", b"\t", b"x: y", b":", b'"', b"\xfc",
        b"\r", b"\n", b"\x00", b"a" * 511, b"b" * 490, b"From ", b".", b"=", b"MIME-Version: 1.0\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: multipart/signed; boundary=c\r\n",
        b"content-type: multipart/digest;\r\n boundary=\"c\"\r\n", b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/plain\r\n", b"Content-Type:", b"Content-Transfer-Encoding: 8bit\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
    )),
    max_size=40,
).map(b"".join)  # fmt: skip


@settings(check, max_examples=3 * ROUNDS)
@given(soup, SIZES, SIZES)
def test_nothing_that_can_be_converted_breaks_the_rules_of_the_wire(mail, size, piece):
    out = convert(mail)
    assert convert(mail, size, piece) == out
    if out is not None:
        assert_fits_the_wire(out)
        assert convert(out) == out
