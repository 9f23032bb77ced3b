"""The log of a gateway that runs as a child process: kept line by line, and something to wait
on.
"""

import threading
import time


class Log:
    """Lines from any number of processes, one after the other; `follow` one, then `wait_for` a
    text.
    """

    def __init__(self, on_line=None):
        self.lines = []
        self._on_line = on_line
        self._changed = threading.Condition()
        self._reader = None

    def follow(self, pipe):
        """Reads a process's output to its end, in a thread."""
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                self.add(line.decode("utf-8", "replace").rstrip("\r\n"))

    def add(self, line):
        """Adds a line of one's own."""
        with self._changed:
            if self._on_line:
                self._on_line(line)  # before anybody who waits goes on
            self.lines.append(line)
            self._changed.notify_all()

    def mark(self):
        """The number of lines so far, for wait_for(since=...)."""
        with self._changed:
            return len(self.lines)

    def text(self):
        """All lines so far, as one text."""
        with self._changed:
            return "\n".join(self.lines)

    def join(self, timeout=None):
        """Waits until all output of the process that is followed has been read."""
        if self._reader:
            self._reader.join(timeout)

    def wait_for(self, text, timeout=30, since=0):
        """Waits for a line that contains `text`, from line number `since` on; gives the line.

        Raises TimeoutError, with all lines, after `timeout` seconds or when the process has ended.
        """
        end = time.monotonic() + timeout
        at = since
        with self._changed:
            while True:
                gone = not self._reader or not self._reader.is_alive()
                for line in self.lines[at:]:
                    if text in line:
                        return line
                at = max(since, len(self.lines))
                if gone or time.monotonic() > end:
                    why = "the gateway has ended" if gone else f"waited {timeout} s"
                    lines = "\n".join(self.lines)
                    raise TimeoutError(f"no {text!r} in the log ({why}):\n{lines}")
                self._changed.wait(0.2)
