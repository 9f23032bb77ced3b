"""lib/smtp/mime.py: HTML, attachments, images and more recipients, byte for byte and without holding any of it; and
gateway.alert(), which queues all of that or nothing."""

import binascii
import gc
import os

import gateway
from expect import eq, raises
from play import MICROPYTHON, Flash
from smtp import message, mime
from smtp.client import SessionError, send
from smtp.plain import words
from smtp.queue import Queue, QueueFull

NOON = 1795348800  # Sun, 22 Nov 2026 12:00:00 +0000


def mail(text="t\n", **more):
    return b"".join(mime.compose("a@b.example", "c@d.example", "s", text, **more))


def unquote(data):
    parts = data.replace(b"=\r\n", b"").split(b"=")
    return parts[0] + b"".join([binascii.unhexlify(p[:2]) + p[2:] for p in parts[1:]])


class Part:
    """A mail or a part of one, read: names, fields (a dict of unfolded values), kind; parts, or the decoded data."""

    def __init__(self, raw):
        head, gap, body = raw.partition(b"\r\n\r\n")
        assert gap, raw[:300]
        for line in head.split(b"\r\n"):
            assert len(line) <= 76, line
        lines = [x.split(": ", 1) for x in head.replace(b"\r\n ", b" ").decode().split("\r\n")]
        self.names = [x[0] for x in lines]
        self.fields = dict(lines)
        eq(len(self.fields), len(lines))
        self.kind, _, rest = self.fields["Content-Type"].partition("; ")
        self.params = rest
        self.parts = []
        self.data = None
        if not self.kind.startswith("multipart/"):
            way = self.fields["Content-Transfer-Encoding"]
            if way == "base64":
                lines = body.split(b"\r\n")
                while lines and not lines[-1]:
                    lines.pop()
                eq([len(x) for x in lines[:-1]], [76] * (len(lines) - 1))
                body = b"".join([binascii.a2b_base64(x) for x in lines])
            elif way == "quoted-printable":
                for line in body.split(b"\r\n"):
                    assert len(line) <= 76 and line[-1:] not in (b" ", b"\t"), line
                body = unquote(body)
            else:
                eq(way, "7bit")
            self.data = body
            return
        self.mark = rest.split('boundary="')[1]
        eq(self.mark[-1], '"')
        self.mark = self.mark[:-1]
        line = ("--" + self.mark).encode()
        pieces = (b"\r\n" + body).split(b"\r\n" + line)
        eq((pieces[0], pieces[-1]), (b"", b"--\r\n"))
        for piece in pieces[1:-1]:
            eq(piece[:2], b"\r\n")
            self.parts.append(Part(piece[2:]))

    def tree(self):
        """Its structure: the type, or (type, trees of its parts)."""
        return (self.kind, [p.tree() for p in self.parts]) if self.parts else self.kind

    def names_given(self):
        """(RFC 2047 in `name`, RFC 2231 in `filename`): the file's name as two kinds of mail programs read it."""
        field = self.params.split("name=", 1)[1]
        eq((field[0], field[-1]), ('"', '"'))
        old = field[1:-1]
        if old.startswith("=?"):
            text = b""
            for word in old.split(" "):
                assert len(word) <= 75, word
                _, charset, way, data, _ = word.split("?")
                eq(charset, "utf-8")
                part = binascii.a2b_base64(data) if way == "B" else unquote(data.replace("_", " ").encode())
                part.decode()  # whole characters
                text += part
            old = text.decode()
        _, _, rest = self.fields["Content-Disposition"].partition("; ")
        if rest.startswith('filename="'):
            return old, rest[10:-1]
        data = ""
        for n, param in enumerate(rest.split("; ")):
            name, _, value = param.partition("=")
            assert name in ("filename*", "filename*%d*" % n), name
            data += value
        eq(data[:7], "utf-8''")
        parts = data[7:].split("%")
        new = parts[0].encode() + b"".join([binascii.unhexlify(p[:2]) + p[2:].encode() for p in parts[1:]])
        return old, new.decode()


