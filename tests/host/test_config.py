"""board.toml: what is right becomes config.json, what is wrong is told by key, fault and
example.
"""

import base64
import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization as ser
from edgepost import build, certificates, config
from edgepost.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
[board]
name = "cold-store"
[smarthost]
host = "smtp.example.com"
ca = "ca.pem"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with ca.pem, cert.pem and key.pem, and another key."""
    path = tmp_path_factory.mktemp("home")
    authority = certificates.Authority(path)
    for label, names in (("cert", ("other",)), ("key", ("board.lan", "192.168.1.10"))):
        cert, key = authority.issue(names, label=label)
        cert.replace(path / f"{label}.crt")
    (path / "key.crt").replace(path / "cert.pem")
    (path / "key.key").replace(path / "key.pem")
    (path / "cert.key").replace(path / "other.pem")
    (path / "word.txt").write_text("from a file\n")
    return path


@pytest.fixture
def load(home):
    """load(text): the (config, warnings) of a board.toml with this text."""

    def load(text, previous=None, **env):
        board = home / "board.toml"
        board.write_text(text)
        return config.load(board, env, previous)

    return load


def problems(load, text, **env):
    with pytest.raises(config.ConfigError) as caught:
        load(text, **env)
    return caught.value.problems


LISTENER = "[[listener]]\nallow = ['10.0.0.0/8']\n"
MAIL = "[mail]\nfrom = 'a@example.com'\nto = ['b@example.com']\n"
SENSOR = MAIL + "[[sensor]]\nname = 'x'\ndriver = 'file'\npath = 'x.txt'\n"

# The end of a configuration, the key that the complaint starts with, and part of the complaint.
WRONG = [
    ("[[listner]]", "listner", "did you mean [listener]"),
    ("[zzz]", "zzz", "known are board"),
    ("[mail]\nform = 'a@example.com'", "mail.form", "did you mean from?"),
    ("[mail]\nfrom = 'nobody'", "mail.from", "has no @"),
    ("[mail]\nfrom = 'a@b@example.com'", "mail.from", "before the @"),
    ("[mail]\nfrom = 'Cold Store <a@example.com>'", "mail.from", "leave out the name"),
    ("[mail]\nfrom = 'ä..b@example.com'", "mail.from", "is no e-mail address"),
    ("[mail]\nto = ['b@example.com', 'ä@-ü.example']", "mail.to", "is no e-mail address"),
    ("[[listener]]\nsmtputf8 = 'yes'", "listener.smtputf8", "neither true nor false"),
    ("[[listener]]\nrequiretls = true", "listener.requiretls", 'no use with tls = "none"'),
    ("[mail]\nfrom = 'a@exa_mple..com'", "mail.from", "no domain after the @"),
    ('[mail]\nfrom = "a@example.com\\r\\nRCPT TO:<x@example.com>"', "mail.from", "line break"),
    ("[mail]\nto = []", "mail.to", "nobody would get the mail"),
    ("[mail]\nto = ['a@example.com', 5, 'b']", "mail.to", "'b' has no @"),
    ("mail = 5", "smarthost.mail", "not a known key"),
    ("[queue]\nmax_bytes = '12XB'", "queue.max_bytes", "not a size"),
    ("[queue]\nmax_bytes = true", "queue.max_bytes", "not a size"),
    ("[queue]\nmax_message = 10", "queue.max_message", "too small"),
    ("[queue]\nretry = 'soon'", "queue.retry", "not a time"),
    ("[queue]\nmax_count = 0", "queue.max_count", "takes no mail"),
    ("[queue]\nmax_count = '1000'", "queue.max_count", "whole number"),
    ("[queue]\nmax_count = 1.5", "queue.max_count", "whole number"),
    ("[queue]\nreserve = '4KB'", "queue.reserve", "less than 8KB"),
    ("[queue]\ndisplace = 'all'", "queue.displace", 'none of "never", "dead", "oldest", "newest"'),
    ("[queue]\ndisplace = true", "queue.displace", "true is none of"),
    ("[mail]\nfold = 'now'", "mail.fold", "not a time"),
    ("[mail]\nfold = '500ms'", "mail.fold", "0 switches it off"),
    ("[mail]\nfold = false", "mail.fold", "not a time"),
    ("[[listener]]\nport = 0", "listener.port", "from 1 to 65535"),
    ("[[listener]]\nport = 70000", "listener.port", "from 1 to 65535"),
    ("[[listener]]\nport = '25'", "listener.port", "whole number"),
    ("[[listener]]\nport = true", "listener.port", "true is not a port"),
    ("[[listener]]\naddress = 'eth0'", "listener.address", "not an IP address"),
    ("[[listener]]\ntls = 'ssl'", "listener.tls", 'none of "none", "starttls", "tls"'),
    ("[[listener]]\ntls = 'starttls'\nkey = 'key.pem'", "listener.cert", "needs a certificate"),
    ("[[listener]]\ntls = 'tls'\ncert = 'cert.pem'", "listener.key", "needs a key"),
    ("[[listener]]\ncert = 'cert.pem'", "listener.cert", 'no use with tls = "none"'),
    (
        "[[listener]]\ntls = 'tls'\ncert = 'cert.pem'\nkey = 'other.pem'",
        "listener.key",
        "not the key of the certificate",
    ),
    (
        "[[listener]]\ntls = 'tls'\ncert = 'no.pem'\nkey = 'key.pem'",
        "listener.cert",
        "cannot be read",
    ),
    (
        "[[listener]]\ntls = 'tls'\ncert = 'key.pem'\nkey = 'key.pem'",
        "listener.cert",
        "no certificate",
    ),
    (
        "[[listener]]\ntls = 'tls'\ncert = 'cert.pem'\nkey = 'ca.pem'",
        "listener.key",
        "no RSA or EC",
    ),
    ("[[listener]]\nallow = ['10.0.0.1/8']", "listener.allow", 'the network is "10.0.0.0/8"'),
    ("[[listener]]\nallow = ['0.0.0.0/0']", "listener.allow", "open relay"),
    ("[[listener]]\nallow = ['128.0.0.0/1']", "listener.allow", "open relay"),
    ("[[listener]]\nallow = ['::/0']", "listener.allow", "open relay"),
    ("[[listener]]\nallow = ['lan']", "listener.allow", "not a network"),
    ("[[listener]]\nallow = [5]", "listener.allow", "not a network"),
    ("[[listener]]\nusers = { a = { env = 'A' } }", "listener.users", "could read the passwords"),
    ("[[listener]]\nusers = { a = 5 }", "listener.users.a", "neither text in quotes"),
    ("[[listener]]\nusers = { a = { env = 'NOPE' } }", "listener.users.a", "NOPE is not set"),
    ("[[listener]]\nusers = 'bob'", "listener.users", "not a table"),
    ("[[listener]]\nusers = { a = { env = 'A', store = 'plain' } }", "listener.users.a", 'nor "clear"'),
    ("[[listener]]\nusers = { a = { store = 'clear' } }", "listener.users.a", "a table here has one key"),
    ("[[listener]]\nauth_in_clear = 'yes'", "listener.auth_in_clear", "neither true nor false"),
    ("[[listener]]\nbare_newline = 'keep'", "listener.bare_newline", 'none of "fix", "refuse"'),
    ("[[listener]]\ngreeting_delay = 'long'", "listener.greeting_delay", "2s"),
    (LISTENER + LISTENER, "listener[2].port", "taken by listener[1]"),
    (
        LISTENER + "[[listener]]\naddress = '0.0.0.0'\nallow = ['10.0.0.0/8']",
        "listener[2].port",
        "taken by listener[1]",
    ),
    (SENSOR, "sensor.above", "which value raises an alert"),
    (SENSOR + "above = 'hot'", "sensor.above", "not a number"),
    (SENSOR + "above = nan", "sensor.above", "not a number"),
    (SENSOR + "above = 1\nbelow = 2", "sensor.below", "every value would raise an alert"),
    (SENSOR + "above = 1\nhysteresis = -1", "sensor.hysteresis", "below zero"),
    (SENSOR + "above = 1\nevery = '1y'", "sensor.every", "not a time"),
    (SENSOR + "above = 1\nevery = 0", "sensor.every", "not between"),
    (SENSOR + "above = 1\npriority = 'high'", "sensor.priority", 'none of "urgent"'),
    (SENSOR.replace("'file'", "'ds18b20'") + "above = 1", "sensor.driver", 'none of "file"'),
    (SENSOR.replace("path = 'x.txt'", "above = 1"), "sensor.path", "reads its values from a file"),
    (SENSOR.replace("name = 'x'", "above = 1"), "sensor.name", "is missing"),
    (SENSOR.replace(MAIL, "") + "above = 1", "mail.from", "need a sender"),
    (SENSOR.replace(MAIL, "") + "above = 1", "mail.to", "who gets the alerts"),
    (2 * (SENSOR.replace(MAIL, "") + "above = 1\n") + MAIL, "sensor[2].name", "already"),
]


@pytest.mark.parametrize(("text", "key", "fault"), WRONG, ids=[f"{w[1]}: {w[2]}" for w in WRONG])
def test_what_is_wrong_is_told_with_its_key_and_an_example(load, text, key, fault):
    found = [p for p in problems(load, GOOD + text) if p.startswith(f"{key}: ")]
    assert found and fault in found[0]


SMARTHOST = [
    ("", "smarthost", "mail has nowhere to go"),
    ("[smarthost]\nca = 'ca.pem'", "smarthost.host", "is missing"),
    ("[smarthost]\nhost = 'a.example'", "smarthost.ca", "anybody could take its place"),
    ("[smarthost]\nhost = 'a.example:25'\nca = 'ca.pem'", "smarthost.host", "port = ..."),
    ("[smarthost]\nhost = 'a b'\nca = 'ca.pem'", "smarthost.host", "neither a host name nor"),
    ("[smarthost]\nhost = '1.2.3'\nca = 'ca.pem'", "smarthost.host", "neither a host name nor"),
    ("[smarthost]\nhost = 'a'\nca = 'key.pem'", "smarthost.ca", "no CA certificate in PEM form"),
    ("[smarthost]\nhost = 'a'\nca = 'missing.pem'", "smarthost.ca", "cannot be read"),
    ("[smarthost]\nhost = 'a'\nca = 'many.pem'", "smarthost.ca", "memory for 8"),
    (
        "[smarthost]\nhost = 'a'\nca = 'ca.pem'\nverify = false",
        "smarthost.verify",
        'none of "full"',
    ),
    ("[smarthost]\nhost = 'a'\nsecurity = 'none'\nca = 'ca.pem'", "smarthost.ca", "no use"),
    ("[smarthost]\nhost = 'a'\nca = 'ca.pem'\npassword = 'p'", "smarthost.username", "whose?"),
    ("[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'", "smarthost.password", "is missing"),
    (
        "[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'\npassword = { env = 'NOPE' }",
        "smarthost.password",
        "the environment variable NOPE is not set",
    ),
    (
        "[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'\npassword = { env = 'EMPTY' }",
        "smarthost.password",
        "EMPTY is empty",
    ),
    (
        "[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'\npassword = { var = 'X' }",
        "smarthost.password",
        "one key",
    ),
    (
        "[smarthost]\nhost = 'a'\nca = 'ca.pem'\nusername = 'u'\npassword = { file = 'gone' }",
        "smarthost.password",
        "cannot be read",
    ),
    ("[smarthost]\nhost = 'a'\nca = 'ca.pem'\nsender = 'me'", "smarthost.sender", "has no @"),
    ("[smarthost]\nhost = 'a'\nca = 'ca.pem'\nport = '587'", "smarthost.port", "not a port"),
]


@pytest.mark.parametrize(
    ("text", "key", "fault"), SMARTHOST, ids=[f"{w[1]}: {w[2]}" for w in SMARTHOST]
)
def test_a_smart_host_that_cannot_work_is_refused(load, home, text, key, fault):
    (home / "many.pem").write_bytes((home / "ca.pem").read_bytes() * 9)
    lines = problems(load, "[board]\nname = 'b'\n" + text, EMPTY="")
    assert [p for p in lines if p.startswith(f"{key}: ") and fault in p], lines


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("'192.168.1.1'", [["192.168.1.1", 53]]),
        ("['192.168.1.1:5353', '[fd00::1]:54', 'fd00::2']", [["192.168.1.1", 5353], ["fd00::1", 54], ["fd00::2", 53]]),
        ("['[::1]']", [["::1", 53]]),
    ],
)
def test_name_servers_are_addresses_with_or_without_a_port(load, text, servers):
    assert load(GOOD.replace("[smarthost]", f"dns = {text}\n[smarthost]"))[0]["board"]["dns"] == servers


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("'dns.example.com'", "'dns.example.com' is not the IP address of a name server"),
        ("['192.168.1.1', '192.168.1.1:0', '1.1.1.1:65536']", "'1.1.1.1:65536' is not the IP address"),
        ("['192.168.1.1:dns']", "is not the IP address"),
        ("[':53']", "is not the IP address"),
        ("['']", "is not the IP address"),
        ("['0.0.0.0']", "is not the IP address"),
        ("['224.0.0.251']", "is not the IP address"),
        ("53", "53 is not the IP address"),
        ("[5]", "5 is not the IP address"),
        ("[]", "one to three name servers"),
        ("['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']", "one to three name servers"),
    ],
)
def test_what_is_no_name_server_is_refused(load, text, fault):
    (line,) = problems(load, GOOD.replace("[smarthost]", f"dns = {text}\n[smarthost]"))
    assert line.startswith("board.dns: ") and fault in line and 'dns = ["192.168.1.1"]' in line


def test_every_complaint_but_those_that_name_the_cure_has_an_example(load):
    lines = problems(load, "[board]\nname = 5\n[smarthost]\nport = 'x'\n[queue]\nmax_bytes = 'y'\n")
    assert len(lines) == 5
    assert all("; for example: " in line for line in lines)


def test_all_problems_are_told_at_once_and_entries_are_counted_from_one(load):
    with pytest.raises(config.ConfigError) as caught:
        load("[[listener]]\nport = 'x'\n[[listener]]\ntls = 'y'\n[queue]\nmax_bytes = 'z'")
    text = str(caught.value)
    for part in (
        "board: ",
        "smarthost: ",
        "listener[1].port: ",
        "listener[2].tls: ",
        "queue.max_bytes: ",
    ):
        assert f"\n  {part}" in text
    assert "counted from 1" in text


def test_one_problem_is_one_line(load):
    with pytest.raises(config.ConfigError) as caught:
        load(GOOD + "[queue]\nmax_bytes = 'z'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "fault"), [(b"[board\n", "not valid TOML"), (b"\xff\xfe", "not text in UTF-8")]
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path, data, fault):
    (tmp_path / "board.toml").write_bytes(data)
    with pytest.raises(UserError, match=fault):
        config.load(tmp_path / "board.toml", {})


OAUTH = """
[board]
name = "b"
[smarthost]
host = "smtp.example.com"
ca = "ca.pem"
username = "scanner@example.com"
auth = "oauth2"
[smarthost.oauth]
client_id = "id"
"""
SIGNED_IN = "refresh_token = { env = 'TOKEN' }\n"
M365 = OAUTH + "provider = 'm365'\ntenant = 'example.onmicrosoft.com'\n"

WRONG_OAUTH = [
    (OAUTH.replace('auth = "oauth2"\n', ""), "smarthost.auth", 'for example: auth = "oauth2"'),
    (OAUTH.replace('"oauth2"', '"token"'), "smarthost.auth", 'none of "password", "oauth2"'),
    (OAUTH.replace('[smarthost.oauth]\nclient_id = "id"', ""), "smarthost.oauth", "where the tokens come from"),
    (OAUTH.replace('[smarthost.oauth]\nclient_id = "id"', "oauth = 5"), "smarthost.oauth", "not a table"),
    (OAUTH.replace('username = "scanner@example.com"\n', ""), "smarthost.username", "whose mailbox"),
    (OAUTH.replace("auth =", "password = 'x'\nauth ="), "smarthost.password", 'no use with auth = "oauth2"'),
    (OAUTH.replace("ca =", "security = 'none'\n#"), "smarthost.security", "show the tokens"),
    (OAUTH.replace("ca =", "verify = 'none'\n#"), "smarthost.oauth.ca", "token server's certificate"),
    (OAUTH.replace("client_id", "cleint_id"), "smarthost.oauth.cleint_id", "client_id?; for example: client_id"),
    (OAUTH.replace("client_id", "scope"), "smarthost.oauth.client_id", "is missing; for example: client_id = "),
    (OAUTH + SIGNED_IN, "smarthost.oauth.token_url", 'provider = "m365" or provider = "gmail"'),
    (OAUTH + "provider = 'yahoo'", "smarthost.oauth.provider", 'none of "m365", "gmail"'),
    (OAUTH + "provider = ['m365']", "smarthost.oauth.provider", 'none of "m365", "gmail"'),
    (OAUTH + "provider = 'm365'", "smarthost.oauth.tenant", "the ID or a domain of your tenant"),
    (OAUTH + "provider = 'm365'\ntenant = 'a/b'", "smarthost.oauth.tenant", "neither the ID nor a domain"),
    (OAUTH + "provider = 'gmail'\ntenant = 'a'", "smarthost.oauth.tenant", 'provider = "m365" only'),
    (OAUTH + "token_url = 'http://a.example/'", "smarthost.oauth.token_url", "could be read on the way"),
    (OAUTH + "token_url = 'a.example/token'", "smarthost.oauth.token_url", "not the https:// address"),
    (OAUTH + "token_url = 'https://a.example:99999/'", "smarthost.oauth.token_url", "not the https:// address"),
    (OAUTH + "token_url = 'https://u:p@a.example/'", "smarthost.oauth.token_url", "not the https:// address"),
    (OAUTH + "token_url = 'https://a.example/x y'", "smarthost.oauth.token_url", "not the https:// address"),
    (OAUTH + "token_url = 'https://a.example/x#y'", "smarthost.oauth.token_url", "not the https:// address"),
    (M365, "smarthost.oauth.refresh_token", "by signing in"),
    (M365 + "refresh_token = 'two words'", "smarthost.oauth.refresh_token", "that no refresh token has"),
    (M365 + "refresh_token = { env = 'NOPE' }", "smarthost.oauth.refresh_token", "NOPE is not set"),
    (M365 + "client_secret = { env = 'NOPE' }", "smarthost.oauth.client_secret", "NOPE is not set"),
    (M365 + "grant = 'password'", "smarthost.oauth.grant", 'none of "refresh_token", "client_credentials"'),
    (M365 + "grant = 'client_credentials'", "smarthost.oauth.client_secret", "is missing"),
    (M365 + SIGNED_IN + "grant = 'client_credentials'", "smarthost.oauth.refresh_token", "no use"),
    (OAUTH + "provider = 'gmail'\ngrant = 'client_credentials'", "smarthost.oauth.grant", "none that Google offers"),
    (M365 + "mechanism = 'PLAIN'", "smarthost.oauth.mechanism", 'none of "XOAUTH2", "OAUTHBEARER"'),
    (M365 + "ca = 'missing.pem'", "smarthost.oauth.ca", "cannot be read"),
]


@pytest.mark.parametrize(("text", "key", "fault"), WRONG_OAUTH, ids=[f"{w[1]}: {w[2]}" for w in WRONG_OAUTH])
def test_tokens_that_cannot_come_are_told_before_anything_starts(load, text, key, fault):
    lines = problems(load, text, TOKEN="x")
    assert [p for p in lines if p.startswith(f"{key}: ") and fault in p], lines


def test_of_several_smart_hosts_the_one_with_the_wrong_table_is_named(load):
    second = "[[smarthost]]" + M365.split("[smarthost]")[1]
    lines = problems(load, "[board]\nname = 'b'\n[[smarthost]]\nhost = 'a'\nca = 'ca.pem'\n" + second)
    assert [line.split(": ")[0] for line in lines] == ["smarthost[2].oauth.refresh_token"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            M365 + SIGNED_IN,
            ("https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token",
             "https://outlook.office.com/SMTP.Send offline_access", "XOAUTH2", "refresh_token", "", "0.AX"),
        ),
        (
            M365 + "grant = 'client_credentials'\nclient_secret = { env = 'SECRET' }\n",
            ("https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token",
             "https://outlook.office365.com/.default", "XOAUTH2", "client_credentials", "sec ret", ""),
        ),
        (
            OAUTH + "provider = 'gmail'\nclient_secret = { env = 'SECRET' }\n" + SIGNED_IN,
            ("https://oauth2.googleapis.com/token", "", "XOAUTH2", "refresh_token", "sec ret", "0.AX"),
        ),
        (
            OAUTH + "token_url = 'https://a.example:8443/t?x=y'\nscope = 's'\nmechanism = 'OAUTHBEARER'\n" + SIGNED_IN,
            ("https://a.example:8443/t?x=y", "s", "OAUTHBEARER", "refresh_token", "", "0.AX"),
        ),
        (
            OAUTH + "provider = 'gmail'\ntoken_url = 'https://a.example/'\nscope = 's'\n" + SIGNED_IN,
            ("https://a.example/", "s", "XOAUTH2", "refresh_token", "", "0.AX"),
        ),
    ],
    ids=["m365", "m365 client credentials", "gmail", "another", "a provider's values can be replaced"],
)  # fmt: skip
def test_a_provider_fills_in_what_its_servers_want(load, text, wanted):
    values, warnings = load(text, TOKEN="0.AX", SECRET="sec ret")
    names = "token_url", "scope", "mechanism", "grant", "client_secret", "refresh_token"
    oauth = values["smarthost"][0]["oauth"]
    assert oauth == {"client_id": "id", **dict(zip(names, wanted, strict=True))}
    assert "auth" not in values["smarthost"][0]
    assert warnings == []


PROVIDERS = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "providers.md").read_text(), re.S)


@pytest.mark.parametrize("text", PROVIDERS, ids=[f"{n}" for n in range(len(PROVIDERS))])
def test_what_the_guide_to_providers_shows_is_right(load, home, text):
    for name in re.findall(r'ca = "(.*?)"', text):
        (home / name).write_bytes((home / "ca.pem").read_bytes())
    (home / "refresh-token.txt").write_text("0.AX\n")
    secrets = {"OAUTH_SECRET": "a", "OAUTH_REFRESH_TOKEN": "0.AX", "SMTP_PASSWORD": "b"}
    values, warnings = load("[board]\nname = 'b'\n" + text, **secrets)
    (host,) = values["smarthost"]
    assert ("oauth" in host) == ("[smarthost.oauth]" in text)
    assert warnings == []


def test_the_guide_to_providers_names_every_key_and_no_other():
    text = (ROOT / "docs" / "providers.md").read_text()
    table = text.split("| key of `[smarthost.oauth]` |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert named == set(config.OAuth.model_fields)


def test_a_token_server_may_have_a_ca_of_its_own(load, home):
    certificates.Authority(home / "another")
    (home / "another" / "ca.pem").replace(home / "token-ca.pem")
    values, _ = load(M365 + SIGNED_IN + "ca = 'token-ca.pem'", TOKEN="x")
    (host,) = values["smarthost"]
    assert len(host["oauth"]["ca"]) == 1 and host["oauth"]["ca"] != host["ca"]


def test_a_secret_in_board_toml_is_warned_of_and_not_shown(load):
    text = M365 + "refresh_token = 'hush-hush'\nclient_secret = 'hush'\n"
    warnings = load(text)[1]
    assert [w.split(" ")[0] for w in warnings] == ["smarthost.oauth.client_secret", "smarthost.oauth.refresh_token"]
    assert "hush" not in "".join(warnings)


def test_a_password_is_what_a_smart_host_wants_unless_something_else_is_said(load):
    text = GOOD + "username = 'u'\npassword = { env = 'X' }\n"
    assert load(text, X="x") == load(text + "auth = 'password'\n", X="x")


def test_a_small_configuration_gets_every_default(load, home):
    ca = x509.load_pem_x509_certificate((home / "ca.pem").read_bytes())
    values, warnings = load(GOOD)
    assert values == {
        "board": {"name": "cold-store", "domain": "", "tz": [0]},
        "smarthost": [
            {
                "host": "smtp.example.com",
                "port": 587,
                "security": "starttls",
                "verify": "full",
                "ca": [base64.b64encode(ca.public_bytes(ser.Encoding.DER)).decode()],
                "username": "",
                "password": "",
                "sender": "",
            }
        ],
        "mail": {"from": "", "to": [], "admin": ""},
        "listener": [],
        "queue": {"max_bytes": 524288, "max_message": 10485760},
        "sensor": [],
    }
    assert warnings == []


@pytest.mark.parametrize(
    ("security", "port"), [("'starttls'", 587), ("'tls'", 465), ("'none'", 25)]
)
def test_the_smart_hosts_port_follows_its_security(load, security, port):
    ca = "" if "none" in security else "ca = 'ca.pem'"
    values, _ = load(f"[board]\nname='b'\n[[smarthost]]\nhost='a'\nsecurity={security}\n{ca}")
    assert values["smarthost"][0]["port"] == port


def test_several_smart_hosts_keep_their_order(load):
    two = "".join(
        f"[[smarthost]]\nhost = '{h}'\nca = 'ca.pem'\n" for h in ("b.example", "a.example")
    )
    values, _ = load("[board]\nname = 'b'\n" + two)
    assert [h["host"] for h in values["smarthost"]] == ["b.example", "a.example"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("'512KB'", 524288),
        ("'10MB'", 10485760),
        ("'1.5 MiB'", 1572864),
        ("4096", 4096),
        ("'64k'", 65536),
    ],
)
def test_sizes_are_bytes(load, text, count):
    assert load(GOOD + f"[queue]\nmax_bytes = {text}")[0]["queue"]["max_bytes"] == count


def test_what_bounds_the_queue_and_what_folds_alerts_reaches_the_board(load):
    queue = "[queue]\nmax_count = 50\nreserve = '64KB'\ndisplace = 'newest'\n"
    values, warnings = load(GOOD + queue + "[mail]\nfold = '5m'\n")
    assert values["queue"] == {
        "max_bytes": 524288, "max_count": 50, "reserve": 65536, "displace": "newest", "max_message": 10485760,
    }  # fmt: skip
    assert values["mail"]["fold"] == 300
    for off in ("0", "'0s'"):
        assert load(GOOD + f"[mail]\nfold = {off}\n")[0]["mail"]["fold"] == 0
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("'1s'", 1), ("'5m'", 300), ("'500ms'", 0.5), ("2", 2), ("'1d'", 86400)]
)
def test_times_are_seconds(load, text, seconds):
    values, _ = load(GOOD + SENSOR + f"above = 1\nevery = {text}")
    assert values["sensor"][0]["every"] == seconds


def test_a_sensor_gets_the_mail_section_for_what_it_leaves_out(load, home):
    values, _ = load(GOOD + SENSOR + "below = 4\n")
    assert values["sensor"] == [
        {
            "name": "x",
            "driver": "file",
            "path": str(home / "x.txt"),
            "every": 10.0,
            "below": 4.0,
            "hysteresis": 0.0,
            "to": ["b@example.com"],
            "priority": "normal",
        }
    ]


def test_passwords_come_from_the_environment_and_from_files(load):
    text = GOOD + "username = 'u'\npassword = { %s }"
    assert load(text % "env = 'X'", X="from a variable")[0]["smarthost"][0]["password"] == (
        "from a variable"
    )
    assert load(text % "file = 'word.txt'")[0]["smarthost"][0]["password"] == "from a file"


TLS_LISTENER = (
    "[[listener]]\ntls = 'starttls'\ncert = 'cert.pem'\nkey = 'key.pem'\n"
    "users = { printer = { env = 'PRINTER' }, ups = { env = 'UPS' } }\n"
)


def test_lan_passwords_never_reach_the_board(load):
    values, _ = load(GOOD + TLS_LISTENER, PRINTER="hunter2 and more", UPS="correct horse")
    users = values["listener"][0]["users"]
    text = json.dumps(values)
    for secret in ("hunter2 and more", "correct horse"):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text
    assert set(users) == {"printer", "ups"}
    for verifier in users.values():
        assert re.fullmatch(r"SCRAM-SHA-256\$4096:[\w+/=]{24}\$[\w+/=]{44}:[\w+/=]{44}", verifier)


def test_a_lan_password_reaches_the_board_only_where_it_says_store_clear(load):
    text = GOOD + TLS_LISTENER.replace("'PRINTER' }", "'PRINTER', store = 'clear' }")
    text = text.replace("'UPS' }", "'UPS', store = 'verifier' }")
    values, warnings = load(text, PRINTER="hunter2 and more", UPS="correct horse")
    users = values["listener"][0]["users"]
    assert users["printer"] == "{CLEAR}hunter2 and more"
    assert users["ups"].startswith("SCRAM-SHA-256$4096:")
    assert [w.split(":")[0] for w in warnings] == ["listener.users.printer"]
    again, _ = load(text, previous=values, PRINTER="hunter2 and more", UPS="correct horse")
    assert again == values
    back, _ = load(GOOD + TLS_LISTENER, previous=values, PRINTER="hunter2 and more", UPS="correct horse")
    assert back["listener"][0]["users"]["printer"].startswith("SCRAM-SHA-256$4096:")


def test_a_verifier_is_that_of_rfc_7677():
    found = config.verifier("pencil", ["SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$x:y"])
    assert found.split("$")[1] != "4096:W22ZaJ0SNY7soEsUEjb6gQ=="  # not one of this password
    salted = build.module("smtp.auth").make_verifier(
        "pencil", 4096, base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    )
    # The salt of RFC 7677, section 3; the keys computed with another SCRAM implementation.
    assert salted == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_verifier_is_kept_while_the_password_stays_so_that_flash_is_not_written(load):
    first, _ = load(GOOD + TLS_LISTENER, PRINTER="one", UPS="two")
    again, _ = load(GOOD + TLS_LISTENER, previous=first, PRINTER="one", UPS="two")
    changed, _ = load(GOOD + TLS_LISTENER, previous=first, PRINTER="one", UPS="new")
    assert again == first
    assert changed["listener"][0]["users"]["printer"] == first["listener"][0]["users"]["printer"]
    assert changed["listener"][0]["users"]["ups"] != first["listener"][0]["users"]["ups"]


@pytest.mark.parametrize(
    "old", [{}, {"listener": 5}, {"listener": [{"users": {"printer": "junk"}}]}]
)
def test_an_old_configuration_that_makes_no_sense_does_no_harm(load, old):
    values, _ = load(GOOD + TLS_LISTENER, previous=old, PRINTER="one", UPS="two")
    assert len(values["listener"][0]["users"]) == 2


def test_a_listeners_certificate_and_key_are_der_and_belong_together(load):
    values, _ = load(GOOD + TLS_LISTENER, PRINTER="one", UPS="two")
    listener = values["listener"][0]
    cert = x509.load_der_x509_certificate(base64.b64decode(listener["cert"]))
    key = ser.load_der_private_key(base64.b64decode(listener["key"]), None)
    assert cert.public_key() == key.public_key()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (GOOD + "username = 'u'\npassword = 'p'", "smarthost.password stands in board.toml"),
        ("[board]\nname='b'\n[smarthost]\nhost='a'\nverify='none'", 'smarthost.verify = "none"'),
        (
            "[board]\nname='b'\n[smarthost]\nhost='a'\nsecurity='none'",
            'smarthost.security = "none"',
        ),
        (GOOD + "[[listener]]", "listener lets nobody send"),
        (GOOD + LISTENER + "users = { a = 'p' }", "does not offer AUTH"),
        (GOOD + LISTENER + "users = { a = 'p' }", "listener.users.a has its password"),
        (
            GOOD + LISTENER + "users = { a = 'p' }\nauth_in_clear = true",
            "can be read on the network",
        ),
        (GOOD + "[[listener]]\nallow = ['8.8.8.0/24']", "a public network"),
        (
            GOOD + LISTENER + "users = { a = { file = 'word.txt', store = 'clear' } }",
            "puts this password itself on the board",
        ),
    ],
)
def test_what_is_risky_is_said_in_a_warning(load, text, warning):
    assert [w for w in load(text)[1] if warning in w]


def test_no_warning_shows_a_password(load):
    text = GOOD + "username='u'\npassword='hunter2'\n" + LISTENER + "users = { a = 'hunter3' }"
    values, warnings = load(text)
    assert len(warnings) == 3
    assert "hunter" not in "".join(warnings)


def test_the_example_in_the_repository_is_right(tmp_path):
    certificates.Authority(tmp_path)
    board = tmp_path / "board.toml"
    board.write_bytes((ROOT / "examples" / "board.toml").read_bytes())
    values, warnings = config.load(board, {"SMTP_PASSWORD": "a", "PRINTER_PASSWORD": "b"})
    assert values["board"]["tz"][0] == 3600
    assert values["smarthost"][0]["sender"] == "gateway@example.com"
    assert values["sensor"][0]["above"] == -15.0
    assert [w.split(":")[0] for w in warnings] == ["listener.users cannot log in"]


def test_a_missing_password_variable_is_one_line(tmp_path):
    certificates.Authority(tmp_path)
    board = tmp_path / "board.toml"
    board.write_bytes((ROOT / "examples" / "board.toml").read_bytes())
    with pytest.raises(config.ConfigError) as caught:
        config.load(board, {"SMTP_PASSWORD": "a"})
    assert str(caught.value) == (
        f"{board}: listener.users.printer: the environment variable PRINTER_PASSWORD is not"
        " set; set it"
        " first: export PRINTER_PASSWORD='...'; for example:"
        ' users = { printer = { env = "PRINTER_PASSWORD" } }'
    )


def test_devices_rates_and_what_becomes_of_late_mail_reach_the_board(load):
    text = (
        GOOD.replace("[smarthost]\n", "[smarthost]\nper_minute = 30\nper_day = 500\n")
        + '[queue]\nexpire = "2d"\ndelay_notice = "1h"\nbounce = false\npause_max = "15m"\n'
        + '[[device]]\naddress = "192.168.1.20"\nsender = "scanner@example.com"\nper_hour = 60\npriority = "low"\n'
    )
    values, _ = load(text)
    assert values["queue"] == {
        "max_bytes": 524288, "max_message": 10485760, "expire": 172800.0, "delay_notice": 3600.0, "bounce": False,
        "pause_max": 900.0,
    }  # fmt: skip
    assert values["device"] == [
        {"address": "192.168.1.20/32", "sender": "scanner@example.com", "per_hour": 60, "priority": "low"}]
    host = values["smarthost"][0]
    assert (host["per_minute"], host["per_day"], "per_session" in host) == (30, 500, False)


@pytest.mark.parametrize(
    "text, key",
    [
        ('[[device]]\nsender = "scanner@example.com"\n', "device.address"),
        ('[[device]]\naddress = "scanner"\n', "device.address"),
        ('[[device]]\naddress = "192.168.1.20"\nper_hour = -1\n', "device.per_hour"),
        ('[[device]]\naddress = "192.168.1.20"\npriority = "high"\n', "device.priority"),
        ('[queue]\nexpire = "1h"\ndelay_notice = "4h"\n', "queue.delay_notice"),
        ('[queue]\nbounce = "no"\n', "queue.bounce"),
    ],
)
def test_what_is_wrong_with_devices_and_late_mail_is_told(load, text, key):
    (problem,) = problems(load, GOOD + text)
    assert problem.startswith(key + ":") and "for example" in problem


# ---- sensors

DOOR = MAIL + "[[sensor]]\nname = 'door'\ndriver = 'digital'\npin = 14\n"
TANK = MAIL + "[[sensor]]\nname = 'tank'\ndriver = 'adc'\npin = 26\nbelow = 20\n"
PROBE = "[[sensor]]\nname = '%s'\ndriver = 'ds18x20'\npin = 4\nabove = 8\n"
ROM, ROM2 = "rom = '28ff641e84160333'\n", "rom = '28000005e2fdc32f'\n"
OWN = MAIL + "[[sensor]]\nname = 'oil'\ndriver = 'user'\nabove = 1\n"

WRONG_SENSORS = [
    (DOOR, "sensor.is", "which state raises an alert?"),
    (DOOR + "is = 'ajar'", "sensor.is", '"ajar" is neither "on" nor "off"'),
    (DOOR + "is = 'open'\non = 'open'\noff = 'open'", "sensor.off", "same word"),
    (DOOR + "is = 5", "sensor.is", "short word"),
    (DOOR + "is = 'on'\nabove = 1", "sensor.above", "no use beside is"),
    (DOOR + "is = 'on'\nhysteresis = 1", "sensor.hysteresis", "no use beside is"),
    (DOOR + "is = 'on'\nunit = 'x'", "sensor.unit", "no use beside is"),
    (DOOR + "on = 'open'", "sensor.on", "no use without is"),
    (DOOR + "is = 'on'\nedge = true\nfor = '5m'", "sensor.for", "no use with edge"),
    (DOOR + "is = 'on'\nedge = 'rising'", "sensor.edge", "neither true nor false"),
    (DOOR + "is = 'on'\npull = 'high'", "sensor.pull", 'none of "up", "down", "none"'),
    (DOOR + "is = 'on'\ndebounce = '5s'", "sensor.debounce", "more than 1s"),
    (DOOR + "is = 'on'\nrom = '28ff641e84160333'", "sensor.rom", 'no use with driver = "digital"'),
    (DOOR + "is = 'on'\npath = 'x'", "sensor.path", 'no use with driver = "digital"'),
    (DOOR.replace("14", "-1") + "is = 'on'", "sensor.pin", "number of a pin"),
    (DOOR.replace("14", "true") + "is = 'on'", "sensor.pin", "number of a pin"),
    (DOOR.replace("14", "'GPIO'") + "is = 'on'", "sensor.pin", "number of a pin"),
    (DOOR.replace("pin = 14\n", "is = 'on'\n"), "sensor.pin", "where the contact is connected"),
    (DOOR + "is = 'on'\n" + TANK.replace(MAIL, "").replace("26", "14"), "sensor[2].pin", "used by sensor[1] already"),
    (TANK + "is = 'on'", "sensor.is", "which gives a number"),
    (TANK + "points = [[0, 0]]", "sensor.points", "two pairs"),
    (TANK + "points = [[0, 0], [0, 5]]", "sensor.points", "twice"),
    (TANK + "points = [[0, 0], ['1', 5]]", "sensor.points", "two pairs"),
    (TANK + "points = [[0, 0], [5, 5]]\nfactor = 1", "sensor.points", "same as factor"),
    (TANK + "factor = '2'", "sensor.factor", "not a number"),
    (TANK + "above = 30\nhysteresis = 11", "sensor.hysteresis", "no alert would end"),
    (TANK + "for = 'long'", "sensor.for", "not a time"),
    (TANK + "for = '500ms'", "sensor.for", "0 switches it off"),
    (TANK + "repeat = true", "sensor.repeat", "not a time"),
    (TANK + "recovery = 'yes'", "sensor.recovery", "neither true nor false"),
    (TANK + "failures = -1", "sensor.failures", "whole number from 0 to 1000"),
    (TANK + "failures = '3'", "sensor.failures", "whole number from 0 to 1000"),
    (TANK + "decimals = 7", "sensor.decimals", "whole number from 0 to 6"),
    (TANK + "every = '2d'", "sensor.every", "more than a day"),
    (TANK + "timeout = 0", "sensor.timeout", "not between"),
    (TANK + "unit = 5", "sensor.unit", "short text"),
    (TANK + "subject = '{name}: {vallue}'", "sensor.subject", "{vallue} is not known; did you mean {value}?"),
    (TANK + "subject = '{name}: {x.y}'", "sensor.subject", "known are {name}"),
    (TANK + "subject = '{}'", "sensor.subject", "{} is not known"),
    (TANK + "subject = '{name'", "sensor.subject", "{ or } that is not part of a name"),
    (TANK + "subject = '{{name}}'", "sensor.subject", "{ or } that is not part of a name"),
    (TANK + 'subject = "a\\nBcc: x@example.com"', "sensor.subject", "line break"),
    (TANK + "subject = ' '", "sensor.subject", "not text"),
    (TANK + 'text = "\\u0007"', "sensor.text", "control character"),
    (TANK + "text = '{value} {unit}'", "sensor.unit", "text has {unit} in it"),
    (TANK + "recovery_subject = 'fine'", "sensor.recovery_subject", "without recovery = true"),
    (TANK + "function = 'x'", "sensor.function", 'no use with driver = "adc"'),
    (MAIL + PROBE % "a" + "rom = '28ff'", "sensor.rom", "16 hex digits"),
    (MAIL + PROBE % "a" + "rom = '28ff641e84160334'", "sensor.rom", "wrong digit"),
    (MAIL + PROBE % "a" + "rom = '01ff641e84160334'", "sensor.rom", "no DS18S20"),
    (MAIL + PROBE % "a" + ROM + PROBE % "b", "sensor[2].rom", "here or in sensor[1]"),
    (MAIL + "[[sensor]]\nname = 'x'\ndriver = 'dht22'\npin = 4\nabove = 1\nreads = 'dew'", "sensor.reads", "humidity"),
    (MAIL + "[[sensor]]\nname = 'x'\ndriver = 'chip'\npin = 4\nabove = 1", "sensor.pin", 'no use with driver = "chip"'),
    (OWN, "sensor.function", "function of your own"),
    (OWN + "function = 'level'", "sensor.path", "user.py cannot be read"),
    (OWN + "function = 'level'\npath = 'own.txt'", "sensor.path", "not the name of a Python file"),
    (OWN + "function = 'level'\npath = 'gateway.py'", "sensor.path", "module on the board already"),
    (OWN + "function = 'level'\npath = 'bad.py'", "sensor.path", "line 2 is no Python"),
    (OWN + "function = 'levle'\npath = 'own.py'", "sensor.function", "did you mean level?"),
    (OWN + "function = 'zzz'\npath = 'own.py'", "sensor.function", "write: def zzz():"),
    ("[mail]\nheartbeat = '1d'", "mail.from", "heartbeats need a sender"),
    ("[mail]\nheartbeat = '1d'\nfrom = 'a@example.com'", "mail.to", "heartbeats"),
    (MAIL + "heartbeat = 'often'", "mail.heartbeat", "not a time"),
]


@pytest.fixture(scope="module")
def own(home):
    """The user's own functions beside board.toml."""
    (home / "own.py").write_text("import os\n\nasync def level():\n    return 5\n\nother = level\n")
    (home / "bad.py").write_text("def level():\nreturn 5\n")


