"""What a person may do by the status service. Loaded while somebody does it.

May use: status, gateway, views.
"""

import json

import gateway
import status
from routes import answer
from smtp import const
from smtp.queue import Damaged
from views import number

_ROW = const(4)  # as in queue
_HELD = const(0x3FFFFFFF)
_TEST = const(10)  # seconds between two test mails


def done(req, word, body=None):
    """The answer when something was done: for a form of the page, back to it."""
    if req.query == "page":
        return answer(303, "", more="Location: /?%s\r\n" % word)
    return answer(202, json.dumps(body or {}), "application/json")


def start(req, ident):
    relay = status.relay
    rows = gateway.queue.rows
    for i in range(1, len(rows), _ROW):
        if rows[i] != _HELD:
            rows[i] = min(rows[i], gateway.time.uptime())
    relay.failures = 0
    if relay.stir:
        relay.stir.set()
    relay.wake.set()
    gateway.log("status", "the queue is started by " + req.ip)
    return done(req, "start")


def test(req, ident):
    """Queues a mail to [mail] to."""
    now = gateway.time.uptime()
    wait = 0 if status.tested is None else status.tested + _TEST - now
    if wait > 0:
        return answer(429, "wait %d s before the next test mail\n" % wait)
    try:
        ident = gateway.alert(
            "Test mail from " + status.name,
            "Somebody asked for this mail on the status page of %s. Mail from there arrives." % status.name)
    except ValueError as e:
        return answer(409, "no test mail can be sent, see [mail] from and to: %s\n" % e)
    status.tested = now
    return done(req, "test", {"queued_as": ident})


def send(req, ident):
    """A dead letter is sent again, and what waits is due now."""
    queue = gateway.queue
    key = number(ident)
    try:
        i = queue.row(key)
        if queue.rows[i + 1] != _HELD:
            queue.release(key)
        status.relay.wake.set()
    except KeyError:
        try:
            queue.resend(key)
        except Damaged as e:
            return answer(409, "it cannot be sent again: %s\n" % e)
    return done(req, "send")


def delete(req, ident):
    queue = gateway.queue
    key = number(ident)
    i = queue.slot(key)
    if i < len(queue.rows) and queue.rows[i] == key:
        return answer(409, "it waits: only dead letters can be deleted\n")
    queue.delete(key)
    gateway.log("status", "%s deleted by %s" % (ident, req.ip))
    return done(req, "delete")


