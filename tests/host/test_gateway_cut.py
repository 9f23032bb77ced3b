"""A scan that is bigger than the whole flash: it passes through the gateway while it arrives, and the flash stays as it
is, whatever the smart host does.
"""

import base64
import hashlib
import random
import smtplib
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from harness import BOARD, PATIENCE, mail

FLASH = 512 << 10
BIG = 20_000_000
MEDIUM = 1_500_000
LARGE = BOARD + '[queue]\nmax_bytes = "400KB"\nmax_message = "25MB"\n'
FROM, TO = "scanner@example.com", "office@example.com"


def scan(size, seed=1):
    """A mail of about `size` octets with an attachment, as bytes with CRLF; each seed another one."""
    data = base64.encodebytes(random.Random(seed).randbytes(size * 54 // 74)).replace(b"\n", b"\r\n")
    head = f"From: {FROM}\r\nTo: {TO}\r\nSubject: scan {seed}\r\nMIME-Version: 1.0\r\n"
    head += "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head.encode() + data + b".a line with a dot\r\n..\r\n"


def body(content):
    return hashlib.sha256(content.partition(b"\r\n\r\n")[2]).hexdigest()


def arrived(host, sent):
    """How often a mail has come to the smart host, whole."""
    return [body(m.content) for m in host.mails].count(body(sent))


class Session(smtplib.SMTP):
    """A device. declared False: it says HELO, and not how big the mail is."""

    def __init__(self, port, declared=True, address="127.0.0.1"):
        super().__init__("127.0.0.1", port, timeout=4 * PATIENCE, source_address=(address, 0))
        self.declared = declared
        self.ehlo("scanner") if declared else self.helo("scanner")

    def deliver(self, content, chunk=0):
        """(code, text) of the reply to a mail, sent with DATA or in chunks of `chunk` octets."""
        size = f" SIZE={len(content)}" if self.declared else ""
        assert self.docmd(f"MAIL FROM:<{FROM}>{size}")[0] == 250
        assert self.docmd(f"RCPT TO:<{TO}>")[0] == 250
        if not chunk:
            try:
                return self.data(content)
            except smtplib.SMTPDataError as e:
                return e.smtp_code, e.smtp_error
        for lo in range(0, len(content), chunk):
            part = content[lo : lo + chunk]
            last = b" LAST" if lo + chunk >= len(content) else b""
            self.sock.sendall(b"BDAT %d%s\r\n" % (len(part), last) + part)
            reply = self.getreply()
            if reply[0] != 250:
                break
        return reply


def send(port, content, chunk=0, declared=True, address="127.0.0.1"):
    with Session(port, declared, address) as session:
        return session.deliver(content, chunk)


def insist(port, content, chunk=0, address="127.0.0.1"):
    """The same, as often as it takes: where memory is short, some hear "later" while there is much to do."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            code, text = send(port, content, chunk, address=address)
        except (OSError, smtplib.SMTPException) as e:
            code, text = 421, str(e)
        if code == 250 or time.monotonic() > end:
            return code, text
        time.sleep(0.2)


class Between:
    """Stands between the gateway and the smart host, who do not see it. fault: None or

    "closed"     421 instead of a greeting
    "cut"        the connection breaks after `after` octets from the gateway
    "mute"       it breaks instead of the first answer after those
    """

    def __init__(self, target):
        self.target = target
        self.fault, self.after = None, 0
        self.faults = 0
        self.port = 0
        self.start()

    def start(self):
        self.socket = socket.create_server(("127.0.0.1", self.port))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def stop(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def serve(self, near):
        if self.fault == "closed":
            self.faults += 1
            near.sendall(b"421 4.3.2 closed for the night\r\n")
            near.close()
            return
        fault, after = self.fault, self.after
        passed = [0]
        with socket.create_connection(("localhost", self.target)) as far, near:

            def end():
                for sock in (near, far):
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

            def back():
                try:
                    while data := far.recv(65536):
                        if fault == "mute" and passed[0] > after:
                            self.faults += 1
                            break
                        near.sendall(data)
                except OSError:
                    pass
                end()

            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            try:
                while data := near.recv(65536):
                    passed[0] += len(data)
                    if fault == "cut" and passed[0] > after:
                        self.faults += 1
                        break
                    far.sendall(data)
            except OSError:
                pass
            end()
            thread.join(PATIENCE)


@pytest.fixture
def between():
    made = []

    def start(target):
        made.append(Between(target))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def image(gate):
    return hashlib.sha256(gate.state.image.read_bytes()).hexdigest()


@pytest.mark.parametrize("chunk", [0, 65536], ids=["DATA", "BDAT"])
def test_a_scan_of_20_MB_passes_through_a_flash_of_512_KB_that_stays_as_it_was(smarthost, gateway, chunk):
    host = smarthost()
    gate = gateway(LARGE, host, flash=FLASH)
    before = image(gate)
    sent = scan(BIG)
    code, text = send(gate.port, sent, chunk)
    assert (code, text[:16]) == (250, b"2.0.0 passed on "), text
    assert arrived(host, sent) == 1
    assert image(gate) == before
    got = host.mails[0]
    assert got.tls and got.user == "gateway" and got.recipients == [TO]
    assert got.message["Received"] and got.message["Date"] and got.message["Message-ID"]
    assert "MemoryError" not in gate.log() and "out of memory" not in gate.log()
    gate.inject(mail("a page"))  # the queue goes on
    host.wait_for(2)
    assert gate.stop() == 0


def test_a_device_that_does_not_say_how_much_it_sends(smarthost, gateway):
    host = smarthost()
    gate = gateway(LARGE, host, flash=FLASH)
    first, second = scan(BIG, 1), scan(BIG, 2)
    assert send(gate.port, first, declared=False)[0] == 250
    assert arrived(host, first) == 1
    before = image(gate)  # the first went by the spool until that was full
    assert send(gate.port, second, declared=False)[0] == 250
    assert arrived(host, second) == 1
    assert image(gate) == before
    gate.kill()
    gate.start()
    gate.inject(mail("a page"))
    host.wait_for(3)
    assert "damaged" not in gate.log() and "mails wait" not in gate.log()


def test_several_scans_at_once_and_small_mail_meanwhile(smarthost, gateway):
    host = smarthost()
    gate = gateway(LARGE, host, flash=FLASH, heapsize="320k")
    sent = [scan(4 * MEDIUM, seed) for seed in range(3)]
    replies = []

    def device(n):
        replies.append(insist(gate.port, sent[n], 50000 * (n % 2), address=f"127.0.0.{n + 2}"))

    devices = [threading.Thread(target=device, args=(n,)) for n in range(len(sent))]
    for one in devices:
        one.start()
    for n in range(10):
        gate.inject(mail(f"page {n}"))
    for one in devices:
        one.join(4 * PATIENCE)
    assert [code for code, _ in replies] == [250] * len(sent), (replies, gate.log())
    host.wait_for(len(sent) + 10)
    assert [arrived(host, content) for content in sent] == [1] * len(sent)


# what is wrong: the smart host, then what stands between
STAGES = [
    ("nobody listens", None, None),
    ("the greeting is 421", {}, ("closed", 0)),
    ("the connection breaks in the handshake", {}, ("cut", 200)),
    ("STARTTLS is missing", {"starttls": False}, None),
    ("the certificate is by another CA", {"certificate": "other-ca"}, None),
    ("the certificate has expired", {"certificate": "expired"}, None),
    ("the password is wrong", {"password": "other"}, None),
    ("MAIL is deferred", {"refuse": lambda verb, _: "451 4.3.0 later" if verb == "mail" else None}, None),
    ("RCPT is deferred", {"refuse": lambda verb, _: "450 4.2.0 busy" if verb == "rcpt" else None}, None),
    ("the connection breaks in the middle", {}, ("cut", MEDIUM // 2)),
    ("the mail is deferred", {"refuse": lambda verb, _: "452 4.2.2 full" if verb == "data" else None}, None),
    ("the connection breaks before the answer", {}, ("mute", MEDIUM)),
]


@pytest.mark.parametrize("chunk", [0, 60000], ids=["DATA", "BDAT"])
@pytest.mark.parametrize(("trouble", "settings", "fault"), STAGES, ids=[s[0] for s in STAGES])
def test_the_device_hears_451_and_its_next_try_succeeds(
    smarthost, gateway, between, tmp_path, trouble, settings, fault, chunk
):
    good = smarthost(path=tmp_path / "host")
    line = between(good.port)
    gate = gateway(LARGE, SimpleNamespace(port=line.port, ca=good.ca), flash=FLASH)
    before = image(gate)
    if settings is None:
        line.stop()
    elif settings:
        line.target = smarthost(path=tmp_path / "host", **settings).port
    if fault:
        line.fault, line.after = fault
    sent = scan(MEDIUM)
    code, text = send(gate.port, sent, chunk)
    assert code == 451 and b"send it again later" in text, (code, text)
    assert not fault or line.faults == 1
    assert image(gate) == before
    came = arrived(good, sent)
    assert came == (fault == ("mute", MEDIUM))  # who did not hear the answer cannot know
    if settings is None:
        line.start()
    line.target, line.fault = good.port, None
    code, text = send(gate.port, sent, chunk)
    assert code == 250, text
    assert arrived(good, sent) == came + 1
    assert image(gate) == before
    assert gate.stop() == 0


def test_a_scan_that_is_refused_for_good_is_not_tried_for_ever(smarthost, gateway):
    for verb in ("mail", "rcpt", "data"):
        host = smarthost(refuse=lambda v, _, verb=verb: "550 5.7.1 no scans here" if v == verb else None)
        gate = gateway(LARGE, host, flash=FLASH)
        before = image(gate)
        assert send(gate.port, scan(MEDIUM)) == (550, b"5.7.1 the smart host says 550 5.7.1 no scans here")
        assert image(gate) == before
        gate.kill()


def test_a_device_that_is_switched_off_in_the_middle_leaves_no_mail_at_the_smart_host(smarthost, gateway):
    host = smarthost()
    gate = gateway(LARGE, host, flash=FLASH, heapsize="320k")
    before = image(gate)
    sent = scan(MEDIUM)
    for chunk in (b"", b"BDAT %d\r\n" % (2 * MEDIUM), b"BDAT %d LAST\r\n" % (2 * MEDIUM)):
        session = Session(gate.port)
        session.docmd(f"MAIL FROM:<{FROM}> SIZE={2 * MEDIUM}")
        session.docmd(f"RCPT TO:<{TO}>")
        if not chunk:
            assert session.docmd("DATA")[0] == 354
        session.sock.sendall(chunk + sent[:-20])
        session.close()
    code, text = insist(gate.port, sent)
    assert code == 250, (text, gate.log())
    assert [body(m.content) for m in host.mails] == [body(sent)]
    assert image(gate) == before


def test_without_cut_through_ehlo_tells_what_the_flash_holds(smarthost, gateway):
    host = smarthost()
    gate = gateway(LARGE + "cut_through = false\n", host, flash=FLASH)
    with Session(gate.port) as session:
        told = int(session.esmtp_features["size"])
        assert 300_000 < told < 400 << 10
        assert session.docmd(f"MAIL FROM:<{FROM}> SIZE={told + 1}")[0] == 552
    assert send(gate.port, scan(told - 2000))[0] == 250
    assert host.wait_for(1)


def test_with_cut_through_ehlo_tells_max_message_and_less_when_the_smart_host_takes_less(smarthost, gateway):
    gate = gateway(LARGE, smarthost(max_size=2_000_000), flash=FLASH)
    sizes = []
    for _ in range(2):
        with Session(gate.port) as session:
            sizes.append(int(session.esmtp_features["size"]))
        gate.inject(mail("a page"))
        gate.wait_for("delivered")
    assert sizes == [25 << 20, 2_000_000]
    with Session(gate.port) as session:
        assert session.docmd(f"MAIL FROM:<{FROM}> SIZE=2000001")[0] == 552