@pytest.mark.parametrize(("text", "key", "fault"), WRONG_SENSORS, ids=[f"{w[1]}: {w[2]}" for w in WRONG_SENSORS])
def test_a_sensor_that_cannot_work_is_told_with_its_key(load, own, text, key, fault):
    found = problems(load, GOOD + text)
    assert [p for p in found if p.startswith(f"{key}: ") and fault in p], found


def sensors(load, text):
    values, warnings = load(GOOD + text)
    assert warnings == []
    for one in values["sensor"]:
        assert one.pop("to") == ["b@example.com"]
    return values["sensor"]


COMMON = {"every": 10.0, "hysteresis": 0.0, "priority": "normal"}


def test_all_that_a_rule_may_say_reaches_the_board_in_seconds_and_numbers(load):
    text = (
        "above = 30\nhysteresis = 2\nfor = '5m'\nrepeat = '1h'\nrecovery = true\nfailures = 5\ntimeout = '2s'\n"
        "unit = '%'\ndecimals = 0\nsubject = '{name}: {value}{unit}'\ntext = '''{board}\n{state}'''\n"
        "recovery_subject = 'ok'\nrecovery_text = '{lasted}'\nevery = '1m'\npoints = [[0, 0], [65535, 100]]\n"
    )
    (one,) = sensors(load, TANK + text)
    assert one == {
        "name": "tank", "driver": "adc", "pin": 26, "below": 20.0, "above": 30.0, "hysteresis": 2.0, "for": 300.0,
        "repeat": 3600.0, "recovery": True, "failures": 5, "timeout": 2.0, "unit": "%", "decimals": 0,
        "subject": "{name}: {value}{unit}", "text": "{board}\n{state}", "recovery_subject": "ok",
        "recovery_text": "{lasted}", "every": 60.0, "factor": 100 / 65535, "offset": 0.0, "priority": "normal",
        "board": "cold-store",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words", "limit"),
    [
        ("is = 'open'\non = 'open'\noff = 'closed'", ["closed", "open"], "above"),
        ("is = 'closed'\non = 'open'\noff = 'closed'", ["closed", "open"], "below"),
        ("is = 'off'\non = 'open'\noff = 'closed'", ["closed", "open"], "below"),
        ("is = 'on'", ["off", "on"], "above"),
        ("is = true", ["off", "on"], "above"),
        ("is = false\noff = 'standing'", ["standing", "on"], "below"),
    ],
)
def test_a_state_becomes_a_limit_between_off_and_on(load, text, words, limit):
    (one,) = sensors(load, DOOR + text)
    assert one == {"name": "door", "driver": "digital", "pin": 14, "words": words, limit: 0.5, **COMMON}


