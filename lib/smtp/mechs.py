"""The SASL mechanisms that not every session needs, both sides, without I/O; sasl and auth load it when one is named.

SCRAM-SHA-256 (RFC 5802, 7677) and CRAM-MD5 (RFC 2195). Generators as in sasl and auth. May use: auth, sasl, reply.
"""

import binascii
import hashlib
import os

from .auth import CLEAR, equal, hmac, parse_verifier, pbkdf2, text
from .reply import SMTPError
from .sasl import b64, unb64


def _bad(why):
    return SMTPError(501, "5.5.2", why)


def _nonce():
    return b64(os.urandom(18))


def _fields(message):
    """{letter: value} of a SCRAM message, bytes."""
    return {f[:1]: f[2:] for f in message.split(b",") if f[1:2] == b"="}


def _xor(a, b):
    return bytes([x ^ y for x, y in zip(a, b)])


def scram_client(user, password, nonce=None):
    """Raises ValueError when the server cannot prove that it knows the password."""
    nonce = nonce or _nonce()
    first = b"n=" + user.replace("=", "=3D").replace(",", "=2C").encode() + b",r=" + nonce
    challenge = yield b"n,," + first
    got = _fields(challenge)
    try:
        salt, rounds = binascii.a2b_base64(got[b"s"]), int(got[b"i"])
    except (KeyError, ValueError):
        raise ValueError("the server's SCRAM message makes no sense")
    if b"m" in got or not got.get(b"r", b"").startswith(nonce) or not 0 < rounds <= 100000:
        raise ValueError("the server's SCRAM message makes no sense")
    salted = yield from pbkdf2(password.encode(), salt, rounds)
    final = b"c=biws,r=" + got[b"r"]
    spoken = first + b"," + challenge + b"," + final
    key = hmac(salted, b"Client Key")
    proof = _xor(key, hmac(hashlib.sha256(key).digest(), spoken))
    challenge = yield final + b",p=" + b64(proof)
    if challenge != b"v=" + b64(hmac(hmac(salted, b"Server Key"), spoken)):
        raise ValueError("the server does not know the password: it is not who it says it is")
    yield b""


def scram_server(initial, nonce=None):
    if initial is None:
        initial = yield b""
    parts = initial.split(b",", 2)
    if len(parts) != 3 or parts[0] not in (b"n", b"y"):
        raise _bad("SCRAM without channel binding, please")
    got = _fields(parts[2])
    user = text(got.get(b"n", b"").replace(b"=2C", b",").replace(b"=3D", b"="))
    if not user or not got.get(b"r") or b"m" in got:  # RFC 5802 5.1: m= is for extensions to come
        raise _bad("the SCRAM message makes no sense")
    if parts[1] not in (b"", b"a=" + got[b"n"]):
        return None
    verifier = yield user, None
    # Nobody can tell from the challenge that there is no such user: the salt is the same each time.
    rounds, salt, stored, server_key = 4096, hmac(_secret, user.encode())[:16], b"", _secret
    clear = verifier is not None and verifier.startswith(CLEAR)
    if verifier is not None and not clear:
        try:
            rounds, salt, stored, server_key = parse_verifier(verifier)
        except ValueError:
            pass  # damaged: it lets nobody in
    nonce = got[b"r"] + (nonce or _nonce())
    challenge = b"r=%s,s=%s,i=%d" % (nonce, b64(salt), rounds)
    final = yield challenge
    bare, _, proof = final.rpartition(b",p=")
    got = _fields(bare)
    if got.get(b"c") != b64(parts[0] + b"," + parts[1] + b",") or got.get(b"r") != nonce or b"m" in got:
        raise _bad("the SCRAM message makes no sense")
    proof = unb64(proof)
    if clear:
        salted = yield from pbkdf2(verifier[len(CLEAR) :].encode(), salt, rounds)
        stored = hashlib.sha256(hmac(salted, b"Client Key")).digest()
        server_key = hmac(salted, b"Server Key")
    spoken = parts[2] + b"," + challenge + b"," + bare
    key = _xor(proof, hmac(stored, spoken))
    if len(proof) != 32 or not equal(hashlib.sha256(key).digest(), stored):
        return None
    yield b"v=" + b64(hmac(server_key, spoken))
    return user


_secret = os.urandom(32)


def _md5(key, msg):
    """HMAC-MD5 in hex, bytes."""
    return binascii.hexlify(hmac(key, msg, hashlib.md5))


def cram_client(user, password):
    if not hasattr(hashlib, "md5"):
        raise ValueError("CRAM-MD5 needs MD5, which this firmware does not have")
    challenge = yield None
    yield user.encode() + b" " + _md5(password.encode(), challenge)


def cram_server(initial):
    if initial is not None:
        raise _bad("CRAM-MD5 begins with the server's challenge")  # RFC 4954 4
    challenge = b"<%s@edgepost>" % binascii.hexlify(os.urandom(12))
    user, _, digest = (yield challenge).rpartition(b" ")
    user = text(user)
    verifier = yield user, None
    known = verifier is not None and verifier.startswith(CLEAR)
    right = _md5((verifier[len(CLEAR) :] if known else "").encode(), challenge)
    return user if equal(right, digest.lower()) and known else None


CLIENT = {"SCRAM-SHA-256": scram_client, "CRAM-MD5": cram_client}
SERVER = {"SCRAM-SHA-256": scram_server, "CRAM-MD5": cram_server}
