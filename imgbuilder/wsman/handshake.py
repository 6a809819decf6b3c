"""Whether a workspace manager can be spoken to: connects once, and says what is wrong if that fails.

For those who set up a connection and look on. A service does without: it goes on trying.
"""

from __future__ import annotations

import ssl
from typing import Final

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.runtime.tlsfaults import HELLO, REFUSALS, TlsFault, tls_fault
from imgbuilder.wsman.client import SERVER_NAME
from imgbuilder.wsman.target import parse_target

DEADLINE: Final = 10.0
"""Seconds for all of it."""

UNTRUSTED: Final = {
    TlsFault.EXPIRED: "its certificate has expired",
    TlsFault.OTHER_NAME: f"its certificate is not for {SERVER_NAME}, the name of workspace managers",
    TlsFault.UNTRUSTED: "its certificate is not from our authority",
}


class HandshakeError(ImgbuilderError):
    """The workspace manager can't be spoken to.

    :ivar address: where.
    """

    def __init__(self, address: str, fault: str) -> None:
        super().__init__(f"{address}: {fault}")
        self.address = address
        self.fault = fault


class NobodyThereError(HandshakeError):
    """Nothing listens there, or it does not answer."""


class UntrustedServerError(HandshakeError):
    """The other side shows a certificate that our authorities did not sign, or that is not a workspace manager's."""


class UntrustedClientError(HandshakeError):
    """The other side does not accept the certificate that we show."""


class NoTlsError(HandshakeError):
    """The other side does not speak TLS."""


async def check_handshake(address: str, tls: ssl.SSLContext | None) -> None:
    """Connect to the workspace manager at *address* as a client does, and go.

    :param tls: None for plaintext, for which is checked only that somebody listens.
    :raises HandshakeError: if that fails.
    :raises InvalidInputError: if *address* can't be used.
    """
    target = parse_target(address)
    try:
        with anyio.fail_after(DEADLINE):
            try:
                stream = await anyio.connect_tcp(target.host, target.port)
            except OSError as error:
                raise NobodyThereError(address, "nothing listens there") from error
            async with stream:
                if tls is not None:
                    await _shake_hands(address, stream, tls)
    except TimeoutError as error:
        raise NobodyThereError(address, "it does not answer") from error


async def _shake_hands(address: str, stream: ByteStream, tls: ssl.SSLContext) -> None:
    trusted = False
    try:
        secure = await TLSStream.wrap(
            stream, hostname=SERVER_NAME, ssl_context=tls, standard_compatible=False
        )
        trusted = True  # by us; what it thinks of us shows when it is spoken to
        await secure.send(HELLO)
        await secure.receive(1)
    except (ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        fault = tls_fault(error) if isinstance(error, ssl.SSLError) else TlsFault.HUNG_UP
        raise _error_of(address, fault, trusted=trusted) from error


def _error_of(address: str, fault: TlsFault, *, trusted: bool) -> HandshakeError:
    """What to say of *fault*.

    :param trusted: whether it came after we had accepted the certificate of the other side.
    """
    if fault in UNTRUSTED:
        return UntrustedServerError(address, UNTRUSTED[fault])
    if trusted or fault in REFUSALS:  # not all say it: some only close the connection
        return UntrustedClientError(address, "it does not accept our certificate")
    if fault is TlsFault.HUNG_UP:
        return NobodyThereError(address, "it closes connections at once")
    return NoTlsError(address, "it does not speak TLS")