def test_a_pin_may_have_a_name_and_the_thermometers_of_a_bus_share_one(load):
    text = MAIL + PROBE % "a" + ROM + PROBE % "b" + ROM2.replace("28000005e2fd", "28-00-00-05:E2FD")
    a, b = sensors(load, text.replace("pin = 4", "pin = 'GP4'"))
    assert a["pin"] == b["pin"] == "GP4"
    assert (a["rom"], b["rom"]) == ("28ff641e84160333", "28000005e2fdc32f")
    dht = "[[sensor]]\nname = '%s'\ndriver = 'dht11'\npin = 4\nabove = 8\nreads = '%s'\n"
    a, b = sensors(load, MAIL + dht % ("a", "temperature") + dht % ("b", "humidity"))
    assert a == {"name": "a", "driver": "dht", "model": 11, "pin": 4, "above": 8.0, "reads": "temperature", **COMMON}
    assert b["reads"] == "humidity"


def test_a_function_of_the_users_own_is_found_beside_board_toml(load, home, own):
    for function in ("level", "other"):
        (one,) = sensors(load, OWN + f"function = '{function}'\npath = 'own.py'\n")
        want = {"name": "oil", "driver": "user", "path": str(home / "own.py"), "function": function, "above": 1.0}
        assert one == {**want, **COMMON}


