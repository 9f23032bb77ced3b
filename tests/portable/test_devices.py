"""Devices as they are: plays each transcript of tests/devices/ against a session of the server.

A new device is a new file there, NAME.txt. It begins with what the device is, and then:

    # network: allowed          where the device is: "allowed", or "elsewhere", where it has to authenticate
    # users: name password      whom the listener knows, several with commas between them; may be left out
    # tls: starttls             what the listener does; may be left out

    S: 250                      a reply, of any number of lines: its last one begins with this code
    S: 334 VXNlcm5hbWU6         a reply whose last line is exactly this
    C: HELO                     a line of the device; CRLF is added
    C! helo plc\\n               the same without CRLF; \\r \\n \\\\ and \\x00 are escapes
    -- TLS --                   as in play.py, and so are -- GONE --, -- TIMEOUT -- and -- END --

    == a@b -> c@d, e@f          a mail that has to get through, in this order, and behind it its lines; escapes
                                hold in them, and the line ends are CRLF

Each file has at least one mail, sent with DATA.
"""

import errno
import os

from expect import eq
from play import CUTS, Player, unescape
from smtp import auth
from smtp.server import Listener, Session
from smtp.stream import TLS, Wire

HERE = {"allowed": "10.0.0.9", "elsewhere": "192.0.2.1"}
WAYS = ("C:", "C!", "S:", "--")
# What some other server takes for the end of a mail, or might, and this one never.
NO_END = (
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b".\r",
    b"\r\n.\0\r\n",
    b"\r\n. \r\n",
    b"\r\n..\r\n",
    b"\r\n.\r\r\n",
)
SMUGGLED = b"X\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nevil\r\n"


def folder():
    cut = __file__.rfind("/")
    return (__file__[:cut] if cut >= 0 else ".") + "/../devices/"


class Device:
    """A file of tests/devices, read: `steps` is a list of (kind, text), `mails` of (sender, recipients, content)."""

    def __init__(self, name, text):
        self.name = name
        self.network = ""
        self.users = {}
        self.tls = "none"
        self.steps = []
        self.mails = []
        content = None
        for line in text[: -1 if text[-1:] == "\n" else len(text)].split("\n"):
            if line[:3] == "== ":
                sender, to = line[3:].split(" -> ")
                content = []
                self.mails.append((sender, to.split(", "), content))
            elif content is not None:
                content.append(unescape(line))
            elif line[:1] == "#":
                self.header(line)
            elif line:
                assert line[:2] in WAYS, "%s: no line of a transcript: %s" % (name, line)
                self.steps.append((line[:2], line.strip("- ") if line[:2] == "--" else line[3:]))
        self.mails = [(sender, to, b"".join([c + b"\r\n" for c in lines])) for sender, to, lines in self.mails]
        assert self.network in HERE, name + ": says not in which network it is"
        assert self.mails, name + ": no mail has to get through"

    def header(self, line):
        key, colon, value = line[1:].partition(":")
        key = key.strip()
        value = value.strip()
        if key == "network":
            self.network = value
        elif key == "tls":
            self.tls = value
        elif key == "users":
            for user in value.split(","):
                user, password = user.split(None, 1)
                self.users[user] = password


def devices():
    for name in sorted(os.listdir(folder())):
        assert name.endswith(".txt"), "what is %s?" % name
        with open(folder() + name, "rb") as f:
            yield Device(name, str(f.read(), "utf-8"))


class Box:
    """A backend that keeps what it gets."""

    def __init__(self):
        self.mails = []

    def open(self, envelope):
        return Sink(self.mails, envelope)


class Sink:
    def __init__(self, mails, envelope):
        self.mails = mails
        self.envelope = envelope
        self.data = b""

    def write(self, piece):
        self.data += bytes(piece)

    def commit(self):
        self.mails.append((self.envelope, self.data))

    def abort(self):
        pass


def player(device, network, cut=None, users=None):
    """(Player, Box) of a new session with this device. `users`: {name: password} in place of the device's own."""
    users = device.users if users is None else users
    users = {name: auth.make_verifier(password, 2) for name, password in users.items()}
    box = Box()
    on = Listener("mx.example.com", box, ("10.0.0.0/8",), users, device.tls, auth_in_clear=device.tls == "none")
    wire = Wire(bytearray(2048))
    return Player(Session(wire, HERE[network], on).run(), wire, cut), box


def event(p, what):
    if what == "TLS":
        p.upgrade()
    elif what == "GONE":
        p.throw(EOFError("the peer closed the connection"))
    elif what == "TIMEOUT":
        p.throw(OSError(errno.ETIMEDOUT, "timed out"))
    elif what == "END":
        assert p.ended, "it goes on"
        assert not p.error, "it ended with %r" % p.error
    else:
        raise ValueError("no event of a transcript: " + what)


def spoken(kind, text):
    return unescape(text) if kind == "C!" else text.encode() + b"\r\n"


