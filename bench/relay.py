"""How fast the relay empties a queue in flash into a smart host over TLS, beside smtplib, which has no queue."""

import contextlib

from .client import times
from .tools import on_core, ratio_row
from .trips import next_hop

_ALERT = 300  # octets


def relay(bench):
    """500 alerts in one session, each removed from flash."""
    count = bench.size(500)
    for way in ("CHUNKING", "DATA"):
        with contextlib.ExitStack() as stack:
            with on_core(0):
                note, port, login = stack.enter_context(next_hop(bench, way))
            args = ("localhost", port, count, _ALERT)
            with on_core(1):
                ours, peer = bench.rates(
                    lambda a=args, b=login: count / times(bench.board("relay.py", *a, *b, heap="8m"))[1] * 1000,
                    lambda a=args, b=login: count / times(bench.python("bench.peer_client", *a, "alert", *b))[1] * 1000,
                )
            yield ratio_row(f"relay over TLS, {count} alerts by {way} / smtplib{note}", ours, peer, 1, "mail/s")
