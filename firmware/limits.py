"""Limits of sensors that were changed while the gateway ran: {sensor: {"above": [what board.toml said, what counts]}}
in the file `PATH`. One counts as long as board.toml still says what it said then.
"""

import json
import os

PATH = "/limits.json"


def read():
    try:
        with open(PATH) as f:
            found = json.load(f)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def restore(rules):
    """Puts the limits that were set into sensors.Rule objects, at a start."""
    kept = read()
    for rule in rules:
        for word, pair in kept.get(rule.name, {}).items():
            if rule.limits.get(word) == pair[0]:
                rule.limits[word] = pair[1]


def change(rules, name, word, number):
    """Sets a limit; gives a sentence that says what became of it. All are texts."""
    for rule in rules:
        if rule.name.lower() == name.lower():
            break
    else:
        return "There is no sensor %s here. Nothing was changed. There are: %s." % (
            name, ", ".join([rule.name for rule in rules]) or "none")
    if word not in rule.limits or rule.words:
        return "%s has no limit %s. Nothing was changed. It has: %s." % (
            rule.name, word, ", ".join(sorted(rule.limits)) if not rule.words else "none that is a number")
    try:
        value = float(number)
        if not -1e30 < value < 1e30:
            raise ValueError
    except ValueError:
        return "%s is no number. Nothing was changed." % number
    if "above" in rule.limits and "below" in rule.limits:
        other = rule.limits["below" if word == "above" else "above"]
        if (value <= other) if word == "above" else (value >= other):
            return "Then %s would be wrong at any value. Nothing was changed." % rule.name
    kept = read()
    was = rule.limits[word]
    kept.setdefault(rule.name, {})[word] = [rule.rule[word], value]
    try:
        with open(PATH + ".new", "w") as f:
            json.dump(kept, f)
        os.rename(PATH + ".new", PATH)
    except OSError as e:
        return "The limit could not be written (%s). Nothing was changed." % e
    rule.limits[word] = value
    return "%s: %s is %s now, it was %s." % (rule.name, word, value, was)
