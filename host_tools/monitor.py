"""`edgepost monitor`: how a running gateway is, again and again, and its log, over the serial line or the LAN.

In a terminal the state stands below the log and is written anew in place, with ANSI's "cursor up" and "erase below" and
nothing else (what a library for terminals offers beyond that is not needed). In a pipe there are lines: the log, and
the state in one line whenever it is another one. With --json each state is one line.
"""

import json
import re
import shutil
import sys
import time

from . import asking, device, progress, wording

EVERY = 5  # seconds between two questions: each one loads code on the board for a moment
_KEPT = 200  # lines of log that wait for the next line of --json
_FIRST = 5  # lines of log from before it came
_STAMP = re.compile(r"^(\d\d:\d\d:\d\d|\+\d+) ")
_EVENTS = (" delivered to ", " deferred for ", " refused for ", " given up for ", "smart host", "dead letter")


class Screen:
    """Log and state as a person sees them."""

    def __init__(self, out, tty):
        self.out, self.tty = out, tty
        self.shown = 0  # lines of the state that stand at the bottom of the terminal
        self.state = []
        self.told = None

    def write(self, text):
        self.out.write(text)
        self.out.flush()

    def erase(self):
        """What takes the state away from the terminal."""
        up, self.shown = self.shown, 0
        return f"\x1b[{up}A\r\x1b[J" if up else ""

    def log(self, line):
        """A line of the gateway's log, with this computer's time where it has none of its own."""
        self.say(line if line[2:3] == line[5:6] == ":" else f"{time.strftime('%H:%M:%S')} {line}")

    def say(self, line):
        self.write(self.erase() + line + "\n" + self.draw())

    def draw(self):
        if not self.tty or not self.state:
            return ""
        size = shutil.get_terminal_size((80, 24))
        lines = [line for part in self.state for line in part(size.columns - 1)][: max(size.lines - 1, 1)]
        self.shown = len(lines)
        return "".join(line + "\n" for line in lines)

    def show(self, status):
        if self.tty:
            self.state = [
                lambda width: ["-" * min(width, 60)],
                lambda width: wording.state(status, width),
                lambda width: wording.row("seen", f"{time.strftime('%H:%M:%S')}, Ctrl-C ends this", width),
            ]
            self.write(self.erase() + self.draw())
            return
        line = wording.summary(status)
        if line != self.told:
            self.told = line
            self.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def lost(self, text):
        self.state, self.told = [], None
        self.back(f"{text}. Waiting for it")

    def back(self, text):
        self.say(f"{time.strftime('%H:%M:%S')} {text}")


class Machine:
    """A line of JSON for each state."""

    def __init__(self, out):
        self.out = out
        self.lines = []

    def log(self, line):
        self.lines = [*self.lines, line][-_KEPT:]

    def show(self, status, error=None):
        found = {"at": int(time.time()), "error": error, "log": self.lines, "status": status}
        self.lines = []
        self.out.write(json.dumps(found) + "\n")
        self.out.flush()

    def lost(self, text):
        self.show(None, text)

    def back(self, text):
        pass  # the state that follows says so


class Once:
    """The state, and no log."""

    def log(self, line):
        pass

    def show(self, status):
        print("\n".join(wording.state(status, shutil.get_terminal_size((80, 24)).columns)))


class News:
    """The lines of a log of which the end is seen again and again that were not there before."""

    def __init__(self):
        self.last = None

    def take(self, pieces):
        lines = [line for line in "".join(pieces).split("\n") if line]
        old, self.last = self.last, lines
        if old is None:
            return lines[-_FIRST:]
        for n in range(min(len(lines), len(old)), 0, -1):  # the end of the old one is where the new one begins
            if old[-n:] == lines[:n]:
                return lines[n:]
        return lines


class Watch:
    """Asks, hands on what comes, and waits for a gateway that has gone."""

    def __init__(self, args, view):
        self.args, self.view = args, view
        self.news = News()
        self.events = []  # (time, text) of what became of mail, for a board without [status], which keeps none
        self.gateway = asking.reach(args.port, args.host, args.password_file, self.hear)

    def open(self):
        if not self.gateway:  # a board whose line was broken
            self.gateway = asking.Serial(self.port, self.hear)

    def hear(self, line):
        if any(word in line for word in _EVENTS):
            self.events = [*self.events, (time.monotonic(), _STAMP.sub("", line))][-3:]
        self.view.log(line)

    def close(self):
        if self.gateway:
            self.gateway.close()
            self.port, self.gateway = getattr(self.gateway, "port", None), None

    def ask(self):
        """The state. Raises what asking raises."""
        status = self.gateway.json("GET", "/status.json")
        try:
            status["events"] = status["events"] or [
                {"age": int(time.monotonic() - at), "text": text} for at, text in self.events
            ]
            wording.state(status, 80)
            lines = self.news.take(status["log"])
        except (KeyError, TypeError, AttributeError, ValueError):
            raise asking.Unreachable(
                f"{self.gateway.where} gave no sense: is it an edgepost gateway of this version?"
            ) from None
        if self.args.host:  # a serial line has brought them already
            for line in lines:
                self.view.log(asking.clean(line))
        return status

    def run(self):
        """Until Ctrl-C, or once. Gives the exit status."""
        lost = False
        while True:
            try:
                self.open()
                status = self.ask()
                if lost:
                    lost = False
                    self.view.back(f"{self.gateway.where} is there again")
                self.view.show(status)
                if self.args.once:
                    return 1 if wording.wrong(status) else 0
                self.gateway.hear(self.args.every)
            except (asking.Unreachable, asking.Refused, device.BoardError) as e:
                if self.args.once:
                    raise
                if not lost:
                    lost = True
                    self.view.lost(str(e))
                self.wait(e)

    def wait(self, error):
        """A moment, before the next try."""
        try:
            if self.gateway and not isinstance(error, asking.Gone):
                self.gateway.hear(self.args.every)
                return
        except asking.Gone:
            pass
        self.close()
        time.sleep(min(self.args.every, 1))


def run(args):
    """`edgepost monitor`, with its arguments. Gives the exit status."""
    if args.json:
        view = Machine(sys.stdout)
    elif args.once:
        view = Once()
    else:
        view = Screen(sys.stdout, progress.lively(sys.stdout))
    watch = Watch(args, view)
    try:
        return watch.run()
    except KeyboardInterrupt:  # as people end it
        return 0
    finally:
        watch.close()
