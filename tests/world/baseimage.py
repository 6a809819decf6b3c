"""The demo's base image in a registry, and images read back from layouts."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgbuilder.standalone.demo_image import write_demo_image
from imgbuilder.standalone.engines.protocol import OciLayout
from tests.world.registries.contents import Manifest
from tests.world.registries.processes import DockerRegistry, push


async def push_base_image(
    registry: DockerRegistry,
    folder: Path,
    *,
    repository: str = "base",
    tag: str = "1",
    headers: Mapping[str, str] | None = None,
) -> str:
    """Make the base image in the new folder *folder*, and push it; its reference.

    :param headers: what lets us in.
    """
    layout = write_demo_image(folder)
    await push(registry, repository, tag, manifest_of(layout), headers=headers)
    return f"{registry.host}/{repository}:{tag}"


def manifest_of(layout: OciLayout) -> Manifest:
    """The image in *layout*, as it is pushed."""
    body = layout.blob(layout.digest).read_bytes()
    parts = [entry["digest"] for entry in _parts(body)]
    return Manifest(
        body=body,
        media_type=layout.media_type,
        blobs={digest: layout.blob(digest).read_bytes() for digest in parts},
    )


def config_of(layout: OciLayout) -> dict[str, Any]:
    """The configuration of the image in *layout*."""
    document = json.loads(layout.blob(layout.digest).read_bytes())
    config: dict[str, Any] = json.loads(layout.blob(document["config"]["digest"]).read_bytes())
    return config


def files_of(layout: OciLayout) -> dict[str, bytes]:
    """The regular files of the image in *layout*, all layers one over the other."""
    document = json.loads(layout.blob(layout.digest).read_bytes())
    files: dict[str, bytes] = {}
    for entry in document["layers"]:
        content = gzip.decompress(layout.blob(entry["digest"]).read_bytes())
        with tarfile.open(fileobj=io.BytesIO(content)) as layer:
            for member in layer:
                path = Path("/") / member.name
                if path.name.startswith(".wh."):
                    files.pop(str(path.with_name(path.name.removeprefix(".wh."))), None)
                elif member.isreg() and (file := layer.extractfile(member)) is not None:
                    files[str(path)] = file.read()
    return files


def _parts(manifest: bytes) -> list[dict[str, Any]]:
    document = json.loads(manifest)
    return [document["config"], *document["layers"]]
