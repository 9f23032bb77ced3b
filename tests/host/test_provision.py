"""`edgepost provision` against virtual boards, and smart hosts whose certificate stands under an intermediate and a
root of the tests' own, with a next root for the day after."""

import datetime
import hashlib
import io
import json
import os
import pty
import re
import select
import shutil
import ssl
import subprocess
import sys
import termios
import threading
import time
import tomllib
import tty
import types

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from edgepost import build, certificates, cli, device, roots, start, unix, virtual
from edgepost.tokens import TokenServer
from harness import PATIENCE, free_port, switch_on

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

    def __init__(self, path, today="Root of today"):
        self.root, self.next = make(today), make("Root of tomorrow")
        middle = make(f"Intermediate of {today}", self.root)
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


@pytest.fixture
def board(flash, tmp_path):
    state = tmp_path / "state"
    shutil.copytree(flash, state)
    board = virtual.VirtualBoard(state, link=tmp_path / "port")
    try:
        switch_on(board, b">>> ")
        yield board
    finally:
        board.close()


class Done:
    def __init__(self, status, said):
        self.status, self.said, self.flat = status, said, " ".join(said.split())


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
        (('{ env = "WIFI" }', "12345678"), "wifi.password: is neither text in quotes nor { env = ... }"),
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
    assert "is 12345678" not in done.said and ": 12345678" not in done.said


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


def test_what_is_no_board_with_micropython_is_said(host, toml, run, monkeypatch):
    monkeypatch.setattr(device.connect, "__defaults__", (1,))  # seconds
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        done = run(toml(host()), "--port", os.ttyname(slave), "--yes")
    finally:
        os.close(slave)
        os.close(master)
    assert done.status == 2 and "is MicroPython on it (edgepost flash)?" in done.said, done.said


def test_a_board_of_another_kind_than_the_file_says_is_not_touched(host, board, toml, run):
    path = toml(host(), BOARD, ("ntp = []", 'ntp = []\nprofile = "esp32"'))
    done = run(path, "--port", board.link, "--yes")
    assert done.status == 2 and "is for a board with profile esp32" in done.said and "Pico W" in done.said
    assert on_board(board) is None


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
        switch_on(board, b"as 192.168.1.9")
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


INSTALL = """
import os, sys, vfs
image, code = sys.argv[1:]

class Flash:
    f = open(image, "r+b")
    def readblocks(self, n, buf, offset=0):
        self.f.seek(n * 4096 + offset)
        self.f.readinto(buf)
    def writeblocks(self, n, buf, offset=0):
        self.f.seek(n * 4096 + offset)
        self.f.write(buf)
    def ioctl(self, op, arg):
        if op == 3:
            self.f.flush()
        return {4: 212, 5: 4096}.get(op, 0)

flash = Flash()
vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256)
vfs.mount(vfs.VfsLfs2(flash, progsize=256, readsize=256), "/flash")

def copy(source, target):
    for name, kind, *_ in os.ilistdir(source):
        if kind == 0x4000:
            os.mkdir(target + "/" + name)
            copy(source + "/" + name, target + "/" + name)
        else:
            with open(source + "/" + name, "rb") as f, open(target + "/" + name, "wb") as g:
                g.write(f.read())

copy(code, "/flash")
vfs.umount("/flash")
flash.f.close()
"""


def test_the_real_gateway_comes_up_and_joins_its_network(host, toml, run, tmp_path):
    micropython = unix.find_micropython()
    (tmp_path / "install.py").write_text(INSTALL)
    board = virtual.VirtualBoard(tmp_path / "state")
    try:
        code = build.build(micropython.mpy, print)
        subprocess.run([micropython.path, "-X", "heapsize=4m", tmp_path / "install.py", board.image, code], check=True)
        board.world.write_text(json.dumps({"wifi": {"barn": {"key": SECRETS["WIFI"]}}, "pins": {}}))
        switch_on(board, b">>> ")
        path = toml(host(), BOARD, ('"0.0.0.0"\nport = 2525', f'"127.0.0.1"\nport = {free_port()}'))
        done = run(path, "--port", board.port, "--yes")
        assert done.status == 0 and "the gateway is up and listens on 127.0.0.1 port" in done.said, done.said
        assert "its address is " in done.said
    finally:
        board.close()