def test_a_heartbeat_needs_no_sensor(load):
    assert load(GOOD + MAIL + "heartbeat = '1d'\n")[0]["mail"]["heartbeat"] == 86400
    assert "heartbeat" not in load(GOOD + MAIL + "heartbeat = 0\n")[0]["mail"]


def test_each_key_has_an_example_and_a_line_in_the_guide():
    guide = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    parts = re.split(r"^## ", guide, flags=re.M)
    for name, model in (*config._SINGLE.items(), *config._LISTS.items()):
        (part,) = [p for p in parts if p.startswith(f"`[{name}]`") or p.startswith(f"`[[{name}]]`")]
        for field, info in model.model_fields.items():
            key = info.alias or field
            assert f"{name}.{key}" in config.EXAMPLES
            assert f"| `{key}`" in part, f"docs/configuration.md says nothing about {name}.{key}"


def test_the_examples_of_the_guide_are_right(load, home, own):
    """Each TOML block with [[sensor]] in it."""
    blocks = []
    for name in ("configuration", "hardware", "power"):
        guide = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
        found = [b for b in re.findall(r"```toml\n(.*?)```", guide, re.S) if "[[sensor]]" in b]
        assert found, name
        blocks += found
    (home / "user.py").write_text("def oil_level():\n    return 5\n")
    for block in blocks:
        load(GOOD + MAIL + block)
    (home / "user.py").unlink()


