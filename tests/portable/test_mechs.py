"""lib/smtp/mechs.py: SCRAM-SHA-256 and CRAM-MD5 on both sides, XOAUTH2 and OAUTHBEARER on the client's, by the vectors
of their standards, against each other, against lies, and in whole sessions.
"""

from expect import eq, raises
from play import CUTS, Player, Random, play
from smtp import auth, mechs, sasl
from smtp.client import Client, SessionError
from smtp.reply import SMTPError
from smtp.server import Listener, Session
from smtp.stream import TLS, Wire

VERIFIER = auth.make_verifier("pencil", 4096, sasl.unb64(b"W22ZaJ0SNY7soEsUEjb6gQ=="))  # RFC 7677 section 3
USERS = {
    "user": VERIFIER,
    "tim": auth.CLEAR + "tanstaaftanstaaf",  # RFC 2195
    "comma,=2C": auth.make_verifier("a,b=c", 16),
    "damaged": VERIFIER[:-1],
}
NONCE = b"rOprNGfwEbeRWgbNEkqO"
MORE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = b"n,,n=user,r=" + NONCE
CHALLENGE = b"r=" + NONCE + MORE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=" + NONCE + MORE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def serve(exchange, *responses, users=USERS):
    """(challenges, user) of a server's side that is sent the responses. The user is "..." when it asks for more."""
    responses = list(responses)
    challenges = []
    value = None
    try:
        while True:
            ask = exchange.send(value)
            value = None
            if isinstance(ask, tuple):
                eq(ask[1], None)
                value = users.get(ask[0])
            elif ask is not None:
                challenges.append(ask)
                if not responses:
                    return challenges, "..."
                value = responses.pop(0)
    except StopIteration as e:
        return challenges, e.value


def answer(client, challenge):
    """What a client's side answers to a challenge once it has computed."""
    out = client.send(challenge)
    while out is None:
        out = client.send(None)
    return out


def meet(name, user, password, users=USERS, change=None):
    """Both sides against each other: (user or None, what was said). `change(n, said)` may forge what travels."""
    client = sasl.client(name, user, password)
    initial = next(client)
    said = [initial]
    if change and initial is not None:
        initial = change(0, initial)
    server = auth.server(name, initial)
    value = None
    try:
        while True:
            ask = server.send(value)
            value = None
            if isinstance(ask, tuple):
                value = users.get(ask[0])
            elif ask is not None:
                for from_client in (False, True):
                    if from_client:
                        ask = answer(client, ask)
                    said.append(ask)
                    if change:
                        ask = change(len(said) - 1, ask)
                value = ask
    except StopIteration as e:
        return e.value, said


def refused(function, *args, **named):
    e = raises(SMTPError, function, *args, **named)
    eq((e.code, e.enhanced), (501, "5.5.2"))


# -- SCRAM-SHA-256


def test_a_scram_client_is_that_of_rfc_7677():
    client = mechs.scram_client("user", "pencil", NONCE)
    eq(next(client), FIRST)
    eq(answer(client, CHALLENGE), FINAL)
    eq(answer(client, SIGNATURE), b"")
    raises(StopIteration, client.send, b"more")


def test_a_scram_server_is_that_of_rfc_7677():
    eq(serve(mechs.scram_server(FIRST, MORE), FINAL, b""), ([CHALLENGE, SIGNATURE], "user"))
    # Asked for its first message, as some clients want to be.
    eq(serve(mechs.scram_server(None, MORE), FIRST, FINAL, b""), ([b"", CHALLENGE, SIGNATURE], "user"))


def test_scram_sides_understand_each_other():
    for user, password in (("user", "pencil"), ("comma,=2C", "a,b=c"), ("tim", "tanstaaftanstaaf")):
        eq(meet("SCRAM-SHA-256", user, password)[0], user)


def test_no_two_scram_nonces_are_the_same():
    said = [meet("SCRAM-SHA-256", "user", "pencil")[1] for _ in range(3)]
    for n in (0, 1):
        eq(len({s[n] for s in said}), 3)


