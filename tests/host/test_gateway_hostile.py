"""Clients that mean no good, or cannot do better, and a flash that is full: the gateway says no in
the right words, nothing of it is queued, and the other devices do not notice.
"""

import contextlib
import smtplib
import socket
import sys

import pytest
from harness import BOARD, PATIENCE, mail

ENVELOPE = b"EHLO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"


# All of these clients are one machine; Linux has more than one address of its own for it.
ELSEWHERE = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


class Raw:
    """A client that sends bytes as they are."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (ELSEWHERE, 0))
        self.sock.settimeout(PATIENCE)
        self.file = self.sock.makefile("rb")

    def reply(self):
        """The last line of the next reply; b"" when the gateway has closed the connection."""
        while True:
            try:
                line = self.file.readline()
            except ConnectionError:
                return b""
            if line[3:4] != b"-":
                return line.rstrip(b"\r\n")

    def say(self, data):
        """Sends, and goes on when the gateway has closed the connection."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def begin_data(self):
        self.say(ENVELOPE + b"DATA\r\n")
        while (reply := self.reply())[:3] != b"354":
            assert reply[:1] == b"2", reply

    def reset(self):
        """Goes without saying good-bye, as a device that loses its power."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()


class Street:
    """A gateway with its smart host, a polite device that has a session all the time, and `raw()`
    clients of the other kind.
    """

    def __init__(self, one, host):
        self.one, self.host = one, host
        self.polite = smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE)
        self.sent = 0
        self.raws = []

    def raw(self):
        self.raws.append(Raw(self.one.port))
        return self.raws[-1]

    def others_get_through(self, new_session=True):
        """Two mails, one in the old session, one in a new one, arrive and leave the queue."""
        for send in [self.polite.send_message] + [self.one.inject] * new_session:
            to = f"polite{self.sent}@example.com"
            send(mail(f"polite {self.sent}", to=to))
            self.sent += 1
            self.one.wait_for(f"delivered to {to}")

    def nothing_else_was_queued(self):
        """Nothing but the polite device's mails was taken, before and after a restart."""
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            self.polite.quit()
        mark = self.one.mark()
        assert self.one.stop() == 0
        self.one.start()
        self.one.inject(mail("at last", to="last@example.com"))
        self.one.wait_for("delivered to last@example.com")
        assert self.one.stop() == 0
        log = "\n".join(self.one.messages.lines[mark:])
        assert "mails wait" not in log
        subjects = [got.message["Subject"] for got in self.host.mails]
        assert subjects == [f"polite {n}" for n in range(self.sent)] + ["at last"]
        assert "Traceback" not in self.one.log() and "out of memory" not in self.one.log()


@pytest.fixture
def street(gateway, smarthost):
    host = smarthost()
    street = Street(gateway(BOARD, host), host)
    yield street
    street.polite.close()
    for raw in street.raws:
        raw.close()


def test_clients_that_go_silent_disturb_nobody(street):
    for words in (b"", b"EH", ENVELOPE):
        street.raw().say(words)
    for words in (b"", b"Subject: half a mail\r\n\r\nhalf a li"):
        silent = street.raw()
        silent.begin_data()
        silent.say(words)
    street.others_get_through()
    street.nothing_else_was_queued()  # they do not keep the gateway from a clean stop, either


@pytest.mark.parametrize("start", [b"", b"EHLO ", b"MAIL FROM:<", b"RCPT TO:<", b"NOOP "])
def test_a_command_line_of_1_mb_is_refused(street, start):
    client = street.raw()
    assert client.reply()[:3] == b"220"
    client.say(start + b"a" * (1 << 20))
    street.others_get_through()  # while it has not ended yet
    client.say(b"\r\nNOOP\r\n")
    assert client.reply()[:9] == b"500 5.5.2"
    assert client.reply()[:3] == b"250"
    street.nothing_else_was_queued()


def test_ten_thousand_recipients_end_the_session_and_nothing_is_queued(street):
    client = street.raw()
    client.say(ENVELOPE)
    client.say(b"".join(b"RCPT TO:<r%d@example.com>\r\n" % n for n in range(10000)))
    client.say(b"DATA\r\nSubject: for many\r\n\r\ntext\r\n.\r\n")
    replies = []
    while reply := client.reply():
        replies.append(reply[:9])
    assert replies[:3] == [b"220 cold-", b"250 ENHAN", b"250 2.1.0"]
    assert replies[3:103] == [b"250 2.1.5"] * 100
    assert replies[-1][:3] == b"421"
    assert set(replies[103:-1]) == {b"452 4.5.3"}
    assert len(replies) < 2000
    street.others_get_through()
    street.nothing_else_was_queued()


