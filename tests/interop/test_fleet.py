"""docs/fleet.md, run as it stands there: its file for fifty boards, its Postfix, and one of the boards at it."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from edgepost import config, device, fleet, virtual
from harness import edgepost, switch_on
from postfix import missing

PAGE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()


def block(kind, word):
    (found,) = [b for b in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S) if word in b]
    return found


@pytest.fixture
def fifty(tmp_path):
    """Where fleet.toml and the passwords of the page are."""
    subprocess.run(["sh", "-e", "-c", block("sh", "fleet.toml")], cwd=tmp_path, check=True)
    return tmp_path


def test_the_file_is_of_fifty_boards_and_one_that_differs(fifty):
    path = fifty / "fleet.toml"
    text = path.read_text() + "\n" + block("toml", "dairy")
    path.write_text(text.replace('host = "mail.example.com"', 'host = "mail.example.com"\nverify = "none"'))
    boards = fleet.members(config.read(path), path)
    assert [b.name for b in boards] == [f"barn-{n:02}" for n in range(1, 51)] + ["dairy"]
    (fifty / "secrets" / "dairy").write_text("milk")
    env = {"WIFI_PASSWORD": "hay and straw", "DAIRY_WIFI": "milk and cream"}
    made = [config.load(path, env, raw=b.raw)[0] for b in boards]
    assert len({v["smarthost"][0]["password"] for v in made}) == 51
    assert made[16]["board"]["domain"] == "barn-17.example.com" and made[16]["wifi"]["hostname"] == "barn-17"
    assert made[16]["smarthost"][0]["sender"] == "barn-17@example.com"
    assert made[50]["wifi"]["password"] == "milk and cream" and made[50]["sensor"][0]["name"] == "milk tank"
    assert made[16]["sensor"][0]["text"].startswith("{name} of ")


def test_its_postfix_takes_a_board_as_itself_alone(fifty, postfix):
    lines = [li.partition(" = ") for li in block("ini", "smtpd_sasl").splitlines() if not li.startswith("#")]
    page = {name: value for name, _, value in lines}
    if why := missing():
        pytest.skip(why)
    known = subprocess.run(["/usr/sbin/postconf", "-d"], capture_output=True, text=True, check=True).stdout
    assert [name for name in page if f"\n{name} =" not in known] == []
    host = postfix(senders=["barn-01@example.com"])  # its one account is barn-01's
    path = fifty / "fleet.toml"
    there = f'host = "localhost"\nport = {host.port}\nca = "{host.ca}"'
    text = path.read_text().replace('host = "mail.example.com"', there)
    path.write_text(text.replace("{board}@mail.example.com", f"{host.user}@mail.test"))
    for name in ("barn-01", "barn-02"):
        (fifty / "secrets" / name).write_text(host.password)
    env = {"WIFI_PASSWORD": "hay and straw"}
    board = virtual.VirtualBoard(fifty / "state")
    try:
        switch_on(board, b">>> ")
        done = edgepost("provision", path, "--board", "barn-01", "--port", board.port, "--to", "oncall@example.com",
                        env=env)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a test mail to oncall@example.com was taken" in " ".join(done.stdout.split())
        with device.connect(board.port) as line:
            values = json.loads(line.read_file("/config.json"))
    finally:
        board.close()
    assert values["board"]["name"] == "barn-01" and values["smarthost"][0]["password"] == host.password
    assert len(host.wait_for(1)) == 1
    done = edgepost("provision", path, "--board", "barn-02", "--check", env=env)
    assert done.returncode == 1 and "not owned by user" in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert host.password not in done.stdout + done.stderr
    assert tomllib.loads(path.read_text())["smarthost"]["sender"] == "{board}@example.com"
