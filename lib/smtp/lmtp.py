"""LMTP (RFC 2033), the client: SMTP for the last hop, into mailboxes. LHLO instead of EHLO, and behind a mail one reply
for each recipient that was accepted. `LMTP` is the `kind` of open_session() and of a SmartHost. lmtpd is the server.

May use: client.
"""

from .client import Client

PORT = 24
_END = 4  # as in client: what is answered is a mail that was sent whole


class LMTP(Client):
    """A session with an LMTP server. The mail goes by DATA, when it is known who takes it: how many replies follow a
    chunk that is refused on its way, no standard says."""

    def hello(self):
        self.feed.lines = lines = []
        yield from self.ask(b"LHLO " + self.name, 250)
        self.feed.lines = None
        self.ext = ext = {}
        for words in lines[1:]:
            words = words.upper().split(None, 1)
            if words and words[0] not in ("PIPELINING", "CHUNKING"):
                ext[words[0]] = " ".join(words[1:])

    def settle(self, flying):
        kind, job = flying[0]
        if kind != _END or not job or not job.result or not job.taken:
            return (yield from Client.settle(self, flying))
        result = job.result
        reply = None
        flying.pop(0)
        try:
            for n in range(len(result)):
                if not result[n]:
                    flying.insert(0, (kind, None))
                    reply = yield from Client.settle(self, flying)
                    result[n] = reply
        finally:
            # When the session ends here, each reply that came counts all the same, and no other is waited for.
            flying.clear()
            job.result = None
            job.done(result)
        return reply
