"""lib/smtp/onward.py: SMTPUTF8, REQUIRETLS and MT-PRIORITY from the queue to a next hop that has them, or has not."""

from devices import Devices
from expect import eq, raises
from play import CUTS, play
from smtp import utf8
from smtp.client import Client
from smtp.extra import Extra, Wishes
from smtp.message import compose
from smtp.mime import compose as compose_mime
from smtp.onward import Plain, anywhere
from smtp.relay import Relay, SmartHost
from smtp.reply import SMTPError
from smtp.single import Mail
from smtp.stream import Wire
from smtp.trace import Outgoing
from smtp.words import encode_words
from test_cut import Host, Site, scan
from test_relay import NOON, Box, World, fields

HEAD = "Subject: größer\r\nTo: jörg@example.net\r\n\r\nhello\r\n".encode()
UTF8 = {"p": "192.0.2.9", "h": "ups", "x": 1, "e": " SMTPUTF8"}


class Asked(Box):
    """A smart host that keeps what MAIL asked for."""

    def mail(self, envelope):
        Box.mail(self, envelope)
        extra = sorted(getattr(envelope, "extra", "").split())
        self.mails_asked.append((envelope.sender, envelope.body, " ".join(extra)))


def asked():
    box = Asked()
    box.mails_asked = []
    return box


def offering(world, *words):
    """Its smart hosts offer these."""
    for _, _, listener in world.servers:
        Extra(listener, words)
    return world


def tls(world):
    """Its sessions count as verified TLS."""
    for _, _, listener in world.servers:
        extra = listener.extra
        hello, take = extra.hello, extra.take
        extra.hello = lambda tls, hello=hello: hello(True)
        extra.take = lambda tls, key, value, take=take: take(True, key, value)
    for host in world.hosts:
        host.security = "tls"

    async def open_in_clear(host, open=world.relay.open):
        host.security = "none"
        try:
            return await open(host)
        finally:
            host.security = "tls"

    world.relay.open = open_in_clear
    return world


# -- SMTPUTF8


async def test_addresses_in_utf_8_go_to_a_next_hop_with_smtputf8():
    box = asked()
    world = offering(World().open(box), "SMTPUTF8")
    world.add("jörg@example.net", "почта@example.net", sender="müller@example.com", text=HEAD, **UTF8)
    world.restart()  # a power cut, and all of it is there still
    assert await world.relay.session()
    eq(box.mails_asked, [("müller@example.com", "8BITMIME", "SMTPUTF8")])
    eq(box.mails[0][:2], ("müller@example.com", ["jörg@example.net", "почта@example.net"]))
    content = box.mails[0][2]
    assert content.endswith(HEAD.split(b"\r\n", 2)[2]) and "größer".encode() in content
    eq(fields(content, "From"), ["müller@example.com"])
    assert b" with UTF8SMTP id " in content
    eq(len(world.queue), 0)
    await world.close()


async def test_what_is_ascii_after_all_asks_for_nothing():
    box = asked()
    world = offering(World().open(box), "SMTPUTF8")
    world.add("b@example.net", **UTF8)
    world.add("b@example.net", text=HEAD, **UTF8)
    world.add("b@example.net", text="Subject: x\r\n\r\nö\r\n".encode(), p="192.0.2.9", h="ups", x=1)
    assert await world.relay.session()
    eq([m[1:] for m in box.mails_asked], [("", ""), ("8BITMIME", "SMTPUTF8"), ("8BITMIME", "")])
    await world.close()


async def test_without_smtputf8_what_needs_none_goes_as_plain_ascii():
    box = asked()
    world = World().open(box)
    world.add("b@xn--bcher-kva.example", text="Subject: x\r\n\r\nGrüße\r\n".encode(), **UTF8)
    assert await world.relay.session()
    eq((box.mails_asked, len(box.mails)), ([("a@example.com", "8BITMIME", "")], 1))
    assert box.mails[0][2].endswith("Grüße\r\n".encode())
    await world.close()


