"""Whether the provider's mail server vouches for who has written a mail: its Authentication-Results field (RFC 8601)
has to say dmarc=pass (RFC 7489). Loaded only where [fetch] verified_by names that server.

May use: nothing.
"""


def _bare(value):
    """A field's value without comments and quoted strings, in which a stranger may have had his say (RFC 5322 3.2)."""
    out = []
    depth = 0
    quoted = skip = False
    for c in value:
        if skip:
            skip = False
        elif c == "\\":
            skip = True
        elif quoted:
            quoted = c != '"'
        elif c == "(":
            depth += 1
        elif depth:
            depth -= c == ")"
        elif c == '"':
            quoted = True
        else:
            out.append(c)
    return "".join(out)


def passed(values, server):
    """values: those of the fields (str), from the top; server: its name in lower case. The first field of that server
    counts: what stands below may have come with the mail."""
    for value in values:
        parts = _bare(value.lower()).split(";")
        if parts[0].split()[:1] != [server]:
            continue
        for part in parts[1:]:
            method, _, result = part.partition("=")
            if method.partition("/")[0].strip() == "dmarc":
                return result.split()[:1] == ["pass"]
        return False
    return False
