"""What is known of single devices on the LAN: a sender of their own, mails an hour, how important their mail is.

May use: smtp.network, smtp.rate, smtp.reply. Loaded only when the configuration has a [[device]].
"""

from smtp.network import in_networks, parse_ip, parse_network
from smtp.rate import Rate
from smtp.reply import SMTPError


class Devices:
    """The [[device]] tables; the first that fits a session counts. `uptime()` gives seconds that never go back."""

    def __init__(self, items, uptime):
        self.uptime = uptime
        self.items = []
        for item in items:
            address = item.get("address")
            limit = item.get("per_hour")
            if item.get("sender"):
                item = dict(item)
                item["meta"] = {"q": item["sender"]}
            self.items.append((address and [parse_network(address)], item, limit and Rate(limit, 3600)))

    def find(self, envelope):
        """The table (dict) of the device that has sent MAIL, {} when none fits; its `meta` is what the queue keeps,
        see relay. Counts one mail; raises SMTPError 450 when that is one too many."""
        ip = parse_ip(envelope.peer)
        for networks, item, rate in self.items:
            if networks and not in_networks(ip, networks) or item.get("user") not in (None, "", envelope.user):
                continue
            if rate:
                wait = rate.wait(self.uptime())
                if wait:
                    raise SMTPError(450, "4.7.1", "%d mails an hour is the limit for this device, try again in %d s" % (
                        item["per_hour"], wait))
                rate.count(self.uptime())
            return item
        return {}
