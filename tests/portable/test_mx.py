"""lib/smtp/mx.py: from a queue through look-ups at a name server of its own to this library's own servers."""

import asyncio

import smtp.dns as dns
from expect import eq
from play import CUTS, play, somewhere
from smtp.client import SessionError
from smtp.mx import MX, Direct, Opportunistic, exchangers
from smtp.relay import SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener, Server
from smtp.stream import Wire
from test_dns import LONG, POINTER, NameServer, reply, resolver, rr, u16, wire
from test_relay import Box, World

HERE = bytes((127, 0, 0, 1))
OWN = "gw.example.com"


def mx(domain, preference, host, ttl=300):
    return rr(domain, MX, u16(preference) + (wire(host) if isinstance(host, str) else host), ttl)


def zone(**domains):
    """A zone: for each domain (its dots written as _) a list of (preference, host)."""
    out = {}
    for domain, hosts in domains.items():
        domain = domain.replace("_", ".")
        out[domain, MX] = [mx(domain, n, host) for n, host in hosts]
    return out


class Post(World):
    """A world that delivers by MX: `await post.open(name server, a=Box(), ...)` with hosts a.example, b.example ..."""

    async def start(self, names, **boxes):
        self.names = names
        self.ports = {}
        self.tried = []
        for name, box in boxes.items():
            if box is None:
                continue
            server = Server()
            listener = Listener("mx.example.net", box, ["127.0.0.0/8"])
            port, serve = somewhere(lambda port, s=server, li=listener: s.bind("127.0.0.1", port, li))
            self.servers.append((server, asyncio.create_task(serve()), listener))
            self.ports[name + ".example"] = port
        entry = SmartHost("", 25, "opportunistic", **self.settings)
        self.relay = relay = Direct(self.queue, [entry], OWN, self.clock, "alerts@example.com", self.told.append)
        relay.admin = "admin@example.com"
        relay.resolver = resolver(names)
        really = relay.open

        async def resolve(name):
            return ["127.0.0.1"]

        async def open(host):
            self.tried.append(host.host)
            host.port = self.ports.get(host.host, 1)  # nobody listens there
            return await really(host)

        relay.resolve = resolve
        relay.open = open
        return self

    def attempts(self):
        rows = self.queue.rows
        return [rows[i + 2] for i in range(0, len(rows), 4)]


async def verdict(awaitable):
    try:
        found = await awaitable
    except SMTPError as e:
        return e.code, e.enhanced
    raise AssertionError("found %r" % (found,))


# -- which hosts


async def test_exchangers_come_by_preference_and_equal_ones_in_any_order():
    hosts = [(20, "c.example"), (10, "a.example"), (10, "b.example"), (30, "d.example")]
    seen = []
    async with NameServer(zone(x_example=hosts)) as server:
        names = resolver(server)
        await exchangers(names, "x.example", OWN)
    for _ in range(64):
        found = await exchangers(names, "x.example", OWN)  # from the cache
        eq([n for n, _ in found], [10, 10, 20, 30])
        eq([h for _, h in found[2:]], ["c.example", "d.example"])
        if found[0][1] not in seen:
            seen.append(found[0][1])
        if len(seen) == 2:
            break
    eq(sorted(seen), ["a.example", "b.example"])  # to fail by chance takes 64 tosses of a coin


async def test_an_exchangers_name_may_be_compressed_and_in_capitals():
    record = rr(POINTER, MX, u16(10) + b"\x02MX" + POINTER)
    async with NameServer({("x.example", MX): [record]}) as server:
        eq(await exchangers(resolver(server), "x.example", OWN), [(10, "mx.x.example")])


async def test_without_mx_records_the_domain_itself_is_the_host_if_it_has_an_address():
    async with NameServer({("x.example", dns.A): [rr("x.example", 1, HERE)], ("y.example", MX): 3,
                           ("y.example", dns.A): 3, ("y.example", dns.AAAA): 3}) as server:
        names = resolver(server)
        eq(await exchangers(names, "x.example", OWN), [(0, "x.example")])
        eq(await verdict(exchangers(names, "y.example", OWN)), (550, "5.1.2"))
        eq(await verdict(exchangers(names, "z.example", OWN)), (550, "5.1.2"))
        six = bytes((0x20, 1, 0xD, 0xB8)) + bytes(11) + b"\1"
        server.zone[("six.example", dns.AAAA)] = [rr("six.example", 28, six)]
        eq(await exchangers(names, "six.example", OWN), [(0, "six.example")])


