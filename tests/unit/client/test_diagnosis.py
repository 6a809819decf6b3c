"""Why there is no connection, in words that say what to do."""

from __future__ import annotations

import errno
import socket
import ssl

import anyio
import anyio.to_thread
import pytest

from imgbuilder.client.diagnosis import (
    BROKE,
    HUNG_UP,
    NO_TLS,
    REFUSED_CERTIFICATE,
    WANTS_CERTIFICATE,
    of_connecting,
    of_silence,
)
from imgbuilder.client.endpoints import Endpoint, client_tls, parse_host
from tests.contract.cli.others import Lists, grpc

PLAIN = Endpoint(address=parse_host("builder.test:1"))


def tls_error(reason: str) -> ssl.SSLError:
    """An error of OpenSSL's."""
    error = ssl.SSLError(1, f"[SSL: {reason}] text")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "nothing listens there"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
            "nothing listens there",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "there is no such host: see --host",
        ),
        (UnicodeError("label too long"), "there is no such host: see --host"),
        (TimeoutError(), "no answer: is the host right, and is a firewall in between?"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (tls_error("WRONG_VERSION_NUMBER"), NO_TLS),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), WANTS_CERTIFICATE),
        (tls_error("SSLV3_ALERT_BAD_CERTIFICATE"), REFUSED_CERTIFICATE),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), REFUSED_CERTIFICATE),
        (tls_error("NO_SHARED_CIPHER"), "TLS failed: no shared cipher"),
    ],
)
def test_errors_of_connecting(error: OSError, words: str) -> None:
    """Each has its own words."""
    assert of_connecting(error, PLAIN).startswith(words)


async def test_a_server_that_serves_by_now() -> None:
    """Nothing is wrong with it: the connection just broke."""
    async with grpc(Lists()) as address:
        endpoint = Endpoint(address=parse_host(address))
        assert await anyio.to_thread.run_sync(of_silence, endpoint) == BROKE


def test_somebody_who_has_left_meanwhile() -> None:
    """There is nobody to ask once more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = parse_host(f"127.0.0.1:{free.getsockname()[1]}")
    tls = client_tls(ca="", certificate="", key="")
    assert of_silence(Endpoint(address=address)) == HUNG_UP
    assert of_silence(Endpoint(address=address, tls=tls)) == HUNG_UP
