"""How fast our server takes mail, beside aiosmtpd on CPython, which stores nothing."""

from contextlib import ExitStack
from statistics import harmonic_mean

from .tools import Row, free_port, ratio_row, source

_MB = 1e6
_BIG = 20_000_000
_SPOOL = 100  # mails that wait at most


class Servers:
    """Our server of some kind, and the peer."""

    def __init__(self, bench, kind, heap):
        self.port, self.peer_port = free_port(), free_port()
        with ExitStack() as stack:
            self.ours = stack.enter_context(bench.board("server.py", self.port, kind, heap=heap))
            self.peer = stack.enter_context(bench.python("bench.peer_server", self.peer_port))
            self.ours.read()
            self.peer.read()
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()


def accept(bench):
    """1 KB, ten at a time, a connection for each mail."""
    with Servers(bench, "forget", "2m") as s:
        source(s.port, 100), source(s.peer_port, 100)
        ours, peer = bench.rates(lambda: source(s.port, bench.size(1500)), lambda: source(s.peer_port, bench.size(500)))
    yield ratio_row("accept 1 KB, no queue / aiosmtpd", ours, peer, 4, "mail/s")


def accept_queue(bench):
    """The same, each committed to a littlefs in RAM. It is emptied, outside of the time, before more wait than would
    with a smart host that answers: littlefs looks at every name in a directory.
    """
    times = 3 if bench.quick else 5

    def fill():
        rates = []
        for _ in range(times):
            rates.append(source(s.port, _SPOOL))
            kept = int(s.ours.ask("empty").split()[0])
            if kept != _SPOOL:
                raise RuntimeError(f"{_SPOOL} mails were sent, {kept} are in the queue")
        return harmonic_mean(rates)

    def peer_fill():
        return harmonic_mean([source(s.peer_port, _SPOOL) for _ in range(times)])

    with Servers(bench, "queue", "24m") as s:
        fill(), peer_fill()
        ours, peer = bench.rates(fill, peer_fill)
    yield ratio_row("accept 1 KB into the queue / aiosmtpd", ours, peer, 1, "mail/s")


def big(bench):
    """A mail of 20 MB, and what the heap does meanwhile."""
    with Servers(bench, "forget", "2m") as s:
        ours, peer = bench.rates(
            lambda: source(s.port, 1, _BIG, 1) * _BIG / _MB,
            lambda: source(s.peer_port, 1, _BIG, 1) * _BIG / _MB,
        )
    yield ratio_row("one mail of 20 MB / aiosmtpd", ours, peer, 3, "MB/s")
    port = free_port()
    with bench.board("server.py", port, "watch") as server:
        server.read()
        source(port, 1, _BIG, 1)
        before = int(server.ask("heap").split()[0])
        source(port, 1, _BIG, 1)
        after, high = map(int, server.ask("heap").split())
    # In a mail there is its session; what matters is that its size is not the mail's.
    yield Row(
        "heap in a mail of 20 MB, and behind it",
        f"{high - before:+,d} and {after - before:+,d} B",
        goal="below 16 KB, 0",
        met=high - before < 16384 and after - before < 512,
    )
