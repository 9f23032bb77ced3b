"""lib/smtp/reply.py, and line() of server.py: writing replies, reading them, saying no."""

from expect import eq, raises
from smtp.reply import Parser, SMTPError
from smtp.server import line


def read(*lines):
    """What a parser says after the lines."""
    parser = Parser()
    for one in lines:
        answer = parser.feed(one)
    return answer


def test_an_error_reads_as_the_reply_it_stands_for():
    eq(str(SMTPError(550, "5.1.1", "no such user")), "550 5.1.1 no such user")
    eq(str(SMTPError(220, "", "hello")), "220 hello")


def test_an_error_is_permanent_or_transient_by_its_code():
    gone = SMTPError(550, "5.1.1", "")
    busy = SMTPError(451, "4.3.0", "")
    assert gone.permanent and not gone.transient
    assert busy.transient and not busy.permanent
    assert not SMTPError(250, "", "").permanent and not SMTPError(250, "", "").transient


def test_a_reply_is_one_line_with_crlf():
    eq(line(250, "2.1.0", "fine"), b"250 2.1.0 fine\r\n")
    eq(line(354, "", "go on"), b"354 go on\r\n")


def test_each_line_of_a_long_reply_carries_the_enhanced_code():
    eq(line(250, "2.0.0", "a\nb\nc"), b"250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 c\r\n")
    eq(line(250, "", "host\nSIZE 10"), b"250-host\r\n250 SIZE 10\r\n")


def test_nothing_in_the_text_ends_a_line_early():
    eq(line(550, "5.1.1", "a\rb\0c\x7fd\te"), b"550 5.1.1 a b c d e\r\n")
    eq(line(550, "5.1.1", "a\r\n250 b"), b"550-5.1.1 a \r\n550 5.1.1 250 b\r\n")


def test_characters_outside_ascii_become_question_marks():
    eq(line(550, "5.1.1", "f\u00fcr \u65e5\u672c"), b"550 5.1.1 f?r ??\r\n")


def test_no_line_is_longer_than_512_octets():
    for text in ("x" * 2000, "x" * 2000 + "\n" + "y" * 2000, "\u00fc" * 2000):
        for one in line(250, "2.0.0", text).split(b"\r\n")[:-1]:
            eq(len(one), 510)


def test_a_reply_of_one_line_is_complete_at_once():
    eq(read(b"250 2.1.0 fine"), (250, "2.1.0", "fine"))
    eq(read(b"250 2.0.0 Ok: queued as 4B1"), (250, "2.0.0", "Ok: queued as 4B1"))
    eq(read(b"250 2.0.0 \xffk"), (250, "2.0.0", "?k"))
    eq(read(b"250 2.0.0 "), (250, "2.0.0", ""))
    eq(read(b"250 fine"), (250, "", "fine"))
    eq(read(b"354"), (354, "", ""))
    eq(read(b"250 "), (250, "", ""))


def test_a_reply_of_several_lines_comes_together():
    eq(read(b"250-2.1.5 one"), None)
    eq(read(b"250-2.1.5 one", b"250-", b"250 2.1.5 two"), (250, "2.1.5", "one\n\ntwo"))


def test_a_parser_starts_afresh_after_each_reply():
    parser = Parser()
    eq(parser.feed(b"250-2.1.0 a"), None)
    eq(parser.feed(b"250 2.1.0 b"), (250, "2.1.0", "a\nb"))
    eq(parser.feed(b"550 no"), (550, "", "no"))


def test_only_an_enhanced_code_of_the_same_class_is_taken():
    eq(read(b"550 5.123.999 x"), (550, "5.123.999", "x"))
    eq(read(b"550 5.1.1"), (550, "5.1.1", ""))
    for text in "4.1.1 x|5.1 x|5.1.1234 x|5.1.1.1 x|5..1 x|5.a.1 x|5.1.1x y|5".split("|"):
        eq(read(b"550 " + text.encode()), (550, "", text))


def test_what_is_no_reply_is_an_error():
    bad = b"|\r\n|250\r|25|2 5 0|abc|2500 x|250_x|250x|250\tx|-50 x|199 x|600 x|000 x|+25 x|250\x00"
    for one in bad.split(b"|") + [b"\xff\xfe\xfd"]:
        error = raises(SMTPError, Parser().feed, one)
        eq((error.code, error.enhanced), (421, "4.5.0"))


def test_a_code_that_changes_inside_a_reply_is_an_error():
    parser = Parser()
    parser.feed(b"250-a")
    eq(raises(SMTPError, parser.feed, b"550 b").code, 421)
    eq(parser.feed(b"220 c"), (220, "", "c"))


def test_a_reply_of_more_than_100_lines_is_an_error():
    parser = Parser()
    for _ in range(99):
        parser.feed(b"250-x")
    eq(parser.feed(b"250 x")[0], 250)
    for _ in range(100):
        parser.feed(b"250-x")
    raises(SMTPError, parser.feed, b"250 x")


def test_text_is_bounded_whatever_the_server_sends():
    parser = Parser()
    for _ in range(60):
        parser.feed(b"550-" + b"x" * 1000)
    text = parser.feed(b"550 " + b"x" * 100000)[2]
    assert 1990 <= len(text) <= 2000, len(text)


def test_what_is_not_printable_ascii_becomes_a_question_mark():
    eq(read(b"550 a\xffb\x1b[31mc\x00\r"), (550, "", "a?b?[31mc??"))


def test_the_lines_of_ehlo_are_kept_apart():
    parser = Parser()
    parser.lines = lines = []
    parser.feed(b"250-mx.example.com")
    parser.feed(b"250-SIZE 1000")
    eq(parser.feed(b"250 AUTH PLAIN LOGIN")[0], 250)
    eq(lines, ["mx.example.com", "SIZE 1000", "AUTH PLAIN LOGIN"])


def test_the_lines_of_ehlo_are_bounded():
    parser = Parser()
    parser.lines = []
    for _ in range(90):
        parser.feed(b"250-" + b"x" * 5000)
    eq(len(parser.lines), 64)
    assert max([len(x) for x in parser.lines]) <= 512
