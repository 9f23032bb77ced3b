"""lib/smtp/address.py: paths, mailboxes, domains, parameters, networks."""

from expect import eq, raises
from smtp import address
from smtp.network import in_networks, parse_ip, parse_network
from smtp.path import Envelope, parse_params, parse_path
from smtp.reply import SMTPError

LABEL = "a" * 63
GOOD = (
    # what follows "FROM:" or "TO:", the address, the rest
    (b"<a@b>", "a@b", b""),
    (b"<John.Doe+tag@Mail.Example.com>", "John.Doe+tag@Mail.Example.com", b""),
    (b"<>", "", b""),
    (b"<> SIZE=3", "", b"SIZE=3"),
    (b"<a@b> SIZE=1000 BODY=8BITMIME", "a@b", b"SIZE=1000 BODY=8BITMIME"),
    (b"<a@b>  X=1  ", "a@b", b"X=1"),
    (b"<a@b> ORCPT=rfc822;x>y@z", "a@b", b"ORCPT=rfc822;x>y@z"),
    (b"<!#$%&'*+-/=?^_`{|}~@b>", "!#$%&'*+-/=?^_`{|}~@b", b""),
    (b"<-a-.b@c>", "-a-.b@c", b""),
    (b"<postmaster>", "postmaster", b""),
    (b"<PostMaster> X", "PostMaster", b"X"),
    (b"<@a,@b.c:d@e> X", "d@e", b"X"),
    (b"<@[1.2.3.4]:d@e>", "d@e", b""),
    (b"<@[IPv6:::1],@b:d@e>", "d@e", b""),
    (b'<"a b"@c> X', '"a b"@c', b"X"),
    (b'<"a>b"@c> X', '"a>b"@c', b"X"),
    (b'<"a\\">@b"@c> X', '"a\\">@b"@c', b"X"),
    (b'<"\\\\"@c>', '"\\\\"@c', b""),
    (b'<""@c>', '""@c', b""),
    (b"<a@[1.2.3.4]>", "a@[1.2.3.4]", b""),
    (b"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", b""),
    (b"<a@[ipv6:::ffff:1.2.3.4]>", "a@[ipv6:::ffff:1.2.3.4]", b""),
    (b"<a@1.2.3.4>", "a@1.2.3.4", b""),
    (b"<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example", b""),
    (b"<user%host@gateway>", "user%host@gateway", b""),
    (b"<a!b!c@d>", "a!b!c@d", b""),
    (b"<" + b"a" * 64 + b"@b>", "a" * 64 + "@b", b""),
    (b"<a@" + LABEL.encode() + b".b>", "a@" + LABEL + ".b", b""),
)
BAD = (
    b"",
    b"a@b",
    b" <a@b>",
    b"< a@b>",
    b"<a@b >",
    b"<a b@c>",
    b"<a@b",
    b"<",
    b">",
    b"<a>",
    b"<@>",
    b"<a@>",
    b"<@b>",
    b"<a@b@c>",
    b"<.a@b>",
    b"<a.@b>",
    b"<a..b@c>",
    b"<a,b@c>",
    b"<a:b@c>",
    b"<a;b@c>",
    b"<(x)a@b>",
    b"<a\\b@c>",
    b"<a@b.>",
    b"<a@.b>",
    b"<a@b..c>",
    b"<a@-b>",
    b"<a@b-.c>",
    b"<a@b_c>",
    b"<a@b+c>",
    b"<a@b=c>",
    b"<@b.c@d>",
    b"<a.@b>",
    b"<a@b.>",
    b"<a@b c>",
    b'<a"b"@c>',
    b'<"a"b@c>',
    b'<"a@b>',
    b'<"a\\"@b>',
    b'<"a"@>',
    b"<a@[1.2.3]>",
    b"<a@[1.2.3.256]>",
    b"<a@[01.2.3.4]>",
    b"<a@[IPv6:1::2::3]>",
    b"<a@[IPv6:1.2.3.4]>",
    b"<a@[IPv6:fe80::1%eth0]>",
    b"<a@[::1]>",
    b"<a@[x:y]>",
    b"<a@[1.2.3.4>",
    b"<a@1.2.3.4]>",
    b"<@a>",
    b"<@a:>",
    b"<@a,:b@c>",
    b"<@a,b@c>",
    b"<@:b@c>",
    b"<@[:b@c>",
    b"<postmaster@>",
    b"<a@b\x00>",
    b"<a\r\nRCPT@b>",
    b'<"a\x01"@b>',
    b'<"a\\\n"@b>',
    b"<a@b\x7f>",
    b"<" + b"a" * 65 + b"@b>",
    b"<a@" + b"a" * 64 + b">",
    b"<a@" + b".".join([LABEL.encode()] * 4) + b">",
    b"<@" + b".".join([LABEL.encode()] * 3) + b":" + b"a" * 64 + b"@b>",
)


