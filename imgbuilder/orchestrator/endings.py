"""What is left to do when a workspace has ended: look for the image, once per build; stop what runs too long."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Final

import anyio
import structlog

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import Build, Effect, ImageFound, ImageMissing, ImageNotChecked
from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.permissions import Permissions
from imgbuilder.core.references import Reference, parse_reference
from imgbuilder.orchestrator.ports import Images, WorkspaceManager
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.wsman.errors import WorkspaceManagerError

log = structlog.get_logger(__name__)

CHECK_LIMIT: Final = 30.0
"""For how many seconds the look-up of the image is tried."""

CHECK_BACKOFF: Final = Backoff(first=0.5, factor=2.0, limit=5.0)

STOP_LIMIT: Final = 3600.0
"""For how many seconds the stop of a workspace is tried: by then it has stopped by itself."""

STOP_BACKOFF: Final = Backoff(first=0.5, factor=2.0, limit=15.0)


class Endings:
    """Does what the tracker asks for at the end of a build, in the service's own tasks."""

    def __init__(
        self,
        *,
        tracker: Tracker,
        images: Images,
        workspaces: WorkspaceManager,
        tasks: Tasks,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._tracker = tracker
        self._images = images
        self._workspaces = workspaces
        self._tasks = tasks
        self._jitter = jitter
        tracker.on_effect(Effect.CHECK_IMAGE, self._check)
        tracker.on_effect(Effect.STOP_WORKSPACE, self._stop)

    def _check(self, build: Build) -> None:
        self._tasks.spawn(self._check_image, build, name=f"image check of build {build.build_id}")

    def _stop(self, build: Build) -> None:
        self._tasks.spawn(self._stop_workspace, build, name=f"stop of build {build.build_id}")

    async def _check_image(self, build: Build) -> None:
        try:
            observation = await self._look_up(build)
        except Exception:
            # In a way nobody thought of; but no client may wait for ever. A cancellation tells nothing: the
            # service ends, and the build with its clients is another process's.
            self._tracker.observe(build.build_id, ImageNotChecked(fault="internal error"))
            raise
        self._tracker.observe(build.build_id, observation)

    async def _look_up(self, build: Build) -> ImageFound | ImageMissing | ImageNotChecked:
        """Whether the image exists, with the service's own credentials, tried again until the time is up."""
        fault = "no answer in time"
        with anyio.move_on_after(CHECK_LIMIT):
            reference = parse_reference(build.ref)
            for attempt in itertools.count():
                try:
                    found = await self._is_there(reference)
                except ImgbuilderError as error:
                    fault = str(error)
                    log.warning("image not looked up yet", build_id=build.build_id, reason=fault)
                    await anyio.sleep(CHECK_BACKOFF.delay(attempt, self._jitter()))
                else:
                    return ImageFound() if found else ImageMissing()
        return ImageNotChecked(fault=fault)

    async def _is_there(self, reference: Reference) -> bool:
        """Whether the image is there now that the build has ended.

        Equal look-ups at the same time are one, so the first answer may be that of a look-up which a client
        began before the end, and so before the image was there. The second one began after it.
        """
        for _ in range(2):
            if await self._images.exists(reference, Permissions.everything(), retry=True):
                return True
        return False

    async def _stop_workspace(self, build: Build) -> None:
        with anyio.move_on_after(STOP_LIMIT):
            for attempt in itertools.count():
                try:
                    await self._workspaces.stop(build.build_id)
                except WorkspaceManagerError as error:
                    log.warning("workspace not stopped yet", build_id=build.build_id, reason=error.fault)
                    await anyio.sleep(STOP_BACKOFF.delay(attempt, self._jitter()))
                else:
                    return
        log.error("workspace not stopped", build_id=build.build_id)
