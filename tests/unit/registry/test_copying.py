"""Images from one repository to another, in one real registry and between two."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgbuilder.core.manifests import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    NoManifestForPlatformError,
    parse_platform,
)
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference
from imgbuilder.registry.blobs import Way
from imgbuilder.registry.copy import copy_image
from imgbuilder.registry.errors import ManifestUnknownError, RegistryDeniedError, RegistryFaultError
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.stores import fetch_manifest
from tests.unit.registry.writing import (
    KNOWN,
    Kind,
    Seen,
    both,
    htpasswd_registry,
    layout,
    open_registry,
    reference,
    session_for,
    token_registry,
)
from tests.world.registries.contents import (
    Manifest,
    image,
    index,
)

AMD64, ARM64 = parse_platform("linux/amd64"), parse_platform("linux/arm64")


async def copy(
    session: RegistrySession,
    source: Reference,
    target: Reference,
    credentials: Credentials | None = None,
    seen: Seen | None = None,
) -> Reference:
    """A copy with the same credentials for both."""
    return await copy_image(
        session,
        source,
        target,
        platform=AMD64,
        source_credentials=credentials,
        target_credentials=credentials,
        progress=seen or Seen(),
    )


async def push(
    session: RegistrySession,
    folder: Path,
    made: Manifest,
    target: Reference,
    credentials: Credentials | None = None,
) -> Reference:
    """Have *made* under *target*."""
    on_disk = layout(folder / made.digest[-8:], made)
    return await push_layout(session, on_disk, target, credentials=credentials, progress=Seen())


async def push_index(session: RegistrySession, made: Manifest, target: Reference) -> None:
    """Have an index under *target*, whose images are there."""
    answer = await session.client.request(
        session.repository(target, None).writing(),
        "PUT",
        f"{target.path}/manifests/{target.tag}",
        headers={"Content-Type": made.media_type},
        content=made.body,
    )
    assert answer.status == 201


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
@pytest.mark.parametrize(
    ("kind", "credentials"),
    [(open_registry, None), (htpasswd_registry, KNOWN), (token_registry, KNOWN)],
)
async def test_within_a_registry_no_byte_is_moved(
    tmp_path: Path, kind: Kind, credentials: Credentials | None, media_type: str
) -> None:
    """All blobs are mounted, and the image is the same under its other name."""
    made = image(media_type=media_type)
    async with kind(tmp_path / "registry") as place, session_for(place) as session:
        pushed = await push(session, tmp_path, made, reference(place, "bases/one:tag"), credentials)
        seen = Seen()
        target = reference(place, "workspaces/deep/er:tag")
        copied = await copy(session, pushed, target, credentials, seen)
        found = await fetch_manifest(session, session.repository(target, credentials), target, AMD64)
    assert copied == target.with_digest(made.digest)
    assert (found.body, found.media_type) == (made.body, media_type)
    assert seen.ways == {Way.MOUNTED}


async def test_between_registries_blobs_are_streamed(tmp_path: Path) -> None:
    """An image of a private registry is copied to another one that wants other credentials."""
    made = image("x" * 3_000_000)
    async with (
        both(token_registry, open_registry, tmp_path) as (source, destination),
        session_for(source, destination) as session,
    ):
        pushed = await push(session, tmp_path, made, reference(source, "bases/one:tag"), KNOWN)
        seen = Seen()
        target = reference(destination, "workspaces/one:tag")
        await copy_image(
            session,
            pushed,
            target,
            platform=AMD64,
            source_credentials=KNOWN,
            target_credentials=None,
            progress=seen,
        )
        found = await fetch_manifest(session, session.repository(target, None), target, AMD64)
    assert found.body == made.body
    assert seen.ways == {Way.SENT}


async def test_a_session_that_knows_nothing_of_the_source_finds_the_way_in(tmp_path: Path) -> None:
    """Blobs can be had although the token for them was never fetched before."""
    made = image()
    async with (
        both(htpasswd_registry, htpasswd_registry, tmp_path) as (source, destination),
        session_for(source, destination) as session,
    ):
        pushed = await push(session, tmp_path, made, reference(source, "bases/one:tag"), KNOWN)
        async with session_for(source, destination) as fresh:
            seen = Seen()
            await copy(fresh, pushed, reference(destination, "workspaces/one:tag"), KNOWN, seen)
    assert seen.ways == {Way.SENT}


async def test_a_copy_in_the_same_repository_only_adds_a_name(tmp_path: Path) -> None:
    """Blobs of the repository itself are there already."""
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        pushed = await push(session, tmp_path, image(), reference(place, "bases/one:tag"))
        seen = Seen()
        await copy(session, pushed, reference(place, "bases/one:other"), seen=seen)
    assert seen.ways == {Way.THERE}


async def test_of_an_index_the_image_for_the_platform_is_copied(tmp_path: Path) -> None:
    """The target is the one image, not the index."""
    mine, other = image("mine"), image("other", platform="linux/arm64")
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        source = reference(place, "bases/one:both")
        await push(session, tmp_path, mine, reference(place, "bases/one:mine"))
        await push(session, tmp_path, other, reference(place, "bases/one:other"))
        await push_index(session, index({"linux/arm64": other, "linux/amd64": mine}), source)
        target = reference(place, "workspaces/one:tag")
        await copy(session, source, target)
        found = await fetch_manifest(session, session.repository(target, None), target, AMD64)
    assert found.body == mine.body


async def test_an_index_without_the_platform_is_an_error(tmp_path: Path) -> None:
    """Nothing is copied of an index that has no image for the platform."""
    other = image("other", platform="linux/arm64")
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        source = reference(place, "bases/one:both")
        await push(session, tmp_path, other, reference(place, "bases/one:other"))
        await push_index(session, index({"linux/arm64": other}), source)
        with pytest.raises(NoManifestForPlatformError, match="no manifest for platform linux-amd64 found"):
            await copy(session, source, reference(place, "workspaces/one:tag"))


async def test_an_unknown_source_is_unknown(tmp_path: Path) -> None:
    """There is an error of its own for an image that does not exist."""
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        with pytest.raises(ManifestUnknownError):
            await copy(session, reference(place, "bases/one:tag"), reference(place, "workspaces/one:tag"))


async def test_a_target_that_lets_nobody_in_is_denied(tmp_path: Path) -> None:
    """A refused push of a copy blames the target."""
    async with (
        both(open_registry, htpasswd_registry, tmp_path) as (source, destination),
        session_for(source, destination) as session,
    ):
        pushed = await push(session, tmp_path, image(), reference(source, "bases/one:tag"))
        with pytest.raises(RegistryDeniedError) as refused:
            await copy(session, pushed, reference(destination, "workspaces/one:tag"))
    assert refused.value.registry == destination.host


async def test_a_blob_that_the_source_lost_blames_the_source(tmp_path: Path) -> None:
    """A registry that has the manifest but not the layers is the one at fault."""
    made = image()
    async with (
        both(open_registry, open_registry, tmp_path) as (source, destination),
        session_for(source, destination) as session,
    ):
        pushed = await push(session, tmp_path, made, reference(source, "bases/one:tag"))
        access = session.repository(pushed, None).writing()
        for digest in made.blobs:
            await session.client.request(access, "DELETE", f"bases/one/blobs/{digest}")
        with pytest.raises(RegistryFaultError) as failed:
            await copy(session, pushed, reference(destination, "workspaces/one:tag"))
    assert failed.value.registry == source.host