def answer(heard, wanted):
    """Takes a reply off what was heard; gives the rest."""
    while True:
        line, crlf, heard = heard.partition(b"\r\n")
        assert crlf, "%r is no reply; %r belongs here" % (line, wanted)
        if line[3:4] != b"-":
            break
    good = line[:4].strip() == wanted.encode() if len(wanted) == 3 else line == wanted.encode()
    assert good, "it says %r where %r belongs" % (line, wanted)
    return heard


def converse(device, p, until=None):
    """Plays the transcript, or its part until a reply that begins with `until`."""
    heard = said = b""
    for kind, text in device.steps:
        if kind == "S:":
            if said:
                p.feed(said)
                said = b""
            heard = answer(heard + p.said(), text)
            if until and text.startswith(until):
                break
            continue
        if not said:
            eq(heard + p.said(), b"")
        if kind == "--":
            p.feed(said)
            said = b""
            event(p, text)
        else:
            said += spoken(kind, text)
    if said:
        p.feed(said)
    eq(heard + p.said(), b"")


def in_words(device, function, *args):
    """Calls it; what fails names the device."""
    try:
        return function(device, *args)
    except (AssertionError, ValueError) as e:
        raise AssertionError("%s: %s" % (device.name, e))


def gets_through(device):
    for cut in CUTS:
        p, box = player(device, device.network, cut)
        converse(device, p)
        eq([(e.sender, e.rcpts, data) for e, data in box.mails], device.mails)


def test_each_device_gets_its_mail_through():
    count = 0
    for device in devices():
        in_words(device, gets_through)
        count += 1
    assert count >= 12, "only %d devices were found" % count


def blurt(device, p, one_by_one):
    """Says what the device says, whatever it is answered."""
    said = b""
    for kind, text in device.steps:
        if p.ended:
            return
        if kind in ("C:", "C!"):
            said += spoken(kind, text)
            if one_by_one:
                p.feed(said)
                said = b""
        elif text == "TLS":
            p.feed(said)
            said = b""
            if p.request is TLS:
                p.upgrade()
    if not p.ended:
        p.feed(said)


def is_nobody_elsewhere(device):
    for one_by_one in (True, False):
        p, box = player(device, "elsewhere")
        blurt(device, p, one_by_one)
        eq([e.user for e, _ in box.mails if e.user not in device.users], [])
        assert device.users or not box.mails
        # A device whose password is wrong here, and one that nobody has told the listener about.
        for users in ({name: password + "?" for name, password in device.users.items()}, {}):
            p, box = player(device, "elsewhere", users=users)
            blurt(device, p, one_by_one)
            eq(len(box.mails), 0)


def test_from_elsewhere_the_same_commands_get_no_mail_accepted():
    for device in devices():
        in_words(device, is_nobody_elsewhere)


def needs_its_password(device):
    if device.network == "elsewhere":
        assert device.users, "it could not send from there"


def test_a_device_outside_the_allowed_networks_authenticates():
    for device in devices():
        in_words(device, needs_its_password)


def ends_its_mail_properly(device):
    for way in NO_END:
        for cut in (None, 1, 2):
            p, box = player(device, device.network, cut)
            converse(device, p, until="354")
            for piece in (b"Subject: x\r\n\r\nfirst" + way, SMUGGLED):
                p.feed(piece)
                eq((way, cut, p.said(), p.ended, len(box.mails)), (way, cut, b"", False, 0))
            p.feed(b"\r\n.\r\n")
            eq((way, cut, p.said()[:4], len(box.mails)), (way, cut, b"250 ", 1))
            envelope, data = box.mails[0]
            eq((way, envelope.sender), (way, device.mails[0][0]))
            assert data.endswith(SMUGGLED + b"\r\n"), (way, data)
            lone = data.replace(b"\r\n", b"")
            assert b"\r" not in lone and b"\n" not in lone, (way, data)


def test_no_device_loosens_how_a_mail_ends():
    for device in devices():
        in_words(device, ends_its_mail_properly)


def test_a_mail_that_never_ends_properly_is_never_taken():
    for device in devices():
        p, box = player(device, device.network)
        converse(device, p, until="354")
        p.feed(b"Subject: x\n\nall its lines end so\n.\nquit\n")
        eq((device.name, p.said()), (device.name, b""))
        event(p, "TIMEOUT")
        eq((device.name, p.said()[:4], len(box.mails)), (device.name, b"421 ", 0))


def test_a_device_that_fails_is_named():
    text = "# network: allowed\nS: 220\nC: HELO\nS: 251\nC: DATA\nS: 354\n\n== a@b -> c@d\nx\n"
    try:
        in_words(Device("wrong.txt", text), gets_through)
    except AssertionError as e:
        assert "wrong.txt" in str(e) and "251" in str(e), e
    else:
        raise AssertionError("a transcript that is wrong passes")
