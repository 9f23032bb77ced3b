"""The host side of edgepost: what runs on a laptop or a server, on CPython 3.11 and later."""

__version__ = "0.1.0"
