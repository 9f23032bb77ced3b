"""Whatever a token server answers, smtp.https and smtp.oauth end with an answer or with an exception that they name,
keep little in memory, and make the same of it however it is cut."""

import asyncio
import http.client
import io
import json
import urllib.parse

from hypothesis import example, given, settings
from hypothesis import strategies as st
from play import Player
from smtp import oauth
from smtp.client import SessionError
from smtp.https import MOST, exchange, form
from smtp.stream import Wire

MANY = settings(max_examples=200, deadline=None)
WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.0 503 x\n",
    b"Content-Length: 9\r\n", b"content-length:  12 \r\n", b"Content-Length: 99999\r\n", b"Content-Length: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Retry-After: 5\r\n", b"Set-Cookie: " + b"c" * 3000 + b"\r\n", b"\r\n", b"\n",
    b"9\r\n", b"0\r\n", b"00009;x=y\r\n", b"fffffff\r\n", b'{"a": 12}', b'{"access_token": "x"}', b"\x00\xff", b"\r",
)  # fmt: skip
octets = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=25).map(b"".join)


def outcome(answer, cuts):
    """What exchange() makes of an answer in pieces, after which the connection ends."""
    wire = Wire(bytearray(2048))
    p = Player(exchange(wire, b"POST"), wire)
    for piece in cuts(answer):
        p.feed(piece)
        if p.ended:
            break
    if not p.ended:
        p.throw(EOFError("gone"))
    assert p.ended
    if p.error:
        assert isinstance(p.error, (ValueError, EOFError)), repr(p.error)
        return type(p.error), str(p.error)
    status, wait, body = p.value
    assert 200 <= status <= 999 and 0 <= wait < 1000000 and len(body) <= MOST
    return p.value


@MANY
@given(octets, st.lists(st.integers(1, 50), min_size=1, max_size=20))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b"x" * 9, [1])
@example(b"HTTP/1.1 200 OK\r\n\r\n" + b"\r\n\r\n" * 3, [1])
def test_any_octets_end_in_one_way_however_they_are_cut(answer, lengths):
    def pieces(data):
        n = 0
        while data:
            length = lengths[n % len(lengths)]
            yield data[:length]
            data = data[length:]
            n += 1

    assert outcome(answer, lambda data: [data]) == outcome(answer, pieces)


chunk_list = st.lists(st.binary(min_size=1, max_size=300), max_size=12)
header = st.from_regex(rb"X-[A-Za-z-]{1,20}: ?[!-~ ]{0,80}", fullmatch=True)


@MANY
@given(chunk_list, st.lists(header, max_size=20), st.sampled_from(["length", "chunks", "end"]), st.integers(200, 599))
def test_a_good_answer_is_what_the_standard_library_makes_of_it(parts, headers, way, status):
    body = b"".join(parts)
    lines = [b"HTTP/1.1 %d Reason" % status, *headers]
    data = body
    if way == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        data = b"".join(b"%X\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    elif way == "length":
        lines.append(b"Content-Length: %d" % len(body))
    answer = b"\r\n".join([*lines, b"", data])

    class Socket:
        def makefile(self, mode):
            return io.BytesIO(answer)

    theirs = http.client.HTTPResponse(Socket(), method="POST")
    theirs.begin()
    if status not in (204, 304):  # which have no body whatever the header says; no token server answers so
        assert outcome(answer, lambda data: [data]) == (theirs.status, 0, theirs.read())


@MANY
@given(st.lists(st.tuples(st.from_regex("[a-z_]{1,9}", fullmatch=True), st.text(min_size=1, max_size=30)), max_size=5))
def test_a_form_is_read_by_others_as_it_was_meant(fields):
    fields = [(name, value) for name, value in fields if value.isprintable() or value.isascii()]
    said = form(fields).decode("ascii")
    assert urllib.parse.parse_qsl(said, keep_blank_values=True, strict_parsing=bool(said)) == fields


value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.text("a1.-_", max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("access_token", "token_type", "expires_in", "refresh_token", "error", "error_description", "scope", "x")
answers = st.dictionaries(st.sampled_from(KEYS), value | st.sampled_from(["Bearer", "invalid_grant", 3600, "access"]))
SECRETS = "configured-refresh", "client-secret"


@MANY
@given(
    st.sampled_from([200, 200, 200, 302, 400, 401, 404, 429, 500, 503]),
    st.integers(0, 999999),
    answers.map(lambda a: json.dumps(a).encode()) | st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
)
@example(200, 0, b"[" * MOST)
@example(200, 0, b'{"access_token":"x","expires_in":1' + b"0" * 5000 + b"}")
@example(400, 0, b'{"error":"client-secret","error_description":"configured-refresh"}')
@example(200, 0, b'{"access_token":"\\ud800"}')
def test_any_answer_gives_a_token_or_an_error_with_a_time_to_wait(status, wait, body):
    async def post(*args):
        return status, wait, body

    log = []
    tokens = oauth.Tokens(
        "https://a.example/t", "id", "/nowhere/at/all", lambda: 7, client_secret=SECRETS[1], refresh_token=SECRETS[0],
        log=log.append)  # fmt: skip
    was, oauth.post = oauth.post, post
    try:
        token = asyncio.run(tokens.token())
        assert status == 200 and 0 < len(token) <= 4096 and token.isascii() and token.isprintable() and " " not in token
        assert 7 <= tokens.until <= 7 + 86400
        assert tokens.refresh.isascii() and tokens.refresh.isprintable() and " " not in tokens.refresh
    except SessionError as e:
        assert e.reason == "oauth"
        assert 7 + 10 <= tokens.hold <= 7 + 3600
        log.append(str(e))
    finally:
        oauth.post = was
    for text in log:
        assert text.isascii() and text.isprintable() and len(text) < 700
        assert not [s for s in SECRETS if s in text]
