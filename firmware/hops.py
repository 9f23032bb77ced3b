"""The ways of mail that few gateways have: delivery by MX, LMTP, ETRN, and on-demand relay (ATRN) at both ends. Loaded
by gateway where the configuration has one of them; each part is loaded only when it is used.
"""

from smtp.relay import Relay, SmartHost


def hosts(items):
    """The next hops, for the list of the configuration."""
    made = []
    for item in items:
        protocol = item.pop("protocol", None)
        if item.pop("by", None):
            item["host"] = ""  # whoever the domain names
        host = SmartHost(**item)
        if protocol:
            from smtp.lmtp import LMTP

            host.kind = LMTP
        made.append(host)
    return made


def kept(config):
    """The domains whose mail waits until it is fetched."""
    return [domain for item in config["listener"] for names in item.get("atrn", {}).values() for domain in names]


def relay(config):
    """What makes the Relay: the class, but for what it has to know."""
    domains = kept(config)
    if [h for h in config["smarthost"] if h.get("by")]:
        from smtp.mx import Direct as kind
    elif domains:
        from smtp.atrn import Keeping as kind
    else:
        return Relay

    def make(*arguments):
        one = kind(*arguments)
        one.kept = domains
        return one

    return make


def listen(listener, item, relay):
    """What is special about a listener. Of a [[listener]] with `protocol` = "lmtp" LMTP is all that it speaks."""
    if item.get("protocol"):
        from smtp import lmtpd

        listener.commands = lmtpd.COMMANDS
        lmtpd.greet(listener)
    if item.get("etrn"):
        from smtp import etrn

        etrn.serve(listener, relay, item["etrn"])
    if item.get("atrn"):
        from smtp import atrn

        atrn.serve(listener, relay, item["atrn"])


def fetching(config, relay):
    """The job that fetches our mail: a function that gives a coroutine."""
    import fetch

    return fetch.Fetch(config, relay).run
