"""The SASL mechanisms of access tokens, the client's side, without I/O; sasl loads it when one is named.

XOAUTH2 (as Gmail and Microsoft 365 document it) and OAUTHBEARER (RFC 7628). Generators as in sasl. Uses nothing else.
"""


def xoauth2_client(user, token):
    yield ("user=%s\1auth=Bearer %s\1\1" % (user, token)).encode()
    yield b""  # the challenge says in JSON what is wrong; the reply follows


def bearer_client(user, token):
    name = user.replace("=", "=3D").replace(",", "=2C")
    yield ("n,a=%s,\1auth=Bearer %s\1\1" % (name, token)).encode()
    yield b"\1"


CLIENT = {"XOAUTH2": xoauth2_client, "OAUTHBEARER": bearer_client}
