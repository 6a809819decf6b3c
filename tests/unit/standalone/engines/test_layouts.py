"""Images on disk: layouts that are read and written, archives that become layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from imgbuilder.standalone.demo_image import (
    BusyboxNotFoundError,
    architecture_of,
    find_busybox,
    write_demo_image,
)
from imgbuilder.standalone.engines.archives import unpack_archive
from imgbuilder.standalone.engines.layouts import layout_folder, open_layout, write_blob, write_layer
from imgbuilder.standalone.engines.probing import exit_program
from imgbuilder.standalone.engines.protocol import EngineError
from tests.unit.standalone.engines import images


def digest(content: bytes) -> str:
    """What *content* goes by."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_written_layout_is_read_again(tmp_path: Path) -> None:
    """The same image; and everything in it has the digest that it goes by."""
    written = images.layout(tmp_path / "layout")
    assert open_layout(tmp_path / "layout") == written
    for blob in (tmp_path / "layout" / "blobs" / "sha256").iterdir():
        assert digest(blob.read_bytes()) == f"sha256:{blob.name}"
    manifest = json.loads(written.blob(written.digest).read_bytes())
    assert manifest["mediaType"] == written.media_type


def test_an_image_is_found_through_an_index(tmp_path: Path) -> None:
    """And what is only a note on how it was built is not taken for one."""
    path = tmp_path / "layout"
    image = images.layout(path)
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": 1}
    note = {**entry, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    kind = "application/vnd.oci.image.index.v1+json"
    index = write_blob(path, json.dumps({"manifests": [entry, note]}).encode(), kind)
    (path / "index.json").write_text(json.dumps({"manifests": [index.document()]}))
    assert open_layout(path) == image


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ("", "can't be read"),
        ("[]", "can't be read"),
        ('{"manifests": []}', "0 images"),
        ('{"manifests": [{"digest": "sha256:../../etc/passwd", "mediaType": "x"}]}', "no digest"),
        (json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64, "mediaType": "x"}]}), "lacks sha256:0"),
    ],
)
def test_a_broken_layout_is_the_engines_fault(tmp_path: Path, index: str, fault: str) -> None:
    """Nothing outside of its folder is read."""
    path = tmp_path / "layout"
    images.layout(path)
    (path / "index.json").write_text(index)
    with pytest.raises(EngineError, match=fault):
        open_layout(path)


def test_a_layout_without_a_layer_is_broken(tmp_path: Path) -> None:
    """It would fail to be pushed."""
    image = images.layout(tmp_path / "layout")
    manifest = json.loads(image.blob(image.digest).read_bytes())
    image.blob(manifest["layers"][0]["digest"]).unlink()
    with pytest.raises(EngineError, match="lacks"):
        open_layout(tmp_path / "layout")


def test_layers_are_compressed_once_and_always_alike(tmp_path: Path) -> None:
    """One that comes compressed stays as it is."""
    tar = images.layer("file", b"content" * 1000)
    first, diff_id = write_layer(tmp_path / "one", io.BytesIO(tar))
    again, _ = write_layer(tmp_path / "two", io.BytesIO(tar))
    assert first == again
    assert diff_id == digest(tar)
    assert first.size < len(tar)
    compressed = gzip.compress(tar, 9)
    kept, same_diff_id = write_layer(tmp_path / "three", io.BytesIO(compressed))
    assert (kept.digest, same_diff_id) == (digest(compressed), diff_id)


def test_an_unfinished_layout_is_deleted(tmp_path: Path) -> None:
    """Whatever happened."""
    with suppress(KeyboardInterrupt), layout_folder(tmp_path) as unfinished:
        images.layout(unfinished)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with layout_folder(tmp_path) as path:
        images.layout(path)
    assert list(tmp_path.iterdir()) == [path]


async def test_an_archive_becomes_a_layout(tmp_path: Path) -> None:
    """Same configuration, same layers, in order."""
    layers = [images.layer("a", b"1"), images.layer("b", b"2")]
    diff_ids = [digest(tar) for tar in layers]
    file = images.archive(tmp_path / "image.tar", layers, diff_ids)
    image = await unpack_archive(file, tmp_path / "layout")
    assert open_layout(tmp_path / "layout") == image
    manifest = json.loads(image.blob(image.digest).read_bytes())
    unpacked = [gzip.decompress(image.blob(entry["digest"]).read_bytes()) for entry in manifest["layers"]]
    assert unpacked == layers
    assert image.blob(manifest["config"]["digest"]).read_bytes() == images.config(diff_ids)


async def test_an_archive_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    """Other layers, no image, two of them, no archive at all."""
    tar = images.layer("a", b"1")
    wrong = images.archive(tmp_path / "wrong", [tar], [digest(b"other")])
    two = images.archive(tmp_path / "two", [tar], [digest(tar)], images=2)
    noise = tmp_path / "noise"
    noise.write_bytes(b"noise" * 1000)
    for file, fault in [(wrong, "other layers"), (two, "2 images"), (noise, "can't be read")]:
        with pytest.raises(EngineError, match=fault):
            await unpack_archive(file, tmp_path / f"layout of {file.name}")


async def test_unpacking_ends_soon_when_cancelled(tmp_path: Path) -> None:
    """Though it works in a thread."""
    layers = [images.layer(str(number), bytes(4 << 20)) for number in range(8)]
    file = images.archive(tmp_path / "image.tar", layers, [digest(tar) for tar in layers])
    with anyio.move_on_after(0.01) as scope:
        await unpack_archive(file, tmp_path / "layout")
    assert scope.cancelled_caught
    assert not (tmp_path / "layout" / "index.json").exists()


# --- the demo's base image ---


def test_the_demo_image_is_always_the_same(tmp_path: Path) -> None:
    """Nothing of the machine or the time gets into it, but the program."""
    program = tmp_path / "busybox"
    program.write_bytes(exit_program("x86_64") or b"")
    first = write_demo_image(tmp_path / "one", program)
    second = write_demo_image(tmp_path / "two", program)
    assert first.digest == second.digest
    assert open_layout(tmp_path / "one") == first


def test_a_busybox_that_needs_libraries_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image has no libraries."""
    static, dynamic, text = (tmp_path / name for name in ("static", "dynamic", "text"))
    program = exit_program("aarch64") or b""
    static.write_bytes(program)
    dynamic.write_bytes(program[:64] + b"\x03" + program[65:])  # its first segment names a loader
    text.write_text("#!/bin/sh\n")
    places = "imgbuilder.standalone.demo_image.PLACES"
    monkeypatch.setattr(places, [str(tmp_path / "none"), str(text), str(dynamic), str(static)])
    assert find_busybox() == static
    assert architecture_of(program) == "arm64"
    monkeypatch.setattr(places, [str(dynamic)])
    with pytest.raises(BusyboxNotFoundError, match="busybox-static"):
        find_busybox()
