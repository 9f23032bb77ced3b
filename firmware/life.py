"""From power on to the running gateway on a board, and what happens when it does not run.

A crash is written down and the board starts again. After crash.MOST of them in a row, each within minutes, nothing is
started: the console says why, and the REPL is there. The same is true of a configuration that cannot be used.

May use: crash, and what it starts. Everything that it says, it says on the console.
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


def lamp(board):
    """The LED on, and it stays on: the gateway does not run."""
    try:
        from machine import Pin

        if board.LED is not None:
            Pin(board.LED, Pin.OUT).value(1)
    except Exception as e:
        say("the LED does not work: %s" % e)


def leave(board):
    """The REPL takes over: a watchdog cannot be stopped, so a timer feeds it; and the log is written."""
    watch = sys.modules.get("watch")
    if watch and watch.feed:
        from machine import Timer

        feed = watch.feed
        Timer(board.TIMER).init(mode=Timer.PERIODIC, period=1000, callback=lambda timer: feed())
    file = getattr(sys.modules.get("gateway"), "file", None)
    if file:
        file.flush()


def main():
    """Runs the gateway. When it returns, and not because of Ctrl-C, it gives the reason."""
    import crash

    board = profile()
    if not board:
        return "there is no profile"
    why = None
    record = crash.start(board.reset_reason())
    if record.get("n", 0) >= crash.MOST:
        say("SAFE MODE. The gateway crashed %d times in a row and is not started. The last time:" % record["n"])
        print(record["why"])
        print(record["text"])
        say("mend what is wrong, then switch the power off and on, or remove %s and reset the board" % crash.PATH)
        lamp(board)
        return
    start = time.ticks_ms()
    gc.collect()
    free = gc.mem_free()  # collected only when it is full, a small heap becomes a checkerboard
    gc.threshold(free // 8 if free > 262144 else 4096)
    try:
        import gateway

        try:
            gateway.run(board)
            why = "the gateway has ended"
            say(why + "; reset the board to start it again")
        except gateway.Unusable as e:
            why = "the gateway does not run: %s" % e
            say(why)
            say("put a right /config.json here, and reset the board")
            lamp(board)
    except KeyboardInterrupt:
        say("stopped by Ctrl-C; reset the board to start it again")
    except Exception as e:
        gc.collect()
        text = crash.trace(e)
        print(crash.clean(text))
        crash.note("%s: %s" % (type(e).__name__, e), text, time.ticks_diff(time.ticks_ms(), start) // 1000)
        file = getattr(sys.modules.get("gateway"), "file", None)
        if file:
            file.error(e)
        say("crashed; starts again in %d s, Ctrl-C keeps it here" % _PAUSE)
        leave(board)
        time.sleep(_PAUSE)
        board.restart()
    leave(board)
    return why
