"""The data folder: one instance at a time, and what it remembers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgbuilder.core.secrets import Secret
from imgbuilder.pb.wsman import WorkspaceMetadata, WorkspacePhase, WorkspaceSpec
from imgbuilder.standalone.state import (
    DataFolderError,
    DataFolderInUseError,
    open_data_folder,
    remove_tree,
)
from imgbuilder.standalone.workspaces import INTERRUPTED, Workspace


def workspace(workspace_id: str = "w") -> Workspace:
    """One that runs."""
    return Workspace(
        workspace_id=workspace_id,
        metadata=WorkspaceMetadata(owner="ann", meta_id=workspace_id, annotations={"ref": "r"}),
        spec=WorkspaceSpec(url="http://127.0.0.1:1/w", timeout="1h"),
        owner_token=Secret("t0ken"),
        phase=WorkspacePhase.RUNNING,
    )


def test_a_second_instance_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    """Who has the folder is named, and what to do about it."""
    code = (
        "import sys; from pathlib import Path; from imgbuilder.standalone.state import *\n"
        "with open_data_folder(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(DataFolderInUseError, match=f"in use by the process {other.pid}") as refused:
            open_data_folder(tmp_path).__enter__()
        assert "--data-dir" in str(refused.value)
        other.kill()
    with open_data_folder(tmp_path) as folder:
        assert folder.scratch.is_dir()
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_folder_is_made_and_private(tmp_path: Path) -> None:
    """It holds credentials for a while: nobody else may look."""
    path = tmp_path / "a" / "b"
    with open_data_folder(path) as folder:
        assert path.stat().st_mode & 0o777 == 0o700
        assert folder.run == 1
    with open_data_folder(path) as folder:
        assert folder.run == 2


def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    """A file in the way is the user's to remove."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="can't be used"), open_data_folder(tmp_path / "file"):
        pass


def test_running_builds_are_interrupted_builds_of_the_next_run(tmp_path: Path) -> None:
    """What was not forgotten is reported as failed, in versions above all that were told before."""
    with open_data_folder(tmp_path) as folder:
        running = workspace()
        folder.journal.add(running)
        folder.journal.add(workspace("done"))
        folder.journal.remove("done")
        folder.journal.remove("never known")
        last = folder.journal.first_version + 1000
    with open_data_folder(tmp_path) as folder:
        (found,) = folder.journal.left_behind()
        assert found.workspace_id == "w"
        assert found.phase == WorkspacePhase.STOPPED
        assert found.outcome == INTERRUPTED
        assert found.metadata == running.metadata
        assert found.version > last
        assert not found.spec.url
        folder.journal.remove("w")
        assert not folder.journal.left_behind()


def test_no_secret_is_written(tmp_path: Path) -> None:
    """The owner token of a build is for its life only."""
    with open_data_folder(tmp_path) as folder:
        folder.journal.add(workspace())
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"t0ken" not in file.read_bytes()


def test_a_file_that_can_not_be_read_is_dropped(tmp_path: Path) -> None:
    """Damage to one entry hides no other, and does not stay."""
    with open_data_folder(tmp_path) as folder:
        folder.journal.add(workspace())
    (tmp_path / "builds" / "broken.build").write_bytes(b"\xff\xff")
    (tmp_path / "runs").write_text("nonsense")
    with open_data_folder(tmp_path) as folder:
        assert [found.workspace_id for found in folder.journal.left_behind()] == ["w"]
        assert not (tmp_path / "builds" / "broken.build").exists()


def test_what_builds_left_is_removed(tmp_path: Path) -> None:
    """Scratch folders of a run that was killed are gone, links in them not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    with open_data_folder(tmp_path / "data") as folder:
        left = folder.scratch / "build" / "deep"
        left.mkdir(parents=True)
        (left / "file").write_text("")
        (left / "link").symlink_to(outside)
        (folder.scratch / "link").symlink_to(outside)
        folder.clear_scratch()
        assert not list(folder.scratch.iterdir())
    assert (outside / "kept").exists()
    remove_tree(tmp_path / "not there")
