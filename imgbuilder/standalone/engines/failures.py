"""What a build that failed died of, read from what the engine said last.

Engines tell it in words only. What is not known to be the machine's fault counts as the Dockerfile's, so that
its author, who has the output as well, gets to see it.
"""

from __future__ import annotations

import re
from typing import Final

from imgbuilder.standalone.engines.protocol import BuildFailedError, EngineError
from imgbuilder.standalone.processes import Exit

LONGEST_FAULT: Final = 600

_TERMINAL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

_FAULTS: Final = re.compile(
    r"^(?:Error: |ERROR: |error: |Error response from daemon: )(?P<fault>.+)$|^(?P<legacy>The command .+)$",
    re.MULTILINE,
)
"""How the engines begin the line that says why a build failed."""

_RUN_STATUS: Final = re.compile(
    r"while running runtime: exit status (\d+)"  # buildah, podman
    r"|exit code: (\d+)"  # BuildKit
    r"|returned a non-zero code: (\d+)",  # Docker's legacy builder
)

_OF_THE_MACHINE: Final = re.compile(
    r"no space left on device|disk quota exceeded|cannot allocate memory|too many open files"
    r"|read-only file system|input/output error|cannot connect to the docker daemon"
    r"|connection error: desc|is buildkitd running|error reading from server|transport is closing"
    r"|error creating runtime|cannot set up namespace"
    r"|cgroups in hybrid mode|cgroup configuration|mounting overlay|creating overlay mount",
    re.IGNORECASE,
)


def failure(engine: str, ended: Exit, said: str) -> BuildFailedError | EngineError:
    """The error of a build that ended unwell.

    :param said: the end of what the engine wrote.
    """
    fault = last_words(said)
    status = _RUN_STATUS.search(fault)
    if status is not None:
        return BuildFailedError(int(next(filter(None, status.groups()))), fault)
    if ended.signal is not None:
        return EngineError(f"{engine} was {ended}")
    if not fault:
        return EngineError(f"{engine} failed with {ended}")
    if _OF_THE_MACHINE.search(fault):
        return EngineError(f"{engine}: {fault}")
    return BuildFailedError(ended.status, fault)


def last_fault(said: str) -> str:
    """The last line that says why something failed, without what engines put before it; empty for none."""
    found = ""
    for match in _FAULTS.finditer(_TERMINAL.sub("", said)):
        found = match["fault"] or match["legacy"]
    found = found.strip()
    return found if len(found) <= LONGEST_FAULT else found[:LONGEST_FAULT] + "…"


def last_words(said: str) -> str:
    """Why a program failed, in one line: its error if it tells one, else the last thing it said, if anything."""
    lines = [line.strip() for line in _TERMINAL.sub("", said).splitlines() if line.strip()]
    return last_fault(said) or (lines[-1][:LONGEST_FAULT] if lines else "")
