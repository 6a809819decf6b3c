"""Small images, as layouts and as archives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from imgbuilder.standalone.engines.layouts import encode, write_layer, write_layout
from imgbuilder.standalone.engines.protocol import OciLayout


def layer(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def config(diff_ids: Sequence[str]) -> bytes:
    """A configuration with layers."""
    return encode(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    )


def layout(path: Path, content: bytes = b"hello") -> OciLayout:
    """An image of one file in the new folder *path*."""
    written, diff_id = write_layer(path, io.BytesIO(layer("file", content)))
    return write_layout(path, config([diff_id]), [written])


def archive(path: Path, layers: Sequence[bytes], diff_ids: Sequence[str], images: int = 1) -> Path:
    """An archive of *images* like images with *layers*, as ``docker save`` writes it."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": names}] * images
    files = {
        **dict(zip(names, layers, strict=True)),
        "config.json": config(diff_ids),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
