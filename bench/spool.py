"""How long a board with a full spool takes to start, and how much of its heap that costs."""

from .tools import Row, limit_row


def spool(bench):
    """1,000 mails in an image of 5 MB, in the heap that a gateway has."""
    image = bench.path / "spool.img"
    count = bench.size(1000)
    with bench.board("spool.py", "fill", image, count) as process:
        process.read()
    took, heap, each = [], [], []
    for _ in range(3):
        copy = bench.path / "copy.img"
        copy.write_bytes(image.read_bytes())
        with bench.board("spool.py", "start", copy, heap="256k") as process:
            for values, text in zip((took, heap, each), process.read().split(), strict=True):
                values.append(float(text))
    yield limit_row(f"start with {count:,} mails in 5 MB", sorted(took)[1] / 1000, None, 2, "s", 2)
    yield limit_row("  heap for each but the first", sorted(heap)[1], None, 64, "B", slack=0.5)
    yield Row("  queue and flash, for each when all are delivered", f"{sorted(each)[1]:.2f} ms")
