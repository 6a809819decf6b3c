"""Manifests: what a registry's answer says that an image is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.manifests import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    LINUX_AMD64,
    MEDIA_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    DigestMismatchError,
    InvalidManifestError,
    InvalidPlatformError,
    NoManifestForPlatformError,
    Platform,
    parse_platform,
    resolved_digest,
    sha256_digest,
    verify_digest,
)
from tests.world.registries import contents

Json = dict[str, Any]


def digest(number: int) -> str:
    """A digest that can be told from others."""
    return f"sha256:{number:064x}"


def index_of(*entries: Json) -> bytes:
    """The body of an index of *entries*, numbered by their digests."""
    numbered = [{"digest": digest(number), **entry} for number, entry in enumerate(entries)]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": numbered}).encode()


def runs_on(os: str, architecture: str, variant: str | None = None) -> Json:
    """An entry for a platform."""
    platform = {"os": os, "architecture": architecture}
    return {"platform": platform if variant is None else {**platform, "variant": variant}}


def test_all_four_types_are_asked_for() -> None:
    """A registry that keeps an image of a type that was not asked for says that there is none."""
    assert set(MEDIA_TYPES.split(", ")) == {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX}


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
@pytest.mark.parametrize("told", ["{}", "{}; charset=utf-8", "application/json", ""])
def test_an_image_resolves_to_itself(media_type: str, told: str) -> None:
    """Whatever the registry calls it."""
    image = contents.image(media_type=media_type)
    assert resolved_digest(image.body, told.format(media_type), LINUX_AMD64) == image.digest


def test_an_image_without_a_media_type_inside() -> None:
    """OCI leaves it out, which is fine."""
    body = b'{"schemaVersion": 2, "config": {}, "layers": []}'
    assert resolved_digest(body, OCI_MANIFEST, LINUX_AMD64) == sha256_digest(body)


def test_the_digest_that_an_image_goes_by_is_kept() -> None:
    """An image asked for by SHA-512 is not renamed."""
    image = contents.image()
    by_sha512 = f"sha512:{hashlib.sha512(image.body).hexdigest()}"
    assert resolved_digest(image.body, OCI_MANIFEST, LINUX_AMD64, digest=by_sha512) == by_sha512


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_index_resolves_to_the_image_for_the_platform(media_type: str) -> None:
    """Docker's and OCI's alike."""
    platforms = ["linux/arm64", "linux/amd64", "windows/amd64"]
    images = {platform: contents.image(platform, media_type=media_type) for platform in platforms}
    index = contents.index(images)
    assert resolved_digest(index.body, index.media_type, LINUX_AMD64) == images["linux/amd64"].digest


@pytest.mark.parametrize(
    ("wanted", "entries", "chosen"),
    [
        ("linux/amd64", [runs_on("linux", "amd64"), runs_on("linux", "amd64")], 0),
        ("linux/amd64", [runs_on("linux", "amd64", "v3"), runs_on("linux", "amd64", "v1")], 1),
        ("linux/amd64", [runs_on("linux", "amd64", "v3"), runs_on("linux", "amd64", "v2")], 0),
        ("linux/arm64", [runs_on("linux", "arm64", "v8")], 0),
        ("linux/arm64/v8", [runs_on("linux", "arm64")], 0),
        ("linux/arm/v7", [runs_on("linux", "arm", "v5"), runs_on("linux", "arm", "v6")], 1),
        ("linux/arm/v7", [runs_on("linux", "arm", "v8"), runs_on("linux", "arm", "v7")], 1),
        (
            "linux/amd64",
            [{}, {"platform": None}, runs_on("unknown", "unknown"), runs_on("linux", "amd64")],
            3,
        ),
    ],
)
def test_the_best_entry_is_chosen(wanted: str, entries: list[Json], chosen: int) -> None:
    """The platform itself, else what it can run; of equals the first."""
    assert resolved_digest(index_of(*entries), OCI_INDEX, parse_platform(wanted)) == digest(chosen)


@pytest.mark.parametrize(
    ("wanted", "entries", "named"),
    [
        ("linux/amd64", [], "linux-amd64"),
        ("linux/amd64", [runs_on("linux", "arm64"), runs_on("windows", "amd64")], "linux-amd64"),
        ("linux/arm/v6", [runs_on("linux", "arm", "v7")], "linux-arm-v6"),
        ("linux/arm/v6", [runs_on("linux", "arm", "odd")], "linux-arm-v6"),
    ],
)
def test_an_index_without_the_platform(wanted: str, entries: list[Json], named: str) -> None:
    """The text of the error is part of the contract."""
    with pytest.raises(NoManifestForPlatformError) as caught:
        resolved_digest(index_of(*entries), OCI_INDEX, parse_platform(wanted))
    assert str(caught.value) == f"no manifest for platform {named} found"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b'{"schemaVersion": 1, "name": "x", "fsLayers": []}', ""),
        (
            b'{"schemaVersion": 1, "fsLayers": []}',
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+json"),
    ],
)
def test_schema_1_is_refused_with_advice(body: bytes, media_type: str) -> None:
    """Its digests are not those of its bytes, and nobody should use it."""
    with pytest.raises(InvalidManifestError, match="schema 1, which is not supported"):
        resolved_digest(body, media_type, LINUX_AMD64)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", ""),
        (b"<html>", "text/html"),
        (b"[]", OCI_MANIFEST),
        (b"null", OCI_MANIFEST),
        (b"{}", OCI_MANIFEST),
        (b"[" * 100_000, OCI_MANIFEST),
        (b'{"manifests": {}}', OCI_INDEX),
        (b'{"manifests": [], "layers": []}', OCI_INDEX),
        (b'{"manifests": [], "config": {}}', OCI_MANIFEST),
        (b'{"manifests": []}', OCI_MANIFEST),
        (b'{"manifests": [], "mediaType": "' + DOCKER_MANIFEST.encode() + b'"}', ""),
        (b'{"layers": [], "config": {}}', OCI_INDEX),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes, media_type: str) -> None:
    """Neither is what two readers would take for two different things."""
    with pytest.raises(InvalidManifestError):
        resolved_digest(body, media_type, LINUX_AMD64)


@pytest.mark.parametrize("bad", [None, 5, "", "sha256:short", "md5:" + "0" * 32, digest(1) + "\n"])
def test_an_entry_without_a_proper_digest_is_refused(bad: Any) -> None:
    """It would become part of a reference."""
    with pytest.raises(InvalidManifestError):
        resolved_digest(index_of({**runs_on("linux", "amd64"), "digest": bad}), OCI_INDEX, LINUX_AMD64)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "layers", "config", "platform", "os", "architecture", "digest", "mediaType"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(document=json_values, media_type=st.sampled_from([OCI_INDEX, OCI_MANIFEST, ""]))
def test_any_document_is_understood_or_refused(document: Any, media_type: str) -> None:
    """Nothing that a registry may send ends in another error."""
    try:
        resolved_digest(json.dumps(document).encode(), media_type, LINUX_AMD64)
    except (InvalidManifestError, NoManifestForPlatformError):
        return


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_digest_is_verified(algorithm: str) -> None:
    """The right one passes, and that of other contents does not."""
    right = f"{algorithm}:{hashlib.new(algorithm, b'body').hexdigest()}"
    verify_digest(b"body", right)
    with pytest.raises(DigestMismatchError):
        verify_digest(b"another", right)


@pytest.mark.parametrize("odd", ["", "sha256", "md5:" + hashlib.md5(b"body").hexdigest(), "sha256:"])
def test_a_digest_that_is_not_known_never_fits(odd: str) -> None:
    """What can't be verified is not trusted."""
    with pytest.raises(DigestMismatchError):
        verify_digest(b"body", odd)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", LINUX_AMD64),
        ("Linux/ARM64", Platform(os="linux", architecture="arm64")),
        ("linux/arm/v7", Platform(os="linux", architecture="arm", variant="v7")),
    ],
)
def test_a_platform(text: str, platform: Platform) -> None:
    """Two or three words."""
    assert parse_platform(text) == platform


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    """The error repeats it."""
    with pytest.raises(InvalidPlatformError, match="is no platform"):
        parse_platform(text)
