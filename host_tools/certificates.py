"""A certificate authority of one's own and certificates for localhost, for the development smart
host.

Keys are EC P-256, which every mbedTLS knows. Broken certificates (expired, for another name) can be
made, too: tests show with them that the gateway trusts none of them.
"""

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = datetime.timedelta(days=1)


def write_private(path, data):
    """Writes a file that only its owner can read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as f:
        f.write(data)
    draft.replace(path)


def _key_pem(key):
    return key.private_bytes(
        ser.Encoding.PEM, ser.PrivateFormat.TraditionalOpenSSL, ser.NoEncryption()
    )


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject, issuer, public_key, issuer_key, start, end, is_ca):
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        + ["encipher_only", "decipher_only"],
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(is_ca, 0 if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


class Authority:
    """A CA whose files lie in a directory: ca.pem, ca.key. Made when missing, renewed when it has
    expired.
    """

    def __init__(self, path, name="edgepost development CA"):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.pem = self.path / "ca.pem"
        now = datetime.datetime.now(datetime.UTC)
        try:
            self.cert = x509.load_pem_x509_certificate(self.pem.read_bytes())
            self.key = ser.load_pem_private_key((self.path / "ca.key").read_bytes(), None)
            good = self.cert.public_key() == self.key.public_key()
            good = good and self.cert.not_valid_after_utc > now + 30 * _DAY
        except (OSError, ValueError, TypeError):
            good = False
        if not good:
            self.key = ec.generate_private_key(ec.SECP256R1())
            self.cert = _builder(
                _name(name), _name(name), self.key.public_key(), self.key, now - _DAY,
                now + 3650 * _DAY, True,
            ).sign(self.key, hashes.SHA256())  # fmt: skip
            write_private(self.path / "ca.key", _key_pem(self.key))
            write_private(self.pem, self.cert.public_bytes(ser.Encoding.PEM))
            self.pem.chmod(0o644)

    def issue(self, names=NAMES, expired=False, label="server", days=365):
        """A certificate for these host names and IP addresses. Gives (certificate file, key file).

        A new one each time: it costs nothing, and so it is never too old.
        """
        now = datetime.datetime.now(datetime.UTC)
        start, end = (now - 30 * _DAY, now - _DAY) if expired else (now - _DAY, now + days * _DAY)
        alt = []
        for name in names:
            try:
                alt.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alt.append(x509.DNSName(name))
        key = ec.generate_private_key(ec.SECP256R1())
        cert = (
            _builder(
                _name(names[0]), self.cert.subject, key.public_key(), self.key, start, end, False
            )
            .add_extension(x509.SubjectAlternativeName(alt), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        cert_file, key_file = self.path / f"{label}.pem", self.path / f"{label}.key"
        write_private(key_file, _key_pem(key))
        write_private(cert_file, cert.public_bytes(ser.Encoding.PEM))
        return cert_file, key_file


def server_context(cert_file, key_file):
    """The ssl context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context
