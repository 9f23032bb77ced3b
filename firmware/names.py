"""What the computer under a gateway knows of names: its /etc/resolv.conf and /etc/hosts, as resolv.conf(5) and hosts(5)
have them. Search lists are not used: a smart host is given by its full name.

May use: smtp.network.
"""

from smtp.network import parse_ip


def _lines(path):
    """The words of each line (bytes); nothing where there is no such file."""
    try:
        with open(path, "rb") as f:
            for line in f:
                words = line.partition(b"#")[0].split()
                if len(words) > 1:
                    yield words
    except OSError:
        pass


def nameservers(path="/etc/resolv.conf"):
    """Three addresses (text) of name servers at most. Where none is named, this computer is one."""
    found = [w[1].decode() for w in _lines(path) if w[0] == b"nameserver" and parse_ip(w[1])]
    return found[:3] or ["127.0.0.1"]


def hosts(name, path="/etc/hosts"):
    """The addresses (text) of a name in lower case."""
    name = name.encode()
    return [w[0].decode() for w in _lines(path) if name in [n.lower() for n in w[1:]] and parse_ip(w[0])]
