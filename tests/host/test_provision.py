"""`edgepost provision` against virtual boards, and smart hosts whose certificate stands under an intermediate and a
root of the tests' own, with a next root for the day after."""

import datetime
import io
import json
import os
import select
import shutil
import sys
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from edgepost import certificates, cli, device, roots, virtual
from harness import PATIENCE

SECRETS = {"SMTP": "smtp-secret-7711", "WIFI": "wifi-secret-8822"}
BOARD = """\
# the freezer in the barn
[board]
name = "cold-store"          # on its label
ntp = []
[wifi]
ssid = "barn"
password = { env = "WIFI" }
[smarthost]
host = "localhost"           # for now
port = {port}
username = "{user}"
password = { env = "SMTP" }
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
[[listener]]
address = "0.0.0.0"
port = 2525
allow = ["192.168.1.0/24"]
"""
# What a gateway says, in a tenth of the time: the real one is in test_the_real_gateway_comes_up.
MAIN = """\
import json
c = json.load(open("/config.json"))
for l in c["listener"]:
    print("+0 server: listening on %s port %d" % (l["address"], l["port"]))
print("+0 gateway: ready")
print('+1 wifi: joined "%s" as 192.168.1.9' % c["wifi"]["ssid"])
while True:
    pass
"""


def make(name, issuer=None, ca=True, key=None):
    """A certificate of the tests' own: (certificate, key); issuer: the same of another."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=400))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(*certs):
    return b"".join(c.public_bytes(ser.Encoding.PEM) for c in certs)


class Pki:
    """root -> intermediate -> server, and next, which is trusted, and signs nothing yet."""

    def __init__(self, path):
        self.root, self.next = make("Root of today"), make("Root of tomorrow")
        middle = make("Intermediate", self.root)
        leaf = make("localhost", middle, False)
        self.store = path / "store.pem"
        self.store.write_bytes(pem(self.root[0], self.next[0]))
        chain, key = path / "chain.pem", path / "chain.key"
        chain.write_bytes(pem(leaf[0], middle[0]))
        key.write_bytes(certificates._key_pem(leaf[1]))
        self.context = certificates.server_context(chain, key)
        marks = [(name, c.fingerprint(hashes.SHA256()).hex()) for name, (c, _) in
                 (("Root of today", self.root), ("Root of tomorrow", self.next))]  # fmt: skip
        self.family = ("", "the tests", tuple(marks))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def host(smarthost, pki, monkeypatch):
    """A smart host under the tests' PKI, whose roots this computer trusts: host(provider="m365", ...)."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.store))
    monkeypatch.setattr(roots, "FAMILIES", (pki.family, *roots.FAMILIES))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def begin(**settings):
        made = smarthost(username="cold-store@example.com", password=SECRETS["SMTP"], **settings)
        made.stop()
        made._context = pki.context
        return made.start()

    return begin


@pytest.fixture(scope="session")
def flash(tmp_path_factory):
    """The state of a board on which MAIN is."""
    state = tmp_path_factory.mktemp("flash") / "state"
    with virtual.VirtualBoard(state) as board, device.connect(board.port) as line:
        line.write("/main.py", MAIN.encode())
    return state


def begin(board, wait):
    """Switches a board on, and waits until it has said this: one that is starting up may answer a call twice."""
    fd = os.open(board.port, os.O_RDWR | os.O_NOCTTY)
    try:
        board.power(True)
        said = b""
        end = time.monotonic() + PATIENCE
        while wait not in said:
            assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], said
            said += os.read(fd, 1000)
    finally:
        os.close(fd)


@pytest.fixture
def board(flash, tmp_path):
    state = tmp_path / "state"
    shutil.copytree(flash, state)
    board = virtual.VirtualBoard(state, link=tmp_path / "port")
    try:
        begin(board, b">>> ")
        yield board
    finally:
        board.close()


