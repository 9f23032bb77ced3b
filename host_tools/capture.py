"""`edgepost capture`: stands between a device and a gateway, and writes down how the device speaks, not what it says.

What is kept of a session is its dialect: commands, spaces, line ends, octets above 127, dots. Addresses, host names,
passwords and text are replaced before anything is written. The file is a transcript of tests/devices/ (its form stands
in tests/portable/test_devices.py), and is played against the library's own server right away.
"""

import base64
import binascii
import contextlib
import errno
import ipaddress
import re
import select
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path

from . import build, certificates
from .errors import UserError

_KEPT = 60  # lines of a mail that are kept; those in its middle that nothing is special about go first
_USERNAME, _PASSWORD = "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"  # what the board's server asks
_SEEN = ("content-type", "content-transfer-encoding", "content-disposition", "mime-version")


# Parameters of MAIL and RCPT that say nothing of anybody.
_MEANT = re.compile(rb"\s*|>|(?i:SIZE=\d+|BODY=\w+|RET=\w+|NOTIFY=[\w,]+|SMTPUTF8|AUTH=<>)")


# ---- the proxy


class Tap:
    """One session between a device and a server. `events`: ("C" | "S", octets), ("TLS", b"") and ("GONE", b"")."""

    def __init__(self, device, server, contexts=None, host=""):
        self.device, self.server, self.contexts, self.host = device, server, contexts, host
        self.events = []

    def run(self):
        """Carries until one side ends."""
        try:
            while True:
                for sock in self.ready():
                    data = sock.recv(65536)
                    if sock is self.device:
                        if not data:
                            self.events.append(("GONE", b""))
                            return
                        self.events.append(("C", data))
                        self.server.sendall(data)
                    else:
                        if not data:
                            return
                        self.events.append(("S", data))
                        self.device.sendall(data)
                        if self.contexts and self.agreed_on_tls():
                            break
        except (OSError, ssl.SSLError):
            self.events.append(("GONE", b""))
        finally:
            for sock in (self.device, self.server):
                with contextlib.suppress(OSError):
                    sock.close()

    def ready(self):
        held = [s for s in (self.device, self.server) if isinstance(s, ssl.SSLSocket) and s.pending()]
        return held or select.select([self.server, self.device], [], [])[0]

    def agreed_on_tls(self):
        """Begins TLS on both sides after STARTTLS and its 220."""
        if [kind for kind, _ in self.events[-2:]] != ["C", "S"]:
            return False
        said, reply = (data for _, data in self.events[-2:])
        if said.strip().upper() != b"STARTTLS" or not reply.startswith(b"220"):
            return False
        mine, theirs = self.contexts
        self.server = theirs.wrap_socket(self.server, server_hostname=self.host)
        self.device = mine.wrap_socket(self.device, server_side=True)
        self.events.append(("TLS", b""))
        return True


# ---- from octets to lines


def tokens(events):
    """Lines of the device, ["C", octets, "command" | "data"], replies, ["S", code, text], and ["--", "TLS"]."""
    out, said, heard, data, fresh = [], b"", b"", False, True
    for kind, octets in events:
        if kind == "C":
            said += octets
            while b"\n" in said:
                line, _, said = said.partition(b"\n")
                line += b"\n"
                if data and fresh and line == b".\r\n":
                    data = False
                    out.append(["C", line, "command"])
                else:
                    out.append(["C", line, "data" if data else "command"])
                fresh = line.endswith(b"\r\n")
        elif kind == "S":
            heard += octets
            while b"\r\n" in heard:
                line, _, heard = heard.partition(b"\r\n")
                if line[3:4] != b"-":
                    out.append(["S", line[:3].decode("ascii", "replace"), line.decode("utf-8", "replace")])
                    if line[:3] == b"354":
                        data = fresh = True
        else:
            if said:
                out.append(["C", said, "data" if data else "command"])
                said = b""
            out.append(["--", kind])
    if said:
        out.append(["C", said, "data" if data else "command"])
    return out


