"""lib/smtp/relay.py: what a next hop may lack, memory for TLS that takes turns, and a mail that breaks each session."""

import asyncio

from expect import eq
from smtp.reply import SMTPError
from smtp.slots import Slots
from smtp.stream import sleep_ms
from test_relay import Box, World, fields

UMLAUT = (
    b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe\r\n"
)


class Asked(Box):
    """A smart host that keeps the DSN parameters of each envelope."""

    def open(self, envelope):
        self.asked.append((envelope.dsn, envelope.notify, envelope.body))
        return Box.open(self, envelope)


def without(world, *words):
    """Takes extensions out of what the smart host offers."""
    for _, _, listener in world.servers:
        for word in words:
            listener.hello = listener.hello.replace(b"250-" + word + b"\r\n", b"")


async def test_dsn_parameters_go_on_to_a_next_hop_with_dsn():
    box = Asked()
    world = World().open(box)
    world.servers[0][2].dsn = True
    world.add("b@example.net", "c@example.net", d=" RET=HDRS ENVID=x1", n=[" NOTIFY=SUCCESS", ""])
    assert await world.relay.session()
    dsn, notify, body = box.asked[-3]
    eq((sorted(dsn.split()), notify, body), (["ENVID=x1", "RET=HDRS"], [" NOTIFY=SUCCESS", ""], ""))
    eq(len(world.queue), 0)  # the next hop tells the sender, not we
    await world.close()


async def test_a_sender_who_asked_hears_that_his_mail_went_where_nobody_will_tell_him():
    box = Box()
    world = World().open(box)
    asked = [" NOTIFY=SUCCESS ORCPT=rfc822;b@old.example", " NOTIFY=NEVER"]
    world.add("b@example.net", "c@example.net", d=" ENVID=x1", n=asked)
    assert await world.relay.session()
    eq([m[:2] for m in box.mails], [("a@example.com", ["b@example.net", "c@example.net"]), ("", ["a@example.com"])])
    report = box.mails[1][2]
    for text in (b"multipart/report", b"Action: relayed", b"Original-Envelope-Id: x1", b"b@old.example", b"Subject: x"):
        assert text in report, text
    assert b"c@example.net" not in report
    eq(fields(report, "Auto-Submitted"), ["auto-replied"])
    eq(len(world.queue), 0)
    await world.close()


async def test_a_failure_is_told_when_that_was_asked_for_and_otherwise_the_dead_letter_stays():
    no = {"b@example.net": SMTPError(550, "5.1.1", "left in 1987")}
    box = Box(no)
    world = World().open(box)
    world.add("b@example.net", "c@example.net", n=[" NOTIFY=FAILURE", " NOTIFY=FAILURE"])
    world.add("b@example.net", sender="", n=[" NOTIFY=FAILURE"])  # a bounce never bounces
    world.add("b@example.net")
    assert await world.relay.session()
    eq([m[:2] for m in box.mails], [("a@example.com", ["c@example.net"]), ("", ["a@example.com"])])
    for text in (b"Action: failed", b"Status: 5.1.1", b"left in 1987"):
        assert text in box.mails[1][2], text
    eq(world.queue.dead, 2)
    await world.close()


async def test_8_bit_mail_is_declared_whatever_the_device_said():
    box = Asked()
    world = World().open(box)
    world.add(text=UMLAUT)
    assert await world.relay.session()
    eq(box.asked[-3][2], "8BITMIME")
    assert box.mails[0][2].endswith(b"Gr\xc3\xbc\xc3\x9fe\r\n")
    await world.close()


async def test_8_bit_mail_becomes_quoted_printable_for_a_next_hop_without_8bitmime():
    for sender in ("", "only@example.com"):
        box = Asked()
        world = World(sender=sender).open(box)
        without(world, b"8BITMIME")
        world.add(text=UMLAUT)
        assert await world.relay.session()
        content = box.mails[0][2]
        eq(box.asked[-3][2], "")
        eq(fields(content, "Content-Transfer-Encoding"), ["quoted-printable"])
        assert b"Gr=C3=BC=C3=9Fe" in content
        eq(len(content), len(str(content, "utf-8")))
        eq(len(world.queue), 0)
        await world.close()


