"""An image from the disk into a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import anyio

from imgbuilder.core.contents import read_manifest
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference
from imgbuilder.registry.blobs import FileSource, Progress
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.stores import store_image


class Layout(Protocol):
    """An image in a folder, whose parts are found by their digests.

    The contents are taken to be complete, and not to change.
    """

    @property
    def digest(self) -> str:
        """Of the image's manifest, never of an index."""
        ...

    @property
    def media_type(self) -> str:
        """Of the image's manifest."""
        ...

    def blob(self, digest: str) -> Path:
        """Where the manifest, the configuration or a layer with this *digest* is."""
        ...


async def push_layout(
    session: RegistrySession,
    layout: Layout,
    target: Reference,
    *,
    credentials: Credentials | None,
    progress: Progress,
) -> Reference:
    """Have the image of *layout* under *target*; its digest form. Blobs that are there are not sent.

    :param credentials: what to show to the registry of *target*.
    :raises RegistryError: if it can't be pushed.
    :raises InvalidManifestError: if the layout's manifest can't be used.
    :raises OSError: if the layout can't be read.
    """
    body = await anyio.Path(layout.blob(layout.digest)).read_bytes()
    manifest = read_manifest(body, layout.media_type, digest=layout.digest)
    repository = session.repository(target, credentials)
    return await store_image(session, repository, target, manifest, FileSource(layout.blob), progress)
