"""Runs the benchmarks and prints one table. The figures are no tests: the exit status is 0."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.metadata import version

from . import accept, client, flash, gateway, heap, relay, spool, trips, wake
from .tools import Bench, Missing, Row

BENCHES = {
    "accept": accept.accept,
    "accept-queue": accept.accept_queue,
    "big": accept.big,
    "client": client.client,
    "trips": trips.trips,
    "relay": relay.relay,
    "heap": heap.heap,
    "flash": flash.flash,
    "spool": spool.spool,
    "wake": wake.wake,
    "gateway": gateway.gateway,
}


def header(bench):
    """The line that says what was compared, and on what."""
    try:
        postfix = subprocess.run(
            ["/usr/sbin/postconf", "-dh", "mail_version"], capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        postfix = ""
    micropython = ".".join(map(str, bench.micropython.version))
    return (
        f"micropython {micropython}, python {platform.python_version()},"
        f" aiosmtpd {version('aiosmtpd')}, postfix {postfix or '(not installed)'};"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    )


def measure(name, bench):
    """The rows of one benchmark. What goes wrong becomes a row, and is shown."""
    rows = []
    try:
        for row in BENCHES[name](bench):
            rows.append(row)
    except Missing as e:
        rows.append(Row(name, ratio=str(e)))
    except Exception as e:
        traceback.print_exc()
        rows.append(Row(name, ratio=f"failed: {e}"))
    return rows


def table(rows):
    cells = [("what", "ours", "peer", "ratio (min..max)", "goal", "met")]
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "NO"
        cells.append((row.what, row.ours, row.peer, row.ratio, row.goal, met))
    widths = [max(len(line[i]) for line in cells if i != 3 or len(line[3]) < 25) for i in range(6)]
    for line in cells:
        out = [line[0].ljust(widths[0])]
        out += [text.rjust(width) for text, width in zip(line[1:3], widths[1:3], strict=True)]
        out += [text.ljust(width) for text, width in zip(line[3:], widths[3:], strict=True)]
        print("  ".join(out).rstrip())


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="less of everything, fewer rounds")
    args = parser.parse_args()
    unknown = set(args.names) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    start = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgepost-bench-") as path:
        bench = Bench(path, args.quick)
        print(header(bench), flush=True)
        for name in args.names or BENCHES:
            print(f"  {name} ...", end="", file=sys.stderr, flush=True)
            since = time.monotonic()
            rows += measure(name, bench)
            print(f" {time.monotonic() - since:.0f} s", file=sys.stderr)
    print()
    table(rows)
    print(f"{time.monotonic() - start:.0f} s")


main()