class Leaving:
    """A board whose port goes away with a reset, and comes back: what it said first is lost."""

    def __init__(self, port):
        self.port, self.over = str(port), threading.Event()

    def start(self, code):
        assert "machine.reset()" in code
        self.thread = threading.Timer(0.1, self.come_back)
        self.thread.start()

    def read(self, wait):
        raise device.Gone("it is gone")

    def leave(self):
        """Gives its line back."""

    def come_back(self):
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.symlink(os.ttyname(slave), self.port)
        try:
            for _ in range(PATIENCE * 10):
                os.write(master, b"net\r\n+3 wifi: joined \"barn\" as 192.168.1.9\r\n")
                if self.over.wait(0.1):
                    break
        finally:
            os.close(slave)
            os.close(master)


def test_a_port_that_goes_away_with_a_reset_is_waited_for(tmp_path):
    board = Leaving(tmp_path / "port")
    up = start.again(board, hard=True)
    board.over.set()
    board.thread.join(PATIENCE)
    assert up.ready and up.address == "192.168.1.9" and not up.failed


def test_a_port_that_does_not_come_back_is_told(tmp_path):
    board = Leaving(tmp_path / "port")
    board.come_back = lambda: None
    with pytest.raises(device.Gone, match="was reset and did not come back"):
        start.again(board, hard=True, patience=0.5)


# ---- questions

ANSWERS = """\
a name that is much too long for any board, so long that it is longer than sixty-four bytes
barn-1
barn
short
{wifi}

other
localhost
no port
{port}
cold-store@example.com
$NOT_SET
$SMTP
admin@
admin@example.com
both

192.168.1.0/24
freezer
ds
4
-15
"""


def check_made(text):
    raw = tomllib.loads(text)
    assert raw["board"]["name"] == "barn-1" and raw["wifi"]["ssid"] == "barn"
    assert raw["wifi"]["password"] == {"file": "new.wifi-password"} and raw["smarthost"]["password"] == {"env": "SMTP"}
    assert raw["listener"][0] == {"address": "0.0.0.0", "port": 2525, "allow": ["192.168.1.0/24"]}
    assert raw["sensor"][0]["above"] == -15.0 and raw["sensor"][0]["pin"] == 4
    assert raw["mail"] == {"from": "cold-store@example.com", "to": ["admin@example.com"], "admin": "admin@example.com"}


def test_questions_make_a_board_toml_with_the_answers_from_a_pipe(host, board, run, tmp_path):
    path = tmp_path / "new.toml"
    typed = ANSWERS.format(wifi=SECRETS["WIFI"], port=host().port) + "y\n"
    done = run(path, "--port", board.link, typed=typed)
    assert done.status == 0, done.said
    for line in ("is longer than 64 bytes", "this has 5 characters, and that of a network has 8 to 63",
                 "'no port' is not a number", "names an environment variable that is not set", "has no domain",
                 "Password there, or $NAME of an environment variable (is not shown):"):  # fmt: skip
        assert line in done.said, done.said
    check_made(path.read_text())
    assert SECRETS["WIFI"] not in path.read_text()
    secret = tmp_path / "new.wifi-password"
    assert secret.read_text() == SECRETS["WIFI"] + "\n" and secret.stat().st_mode & 0o777 == 0o600
    values = json.loads(on_board(board))
    assert values["wifi"]["password"] == SECRETS["WIFI"] and values["sensor"][0]["above"] == -15.0


def test_questions_are_answered_in_a_terminal_where_secrets_have_no_echo(host, board, tmp_path):
    path = tmp_path / "new.toml"
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepost", "provision", path, "--port", board.link, "--no-connect"],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=lambda: os.login_tty(0),
    )  # fmt: skip
    os.close(slave)
    said = b""
    waiting = ANSWERS.format(wifi=SECRETS["WIFI"], port=1).splitlines()
    end = time.monotonic() + PATIENCE
    try:
        while True:
            assert select.select([master], [], [], max(0, end - time.monotonic()))[0], said
            try:
                said += os.read(master, 4096)
            except OSError:  # it has ended
                break
            asked = re.search(rb"[\])a-z]: $", said.rpartition(b"\n")[2])
            if asked and waiting:
                if b"is not shown" in said.rpartition(b"\n")[2]:
                    wait_no_echo(master)
                os.write(master, waiting.pop(0).encode() + b"\n")
                said += b"\n"
        assert process.wait(PATIENCE) == 2 and not waiting
    finally:
        process.kill()
        process.wait()
        os.close(master)
    check_made(path.read_text())
    text = said.decode()
    assert "give smarthost.ca" in text and not [s for s in SECRETS.values() if s in text], text


