"""Delivery status notifications: what a sender asked to be told, and the mail that tells it.

May use: address, message, notify; utf8 where an address is not ASCII. Standards: RFC 3461 (what may be asked for), RFC
3464 and 6522 (the report), RFC 6533 (the same in UTF-8), RFC 3834 (automatic mail). It goes out with the null
reverse-path, so that nobody answers it.

What a peer said adds neither a line nor a field: what is not printable ASCII becomes "?", long text is cut and folded.
"""

import binascii
import os

from . import const
from .address import valid_mailbox
from .date import date
from .notify import param, parse_envid, parse_orcpt

_WIDTH = const(76)
_PIECE = const(900)  # octets that are collected before they are yielded
_MAX_TEXT = const(500)  # of a peer's reply
_MAX_HEADER = const(8192)  # of the original's header section
_BUFFER = const(512)

# What is most important to tell comes first.
_ACTIONS = (
    ("failed", "not delivered"),
    ("delayed", "delayed"),
    ("relayed", "relayed"),
    ("delivered", "delivered"),
)
_TOO_BIG = "The mail is too big. Send less of it, or send it in parts."
# Subject and detail of an enhanced code, or its subject alone (RFC 3463 section 3): what it means. What to do.
_MEANS = {
    "1": "The address is not one that mail can go to. Check it, then send the mail again.",
    "1.1": "There is no such mailbox. Check the address, then send the mail again.",
    "1.7": "The sender's address was refused. Check the address that the mail is sent from.",
    "1.8": "The sender's address was refused. Check the address that the mail is sent from.",
    "2": "The mailbox does not take mail. Reach its owner in another way.",
    "2.2": "The mailbox is full. Reach its owner in another way; when there is room, send the mail again.",
    "2.3": _TOO_BIG,
    "3.4": _TOO_BIG,
    "4": "The next mail server could not be reached. Check its name and the network, then send the mail again.",
    "4.6": "The mail went round in circles. Tell the operator of this gateway: a route is wrong.",
    "4.7": "No mail server took it in time. Find out what is wrong on the way, then send the mail again.",
    "6": "The mail server cannot take this kind of content. Send it as plain text in ASCII.",
    "6.7": "The mail server takes only plain letters (ASCII) in addresses and header fields. Use an address in plain"
    " letters and a subject that your program encodes, or ask the operator for a mail server with SMTPUTF8.",
    "7.30": "The mail was to stay on verified TLS all the way (REQUIRETLS), and the mail server does not promise that."
    " Send it without that wish, or reach its reader in another way.",
    "7": "The rules of the mail server do not allow it. Do what its answer says, or ask its postmaster.",
    "": "The answer of the mail server is all that is known. Ask its postmaster.",
}


def _clean(text, limit=255):
    """`text` in one line of printable ASCII, cut."""
    return "".join([c if " " <= c <= "~" else "?" for c in text[:limit]])


def _wrap(line, text, indent):
    """Lines that start with `line`, then hold the words of `text`."""
    for word in text.split():
        if len(line) + len(word) >= _WIDTH and line.strip():
            yield line
            line = indent + word
        elif line.strip():
            line += " " + word
        else:
            line += word
    yield line


