"""The folder on disk: private, emptied of what nobody uses, bounded in descriptors, and dispensable."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from imgbuilder.orchestrator.logs.spool import Outcome, SpoolFolder
from imgbuilder.telemetry.metrics import Metrics
from tests.unit.logs.conftest import faults


def runs(base: Path) -> list[Path]:
    """The folders of processes."""
    return sorted(base.glob("run-*"))


def contents(folder: Path) -> list[str]:
    """The names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> int:
    """How many this process has."""
    return len(contents(Path("/proc/self/fd")))


async def test_parts_are_read_as_they_were_written(spool: SpoolFolder) -> None:
    """Parts have their places, in any order, and a part that was never written is not there."""
    file = spool.file()
    assert await file.write([(3, b"def"), (0, b"abc")]) is Outcome.WRITTEN
    assert await file.read([(1, 2), (3, 3)]) == b"bcdef"
    assert await file.read([(4, 10), (0, 3)]) == b"ef"
    assert await spool.file().read([(0, 1)]) == b""


async def test_files_are_for_the_service_alone(spool: SpoolFolder, tmp_path: Path) -> None:
    """Output may contain what others must not see."""
    await spool.file().write([(0, b"x")])
    (run,) = runs(tmp_path / "logs")
    (file,) = run.iterdir()
    assert run.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


async def test_no_file_stays_open(spool: SpoolFolder) -> None:
    """Thousands of logs must not need thousands of descriptors."""
    before = open_descriptors()
    for _ in range(20):
        file = spool.file()
        await file.write([(0, b"x")])
        await file.read([(0, 1)])
    assert open_descriptors() == before


async def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """A folder that a process left behind goes; one that is in use stays, and so does what is not ours."""
    (tmp_path / "run-dead").mkdir()
    (tmp_path / "run-dead" / "1").write_bytes(b"old")
    (tmp_path / "precious").mkdir()
    (tmp_path / "run-link").symlink_to(tmp_path / "precious")
    (tmp_path / "file").write_bytes(b"x")
    one, other = SpoolFolder(tmp_path), SpoolFolder(tmp_path)
    await one.open()
    await other.open()
    assert not (tmp_path / "run-dead").exists()
    assert len(runs(tmp_path)) == 3
    file = one.file()
    assert await file.write([(0, b"x")]) is Outcome.WRITTEN
    await other.close()
    assert await file.read([(0, 1)]) == b"x"
    await one.close()
    assert contents(tmp_path) == ["file", "precious", "run-link"]


async def test_by_default_it_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has the user's id in its name, and is for that user alone, whoever made it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = tmp_path / f"imgbuilder-logs-{os.geteuid()}"
    base.mkdir(mode=0o777)
    folder = SpoolFolder(None)
    await folder.open()
    assert len(runs(base)) == 1
    assert base.stat().st_mode & 0o777 == 0o700
    await folder.close()


async def test_a_default_folder_that_is_not_ours_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    """Somebody may have put a link where the folder should be."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"imgbuilder-logs-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    folder = SpoolFolder(None, on_fault=metrics.log_disk_failed)
    await folder.open()
    assert faults(metrics) == 1
    assert await folder.file().write([(0, b"x")]) is Outcome.FAILED
    await folder.close()
    assert contents(tmp_path / "elsewhere") == []


async def test_without_a_folder_nothing_can_be_kept_and_nothing_fails(
    tmp_path: Path, metrics: Metrics
) -> None:
    """A file in the place of the folder: the service runs, and each fault is counted."""
    (tmp_path / "logs").write_bytes(b"")
    folder = SpoolFolder(tmp_path / "logs", on_fault=metrics.log_disk_failed)
    await folder.open()
    file = folder.file()
    assert await file.write([(0, b"x")]) is Outcome.FAILED
    assert await file.read([(0, 1)]) == b""
    await file.remove()
    await folder.close()
    assert faults(metrics) == 3


async def test_a_folder_that_could_not_be_made_is_made_when_it_can_be(
    tmp_path: Path, metrics: Metrics
) -> None:
    """What is in its place goes, and logs are kept."""
    (tmp_path / "logs").write_bytes(b"")
    folder = SpoolFolder(tmp_path / "logs", on_fault=metrics.log_disk_failed)
    await folder.open()
    (tmp_path / "logs").unlink()
    file = folder.file()
    assert await file.write([(0, b"x")]) is Outcome.WRITTEN
    assert await file.read([(0, 1)]) == b"x"
    await folder.close()
    assert contents(tmp_path / "logs") == []


async def test_a_folder_that_was_removed_is_made_again(spool: SpoolFolder, tmp_path: Path) -> None:
    """New logs are kept; of one that was in it, what was written is gone, and nothing is read as zeros."""
    old, new = spool.file(), spool.file()
    assert await old.write([(0, b"abc")]) is Outcome.WRITTEN
    before = open_descriptors()
    shutil.rmtree(tmp_path / "logs")
    assert await new.write([(0, b"x")]) is Outcome.WRITTEN
    assert await new.read([(0, 1)]) == b"x"
    assert await old.write([(3, b"def")]) is Outcome.LOST
    assert await old.read([(0, 3)]) == b""
    assert await old.write([(3, b"def")]) is Outcome.WRITTEN
    assert await old.read([(3, 3)]) == b"def"
    assert len(runs(tmp_path / "logs")) == 1
    assert open_descriptors() == before


async def test_after_it_is_closed_nothing_is_written(tmp_path: Path) -> None:
    """A write that comes late can't land anywhere."""
    folder = SpoolFolder(tmp_path)
    await folder.open()
    file = folder.file()
    await folder.close()
    assert await file.write([(0, b"x")]) is Outcome.FAILED
    assert contents(tmp_path) == []
