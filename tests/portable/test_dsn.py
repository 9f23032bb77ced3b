"""lib/smtp/dsn.py: notifications that say what happened, and to which nothing can be added."""

import io

from expect import eq, raises
from smtp.dsn import report
from smtp.notify import CHECK, parse_envid, parse_notify, parse_orcpt, parse_ret, unxtext, wanted, xtext

MAIL = b"Received: from a\r\n\tby b\r\nSubject: s\r\n\r\nbody: 1\r\n.\r\n\r\nend\r\n"
REFUSED = (550, "5.1.1", "No such user here")
META = {"f": "printer@lan.example", "t": 1795000000}


def failed(address="r@x.example", result=REFUSED, asked=None, host="mx.x.example"):
    return address, "failed", result, asked, host


def told(*results, mail=None, to="printer@lan.example", meta=META, now=1795003600, name="gw.example", **more):
    """A report as bytes; checks what holds for each."""
    pieces = list(report(name, to, meta, results or (failed(),), now, 3600, mail and io.BytesIO(mail).readinto, **more))
    assert max([len(p) for p in pieces]) < 1024 and b"" not in pieces
    data = b"".join(pieces)
    eq(data.count(b"\n"), data.count(b"\r\n"))
    assert max([len(x) for x in data.split(b"\r\n")]) <= 998
    return data


def parts(data):
    """Its header and its parts, each as (header, body), lines unfolded."""
    at = data.find(b'boundary="') + 10
    edge = b"\r\n--" + data[at : data.find(b'"', at)]
    pieces = data.split(edge)
    eq(pieces[-1], b"--\r\n")
    return [pieces[0].decode().replace("\r\n ", " ")] + [
        tuple(p[2:].decode().split("\r\n\r\n", 1)) for p in pieces[1:-1]
    ]


def machine(data):
    """The blocks of message/delivery-status, as lists of lines."""
    kind, body = parts(data)[2]
    eq(kind, "Content-Type: message/delivery-status")
    return [b.replace("\r\n ", " ").split("\r\n") for b in body[:-2].split("\r\n\r\n")]


def human(data):
    kind, body = parts(data)[1]
    eq(kind, "Content-Type: text/plain; charset=us-ascii")
    return " ".join(body.split())


def test_a_report_is_a_whole_mail_from_the_gateway():
    head = parts(told())[0].split("\r\n")
    eq(
        head[:6],
        [
            'From: "Mail gateway gw.example" <postmaster@gw.example>',
            "To: <printer@lan.example>",
            "Subject: Mail not delivered",
            "Date: Wed, 18 Nov 2026 13:06:40 +0100",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
        ],
    )
    assert head[6].startswith("Content-Type: multipart/report; report-type=delivery-status; boundary="), head
    eq(len(head), 8)


def test_a_gateway_without_a_name_reports_as_its_address():
    data = told(name="[192.0.2.1]")
    assert b"\r\n <postmaster@[192.0.2.1]>\r\n" in data
    eq(machine(data)[0][0], "Reporting-MTA: dns; [192.0.2.1]")


def test_a_report_without_a_known_time_has_no_date():
    data = told(now=0, meta={"f": "a@b.example", "t": 0})
    assert b"Date:" not in data and b"1970" not in data


def test_a_sender_without_a_domain_is_one_of_ours():
    assert b"\r\nTo: <postmaster@gw.example>\r\n" in told(to="postmaster")


def test_what_is_no_address_is_not_put_into_to():
    for to in ("a@b>\r\nBcc: <x@y", "a b@c", "@"):
        assert b"\r\nTo: undisclosed-recipients:;\r\nSubject:" in told(to=to), to


def test_the_subject_tells_the_worst():
    for actions, subject in (
        (("delivered", "failed", "delayed"), "Mail not delivered"),
        (("relayed", "delayed"), "Mail delayed"),
        (("delivered", "relayed"), "Mail relayed"),
        (("delivered",), "Mail delivered"),
    ):
        data = told(*[("a@b.example", a, None, None, "") for a in actions])
        assert b"\r\nSubject: " + subject.encode() + b"\r\n" in data, (actions, data)


