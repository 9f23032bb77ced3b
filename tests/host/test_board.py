"""A simulated Pico W from power on: firmware/main.py and all that it starts, on a flash of its own.

Around it are a Wi-Fi, time servers and a smart host.
"""

import datetime
import email.utils
import functools
import json
import os
import shutil
import smtplib
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from edgepost import build, config, unix
from edgepost.log import Log
from harness import PATIENCE, free_port, mail
from test_status import ask

ROOT = Path(__file__).resolve().parents[2]
AHEAD = 5400  # seconds by which the time servers are ahead of this computer
HEAP = 256  # KB of a gateway; what the simulated hardware takes is added

BOARD = """
[board]
name = "cold-store"
ntp = ["127.0.0.1:{ntp}", "127.0.0.1:{ntp2}"]
led = true
watchdog = true
[wifi]
ssid = "barn"
password = { env = "WIFI" }
country = "DE"
[smarthost]
host = "localhost"
port = {smarthost}
ca = "{ca}"
username = "gateway"
password = { env = "SMTP" }
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
admin = "admin@example.com"
[log]
[[device]]
address = "192.168.1.20"
priority = "low"
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
every = "100ms"
"""


class TimeServer:
    """NTP, in a thread of its own: `ahead` seconds before this computer; None: silent."""

    def __init__(self, ahead=AHEAD):
        self.ahead = ahead
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            query, peer = self.sock.recvfrom(100)
            if not query:
                return
            if self.ahead is None:
                continue
            now = time.time() + self.ahead + 2208988800
            stamp = int(now).to_bytes(4, "big") + int(now % 1 * 2**32).to_bytes(4, "big")
            self.sock.sendto(b"\x24\2\6\xec" + bytes(12) + stamp + query[40:48] + stamp + stamp, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.sock.getsockname())
        self.thread.join(PATIENCE)
        self.sock.close()


