"""The few roots that a board needs to verify its smart host: that of today's chain, and its provider's next one.

A board holds its CAs in RAM, so it gets three at the most. That of today is the end of the chain which this computer
verifies, under its own trusted roots (certifi's where it has none), over TLS 1.2 as a board speaks it; a server that
has an ECDSA and an RSA certificate is asked for both, since they may end at different roots. The others are what the
provider says it may change to, and are taken from this computer's roots, never from the network.

May use: ssl, smtplib and cryptography.
"""

import datetime
import hashlib
import smtplib
import socket
import ssl
from pathlib import Path

import certifi
from cryptography import x509

from .errors import UserError

MOST = 3
_MARK = "# Roots for "
_SUITES = ("ECDHE+ECDSA", "ECDHE+aRSA:DHE+aRSA:kRSA")
_SELF = "smarthost.ca"

# Roots by SHA-256, as (provider or "", who says so, [(name, fingerprint)]), the likeliest first. That a server's root
# is in a row makes it the row of that server, too. As of November 2026.
FAMILIES = (
    ("m365", 'Microsoft, "Azure Certificate Authority details" (learn.microsoft.com)', (
        ("DigiCert Global Root G2", "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"),
        ("Microsoft RSA Root Certificate Authority 2017",
         "c741f70f4b2a8d88bf2e71c14122ef53ef10eba0cfa5e64cfa20f418853073e0"),
        ("DigiCert Global Root G3", "31ad6648f8104138c738f39ea4320133393e3a18cc02296ef97c2ac9ef6731d0"),
        ("DigiCert TLS RSA4096 Root G5", "371a00dc0533b3721a7eeb40e8419e70799d2b0a0f2c1d80693165f7cec4ad75"),
    )),
    ("gmail", "Google Trust Services, pki.goog/repository", (
        ("GTS Root R1", "d947432abde7b7fa90fc2e6b59101b1280e0e1c7e4e40fa3c6887fff57a7f4cf"),
        ("GTS Root R4", "349dfa4058c5e263123b398ae795573c4e1313c83fe68f93556cd5e8031b3c7d"),
        ("GTS Root R3", "34d8a73ee208d9bcdb0d956520934b4e40e69482596e8b6f73c8426b010a6f48"),
    )),
    ("ses", "Amazon Trust Services, amazontrust.com/repository", (
        ("Amazon Root CA 1", "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e"),
        ("Amazon Root CA 2", "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4"),
        ("Amazon Root CA 3", "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4"),
    )),
    ("", "Let's Encrypt, letsencrypt.org/certificates", (
        ("ISRG Root X1", "96bcec06264976f37460779acf28c5a7cfe8a3c0aae11a8ffcee05c0bddf08c6"),
        ("ISRG Root X2", "69729b8e15a86efc177a57afb7171dfc64add28c2fca8cf1507e34453ccb1470"),
    )),
    ("", "DigiCert, digicert.com/kb/digicert-root-certificates.htm", (
        ("DigiCert Global Root CA", "4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161"),
        ("DigiCert Global Root G2", "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"),
        ("DigiCert TLS RSA4096 Root G5", "371a00dc0533b3721a7eeb40e8419e70799d2b0a0f2c1d80693165f7cec4ad75"),
    )),
    ("", "Sectigo, sectigo.com (public root certificates)", (
        ("Sectigo Public Server Authentication Root R46",
         "7bb647a62aeeac88bf257aa522d01ffea395e0ab45c73f93f65654ec38f25a06"),
        ("USERTrust RSA Certification Authority",
         "e793c9b02fd8aa13e21c31228accb08119643b749c898964b1746d46c3d4cbd2"),
        ("Sectigo Public Server Authentication Root E46",
         "c90f26f0fb1b4018b22227519b5ca2b53e2ca5b3be5cf18efe1bef47380c5383"),
    )),
    ("", "GlobalSign, support.globalsign.com (root certificates)", (
        ("GlobalSign Root R46", "4fa3126d8d3a11d1c4855a4f807cbad6cf919d3a5a88b03bea2c6372d93c40c9"),
        ("GlobalSign R6", "2cabeafe37d06ca22aba7391c0033d25982952c453647349763a3ab5ad6ccf69"),
        ("GlobalSign Root E46", "cbb9c44d84b8043e1050ea31a69f514955d7bfd2e2c6b49301019ad61d9f5058"),
    )),
)  # fmt: skip


