"""What `edgepost doctor --port` says of a board: of the network that it sees, and of how it is."""

import json
import socket

import pytest
from edgepost import asking, checkup, cli, config, device, doctor, virtual
from edgepost.smarthost import SmartHost
from harness import PATIENCE, free_port
from plant import gateway as code
from plant import plant
from test_board import TimeServer
from test_gateway_hops import MX, A, NameServer, wire

pytestmark = pytest.mark.xdist_group("doctor board")  # they share a board

BOARD = """
[board]
name = "cold-store"
ntp = "127.0.0.1:{ntp}"
watchdog = true
[wifi]
ssid = "barn"
password = {{ env = "WIFI" }}
[smarthost]
host = "localhost"
port = {port}
ca = "{ca}"
username = "gateway"
password = {{ env = "SMTP" }}
[mail]
from = "cold-store@example.com"
to = ["oncall@example.com"]
[status]
port = {status}
password = {{ env = "STATUS" }}
"""
SECRETS = {"WIFI": "hay and straw", "SMTP": "secret", "STATUS": "open sesame"}


class Stage:
    def __init__(self, path):
        self.smarthost = SmartHost(path / "smarthost").start()
        self.other = SmartHost(path / "other").start()
        self.ntp = TimeServer(0)
        self.toml = path / "board.toml"
        self.toml.write_text(BOARD.format(
            ntp=self.ntp.port, port=self.smarthost.port, ca=self.smarthost.ca, status=free_port()))
        self.values, _ = config.load(self.toml, SECRETS)
        self.board = virtual.VirtualBoard(path / "state", link=path / "port", heapsize="400k")
        self.board.world.write_text(json.dumps({"wifi": {"barn": {"key": "hay and straw"}}, "hurry": 10}))
        plant(self.board, code(self.values), path / "plant")
        self.power()

    def power(self):
        """Off and on; returns when the gateway runs."""
        self.board.cycle()
        with asking.Serial(self.board.link, silence=PATIENCE) as gateway:
            gateway.json("GET", "/health")

    def put(self, values=None, **files):
        """Another configuration, and other files, on the board; None: the right one, and none."""
        with device.connect(self.board.link) as board:
            board.remove("/crash.json")
            values = json.dumps(values or self.values).encode() if not isinstance(values, bytes) else values
            board.write("/config.json", values)
            for name, data in files.items():
                board.write(f"/{name}.json", data)

    def examine(self):
        report = doctor.Report()
        checkup.run(report, self.toml, str(self.board.link))
        return report

    def close(self):
        self.board.close()
        self.smarthost.stop()
        self.other.stop()
        self.ntp.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        stage = Stage(tmp_path_factory.mktemp("doctor"))
        yield stage
        stage.close()


def find(report, check):
    (row,) = [row for row in report.rows if row[1] == check]
    return row[2], f"{row[3]} -> {row[4]}"


def test_all_is_good_and_the_gateway_runs_again(stage):
    stage.put()
    stage.power()
    report = stage.examine()
    assert [row[1] for row in report.rows if row[2] != doctor.GOOD] == [], report.rows
    assert [row[1] for row in report.rows] == [
        "reset", "MicroPython", "heap", "flash", "code", "config", "wifi", "clock", "name", "AUTH", "gateway",
    ]  # fmt: skip
    assert find(report, "reset")[1].startswith("the last start came after: power on")
    assert 'joined "barn" as 127.0.0.1, channel 6, -55 dBm, good' in find(report, "wifi")[1]
    assert "TLS under the CA that it has, signed in as gateway, in " in find(report, "AUTH")[1]
    assert not any(secret in report.json() for secret in SECRETS.values())
    with asking.Serial(stage.board.link, silence=PATIENCE) as gateway:
        assert gateway.json("GET", "/health")["status"] == "ok"


def test_what_is_wrong_is_told_of_each_smart_host_and_safe_mode_is_bad(stage):
    values = json.loads(json.dumps(stage.values))
    values["board"]["dns"] = [["127.0.0.1", free_port()]]
    text = stage.toml.read_text().replace(str(stage.smarthost.ca), str(stage.other.ca))
    (stage.toml.parent / "other.toml").write_text(text)
    other = config.load(stage.toml.parent / "other.toml", SECRETS)[0]["smarthost"][0]
    (right,) = values["smarthost"]
    values["smarthost"] = [
        {**right, "password": "guess"}, other, {**right, "host": "nowhere.invalid"}, {**right, "port": free_port()},
    ]  # fmt: skip
    stage.put(values, crash=json.dumps({"n": 3, "all": 3, "why": "OSError: 5", "text": "", "own": False}).encode())
    report = stage.examine()
    for check, words in (
        ("AUTH", ["the server says 535 5.7.8", "check username and password"]),
        ("TLS", ["stands under no CA that the board has", "edgepost provision stores the right ones"]),
        ("port", ["no connection from the board's network"]),
        ("reset", ["safe mode, after three crashes in a row: OSError: 5", "mend what is wrong, then switch it off"]),
        ("gateway", ["does not start again; it says: ", "SAFE MODE"]),
    ):
        state, text = find(report, check)
        assert state == doctor.BAD and all(word in text for word in words), text
    (name,) = [row[3] for row in report.rows if row[1] == "name" and row[2] == doctor.BAD]
    assert name.startswith("nowhere.invalid has no address, asked by the board: ")
    state, text = find(report, "config")
    assert state == doctor.NOTE and "board.dns, smarthost -> edgepost provision" in text


