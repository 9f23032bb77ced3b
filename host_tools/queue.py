"""`edgepost queue`: the mail that waits in a running gateway, and its dead letters.

Over the serial line or the LAN (asking.py); the gateway goes on.
"""

import json
import re
import shutil
import sys

from . import asking, wording
from .errors import UserError

_DEAD = ("dead", "kept", "bad", "junk")


def mails(gateway):
    """Each mail, page by page: those that wait, then dead letters."""
    path, seen = "/queue", set()
    while path and path not in seen:
        seen.add(path)
        page = gateway.json("GET", path)
        yield from page["mails"]
        path = page["next"]


def find(gateway, ident):
    """The mail with this id, or with this name in the log. Raises UserError."""
    ident = ident.strip().lower()
    if re.fullmatch("[0-9a-f]{8}", ident):
        try:
            return gateway.json("GET", f"/queue/{ident}/envelope")
        except asking.Refused as e:
            if e.status != 404:
                raise
    for item in mails(gateway):
        if ident and ident in (item["id"], item.get("queued_as")):
            return item
    raise UserError(f"there is no mail {asking.clean(ident)[:40]!r} in the queue; it may have been delivered:"
                    " `edgepost queue list` shows what there is")  # fmt: skip


def listing(gateway, dead, as_json):
    found = 0
    width = shutil.get_terminal_size((80, 24)).columns
    counts = {"wait": 0, "dead": 0}
    for item in mails(gateway):
        is_dead = item["state"] in _DEAD
        counts["dead" if is_dead else "wait"] += 1
        if dead and not is_dead:
            continue
        found += 1
        print(json.dumps(item) if as_json else "\n".join(wording.mail(item, width)), flush=True)
    if not as_json:
        if found:
            print()
        waiting = "" if dead else f"{wording.count(counts['wait'], 'mail')} in the queue, "
        print(f"{waiting}{wording.count(counts['dead'], 'dead letter')}")
        if counts["wait"] and not dead:
            why(gateway, width)
    return 0


def why(gateway, width):
    """Says what keeps mail from going: no smart host takes it, or the clock is not set."""
    status = gateway.json("GET", "/status.json")
    if status.get("trouble"):
        print("\n".join(wording.row("trouble", asking.clean(status["trouble"]), width)))
    timeless = wording.clock(status)
    if timeless:
        print("\n".join(wording.row("clock", f"{timeless[0]} -> {timeless[1]}", width)))


def show(gateway, ident, as_json):
    item = find(gateway, ident)
    if as_json:
        print(json.dumps(item))
        return 0
    text = gateway.get("GET", f"/queue/{item['id']}")
    if sys.stdout.isatty():
        print("\n".join(wording.mail(item, shutil.get_terminal_size((80, 24)).columns)), end="\n\n")
        print(asking.clean(text.decode("utf-8", "replace").replace("\r\n", "\n"), "\n\t"))
    else:  # as it is, for a file or another program
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    return 0


def delete(gateway, ident, yes):
    item = find(gateway, ident)
    if item["state"] not in _DEAD:
        raise UserError(f"{item['id']} waits, and only dead letters can be deleted: it is given up by itself after"
                        " queue.expire")  # fmt: skip
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody is there to be asked: with --yes it is deleted without a question")
        print("\n".join(wording.mail(item, shutil.get_terminal_size((80, 24)).columns)))
        if input("Delete this mail for good? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 1
    gateway.get("DELETE", f"/queue/{item['id']}")
    print(f"{item['id']} is deleted")
    return 0


def send(gateway, ident):
    item = find(gateway, ident)
    gateway.get("POST", f"/queue/{item['id']}/send")
    print(f"{item['id']} is due now" if item["state"] not in _DEAD else f"{item['id']} waits again, and is due now")
    return 0


def run(args):
    """`edgepost queue`, with its arguments. Gives the exit status."""
    with asking.reach(args.port, args.host, args.password_file) as gateway:
        if args.what == "list":
            return listing(gateway, args.dead, args.json)
        if args.what == "show":
            return show(gateway, args.id, args.json)
        if args.what == "send":
            return send(gateway, args.id)
        if args.what == "delete":
            return delete(gateway, args.id, args.yes)
        if args.what == "start":
            gateway.get("POST", "/queue/start")
            print("all mail is due now")
        else:
            ident = gateway.json("POST", "/test-mail").get("queued_as")
            print(f"a test mail to [mail] to is queued as {asking.clean(ident)}")
        return 0