class Root:
    """One root: `der`; `why` it is there."""

    def __init__(self, der, why):
        self.der, self.why = der, why
        self.cert = x509.load_der_x509_certificate(der)
        self.end = self.cert.not_valid_after_utc

    @property
    def name(self):
        return name_of(self.cert.subject)


def name_of(subject):
    """What people call the owner of a certificate."""
    for oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATIONAL_UNIT_NAME, x509.NameOID.ORGANIZATION_NAME):
        found = subject.get_attributes_for_oid(oid)
        if found:
            return str(found[0].value)
    return subject.rfc4514_string() or "a CA without a name"


def trusted():
    """The roots that this computer trusts, or certifi's where it has none: {SHA-256 in hex: DER}."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    ders = context.get_ca_certs(True)
    directory = ssl.get_default_verify_paths().capath
    if not ders and directory:
        for path in sorted(Path(directory).glob("*.pem")):
            try:
                ders.append(ssl.PEM_cert_to_DER_cert(path.read_text("ascii")))
            except (OSError, ValueError):
                pass
    if not ders:
        context.load_verify_locations(certifi.where())
        ders = context.get_ca_certs(True)
    return {hashlib.sha256(der).hexdigest(): der for der in ders}


def today(host, port, security, store, timeout=20, name="[127.0.0.1]"):
    """The roots of the chains that a server shows, as ({fingerprint: DER}, its greeting).

    security: "starttls", or "tls" from the start, which HTTPS is as well. Raises UserError when none of them ends at a
    root in `store`, OSError when the server cannot be reached.
    """
    found, greeting, why = {}, "", None
    for suites in _SUITES:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suites)
        context.load_verify_locations(cadata=b"".join(store.values()))
        try:
            der, greeting = _end(host, port, security, context, timeout, name)
            found[hashlib.sha256(der).hexdigest()] = der
        except ssl.SSLCertVerificationError as e:
            why = e
        except ssl.SSLError as e:  # it has no such certificate, or speaks no TLS
            why = why or e
        except smtplib.SMTPException as e:
            raise UserError(_no_tls(host, port, e)) from None
    if not found:
        raise UserError(_distrust(host, port, security, why, timeout, name))
    return found, greeting


def _session(host, port, security, context, timeout, name):
    """A TLS session; gives (socket, greeting, what to close)."""
    if security == "tls":
        raw = socket.create_connection((host, port), timeout)
        try:
            return context.wrap_socket(raw, server_hostname=host), "", raw
        except BaseException:
            raw.close()
            raise
    server = smtplib.SMTP(timeout=timeout, local_hostname=name)
    try:
        _, greeting = server.connect(host, port)
        server._host = host  # smtplib knows it from its constructor only, which throws the greeting away
        server.starttls(context=context)
        return server.sock, greeting.decode("utf-8", "replace"), server
    except BaseException:
        server.close()
        raise


def _end(host, port, security, context, timeout, name):
    """The last certificate (DER) of the verified chain, and the greeting."""
    sock, greeting, line = _session(host, port, security, context, timeout, name)
    try:
        if hasattr(sock, "get_verified_chain"):  # Python 3.13
            return sock.get_verified_chain()[-1], greeting
        return ssl.PEM_cert_to_DER_cert(sock._sslobj.get_verified_chain()[-1].public_bytes()), greeting
    finally:
        sock.close()
        line.close()


def _no_tls(host, port, error):
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return (
            f"{host} port {port} does not offer STARTTLS: nothing is sent in the clear. Check smarthost.port (587), or"
            ' set security = "tls" with port 465; if another network sees it offered, something on the way strips it'
        )
    return f"{host} port {port} does not take a session: {error}; try again later, or ask whoever runs it"


def _distrust(host, port, security, why, timeout, name):
    """What to say of a certificate that this computer does not trust."""
    code = getattr(why, "verify_code", 0)
    text = f"the certificate of {host} port {port} "
    if code == 10:
        return text + "has expired: its operator must renew it; if it is good elsewhere, this computer's clock is wrong"
    if code == 9:
        return text + "is not valid yet: set this computer's clock"
    if code in (62, 64):
        return text + f"is for another name than {host}: set smarthost.host to a name of the certificate; if you know" \
            " none of them, somebody else answers"
    if not code:
        return (
            f"no TLS session with {host} port {port} ({getattr(why, 'reason', '') or why}): check smarthost.security"
            " and smarthost.port; the board speaks TLS 1.2"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    by = ""
    try:
        sock, _, line = _session(host, port, security, context, timeout, name)
        by = name_of(x509.load_der_x509_certificate(sock.getpeercert(True)).issuer)
        sock.close()
        line.close()
    except (OSError, ValueError, smtplib.SMTPException):
        pass
    return (
        text + f"is signed by {by or 'a CA'}, which this computer does not trust. If the server is your own, give the"
        f' certificate of its CA: {_SELF} = "ca.pem"; if not, somebody stands between here and the server'
    )


def family(provider, fingerprints):
    """The row of FAMILIES for a provider, or else for one of these roots; None when there is none."""
    for row in FAMILIES:
        if provider and row[0] == provider:
            return row
    for row in FAMILIES:
        if {mark for _, mark in row[2]} & set(fingerprints):
            return row
    return None


def choose(found, provider, store, families=None):
    """The roots for a board, as a list of Root: those in `found` ({fingerprint: DER}), then the provider's others.

    found may be empty: then they are the provider's alone, [] where it is not known.
    """
    now = datetime.datetime.now(datetime.UTC)
    chosen = [Root(der, "its chain ends here") for der in list(found.values())[:MOST]]
    row = families or family(provider, found)
    for _, mark in row[2] if row else ():
        if len(chosen) < MOST and mark in store and mark not in found:
            root = Root(store[mark], f"it may change to it: {row[1]}")
            if root.end > now:
                chosen.append(root)
    return chosen


def cost(roots):
    """(octets of heap that a board's configuration takes for them all the time, octets more in a TLS session).

    The first is their base64 text. The second is mbedTLS's copy of the DER and what it makes of it, 1,518 octets
    (P-256) to 1,940 (RSA, 4,096 bits), measured as the growth of a process that loads one 2,000 times, on the 64-bit
    port; a board's pointers are half as long.
    """
    sizes = [len(root.der) for root in roots]
    return sum(4 * ((n + 2) // 3) + 17 for n in sizes), sum(n + 1940 for n in sizes)


def pem(host, roots):
    """The text of a file that smarthost.ca may name."""
    lines = [f"{_MARK}{host}, found by edgepost provision on {datetime.date.today()}."]
    for root in roots:
        lines += [
            f"# {root.name}, until {root.end:%Y-%m-%d}; {root.why}",
            ssl.DER_cert_to_PEM_cert(root.der).rstrip(),
        ]
    return "\n".join(lines) + "\n"


def write(path, host, roots):
    """Writes them beside board.toml. Raises UserError when a file that somebody else made is there."""
    try:
        if path.exists() and not path.read_text("utf-8", "replace").startswith(_MARK):
            raise UserError(f'{path} is there already, and not from here: name it, {_SELF} = "{path.name}", or move it')
        path.write_text(pem(host, roots))
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror}") from None


def sizes(roots):
    """How much all of them take, for a person."""
    text, session = cost(roots)
    return f"{text / 1024:.1f} KB of the board's heap, at most {session / 1024:.1f} KB more during a TLS session"
