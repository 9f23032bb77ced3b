"""lib/smtp/convert.py: 8-bit mail for a next hop that takes only 7 bits."""

import io

from expect import eq
from smtp.convert import SevenBit, obstacle

HEAD = b"From: scanner@example.com\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"
EIGHT = b"Content-Transfer-Encoding: 8bit\r\n"
QP = b"Content-Transfer-Encoding: quoted-printable\r\n"
SEVEN = b"Content-Transfer-Encoding: 7bit\r\n"
BASE64 = b"Content-Transfer-Encoding: base64\r\n"
MIXED = b'Content-Type: multipart/mixed; boundary="b"\r\n'
LONG = "a line of more than 998 characters, which cannot be broken"
UMLAUT = "Störung\r\n".encode()
UMLAUT_QP = b"St=C3=B6rung\r\n"


def why(mail):
    return obstacle(io.BytesIO(mail).readinto, bytearray())


def convert(mail, size=4096, piece=4096):
    """The mail in 7 bits: read in pieces of `piece`, given in pieces of `size`."""

    def reader():
        source = io.BytesIO(mail)
        return lambda buf: source.readinto(memoryview(buf)[:piece])

    marks = bytearray()
    eq(obstacle(reader(), marks), None)
    converted = SevenBit(reader(), marks)
    buf = bytearray(size)
    out = bytearray()
    while True:
        n = converted.readinto(buf)
        if n < size:
            eq(converted.rest, 0)
        if not n:
            break
        out += buf[:n]
    eq(converted.readinto(buf), 0)
    assert not [c for c in out if c > 127], out
    return bytes(out)


def body(content, fields=PLAIN + EIGHT):
    """What the body of a mail with these fields becomes."""
    head, _, text = convert(HEAD + fields + b"\r\n" + content).partition(b"\r\n\r\n")
    assert QP[:-2] in head.split(b"\r\n"), head
    return text


def test_an_8_bit_text_becomes_quoted_printable():
    eq(convert(HEAD + PLAIN + EIGHT + b"\r\n" + UMLAUT), HEAD + PLAIN + QP + b"\r\n" + UMLAUT_QP)


def test_a_mail_is_the_same_for_every_size_of_pieces():
    mail = (
        HEAD + MIXED + EIGHT + b"\r\npre\r\n--b\r\n" + PLAIN + EIGHT + b"\r\n" + UMLAUT * 3 + b"\xfc" * 2000
        + b"\r\r\n" * 400 + b"--b\r\n" + BASE64 + b"\r\nAAAA\r\n--b--\r\n" + b"e" * 600 + b"\r\n"
    )  # fmt: skip
    wanted = convert(mail)
    for size in (1, 2, 3, 7, 511, 512, 513):
        eq(convert(mail, size), wanted)
        eq(convert(mail, 4096, size), wanted)


def test_a_line_end_counts_wherever_the_pieces_of_a_long_line_meet():
    for n in range(500, 520):
        mail = b"X: " + b"a" * n + b"\r\n" + HEAD + PLAIN + b"\r\n" + b"a" * n + b"\r\n"
        eq(convert(mail), mail)
        eq(body(b"\xfc" + b"a" * n + b"\r\n\r\n")[-5:], b"a\r\n\r\n")


def test_fields_are_found_in_any_case_folded_or_with_a_space_before_the_colon():
    for field in (
        b"content-transfer-encoding: 8BIT\r\n", b"Content-Transfer-Encoding:\r\n 8bit\r\n",
        b"Content-Transfer-Encoding : 8bit\r\n", b"CONTENT-TRANSFER-ENCODING: binary; x\r\n",
        b"Content-Transfer-Encoding: 8-bit\r\n", b"Content-Transfer-Encoding: 7bit\r\n",
    ):  # fmt: skip
        eq(convert(HEAD + field + PLAIN + b"\r\n\xfc"), HEAD + QP + PLAIN + b"\r\n=FC")


def test_a_field_that_says_no_encoding_is_added():
    eq(convert(HEAD + PLAIN + b"\r\n" + UMLAUT), HEAD + PLAIN + QP + b"\r\n" + UMLAUT_QP)


def test_a_mail_without_mime_fields_gets_an_unknown_character_set():
    eq(
        convert(b"Subject: s\r\n\r\nSt\xf6rung\r\n"),
        b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" + QP
        + b"\r\nSt=F6rung\r\n",
    )  # fmt: skip


