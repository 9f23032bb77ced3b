"""The server's side of AUTH (RFC 4954), without I/O, and the verifiers that stand in for passwords. Loaded when
somebody logs in.

May use: sasl, reply, stream. Standards: RFC 4616 (PLAIN), RFC 5802, 5803 and 7677 (the form of a verifier), RFC 8018
(PBKDF2). A mechanism is a generator, and a row in a table below. Passwords are taken as UTF-8 without SASLprep (RFC
4013): it changes nothing in ASCII.
"""

import hashlib
import os

from . import const
from .reply import PLAIN, SMTPError
from .sasl import b64, unb64
from .stream import LINE, PAUSE, SLEEP

_SLICE = const(64)  # iterations between two yields: some 15 ms on a board
_ITERATIONS = const(4096)  # RFC 7677 section 4
_MAX_LOGINS = const(3)  # that fail in a session
CLEAR = "{CLEAR}"  # starts a verifier that is the password itself, which only CRAM-MD5 needs


def _pads(key, sha=hashlib.sha256):
    if len(key) > 64:
        key = sha(key).digest()
    key += bytes(64 - len(key))
    return bytes([c ^ 0x36 for c in key]), bytes([c ^ 0x5C for c in key])


def hmac(key, msg, sha=hashlib.sha256):
    """HMAC (RFC 2104) of msg, bytes."""
    inner, outer = _pads(key, sha)
    return sha(outer + sha(inner + msg).digest()).digest()


def pbkdf2(password, salt, iterations):
    """PBKDF2-HMAC-SHA-256 (RFC 8018 5.2) of bytes: a generator that yields None now and then, and
    returns the first block, 32 bytes.
    """
    sha = hashlib.sha256
    inner, outer = _pads(password)
    u = sha(outer + sha(inner + salt + b"\0\0\0\1").digest()).digest()
    from_bytes = int.from_bytes
    total = from_bytes(u, "big")
    left = iterations - 1
    while left > 0:
        for _ in range(min(left, _SLICE)):
            u = sha(outer + sha(inner + u).digest()).digest()
            total ^= from_bytes(u, "big")
        left -= _SLICE
        yield
    return total.to_bytes(32, "big")


def _result(generator):
    """What a generator returns in the end."""
    try:
        while True:
            next(generator)
    except StopIteration as e:
        return e.value


def equal(a, b):
    """Compare bytes in a time that depends on their length only."""
    different = len(a) ^ len(b)
    for x, y in zip(a, b):
        different |= x ^ y
    return not different


def _stored(salted):
    return hashlib.sha256(hmac(salted, b"Client Key")).digest()


def make_verifier(password, iterations=_ITERATIONS, salt=None):
    """The verifier (str, RFC 5803) of a password (str): enough to check it, not to log in with."""
    if salt is None:
        salt = os.urandom(16)
    salted = _result(pbkdf2(password.encode(), salt, iterations))
    parts = iterations, salt, _stored(salted), hmac(salted, b"Server Key")
    return "SCRAM-SHA-256$%d:%s$%s:%s" % (
        (parts[0],) + tuple([str(b64(p), "utf-8") for p in parts[1:]])
    )


def parse_verifier(verifier):
    """(iterations, salt, StoredKey, ServerKey). Raises ValueError when it is no verifier."""
    try:
        scheme, salt, keys = verifier.split("$")
        iterations, salt = salt.split(":")
        salt, stored, server_key = [unb64(k.encode()) for k in [salt] + keys.split(":")]
        iterations = int(iterations)
        if scheme == "SCRAM-SHA-256" and len(stored) == len(server_key) == 32 and iterations > 0:
            return iterations, salt, stored, server_key
    except (ValueError, SMTPError):
        pass
    raise ValueError("not a verifier: make it anew from the password")


def check(verifier, password):
    """Is `password` (str) the one that `verifier` (str) was made from?

    A generator that yields None between slices of work and returns a bool. The verifier None, of a
    user who does not exist, takes the same work and gives False; so does one that is damaged.
    """
    iterations, salt, stored = _ITERATIONS, bytes(16), b""
    if verifier is not None:
        try:
            iterations, salt, stored, _ = parse_verifier(verifier)
        except ValueError:
            pass
    salted = yield from pbkdf2(password.encode(), salt, iterations)
    if verifier is not None and verifier.startswith(CLEAR):
        return equal(verifier[len(CLEAR) :].encode(), password.encode())
    return equal(_stored(salted), stored)


