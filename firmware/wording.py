"""What mails say about sensors. Loaded when there is something to say.

May use: smtp.fold for durations. Knows a sensors.Rule.
"""

from smtp.fold import span


def fill(template, values):
    """`template` with values (dict of str) in place of their names: "{name}: {value}"."""
    out = []
    for part in template.split("{"):
        name, brace, rest = part.partition("}")
        out.append(values.get(name, "") + rest if brace else part)
    return "".join(out)


def number(rule, value):
    if rule.words:
        return rule.words[1 if value > 0.5 else 0]
    return "%.*f" % (rule.rule.get("decimals", 1), value)


def show(rule, value):
    """A value with its unit, or its word."""
    unit = rule.rule.get("unit")
    return number(rule, value) + (" " + unit if unit else "")


def status(rule):
    """How a sensor is now, in a line."""
    if rule.fault:
        say = "cannot be read: " + rule.fault
    elif rule.value is None:
        say = "not read yet"
    else:
        say = show(rule, rule.value)
        if rule.over.raised and not rule.words:
            say += ", %s the limit" % rule.over.raised.rstrip("?")
    return rule.name + ": " + say


def mail(rule, event, alarm, word, now):
    """(subject, text) of an event of `alarm`, one of the two of `rule`. word: what is wrong or was until now."""
    name, get = rule.name, rule.rule.get
    lasted = "at least " + span(now - alarm.start) if alarm.began is None else span(now - alarm.began)
    still = "still " if event == "repeat" else ""
    value = "" if rule.value is None else show(rule, rule.value)
    if alarm is rule.ill:
        if event == "recovery":
            return "%s: %s, can be read again" % (name, value), (
                "%s can be read again, and is %s. It could not be read for %s." % (name, value, lasted))
        text = "%s cannot be read: %s. Until it can, nobody hears when it crosses its limit." % (name, rule.fault)
        if value:
            text += " It was %s %s ago." % (value, span(now - rule.at))
        if still:
            text += " This has lasted %s." % lasted
        return "%s: %scannot be read" % (name, still), text
    bound = rule.limits[word]
    kind = ""
    if rule.words:
        short = ""
        long = rule.words[1 if word == "above" else 0]
    else:
        short = ", %s %s" % (word, show(rule, bound))
        long = "%s the limit of %s" % (word, show(rule, bound))
    if event == "recovery":
        kind = "recovery_"
        subject = "%s: %s, ok after %s" % (name, value, lasted)
        text = "%s is %s. It was %s for %s." % (name, value, long, lasted)
    else:
        subject = "%s: %s%s%s" % (name, still, value, short)
        text = "%s is %s%s." % (name, value, ", " + long if short else "")
        if still or alarm.hold:
            text += " This has lasted %s." % lasted
    values = {
        "name": name,
        "value": number(rule, rule.value),
        "unit": get("unit", ""),
        "limit": number(rule, bound),
        "state": "ok" if kind else long if rule.words else word,
        "lasted": lasted,
        "board": get("board", ""),
    }
    return fill(get(kind + "subject", ""), values) or subject, fill(get(kind + "text", ""), values) or text
