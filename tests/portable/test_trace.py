"""lib/smtp/trace.py: what a relay adds to a mail as it leaves."""

import io

from expect import eq, raises
from smtp.message import compose
from smtp.path import Envelope
from smtp.trace import Outgoing, received

TOP = b"Received: by here\r\n"
MISSING = ((b"date", b"Date: now\r\n"), (b"message-id", b"Message-ID: <1@2>\r\n"))
SENDER = "gw@e.example"


def leave(mail, size=4096, reader=None, **more):
    """The mail as it leaves, read with a buffer of `size`."""
    read = reader or io.BytesIO(mail).readinto
    outgoing = Outgoing(read, len(mail), **more)
    buf = bytearray(size)
    out = bytearray()
    rests = []
    while True:
        rests.append((outgoing.rest, len(out)))
        n = outgoing.readinto(buf)
        if not n:
            break
        out += buf[:n]
    for rest, at in rests:
        if rest is not None:
            eq(at + rest, len(out))
    eq(rests[-1][0], 0)
    eq(outgoing.readinto(buf), 0)
    return bytes(out)


def rewritten(value):
    """The header lines that a From field with this value becomes, for SENDER."""
    out = leave(b"From:" + value + b"\r\n\r\nx\r\n", sender=SENDER)
    assert out.endswith(b"\r\n\r\nx\r\n"), out
    return out[: -len(b"\r\n\r\nx\r\n")].split(b"\r\n")


def test_a_mail_to_which_nothing_is_added_leaves_as_it_is():
    for mail in (b"", b"x", b"\r\n", b"Subject: s\r\n\r\nbody\r\n", b"no header\r\n" * 300):
        eq(leave(mail), mail)
        eq(leave(mail, 1), mail)


def test_top_comes_first_and_missing_fields_at_the_end_of_the_header():
    eq(
        leave(b"Subject: s\r\nTo: t\r\n\r\nbody\r\n", top=TOP, missing=MISSING),
        TOP + b"Subject: s\r\nTo: t\r\nDate: now\r\nMessage-ID: <1@2>\r\n\r\nbody\r\n",
    )


def test_a_field_that_is_there_is_not_missing_however_it_is_written():
    for field in (b"DATE: x\r\n", b"date : x\r\n", b"Date:\r\n x\r\n", b"daTe:x\r\n"):
        mail = b"A: b\r\n" + field + b"MESSAGE-ID: <x>\r\n\r\n"
        eq(leave(mail, missing=MISSING), mail)


def test_a_field_in_the_body_or_in_a_folded_line_does_not_count():
    for mail in (b"A: b\r\n\r\nDate: x\r\n", b"A: b\r\n Date: x\r\n\r\n", b"Xdate: x\r\n\r\n"):
        assert b"\r\nDate: now\r\n" in leave(mail, missing=MISSING), mail


def composed(**more):
    return b"".join(compose("a@b.example", "c@d.example", "s", "t", **more))


def test_what_we_composed_gets_the_fields_that_it_lacks():
    for more, lacks in (
        ({}, [b"Date: now", b"Message-ID: <1@2>"]),
        ({"date": 0}, [b"Message-ID: <1@2>"]),
        ({"message_id": "x@y.example"}, [b"Date: now"]),
        ({"date": 0, "extra": (("message-id", "<x@y.example>"),)}, []),
        ({"extra": (("Dated", "x"), ("X-Date", "Date: x"))}, [b"Date: now", b"Message-ID: <1@2>"]),
        ({"date": 0, "extra": (("X", "y " * 300),)}, [b"Message-ID: <1@2>"]),
    ):
        mail = composed(**more)
        head, _, body = mail.partition(b"\r\n\r\n")
        for size in (1, 7, 64, 4096):
            got, _, rest = leave(mail, size, top=TOP, missing=MISSING).partition(b"\r\n\r\n")
            assert got.startswith(TOP), got
            eq((more, sorted(got[len(TOP) :].split(b"\r\n"))), (more, sorted(head.split(b"\r\n") + lacks)))
            eq(rest, body)


def test_what_we_composed_for_another_sender_shows_it():
    out = leave(composed(date=0), missing=MISSING + ((b"from", b"From: x\r\n"),), sender=SENDER)
    assert SENDER.encode() in out.split(b"\r\n")[0] and b"\r\nReply-To: a@b.example\r\n" in out, out


def test_an_alert_inside_a_mail_does_not_lend_it_its_fields():
    inside = composed(date=0, message_id="x@y.example")
    for mail in (b"\r\n" + inside, inside.replace(b"Date", b"\r\nDate")):
        head = leave(b"From: a@b.example\r\n" + mail, missing=MISSING).partition(b"\r\n\r\n")[0]
        assert b"\r\nDate: now" in head and b"\r\nMessage-ID: <1@2>" in head, head


