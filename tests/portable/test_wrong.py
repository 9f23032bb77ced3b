"""firmware/wrong.py: what is said of a configuration that a board cannot use."""

import wrong
from expect import eq


def good():
    return {
        "board": {"name": "barn", "domain": "", "tz": [0], "ntp": [["192.0.2.1", 123]]},
        "mail": {"from": "barn@example.com", "to": ["oncall@example.com"], "heartbeat": 86400},
        "queue": {"max_bytes": 262144, "max_message": 1048576},
        "smarthost": [{"host": "smtp.example.com", "port": 587, "ca": []}],
        "listener": [
            {"address": "0.0.0.0", "port": 25, "tls": "none", "allow": [], "users": {}, "auth_in_clear": False}],
        "sensor": [{"name": "door", "driver": "digital", "every": 0.5}],
        "wifi": {"ssid": "barn", "hostname": "barn"},
        "log": {"max_bytes": 32768},
    }


def found(change):
    config = good()
    return wrong.find(change(config) or config)


def test_nothing_is_wrong_with_a_right_one():
    eq(wrong.find(good()), "")
    eq(found(lambda c: c.pop("wifi") and c.pop("log") and None), "")


def test_what_is_missing_is_named_with_its_place():
    eq(found(lambda c: c.pop("queue") and None), "queue is missing")
    eq(found(lambda c: c["queue"].pop("max_bytes") and None), "queue.max_bytes is missing")
    eq(found(lambda c: c["sensor"].append({"name": "x", "driver": "adc"})), "sensor number 2: every is missing")
    eq(found(lambda c: c["wifi"].pop("ssid") and None), "wifi.ssid is missing")


def test_what_has_the_wrong_type_is_named_with_the_right_one():
    eq(found(lambda c: c["queue"].update(max_bytes="many")), "queue.max_bytes has to be a number")
    eq(found(lambda c: c["queue"].update(max_bytes=True)), "queue.max_bytes has to be a number")
    eq(found(lambda c: c.update(queue=[1])), "queue has to be a table")
    eq(found(lambda c: c.update(smarthost={"host": "x"})), "smarthost has to be a list")
    eq(found(lambda c: c["sensor"][0].update(every="10s")), "sensor number 1: every has to be a number")
    eq(found(lambda c: c["listener"][0].update(auth_in_clear=1)),
       "listener number 1: auth_in_clear has to be true or false")
    eq(found(lambda c: c["board"].update(ntp="pool.ntp.org")), "board.ntp has to be a list")
    eq(found(lambda c: c["board"].update(tz=None)), "board.tz has to be a list")
    eq(wrong.find([]), "all of it has to be a table")


def test_no_value_is_shown_for_it_may_be_a_secret():
    assert "swordfish" not in found(lambda c: c["listener"][0].update(users="swordfish"))
