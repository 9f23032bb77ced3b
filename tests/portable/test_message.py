"""lib/smtp/message.py: mails that any program can read, in any language."""

import binascii

from expect import eq, raises
from smtp import message
from smtp.message import compose, date, header, parse_mailbox
from smtp.words import encode_words


def mail(sender="a@b.example", to="c@d.example", subject="s", text="t\n", **more):
    return b"".join(compose(sender, to, subject, text, **more))


def head(data):
    """Unfolded fields of a mail as a list of (name, value)."""
    lines = data.split(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").split(b"\r\n")
    return [tuple(x.decode().split(": ", 1)) for x in lines]


def body(data):
    return data[data.find(b"\r\n\r\n") + 4 :]


def unquote(data, soft=True):
    """Quoted-printable taken off."""
    parts = data.replace(b"=\r\n", b"").split(b"=")
    return parts[0] + b"".join([binascii.unhexlify(p[:2]) + p[2:] for p in parts[1:]])


def unword(text):
    """Encoded-words of RFC 2047 read again."""
    out = b""
    for word in text.split():
        assert len(word) <= 75, word
        _, charset, kind, data, end = word.split("?")
        eq((charset, end), ("utf-8", "="))
        if kind == "B":
            part = binascii.a2b_base64(data.encode())
        else:
            part = unquote(data.replace("_", " ").encode())
        part.decode()  # whole characters in each word
        out += part
    return out.decode()


LANGUAGES = (
    "Temperatur \u00fcberschritten: \u221215 \u00b0C im K\u00fchlhaus, bitte sofort nachsehen!",
    "\u65e5\u672c\u8a9e\u306e\u4ef6\u540d\u306f\u3068\u3066\u3082\u9577\u3044" * 5,
    "\u0422\u0440\u0435\u0432\u043e\u0433\u0430 \u0432 \u0446\u0435\u0445\u0435",
    "\U0001f525" * 60,
    "caf\u00e9",
    "=?utf-8?Q?not_encoded?=",
    "x" * 300 + "\u00e9",
    "\u00e9" + " " * 80 + "\u00e9",
)


def test_a_date_is_that_of_rfc_5322():
    for epoch, offset, wanted in (
        (0, 0, "Thu, 1 Jan 1970 00:00:00 +0000"),
        (946684799, 0, "Fri, 31 Dec 1999 23:59:59 +0000"),
        (951782400, 0, "Tue, 29 Feb 2000 00:00:00 +0000"),
        (1456704000, 3600, "Mon, 29 Feb 2016 01:00:00 +0100"),
        (1795343580, 3600, "Sun, 22 Nov 2026 11:33:00 +0100"),
        (1798761599, 0, "Thu, 31 Dec 2026 23:59:59 +0000"),
        (1798761599, 1, "Fri, 1 Jan 2027 00:00:00 +0000"),
        (1000000000, -12600, "Sat, 8 Sep 2001 22:16:40 -0330"),
        (1000000000, 20700, "Sun, 9 Sep 2001 07:31:40 +0545"),
        (2147483648, 0, "Tue, 19 Jan 2038 03:14:08 +0000"),
        (4107542399, 0, "Sun, 28 Feb 2100 23:59:59 +0000"),
        (4107542400, 0, "Mon, 1 Mar 2100 00:00:00 +0000"),
    ):
        eq(date(epoch, offset), wanted)


def test_a_plain_mail_is_plain():
    eq(
        mail("Cold Store <a@b.example>", ["c@d.example"], "Door open", "Close it.\n\nNow", date=0),
        b"From: Cold Store <a@b.example>\r\n"
        b"To: c@d.example\r\n"
        b"Subject: Door open\r\n"
        b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Close it.\r\n\r\nNow\r\n",
    )


def test_date_and_message_id_are_left_out_when_they_are_not_known():
    names = [name for name, _ in head(mail())]
    assert "Date" not in names and "Message-ID" not in names, names
    fields = dict(head(mail(date=0, offset=3600, message_id="1.2@h")))
    eq(fields["Date"], "Thu, 1 Jan 1970 01:00:00 +0100")
    eq(fields["Message-ID"], "<1.2@h>")
    eq(dict(head(mail(message_id="<1.2@h>")))["Message-ID"], "<1.2@h>")


def test_a_subject_in_any_language_survives():
    for subject in LANGUAGES:
        data = mail(subject=subject)
        for line in data.split(b"\r\n"):
            assert len(line) <= 76, line
        eq(unword(dict(head(data))["Subject"]), subject)


def test_a_short_word_is_encoded_as_rfc_2047_shows_it():
    eq(encode_words("plain text"), "plain text")
    eq(encode_words("caf\u00e9 au lait"), "=?utf-8?Q?caf=C3=A9_au_lait?=")
    eq(encode_words("\u65e5\u672c"), "=?utf-8?B?5pel5pys?=")


def test_a_long_plain_header_is_folded_at_spaces_and_reads_the_same():
    value = " ".join(["word%d" % i for i in range(60)])
    field = header("Subject", value)
    lines = field.split(b"\r\n")
    assert len(lines) > 5 and max([len(x) for x in lines]) <= 76
    eq(field.replace(b"\r\n", b""), b"Subject: " + value.encode())


def test_a_header_without_a_place_to_fold_is_encoded():
    for value in ("x" * 200, "a " + "x" * 200, "a" + " " * 100 + "b"):
        field = header("X-Test", value)
        assert max([len(x) for x in field.split(b"\r\n")]) <= 76, field
        eq(unword(field.decode()[8:]), value)


def test_nothing_passed_in_adds_a_header_or_a_line():
    evil = "x\r\nBcc: v@evil.example\r\n\r\nbody\0\n.\r\n\x0b\x1b"
    data = mail(
        sender=evil.replace("<", "") + " <a@b.example>",
        to=[evil + "<c@d.example>"],
        subject=evil,
        extra=[("X-Rule", evil)],
    )
    eq(
        [name for name, _ in head(data)],
        [
            "From", "To", "Subject", "X-Rule", "Auto-Submitted", "MIME-Version", "Content-Type",
            "Content-Transfer-Encoding",
        ],
    )  # fmt: skip
    eq(body(data), b"t\r\n")
    assert not [c for c in data.replace(b"\r\n", b"") if c < 32 or c > 126]


def test_a_field_name_cannot_smuggle_one():
    for name in ("", "a b", "a:b", "a\r\nb", "a\n", "\u00fc"):
        raises(ValueError, header, name, "x")
        raises(ValueError, mail, extra=[(name, "x")])


def test_what_is_no_address_is_refused_before_the_first_piece():
    for bad in "|x|a@b c|a@b, c@d|<a@b|a@b>|Name <>|Name <x>|a\r\nb@c|\u00fc@|\u00fc@\u00fc b".split("|"):
        error = raises(ValueError, compose, bad, "a@b", "s", "t")
        assert "not a mail address" in str(error), error
        raises(ValueError, compose, "a@b", ["a@b", bad], "s", "t")
    raises(ValueError, compose, "a@b", "a@b", "s", "t", message_id="x\r\ny@z")
    raises(ValueError, compose, "a@b", "a@b", "s", "t", message_id="no-at")


def test_a_mailbox_is_taken_apart():
    for text, name, box in (
        ("a@b", "", "a@b"),
        ("<a@b>", "", "a@b"),
        ("Cold Store <a@b>", "Cold Store", "a@b"),
        ("  Cold Store  <a@b> ", "Cold Store", "a@b"),
        ('"Store, Cold" <a@b>', "Store, Cold", "a@b"),
        ('"a\\"b\\\\c" <a@b>', 'a"b\\c', "a@b"),
        ("Store, Cold <a@b>", "Store, Cold", "a@b"),
        ("M\u00fcller <a@b>", "M\u00fcller", "a@b"),
        ('"a b"@c', "", '"a b"@c'),
    ):
        eq(parse_mailbox(text), (name, box))


def test_a_display_name_is_quoted_or_encoded_as_it_needs():
    for name, wanted in (
        ("Cold Store", "Cold Store <a@b>"),
        ("Store, Cold", '"Store, Cold" <a@b>'),
        ("J. Doe", '"J. Doe" <a@b>'),
        ('a"b\\c', '"a\\"b\\\\c" <a@b>'),
        ("a@c", '"a@c" <a@b>'),
        ("evil <x@y>,", '"evil <x@y>," <a@b>'),
        ("caf\u00e9", "=?utf-8?B?Y2Fmw6k=?= <a@b>"),
        ("", "a@b"),
    ):
        eq(message.mailbox(name, "a@b"), wanted)


def test_many_recipients_are_folded_between_them():
    boxes = ["U\u00f6er %d <user%d@example.com>" % (i, i) for i in range(50)]
    data = mail(to=boxes)
    assert max([len(x) for x in data.split(b"\r\n")]) <= 76
    eq(len(dict(head(data))["To"].split(", ")), 50)


def test_a_mail_to_nobody_visible_says_so():
    eq(dict(head(mail(to=[])))["To"], "undisclosed-recipients:;")


def text_of(data):
    """The body, decoded as its header says."""
    fields = dict(head(data))
    way = fields["Content-Transfer-Encoding"]
    raw = body(data)
    if way == "quoted-printable":
        raw = unquote(raw)
    elif way == "base64":
        raw = b"".join([binascii.a2b_base64(x) for x in raw.split(b"\r\n") if x])
    return way, fields["Content-Type"].split("charset=")[1], raw.decode()


def test_a_body_is_encoded_as_it_fits():
    for text, way, charset in (
        ("short\nlines\n", "7bit", "us-ascii"),
        ("", "7bit", "us-ascii"),
        ("\ttab\n.\n..\n", "7bit", "us-ascii"),
        ("long " * 30 + "\n", "quoted-printable", "us-ascii"),
        ("Gr\u00fc\u00dfe aus dem K\u00fchlhaus dort\n", "quoted-printable", "utf-8"),
        ("\u65e5\u672c\u8a9e" * 100 + "\n", "base64", "utf-8"),
        ("nul \0 and escape \x1b in a longer text\n", "quoted-printable", "us-ascii"),
    ):
        data = mail(text=text)
        eq(text_of(data), (way, charset, text.replace("\n", "\r\n")))
        assert max([len(x) for x in data.split(b"\r\n")]) <= 76


def test_every_way_to_end_a_line_becomes_crlf():
    for text in ("a\nb\n", "a\r\nb\r\n", "a\rb\r", "a\r\nb", "a\nb"):
        eq(body(mail(text=text)), b"a\r\nb\r\n")
    eq(text_of(mail(text="\u65e5\rb\r\n\nc"))[2], "\u65e5\r\nb\r\n\r\nc\r\n")


def test_quoted_printable_is_right_at_every_length_of_line():
    for n in range(60, 90):
        for end in ("", " ", "\t", "=", "\u00fc", "  \u00fc "):
            text = "x" * n + " = xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + end + "\n"
            data = mail(text=text)
            eq(text_of(data)[0], "quoted-printable")
            eq(text_of(data)[2], text.replace("\n", "\r\n"))
            for line in body(data).split(b"\r\n"):
                assert len(line) <= 76 and line[-1:] not in (b" ", b"\t"), line


def test_base64_is_right_at_every_length_of_line():
    for n in list(range(15, 45)) + [189, 190, 191, 380, 5000]:
        text = "\u65e5" * n + "\n" + "\u672c" * 5
        data = mail(text=text)
        eq(text_of(data), ("base64", "utf-8", text.replace("\n", "\r\n") + "\r\n"))
        lines = body(data).split(b"\r\n")
        assert max([len(x) for x in lines]) <= 76
        assert len(lines) < 3 or [len(x) for x in lines[:-2]] == [76] * (len(lines) - 2)


def test_a_mail_comes_in_pieces_below_a_kilobyte():
    for text in ("line\n" * 3000, "x" * 20000, "\u65e5" * 9000, "\u00fc\n" * 3000):
        pieces = list(compose("a@b", ["u%d@d.example" % i for i in range(200)], "s", text))
        assert len(pieces) > 5 and max([len(p) for p in pieces]) < 1024