async def test_an_alias_leads_to_the_exchangers_of_what_it_stands_for():
    async with NameServer({("x.example", MX): [rr("x.example", 5, "y.example"), mx("y.example", 5, "a.example")],
                           ("far.example", MX): [rr("far.example", 5, "y.example")],
                           ("y.example", MX): [mx("y.example", 5, "b.example")]}) as server:
        names = resolver(server)
        eq(await exchangers(names, "x.example", OWN), [(5, "a.example")])
        eq(await exchangers(names, "far.example", OWN), [(5, "b.example")])


async def test_a_null_mx_refuses_all_mail_and_one_among_others_is_passed_over():
    async with NameServer({("x.example", MX): [mx("x.example", 0, b"\0")],
                           ("y.example", MX): [mx("y.example", 0, b"\0"), mx("y.example", 9, "a.example")]}) as server:
        names = resolver(server)
        eq(await verdict(exchangers(names, "x.example", OWN)), (556, "5.1.10"))
        eq(await exchangers(names, "y.example", OWN), [(9, "a.example")])


async def test_what_is_no_host_name_is_passed_over():
    odd = [mx("x.example", 1, "192.0.2.1"), mx("x.example", 2, b"\x0b[192.0.2.1]\0"),
           mx("x.example", 3, b"\x03a b\x07example\0"), mx("x.example", 4, b"\x02\xff\xfe\0")]
    async with NameServer({("x.example", MX): odd + [mx("x.example", 9, "a.example")],
                           ("y.example", MX): [mx("y.example", 1, "192.0.2.1")]}) as server:
        names = resolver(server)
        eq(await exchangers(names, "x.example", OWN), [(9, "a.example")])
        eq(await verdict(exchangers(names, "y.example", OWN)), (550, "5.4.4"))


async def test_our_own_name_ends_the_list():
    async with NameServer(zone(x_example=[(5, "a.example"), (10, OWN), (10, "b.example"), (20, "c.example")],
                               y_example=[(10, OWN.upper()), (20, "c.example")])) as server:
        names = resolver(server)
        eq(await exchangers(names, "x.example", OWN), [(5, "a.example")])
        eq(await verdict(exchangers(names, "y.example", OWN)), (554, "5.4.6"))
        eq(await verdict(exchangers(names, OWN, OWN)), (554, "5.4.6"))


async def test_localhost_is_this_gateway_and_nobody_is_asked_for_it():
    names = resolver()  # of nobody
    for name in ("localhost", "a.localhost", "[127.0.0.1]", "[127.1.2.3]", "[0.0.0.0]", "[ipv6:::1]"):
        eq(await verdict(exchangers(names, name, OWN)), (554, "5.4.6"))
    async with NameServer(zone(x_example=[(5, "localhost")], y_example=[(5, "localhost"), (7, "a.example")])) as server:
        names = resolver(server)
        eq(await verdict(exchangers(names, "x.example", OWN)), (550, "5.4.4"))
        eq(await exchangers(names, "y.example", OWN), [(7, "a.example")])


async def test_address_literals_need_no_name_server():
    names = resolver()
    eq(await exchangers(names, "[192.0.2.1]", OWN), [(0, "192.0.2.1")])
    eq(await exchangers(names, "[ipv6:2001:db8::1]", OWN), [(0, "2001:db8::1")])
    for bad in ("192.0.2.1", "x..example", "a" * 64 + ".example"):
        eq(await verdict(exchangers(names, bad, OWN)), (550, "5.1.2"))


async def test_a_domain_in_utf_8_is_looked_up_as_it_stands_in_dns():
    async with NameServer(zone(**{"xn--mller-kva_example": [(1, "a.example")]})) as server:
        eq(await exchangers(resolver(server), "m\u00fcller.example", OWN), [(1, "a.example")])


async def test_a_name_server_that_cannot_tell_or_is_silent_means_later():
    async with NameServer({("x.example", MX): 2, ("y.example", MX): lambda *more: None}) as server:
        names = resolver(server)
        for name in ("x.example", "y.example"):  # never the address instead: that may be a web server
            eq(await verdict(exchangers(names, name, OWN)), (451, "4.4.3"))
        eq([kind for _, kind in server.seen if kind != MX], [])


async def test_five_exchangers_are_tried_at_most():
    many = [(n, "h%d.example" % n) for n in range(60)]
    async with NameServer(zone(x_example=many), ["x.example"]) as server:
        eq(await exchangers(resolver(server), "x.example", OWN), many[:5])
        eq(server.tcp, [("x.example", MX)])


