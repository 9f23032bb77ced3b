"""One mail that is ready to be sent, for client.send(). May use: reply, fast or scan; utf8 for an address that is not
ASCII.
"""

from .reply import PLAIN

try:
    from .fast import clean
except (ImportError, SyntaxError, ValueError, AttributeError):
    from .scan import clean


def _crlf(text):
    """`text` (bytes) with CRLF at the end of each line, whatever was there."""
    at = 0
    while at < len(text):
        at = clean(text, at, len(text))
        if at < len(text) and text[at] != 46:  # it also stops at a dot that begins a line
            return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return text


class Mail:
    """One mail as a job, and a source of just that; from bytes or an iterable of bytes, whose line ends become CRLF."""

    def __init__(self, sender, rcpts, message):
        self.body = ""
        self.dsn = None
        for address in [sender] + list(rcpts) if sender else rcpts:
            wrong = "@" not in address or " " in address or "<" in address or ">" in address
            if wrong or address.encode().strip(PLAIN):
                from .utf8 import prepare  # it raises ValueError for what is no address at all

                sender, rcpts = prepare(self, sender, rcpts)
                break
        if not rcpts:
            raise ValueError("a mail needs a recipient")
        if isinstance(message, str):
            message = message.encode()
        self.sender = sender
        self.rcpts = list(rcpts)
        self.size = 0
        self.rest = None
        self.out = self
        if isinstance(message, (bytes, bytearray)):
            message = _crlf(message)
            self.size = self.rest = len(message)
            message = (message,)
        self.pieces = iter(message)
        self.held = b""
        self.cr = False
        self.given = False
        self.replies = None

    def readinto(self, buf):
        n = 0
        while n < len(buf):
            if not self.held:
                try:
                    piece = bytes(next(self.pieces))
                except StopIteration:
                    self.rest = 0
                    break
                if not piece:
                    continue
                if self.cr and piece[:1] == b"\n":
                    piece = piece[1:]
                self.cr = piece[-1:] == b"\r"
                self.held = memoryview(piece if self.rest else _crlf(piece))
                continue
            k = min(len(self.held), len(buf) - n)
            buf[n : n + k] = self.held[:k]
            self.held = self.held[k:]
            n += k
        if self.rest:
            self.rest -= n
        return n

    def next(self):
        if not self.given:
            self.given = True
            return self

    def done(self, results):
        self.replies = results
