"""firmware/sensors.py against a naive reference: for any series of readings, what is mailed is what the rule says."""

import contextlib

import sensors
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp.queue import QueueFull

FAILED = "failed"


class Board:
    pass


def run(path, config, story):
    """The mails of a rule through a story of (seconds to the next reading, reading, queue is full, power cut before):
    (time, kind, word)."""
    clock = {"now": 0, "start": 0, "full": False}
    mails = []

    def alert(subject, text, to, priority, rule):
        if clock["full"]:
            raise QueueFull("full")
        mails.append((clock["now"], kind(subject), rule))

    def boot():
        clock["start"] = clock["now"]
        told = sensors.Told(str(path), lambda area, text: None)
        one = sensors.Rule(config, Board(), alert, lambda area, text: None, lambda: clock["now"] - clock["start"], told)
        one.driver = driver
        return one

    class Driver:
        def read(self):
            if clock["reading"] == FAILED:
                raise OSError("no answer")
            return clock["reading"]

    driver = Driver()
    path.unlink(missing_ok=True)
    rule = boot()
    for wait, reading, full, cut in story:
        clock["now"] += wait
        clock.update(reading=reading, full=full)
        if cut:
            rule = boot()
        with contextlib.suppress(StopIteration):
            rule.step().send(None)  # nothing in it waits
    return mails


def kind(subject):
    for text, name in (
        ("still cannot be read", "failed again"), ("can be read", "read"), ("cannot be read", "failed"),
        ("ok after", "ok"), ("still", "again"), ("above", "above"), ("below", "below"),
    ):  # fmt: skip
        if text in subject:
            return name
    raise AssertionError(subject)


def reference(config, story):
    """The same by looking back over all readings each time, without any state but what was told and when."""
    readings = []  # (time, reading) so far
    told = []  # (time, kind)
    now = 0
    above, below, slack = config.get("above"), config.get("below"), config.get("hysteresis", 0)

    def open_side():
        for _, k in reversed(told):
            if k in ("above", "below"):
                return k
            if k == "ok":
                return None
        return None

    def is_failed():
        for _, k in reversed(told):
            if k in ("failed", "read"):
                return k == "failed"
        return False

    def side(value, raised):
        if above is not None and value > above - (slack if raised == "above" else 0):
            return "above"
        if below is not None and value < below + (slack if raised == "below" else 0):
            return "below"
        return None

    def last(kinds):
        return max(t for t, k in told if k in kinds)

    def due(kinds):
        return config["repeat"] and now - last(kinds) >= config["repeat"]

    def held(this, raised):
        """For how long it has been so without a good reading that says otherwise, or a failure that was told."""
        since = now
        for t, value in reversed(readings):
            if value == FAILED:
                if any(k == "failed" and t <= when < now for when, k in told) or t in dead:
                    break
                continue
            if side(value, raised) != this:
                break
            since = t
        return now - since

    dead = set()  # times of readings that failed while that was known
    for wait, reading, _, _ in story:
        now += wait
        readings.append((now, reading))
        if reading == FAILED:
            count = 0
            for _, value in reversed(readings):
                if value != FAILED:
                    break
                count += 1
            if is_failed():
                if due(("failed", "failed again")):
                    told.append((now, "failed again"))
            elif config["failures"] and count >= config["failures"]:
                told.append((now, "failed"))
            if is_failed():
                dead.add(now)
            continue
        if is_failed():
            told.append((now, "read"))
        raised = open_side()
        this = side(reading, raised)
        if this is None:
            if raised:
                told.append((now, "ok"))
        elif this != raised:
            if held(this, raised) >= config["for"]:
                told.append((now, this))
        elif due(("above", "below", "again")):
            told.append((now, "again"))
    return told


readings = st.one_of(st.integers(-2, 14), st.sampled_from([FAILED, FAILED, 0, 5, 10]))
waits = st.sampled_from([1, 5, 10, 10, 10, 30, 60])
rules = st.fixed_dictionaries({
    "limits": st.sampled_from([(None, 10), (0, None), (0, 10)]),
    "hysteresis": st.sampled_from([0, 1, 3, 10]),
    "for": st.sampled_from([0, 0, 10, 30]),
    "repeat": st.sampled_from([0, 20, 60]),
    "failures": st.integers(0, 3),
})


def config_of(rule):
    below, above = rule.pop("limits")
    config = {"name": "x", "driver": "file", "every": 10, "recovery": True, "to": None, **rule}
    for word, limit in (("above", above), ("below", below)):
        if limit is not None:
            config[word] = limit
    return config


def steps(full, cut):
    return st.lists(st.tuples(waits, readings, full, cut), max_size=60)


no, maybe = st.just(False), st.sampled_from([False] * 5 + [True])


@settings(max_examples=300, deadline=None)
@given(rule=rules, story=steps(no, no))
def test_what_is_mailed_is_what_the_rule_says(tmp_path_factory, rule, story):
    config = config_of(rule)
    mails = run(tmp_path_factory.getbasetemp() / "rules.json", config, story)
    assert [(when, what) for when, what, _ in mails] == reference(config, story)


@settings(max_examples=200, deadline=None)
@given(rule=rules, story=steps(st.booleans(), no))
def test_a_full_queue_delays_what_is_mailed_and_changes_nothing_else(tmp_path_factory, rule, story):
    config = config_of(rule)
    config["repeat"] = 0
    path = tmp_path_factory.getbasetemp() / "rules.json"
    # Never more than eight mails wait: the queue is full for a few readings at a time.
    story = [(w, r, full and n % 8 < 3, cut) for n, (w, r, full, cut) in enumerate(story)]
    story.append((1, story[-1][1] if story else 5, False, False))
    mails = run(path, config, story)
    free = run(path, config, [(w, r, False, cut) for w, r, _, cut in story])
    assert [m[1:] for m in mails] == [m[1:] for m in free]
    for late, early in zip(mails, free, strict=True):
        assert late[0] >= early[0]


@settings(max_examples=300, deadline=None)
@given(rule=rules, story=steps(maybe, maybe))
def test_whatever_happens_alerts_and_recoveries_alternate_and_the_end_is_told(tmp_path_factory, rule, story):
    """Power cuts and a full queue at any time: no recovery without an alert, no alert again before the recovery but of
    the other side, unless what waited was lost in a cut; and what is true at the end was told."""
    config = config_of(rule)
    config["repeat"] = 0
    calm = [(60, 5, False, False)] * 12  # long enough for all that waited
    bad = [(60, 20 if "above" in config else -20, False, False)] * 3
    mails = [m[1] for m in run(tmp_path_factory.getbasetemp() / "rules.json", config, story + calm + bad)]
    cuts = sum(cut for *_, cut in story)
    side = ill = None
    odd = 0
    for what in mails:
        if what in ("above", "below"):
            odd += side == what
            side = what
        elif what == "ok":
            odd += not side
            side = None
        else:
            odd += ill == what or not ill and what == "read"
            ill = what
    assert odd <= cuts
    assert side == ("above" if "above" in config else "below")
    assert ill != "failed"