# ---- the status page

STATUS = "[status]\npassword = { env = 'STATUS' }\n"


def test_the_board_gets_a_verifier_of_the_status_pages_password(load):
    values, warnings = load(GOOD + STATUS, STATUS="open sesame")
    status = values["status"]
    assert status.pop("verifier").startswith("SCRAM-SHA-256$4096:") and warnings == []
    assert status == {
        "port": 80, "address": "0.0.0.0", "names": [], "health": True, "health_age": 3600,
        "allow": ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"],
    }  # fmt: skip
    assert "status" not in load(GOOD)[0]


def test_the_verifier_of_the_status_pages_password_stays_while_the_password_does(home, load):
    first = load(GOOD + STATUS, STATUS="open sesame")[0]
    (home / "board.toml").write_text(GOOD + STATUS)
    again = config.load(home / "board.toml", {"STATUS": "open sesame"}, first)[0]
    other = config.load(home / "board.toml", {"STATUS": "open barley"}, first)[0]
    assert again["status"]["verifier"] == first["status"]["verifier"] != other["status"]["verifier"]


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("[status]", "status.password", "is missing"),
        ("[status]\npassword = 'short'", "status.password", "8 characters"),
        ("[status]\npassword = 'open sesame'\nport = 0", "status.port", "from 1 to 65535"),
        ("[status]\npassword = 'open sesame'\nallow = ['0.0.0.0/0']", "status.allow", "anybody could try passwords"),
        ("[status]\npassword = 'open sesame'\nnames = 'a.example'", "status.names", "not a list of host names"),
        ("[status]\npassword = 'open sesame'\nnames = ['a b']", "status.names", "not a list of host names"),
        ("[status]\npassword = 'open sesame'\nhealth = 'no'", "status.health", "neither true nor false"),
        ("[status]\npassword = 'open sesame'\nhealth_age = '10s'", "status.health_age", "less than 1m"),
        ("[status]\npassword = 'open sesame'\nheath = true", "status.heath", "did you mean health?"),
        ("[status]\npassword = 'open sesame'\nport = 2525\n[[listener]]", "status.port", "taken by listener"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_status_page_is_told(load, text, key, part):
    with pytest.raises(config.ConfigError) as e:
        load(GOOD + text + "\n")
    (line,) = [p for p in e.value.problems if p.startswith(key + ":")]
    assert part in line


def test_a_password_of_the_status_page_in_the_file_earns_a_warning(load):
    (warning,) = load(GOOD + "[status]\npassword = 'open sesame'\n")[1]
    assert "STATUS_PASSWORD" in warning


# ---- the board itself

WIFI = "[wifi]\nssid = 'barn'\npassword = { env = 'WIFI' }\n"


def test_wifi_reaches_the_board_with_a_host_name_and_time_servers(load):
    values, warnings = load(GOOD + WIFI, WIFI="hay and straw")
    assert values["wifi"] == {"ssid": "barn", "password": "hay and straw", "hostname": "cold-store"}
    assert values["board"]["ntp"] == [["pool.ntp.org", 123]]
    assert warnings == []
    text = WIFI + "country = 'DE'\nhostname = 'kueche'\npower_save = false\n"
    values, _ = load(GOOD + text, WIFI="hay and straw")
    assert values["wifi"] == {
        "ssid": "barn", "password": "hay and straw", "hostname": "kueche", "country": "DE", "power_save": False,
    }  # fmt: skip


def test_without_wifi_nothing_of_it_reaches_the_board(load):
    values, _ = load(GOOD)
    assert "wifi" not in values and "log" not in values
    assert set(values["board"]) == {"name", "domain", "tz"}


@pytest.mark.parametrize(
    ("name", "host"),
    [("Kühlraum 2 (Nord)", "k-hlraum-2-nord"), ("№", "edgepost"), ("x" * 31 + " y", "x" * 31), ("- a -", "a")],
)
def test_the_host_name_is_made_of_the_boards_name(load, name, host):
    values, _ = load(GOOD.replace("cold-store", name) + WIFI, WIFI="hay and straw")
    assert values["wifi"]["hostname"] == host


def test_a_fixed_address_gets_what_is_left_out(load):
    text = WIFI + "address = '192.168.1.9'\ngateway = '192.168.1.1'\n"
    values, _ = load(GOOD + text, WIFI="hay and straw")
    assert values["wifi"]["netmask"] == "255.255.255.0"
    assert values["wifi"]["dns"] == "192.168.1.1"
    text = text.replace("168.1.1'", "168.7.1'") + "netmask = '255.255.0.0'\ndns = '9.9.9.9'\n"
    values, _ = load(GOOD + text, WIFI="hay and straw")
    assert (values["wifi"]["netmask"], values["wifi"]["dns"]) == ("255.255.0.0", "9.9.9.9")


def test_time_servers_have_ports_and_can_be_switched_off(load):
    text = GOOD.replace("[smarthost]", "ntp = ['192.168.1.1', 'time.example.com.:1123']\n[smarthost]")
    assert load(text)[0]["board"]["ntp"] == [["192.168.1.1", 123], ["time.example.com", 1123]]
    text = GOOD.replace("[smarthost]", "ntp = []\n[smarthost]") + WIFI
    assert "ntp" not in load(text, WIFI="hay and straw")[0]["board"]


def test_led_watchdog_profile_and_log(load):
    text = "led = true\nwatchdog = true\nprofile = 'pico_w'\n"
    values, _ = load(GOOD.replace("[smarthost]", text + "[smarthost]") + "[log]\n")
    board = values["board"]
    assert (board["led"], board["watchdog"], board["profile"]) == (True, True, "pico_w")
    assert values["log"] == {"max_bytes": 32768}
    values, _ = load(GOOD.replace("[smarthost]", "led = 'GP3'\n[smarthost]") + "[log]\nmax_bytes = '64KB'\n")
    assert (values["board"]["led"], values["log"]["max_bytes"]) == ("GP3", 65536)
    values, _ = load(GOOD.replace("[smarthost]", "led = false\nwatchdog = false\n[smarthost]"))
    assert not {"led", "watchdog"} & set(values["board"])


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("[wifi]\npassword = 'hay and straw'", "wifi.ssid", "is missing"),
        ("[wifi]\nssid = ''", "wifi.ssid", "not the name of a network"),
        ("[wifi]\nssid = '" + "ü" * 17 + "'", "wifi.ssid", "longer than 32 bytes"),
        ("[wifi]\nssid = 'barn'\npassword = 'short'", "wifi.password", "has 5 characters"),
        ("[wifi]\nssid = 'barn'\npassword = '" + "x" * 64 + "'", "wifi.password", "has 64 characters"),
        ("[wifi]\nssid = 'barn'\npassword = { env = 'NONE' }", "wifi.password", "NONE is not set"),
        (WIFI + "country = 'Germany'", "wifi.country", "two capital letters"),
        (WIFI + "country = 'de'", "wifi.country", "two capital letters"),
        (WIFI + "hostname = 'cold store'", "wifi.hostname", "letters, digits and -"),
        (WIFI + "hostname = '" + "x" * 33 + "'", "wifi.hostname", "1 to 32"),
        (WIFI + "address = '192.168.1'\ngateway = '192.168.1.1'", "wifi.address", "not an IPv4 address"),
        (WIFI + "address = '192.168.1.9'", "wifi.gateway", "is missing"),
        (WIFI + "address = '192.168.1.9'\ngateway = '192.168.2.1'", "wifi.gateway", "192.168.1.0/24"),
        (WIFI + "gateway = '192.168.2.1'", "wifi.gateway", "no use without address"),
        (WIFI + "address = '10.0.0.9'\ngateway = '10.0.0.1'\nnetmask = '10.0.0.1'", "wifi.netmask", "not a netmask"),
        (WIFI + "power_save = 'no'", "wifi.power_save", "neither true nor false"),
        (WIFI + "pasword = 'x'", "wifi.pasword", "did you mean password?"),
        ("[log]\nmax_bytes = '4KB'", "log.max_bytes", "between 8KB and 1MB"),
        ("[log]\nmax_bytes = '2MB'", "log.max_bytes", "between 8KB and 1MB"),
        ("[wlan]", "wlan", "known are board, wifi"),
    ],
)
def test_what_is_wrong_with_the_board_is_told(load, text, key, part):
    found = problems(load, GOOD + text, WIFI="hay and straw")
    assert [p for p in found if p.startswith(key + ":") and part in p], found


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("ntp = 5", "board.ntp", "5 is not the name"),
        ("ntp = ['a b', '1.2.3']", "board.ntp", "'1.2.3' is not the name"),
        ("ntp = ['time.example.com:0']", "board.ntp", "is not the name"),
        ("ntp = ['a','b','c','d','e','f','g']", "board.ntp", "more than 6"),
        ("led = 'green'", "board.led", "neither true, false nor a pin"),
        ("watchdog = 60", "board.watchdog", "neither true nor false"),
        ("profile = 'toaster'", "board.profile", "none of firmware/boards: esp32, pico_w"),
        ("profile = 'unix'", "board.profile", "none of firmware/boards"),
    ],
)
def test_what_is_wrong_with_the_keys_of_the_board_is_told(load, text, key, part):
    found = problems(load, GOOD.replace("[smarthost]", text + "\n[smarthost]"))
    assert [p for p in found if p.startswith(key + ":") and part in p], found