async def test_without_smtputf8_what_needs_it_comes_back_with_5_6_7_that_a_person_understands():
    part = (
        'Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
        "Content-Disposition: attachment; filename=ü\r\n\r\nx\r\n--b--\r\n").encode()
    for text, to in ((HEAD, "b@example.net"), (HEAD, "jörg@example.net"), (part, "b@example.net")):
        box = asked()
        world = World().open(box)
        world.add(to, text=text, **UTF8)
        world.add("c@example.net")  # the others go on
        assert await world.relay.session()
        assert await world.relay.session()
        eq([m[0] for m in box.mails_asked], ["a@example.com", ""])
        report = str(box.mails[1][2], "utf-8")
        eq(box.mails[1][:2], ("", ["a@example.com"]))
        for words in ("Action: failed", "Status: 5.6.7", "letters outside ASCII", "What to do:"):
            assert words in report, (words, report)
        eq(len(world.queue), 0)
        await world.close()


def test_a_mail_of_countless_parts_is_not_looked_at_to_its_end():
    for edge in ("b", "b%d"):  # beside one another, and in one another
        given = [0]

        def read(buf, edge=edge, given=given):
            n = given[0]
            given[0] += 1
            if n > 2000:
                return 0
            part = "Content-Type: multipart/mixed; boundary=" + edge.replace("%d", str(n)) + "\r\n\r\n"
            if n:
                part = "--" + edge.replace("%d", str(n - 1)) + "\r\n" + part
            buf[: len(part)] = part.encode()
            return len(part)

        eq((anywhere(read), given[0] < 1100), (True, True))


async def test_a_sender_in_utf_8_is_a_dead_letter_where_nobody_can_tell_him():
    box = asked()
    world = World().open(box)
    world.add("b@example.net", sender="müller@example.com", **UTF8)
    assert await world.relay.session()
    await world.relay.session()  # the notification cannot go there either
    eq((box.mails, len(world.queue), world.queue.dead), ([], 0, 1))
    assert "5.6.7" in world.log()
    await world.close()


async def test_only_those_are_refused_whose_address_needs_what_the_next_hop_lacks():
    box = asked()
    world = World().open(box)
    asks = ["", " NOTIFY=FAILURE", " NOTIFY=SUCCESS"]
    world.add("a@example.net", "jörg@example.net", "b@example.net", n=asks, **UTF8)
    assert await world.relay.session()
    assert await world.relay.session()
    eq(box.mails[0][1], ["a@example.net", "b@example.net"])
    report = str(box.mails[1][2], "utf-8")
    assert "Status: 5.6.7" in report and "b@example.net" in report.split("Action: relayed")[0], report
    assert "a@example.net>" not in report
    eq(len(world.queue), 0)
    await world.close()


async def test_who_sent_in_utf_8_is_told_in_utf_8():
    for sender in ("müller@example.com", "a@example.com"):
        box = asked()
        box.no = {"jörg@example.net": SMTPError(550, "5.1.1", "left in 1987")}
        world = offering(World().open(box), "SMTPUTF8")
        n = [" ORCPT=utf-8;j\\x{F6}rg@old.example"]
        world.add("jörg@example.net", sender=sender, text=HEAD, n=n, **UTF8)
        assert await world.relay.session()
        eq(box.mails_asked[-1], ("", "8BITMIME", "SMTPUTF8" if sender[1] == "ü" else ""))
        eq(box.mails[0][:2], ("", [sender]))
        report = str(box.mails[0][2], "utf-8")
        for words in (
                "To: <%s>\r\n" % sender, "Content-Type: message/global-delivery-status\r\n",
                "Content-Type: message/global-headers\r\n", "Original-Recipient: utf-8;jörg@old.example\r\n",
                "Final-Recipient: utf-8; jörg@example.net\r\n", "<jörg@example.net>: not delivered", "Subject: größer"):
            assert words in report, (words, report)
        eq(report.count("Content-Transfer-Encoding: 8bit"), 4)
        await world.close()


async def test_who_knows_no_utf_8_is_told_in_a_form_that_he_can_read():
    # A recipient that became one in UTF-8 on the way here, such as postmaster.
    box = asked()
    world = World().open(box)
    world.add("jörg@example.net", n=[" ORCPT=rfc822;postmaster@example.net"], p="192.0.2.9", h="ups", x=1)
    assert await world.relay.session()
    assert await world.relay.session()
    report = str(box.mails[0][2], "utf-8")
    for words in (
            "Content-Type: message/delivery-status\r\n", "Content-Type: text/rfc822-headers\r\n",
            "Original-Recipient: rfc822;postmaster@example.net\r\n",
            "Final-Recipient: utf-8; j\\x{F6}rg@example.net\r\n", "<jörg@example.net>: not delivered"):
        assert words in report, (words, report)
    await world.close()


