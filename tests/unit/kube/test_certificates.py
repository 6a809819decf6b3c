"""How long a certificate is valid, compared with what another library reads."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from contextlib import suppress

import pytest
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.kube.certificates import Validity, validity

AUTHORITY = trustme.CA()
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime(2027, 1, 2, tzinfo=dt.UTC)),
        (dt.datetime(1999, 12, 31, 23, 59, 59, tzinfo=dt.UTC), dt.datetime(2049, 12, 31, tzinfo=dt.UTC)),
        (dt.datetime(2050, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    ],
)
def test_both_ways_to_write_a_time(begins: dt.datetime, ends: dt.datetime) -> None:
    """Two digits for the year until 2049, four from then on."""
    issued = AUTHORITY.issue_cert("client", not_before=begins, not_after=ends)
    assert validity(issued.cert_chain_pems[0].bytes()) == Validity(
        begins=begins.timestamp(), ends=ends.timestamp()
    )


def test_the_first_certificate_counts() -> None:
    """Others between it and the authority may follow, and words may come before."""
    issued = AUTHORITY.create_child_ca().issue_cert("client")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    first = x509.load_pem_x509_certificate(chain)
    assert chain.count(b"BEGIN") > 1
    assert validity(b"Bag Attributes\n" + chain).ends == first.not_valid_after_utc.timestamp()


@given(st.data())
def test_what_is_no_certificate(data: st.DataObject) -> None:
    """Gives the one error, wherever a certificate is cut off or changed."""
    der = ssl.PEM_cert_to_DER_cert(AUTHORITY.cert_pem.bytes().decode())
    at = data.draw(st.integers(0, 200))
    damaged = der[:at] + data.draw(st.binary(max_size=3)) + der[at + data.draw(st.integers(0, 300)) :]
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(damaged) + b"\n-----END CERTIFICATE-----\n"
    with suppress(ValueError):
        validity(pem)
    with pytest.raises(ValueError, match="there is no certificate"):
        validity(damaged)
