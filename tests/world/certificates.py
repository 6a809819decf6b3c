"""Certificates for the TLS tests: an authority, servers and clients it vouches for, as files and as contexts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

WORKSPACE_MANAGER: Final = "ws-manager"
"""The name that image builders expect of a workspace manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its key, in PEM files."""

    crt: Path
    key: Path


class Authority:
    """Issues certificates, and writes them to *folder*.

    :ivar ca: its own certificate, for those who trust it.
    """

    def __init__(self, folder: Path, *, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._authority = trustme.CA()
        self.ca = folder / f"{name}.crt"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *identities: str) -> KeyPair:
        """A certificate for host names or IP addresses; replaces the files of an earlier one."""
        issued = self._authority.issue_cert(*identities)
        stem = f"{self._name}-{identities[0]}"
        pair = KeyPair(crt=self._folder / f"{stem}.crt", key=self._folder / f"{stem}.key")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(pair.crt), append=number > 0)
        issued.private_key_pem.write_to_path(str(pair.key))
        return pair

    def server_context(self, pair: KeyPair, *, require_client: bool = False) -> ssl.SSLContext:
        """TLS for a gRPC server that shows *pair*.

        :param require_client: whether clients must show a certificate of this authority.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.crt, pair.key)
        context.set_alpn_protocols(["h2"])
        if require_client:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
