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
from imgbuilder.wsman.client import SERVER_NAME
from imgbuilder.wsman.target import parse_target

DEADLINE: Final = 10.0
"""Seconds for all of it."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How HTTP/2 begins. Servers have to answer; with TLS 1.3 that is when they say what they think of a certificate."""

EXPIRED: Final = 10
OTHER_NAME: Final = {62, 64}
"""OpenSSL's numbers for what is wrong with a certificate."""


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
        await secure.send(PREFACE)
        await secure.receive(1)
    except ssl.SSLCertVerificationError as error:
        raise UntrustedServerError(address, _untrusted(error)) from error
    except (ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        reason = getattr(error, "reason", None) or ""
        if trusted or "ALERT" in reason:  # not all say it: some only close the connection
            raise UntrustedClientError(address, "it does not accept our certificate") from error
        if reason:
            raise NoTlsError(address, "it does not speak TLS") from error
        raise NobodyThereError(address, "it closes connections at once") from error


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == EXPIRED:
        return "its certificate has expired"
    if error.verify_code in OTHER_NAME:
        return f"its certificate is not for {SERVER_NAME}, the name of workspace managers"
    return "its certificate is not from our authority"
