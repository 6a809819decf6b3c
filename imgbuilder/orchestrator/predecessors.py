"""Workspaces of earlier builds that must be gone before the next build of the same image starts.

Decides when one is gone, and that one which runs although its build has ended must be stopped. Starts nothing.
"""

from __future__ import annotations

import itertools
from typing import Final

import anyio
import structlog

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import Build, BuildState, WorkspaceGone, WorkspaceSeen
from imgbuilder.orchestrator.ports import WorkspaceManager
from imgbuilder.orchestrator.tracker import GRACE, Tracker
from imgbuilder.wsman.errors import WorkspaceManagerError

log = structlog.get_logger(__name__)

POLL: Final = Backoff(first=0.1, factor=2.0, limit=2.0)
LAST_PHASES: Final = ("STOPPING", "STOPPED")


class Predecessors:
    """Waits for the workspaces of earlier builds."""

    def __init__(self, *, tracker: Tracker, workspaces: WorkspaceManager) -> None:
        self._tracker = tracker
        self._workspaces = workspaces

    async def end_of(self, build_id: str) -> Build | None:
        """Wait until the workspace of a build is gone and the build has ended.

        :returns: the build; also if it turns out that it runs. None if nobody remembers it.
        """
        known_since = anyio.current_time()
        for attempt in itertools.count():
            # Before that, what is missing may only be too new for what answers, and what runs too old.
            certain = anyio.current_time() >= known_since + GRACE
            try:
                workspace = await self._workspaces.describe(build_id)
            except WorkspaceManagerError as error:
                log.debug("workspace not described", build_id=build_id, reason=error.fault)
            else:
                build = self._tracker.see(workspace) if workspace else self._tracker.get(build_id)
                if workspace and not workspace.ended and build and build.state is BuildState.RUNNING:
                    return build
                if self._is_gone(workspace, build, certain=certain):
                    break
                if workspace and not workspace.ended and certain:
                    await self._stop(build_id)
            await anyio.sleep(POLL.delay(attempt, 0.5))
        return await self._end_without_workspace(build_id)

    def _is_gone(self, workspace: WorkspaceSeen | None, build: Build | None, *, certain: bool) -> bool:
        if workspace is not None:
            return workspace.stopped
        # One that was seen to stop is not too new.
        return certain or (build is not None and build.workspace_phase in LAST_PHASES)

    async def _stop(self, build_id: str) -> None:
        """Stop a workspace that runs although its build has ended: nobody waits for it, and it is in the way.

        It took too long, or a start that nobody expected to have an effect any more had one.
        """
        log.warning("stopping a workspace whose build has ended", build_id=build_id)
        try:
            await self._workspaces.stop(build_id)
        except WorkspaceManagerError as error:
            log.warning("workspace not stopped yet", build_id=build_id, reason=error.fault)

    async def _end_without_workspace(self, build_id: str) -> Build | None:
        """Wait until a build has ended whose workspace is gone."""
        with self._tracker.watch(build_id) as changes:
            build = self._tracker.get(build_id)
            if build is not None and build.state is BuildState.RUNNING:
                build = self._tracker.observe(build_id, WorkspaceGone())
            while build is not None and not build.state.ended:
                build = await changes.receive()
        return build
