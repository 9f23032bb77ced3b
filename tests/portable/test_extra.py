"""lib/smtp/extra.py: what a session answers where a listener offers SMTPUTF8, REQUIRETLS and MT-PRIORITY."""

from expect import eq
from play import CUTS, play
from smtp.extra import Extra, level
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import Wire
from test_server import LAN, NETWORKS, STRANGER, USERS, Box

ALL = ("SMTPUTF8", "REQUIRETLS", "MT-PRIORITY")


def talk(text, words=ALL, peer=LAN, **options):
    """Plays a transcript for each cut; gives the box."""
    seen = None
    for cut in CUTS:
        box = Box()
        listener = Listener("mx.example.com", box, NETWORKS, **options)
        listener.dsn = True
        Extra(listener, words)
        wire = Wire(bytearray(2048))
        play(Session(wire, peer, listener).run(), wire, "S: 220 mx.example.com ESMTP\n" + text, cut)
        state = [
            (e.sender, e.rcpts, [" ".join(sorted(n.split())) for n in e.notify or ()], e.extra, data)
            for e, data in box.mails
        ]
        seen = state if seen is None else seen
        eq((cut, state), (cut, seen))
    return seen


EHLO = """
    C: EHLO client.example.com
    S: 250-mx.example.com
    S: 250-PIPELINING
    S: 250-SIZE 10485760
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250-DSN
"""
HELLO = EHLO + """
    S: 250-SMTPUTF8
    S: 250-MT-PRIORITY
    S: 250 ENHANCEDSTATUSCODES
"""
DATA = """
    C: DATA
    S: 354 ...
    C: Subject: ü
    C:
    C: ö
    C: .
    S: 250 2.0.0 queued
"""


def test_a_mail_with_utf_8_in_addresses_and_header_fields_is_taken_as_it_is():
    mails = talk(
        HELLO
        + """
        C: MAIL FROM:<müller@example.com> SMTPUTF8 BODY=8BITMIME SIZE=100
        S: 250 2.1.0 ok
        C: RCPT TO:<почта@example.net>
        S: 250 2.1.5 ok
        C: RCPT TO:<"jörg ü"@example.net> NOTIFY=FAILURE ORCPT=utf-8;jörg@example.net
        S: 250 2.1.5 ok
        C: RCPT TO:<@relay.example,@b.example:b@example.net> ORCPT=utf-8;ü@x
        S: 250 2.1.5 ok
    """
        + DATA
    )
    eq(mails, [(
        "müller@example.com", ["почта@example.net", '"jörg ü"@example.net', "b@example.net"],
        ["", "NOTIFY=FAILURE ORCPT=utf-8;j\\x{F6}rg@example.net", "ORCPT=utf-8;\\x{FC}@x"], " SMTPUTF8",
        "Subject: ü\r\n\r\nö\r\n".encode())])  # fmt: skip


def test_the_dialects_of_devices_are_understood_in_utf_8_too():
    mails = talk(
        HELLO
        + """
        C: mail from: müller@example.com smtputf8
        S: 250 2.1.0 ok
        C: RCPT TO: <почта@example.net>
        S: 250 2.1.5 ok
    """
        + DATA
    )
    eq(mails[0][:2], ("müller@example.com", ["почта@example.net"]))


def test_a_domain_becomes_what_any_mail_server_knows_it_by():
    mails = talk(
        HELLO
        + """
        C: MAIL FROM:<info@bücher.example> SMTPUTF8
        S: 250 2.1.0 ok
        C: RCPT TO:<Info@ПОЧТА.example>
        S: 250 2.1.5 ok
    """
        + DATA
    )
    eq(mails[0][:2], ("info@xn--bcher-kva.example", ["Info@xn--80a1acny.example"]))


def test_without_the_parameter_an_address_in_utf_8_is_refused_and_the_session_goes_on():
    mails = talk(
        HELLO
        + """
        C: MAIL FROM:<müller@example.com>
        S: 553 5.6.7 ...
        C: MAIL FROM:<info@bücher.example> BODY=8BITMIME
        S: 553 5.6.7 ...
        C: MAIL FROM:<a@example.com>
        S: 250 2.1.0 ok
        C: RCPT TO:<müller@example.com>
        S: 553 5.6.7 ...
        C: RCPT TO:<b@example.com> ORCPT=utf-8;ü@example.com
        S: 553 5.6.7 ...
        C: RCPT TO:<b@example.com> ORCPT=utf-8;\\x{FC}@example.com
        S: 250 2.1.5 ok
    """
        + DATA
    )
    eq(mails[0][:4], ("a@example.com", ["b@example.com"], ["ORCPT=utf-8;\\x{FC}@example.com"], ""))


