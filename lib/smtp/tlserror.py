"""What a failed TLS handshake says, on both interpreters. Loaded when one has failed."""

import errno


def tls_reason(error):
    """What a failed handshake says: "name", "expired", "future", "ca", "memory", "gone", or "" for anything else."""
    number = error.args[0] if error.args else 0
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "memory"
    if isinstance(error, EOFError) or number in (errno.ECONNRESET, 32):
        return "gone"
    text = str(error).lower()
    for word, reason in (
        ("expired", "expired"),
        ("future", "future"),
        ("not yet valid", "future"),
        ("does not match", "name"),
        ("mismatch", "name"),
        ("not valid for", "name"),
        ("not correctly signed", "ca"),
        ("issuer", "ca"),
        ("self-signed", "ca"),
        ("self signed", "ca"),
    ):
        if word in text:
            return reason
    return ""
