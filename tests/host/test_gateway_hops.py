"""Gateways with the ways of mail that few have: delivery by MX, and two of them that hand over mail by ATRN."""

import socket
import threading

import pytest
from edgepost import certificates
from harness import BOARD, PATIENCE, mail

MX, A = 15, 1


def wire(name):
    return b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"


class NameServer:
    """Over UDP, in a thread of its own. zone: {(name, kind): [data of each record]}; all else does not exist."""

    def __init__(self, zone):
        self.zone = zone
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
            name, kind = ".".join(labels), query[-3]
            found = self.zone.get((name, kind), [])
            records = b"".join(
                b"\xc0\x0c" + bytes((0, kind, 0, 1, 0, 0, 0, 60, 0, len(data))) + data for data in found
            )
            known = [n for n, _ in self.zone if n == name]
            flags = b"\x81\x80" if known else b"\x81\x83"
            count = bytes((0, len(found)))
            self._sock.sendto(query[:2] + flags + b"\0\1" + count + bytes(4) + query[12:] + records, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._sock.getsockname())
        self._thread.join(PATIENCE)
        self._sock.close()


@pytest.fixture
def names():
    server = NameServer({
        ("example.com", MX): [b"\0\x0a" + wire("gone.example.com"), b"\0\x14" + wire("mx.example.com")],
        ("example.net", MX): [b"\0\x14" + wire("mx.example.com"), b"\0\x0a" + wire("gone.example.com")],
        ("none.example.net", MX): [b"\0\0\0"],
        ("mx.example.com", A): [socket.inet_aton("127.0.0.1")],
    })  # fmt: skip
    yield server
    server.close()


def without_account(board):
    for line in ('host = "{host}"', 'ca = "{ca}"', 'username = "gateway"', 'password = "secret"'):
        board = board.replace(line + "\n", "")
    return board


@pytest.mark.parametrize("starttls", [True, False])
def test_a_gateway_without_a_smart_host_delivers_by_mx(gateway, smarthost, names, starttls):
    host = smarthost(auth=False, starttls=starttls, certificate="expired")
    board = without_account(BOARD).replace('security = "starttls"', 'by = "mx"\nsecurity = "opportunistic"')
    one = gateway(board.replace("[smarthost]", f'dns = ["{names.where}"]\n[smarthost]'), host)
    one.inject(mail(), sender="boss@example.com",
               to=["a@example.com", "b@example.net", "c@none.example.net", "d@nowhere.example.org"])  # fmt: skip
    first, bounce = host.wait_for(2)
    assert (first.sender, first.recipients, bool(first.tls)) == (
        "boss@example.com", ["a@example.com", "b@example.net"], starttls)  # fmt: skip
    assert (bounce.sender, bounce.recipients) == ("<>", ["boss@example.com"])
    text = bounce.content.decode()
    assert "5.1.10" in text and "c@none.example.net" in text and "d@nowhere.example.org" in text
    one.wait_for("delivered to boss@example.com")


PROVIDER = """
[[listener]]
port = {port2}
allow = []
users = { board7 = "a word" }
auth_in_clear = true
atrn = { board7 = ["b7.example.com"] }
etrn = ["example.com"]
"""
FETCH = """
[fetch]
host = "localhost"
port = %d
security = "%s"
username = "board7"
password = "a word"
domains = ["b7.example.com"]
every = "1s"
forward = "ops@example.com"
"""


def test_a_board_fetches_its_mail_from_a_gateway_that_keeps_it(gateway, smarthost):
    host = smarthost()
    provider = gateway(BOARD + PROVIDER, host)
    provider.inject(mail("for the board"), to=["x@b7.example.com", "office@example.com"])
    (got,) = host.wait_for(1)
    assert got.recipients == ["office@example.com"]
    board = gateway(BOARD + FETCH % (provider.port2, "none"), host)
    got = host.wait_for(2)[1]
    assert (got.recipients, got.message["Subject"]) == (["ops@example.com"], "for the board")
    assert "with ESMTPA" in got.message.get_all("Received")[0]
    provider.wait_for("delivered to x@b7.example.com")
    provider.kill()
    board.wait_for("no mail could be fetched from localhost")
    provider.start()


ORDERS = """senders = ["boss@example.com"]
[[sensor]]
name = "freezer"
driver = "file"
path = "freezer.txt"
every = "0.2s"
above = -15.0
"""


def under_tls(tmp_path):
    """PROVIDER with a certificate of the smart host's CA."""
    cert, key = certificates.Authority(tmp_path / "smarthost").issue(label="lan")
    return PROVIDER.replace("auth_in_clear = true", f'tls = "starttls"\ncert = "{cert}"\nkey = "{key}"')


def test_a_board_is_told_by_mail_what_its_limits_are_and_says_how_it_is(gateway, smarthost, tmp_path):
    host = smarthost()
    provider = gateway(BOARD + under_tls(tmp_path), host)
    text = BOARD + FETCH % (provider.port2, "starttls") + 'ca = "{ca}"\n' + ORDERS
    board = gateway(text, host, ready=False)
    (board.path / "freezer.txt").write_text("-18.5\n")
    board.wait_for("gateway: ready")
    provider.inject(mail("set limit freezer above -12", sender="boss@example.com"), to=["board@b7.example.com"])
    (got,) = host.wait_for(1)
    assert got.recipients == ["boss@example.com"]
    assert "above is -12.0 now, it was -15.0" in got.content.decode()
    provider.wait_for("delivered to board@b7.example.com")
    board.wait_for("delivered to boss@example.com")
    assert board.stop() == 0
    board.start()
    (board.path / "freezer.txt").write_text("-13\n")
    provider.inject(mail("", sender="boss@example.com"), to=["status@b7.example.com"])
    got = host.wait_for(2)[1]
    assert "all is well" in got.message["Subject"] and "freezer: -1" in got.content.decode()