def test_a_listener_that_does_not_offer_it_refuses_the_parameter_and_the_address():
    talk(
        EHLO
        + """
        S: 250-MT-PRIORITY
        S: 250 ENHANCEDSTATUSCODES
        C: MAIL FROM:<a@example.com> SMTPUTF8
        S: 555 5.5.4 parameter SMTPUTF8 is not supported
        C: MAIL FROM:<müller@example.com>
        S: 553 5.6.7 ...
    """,
        ("MT-PRIORITY",),
    )


def test_what_is_no_utf_8_is_no_address():
    refused = "".join(
        ["C! MAIL FROM:<%s@example.com> SMTPUTF8\\r\\n\nS: 501 5.1.7 ...\n" % text for text in (
            "\\xff", "\\xc3", "\\xc0\\xaf", "\\xed\\xa0\\x80", "\\xf4\\x90\\x80\\x80", "\\xc2\\x85",
            "\\xe2\\x80\\xae")])
    talk(
        HELLO
        + refused
        + """
        C: MAIL FROM:<ü@example.com> SMTPUTF8=yes
        S: 501 5.5.4 SMTPUTF8 takes no value
        C: MAIL FROM:<a@example.com> SMTPUTF8 ENVID=ü
        S: 501 5.5.4 a parameter is malformed or given twice
    """
    )


def test_requiretls_is_offered_under_tls_only_and_kept_with_the_mail():
    text = HELLO.replace("    S: 250-SMTPUTF8", "    S: 250-STARTTLS\n    S: 250-SMTPUTF8") + """
        C: MAIL FROM:<a@example.com> REQUIRETLS
        S: 555 5.5.4 parameter REQUIRETLS is not supported
        C: STARTTLS
        S: 220 2.0.0 go ahead
        -- TLS --
    """ + HELLO.replace("    S: 250-MT", "    S: 250-REQUIRETLS\n    S: 250-MT") + """
        C: MAIL FROM:<a@example.com> REQUIRETLS=yes
        S: 501 5.5.4 REQUIRETLS takes no value
        C: MAIL FROM:<a@example.com> REQUIRETLS SMTPUTF8
        S: 250 2.1.0 ok
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 ok
    """ + DATA
    eq(sorted(talk(text, tls="starttls")[0][3].split()), ["REQUIRETLS", "SMTPUTF8"])


def test_a_priority_is_a_number_from_minus_9_to_9():
    bad = ""
    for value in ("", "=", "=10", "=+1", "=x", "=-0", "=--1", "=1-"):
        bad += "C: MAIL FROM:<a@example.com> MT-PRIORITY%s\nS: 501 5.5.4 ...\n" % value
    mails = talk(
        HELLO + bad + """
        C: MAIL FROM:<a@example.com> MT-PRIORITY=-4
        S: 250 2.1.0 ok
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 ok
    """ + DATA)
    eq(mails[0][3], " MT-PRIORITY=-4")
    eq([level(" SMTPUTF8 MT-PRIORITY=%d" % n) for n in range(-9, 10)], [2] * 6 + [1] * 4 + [0] * 9)
    eq((level(""), level(" SMTPUTF8")), (None, None))


def test_who_may_not_send_may_not_in_utf_8_either():
    refused = """
        C: MAIL FROM:<müller@example.com> SMTPUTF8 MT-PRIORITY=9
        S: 550 5.7.1 relaying denied
        C: RCPT TO:<müller@example.com>
        S: 503 5.5.1 say MAIL first
    """
    eq(talk(HELLO + refused, peer=STRANGER), [])
    hello = HELLO.replace("    S: 250-SMTPUTF8", "    S: 250-STARTTLS\n    S: 250-SMTPUTF8")
    refused = refused.replace("550 5.7.1 relaying denied", "530 5.7.0 say STARTTLS, then authenticate")
    eq(talk(hello + refused, peer=STRANGER, users=USERS, tls="starttls"), [])


def test_a_backend_hears_of_sender_and_recipients_as_without_extensions():
    class Choosy(Box):
        def mail(self, envelope):
            if envelope.sender == "spam@example.com":
                raise SMTPError(550, "5.7.1", "not you")

    box = Choosy()
    listener = Listener("mx.example.com", box, NETWORKS)
    Extra(listener, ("SMTPUTF8",))
    wire = Wire(bytearray(2048))
    play(Session(wire, LAN, listener).run(), wire, """
        S: 220 mx.example.com ESMTP
        C: MAIL FROM:<spam@example.com> SMTPUTF8
        S: 550 5.7.1 not you
        C: MAIL FROM:<a@example.com> SMTPUTF8
        S: 250 2.1.0 ok
        C: RCPT TO:<unknown@example.com>
        S: 550 5.1.1 no such user
        C: RCPT TO:<postmaster>
        S: 250 2.1.5 ok
    """ + DATA)
    eq(box.mails[0][0].rcpts, ["admin@example.com"])