def test_what_is_beyond_a_hundred_recipients_is_refused_and_the_hundred_are_served(street):
    to = [f"r{n}@example.com" for n in range(120)]
    refused = street.polite.sendmail("a@example.com", to, b"Subject: polite 0\r\n\r\ntext\r\n")
    street.sent += 1
    assert sorted(refused) == sorted(to[100:])
    assert {code for code, text in refused.values()} == {452}
    street.one.wait_for(f"delivered to {to[99]}")
    (got,) = street.host.mails
    assert got.recipients == to[:100]
    street.nothing_else_was_queued()


@pytest.mark.parametrize(
    "command",
    [b"\0", b"NO\0OP", b"MAIL FROM:<a\0@example.com>", b"\0" * 3000],
)
def test_nul_bytes_in_a_command_are_refused(street, command):
    client = street.raw()
    client.say(command + b"\r\n" + b"NOOP\r\n")
    assert client.reply()[:3] == b"220"
    assert client.reply()[:3] in (b"500", b"501")
    assert client.reply()[:3] == b"250"
    street.others_get_through()
    street.nothing_else_was_queued()


def test_nul_bytes_in_the_name_a_device_gives_itself_reach_nobody(street):
    client = street.raw()
    client.say(ENVELOPE.replace(b"x.example", b"x\0\x1b[2J.example") + b"DATA\r\n")
    assert [client.reply()[:3] for _ in range(5)] == [b"220", b"250", b"250", b"250", b"354"]
    client.say(b"Subject: polite 0\r\n\r\ntext\r\n.\r\n")
    assert client.reply()[:3] == b"250"
    street.sent += 1
    street.one.wait_for("delivered to b@example.com")
    (got,) = street.host.mails
    assert not {0, 27} & set(got.content)
    assert "\0" not in street.one.log() and "\x1b" not in street.one.log()
    street.nothing_else_was_queued()


def test_nul_bytes_in_an_address_are_refused(street):
    client = street.raw()
    client.say(b"EHLO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b\0@example.com>\r\nDATA\r\n")
    replies = [client.reply()[:3] for _ in range(5)]
    assert replies[3:] == [b"501", b"554"]
    street.others_get_through()
    street.nothing_else_was_queued()


@pytest.mark.parametrize("go", ["close", "reset"])
@pytest.mark.parametrize(
    "part", [b"", b"Subject: half\r\n", b"x" * 100000, b"Subject: half\r\n\r\ntext\r\n.\r"]
)
def test_a_client_that_leaves_in_the_middle_of_data_leaves_nothing(street, part, go):
    client = street.raw()
    client.begin_data()
    client.say(part)
    getattr(client, go)()
    street.others_get_through()
    street.nothing_else_was_queued()


