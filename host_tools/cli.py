"""The `edgepost` command: reads the command line and says what went wrong in one line, without a
traceback.
"""

import argparse
import os
import sys
import textwrap

from . import __version__
from .errors import UserError


def _run(args):
    from . import unix

    return unix.run(args.board, args.state, args.heapsize, args.flash_size)


def _provision(args):
    from . import provision

    return provision.run(args)


def _smarthost(args):
    from . import smarthost

    return smarthost.run(args)


def _doctor(args):
    from . import doctor

    return doctor.run(args)


def _oauth(args):
    from . import oauth

    return oauth.run(args)


def _capture(args):
    from . import capture

    return capture.run(args)


def _monitor(args):
    from . import monitor

    return monitor.run(args)


def _queue(args):
    from . import queue

    return queue.run(args)


def _reach(sub):
    """The options that say where a running gateway is, for asking.reach()."""
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="the board's serial port (default: the one that is plugged in)")
    where.add_argument("--host", metavar="URL", help="over the LAN: its status service, such as http://192.168.1.9")
    sub.add_argument(
        "--password-file",
        metavar="FILE",
        help="with --host: holds the password (default: the variable EDGEPOST_PASSWORD, or it is asked for)",
    )


def _seconds(text):
    try:
        value = float(text)
        if 1 <= value <= 86400:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 1 to 86400")


def _smarthost_epilog(sub):
    """Faults are explained when somebody asks: what explains them is not cheap to import."""
    plain = sub.format_help

    def format_help():
        from . import faults

        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.description = textwrap.fill(sub.description, 79)
        sub.epilog = faults.HELP + faults.named_help() + _SMARTHOST_EXAMPLES
        return plain()

    sub.format_help = format_help


_SMARTHOST_EXAMPLES = """
examples:
  edgepost smarthost
  edgepost smarthost --fault drop:end --times 1
  edgepost smarthost --fault no-starttls --fault defer:connect
  edgepost smarthost --as m365 --user scanner@example.com --fault auth-disabled
"""


def _demo(args):
    from . import demo

    return demo.run()


def _virtual(args):
    from . import virtual

    return virtual.run(args.state, args.board, args.heapsize or virtual.HEAP, args.link)


def _flash(args):
    from . import flash

    return flash.run(args)


def _test(args):
    from . import portable

    return portable.run(args.port, args.virtual, args.tests, args.k, args.file, heapsize=args.heapsize)


