"""What a client of the workspace manager needs for TLS: out of a secret of the cluster, into files.

The files are for their owner's eyes only, and are replaced only by what fits together. Nothing of their contents is
ever shown.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imgbuilder.kube.certificates import Validity, validity
from imgbuilder.kube.cluster import Cluster
from imgbuilder.kube.errors import SecretContentError, TlsFilesError
from imgbuilder.runtime.tls import TlsFileError, TlsFiles, client_context

CA: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

KEYS: Final = {"ca": CA, "certificate": CERTIFICATE, "key": KEY}
"""By the role of a file, the key of the secret, which is the name of the file as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """The contents of a secret, in PEM.

    :ivar secret: its name.
    """

    secret: str
    ca: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def validity(self) -> Validity:
        """Of the client's certificate.

        :raises SecretContentError: if it is none.
        """
        try:
            return validity(self.certificate)
        except ValueError as error:
            raise SecretContentError(self.secret, CERTIFICATE, "is not a certificate in PEM") from error


def files_in(folder: Path) -> TlsFiles:
    """The files, as they are named in *folder*."""
    return TlsFiles(ca=str(folder / CA), certificate=str(folder / CERTIFICATE), key=str(folder / KEY))


async def client_tls(cluster: Cluster, secret: str, *, namespace: str) -> ClientTls:
    """What *secret* holds.

    :raises SecretContentError: if it lacks something.
    :raises KubeError: if it can't be had, see `Cluster.secret`.
    """
    contents = await cluster.secret(secret, namespace=namespace)
    for key in KEYS.values():
        if not contents.get(key):
            raise SecretContentError(secret, key, "is missing")
    return ClientTls(secret=secret, ca=contents[CA], certificate=contents[CERTIFICATE], key=contents[KEY])


def write(tls: ClientTls, files: TlsFiles) -> None:
    """Put *tls* into *files*, and make their folders if there are none.

    Each file is replaced in one go, and readable for its owner only, as is a folder that is made.

    :raises SecretContentError: if the contents are no certificates or no key, or the key is another certificate's.
    :raises TlsFilesError: if the files can't be written.
    """
    targets = {role: Path(getattr(files, role)) for role in KEYS}  # which both have an attribute for
    made: dict[str, str] = {}
    folder = Path()
    try:
        with ExitStack() as temporary:
            for role, target in targets.items():
                folder = target.parent
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # beside what it replaces, since only within a file system that is done in one go
                new = temporary.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".new-"))
                made[role] = str(Path(new, KEYS[role]))
                _write(made[role], getattr(tls, role))
            _check(tls.secret, TlsFiles(**made))
            for role, target in targets.items():
                folder = target.parent
                Path(made[role]).replace(target)
    except OSError as error:
        raise TlsFilesError(str(folder), error.strerror or str(error)) from error


def _check(secret: str, files: TlsFiles) -> None:
    try:
        client_context(files)
    except TlsFileError as error:
        fault = error.fault.replace(files.certificate, CERTIFICATE)
        raise SecretContentError(secret, KEYS[error.role], fault) from error


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