async def test_a_plus_in_an_address_in_utf_8_is_told_as_rfc_6533_has_it():
    box = asked()
    world = World().open(box)
    asked_for = " ORCPT=utf-8;j\\x{F6}rg\\x{2B}a\\x{3D}b@old.example"
    world.add("jörg+a=b@example.net", n=[asked_for], p="192.0.2.9", h="ups", x=1)
    assert await world.relay.session()
    assert await world.relay.session()
    report = str(box.mails[0][2], "utf-8")
    for words in ("Final-Recipient: utf-8; j\\x{F6}rg\\x{2B}a\\x{3D}b@example.net\r\n",
                  "Original-Recipient: utf-8;j\\x{F6}rg\\x{2B}a\\x{3D}b@old.example\r\n"):
        assert words in report, (words, report)
    await world.close()


async def test_the_next_smart_host_is_asked_first():
    plain, able = asked(), asked()
    world = World().open(plain, able)
    Extra(world.servers[1][2], ("SMTPUTF8",))
    world.add("jörg@example.net", **UTF8)
    world.add("b@example.net")
    assert await world.relay.session()
    eq(([m[1] for m in plain.mails], [m[1] for m in able.mails]), ([["b@example.net"]], [["jörg@example.net"]]))
    eq(len(world.queue), 0)
    # While the one that could take it is away, nothing is given up.
    world.relay.until = 0
    await world.stop(1)
    world.servers.pop()
    world.add("jörg@example.net", **UTF8)
    await world.relay.session()
    eq((len(plain.mails), len(world.queue), world.queue.dead), (1, 1, 0))
    await world.close()


def alert(world, to, **more):
    meta = {"f": "gw@example.com", "r": [utf8.normal(a) for a in to], "t": NOON, "u": world.clock.up}
    to = ["Jörg Müller <%s>" % a for a in to]
    pieces = compose_mime("Kühlhaus <gw@example.com>", to, "Zu warm: 9 °C", "ö", **more)
    return world.queue.add(meta, pieces)


async def test_an_alert_to_an_address_in_utf_8_says_who_got_it():
    box = asked()
    world = offering(World().open(box), "SMTPUTF8")
    alert(world, ["müller@example.com", "info@bücher.example"])
    assert await world.relay.session()
    eq(box.mails_asked, [("gw@example.com", "8BITMIME", "SMTPUTF8")])
    eq(box.mails[0][1], ["müller@example.com", "info@xn--bcher-kva.example"])
    head = str(box.mails[0][2].split(b"\r\n\r\n")[0], "utf-8")
    assert "<müller@example.com>" in head and "<info@xn--bcher-kva.example>" in head, head
    await world.close()


async def test_an_alert_reaches_those_with_plain_addresses_wherever_it_goes():
    for reply_to in ((), "büro@example.com"):
        box = asked()
        world = World().open(box)
        alert(world, ["müller@example.com", "oncall@example.com"], reply_to=reply_to)
        assert await world.relay.session()
        eq((box.mails_asked, box.mails[0][1]), ([("gw@example.com", "", "")], ["oncall@example.com"]))
        content = box.mails[0][2]
        eq(max(content) < 128, True)
        text = str(content, "utf-8")
        assert encode_words(" <müller@example.com>") + " :;,\r\n" in text, text
        eq(("<oncall@example.com>" in text, text.count(" :;")), (True, 2 if reply_to else 1))
        eq((len(world.queue), world.queue.dead), (0, 1))  # the other one's is a dead letter, told of to the admin
        await world.close()


