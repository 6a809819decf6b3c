"""Image archives as ``docker save`` writes them, made into image layouts.

For engines that can't write a layout themselves, or lose parts of an image's configuration when they do
(buildah drops SHELL and HEALTHCHECK). Layers are compressed on the way.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from anyio import from_thread, to_thread

from imgbuilder.standalone.engines.layouts import Descriptor, Readable, write_layer, write_layout
from imgbuilder.standalone.engines.protocol import EngineError, OciLayout


async def unpack_archive(archive: Path, path: Path) -> OciLayout:
    """Make the one image in the file *archive* into a layout in the new folder *path*.

    Works in a thread, and ends soon when cancelled.

    :raises EngineError: if the archive is not of the expected form.
    """
    return await to_thread.run_sync(_unpack, archive, path)


class _UntilCancelled:
    """Reads from a file in a thread; raises when the task that waits for the thread is cancelled."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        from_thread.check_cancelled()
        return self._source.read(size)


def _unpack(archive: Path, path: Path) -> OciLayout:
    try:
        with tarfile.open(archive) as tar:
            images = json.loads(_member(tar, "manifest.json").read(1 << 20))
            if len(images) != 1:
                raise EngineError(f"the engine's archive has {len(images)} images instead of one")
            config = _member(tar, images[0]["Config"]).read(16 << 20)
            diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
            layers = [_layer(tar, name, path) for name in images[0]["Layers"] or []]
    except (OSError, tarfile.TarError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"the engine's archive can't be read: {error}") from error
    if [diff_id for _, diff_id in layers] != diff_ids:
        raise EngineError("the engine's archive has other layers than its configuration says")
    return write_layout(path, config, [layer for layer, _ in layers])


def _layer(tar: tarfile.TarFile, name: str, path: Path) -> tuple[Descriptor, str]:
    return write_layer(path, _UntilCancelled(_member(tar, name)))


def _member(tar: tarfile.TarFile, name: str) -> Readable:
    file = tar.extractfile(name)  # follows the links that stand for a layer which is there already
    if file is None:
        raise EngineError(f"the engine's archive has no file {name}")
    return file
