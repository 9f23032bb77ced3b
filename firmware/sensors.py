"""Sensor rules: read a sensor every so often, raise an alert when it crosses its limit.

A driver is a module of drivers/ with a class Driver(rule, board) and its method read(), which returns a number or
raises; it is loaded only when a rule names it.
"""

import asyncio

from smtp.queue import QueueFull


class Rule:
    """One [[sensor]] of the configuration. `alert` and `log` as in gateway."""

    def __init__(self, rule, board, alert, log):
        module = __import__("drivers." + rule["driver"], None, None, ("Driver",))
        self.driver = module.Driver(rule, board)
        self.name = rule["name"]
        self.every = rule["every"]
        self.limits = [(word, rule[word]) for word in ("above", "below") if rule.get(word) is not None]
        self.hysteresis = rule.get("hysteresis") or 0
        self.to = rule.get("to") or None
        self.priority = rule.get("priority") or "normal"
        self.alert = alert
        self.log = log
        self.raised = None  # the limit that is crossed
        self.ill = None  # what the driver said last

    def crossed(self, value):
        """The (word, limit) that `value` is beyond, or None. A raised one needs `hysteresis` to be let go."""
        for limit in self.limits:
            word, bound = limit
            slack = self.hysteresis if limit is self.raised else 0
            if value > bound - slack if word == "above" else value < bound + slack:
                return limit

    def step(self):
        """One reading."""
        try:
            value = self.driver.read()
        except (OSError, ValueError) as e:
            if str(e) != self.ill:
                self.ill = str(e)
                self.log("sensor", "%s cannot be read: %s" % (self.name, e))
            return
        self.ill = None
        limit = self.crossed(value)
        if limit and limit is not self.raised:
            text = "%s is %s, %s the limit of %s." % ((self.name, value) + limit)
            try:
                self.alert("%s: %s, %s %s" % ((self.name, value) + limit), text, self.to, self.priority)
            except QueueFull as e:
                self.log("sensor", "%s: no room for an alert: %s" % (self.name, e))
                return  # the next reading tries again
        self.raised = limit

    async def run(self):
        while True:
            self.step()
            await asyncio.sleep(self.every)
