"""How little memory is enough, from .mpy and with TLS, on the 64-bit port, whose objects are twice those of a board."""

import pytest
from harness import BOARD, mail

DOOR = """
[[sensor]]
name = "door"
driver = "file"
path = "../door"
above = 1
every = "1s"
"""
SENSORS_ONLY = BOARD[: BOARD.index("[[listener]]")] + DOOR


@pytest.mark.parametrize(("heap", "board"), [("180k", SENSORS_ONLY), ("200k", BOARD + DOOR)], ids=["sensors", "both"])
def test_mail_and_alerts_arrive_from_a_small_heap(gateway, smarthost, tmp_path, heap, board):
    (tmp_path / "door").write_text("0")
    host = smarthost()
    one = gateway(board, host, heapsize=heap)
    letters = 0 if board is SENSORS_ONLY else 10
    for n in range(letters):
        one.inject(mail(f"letter {n}"))
    host.wait_for(letters)
    (tmp_path / "door").write_text("5")
    host.wait_for(letters + 1)
    assert "memory" not in one.log()
