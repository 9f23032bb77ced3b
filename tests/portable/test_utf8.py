"""lib/smtp/utf8.py: addresses that are not ASCII."""

from expect import eq, raises
from smtp import utf8


def test_an_address_in_utf_8_has_the_limits_of_any_other():
    for local, good in (("ü" * 32, True), ("ü" * 33, False), ("ü..x", False), (".ü", False), ("ü x", False)):
        for domain in ("example.com", "bücher.example"):
            try:
                utf8.normal(local + "@" + domain)
            except ValueError:
                eq((local, good), (local, False))
            else:
                eq((local, good), (local, True))
    for domain in ("-ü.example", "ü..example", "ü.example.", "ü" * 60 + ".example", "[ü]", "", "ü_.example"):
        raises(ValueError, utf8.normal, "ü@" + domain)
    eq(utf8.normal("ü@[192.0.2.1]"), "ü@[192.0.2.1]")


def test_the_punycode_of_rfc_3492_comes_out():
    for label, wanted in (
        ("ليهمابتكلموشعربي؟", "egbpdaj6bu4bxfgehfvwxn"),
        ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
        ("Pročprostěnemluvíčesky", "Proprostnemluvesky-uyb24dma41a"),
        ("3年B組金八先生", "3B-ww4c5e180e575a65lsy2b"),
        ("そのスピードで", "d9juau41awczczp"),
        ("-> $1.00 <-", "-> $1.00 <--"),
        ("bücher", "bcher-kva"),
        ("😀", "e28h"),
    ):
        eq(utf8.punycode(label), wanted)


def test_a_name_that_may_mean_another_one_is_left_as_it_is():
    for label in ("bu\u0308cher", "\uff42ook", "a\u3002b", "☃"):
        eq(utf8.a_label(label), label)
    eq([utf8.a_label(x) for x in ("book", "", "BÜCHER", "ČESKÝ")], ["book", "", "xn--bcher-kva", "xn--esk-noa0f"])


def test_what_stands_for_a_character_in_orcpt_is_read_back():
    for text in ("müller@example.com", "почта@x", "a@b", "\U0001f600@x"):
        eq(utf8.raw(utf8.embedded(text)), text)
    # RFC 6533 section 3: \\ + and = stand for something else there.
    eq(utf8.embedded(utf8.escaped("a+b=ü@x")), "a\\x{2B}b\\x{3D}\\x{FC}@x")
    for text in ("a+b=ü@x", "\\x{41}@x", "ü+"):
        eq(utf8.raw(utf8.embedded(utf8.escaped(text))), text)
    for text in ("\\x{A}@b", "\\x{D800}", "\\x{110000}", "\\x{}", "\\x{FC", "\\x{9B}", "\\x{zz}"):
        eq(utf8.raw(text), text)