def test_the_leds_pin_is_not_that_of_a_sensor(load):
    text = GOOD.replace("[smarthost]", "led = 14\n[smarthost]") + MAIL
    text += "[[sensor]]\nname = 'door'\ndriver = 'digital'\npin = 14\nis = 'on'\n"
    (problem,) = problems(load, text)
    assert problem.startswith("board.led: 14 is the pin of a sensor, too")


def test_what_is_risky_with_wifi_is_said_and_its_password_is_not(load):
    _, warnings = load(GOOD + "[wifi]\nssid = 'barn'\n")
    assert [w for w in warnings if "an open network" in w]
    _, warnings = load(GOOD + "[wifi]\nssid = 'barn'\npassword = 'hay and straw'\n")
    assert [w for w in warnings if "wifi.password stands in board.toml" in w] and "hay" not in "".join(warnings)
    _, warnings = load(GOOD + WIFI + LISTENER, WIFI="hay and straw")
    assert [w for w in warnings if "where no device can reach it" in w]
    _, warnings = load(GOOD + WIFI + LISTENER + "address = '0.0.0.0'\n", WIFI="hay and straw")
    assert warnings == []


# ---- sleep, ping and hosts that are reachable

SLEEP = MAIL + "[[sensor]]\nname = 'door'\ndriver = 'digital'\npin = 14\nis = 'on'\n[sleep]\n"
PING = GOOD + "[ping]\nurl = { env = 'URL' }\n"
REACH = MAIL + "[[sensor]]\nname = 'printer'\ndriver = 'reachable'\n"