def test_a_mail_without_a_header_section_gets_one():
    out = convert(b"St\xf6rung\r\n")
    assert out.startswith(b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"), out
    assert out.endswith(b"\r\n\r\nSt=F6rung\r\n"), out


def test_a_mail_of_7_bits_stays_as_it_is():
    for mail in (
        HEAD + PLAIN + SEVEN + b"\r\n=\r\n.\r\nFrom \r\nlast",
        HEAD + PLAIN + b"\r\n\r\n\r\n",
        HEAD + b"\r\n",
        HEAD,
        HEAD[:-2],
        b"",
        HEAD + MIXED + b"\r\npre\r\n--b\r\n\r\nx\r\n--b--\r\nepilogue",
        HEAD + b"Content-Type: text/plain;\r\n\tname=x\r\nX: \r\n y\r\n\r\nx",
    ):
        eq(convert(mail), mail)


def test_a_part_that_says_8bit_and_is_not_becomes_7bit():
    eq(convert(HEAD + EIGHT + PLAIN + b"\r\nx\r\n"), HEAD + SEVEN + PLAIN + b"\r\nx\r\n")


def test_an_8_bit_text_beside_an_attachment_is_encoded_and_the_attachment_stays():
    attachment = (
        b"Content-Type: application/pdf; name=a.pdf\r\n" + BASE64
        + b"Content-Disposition: attachment; filename=a.pdf\r\n\r\nJVBERi0xLjQ=\r\n"
    )  # fmt: skip
    eq(
        convert(HEAD + MIXED + EIGHT + b"\r\n--b\r\n" + PLAIN + EIGHT + b"\r\n" + UMLAUT + b"--b\r\n" + attachment
                + b"--b--\r\n"),
        HEAD + MIXED + SEVEN + b"\r\n--b\r\n" + PLAIN + QP + b"\r\n" + UMLAUT_QP + b"--b\r\n" + attachment
        + b"--b--\r\n",
    )  # fmt: skip


def test_multiparts_in_multiparts_are_converted():
    inner = b"content-type: multipart/alternative;\r\n\tfoo=\"x;boundary=no\";\r\n\tBOUNDARY=\"b \\= b\"\r\n"
    mail = (
        HEAD + MIXED + b"\r\n--b\r\n" + inner + EIGHT + b"\r\n--b = b\r\n" + PLAIN + SEVEN + b"\r\nx=\r\n--b = b \t\r\n"
        + EIGHT + b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>" + UMLAUT + b"--b = b--\r\n--b\r\n"
        + PLAIN + EIGHT + b"\r\n" + UMLAUT + b"--b--\r\n"
    )  # fmt: skip
    wanted = (
        HEAD + MIXED + b"\r\n--b\r\n" + inner + SEVEN + b"\r\n--b = b\r\n" + PLAIN + SEVEN + b"\r\nx=\r\n--b = b \t\r\n"
        + QP + b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>" + UMLAUT_QP + b"--b = b--\r\n--b\r\n"
        + PLAIN + QP + b"\r\n" + UMLAUT_QP + b"--b--\r\n"
    )  # fmt: skip
    eq(convert(mail), wanted)


def test_a_delimiter_of_an_outer_multipart_ends_the_inner_one():
    mail = (
        HEAD + MIXED + b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n\xfc\r\n"
        b"--b\r\n\r\nx\r\n--c\r\n\r\n\xfc\r\n--b--\r\n"
    )  # fmt: skip
    out = convert(mail)
    assert out.endswith(QP + b"\r\nx\r\n-=2Dc\r\n\r\n=FC\r\n--b--\r\n"), out


def test_a_multipart_without_mime_version_gets_one():
    out = convert(b"Subject: s\r\n" + MIXED + b"\r\n--b\r\n\r\n\xfc\r\n--b--\r\n")
    assert out.startswith(b"Subject: s\r\n" + MIXED + b"MIME-Version: 1.0\r\n\r\n--b\r\n"), out


def test_a_line_of_spaces_behind_a_delimiter_that_is_too_long_is_text():
    out = convert(HEAD + MIXED + b"\r\n--b\r\n\r\n\xfc\r\n--b" + b" " * 600 + b"\r\nx: y\r\n--b--")
    assert b"=FC\r\n-=2Db  " in out and out.endswith(b" =20\r\nx: y\r\n--b--"), out


def test_8_bit_characters_that_nobody_reads_become_question_marks():
    parts = b"\r\n--b\r\n\r\nx\r\n--b--\r\n"
    eq(
        convert(HEAD + MIXED + b"\r\nS\xc3\xb6" + parts + b"e\xfc\r\n--b\r\n\xfc"),
        HEAD + MIXED + b"\r\nS??" + parts + b"e?\r\n--b\r\n?",
    )


def test_a_forwarded_mail_is_converted_inside():
    inside = b"Subject: old\r\n" + PLAIN
    eq(
        convert(HEAD + MIXED + b"\r\n--b\r\nContent-Type: message/rfc822\r\n" + EIGHT + b"\r\n" + inside + EIGHT
                + b"\r\n" + UMLAUT + b"--b--\r\n"),
        HEAD + MIXED + b"\r\n--b\r\nContent-Type: message/rfc822\r\n" + SEVEN + b"\r\n" + inside + QP
        + b"MIME-Version: 1.0\r\n\r\n" + UMLAUT_QP + b"--b--\r\n",
    )  # fmt: skip


def test_the_parts_of_a_digest_are_mails():
    digest = HEAD + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: old\r\n"
    out = convert(digest + b"\r\n\xfc\r\n--b--\r\n")
    assert out.startswith(digest + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"), out
    eq(why(digest + b"X: \xfc\r\n"), "8-bit characters in a header section (needs SMTPUTF8)")


def test_long_lines_are_broken_at_76():
    for content in (b"\xfc" * 1000, b"a" * 999, b" " * 3000, b"\xfc" + b"ab cd. " * 300, b"-" * 1100, b"." * 1100):
        out = body(content + b"\r\n")
        assert max([len(line) for line in out.split(b"\r\n")]) <= 76, out
        eq(out.replace(b"=\r\n", b"").replace(b"=FC", b"\xfc").replace(b"=20", b" ").replace(b"=2D", b"-")
           .replace(b"=2E", b"."), content + b"\r\n")  # fmt: skip


def test_a_7_bit_text_with_a_line_too_long_is_encoded():
    mail = HEAD + PLAIN + SEVEN + b"\r\n" + b"a" * 998
    eq(convert(mail + b"\r\n"), mail + b"\r\n")
    assert QP in convert(mail + b"a\r\n")


def test_spaces_dots_and_what_looks_like_more_than_text_are_safe():
    for line, wanted in (
        (b"a ", b"a=20"), (b"a\t", b"a=09"), (b"  ", b" =20"), (b" a", b" a"), (b"a=b", b"a=3Db"), (b".", b"=2E"),
        (b"..a.b", b"=2E.a.b"), (b"From me", b"From=20me"), (b"From", b"From"), (b"From ", b"From=20"),
        (b"Frost From me", b"Frost From me"), (b"--x", b"-=2Dx"), (b"- -", b"- -"), (b"a--b", b"a--b"),
        (b"\x00\x0c\x7f", b"=00=0C=7F"), (b"", b""), (b"a" * 73, b"a" * 73), (b"a" * 74, b"a" * 73 + b"=\r\na"),
        (b"a" * 72 + b" ", b"a" * 72 + b"=20"),
        (b"a" * 73 + b".b", b"a" * 73 + b"=\r\n=2Eb"), (b"a" * 73 + b"--", b"a" * 73 + b"=\r\n-=2D"),
        (b"a" * 73 + b"From b", b"a" * 73 + b"=\r\nFrom=20b"), (b"a" * 72 + b"\xfc", b"a" * 72 + b"=FC"),
    ):  # fmt: skip
        eq(body(b"\xfc\r\n" + line + b"\r\n"), b"=FC\r\n" + wanted + b"\r\n")
        eq(body(b"\xfc\r\n" + line), b"=FC\r\n" + wanted)
        eq(body(line + b"\r\n\xfc"), wanted + b"\r\n=FC")


def test_a_text_without_a_last_line_end_gets_none():
    eq(body(b"\xfc"), b"=FC")
    eq(body(b"\xfc\r\n"), b"=FC\r\n")
    eq(body(b"\xfc\r\n\r\n"), b"=FC\r\n\r\n")


def test_line_ends_in_data_that_is_no_text_are_encoded():
    fields = b"Content-Type: application/json\r\n" + EIGHT
    eq(body(b"\xfc\r\n\r\n a\r\n", fields), b"=FC=0D=0A=\r\n=0D=0A=\r\n a\r\n")
    eq(body(b"\xfc" * 23 + b"\r\na", fields), b"=FC" * 23 + b"=0D=0A=\r\na")
    eq(body(b"\xfc" * 24 + b"\r\na", fields), b"=FC" * 24 + b"=\r\n=0D=0A=\r\na")


def test_a_part_without_an_empty_line_is_a_body():
    eq(
        convert(HEAD + MIXED + b"\r\n--b\r\nSt\xf6rung: a\r\n--b--\r\n"),
        HEAD + MIXED + b"\r\n--b\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" + QP
        + b"\r\nSt=F6rung: a\r\n--b--\r\n",
    )  # fmt: skip


def test_8_bit_header_sections_are_an_obstacle():
    utf8 = "8-bit characters in a header section (needs SMTPUTF8)"
    eq(why(b"Subject: \xfc\r\n\r\n"), utf8)
    eq(why(b"Subject: a\r\n \xfc\r\n\r\n"), utf8)
    eq(why(HEAD + b"Content-Type: text/plain; name=\xfc\r\n\r\n"), utf8)
    eq(why(HEAD + MIXED + b"\r\n--b\r\nContent-Disposition: attachment; filename=\xfc\r\n\r\n"), utf8)
    eq(why(HEAD + b"Content-Type: message/rfc822\r\n\r\nSubject: \xfc\r\n\r\n"), utf8)


def test_a_signed_part_is_an_obstacle_when_it_would_change():
    signed = HEAD + MIXED + b"\r\n--b\r\nContent-Type: multipart/signed (x); boundary=c\r\n\r\n--c\r\n"
    signed += EIGHT + b"\r\n"
    after = b"\r\n--c--\r\n--b\r\n\r\n"
    eq(why(signed + b"\xfc" + after), "multipart/signed would lose its signature")
    out = convert(signed + b"x" + after + b"\xfc\r\n--b--\r\n")
    assert out.startswith(signed + b"x" + after[:-2]) and out.endswith(QP + b"\r\n=FC\r\n--b--\r\n"), out


def test_8_bit_characters_in_what_must_not_be_encoded_again_are_an_obstacle():
    eq(why(HEAD + BASE64 + b"\r\nAA\xfc\r\n"), "8-bit characters in a part in base64")
    eq(why(HEAD + QP + b"\r\n\xfc\r\n"), "8-bit characters in a part in quoted-printable")
    eq(why(HEAD + MIXED + BASE64 + b"\r\n--b\r\n\r\n\xfc\r\n"), "8-bit characters in a part in base64")
    eq(why(HEAD + b"Content-Type: message/partial\r\n\r\n\xfc\r\n"), "8-bit characters in message/partial")


def test_a_multipart_that_cannot_be_told_apart_is_an_obstacle():
    for field in (b"", b";boundary", b';boundary=""', b"; boundary*=''b"):
        mail = HEAD + b"Content-Type: multipart/mixed" + field + b"\r\n\r\n--b\r\n\r\n\xfc\r\n"
        eq(why(mail), "a multipart without a boundary")
    eq(why(HEAD + MIXED + b"\r\n--c\r\n\r\n\xfc\r\n--c--\r\n"), "a multipart without its boundary")
    long = b"b" * 600
    eq(why(HEAD + b"Content-Type: multipart/mixed; boundary=" + long + b"\r\n\r\n--" + long + b"\r\n\r\n\xfc"),
       "a multipart without its boundary")  # fmt: skip
    eq(why(HEAD + MIXED + MIXED + b"\r\n"), "two fields content-type in one header section")


def test_parts_nested_too_deep_or_too_many_are_an_obstacle():
    deep = HEAD
    for n in range(8):
        deep += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
    eq(why(deep), None)
    eq(why(deep + MIXED + b"\r\n"), "parts nested too deep")
    eq(why(HEAD + MIXED + b"\r\n" + b"--b\r\n" * 999), None)
    eq(why(HEAD + MIXED + b"\r\n" + b"--b\r\n" * 1000), "more than 1000 parts")


def test_lines_too_long_where_they_cannot_be_broken_are_an_obstacle():
    eq(why(b"Subject: " + b"a" * 989 + b"\r\n\r\n"), None)
    eq(why(b"Subject: " + b"a" * 990 + b"\r\n\r\n"), LONG)
    eq(why(HEAD + BASE64 + b"\r\n" + b"A" * 998 + b"\r\n"), None)
    eq(why(HEAD + BASE64 + b"\r\n" + b"A" * 999), LONG)
    eq(why(HEAD + b"Content-Type: a;\r\n" + b" b=c;\r\n" * 1000 + b"\r\n"), "a field of more than 2000 characters")