def test_a_good_path_gives_its_address_and_the_rest():
    for arg, wanted, rest in GOOD:
        eq((arg, parse_path(arg)), (arg, (wanted, rest)))
        eq((arg, parse_path(arg, lenient=True)), (arg, (wanted, rest)))


def test_a_bad_path_is_refused():
    for arg in BAD:
        try:
            got = parse_path(arg)
        except SMTPError as error:
            eq((arg, error.code, error.enhanced), (arg, 501, "5.1.7"))
        else:
            raise AssertionError("%r gave %r" % (arg, got))


def test_a_bad_path_is_refused_under_the_code_that_the_command_wants():
    eq(raises(SMTPError, parse_path, b"<a b@c>", enhanced="5.1.3").enhanced, "5.1.3")


def test_8_bit_addresses_wait_for_smtputf8():
    for arg in (b"<\xc3\xbc@b>", b"<a@b\xc3\xbc>", b'<"\xff"@b>', b"<\xc3\xbc"):
        error = raises(SMTPError, parse_path, arg)
        eq((error.code, error.enhanced), (553, "5.6.7"))


def test_parameters_need_a_space_before_them():
    error = raises(SMTPError, parse_path, b"<a@b>SIZE=1")
    eq((error.code, error.enhanced), (501, "5.5.4"))
    raises(SMTPError, parse_path, b"<<a@b>>")


def test_what_an_error_shows_of_an_address_is_short_and_printable():
    text = raises(SMTPError, parse_path, b"<\r\n\x1b" + b"a " * 500 + b"@b>").text
    assert len(text) < 150 and not [c for c in text if not " " <= c <= "~"], text


def test_an_old_device_may_leave_out_the_brackets_and_put_spaces():
    for arg, wanted, rest in (
        (b"a@b", "a@b", b""),
        (b" <a@b>", "a@b", b""),
        (b"  a@b  ", "a@b", b""),
        (b"a@b SIZE=100", "a@b", b"SIZE=100"),
        (b'"a b"@c X', '"a b"@c', b"X"),
        (b"postmaster", "postmaster", b""),
        (b"a@[1.2.3.4]", "a@[1.2.3.4]", b""),
    ):
        eq(parse_path(arg, lenient=True), (wanted, rest))


def test_leniency_does_not_make_an_address_of_anything_else():
    for arg in b"| |<a@b|a@b>|a|a@|a b|<a b@c>|a@b,c@d|a@b\x00".split(b"|"):
        raises(SMTPError, parse_path, arg, lenient=True)


def test_a_valid_mailbox_has_a_local_part_and_a_domain():
    for good in ("a@b", "a.b@c.d", '"a b"@c', "a@[1.2.3.4]", "a" * 64 + "@b"):
        assert address.valid_mailbox(good), good
    for bad in "|a|@|a@|@b|<a@b>|a@b |a b@c|a@b\n|\u00fc@b|a@\u00fc".split("|"):
        assert not address.valid_mailbox(bad), bad


def test_a_mailbox_has_254_octets_at_most():
    tail = ("." + LABEL) * 2 + "." + "c" * 60
    assert address.valid_mailbox("a" * 63 + "@b" + tail)
    assert not address.valid_mailbox("a" * 64 + "@b" + tail)


def test_a_valid_domain_is_a_name_or_a_literal():
    for good in ("localhost", "a.b", "A-1.b", "1", "[1.2.3.4]", "[IPv6:::1]", LABEL):
        assert address.valid_domain(good), good
    for bad in ("", ".", "a.", "-a", "a b", "a_b", "[1.2.3.4", "[]", "[IPv6:]", "\u00fc", "a\r\nb"):
        assert not address.valid_domain(bad), bad
    assert not address.valid_domain(LABEL + "a")
    assert not address.valid_domain("a." * 128 + "b")


