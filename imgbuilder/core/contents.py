"""What an image consists of: its manifest, and the blobs that the manifest names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from imgbuilder.core.manifests import InvalidManifestError, sha256_digest
from imgbuilder.core.references import is_digest

_ELSEWHERE: Final = ("foreign", "nondistributable")
"""Parts of the media types of layers that no registry has: whoever runs the image gets them elsewhere."""

MOST_BLOBS: Final = 1000
"""Far more than runtimes can mount."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A part of an image: its configuration or a layer.

    :ivar size: in bytes.
    """

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The manifest of one image, as it is to be stored: byte for byte.

    :ivar media_type: what the registry is told that it is.
    :ivar blobs: what has to be there first, each once.
    """

    body: bytes
    media_type: str
    digest: str
    blobs: tuple[Blob, ...]


def read_manifest(body: bytes, media_type: str, *, digest: str | None = None) -> Manifest:
    """The manifest of an image that is known to be one: neither an index nor of schema 1.

    :param media_type: what it came as; may have parameters. Its own word counts where it has one.
    :param digest: what *body* goes by, verified; by default its SHA-256.
    :raises InvalidManifestError: if it does not name its blobs properly.
    """
    try:
        document: dict[str, Any] = orjson.loads(body)
        own = document.get("mediaType")
        parts = [document["config"], *document["layers"]]
        blobs = dict.fromkeys(_blob(part) for part in parts if not _is_elsewhere(part))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise InvalidManifestError("its manifest does not name its layers") from error
    if len(blobs) > MOST_BLOBS:
        raise InvalidManifestError(f"its manifest names more than {MOST_BLOBS} layers")
    return Manifest(
        body=body,
        media_type=own if isinstance(own, str) and own else media_type.partition(";")[0].strip(),
        digest=digest or sha256_digest(body),
        blobs=tuple(blobs),
    )


def _blob(part: dict[str, Any]) -> Blob:
    digest, size = part["digest"], part["size"]
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifestError("its manifest names something that is no digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidManifestError("its manifest names a layer without its size")
    return Blob(digest, size)


def _is_elsewhere(part: dict[str, Any]) -> bool:
    media_type = part.get("mediaType")
    return isinstance(media_type, str) and any(word in media_type for word in _ELSEWHERE)
