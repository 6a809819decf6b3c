"""Manifests of whole images: read one for a platform, store one with the blobs that it names.

Blobs come first and the manifest last, so that an image is there as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio

from imgbuilder.core.contents import Blob, Manifest, read_manifest
from imgbuilder.core.manifests import (
    DigestMismatchError,
    InvalidManifestError,
    Platform,
    resolved_digest,
)
from imgbuilder.core.references import Reference
from imgbuilder.registry.answers import check, refusal
from imgbuilder.registry.blobs import BlobDone, BlobWriter, Progress, Source
from imgbuilder.registry.errors import ManifestUnknownError, RegistryFaultError
from imgbuilder.registry.http import Answer
from imgbuilder.registry.lookups import ACCEPT, LARGEST_MANIFEST, manifest_path, verified_digest
from imgbuilder.registry.session import RegistrySession, Repository

AT_ONCE: Final = 3
"""How many blobs of an image are on their way at a time."""


async def fetch_manifest(
    session: RegistrySession,
    repository: Repository,
    reference: Reference,
    platform: Platform,
) -> Manifest:
    """The manifest of the image for *platform* that *reference* names, itself or through an index.

    :raises ManifestUnknownError: if there is no such image.
    :raises RegistryError: if it can't be had, or is no image.
    :raises NoManifestForPlatformError: if it is an index without an image for *platform*.
    """
    try:
        answer, found = await _get(session, repository, reference)
        chosen = resolved_digest(answer.body, _media_type(answer), platform, digest=found)
        if chosen != found:
            answer, found = await _get(session, repository, reference.with_digest(chosen))
            resolved_digest(
                answer.body, _media_type(answer), platform, digest=found
            )  # refuses what is no image
        return read_manifest(answer.body, _media_type(answer), digest=found)
    except InvalidManifestError as error:
        raise RegistryFaultError(repository.registry, str(error)) from error


async def store_image(
    session: RegistrySession,
    target: Repository,
    reference: Reference,
    manifest: Manifest,
    source: Source,
    progress: Progress,
) -> Reference:
    """Have the image of *manifest* under *reference*; its digest form.

    Cancelling it leaves blobs behind that no image names: registries collect such garbage.

    :param source: where the blobs are that are not there yet.
    :raises RegistryError: if that can't be done.
    :raises OSError: if *source* is the disk, which can't be read.
    """
    writer = BlobWriter(session, target, source)
    await _store_blobs(writer, manifest.blobs, progress)
    answer = await session.client.request(
        target.writing(),
        "PUT",
        manifest_path(reference),
        headers={"Content-Type": manifest.media_type},
        content=manifest.body,
    )
    if answer.status not in {200, 201, 202}:
        error = refusal(target.registry, answer, session.retrying)
        unknown = isinstance(error, ManifestUnknownError)
        raise RegistryFaultError(target.registry, f"has no place for {target.path}") if unknown else error
    return reference.with_digest(manifest.digest)


async def _store_blobs(writer: BlobWriter, blobs: Sequence[Blob], progress: Progress) -> None:
    places = anyio.Semaphore(AT_ONCE)

    async def store(blob: Blob) -> None:
        async with places:
            progress(BlobDone(blob, await writer.ensure(blob)))

    try:
        async with anyio.create_task_group() as group:
            for blob in blobs:
                group.start_soon(partial(store, blob), name=f"blob {blob.digest}")
    except BaseExceptionGroup as failed:
        # The first one has cancelled the others: it is the reason.
        raise _first(failed) from failed


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _get(
    session: RegistrySession,
    repository: Repository,
    reference: Reference,
) -> tuple[Answer, str]:
    """The manifest under *reference*, and the digest that it goes by."""
    answer = await session.client.request(
        repository.reading(),
        "GET",
        manifest_path(reference),
        headers=ACCEPT,
        limit=LARGEST_MANIFEST,
    )
    check(repository.registry, answer, session.retrying)
    try:
        return answer, verified_digest(reference, answer)
    except DigestMismatchError as error:
        raise RegistryFaultError(repository.registry, str(error)) from error


def _media_type(answer: Answer) -> str:
    return str(answer.headers.get("content-type", ""))
