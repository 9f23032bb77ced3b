"""How much of a board's heap each part takes, on the 64-bit port, where it is about twice a board's."""

from .gateway import Gateway
from .tools import limit_row, sink

_KB = 1024
_PARTS = (
    ("client", ("smtp.client",), 24),
    ("client and message", ("smtp.client", "smtp.message"), 36),
    ("client, message and mime", ("smtp.client", "smtp.message", "smtp.mime"), 45),
    ("server", ("smtp.server",), 48),
    ("relay, queue, client, message", ("smtp.relay", "smtp.queue"), None),
)


def heap(bench):
    """gc.mem_alloc() after gc.collect()."""

    def used(*modules):
        with bench.board("heap.py", *modules, heap="1m") as process:
            return int(process.read())

    base = used("asyncio", "socket", "ssl")  # what every board program has
    for what, modules, goal in _PARTS:
        yield limit_row(f"heap beyond asyncio, {what}", (used(*modules) - base) / _KB, base / _KB, goal, "KB", 1, 0.05)
    with sink() as port, Gateway(bench, port, "1m", 1 << 20) as gateway:
        at_start = gateway.heap
    yield limit_row("heap, whole gateway at start / asyncio", at_start / _KB, base / _KB, None, "KB", 1)
