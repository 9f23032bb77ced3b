"""lib/smtp/sasl.py and auth.py: base64, verifiers, PLAIN and LOGIN on both sides."""

import binascii

from expect import eq, raises, result
from smtp import auth, sasl
from smtp.reply import SMTPError

SALT = binascii.a2b_base64("W22ZaJ0SNY7soEsUEjb6gQ==")
# What RFC 7677 section 3 leads to for the password "pencil".
PENCIL = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def say(session, *answers):
    """Everything a generator yields while it is sent the answers, then what it returns."""
    out = []
    answers = list(answers)
    try:
        out.append(next(session))
        while answers:
            out.append(session.send(answers.pop(0)))
    except StopIteration as end:
        out.append(("end", end.value))
    return out


def test_base64_has_no_line_end():
    eq(sasl.b64(b"Username:"), b"VXNlcm5hbWU6")
    eq(sasl.b64(b""), b"")
    eq(sasl.b64(bytes(100)).count(b"\n"), 0)


def test_base64_is_read_strictly():
    eq(sasl.unb64(b"AHUAcA=="), b"\0u\0p")
    eq(sasl.unb64(b""), b"")
    for bad in b"A|AA|AA=|AA==\n| AA==|A A==|*|AB==|====|AA==AA==|\xff\xfe\xfd\xfc".split(b"|"):
        error = raises(SMTPError, sasl.unb64, bad)
        eq((error.code, error.enhanced), (501, "5.5.2"))


def test_hmac_is_right_for_the_vectors_of_rfc_4231():
    for key, msg, start in (
        (b"\x0b" * 20, b"Hi There", b"b0344c61d8db38535ca8afceaf0bf12b"),
        (b"Jefe", b"what do ya want for nothing?", b"5bdcc146bf60754e6a042426089575c7"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            b"60e431591ee0b67f0d8a26aacbf5b77f",
        ),
    ):
        eq(binascii.hexlify(auth.hmac(key, msg))[:32], start)


def test_pbkdf2_is_right_for_the_vectors_of_rfc_7914():
    key = result(auth.pbkdf2(b"passwd", b"salt", 1))
    eq(binascii.hexlify(key)[:32], b"55ac046e56e3089fec1691c22544b605")
    key = result(auth.pbkdf2(b"password", b"salt", 4096))  # a vector of many libraries
    eq(binascii.hexlify(key)[:32], b"c5e478d59288c841aa530db6845c4c8d")


def test_a_verifier_is_that_of_rfc_7677():
    eq(auth.make_verifier("pencil", 4096, SALT), PENCIL)


def test_a_verifier_leads_to_the_server_signature_of_rfc_7677():
    spoken = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = auth.hmac(auth.parse_verifier(PENCIL)[3], spoken)
    eq(sasl.b64(signature), b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_two_verifiers_of_one_password_differ():
    assert auth.make_verifier("x", 1) != auth.make_verifier("x", 1)


def test_a_verifier_knows_its_password_and_no_other():
    eq(result(auth.check(PENCIL, "pencil")), True)
    for other in ("Pencil", "pencil ", "", "pen", "p\u00e9ncil"):
        eq(result(auth.check(PENCIL, other)), False)
    umlaut = auth.make_verifier("gr\u00fcn \u65e5", 10)
    eq(result(auth.check(umlaut, "gr\u00fcn \u65e5")), True)


def test_nobody_has_a_password():
    eq(result(auth.check(None, "")), False)
    eq(result(auth.check(None, "pencil")), False)


def test_an_unknown_user_and_a_damaged_verifier_take_as_many_slices_as_a_known_user():
    def slices(verifier):
        return len(list(auth.check(verifier, "pencil")))

    eq(slices(PENCIL), 64)
    eq(slices(None), 64)
    eq(slices("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$AA==:AA=="), 64)


def test_a_damaged_verifier_lets_nobody_in():
    for bad in ("", "pencil", PENCIL[:-1], PENCIL.replace("256", "1"), PENCIL.replace("4096", "0")):
        raises(ValueError, auth.parse_verifier, bad)
        eq(result(auth.check(bad, "pencil")), False)


def test_the_client_takes_the_best_mechanism_offered():
    eq(sasl.choose(["LOGIN", "PLAIN"]), "PLAIN")
    eq(sasl.choose({"login", "XYZ"}), "LOGIN")
    eq(sasl.choose(["GSSAPI"]), None)
    eq(sasl.choose([]), None)


def test_a_plain_client_says_all_at_once():
    eq(say(sasl.client("PLAIN", "user", "gr\u00fcn"), b""), [b"\0user\0gr\xc3\xbcn", ("end", None)])


def test_a_plain_client_refuses_nul():
    raises(ValueError, next, sasl.client("PLAIN", "us\0er", "p"))
    raises(ValueError, next, sasl.client("PLAIN", "user", "p\0"))


def test_a_login_client_answers_two_prompts_however_they_are_worded():
    client = sasl.client("LOGIN", "user", "secret")
    eq(say(client, b"User Name", b"Pass"), [None, b"user", b"secret"])


def test_a_plain_server_takes_an_initial_response():
    server = auth.server("PLAIN", b"\0user\0secret")
    eq(say(server, True), [("user", "secret"), ("end", "user")])


def test_a_plain_server_asks_when_there_is_no_initial_response():
    server = auth.server("plain")
    eq(say(server, b"\0user\0secret", True), [b"", ("user", "secret"), ("end", "user")])


def test_a_wrong_password_ends_with_nobody():
    eq(say(auth.server("PLAIN", b"\0user\0x"), False)[-1], ("end", None))
    eq(say(auth.server("LOGIN"), b"user", b"x", False)[-1], ("end", None))


def test_a_plain_user_acts_for_nobody_else():
    eq(say(auth.server("PLAIN", b"user\0user\0x"), True)[-1], ("end", "user"))
    eq(say(auth.server("PLAIN", b"admin\0user\0x")), [("end", None)])


def test_a_login_server_prompts_exactly_as_devices_expect():
    server = auth.server("LOGIN")
    eq(
        say(server, b"user", b"secret", True),
        [b"Username:", b"Password:", ("user", "secret"), ("end", "user")],
    )


def test_a_login_server_takes_the_user_from_the_line():
    server = auth.server("LOGIN", b"user")
    eq(say(server, b"secret", True), [b"Password:", ("user", "secret"), ("end", "user")])


def test_malformed_responses_are_refused():
    for bad in b"|user|\0user|\0a\0b\0c|\0\0x|\0us\ner\0x|\0\xff\0x|\0u\0\xff".split(b"|"):
        error = raises(SMTPError, next, auth.server("PLAIN", bad))
        eq((error.code, error.enhanced), (501, "5.5.2"))
    raises(SMTPError, say, auth.server("LOGIN"), b"", b"x")
    raises(SMTPError, say, auth.server("LOGIN"), b"us\0er", b"x")


def test_an_unknown_mechanism_is_refused():
    eq(raises(SMTPError, auth.server, "GSSAPI").code, 504)


def test_client_and_server_understand_each_other():
    for mechanism in ("PLAIN", "LOGIN"):
        client = sasl.client(mechanism, "us er", "p:\u20ac\u00fc")
        server = auth.server(mechanism, next(client))
        asked = next(server)
        while isinstance(asked, bytes):
            asked = server.send(client.send(asked))
        eq(asked, ("us er", "p:\u20ac\u00fc"))
