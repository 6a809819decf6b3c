"""Looks at the files that a configuration names: whether they are there, and are what they should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import SSLContext

from imgbuilder.config.model import Config, ServerTls, WorkspaceManagerTls
from imgbuilder.config.problems import Fault
from imgbuilder.runtime.tls import TlsFileError, TlsFiles, client_context, server_context


def file_faults(config: Config) -> list[Fault]:
    """What is wrong with the files that *config* names. Relative paths count from the working directory."""
    faults = []
    orchestrator = config.orchestrator
    if orchestrator.pull_secret_file:
        faults += _pull_secret_faults(orchestrator.pull_secret_file)
    wsman = orchestrator.wsman.tls
    if wsman.enabled:
        names = {"ca": "ca", "certificate": "crt", "key": "key"}
        faults += _tls_faults("orchestrator.wsman.tls", names, lambda: client_context(client_files(wsman)))
    server = config.server.services.grpc.tls
    if server.enabled:
        names = {"ca": "caPath", "certificate": "certPath", "key": "keyPath"}
        faults += _tls_faults("server.services.grpc.tls", names, lambda: server_context(server_files(server)))
    return faults


def client_files(tls: WorkspaceManagerTls) -> TlsFiles:
    """The files of a client of the workspace manager."""
    return TlsFiles(ca=tls.ca, certificate=tls.crt, key=tls.key)


def server_files(tls: ServerTls) -> TlsFiles:
    """The files of our own server."""
    return TlsFiles(ca=tls.ca_path, certificate=tls.cert_path, key=tls.key_path)


def _tls_faults(section: str, names: Mapping[str, str], make: Callable[[], SSLContext]) -> list[Fault]:
    try:
        make()
    except TlsFileError as error:
        return [Fault(f"{section}.{names[error.role]}", str(error))]
    return []


def _pull_secret_faults(path: str) -> list[Fault]:
    field = "orchestrator.pullSecretFile"
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        return [Fault(field, f"{path}: cannot be read: {error.strerror}")]
    except ValueError:
        # Without the parser's words, which may repeat what stands there.
        return [Fault(field, f"{path}: is not JSON")]
    if not isinstance(data, dict):
        return [Fault(field, f"{path}: must be a JSON object, as Docker's config.json is")]
    return []
