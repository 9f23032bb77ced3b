"""Finds what is wrong with a configuration that cannot be used, so that a person can mend it on the board. Loaded only
when that has happened; the host's tools check much more, and before anything is deployed.
"""

_NUMBER = (int, float)
_NEEDED = {
    "board": {"domain": str, "tz": list},
    "mail": {},
    "queue": {"max_bytes": int, "max_message": int},
    "smarthost": [{"host": str}],
    "listener": [{"address": str, "port": int, "tls": str, "allow": list, "users": dict, "auth_in_clear": bool}],
    "sensor": [{"name": str, "driver": str, "every": _NUMBER}],
}
_PERHAPS = {
    "board": {"name": str, "ntp": list, "dns": list},
    "mail": {"heartbeat": _NUMBER, "fold": _NUMBER, "to": list},
    "smarthost": [{"port": int, "ca": list, "security": str}],
    "device": [{}],
}
_WHOLE = {"wifi": {"ssid": str, "hostname": str}, "log": {"max_bytes": int}}  # that may be missing, but only as a whole
_WORDS = {str: "text", int: "a number", _NUMBER: "a number", list: "a list", dict: "a table", bool: "true or false"}


def find(config):
    """What is wrong, as text, or "" where nothing is found."""
    found = walk("", config, _NEEDED, True) or walk("", config, _PERHAPS, False)
    for key, wanted in _WHOLE.items() if not found else ():
        if config.get(key):
            found = found or walk(key, config[key], wanted, True)
    return found


def walk(name, value, wanted, needed):
    kind = type(wanted) if isinstance(wanted, (dict, list)) else wanted
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        return "%s has to be %s" % (name or "all of it", _WORDS[kind])
    if kind is list and wanted is not list:
        for n, item in enumerate(value):
            found = walk("%s number %d:" % (name, n + 1), item, wanted[0], needed)
            if found:
                return found
    if kind is dict and wanted is not dict:
        for key, item in wanted.items():
            path = (name and name + (" " if name[-1] == ":" else ".")) + key
            if key in value:
                found = walk(path, value[key], item, needed)
                if found:
                    return found
            elif needed:
                return path + " is missing"
    return ""