async def test_8_bit_mail_that_cannot_be_converted_is_a_dead_letter_5_6_3():
    box = Box()
    world = World().open(box)
    without(world, b"8BITMIME", b"CHUNKING")
    world.add(text=UMLAUT.replace(b"Subject: x", b"Subject: \xc3\xbc"))
    world.add(text=b"Subject: y\r\n\r\nplain\r\n")
    assert await world.relay.session()
    eq([fields(m[2], "Subject") for m in box.mails], [["y"]])
    eq(world.queue.dead, 1)
    assert "5.6.3" in world.log()
    await world.close()


class Breaking(Box):
    """A smart host that drops the connection in the middle of one mail."""

    def rcpt(self, envelope, address):
        if address == "poison@example.net":
            raise EOFError("gone")


async def test_a_mail_that_breaks_each_session_lets_the_others_pass():
    box = Breaking()
    world = World().open(box)
    world.relay.window = 1
    world.add("poison@example.net")
    world.add("b@example.net")
    assert not await world.relay.session()
    eq(box.mails, [])
    assert not await world.relay.session()  # the second time it is the mail that waits
    assert await world.relay.session()
    eq([m[1] for m in box.mails], [["b@example.net"]])
    eq(len(world.queue), 1)
    await world.close()


async def test_a_host_that_breaks_each_session_does_not_keep_the_mail_from_the_next():
    good = Box()
    world = World().open(Breaking(), good)
    world.add("poison@example.net")
    assert await world.relay.session()
    eq([m[1] for m in good.mails], [["poison@example.net"]])
    await world.close()


async def test_tls_slots_are_given_in_the_order_of_asking():
    slots = Slots(1)
    a, b, c = object(), object(), object()
    eq([slots.take(x) for x in (a, b, c, a)], [True, False, False, True])
    slots.give(a)
    eq([slots.take(x) for x in (c, b)], [False, True])
    slots.give(c)  # left the line
    slots.give(b)
    eq((slots.take(c), slots.free), (True, 0))


async def test_the_relay_waits_for_its_turn_where_memory_holds_one_tls_session():
    box = Box()
    world = World().open(box)
    world.add()
    world.relay.slots = slots = Slots(1)
    world.hosts[0].security = "starttls"
    world.hosts[0].verify = "none"
    other = object()
    slots.take(other)
    task = asyncio.create_task(world.relay.session())
    await sleep_ms(150)
    eq((box.asked, len(slots.line)), ([], 1))
    slots.give(other)
    eq(await task, False)  # this smart host has no STARTTLS; the slot is back all the same
    eq((slots.free, slots.line), (1, []))
    await world.close()


async def test_who_waits_for_tls_gets_his_turn_while_the_relay_has_mail_left():
    box = Box()
    world = World().open(box)
    for _ in range(30):
        world.add()
    world.relay.slots = slots = Slots(1)
    session_with = world.relay.session_with
    world.hosts[0].security = "starttls"  # it holds a slot

    async def in_the_clear(host):
        host.security = "none"
        return await session_with(host)

    world.relay.session_with = in_the_clear
    other = object()
    task = asyncio.create_task(world.relay.session())
    while not slots.holders:
        await sleep_ms(1)
    slots.take(other)
    eq(await task, True)
    assert 5 <= len(box.mails) <= 10, len(box.mails)
    eq((slots.take(other), len(world.queue)), (True, 30 - len(box.mails)))
    await world.close()


async def test_the_end_waits_for_the_answers_to_what_is_in_flight():
    box = Box()
    world = World().open(box)
    for _ in range(20):
        world.add()
    task = asyncio.create_task(world.relay.session())
    while not world.relay.busy:
        await sleep_ms(1)
    await world.relay.finish()
    eq(await task, True)
    eq(len(box.mails) + len(world.queue), 20)  # none is in both
    await world.close()