# The server's side: yields challenges and is sent responses; yields (user, password) and is sent
# whether they are right; returns the user or None.


def text(data):
    try:
        return str(data, "utf-8")
    except UnicodeError:
        raise SMTPError(501, "5.5.2", "user name or password is not UTF-8") from None


def _judge(user, password):
    user = text(user)
    # A name goes into the log and the trace of a mail.
    if not user or [c for c in user if c < " " or c == "\x7f"]:
        raise SMTPError(501, "5.5.2", "the user name is empty or holds control characters")
    right = yield user, text(password)
    return user if right else None


def _plain_server(initial):
    if initial is None:
        initial = yield b""
    parts = initial.split(b"\0")
    if len(parts) != 3:
        raise SMTPError(501, "5.5.2", "PLAIN takes authzid NUL user NUL password")
    if parts[0] not in (b"", parts[1]):
        return None  # nobody here may act for somebody else
    return (yield from _judge(parts[1], parts[2]))


def _login_server(initial):
    user = initial or (yield b"Username:")
    password = yield b"Password:"
    return (yield from _judge(user, password))


_SERVER = {"PLAIN": _plain_server, "LOGIN": _login_server}


def mechanisms(users):
    """What EHLO offers for {name: verifier}: CRAM-MD5 only where a password is stored in the clear on purpose."""
    names = ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    if hasattr(hashlib, "md5") and [v for v in users.values() if v.startswith(CLEAR)]:
        names.insert(1, "CRAM-MD5")
    return names


def server(mechanism, initial=None):
    """The server's side: a generator that is fed the client's raw responses (no base64).

    It yields challenges (bytes), None while it computes, and once a tuple: (user, password), to which it is sent True
    or False, or (user, None), to which it is sent the user's verifier or None. StopIteration.value is the user (str),
    or None when refused. Raises SMTPError 504 5.5.4 for an unknown mechanism, 501 5.5.2 for a malformed response.
    """
    name = mechanism.upper()
    make = _SERVER.get(name)
    if not make:
        from .mechs import SERVER

        make = SERVER.get(name)
        if not make:
            raise SMTPError(504, "5.5.4", "this AUTH mechanism is not known here")
    return make(initial)


def login(session, arg):
    """Generator of a server.Session: AUTH with its argument (bytes), after which `session.user` is set, or SMTPError.
    Refusals are answered late, and later each time."""
    io = session.io
    on = session.on
    parts = arg.split(None, 1)
    name = str(parts[0].upper(), "utf-8") if parts and not parts[0].strip(PLAIN) else ""
    if name not in on.mechanisms():
        raise SMTPError(504, "5.5.4", "mechanism not supported")
    initial = None
    if len(parts) > 1:
        initial = b"" if parts[1] == b"=" else unb64(parts[1])
    exchange = server(name, initial)
    user = value = None
    try:
        while True:
            ask = exchange.send(value)
            if ask is None:
                value = yield PAUSE
            elif isinstance(ask, tuple):
                value = on.users.get(ask[0])
                if ask[1] is not None:
                    value = yield from check(value, ask[1])
            else:
                io.out += b"334 " + b64(ask) + b"\r\n"
                value = yield LINE
                if value is False:
                    raise SMTPError(500, "5.5.6", "line too long")
                if value == b"*":
                    raise SMTPError(501, "5.0.0", "cancelled")
                value = unb64(value)
    except StopIteration as e:
        user = e.value
    if user is None:
        session.logins += 1
        on.log("wrong user name or password from %s" % session.peer)
        io.timeout = 1000 * session.logins
        yield SLEEP
        io.timeout = on.timeout
        if session.logins >= _MAX_LOGINS:
            raise SMTPError(421, "4.7.0", "too many failures, closing")
        raise SMTPError(535, "5.7.8", "wrong user name or password")
    session.user = user
    io.out += b"235 2.7.0 welcome\r\n"