def wait_no_echo(fd):
    """getpass says its prompt and switches the echo off; which comes first is its affair."""
    end = time.monotonic() + PATIENCE
    while termios.tcgetattr(fd)[3] & termios.ECHO and time.monotonic() < end:
        time.sleep(0.01)


def test_what_a_board_toml_lacks_is_asked_for_and_written_there(host, board, toml, run, tmp_path):
    path = toml(host(), BOARD, ('[wifi]\nssid = "barn"\npassword = { env = "WIFI" }\n', ""), (
        'password = { env = "SMTP" }\n', ""))  # fmt: skip
    done = run(path, "--port", board.link, "--yes")
    assert done.status == 2 and "nobody answers: Name of the Wi-Fi network?" in done.said
    assert "say it in wifi.ssid" in done.said
    done = run(path, "--port", board.link, "--yes", typed=f"barn\n{SECRETS['WIFI']}\n$SMTP\nadmin@example.com\n")
    assert done.status == 0, done.said
    text = path.read_text()
    assert 'password = { env = "SMTP" }' in text.replace('{env', "{ env").replace('"}', '" }') and "# for now" in text
    assert tomllib.loads(text)["wifi"] == {"ssid": "barn", "password": {"file": "board.wifi-password"}}
    assert json.loads(on_board(board))["smarthost"][0]["password"] == SECRETS["SMTP"]


# ---- roots


def test_roots_are_of_both_chains_and_of_the_provider_and_three_at_the_most(pki):
    store = roots.trusted()
    names = {name: mark for row in roots.FAMILIES for name, mark in row[2]}
    for row in roots.FAMILIES:  # every root of the table is one that computers trust
        assert [name for name, mark in row[2] if mark not in {**store, **certifis()}] == []
    store = certifis()
    found = {names[n]: store[names[n]] for n in ("GTS Root R4", "GTS Root R1")}
    assert [r.name for r in roots.choose(found, "gmail", store)] == ["GTS Root R4", "GTS Root R1", "GTS Root R3"]
    assert [r.name for r in roots.choose({}, "m365", store)][0] == "DigiCert Global Root G2"
    found = {names["ISRG Root X1"]: store[names["ISRG Root X1"]]}
    assert [r.name for r in roots.choose(found, "", store)] == ["ISRG Root X1", "ISRG Root X2"]
    small = {mark: der for mark, der in store.items() if mark in found}
    assert len(roots.choose(found, "", small)) == 1  # what this computer does not trust is not taken
    assert roots.choose({}, "", store) == []


def test_a_providers_roots_are_found_without_a_connection_by_its_name(host, toml, run, monkeypatch):
    path = toml(None, BOARD, ('"localhost"', '"smtp.office365.com"'))
    host()
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    done = run(path, "--check", "--no-connect", "--port", "/dev/ttyNOWHERE")
    assert done.status == 2 and "/dev/ttyNOWHERE is not there" in done.said
    for name in ("DigiCert Global Root G2", "Microsoft RSA Root Certificate Authority 2017", "DigiCert Global Root G3"):
        assert f"{name}, until 20" in done.said, done.said


def test_the_token_servers_root_is_found_as_well(host, smarthost, toml, run, pki, tmp_path, monkeypatch):
    other = Pki(tmp_path, "Root of tokens")  # another CA than the smart host's
    (tmp_path / "both.pem").write_bytes(pki.store.read_bytes() + other.store.read_bytes())
    with TokenServer(tmp_path / "tokens", username="cold-store@example.com") as tokens:
        tokens._server.context = other.context
        smart = host(tokens=tokens)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
        monkeypatch.setenv("TOKEN", tokens.sign_in())
        oauth = (
            'auth = "oauth2"\n[smarthost.oauth]\nclient_id = "edgepost"\nrefresh_token = { env = "TOKEN" }\n'
            f'token_url = "https://localhost:{tokens.port}/token"\n'
        )
        path = toml(smart, BOARD, ('password = { env = "SMTP" }\n', oauth))
        done = run(path, "--check", "--port", "/dev/ttyNOWHERE")
    assert done.status == 2 and "is not there" in done.said and done.said.count("its chain ends here") == 2, done.said
    assert "Root of tokens, until" in done.said and os.environ["TOKEN"] not in done.said


