"""Where an image builder is, and how to speak to it: what a user writes, as what a connection needs."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Final

from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.runtime.grpc.addresses import Address, InvalidAddressError, parse_address
from imgbuilder.runtime.tls import TlsFileError, TlsFiles, client_context

DEFAULT_PORT: Final = 8080
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:/{1,3}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An image builder.

    :ivar tls: None for plaintext.
    :ivar shows_certificate: whether there is a certificate of ours in it.
    :ivar server_name: whose certificate it must show, instead of its host's; empty for the host's.
    """

    address: Address
    tls: ssl.SSLContext | None = None
    shows_certificate: bool = False
    server_name: str = ""

    def __str__(self) -> str:
        return str(self.address)


def parse_host(text: str) -> Address:
    """The address that *text* means: ``host:port``, or a host, whose port is 8080 then.

    :raises InvalidOptionError: for anything else. Its text has no credentials of an address.
    """
    if _SCHEME.match(text):
        raise InvalidOptionError("--host", "write host:port, without a scheme before it")
    written = text if re.search(r":[0-9]+$", text) and not _is_plain_ipv6(text) else _with_port(text)
    try:
        address = parse_address(written)
    except InvalidAddressError as error:
        raise InvalidOptionError("--host", f"{text!r} is no address: write host:port") from error
    if not text or address.port == 0:
        raise InvalidOptionError("--host", f"{text!r} is no address: write host:port")
    return Address(address.host or "localhost", address.port)


def client_tls(*, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """What to connect with.

    :param ca: the file of the authorities to trust; empty for the system's.
    :param certificate: the file with what the client shows, with *key*; both empty for nothing.
    :raises InvalidOptionError: naming the option whose file can't be used.
    """
    if bool(certificate) != bool(key):
        raise InvalidOptionError("--tls-cert, --tls-key", "give both of them, or none")
    try:
        return client_context(TlsFiles(certificate=certificate, key=key, ca=ca))
    except TlsFileError as error:
        option = {"ca": "--tls-ca", "certificate": "--tls-cert", "key": "--tls-key"}[error.role]
        raise InvalidOptionError(option, str(error)) from error


def _is_plain_ipv6(text: str) -> bool:
    return text.count(":") > 1 and not text.startswith("[")


def _with_port(text: str) -> str:
    return f"[{text}]:{DEFAULT_PORT}" if _is_plain_ipv6(text) else f"{text}:{DEFAULT_PORT}"
