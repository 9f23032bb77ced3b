"""On-demand mail relay (RFC 2645), the end of who fetches: connects to the provider, port 366, authenticates and says
ATRN; the roles turn on the open connection, and our server takes the mail that has waited there.

    await fetch(provider, "board7.example.com", ["board7.example.com"], listener, resolve)

No port has to be open for that, and the board may sleep in between. The session has the limits and the policy of its
listener, and a 250 means what it always means: the mail is safe.

May use: client, relay, server, stream.
"""

from .client import SessionError, open_session, quit
from .reply import SMTPError
from .server import Session

PORT = 366


async def fetch(host, name, domains, listener, resolve=None):
    """host: a relay.SmartHost, the provider; name: for EHLO; domains: those to ask for, none: whatever is ours;
    listener: a server.Listener without networks and users, tls "none": its backend decides which recipients there are.

    True when there was mail, False when the provider has none. Raises SessionError.
    """
    peers = await resolve(host.host) if resolve else [host.host]
    error = None
    for peer in peers:

        async def only(name, peer=peer):
            return [peer]

        try:
            session = await open_session(
                host.host, host.port, name, host.security, host.context(), host.username, host.password, resolve=only)
            break
        except SessionError as e:
            if e.reason != "connect":
                raise
            error = e
    else:
        raise error or SessionError("connect", "%s has no address" % host.host)
    stream, client = session
    try:
        await stream.run(ask(client, domains))
        if not client.turned:
            await quit(session)
            return False
        stream.eol = b"\r\n"  # as for any stranger: a client takes line feeds alone
        server = Session(stream, peer, listener)
        server.user = host.username  # its credentials are ours
        server.tls = stream.tls
        await stream.run(server.run())
        return True
    except (OSError, EOFError, ValueError) as e:
        raise SessionError("lost", "the connection was lost: %s" % e)
    finally:
        stream.close()


def ask(client, domains):
    """Generator: asks to turn. Sets client.turned."""
    client.turned = False
    command = b"ATRN"
    if domains:
        command += b" " + ",".join(domains).encode()
    try:
        reply = yield from client.ask(command)
        if reply[0] == 250:
            client.unasked()  # it has to wait for our greeting
            client.turned = True
        elif reply[0] != 453:
            raise SessionError("atrn", "it answers ATRN with %d %s" % (reply[0], reply[2]), reply)
    except SMTPError as e:
        raise SessionError("atrn", "its answer makes no sense: " + e.text)
