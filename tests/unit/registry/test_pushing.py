"""Images from the disk into real registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgbuilder.core.manifests import DOCKER_MANIFEST, OCI_MANIFEST, InvalidManifestError, parse_platform
from imgbuilder.core.permissions import Credentials
from imgbuilder.registry.blobs import Way
from imgbuilder.registry.errors import (
    RegistryDeniedError,
    RegistryFaultError,
    RegistryUnreachableError,
)
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.stores import fetch_manifest
from tests.unit.registry.writing import (
    KNOWN,
    PASSWORD,
    WRONG,
    Kind,
    Place,
    Seen,
    htpasswd_registry,
    layout,
    open_registry,
    reference,
    session_for,
    token_registry,
)
from tests.world.registries.contents import image

AMD64 = parse_platform("linux/amd64")


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
@pytest.mark.parametrize(
    ("kind", "credentials"),
    [(open_registry, None), (htpasswd_registry, KNOWN), (token_registry, KNOWN)],
)
async def test_a_layout_is_in_the_registry_byte_for_byte(
    tmp_path: Path, kind: Kind, credentials: Credentials | None, media_type: str
) -> None:
    """What is pushed can be read back as it was, whatever way of authentication the registry has."""
    made = image(media_type=media_type)
    async with kind(tmp_path / "registry") as place, session_for(place) as session:
        target = reference(place, "bases/one:tag")
        seen = Seen()
        on_disk = layout(tmp_path / "layout", made)
        pushed = await push_layout(session, on_disk, target, credentials=credentials, progress=seen)
        repository = session.repository(target, credentials)
        by_tag = await fetch_manifest(session, repository, target, AMD64)
        by_digest = await fetch_manifest(session, repository, pushed, AMD64)
    assert pushed.digest == made.digest
    assert by_tag.body == by_digest.body == made.body
    assert by_tag.media_type == media_type
    assert {done.blob.digest for done in seen.done} == set(made.blobs)
    assert seen.ways == {Way.SENT}


async def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    """A second push of the same image sends no blob."""
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        on_disk = layout(tmp_path / "layout", image())
        target = reference(place, "bases/one:tag")
        await push_layout(session, on_disk, target, credentials=None, progress=Seen())
        seen = Seen()
        await push_layout(session, on_disk, target, credentials=None, progress=seen)
    assert seen.ways == {Way.THERE}


@pytest.mark.parametrize("credentials", [None, WRONG])
@pytest.mark.parametrize("kind", [htpasswd_registry, token_registry])
async def test_a_refused_push_is_denied(tmp_path: Path, kind: Kind, credentials: Credentials | None) -> None:
    """Without the right credentials the push ends with an error that names the registry, and no secret."""
    async with kind(tmp_path / "registry") as place, session_for(place) as session:
        on_disk = layout(tmp_path / "layout", image())
        with pytest.raises(RegistryDeniedError) as refused:
            await push_layout(
                session, on_disk, reference(place, "bases/one:tag"), credentials=credentials, progress=Seen()
            )
    assert refused.value.registry == place.host
    assert PASSWORD not in str(refused.value)


async def test_contents_that_do_not_fit_are_never_stored(tmp_path: Path) -> None:
    """A blob that does not have its digest is refused before the registry has all of it."""
    made = image()
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        on_disk = layout(tmp_path / "layout", made)
        layer = list(made.blobs)[-1]
        contents = on_disk.blob(layer).read_bytes()
        on_disk.blob(layer).write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
        target = reference(place, "bases/one:tag")
        with pytest.raises(RegistryFaultError, match="do not match their digest"):
            await push_layout(session, on_disk, target, credentials=None, progress=Seen())
        answer = await session.client.request(
            session.repository(target, None).reading(), "HEAD", f"bases/one/blobs/{layer}"
        )
    assert answer.status == 404


@pytest.mark.parametrize("change", [b"", b"longer than it should be" * 1000])
async def test_contents_of_another_size_are_refused(tmp_path: Path, change: bytes) -> None:
    """A blob that is too short or too long is refused."""
    made = image()
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        on_disk = layout(tmp_path / "layout", made)
        on_disk.blob(next(iter(made.blobs))).write_bytes(change)
        with pytest.raises(RegistryFaultError, match="do not match their digest"):
            await push_layout(
                session, on_disk, reference(place, "bases/one:tag"), credentials=None, progress=Seen()
            )


async def test_a_registry_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    """No connection ends the push with an error that says so."""
    async with open_registry(tmp_path / "registry") as place:
        pass
    async with session_for(place) as session:
        on_disk = layout(tmp_path / "layout", image())
        target = reference(place, "bases/one:tag")
        with pytest.raises(RegistryUnreachableError, match="no connection"):
            await push_layout(session, on_disk, target, credentials=None, progress=Seen())


async def test_a_layout_that_lacks_a_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """Nothing of the registry is blamed for a file that can't be read."""
    made = image()
    async with open_registry(tmp_path / "registry") as place, session_for(place) as session:
        on_disk = layout(tmp_path / "layout", made)
        on_disk.blob(next(iter(made.blobs))).unlink()
        with pytest.raises(FileNotFoundError):
            await push_layout(
                session, on_disk, reference(place, "bases/one:tag"), credentials=None, progress=Seen()
            )


async def test_a_manifest_that_names_nothing_is_refused(tmp_path: Path) -> None:
    """A layout whose manifest is none ends the push before anything is sent."""
    made = image()
    async with session_for() as session:
        on_disk = layout(tmp_path / "layout", made)
        on_disk.blob(made.digest).write_bytes(b"{}")
        with pytest.raises(InvalidManifestError):
            await push_layout(
                session,
                on_disk,
                reference(Place("host:1"), "bases/one:tag"),
                credentials=None,
                progress=Seen(),
            )
