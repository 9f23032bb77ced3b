"""A gateway whose smart host has a name that only one name server knows."""

import socket
import threading
from pathlib import Path

import pytest
from harness import BOARD, PATIENCE, mail

NAME = "mail.elsewhere.example"  # what the certificate "wrong-name" is for


class NameServer:
    """Knows the IPv4 address of NAME, over UDP, in a thread of its own. `answer`: False keeps silent, None says that
    there is no such name. `asked` is set with each query."""

    def __init__(self):
        self.answer = True
        self.asked = threading.Event()
        self.names = []
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.where = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            query, peer = self._sock.recvfrom(512)
            if not query:
                return
            labels, rest = [], query[12:-4]
            while rest[0]:
                labels.append(rest[1 : 1 + rest[0]].decode())
                rest = rest[1 + rest[0] :]
            name = ".".join(labels)
            self.names.append(name)
            self.asked.set()
            if self.answer is False:
                continue
            known = self.answer and name == NAME
            records = b""
            if known and query[-3] == 1:
                records = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("127.0.0.1")
            flags = b"\x81\x80" if known else b"\x81\x83"
            count = b"\0\1" if records else b"\0\0"
            self._sock.sendto(query[:2] + flags + b"\0\1" + count + bytes(4) + query[12:] + records, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._sock.getsockname())
        self._thread.join(PATIENCE)
        self._sock.close()


@pytest.fixture
def names():
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def board(names):
    """A board.toml whose name server is `names` alone."""
    return BOARD.replace("[smarthost]", f'dns = ["{names.where}"]\n[smarthost]').replace("{host}", NAME) + (
        '[queue]\npause = "1s"\npause_max = "1s"\n')


def test_mail_reaches_a_smart_host_that_only_this_name_server_knows(gateway, smarthost, names, board):
    host = smarthost(certificate="wrong-name", host="127.0.0.1")
    one = gateway(board, host)
    one.inject(mail("found"))
    (got,) = host.wait_for(1)
    assert got.message["Subject"] == "found" and got.tls
    assert set(names.names) == {NAME}
    one.wait_for("delivered to office@example.com")


def test_a_name_that_does_not_exist_is_told_and_the_mail_waits_for_it(gateway, smarthost, names, board):
    names.answer = None
    host = smarthost(certificate="wrong-name", host="127.0.0.1")
    one = gateway(board.replace(NAME, "mial.elsewhere.example"), host)
    one.inject()
    line = one.wait_for("relay: smart host mial.elsewhere.example")
    assert "the name could not be looked up: it does not exist" in line and "1 mails wait" in line
    one.kill()
    names.answer = True
    one.board.write_text(one.board.read_text().replace("mial.", "mail."))
    one.start()
    assert len(host.wait_for(1)) == 1


def test_devices_are_served_while_a_name_server_is_silent(gateway, smarthost, names, board):
    names.answer = False
    host = smarthost(certificate="wrong-name", host="127.0.0.1")
    one = gateway(board, host)
    one.inject(mail("first"))
    for subject in ("second", "third"):
        names.asked.clear()
        assert names.asked.wait(PATIENCE)  # a look-up is under way, and has no answer
        one.inject(mail(subject))
    assert host.connections == 0
    assert "no name server answers (127.0.0.1 is silent)" in one.wait_for("relay: smart host")
    names.answer = True
    assert sorted(m.message["Subject"] for m in host.wait_for(3)) == ["first", "second", "third"]


def test_a_gateway_stops_cleanly_in_the_middle_of_a_look_up(gateway, names, board):
    names.answer = False
    one = gateway(board)
    one.inject()
    assert names.asked.wait(PATIENCE)
    assert one.stop() == 0
    assert "Traceback" not in one.log()


def test_a_name_of_this_computers_own_table_is_not_asked_for(gateway, smarthost, names, board):
    table = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
    found = [n for words in table if words[:1] == ["127.0.0.1"] for n in words[1:] if not n.startswith("localhost")]
    if not found:
        pytest.skip("/etc/hosts has no name for 127.0.0.1 but localhost")
    host = smarthost(starttls=False, auth=False, host="127.0.0.1")
    plain = board.replace(NAME, found[0]).replace('security = "starttls"\nca = "{ca}"', 'security = "none"')
    one = gateway(plain.replace('username = "gateway"\npassword = "secret"\n', ""), host)
    one.inject()
    host.wait_for(1)
    assert names.names == []
