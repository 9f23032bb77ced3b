"""How far something is: a bar that is drawn anew on a terminal, and a line a quarter where output goes to a pipe."""

import os
import shutil
import sys


def lively(out):
    """Whether what stands there can be drawn anew: a terminal that moves its cursor, unlike TERM=dumb, and no pipe."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


class Bar:
    """Shows `what` with so many of `total` done: `bar(done)` as often as one likes; used with `with`.

    When the work breaks off, the bar stays where it was.
    """

    def __init__(self, what, total, out=None):
        self.what, self.total, self.out = what, max(total, 1), out or sys.stdout
        self.live = lively(self.out)
        self.shown = None

    def __enter__(self):
        self(0)
        return self

    def __call__(self, done):
        percent = min(100, 100 * done // self.total)
        if not self.live:
            percent -= percent % 25
        if percent == self.shown:
            return
        self.shown = percent
        text = f"{self.what} {percent:3d} %"
        if not self.live:
            print(text, file=self.out, flush=True)
            return
        room = min(40, shutil.get_terminal_size().columns - len(text) - 4)
        if room >= 4:
            full = room * percent // 100
            text += f" [{'#' * full}{'.' * (room - full)}]"
        print(f"\r{text}", end="", file=self.out, flush=True)

    def __exit__(self, kind, *error):
        if kind is None:
            self(self.total)
        if self.live:
            print(file=self.out, flush=True)
