"""What builds leave on the machine: processes, mounts, containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio

from imgbuilder.standalone.engines.leftovers import MOUNTS, mounts_below


def processes_with(words: str) -> list[int]:
    """Those that have *words* on their command line."""
    return [pid for pid, line in command_lines() if words in line]


def command_lines() -> Iterator[tuple[int, str]]:
    """The command line of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(folder.name), line


def mounts(folder: Path) -> list[Path]:
    """The mount points in *folder*."""
    return mounts_below(folder.resolve(), MOUNTS.read_text())


def runtime_containers(folder: Path) -> list[Path]:
    """What container runtimes know of, for an engine that keeps that in *folder*."""
    return list(folder.glob("engines/*/runtime/*/*"))


async def there(words: str) -> None:
    """Wait until a process has *words* on its command line."""
    with anyio.fail_after(15):
        while not processes_with(words):  # noqa: ASYNC110  # the kernel tells nobody: look again and again
            await anyio.sleep(0.02)


async def gone(words: str) -> None:
    """Wait until no process has *words* on its command line."""
    with anyio.fail_after(15):
        while processes_with(words):  # noqa: ASYNC110  # the kernel tells nobody: look again and again
            await anyio.sleep(0.02)
