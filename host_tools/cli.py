"""The `edgepost` command: reads the command line and says what went wrong in one line, without a
traceback.
"""

import argparse
import os
import sys

from . import __version__
from .errors import UserError


def _run(args):
    from . import unix

    return unix.run(args.board, args.state, args.heapsize, args.flash_size)


def _smarthost(args):
    from . import smarthost

    return smarthost.run(args.host, args.port, args.dir, args.user, args.quiet)


def _demo(args):
    from . import demo

    return demo.run()


def parser():
    """The command line, as argparse wants it."""
    top = argparse.ArgumentParser(
        prog="edgepost",
        description="An e-mail gateway that fits on a microcontroller: alerts of sensors and mail"
        " of old devices reach the inbox through a smart host, over verified TLS, and survive"
        " power cuts.",
    )
    top.add_argument("--version", action="version", version=f"edgepost {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def add(name, does, what):
        sub = commands.add_parser(name, help=what, description=what)
        sub.set_defaults(does=does)
        return sub

    sub = add("run", _run, "Run a gateway on this machine, in the foreground, under MicroPython.")
    sub.add_argument("board", metavar="board.toml", help="the configuration")
    sub.add_argument(
        "--state",
        metavar="DIR",
        help="where its flash image is kept (default: board.state beside board.toml)",
    )
    sub.add_argument(
        "--heapsize",
        metavar="SIZE",
        default="1m",
        help="memory of MicroPython's heap (default: %(default)s)",
    )
    sub.add_argument(
        "--flash-size",
        metavar="SIZE",
        help="size of a new flash image, such as 2MB (default: twice max_bytes, at least 1MB)",
    )
    sub = add(
        "smarthost",
        _smarthost,
        "Run a smart host for development: STARTTLS and AUTH required, shows and keeps what"
        " arrives.",
    )
    sub.add_argument("--port", type=int, default=2587, metavar="N", help="default: %(default)s")
    sub.add_argument("--host", default="localhost", metavar="ADDRESS", help="default: %(default)s")
    sub.add_argument(
        "--dir",
        default="smarthost",
        metavar="DIR",
        help="holds ca.pem, the certificates and the mail as a Maildir (default: ./%(default)s)",
    )
    sub.add_argument(
        "--user",
        default="gateway",
        metavar="NAME",
        help="who may send (default: %(default)s), with the password in the variable SMTP_PASSWORD,"
        " or one that is made up and shown at the start",
    )
    sub.add_argument("--quiet", action="store_true", help="keep the mail, do not show it")
    add(
        "demo",
        _demo,
        "Show what edgepost does: an alert and a printer's mail survive a power cut and reach"
        " the inbox.",
    )
    return top


def main(argv=None):
    """Runs the command; gives the exit status: 0, 1 when it failed, 2 when the person can put it
    right.
    """
    top = parser()
    args = top.parse_args(argv)
    if not hasattr(args, "does"):
        top.print_help()
        return 0
    try:
        return args.does(args)
    except UserError as e:
        print(f"edgepost: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
