"""Delivery without a smart host: to the mail exchangers of each recipient's domain (RFC 5321 section 5.1, RFC 7505).

The domains that have the same exchangers are served in one session. An exchanger that cannot be reached or defers
(4xx) is followed by the next, up to five in an attempt; what all of them defer waits, what one refuses is over. Where
no name server can be reached the network is dead, and that costs no attempt.

TLS is opportunistic (RFC 7435): used when it is offered, with whatever certificate. Nobody knows beforehand which
exchangers have TLS, and their names come from unsigned replies: who can forge those can read the mail. So the
configuration has to say it in words.

May use: relay, client, dns, stream. Loaded only where there is delivery by MX.
"""

import errno
import random

from . import const, dns
from .client import Client, SessionError
from .queue import Damaged
from .relay import Job, Relay, SmartHost
from .reply import SMTPError
from .stream import TLS, client_context, sleep_ms
from .waiting import NOBODY, Verdict

MX = const(15)

_ROUND = const(16)  # mails that are looked at together: each is some 500 octets of heap
_HOSTS = const(5)  # exchangers that are tried in an attempt
_BREAKS = const(3)  # sessions that break, until all mail that was on its way then is deferred
_HELD = const(0x3FFFFFFF)  # as in queue
_OURS = "%s is this gateway, which has no mailboxes"
_FRESH = const(60)  # seconds for which a route, or the trouble with one, is not asked for again


def _exchange(reply, at):
    """(preference, host) of an MX record, and what follows it (RFC 1035 3.3.9). host is "" for the null MX, and "?" for
    what is no host name, an address among them (RFC 2181 10.3): it does not spoil the others."""
    name, end = dns._name(reply, at + 2)
    labels = []
    i = 0
    while name[i]:
        labels.append(name[i + 1 : i + 1 + name[i]])
        i += 1 + name[i]
    bad = [part for part in labels if part.strip(dns._LABEL)] or labels and labels[-1].isdigit()
    return (reply[at] << 8 | reply[at + 1], "?" if bad else str(b".".join(labels), "utf-8")), end


dns.READ[MX] = _exchange


async def exchangers(resolver, domain, own):
    """[(preference, host)] to which mail for `domain` (str, in lower case) goes, the best first, never empty; host: a
    name or an address. own: our name, at which the list ends, or the mail would come back.

    Raises SMTPError: 4xx when that cannot be told now, 5xx when there is nobody.
    """
    if domain[:1] == "[":  # RFC 5321 4.1.3
        ip = domain[6:-1] if domain[1:6] == "ipv6:" else domain[1:-1]
        if ip[:4] == "127." or ip in ("::1", "0.0.0.0", "::"):
            raise SMTPError(554, "5.4.6", _OURS % domain)
        return [(0, ip)]
    if len(domain) != len(domain.encode()):
        from .utf8 import a_label

        domain = ".".join([a_label(label) for label in domain.split(".")])
    if domain == "localhost" or domain.endswith(".localhost"):  # RFC 6761 6.3: that is we, and nobody is asked
        raise SMTPError(554, "5.4.6", _OURS % domain)
    try:
        if domain.rsplit(".", 1)[-1].isdigit():
            raise ValueError
        found, error = await resolver.look(dns.encode(domain), MX)
    except ValueError:
        raise SMTPError(550, "5.1.2", "%s is no domain" % domain)
    if found:
        if len(found) == 1 and not found[0][1]:
            raise SMTPError(556, "5.1.10", "%s takes no mail at all, says its null MX (RFC 7505)" % domain)
        mine = [preference for preference, host in found if host == own]
        if mine:
            found = [item for item in found if item[0] < min(mine)]
            if not found:
                raise SMTPError(554, "5.4.6", "%s has its mail sent to this gateway, which has no mailboxes" % domain)
        # Those of the same preference in any order.
        found = [(item[0], random.getrandbits(16), item[1]) for item in found if item[1] not in ("", "?", "localhost")]
        if not found:
            raise SMTPError(550, "5.4.4", "none of the mail exchangers of %s is a host" % domain)
        found.sort()
        return [(item[0], item[2]) for item in found[:_HOSTS]]
    if error[0] == errno.ENOENT:
        if domain == own:
            raise SMTPError(554, "5.4.6", _OURS % domain)
        try:
            await resolver.resolve(domain)
            return [(0, domain)]
        except OSError as e:
            error = e.args
        if error[0] == errno.ENOENT:
            raise SMTPError(550, "5.1.2", "%s has neither a mail exchanger nor an address" % domain)
    raise SMTPError(451, "4.4.3", "%s: %s" % (domain, error[1]))


