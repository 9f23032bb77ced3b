"""Whether all is well: GET /health of the status service, for monitors. Loaded while somebody asks.

May use: status, gateway, health.
"""

import json

import gateway
import status
from health import oldest
from routes import answer
from smtp.queue import QueueFull


def health():
    """(seconds since the oldest mail arrived or None, list of what is wrong)"""
    queue = gateway.queue
    why = []
    old = oldest(queue, gateway.time.now())
    if old is not None and old > status.table["health_age"]:
        why.append("mail has waited for more than %d s" % status.table["health_age"])
    if not queue.reports and queue.dead + queue.kept + queue.damaged + queue.junk:
        why.append("there are dead letters, and nobody was told: [mail] admin is not set")
    try:
        queue.check_room(1024)
    except QueueFull as e:
        why.append("the queue is full: %s" % e)
    if status.stuck:
        why.append("%s has done nothing for %d s" % status.stuck)
    return old, why


def healthy(req, ident):
    age, why = health()
    word = "unwell" if why else "ok"
    return answer(503 if why else 200, json.dumps({"status": word, "age": age, "why": why}), "application/json")
