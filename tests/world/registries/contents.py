"""Small images, as registries keep them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imgbuilder.core.manifests import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, parse_platform

CONFIG_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
}
LAYER_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def digest_of(contents: bytes) -> str:
    """The digest that *contents* go by."""
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest, and the blobs that it needs, by digest; an index has none."""

    body: bytes
    media_type: str
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest that it goes by."""
        return digest_of(self.body)


def image(text: str = "hello", *, media_type: str = OCI_MANIFEST, platform: str = "linux/amd64") -> Manifest:
    """An image whose only layer has a file ``/greeting`` with *text*."""
    layer = _layer(text.encode())
    wanted = parse_platform(platform)
    config = _json(
        {
            "os": wanted.os,
            "architecture": wanted.architecture,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer))]},
        },
    )
    body = _json(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor(config, CONFIG_TYPES[media_type]),
            "layers": [_descriptor(layer, LAYER_TYPES[media_type])],
        },
    )
    blobs = {digest_of(config): config, digest_of(layer): layer}
    return Manifest(body=body, media_type=media_type, blobs=blobs)


def index(images: Mapping[str, Manifest]) -> Manifest:
    """An index of *images* by platform (``linux/arm/v7``); in Docker's format if they are."""
    docker = all(entry.media_type == DOCKER_MANIFEST for entry in images.values())
    media_type = DOCKER_INDEX if docker else OCI_INDEX
    entries = []
    for platform, entry in images.items():
        wanted = parse_platform(platform)
        described = {"os": wanted.os, "architecture": wanted.architecture}
        if wanted.variant:
            described["variant"] = wanted.variant
        entries.append({**_descriptor(entry.body, entry.media_type), "platform": described})
    body = _json({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
    return Manifest(body=body, media_type=media_type)


def _descriptor(contents: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(contents), "size": len(contents)}


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _layer(contents: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("greeting")
        member.size = len(contents)
        archive.addfile(member, io.BytesIO(contents))
    return gzip.compress(packed.getvalue(), mtime=0)