async def test_a_forged_or_broken_reply_changes_nothing():
    def lies(server, query, peer):
        good = reply(query, [mx("x.example", 1, "a.example")])
        bad = [
            bytes((query[0] ^ 1,)) + good[1:],  # another id
            good.replace(b"\x01x\x07example", b"\x01z\x07example", 1),  # another question
            reply(query, [mx("x.example", 1, b"\xc0\x0c\xc0")]),  # too much behind the name
            reply(query, [rr("x.example", MX, u16(1) + b"\xc0\x32")]),  # a name that points at itself
            reply(query, [rr("x.example", MX, u16(1) + b"\x05evil")]),  # a name without end
            reply(query, [rr("x.example", MX, u16(1) + LONG)]),  # longer than a name may be
            reply(query, [rr("x.example", MX, b"\0")]),
            reply(query, [rr("x.example", MX, u16(1))]),
            reply(query, [mx("x.example", 1, "evil.example")])[:-3],  # cut short
            reply(query, [mx("x.example", 1, "evil.example")], count=9),
        ]
        for message in bad + [good]:
            server.udp.sendto(message, peer)

    async with NameServer({("x.example", MX): lies}) as server:
        eq(await exchangers(resolver(server), "x.example", OWN), [(1, "a.example")])


async def test_a_reply_of_64_kb_gives_what_fits_the_buffer():
    record = mx(POINTER, 7, "a.example")
    big = [record] * (65000 // len(record))
    async with NameServer({("x.example", MX): big}, ["x.example"]) as server:
        found = await exchangers(resolver(server), "x.example", OWN)
        eq(found, [(7, "a.example")] * 5)


# -- delivery


async def test_mail_goes_to_the_exchanger_of_each_domain_and_one_session_serves_a_host():
    a, b = Box(), Box()
    async with NameServer(zone(x_example=[(1, "a.example")], y_example=[(1, "a.example")],
                               z_example=[(1, "b.example")])) as names:
        post = await Post().start(names, a=a, b=b)
        post.add("1@x.example", "2@y.example", "3@z.example", "4@X.example")
        post.add("5@y.example")
        eq(await post.relay.session(), True)
        eq([m[1] for m in a.mails], [["1@x.example", "2@y.example", "4@X.example"], ["5@y.example"]])
        eq([m[1] for m in b.mails], [["3@z.example"]])
        eq((post.tried, len(post.queue)), (["a.example", "b.example"], 0))
        await post.close()


async def test_the_next_exchanger_is_asked_when_one_is_down_or_defers():
    busy = SMTPError(450, "4.2.1", "try again later")
    a, b, c = Box({"DATA": busy}), Box({"2@x.example": busy}), Box()
    async with NameServer(zone(x_example=[(1, "down.example"), (2, "a.example"), (3, "b.example"),
                                          (4, "c.example")])) as names:
        post = await Post().start(names, a=a, b=b, c=c)
        post.add("1@x.example", "2@x.example")
        eq(await post.relay.session(), True)
        eq([m[1] for box in (a, b, c) for m in box.mails], [["1@x.example"], ["2@x.example"]])
        eq((post.tried, len(post.queue)), (["down.example", "a.example", "b.example", "c.example"], 0))
        await post.close()


async def test_what_all_exchangers_defer_waits_once_and_costs_one_attempt_for_all_domains():
    busy = {"1@x.example": SMTPError(450, "4.2.0", "greylisted"), "2@y.example": SMTPError(451, "4.3.0", "busy")}
    a, b = Box(busy), Box(busy)
    async with NameServer(zone(x_example=[(1, "a.example")], y_example=[(1, "b.example")])) as names:
        post = await Post().start(names, a=a, b=b)
        post.add("1@x.example", "2@y.example", "3@x.example")
        eq(await post.relay.session(), True)
        eq([m[1] for m in a.mails + b.mails], [["3@x.example"]])
        eq((len(post.queue), post.attempts()), (1, [1]))
        assert post.queue.due() >= post.clock.up + 60, post.queue.due()
        busy.clear()
        post.clock.up += 100
        eq(await post.relay.session(), True)
        eq([m[1] for m in a.mails[1:] + b.mails], [["1@x.example"], ["2@y.example"]])
        eq(len(post.queue), 0)
        await post.close()


async def test_who_is_refused_by_one_exchanger_is_refused_and_the_others_are_served():
    a = Box({"1@x.example": SMTPError(550, "5.1.1", "no such user")})
    async with NameServer(zone(x_example=[(1, "a.example"), (2, "b.example")], null_example=[(0, b"\0")])) as names:
        post = await Post().start(names, a=a)
        post.add("1@x.example", "2@x.example", "3@null.example")
        eq(await post.relay.session(), True)
        eq([m[1] for m in a.mails], [["2@x.example"]])
        eq((post.tried, len(post.queue), post.queue.dead), (["a.example"], 0, 1))
        log = post.log()
        assert "refused for 1@x.example: 550 5.1.1" in log and "refused for 3@null.example: 556 5.1.10" in log, log
        await post.close()


async def test_a_bounce_names_the_exchanger_that_refused():
    a, b = Box({"1@x.net": SMTPError(550, "5.1.1", "no such user")}), Box()
    async with NameServer(zone(x_net=[(1, "a.example")], home_net=[(1, "b.example")])) as names:
        post = await Post().start(names, a=a, b=b)
        post.add("1@x.net", sender="boss@home.net", p="192.0.2.9", h="printer", x=1)
        eq(await post.relay.session(), True)
        eq([(m[0], m[1]) for m in b.mails], [("", ["boss@home.net"])])
        for text in (b"Remote-MTA: dns; a.example", b"Status: 5.1.1", b"no such user"):
            assert text in b.mails[0][2], text
        eq(len(post.queue), 0)
        await post.close()


async def test_one_bounce_names_for_each_recipient_who_refused_him_and_what_nobody_but_the_gateway_said():
    a, b = Box({"1@x.net": SMTPError(550, "5.1.1", "no such user")}), Box()
    b.no = {"2@home.net": SMTPError(550, "5.2.1", "he has left")}
    async with NameServer(zone(x_net=[(1, "a.example")], home_net=[(1, "b.example")], null_net=[(0, b"\0")])) as names:
        post = await Post().start(names, a=a, b=b)
        post.add("1@x.net", "2@home.net", "3@null.net", sender="boss@home.net", p="192.0.2.9", h="printer", x=1)
        eq(await post.relay.session(), True)
        ((_, _, text),) = b.mails
        text = str(text, "utf-8")
        one, two, three = text.split("Final-Recipient: ")[1:]
        for part, words in (
                (one, ("rfc822; 1@x.net", "Remote-MTA: dns; a.example", "Diagnostic-Code: smtp; 550 5.1.1")),
                (two, ("rfc822; 2@home.net", "Remote-MTA: dns; b.example", "Diagnostic-Code: smtp; 550 5.2.1")),
                (three, ("rfc822; 3@null.net", "Status: 5.1.10", "Diagnostic-Code: x-edgepost; 556 5.1.10")),
                (text, ("a.example answered: 550 5.1.1 no such", "b.example answered: 550", "This gateway says: 556"))):
            for word in words:
                assert word in part, (word, part)
        assert "Remote-MTA" not in three, three
        await post.close()


async def test_a_dead_network_costs_no_attempt_until_the_mail_is_too_old():
    async with NameServer({("x.example", MX): lambda *more: None, ("y.example", MX): [mx("y.example", 1, "a.example")]
                           }) as names:
        post = await Post().start(names)
        post.add("1@x.example", "2@y.example")
        eq(await post.relay.session(), False)  # nobody answers for x
        eq((post.attempts(), post.tried), ([0], []))
        names.zone["x.example", MX] = [mx("x.example", 1, "down.example")]
        post.clock.up += 100
        eq((await post.relay.resolver.look(dns.encode("x.example"), MX))[0], [(1, "down.example")])
        names.zone["x.example", MX] = lambda *more: None  # what is known from before leads to a host that is down
        names.zone["down.example", MX] = lambda *more: None
        eq(await post.relay.session(), False)
        eq((post.attempts(), post.tried), ([0], ["down.example"]))
        post.clock.up += 6 * 86400
        eq(await post.relay.session(), False)
        eq((len(post.queue), post.queue.dead), (0, 1))
        assert "given up for 1@x.example" in post.log(), post.log()
        await post.close()


async def test_a_host_that_is_down_while_names_are_answered_costs_an_attempt_and_is_asked_once_for_all_mails():
    async with NameServer(zone(x_example=[(1, "down.example")], y_example=[(1, "a.example")])) as names:
        box = Box()
        post = await Post().start(names, a=box)
        for n in range(20):
            post.add("%d@x.example" % n)
        post.add("b@y.example")
        eq(await post.relay.session(), True)
        eq((post.tried, post.attempts()), (["down.example", "a.example"], [1] * 20))
        eq([m[1] for m in box.mails], [["b@y.example"]])
        await post.close()


class Breaking(Box):
    def rcpt(self, envelope, address):
        if address.startswith("poison@"):
            raise EOFError("gone")


async def test_a_mail_that_breaks_the_session_is_deferred_and_the_others_pass():
    box = Breaking()
    async with NameServer(zone(x_example=[(1, "a.example")])) as names:
        post = await Post().start(names, a=box)
        post.relay.window = 1
        for name in ("poison", "b", "c", "poison", "d"):
            post.add(name + "@x.example")
        eq(await post.relay.session(), True)
        eq([m[1] for m in box.mails], [["b@x.example"], ["c@x.example"], ["d@x.example"]])
        eq(post.attempts(), [1, 1])
        assert "4.4.2" in post.log(), post.log()
        await post.close()


async def test_a_host_that_breaks_each_session_is_left_after_a_few():
    box = Breaking()
    async with NameServer(zone(x_example=[(1, "a.example")])) as names:
        post = await Post().start(names, a=box)
        for _ in range(12):
            post.add("poison@x.example")
        eq(await post.relay.session(), True)
        eq(post.attempts(), [1] * 12)
        assert 3 < len(post.tried) < 9, post.tried
        await post.close()


async def test_mail_that_is_kept_for_fetching_is_deferred_without_a_look_up():
    async with NameServer(zone()) as names:
        post = await Post().start(names)
        post.relay.kept = ("x.example",)
        post.add("1@X.example")
        eq(await post.relay.session(), True)
        eq((names.seen, post.attempts()), ([], [1]))
        await post.close()


async def test_rates_of_the_entry_count_for_all_exchangers():
    box = Box()
    async with NameServer(zone(x_example=[(1, "a.example")], y_example=[(1, "b.example")])) as names:
        post = await Post(per_minute=2).start(names, a=box, b=box)
        for n in range(3):
            post.add("%d@x.example" % n, "%d@y.example" % n)
        eq(await post.relay.session(), None)
        eq(len(box.mails), 2)
        eq(len(post.queue), 3)
        await post.close()


# -- TLS when it is offered


HELLO = """
    S: 220 mx.example.net ESMTP
    C: EHLO me.example.com
"""
OFFER = HELLO + """
    S: 250-mx.example.net
    S: 250 STARTTLS
    C: STARTTLS
"""


def opens(text, fails=None, context="context"):
    for cut in CUTS:
        client = Opportunistic(Wire(bytearray(2048)), "me.example.com")
        end = "\n-- FAILS --" if fails else "\n-- END --"
        player = play(client.start("none", (context, "mx")), client.io, text + end, cut, "C")
        if fails:
            assert isinstance(player.error, SessionError), player.error
            eq(player.error.reason, fails)
    return client


def test_tls_is_taken_when_it_is_offered_and_the_extensions_are_those_under_it():
    client = opens(OFFER + """
        S: 220 go
        -- TLS --
        C: EHLO me.example.com
        S: 250-mx.example.net
        S: 250 CHUNKING
    """)
    eq(client.ext, {"CHUNKING": ""})


def test_without_an_offer_or_after_a_refusal_it_goes_on_in_the_clear():
    eq(opens(HELLO + "S: 250-mx\nS: 250 SIZE 9").ext, {"SIZE": "9"})
    eq(opens(OFFER + "S: 454 4.7.0 not now").ext, {"STARTTLS": ""})
    eq(opens(HELLO + "S: 250-mx\nS: 250 STARTTLS", context=None).ext, {"STARTTLS": ""})


def test_a_session_that_breaks_at_starttls_says_so():
    opens(OFFER + "-- GONE --", "lost")
    opens(OFFER + "S: what", "reply")
    opens(HELLO + "S: 421 no", "reply")


async def test_a_handshake_that_fails_is_followed_by_a_session_in_the_clear():
    box = Box()
    async with NameServer(zone(x_example=[(1, "a.example")])) as names:
        post = await Post().start(names, a=box)
        listener = post.servers[0][2]
        listener.tls = "starttls"
        listener.context = Broken()
        post.add("1@x.example")
        eq(await post.relay.session(), True)
        eq([m[1] for m in box.mails], [["1@x.example"]])
        assert "in the clear" in post.log(), post.log()
        await post.close()


class Broken:
    """An SSLContext of a server that has none."""

    def wrap_socket(self, sock, **how):
        raise OSError(5)