def attached(source, name="a.bin", *more):
    """What arrives of one attachment."""
    part = Part(mail(attachments=[(name, source) + more]))
    eq(len(part.parts), 2)
    return part.parts[1].data


# ---- the structure


def test_an_attachment_is_a_part_of_its_own():
    data = mail("Look.\n", attachments=[("door.jpg", b"\xff\xd8\xff")], date=0)
    mark = data[data.find(b'"=_') + 1 :].split(b'"')[0]
    eq((len(mark), mark[:2]), (35, b"=_"))
    eq(
        data.replace(mark, b"MARK"),
        b"From: a@b.example\r\n"
        b"To: c@d.example\r\n"
        b"Subject: s\r\n"
        b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"MIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed;\r\n boundary="MARK"\r\n'
        b"\r\n"
        b"--MARK\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Look.\r\n"
        b"\r\n"
        b"--MARK\r\n"
        b'Content-Type: image/jpeg;\r\n name="door.jpg"\r\n'
        b"Content-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment;\r\n filename="door.jpg"\r\n'
        b"\r\n"
        b"/9j/\r\n"
        b"\r\n"
        b"--MARK--\r\n",
    )


def test_each_combination_has_the_structure_that_mail_programs_expect():
    image, photo = ("chart.png", b"1"), ("door.jpg", b"2")
    shown = ("multipart/related", ["text/html", "image/png"])
    for more, wanted in (
        ({}, "text/plain"),
        ({"html": "<p>x"}, ("multipart/alternative", ["text/plain", "text/html"])),
        ({"attachments": [photo, photo]}, ("multipart/mixed", ["text/plain", "image/jpeg", "image/jpeg"])),
        ({"html": "<p>x", "inline": [image]}, ("multipart/alternative", ["text/plain", shown])),
        (
            {"html": "<p>x", "inline": [image], "attachments": [photo]},
            ("multipart/mixed", [("multipart/alternative", ["text/plain", shown]), "image/jpeg"]),
        ),
    ):
        eq(Part(mail(**more)).tree(), wanted)


def test_an_image_in_the_html_can_be_named_there():
    images = [("chart.png", b"1"), ("b@c.example", b"2", "image/gif")]
    part = Part(mail(html='<img src="cid:chart.png">', inline=images))
    html, chart, other = part.parts[1].parts
    assert part.parts[1].params.startswith('type="text/html"; '), part.parts[1].params
    eq(html.data, b'<img src="cid:chart.png">\r\n')
    eq((chart.fields["Content-ID"], chart.kind), ("<chart.png>", "image/png"))
    eq((other.fields["Content-ID"], other.kind), ("<b@c.example>", "image/gif"))
    assert chart.fields["Content-Disposition"].startswith("inline; ")


def test_an_image_needs_html_and_a_name_that_html_can_hold():
    assert "cid:a.png" in str(raises(ValueError, mail, inline=[("a.png", b"1")]))
    for bad in ("", "a b.png", "a>\r\nX: y", "\u00fc.png", 'a"b'):
        raises(ValueError, mail, html="<p>x", inline=[(bad, b"1")])


def test_two_mails_never_have_a_boundary_in_common_and_no_part_has_that_of_another():
    marks = []
    for _ in range(20):
        part = Part(mail(html="<p>x", inline=[("a.png", b"1")], attachments=[("b", b"2")]))
        for one in (part, part.parts[0], part.parts[0].parts[1]):
            marks.append(one.mark)
            assert len(one.mark) <= 70
    eq(len(set(marks)), 60)
    for mark in marks:
        eq([m for m in marks if m.startswith(mark)], [mark])


# ---- header fields


