"""What a person can do where there is no session with a smart host. Loaded when there is none, or a name is none.

May use: nothing.
"""

_TABLE = {
    "connect": "Check the network, smarthost.host and smarthost.port",
    "reply": "Look for this reply in the smart host's documentation",
    "starttls": "Nothing is sent in the clear; check smarthost.port (587 for STARTTLS), or set security = \"tls\"",
    "tls name": "The certificate is for another name: set smarthost.host to a name that it carries",
    "tls expired": "The certificate has expired, or this clock is wrong: the smart host's operator must renew it",
    "tls future": "The certificate is not valid yet: is this clock right?",
    "tls ca": "The certificate is not signed by the CA in smarthost.ca: set it to the CA that the smart host uses",
    "tls gone": "The smart host closed the connection in the handshake",
    "tls memory": "Not enough memory for TLS now",
    "tls": "Check smarthost.security and smarthost.port",
    "setting": "Look at smarthost.ca, which cannot be used as it is on this board",
    "auth-missing": "Check smarthost.port; without smarthost.username no AUTH is tried",
    "auth": "Check smarthost.username and smarthost.password, or the account of smarthost.oauth",
    "oauth": "Until then nothing is sent there",
    "lost": "It is tried again",
}
NO_NAME = (
    "this is no host name: letters, digits, - and _, at most 63 between two dots and 253 in all, an international name"
    " in its xn-- form")


def what_to_do(reason):
    """A sentence (str) without its full stop, for the `reason` of a client.SessionError or "setting"."""
    return _TABLE.get(reason) or _TABLE[reason.split()[0]]