def _deploy(args):
    from . import deploy

    return deploy.run(args)


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
    sub.epilog = "example: edgepost run board.toml"
    sub = add(
        "provision",
        _provision,
        "Put a configuration on a board: asks for what board.toml lacks, checks it, signs in at the smart host,"
        " finds the roots that verify it, writes it all or nothing, and waits until the gateway is up. Without a"
        " board.toml it makes one by questions."
        " Exit status: 0 done, 1 the smart host or the gateway does not do, 2 you can put it right.",
    )
    sub.add_argument("board_toml", nargs="?", default="board.toml", metavar="board.toml", help="or a fleet's file")
    sub.add_argument("--port", metavar="PORT", help="where the board is (default: the one that is plugged in)")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--board", metavar="NAME", help="of a fleet: this one")
    which.add_argument("--all", action="store_true", help="of a fleet: all that are plugged in")
    sub.add_argument("--check", action="store_true", help="does all but write")
    sub.add_argument("--no-connect", action="store_true", help="asks no smart host")
    sub.add_argument("--yes", action="store_true", help="agrees to each change of board.toml that it proposes")
    sub.add_argument("--to", metavar="ADDRESS", help="one short mail goes there, to see that the sender is taken")
    sub.add_argument("--certificate", action="store_true", help="makes or renews certificates of listeners with TLS")
    sub.add_argument("--name", action="append", default=[], metavar="NAME", help="with --certificate: one more name or"
                     " address of the board; may be repeated")  # fmt: skip
    sub.add_argument(
        "--timeout", type=float, default=20, metavar="S", help="seconds to wait for an answer (default: %(default)s)"
    )
    sub.epilog = "example: edgepost provision board.toml --port /dev/ttyACM0"
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
        metavar="NAME",
        help="who may send (default: gateway; gateway@example.com with --as m365 or gmail), with the password in the"
        " variable SMTP_PASSWORD, or one that is made up and shown at the start",
    )
    sub.add_argument("--quiet", action="store_true", help="keep the mail, do not show it")
    sub.add_argument("--tls", action="store_true", help="TLS from the start, as on port 465")
    sub.add_argument(
        "--fault", action="append", default=[], metavar="FAULT", help="what goes wrong, see below; may be repeated"
    )
    sub.add_argument("--times", type=int, metavar="N", help="each fault works N times (default: always)")
    sub.add_argument(
        "--as",
        dest="provider",
        choices=("m365", "gmail", "ses"),
        help="behave like Microsoft 365, Gmail or Amazon SES: senders, limits and the words of refusals",
    )
    sub.add_argument(
        "--sender",
        dest="senders",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="with --as: an address or a domain that the user may send as (default: the user's own); may be repeated",
    )
    for name in ("minute", "day", "session"):
        sub.add_argument(f"--per-{name}", type=int, metavar="N", help=f"mails that are taken in a {name}")
    _smarthost_epilog(sub)
    sub = add(
        "doctor",
        _doctor,
        "Look for what is wrong between here and the smart host: name, port, TLS, AUTH, sender, size. No mail is sent."
        " Exit status: 0 all is good, 1 something is not, 2 the configuration is wrong.",
    )
    sub.add_argument("board", nargs="?", default="board.toml", metavar="board.toml", help="default: ./%(default)s")
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="has the board there look, too; its gateway is stopped meanwhile")
    where.add_argument(
        "--board", dest="on_board", action="store_true", help="the same with the one board that is plugged in"
    )
    sub.add_argument("--to", metavar="ADDRESS", help="asks whether this recipient is accepted, too")
    sub.add_argument("--send", action="store_true", help="with --to: sends one short mail there, if all is good so far")
    sub.add_argument("--oauth", action="store_true", help="asks for a token even where that uses up the refresh token")
    sub.add_argument(
        "--timeout", type=float, default=20, metavar="S", help="seconds to wait for an answer (default: %(default)s)"
    )
    sub.add_argument("--json", action="store_true", help="for machines")
    sub.epilog = "example: edgepost doctor board.toml --to oncall@example.com"
    sub = add(
        "monitor",
        _monitor,
        "Show how a running gateway is, and its log, over the serial line or the LAN; the gateway goes on."
        " Ctrl-C ends it.",
    )
    _reach(sub)
    sub.add_argument("--once", action="store_true", help="the state, once; exit status 1 when something is wrong")
    sub.add_argument("--json", action="store_true", help="for machines: a line for each state")
    sub.add_argument("--every", type=_seconds, default=5, metavar="S", help="seconds in between (default: %(default)s)")
    sub.epilog = "example: edgepost monitor --host http://192.168.1.9"
    sub = add(
        "queue", _queue, "Look at the mail of a running gateway and at its dead letters, send it again, delete it."
    )
    what = sub.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, does in (
        ("list", "what waits, and the dead letters"),
        ("show", "a mail as text; in a pipe exactly as it is"),
        ("send", "sends a dead letter again, or what waits now"),
        ("delete", "deletes a dead letter for good"),
        ("start", "sends all mail now, also to a smart host that could not be reached"),
        ("test", "sends a test mail to [mail] to"),
    ):
        part = what.add_parser(name, help=does, description=does[0].upper() + does[1:] + ".")
        _reach(part)
        if name in ("show", "send", "delete"):
            part.add_argument("id", metavar="ID", help="as `edgepost queue list` shows it, or the name in the log")
        if name in ("list", "show"):
            part.add_argument("--json", action="store_true", help="for machines: a line for each mail")
        if name == "list":
            part.add_argument("--dead", action="store_true", help="only dead letters")
        if name == "delete":
            part.add_argument("--yes", action="store_true", help="does not ask")
    sub.epilog = "example: edgepost queue list --port /dev/ttyACM0"
    sub = add(
        "oauth",
        _oauth,
        "Sign in once in the browser, and keep the refresh token that the board sends mail with. Provider, client and"
        " the file for the token come from board.toml, or from the options.",
    )
    sub.add_argument("board", nargs="?", metavar="board.toml", help="a configuration with [smarthost.oauth]")
    sub.add_argument("--provider", choices=("m365", "gmail"), help="knows the addresses and the scope")
    sub.add_argument("--tenant", metavar="ID", help="with m365: the tenant's ID or one of its domains")
    sub.add_argument("--client-id", metavar="ID", help="of the app that was registered with the provider")
    sub.add_argument(
        "--client-secret-file",
        metavar="FILE",
        help="holds the client's secret, if it has one (default: the variable OAUTH_SECRET)",
    )
    sub.add_argument("--auth-url", metavar="URL", help="of another provider: where the browser signs in")
    sub.add_argument("--token-url", metavar="URL", help="of another provider: where codes and tokens are exchanged")
    sub.add_argument("--scope", metavar="TEXT", help="what the token is for, as the provider words it")
    sub.add_argument("--ca", metavar="FILE", help="PEM of the token server's CA (default: those of this computer)")
    sub.add_argument("--user", metavar="NAME", help="the mailbox to sign in as (default: smarthost.username)")
    sub.add_argument("--out", metavar="FILE", help="for the token (default: as in board.toml, or refresh-token.txt)")
    sub.add_argument("--env", metavar="NAME", help="prints the line that sets a variable, instead of a file")
    sub.add_argument("--port", type=int, metavar="N", help="of this computer, for the browser to come back to")
    sub.add_argument("--loopback", choices=("127.0.0.1", "localhost"), help="the app's registered redirect")
    sub.add_argument("--no-browser", action="store_true", help="shows the address, opens no browser")
    sub.add_argument("--paste", action="store_true", help="for a browser on another computer: paste where it ends")
    sub.add_argument("--timeout", type=float, default=300, metavar="S", help="for the sign-in (default: %(default)s)")
    sub.epilog = "example: edgepost oauth --provider m365 --tenant example.com --client-id 6666..."
    sub = add(
        "capture",
        _capture,
        "Stand between a device and a gateway for one session, and write down how the device speaks, as a transcript"
        " for tests/devices/. Addresses, names, passwords and text are replaced before anything is written.",
    )
    sub.add_argument("about", metavar="TEXT", help='what the device is, such as "A printer: no name after EHLO."')
    sub.add_argument("--to", default="127.0.0.1:2525", metavar="HOST:PORT", help="the gateway (default: %(default)s)")
    sub.add_argument("--host", default="0.0.0.0", metavar="ADDRESS", help="where it listens (default: %(default)s)")
    sub.add_argument("--port", type=int, default=2526, metavar="N", help="default: %(default)s")
    sub.add_argument("--out", metavar="FILE", help="default: made from TEXT, in this directory")
    sub.add_argument("--elsewhere", action="store_true", help="the device is outside of the allowed networks")
    sub.add_argument("--dir", default="capture", metavar="DIR", help="its CA, for STARTTLS (default: ./%(default)s)")
    sub.add_argument("--ca", metavar="FILE", help="PEM that verifies the gateway after STARTTLS")
    sub.add_argument("--no-verify", action="store_true", help="does not verify the gateway after STARTTLS")
    sub.epilog = 'example: edgepost capture "A UPS: lines end with a line feed" --to 192.168.1.10:2525 --port 2526'
    sub = add(
        "demo",
        _demo,
        "Show what edgepost does: an alert and a printer's mail survive a power cut and reach"
        " the inbox.",
    )
    sub.epilog = "example: edgepost demo"
    sub = add("virtual", _virtual, "Run a virtual board: MicroPython at a serial port that is none, for mpremote.")
    sub.add_argument("--board", default="pico_w", metavar="KIND", help="pico_w (default) or esp32")
    sub.add_argument("--state", default="virtual.state", metavar="DIR", help="holds its flash (default: ./%(default)s)")
    sub.add_argument("--link", metavar="PATH", help="a path that leads to its port, which has another name each time")
    sub.add_argument("--heapsize", metavar="SIZE", help="memory of its heap (default: 280k, as much as a Pico W's)")
    sub.epilog = "example: edgepost virtual --link /tmp/board"
    sub = add(
        "flash",
        _flash,
        "Write MicroPython to a board: ESP32 family over its serial port, Pico W and Pico 2 W over the drive of its"
        " boot loader. The image is checked whole first. Exit status: 0 MicroPython answers, 1 it does not, 2 see the"
        " message.",
    )
    sub.add_argument("--list", action="store_true", help="tells what boards are plugged in, and writes nothing")
    sub.add_argument("--image", metavar="FILE", help="the .bin or .uf2, or an https address of it")
    sub.add_argument("--sha256", metavar="HEX", help="what the image's SHA-256 has to be; a download needs it")
    sub.add_argument(
        "--board",
        choices=("pico_w", "pico2_w", "esp32", "esp32s2", "esp32s3", "esp32c3", "esp32c6"),
        metavar="KIND",
        help="with --release: whose image: %(choices)s",
    )
    sub.add_argument("--release", metavar="DATE-VERSION", help="downloads this one, such as 20250911-v1.26.1")
    sub.add_argument(
        "--site",
        metavar="URL",
        default="https://micropython.org/resources/firmware/",
        help="where releases are (default: %(default)s)",
    )
    sub.add_argument("--ca", metavar="FILE", help="PEM of that server's CA (default: those of this computer)")
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="where the board is (default: the one that is plugged in)")
    where.add_argument("--drive", metavar="DIR", help="the drive of a Pico that is in its boot loader")
    sub.add_argument("--erase", action="store_true", help="erases all of its flash first, files too")
    sub.add_argument("--baud", type=int, default=460800, metavar="N", help="ESP32 only (default: %(default)s)")
    sub.epilog = "example: edgepost flash --image ESP32_GENERIC-20250911-v1.26.1.bin --port /dev/ttyUSB0"
    sub = add("test", _test, "Run the portable tests on a board, over its serial line; its flash stays as it is.")
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="where the board is (default: the one that is plugged in)")
    where.add_argument("--virtual", action="store_true", help="on a virtual board")
    sub.add_argument("--heapsize", metavar="SIZE", help="with --virtual: memory of its heap (default: 280k)")
    sub.add_argument("--tests", metavar="DIR", help="tests/portable of some sources (default: of this checkout, or of"
                     " this version)")  # fmt: skip
    sub.add_argument("-k", metavar="TEXT", default="", help="only tests with this in their name")
    sub.add_argument("file", nargs="*", metavar="FILE", help="only these files, such as test_queue.py")
    sub.epilog = "example: edgepost test --port /dev/ttyACM0 test_queue.py"
    sub = add(
        "deploy",
        _deploy,
        "Bring the gateway's code onto a board: what changed is sent, and the board tries the new version once; when it"
        " is no good, the one before it runs again. Exit status: 0 the gateway is up, 1 it was rolled back or is not"
        " up, 2 the board cannot be reached, is full, or something else is to be put right.",
    )
    sub.add_argument("board", nargs="?", metavar="board.toml", help="names user.py, if any (default: ./board.toml)")
    sub.add_argument("--port", metavar="PORT", help="where the board is (default: the one that is plugged in)")
    sub.add_argument(
        "--user", action="append", metavar="FILE", help="a Python file of yours that rules use; may be repeated"
    )
    sub.add_argument(
        "--in-place",
        action="store_true",
        help="replace the version that runs, for a flash too small for two: nothing is left to roll back to",
    )
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--watch", action="store_true", help="send what changes, and show the console, until Ctrl-C")
    which.add_argument("--dry-run", action="store_true", help="only list what would be sent")
    which.add_argument("--status", action="store_true", help="only say what is on the board")
    sub.epilog = "example: edgepost deploy board.toml --port /dev/ttyACM0"
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
