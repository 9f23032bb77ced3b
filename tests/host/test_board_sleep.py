"""Boards that sleep, from power on: an ESP32 in deep sleep, where waking is a start, and a Pico W in light sleep.

Sleep takes no time here; what passes in it is added to the board's clock, and to that of the time servers.
"""

import email.utils
import json
import time
from pathlib import Path

import pytest
from harness import BOARD, PATIENCE, mail
from test_board import AHEAD, BROKEN, clocks, firmware, make  # noqa: F401
from test_gateway_hops import FETCH, under_tls
from test_ping import Switch

TOML = """
[board]
name = "shed"
profile = "{profile}"
ntp = ["127.0.0.1:{ntp}", "127.0.0.1:{ntp2}"]
watchdog = true
[wifi]
ssid = "barn"
password = { env = "WIFI" }
[sleep]
every = "15m"
batch = "2h"
[smarthost]
host = "localhost"
port = {smarthost}
ca = "{ca}"
username = "gateway"
password = { env = "SMTP" }
[mail]
from = "shed@example.com"
to = ["oncall@example.com"]
[log]
[[sensor]]
name = "frost"
driver = "adc"
pin = 32
factor = 0.001
below = 3
for = "20m"
recovery = true
[[sensor]]
name = "door"
driver = "digital"
pin = 14
is = "on"
priority = "urgent"
"""
WARM, COLD = {"32": 0.5}, {"32": 0.1}  # volts: 9.9 and 2.0


class Sleeper:
    """An ESP32 that sleeps. run() lives through so many seconds; `wakes` has what the board did in each: (seconds since
    power on, writes to flash, the lines that it logged)."""

    def __init__(self, make, clocks, host, text=TOML, change=None):  # noqa: F811
        self.board = make(host, text.replace("{profile}", "esp32"), change)
        self.clocks = clocks
        self.state = self.board.path / "sleep.json"
        self.board.chip = "esp32"
        self.board.env = {"EDGEPOST_SIM_SLEEP": f"/host{self.state}"}
        self.time = 0
        self.wakes = []
        self.board.sees(volts=WARM, hurry=10)

    def wake(self, cause="deep sleep"):
        """From a start to the next sleep; gives the milliseconds for which it wants to sleep."""
        board = self.board
        for clock in self.clocks:
            clock.ahead = AHEAD + self.time
        since = board.start(cause, wait=None)
        board.files = []
        status = board.process.wait(PATIENCE)
        board.log.join(PATIENCE)
        board.process.stdin.close()
        lines = board.log.lines[since:]
        assert status == 4, "\n".join(lines)
        kept = json.loads(self.state.read_text())
        self.wakes.append((self.time, kept["writes"], lines))
        assert kept["network"] is any("radio on" in line for line in lines), "the radio costs much to look at"
        return kept

    def run(self, seconds, cause="deep sleep"):
        """Lives for so long, from a wake-up on to the one that is not within them."""
        end = self.time + seconds
        while self.time < end:
            self.time += self.wake(cause)["ms"] / 1000
            cause = "deep sleep"

    def sessions(self, since=0):
        """When the radio was on."""
        return [at for at, _, lines in self.wakes if at >= since and any("radio on" in line for line in lines)]


@pytest.fixture
def esp32(make, clocks):  # noqa: F811
    return lambda host, *args: Sleeper(make, clocks, host, *args)


def subjects(host):
    return [mail.message["Subject"] for mail in host.mails]


