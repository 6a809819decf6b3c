"""The data folder: who may use it, and what must outlive a kill of the process.

A lock keeps a second instance away. A journal keeps which builds run, so that those a killed process left
behind are reported as failed. Everything in the folder may be deleted while nobody uses it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import structlog

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.wsman import WorkspaceMetadata, WorkspacePhase, WorkspaceSpec, WorkspaceStatus
from imgbuilder.runtime.grpc.codec import decode, encode
from imgbuilder.runtime.grpc.wire import DecodeError
from imgbuilder.standalone.workspaces import INTERRUPTED, Workspace, describe

log = structlog.get_logger(__name__)

PRIVATE: Final = 0o700
VERSIONS_PER_RUN: Final = 1 << 32
"""How many versions of one workspace a run of the workspace manager can count before the next one's begin."""


class DataFolderError(ImgbuilderError):
    """The data folder can't be used."""


class DataFolderInUseError(DataFolderError):
    """Another instance uses the data folder.

    :ivar pid: its process id, as it says; empty if it does not.
    """

    def __init__(self, path: Path, pid: str) -> None:
        who = f"by the process {pid}" if pid else "by another process"
        super().__init__(
            f"the data folder {path} is in use {who}: stop it, or choose another with --data-dir"
        )
        self.pid = pid


class DataFolder:
    """Where things are in the data folder, which is ours alone.

    :ivar path: without links: what belongs to the folder is found again by it.
    :ivar run: counts the times the folder was opened, from 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = _count_run(path / "runs")
        self.scratch = _made(path / "scratch")
        self.registry = _made(path / "registry")
        self.journal = Journal(_made(path / "builds"), run=self.run)

    def clear_scratch(self) -> None:
        """Remove what builds of earlier runs left behind. What can't be removed is logged."""
        for entry in self.scratch.iterdir():
            remove_tree(entry)


@contextmanager
def open_data_folder(path: Path) -> Iterator[DataFolder]:
    """The data folder at *path*, made if it is not there, and locked until the block is left.

    The lock goes with the process, however that ends.

    :raises DataFolderInUseError: if another process has it.
    :raises DataFolderError: if it can't be made or written to.
    """
    try:
        _made(path)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise _unusable(path, error) from error
    with lock:
        _lock(lock, path)
        try:
            folder = DataFolder(path.resolve())
        except OSError as error:
            raise _unusable(path, error) from error
        yield folder


class Journal:
    """The builds that have not ended, one file each.

    :ivar first_version: from where the versions of this run's workspaces count: above those of all earlier runs.
    """

    def __init__(self, folder: Path, *, run: int) -> None:
        self._folder = folder
        self.first_version = run * VERSIONS_PER_RUN

    def add(self, workspace: Workspace) -> None:
        """Keep that *workspace* exists; nothing secret of it is written.

        :raises DataFolderError: if that can't be written.
        """
        status = WorkspaceStatus(
            id=workspace.workspace_id,
            metadata=workspace.metadata,
            spec=workspace.spec,
        )
        try:
            _write(self._file(workspace.workspace_id), encode(status))
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def remove(self, workspace_id: str) -> None:
        """Forget a workspace; unknown ones are fine. A file that can't be removed is logged."""
        try:
            self._file(workspace_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot forget a build", workspace_id=workspace_id, fault=error.strerror)

    def left_behind(self) -> list[Workspace]:
        """The workspaces of earlier runs, as ones that were interrupted and are gone."""
        found = []
        for file in sorted(self._folder.glob("*.build")):
            try:
                status = decode(WorkspaceStatus, file.read_bytes())
            except (OSError, DecodeError) as error:
                log.warning("cannot read what is known of a build", file=str(file), fault=str(error))
                file.unlink(missing_ok=True)
                continue
            found.append(self._interrupted(status))
        return found

    def _interrupted(self, status: WorkspaceStatus) -> Workspace:
        spec = WorkspaceSpec() if status.spec is None else status.spec
        spec.url = ""  # nobody answers there
        return Workspace(
            workspace_id=status.id,
            metadata=WorkspaceMetadata() if status.metadata is None else status.metadata,
            spec=spec,
            owner_token=Secret(""),
            phase=WorkspacePhase.STOPPED,
            message=describe(INTERRUPTED),
            outcome=INTERRUPTED,
            version=self.first_version,
        )

    def _file(self, workspace_id: str) -> Path:
        return self._folder / f"{workspace_id}.build"


def remove_tree(path: Path) -> None:
    """Remove *path* and what is in it. What can't be removed is logged, and left for the next start."""

    def tell(_: object, name: str, reason: tuple[type[BaseException], BaseException, object]) -> None:
        log.warning("cannot remove a file of a build", path=name, fault=str(reason[1]))

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=tell)
    else:
        path.unlink(missing_ok=True)


def _lock(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        raise DataFolderInUseError(path, lock.read(20).strip()) from error
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _count_run(file: Path) -> int:
    try:
        run = int(file.read_text()) + 1
    except (FileNotFoundError, ValueError):
        run = 1
    _write(file, str(run).encode())
    return run


def _made(path: Path) -> Path:
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    return path


def _write(file: Path, data: bytes) -> None:
    """Write *file* so that it is there as a whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(data)
    part.replace(file)


def _unusable(path: Path, error: OSError) -> DataFolderError:
    return DataFolderError(f"the data folder {path} can't be used: {error.strerror}")
