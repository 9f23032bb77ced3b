"""Asking a running gateway how it is, and having it do things, without stopping it: over the serial line of its board
(firmware/console.py), or over the LAN with the password of its status service (docs/status.md).

    with asking.reach(port="/dev/ttyACM0") as gateway:
        print(gateway.json("GET", "/status.json")["queue"])

Both ways answer the same requests. What goes wrong is an Unreachable, a UserError: the line is broken or nobody
answers, and later it may work; or a Refused, which the gateway itself said.
"""

import base64
import binascii
import contextlib
import getpass
import http.client
import json
import os
import re
import secrets
import sys
import time
import urllib.parse
from pathlib import Path

from . import device
from .errors import UserError

SILENCE = 20  # seconds without a word after which an answer is given up: a board waits that long for memory
_FULL = b"no memory for an answer"
_TRIES = 2  # more, when a board has no memory for an answer: it has waited for some seconds itself
MOST = 8 << 20  # octets of an answer
_LINE = 4096  # octets: what is longer without a line end is no log
_SOON = 2  # seconds within which a gateway that has just started answers what it was asked meanwhile
_AGAIN = 3  # times that a question is put when its answer is damaged on the way
READY = b"gateway: ready"  # what the log says when it is up
_PROMPT = re.compile(rb"paste mode; Ctrl-C to cancel")
_SENT = "look with `edgepost queue list` whether it was done"


class Unreachable(UserError):
    """There is no answer now."""


class Gone(Unreachable):
    """The line is broken: it has to be opened again."""


class Refused(UserError):
    """The gateway says no: `status` is that of HTTP."""

    def __init__(self, status, text):
        self.status = status
        super().__init__(text)


