"""What the status service answers, whoever asks: by HTTP (web), or over the serial line (inquiry). Loaded while
somebody asks, and so is what answers.

May use: status.
"""

import status
from smtp.queue import QueueFull

_POLICY = "default-src 'none'; frame-ancestors 'none'"


def answer(status, body, kind="text/plain", more="", policy=_POLICY):
    """What respond() gives. body: str, or a generator of short str and bytes; more: header fields of HTTP, each with
    its CRLF; policy: that of its content, for a browser."""
    return status, body, kind, more, policy


# The module and function that answer. They take who asks (see respond), and the id in its path or None.
# KeyError: there is no such mail.
_ROUTES = {
    "GET /": "page.show",
    "GET /health": "unwell.healthy",
    "GET /status.json": "views.everything",
    "GET /log": "views.log",
    "GET /queue": "views.listing",
    "GET /queue/*": "views.mail",
    "GET /queue/*/envelope": "views.about",
    "POST /queue/*/send": "deeds.send",
    "POST /queue/*/delete": "deeds.delete",
    "DELETE /queue/*": "deeds.delete",
    "POST /queue/start": "deeds.start",
    "POST /test-mail": "deeds.test",
}


async def respond(req):
    """The answer to what somebody asks: an object with method, path, query and ip (text), such as a web.Peer."""
    path = req.path
    ident = None
    if path[:7] == "/queue/" and path != "/queue/start":
        ident, slash, rest = path[7:].partition("/")
        path = "/queue/*" + slash + rest
    route = _ROUTES.get(("GET" if req.method == "HEAD" else req.method) + " " + path)
    if not route:
        if [r for r in _ROUTES if r.endswith(" " + path)]:
            return answer(405, "this cannot be done with it\n")
        return answer(404, "there is no such thing here\n")
    module, _, function = route.partition(".")
    try:
        module = await status.load(module, 0 if module == "unwell" else status.MORE)
        if not module:
            return answer(503, "there is no memory for an answer now\n", more="Retry-After: 5\r\n")
        return getattr(module, function)(req, ident)
    except KeyError:
        return answer(404, "there is no such mail; it may have been delivered\n")
    except QueueFull as e:
        return answer(503, "there is no room for it: %s\n" % e)
    except OSError as e:
        return answer(503, "the flash fails: %s\n" % e)
