"""The disk that one process of the service keeps logs on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar, TypeVarTuple

import anyio

from imgbuilder.orchestrator.logs.spool import SpoolFile, SpoolFolder
from tests.faults.simulation.faults import Faults

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Disk(SpoolFolder):
    """Keeps files in memory; fails, and takes its time."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(None)
        self._chances = faults
        self.files: dict[str, bytearray] = {}

    def file(self) -> SpoolFile:
        """A file that does not exist yet."""
        self._files += 1
        return _File(self, str(self._files))

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Nor to close."""
        self.files.clear()

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run *function* after a while, or not at all."""
        faults = self._chances
        fault = faults.first("disk.full", "disk.slow")
        await anyio.sleep(faults.between(0.0, 5.0) if fault == "disk.slow" else faults.latency())
        if fault == "disk.full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*arguments)

    def remove_file(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.files.pop(name, None)


class _File(SpoolFile):
    _folder: Disk

    def _write(self, parts: Sequence[tuple[int, bytes]]) -> None:
        content = self._folder.files.setdefault(self._name, bytearray())
        for position, data in parts:
            content.extend(bytes(max(0, position - len(content))))
            content[position : position + len(data)] = data

    def _read(self, parts: Sequence[tuple[int, int]]) -> bytes:
        content = self._folder.files.get(self._name, bytearray())
        return b"".join(bytes(content[position : position + size]) for position, size in parts)
