"""How fast our client hands over mail, beside smtplib on CPython."""

from .tools import ratio_row, sink


def times(process):
    """What the two clients print: ms from before the connection, ms in the ready session."""
    with process:
        return tuple(map(float, process.read().split()))


def client(bench):
    """1 KB mails in one session to smtp-sink."""
    count = bench.size(2000)
    with sink() as port:
        args = ("127.0.0.1", port, count, 1024)
        for way, what in (("batch", "as the relay"), ("one", "by send()")):
            ours, peer = bench.rates(
                lambda way=way: count / times(bench.board("client.py", *args, way))[1] * 1000,
                lambda: count / times(bench.python("bench.peer_client", *args, "one"))[1] * 1000,
            )
            yield ratio_row(f"client {what}, 1 KB / smtplib", ours, peer, 1, "mail/s")
