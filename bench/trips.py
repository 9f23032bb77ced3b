"""How many round trips pass before Postfix has accepted mail, over STARTTLS and AUTH, beside smtplib."""

import contextlib
import ssl
import sys

from cryptography.hazmat.primitives import serialization
from edgepost import certificates

from .client import times
from .proxy import ROUND_TRIP, Proxy
from .tools import ROOT, free_port, limit_row

_ALERT = 300  # octets
_GOALS = {"CHUNKING": (8, 9), "DATA": (9, 18)}
_JITTER = 0.03  # of each round trip: the proxy counts in ms
_TLS = ">=TLSv1.2, <=TLSv1.2"  # what MicroPython speaks; 1.3 would spare smtplib one round trip
_HOLD = "check_client_access static:HOLD"  # it delivers nothing: that would be measured as well


def _postfix():
    """The tests' module that runs a private Postfix, and why it cannot do so here, or ""."""
    for path in ("tests/interop", "tests"):
        if str(ROOT / path) not in sys.path:
            sys.path.append(str(ROOT / path))
    try:
        import postfix
    except ImportError as e:
        return None, f"{e}: pip install '.[test]'"
    return postfix, postfix.missing()


def _der(bench, name, pem):
    """The path of a PEM file's certificate as DER."""
    path = bench.path / name
    path.write_bytes(ssl.PEM_cert_to_DER_cert(pem.read_text()))
    return path


@contextlib.contextmanager
def next_hop(bench, way):
    """A server that offers this way of sending mail: gives (a note on it, its port, what a client needs
    to log in). Without a Postfix, our own.
    """
    postfix, why = _postfix()
    if not why:
        hide = () if way == "CHUNKING" else ("chunking",)
        with postfix.Postfix(hide=hide, smtpd_tls_mandatory_protocols=_TLS, smtpd_client_restrictions=_HOLD) as host:
            yield "", host.port, (_der(bench, way, host.ca), host.user, host.password)
    else:
        authority = certificates.Authority(bench.path / "tls")
        cert, key = authority.issue()
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        key = bench.path / "key"
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        port = free_port()
        args = (port, "forget", _der(bench, "cert", cert), key, "secret", way)
        with bench.board("server.py", *args) as server:
            server.read()
            yield ", our own server", port, (_der(bench, "ca", authority.pem), "bench", "secret")


def trips(bench):
    """One alert and ten, through a proxy that delays each way."""
    for way, goals in _GOALS.items():
        with next_hop(bench, way) as (note, port, login):
            with Proxy(port) as proxy:
                for count, goal in zip((1, 10), goals, strict=True):

                    def trip(start, name, how, runs, count=count):
                        """Time through the proxy less the time without it, which is computing. Noise only adds:
                        the shortest of some runs is the truest."""
                        far, near = [
                            min(times(start(name, "localhost", p, count, _ALERT, how, *login))[0] for _ in range(runs))
                            for p in (proxy.port, port)
                        ]
                        return far - near

                    ours = trip(bench.board, "client.py", "batch", 3)
                    peer = trip(bench.python, "bench.peer_client", "one", 2 if count == 1 else 1)
                    yield limit_row(
                        f"round trips, {count} by {way} / smtplib{note}",
                        ours / ROUND_TRIP, peer / ROUND_TRIP, goal, "", 1, goal * _JITTER,
                    )  # fmt: skip