class Board:
    """start() is power on or another cause; the flash stays. `around` is what the simulated hardware sees."""

    def __init__(self, path, text, firmware):
        self.path = path
        self.image = path / "flash.img"
        self.world = path / "world.json"
        self.toml = path / "board.toml"
        self.config = path / "config.json"
        self.dog = path / "dog"
        self.chip = "rp2"
        self.env = {}  # more of it
        self.firmware = firmware
        self.heap = HEAP
        self.own = simulated(firmware)
        self.log = Log()
        self.process = None
        self.toml.write_text(text)
        self.around = {"wifi": {"barn": {"key": "hay and straw"}}, "pins": {"14": 0}}  # the door is closed
        values, _ = config.load(self.toml, {"WIFI": "hay and straw", "SMTP": "secret", "PRINTER": "swordfish12345"})
        self.config.write_text(json.dumps(values))
        self.files = [self.config]  # what is copied to the flash at a start
        self.sees()

    def sees(self, **around):
        """What is different around it from now on."""
        self.around.update(around)
        draft = self.path / "world.new"
        draft.write_text(json.dumps(self.around))
        draft.replace(self.world)

    def start(self, cause="power on", wait="gateway: ready"):
        """Starts it; gives the number of the first line of its log."""
        since = self.log.mark()
        self.dog.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [unix.find_micropython().path, "-X", f"heapsize={self.heap + self.own}k",
             ROOT / "tests" / "sim" / "power_on.py", self.image, self.firmware, *self.files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "EDGEPOST_SIM_FILE": f"/host{self.world}", "EDGEPOST_SIM_CHIP": self.chip,
                 "EDGEPOST_SIM_CAUSE": cause, "EDGEPOST_SIM_DOG": f"/host{self.dog}", **self.env},
        )  # fmt: skip
        self.log.follow(self.process.stdout)
        if wait:
            self.log.wait_for(wait, PATIENCE, since)
        return since

    def reset(self):
        """Waits until it resets itself."""
        status = self.process.wait(PATIENCE)
        self.log.join(PATIENCE)
        self.process.stdin.close()
        assert status == 3, self.log.text()

    def cut(self):
        """The power goes."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.log.join(PATIENCE)
            self.process.stdin.close()

    def type(self, line):
        """A line in the REPL; gives what it printed."""
        since = self.log.mark()
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        self.log.wait_for("sim: done", PATIENCE, since)
        return "\n".join(self.log.lines[since:-1])

    def said(self, text, since=0):
        return self.log.wait_for(text, PATIENCE, since)


@pytest.fixture
def clocks():
    servers = [TimeServer(), TimeServer()]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def firmware(tmp_path_factory):
    """The firmware, and beside it the simulated hardware, compiled: on a board that takes no heap."""
    made = tmp_path_factory.mktemp("firmware") / "firmware"
    shutil.copytree(build.build(unix.find_micropython().mpy, print), made)
    cross, _ = build.compiler()
    for source in (ROOT / "tests" / "sim").glob("*.py"):
        if source.name != "power_on.py":
            subprocess.run([cross, "-o", made / f"{source.stem}.mpy", source], check=True)
    return made


@pytest.fixture
def make(tmp_path, clocks, firmware):
    made = []

    def board(host, text=BOARD, change=None):
        path = tmp_path / f"board{len(made)}"
        path.mkdir()
        code = firmware
        if change:
            code = path / "firmware"
            shutil.copytree(firmware, code)
            for name, source in change.items():
                (code / name).write_text(source)
        for name, value in {
            "ntp": clocks[0].port, "ntp2": clocks[1].port, "smarthost": host.port, "ca": host.ca,
        }.items():  # fmt: skip
            text = text.replace("{" + name + "}", str(value))
        made.append(Board(path, text, code))
        return made[-1]

    yield board
    for one in made:
        one.cut()
        print(one.log.text())


def test_it_boots_finds_network_and_time_and_an_alert_arrives(make, smarthost):
    host = smarthost()
    board = make(host)
    board.start()
    board.said('wifi: joined "barn" as 127.0.0.1')
    board.said("clock: set by a time server")
    board.sees(pins={"14": 1})
    (mail,) = host.wait_for(1)
    assert mail.message["Subject"] == "door: on" and mail.recipients == ["oncall@example.com"]
    assert mail.tls and mail.helo == "[127.0.0.1]"
    said = email.utils.parsedate_to_datetime(mail.message["Date"])
    ahead = said - datetime.datetime.now(datetime.UTC)
    assert abs(ahead.total_seconds() - AHEAD) < 60, "the mail is not dated by the time servers"
    assert "hay and straw" not in board.log.text() and "secret" not in board.log.text()
    assert "Traceback" not in board.log.text()
    assert board.dog.read_text() == "8300"


def test_without_a_network_an_alert_waits_and_nothing_is_tried(make, smarthost):
    host = smarthost()
    board = make(host)
    board.sees(wifi={}, pins={"14": 1})
    board.start()
    board.said("alert: ")
    board.said('wifi: the network "barn" cannot be heard')
    time.sleep(2)
    assert host.connections == 0 and "relay: smart host" not in board.log.text()
    board.sees(wifi={"barn": {"key": "hay and straw"}})
    host.wait_for(1)


def test_an_alert_from_before_the_clock_was_set_gets_the_time_when_it_was_raised(make, smarthost):
    host = smarthost()
    board = make(host)
    board.sees(wifi={}, pins={"14": 1})
    since = board.start()
    line = board.said("alert: ", since)
    raised = time.time()
    assert line.startswith("+"), "the clock is set already"
    time.sleep(3)
    board.sees(wifi={"barn": {"key": "hay and straw"}})
    (mail,) = host.wait_for(1)
    said = email.utils.parsedate_to_datetime(mail.message["Date"]).timestamp()
    assert abs(said - raised - AHEAD) < 2.5


def test_a_power_cut_loses_no_alert(make, smarthost):
    host = smarthost()
    board = make(host)
    board.sees(wifi={}, pins={"14": 1})
    board.start()
    board.said("alert: ")
    board.cut()
    board.sees(wifi={"barn": {"key": "hay and straw"}})
    board.start()
    (mail,) = host.wait_for(1)
    # Cut in the moment of the alert, the rule raises it once more, which becomes part of the same mail.
    assert mail.message["Subject"].removeprefix("[2x] ") == "door: on"


BROKEN = "raise OSError('the module is broken')\n"


def settled(host):
    """Waits until the session is over: all that was delivered is gone from flash, and a cut sends none of it again."""
    end = time.monotonic() + PATIENCE
    while host.open_sessions():
        assert time.monotonic() < end, "the session goes on"
        time.sleep(0.05)


def test_a_crash_is_mailed_once_and_three_of_them_are_safe_mode(make, smarthost):
    host = smarthost()
    board = make(host, change={"organs.py": BROKEN})
    board.start(wait="crashed;")
    board.reset()
    (Path(board.firmware) / "organs.py").unlink()  # mended
    since = board.start("reset")
    board.said("starts after: reset", since)
    (mail,) = host.wait_for(1)
    board.said("delivered to admin@example.com", since)
    settled(host)
    assert mail.message["Subject"] == "cold-store: started again after a crash"
    assert mail.recipients == ["admin@example.com"]
    text = mail.message.get_content()
    for part in ("OSError: the module is broken", 'File "gateway.py"', "starts after: power on"):
        assert part in text, text
    for _ in range(2):
        board.cut()
        since = board.start()
        board.said("clock: set", since)
    time.sleep(1)
    assert len(host.mails) == 1

    board.cut()
    (Path(board.firmware) / "organs.py").write_text(BROKEN)
    board.start(wait="crashed;")
    board.reset()
    for _ in range(2):
        since = board.start("reset", wait=None)
        board.reset()
    since = board.start("reset", wait="the REPL is there")
    told = "\n".join(board.log.lines[since:])
    assert "SAFE MODE. The gateway crashed 3 times in a row" in told
    assert "OSError: the module is broken" in told and "remove /crash.json" in told
    assert "gateway: " not in told
    (Path(board.firmware) / "organs.py").unlink()
    board.type("import os; os.remove('/crash.json')")
    board.cut()
    since = board.start("reset")
    board.said("gateway: ready", since)
    assert len(host.mails) == 1


def test_a_wrong_configuration_is_told_on_the_console_and_can_be_mended_there(make, smarthost):
    host = smarthost()
    board = make(host)
    right = board.config.read_text()
    board.config.write_text(right[:-20])
    since = board.start(wait="the REPL is there")
    told = "\n".join(board.log.lines[since:])
    assert "the gateway does not run: /config.json is no JSON" in told and "put a right /config.json here" in told
    values = json.loads(right)
    del values["queue"]["max_bytes"]
    board.type(f"f = open('/config.json', 'w'); f.write({json.dumps(values)!r}); f.close()")
    board.files = []
    board.cut()
    since = board.start("reset", wait="the REPL is there")
    assert "the configuration cannot be used (queue.max_bytes is missing)" in "\n".join(board.log.lines[since:])
    board.type(f"f = open('/config.json', 'w'); f.write({right!r}); f.close()")
    board.cut()
    since = board.start("reset")
    board.said("wifi: joined", since)
    assert "SAFE MODE" not in board.log.text()


WRONG = {
    "there is no /config.json": None,
    "(smarthost number 1: host is missing)": lambda c: c["smarthost"][0].pop("host"),
    "(queue has to be a table)": lambda c: c.update(queue=[]),
    "(board.ntp has to be a list)": lambda c: c["board"].update(ntp="pool.ntp.org"),
    "(wifi.ssid has to be text)": lambda c: c["wifi"].update(ssid=5),
    "board.led is 99, and this board has no such pin": lambda c: c["board"].update(led=99),
    "not a network: 192.168.1.400; write it like": lambda c: c.update(
        device=[{"address": "192.168.1.400"}],
        listener=[
            {"address": "127.0.0.1", "port": 2525, "tls": "none", "allow": [], "users": {}, "auth_in_clear": False}
        ],
    ),
    "there is no profile for this board": lambda c: c["board"].update(profile="esp99"),
}


@pytest.mark.parametrize("told", WRONG)
def test_whatever_is_wrong_with_the_configuration_is_said_and_is_no_crash(make, smarthost, told):
    board = make(smarthost())
    values = json.loads(board.config.read_text())
    if WRONG[told]:
        WRONG[told](values)
        board.config.write_text(json.dumps(values))
    else:
        board.files = []
    since = board.start(wait="the REPL is there")
    assert told in "\n".join(board.log.lines[since:]) and "Traceback" not in board.log.text()
    assert "crash.json" not in board.type("import os; print(os.listdir('/'))")


def test_what_is_wrong_with_a_sensor_or_the_network_is_logged_and_the_gateway_runs(make, smarthost):
    board = make(smarthost(), BOARD + """