def test_cc_and_reply_to_are_shown_and_bcc_is_nowhere():
    part = Part(mail(cc=["X <x@y.example>", "z@y.example"], reply_to="r@y.example"))
    eq(part.fields["Cc"], "X <x@y.example>, z@y.example")
    eq(part.fields["Reply-To"], "r@y.example")
    eq((part.tree(), part.data), ("text/plain", b"t\r\n"))
    assert "Cc" not in Part(mail()).names
    for name in ("Bcc", "bcc", "Content-Type", "content-disposition"):
        raises(ValueError, mail, extra=[(name, "v@y.example")])
    eq(Part(mail(extra=[("X-Rule", "door")])).fields["X-Rule"], "door")


def test_the_envelope_has_each_recipient_once():
    eq(mime.recipients(), [])
    eq(mime.recipients("A <a@b.example>"), ["a@b.example"])
    eq(
        mime.recipients(["a@b.example", "B <b@b.example>"], ("a@B.Example", "c@b.example"), "b@b.example"),
        ["a@b.example", "b@b.example", "c@b.example"],
    )
    eq(mime.recipients([], None, ["A@b.example", "a@b.example"]), ["A@b.example", "a@b.example"])
    raises(ValueError, mime.recipients, "x")


def test_a_mail_program_is_told_how_urgent_it_is():
    names = ("X-Priority", "Importance", "Priority", "X-Mailer")
    for priority, wanted in (
        ("urgent", ["1", "high", "urgent", "edgepost"]),
        ("low", ["5", "low", "non-urgent", "edgepost"]),
        ("normal", [None] * 4),
        (None, [None] * 4),
    ):
        fields = Part(mail(priority=priority)).fields
        eq([fields.get(n) for n in names], wanted)
    assert "urgent" in str(raises(ValueError, mail, priority="high"))


def test_nothing_passed_in_adds_a_field_a_part_or_a_line():
    evil = 'x"\r\nBcc: v@evil.example\r\n\r\n--=_\r\n\0\x0b\x1b;\\ =?x'
    part = Part(
        mail(
            evil,
            html=evil,
            cc=[evil.replace("<", "") + " <x@y.example>"],
            reply_to=evil + " <x@y.example>",
            attachments=[(evil, evil.encode(), "text/plain")],
            extra=[("X-Rule", evil)],
        )
    )
    eq(
        part.names,
        ["From", "To", "Subject", "X-Rule", "Auto-Submitted", "MIME-Version", "Cc", "Reply-To", "Content-Type"],
    )
    eq(part.tree(), ("multipart/mixed", [("multipart/alternative", ["text/plain", "text/html"]), "text/plain"]))
    eq(part.parts[1].names, ["Content-Type", "Content-Transfer-Encoding", "Content-Disposition"])
    eq(part.parts[1].data, evil.encode())
    for bad in ("x", "a/b\r\nX: y", "a/b\n", "a/b; x=y\nz", "\u00fc/b", "a/b; x", "message/rfc822", "Multipart/mixed"):
        raises(ValueError, mail, attachments=[("a", b"", bad)])
    raises(ValueError, mail, cc=["x\r\ny@z"])


# ---- attachments


def gives(data, size):
    for at in range(0, len(data), size):
        yield data[at : at + size]


def reuses(data, size):
    """A driver that gives its one buffer again and again."""
    buf = bytearray(size)
    for piece in gives(data, size):
        buf[: len(piece)] = piece
        yield memoryview(buf)[: len(piece)]


class Camera:
    """What a driver with readinto() gives; never more than `most` at a time."""

    def __init__(self, data, most=1000):
        self.data = data
        self.most = most

    def readinto(self, buf):
        n = min(len(buf), self.most, len(self.data))
        buf[:n] = self.data[:n]
        self.data = self.data[n:]
        return n


def test_every_source_arrives_byte_for_byte():
    data = bytes([n * n % 251 for n in range(3000)])
    with Flash() as flash:
        path = flash + "/day 1.bin"
        with open(path, "wb") as f:
            f.write(data)
        for source in (path, data, bytearray(data), memoryview(data), Camera(data), Camera(data, 7)):
            eq(attached(source), data)
        for size in (1, 2, 56, 57, 58, 100, 570, 1000, 5000):
            eq(attached(gives(data, size)), data)
            eq(attached(reuses(data, size)), data)
        eq(attached([data, b"", b"x"]), data + b"x")
        part = Part(mail(attachments=[path])).parts[1]
        eq((part.names_given(), part.data), (("day 1.bin", "day 1.bin"), data))
        eq(Part(mail(attachments=path)).parts[1].data, data)