def test_header_fields_are_made_plain_in_pieces_of_any_size():
    text = (
        'To: "Mueller, J." <jörg@example.com>, b@example.com,\r\n почта@example.net\r\nCc: x@example.com\r\n'
        "\r\nTo: stays@example.com\r\n").encode()
    whole = None
    for size in (1, 2, 7, 60, 255, 256, 257, 2000):
        at = [0]

        def read(buf, size=size, at=at):
            n = min(len(buf), size, len(text) - at[0])
            buf[:n] = text[at[0] : at[0] + n]
            at[0] += n
            return n

        out = b""
        mail = Plain(Outgoing(read, len(text)))
        buf = bytearray(size)
        while True:
            rest = mail.rest
            n = mail.readinto(buf)
            assert rest is None or (rest > 0) == (n > 0), rest
            if not n:
                break
            out += buf[:n]
        whole = whole or out
        eq((size, out), (size, whole))
    eq(max(whole) < 128, True)
    assert whole.endswith(b"\r\n\r\nTo: stays@example.com\r\n") and b" b@example.com,\r\n" in whole, whole
    eq(whole.count(b":;"), 2)


# -- sender rewriting


async def test_a_sender_in_utf_8_is_rewritten_and_kept_where_he_can_be_answered():
    text = "From: Jörg <müller@example.com>\r\nSubject: x\r\n\r\nhello\r\n".encode()
    for words in (("SMTPUTF8",), ()):
        box = asked()
        world = World(sender="gw@example.com").open(box)
        offering(world, *words)
        world.add("b@example.net", sender="müller@example.com", text=text, **UTF8)
        assert await world.relay.session()
        eq(box.mails_asked, [("gw@example.com", "8BITMIME", "SMTPUTF8" if words else "")])
        content = box.mails[0][2]
        assert b" <gw@example.com>\r\n" in content, content
        assert encode_words(" (müller@example.com)").encode() in content, content
        eq(" <müller@example.com>\r\n".encode() in content, bool(words))
        eq(max(content) > 127, bool(words))
        await world.close()


# -- REQUIRETLS


TLS = {"p": "192.0.2.9", "h": "ups", "x": 3, "e": " REQUIRETLS"}


async def test_a_mail_that_requires_tls_goes_where_that_is_promised():
    box = asked()
    world = tls(offering(World().open(box), "REQUIRETLS"))
    world.add("b@example.net", **TLS)
    world.restart()
    assert await world.relay.session()
    eq((box.mails_asked, len(world.queue)), ([("a@example.com", "", "REQUIRETLS")], 0))
    await world.close()


async def test_a_mail_that_requires_tls_is_never_sent_elsewhere():
    for words, verify in (((), "full"), (("REQUIRETLS",), "none"), (("REQUIRETLS",), None)):
        box = asked()
        world = offering(World().open(box), *words)
        if verify:
            tls(world)
            world.hosts[0].verify = verify
        world.add("b@example.net", text=b"Subject: secret\r\n\r\nhush\r\n", d=" RET=FULL", **TLS)
        assert await world.relay.session()
        assert await world.relay.session()
        (got,) = box.mails
        eq(got[:2], ("", ["a@example.com"]))
        assert b"Status: 5.7.30" in got[2] and b"REQUIRETLS" in got[2] and b"hush" not in got[2], got[2]
        assert b"This gateway says: 550 5.7.30" in got[2] and b"Remote-MTA" not in got[2], got[2]
        eq(len(world.queue), 0)
        await world.close()


async def test_the_bounce_of_such_a_mail_asks_for_tls_too_and_has_no_text_of_it():
    box = asked()
    box.no = {"b@example.net": SMTPError(550, "5.1.1", "left in 1987")}
    world = tls(offering(World().open(box), "REQUIRETLS"))
    world.add("b@example.net", text=b"Subject: secret\r\n\r\nhush\r\n", d=" RET=FULL", **TLS)
    assert await world.relay.session()
    assert await world.relay.session()
    ((sender, rcpts, text),) = box.mails
    eq((sender, rcpts, box.mails_asked[-1], len(world.queue)), ("", ["a@example.com"], ("", "", "REQUIRETLS"), 0))
    assert b"Status: 5.1.1" in text and b"hush" not in text, text
    await world.close()


async def test_a_bounce_is_not_kept_back_where_tls_is_not_promised():
    # RFC 8689 section 5: else nobody hears of the mail that failed.
    for words, verify in (((), "full"), (("REQUIRETLS",), "none")):
        box = asked()
        world = tls(offering(World().open(box), *words))
        world.hosts[0].verify = verify
        world.add("b@example.net", sender="", e=" REQUIRETLS")
        assert await world.relay.session()
        eq((box.mails_asked, len(world.queue), world.queue.dead), ([("", "", "")], 0, 0))
        await world.close()


