"""Image layouts on disk, as the OCI image specification describes them: read one, write one.

Knows files and digests; what an image is good for is none of its business.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from imgbuilder.core.references import is_digest
from imgbuilder.standalone.engines.protocol import EngineError, OciLayout

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEXES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    },
)
COMPRESSION_LEVEL: Final = 4
"""Of gzip: from here on it gets a lot slower and the layers hardly smaller."""

CHUNK: Final = 1 << 20


class Readable(Protocol):
    """A stream of bytes, of which nothing but reading is asked."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """How one part of an image is named by another."""

    media_type: str
    digest: str
    size: int

    def document(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@contextmanager
def layout_folder(scratch: Path) -> Iterator[Path]:
    """Where a build's layout is to be written, in its folder *scratch*; deleted if it is not finished."""
    path = scratch / "layout"
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def open_layout(path: Path) -> OciLayout:
    """The one image in the layout *path*, through an index where there is one of one image.

    :raises EngineError: if there is none, or more than one, or parts of it are missing.
    """
    try:
        found = json.loads((path / "index.json").read_bytes())
        while True:
            manifests = [entry for entry in found["manifests"] if _is_image(entry)]
            if len(manifests) != 1:
                raise EngineError(f"the engine's image layout has {len(manifests)} images instead of one")
            media_type, digest = manifests[0]["mediaType"], manifests[0]["digest"]
            layout = OciLayout(path=path, digest=digest, media_type=media_type)
            document = json.loads(_checked(layout, digest).read_bytes())
            if media_type not in INDEXES:
                break
            found = document
        for part in (document["config"], *document["layers"]):
            _checked(layout, part["digest"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"the engine's image layout can't be read: {type(error).__name__}") from error
    return layout


def write_layout(path: Path, config: bytes, layers: Iterable[Descriptor]) -> OciLayout:
    """Finish the layout *path*, whose *layers* were written by `write_layer`, lowest first."""
    config_part = write_blob(path, config, CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_part.document(),
        "layers": [layer.document() for layer in layers],
    }
    manifest_part = write_blob(path, encode(manifest), MANIFEST)
    (path / "index.json").write_bytes(encode({"schemaVersion": 2, "manifests": [manifest_part.document()]}))
    (path / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
    return OciLayout(path=path, digest=manifest_part.digest, media_type=MANIFEST)


def write_blob(path: Path, content: bytes, media_type: str) -> Descriptor:
    """Put *content* into the layout *path*."""
    digest = hashlib.sha256(content).hexdigest()
    folder = _blobs(path)
    (folder / digest).write_bytes(content)
    return Descriptor(media_type=media_type, digest=f"sha256:{digest}", size=len(content))


def write_layer(path: Path, tar: Readable) -> tuple[Descriptor, str]:
    """Put a layer into the layout *path*, compressed unless it is.

    The same tar gives the same bytes, so that a registry has to be sent it only once.

    :return: the layer, and the digest of the tar in it: what a configuration lists as ``diff_id``.
    """
    folder = _blobs(path)
    unfinished = folder / f"unfinished-{id(tar)}"
    head = tar.read(CHUNK)
    write = _copy_compressed if head.startswith(b"\x1f\x8b") else _compress
    with unfinished.open("wb") as file:
        diff_id = write(head, tar, file)
    with unfinished.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = unfinished.stat().st_size
    unfinished.replace(folder / digest)
    return Descriptor(media_type=LAYER_GZIP, digest=f"sha256:{digest}", size=size), diff_id


def encode(document: object) -> bytes:
    """The JSON of *document*; always the same bytes for the same document."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _compress(head: bytes, rest: Readable, into: BinaryIO) -> str:
    digest = hashlib.sha256()
    with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, into, mtime=0) as compressed:
        while head:
            digest.update(head)
            compressed.write(head)
            head = rest.read(CHUNK)
    return f"sha256:{digest.hexdigest()}"


def _copy_compressed(head: bytes, rest: Readable, into: BinaryIO) -> str:
    while head:
        into.write(head)
        head = rest.read(CHUNK)
    into.flush()
    digest = hashlib.sha256()
    with gzip.open(into.name) as tar:
        while chunk := tar.read(CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _blobs(path: Path) -> Path:
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_image(entry: dict[str, object]) -> bool:
    """Whether an entry of an index is an image, and not a note on one, such as how it was built."""
    annotations = entry.get("annotations")
    return not (isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations)


def _checked(layout: OciLayout, digest: str) -> Path:
    """Where the blob *digest* is; a digest must be one before it becomes part of a path."""
    if not is_digest(digest):
        raise EngineError("the engine's image layout names something that is no digest")
    blob = layout.blob(digest)
    if not blob.is_file():
        raise EngineError(f"the engine's image layout lacks {digest}")
    return blob