def test_programs_read_what_happened_to_each_recipient():
    data = told(
        failed(asked=" NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb@old.example"),
        ("s@x.example", "relayed", (250, "", "ok"), " NOTIFY=SUCCESS", "smart.example"),
        meta={"t": 1795000000, "d": " RET=HDRS ENVID=q+2B1"},
    )
    eq(
        machine(data),
        [
            ["Reporting-MTA: dns; gw.example", "Original-Envelope-Id: q+1"]
            + ["Arrival-Date: Wed, 18 Nov 2026 12:06:40 +0100"],
            ["Original-Recipient: rfc822;a+b@old.example", "Final-Recipient: rfc822; r@x.example"]
            + ["Action: failed", "Status: 5.1.1", "Remote-MTA: dns; mx.x.example"]
            + ["Diagnostic-Code: smtp; 550 5.1.1 No such user here"],
            ["Final-Recipient: rfc822; s@x.example", "Action: relayed", "Status: 2.0.0"]
            + ["Remote-MTA: dns; smart.example", "Diagnostic-Code: smtp; 250 ok"],
        ],
    )


def test_what_is_delayed_says_until_when_it_is_tried():
    data = told(("a@b.example", "delayed", None, None, ""), until=1795090000)
    eq(machine(data)[1][-1], "Will-Retry-Until: Thu, 19 Nov 2026 13:06:40 +0100")
    assert "until Thu, 19 Nov 2026 13:06:40 +0100" in human(data)
    assert b"Will-Retry" not in told(until=1795090000)
    assert b"Will-Retry" not in told(("a@b.example", "delayed", None, None, ""))


def test_the_status_is_the_servers_or_the_plainest_of_its_class():
    for action, result, status in (
        ("failed", (552, "5.2.2", "full"), "5.2.2"),
        ("failed", (550, "", "no"), "5.0.0"),
        ("failed", (450, "", "busy"), "4.0.0"),
        ("failed", (550, "5.1", "no"), "5.0.0"),
        ("failed", (550, "5.1.x", "no"), "5.0.0"),
        ("delayed", (354, "", "go on"), "4.0.0"),
        ("failed", (550, "5.1.\u0661", "no"), "5.0.0"),
        ("failed", (550, "5.1.1234", "no"), "5.0.0"),
        ("failed", (550, "5..1.1", "no"), "5.0.0"),
        ("failed", None, "4.4.7"),
        ("delayed", None, "4.4.1"),
        ("delayed", (451, "4.3.0", ""), "4.3.0"),
        ("delivered", (250, "", ""), "2.0.0"),
        ("relayed", None, "2.0.0"),
    ):
        assert "Status: " + status in machine(told(("a@b.example", action, result, None, "")))[1], (action, result)


def test_people_read_what_it_means_and_what_to_do():
    for result, words in (
        (REFUSED, "mx.x.example answered: 550 5.1.1 No such user here What this means: There is no such mailbox."),
        ((552, "5.2.2", "x"), "The mailbox is full."),
        ((550, "5.7.26", "x"), "What to do: Do what its answer says, or ask its postmaster."),
        ((554, "", "x"), "The answer of the mail server is all that is known."),
        ((552, "5.3.4", "x"), "What to do: Send less of it, or send it in parts."),
        ((450, "4.2.2", "x"), "given up now. The mailbox is full."),
        (None, "given up now. No mail server took it in time."),
    ):
        text = human(told(failed(result=result)))
        assert words in text and "<r@x.example>: not delivered" in text, text
    text = human(told())
    assert "a mail from <printer@lan.example> that arrived on Wed, 18 Nov 2026 12:06:40 +0100." in text, text


def test_nobody_has_to_do_anything_about_what_goes_its_way():
    for action, words in (
        ("delayed", "tells you if it gives up."),
        ("relayed", "does not report what becomes of it. What to do: Nothing."),
        ("delivered", "It is where it had to go. What to do: Nothing."),
    ):
        text = human(told(("a@b.example", action, (451, "4.1.1", "x"), None, "")))
        assert words in text and "send the mail again" not in text, text