def in_groups(items):
    """The same with all replies to a group of commands before what the device says next, as a player wants it."""
    out, waiting = [], []
    owed, answered = 1, False  # the greeting

    def say(item):
        nonlocal owed
        out.append(item)
        owed += item[2] == "command"

    for item in items:
        if item[0] == "C":
            if waiting or owed and answered:
                waiting.append(item)
            else:
                say(item)
            continue
        if item[0] == "S":
            if not owed and item[1] == "421":
                out.append(["--", "TIMEOUT"])  # nobody asked: the server has waited long enough
            out.append(item)
            owed = max(0, owed - 1)
            answered = owed > 0
        if not answered:
            for one in waiting:
                say(one)
            waiting.clear()
        if item[0] == "--":
            out.append(item)
    return out + waiting


# ---- without secrets


class Redaction:
    """Replaces what is somebody's, the same by the same. `users`: {name: password} of the replaced ones."""

    def __init__(self):
        self.addresses, self.users = {}, {}
        self.counts = {}

    def address(self, text, role):
        """Another address for this one (both octets)."""
        known = self.addresses.get(text.lower())
        if known is None:
            self.counts[role] = n = self.counts.get(role, 0) + 1
            domain = {"device": "com", "office": "net"}.get(role, "org")
            known = f"{role}{n if n > 1 else ''}@example.{domain}".encode()
            self.addresses[text.lower()] = known
        return known

    def text(self, octets, role="person"):
        """Text with its addresses replaced and everything else in letters that say nothing."""
        out, at = b"", 0
        for found in re.finditer(rb"[^\s<>@:;,\"'()]+@[^\s<>@;,\"'()]+", octets):
            out += shape(octets[at : found.start()]) + self.address(found[0], role)
            at = found.end()
        return out + shape(octets[at:])

    def path(self, octets, role):
        """The argument of MAIL or RCPT."""
        head, colon, rest = octets.partition(b":")
        if not colon:
            return self.text(octets, role)
        if head.strip().upper() not in (b"FROM", b"TO"):
            head = shape(head)
        bracket, path, tail = re.match(rb"(\s*<?)([^>\s]*)(.*)", rest, re.S).groups()
        if path.lower() != b"postmaster":
            path = self.text(path, role)
        out = head + colon + bracket + path
        for word in re.split(rb"(\s+)", tail):
            if not _MEANT.fullmatch(word):
                key = re.match(rb"(?i)ENVID=|ORCPT=rfc822;|AUTH=|", word)[0]
                word = key + self.text(word[len(key) :], role)
            out += word
        return out

    def user(self, octets):
        name = self.address(octets, "device") if b"@" in octets else b"device"
        self.users[name.decode()] = "secret"
        return name

    def command(self, line):
        """A command line, with its end."""
        found = re.match(rb"(\s*)([A-Za-z]*)(\s*)(.*?)(\s*)$", line, re.S)
        lead, verb, gap, rest, end = found.groups()
        upper = verb.upper()
        if upper in (b"MAIL", b"RCPT"):
            rest = self.path(rest, "device" if upper == b"MAIL" else "office")
        elif upper in (b"HELO", b"EHLO"):
            rest = _host(rest)
        elif upper in (b"BDAT",):
            raise UserError("this device sends its mail with BDAT, which transcripts of devices do not have")
        elif upper != b"AUTH":
            if not upper or upper not in (b"DATA", b"RSET", b"NOOP", b"QUIT", b"HELP", b"VRFY", b"EXPN", b"STARTTLS"):
                verb = shape(verb) if line.strip() != b"." else verb
            rest = rest if line.strip() == b"." else self.text(rest)
        return lead + verb + gap + rest + end

    def header(self, line, name):
        """A line of a mail's header section, or of a part's."""
        if name in _SEEN:
            def keep(found):
                quiet = found[1].lower() in (b"charset", b"format", b"type")
                return found[1] + b"=" + (found[2] if quiet else shape(found[2]))

            if line[:1].isspace() and b"=" not in line:
                return self.text(line)
            return re.sub(rb"([\w*-]+)=(\"[^\"]*\"?|[^;\s]+)", keep, line)
        head, colon, rest = line.partition(b":")
        if colon and not head[:1].isspace() and re.fullmatch(rb"[\w-]+", head):
            return head + colon + self.text(rest)
        return self.text(line)

    def mail(self, lines):
        """The lines of one mail, fewer of them."""
        out, name, headers = [], "", True
        for line in lines:
            found = re.match(rb"([\w-]+)[ \t]*:", line)
            if headers and not line.strip():
                headers = False
            if found and (headers or found[1].lower().decode() in _SEEN):
                name = found[1].lower().decode()
            elif not line[:1].isspace() or not line.strip():
                name = ""
            out.append(self.header(line, name) if headers or name else self.text(line))
        if len(out) > _KEPT:
            odd = [n for n, line in enumerate(out) if not _plain(line) or line.startswith((b".", b"--"))]
            keep = {*range(_KEPT // 2), *range(len(out) - _KEPT // 4, len(out)), *odd[: _KEPT // 4]}
            out = [line for n, line in enumerate(out) if n in keep]
        return out


def shape(octets):
    """Letters as x, digits as 0, the rest of ASCII as it is; other text as é, in UTF-8 if it was."""
    try:
        text = octets.decode()
        text = re.sub(r"[^\x00-\x7f]", "é", text)
        octets = text.encode()
    except UnicodeDecodeError:
        octets = re.sub(rb"[\x80-\xff]", b"\xe4", octets)
    return re.sub(rb"[0-9]", b"0", re.sub(rb"[A-Z]", b"X", re.sub(rb"[a-z]", b"x", octets)))


def _host(octets):
    """A name of HELO: address literals stay ones, localhost and names without meaning stay, others lose theirs."""
    inner = octets.strip(b"[]")
    with contextlib.suppress(ValueError):
        other = b"192.0.2.1" if ipaddress.ip_address(inner.decode("ascii", "replace")).version == 4 else b"2001:db8::1"
        return octets.replace(inner, other)
    if octets.lower() in (b"", b"localhost", b"localhost.localdomain"):
        return octets
    return shape(octets)


def _plain(line):
    return line.endswith(b"\r\n") and all(32 <= c < 127 for c in line[:-2])


def _decode(octets):
    try:
        return base64.b64decode(octets.strip(), validate=False)
    except binascii.Error:
        return b""


def redact(items, redaction):
    """The items without secrets: a new list. Raises UserError for what no transcript can hold."""
    items = [list(item) for item in items]
    auth, mail = None, []
    out = []

    def flush():
        out.extend(["C", line, "data"] for line in redaction.mail(mail))
        mail.clear()

    for item in items:
        if item[0] == "C" and item[2] == "data":
            mail.append(item[1])
            continue
        flush()
        out.append(item)
        if item[0] == "C":
            if auth and auth["asked"]:
                auth["parts"].append(item)
                auth["asked"] = False
                continue
            words = item[1].split()
            if words[:1] and words[0].upper() == b"AUTH":
                auth = {"line": item, "parts": [], "prompts": [], "asked": False}
                continue
            item[1] = redaction.command(item[1])
        elif item[0] == "S" and auth:
            if item[1] == "334":
                auth["prompts"].append(item)
                auth["asked"] = True
            else:
                _auth(auth, item[1] == "235", redaction)
                auth = None
    flush()
    if auth:
        _auth(auth, False, redaction)
    return out


def _auth(auth, good, redaction):
    """Replaces user name and password of one AUTH."""
    line = auth["line"]
    found = re.match(rb"(\s*\w+\s+)(\S*)(\s*)(\S*)(.*)$", line[1], re.S)
    mechanism, initial = found[2].upper(), found[4]
    password = b"secret" if good else b"wrong"
    fields = ([initial] if initial else []) + [part[1].strip() for part in auth["parts"]]
    if mechanism == b"LOGIN":
        made = [redaction.user(_decode(fields[0])), password] if fields else []
        for prompt, text in zip(auth["prompts"], (_USERNAME, _PASSWORD)[bool(initial) :], strict=False):
            prompt[2] = text
    elif mechanism == b"PLAIN":
        who = (_decode(fields[0]).split(b"\0") + [b"", b""])[1] if fields else b""
        made = [b"\0" + redaction.user(who) + b"\0" + password]
    elif good:
        raise UserError(
            f"this device signs in by {mechanism.decode('ascii', 'replace')}, whose words differ each time: no"
            " transcript can hold that"
        )
    else:
        made = [b"device"] * len(fields)
    made = [base64.b64encode(m) for m in made]
    targets = ([None] if initial else []) + auth["parts"]
    for target, new, old in zip(targets, made, fields, strict=False):
        if old == b"*":
            continue
        if target is None:
            line[1] = found[1] + found[2] + found[3] + new + re.sub(rb"\S", b"", found[5])
        else:
            end = re.search(rb"\s*$", target[1])[0]
            target[1] = new + end
    for extra in targets[len(made) :]:
        if extra is not None:
            extra[1] = base64.b64encode(b"device") + b"\r\n"


# ---- what the board's server makes of it


class _Player:
    """Plays lines against smtp.server.Session without a socket."""

    def __init__(self, network, users, tls):
        server, auth, self.stream = (build.module(f"smtp.{n}") for n in ("server", "auth", "stream"))
        self.mails = []
        users = {name: auth.make_verifier(password, 2) for name, password in users.items()}
        on = server.Listener("mx.example.com", self, ("10.0.0.0/8",), users, tls, auth_in_clear=tls == "none")
        self.wire = self.stream.Wire(bytearray(2048))
        peer = "10.0.0.9" if network == "allowed" else "192.0.2.1"
        self.session = server.Session(self.wire, peer, on).run()
        self.inbox, self.said, self.ended, self.request = b"", b"", False, None
        self.go(self.session.send, None)
        self.run()

    def open(self, envelope):  # the backend
        return _Sink(self.mails, envelope)

    def go(self, how, value):
        try:
            self.request = how(value)
        except StopIteration:
            self.ended = True

    def run(self):
        s, wire = self.stream, self.wire
        takes = {s.LINE: wire.line, s.DATA: wire.data, s.CHUNK: wire.chunk}
        while not self.ended:
            value = None
            if self.request is not None and not isinstance(self.request, int):
                with contextlib.suppress(StopIteration):
                    while True:
                        self.request.send(None)
                self.go(self.session.send, None)
                continue
            if self.request in takes:
                value = takes[self.request]()
            self.said, wire.out = self.said + bytes(wire.out), b""
            if value is None and self.request in takes:
                if not self.inbox:
                    return
                held = bytes(wire.mv[wire.lo : wire.hi])
                room = len(wire.buf) - len(held)
                piece, self.inbox = self.inbox[:room], self.inbox[room:]
                held += piece
                wire.buf[: len(held)] = held
                wire.lo, wire.hi = 0, len(held)
                continue
            if self.request == s.TLS:
                return
            self.go(self.session.send, value)
        self.said, wire.out = self.said + bytes(wire.out), b""

    def feed(self, octets):
        self.inbox += octets
        self.run()

    def tls(self):
        if self.request == self.stream.TLS:
            self.inbox, self.wire.lo, self.wire.hi = b"", 0, 0
            self.go(self.session.send, None)
            self.run()

    def expire(self):
        if not self.ended:
            self.go(lambda value: self.session.throw(value), OSError(errno.ETIMEDOUT, "timed out"))
            self.run()

    def reply(self):
        """The last line of the next reply, or ""."""
        while self.said:
            line, _, self.said = self.said.partition(b"\r\n")
            if line[3:4] != b"-":
                return line.decode("utf-8", "replace")
        return ""


class _Sink:
    def __init__(self, mails, envelope):
        self.mails, self.envelope, self.data = mails, envelope, b""

    def write(self, piece):
        self.data += bytes(piece)

    def commit(self):
        self.mails.append((self.envelope.sender, list(self.envelope.rcpts), self.data))

    def abort(self):
        """Nothing was kept."""


def play(items, network, users, tls):
    """(mails as (sender, recipients, octets), what the board answers otherwise: lines for a person)."""
    player = _Player(network, users, tls)
    other, said, last = [], b"", b"the connection"
    for item in items:
        if item[0] == "C":
            said += item[1]
            last = item[1] if item[2] == "command" else last
            continue
        if said:
            player.feed(said)
            said = b""
        if item[0] == "--":
            if item[1] == "TLS":
                player.tls()
            elif item[1] == "TIMEOUT":
                player.expire()
            continue
        reply = player.reply()
        if reply[:3] != item[1]:
            other.append(
                f"to {_escape(last.strip())} the board answers {reply or 'nothing'}, and the server here said {item[1]}"
            )
    if said:
        player.feed(said)
    return player.mails, other


# ---- the file


def _escape(octets):
    out = ""
    for c in octets:
        out += {92: "\\\\", 13: "\\r", 10: "\\n"}.get(c) or (chr(c) if 32 <= c < 127 else f"\\x{c:02x}")
    return out


def transcript(events, about, network="allowed"):
    """(text of a file for tests/devices/, what the board answers otherwise). Raises UserError."""
    redaction = Redaction()
    found = tokens(events)
    gone = bool(found) and found[-1] == ["--", "GONE"]
    found = found[:-1] if gone else found
    items = in_groups(redact(found, redaction))
    tls = "starttls" if ["--", "TLS"] in items else "none"
    mails, other = play(items, network, redaction.users, tls)
    quit_ = items and items[-1][0] == "S" and items[-1][1] in ("221", "421")
    lines = ["# " + re.sub(r"\s+", " ", about).strip(), f"# network: {network}"]
    if redaction.users:
        lines.append("# users: " + ", ".join(" ".join(pair) for pair in redaction.users.items()))
    if tls != "none":
        lines.append("# tls: starttls")
    lines.append("")
    for item in items:
        if item[0] == "C":
            if _plain(item[1]):
                lines.append(("C: " + item[1][:-2].decode()) if item[1] != b"\r\n" else "C:")
            else:
                lines.append("C! " + _escape(item[1]))
        elif item[0] == "S":
            exact = item[2] if item[2] in (_USERNAME, _PASSWORD) else item[1]
            lines.append("S: " + exact)
        else:
            lines.append(f"-- {item[1]} --")
    lines.append("-- END --" if quit_ else "-- GONE --")
    lines.append("")  # before the first mail only: behind it, an empty line is the mail's
    for sender, to, content in mails:
        lines += [f"== {sender} -> {', '.join(to)}", *(_escape(c) for c in content.split(b"\r\n")[:-1])]
    return "\n".join(lines) + "\n", other


# ---- the command


def run(args):
    """`edgepost capture`, with its arguments. Gives the exit status."""
    out = Path(args.out or re.sub(r"[^a-z0-9]+", "-", args.about.lower()).strip("-")[:60] + ".txt")
    if out.exists():
        raise UserError(f"{out} exists; name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no directory; name another file with --out")
    host, _, port = args.to.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise UserError(f"--to {args.to} is not host:port, such as 192.168.1.10:2525")
    host = host.strip("[]")
    theirs = ssl.create_default_context(cafile=args.ca)
    if args.no_verify:
        theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    names = (*certificates.NAMES, socket.gethostname())
    mine = certificates.server_context(*certificates.Authority(args.dir).issue(names))
    try:
        listener = socket.create_server((args.host, args.port))
    except OSError as e:
        raise UserError(f"cannot listen on {args.host} port {args.port}: {e.strerror}") from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    with listener:
        where = f"{args.host} port {listener.getsockname()[1]}"
        print(
            f"edgepost: waits on {where} for one session of the device, and passes it on"
            f" to {args.to}\nedgepost: let the device send a mail; Ctrl-C ends it",
            flush=True,
        )
        while True:
            device, peer = listener.accept()
            try:
                server = socket.create_connection((host, int(port)), 20)
            except OSError as e:
                device.close()
                raise UserError(f"nobody answers at {args.to} ({e}); start the gateway, or name it with --to") from None
            server.settimeout(None)
            tap = Tap(device, server, (mine, theirs), host)
            carrying = threading.Thread(target=tap.run, daemon=True)
            carrying.start()
            while carrying.is_alive():
                carrying.join(0.2)
            text, other = transcript(tap.events, args.about, "elsewhere" if args.elsewhere else "allowed")
            if "\n== " in text:
                break
            print(f"edgepost: {peer[0]} came and sent no mail; it waits for another session", flush=True)
            for line in other:
                print(f"edgepost: {line}", flush=True)
    out.write_text(text)
    print(f"edgepost: wrote {out}; read it before you give it away, and put it into tests/devices/", flush=True)
    for line in other:
        print(f"edgepost: {line}", flush=True)
    if other:
        print("edgepost: the board does not serve this device as that server does: please report it", flush=True)
    return 1 if other else 0
