"""Manifests of images: verify them by digest, and pick the one for a platform.

Docker's schema 2 and OCI, single images and indexes. Fetching them is `imgbuilder.registry`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.references import is_digest

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

MEDIA_TYPES: Final = f"{DOCKER_MANIFEST}, {DOCKER_INDEX}, {OCI_MANIFEST}, {OCI_INDEX}"
"""What is asked for, as the value of an Accept header. A registry hides an image of a type that is not in it."""

_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
_IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"

_HASHES: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}

_DEFAULT_VARIANTS: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""The variant that is meant where an index names none."""


class InvalidManifestError(ImgbuilderError):
    """Something is no manifest, or none of a kind that can be used."""


class DigestMismatchError(ImgbuilderError):
    """Contents do not have the digest that they go by.

    :ivar expected: that digest; it comes from outside.
    """

    def __init__(self, expected: str) -> None:
        super().__init__("contents do not match their digest")
        self.expected = expected


class InvalidPlatformError(ImgbuilderError):
    """A text names no platform."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no platform: os/architecture or os/architecture/variant")
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on, in Go's words. Prints as ``linux-arm-v7``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.os, self.architecture, self.variant)))


LINUX_AMD64: Final = Platform(os="linux", architecture="amd64")


class NoManifestForPlatformError(ImgbuilderError):
    """An index has no image for the wanted platform."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(f"no manifest for platform {platform} found")
        self.platform = platform


def parse_platform(text: str) -> Platform:
    """The platform ``os/architecture`` or ``os/architecture/variant``.

    :raises InvalidPlatformError: if *text* is neither.
    """
    parts = text.lower().split("/")
    if len(parts) not in {2, 3} or not all(part.isalnum() for part in parts):
        raise InvalidPlatformError(text)
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def sha256_digest(body: bytes) -> str:
    """The digest that *body* goes by unless another is given."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def verify_digest(body: bytes, digest: str) -> None:
    """Make sure that *body* is what *digest* names.

    :raises DigestMismatchError: if it is not, or *digest* is of an algorithm that is not known.
    """
    algorithm, _, encoded = digest.partition(":")
    known = _HASHES.get(algorithm)
    if known is None or known(body).hexdigest() != encoded:
        raise DigestMismatchError(digest)


def resolved_digest(body: bytes, media_type: str, platform: Platform, *, digest: str | None = None) -> str:
    """The digest of the image for *platform*: of *body* itself, or of an entry if that is an index.

    :param media_type: what the registry calls *body*; may be empty, or have parameters.
    :param digest: what *body* goes by, verified; by default its SHA-256.
    :raises InvalidManifestError: if *body* is neither image nor index.
    :raises NoManifestForPlatformError: if it is an index without an image for *platform*.
    """
    document = _document(body, media_type)
    if "manifests" in document:
        return _entry_digest(document, platform)
    return digest or sha256_digest(body)


def _document(body: bytes, media_type: str) -> dict[str, Any]:
    """*body*, read, and sure to be what it is said to be.

    What a body is decides its structure. A body that can be read both ways, or is called the other thing, is
    refused: two readers would see two images under one digest (CVE-2021-41190).
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidManifestError("its manifest is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidManifestError("its manifest is no JSON object")
    own = document.get("mediaType")
    names = {media_type.partition(";")[0].strip().lower(), own if isinstance(own, str) else ""}
    if document.get("schemaVersion") == 1 or any(name.startswith(_SCHEMA_1) for name in names):
        raise InvalidManifestError(
            "its manifest is of schema 1, which is not supported: push the image again with a current tool",
        )
    is_index = "manifests" in document
    is_image = "config" in document or "layers" in document
    if is_index == is_image or (names & (_IMAGES if is_index else _INDEXES)):
        raise InvalidManifestError("its manifest is neither an image's nor an index")
    return document


def _entry_digest(document: dict[str, Any], wanted: Platform) -> str:
    """The digest of the best entry for *wanted*; of equally good ones, the first."""
    entries = document["manifests"]
    if not isinstance(entries, list):
        raise InvalidManifestError("its index has no list of manifests")
    best: tuple[int, Any] | None = None
    for entry in entries:
        rank = _rank(entry, wanted)
        if rank is not None and (best is None or rank < best[0]):
            best = rank, entry.get("digest")
    if best is None:
        raise NoManifestForPlatformError(wanted)
    digest = best[1]
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifestError("its index has an entry without a proper digest")
    return digest


def _rank(entry: Any, wanted: Platform) -> int | None:
    """How well *entry* suits *wanted*, 0 being best; None if it does not."""
    platform = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(platform, dict):
        return None
    if (platform.get("os"), platform.get("architecture")) != (wanted.os, wanted.architecture):
        return None
    default = _DEFAULT_VARIANTS.get(wanted.architecture, "")
    variant = platform.get("variant") or default
    if variant == (wanted.variant or default):
        return 0
    if not wanted.variant:
        return 1  # nobody asked for a certain one: any is better than none
    # A processor runs what was built for earlier ones of its line.
    distance = _version(wanted.variant) - _version(variant)
    return distance if distance > 0 else None


def _version(variant: Any) -> int:
    number = variant.removeprefix("v") if isinstance(variant, str) else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 1000