def certifis():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certifi.where())
    return {hashlib.sha256(der).hexdigest(): der for der in context.get_ca_certs(True)}


def test_a_certificate_that_this_computer_does_not_trust_is_told(host, smarthost, toml, run):
    own = smarthost(username="cold-store@example.com", password=SECRETS["SMTP"])  # under a CA of its own
    made = host()
    done = run(toml(own), "--check", "--port", "/dev/null")
    assert done.status == 2 and 'is signed by edgepost development CA, which this computer does not trust' in done.said
    assert 'smarthost.ca = "ca.pem"' in done.said
    done = run(toml(made, BOARD, ('"localhost"', '"127.0.0.1"')), "--check", "--port", "/dev/null")
    assert done.status == 2 and "is for another name than 127.0.0.1" in done.said
    done = run(toml(made, BOARD, ("username", 'security = "tls"\nusername')), "--check", "--port", "/dev/null")
    assert done.status == 2 and "no TLS session with localhost" in done.said, done.said
    made.stop()
    done = run(toml(made), "--check", "--port", "/dev/null")
    assert done.status == 1 and "nobody listens there: check smarthost.port" in done.flat, done.said


def test_a_wrong_password_at_the_smart_host_stops_it(host, board, toml, run, monkeypatch):
    path = toml(host())
    monkeypatch.setenv("SMTP", "wrong-secret-9933")
    done = run(path, "--port", board.link, "--yes")
    assert done.status == 1 and "check username and password" in done.flat and "wrong-secret" not in done.said
    assert on_board(board) is None


# ---- a listener's certificate


def test_a_listener_gets_a_certificate_of_the_users_own_ca_which_is_renewed(host, board, toml, run, tmp_path):
    path = toml(host(), BOARD, ("port = 2525", 'port = 2525\ntls = "starttls"'))
    done = run(path, "--port", board.link, "--yes", "--certificate", "--name", "10.0.0.9")
    assert done.status == 0, done.said
    directory = tmp_path / "edgepost-ca"
    assert f"devices have to trust {directory}/ca.pem" in done.flat
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "cold-store.key").stat().st_mode & 0o777 == 0o600
    first = (directory / "cold-store.pem").read_bytes()
    alt = x509.load_pem_x509_certificate(first).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in alt] == ["cold-store", "cold-store.local", "10.0.0.9"]
    assert 'cert = "edgepost-ca/cold-store.pem"' in path.read_text()
    assert "call it by 192.168.1.9 will not accept its certificate" in done.flat, done.said
    done = run(path, "--port", board.link, "--no-connect", "--certificate", "--name", "10.0.0.9")
    assert done.status == 0 and "is good and stays" in done.said and "configuration already" in done.said
    done = run(path, "--port", board.link, "--no-connect", "--certificate", "--name", "192.168.1.9")
    assert done.status == 0 and "made the certificate" in done.said and "will not accept" not in done.said
    authority = certificates.Authority(directory)
    authority.issue(["cold-store", "cold-store.local"], label="cold-store", days=60)
    done = run(path, "--port", board.link, "--no-connect", "--certificate")
    assert "made the certificate" in done.said  # the one of before would not last
    assert (directory / "cold-store.pem").read_bytes() != first


def test_a_certificate_without_a_listener_that_needs_one_is_a_mistake(host, toml, run):
    done = run(toml(host()), "--certificate", "--port", "/dev/null")
    assert done.status == 2 and "--certificate is for a listener with TLS" in done.said


# ---- a fleet

FLEET = """\
[common]
ntp = []
domain = "{board}.example.com"
[wifi]
ssid = "barn"
password = { env = "WIFI" }
[smarthost]
host = "localhost"
port = {port}
username = "cold-store@example.com"
password = { env = "SMTP" }
[mail]
from = "{board}@example.com"
to = ["oncall@example.com"]
[[listener]]
address = "0.0.0.0"
allow = ["192.168.1.0/24"]

[[board]]                       # by the gate
name = "barn-1"
port = "{here}"
smarthost.sender = "barn-1@example.com"

[[board]]
name = "barn-2"
serial = "no such number"
wifi.ssid = "stable"
[[board.sensor]]
name = "inside"
driver = "chip"
above = 40
text = "{name} of {board}"
"""


