"""A smart host that cannot be trusted, or does not let the gateway in: nothing is sent to it, and
the mail waits until the setting is right.
"""

import pytest
from harness import BOARD, mail

# what is wrong, how the smart host is, what board.toml says wrongly, what the log has to say
TROUBLE = [
    (
        "wrong CA",
        {"certificate": "other-ca"},
        {},
        ["certificate is not signed by the CA in smarthost.ca"],
    ),
    (
        "wrong host name",
        {"certificate": "wrong-name"},
        {},
        ["certificate is for another name", "set smarthost.host"],
    ),
    (
        "expired certificate",
        {"certificate": "expired"},
        {},
        ["certificate has expired", "must renew it"],
    ),
    (
        "no STARTTLS offered",
        {"starttls": False},
        {},
        ["does not offer STARTTLS", "nothing is sent in the clear", "check smarthost.port"],
    ),
    (
        "wrong password",
        {},
        {'password = "secret"': 'password = "secret1"'},
        ["refuses the user name or password: 535", "check smarthost.username and smarthost.password"],
    ),
    (
        "AUTH not offered",
        {"auth": False},
        {},
        ["does not offer AUTH", "check smarthost.port"],
    ),
]
BEFORE_AUTH = ("wrong CA", "wrong host name", "expired certificate", "no STARTTLS offered")


@pytest.mark.parametrize("end", ["a clean stop", "a power cut"])
@pytest.mark.parametrize(
    ("name", "misbehaviour", "mistake", "words"), TROUBLE, ids=[t[0] for t in TROUBLE]
)
def test_nothing_is_sent_and_the_mail_waits(
    smarthost, gateway, tmp_path, name, misbehaviour, mistake, words, end
):
    bad = smarthost(path=tmp_path / "host", **misbehaviour)
    board = BOARD
    for right, wrong in mistake.items():
        board = board.replace(right, wrong)
    one = gateway(board, bad)
    one.inject(mail("precious"), to=["office@example.com", "archive@example.com"])
    line = one.wait_for("relay: smart host localhost").lower()
    for word in words:
        assert word.lower() in line
    assert "1 mails wait" in line
    assert f"localhost:{bad.port}" in line
    one.stop() if end == "a clean stop" else one.kill()
    assert bad.mails == [] and bad.connections > 0
    if name in BEFORE_AUTH:
        assert bad.logins == []  # the password stayed at home
    assert not any(good for _, good in bad.logins)

    bad.stop()
    good = smarthost(path=tmp_path / "host", port=bad.port)
    text = one.board.read_text()
    for right, wrong in mistake.items():
        text = text.replace(wrong, right)
    one.board.write_text(text)
    mark = one.mark()
    one.start()
    one.wait_for("queue: 1 mails wait, 0 dead letters", since=mark)
    one.wait_for("delivered to office@example.com", since=mark)
    one.wait_for("delivered to archive@example.com", since=mark)
    (got,) = good.wait_for(1)
    assert got.message["Subject"] == "precious"
    assert got.recipients == ["office@example.com", "archive@example.com"]
    assert (got.tls, got.user) == (True, "gateway")
    assert one.stop() == 0
    assert len(good.mails) == 1
    assert "Traceback" not in one.log()


def test_a_smart_host_that_is_not_there_is_named_once_with_what_to_do(gateway):
    one = gateway(BOARD)
    one.inject(mail())
    line = one.wait_for("relay: smart host localhost")
    assert "no connection" in line
    assert "check the network, smarthost.host and smarthost.port" in line.lower()
    assert "1 mails wait" in line
    one.inject(mail())
    assert one.stop() == 0
    assert one.log().count("relay: smart host") == 1


def test_the_ca_of_board_toml_counts_and_not_that_of_the_system(smarthost, gateway, tmp_path):
    """The smart host changed its CA: with the new one in board.toml the waiting mail goes."""
    host = smarthost(path=tmp_path / "host", certificate="other-ca")
    one = gateway(BOARD, host)
    one.inject(mail("patient"))
    one.wait_for("not signed by the CA in smarthost.ca")
    assert one.stop() == 0
    text = one.board.read_text()
    one.board.write_text(text.replace(str(host.ca), str(host.path / "other-ca" / "ca.pem")))
    one.start()
    assert host.wait_for(1)[0].message["Subject"] == "patient"
    one.wait_for("delivered to")
    assert one.stop() == 0
    assert len(host.mails) == 1
