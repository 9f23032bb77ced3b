"""The client's side of AUTH (RFC 4954), without I/O: PLAIN (RFC 4616) and LOGIN. The server's side is in auth.

May use: reply. A mechanism is a generator, and a row in a table below.
"""

import binascii
import hashlib

from .reply import SMTPError


def b64(data):
    """Base64 (bytes) of bytes, without a line end."""
    return binascii.b2a_base64(data)[:-1]


def unb64(data):
    """Bytes from base64 (bytes). Raises SMTPError 501 5.5.2 unless it is exactly that."""
    try:
        out = binascii.a2b_base64(data)
        if b64(out) == data:
            return out
    except ValueError:
        pass
    raise SMTPError(501, "5.5.2", "that is not base64")


# Each yields responses and is sent challenges.


def _plain_client(user, password):
    if "\0" in user or "\0" in password:
        raise ValueError("a user name or password must not contain NUL")
    yield b"\0" + user.encode() + b"\0" + password.encode()


def _login_client(user, password):
    yield None
    # Servers word their prompts in many ways; the order never differs.
    yield user.encode()
    yield password.encode()


_CLIENT = {"PLAIN": _plain_client, "LOGIN": _login_client}
_ORDER = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")


def choose(offered, tls=True):
    """The best of the mechanisms offered (a list or set of str), or None.

    Under TLS the one with the fewest round trips; in the clear one that does not show the password, where there is one.
    """
    offered = [m.upper() for m in offered]
    for m in _ORDER if tls else _ORDER[2:]:
        if m in offered and (m != "CRAM-MD5" or hasattr(hashlib, "md5")):  # some firmware has no MD5
            return m
    return None


def client(mechanism, user, password):
    """The client's side of a mechanism: a generator of raw responses (no base64). `password` is the token of XOAUTH2
    and OAUTHBEARER.

    The first next() gives the initial response, None when the server speaks first; each send(challenge) gives the
    answer to a challenge, or None while it computes: then send(None). StopIteration means that the server asks for
    more than the mechanism has.
    """
    make = _CLIENT.get(mechanism)
    if not make:
        if "OAUTH" in mechanism:
            from .bearer import CLIENT
        else:
            from .mechs import CLIENT

        make = CLIENT.get(mechanism)
        if not make:
            raise ValueError("AUTH %s is not known here" % mechanism)
    return make(user, password)


def login(ask, offered, tls, user, password, mechanism=None):
    """Generator: runs an AUTH command (RFC 4954 section 4). Returns None, or (reason, text, reply) as for
    client.SessionError.

    ask: called with a command (bytes), gives a generator that returns the reply; offered: list of str; tls: whether
    the password is safe from listeners; mechanism: the one to insist on.
    """
    name = mechanism or choose(offered, tls)
    if name not in offered:
        return "auth-missing", "it does not offer AUTH that is known here, but: " + " ".join(offered), None
    exchange = client(name, user, password)
    value = next(exchange)
    command = b"AUTH " + name.encode()
    first = b""
    if value is not None:
        first = b64(value) or b"="
        if len(command) + len(first) < 510:
            command += b" " + first
            first = b""  # else it waits for a challenge: no command is longer than 512 octets (RFC 4954 4)
    while True:
        reply = yield from ask(command)
        if reply[0] != 334 or command == b"*":
            break
        if first:
            command, first = first, b""
            continue
        try:
            value = exchange.send(unb64(reply[2].encode()))
            while value is None:
                yield  # PAUSE of stream
                value = exchange.send(None)
            command = b64(value)
        except (SMTPError, StopIteration):
            command = b"*"
        except ValueError as e:
            return "auth", str(e), reply
    if reply[0] != 235:
        return "auth", "it refuses the user name or password: %d %s" % (reply[0], reply[2]), reply
    if name[:5] == "SCRAM" and value != b"":
        return "auth", "it did not prove that it knows the password", reply