def test_sleep_and_ping_reach_the_board_with_their_defaults(load):
    values, warnings = load(GOOD + SLEEP + "wake_pin = 14\n[ping]\nurl = { env = 'URL' }\nca = 'ca.pem'\n",
                            URL="https://hc-ping.com/1")
    assert values["sleep"] == {"every": 600, "batch": 21600, "urgent": "urgent", "awake": 60, "wake_pin": 14}
    ping = values["ping"]
    assert ping.pop("ca") == values["smarthost"][0]["ca"]
    assert ping == {"url": "https://hc-ping.com/1", "verify": "full", "every": 300, "oldest": 3600}
    assert warnings == []
    assert {"sleep", "ping"}.isdisjoint(load(GOOD)[0])


WRONG_SLEEP = [
    (GOOD + SLEEP + "every = '0.5s'", "sleep.every", "less than 1s"),
    (GOOD + SLEEP + "every = '2d'", "sleep.every", "more than a day"),
    (GOOD + SLEEP + "awake = '5s'", "sleep.awake", "between 20s and 15m"),
    (GOOD + SLEEP + "urgent = 'high'", "sleep.urgent", 'none of "urgent", "normal", "low"'),
    (GOOD + SLEEP + "wake_pin = 15", "sleep.wake_pin", "the pin of no [[sensor]]"),
    (GOOD + SLEEP + LISTENER, "listener", "always awake"),
    (GOOD + MAIL + "[sleep]\n", "sensor", "nothing to do but to read its sensors"),
    (GOOD + SLEEP.replace("[sleep]", "edge = true\n[sleep]"), "sensor.edge", "let sleep.wake_pin wake it"),
    (GOOD + REACH + "host = '192.168.1.2'\nport = 80\n[sleep]\n", "sensor.driver", "which a board that sleeps has not"),
    (GOOD + SLEEP + PING[len(GOOD):] + "every = '5m'", "ping.every", "one ping in each sleep.batch"),
    (PING, "ping.ca", "is missing"),
    (PING.replace("'URL'", "'HTTP'"), "ping.url", "begins with http://"),
    (PING.replace("'URL'", "'NOPE'"), "ping.url", "NOPE is not set"),
    (PING.replace("{ env = 'URL' }", "'ftp://a.example/'"), "ping.url", "is not the https:// address"),
    (PING.replace("{ env = 'URL' }", "'https://u:p@a.example/'"), "ping.url", "is not the https:// address"),
    (PING + "every = '2d'", "ping.every", "more than a day"),
    (GOOD + REACH + "port = 80", "sensor.host", "whom to reach"),
    (GOOD + REACH + "host = 'printer.lan'", "sensor.port", "say one of the two"),
    (GOOD + REACH + "host = 'printer.lan'\nport = 80\nping = true", "sensor.port", "say one of the two"),
    (GOOD + REACH + "host = 'printer.lan:80'\nping = true", "sensor.host", "has a port in it"),
    (GOOD + REACH + "host = 'printer.lan'\nping = true\nabove = 1", "sensor.above", "no use beside is"),
]


