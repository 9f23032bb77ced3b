"""gateway.alert() in a real gateway: what gives way to it when the queue is full, and what becomes of a storm."""

import os
import re
import shutil
import smtplib

import pytest
from edgepost import build
from harness import BOARD, PATIENCE, mail

ADMIN = 'admin = "admin@example.com"\n'
SENSOR = """
[[sensor]]
name = "any"
driver = "file"
path = "raise"
every = "0.05s"
above = 5
"""
# Takes the place of the driver "file" and raises what the file says: "NUMBER RULE PRIORITY".
DRIVER = """
import gateway
from smtp.queue import QueueFull

class Driver:
    def __init__(self, rule, board):
        self.path = board.path(rule["path"])
        self.last = self.text()
        print("alerts are raised from here on")

    def text(self):
        with open(self.path) as f:
            return f.read()

    def read(self):
        text = self.text()
        if text != self.last:
            self.last = text
            number, rule, priority = text.split()
            try:
                gateway.alert("alert " + number, "It is " + number, None, priority, None if rule == "-" else rule)
                print("raised", number)
            except QueueFull as e:
                print("refused", number, e)
        return 0
"""


@pytest.fixture
def board(gateway, smarthost, monkeypatch, tmp_path):
    """board(queue, mail) gives (gateway, smart host) with lines of board.toml in [queue] and [mail], without an admin:
    dead letters are nobody's news."""
    assert ADMIN in BOARD
    real = build.build

    def with_driver(number, log=print, cache=None):
        firmware = tmp_path / "firmware"
        if not firmware.exists():
            shutil.copytree(real(number, log, cache), firmware)
            for old in (firmware / "drivers").glob("file.*"):
                old.unlink()
            (firmware / "drivers" / "file.py").write_text(DRIVER)
        return firmware

    monkeypatch.setattr(build, "build", with_driver)

    def start(queue="", mail=""):
        host = smarthost(refuse=lambda verb, to: "550 5.1.1 no such user" if to.startswith("nobody@") else None)
        text = BOARD.replace(ADMIN, mail) + "[queue]\npause = '1s'\n" + queue + SENSOR
        one = gateway(text, host, ready=False)
        (one.path / "raise").write_text("none")
        one.wait_for("raised from here on")
        return one, host

    return start


def alert(one, number, rule="-", priority="normal"):
    """Raises an alert; what the gateway says of it from then on. True when it was queued."""
    mark = one.mark()
    new = one.path / "raise.new"
    new.write_text(f"{number} {rule} {priority}")
    os.replace(new, one.path / "raise")
    said = one.wait_for(f"ed {number}", since=mark)
    return said.startswith("raised"), "\n".join(one.messages.lines[mark:])


def fill(one):
    """Sends pages until there is no room; how many there was room for."""
    for number in range(50):
        try:
            one.inject(mail(f"page {number}"))
        except smtplib.SMTPResponseException as e:
            assert 400 <= e.smtp_code < 500, e
            return number
    raise AssertionError("the queue is never full")


@pytest.mark.parametrize(
    ("rule", "letters", "pages"), [("never", 0, 0), ("dead", 2, 0), ("oldest", 2, 4), ("newest", 2, 4)]
)
def test_what_gives_way_is_what_the_user_chose(board, rule, letters, pages):
    one, host = board(f"max_bytes = '16KB'\ndisplace = '{rule}'\n")
    for number in (1, 2):
        mark = one.mark()
        one.inject(mail(f"dead {number}", sender="scanner@printer.local", to="nobody@example.com"))
        one.wait_for("kept as a dead letter", since=mark)
    host.stop()
    count = fill(one)
    assert count >= 4
    assert len(re.findall("gives way: .*, a dead letter", one.log())) == letters  # to the pages
    waiting = [f"page {n}" for n in range(count)]
    for number in range(1, 5):
        good, said = alert(one, number, "rule" if number == 4 else "-")
        assert good is (number <= pages), said
        assert re.findall(r"gives way: .*, (.*)", said) == (["it waited"] if good else [])
        if good:
            waiting.pop(-1 if rule == "newest" else 0)  # the newest: the alert before this one, in the end
        waiting += [f"alert {number}"] * good
    one.kill()
    host.start()
    one.start()
    assert f"{len(waiting)} mails wait, {2 - letters} dead letters" in one.log()
    host.wait_for(len(waiting), PATIENCE)
    assert [m.message["Subject"] for m in host.mails] == waiting
    assert "Traceback" not in one.log()


def test_urgent_mail_does_not_give_way_to_an_alert_that_is_not(board):
    one, host = board("max_bytes = '8KB'\ndisplace = 'oldest'\n")
    host.stop()
    for number in range(1, 5):
        assert alert(one, number, priority="urgent")[0]
    good, said = alert(one, 5)
    assert not good and "octets are taken" in said
    assert "gives way" not in one.log()
    assert alert(one, 6, priority="urgent")[0]
    host.start()
    host.wait_for(4, PATIENCE)
    assert [m.message["Subject"] for m in host.mails] == ["alert 2", "alert 3", "alert 4", "alert 6"]


def test_a_storm_is_one_mail_that_a_power_cut_does_not_double(board):
    one, host = board()
    host.stop()
    for count in range(1, 9):
        if count % 3 == 0:
            one.kill()
            mark = one.mark()
            one.start()
            one.wait_for("raised from here on", since=mark)
        good, said = alert(one, count, "door")
        assert good and (f" queued, {count} alerts in one mail: alert {count}" in said) is (count > 1), said
    assert alert(one, 9, "window")[0]
    assert alert(one, 10)[0]
    host.start()
    host.wait_for(3, PATIENCE)
    assert [m.message["Subject"] for m in host.mails] == ["[8x] alert 8", "alert 9", "alert 10"]
    text = " ".join(host.mails[0].message.get_content().split())
    assert re.fullmatch(r"It is 8 Raised 8 times in (\d+ min )?\d+ s, first at .*, last at .*\.", text), text
    assert "Traceback" not in one.log()


def test_what_follows_within_the_window_waits_for_its_end(board):
    one, host = board(mail="fold = '2s'\n")
    for number in (1, 2, 3):
        assert alert(one, number, "door")[0]
        host.wait_for(1, PATIENCE)
    host.wait_for(2, PATIENCE)
    assert [m.message["Subject"] for m in host.mails] == ["alert 1", "[2x] alert 3"]
    for number in (4, 5):
        assert alert(one, number)[0]  # without a rule
    host.wait_for(4, PATIENCE)


def test_without_folding_each_alert_is_a_mail(board):
    one, host = board(mail="fold = 0\n")
    for number in (1, 2, 3):
        assert alert(one, number, "door")[0]
    host.wait_for(3, PATIENCE)
    assert [m.message["Subject"] for m in host.mails] == ["alert 1", "alert 2", "alert 3"]
