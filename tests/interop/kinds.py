"""Mails of every kind that a relay could damage: {what it is: the mail as bytes with CRLF}. Runs on
MicroPython, too.
"""


def _mail(subject, body, more=b""):
    return (
        b"From: Printer <printer@example.com>\r\nTo: <office@example.com>\r\n"
        b"Date: Sun, 22 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@printer.example>\r\n"
        b"Subject: " + subject + b"\r\n" + more + b"\r\n" + body
    )


def _noise(octets):
    """Printable and far from regular, the same each time."""
    out = b""
    x = 1
    line = bytearray(76)
    while len(out) < octets:
        block = b""
        for _ in range(64):
            for i in range(74):
                x = (x * 1103515245 + 12345) & 0x7FFFFFFF
                line[i] = 46 + (x >> 16) % 77  # a dot is among them, at the start of lines, too
            line[74] = 13
            line[75] = 10
            block += line
        out += block
    return out[: octets - 2] + b"\r\n"


def kinds(big=1048576):
    """The mails; `big` octets has the big one."""
    return {
        "text": _mail(b"text", b"one line\r\n"),
        "8-bit": _mail(
            b"8-bit",
            "Zeitüberschreitung, 23 °C, 日本語\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
            b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: 8bit\r\n",
        ),
        "long lines": _mail(
            b"long lines", b"a" * 998 + b"\r\n" + b".b" * 2500 + b"\r\n" + b"c" * 4095 + b"\r\nend\r\n"
        ),
        "dots": _mail(
            b"dots", b".\r\n..\r\n...\r\n.a\r\na.\r\n\r\n.\r\n\r\n" + b".\r\n" * 2000 + b". \r\n"
        ),
        "empty body": _mail(b"empty body", b""),
        "empty lines at the end": _mail(b"empty lines at the end", b"text\r\n\r\n\r\n"),
        "non-ASCII subject": _mail(
            b"=?utf-8?q?Zeit=C3=BCberschreitung?=\r\n =?utf-8?b?5pel5pys6Kqe?=", b"see above\r\n"
        ),
        "non-ASCII subject, bare": _mail("Zeitüberschreitung".encode(), b"see above\r\n"),
        "header section of 20 KB": _mail(
            b"header section of 20 KB", b"text\r\n", b"X-Long: " + b"word word\r\n " * 2000 + b"end\r\n"
        ),
        "1 MB": _mail(b"1 MB", _noise(big)),
    }
