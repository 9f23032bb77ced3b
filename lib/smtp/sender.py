"""Another sender in a mail's From field, for a smart host that takes but one.

May use: address, and words where an original From is not ASCII. Standards: RFC 6409 section 8, RFC 5322 section 3.4.
"""

import re

from .address import ATEXT, valid_mailbox

_WIDTH = 76

_unclean = re.compile(b"[^ -~]").search


def rewrite(field, sender, wide=None):
    """A From field (bytes) with `sender` as its address: the display name stays and gets the original address. Returns
    (the new field, a Reply-To field with the original address or b"" when there is nothing to answer to). wide:
    utf8.good where that may be an address in UTF-8."""
    value = field[field.find(b":") + 1 :].replace(b"\r\n", b"")
    value = bytes([32 if c < 32 or c == 127 else c for c in value]).strip()
    name, address = split_mailbox(value)
    if address.lower() == sender.lower():
        return field if field.endswith(b"\n") else field + b"\r\n", b""
    if _is_mailbox(address) or wide and wide(address):
        reply = name + b" <" + address + b">" if name else address
    elif _is_list(value):
        reply = value
    else:
        reply = value[value.rfind(b"<") + 1 : value.rfind(b">")]
        if not _is_mailbox(reply):
            reply = b""
    shown = _quote(address)
    if not name:
        name = shown
    elif shown[:1] == b"=":
        name += b" " + _quote(b" (" + address + b")")  # a space between encoded-words does not count
    elif shown and name[:1] == b'"' and b"=?" not in name:
        name = name[:-1] + b" (" + shown[1:-1] + b')"'
    elif shown:
        name += b' "(' + shown[1:-1] + b')"'
    return (
        _fold(b"From: " + name + b" <" + sender + b">" if name else b"From: " + sender),
        _fold(b"Reply-To: " + reply) if reply else b"",
    )


def _text(data):
    """Str of bytes: UTF-8, else what old devices mean by them, Latin-1."""
    try:
        return str(data, "utf-8")
    except UnicodeError:
        return "".join([chr(c) for c in data])


def _is_mailbox(data):
    return not _unclean(data) and valid_mailbox(str(data, "utf-8"))


def _is_list(value):
    """True for mailboxes with commas between, without quotes, which might hold commas."""
    if b'"' in value or _unclean(value):
        return False
    for part in value.split(b","):
        if not _is_mailbox(split_mailbox(part.strip())[1]):
            return False
    return True


def _quote(data):
    """A phrase (bytes) that reads as `data`: quoted, or encoded when it is not ASCII."""
    if _unclean(data):
        from .words import encode_words

        return encode_words(_text(data), 60).encode()
    return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if data else b""


def _closed(data):
    """Length of the string, comment or address that starts `data`; too much when it has no end."""
    kind = data[0]
    depth = 0
    at = 0
    while at < len(data):
        c = data[at]
        if c == 92:
            at += 1
        elif kind == 40:
            depth += (c == 40) - (c == 41)
        elif c == 34:
            depth ^= 1
        if not depth and (c == 62 or kind != 60):
            return at + 1
        at += 1
    return at + 1


def split_mailbox(value):
    """(phrase, address) in bytes from the unfolded value of a From field.

    The phrase is safe to use before another address: of words and quoted strings, ASCII. The
    address is b"" for what is no single mailbox, and the phrase then reads as the whole value.
    """
    parts = []  # quoted strings and what is between
    comment = address = b""
    plain = True
    at = 0
    start = 0
    end = len(value)
    while at < end:
        c = value[at]
        if c == 34 or c == 40 or c == 60:  # " ( <
            parts.append(value[start:at])
            start = at
            at += _closed(value[at:])
            piece = value[start:at]
            if at > end:
                plain = False
            elif c == 40:
                comment = comment or piece[1:-1].strip()
            elif address:
                plain = False
            elif c == 34:
                parts.append(piece)
            else:
                address = piece[1:-1].strip() or b"<>"
            start = at
        elif c == 44 or c == 58 or c == 59 or (address and c != 32):  # , : ; : a list or a group
            plain = False
            at += 1
        else:
            at += 1
    if not plain:
        return _quote(value), b""
    parts.append(value[start:])
    phrase = b"".join(parts).strip()
    if not address:
        if not phrase or b"@" in phrase:
            address = phrase
            phrase = b""
        if b" " in address and not _is_mailbox(address):
            return _quote(value), b""
    if address == b"<>":
        address = b""
    if not phrase:
        return _quote(comment), address
    if b"=?" in phrase and not _unclean(phrase):
        for part in parts:
            if part[:1] != b'"' and part.strip(ATEXT + b" "):
                break
        else:
            return phrase, address  # encoded-words count only outside of quotes
    text = []
    for part in parts:
        if part[:1] == b'"':
            pieces = part[1:-1].split(b"\\\\")
            part = b"\\".join([piece.replace(b"\\", b"") for piece in pieces])
        text.append(part)
    return _quote(b"".join(text).strip()), address


def _fold(line):
    """A header field with CRLF, folded at spaces where it is longer than 76."""
    out = b""
    start = line.find(b" ") + 1
    while len(line) > _WIDTH:
        at = line.rfind(b" ", start, _WIDTH + 1)
        if at <= 0:
            at = line.find(b" ", max(_WIDTH, start))
            if at < 0:
                break
        out += line[:at] + b"\r\n"
        line = line[at:]
        start = len(line) - len(line.lstrip())  # no line of spaces only
    return out + line + b"\r\n"
