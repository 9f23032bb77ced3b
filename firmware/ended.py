"""What happens on a board when the gateway does not start, or runs no more. Loaded then.

May use: crash, life.
"""

import sys

import crash
import life
from life import say


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


def safe_mode(board, record):
    """It crashed too often and is not started. record: as crash.start() gives it."""
    say("SAFE MODE. The gateway crashed %d times in a row and is not started. The last time:" % record["n"])
    print(record["why"])
    print(record["text"])
    say("mend what is wrong, then switch the power off and on, or remove %s and reset the board" % crash.PATH)
    lamp(board)


def over(board, error, up):
    """The gateway has ended by `error`, None: by itself, after `up` seconds. Gives the reason, None after Ctrl-C. After
    a crash the board starts again, and this does not return."""
    why = None
    if error is None:
        why = "the gateway has ended"
        say(why + "; reset the board to start it again")
    elif isinstance(error, KeyboardInterrupt):
        say("stopped by Ctrl-C; reset the board to start it again")
    elif type(error).__name__ == "Unusable":
        why = "the gateway does not run: %s" % error
        say(why)
        say("put a right /config.json here, and reset the board")
        lamp(board)
    else:
        text = crash.trace(error)
        print(crash.clean(text))
        crash.note("%s: %s" % (type(error).__name__, error), text, up)
        file = getattr(sys.modules.get("gateway"), "file", None)
        if file:
            file.error(error)
        say("crashed; starts again in %d s, Ctrl-C keeps it here" % life._PAUSE)
        leave(board)
        life.time.sleep(life._PAUSE)
        board.restart()
    leave(board)
    return why