def test_a_wrong_password_and_an_unknown_user_get_answers_of_the_same_shape():
    shapes = []
    for user in ("user", "tim", "nobody", "damaged"):
        got, said = meet("SCRAM-SHA-256", user, "wrong")
        eq(got, None)
        _, again = meet("SCRAM-SHA-256", user, "wrong")
        fields = mechs._fields(said[1])
        eq(fields[b"s"], mechs._fields(again[1])[b"s"])  # a salt that changes gives an unknown user away
        shapes.append((len(said), len(said[1]), sorted(fields), fields[b"i"], len(fields[b"s"])))
    eq(shapes, shapes[:1] * 4)
    salts = [mechs._fields(meet("SCRAM-SHA-256", "nobody%d" % n, "x")[1][1])[b"s"] for n in range(3)]
    eq(len(set(salts)), 3)


def test_a_scram_user_acts_for_nobody_else():
    server = mechs.scram_server(FIRST.replace(b"n,,", b"n,a=user,"), MORE)
    eq(serve(server)[1], "...")
    eq(serve(mechs.scram_server(FIRST.replace(b"n,,", b"n,a=admin,"), MORE)), ([], None))


def test_a_scram_proof_that_was_tampered_with_lets_nobody_in():
    for n in (0, 10, 42):
        proof = bytearray(FINAL)
        proof[len(FINAL) - 44 + n] = 65 if proof[len(FINAL) - 44 + n] != 65 else 81
        eq(serve(mechs.scram_server(FIRST, MORE), bytes(proof), b""), ([CHALLENGE], None))
    start = FINAL[: FINAL.find(b"p=") + 2]
    proof = sasl.unb64(FINAL[len(start) :])
    for wrong in (b"", proof[:-1], proof + b"\0", bytes(32)):
        eq(serve(mechs.scram_server(FIRST, MORE), start + sasl.b64(wrong), b"")[1], None)
    # What was said before is part of the proof.
    other = FIRST + b",x=1"
    eq(serve(mechs.scram_server(other, MORE), FINAL, b"")[1], None)


def test_a_scram_nonce_that_was_tampered_with_is_refused():
    for wrong in (NONCE + MORE[:-1] + b"1", NONCE, MORE, b"", NONCE + MORE + b"x"):
        refused(serve, mechs.scram_server(FIRST, MORE), FINAL.replace(NONCE + MORE, wrong), b"")
        client = mechs.scram_client("user", "pencil", NONCE)
        next(client)
        if not wrong.startswith(NONCE):
            raises(ValueError, answer, client, CHALLENGE.replace(NONCE + MORE, wrong))


def test_a_proof_that_was_overheard_is_of_no_use():
    challenges, user = serve(mechs.scram_server(FIRST, b"another"))
    refused(serve, mechs.scram_server(FIRST, b"another"), FINAL, b"")


def test_malformed_scram_messages_are_refused():
    for bad in (
        b"", b"n", b"n,,", b"n,,n=user", b"n,,r=abc", b"n,,n=,r=abc", b"n,,n=user,r=", b"p=tls-unique,,n=user,r=a",
        b"x,,n=user,r=a", b"n,,n=\xff,r=a", b"n,,m=1,n=user,r=a", b"\0user\0pencil", b",,,,",
    ):  # fmt: skip
        refused(serve, mechs.scram_server(bad, MORE))
    for bad in (
        b"", b"p=", b",p=", FINAL[:-3], FINAL[: FINAL.find(b",p=")], FINAL.replace(b"biws", b"eSws"), FINAL + b"=",
        FINAL.replace(b"c=biws,", b""), FINAL.replace(b",p=", b",m=1,p="), FINAL.replace(b"p=d", b"p=*"),
    ):  # fmt: skip
        refused(serve, mechs.scram_server(FIRST, MORE), bad, b"")


def test_a_scram_server_that_does_not_know_the_password_is_found_out():
    other = b"v=" + b"A" * 43 + b"="
    for wrong in (SIGNATURE[:-2] + b"5=", b"v=", b"", SIGNATURE + b",x=1", b"e=invalid-proof", other):
        client = mechs.scram_client("user", "pencil", NONCE)
        next(client)
        answer(client, CHALLENGE)
        e = raises(ValueError, answer, client, wrong)
        assert "does not know the password" in str(e)


def test_a_scram_challenge_that_makes_no_sense_ends_the_exchange():
    for wrong in (
        b"", b"r=", CHALLENGE[:-5], CHALLENGE + b"0000", CHALLENGE.replace(b"i=4096", b"i=0"), b"m=1," + CHALLENGE,
        CHALLENGE.replace(b"i=4096", b"i=-4096"), CHALLENGE.replace(b"i=4096", b"i=x"),
        CHALLENGE.replace(b"s=W", b"s="), CHALLENGE.replace(b",s=", b",t="), CHALLENGE.replace(NONCE, b""),
        b"\xff\0,,=,", b"e=other-error",
    ):  # fmt: skip
        client = mechs.scram_client("user", "pencil", NONCE)
        next(client)
        raises(ValueError, answer, client, wrong)


