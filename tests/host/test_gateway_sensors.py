"""A running gateway with simulated hardware: what its sensors say arrives as mail, and each stands for itself."""

import json
import time
from pathlib import Path

import pytest
from harness import BOARD, PATIENCE

SIM = Path(__file__).resolve().parents[1] / "sim"

RULES = BOARD.replace("[mail]", '[mail]\nheartbeat = "1d"\nfold = 0') + """
[[sensor]]
name = "cellar door"
driver = "digital"
pin = 14
on = "open"
off = "closed"
is = "open"
recovery = true
every = "100ms"

[[sensor]]
name = "freezer"
driver = "ds18x20"
pin = 4
above = -15
unit = "°C"
recovery = true
failures = 2
every = "100ms"

[[sensor]]
name = "tank"
driver = "adc"
pin = 26
points = [[0, 0], [65535, 100]]
below = 20
unit = "%"
decimals = 0
subject = "{board}: {name} at {value} {unit}"
priority = "urgent"
every = "100ms"

[[sensor]]
name = "broken"
driver = "user"
function = "read"
path = "../own.py"
above = 1
failures = 1
every = "100ms"

[[sensor]]
name = "hanging"
driver = "user"
function = "wait"
path = "../own.py"
above = 1
failures = 1
timeout = "200ms"
every = "100ms"
"""
OWN = """
import asyncio

def read():
    raise RuntimeError("this one is never right")

async def wait():
    await asyncio.sleep(1000)
"""


class World:
    """What the hardware of the gateway sees, in a file."""

    def __init__(self, path):
        self.path = path
        self.now = {"pins": {"14": 0}, "volts": {"26": 3.3}, "thermometers": {"4": {"28ff641e84160333": -18}}}
        self.set()

    def set(self, **changes):
        self.now.update(changes)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.now))
        new.replace(self.path)


@pytest.fixture
def nature(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPOST_SIM", str(SIM))
    monkeypatch.setenv("EDGEPOST_SIM_FILE", f"/host{tmp_path}/world.json")
    (tmp_path / "own.py").write_text(OWN)
    return World(tmp_path / "world.json")


def wait_for_subjects(host, *subjects):
    """Waits until a mail of each subject was there; gives the subjects of all."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = [m.message["Subject"] for m in list(host.mails)]
        if set(subjects) <= set(found):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{subjects} did not all arrive: {found}")


def test_sensors_on_pins_become_mail_and_what_is_broken_stands_alone(nature, gateway, smarthost):
    host = smarthost()
    one = gateway(RULES, host, heapsize="1m")  # the simulation is in it
    beat = "cold-store: 2 of 5 sensors need attention"
    wait_for_subjects(host, "broken: cannot be read", "hanging: cannot be read", beat)
    nature.set(pins={"14": 1}, volts={"26": 0.33})
    wait_for_subjects(host, "cellar door: open", "cold-store: tank at 10 %")
    nature.set(thermometers={"4": {"28ff641e84160333": -9.5}})
    wait_for_subjects(host, "freezer: -9.5 °C, above -15.0 °C")
    nature.set(thermometers={"4": {}})
    wait_for_subjects(host, "freezer: cannot be read")

    one.kill()  # what was told is not told again
    told = len(host.mails)
    nature.set(pins={"14": 0}, volts={"26": 3.3}, thermometers={"4": {"28ff641e84160333": -18}})
    one.start()
    found = wait_for_subjects(host, "freezer: -18.0 °C, can be read again")
    end = time.monotonic() + PATIENCE
    while sum("ok after at least" in s for s in found) < 2 or found.count(beat) < 2:
        assert time.monotonic() < end, found
        time.sleep(0.05)
        found = [m.message["Subject"] for m in list(host.mails)]
    assert found.count("cold-store: tank at 10 %") == 1
    assert found.count("broken: cannot be read") == 1
    assert len([s for s in found[told:] if "closed, ok" in s or "-18.0 °C, ok" in s]) == 2
    text = next(m.message.get_content() for m in host.mails if m.message["Subject"] == beat)
    assert "freezer: -18.0 °C" in text and "broken: cannot be read: this one is never right" in text
    assert one.stop() == 0