def clean(text, keep=""):
    """Text of somebody else, fit for a terminal."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in str(text))


class Gateway:
    """What both ways have in common. `where` names it in words."""

    where = ""

    def ask(self, method, path):
        """(status, body) of a request. Raises Unreachable."""
        raise NotImplementedError

    def get(self, method, path):
        """The body of an answer that is no refusal (bytes). Raises Refused, Unreachable."""
        status, body = self.ask(method, path)
        for _ in range(_TRIES):
            if status != 503 or method != "GET" or _FULL not in body:
                break
            self.hear(2)  # mail goes first, for a moment mostly
            status, body = self.ask(method, path)
        if status == 503 and _FULL in body:
            raise Refused(
                status, f"{self.where} has no memory for an answer now, because mail goes first: try again in a minute"
            )
        if status >= 400:
            said = clean(body.decode("utf-8", "replace").strip())[:300]
            raise Refused(status, f"{self.where} says: {said or status}")
        return body

    def json(self, method, path):
        body = self.get(method, path)
        try:
            return json.loads(body)
        except ValueError:
            raise Unreachable(f"{self.where} gave no sense: is it an edgepost gateway?") from None

    def hear(self, seconds):
        """Waits, and hands on the lines of the log that come meanwhile, where they come by themselves."""
        time.sleep(seconds)

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


# ---- the serial line


class Serial(Gateway):
    """A board's serial line. `on_line` takes each line of its log (str)."""

    def __init__(self, port, on_line=None, silence=SILENCE):
        self.port = os.fspath(port)
        self.where = f"the board at {self.port}"
        self.on_line = on_line or (lambda line: None)
        self.silence = silence
        self.held = b""
        self.line = device.open_line(self.port)

    def close(self):
        with contextlib.suppress(OSError, TypeError):
            self.line.close()

    def gone(self):
        return Gone(f"{self.where} is gone: it was unplugged or reset. Plug it in, and try again")

    def read(self, seconds):
        """The next line (bytes), None when none has come within so many seconds."""
        end = time.monotonic() + seconds
        while True:
            line, found, rest = self.held.partition(b"\n")
            if found or len(line) > _LINE:
                self.held = rest
                return line.rstrip(b"\r")
            left = end - time.monotonic()
            if left <= 0:
                return None
            try:
                self.line.timeout = min(left, 0.5)
                self.held += self.line.read(self.line.in_waiting or 1)
            except (OSError, TypeError, ValueError, device.LINE_ERROR):  # pyserial says so in many ways
                raise self.gone() from None
            if _PROMPT.search(self.held):  # MicroPython's prompt took our ENQ for Ctrl-E
                self.send(b"\x03")
                self.held = b""
                raise Unreachable(
                    f"no gateway runs on {self.where[4:]}: MicroPython's prompt is there. Reset the board to start the"
                    " gateway; if it does not start, `mpremote repl` shows why"
                )

    def send(self, data):
        try:
            self.line.write(data)
            self.line.flush()
        except (OSError, TypeError, ValueError, device.LINE_ERROR):
            raise self.gone() from None

    def hand_on(self, line):
        text = line.decode("utf-8", "replace").strip()
        if text and not text.startswith("\x06"):  # of an answer that nobody waits for any more
            self.on_line(clean(text))

    def hear(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            line = self.read(left)
            if line is not None:
                self.hand_on(line)

    def ask(self, method, path):
        for _ in range(_AGAIN if method == "GET" else 1):
            found = self.once(method, path)
            if found:
                return found
        why = "it broke off (out of memory?)" if found is False else "it was damaged (a bad cable?)"
        raise Unreachable(f"no whole answer of {self.where}: {why}; {'try again' if method == 'GET' else _SENT}")

    def once(self, method, path):
        """(status, body), None when the answer was damaged, or False when the board broke it off."""
        ident = secrets.token_hex(2)
        text = f"{ident} {method} {path}".encode()
        request = b"\x05%s %08x\n" % (text, binascii.crc32(text))
        self.send(request)
        status, body, n, ready = 0, bytearray(), 0, False
        while True:
            line = self.read(min(_SOON, self.silence) if ready else self.silence)
            if line is None:
                if not ready:
                    break
                ready = False  # it was asked before it was reset
                self.send(request)
                continue
            mark, ours, answer = line.partition(b"\x06" + ident.encode() + b" ")
            if not ours:
                self.hand_on(line)
                ready = ready or line.endswith(READY) and not n
                continue
            ready = False
            self.hand_on(mark)  # a log line without an end came before
            answer, _, crc = answer.rpartition(b" ")
            number, _, piece = answer.partition(b" ")
            if number != b"%d" % n or crc != b"%08x" % binascii.crc32(ident.encode() + b" " + answer):
                return None
            n += 1
            if piece == b".":
                return status, bytes(body)
            if piece == b"!":
                return False
            try:
                if n == 1:
                    status = int(piece)
                else:
                    body += binascii.a2b_base64(piece, strict_mode=True)
            except ValueError:
                return None
            if len(body) > MOST:
                raise Unreachable(f"{self.where} gives no end of an answer")
        if n:
            return None
        raise Unreachable(
            f"{self.where} does not answer: does an edgepost gateway run on it, and is it awake? If it does, it may be"
            " busy or out of memory: try again" + ("" if method == "GET" else f", but first {_SENT}")
        )


# ---- the LAN


class Lan(Gateway):
    """The status service of a gateway."""

    def __init__(self, url, password, silence=SILENCE):
        self.host, self.port, shown = address(url)
        self.where = f"the gateway at {shown}"
        self.silence = silence
        token = base64.b64encode(b":" + password.encode()).decode()
        self.headers = {"Authorization": f"Basic {token}"}

    def ask(self, method, path):
        line = http.client.HTTPConnection(self.host, self.port, timeout=self.silence)
        try:
            line.request(method, path, headers=self.headers)
            answer = line.getresponse()
            body = answer.read(MOST)
        except (OSError, http.client.HTTPException) as e:
            why = "in time" if isinstance(e, TimeoutError) else f"({e.strerror or e})" if isinstance(e, OSError) else ""
            todo = "is it on, in this network, and has it a [status]?" if method == "GET" else _SENT
            raise Unreachable(f"{self.where} does not answer {why}".rstrip() + f": {todo}") from None
        finally:
            line.close()
        if answer.status == 401:
            raise UserError(f"{self.where} does not take this password: it is that of [status] in its board.toml")
        return answer.status, body


def address(url):
    """(host, port, as a person writes it) of what --host says. Raises UserError."""
    text = url if "://" in url else "http://" + url
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http" or parts.path.strip("/") or parts.query:
        raise UserError(f"--host {clean(url)[:80]} is no address of a gateway; for example: --host http://192.168.1.9")
    if "@" in parts.netloc:
        raise UserError("a password does not belong on the command line: take EDGEPOST_PASSWORD or --password-file")
    shown = f"[{host}]" if ":" in host else host
    return host, port, f"http://{shown}" + (f":{port}" if port != 80 else "")


def password(file=None):
    """From a file, the variable EDGEPOST_PASSWORD, or the keyboard. Raises UserError."""
    if file:
        try:
            found = Path(file).read_text().strip("\r\n")
        except (OSError, UnicodeError) as e:
            raise UserError(f"the password cannot be read from {file}: {getattr(e, 'strerror', e)}") from None
    else:
        found = os.environ.get("EDGEPOST_PASSWORD", "")
        if not found and sys.stdin.isatty():
            found = getpass.getpass("password of the status service: ")
    if not found:
        raise UserError(
            "the password of the gateway's status service is missing: set the variable EDGEPOST_PASSWORD, or name a"
            " file with --password-file"
        )
    return found


def reach(port=None, host=None, password_file=None, on_line=None, silence=SILENCE):
    """A Gateway: by `host` when that is given, else at a serial port, by default the one board that is plugged in."""
    if host:
        address(host)
        return Lan(host, password(password_file), silence)
    if password_file:
        raise UserError("--password-file is for --host: over the serial line no password is asked for")
    return Serial(port or device.find(), on_line, silence)

