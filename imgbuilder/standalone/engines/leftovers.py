"""What a crash leaves on the machine below a folder: mounts and files.

Finds mounts on Linux only; engines on other systems keep theirs in a virtual machine.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from imgbuilder.standalone.processes import Command, ProgramNotFoundError, ask, environment

MOUNTS: Final = Path("/proc/self/mountinfo")
LIMIT: Final = 10.0


def mounts_below(folder: Path, table: str) -> list[Path]:
    """The mount points in *folder*, innermost first.

    :param table: the contents of a ``/proc/PID/mountinfo``.
    """
    points = [Path(_unescaped(line.split(" ")[4])) for line in table.splitlines() if line]
    return sorted((point for point in points if folder in point.parents), reverse=True)


def present_mounts_below(folder: Path) -> list[Path]:
    """The mount points that there are in *folder*, innermost first."""
    if not MOUNTS.exists():
        return []
    return mounts_below(folder.resolve(), MOUNTS.read_text(errors="surrogateescape"))


async def unmount_below(folder: Path) -> None:
    """Detach every mount in *folder*, as far as this user may."""
    points = present_mounts_below(folder)
    if not points:
        return
    command = ("umount", "--lazy", *map(str, points))
    try:
        await ask(Command(argv=command, env=environment(folder)), limit=LIMIT)
    except (ProgramNotFoundError, TimeoutError):
        return  # what can't be removed is found in the way by whoever needs the place


def remove_contents(folder: Path) -> None:
    """Delete what is in *folder*, as far as possible, and keep the folder."""
    for entry in folder.glob("*"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _unescaped(text: str) -> str:
    """A path from the kernel, which writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
