"""What OpenSSL's errors say of a server."""

from __future__ import annotations

import ssl

import pytest

from imgbuilder.runtime.tlsfaults import TlsFault, tls_fault


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("WRONG_VERSION_NUMBER", TlsFault.PLAIN),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", TlsFault.WANTS_CERTIFICATE),
        ("SSLV3_ALERT_BAD_CERTIFICATE", TlsFault.REFUSED_CERTIFICATE),
        ("TLSV1_ALERT_UNKNOWN_CA", TlsFault.REFUSED_CERTIFICATE),
        ("TLSV1_ALERT_PROTOCOL_VERSION", TlsFault.REFUSED),
        ("NO_SHARED_CIPHER", TlsFault.OTHER),
    ],
)
def test_reasons(reason: str, fault: TlsFault) -> None:
    """Alerts are what the other side says; of certificates, they are about ours."""
    error = ssl.SSLError(1, "text")
    error.reason = reason
    assert tls_fault(error) is fault


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (10, TlsFault.EXPIRED),
        (62, TlsFault.OTHER_NAME),
        (64, TlsFault.OTHER_NAME),
        (20, TlsFault.UNTRUSTED),
    ],
)
def test_certificates(code: int, fault: TlsFault) -> None:
    """OpenSSL's codes tell what is wrong with that of the other side."""
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_code = code
    assert tls_fault(error) is fault


def test_the_end_in_the_middle() -> None:
    """Is a kind of its own."""
    assert tls_fault(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")) is TlsFault.HUNG_UP