def test_a_mail_that_looks_like_ours_has_its_fields_however_they_are_written():
    mail = composed(date=0).replace(b"Date:", b"Date :")
    eq(leave(mail, missing=MISSING[:1]), mail)


def test_a_mail_without_a_header_gets_one():
    added = TOP + b"Date: now\r\nMessage-ID: <1@2>\r\n\r\n"
    for body in (
        b"", b"hello\r\n", b"hello", b" Date: x\r\n", b"\tx\r\n\r\n", b"From me@here\r\nA: b\r\n",
        b": x\r\n", b"a b: c\r\n", b"\xfc: x\r\n", b"x" * 2000 + b"\r\n", b"\x00\r\n",
    ):  # fmt: skip
        eq(leave(body, top=TOP, missing=MISSING), added + body)
    eq(leave(b"\r\nDate: x\r\n", top=TOP, missing=MISSING), added + b"Date: x\r\n")
    eq(leave(b"\nDate: x\r\n", top=TOP, missing=MISSING), added + b"Date: x\r\n")


def test_a_mail_that_is_only_a_header_gets_its_empty_line():
    for mail in (b"Subject: s\r\n", b"Subject: s", b"Subject: s\r\n t", b"Subject:"):
        whole = mail if mail.endswith(b"\n") else mail + b"\r\n"
        eq(leave(mail, top=TOP), TOP + whole + b"\r\n")


def test_a_header_that_stops_without_an_empty_line_gets_one_before_the_body():
    eq(
        leave(b"Subject: s\r\nno field\r\nTo: x\r\n", missing=MISSING),
        b"Subject: s\r\nDate: now\r\nMessage-ID: <1@2>\r\n\r\nno field\r\nTo: x\r\n",
    )


def test_another_sender_keeps_the_name_and_shows_the_address():
    for value, sender, reply in (
        (b" p@lan", b'"p@lan" <gw@e.example>', b"p@lan"),
        (b"p@lan", b'"p@lan" <gw@e.example>', b"p@lan"),
        (b" <p@lan>", b'"p@lan" <gw@e.example>', b"p@lan"),
        (b" Printer <p@lan>", b'"Printer (p@lan)" <gw@e.example>', b'"Printer" <p@lan>'),
        (b' "P, r" <p@lan>', b'"P, r (p@lan)" <gw@e.example>', b'"P, r" <p@lan>'),
        (b' "a\\"b\\\\" <p@lan>', b'"a\\"b\\\\ (p@lan)" <gw@e.example>', b'"a\\"b\\\\" <p@lan>'),
        (b" J. Doe <p@lan>", b'"J. Doe (p@lan)" <gw@e.example>', b'"J. Doe" <p@lan>'),
        (b" p@lan (Hall (2))", b'"Hall (2) (p@lan)" <gw@e.example>', b'"Hall (2)" <p@lan>'),
        (b' "a <b" <p@lan>', b'"a <b (p@lan)" <gw@e.example>', b'"a <b" <p@lan>'),
        (b' "a b"@lan', b'"\\"a b\\"@lan" <gw@e.example>', b'"a b"@lan'),
        (
            b" =?utf-8?Q?B=C3=BCro?= <p@lan>",
            b'=?utf-8?Q?B=C3=BCro?= "(p@lan)" <gw@e.example>',
            b"=?utf-8?Q?B=C3=BCro?= <p@lan>",
        ),
        (
            b" B\xc3\xbcro <p@lan>",
            b'=?utf-8?B?QsO8cm8=?= "(p@lan)" <gw@e.example>',
            b"=?utf-8?B?QsO8cm8=?= <p@lan>",
        ),
        (
            b" B\xfcro <p@lan>",
            b'=?utf-8?B?QsO8cm8=?= "(p@lan)" <gw@e.example>',
            b"=?utf-8?B?QsO8cm8=?= <p@lan>",
        ),
    ):
        eq((value, rewritten(value)), (value, [b"From: " + sender, b"Reply-To: " + reply]))


def test_a_from_that_is_no_single_mailbox_becomes_a_name():
    for value, sender, reply in (
        (b" a@b, c@d", b'"a@b, c@d"', b"a@b, c@d"),
        (b" A <a@b>, c@d", b'"A <a@b>, c@d"', b"A <a@b>, c@d"),
        (b' "open <a@b>', b'"\\"open <a@b>"', b"a@b"),
        (b" A <a@b> x", b'"A <a@b> x"', b"a@b"),
        (b" A, B <a@b>", b'"A, B <a@b>"', b"a@b"),
        (b" grp: a@b;", b'"grp: a@b;"', None),
        (b" root", b'"root"', None),
        (b" <root>", b'"root"', None),
        (b" A <root>", b'"A (root)"', None),
        (b" A <>", b'"A"', None),
    ):
        wanted = [b"From: " + sender + b" <gw@e.example>"]
        if reply:
            wanted.append(b"Reply-To: " + reply)
        eq((value, rewritten(value)), (value, wanted))


