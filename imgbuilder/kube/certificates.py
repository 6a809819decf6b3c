"""From when until when a certificate is valid: the one thing that Python's ssl does not tell of a file.

Reads just enough of DER to get there. Decides, and does no I/O.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)

SEQUENCE: Final = 0x30
VERSION: Final = 0xA0
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
BEFORE_VALIDITY: Final = 3
"""Serial number, signature algorithm and issuer stand between the version and the validity (RFC 5280, 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """From when until when, in Unix time."""

    begins: float
    ends: float


def validity(pem: bytes) -> Validity:
    """The validity of the first certificate in *pem*.

    :raises ValueError: if there is none that can be read.
    """
    block = PEM.search(pem)
    if block is None:
        raise ValueError("there is no certificate")
    try:
        der = base64.b64decode(block[1], validate=False)
        certificate, _ = _content(der, SEQUENCE)
        rest, _ = _content(certificate, SEQUENCE)
        if rest[:1] == bytes((VERSION,)):
            _, rest = _content(rest, VERSION)
        for _ in range(BEFORE_VALIDITY):
            _, rest = _content(rest, rest[0])
        times, _ = _content(rest, SEQUENCE)
        begins, times = _time(times)
        ends, _ = _time(times)
    except (IndexError, binascii.Error) as error:
        raise ValueError("the certificate is cut off") from error
    return Validity(begins=begins, ends=ends)


def _content(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """What is in the first value of *der*, which must have this *tag*, and what comes after it."""
    if der[0] != tag:
        raise ValueError("the certificate is not built as one")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if len(der) < start + length:
        raise ValueError("the certificate is cut off")
    return der[start : start + length], der[start + length :]


def _time(der: bytes) -> tuple[float, bytes]:
    tag = der[0]
    if tag not in {UTC_TIME, GENERALIZED_TIME}:
        raise ValueError("the certificate is not built as one")
    text, rest = _content(der, tag)
    digits = text.decode("ascii")
    if tag == UTC_TIME:
        # RFC 5280, 4.1.2.5.1: of two digits, those from 50 on are of the twentieth century
        digits = ("19" if digits >= "50" else "20") + digits
    moment = dt.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
    return moment.timestamp(), rest
