"""Programs that stand in for an engine's: they write down what they are told, and do what a test says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RECORD: Final = """\
#!/bin/sh
{
    printf '%s\\000' NAME "$@"
    printf '\\001'
} >> 'CALLS'
for value in "$@"; do
    case "$value" in
        *dest=*) destination="${value##*dest=}" ;;
        docker-archive:*) archive="${value#docker-archive:}" ;;
    esac
done
after() {  # the argument after another
    wanted="$1"; shift
    while [ $# -gt 1 ]; do [ "$1" = "$wanted" ] && echo "$2"; shift; done
}
"""


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder of programs, the only ones beside the usual tools that are found.

    In a script, ``$destination`` and ``$archive`` are where an image is wanted, and ``after OPTION "$@"`` is what
    stands after an option.
    """

    folder: Path

    def add(self, name: str, script: str) -> None:
        """Have a program *name* run *script*."""
        text = _RECORD.replace("NAME", name).replace("CALLS", str(self.record))
        file = self.folder / name
        file.write_text(text + script)
        file.chmod(0o755)

    @property
    def record(self) -> Path:
        """Where programs write down what they are told."""
        return self.folder / "calls"

    @property
    def calls(self) -> list[list[str]]:
        """The command lines so far."""
        if not self.record.exists():
            return []
        lines = self.record.read_text().split("\1")
        return [line.split("\0")[:-1] for line in lines if line]

    def calls_of(self, *words: str) -> list[list[str]]:
        """Those that have all of *words* in them."""
        return [call for call in self.calls if set(words) <= set(call)]


def auths(text: str) -> dict[str, dict[str, str]]:
    """The credentials in a ``config.json``."""
    found: dict[str, dict[str, str]] = json.loads(text)["auths"]
    return found
