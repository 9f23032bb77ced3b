"""How a sender asks to be told what became of a mail: RET, ENVID, NOTIFY, ORCPT, RFC 3461 section 4.

May use: nothing. The notification itself is made by dsn.
"""

_BAD_XTEXT = "not xtext as in RFC 3461 section 4: + and two digits of 0-9A-F stand for what is not printable"


def xtext(text):
    """`text` (str) as xtext (RFC 3461 section 4). Raises ValueError for what is not printable ASCII."""
    out = ""
    for c in text:
        if not " " <= c <= "~":
            raise ValueError("not printable ASCII")
        out += "+%02X" % ord(c) if c in " +=" else c
    return out


def unxtext(text):
    """What an xtext (str) stands for. Raises ValueError for what is none, and when it hides what is not printable."""
    parts = text.split("+")
    for i in range(1, len(parts)):
        code = parts[i][:2]
        if len(code) < 2 or code.strip("0123456789ABCDEF"):
            raise ValueError(_BAD_XTEXT)
        parts[i] = chr(int(code, 16)) + parts[i][2:]
    out = "".join(parts)
    if " " in text or "=" in text or [c for c in out if not " " <= c <= "~"]:
        raise ValueError(_BAD_XTEXT)
    return out


def parse_notify(value):
    """The set of "NEVER", "SUCCESS", "FAILURE", "DELAY" that NOTIFY= names (RFC 3461 4.1), or ValueError."""
    asked = set(value.upper().split(","))
    for word in asked:
        if word not in ("NEVER", "SUCCESS", "FAILURE", "DELAY") or word == "NEVER" and len(asked) > 1:
            raise ValueError("give NEVER, or some of SUCCESS,FAILURE,DELAY")
    return asked


def parse_ret(value):
    """ "FULL" or "HDRS" from what RET= has (RFC 3461 4.3), or ValueError."""
    value = value.upper()
    if value not in ("FULL", "HDRS"):
        raise ValueError("give FULL or HDRS")
    return value


def parse_envid(value):
    """The envelope's identity from what ENVID= has (RFC 3461 4.4), or ValueError."""
    if not 0 < len(value) <= 100:
        raise ValueError("give 1 to 100 characters")
    return unxtext(value)


def parse_orcpt(value):
    """ "rfc822;address", or another type, from what ORCPT= has (RFC 3461 4.2), or ValueError.

    The address need not look like one of its type: that is what the RFC says, and senders do.
    """
    kind, semicolon, text = value.partition(";")
    if not text or not kind or kind.lower().strip("abcdefghijklmnopqrstuvwxyz0123456789-") or len(value) > 500:
        raise ValueError("give rfc822; and an address, 500 characters at most")
    return kind.lower() + ";" + unxtext(text)


CHECK = {"NOTIFY": parse_notify, "ORCPT": parse_orcpt, "RET": parse_ret, "ENVID": parse_envid}


def param(given, key):
    """The value of one of the parameters in `given`, "" when it is not there."""
    for item in (given or "").split():
        name, _, value = item.partition("=")
        if name == key:
            return value
    return ""


def wanted(notify, action):
    """True when a sender wants to hear of `action` ("failed", "delayed", "relayed", "delivered").

    notify: parameters of RCPT as given, " NOTIFY=... ORCPT=...", or what NOTIFY= has alone; "" or None: not asked.
    """
    if notify and "=" in notify:
        notify = param(notify, "NOTIFY")
    asked = (notify or "FAILURE,DELAY").upper()
    return {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS") in asked.split(",")
