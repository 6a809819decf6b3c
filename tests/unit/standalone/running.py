"""Waiting for processes that are nobody's children any more."""

from __future__ import annotations

from pathlib import Path

import anyio

from imgbuilder.standalone.processes import find_marked


async def nothing_runs(owner: Path) -> None:
    """Wait until nothing runs on behalf of *owner*; it was killed, and may take a moment to be gone."""
    with anyio.fail_after(20):
        while find_marked(owner):  # noqa: ASYNC110  # not our child: the kernel tells nobody
            await anyio.sleep(0.005)