def _status(action, result):
    """The enhanced code of a result, or the plainest one that fits."""
    if result is None:  # nobody answered
        return {"failed": "4.4.7", "delayed": "4.4.1"}.get(action, "2.0.0")
    code, enhanced, _ = result
    parts = [p for p in enhanced.split(".") if 0 < len(p) <= 3 and not p.strip("0123456789")]
    if len(parts) == 3 and ".".join(parts) == enhanced:
        return enhanced
    return "%d.0.0" % (code // 100 if code // 100 in (2, 4, 5) else 4)  # there is no other class (RFC 3463 2)


def _said(result):
    code, enhanced, text = result
    said = "%d %s " % (code, enhanced) if enhanced else "%d " % code
    return _clean(said + text.replace("\n", " "), _MAX_TEXT)


def _odd(address):
    """True for an address of RFC 6531 that is not ASCII."""
    if len(address) == len(address.strip()) and max(address + " ") > "~":
        from .utf8 import normal

        try:
            return bool(normal(address))
        except ValueError:
            pass
    return False


def _shown(address):
    return address if _odd(address) else _clean(address)


def _human(name, meta, results, offset, until):
    """Lines of the part for people."""
    text = "this is the mail gateway %s. Here is what became of a mail" % name
    if meta.get("f"):
        text += " from <%s>" % _shown(meta["f"])
    if meta.get("t"):
        text += " that arrived on " + date(meta["t"], offset)
    yield from _wrap("Hello,", text + ".", "")
    for address, action, result, _, host in results:
        yield ""
        yield "<" + _shown(address) + ">: " + dict(_ACTIONS)[action]
        if result:
            who = "This gateway says" if host is None else _clean(host or "The next mail server") + " answered"
            yield from _wrap("    ", who + ": " + _said(result), "    ")
        code = _status(action, result).split(".")
        means = _MEANS.get(code[1] + "." + code[2]) or _MEANS.get(code[1]) or _MEANS[""]
        means, _, to_do = means.partition(". ")
        if action == "failed":
            if code[0] == "4":
                means = "It was tried again for a long time, and is given up now. " + means
        elif action == "delayed":
            to_do = "Nothing: the gateway tries again%s, and tells you if it gives up."
            to_do %= " until " + date(until, offset) if until else ""
        else:
            to_do = "Nothing."
            means = "It is where it had to go"
            if action == "relayed":
                means = "It is passed on to a mail server that does not report what becomes of it"
        yield from _wrap("    What this means:", means + ".", "    ")
        yield from _wrap("    What to do:", to_do, "    ")


def _machine(name, meta, results, offset, until, wide):
    """Lines of the part for programs (RFC 3464 section 2), with `wide` in UTF-8 (RFC 6533 section 4)."""
    yield "Reporting-MTA: dns; " + name
    try:
        yield "Original-Envelope-Id: " + parse_envid(meta.get("v") or param(meta.get("d"), "ENVID"))
    except ValueError:
        pass  # there is none
    if meta.get("t"):
        yield "Arrival-Date: " + date(meta["t"], offset)
    for address, action, result, asked, host in results:
        yield ""
        try:
            first = parse_orcpt(param(asked, "ORCPT"))
            if wide and first[:6] == "utf-8;":
                from .utf8 import raw

                first = raw(first)
            yield "Original-Recipient: " + first
        except ValueError:
            pass
        if _odd(address):
            from .utf8 import embedded, escaped

            yield "Final-Recipient: utf-8; " + (address if wide else embedded(escaped(address)))
        else:
            yield "Final-Recipient: rfc822; " + _clean(address)
        yield "Action: " + action
        yield "Status: " + _status(action, result)
        if host:
            yield "Remote-MTA: dns; " + _clean(host)
        if result:
            kind = "x-edgepost" if host is None else "smtp"  # which is what a server has said (RFC 3464 2.3.6)
            yield from _wrap("Diagnostic-Code: %s;" % kind, _said(result), " ")
        if action == "delayed" and until:
            yield "Will-Retry-Until: " + date(until, offset)


def _header(read):
    """Pieces of the header section that `read` gives: whole lines, up to the first that is empty or no field."""
    buf = bytearray(_BUFFER)
    left = _MAX_HEADER
    hold = b""
    mid = False  # in the middle of a line
    n = 1
    while n:
        n = read(buf)
        hold += buf[:n]
        at = 0
        while at < len(hold):
            end = hold.find(b"\n", at) + 1
            if not end:
                if n and len(hold) - at < _BUFFER:
                    break  # the rest of the line is still to come
                end = min(len(hold), at + _BUFFER)
            more = mid or hold[at] in b" \t" and left < _MAX_HEADER  # of a field that has begun
            left -= end - at
            if left < 0 or not more and hold.find(b":", at, end) <= at:
                return
            yield hold[at:end]
            mid = hold[end - 1] != 10
            at = end
        hold = hold[at:]


def _whole(read):
    buf = bytearray(_BUFFER)
    n = read(buf)
    while n:
        yield bytes(buf[:n])
        n = read(buf)


def _pieces(name, to, meta, results, now, offset, message, full, eight, until):
    # 128 random bits, drawn when all else is fixed: nothing in the mail can know them, so nothing is searched for them.
    # "=_" is in no quoted-printable and no base64 (RFC 2045 6.7).
    edge = "=_" + binascii.hexlify(os.urandom(16)).decode()
    actions = [r[1] for r in results]
    full = full and "failed" in actions  # RFC 3461 4.3: else the header is enough
    if "@" not in to:
        to += "@" + name  # a bare postmaster is ours
    odd = bool([a for a in [to, meta.get("f", "")] + [r[0] for r in results] if _odd(a)])
    # For who can read it: he has such an address, or has sent such a mail (RFC 6533 section 1).
    wide = (odd or eight) and (_odd(to) or "SMTPUTF8" in meta.get("e", ""))
    eight = eight and full or wide
    way = "Content-Transfer-Encoding: 8bit"
    head = ['From: "Mail gateway %s"' % name, " <postmaster@%s>" % name]
    head.append("To: <%s>" % to if valid_mailbox(to) or _odd(to) else "To: undisclosed-recipients:;")
    head.append("Subject: Mail " + [text for action, text in _ACTIONS if action in actions][0])
    if now:
        head.append("Date: " + date(now, offset))
    head.append("Auto-Submitted: auto-replied")
    head.append("MIME-Version: 1.0")
    head.append("Content-Type: multipart/report; report-type=delivery-status;")
    head.append(' boundary="%s"' % edge)
    if eight or odd:
        head.append(way)
    edge = "--" + edge
    for lines in (
        head,
        ("", edge, "Content-Type: text/plain; charset=utf-8", way, "")
        if odd else ("", edge, "Content-Type: text/plain; charset=us-ascii", ""),
        _human(name, meta, results, offset, until),
        ("", edge, "Content-Type: message/global-delivery-status", way, "")
        if wide else ("", edge, "Content-Type: message/delivery-status", ""),
        _machine(name, meta, results, offset, until, wide),
    ):
        for line in lines:
            yield line.encode() + b"\r\n"
    if message:
        kind = "message/rfc822" if full else "text/rfc822-headers"
        if wide:
            kind = "message/global" if full else "message/global-headers"
        for line in ("", edge, "Content-Type: " + kind, way if eight else "Content-Transfer-Encoding: 7bit", ""):
            yield line.encode() + b"\r\n"
        for piece in _whole(message) if full else _header(message):
            if not eight and max(piece) > 126:  # not declared, so it may not be there
                piece = bytes([c if c < 127 else 63 for c in piece])
            yield piece
    yield b"\r\n" + edge.encode() + b"--\r\n"


def report(name, to, meta, results, now, offset, message=None, full=False, eight=False, until=None):
    """A notification, a whole mail without a Message-ID: a generator of bytes in pieces below 1 KB.

    name     str, our domain or address literal        to      str, the address it goes to
    meta     of the original, as in the queue: f reverse-path, t arrival (epoch seconds or 0), d parameters of MAIL as
             given (" RET=... ENVID=...") or v what ENVID= has
    results  (address, action, reply, asked, host) for each recipient: action "failed", "delayed", "relayed" or
             "delivered", reply (code, enhanced code or "", text) or None when nobody answered, asked the parameters
             of RCPT as given (" NOTIFY=... ORCPT=...") or None, host the name of who answered, "" when that is not
             known, None when nobody was asked and the reply is our own
    now      epoch seconds, 0 when not known: no Date   offset  of the time zone, seconds east
    message  like readinto() of a file, gives the original in lines that end in CRLF; None: it is not returned
    full     the original is returned whole if a recipient failed; otherwise its header, 8 KB at most
    eight    the original has 8-bit octets. Where that is not said, or only the header goes, they become "?"
    until    epoch seconds until which what is delayed is tried again, or None
    """
    out = b""
    for piece in _pieces(name, to, meta, results, now, offset, message, full, eight, until):
        if len(out) + len(piece) > _PIECE:
            yield out
            out = b""
        out += piece
    yield out