def test_parameters_come_by_upper_case_keyword():
    eq(parse_params(b""), {})
    eq(
        parse_params(b"size=1000  Body=8BITMIME smtputf8 X-1=a/b<>"),
        {"SIZE": "1000", "BODY": "8BITMIME", "SMTPUTF8": None, "X-1": "a/b<>"},
    )


def test_malformed_and_repeated_parameters_are_refused():
    bad = b"=|=1|SIZE=|-A=1|A_B=1|A=b=c|A=\x01|A=\xff|A=1 a=2|A A|\xc3\xbc|SIZE =1|A=\x7f"
    for one in bad.split(b"|"):
        error = raises(SMTPError, parse_params, one)
        eq((error.code, error.enhanced), (501, "5.5.4"))


def test_an_ip_address_is_packed():
    v4 = b"\0" * 10 + b"\xff\xff\1\2\3\4"
    for text, wanted in (
        ("1.2.3.4", b"\1\2\3\4"),
        ("255.255.255.255", b"\xff" * 4),
        ("::", bytes(16)),
        ("::1", bytes(15) + b"\1"),
        ("1::", b"\0\1" + bytes(14)),
        ("1:2:3:4:5:6:7:8", b"\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\x08"),
        ("1:2:3:4:5:6:7::", b"\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\0"),
        ("2001:DB8::ff", b"\x20\x01\x0d\xb8" + bytes(11) + b"\xff"),
        ("::ffff:1.2.3.4", v4),
        ("0:0:0:0:0:ffff:1.2.3.4", v4),
        ("fe80::1%wlan0", b"\xfe\x80" + bytes(13) + b"\1"),
    ):
        eq((text, parse_ip(text)), (text, wanted))


def test_what_is_no_ip_address_is_none():
    for text in (
        "", ".", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1.2.3.-4", "1.2.3.x",
        "1..2.3", "0x1.2.3.4", ":", ":::", "1::2::3", ":1::", "::1:", "1:2", "12345::", "g::",
        "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "1.2.3.4::", "::+1", "localhost",
        "\u0661.2.3.4", "1:2:3:4:5:6:7:8::", "[::1]",
    ):  # fmt: skip
        eq((text, parse_ip(text)), (text, None))


def test_a_network_is_its_bytes_and_its_bits():
    eq(parse_network("10.0.0.0/8"), (b"\x0a\0\0\0", 8))
    eq(parse_network("0.0.0.0/0"), (bytes(4), 0))
    eq(parse_network("192.168.1.9"), (b"\xc0\xa8\1\x09", 32))
    eq(parse_network("fd00::/8"), (b"\xfd" + bytes(15), 8))
    eq(parse_network("::ffff:10.0.0.0/104"), (b"\x0a\0\0\0", 8))


def test_a_network_that_is_none_or_says_more_than_its_prefix_is_refused():
    bad = "|/8|10.0.0.0/|10.0.0.0/33|10.0.0.0/-1|10.0.0.0/x|10.0.0/8|::/129|fe80::%x/64"
    for one in bad.split("|"):
        raises(ValueError, parse_network, one)
    for slip in ("192.168.1.9/8", "10.0.0.1/31", "fd00::1/64", "0.0.0.1/0"):
        assert "beyond" in str(raises(ValueError, parse_network, slip))


def test_an_address_is_in_its_networks_and_no_others():
    texts = ("10.0.0.0/9", "192.168.1.9", "fd00:1::/33", "127.0.0.0/8")
    networks = [parse_network(n) for n in texts]
    for inside in "10.0.0.0 10.127.255.255 192.168.1.9 fd00:1:7fff::1 ::ffff:127.0.0.1".split():
        assert in_networks(parse_ip(inside), networks), inside
    for outside in "10.128.0.0 11.0.0.0 192.168.1.8 fd00:1:8000:: :: ::ffff:128.0.0.1".split():
        assert not in_networks(parse_ip(outside), networks), outside
    assert in_networks(parse_ip("8.8.8.8"), [parse_network("0.0.0.0/0")])
    assert not in_networks(parse_ip("8.8.8.8"), [parse_network("::/0")])
    assert not in_networks(parse_ip("8.8.8.8"), [])


def test_envelopes_share_nothing():
    one = Envelope()
    one.rcpts.append("a@b")
    eq(Envelope().rcpts, [])