def test_the_whole_mail_comes_back_as_it_was():
    kind, body = parts(told(mail=MAIL, full=True))[3]
    eq(kind, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit")
    eq(body.encode(), MAIL)


def test_a_long_mail_comes_back_in_small_pieces():
    mail = b"Subject: s\r\n\r\n" + b"line of text\r\n" * 5000
    eq(parts(told(mail=mail, full=True))[3][1].encode(), mail)


def test_the_header_comes_back_up_to_its_end():
    for mail, header in (
        (MAIL, "Received: from a\r\n\tby b\r\nSubject: s\r\n"),
        (b"Subject: s\r\n", "Subject: s\r\n"),
        (b"Subject: s", "Subject: s"),
        (b"A: b\r\nno field\r\nC: d\r\n", "A: b\r\n"),
        (b"no field at all\r\nA: b\r\n", ""),
        (b" not the rest of a field: x\r\n", " not the rest of a field: x\r\n"),
        (b" not the rest of a field\r\nA: b\r\n", ""),
        (b"\r\nA: b\r\n", ""),
        (b": b\r\n", ""),
        (b"x" * 3000 + b": y\r\n", ""),
        (b"A: " + b"x" * 900 + b"\r\nB: c\r\n\r\nbody", "A: " + "x" * 900 + "\r\nB: c\r\n"),
        (b"A: b" + b"\r\n xy" * 900 + b"\r\n\r\nbody", "A: b" + "\r\n xy" * 900 + "\r\n"),
    ):
        kind, body = parts(told(mail=mail))[3]
        eq(kind, "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit")
        eq((mail[:40], body), (mail[:40], header))


def test_the_header_is_the_same_however_storage_gives_it():
    mail = b"A: " + b"y" * 600 + b"\r\n b\r\nC: d\r\n\r\nE: f\r\n"
    for most in (1, 2, 3, 7, 100, 511):
        file = io.BytesIO(mail)

        def little(buf, file=file, most=most):
            part = file.read(min(most, len(buf)))
            buf[: len(part)] = part
            return len(part)

        data = b"".join(report("gw.example", "a@b.example", META, [failed()], 0, 0, little))
        eq((most, parts(data)[3][1].encode()), (most, mail[: mail.find(b"\r\n\r\n") + 2]))


def test_an_endless_header_is_cut_behind_a_line():
    body = parts(told(mail=b"X-Field: value\r\n" * 5000))[3][1]
    assert 8000 < len(body) <= 8192 and body.endswith(": value\r\n"), len(body)


def test_only_a_failure_brings_the_whole_mail_back():
    for action in ("delayed", "relayed", "delivered"):
        data = told(("a@b.example", action, None, None, ""), mail=MAIL, full=True, eight=True)
        assert b"Content-Type: text/rfc822-headers\r\n" in data and b"8bit" not in data, action


def test_a_report_without_the_mail_has_two_parts():
    eq(len(parts(told(full=True, eight=True))), 3)


def test_8_bit_mail_comes_back_as_such_where_that_is_said():
    mail = b"Subject: s\r\n\r\ncaf\xc3\xa9\r\n"
    data = told(mail=mail, full=True, eight=True)
    assert mail in data
    at = data.find(b"Content-Transfer-Encoding: 8bit\r\n")
    assert 0 < at < data.find(b"\r\n\r\n"), "the whole mail has to say it as well"
    eq(data.count(b"Content-Transfer-Encoding: 8bit\r\n"), 2)


def test_what_is_not_declared_as_8_bit_is_not():
    mail = b"Subject: caf\xe9\x7f\r\n\r\ncaf\xc3\xa9\r\n"
    for data in (told(mail=mail, full=True), told(mail=mail), told(mail=mail, eight=True)):
        assert b"Subject: caf??\r\n" in data and b"8bit" not in data and max(data) < 128, data


def test_nothing_that_a_peer_said_adds_a_line():
    rest = ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"]
    controls = "x\x00\x1b\u00e9\u2028y"
    for evil in ("x\r\nAction: delivered", "x\n\nFinal-Recipient: rfc822; a@b", "x\r\n--=_0\r\n", controls):
        data = told(
            failed(address=evil, result=(550, "5.1.1", evil), asked=" ORCPT=rfc822;" + evil, host=evil),
            failed(result=(550, evil, "x")),
            meta={"f": evil, "t": 1, "d": " ENVID=" + evil},
        )
        blocks = machine(data)
        names = [[line.split(":")[0] for line in b] for b in blocks]
        for got in names[1:]:
            eq([n for n in got if n != "Original-Recipient"], rest)
        eq(len(blocks), 3)
        assert max(data) < 127 and not [c for c in data if c < 32 and c not in b"\r\n"]


def test_a_long_answer_is_cut_and_folded():
    for text in ("word " * 400, "w" * 2000, "\n".join(["a line"] * 300), " " * 2000, ""):
        data = told(failed(result=(550, "5.0.0", text)))
        line = machine(data)[1][-1]
        assert line.startswith("Diagnostic-Code: smtp; 550 5.0.0") and len(line) < 600, line
        for raw in data.split(b"\r\n"):
            assert len(raw) <= 76 or b"wwwww" in raw, raw
            assert not raw or raw.strip(), "a line of spaces only"


def test_no_two_reports_have_the_same_boundary():
    seen = set([parts(told())[0].split('boundary="')[1] for _ in range(20)])
    eq(len(seen), 20)


def test_a_report_about_a_report_keeps_both_apart():
    inner = told(mail=MAIL, full=True)
    eq(parts(told(mail=inner, full=True))[3][1].encode(), inner)


def test_xtext_stands_for_any_printable_text():
    for text, coded in (
        ("", ""),
        ("plain@x.example", "plain@x.example"),
        ("a+b", "a+2Bb"),
        ("a=b c~", "a+3Db+20c~"),
        ('"q\\ "@x', '"q\\+20"@x'),
    ):
        eq((xtext(text), unxtext(coded)), (coded, text))
    eq(unxtext("+41+7E"), "A~")
    for text in ("\r\n", "\x00", "\x7f", "\u00e9"):
        raises(ValueError, xtext, text)
    for coded in ("+", "a+", "+4", "+2b", "+ZZ", "+ 1", "+-1", "a b", "a=b", "\u00e9", "\t"):
        raises(ValueError, unxtext, coded)
    for hidden in ("+0D+0A", "+00", "+7F", "+C3+A9"):
        raises(ValueError, unxtext, hidden)


def test_notify_is_never_alone_or_a_list():
    eq(parse_notify("NEVER"), {"NEVER"})
    eq(parse_notify("success,Failure,DELAY"), {"SUCCESS", "FAILURE", "DELAY"})
    for value in ("", "NEVER,DELAY", "SUCCESS,", "SUCCESS DELAY", "ALWAYS"):
        raises(ValueError, parse_notify, value)


def test_ret_is_full_or_hdrs():
    eq((parse_ret("FULL"), parse_ret("hdrs")), ("FULL", "HDRS"))
    for value in ("", "HALF", "FULL "):
        raises(ValueError, parse_ret, value)


def test_envid_is_100_characters_of_xtext_at_most():
    eq(parse_envid("q+2B1"), "q+1")
    eq(parse_envid("x" * 100), "x" * 100)
    for value in ("", "x" * 101, "a+0A"):
        raises(ValueError, parse_envid, value)


def test_orcpt_is_a_type_and_any_address():
    eq(parse_orcpt("rfc822;a+2Bb@x.example"), "rfc822;a+b@x.example")
    eq(parse_orcpt("RFC822;root"), "rfc822;root")
    eq(parse_orcpt("x400;/c+3Dde;/o"), "x400;/c=de;/o")
    eq(len(parse_orcpt("rfc822;" + "a" * 493)), 500)
    for value in ("", "rfc822", "rfc822;", ";a@b", "rf c;a", "rfc822;a b", "rfc822;a+0Ab", "a:b;c"):
        raises(ValueError, parse_orcpt, value)
    raises(ValueError, parse_orcpt, "rfc822;" + "a" * 494)


def test_a_server_finds_the_check_of_each_parameter():
    for key, good in (("NOTIFY", "NEVER"), ("RET", "FULL"), ("ENVID", "x"), ("ORCPT", "rfc822;x")):
        CHECK[key](good)
        raises(ValueError, CHECK[key], "")


def test_a_sender_hears_of_what_he_asked_for():
    for asked, actions in (
        (None, "failed delayed"),
        ("", "failed delayed"),
        (" ORCPT=rfc822;NOTIFY", "failed delayed"),
        (" NOTIFY=NEVER", ""),
        (" NOTIFY=SUCCESS ORCPT=rfc822;a@b.example", "relayed delivered"),
        (" ORCPT=rfc822;FAILURE NOTIFY=delay", "delayed"),
        ("FAILURE", "failed"),
        ("NEVER", ""),
        ("SUCCESS,FAILURE,DELAY", "failed delayed relayed delivered"),
    ):
        got = " ".join([a for a in ("failed", "delayed", "relayed", "delivered") if wanted(asked, a)])
        eq((asked, got), (asked, actions))
