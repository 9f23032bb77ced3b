"""From power on to the running gateway on a board, and what happens when it does not run.

A crash is written down and the board starts again. After crash.MOST of them in a row, each within minutes, nothing is
started: the console says why, and the REPL is there. The same is true of a configuration that cannot be used.

May use: crash, ended, and what it starts. Everything that it says, it says on the console.
"""

import gc
import sys
import time

_PROFILES = {"rp2": "pico_w", "esp32": "esp32"}
_PAUSE = 5  # seconds in which Ctrl-C keeps a board that crashed from starting again


def say(text):
    print("edgepost: " + text)


def profile():
    """The module of boards/ that [board] profile names, or else the one of this port; None when there is none."""
    name = _PROFILES.get(sys.platform)
    try:
        import json

        with open("/config.json") as f:
            name = json.load(f)["board"].get("profile") or name
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # the gateway will say so
    try:
        return getattr(__import__("boards.%s" % name), name)
    except ImportError as e:
        say("there is no profile for this board (%s: %s): set board.profile to one of boards/, or add one"
            % (sys.platform, e))


def main():
    """Runs the gateway. When it returns, and not because of Ctrl-C, it gives the reason."""
    import crash

    board = profile()
    if not board:
        return "there is no profile"
    record = crash.start(board.reset_reason())
    if record.get("n", 0) >= crash.MOST:
        import ended

        return ended.safe_mode(board, record)
    start = time.ticks_ms()
    gc.collect()
    free = gc.mem_free()  # collected only when it is full, a small heap becomes a checkerboard
    gc.threshold(free // 8 if free > 262144 else 4096)
    try:
        import gateway

        gateway.run(board)
        why = None
    except (Exception, KeyboardInterrupt) as e:
        why = e
        if sys.implementation.name == "micropython":
            import asyncio

            asyncio.new_event_loop()  # the tasks of the old one keep their memory
    gc.collect()
    up = time.ticks_diff(time.ticks_ms(), start) // 1000
    try:
        from ended import over
    except Exception as e:
        crash.note("%s, after: %s" % (e, why), "", up)
        board.restart()
    return over(board, why, up)
