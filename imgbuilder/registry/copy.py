"""An image from one place in the world's registries to another, as it is."""

from __future__ import annotations

from imgbuilder.core.manifests import Platform
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference
from imgbuilder.registry.blobs import Progress, RepositorySource
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.stores import fetch_manifest, store_image


async def copy_image(
    session: RegistrySession,
    source: Reference,
    target: Reference,
    *,
    platform: Platform,
    source_credentials: Credentials | None,
    target_credentials: Credentials | None,
    progress: Progress,
) -> Reference:
    """Have the image of *source* under *target*; its digest form.

    Manifest and blobs stay byte for byte what they are; of an index, only the image for *platform* is copied.
    Within a registry its blobs are mounted: nothing is moved. Between registries they are streamed, never kept.

    :raises ManifestUnknownError: if there is no *source*.
    :raises RegistryError: if it can't be copied; `RegistryError.registry` says which side is to blame.
    :raises NoManifestForPlatformError: if *source* is an index without an image for *platform*.
    """
    origin = session.repository(source, source_credentials)
    manifest = await fetch_manifest(session, origin, source, platform)
    return await store_image(
        session,
        session.repository(target, target_credentials),
        target,
        manifest,
        RepositorySource(session, origin),
        progress,
    )
