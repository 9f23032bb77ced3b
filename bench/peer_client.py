"""The peer of our client, smtplib, with the same arguments and the same output:
python -m bench.peer_client HOST PORT COUNT OCTETS one|alert [CA USER PASSWORD]

`alert` sends what the relay sends: all header fields that an alert has, which a mail server looks at, too.
"""

import smtplib
import ssl
import sys
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

SENDER = "bench@example.com"
RCPTS = ["someone@example.com"]


def plain(octets):
    return b"Subject: bench\r\n\r\n" + (b"x" * 62 + b"\r\n") * max(1, octets // 64)


def alert(octets, number):
    message = EmailMessage(SMTP)
    message["From"] = SENDER
    message["To"] = RCPTS[0]
    message["Subject"] = "bench"
    message["Date"] = formatdate(1800000000)
    message["Auto-Submitted"] = "auto-generated"
    message["Message-ID"] = f"<{number:08x}.bench@bench.example.com>"
    message.set_content("x" * 60 + "\n")
    head = message.as_bytes()
    return head + b"x" * max(0, octets - len(head) - 2) + b"\r\n"


def main(host, port, count, octets, what, ca=None, user="", password=""):
    if what == "alert":
        messages = [alert(octets, n) for n in range(count)]
    else:
        messages = [plain(octets)] * count
    if ca:
        with open(ca, "rb") as f:
            context = ssl.create_default_context(cadata=f.read())
    start = time.perf_counter()
    session = smtplib.SMTP(host, port, "bench.example.com")
    session.ehlo()
    if ca:
        session.starttls(context=context)
        session.login(user, password)
    ready = time.perf_counter()
    for message in messages:
        session.sendmail(SENDER, RCPTS, message)
    end = time.perf_counter()
    session.quit()
    print((end - start) * 1000, (end - ready) * 1000)


_, host, port, count, octets, *more = sys.argv
main(host, int(port), int(count), int(octets), *more)
