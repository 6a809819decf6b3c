"""Why there is no connection, in words that say what to do: wrong port, TLS on one side only, certificates.

A server that is spoken to in the wrong way just hangs up, and the connection can't tell why. So it is asked once
more, by hand.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from imgbuilder.client.endpoints import Endpoint
from imgbuilder.runtime.tlsfaults import HELLO, REFUSALS, TlsFault, tls_fault

LIMIT: Final = 3.0
"""Seconds that each look may take."""

_SETTINGS: Final = b"\x04"
"""The kind of frame that a server of HTTP/2 begins with."""

EXPECTS_TLS: Final = "it expects TLS: give --tls-ca with the certificate of its authority (or --tls)"
NO_TLS: Final = "it does not speak TLS: leave out the --tls options"
HTTP_1: Final = "it answers HTTP/1, not gRPC: is the port right?"
WANTS_CERTIFICATE: Final = "it wants a certificate from its clients: give --tls-cert and --tls-key"
MAY_WANT_CERTIFICATE: Final = (
    "it hung up after the TLS handshake: it may want a certificate, give --tls-cert and --tls-key"
)
REFUSED_CERTIFICATE: Final = "it does not accept the certificate of --tls-cert"
MAY_REFUSE_CERTIFICATE: Final = (
    "it hung up after the TLS handshake: it may not accept the certificate of --tls-cert"
)
HUNG_UP: Final = "it hung up at once: is that a gRPC server?"
BROKE: Final = "the connection broke before there was an answer: try again"


def of_connecting(error: BaseException, endpoint: Endpoint) -> str:
    """Why a connection could not be made that ended with *error*."""
    if isinstance(error, ssl.SSLError):
        return _of_tls(error, endpoint)
    if isinstance(error, socket.gaierror | UnicodeError):
        return "there is no such host: see --host, or the variable IMGBUILDER_HOST"
    if isinstance(error, TimeoutError):
        return "no answer: is the host right, and is a firewall in between?"
    if isinstance(error, ConnectionRefusedError) or _refused(error):
        return "nothing listens there: start one, or say where one is with --host"
    if isinstance(error, ConnectionResetError) and endpoint.tls is not None:
        return NO_TLS
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def of_silence(endpoint: Endpoint) -> str:
    """Why a server hung up before it answered anything. Blocks for some seconds at most."""
    try:
        if endpoint.tls is not None:
            return _greet_with_tls(endpoint, endpoint.tls)
        return _greet(endpoint)
    except ssl.SSLError as error:
        return _of_tls(error, endpoint)
    except OSError:
        return HUNG_UP


def _greet(endpoint: Endpoint) -> str:
    with _connected(endpoint) as plain:
        try:
            plain.sendall(HELLO)
            answer = plain.recv(64)
        except OSError:
            answer = b""
    if answer.startswith(b"HTTP/1"):
        return HTTP_1
    if answer[3:4] == _SETTINGS:
        return BROKE
    if answer.startswith(b"\x15\x03") or _speaks_tls(endpoint):
        return EXPECTS_TLS
    return HUNG_UP


def _greet_with_tls(endpoint: Endpoint, context: ssl.SSLContext) -> str:
    name = endpoint.server_name or endpoint.address.host
    with _connected(endpoint) as plain, context.wrap_socket(plain, server_hostname=name) as secured:
        if secured.selected_alpn_protocol() != "h2":
            return "it speaks TLS, but not HTTP/2: is the port right?"
        # In TLS 1.3 a server looks at our certificate after the handshake. Some say what they think, some just go.
        try:
            secured.sendall(HELLO)
            if secured.recv(64):
                return BROKE  # it has taken us in
        except TimeoutError:
            return HUNG_UP
        except ssl.SSLError:
            raise
        except OSError:
            pass
    return MAY_REFUSE_CERTIFICATE if endpoint.shows_certificate else MAY_WANT_CERTIFICATE


def _speaks_tls(endpoint: Endpoint) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: only whether it answers counts
    try:
        with _connected(endpoint) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return tls_fault(error) in REFUSALS
    except OSError:
        return False


def _connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.address.host, endpoint.address.port), timeout=LIMIT)


def _of_tls(error: ssl.SSLError, endpoint: Endpoint) -> str:
    match tls_fault(error):
        case TlsFault.OTHER_NAME:
            name = endpoint.server_name or endpoint.address.host
            return f"its certificate is not for {name}: say whose it is with --tls-server-name"
        case TlsFault.UNTRUSTED | TlsFault.EXPIRED:
            why = getattr(error, "verify_message", "")
            return f"its certificate is not trusted ({why}): name its authority with --tls-ca"
        case TlsFault.PLAIN | TlsFault.HUNG_UP:
            return NO_TLS
        case TlsFault.WANTS_CERTIFICATE:
            return WANTS_CERTIFICATE
        case TlsFault.REFUSED_CERTIFICATE:
            return REFUSED_CERTIFICATE
        case TlsFault.REFUSED | TlsFault.OTHER:
            return f"TLS failed: {(error.reason or '').lower().replace('_', ' ') or error}"


def _refused(error: BaseException) -> bool:
    """Whether asyncio tried several addresses, all of which refused: it puts them into one text."""
    return isinstance(error, OSError) and (
        error.errno == errno.ECONNREFUSED
        or (error.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(error))
    )