# -- CRAM-MD5

POSTOFFICE = b"<1896.697170952@postoffice.reston.mci.net>"
DIGEST = b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_a_cram_md5_client_is_that_of_rfc_2195():
    client = sasl.client("CRAM-MD5", "tim", "tanstaaftanstaaf")
    eq(next(client), None)
    eq(answer(client, POSTOFFICE), DIGEST)
    raises(StopIteration, client.send, b"more")


def test_cram_md5_sides_understand_each_other():
    user, said = meet("CRAM-MD5", "tim", "tanstaaftanstaaf")
    eq(user, "tim")
    assert said[1][:1] == b"<" and said[1][-1:] == b">" and b"@" in said[1], said
    eq(meet("CRAM-MD5", "line 1 plc", "p\u00fc", {"line 1 plc": auth.CLEAR + "p\u00fc"})[0], "line 1 plc")
    upper = meet("CRAM-MD5", "tim", "tanstaaftanstaaf", change=lambda n, s: s[:4] + s[4:].upper() if n == 2 else s)
    eq(upper[0], "tim")


def test_no_two_cram_md5_challenges_are_the_same():
    eq(len({meet("CRAM-MD5", "tim", "x")[1][1] for _ in range(3)}), 3)


def test_cram_md5_lets_in_nobody_else():
    for user, password in (("tim", "wrong"), ("tim", ""), ("nobody", ""), ("user", "pencil"), ("user", VERIFIER)):
        got, said = meet("CRAM-MD5", user, password)
        eq((got, len(said)), (None, 3))
    for n in (4, 20, 35):  # one digit of the digest
        forged = meet("CRAM-MD5", "tim", "tanstaaftanstaaf",
                      change=lambda i, s, n=n: s[:n] + b"g" + s[n + 1 :] if i == 2 else s)  # fmt: skip
        eq(forged[0], None)


def test_malformed_cram_md5_messages_let_nobody_in():
    for bad in (b"", b" ", b"tim", b"tim ", b"tim  ", DIGEST[:-1], DIGEST + b"0", b"\0", DIGEST[4:]):
        eq(serve(auth.server("CRAM-MD5"), bad)[1], None)
    refused(serve, auth.server("CRAM-MD5"), b"\xff\xfe b913a602c7eda7a495b4e6e7334d3890")
    refused(serve, auth.server("CRAM-MD5", b"tim"), DIGEST)  # the server begins
    refused(serve, auth.server("CRAM-MD5", b""), DIGEST)


def test_cram_md5_is_offered_only_where_a_password_is_stored_in_the_clear():
    eq(auth.mechanisms({"user": VERIFIER}), ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
    eq(auth.mechanisms(USERS), ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])


def test_a_password_in_the_clear_serves_plain_and_login_too():
    for name in ("PLAIN", "LOGIN"):
        for password, right in (("tanstaaftanstaaf", True), ("wrong", False), (USERS["tim"], False)):
            client = sasl.client(name, "tim", password)
            server = auth.server(name, next(client))
            ask = next(server)
            while isinstance(ask, bytes):
                ask = server.send(client.send(ask))
            check = auth.check(USERS[ask[0]], ask[1])
            try:
                while True:
                    next(check)
            except StopIteration as e:
                eq(e.value, right)


# -- XOAUTH2, OAUTHBEARER

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def test_an_oauthbearer_client_is_that_of_rfc_7628():
    client = sasl.client("OAUTHBEARER", "user@example.com", TOKEN)
    # Section 4.1 without host and port, which only tokens with keyed digests need (section 3.1).
    eq(next(client), b"n,a=user@example.com,\1auth=Bearer " + TOKEN.encode() + b"\1\1")
    # Section 4.2: after an error's JSON the client sends a 0x01, and the failure follows.
    eq(client.send(b'{"status":"invalid_token"}'), b"\1")
    raises(StopIteration, client.send, b"")
    eq(next(sasl.client("OAUTHBEARER", "a,b=c", "t")), b"n,a=a=2Cb=3Dc,\1auth=Bearer t\1\1")


