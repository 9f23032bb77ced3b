"""Power cuts: the gateway is killed again and again while mail goes through it. What it answered
250 for arrives; twice arrives only what was in flight.
"""

import random
import smtplib
import threading
from collections import Counter

from harness import BOARD, PATIENCE, mail

MAILS, KILLS, CLIENTS, WINDOW = 200, 20, 4, 5
SEED = 20261123


class Clients:
    """Devices that send numbered mails, each again until it got its 250; every attempt is told
    apart by its subject, "mail N, attempt A".

    They may begin mail number N only once `permit` has allowed N mails, so that every life of the
    gateway has some of them in its hands when it ends.
    """

    def __init__(self, port):
        self.port = port
        self.accepted = set()  # subjects that got their 250
        self.failure = None
        self.changed = threading.Condition()
        self.allowed = self.next = 0
        self.over = False
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def permit(self, count):
        with self.changed:
            self.allowed += count
            self.changed.notify_all()

    def wait_accepted(self, count):
        with self.changed:
            enough = self.changed.wait_for(
                lambda: len(self.accepted) >= count or self.failure, PATIENCE
            )
        assert enough and not self.failure, (count, len(self.accepted), self.failure)

    def end(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def run(self):
        device = None
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.over or self.next < self.allowed)
                if self.over:
                    break
                number = self.next
                self.next += 1
            attempt = 0
            while not self.over:
                attempt += 1
                subject = f"mail {number}, attempt {attempt}"
                try:
                    if device is None:
                        device = smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE)
                    self.send(device, number, subject)
                except (OSError, smtplib.SMTPException) as e:
                    refused = isinstance(e, smtplib.SMTPResponseException) and e.smtp_code > 0
                    if refused and e.smtp_code != 421:
                        with self.changed:
                            self.failure = e
                            self.changed.notify_all()
                        return
                    if device:
                        device.close()
                    device = None
                    continue
                with self.changed:
                    self.accepted.add(subject)
                    self.changed.notify_all()
                break
        if device:
            device.close()

    @staticmethod
    def send(device, number, subject):
        body = f"{number:>70}\r\n".encode() * (1 + number * 37 % 80)  # up to 6 KB, one block or two
        head = f"From: a@example.com\r\nSubject: {subject}\r\n\r\n".encode()
        device.sendmail("a@example.com", ["b@example.com"], head + body)


def test_power_cuts_lose_no_mail_and_double_only_what_was_in_flight(gateway, smarthost):
    dice = random.Random(SEED)
    host = smarthost()
    one = gateway(BOARD + "[queue]\nmax_bytes = '1MB'\n", host)
    one.stop()
    clients = Clients(one.port)
    tick = threading.Event()  # never set: it only lets a random time go by
    for life in range(KILLS):
        # While it starts, while devices send, or while the smart host takes mail.
        when = ("start", "receive", "deliver", "deliver")[dice.randrange(4)]
        there = len(host.mails)
        one.start(ready=when != "start")
        clients.permit(MAILS // KILLS)
        if when == "receive":
            clients.wait_accepted(life * (MAILS // KILLS) * 2 // 3)
        elif when == "deliver":
            host.wait_for(there + dice.randrange(1, MAILS // KILLS + 1), PATIENCE)
        tick.wait(dice.random() * 0.03)
        one.kill()
    one.start()
    clients.wait_accepted(MAILS)
    clients.end()
    accepted = clients.accepted
    assert len(accepted) == MAILS

    # The oldest goes first: when a last mail has arrived, nothing waits any more.
    one.inject(mail("the last one"))
    one.wait_for("delivered to office@example.com")
    mark = one.mark()
    assert one.stop() == 0
    one.start()
    assert one.stop() == 0
    assert "mails wait" not in "\n".join(one.messages.lines[mark:])

    copies = Counter(got.message["Subject"] for got in host.mails)
    assert copies["the last one"] == 1
    lost = accepted - set(copies)
    assert not lost
    again = sum(copies.values()) - len(copies)
    unasked = len(set(copies) - accepted) - 1
    print(
        f"{MAILS} mails, {KILLS} power cuts: none lost, {again} arrived twice,"
        f" {unasked} arrived whose 250 the cut took away"
    )
    assert again <= KILLS * WINDOW
    assert "Traceback" not in one.log()