[[sensor]]
name = "tank"
driver = "adc"
pin = 26
above = 1
""")
    values = json.loads(board.config.read_text())
    values["sensor"][0]["driver"] = "thermo"
    values["sensor"][1]["pin"] = 99
    values["wifi"]["country"] = "DEU"
    board.config.write_text(json.dumps(values))
    board.start()
    board.said("door cannot be read: its driver thermo does not start with pin 14: no module named 'drivers.thermo'")
    board.said("tank cannot be read: its driver adc does not start with pin 99: invalid pin")
    board.said("the radio refuses what [wifi] says")


def test_a_ca_that_cannot_be_read_is_named(make, smarthost):
    board = make(smarthost())
    values = json.loads(board.config.read_text())
    del values["board"]["ntp"]  # nor is there to be waited for the time
    values["smarthost"][0]["ca"] = ["AAAA"]
    board.config.write_text(json.dumps(values))
    board.sees(pins={"14": 1})
    board.start()
    board.said("Look at smarthost.ca, which cannot be used as it is on this board")


def test_the_watchdogs_bite_is_mailed(make, smarthost):
    host = smarthost()
    board = make(host)
    board.start()
    board.said("clock: set")
    board.cut()
    since = board.start("watchdog")
    board.said("starts after: watchdog", since)
    (mail,) = host.wait_for(1)
    assert "the watchdog reset the board" in mail.message.get_content()


HANGS = """
[[sensor]]
name = "mine"
driver = "user"
path = "{user}"
function = "oil"
above = 1
"""


def test_a_driver_that_stands_still_lets_the_watchdog_starve(make, smarthost, tmp_path):
    user = tmp_path / "user.py"
    user.write_text("import time\ndef oil():\n    time.sleep(30)\n")
    board = make(smarthost(), BOARD + HANGS.replace("{user}", str(user)))
    board.files.append(user)
    board.start()
    while not board.dog.exists():
        time.sleep(0.1)
    time.sleep(3)
    fed = board.dog.stat().st_mtime
    time.sleep(3)
    assert board.dog.stat().st_mtime == fed, "it is fed though nothing goes on"


def test_a_gateway_that_does_nothing_feeds_its_watchdog(make, smarthost):
    board = make(smarthost())
    board.start()
    for _ in range(3):
        time.sleep(2.5)
        assert time.time() - board.dog.stat().st_mtime < 2.5


def test_a_clean_end_keeps_time_and_log_and_leaves_the_repl(make, smarthost, tmp_path):
    user = tmp_path / "user.py"
    user.write_text(
        "import gateway\nfrom boards.board import stop\n"
        "def oil():\n    return gateway.time.now() and stop() or 0\n"
    )
    board = make(smarthost(), BOARD + HANGS.replace("{user}", str(user)) + 'every = "1s"\n')
    board.files.append(user)
    board.start()
    board.said("the REPL is there")
    assert "gateway: stopping" in board.log.text() and "Traceback" not in board.log.text()
    assert "gateway: stopping" in board.type("print(open('/log.txt').read())")
    kept = int(board.type("print(open('/clock').read())").splitlines()[0])
    assert abs(kept - time.time() - AHEAD) < 60
    assert "Timer" in board.type("import soc; print(soc.timers)"), "nobody feeds the watchdog"


def test_the_log_of_a_crash_is_in_flash(make, smarthost):
    board = make(smarthost(), change={"organs.py": BROKEN})
    for cause in ("power on", "reset", "reset"):
        board.start(cause, wait=None)
        board.reset()
    board.start("reset", wait="the REPL is there")
    text = board.type("print(open('/log.txt').read())")
    assert text.count("OSError: the module is broken") == 3, text


FULL = """
[[smarthost]]
host = "localhost"
port = {smarthost}
ca = "{ca}"
username = "gateway"
password = "another secret"
[[listener]]
address = "127.0.0.1"
port = {lan}
allow = ["127.0.0.0/8"]
users = { printer = { env = "PRINTER" } }
[[sensor]]
name = "freezer"
driver = "ds18x20"
pin = 4
above = -12
[[sensor]]
name = "oil"
driver = "adc"
pin = 26
factor = 0.001
below = 20
"""
PAGE = """
[status]
port = {page}
password = "open sesame"
allow = ["127.0.0.0/8"]
"""
# KB of heap, on the 64-bit port, where objects take twice a board's memory. With the page it is what a gateway has, and
# 15 for a table of names that would not be there without those of the simulated hardware.
NEEDS = {"": 240, PAGE: HEAP + 15}


@functools.cache
def simulated(firmware):
    """KB of heap that the simulated hardware takes, which on a board is machine code."""
    with tempfile.TemporaryDirectory() as path:
        bare = Path(path) / "firmware"
        shutil.copytree(firmware, bare)
        for name in ("life.mpy", "life.py"):
            (bare / name).unlink(missing_ok=True)
        shutil.copy(ROOT / "bench" / "board" / "simulated.py", bare / "life.py")
        command = [unix.find_micropython().path, ROOT / "tests" / "sim" / "power_on.py", Path(path) / "flash.img", bare]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    own = int(done.stdout.split()[0]) - 6240 >> 10  # asyncio, socket and ssl are the gateway's
    assert 20 < own < 60
    return own


@pytest.mark.parametrize("page", NEEDS, ids=("alone", "page"))
def test_all_of_it_fits_a_small_heap(make, smarthost, page):
    """All that a board.toml may have, but sleep: it starts, takes a mail, relays it with TLS, tells an alert, and shows
    its page. What the simulation of the board takes is added."""
    host = smarthost()
    lan, port = free_port(), free_port()
    text = BOARD.replace('[smarthost]', "[[smarthost]]").replace("admin = ", 'heartbeat = "1d"\nadmin = ')
    board = make(host, (text + FULL + page).replace("{lan}", str(lan)).replace("{page}", str(port)))
    board.heap = NEEDS[page]
    board.sees(thermometers={"4": {"28ff641e84160333": -18}}, volts={"26": 1.5})
    board.start()
    host.wait_for(1)  # the heartbeat
    with smtplib.SMTP("127.0.0.1", lan, timeout=PATIENCE) as device:
        device.sendmail("scan@example.com", ["office@example.com"], mail("scan", ("x" * 70 + "\n") * 60).as_bytes())
    host.wait_for(2)
    board.sees(pins={"14": 1})
    host.wait_for(3)
    assert {m.message["Subject"] for m in host.mails} == {"cold-store: all is well", "scan", "door: on"}
    assert "emory" not in board.log.text()
    if page:
        assert seen(port, "/").body.endswith(b"</html>")
        assert seen(port, "/status.json").json["delivered"] == 3


def seen(port, path):
    """What the status page answers, as soon as there is memory for it."""
    end = time.monotonic() + PATIENCE
    while (answer := ask(port, "GET", path)).status == 503 and time.monotonic() < end:
        time.sleep(1)
    assert answer.status == 200
    return answer
