"""What is not plain ASCII, as all mail servers take it: encoded-words in header fields, quoted-printable and base64 in
texts. Loaded when there is some.

Standards: RFC 2045 (quoted-printable, base64), RFC 2047 (encoded-words).
"""

import binascii
import re

_WIDTH = 76  # RFC 2047 section 2, RFC 2045 section 6.7

_unplain = re.compile("[^ -~]").search
_wordless = re.compile(b"[^-A-Za-z0-9!*+/ ]").search  # RFC 2047 5 (3)


def encode_words(text, room=75):
    """`text` as encoded-words (RFC 2047) with spaces between, or as it is when it is plain ASCII.

    Each word is 75 characters at most and whole characters, the first one `room` at most.
    """
    if not _unplain(text) and "=?" not in text:
        return text
    return encoded(text, room)


def encoded(text, room):
    data = text.encode()
    odd = len([c for c in data if c != 32 and _wordless(bytes((c,)))])
    base64 = odd * 6 > len(data)  # Q would take more than 4/3
    words = []
    word = b""
    width = 0
    if room < 24:
        room = 75
    for char in text:
        raw = char.encode()
        if base64:
            size = (len(word) + len(raw) + 2) // 3 * 4
        else:
            if char == " ":
                raw = b"_"
            elif _wordless(raw):
                raw = b"".join([b"=%02X" % c for c in raw])
            size = width + len(raw)
        if size > room - 12:
            words.append(word)
            word = b""
            size = len(raw)
            room = 75
        word += raw
        width = size
    words.append(word)
    if base64:
        words = [binascii.b2a_base64(w)[:-1] for w in words]
    kind = "=?utf-8?B?" if base64 else "=?utf-8?Q?"
    return " ".join([kind + str(w, "utf-8") + "?=" for w in words])


def quoted_printable(line):
    """Pieces of one line of text (bytes) in quoted-printable, each with its line end."""
    last = len(line) - 1
    out = bytearray()
    for i in range(last + 1):
        c = line[i]
        if 33 <= c <= 126 and c != 61 or (c == 32 or c == 9) and i < last:
            size = 1
        else:
            size = 3
        if len(out) + size > (_WIDTH if i == last else _WIDTH - 1):
            out += b"=\r\n"
            yield out
            out = bytearray()
        if size == 1:
            out.append(c)
        else:
            out += b"=%02X" % c
    out += b"\r\n"
    yield out


def base64(lines):
    """Lines of base64 of a text, 76 characters each."""
    rest = b""
    for line in lines:
        at = 0
        while at <= len(line):  # a long line is not copied whole
            rest += line[at : at + 570] if at + 570 <= len(line) else line[at:] + b"\r\n"
            at += 570
            cut = 0
            while len(rest) - cut >= 57:
                yield binascii.b2a_base64(rest[cut : cut + 57])[:-1] + b"\r\n"
                cut += 57
            rest = rest[cut:]
    if rest:
        yield binascii.b2a_base64(rest)[:-1] + b"\r\n"


def encode(lines, way):
    """Pieces of a text, "base64" or "quoted-printable"."""
    if way == "base64":
        yield from base64(lines)
        return
    for line in lines:
        yield from quoted_printable(line)
