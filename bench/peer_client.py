"""The peer of our client, smtplib, with the same arguments and the same output:
python -m bench.peer_client HOST PORT COUNT OCTETS one [CA USER PASSWORD]
"""

import smtplib
import ssl
import sys
import time


def main(host, port, count, octets, ca=None, user="", password=""):
    line = b"x" * 62 + b"\r\n"
    message = b"Subject: bench\r\n\r\n" + line * max(1, octets // 64)
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
    for _ in range(count):
        session.sendmail("bench@example.com", ["someone@example.com"], message)
    end = time.perf_counter()
    session.quit()
    print((end - start) * 1000, (end - ready) * 1000)


_, host, port, count, octets, _, *more = sys.argv
main(host, int(port), int(count), int(octets), *more)