async def test_tls_required_no_loosens_nothing_and_is_passed_on():
    text = b"TLS-Required: No\r\nSubject: x\r\n\r\nhello\r\n"
    box = asked()
    world = World().open(box)
    world.add("b@example.net", text=text)
    assert await world.relay.session()
    eq(fields(box.mails[0][2], "TLS-Required"), ["No"])
    world.hosts[0].security = "starttls"  # which is not there
    world.hosts[0].verify = "none"
    world.add("b@example.net", text=text)
    eq(await world.relay.session(), False)
    eq((len(box.mails), len(world.queue)), (1, 1))
    await world.close()


# -- MT-PRIORITY


async def test_an_urgent_mail_says_so_where_that_is_understood():
    box = asked()
    world = offering(World().open(box), "MT-PRIORITY")
    for priority in (0, 1, 2):
        world.queue.add({"f": "a@example.com", "r": ["b@example.net"], "u": 0}, [b"Subject: x\r\n\r\nx\r\n"], priority)
    world.add("b@example.net", p="192.0.2.9", h="ups", x=1, e=" MT-PRIORITY=-2")
    assert await world.relay.session()
    eq([m[2] for m in box.mails_asked], ["MT-PRIORITY=4", "", "MT-PRIORITY=-2", "MT-PRIORITY=-4"])
    assert b"\r\n\tPRIORITY -2;" in box.mails[2][2], box.mails[2]
    await world.close()


async def test_where_priorities_are_not_understood_nothing_is_said_of_them():
    box = asked()
    world = World().open(box)
    world.queue.add({"f": "a@example.com", "r": ["b@example.net"], "u": 0}, [b"Subject: x\r\n\r\nx\r\n"], 0)
    world.add("b@example.net", p="192.0.2.9", h="ups", x=1, e=" MT-PRIORITY=3")
    assert await world.relay.session()
    eq([m[2] for m in box.mails_asked], ["", ""])
    assert b"PRIORITY 3" in box.mails[1][2]
    await world.close()


# -- what a relay says on the wire


def on_the_wire(text, *mails, verify="full"):
    """Plays the relay's session with a smart host for `mails` (recipient, parameters, text, priority) of a device that
    cannot be told; gives the log."""
    for cut in (None, 3):
        world = World()
        host = SmartHost("mx", security="tls", verify=verify)
        relay = Relay(world.queue, [host], "gw.example.com", world.clock, log=world.told.append)
        for to, extra, mail, priority in mails:
            meta = {"f": "a@nas", "r": [to], "u": 0, "t": NOON, "p": "192.0.2.9", "h": "ups", "x": 3}
            if extra:
                meta["e"] = extra
            world.queue.add(meta, [mail], priority)
        wire = Wire(bytearray(2048))
        client = Client(wire, "gw.example.com")

        def session(relay=relay, client=client, host=host):
            yield from client.start("tls")
            relay.host, relay.ext = host, client.ext
            yield from client.mails(relay)
            yield from client.quit()

        hello = "S: 220 mx\nC: EHLO gw.example.com\n"
        bye = "C: QUIT\nS: 221 bye\n-- END --\n"
        play(session(), wire, hello + text + bye, cut, us="C")
        world.flash.__exit__()
    return world.log()


def test_on_the_wire_smtputf8_is_said_where_it_is_offered_and_needed():
    mail = (HEAD, 1)
    log = on_the_wire(
        """
        S: 250-mx
        S: 250-8BITMIME
        S: 250 SMTPUTF8
        C: MAIL FROM:<a@nas> BODY=8BITMIME SMTPUTF8
        S: 555 5.5.4 parameter not known
        C: MAIL FROM:<a@nas> BODY=8BITMIME SMTPUTF8
        S: 250 ok
        C: RCPT TO:<почта@example.net>
        S: 553 5.6.7 not here
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@nas>
        S: 250 ok
        C: RCPT TO:<c@example.net>
        S: 450 busy
        C: RSET
        S: 250 ok
    """,
        ("jörg@example.net", " SMTPUTF8") + mail, ("почта@example.net", " SMTPUTF8") + mail,
        ("c@example.net", " SMTPUTF8", b"Subject: x\r\n\r\nx\r\n", 1),
    )
    assert "refused for jörg@example.net: 555" in log and "refused for почта@example.net: 553 5.6.7" in log, log