class Done:
    def __init__(self, status, said):
        self.status, self.said = status, said


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """run(*words, typed="...") of the command line in this process: a Done with status and all that was said."""

    def do(*words, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        status = cli.main(["provision", *map(str, words)])
        out, err = capsys.readouterr()
        for secret in SECRETS.values():
            assert secret not in out + err
        return Done(status, out + err)

    return do


@pytest.fixture
def toml(tmp_path):
    def write(host=None, text=BOARD, *replace, name="board.toml"):
        text = text.replace("{port}", str(host.port if host else 1)).replace("{user}", "cold-store@example.com")
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def on_board(board, path="/config.json"):
    """A file of the board's flash, None when it is not there."""
    with device.connect(board.link) as line:
        return line.read_file(path) if line.stat(path) else None


def test_a_board_gets_its_configuration_with_the_roots_of_today_and_of_tomorrow(host, board, toml, run, tmp_path, pki):
    smart = host()
    path = toml(smart)
    done = run(path, "--port", board.link, "--yes")
    assert done.status == 0, done.said
    for line in ("Root of today, until", "its chain ends here", "Root of tomorrow, until", "it may change to it",
                 "signed in as cold-store@example.com", "cold-store@example.com is accepted",
                 "up and listens on 0.0.0.0 port 2525; its address is 192.168.1.9"):  # fmt: skip
        assert line in done.said, done.said
    values = json.loads(on_board(board))
    assert values["smarthost"][0]["password"] == SECRETS["SMTP"] and len(values["smarthost"][0]["ca"]) == 2
    text = path.read_text()
    assert 'ca = "localhost.roots.pem"' in text and "# the freezer in the barn" in text and "# for now" in text
    found = x509.load_pem_x509_certificates((tmp_path / "localhost.roots.pem").read_bytes())
    assert found == [pki.root[0], pki.next[0]]
    assert smart.mails == []
    again = run(path, "--port", board.link)
    assert again.status == 0 and "has this configuration already" in again.said
    assert "roots" not in again.said  # smarthost.ca is taken as it is
    assert json.loads(on_board(board)) == values


def test_check_does_all_but_write(host, board, toml, run, tmp_path):
    path = toml(host())
    before = path.read_text()
    done = run(path, "--port", board.link, "--check", "--yes")
    assert done.status == 0 and "nothing was written" in done.said and "signed in" in done.said, done.said
    assert path.read_text() == before and sorted(p.name for p in tmp_path.glob("*.pem")) == []
    assert on_board(board) is None


def test_a_sender_that_is_refused_is_proposed_and_written_with_the_comments_kept(host, board, toml, run):
    smart = host(provider="m365")
    path = toml(smart, BOARD, ("cold-store@example.com\"\nto", "other@example.com\"\nto"))
    done = run(path, "--port", board.link, typed="y\ny\n")
    assert done.status == 0, done.said
    assert 'Write smarthost.sender = "cold-store@example.com"' in done.said
    text = path.read_text()
    assert 'sender = "cold-store@example.com"\n[mail]' in text and "# on its label" in text
    assert json.loads(on_board(board))["smarthost"][0]["sender"] == "cold-store@example.com"


def test_a_test_mail_shows_the_refusal_of_the_sender_for_certain(host, board, toml, run):
    smart = host(provider="m365")
    path = toml(smart, BOARD, ("cold-store@example.com\"\nto", "other@example.com\"\nto"))
    done = run(path, "--port", board.link, "--to", "oncall@example.com")  # nobody is there to agree
    assert done.status == 1 and "550 5.7.60" in done.said, done.said
    assert "nothing is written on the board" in done.said and on_board(board) is None and smart.mails == []
    done = run(path, "--port", board.link, "--to", "oncall@example.com", "--yes")
    assert done.status == 0, done.said
    assert smart.wait_for(1)[0].sender == "cold-store@example.com"


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (('{ env = "WIFI" }', '"short"'), "has 5 characters, and that of a network has 8 to 63"),
        (('{ env = "WIFI" }', '{ env = "NOT_SET" }'), "the environment variable NOT_SET is not set"),
        (('ssid = "barn"', 'sssid = "barn"'), "did you mean ssid"),
        (('[mail]', 'verify = "full"\nsecurity = "none"\n[mail]'), 'has no use with security = "none"'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_said_before_anything_is_done(host, toml, run, replace, words):
    if "sssid" in replace[1]:
        replace = (replace[0], 'ssid = "barn"\nsssid = "barn"')
    smart = host()
    done = run(toml(smart, BOARD, replace), "--port", "/dev/null")
    assert done.status == 2 and words in done.said and smart.connections == 0, done.said


def test_a_port_that_is_wrong_or_busy_is_said(host, board, toml, run):
    path = toml(host())
    done = run(path, "--port", "/dev/ttyNOWHERE", "--no-connect", "--yes")
    assert done.status == 2 and "give smarthost.ca" in done.said
    assert run(path, "--port", "/dev/ttyNOWHERE", "--yes").said.endswith(
        "/dev/ttyNOWHERE is not there: is the board plugged in, with a cable that carries data? `mpremote connect list`"
        " shows the ports of this computer\n")  # fmt: skip
    with device.connect(board.link):
        done = run(path, "--port", board.link, "--no-connect")
    assert done.status == 2 and "is in use by another program" in done.said


def test_a_micropython_that_is_too_old_is_said(host, board, toml, run):
    with device.connect(board.link) as line:
        line.write("/boot.py", b"import sys\nfrom collections import namedtuple\ni = sys.implementation\n"
                   b"k = ('name', 'version', '_machine', '_mpy')\n"
                   b"sys.implementation = namedtuple('implementation', k)(i[0], (1, 22, 2), i[2], i[3])\n")  # fmt: skip
        line.run_main()
    done = run(toml(host()), "--port", board.link, "--yes")
    assert done.status == 2 and "has MicroPython 1.22.2, and edgepost needs 1.23" in done.said, done.said
    assert on_board(board) is None


def test_a_full_flash_is_said_and_the_old_configuration_stays_and_runs(host, board, toml, run):
    path = toml(host())
    assert run(path, "--port", board.link, "--yes").status == 0
    old = on_board(board)
    fill = "import os\nf = open('/big', 'wb')\nfor _ in range(os.statvfs('/')[3] - 3): f.write(bytes(4096))\nf.close()"
    with device.connect(board.link) as line:
        line.exec(fill)
    big = "".join(f'[[sensor]]\nname = "{n}"\ndriver = "chip"\nabove = 30\ntext = "{"x" * 1900}"\n' for n in range(8))
    path.write_text(path.read_text() + big)
    done = run(path, "--port", board.link, "--no-connect")
    assert done.status == 2 and "the board's flash is full" in done.said
    assert on_board(board) == old


def test_a_board_without_a_gateway_is_told_what_is_next(host, board, toml, run):
    with device.connect(board.link) as line:
        line.remove("/main.py")
    done = run(toml(host()), "--port", board.link, "--yes")
    assert done.status == 0 and "no gateway on it yet; next: edgepost deploy" in done.said, done.said
    assert on_board(board)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("print('edgepost: the gateway does not run: there is no /config.json')", "does not run: there is no"),
        ("print('+0 gateway: starts')\n1 / 0", "ZeroDivisionError"),
        ("print('+0 gateway: ready')\nprint('+9 wifi: the network \"barn\" refuses the password: check wifi.password."
         " It is tried again')\nwhile True:\n pass", 'no network: the network "barn" refuses the password'),
        ("import json\nprint('edgepost: crashed;', json.load(open('config.json'))['smarthost'][0]['password'])\n1/0",
         "crashed; ***"),
    ],
)  # fmt: skip
def test_a_gateway_that_does_not_come_up_is_shown(host, board, toml, run, main, words):
    with device.connect(board.link) as line:
        line.write("/main.py", main.encode())
    done = run(toml(host()), "--port", board.link, "--yes")
    assert done.status == 1 and words in done.said, done.said


