"""The parser of lib/smtp/dns.py and its look-ups, whatever comes from the network.

More inputs: EDGEPOST_FUZZ=100000. As a program: python tests/host/test_dns_properties.py INPUTS [FIRST SEED]
"""

import asyncio
import errno
import ipaddress
import os
import random
import re
import sys
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
for directory in ("lib", "tests/portable"):
    if str(ROOT / directory) not in sys.path:
        sys.path.insert(0, str(ROOT / directory))

from smtp import dns  # noqa: E402
from smtp.dns import AAAA, A, Resolver, encode, parse  # noqa: E402
from smtp.mx import MX  # noqa: E402

ROUNDS = int(os.environ.get("EDGEPOST_FUZZ", "3000"))
SEED = int(os.environ.get("EDGEPOST_SEED", "1"))

settings.register_profile("edgepost", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("edgepost")

CNAME, TXT = 5, 16
labels = st.from_regex("[a-z0-9_-]{1,63}", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda n: len(n) <= 250)
kinds = st.sampled_from([A, AAAA])
ttls = st.integers(0, 0xFFFFFFFF)
ids = st.binary(min_size=2, max_size=2)


class Writer:
    """A message as a name server builds it. `squeeze`: names that were written already become pointers to them, or
    to their ends (RFC 1035 4.1.4)."""

    def __init__(self, head, squeeze):
        self.data = bytearray(head)
        self.squeeze = squeeze
        self.places = {}

    def name(self, name):
        rest = [label for label in name.split(".") if label]
        while rest:
            key = ".".join(rest).lower()
            if self.squeeze and key in self.places:
                self.data += (0xC000 | self.places[key]).to_bytes(2, "big")
                return
            self.places.setdefault(key, len(self.data))
            self.data += bytes((len(rest[0]),)) + rest.pop(0).encode()
        self.data += b"\0"

    def record(self, owner, kind, value, ttl):
        self.name(owner)
        self.data += kind.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big") + b"\0\0"
        at = len(self.data)
        if kind == CNAME:
            self.name(value)
        elif kind == MX:
            self.data += value[0].to_bytes(2, "big")
            self.name(value[1])
        else:
            self.data += value
        self.data[at - 2 : at] = (len(self.data) - at).to_bytes(2, "big")


def message(id, name, kind, records, squeeze=True, code=0, flags=0x8180):
    w = Writer(id + (flags | code).to_bytes(2, "big") + b"\0\1" + len(records).to_bytes(2, "big") + bytes(4), squeeze)
    w.name(name)
    w.data += kind.to_bytes(2, "big") + b"\0\1"
    for record in records:
        w.record(*record)
    return bytes(w.data)


def answers(kind):
    size = 4 if kind == A else 16
    return st.lists(st.tuples(st.binary(min_size=size, max_size=size), ttls), max_size=8)


def clamp(ttl):
    return 0 if ttl > 0x7FFFFFFF else min(ttl, 86400)


@st.composite
def replies(draw):
    """(id, name, kind, records, what parse has to find, where the aliases end, the least TTL)."""
    id, kind = draw(ids), draw(kinds)
    chain = draw(st.lists(names, min_size=1, max_size=5, unique_by=str.lower))
    found = draw(answers(kind))
    links = [(a, CNAME, b, draw(ttls)) for a, b in zip(chain, chain[1:], strict=False)]
    records = links + [(chain[-1], kind, data, ttl) for data, ttl in found]
    strangers = draw(st.lists(names.filter(lambda n: n not in chain), max_size=3))
    for name in strangers:
        records.insert(draw(st.integers(0, len(records))), (name, kind, bytes(4 if kind == A else 16), 1))
        records.insert(draw(st.integers(0, len(records))), (name, TXT, draw(st.binary(max_size=40)), 1))
    least = min([86400] + [clamp(r[3]) for r in links] + [clamp(ttl) for _, ttl in found])
    return id, chain[0], kind, records, [data for data, _ in found], chain[-1], least


@given(replies(), st.booleans(), st.randoms(use_true_random=False))
def test_an_answer_is_the_same_compressed_or_not_and_in_any_order_and_case(reply, squeeze, rng):
    id, name, kind, records, found, end, least = reply
    data = message(id, name, kind, records, squeeze)
    code, last, texts, ttl = parse(data, id, encode(name), kind)
    assert (code, last, ttl) == (0 if records else code, encode(end), least)
    assert [ipaddress.ip_address(t).packed for t in texts] == found
    shuffled = sorted(records, key=lambda r: r[1] == CNAME or rng.random())  # answers keep no order then, aliases do
    shuffled = [(r[0].upper(), r[1], r[2].upper() if r[1] == CNAME else r[2], r[3]) for r in shuffled]
    code, last, texts, ttl = parse(message(id, name.title(), kind, shuffled, not squeeze), id, encode(name), kind)
    assert (code, last, ttl) == (0 if records else code, encode(end), least)
    assert sorted(ipaddress.ip_address(t).packed for t in texts) == sorted(found)


@given(replies(), st.data())
def test_of_a_reply_that_ends_early_nothing_is_believed_and_over_tcp_what_came_whole(reply, draw):
    id, name, kind, records, found, _, _ = reply
    data = message(id, name, kind, records)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    whole = len(message(id, name, kind, []))
    assert parse(cut, id, encode(name), kind) is None
    part = parse(cut, id, encode(name), kind, True)
    assert (part is None) == (len(cut) < whole)
    if part:
        texts = [ipaddress.ip_address(t).packed for t in part[2]]
        assert texts == found[: len(texts)]


@settings(max_examples=30)
@given(ids, names, st.lists(st.tuples(st.integers(0, 65535), names), max_size=8), st.booleans(), st.data())
def test_exchangers_are_the_same_compressed_or_not_and_none_is_believed_of_a_reply_that_ends_early(
        id, name, pairs, squeeze, draw):  # fmt: skip
    data = message(id, name, MX, [(name, MX, pair, 300) for pair in pairs], squeeze)
    wanted = [(n, "?" if host.rpartition(".")[2].isdigit() else host) for n, host in pairs]
    assert parse(data, id, encode(name), MX)[2] == wanted
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    assert parse(cut, id, encode(name), MX) is None
    part = parse(cut, id, encode(name), MX, True)
    assert part is None or part[2] == wanted[: len(part[2])]


@given(st.binary(max_size=600), ids, names, kinds, st.booleans())
def test_noise_is_no_reply(noise, id, name, kind, part):
    question = message(id, name, kind, [])
    assert parse(noise, id, encode(name), kind, part) is None
    check(parse(question + noise, id, encode(name), kind, part))
    if noise:  # the noise as records
        check(parse(question[:6] + b"\0\7" + question[8:] + noise, id, encode(name), kind, part))


@given(st.text(max_size=300))
def test_a_name_is_encoded_or_refused(text):
    try:
        wire = encode(text)
    except ValueError:
        assert not re.fullmatch(r"([a-zA-Z0-9_-]{1,63}\.){0,3}[a-zA-Z0-9_-]{1,50}", text, re.A)
        return
    assert 2 < len(wire) <= 255 and wire.endswith(b"\0")
    assert dns._name(wire, 0) == (wire, len(wire))
    parts = text.lower().encode().split(b".")
    assert wire == b"".join(bytes((len(part),)) + part for part in parts) + b"\0"
    assert re.fullmatch(r"[a-z0-9_.-]+", text.lower(), re.A)


@given(names)
def test_every_host_name_can_be_encoded(name):
    assert encode(name.upper()) == encode(name)


@given(st.text(max_size=80))
def test_whatever_is_looked_up_there_is_an_answer_or_an_oserror_with_a_text(host):
    try:
        found = asyncio.run(Resolver([]).resolve(host))
    except OSError as e:
        assert e.args[0] in (errno.EINVAL, errno.EHOSTUNREACH) and len(e.args[1]) > 20
    else:
        for ip in found:
            ipaddress.ip_address(ip)


# -- many, from a seed


def check(answer):
    """That parse() gave what its docstring says."""
    if answer is None:
        return
    code, name, found, ttl = answer
    assert 0 <= code <= 16 and 0 < len(name) <= 255 and name.endswith(b"\0") and 0 <= ttl <= 86400
    assert len(found) <= 64
    for text in found:
        ipaddress.ip_address(text)


def some_name(rng):
    name = ".".join("".join(rng.choices("abcxyz-_019", k=rng.choice((1, 2, 5, 9)))) for _ in range(rng.randrange(1, 5)))
    return name if rng.random() < 0.95 else ".".join(["a" * 63] * 3)


def many(rng, counts, most):
    return rng.choice(counts) if rng.random() < 0.97 else most


def some_reply(rng):
    """(reply, id, name, kind), good or a little damaged."""
    id, name, kind = rng.randbytes(2), some_name(rng), rng.choice((A, AAAA))
    chain = [name] + [rng.choice((some_name(rng), name)) for _ in range(many(rng, (0, 0, 1, 2, 5), 70))]
    records = [(a, CNAME, b, rng.getrandbits(32)) for a, b in zip(chain, chain[1:], strict=False)]
    size = 4 if kind == A else 16
    for _ in range(many(rng, (0, 1, 1, 2, 9), 80)):
        owner = rng.choice((chain[-1], chain[-1], some_name(rng)))
        length = size if rng.random() < 0.98 else rng.randrange(20)
        records.append((owner, kind, rng.randbytes(length), rng.getrandbits(32)))
    if rng.random() < 0.2:
        rng.shuffle(records)
    code = rng.choice((0, 0, 0, 0, 2, 3, 5, rng.randrange(16)))
    flags = rng.choice((0x8180, 0x8180, 0x8180, 0x8580, 0x8100, 0x8380, rng.getrandbits(16)))
    data = bytearray(message(id, name, kind, records, rng.random() < 0.8, code, flags))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5, 30))):
        at = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            pointer = rng.choice((at, at + 2, max(at - 2, 0), rng.randrange(len(data))))
            data[at : at + 2] = (0xC000 | pointer).to_bytes(2, "big")
        elif what == 3:
            del data[at : at + rng.randrange(1, 5)]
        elif what == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        else:
            data[at : at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\0\5", b"\0\1"))
        if len(data) < 12:
            break
    return bytes(data), id, encode(name), kind


def fuzz(rng):
    data, id, name, kind = some_reply(rng)
    answer = parse(data, id, name, kind)
    check(answer)
    check(parse(data, id, name, kind, True))
    if answer:
        assert data[:2] == id and data[2] & 0x80 and data[12:].lower().startswith(name)
    return answer, name


def fuzz_look_up(rng):
    """A look-up where each answer is anything that parse() gives."""
    asked = []

    async def ask(ip, port, wait, name, kind):
        asked.append(name)
        if rng.random() < 0.1:
            raise OSError(rng.choice((errno.ETIMEDOUT, errno.ECONNREFUSED)))
        while True:
            data, id, other, kind = some_reply(rng)
            answer = parse(data, id, other, kind)
            if answer and answer[0] != 16:
                code, end, found, ttl = answer
                return code, rng.choice((end, other, name)), found, ttl

    resolver = Resolver(["192.0.2.1", "192.0.2.2"], lambda: 0)
    real, dns._ask = dns._ask, ask
    try:
        found = asyncio.run(resolver.resolve(some_name(rng) + ".x"))
        assert found
        for text in found:
            ipaddress.ip_address(text)
    except OSError as e:
        assert e.args[0] in (errno.ENOENT, errno.ETIMEDOUT)
        assert e.args[1].startswith("the name could not be looked up: ")
    finally:
        dns._ask = real
    assert 1 <= len(asked) <= 2 * 8 * 2 * 2, "kinds, aliases, rounds, servers"
    assert len(resolver.cache) <= 2


def main(n, first=0):
    """Counts what became of n replies; the seed of the one that fails is in the message."""
    counts = {"ignored": 0, "answers": 0, "none": 0, "error": 0, "cut": 0, "alias": 0}
    for seed in range(first, first + n):
        try:
            answer, name = fuzz(random.Random(seed))
            if not seed % 20:
                fuzz_look_up(random.Random(seed))
        except Exception as e:
            raise AssertionError(f"fuzz or fuzz_look_up(random.Random({seed})): {e!r}") from e
        if answer is None:
            counts["ignored"] += 1
        elif answer[0]:
            counts["cut" if answer[0] == 16 else "error"] += 1
        else:
            counts["answers" if answer[2] else "alias" if answer[1] != name else "none"] += 1
    return counts


def test_random_and_mutated_replies_are_harmless():
    counts = main(ROUNDS, SEED)
    assert min(counts.values()) >= ROUNDS // 200, counts


def test_the_most_expensive_reply_is_read_in_bounded_steps():
    """Pointers to pointers, as many as fit, in each of 64 records."""
    name = encode("a.example")
    head = b"id\x81\x80\0\1\0\x40\0\0\0\0" + name + b"\0\1\0\1"
    at = len(head)
    chain = b"\xc0\x0c" + b"".join((0xC000 | at + 2 * i).to_bytes(2, "big") for i in range(900))
    data = head + b"\0\0\x10\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
    last = len(data) - 2
    steps = 0

    class Counting(bytes):
        def __getitem__(self, i):
            nonlocal steps
            steps += 1
            return bytes.__getitem__(self, i)

    for hops in (100, 120, 800):
        pointer = (0xC000 | last - 2 * (900 - hops)).to_bytes(2, "big")
        full = Counting(data + 63 * (pointer + b"\0\1\0\1\0\0\0\0\0\4abcd"))
        steps = 0
        check(parse(full, b"id", name, A))
        assert steps < 64 * 400


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10 * ROUNDS
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.time()
    for start in range(first, first + total, 10000):
        print(start, main(min(10000, first + total - start), start), flush=True)
    print(f"{total} replies in {time.time() - began:.0f} s")