class Opportunistic(Client):
    """A session that takes TLS when it is offered, and goes on without it when it is not."""

    def start(self, security, tls=None, user="", password="", auth=None):
        yield from Client.start(self, "none")
        if not tls[0] or "STARTTLS" not in self.ext:
            return
        io = self.io
        try:
            reply = yield from self.ask(b"STARTTLS")
            if reply[0] != 220:
                return
            io.context = tls
            yield TLS
            self.feed = self.feed.__class__()
            yield from self.hello()
        except SMTPError as e:
            raise SessionError("reply", "its answer makes no sense: " + e.text)
        except (OSError, ValueError, EOFError) as e:
            raise SessionError("tls" if io.shaking else "lost", "TLS failed: %s" % e)


class Exchanger(SmartHost):
    """One mail exchanger, as a next hop."""

    kind = Opportunistic
    opportunistic = True
    why = None  # the SessionError of the last attempt

    def context(self):
        return client_context((), False) if self.opportunistic else None


class Parcel:
    """A mail on its way to several domains. Until all of them were asked it is ours, and what they refuse is `said`."""

    def __init__(self, queue, mail):
        self.mail = mail
        self.said = {}  # number of a recipient: (reply, host)
        self.asked = None  # the Exchanger that was given it last
        self.todo = {}  # domain: bit set of its recipients
        over = queue.state(mail.key)
        over = over[0] | over[1]
        for n, to in enumerate(mail.meta["r"]):
            if not over >> n & 1:
                domain = to.rpartition("@")[2].lower()
                self.todo[domain] = self.todo.get(domain, 0) | 1 << n

    def bits(self, domains):
        bits = 0
        for domain in domains:
            bits |= self.todo.get(domain, 0)
        return bits