def test_a_cut_at_any_moment_leaves_the_old_configuration_or_the_new_one(host, board, toml, run):
    path = toml(host())
    assert run(path, "--port", board.link, "--yes").status == 0
    old = on_board(board)
    path.write_text(path.read_text().replace('ssid = "barn"', 'ssid = "stable"'))
    board.fuse = 1 << 30
    assert run(path, "--port", board.link, "--no-connect").status == 0
    whole = (1 << 30) - board.fuse
    new = on_board(board)
    seen = set()
    for n in range(10):
        with device.connect(board.link) as line:
            line.write("/config.json", old)
        board.fuse = 20 + (whole - 20) * n // 10
        done = run(path, "--port", board.link, "--no-connect")
        assert done.status == 2 and len(done.said.splitlines()[-1]) > 40, done.said
        board.fuse = None
        begin(board, b"as 192.168.1.9")
        now = on_board(board)
        seen.add(now)
        assert now in (old, new)
    assert old in seen
    assert run(path, "--port", board.link, "--no-connect").status == 0 and on_board(board) == new
    with device.connect(board.link) as line:
        assert [e.name for e in line.listdir()] == ["config.json", "main.py"]


def test_a_watchdog_that_runs_is_stopped_by_a_hard_reset(host, board, toml, run):
    path = toml(host(), BOARD, ("ntp = []", "ntp = []\nwatchdog = true"))
    assert run(path, "--port", board.link, "--yes").status == 0
    resets = board.resets
    done = run(path, "--port", board.link, "--no-connect")
    assert done.status == 0 and "the gateway is up" in done.said, done.said
    assert board.resets == resets + 1
