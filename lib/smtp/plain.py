"""The words of an HTML text, for mail programs that show none: tags taken off, and no more."""

from . import const

_LONGEST = const(10)  # characters of an entity
_ENTITIES = " amp:& lt:< gt:> quot:\" apos:' nbsp:\xa0 deg:\xb0 "
_BREAKS = " br div li tr hr pre "
_GAPS = " p ul ol table h1 h2 h3 h4 "
_HIDDEN = (" head ", " title ", " style ", " script ")


def _entities(text):
    at = text.find("&")
    while at >= 0:
        end = text.find(";", at, at + _LONGEST)
        name = text[at + 1 : end]
        char = ""
        if end > 0 and name[:1] == "#":
            try:
                n = int(name[2:], 16) if name[1:2] in "xX" else int(name[1:])
                char = chr(n) if n >> 11 != 27 else ""  # no surrogates
            except (ValueError, OverflowError):
                pass
        elif end > 0:
            found = _ENTITIES.find(" " + name + ":")
            if found >= 0:
                char = _ENTITIES[found + len(name) + 2]
        if char:
            text = text[:at] + char + text[end + 1 :]
        at = text.find("&", at + 1)
    return text


def words(html):
    """The text of `html` (str), a generator of str."""
    at = 0
    gap = None  # what is between the last word and the next, None before the first
    while at < len(html):
        start = html.find("<", at)
        while start >= 0 and not (html[start + 1 : start + 2].isalpha() or html[start + 1 : start + 2] in ("/", "!")):
            start = html.find("<", start + 1)
        text = html[at:start] if start >= 0 else html[at:]
        found = text.split()
        if gap == "" and text and (not found or text[0].isspace()):
            gap = " "
        if found:
            yield (gap or "") + _entities(" ".join(found))
            gap = " " if text[-1].isspace() else ""
        if start < 0:
            break
        end = html.find("-->" if html[start + 1 : start + 4] == "!--" else ">", start)
        tag = html[start + 1 : end].split()
        name = tag[0].strip("/") if tag else ""
        tag = " " + name.lower() + " "
        if tag in _HIDDEN and html[start + 1] != "/":
            end = html.find("</" + name, start)
        elif gap is not None and tag in _GAPS:
            gap = "\n\n"
        elif gap is not None and tag in _BREAKS:
            gap = "\n\n" if "\n" in gap and tag == " br " or gap == "\n\n" else "\n"
        elif gap == "" and tag in (" td ", " th "):
            gap = " "
        if end < 0:
            break
        at = html.find(">", end) + 1 or len(html)
    if gap is not None:
        yield "\n"