def test_a_from_that_says_nothing_becomes_the_sender_alone():
    for value in (b"", b" ", b" <>"):
        eq(rewritten(value), [b"From: gw@e.example"])


def test_a_mail_that_is_already_from_the_sender_is_left_alone():
    for field in (b"From: GW@e.example\r\n", b"FROM:\r\n gw <gw@e.example>\r\n"):
        mail = field + b"To: x\r\n\r\n"
        eq(leave(mail, sender=SENDER), mail)


def test_a_folded_from_is_read_whole_and_written_anew():
    out = rewritten(b'\r\n "A long\r\n\tname" \r\n <p@lan>')
    eq(b"".join(out), b'From: "A long name (p@lan)" <gw@e.example>Reply-To: "A long name" <p@lan>')


def test_a_long_from_is_folded():
    lines = rewritten(b" " + b"word " * 60 + b"<p@lan>")
    assert len(lines) > 6 and max([len(x) for x in lines]) <= 76, lines
    for line in lines:
        assert line[:1] == b" " or line[:5] in (b"From:", b"Reply"), line


def test_a_reply_to_that_is_there_stays_the_only_one():
    for mail in (
        b"Reply-To: r@lan\r\nFrom: p@lan\r\n\r\n",
        b"From: p@lan\r\nreply-to: r@lan\r\n\r\n",
    ):
        out = leave(mail, sender=SENDER)
        eq(out.lower().count(b"reply-to"), 1)
        assert b"r@lan" in out and b'From: "p@lan" <gw@e.example>\r\n' in out


def test_a_missing_from_is_made_from_the_sender():
    eq(leave(b"To: x\r\n\r\n", sender=SENDER), b"To: x\r\nFrom: gw@e.example\r\n\r\n")
    missing = ((b"from", b"From: other@x\r\n"),)
    out = leave(b"To: x\r\n\r\n", sender=SENDER, missing=missing)
    eq(out, b"To: x\r\nFrom: gw@e.example\r\n\r\n")
    eq(leave(b"To: x\r\n\r\n", missing=missing), b"To: x\r\nFrom: other@x\r\n\r\n")


def test_a_second_from_is_dropped():
    out = leave(b"From: a@lan\r\nTo: x\r\nFrom: b@lan\r\n c\r\nX: y\r\n\r\n", sender=SENDER)
    eq(out, b'From: "a@lan" <gw@e.example>\r\nTo: x\r\nX: y\r\nReply-To: a@lan\r\n\r\n')


def test_a_from_of_more_than_2_kb_passes_unchanged():
    mail = b"From: " + b"word\r\n " * 600 + b"<p@lan>\r\nTo: x\r\n\r\n"
    eq(leave(mail, sender=SENDER), mail)


def test_a_from_that_ends_the_mail_is_rewritten():
    eq(rewritten_end(b"From: p@lan"), rewritten_end(b"From: p@lan\r\n"))


def rewritten_end(mail):
    out = leave(mail, sender=SENDER)
    eq(out, b'From: "p@lan" <gw@e.example>\r\nReply-To: p@lan\r\n\r\n')
    return out


def test_a_second_from_is_dropped_however_long_it_is():
    long = b"From: x <" + b"y" * 700 + b">" + (b",\r\n <" + b"z" * 700 + b">") * 9 + b"\r\n"
    for size in (17, 512, 4096):
        out = leave(b"From: a@b.example\r\n" + long + b"Subject: s\r\n\r\nbody\r\n", size, sender=SENDER)
        eq((out.count(b"From:"), b"zzz" in out), (1, False))
        assert b"Subject: s\r\n" in out and out.endswith(b"\r\n\r\nbody\r\n"), out


def test_no_value_of_from_adds_a_line_or_a_second_address():
    for value in (b" a\rBcc x <p@lan>", b" a\x00\x0b\x1b <p@lan>", b' "a\r\n b" <p@lan>'):
        lines = rewritten(value)
        eq([x[:5] for x in lines], [b"From:", b"Reply"])
        assert lines[0].endswith(b"(p@lan)\" <gw@e.example>"), lines
        assert not [c for c in b"".join(lines) if c < 32], lines


MAIL = (
    b"Return-Path: <p@lan>\r\nReceived: from a\r\n\tby b;\r\n\tnow\r\n"
    b'From: =?utf-8?Q?B=C3=BCro?=\r\n "x, y"\r\n <p@lan>\r\n'
    b"X-Long: " + b"l" * 700 + b"\r\n " + b"m" * 1500 + b"\r\nSubject: s\r\n\r\n"
    b"body\r\n\r\n.dot\r\n" + b"z" * 600 + b"\r\n"
)


