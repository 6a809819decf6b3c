"""TLS contexts made of PEM files, and kept as the files are.

Both sides speak TLS 1.2 or 1.3 and offer HTTP/2 by ALPN. Certificates are replaced on disk while the service
runs (Kubernetes does that with mounted secrets): `keep_fresh` loads them into the contexts that are in use,
so that new connections get the new ones. Which server name a client asks for is its caller's business.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from imgbuilder.core.errors import ImgbuilderError

log = structlog.get_logger(__name__)

ALPN: Final = ["h2"]
CHECK_INTERVAL: Final = 10.0
"""Seconds between two looks at the files."""


_Stamp = tuple[tuple[int, int, int], ...]


class TlsFileError(ImgbuilderError):
    """A file can't be used for TLS.

    :ivar role: which of the files of `TlsFiles` it is: ``certificate``, ``key`` or ``ca``.
    :ivar path: the file, as it was named.
    :ivar fault: what is wrong with it, as words that can follow its name.
    """

    def __init__(self, role: str, path: str, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.role = role
        self.path = path
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files of one side, in PEM.

    :ivar certificate: what this side shows: its certificate, then those between it and its authority; empty, with
        *key*, for a client that shows none.
    :ivar key: of the certificate, not encrypted.
    :ivar ca: the authorities that this side trusts; empty for none on a server, the system's on a client.
    """

    certificate: str
    key: str
    ca: str = ""


def server_context(files: TlsFiles, *, require_client_certificate: bool = False) -> ssl.SSLContext:
    """What a server listens with.

    Where there is a CA, a certificate that a client shows must come from it; a client that shows none is let in
    unless *require_client_certificate*.

    :raises TlsFileError: if a file can't be used.
    """
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
    if files.ca:
        context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """What a client connects with, showing its certificate, if it has one, and checking the server's and its name.

    :raises TlsFileError: if a file can't be used.
    """
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)
    if not files.ca:
        context.load_default_certs()
    return context


async def keep_fresh(
    used: Sequence[tuple[ssl.SSLContext, TlsFiles]], *, interval: float = CHECK_INTERVAL
) -> None:
    """Load the files into their contexts again whenever they have changed on disk. Runs until cancelled.

    Files that can't be used, as halfway through a change, leave the context as it is; they are tried again.
    An authority that is no longer in the CA file stays trusted until the process ends.
    """
    # None at first: what was written since the contexts were made is not known, so all are loaded once.
    stamps: list[_Stamp | None] = [None] * len(used)
    told: list[_Stamp | None] = [None] * len(used)  # of files that can't be used
    while True:
        await anyio.sleep(interval)
        for i, (context, files) in enumerate(used):
            stamp = await anyio.to_thread.run_sync(_stamp, files)
            if stamp == stamps[i]:
                continue
            try:
                # First into a context nobody uses, to see whether they fit: loading is not all or nothing.
                # Both in the event loop: handshakes that run there read the context.
                _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
                _loaded(context, files)
            except TlsFileError as error:
                if stamp != told[i]:
                    log.warning("TLS files not loaded", path=error.path, reason=error.fault)
                told[i] = stamp
            else:
                if stamps[i] is not None:
                    log.info("TLS files loaded again", certificate=files.certificate)
                stamps[i] = stamp


def _loaded(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    if files.ca:
        _load_certificates(context, "ca", files.ca)
    if files.certificate or files.key or context.protocol is not ssl.PROTOCOL_TLS_CLIENT:
        _load_own(context, files)
    return context


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    # A certificate is read alone first, so that the error can tell which of the two is at fault.
    _load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "certificate", files.certificate)
    _check_readable("key", files.key)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"is not the key of {files.certificate}"
        else:
            fault = "is not a private key in PEM, or is encrypted"
        raise TlsFileError("key", files.key, fault) from error


def _load_certificates(context: ssl.SSLContext, role: str, path: str) -> None:
    _check_readable(role, path)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise TlsFileError(role, path, "is not a certificate in PEM") from error


def _check_readable(role: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise TlsFileError(role, path, f"cannot be read: {error.strerror}") from error


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    return ""


def _stamp(files: TlsFiles) -> _Stamp:
    """Something that differs when a file was written, or another was put in its place."""
    stamps = []
    for path in (files.ca, files.certificate, files.key):
        try:
            status = Path(path).stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)