def test_on_the_wire_nothing_is_said_of_a_mail_that_needs_what_is_not_offered():
    log = on_the_wire(
        """
        S: 250-mx
        S: 250-8BITMIME
        S: 250 DSN
    """,
        ("jörg@example.net", " SMTPUTF8", b"Subject: x\r\n\r\nx\r\n", 1), ("b@example.net", " SMTPUTF8", HEAD, 1),
        ("c@example.net", " REQUIRETLS", b"Subject: x\r\n\r\nx\r\n", 1),
    )
    eq([line.split("refused for ")[1][:28] for line in log.split("\n") if "refused" in line], [
        "jörg@example.net: 550 5.6.7 ", "b@example.net: 550 5.6.7 the", "c@example.net: 550 5.7.30 RE"])


def test_on_the_wire_requiretls_is_said_under_verified_tls_only():
    mail = ("b@example.net", " REQUIRETLS", b"Subject: x\r\n\r\nx\r\n", 1)
    offer = """
        S: 250-mx
        S: 250 REQUIRETLS
    """
    log = on_the_wire(
        offer + """
        C: MAIL FROM:<a@nas> REQUIRETLS
        S: 550 5.7.30 REQUIRETLS support required
    """, mail)
    assert "refused for b@example.net: 550 5.7.30" in log, log
    log = on_the_wire(offer, mail, verify="none")
    assert "refused for b@example.net: 550 5.7.30" in log, log


def test_on_the_wire_an_urgent_mail_has_its_priority():
    on_the_wire(
        """
        S: 250-mx
        S: 250 MT-PRIORITY MIXER
        C: MAIL FROM:<a@nas> MT-PRIORITY=4
        S: 450 4.7.1 later
        C: MAIL FROM:<a@nas> MT-PRIORITY=-9
        S: 450 4.7.1 later
        C: MAIL FROM:<a@nas>
        S: 450 4.7.1 later
    """,
        ("b@example.net", "", b"Subject: x\r\n\r\nx\r\n", 0),
        ("b@example.net", " MT-PRIORITY=-9", b"Subject: x\r\n\r\nx\r\n", 1),
        ("b@example.net", "", b"Subject: x\r\n\r\nx\r\n", 1),
    )


# -- a mail that passes through, and what the gateway makes of a priority


def declared(site, *words):
    Extra(site.listener, words or ("SMTPUTF8", "REQUIRETLS", "MT-PRIORITY"))
    site.intake.devices = Wishes(site.intake.devices)
    return site


async def test_a_mail_in_utf_8_passes_through_to_a_smart_host_that_takes_it():
    mail = scan(20000)
    asks = {"sender": "jörg@example.com", "more": " SMTPUTF8 MT-PRIORITY=-3"}
    async with Site(Host("8BITMIME"), Host("SMTPUTF8", "8BITMIME", "MT-PRIORITY")) as site:
        said = await declared(site).send(mail, ("почта@example.net",), **asks)
        assert said.startswith("250 2.0.0 passed on"), said
        assert not [c for c in site.hosts[0].commands if c.startswith("MAIL")], site.hosts[0].commands
        (said,) = [c for c in site.hosts[1].commands if c.startswith("MAIL")]
        eq(said.split(" BODY=")[1], "8BITMIME SMTPUTF8 MT-PRIORITY=-3")
        assert "RCPT TO:<почта@example.net>" in site.hosts[1].commands
        assert b"with UTF8SMTP id" in site.hosts[1].mails[0]
    async with Site(Host("8BITMIME")) as site:
        said = await declared(site).send(mail, ("почта@example.net",), **asks)
        assert said.startswith("550 5.6.7") and "SMTPUTF8" in said, said
        said = await site.send(mail, more=" SMTPUTF8")  # its header fields may need it
        assert said.startswith("550 5.6.7"), said
        eq((site.hosts[0].mails, len(site.queue)), ([], 0))


