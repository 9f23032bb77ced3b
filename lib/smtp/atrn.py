"""On-demand mail relay (RFC 2645), the provider's end: after AUTH a peer says ATRN, and on the same connection the
roles turn: we are the client then, and it gets the mail that waits for its domains. odmr is the other end.

    serve(listener, relay, {"board7": ["board7.example.com"]})

The mail for such domains stays here until it is fetched: `Keeping` is a Relay that does not send it on.

May use: server, client, relay, etrn, waiting. Loaded only for a listener that offers it.
"""

from .address import valid_domain
from .client import Client, SessionError
from .etrn import offer
from .relay import Job, Relay, SmartHost
from .reply import SMTPError
from .stream import PAUSE, sleep_ms
from .waiting import NOBODY, Bag, Verdict, split, take, waiting

WAITS = 450, "4.2.1", "the mail waits until it is fetched"


class Keeping(Relay):
    """A relay that leaves the mail for the domains `kept` to ATRN: it is deferred, so that senders hear when it is
    late, and it does not stay for ever."""

    kept = ()

    def is_kept(self, domain):
        return domain in self.kept

    async def session(self):
        queue = self.queue
        for key, bits, rest in waiting(queue, self.is_kept):
            await sleep_ms(0)
            try:
                if not rest and queue.rows[queue.row(key) + 1] <= queue.uptime():
                    self.put_off(take(queue, key), bits)
            except KeyError:
                pass  # it has gone meanwhile
        due = queue.due()
        return True if due is None or due > queue.uptime() else await Relay.session(self)

    def next(self):
        while True:
            job = Relay.next(self)
            if not job:
                return None
            mail = job.mail
            bits, rest = split(self.queue, mail.key, mail.meta["r"], self.is_kept)
            if not bits:
                return job
            if rest:
                mail.rewind()
                return Job(self, mail, job.host, bits)
            self.put_off(mail, bits)

    def put_off(self, mail, bits):
        if not mail:
            return
        job = Verdict(mail, [(n, WAITS, NOBODY) for n in range(len(mail.meta["r"])) if bits >> n & 1])
        was = self.onward
        self.onward = False
        try:
            self.settled(job, job.results)
        finally:
            self.onward = was


def serve(listener, relay, domains):
    """ATRN on `listener`. domains: for each user the list of domains (lower case) whose mail is his."""
    offer(listener, b"ATRN", lambda session, arg: atrn(session, arg, relay, domains))


def atrn(session, arg, relay, domains):
    if session.user is None:
        raise SMTPError(530, "5.7.0", "authentication required")
    if session.mail or session.sink:
        raise SMTPError(503, "5.5.1", "not within a mail")
    if session.io.lo < session.io.hi:
        raise SMTPError(503, "5.5.1", "wait for the answer to ATRN")
    mine = domains.get(session.user, ())
    asked = mine
    if arg:
        try:
            asked = [name.strip() for name in str(arg, "utf-8").lower().split(",")]
        except UnicodeError:
            asked = [""]
        if [name for name in asked if not valid_domain(name)]:
            raise SMTPError(501, "5.5.4", "say ATRN domain,domain")
    if not asked or [name for name in asked if name not in mine]:
        raise SMTPError(450, "4.7.1", "ATRN request refused: not all of these domains are yours")
    return turn(session, relay, asked)


def turn(session, relay, asked):
    """Generator: the rest of the session, with its roles turned."""
    io = session.io
    on = session.on
    host = SmartHost(session.helo or session.peer, 366, "none")
    bag = Bag(relay, host, lambda domain: domain in asked)
    try:
        for _ in bag.find():
            yield PAUSE
    except OSError as e:
        on.log("ATRN: %s" % e)
        raise SMTPError(451, "4.3.0", "unable to process ATRN now")
    if not bag.keys:
        raise SMTPError(453, "4.2.0", "you have no mail")
    session.open = False  # nothing else follows
    io.out += b"250 2.0.0 OK now reversing the connection\r\n"
    on.log("%s fetches %d mails for %s" % (session.user, len(bag.keys), ", ".join(asked)))
    try:
        client = Client(io, on.domain)
        yield from client.start("none")
        bag.ext = client.ext
        yield from client.mails(bag)
        yield from client.quit()
    except SessionError as e:
        on.log("the session with %s that fetches its mail: %s; what is left waits" % (session.user, e))