def test_a_client_that_stops_sending_in_data_but_listens_hears_no_250(street):
    client = street.raw()
    client.begin_data()
    client.say(b"Subject: half\r\n\r\ntext\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.reply()[:1] in (b"", b"4")
    street.others_get_through()
    street.nothing_else_was_queued()


def test_fifty_connections_at_once_get_a_session_or_a_421(street):
    street.others_get_through()  # it has its session
    crowd = [street.raw() for _ in range(50)]
    greetings = [client.reply() for client in crowd]
    served = [c for c, g in zip(crowd, greetings, strict=True) if g[:3] == b"220"]
    sent_away = [c for c, g in zip(crowd, greetings, strict=True) if g[:9] == b"421 4.3.2"]
    assert len(served) + len(sent_away) == 50
    assert served and sent_away
    assert {c.reply() for c in sent_away} == {b""}  # closed
    street.others_get_through(new_session=ELSEWHERE != "127.0.0.1")  # one address does not get all the places
    for client in served:  # each of them is a session that works
        client.say(b"EHLO x.example\r\nQUIT\r\n")
        assert client.reply()[:3] == b"250"
        assert client.reply()[:3] == b"221"
        assert client.reply() == b""
    street.others_get_through()  # the places are free again
    street.nothing_else_was_queued()


# ---- a flash that is full

FULL = BOARD + '[queue]\nmax_bytes = "128KB"\ncut_through = false\n'


def page(number, octets=4000):
    head = f"From: a@example.com\r\nSubject: page {number}\r\n\r\n".encode()
    return head + (b"%70d\r\n" % number) * (octets // 72)


def declares(device, octets):
    """Offers a mail of so many octets; gives the reply that came instead of 354, or None."""
    device.ehlo_or_helo_if_needed()
    code, text = device.mail("a@example.com", [f"SIZE={octets}"])
    if code == 250:
        assert device.rcpt("b@example.com")[0] == 250
        code, text = device.docmd("DATA")
    if code == 354:
        device.send(page(0, octets) + b".\r\n")
        assert device.getreply()[0] == 250
        return None
    device.rset()
    return code, text[:6]


def test_a_full_flash_refuses_in_time_and_loses_nothing_that_was_accepted(gateway, smarthost):
    one = gateway(FULL, flash="128KB")
    assert one.state.image.stat().st_size == 131072
    accepted = []
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        # Where the size is declared, the refusal comes before the mail is sent.
        for number in range(100):
            try:
                device.sendmail("a@example.com", ["b@example.com"], page(number))
            except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as e:
                assert (e.smtp_code, e.smtp_error[:6]) == (452, b"4.3.1 ")
                break
            accepted.append(f"page {number}")
        assert 5 < len(accepted) < 30
        assert declares(device, 60000) == (452, b"4.3.1 ")
    # Where it is not, after it; what had been written of it is given back.
    for _ in range(3):
        with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
            device.helo("old.example")
            assert device.mail("a@example.com")[0] == 250
            assert device.rcpt("b@example.com")[0] == 250
            code, text = device.docmd("DATA")
            if code == 354:
                device.send(page(0, 90000) + b".\r\n")
                code, text = device.getreply()
            assert (code, text[:6]) == (452, b"4.3.1 ")
    one.wait_for("no room for a mail")

    one.kill()
    host = smarthost(path=one.path / "smarthost", port=one.smarthost_port)
    one.start()
    host.wait_for(len(accepted))
    one.inject(mail("the last one"))  # there is room again
    host.wait_for(len(accepted) + 1)
    assert [got.message["Subject"] for got in host.mails] == [*accepted, "the last one"]
    assert one.stop() == 0
    assert "Traceback" not in one.log()


def test_a_mail_without_a_size_that_could_never_fit_is_refused_after_it(gateway, smarthost):
    host = smarthost()
    one = gateway(FULL, host, flash="128KB")
    with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
        device.helo("old.example")
        for _ in range(4):  # each time all the flash is free
            assert device.mail("a@example.com")[0] == 250
            assert device.rcpt("b@example.com")[0] == 250
            assert device.docmd("DATA")[0] == 354
            device.send(page(0, 200000) + b".\r\n")
            code, text = device.getreply()
            assert (code, text[:6]) == (552, b"5.3.4 ")
        device.sendmail("a@example.com", ["b@example.com"], page(1, 30000))
    assert host.wait_for(1)[0].message["Subject"] == "page 1"
    assert one.stop() == 0
    assert len(host.mails) == 1
    assert "Traceback" not in one.log()


def test_a_full_flash_stays_usable_over_power_cuts(gateway, smarthost):
    one = gateway(FULL, flash="128KB")
    accepted, number = [], 0
    for _ in range(4):
        with smtplib.SMTP("127.0.0.1", one.port, timeout=PATIENCE) as device:
            while True:
                number += 1
                try:
                    device.sendmail("a@example.com", ["b@example.com"], page(number, 300))
                except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as e:
                    assert (e.smtp_code, e.smtp_error[:6]) == (452, b"4.3.1 ")
                    break
                accepted.append(f"page {number}")
                assert number < 1000
        one.kill()
        one.start()
    assert len(accepted) > 10
    one.kill()
    host = smarthost(path=one.path / "smarthost", port=one.smarthost_port)
    one.start()
    host.wait_for(len(accepted))
    one.inject(mail("the last one"))
    host.wait_for(len(accepted) + 1)
    assert [got.message["Subject"] for got in host.mails] == [*accepted, "the last one"]
    assert one.stop() == 0
