"""Whether each promise was kept: from what the neighbours of a gateway know and what is left in its spool.

May use: nothing. See world.py for what the facts mean.
"""

import json
import os


def name(rcpt):
    """The name of the mail that a recipient is of."""
    return (rcpt[3:] if rcpt[:3] == "to " else rcpt).partition("@")[0].partition(".")[0]


def letters(path, torn=False):
    """({recipient: file} of all dead letters in a spool, {recipient} of those that gave way to alerts). AssertionError
    when anything else is left there. torn: the file system shows part of a file that was still arriving; such a one may
    have been set aside."""
    found = {}
    gone = set()
    for file in os.listdir(path):
        stem, _, mark = file.partition("-")
        if mark == "why" or torn and mark in ("bad", "junk"):
            continue
        with open(path + "/" + file, "rb") as f:
            if mark == "gone":
                for line in f.read().decode().split("\n")[:-1]:
                    gone.update(addresses(line))
                continue
            assert mark in ("dead", "kept"), "%s is left in the spool" % file
            meta = json.loads(f.readline())
        failed = int(stem.split(".")[3], 16)
        for n, rcpt in enumerate(meta["r"]):
            if failed >> n & 1:
                found[rcpt if meta["f"] and "k" not in meta else "to " + rcpt] = file
    return found, gone


def addresses(line):
    """The recipients in a line about a mail that gave way."""
    return [part.partition(">")[0] for part in line.partition(" to <")[2].split("<")]


def judge(facts, left, story):
    """How many mails somebody got again because of a cut. AssertionError when a promise was broken.

    left: see letters(); story: a stories.Story.
    """
    admin = story.settings.get("admin")
    left, gone = left
    promised = []
    taken = {}
    told = {}
    flying = {}  # a smart host has it, the queue does not know yet
    noted = {}  # name -> whom a notification goes to that may be committed, while what it is about is not settled
    spare = {}  # copies that a cut or a broken connection explains
    again = {}  # what a cut makes come again
    alerts = {}  # rule -> how many alerts were promised
    maybe = {}  # rule -> how many more there may be: of one that was being raised, of one that was on its way
    folded = {}  # rule -> {identity: how many alerts}
    copies = cuts = 0
    for fact in facts:
        what = fact[0]
        who = fact[1] if len(fact) > 1 else None
        if what == "wrong":
            raise AssertionError(who)
        if what == "promised":
            promised.append(who)
        elif what == "taken":
            taken[who] = taken.get(who, 0) + 1
            flying[who] = flying.get(who, 0) + 1
            if again.pop(name(who), None):
                copies += 1
        elif what == "settled":
            flying[who] = max(0, flying.get(who, 0) - 1)  # two bounces of one mail have one name
        elif what == "told":
            told[fact[1:]] = told.get(fact[1:], 0) + 1
        elif what == "noting":
            noted[name(who)] = "to " + who
        elif what == "recorded":
            noted.pop(who, None)
        elif what == "raised":
            maybe[who] = maybe.get(who, 0) + 1
        elif what == "stormed":
            maybe[who] -= 1
            alerts[who] = alerts.get(who, 0) + 1
        elif what == "folded":
            folded.setdefault(who, {})[fact[2]] = fact[3]
        elif what == "broke" or what == "cut":
            for rcpt, times in flying.items():
                spare[rcpt] = spare.get(rcpt, 0) + times
                if times and what == "cut":
                    again[name(rcpt)] = True
                    if "@storm." in rcpt:  # more alerts may be folded into a mail that is delivered already
                        rule = name(rcpt)
                        maybe[rule] = maybe.get(rule, 0) + folded[rule][rcpt.partition("#")[2]]
            flying = {}
            if what == "cut":
                cuts += 1
                for to in noted.values():
                    spare[to] = spare.get(to, 0) + 1
                noted = {}
    failed = {about for about, action, _ in told if action == "failed"}
    for rcpt, times in taken.items():
        if rcpt[:3] == "to ":
            continue  # the notifications are counted by what they tell
        assert rcpt not in failed, "%s got it, and yet its sender heard that he did not" % rcpt
        assert rcpt not in left, "%s got it, and yet it is a dead letter" % rcpt
        assert times - 1 <= spare.get(rcpt, 0), "%s got it %d times" % (rcpt, times)
    for (about, action, to), times in told.items():
        assert times - 1 <= spare.get("to " + to, 0), "%s was told %d times that %s %s" % (to, times, about, action)
    reported = {fact[1] for fact in facts if fact[0] == "reported"}
    for rcpt, file in left.items() if admin else ():
        assert rcpt in reported or rcpt[3:] in reported, "%s is told nothing of %s" % (admin, rcpt)
        assert file.endswith("-kept"), "%s is not marked as reported" % file
    for rule, wanted in alerts.items():
        got = sum(folded.get(rule, {}).values())
        assert wanted <= got <= wanted + maybe[rule], "rule %s: %d alerts were promised, %d came" % (rule, wanted, got)
    bounces = {name(rcpt) for rcpt in left if rcpt[:3] == "to "}  # that nobody took
    gone = gone | {rcpt for rcpt in reported if rcpt not in left and rcpt in promised}
    for rcpt in gone:
        # They may be taken, too: a cut between the note and the removal.
        assert story.spares(rcpt), "%s gave way" % rcpt
    for rcpt in promised:
        assert rcpt in gone or rcpt in taken or rcpt in failed or rcpt in left or name(rcpt) in bounces, (
            "%s was promised a mail and there is none" % rcpt)
    assert copies <= story.window * cuts, "%d mails came again" % copies
    return copies