def test_quiet_hours_cost_no_radio_and_no_flash(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.run(7200, "power on")
    assert "set by a time server" in one.board.log.text()
    assert one.sessions() == [0] and host.connections == 0
    assert len(one.wakes) == 9
    for _, writes, lines in one.wakes[1:]:
        assert writes == 0 and lines == ["sim: deep sleep", "sim: reset"]


def test_an_ordinary_alert_lasts_across_sleeps_and_waits_for_its_batch(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.run(3600, "power on")
    one.board.sees(volts=COLD)
    began = one.time
    one.run(2400)
    assert one.sessions() == [0] and host.mails == [], "the radio was on for an ordinary alert"
    alerts = [at for at, _, lines in one.wakes if any("alert: " in line for line in lines)]
    assert alerts == [pytest.approx(began + 1200, abs=20)], "`for` does not last across sleeps"
    one.run(1800)
    assert one.sessions()[1:] == [pytest.approx(7200, abs=30)]
    (mail,) = host.mails
    assert mail.message["Subject"] == "frost: 2.0, below 3.0"
    assert "This has lasted 20 min" in mail.message.get_content()
    said = email.utils.parsedate_to_datetime(mail.message["Date"]).timestamp()
    assert said == pytest.approx(time.time() + AHEAD + alerts[0], abs=60)
    one.board.sees(volts=WARM)
    one.run(7200)
    assert subjects(host)[1:] in (["frost: 9.9, ok after 1 h 29 min"], ["frost: 9.9, ok after 1 h 30 min"])
    assert host.connections == 2


def test_an_urgent_alert_goes_at_once_and_takes_the_others_along(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.board.sees(volts=COLD)
    one.run(3000, "power on")
    assert host.mails == []
    one.board.sees(pins={"14": 1})
    at = one.time
    one.run(300)
    assert subjects(host) == ["door: on", "frost: 2.0, below 3.0"] and host.connections == 1
    assert one.sessions() == [0, at]
    one.run(6000)
    assert len(one.sessions()) == 2, "the batch did not start anew"


def test_a_dead_network_costs_less_and_less_and_then_all_goes_in_one_session(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.run(600, "power on")
    one.board.sees(wifi={}, pins={"14": 1})
    at = one.time
    one.run(100)
    tries = [round((then - at) / 60) for then in one.sessions(at)]
    assert tries == [0, 1]
    assert all(time_on(lines) < 40 for _, _, lines in one.wakes)
    one.board.sees(wifi={"barn": {"key": "hay and straw"}})
    one.run(3600)
    assert subjects(host) == ["door: on"] and host.connections == 1


def time_on(lines):
    """Seconds for which the radio was on."""
    for line in lines:
        if "the radio was on for " in line:
            return int(line.split("on for ")[1].split()[0])
    return 0


def test_a_power_cut_under_the_radio_loses_nothing(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.board.sees(volts=COLD)
    one.run(3000, "power on")
    one.board.sees(pins={"14": 1})
    since = one.board.start("deep sleep", wait=None)
    one.board.said("radio on: an urgent mail", since)
    one.board.cut()
    assert host.mails == []
    one.wake("power on")
    assert [s.removeprefix("[2x] ") for s in subjects(host)] == ["door: on", "frost: 2.0, below 3.0"]


def test_the_supply_that_fails_under_the_radio_is_not_asked_for_it_again_at_once(esp32, smarthost):
    host = smarthost()
    one = esp32(host)
    one.run(600, "power on")
    one.board.sees(pins={"14": 1})
    since = one.board.start("deep sleep", wait=None)
    one.board.said("radio on", since)
    one.board.cut()
    one.time += 5
    since = one.board.log.mark()
    ms = one.wake("brown-out")["ms"]
    assert "the supply failed while the radio was on" in one.board.log.text()
    assert one.sessions(one.time) == [] and 30000 < ms <= 60000
    one.time += ms / 1000
    one.run(60)
    assert [s.removeprefix("[2x] ") for s in subjects(host)] == ["door: on"]


def test_a_door_wakes_it(esp32, smarthost):
    host = smarthost()
    one = esp32(host, TOML.replace("[sleep]", "[sleep]\nwake_pin = 14"))
    one.run(1500, "power on")
    assert json.loads(one.state.read_text())["wakes"] == [14, 1]
    one.board.sees(pins={"14": 1})
    one.time -= 300
    kept = json.loads(one.state.read_text())
    kept["slept"] -= 300000
    one.state.write_text(json.dumps(kept))
    kept = one.wake()
    assert subjects(host) == ["door: on"] and kept["wakes"] == [14, 0]
    assert 250000 < kept["ms"] <= 300000, "the next reading is not where it was"


def test_crashes_count_in_a_row_only_while_no_wake_was_good(esp32, smarthost):
    one = esp32(smarthost(), TOML, {"none.py": ""})
    record = one.board.path / "crash.json"
    record.write_text(json.dumps({"n": 2, "all": 2, "why": "x", "text": "", "up": 1, "tell": False, "own": True}))
    one.board.files.append(record)
    one.run(600, "reset")
    broken = Path(one.board.firmware) / "sensors.py"
    broken.write_text(BROKEN)
    for cause in ("deep sleep", "reset", "reset"):
        assert "SAFE MODE" not in one.board.log.text()
        one.board.start(cause, wait=None)
        one.board.reset()
    one.board.start("reset", wait="SAFE MODE")
    one.board.said("the REPL is there")


def test_a_pico_w_sleeps_lightly_and_does_the_same(make, clocks, smarthost):  # noqa: F811
    host = smarthost()
    board = make(host, TOML.replace("{profile}", "pico_w").replace("pin = 32", "pin = 26"))
    board.env = {"EDGEPOST_SIM_SLEEP": f"/host{board.path / 'sleep.json'}"}
    cold, warm = {"26": 0.1}, {"26": 0.5}
    board.sees(volts=warm, hurry=10)
    board.start(wait="the radio was on for")
    assert host.connections == 0
    board.sees(volts=cold, sleep=3600 * 1000)
    board.said("alert: ")
    since = board.log.mark()
    for clock in clocks:
        clock.ahead += 7200
    board.sees(sleep=7300 * 1000)
    board.said("sleep: radio on: mail", since)
    board.said("the radio was on for", since)
    (mail,) = host.mails
    assert mail.message["Subject"] == "frost: 2.0, below 3.0"
    assert "This has lasted 20 min" in mail.message.get_content()
    since = board.log.mark()
    board.sees(pins={"14": 1}, sleep=8400 * 1000)
    board.said("sleep: radio on: an urgent mail", since)
    board.said("the radio was on for", since)
    assert subjects(host)[1:] == ["door: on"] and host.connections == 2
    text = board.log.text()
    assert text.count("radio on") == 3 and text.count("starts after") == 1
    assert "Traceback" not in text and "Misuse" not in text
    assert board.dog.exists()


@pytest.fixture
def switch():
    one = Switch()
    one.table = f'[ping]\nurl = "http://localhost:{one.server_port}/here"\nverify = "none"\noldest = "1m"\n'
    yield one
    one.shutdown()
    one.server_close()


def test_a_board_that_sleeps_is_alive_once_a_batch(esp32, smarthost, switch):
    host = smarthost()
    one = esp32(host, TOML.replace('"15m"', '"1h"') + switch.table)
    one.run(2 * 3600 + 60, "power on")
    assert [round(at, -2) for at in one.sessions()] == [0, 7200]
    assert switch.pings == ["/here"] * 2 and host.connections == 0


def test_a_board_whose_mail_does_not_get_on_is_not_alive(esp32, smarthost, switch):
    host = smarthost(refuse=lambda verb, address: "450 4.2.0 busy" if verb == "rcpt" else None)
    one = esp32(host, TOML.replace('"15m"', '"1h"').replace("2h", "1h") + switch.table)
    one.board.sees(pins={"14": 1})
    one.run(3700, "power on")
    assert len(switch.pings) > 1
    count = len(switch.pings)
    one.run(2 * 3600)
    assert len(switch.pings) == count and len(one.sessions(3700)) > 1
    assert "ping: none is sent while the oldest mail has waited for 2 h" in one.board.log.text()


def test_a_board_that_sleeps_fetches_its_mail_when_its_radio_is_on(esp32, smarthost, gateway, tmp_path):
    host = smarthost()
    provider = gateway(BOARD + under_tls(tmp_path), host)
    provider.inject(mail("for the board"), to=["x@b7.example.com"])
    one = esp32(host, TOML + FETCH % (provider.port2, "starttls") + 'ca = "{ca}"\n')
    one.board.heap += 32  # with 256 KB it depends on how the heap is in pieces
    one.run(60, "power on")
    (got,) = host.wait_for(1)
    assert (got.recipients, got.message["Subject"]) == (["ops@example.com"], "for the board")
    assert one.sessions() == [0] and "ready" in one.board.log.text()
    provider.wait_for("delivered to x@b7.example.com")