def test_each_board_of_a_fleet_has_its_own_name_and_sender(host, board, toml, run):
    path = toml(host(), FLEET, ("{here}", str(board.link)), name="fleet.toml")
    done = run(path, "--all", "--yes")
    assert done.status == 0, done.said
    assert "1 of 1 boards are done" in done.said and "not plugged in: barn-2" in done.said
    values = json.loads(on_board(board))
    assert values["board"]["name"] == "barn-1" and values["board"]["domain"] == "barn-1.example.com"
    assert values["wifi"]["hostname"] == "barn-1" and values["mail"]["from"] == "barn-1@example.com"
    assert values["smarthost"][0]["sender"] == "barn-1@example.com" and len(values["smarthost"][0]["ca"]) == 2
    text = path.read_text()
    assert tomllib.loads(text)["smarthost"]["ca"] == "localhost.roots.pem" and "# by the gate" in text
    done = run(path, "--board", "barn-2", "--port", board.link, "--no-connect")
    assert done.status == 0, done.said
    values = json.loads(on_board(board))
    assert values["wifi"]["ssid"] == "stable" and not values["smarthost"][0]["sender"]
    assert values["sensor"][0]["text"] == "{name} of {board}" and values["mail"]["from"] == "barn-2@example.com"


def test_a_board_of_a_fleet_is_found_by_the_serial_number_of_its_usb(host, board, toml, run, monkeypatch):
    path = toml(host(), FLEET, ("{here}", "/dev/ttyNOWHERE"), name="fleet.toml")
    plugged = [types.SimpleNamespace(device=at, serial_number=number, vid=0x2E8A) for at, number in (
        ("/dev/ttyOTHER", "another"), (str(board.link), "No Such Number"), ("/dev/ttyS0", None))]  # fmt: skip
    monkeypatch.setattr(device.serial.tools.list_ports, "comports", lambda: plugged)
    done = run(path, "--yes")  # the one that is there
    assert done.status == 0, done.said
    assert json.loads(on_board(board))["board"]["name"] == "barn-2"


def test_what_was_agreed_for_one_board_is_not_asked_again_for_the_next(host, board, toml, run, monkeypatch):
    fleet_of = FLEET.replace("{here}", str(board.link)).replace('serial = "no such number"', f'port = "{board.port}"')
    path = toml(host(), fleet_of, name="fleet.toml")  # one board under two names
    for typed, asked in (("n\n", 1), ("y\n", 1), ("", 0)):
        done = run(path, "--all", typed=typed)
        assert done.status == 0 and "2 of 2 boards are done" in done.said, done.said
        assert done.said.count("Write ca =") == asked, done.said
    assert tomllib.loads(path.read_text())["smarthost"]["ca"] == "localhost.roots.pem"


def test_a_proposed_sender_goes_where_the_board_has_its_own(host, board, toml, run):
    path = toml(host(provider="m365"), FLEET, ("{here}", str(board.link)), (
        'smarthost.sender = "barn-1@', 'smarthost.username = "cold-store@example.com"\nsmarthost.sender = "barn-1@'),
        name="fleet.toml")  # fmt: skip
    done = run(path, "--board", "barn-1", "--yes", "--to", "oncall@example.com")
    assert done.status == 0, done.said
    raw = tomllib.loads(path.read_text())
    assert raw["board"][0]["smarthost"]["sender"] == "cold-store@example.com" and "sender" not in raw["smarthost"]


@pytest.mark.parametrize(
    ("words", "replace", "said"),
    [
        ((), None, "is of 2 boards (barn-1, barn-2): say which one by --board NAME, or --all"),
        (("--board", "barn-9"), None, "has no board 'barn-9'; it has barn-1, barn-2"),
        (("--board", "barn-2"), None, "barn-2 is not plugged in (USB serial number no such number)"),
        (("--all",), None, "none of the 2 boards"),
        (("--all",), ('"barn-2"', '"barn-1"'), "board[2].name: 'barn-1' is the name of another board already"),
        (("--board", "barn-2"), ("above = 40", "abuv = 40"), "sensor.abuv: is not a known key"),
        (("--board", "barn-1"), ('ssid = "barn"', 'ssid = ""'), "board barn-1: wifi.ssid"),
    ],
)
def test_what_is_wrong_with_a_fleet_is_said(host, toml, run, words, replace, said):
    path = toml(None, FLEET, *([replace] if replace else []), name="fleet.toml")
    path.write_text(path.read_text().replace("host = \"localhost\"", 'host = "localhost"\nsecurity = "none"'))
    host()
    done = run(path, "--no-connect", *words)
    assert done.status == 2 and said in done.said, done.said