def test_the_bytes_are_the_same_for_every_size_of_buffer():
    for mail in (MAIL, MAIL[: MAIL.find(b"\r\n\r\n") + 2], b"", b"x" * 1500, MAIL[:70]):
        more = {"top": TOP, "missing": MISSING, "sender": SENDER}
        whole = leave(mail, 8192, **more)
        for size in list(range(1, 40)) + [255, 256, 511, 512, 513, 1000]:
            eq((size, leave(mail, size, **more)), (size, whole))


def test_the_bytes_are_the_same_when_storage_gives_a_little_at_a_time():
    more = {"top": TOP, "missing": MISSING, "sender": SENDER}
    whole = leave(MAIL, **more)
    for most in (1, 2, 3, 7, 100, 511):
        file = io.BytesIO(MAIL)

        def little(buf, file=file, most=most):
            part = file.read(min(most, len(buf)))
            buf[: len(part)] = part
            return len(part)

        eq((most, leave(MAIL, reader=little, **more)), (most, whole))


def test_the_mail_is_cut_anywhere_and_stays_sane():
    for n in range(0, len(MAIL), 13):
        out = leave(MAIL[:n], top=TOP, missing=MISSING, sender=SENDER)
        header = out.split(b"\r\n\r\n")[0]
        assert out.startswith(TOP) and b"\r\n\r\n" in out, n
        eq(header.count(b"\r\nFrom:"), 1)
        eq(header.count(b"\r\nDate: now"), 1)


def test_only_the_length_of_the_mail_is_read():
    file = io.BytesIO(b"A: b\r\n\r\nbody\r\nNOT OURS")
    for more in ({}, {"top": TOP}):
        file.seek(0)
        outgoing = Outgoing(file.readinto, 14, **more)
        buf = bytearray(100)
        n = outgoing.readinto(buf)
        n += outgoing.readinto(memoryview(buf)[n:])
        eq(bytes(buf[:n]), more.get("top", b"") + b"A: b\r\n\r\nbody\r\n")


def test_a_stored_mail_that_is_shorter_than_it_was_is_an_error():
    for more in ({}, {"top": TOP}, {"sender": SENDER}):
        read = io.BytesIO(b"A: b\r\n").readinto
        raises(OSError, leave, b"A: b\r\n\r\n" + b"x" * 100, reader=read, **more)


def arrived(**more):
    envelope = Envelope("s@lan", ["r@x.example"], "192.168.1.9", "printer")
    for name in more:
        setattr(envelope, name, more[name])
    return received(envelope, "gw.example", "q17", "Sun, 22 Nov 2026 11:33:00 +0100").decode()


def test_received_says_how_the_mail_came():
    eq(
        arrived(),
        "Received: from printer ([192.168.1.9])\r\n\tby gw.example with SMTP id q17\r\n"
        "\tfor <r@x.example>;\r\n\tSun, 22 Nov 2026 11:33:00 +0100\r\n",
    )


def test_received_has_the_keyword_of_rfc_3848():
    for esmtp, tls, user, word in (
        (False, False, None, "SMTP"),
        (True, False, None, "ESMTP"),
        (True, True, None, "ESMTPS"),
        (True, False, "u", "ESMTPA"),
        (True, True, "u", "ESMTPSA"),
    ):
        assert " with %s id " % word in arrived(esmtp=esmtp, tls=tls, user=user), word


def test_received_names_no_recipient_when_there_are_several():
    text = arrived(rcpts=["a@b", "c@d"])
    assert "a@b" not in text and " for " not in text and "id q17;\r\n\tSun" in text, text


def test_what_a_peer_calls_itself_cannot_add_a_line_or_a_comment():
    for helo in ("a\r\nX: y", "a (b)", "a;b", "a\0b", "x" * 300 + "\u00fc"):
        text = arrived(helo=helo)
        eq(text.count("\r\n"), 4)
        name = text[len("Received: from ") :].split(" (")[0]
        assert not name.strip("abxXy?-.:_") and len(name) <= 255, name


def test_received_shows_the_address_of_a_peer_without_a_name():
    assert arrived(helo="").startswith("Received: from [192.168.1.9] ([192.168.1.9])\r\n")
    assert arrived(helo="[IPv6:::1]", peer="::1").startswith(
        "Received: from [IPv6:::1] ([IPv6:::1])\r\n"
    )


def test_received_has_no_date_while_there_is_no_time():
    text = received(Envelope("", ["a@b"], "1.2.3.4", "h"), "gw", "1", "").decode()
    assert text.endswith("\r\n\tfor <a@b>\r\n"), text