def test_delivery_by_mx_and_lmtp_are_tried_by_the_board(stage):
    values = json.loads(json.dumps(stage.values))
    names = NameServer({
        ("example.com", MX): [b"\0\x14" + wire("mx.example.com")],
        ("mx.example.com", A): [socket.inet_aton("127.0.0.1")],
    })  # fmt: skip
    host, port = names.where.split(":")
    values["board"]["dns"] = [[host, int(port)]]
    (right,) = values["smarthost"]
    plain = {**right, "username": "", "password": "", "ca": []}
    values["smarthost"] = [
        {**plain, "by": "mx", "host": "", "security": "opportunistic"},
        {**plain, "protocol": "lmtp", "host": "127.0.0.1", "security": "none"},
    ]  # fmt: skip
    stage.put(values)
    try:
        report = stage.examine()
    finally:
        names.close()
    assert find(report, "MX") == (doctor.GOOD, "mail for example.com goes to mx.example.com -> ")
    state, text = find(report, "AUTH")
    assert state == doctor.GOOD and "TLS with anybody, where it is offered" in text
    state, text = find(report, "greeting")
    assert state == doctor.BAD and "the server says 5" in text, text  # to LHLO


def test_a_network_that_cannot_be_joined_or_is_weak_is_told():
    report = doctor.Report()
    told = checkup.Checkup(report, None, "board.toml")
    told.row(["wifi", 'the network "barn" cannot be heard: check wifi.ssid and the distance'])
    told.row(["wifi", None, "barn", -78, 11, "192.168.1.9"])
    told.row(["wifi", None, "barn", None, None, "192.168.1.9"])
    told.row(["mx", 0, "example.com takes no mail at all", "example.com"])
    assert [row[2:] for row in report.rows] == [
        (doctor.BAD, 'the network "barn" cannot be heard', "check wifi.ssid and the distance"),
        (doctor.NOTE, 'joined "barn" as 192.168.1.9, channel 11, -78 dBm, weak',
         "put the board or its router nearer, or turn its antenna free"),
        (doctor.GOOD, 'joined "barn" as 192.168.1.9', ""),
        (doctor.BAD, "asked by the board: example.com takes no mail at all",
         "check the address in [mail] to, and board.dns"),
    ]  # fmt: skip


def test_a_board_that_no_time_server_answers_is_told_so(stage):
    values = json.loads(json.dumps(stage.values))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    values["board"]["ntp"] = [["127.0.0.1", port]]
    stage.put(values)
    rows = [row[2:] for row in stage.examine().rows if row[1] == "clock"]
    stage.put()
    assert [row[0] for row in rows] == [doctor.NOTE, doctor.BAD], rows
    assert rows[1][1].startswith("no time server answers: ") and "UDP port 123" in rows[1][2]


@pytest.mark.parametrize(("config", "said"), [(b"{", "/config.json is no JSON"), (b"[]", "is no configuration")])
def test_a_configuration_that_is_none_is_told(stage, config, said):
    stage.put(config)
    report = stage.examine()
    state, text = find(report, "config")
    assert state == doctor.BAD and said in text and "edgepost provision" in text
    state, text = find(report, "gateway")
    assert state == doctor.BAD and "put a right /config.json here" in text
    assert "wifi" not in [row[1] for row in report.rows]


def test_a_cable_that_is_pulled_is_one_line_and_the_next_run_is_good(stage, monkeypatch, capsys):
    stage.put()
    async def nothing(report, *args):
        return report

    monkeypatch.setattr(doctor, "examine", nothing)
    for fuse in (700, 20000):
        stage.board.fuse = fuse
        status = cli.main(["doctor", str(stage.toml), "--port", str(stage.board.link), "--json"])
        out, err = capsys.readouterr()
        stage.board.fuse = None
        if status == 2:
            assert "is gone, while " in err or "does not answer" in err
            assert "Traceback" not in err
        else:
            bad = [row for row in json.loads(out)["checks"] if row["state"] == doctor.BAD]
            assert status == 1 and "is gone, while" in bad[0]["text"] and len(bad) == 1
        stage.power()


def test_the_version_that_runs_and_one_that_was_rolled_back_are_told():
    class Board:
        def __init__(self, state, line):
            self.state, self.line = state, line

        def read_file(self, path):
            return json.dumps(self.state).encode()

        def exec(self, code):
            return self.line

    line = b"edgepost pack 8 20 0123456789abcdef\r\n"
    for state, said, level, words in (
        ({"run": "a"}, line, doctor.GOOD, "version 01234567 runs"),
        ({"run": "a", "bad": "b"}, line, doctor.NOTE, "was rolled back"),
        ({"run": "b"}, b"\r\n", doctor.BAD, "/b.pack, which should run, is missing or damaged"),
    ):
        report = doctor.Report()
        checkup.Checkup(report, Board(state, said), "board.toml").code()
        assert find(report, "code")[0] == level and words in find(report, "code")[1]


def test_differences_are_named_as_in_the_file():
    mine = {"a": {"b": 1, "ca": ["x"]}, "s": [{"k": 1}], "t": [{"k": 1}, {"k": 2}], "l": [1], "n": None}
    theirs = {"a": {"b": 2, "ca": ["x", "spare"]}, "s": [{"k": 2}], "t": [{"k": 1}, {"k": 3}], "l": [], "n": []}
    assert checkup.differences(mine, theirs) == ["a.b", "l", "s.k", "t[2].k"]
    assert checkup.differences(mine, mine) == []