@pytest.mark.parametrize(("text", "key", "fault"), WRONG_SLEEP, ids=[f"{w[1]}: {w[2]}" for w in WRONG_SLEEP])
def test_what_sleep_ping_and_reachable_cannot_do_is_told(load, text, key, fault):
    lines = problems(load, text, URL="https://hc-ping.com/1", HTTP="http://hc-ping.com/1")
    assert [p for p in lines if p.startswith(f"{key}: ") and fault in p], lines


def test_the_address_of_a_ping_is_never_shown(load):
    for text in (PING.replace("{ env = 'URL' }", "'http://a.example/1b9f6a72'"), PING):
        for line in problems(load, text, URL="gopher://1b9f6a72"):
            assert "1b9f6a72" not in line


def test_what_is_risky_about_ping_and_sleep_is_a_warning(load):
    _, warnings = load(PING.replace("{ env = 'URL' }", "'http://a.example/'") + "verify = 'none'\n")
    assert len(warnings) == 2 and "ping.url stands in board.toml" in warnings[0]
    assert "go on pinging for a dead gateway" in warnings[1]
    _, warnings = load(GOOD + SLEEP.replace("[sleep]", "every = '1s'\n[sleep]"))
    assert len(warnings) == 1 and "sensor.every has no use with [sleep]" in warnings[0]


def test_a_host_is_reachable_or_unreachable_unless_other_words_are_given(load):
    (one,) = load(GOOD + REACH + "host = '192.168.1.20'\nping = true\n")[0]["sensor"]
    assert (one["words"], one["below"], one["host"], one["ping"]) == (
        ["unreachable", "reachable"], 0.5, "192.168.1.20", True)  # fmt: skip
    (one,) = load(GOOD + REACH + "host = '192.168.1.20'\nport = 22\non = 'up'\noff = 'down'\nis = 'down'")[0]["sensor"]
    assert (one["words"], one["below"]) == (["down", "up"], 0.5)
    (one,) = load(GOOD + REACH + "host = '192.168.1.20'\nport = 22\nis = 'reachable'")[0]["sensor"]
    assert one["above"] == 0.5


def test_addresses_may_be_in_utf_8_and_a_domain_becomes_what_dns_knows_it_by(load):
    text = GOOD + "[mail]\nfrom = 'ku\u0308hl@b\u00fccher.example'\n"
    text += "to = ['info@bu\u0308cher.example', 'почта@example.com']\n"
    values, warnings = load(text + "admin = 'a@example.com'\n")
    assert values["mail"]["from"] == "k\u00fchl@xn--bcher-kva.example"  # composed, as people type it
    assert values["mail"]["to"] == ["info@xn--bcher-kva.example", "почта@example.com"]
    assert [w.split(" is not ASCII")[0] for w in warnings] == ["k\u00fchl@xn--bcher-kva.example", "почта@example.com"]


def test_a_listener_offers_more_where_that_is_switched_on(load):
    text = GOOD + LISTENER + "tls = 'starttls'\ncert = 'cert.pem'\nkey = 'key.pem'\n"
    values, _ = load(text)
    assert "extra" not in values["listener"][0]
    values, _ = load(text + "smtputf8 = true\nrequiretls = true\nmt_priority = true\n")
    assert values["listener"][0]["extra"] == ["SMTPUTF8", "REQUIRETLS", "MT-PRIORITY"]


# ---- the rarer ways of mail

BY_MX = "[board]\nname = 'x'\n[smarthost]\nby = 'mx'\n"
FETCH = (
    "[fetch]\nhost = 'odmr.example.com'\nca = 'ca.pem'\nusername = 'b7'\npassword = { env = 'FETCH' }\n"
    "domains = ['B7.example.com']\n"
)
FETCHERS = "[[listener]]\nauth_in_clear = true\nusers = { b7 = { env = 'FETCH' } }\n"


def test_nothing_of_the_rarer_ways_reaches_a_board_that_has_none(load):
    config, _ = load(GOOD + "[[listener]]\nallow = ['10.0.0.0/8']\n")
    assert "hops" not in config and "cut_through" not in config["queue"]
    assert not {"by", "protocol", "etrn", "atrn"} & {*config["smarthost"][0], *config["listener"][0]}


def test_delivery_by_mx_says_in_words_what_its_tls_is_worth(load):
    config, warnings = load(BY_MX + "security = 'opportunistic'\nsender = 'a@example.com'\nper_minute = 5\n")
    (host,) = config["smarthost"]
    assert (host["by"], host["host"], host["port"], host["security"]) == ("mx", "", 25, "opportunistic")
    assert config["hops"] and config["queue"]["cut_through"] is False
    assert any("nobody's certificate is verified" in w for w in warnings)
    assert any("everybody on the way" in w for w in load(BY_MX + "security = 'none'\n")[1])


@pytest.mark.parametrize(
    "text, key, fault",
    [
        (BY_MX, "smarthost.security", "has to be said"),
        (BY_MX + "security = 'starttls'\n", "smarthost.security", "has to be said"),
        (BY_MX + "security = 'none'\nhost = 'a.example'\n", "smarthost.host", "no use"),
        (BY_MX + "security = 'none'\nusername = 'x'\n", "smarthost.username", "no use"),
        (BY_MX + "security = 'none'\nprotocol = 'lmtp'\n", "smarthost.protocol", "no use"),
        (BY_MX.replace("[smarthost]", "[[smarthost]]") + "security = 'none'\n[[smarthost]]\nhost='b'\nca='ca.pem'\n",
         "smarthost", "the only one"),
        (GOOD + "security = 'opportunistic'\n", "smarthost.security", "only"),
        (GOOD + "protocol = 'lmtp'\nport = 25\n", "smarthost.port", "RFC 2033"),
        (GOOD + "[[listener]]\nprotocol = 'lmtp'\nport = 25\nallow = ['10.0.0.0/8']\n", "listener.port", "RFC 2033"),
        (GOOD + "[[listener]]\nprotocol = 'lmtp'\netrn = 'x.y'\nallow = ['10.0.0.0/8']\n", "listener.etrn", "no use"),
        (GOOD + FETCHERS + "atrn = { other = ['x.example'] }\n", "listener.atrn.other", "none of the users"),
        (GOOD + FETCHERS + "atrn = { b7 = [] }\n", "listener.atrn", "not a list of domains"),
        (GOOD + FETCHERS + "atrn = ['b7']\n", "listener.atrn", "not a table"),
        (GOOD + FETCHERS + "etrn = ['a b']\n", "listener.etrn", "not a domain"),
        (GOOD + FETCH.replace("domains", "#"), "fetch.domains", "missing"),
        (GOOD + FETCH.replace("ca =", "#"), "fetch.ca", "missing"),
        (GOOD + FETCH + "forward = 'x'\n", "fetch.forward", "no @"),
        (GOOD + FETCH.replace("ca = 'ca.pem'", "security = 'none'") + "senders = ['a@b.example']\n", "fetch.security",
         "give orders"),
    ],
)  # fmt: skip
def test_what_cannot_work_of_the_rarer_ways_is_refused(load, text, key, fault):
    lines = problems(load, text, FETCH="secret")
    assert any(line.startswith(key + ":") and fault in line for line in lines), lines


def test_lmtp_has_a_port_of_its_own(load):
    config, _ = load(GOOD + "protocol = 'lmtp'\n")
    assert (config["smarthost"][0]["protocol"], config["smarthost"][0]["port"]) == ("lmtp", 24)
    assert config["hops"] and config["queue"]["cut_through"] is False
    config, _ = load(GOOD + "[[listener]]\nprotocol = 'lmtp'\nallow = ['10.0.0.0/8']\n")
    assert config["listener"][0]["protocol"] == "lmtp" and config["hops"] and "cut_through" not in config["queue"]


def test_who_fetches_and_what_is_fetched_reaches_the_board(load):
    text = GOOD + FETCHERS + "atrn = { b7 = ['B7.example.com'] }\netrn = 'Example.com'\n"
    config, _ = load(text, FETCH="secret")
    assert config["listener"][0]["atrn"] == {"b7": ["b7.example.com"]}
    assert config["listener"][0]["etrn"] == ["example.com"] and config["queue"]["cut_through"] is False
    config, warnings = load(GOOD + FETCH, FETCH="secret")
    fetch = config["fetch"]
    assert (fetch["port"], fetch["every"], fetch["domains"], fetch["senders"], fetch["forward"]) == (
        366, 900, ["b7.example.com"], [], "")  # fmt: skip
    assert any("all mail that is fetched is refused" in w for w in warnings) and config["hops"]
    assert not load(GOOD + FETCH + "forward = '*'\n", FETCH="secret")[1]
    (warning,) = load(GOOD + FETCH + "senders = ['a@b.example']\n", FETCH="secret")[1]
    assert "verified_by names the mail server that has to vouch" in warning
    orders = "senders = ['a@b.example']\nverified_by = 'MX.b.example'\n"
    config, warnings = load(GOOD + FETCH + orders, FETCH="secret")
    assert config["fetch"]["verified_by"] == "mx.b.example" and not warnings
