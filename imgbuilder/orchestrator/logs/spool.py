"""The folder on disk that logs are moved to, and one file in it per log.

Moves bytes to given places and back. Everything that touches the disk runs in worker threads of its own, so
that a disk that hangs holds up neither the event loop nor what else runs in threads. No file stays open.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import anyio
import structlog

log = structlog.get_logger(__name__)

THREADS: Final = 4
PREFIX: Final = "run-"
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Outcome(enum.Enum):
    """What became of something that was to be written."""

    WRITTEN = "it was"
    FAILED = "it was not; anything may be where it should be"
    LOST = "it was not, and what was written before is gone"


class _LostError(OSError):
    """A file is shorter than it was: somebody has removed or emptied it."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, "somebody has removed what was kept")


class SpoolFolder:
    """A folder for the files of this process. Everything in it is removed when it is closed.

    Each process has a folder of its own in *base*, which it locks; those that nobody has locked were left
    over, and are removed. So several processes can share *base*, and nothing of others is touched. A folder
    that could not be made, or was removed by somebody else, is made when something is to be written.

    :param on_fault: is called each time that something can't be written or read.
    :ivar used: bytes that the files in it have.
    """

    def __init__(self, base: Path | None, *, on_fault: Callable[[], None] = lambda: None) -> None:
        self._base = base
        self._on_fault = on_fault
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._folder: int | None = None
        self._files = 0
        self._working = True
        self._closed = False
        self.used = 0

    async def open(self) -> None:
        """Prepare the folder. While that is not possible, all that follows fails, and only that."""
        try:
            await self.run(self._open)
        except OSError as error:
            self.failed(error)

    async def close(self) -> None:
        """Remove the folder. What is written after that is not, and nobody is told."""
        self._closed = True
        await self.run(self._close)

    def file(self) -> SpoolFile:
        """A file that does not exist yet."""
        self._files += 1
        return SpoolFile(self, str(self._files))

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run *function* in a worker thread. A cancellation waits for it."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)

    def failed(self, error: OSError) -> None:
        """Something could not be done: counted each time, logged once until it works again."""
        if self._closed:
            return
        self._on_fault()
        if self._working:
            self._working = False
            log.error("build logs can't be kept on disk", reason=error.strerror or str(error))

    def worked(self) -> None:
        """Something could be written."""
        if not self._working:
            self._working = True
            log.info("build logs can be kept on disk again")

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of a file in the folder; where the file may be made, so may the folder.

        :raises OSError: if it can't be opened, or the folder is closed.
        """
        try:
            return self._open_file(name, flags)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        self._make_again()
        return self._open_file(name, flags)

    def _open_file(self, name: str, flags: int) -> int:
        with self._lock:
            folder = os.dup(self._descriptor())
        try:
            return os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        finally:
            os.close(folder)

    def remove_file(self, name: str) -> None:
        """Remove a file from the folder, if it is there."""
        with self._lock, suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor())

    def _descriptor(self) -> int:
        if self._folder is None:
            raise FileNotFoundError(errno.ENOENT, "there is no folder for build logs")
        return self._folder

    def _make_again(self) -> None:
        """Make the folder where there is none any more."""
        with self._lock:
            if self._closed or self._is_there():
                return
            if self._folder is not None:
                os.close(self._folder)
                self._folder = None
            self._open()

    def _is_there(self) -> bool:
        try:
            return (
                self._path is not None
                and self._folder is not None
                and os.path.samestat(self._path.stat(), os.fstat(self._folder))
            )
        except OSError:
            return False

    def _open(self) -> None:
        base = self._base or _own_base()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusive(base):
            for leftover in base.glob(f"{PREFIX}*"):
                _remove_unless_locked(leftover)
            self._path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            self._folder = os.open(self._path, _FOLDER_FLAGS)
            _lock(self._folder)

    def _close(self) -> None:
        with self._lock:
            path, folder, self._path, self._folder = self._path, self._folder, None, None
        if folder is not None:
            os.close(folder)
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


class SpoolFile:
    """The file of one log: parts are written and read at their places.

    :ivar size: how large it is; whoever writes to it keeps account.
    """

    def __init__(self, folder: SpoolFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._written = 0
        """How long the file must be."""
        self.size = 0

    def resize(self, size: int) -> None:
        """Take down that the file has *size* bytes."""
        self._folder.used += size - self.size
        self.size = size

    async def write(self, parts: Sequence[tuple[int, bytes]]) -> Outcome:
        """Write each part at its position.

        Nothing is written where what was written before is gone: it would be read as zeros. What is written
        next is written all the same.
        """
        try:
            await self._folder.run(self._write, parts)
        except OSError as error:
            self._folder.failed(error)
            if not isinstance(error, _LostError):
                return Outcome.FAILED
            self._written = 0
            return Outcome.LOST
        self._written = max([self._written, *(position + len(data) for position, data in parts)])
        self._folder.worked()
        return Outcome.WRITTEN

    async def read(self, parts: Sequence[tuple[int, int]]) -> bytes:
        """The bytes at the positions and of the sizes in *parts*, in a row; fewer if not all can be read."""
        try:
            return await self._folder.run(self._read, parts)
        except OSError as error:
            self._folder.failed(error)
            return b""

    async def remove(self) -> None:
        """Remove it from the disk, if it is there."""
        self._written = 0
        await self._folder.run(self._folder.remove_file, self._name)

    def _write(self, parts: Sequence[tuple[int, bytes]]) -> None:
        descriptor = self._folder.open_file(self._name, os.O_WRONLY | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size < self._written:
                raise _LostError
            for position, data in parts:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, memoryview(data)[written:], position + written)
        finally:
            os.close(descriptor)

    def _read(self, parts: Sequence[tuple[int, int]]) -> bytes:
        descriptor = self._folder.open_file(self._name, os.O_RDONLY)
        try:
            read = []
            for position, size in parts:
                read.append(os.pread(descriptor, size, position))
                if len(read[-1]) < size:
                    break
            return b"".join(read)
        finally:
            os.close(descriptor)


def _own_base() -> Path:
    """A folder among the system's temporary files that is this user's alone."""
    base = Path(tempfile.gettempdir()) / f"imgbuilder-logs-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    # Anybody may have made it before us: what is to be removed in it must not be for others to decide.
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "the folder for build logs belongs to somebody else")
    base.chmod(0o700)
    return base


@contextmanager
def _exclusive(base: Path) -> Iterator[None]:
    """Keep other processes from looking for leftovers while a new folder is not locked yet."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_unless_locked(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, _FOLDER_FLAGS)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a folder, which also keeps systemd from cleaning it up; whether nobody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
