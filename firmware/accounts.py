"""The accounts of smart hosts that want tokens instead of a password. A gateway without one does not load this."""

from binascii import crc32

from smtp.oauth import Tokens


def sign_in(hosts, time, log):
    """Puts a Tokens in the place of each "oauth" table in `hosts`, the list of the configuration; returns them all.

    Smart hosts with the same account share one, or the second would use up what the first has to renew with. The name
    of its files says which account it is, not which place in the list.
    """
    made = {}
    for h in hosts:
        if "oauth" in h:
            table = h["oauth"]
            if "ca" not in table:
                table["ca"] = h["ca"]
            key = " ".join([h["username"]] + [table[k] for k in ("token_url", "client_id", "scope", "mechanism")])
            if key not in made:
                made[key] = Tokens(
                    path="/oauth-%08x" % crc32(key.encode()), uptime=time.uptime, now=time.now,
                    log=lambda text: log("oauth", text), **table)
            h["oauth"] = made[key]
    return list(made.values())