class Direct(Relay):
    """A relay that delivers by MX. hosts: one SmartHost, whose rates and `sender` count for all exchangers, with
    security "opportunistic" or "none" and their port. resolver: a dns.Resolver.

    May be set: kept, domains (dict or list) whose mail waits until it is fetched.
    """

    kept = ()

    def __init__(self, queue, hosts, *more):
        Relay.__init__(self, queue, hosts, *more)
        self.resolver = None
        self.parcels = []
        self.routes = {}  # domain: what exchangers() gives, or the SMTPError
        self.since = 0
        self.domains = ()  # those of the session at hand
        self.blame = None  # the parcel at which it broke
        self.breaks = 0

    def throttled(self, host, reply):
        return False  # it is deferred like anything else: other hosts are none of its business

    def is_about_sender(self, job, code, enhanced, text):
        return False

    def trouble(self, host, e):
        host.why = e
        told = "%s: %s" % (host.host, e)
        if told != self.told:
            self.told = told
            self.log("mail exchanger %s" % told)

    async def open(self, host):
        session = await Relay.open(self, host)
        if not session and host.opportunistic and getattr(host.why, "reason", "")[:3] == "tls":
            host.opportunistic = False
            self.log("mail exchanger %s: in the clear, then" % host.host)
            session = await Relay.open(self, host)
        return session

    async def session(self):
        """Delivers all that is due. True when that went well, False where the network is dead, None when nothing may be
        sent now."""
        for key in [p.mail.key for p in self.parcels]:
            self.back(key)  # the last time it was broken off
        self.parcels = []
        self.breaks = 0
        entry = self.hosts[0]
        while True:
            if entry.wait(self.queue.uptime()) or self.ending:
                for p in list(self.parcels):
                    self.put_off(p)
                return None
            self.fill()
            domain = ""
            for p in self.parcels:
                for name in sorted(p.todo, key=lambda d, todo=p.todo: todo[d] & -todo[d]):  # as they stand in the mail
                    domain = domain or name
                    if not await self.known(name):
                        for p in list(self.parcels):
                            self.put_off(p)
                        return False
            if not domain:
                return True
            route = self.routes[domain]
            if isinstance(route, SMTPError):
                self.verdict((domain,), (route.code, route.enhanced, route.text), NOBODY)
                continue
            where = sorted(route)
            self.domains = [d for d, r in self.routes.items() if not isinstance(r, SMTPError) and sorted(r) == where]
            if not await self.deliver(domain, route):
                for p in list(self.parcels):
                    self.put_off(p)
                return False

    async def known(self, domain):
        """Sees to it that the route to a domain is known, or why there is none. False where the network is dead."""
        now = self.queue.uptime()
        if now - self.since > _FRESH:
            self.routes = {}
            self.since = now
        if domain not in self.routes:
            if domain in self.kept:
                self.routes[domain] = SMTPError(450, "4.2.1", "the mail waits until it is fetched")
                return True
            try:
                self.routes[domain] = await exchangers(self.resolver, domain, self.name.lower())
            except SMTPError as e:
                self.routes[domain] = e
                return e.enhanced != "4.4.3" or self.answered(e.text)
        return True

    def answered(self, text):
        """Whether a name server has said something, if only that it knows nothing."""
        if " says " in text:
            return True
        if text != self.told:
            self.told = text
            self.log("%s. %d mails wait" % (text, len(self.queue)))
        return False

    async def deliver(self, domain, route):
        """To the exchangers of one route, one after the other. False where the network is dead."""
        entry = self.hosts[0]
        hosts = []
        opened = False
        why = None
        for _, name in route:
            host = Exchanger(name, entry.port, "none", sender=entry.sender)
            host.opportunistic = entry.security == "opportunistic"
            hosts.append(host)
            slots = self.slots if host.opportunistic else None
            self.given = 0
            self.blame = None
            try:
                while slots and not slots.take(self):
                    await sleep_ms(100)
                await self.session_with(host)
            finally:
                if slots:
                    slots.give(self)
            opened = opened or self.given
            if self.blame:
                self.breaks += 1
            why = host.why or why
            if not self.waiting(hosts, opened):
                return True
        if not opened and domain[0] != "[" and not [h for h in hosts if getattr(h.why, "reply", None)]:
            try:
                await self.resolver.query(dns.encode(route[0][1]), MX)
            except OSError as e:
                if not self.answered(e.args[1]):
                    return False
        reply = getattr(why, "reply", None)
        if reply:
            why = "%d %s %s" % reply
        lost = 451, "4.4.2" if opened else "4.4.1", "no session with %s: %s" % (host.host, why)
        for p, bits in self.waiting(hosts, opened):
            for n in range(len(p.mail.meta["r"])):
                if bits >> n & 1 and n not in p.said:
                    p.said[n] = lost, host if reply else NOBODY
            self.clear(p, bits)
        if not opened:
            e = SMTPError(*lost)
            for d in self.domains:
                self.routes[d] = e
        return True

    def waiting(self, hosts, opened):
        """[(parcel, bit set)] of what these hosts were to have, and nobody has taken or refused."""
        items = [(p, p.bits(self.domains)) for p in self.parcels if p.asked in hosts or not opened]
        return [item for item in items if item[1]]

    # -- mails

    def fill(self):
        """Takes what is due, as far as there is room."""
        while len(self.parcels) < _ROUND and not self.ending:
            try:
                mail = self.queue.take()
            except Damaged as e:
                self.log("%s: set aside, the rest goes on" % e)
                continue
            if not mail:
                break
            if len(self.parcels) >= self.window:
                mail.close()  # small ones are in memory
            self.parcels.append(Parcel(self.queue, mail))
            self.parcels.sort(key=lambda p: p.mail.key)

    def next(self):
        host = self.host
        now = self.queue.uptime()
        entry = self.hosts[0]
        n = self.given
        if self.ending or entry.wait(now) or n and (
                n == entry.per_session or n >= self.window and self.slots and self.slots.line):
            return None
        self.fill()
        for p in self.parcels:
            bits = p.bits(self.domains)
            if bits and p.asked is not host:
                p.asked = host
                self.given += 1
                for rate in entry.rates:
                    rate.count(now)
                p.mail.rewind()
                return Job(self, p.mail, host, ~bits)

    def settled(self, job, results):
        job.mail.close()
        for p in self.parcels:
            if p.mail is job.mail:
                break
        else:
            return Relay.settled(self, job, results)
        good = []
        over = 0
        if results.count(None) == len(results):
            # The session broke. The first mail without an answer may be what does it: the others get another one, as
            # long as there is hope.
            if hasattr(job, "taken") and not self.blame:
                self.blame = p
            elif self.breaks < _BREAKS:
                p.asked = None
        for n, reply in zip(job.index, results):
            if not reply:
                continue
            code = reply[0]
            if code == 503 or 530 <= code < 540:
                reply = (450,) + reply[1:]  # as in relay: no fault of this mail
            if reply[0] < 300:
                good.append((n, reply, job.host))
            else:
                p.said[n] = reply, job.host
                if reply[0] >= 500:
                    over |= 1 << n
        self.record(p, good, job.dsn)
        self.clear(p, over)

    def verdict(self, domains, reply, host):
        """The same reply for all recipients in some domains."""
        for p in list(self.parcels):
            bits = p.bits(domains)
            for n in range(len(p.mail.meta["r"])):
                if bits >> n & 1:
                    p.said[n] = reply, host
            if bits:
                self.clear(p, bits)

    def record(self, p, items, dsn):
        """Records who has the mail, at once; what is left of it stays ours."""
        bits = 0
        for n, _, _ in items:
            bits |= 1 << n
            p.said.pop(n, None)
        if bits:
            job = Verdict(p.mail, items)
            job.dsn = dsn
            try:
                Relay.settled(self, job, job.results)
                if p.said or p.bits(p.todo) & ~bits:
                    queue = self.queue
                    i = queue.row(p.mail.key)
                    queue.rows[i + 1] = _HELD  # ours again
                    p.mail.path = queue.path + "/" + queue.name_now(i)  # its state is in its name
            except KeyError:  # it was displaced
                p.said = {}
                p.todo = {}
            self.clear(p, bits)

    def clear(self, p, bits):
        """These recipients need nobody any more in this attempt. With the last of them it is over, and what was said is
        recorded: then one bounce tells of all who were refused."""
        for domain in list(p.todo):
            p.todo[domain] &= ~bits
            if not p.todo[domain]:
                p.todo.pop(domain)
        if p.todo or p not in self.parcels:
            return
        self.parcels.remove(p)
        if p.said:
            job = Verdict(p.mail, [(n, p.said[n][0], p.said[n][1]) for n in sorted(p.said)])
            try:
                Relay.settled(self, job, job.results)
            except KeyError:
                pass

    def put_off(self, p):
        """The network is dead: nothing is recorded, unless the mail is too old."""
        self.parcels.remove(p)
        key = p.mail.key
        try:
            attempts = self.queue.rows[self.queue.row(key) + 2]
            if self.age(p.mail, attempts) < self.expire:
                return self.back(key)
            lost = 451, "4.4.1", "there is no connection to the network"
            items = [(n, p.said.get(n, (lost,))[0], NOBODY) for n in range(len(p.mail.meta["r"]))
                     if n in p.said or p.bits(p.todo) >> n & 1]
            job = Verdict(p.mail, items)
            Relay.settled(self, job, job.results)
        except KeyError:
            pass

    def back(self, key):
        try:
            self.queue.release(key)
        except KeyError:
            pass
