"""Starts what is on a board, and waits until the gateway says that it is up.

    up = start.again(board)             # a device.Board; it is closed behind that
    up.ready, up.listens, up.address, up.said

Used by what has written something on a board. A soft reset keeps the line open, so that nothing of what the board says
is lost; where the chip's watchdog runs, only a hard one stops it, and the port may go away and come back.
"""

import contextlib
import re
import time

import serial

from . import device

PATIENCE = 60  # seconds until the gateway is up: a Pico W that runs from .mpy takes about ten
NETWORK = 45  # seconds more to join the network; one attempt takes 30 at the most
_LINE = re.compile(r"(?:\d\d:\d\d:\d\d|\+\d+) ([a-z0-9 ]+): (.*)")
_ENDED = (
    "the gateway does not run", "SAFE MODE", "crashed; starts again", "there is no profile", "the gateway has ended",
)  # fmt: skip


class Up:
    """What the board said when it started.

    ready    the gateway is up
    listens  ["0.0.0.0 port 2525"]
    address  its own in the network, "" while it has none
    network  what it says of the Wi-Fi when it cannot join
    code     False: there is nothing on the board that could start
    said     the last lines of its console
    """

    def __init__(self):
        self.ready, self.code, self.address, self.network = False, True, "", ""
        self.listens, self.said = [], []
        self.failed = self.asleep = False

    def line(self, text):
        """A line of the console."""
        self.said = self.said[-30:] + [text]
        found = _LINE.fullmatch(text)
        if not found:
            self.failed = self.failed or any(word in text for word in _ENDED) and "edgepost: " in text
            return
        area, what = found.groups()
        if area == "gateway" and what == "ready":
            self.ready = True
        elif area == "server" and what.startswith("listening on "):
            self.listens.append(what[13:])
        elif area == "wifi" and what.startswith("joined "):
            self.address, self.network = what.rpartition(" as ")[2], ""
            self.ready = True  # what it said while its port was away is lost
        elif area == "wifi" and what.endswith("It is tried again"):
            self.network = what.removesuffix(". It is tried again")
        elif area == "sleep":
            self.ready = self.asleep = True


def again(board, hard=False, wifi=True, patience=PATIENCE, network=NETWORK):
    """Resets the board and reads what it says until the gateway is up, or is not: an Up.

    wifi: waits for the network, too. hard: resets the chip. The Board cannot be used any more. Raises BoardError when
    the line breaks for good.
    """
    up = Up()
    try:
        read, leave = (_hard if hard else _soft)(board, patience)
    except BaseException:
        board.leave()
        raise
    rest = b""
    end = time.monotonic() + patience
    try:
        while time.monotonic() < end:
            rest += read()
            *lines, rest = rest.split(b"\n")
            was = up.ready
            for line in lines:
                up.line(line.decode("utf-8", "replace").strip())
            if up.failed:
                break
            if up.ready and not was:
                end = time.monotonic() + network
            if up.ready and (not wifi or up.address or up.network or up.asleep):
                break
            if not up.ready and rest.endswith(b">>> "):  # the prompt: nothing runs
                up.code = not all(_idle(line) for line in up.said)
                break
    finally:
        leave()
    return up


def _idle(line):
    """Whether a line is one of a board on which nothing starts."""
    return not line or line.startswith(("MPY: ", "MicroPython ", "Type \"help()\"", ">>>", "raw REPL", "OK"))


def _soft(board, patience):
    board.run_main()
    return lambda: board.read(0.2), board.leave


def _hard(board, patience):
    """A hard reset. The port may vanish with it, and is opened again when it is back."""
    board.start("import machine\nmachine.reset()")
    end = time.monotonic() + patience
    line, gone = None, False

    def leave():
        with contextlib.suppress(OSError, TypeError):
            if not gone:
                board.leave()
            elif line:
                line.close()

    def read():
        nonlocal line, gone
        if not gone:
            try:
                return board.read(0.2)
            except device.Gone:
                board.leave()
                gone = True
        while True:
            try:
                if not line:
                    line = serial.Serial(board.port, device.BAUD, timeout=0.2, exclusive=True)
                return line.read(max(1, line.in_waiting))
            except (OSError, TypeError, device.LINE_ERROR):
                leave()
                line = None
                if time.monotonic() > end:
                    raise device.Gone(
                        f"the board at {board.port} was reset and did not come back: unplug it and plug it in again"
                    ) from None
                time.sleep(0.2)

    return read, leave