def test_base64_is_right_at_every_length():
    for n in range(175):
        data = bytes([n]) * n
        eq(attached(data), data)
        eq(attached(gives(data, 10)), data)


def test_lines_of_str_make_a_table():
    rows = ["time;\u00b0C\n"] + ["%d;%d\n" % (n, -n) for n in range(500)]
    part = Part(mail(attachments=[("day.csv", (row for row in rows))])).parts[1]
    eq((part.kind, part.params.split("; ")[0]), ("text/csv", "charset=utf-8"))
    eq(part.data, "".join(rows).encode())


def test_the_type_follows_from_the_name_unless_it_is_given():
    for name, kind in (
        ("a.jpg", "image/jpeg"),
        ("A.B.JPEG", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.gif", "image/gif"),
        ("a.csv", "text/csv"),
        ("a.txt", "text/plain"),
        ("a.log", "text/plain"),
        ("a.json", "application/json"),
        ("a.pdf", "application/pdf"),
        ("a.bin", "application/octet-stream"),
        ("a.exe", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("", "application/octet-stream"),
    ):
        eq(Part(mail(attachments=[(name, b"x")])).parts[1].kind, kind)
    part = Part(mail(attachments=[("a", b"x", "Image/WebP"), ("b.txt", b"x", "text/plain; charset=iso-8859-1")]))
    eq(part.parts[1].kind, "image/webp")
    assert part.parts[2].params.startswith("charset=iso-8859-1; name="), part.parts[2].params


def test_a_file_name_in_any_language_is_read_by_old_and_new_mail_programs():
    for name in (
        "a.jpg",
        "two  words, and (more); 100%.jpg",
        "O'Neil & S\u00f6hne = x?.csv",
        'a "quoted" \\ name.txt',
        "=?utf-8?Q?x?=.txt",
        "\u65e5\u672c\u8a9e\u306e\u540d\u524d.png",
        "\U0001f525" * 40 + ".jpg",
        "x" * 60,
        "x" * 61,
        "long " * 50 + ".txt",
        "\u0442\u0435\u043c\u043f\u0435\u0440\u0430\u0442\u0443\u0440\u0430 " * 8 + ".csv",
    ):
        part = Part(mail(attachments=[(name, b"x")])).parts[1]
        eq(part.names_given(), (name, name))
    eq(Part(mail(attachments=[("", b"x"), (" \r\n ", b"x")])).parts[2].names_given(), ("file", "file"))


def test_a_plain_name_is_plain_and_another_is_as_rfc_2231_shows_it():
    eq(mime._named("day 1.csv"), ('"day 1.csv"', '="day 1.csv"'))
    eq(mime._named("\u00fc 1.csv"), ('"=?utf-8?B?w7wgMS5jc3Y=?="', "*=utf-8''%C3%BC%201.csv"))
    _, new = mime._named("\u00fc" * 20)
    eq(
        new,
        "*0*=utf-8''" + "%C3%BC" * 8 + ";\r\n filename*1*=" + "%C3%BC" * 10 + ";\r\n filename*2*=" + "%C3%BC" * 2,
    )


def test_a_file_that_is_not_there_is_named_before_anything_is_made():
    with Flash() as flash:
        for attachments in ([flash + "/nope.txt"], [("a.txt", flash + "/nope.txt")]):
            error = raises(OSError, mime.compose, "a@b", "a@b", "s", "t", attachments=attachments)
            eq(error.args[0], 2)
            assert "/nope.txt cannot be attached" in error.args[1], error
    raises(TypeError, mime.compose, "a@b", "a@b", "s", "t", attachments=[("a.txt", 5)])


def test_what_gives_nothing_for_now_is_not_cut_short():
    class Serial:
        def readinto(self, buf):
            return None

    raises(OSError, attached, Serial())


# ---- text


TEXTS = (
    "",
    "short\n",
    "a\nb\r\nc\rd",
    "\r\n\r\n\n\r\r",
    "no end " * 300,
    "  spaces at the end  \n\t\nx \n" * 30,
    "x=y, 50 % \u00fc\n" * 100,
    "\u65e5\u672c\u8a9e" * 700,
    "\u65e5\u672c\n" * 300 + "x",
    ("x" * 600 + "\r\n") * 3,
    "7 chars\r\n" * 200,  # a piece ends between CR and LF
    "nul \0 and escape \x1b\n",
)


def test_a_text_that_comes_in_pieces_is_the_same_text():
    for text in TEXTS:
        wanted = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        if wanted and not wanted.endswith("\n"):
            wanted += "\r\n"
        for size in (1, 3, 100, 511, 512, 513, 2000):
            part = Part(mail(gives(text, size)))
            eq((part.kind, part.params), ("text/plain", "charset=utf-8"))
            eq(part.data.decode(), wanted)
        part = Part(mail(gives(text, 50), html=gives(text, 60)))
        eq([p.data.decode() for p in part.parts], [wanted] * 2)
        eq(Part(mail(text)).data.decode(), wanted)


def test_a_text_in_pieces_is_encoded_as_its_beginning_suggests():
    for start, way in (("Gr\u00fcn und kalt\n" * 99, "quoted-printable"), ("\u65e5\u672c\u8a9e\n" * 150, "base64")):
        eq(Part(mail(iter([start, "x\n" * 900]))).fields["Content-Transfer-Encoding"], way)


def test_html_alone_gets_a_text_made_from_it():
    part = Part(mail("", html="<p>Tank 3 is at <b>12&nbsp;%</b>.</p>"))
    eq(part.tree(), ("multipart/alternative", ["text/plain", "text/html"]))
    eq(part.parts[0].data.decode(), "Tank 3 is at 12\xa0%.\r\n")
    eq(part.parts[1].data, b"<p>Tank 3 is at <b>12&nbsp;%</b>.</p>\r\n")
    raises(ValueError, mail, "", html=iter(["<p>x"]))
    eq([p.data for p in Part(mail("y", html=iter(["<p>x"]))).parts], [b"y\r\n", b"<p>x\r\n"])


def test_the_words_of_html():
    for html, text in (
        ("", ""),
        (" \n ", ""),
        ("a", "a\n"),
        ("<P>one</P>\n<p>two<br/>three<br> <br>four", "one\n\ntwo\nthree\n\nfour\n"),
        ("a <b>b</b>c <i> d</i>", "a bc d\n"),
        ("<head><title>no</title></head><body>yes", "yes\n"),
        ("a<style>no</style><script>x='</p>'</script>b", "ab\n"),
        ("a<!-- <p>no</p> -->b<!--no-->c", "abc\n"),
        ("<header>a</header>", "a\n"),
        ("<ul><li>a</li>\n<li>b</li></ul><div>c", "a\nb\n\nc\n"),
        ("<tr><td>a</td><td>b</td></tr><tr><td>c</td></tr>", "a b\nc\n"),
        ("3 < 4 &lt; 5 &amp;amp; &#8364;&#x20ac;&deg;", "3 < 4 < 5 &amp; \u20ac\u20ac\xb0\n"),
        ("&bogus; &#xD800; &#99999999; &; & &#; a&", "&bogus; &#xD800; &#99999999; &; & &#; a&\n"),
        ("a<b", "a\n"),
        ("a<style>b", "a\n"),
        ("a<!--b", "a\n"),
        ("<>a</>", "<>a\n"),
    ):
        eq("".join(words(html)), text)


# ---- what it costs


def test_a_mail_comes_in_pieces_below_a_kilobyte():
    size = 20000
    made = mime.compose(
        "a@b.example",
        ["u%d@d.example" % i for i in range(99)],
        "s",
        gives("line\n" * 3000, 5000),
        html="\u00fc" * 5000,
        cc=["v%d@d.example" % i for i in range(99)],
        attachments=[("\u00fc" * 255, bytes(size)), ("b", gives(bytes(size), 9999))],
    )
    total = 0
    for piece in made:
        total += len(piece)
        assert len(piece) < 1024 and max(piece) < 128
    assert total > 3 * size


def test_the_size_that_is_told_before_is_a_little_more_than_it_has():
    for more in (
        {},
        {"text": "\u65e5" * 5000},
        {"text": "x" * 5000, "html": "<p>" * 5000},
        {"text": "", "html": "<p>text" * 900},
        {"attachments": [("a", bytes(50000)), ("b", gives(bytes(3000), 10), None, 3000)]},
    ):
        made = mime.compose("a@b.example", "c@d.example", "s", **more)
        told = made.size
        size = len(b"".join(made))
        assert size <= told < size * 1.1 + 9000, (told, size)


class Broken(Exception):
    pass


def test_what_fails_in_the_middle_leaves_nothing_and_says_so():
    closed = []

    def breaks(after):
        try:
            for _ in range(after):
                yield b"x" * 1000
            raise Broken("the camera is gone")
        finally:
            closed.append("x")

    def waits():
        try:
            while True:
                yield "x" * 1000
        finally:
            closed.append("y")

    with Flash() as flash:
        queue = Queue(flash + "/spool", max_bytes=200000)
        free = queue.free()
        for after in (0, 1, 60):
            # The second is never begun, the text is at its end.
            made = mime.compose("a@b", "c@d", "s", "t", attachments=[("a", breaks(after)), ("b", waits())])
            raises(Broken, queue.add, {"r": []}, made)
            eq(closed, ["x"])
            closed.clear()
        for _ in range(2):
            raises(QueueFull, queue.add, {"r": []}, mime.compose("a@b", "c@d", "s", waits(), html="x"), 1, True)
            eq(closed, ["y"])
            closed.clear()
        eq((len(queue), queue.used, queue.coming, os.listdir(flash + "/spool")), (0, 0, 0, []))
        assert queue.free() >= free - 4096 or not MICROPYTHON  # others use this computer's directory, too


def test_a_file_is_closed_however_the_mail_ends():
    opened = []

    class Watched:
        def __init__(self, path, mode):
            self.f = open(path, mode)
            opened.append(self)

        def readinto(self, buf):
            return self.f.readinto(buf)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.f.close()
            opened.remove(self)

    mime.open = Watched
    try:
        with Flash() as flash:
            with open(flash + "/a", "wb") as f:
                f.write(bytes(50000))
            queue = Queue(flash + "/spool", max_bytes=20000)
            eq(len(attached(flash + "/a")), 50000)
            eq(opened, [])
            made = mime.compose("a@b", "c@d", "s", "t", attachments=[flash + "/a"])
            raises(QueueFull, queue.add, {"r": []}, made)
            eq(opened, [])
            made = mime.compose("a@b", "c@d", "s", "t", attachments=[flash + "/a"])
            pieces = iter(made)
            for _ in range(5):
                next(pieces)
            eq(len(opened), 1)
            made.close()
            eq(opened, [])
            made.close()
    finally:
        del mime.open


async def test_a_mail_that_could_not_be_sent_is_closed_too():
    class Stream:
        async def run(self, session):
            next(iter(session.pieces))
            raise SessionError("lost", "the connection was lost")

    class Session:
        def mails(self, job):
            return job

    ended = []

    def camera():
        try:
            yield b"x" * 5000
        finally:
            ended.append("x")

    for attachments in ([("a.jpg", camera())], []):
        made = mime.compose("a@b.example", "c@d.example", "s", attachments=attachments)
        try:
            await send((Stream(), Session()), "a@b.example", ["c@d.example"], made)
            assert False, "it was sent"
        except SessionError:
            pass
    eq(ended, ["x"])


def test_what_is_attached_is_never_in_memory():
    size = 200000
    piece = bytearray([n % 251 for n in range(1000)])
    high = [0]

    def camera():
        for _ in range(size // 1000):
            if MICROPYTHON:
                gc.collect()
                high[0] = max(high[0], gc.mem_alloc())
            yield piece

    with Flash() as flash:
        queue = Queue(flash + "/spool")
        gc.collect()
        before = gc.mem_alloc() if MICROPYTHON else 0
        made = mime.compose("a@b", "c@d", "s", "t", attachments=[("a.jpg", camera(), None, size)])
        queue.add({"r": ["c@d"]}, made, 1, True)
        assert high[0] - before < 8192, high[0] - before
        eq(len(queue), 1)
        waiting = queue.take()
        assert size * 4 // 3 < waiting.size < size * 1.4 + 1000, waiting.size
        waiting.close()


# ---- gateway.alert()


class Clock:
    def now(self):
        return NOON

    def uptime(self):
        return 7

    def offset(self, epoch):
        return 3600


class Board:
    """A gateway's queue and configuration, without the rest of it."""

    def __init__(self, flash, **limits):
        self.queue = gateway.queue = Queue(flash + "/spool", **limits)
        gateway.time = Clock()
        gateway._mail = {"from": "Cold <cold@b.example>", "to": ["oncall@b.example"]}
        gateway._storms = None

    def take(self):
        """(envelope, Part) of the mail that is due; it is delivered."""
        waiting = self.queue.take()
        buf = bytearray(waiting.size)
        at = 0
        while at < waiting.size:
            at += waiting.read(memoryview(buf)[at:])
        waiting.close()
        count = len(waiting.meta["r"])
        self.queue.settle(waiting.key, count, (1 << count) - 1, 0)
        return waiting.meta, Part(bytes(buf))


def quietly(f, *args, **named):
    log = gateway.log
    gateway.log = lambda area, text: None
    try:
        return f(*args, **named)
    finally:
        gateway.log = log


def alert(*args, **named):
    return quietly(gateway.alert, *args, **named)


def test_an_alert_takes_everything_that_a_mail_can_have():
    with Flash() as flash:
        board = Board(flash)
        ident = alert(
            "Door",
            "Look.",
            to=["A <a@b.example>"],
            priority="urgent",
            cc=["c@b.example", "a@b.example"],
            bcc=["hidden@b.example"],
            reply_to="desk@b.example",
            html='<p>Look: <img src="cid:x.png">',
            inline=[("x.png", b"PNG")],
            attachments=[("day.csv", (row for row in ("1;2\n", "3;4\n")))],
        )
        meta, part = board.take()
        eq((meta["i"], meta["f"]), (ident, "cold@b.example"))
        eq(meta["r"], ["a@b.example", "c@b.example", "hidden@b.example"])
        eq(part.fields["From"], "Cold <cold@b.example>")
        eq((part.fields["To"], part.fields["Cc"]), ("A <a@b.example>", "c@b.example, a@b.example"))
        eq((part.fields["Reply-To"], part.fields["X-Priority"]), ("desk@b.example", "1"))
        eq(part.fields["Date"], "Sun, 22 Nov 2026 13:00:00 +0100")
        for name, value in part.fields.items():
            assert "hidden" not in value and name != "Bcc"
        eq(part.parts[1].data, b"1;2\n3;4\n")
        eq(part.parts[0].parts[1].parts[1].data, b"PNG")


def test_a_plain_alert_is_plain_and_an_urgent_one_says_so():
    with Flash() as flash:
        board = Board(flash)
        alert("Door", "Open.")
        meta, part = board.take()
        eq((meta["r"], part.tree(), part.data), (["oncall@b.example"], "text/plain", b"Open.\r\n"))
        assert "X-Priority" not in part.names
        alert("Door", "Open.", priority="urgent", to="a@b.example")
        meta, part = board.take()
        eq((meta["r"], part.fields["Importance"]), (["a@b.example"], "high"))


def test_an_alert_may_be_for_hidden_readers_only_but_not_for_nobody():
    with Flash() as flash:
        board = Board(flash)
        alert("Door", to=[], bcc=["a@b.example"])
        meta, part = board.take()
        eq((meta["r"], part.fields["To"]), (["a@b.example"], "undisclosed-recipients:;"))
        raises(ValueError, alert, "Door", to=[])
        raises(ValueError, alert, "Door", bcc=["nonsense"])
        raises(ValueError, alert, "Door", priority="high")
        eq(len(board.queue), 0)


def test_a_text_longer_than_memory_is_an_alert_too():
    with Flash() as flash:
        board = Board(flash)
        alert("Log", ("line %d\n" % n for n in range(5000)), rule="log")
        meta, part = board.take()
        eq(part.data.decode(), "".join(["line %d\r\n" % n for n in range(5000)]))


def test_alerts_of_one_rule_fold_with_the_html_and_the_picture_of_the_last():
    with Flash() as flash:
        board = Board(flash)
        for n in range(3):
            picture = ("d.jpg", gives(bytes([n]) * 5000, 99))
            alert("Door", "Open.", rule="door", html="<b>Open</b>", attachments=[picture])
        eq(len(board.queue), 1)
        meta, part = board.take()
        text, html = part.parts[0].parts
        told = b"Raised 3 times in 0 s, first at Sun, 22 Nov 2026 13:00:00 +0100, last at "
        assert text.data.startswith(b"Open.\r\n\r\n" + told), text.data
        assert html.data.startswith(b"<b>Open</b><p>\r\n\r\n" + told), html.data
        eq((part.fields["Subject"], part.parts[1].data), ("[3x] Door", b"\2" * 5000))
        for _ in range(2):
            alert("Tank", rule="tank", html="<b>Low</b>")
        meta, part = board.take()
        assert part.parts[0].data.startswith(b"Low\r\n\r\nRaised 2 times"), part.parts[0].data


def test_an_attachment_that_breaks_leaves_the_alert_that_waits():
    def breaks():
        yield b"x" * 9000
        raise Broken("the camera is gone")

    with Flash() as flash:
        board = Board(flash)
        alert("Door", "Open.", rule="door")
        before = sorted(os.listdir(flash + "/spool"))
        raises(Broken, alert, "Door", "Open.", rule="door", attachments=[("a.jpg", breaks())])
        raises(Broken, alert, "Door", "Open.", attachments=[("a.jpg", breaks())])
        raises(OSError, alert, "Door", "Open.", attachments=[flash + "/nope"])
        eq(sorted(os.listdir(flash + "/spool")), before)
        eq(board.take()[1].fields["Subject"], "Door")


def test_nothing_gives_way_to_a_file_that_is_not_there_or_an_alert_that_cannot_fit():
    with Flash() as flash:
        board = Board(flash, max_bytes=32768, displace="oldest")
        for n in range(3):
            alert("Door %d" % n, "x" * 4000, priority="low")
        count = len(board.queue)
        raises(OSError, alert, "Door", attachments=[flash + "/nope"])
        raises(QueueFull, alert, "Door", attachments=[("a", bytes(40000))])
        raises(QueueFull, alert, "Door", attachments=[("a", gives(bytes(40000), 100), None, 40000)])
        eq((len(board.queue), board.queue.displaced), (count, 0))
        alert("Fire", attachments=[("a", gives(bytes(14000), 100), None, 14000)])
        assert board.queue.displaced > 0
        eq(board.take()[1].fields["Subject"], "Fire")


def test_a_message_that_is_given_a_body_is_as_before():
    eq(
        b"".join(message.compose("a@b", "c@d", "s", "t\n")).split(b"\r\n\r\n")[1],
        b"t\r\n",
    )
