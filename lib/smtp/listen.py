"""Listening sockets, and TLS for a server. May use: stream."""

import socket
import ssl
from errno import EAGAIN

from .stream import MICROPYTHON, ready, sleep_ms


def listen(address, port, backlog=8):
    """A listening socket, or OSError (EADDRINUSE: the port is taken)."""
    family, kind, proto, _, where = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


async def accept(sock, serve):
    """Accepts for ever: calls `serve(socket, peer's address as text)` for each connection."""
    while True:
        try:
            conn, peer = sock.accept()
        except OSError as e:
            if e.errno == EAGAIN:
                await ready(sock, False)
            else:  # out of sockets, or the peer has gone again: go on when there is air
                await sleep_ms(100)
            continue
        conn.setblocking(False)
        serve(conn, peer_ip(peer))


def peer_ip(address):
    """The IP address in what accept() gave, as text: a tuple on boards and CPython, a raw sockaddr on unix."""
    if isinstance(address, tuple):
        ip = address[0]
    else:
        v4 = (address[1] or address[0]) == socket.AF_INET  # BSD has a length before the family
        ip = socket.inet_ntop(*((socket.AF_INET, address[4:8]) if v4 else (socket.AF_INET6, address[8:24])))
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def server_context(cert, key):
    """An SSLContext for a server from a certificate and its key, both DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if MICROPYTHON:
        context.load_cert_chain(cert, key)
    else:
        from .cpython import load_der

        load_der(context, cert, key)
    return context
