"""What mail costs the flash of a board, beside the usual way: a temporary file and a rename."""

from .tools import Row, limit_row

_BLOCKS = 256  # a part of 1 MB
_CYCLES = 100_000
_ALERTS = 100  # a day


def flash(bench):
    """From enqueue to removal, on a block device that counts."""
    costs = {}
    with bench.board("flash.py", bench.size(200), heap="4m") as process:
        for _ in range(6):
            name, *numbers = process.read().split()
            costs[name] = list(map(float, numbers))
    for name, what in (("alert", "a 300 B alert"), ("deferred", "the same, deferred once")):
        _, programmed, erases = costs[name]
        _, usual, usual_erases = costs["naive-alert"]
        goals = (1100, 0.3) if name == "alert" else (None, None)
        yield limit_row(f"flash, {what} / usual", programmed, usual, goals[0], "B", slack=0.5)
        yield limit_row("  erases", erases, usual_erases, goals[1], "", 2, 0.005)
    size, programmed, erases = costs["folded"]
    yield limit_row(f"flash, an alert folded into a file of {size:.0f} B", programmed, None, None, "B")
    yield limit_row("  erases", erases, None, None, "", 2)
    size, programmed, erases = costs["long"]
    _, usual, usual_erases = costs["naive-long"]
    yield limit_row("flash, a 20 KB mail / usual", programmed, usual, 1.15 * size, "B", slack=0.5)
    yield limit_row("  erases", erases, usual_erases, None, "", 2)
    years = _BLOCKS * _CYCLES / (costs["alert"][2] * _ALERTS * 365)
    yield Row(f"  life of 1 MB at {_ALERTS} alerts a day", f"{years:,.0f} years")
