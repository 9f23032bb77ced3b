"""Fetches the mail that waits for this board at a provider (ATRN, RFC 2645), every so often, or whenever a board that
sleeps has its radio on. What has come from a person who may say so is an order for told; all other mail goes on to
`forward`, or is refused.

May use: smtp.odmr, gateway; told when there are such persons.
"""

import asyncio
import gc

import gateway
from smtp.client import SessionError
from smtp.odmr import fetch
from smtp.relay import SmartHost
from smtp.reply import SMTPError
from smtp.server import Listener

_MOST = 3600  # seconds between two attempts, however often the provider is silent
LONGEST = 1800  # seconds of a session: a provider that says NOOP for ever must not keep alerts from the one TLS slot


class Fetch:
    """A [fetch] table at work."""

    def __init__(self, config, relay):
        settings = dict(config["fetch"])
        self.every = settings.pop("every")
        self.domains = settings.pop("domains")
        self.once = bool(config.get("sleep"))
        self.box = box = Letterbox(self.domains, settings.pop("forward"), gateway.Intake(
            config["queue"]["max_message"]))
        senders = settings.pop("senders")
        server = settings.pop("verified_by", "")
        if senders:
            import told

            box.told = told.Told(senders, config["board"]["name"], relay, server)
        self.relay = relay
        self.host = SmartHost(**settings)
        self.failures = 0
        self.said = None

    async def run(self):
        while True:
            while self.once and not self.up():
                await asyncio.sleep(0.05)
            went = await self.turn()
            if self.once and went:
                await asyncio.Event().wait()  # until the radio goes off
            self.failures = 0 if went else self.failures + 1
            await asyncio.sleep(self.every if went else min(_MOST, max(30, self.every) << min(self.failures - 1, 8)))

    def up(self):
        import organs

        return not organs.station or organs.station.up

    async def turn(self):
        """Once. False when there was no session."""
        log = gateway.log
        slots = self.relay.slots  # also in the clear: where there is memory for one of them, sessions take turns
        listener = Listener(self.relay.name, self.box, (), None, "none", None, False, self.box.most,
                            lambda text: log("fetch", text))
        listener.dsn = True
        try:
            while slots and not slots.take(self):
                await asyncio.sleep(0.1)
            gc.collect()  # what is still there of the session before would leave the heap in pieces
            await asyncio.wait_for(
                fetch(self.host, self.relay.name, self.domains, listener, self.relay.resolve), LONGEST)
            self.said = None
            return True
        except asyncio.TimeoutError:
            log("fetch", "the session with %s was ended after %d s; what is left there is asked for again" % (
                self.host, LONGEST))
        except (SessionError, OSError, ValueError) as e:
            if str(e) != self.said:
                self.said = str(e)
                log("fetch", "no mail could be fetched from %s: %s; it waits there, and is asked for again" % (
                    self.host, e))
        except MemoryError:
            log("fetch", "out of memory: tried again later")
        finally:
            gc.collect()
            if slots:
                slots.give(self)
        return False


class Letterbox:
    """The policy for fetched mail. A backend of smtp.server; intake: what takes mail into the queue."""

    told = None

    def __init__(self, domains, forward, intake):
        self.domains = domains
        self.forward = forward
        self.intake = intake
        self.most = intake.most
        self.limit = intake.limit

    def rcpt(self, envelope, address):
        """The provider is no more trusted than anybody: only mail for our own domains, and nothing comes back out to
        where the sender likes."""
        local, _, domain = address.rpartition("@")
        if local and domain.lower() not in self.domains:
            raise SMTPError(550, "5.7.1", "relaying denied")
        if self.told and envelope.sender.lower() in self.told.senders:
            return address
        return self.others(envelope, address)

    def others(self, envelope, address):
        to = self.intake.rcpt(envelope, address)  # postmaster's is the admin's
        if to:
            return to
        if not self.forward:
            raise SMTPError(550, "5.1.1", "nobody reads mail here")
        return address if self.forward == "*" else self.forward

    def open(self, envelope):
        if self.told and envelope.sender.lower() in self.told.senders:
            return self.told.open(envelope)
        envelope.rcpts = [to for n, to in enumerate(envelope.rcpts) if to not in envelope.rcpts[:n]]
        return self.intake.open(envelope)
