"""The whole gateway, as it runs on a board, through many mails and one that is big."""

import json
import shutil
import smtplib
import sys
import threading
import time

from .tools import HERE, PATIENCE, Process, Row, free_port, sink

_BIG = 5_000_000
_FLASH = 8 << 20
_HEAP = 256 << 10
_SIZES = (200, 500, 1000, 300, 2000, 4000, 250, 8000, 700, 20000)
_DEVICES = 4


class Gateway:
    """A gateway process that relays to a smart host on this machine: its `port`, its `heap` in use."""

    def __init__(self, bench, smarthost, heap, flash):
        self.port = free_port()
        self.path = bench.path / f"gateway-{self.port}"
        self.path.mkdir()
        firmware = self.path / "firmware"
        shutil.copytree(bench.built, firmware)
        shutil.copy(HERE / "board" / "heapwatch.py", firmware / "drivers")
        config = self.path / "config.json"
        config.write_text(json.dumps(self.config(smarthost, flash)))
        command = [bench.micropython.path, "-X", f"heapsize={heap}", firmware / "boards" / "unix.py"]
        command += [self.path / "flash.img", config]
        self.process = Process(list(map(str, command)), {"EDGEPOST_FLASH_SIZE": str(flash)})
        self.heap = 0
        self.log = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.follow)
        self.reader.start()

    def config(self, smarthost, flash):
        return {
            "board": {"name": "bench", "domain": "bench.example.com", "tz": [0]},
            "smarthost": [
                {
                    "host": "127.0.0.1",
                    "port": smarthost,
                    "security": "none",
                    "verify": "full",
                    "ca": [],
                    "username": "",
                    "password": "",
                    "sender": "",
                }
            ],
            "mail": {"from": "bench@example.com", "to": ["oncall@example.com"], "admin": ""},
            "listener": [
                {
                    "address": "127.0.0.1",
                    "port": self.port,
                    "tls": "none",
                    "cert": "",
                    "key": "",
                    "allow": ["127.0.0.0/8"],
                    "users": {},
                    "auth_in_clear": False,
                }
            ],
            "queue": {"max_bytes": flash - flash // 8, "max_message": 10485760},
            "sensor": [
                {
                    "name": "heap",
                    "driver": "heapwatch",
                    "path": "",
                    "every": 0.05,
                    "above": 1,
                    "hysteresis": 0,
                    "to": [],
                    "priority": "normal",
                }
            ],
        }

    def follow(self):
        for line in self.process.run.stdout:
            if line.startswith("heap "):
                self.heap = int(line.split()[1])
                self.ready.set()
            else:
                self.log.append(line.strip())

    def wait_for_delivered(self, count):
        """Returns when so many mails were delivered; RuntimeError with the end of the log if not."""
        end = time.monotonic() + PATIENCE
        while sum(" delivered to " in line for line in self.log) < count:
            if time.monotonic() > end or self.process.run.poll() is not None:
                tail = "\n  ".join(self.log[-5:])
                raise RuntimeError(f"not all of {count} mails were delivered; the log ends:\n  {tail}")
            time.sleep(0.02)

    def __enter__(self):
        if not self.ready.wait(PATIENCE):
            self.__exit__()
            raise RuntimeError("the gateway does not start: " + " / ".join(self.log[-3:]))
        return self

    def __exit__(self, *_):
        self.process.run.kill()
        self.reader.join()
        self.process.__exit__()


def _mail(ident, octets):
    return f"Subject: bench-{ident}\r\n\r\n".encode() + (b"x" * 62 + b"\r\n") * (octets // 64)


class Device(threading.Thread):
    """Sends mails in one connection. What is refused for now, and what was under way when the
    connection broke, is sent again: `again` counts how often, `error` is why it gave up.
    """

    def __init__(self, port, numbers):
        super().__init__()
        self.port, self.numbers = port, numbers
        self.again = 0
        self.error = None

    def run(self):
        left = list(reversed(self.numbers))
        end = time.monotonic() + PATIENCE
        while left:
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as session:
                    while left:
                        mail = _mail(left[-1], _SIZES[left[-1] % len(_SIZES)])
                        session.sendmail("device@example.com", ["someone@example.com"], mail)
                        left.pop()
            except (OSError, smtplib.SMTPException) as e:
                self.again += 1
                if time.monotonic() > end:
                    self.error = e
                    return
                time.sleep(0.1)


def gateway(bench):
    """Mails of 200 B to 20 KB over four connections, and one of 5 MB, to smtp-sink."""
    count = bench.size(1000)
    arrived = bench.path / "arrived"
    arrived.mkdir()
    arrived.chmod(0o777)
    bench.path.chmod(0o711)  # smtp-sink gives up root
    with sink("-d", f"{arrived}/%M.") as smarthost, Gateway(bench, smarthost, "256k", _FLASH) as gate:
        start = time.perf_counter()
        devices = [Device(gate.port, range(i, count, _DEVICES)) for i in range(_DEVICES)]
        for device in devices:
            device.start()
        for device in devices:
            device.join()
        taken = time.perf_counter() - start
        for device in devices:
            if device.error:
                raise RuntimeError(f"a device gave up: {device.error}; the log: {gate.log[-5:]}")
        gate.wait_for_delivered(count)
        duration = time.perf_counter() - start
        start = time.perf_counter()
        with smtplib.SMTP("127.0.0.1", gate.port, timeout=PATIENCE) as session:
            session.sendmail("device@example.com", ["someone@example.com"], _mail("big", _BIG))
        gate.wait_for_delivered(count + 1)
        big = time.perf_counter() - start
        high, log = gate.heap, gate.log
    subjects = []
    for path in arrived.iterdir():
        with path.open("rb") as f:
            subjects += [line for line in f.read(4096).splitlines() if line.startswith(b"Subject:")]
    wanted = {f"Subject: bench-{n}".encode() for n in [*range(count), "big"]}
    good = set(subjects) == wanted and len(subjects) == len(wanted)
    yield Row(
        f"gateway in 256 KB, {count} mails and one of 5 MB",
        f"{len(set(subjects))} arrived",
        goal="all, each once",
        met=good,
    )
    again = sum(device.again for device in devices)
    yield Row("  a device had to try again", f"{again} times", goal="0", met=not again)
    for line in set(line[9:] for line in log if "out of memory" in line):
        print(f"\ngateway: {line}", file=sys.stderr)
    yield Row("  taken in", f"{taken:.1f} s, {count / taken:,.0f} mail/s")
    yield Row("  delivered", f"{duration:.1f} s, {count / duration:,.0f} mail/s")
    yield Row("  the mail of 5 MB", f"{big:.1f} s, {_BIG / big / 1e6:.1f} MB/s")
    yield Row("  most heap in use", f"{high / 1024:.0f} KB", goal=f"below {_HEAP >> 10} KB")
