"""What went wrong with TLS, as a client sees it: OpenSSL's errors as kinds that words can be found for."""

from __future__ import annotations

import enum
import ssl
from typing import Final

HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The beginning of HTTP/2: its preface, and settings that change nothing. Servers have to answer; with TLS 1.3 that is
when they say what they think of a client's certificate."""

_EXPIRED: Final = 10
_NAME_MISMATCHES: Final = {62, 64}
"""OpenSSL's codes for a certificate that is another host's, or another IP address'."""

_PLAIN_ANSWERS: Final = {
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
}


class TlsFault(enum.Enum):
    """What a server, or its certificate, did."""

    EXPIRED = enum.auto()
    """Its certificate is not valid any more."""
    OTHER_NAME = enum.auto()
    """Its certificate is not for the name that was expected."""
    UNTRUSTED = enum.auto()
    """Its certificate is not from an authority that we trust, or wrong in another way."""
    PLAIN = enum.auto()
    """It answered without TLS."""
    WANTS_CERTIFICATE = enum.auto()
    """It refused us for showing no certificate."""
    REFUSED_CERTIFICATE = enum.auto()
    """It refused the certificate that we showed."""
    REFUSED = enum.auto()
    """It refused us for another reason."""
    HUNG_UP = enum.auto()
    """It closed the connection in the middle."""
    OTHER = enum.auto()


REFUSALS: Final = frozenset({TlsFault.WANTS_CERTIFICATE, TlsFault.REFUSED_CERTIFICATE, TlsFault.REFUSED})
"""What a server says in an alert, so that it speaks TLS."""


def tls_fault(error: ssl.SSLError) -> TlsFault:
    """What *error* of a client's connection says of the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error.verify_code)
    reason = getattr(error, "reason", None) or ""  # which only OpenSSL sets
    if reason in _PLAIN_ANSWERS:
        return TlsFault.PLAIN
    if "CERTIFICATE_REQUIRED" in reason:
        return TlsFault.WANTS_CERTIFICATE
    if "ALERT" in reason:
        of_certificate = "CERTIFICATE" in reason or "CA" in reason.split("_")
        return TlsFault.REFUSED_CERTIFICATE if of_certificate else TlsFault.REFUSED
    return TlsFault.HUNG_UP if isinstance(error, ssl.SSLEOFError) else TlsFault.OTHER


def _of_certificate(code: int) -> TlsFault:
    if code == _EXPIRED:
        return TlsFault.EXPIRED
    return TlsFault.OTHER_NAME if code in _NAME_MISMATCHES else TlsFault.UNTRUSTED
