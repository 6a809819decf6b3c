"""Certificates for the TLS tests: authorities, and the files of servers and clients that they vouch for."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

import trustme

from imgbuilder.runtime.tls import TlsFiles

WORKSPACE_MANAGER: Final = "ws-manager"
"""The name that image builders expect of a workspace manager."""


class Authority:
    """Issues certificates, and writes them to *folder*.

    :ivar ca: the file with its own certificate, for those who trust it.
    """

    def __init__(self, folder: Path, *, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._authority = trustme.CA()
        self.ca = folder / f"{name}.crt"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, identity: str, *, ends: dt.datetime | None = None) -> trustme.LeafCert:
        """A certificate and its key, in no file.

        :param ends: the end of its validity, where it matters; it begins ten years before.
        """
        begins = ends and ends - dt.timedelta(days=3650)
        return self._authority.issue_cert(identity, not_before=begins, not_after=ends)

    def files(self, *identities: str, issuer: Authority | None = None) -> TlsFiles:
        """What one side of a connection needs that trusts this authority.

        Asked again for the same first identity, it writes the same files anew.

        :param identities: host names or IP addresses of the certificate.
        :param issuer: the authority that issues it, where that is another.
        """
        issued = (issuer or self)._authority.issue_cert(*identities)
        certificate = self._folder / f"{self._name}-{identities[0]}.crt"
        key = certificate.with_suffix(".key")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(certificate), append=number > 0)
        issued.private_key_pem.write_to_path(str(key))
        return TlsFiles(ca=str(self.ca), certificate=str(certificate), key=str(key))