async def test_a_priority_counts_unless_the_device_has_one():
    async with Site(Host(), room=65536) as site:
        declared(site)
        mail = b"Subject: x\r\n\r\nx\r\n"
        for table in ({"user": "x"}, {"priority": "low"}, {"per_hour": 9}):
            table["address"] = "127.0.0.1/32"
            site.intake.devices.devices = Devices([table], site.clock.uptime)
            for more in ("", " MT-PRIORITY=4", " MT-PRIORITY=-4", " MT-PRIORITY=0"):
                said = await site.send(mail, more=more)
                assert said.startswith("250"), said
        eq([site.queue.rows[i] >> 28 for i in range(0, len(site.queue.rows), 4)], [0] * 2 + [1] * 4 + [2] * 6)
        eq(site.queue.take().meta["e"], " MT-PRIORITY=4")


async def test_a_device_with_a_sender_of_its_own_may_write_in_utf_8():
    async with Site(Host()) as site:
        declared(site)
        table = {"address": "127.0.0.1/32", "sender": "scan@example.com"}
        site.intake.devices.devices = Devices([table], site.clock.uptime)
        said = await site.send(HEAD, ("jörg@example.net",), sender="müller@example.com", more=" SMTPUTF8")
        assert said.startswith("250"), said
        mail = site.queue.take()
        eq((mail.meta["f"], mail.meta["q"], mail.meta["r"]), (
            "müller@example.com", "scan@example.com", ["jörg@example.net"]))


# -- the library's client


def transcript(mail, text):
    for cut in CUTS:
        wire = Wire(bytearray(2048))
        client = Client(wire, "me.example.com")

        def session(client=client):
            yield from client.start("none")
            yield from client.mails(mail())

        play(session(), wire, text, cut, us="C")


def test_the_client_says_smtputf8_where_an_address_needs_it():
    text = """
        S: 220 mx
        C: EHLO me.example.com
        S: 250-mx
        S: 250-8BITMIME
        S: 250 SMTPUTF8
        C: MAIL FROM:<a@example.com> BODY=8BITMIME SMTPUTF8
        S: 250 ok
        C: RCPT TO:<müller@example.com>
        S: 250 ok
        C: RCPT TO:<info@xn--bcher-kva.example>
        S: 550 5.1.1 unknown
        C: DATA
        S: 354 go
        C: To: müller@example.com
        C: .
        S: 250 ok
        -- END --
    """
    to = ["müller@example.com", "info@bücher.example"]
    transcript(lambda: Mail("a@example.com", to, "To: müller@example.com\r\n"), text)
    plain = text.replace(" BODY=8BITMIME SMTPUTF8", "")
    plain = plain.replace("C: RCPT TO:<müller@example.com>\n        S: 250 ok\n", "")
    transcript(lambda: Mail("a@example.com", to[1:], "To: müller@example.com\r\n"), plain.replace("550 5.1.1", "250"))


def test_the_client_sends_nothing_that_the_server_cannot_take():
    text = """
        S: 220 mx
        C: EHLO me.example.com
        S: 250-mx
        S: 250 8BITMIME
        -- END --
    """
    for offer in ("8BITMIME", "SMTPUTF8"):
        mail = Mail("a@example.com", ["müller@example.com"], b"x")
        transcript(lambda mail=mail: mail, text.replace("8BITMIME", offer))
        eq(mail.replies, [(554, "5.6.7" if offer == "8BITMIME" else "5.6.3", mail.replies[0][2])])


def test_the_client_refuses_what_is_no_address():
    for bad in ("ü@", "ü b@example.com", "\ud800@example.com"):
        raises(ValueError, Mail, "a@example.com", [bad], b"x")


# -- the composer


def test_the_composer_writes_addresses_in_utf_8_and_domains_as_dns_has_them():
    mail = b"".join(compose("Jörg <jörg@example.com>", ["почта@example.net", "x@bücher.example"], "s", "t"))
    head = str(mail, "utf-8").split("\r\n\r\n")[0]
    assert "From: =?utf-8?B?SsO2cmc=?= <jörg@example.com>\r\n" in head, head
    assert "To: почта@example.net, x@xn--bcher-kva.example\r\n" in head, head
    for bad in ("ü@", "@ü", "ü b@c", "ü@c\r\nBcc: x@y", "ü@-ü"):
        raises(ValueError, compose, bad, ["a@b"], "s", "t")