def test_an_xoauth2_client_is_as_gmail_documents_it():
    client = sasl.client("XOAUTH2", "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    eq(
        sasl.b64(next(client)),
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
        b"Q2cBAQ==",
    )
    eq(client.send(b'{"status":"401"}'), b"")
    raises(StopIteration, client.send, b"")


def test_a_server_takes_no_tokens():
    for name in ("XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-1", "DIGEST-MD5", ""):
        eq(raises(SMTPError, auth.server, name).code, 504)


# -- the choice


def test_under_tls_a_client_takes_the_fewest_round_trips_and_in_the_clear_it_hides_the_password():
    every = ["LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "PLAIN", "GSSAPI"]
    chosen = []
    for tls in (True, False):
        left = list(every)
        while sasl.choose(left, tls):
            chosen.append(sasl.choose(left, tls))
            left.remove(chosen[-1])
    eq(chosen[:4], ["PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"])
    eq(chosen[4:], ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])


def test_a_token_is_never_sent_unless_it_was_asked_for():
    eq(sasl.choose(["XOAUTH2", "OAUTHBEARER"]), None)


def test_a_mechanism_that_is_not_known_is_an_error():
    raises(ValueError, sasl.client, "GSSAPI", "user", "pencil")


def test_a_client_without_md5_takes_something_else():
    class Bare:
        sha256 = mechs.hashlib.sha256

    whole = sasl.hashlib, mechs.hashlib, auth.hashlib
    sasl.hashlib = mechs.hashlib = auth.hashlib = Bare
    try:
        eq(sasl.choose(["CRAM-MD5", "LOGIN"], False), "LOGIN")
        eq(sasl.choose(["CRAM-MD5"]), None)
        raises(ValueError, next, sasl.client("CRAM-MD5", "tim", "x"))
        assert "CRAM-MD5" not in auth.mechanisms(USERS)
    finally:
        sasl.hashlib, mechs.hashlib, auth.hashlib = whole


# -- hostile input

ALPHABET = b"nprscivma=,,==ABCabc019+/ \0\1\xff\r\n"


def noise(random, seed):
    """A message that is a little wrong, or all wrong."""
    data = bytearray(seed)
    for _ in range(random.below(4) + 1):
        at = random.below(len(data) + 1)
        what = random.below(4)
        some = bytes([ALPHABET[random.below(len(ALPHABET))] for _ in range(random.below(3) + 1)])
        data = bytearray(
            (data[:at] + some + data[at:])
            if what == 0
            else (data[:at] + data[at + 1 :])
            if what == 1
            else (data[:at] + some + data[at + len(some) :])
            if what == 2
            else data[:at]
        )
    return bytes(data)


def test_no_message_however_wrong_brings_a_server_down_or_lets_somebody_in():
    random = Random(3)
    users = dict(USERS)
    users["user"] = auth.make_verifier("unguessed", 1)
    users["tim"] = auth.CLEAR + "unguessed"
    seeds = {
        "SCRAM-SHA-256": (FIRST, FINAL, b""),
        "CRAM-MD5": (None, DIGEST, b""),
    }
    refusals = 0
    for name in seeds:
        first, *rest = seeds[name]
        for n in range(1500):
            initial = first if first is None or not n % 3 else noise(random, first)
            later = [noise(random, r) for r in rest]
            server = mechs.scram_server(initial, MORE) if name[0] == "S" else auth.server(name, initial)
            try:
                user = serve(server, *later, users=users)[1]
            except SMTPError as e:
                refusals += 1
                eq((name, e.code), (name, 501))
            else:
                assert user in (None, "..."), (name, initial, later, user)
    assert refusals > 500, refusals


def test_no_challenge_however_wrong_brings_a_client_down():
    random = Random(4)
    challenge = CHALLENGE.replace(b"4096", b"1")
    ends = 0
    for n in range(1500):
        for name in ("SCRAM-SHA-256", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"):
            client = sasl.client(name, "user", "pencil") if n % 2 or name[0] != "S" else (
                mechs.scram_client("user", "pencil", NONCE))  # fmt: skip
            next(client)
            try:
                data = noise(random, challenge)
                if b"i=1" in data and not data.rpartition(b"i=")[2] == b"1":
                    continue  # many rounds are allowed, and take their time
                answer(client, data)
                answer(client, noise(random, SIGNATURE))
            except (ValueError, StopIteration):
                ends += 1
    assert ends > 3000, ends


# -- whole sessions of a server


STRANGER = "192.0.2.1"
OFFER = "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"
HELLO = """
    S: 220 mx.example.com ESMTP
    C: EHLO client.example.com
    S: 250-mx.example.com
    S: 250-AUTH {offer}
    S: 250 ENHANCEDSTATUSCODES
"""


class Nobody:
    """A backend that takes no mail."""

    def open(self, envelope):
        raise AssertionError("a mail was taken")


def session(users=USERS, cut=None, **options):
    """(Player, log) of a server's session that has been greeted with EHLO."""
    log = []
    options["auth_in_clear"] = options.get("auth_in_clear", True)
    on = Listener("mx.example.com", Nobody(), (), users, log=log.append, **options)
    wire = Wire(bytearray(2048))
    p = Player(Session(wire, STRANGER, on).run(), wire, cut)
    p.feed(b"EHLO client.example.com\r\n")
    p.hello = p.said()
    return p, log


def say(p, line):
    """Sends a line, gives the reply."""
    p.feed(line + b"\r\n")
    return p.said()


def challenged(p, line):
    """Sends a line, gives the challenge that answers it."""
    reply = say(p, line)
    assert reply[:4] == b"334 " and reply[-2:] == b"\r\n", reply
    return sasl.unb64(reply[4:-2])


def test_ehlo_offers_the_mechanisms_that_the_users_are_stored_for():
    p, _ = session()
    assert b"\r\n250-AUTH " + OFFER.encode() + b"\r\n" in p.hello, p.hello
    p, _ = session({"user": VERIFIER})
    assert b"\r\n250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n" in p.hello, p.hello
    eq(say(p, b"AUTH CRAM-MD5"), b"504 5.5.4 mechanism not supported\r\n")


def test_scram_in_a_session():
    for cut in CUTS:
        for initial in (True, False):
            p, log = session(cut=cut)
            client = sasl.client("SCRAM-SHA-256", "user", "pencil")
            first = sasl.b64(next(client))
            if initial:
                asked = challenged(p, b"AUTH SCRAM-SHA-256 " + first)
            else:
                eq(say(p, b"auth scram-sha-256"), b"334 \r\n")
                asked = challenged(p, first)
            asked = challenged(p, sasl.b64(answer(client, asked)))
            eq(asked[:2], b"v=")
            eq(answer(client, asked), b"")
            eq(say(p, b""), b"235 2.7.0 welcome\r\n")
            eq(say(p, b"MAIL FROM:<a@example.com>"), b"250 2.1.0 ok\r\n")
            eq(log, [])


def test_cram_md5_in_a_session():
    for cut in CUTS:
        p, log = session(cut=cut)
        client = sasl.client("CRAM-MD5", "tim", "tanstaaftanstaaf")
        eq(next(client), None)
        asked = challenged(p, b"AUTH CRAM-MD5")
        eq(say(p, sasl.b64(answer(client, asked))), b"235 2.7.0 welcome\r\n")
        eq(say(p, b"MAIL FROM:<a@example.com>"), b"250 2.1.0 ok\r\n")


def test_a_failure_is_answered_late_and_later_each_time_and_the_third_ends_the_session():
    p, log = session()
    for n in (1, 2, 3):
        name = "CRAM-MD5" if n == 2 else "SCRAM-SHA-256"
        client = sasl.client(name, ("user", "tim", "nobody")[n - 1], "wrong")
        first = next(client)
        asked = challenged(p, b"AUTH " + name.encode() + (b" " + sasl.b64(first) if first else b""))
        reply = say(p, sasl.b64(answer(client, asked)))
        eq(reply[:10], b"421 4.7.0 " if n == 3 else b"535 5.7.8 ")
        eq(p.sleeps, [1000, 2000, 3000][:n])
        eq(p.ended, n == 3)
    eq(log, ["wrong user name or password from " + STRANGER] * 3)


def test_a_damaged_verifier_is_a_wrong_password_and_no_crash():
    p, log = session()
    client = sasl.client("SCRAM-SHA-256", "damaged", "pencil")
    asked = challenged(p, b"AUTH SCRAM-SHA-256 " + sasl.b64(next(client)))
    eq(say(p, sasl.b64(answer(client, asked))), b"535 5.7.8 wrong user name or password\r\n")


def test_a_client_may_cancel_at_each_step():
    p, log = session()
    for name in (b"SCRAM-SHA-256", b"CRAM-MD5", b"PLAIN", b"LOGIN"):
        for steps in (1, 2, 3):
            client = mechs.scram_client("user", "pencil")
            asked = challenged(p, b"AUTH " + name)
            if name[:1] == b"S" and steps > 1:
                asked = challenged(p, sasl.b64(next(client)))
                if steps > 2:
                    challenged(p, sasl.b64(answer(client, asked)))  # the signature, and even so
            eq(say(p, b"*"), b"501 5.0.0 cancelled\r\n")
            eq(say(p, b"MAIL FROM:<a@example.com>")[:9], b"530 5.7.0")
            p, log = session()
    eq(log, [])


def test_what_makes_no_sense_in_a_session_gets_501_and_the_session_goes_on():
    for lines in (
        (b"AUTH SCRAM-SHA-256 =",),
        (b"AUTH SCRAM-SHA-256 " + sasl.b64(b"n,,n=user"),),
        (b"AUTH SCRAM-SHA-256 " + sasl.b64(b"p=x,,n=user,r=abc"),),
        (b"AUTH SCRAM-SHA-256", b"%%%"),
        (b"AUTH SCRAM-SHA-256 " + sasl.b64(FIRST), b"", b""),
        (b"AUTH SCRAM-SHA-256 " + sasl.b64(FIRST), sasl.b64(FINAL)),
        (b"AUTH CRAM-MD5 dGlt",),
        (b"AUTH CRAM-MD5", b"="),
        (b"AUTH CRAM-MD5", sasl.b64(b"\xff x")),
    ):
        p, log = session()
        for line in lines:
            reply = say(p, line)
            if reply[:4] != b"334 ":
                break
        eq((lines, reply[:10]), (lines, b"501 5.5.2 "))
        eq(say(p, b"NOOP"), b"250 2.0.0 ok\r\n")
        eq(say(p, b"MAIL FROM:<a@example.com>")[:9], b"530 5.7.0")


# -- whole sessions of a client


def opening(text, user="user", password="pencil", fails=None, auth=None, tls=False, cut=None):
    """Plays a client's opening, in which AUTH is offered; gives the Player."""
    client = Client(Wire(bytearray(2048)), "client.example.com")
    client.io.tls = tls
    text += "\n-- FAILS --" if fails else "\n-- END --"
    p = play(client.start("tls" if tls else "none", None, user, password, auth), client.io, text, cut, "C")
    if fails:
        assert isinstance(p.error, SessionError), p.error
        eq(p.error.reason, fails)
    return p


def hello(offer):
    return HELLO.replace("{offer}", offer)


CRAM = """
    C: AUTH CRAM-MD5
    S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
    C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
"""


def test_a_client_says_cram_md5_in_the_clear():
    for cut in CUTS:
        opening(hello("PLAIN CRAM-MD5") + CRAM + "S: 235 2.7.0 ok", "tim", "tanstaaftanstaaf", cut=cut)
    opening(hello("PLAIN CRAM-MD5") + CRAM + "S: 535 5.7.8 no", "tim", "tanstaaftanstaaf", "auth")
    # More than the mechanism has is cancelled.
    opening(hello("CRAM-MD5") + CRAM + "S: 334 \nC: *\nS: 501 cancelled", "tim", "tanstaaftanstaaf", "auth")


class FixedNonce:
    """The client's nonce is that of RFC 7677."""

    def __enter__(self):
        self.nonce = mechs._nonce
        mechs._nonce = lambda: NONCE

    def __exit__(self, *error):
        mechs._nonce = self.nonce


def b64(data):
    return str(sasl.b64(data), "utf-8")


SCRAM = "C: AUTH SCRAM-SHA-256 %s\nS: 334 %s\nC: %s\n" % (b64(FIRST), b64(CHALLENGE), b64(FINAL))


def test_a_client_says_scram_in_the_clear_and_ends_with_an_empty_line():
    text = hello("LOGIN PLAIN SCRAM-SHA-256") + SCRAM + "S: 334 " + b64(SIGNATURE) + "\nC:\nS: 235 ok"
    with FixedNonce():
        for cut in CUTS:
            opening(text, cut=cut)


def test_a_client_leaves_a_server_that_cannot_sign():
    with FixedNonce():
        signed = hello("SCRAM-SHA-256") + SCRAM + "S: 334 "
        p = opening(signed + b64(b"v=" + b"A" * 43 + b"="), fails="auth")
        assert "not who it says it is" in str(p.error), p.error
        p = opening(hello("SCRAM-SHA-256") + SCRAM.split("\n")[0] + "\nS: 334 " + b64(b"r=no,s=AA==,i=1"), fails="auth")
        assert "makes no sense" in str(p.error), p.error
        opening(hello("SCRAM-SHA-256") + SCRAM + "S: 535 5.7.8 no", fails="auth")
        # A 235 that comes before the proof is no proof.
        first = SCRAM.split("\n")[0]
        for text in (first + "\nS: 235 ok", SCRAM + "S: 235 ok"):
            p = opening(hello("SCRAM-SHA-256") + text, fails="auth")
            assert "did not prove" in str(p.error), p.error


def test_a_client_sends_a_token_where_it_was_told_to_and_answers_the_error():
    for name, answer_ in (("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")):
        first = b64(next(sasl.client(name, "user@example.com", "token")))
        text = hello("PLAIN LOGIN XOAUTH2 OAUTHBEARER") + "C: AUTH %s %s\n" % (name, first)
        opening(text + "S: 235 ok", "user@example.com", "token", auth=name, tls=True)
        refusal = "S: 334 eyJzdGF0dXMiOiI0MDEifQ==\nC: %s\nS: 535 5.7.8 expired" % answer_
        p = opening(text + refusal, "user@example.com", "token", "auth", name, True)
        eq(p.error.reply[:2], (535, "5.7.8"))


def test_a_token_that_has_no_place_in_a_command_line_waits_for_a_challenge():
    for length in (2500, 337, 336, 10):
        token = "t" * length
        first = b64(next(sasl.client("XOAUTH2", "user@example.com", token)))
        line = "AUTH XOAUTH2 " + first
        if len(line) > 510:  # RFC 4954 4: 512 octets with CRLF
            line = "AUTH XOAUTH2\nS: 334 \nC: " + first
        assert (length > 336) == ("334" in line)
        text = hello("XOAUTH2") + "C: " + line
        opening(text + "\nS: 235 ok", "user@example.com", token, auth="XOAUTH2", tls=True)
        refusal = "\nS: 334 eyJzdGF0dXMiOiI0MDEifQ==\nC: \nS: 535 5.7.8 expired"
        opening(text + refusal, "user@example.com", token, "auth", "XOAUTH2", True)
    # A server that refuses the mechanism never sees the token.
    p = opening(hello("XOAUTH2") + "C: AUTH XOAUTH2\nS: 504 no", "user", "t" * 2000, "auth", "XOAUTH2", True)
    eq(p.error.reply[0], 504)


# -- a client's session with a server's


def together(name, user, password, tls="none", users=USERS):
    """A client and a server talk to each other: (server's Session or None, client's error)."""
    on = Listener("mx.example.com", Nobody(), (), users, tls, auth_in_clear=tls == "none")
    wire = Wire(bytearray(2048))
    ours = Session(wire, STRANGER, on)
    server = Player(ours.run(), wire)
    client = Client(Wire(bytearray(2048)), "client.example.com")
    start = client.start("none" if tls == "none" else "starttls", (None, "mx.example.com"), user, password, name)
    client = Player(start, client.io)
    while True:
        to_client = server.said()
        to_server = client.said()
        if to_client:
            client.feed(to_client)
        elif to_server:
            server.feed(to_server)
        else:
            break
        if client.request is TLS and server.request is TLS and not client.said():
            client.upgrade()
            server.upgrade()
            client.wire.tls = server.wire.tls = True
    assert client.ended, "both wait for each other"
    return ours, client.error


def test_our_client_logs_in_to_our_server_with_every_mechanism():
    for tls in ("none", "starttls"):
        for name in ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", None):
            ours, error = together(name, "tim", "tanstaaftanstaaf", tls)
            eq((name, error, ours.user), (name, None, "tim"))
            ours, error = together(name, "tim", "wrong", tls)
            eq((name, error.reason, ours.user), (name, "auth", None))
        for name in ("SCRAM-SHA-256", "PLAIN", "LOGIN", None):
            ours, error = together(name, "comma,=2C", "a,b=c", tls)
            eq((name, error, ours.user), (name, None, "comma,=2C"))
            ours, error = together(name, "nobody", "pencil", tls)
            eq((name, error.reason, ours.user), (name, "auth", None))
