"""Starting builds: one workspace per workspace image, however many ask, here and in other replicas.

Whoever asks for an image that is being built attaches. Otherwise one launch per image runs in the service's
own tasks (a caller that leaves stops nothing): it looks for a workspace that another replica started, then
asks for one under an id that the other replicas derive as well, so that of two starts one is refused and
attaches to the other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final, TypeGuard

import anyio
import structlog

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import (
    Build,
    BuildState,
    StartRefused,
    WorkspaceGone,
    WorkspaceSeen,
    WorkspaceStarted,
)
from imgbuilder.core.ids import build_id as next_build_id
from imgbuilder.core.workspace import BuildPlan, WorkspaceSettings, start_request
from imgbuilder.orchestrator.errors import BuildNotStartedError
from imgbuilder.orchestrator.ports import WallClock, WorkspaceManager
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)

log = structlog.get_logger(__name__)

RETRIES: Final = 10
"""How often a start is tried again that was refused as unavailable, after 1, 2, 3 … seconds."""

UNAVAILABLE: Final = "workspace services are currently unavailable"

PATIENCE: Final = 1.0
"""After how many seconds callers are told of a build whose start was not answered yet."""

LIST_LIMIT: Final = 5.0
"""How long, in seconds, to look for workspaces of other replicas before going on without."""

STOPPING_LIMIT: Final = 600.0
"""How long, in seconds, to wait for a workspace of an earlier build to be gone."""

POLL: Final = Backoff(first=0.1, factor=2.0, limit=2.0)
_INTERNAL: Final = BuildNotStartedError("cannot start build: internal error", unavailable=False)


@dataclass(slots=True, kw_only=True)
class _Launch:
    """A build on its way: *outcome* once it is settled, *proposed* as soon as its workspace is asked for."""

    plan: BuildPlan
    forced: bool
    settled: anyio.Event = field(default_factory=anyio.Event)
    outcome: Build | BuildNotStartedError | None = None
    proposed: str = ""


class Launcher:
    """Starts builds, or finds the one that runs."""

    def __init__(
        self,
        *,
        tracker: Tracker,
        workspaces: WorkspaceManager,
        settings: WorkspaceSettings,
        tasks: Tasks,
        clock: WallClock,
        metrics: Metrics,
    ) -> None:
        self._tracker = tracker
        self._workspaces = workspaces
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._metrics = metrics
        self._launches: dict[str, _Launch] = {}

    async def attach_or_start(self, plan: BuildPlan, *, forced: bool = False) -> Build:
        """The build of ``plan.ref``: the one that runs, or a new one.

        Returns as soon as the build is known: when its start was answered, or after `PATIENCE`. Cancelling it
        does not cancel the start.

        :param forced: whether an image that another replica makes right now is not good enough; a build that
            runs is good enough always.
        :raises BuildNotStartedError: if the workspace manager gave no workspace.
        """
        launch = self._launches.get(plan.ref)
        if launch is not None:
            self._metrics.build_attached()
            return await self._known(launch)
        build = self._tracker.active(plan.ref)
        if build is not None:
            self._metrics.build_attached()
            return build
        launch = self._launches[plan.ref] = _Launch(plan=plan, forced=forced)
        self._tasks.spawn(self._run, launch, name=f"start of {plan.ref}")
        return await self._known(launch)

    async def _known(self, launch: _Launch) -> Build:
        with anyio.move_on_after(PATIENCE):
            await launch.settled.wait()
        if not launch.settled.is_set() and launch.proposed:
            known = self._tracker.get(launch.proposed)
            if known is None or not known.state.ended:
                plan = launch.plan
                return self._tracker.starting(launch.proposed, ref=plan.ref, base_ref=plan.base_ref)
        await launch.settled.wait()
        if isinstance(launch.outcome, Build):
            return launch.outcome
        raise launch.outcome or _INTERNAL

    async def _run(self, launch: _Launch) -> None:
        try:
            launch.outcome = await self._launch(launch)
        except BuildNotStartedError as error:
            launch.outcome = self._refused(launch, error)
        except Exception:
            launch.outcome = self._refused(launch, _INTERNAL)
            raise  # a bug: its task logs it
        finally:
            del self._launches[launch.plan.ref]
            launch.settled.set()

    def _refused(self, launch: _Launch, error: BuildNotStartedError) -> Build | BuildNotStartedError:
        build = self._tracker.get(launch.proposed)
        if build is None or build.state.ended:
            log.warning("build not started", build_id=launch.proposed, reason=error.message)
            return error
        # Callers were told of it, or its workspace was seen: the build itself knows what the refusal means.
        build = self._tracker.observe(
            build.build_id,
            StartRefused(message=error.message, unavailable=error.unavailable),
        )
        return error if build.state.ended else build

    async def _launch(self, launch: _Launch) -> Build:
        with anyio.move_on_after(STOPPING_LIMIT):
            while True:
                for workspace in await self._existing(launch.plan.ref):
                    build = self._tracker.see(workspace)
                    if not workspace.ended and not build.state.ended:
                        self._metrics.build_attached()
                        return build
                    ended = await self._end_of(workspace.build_id)
                    if _good_enough(ended, launch):
                        return ended
                build_or_earlier = await self._start(launch)
                if isinstance(build_or_earlier, Build):
                    return build_or_earlier
                ended = await self._end_of(build_or_earlier)
                if _good_enough(ended, launch):
                    return ended
        raise BuildNotStartedError("cannot start build: an earlier workspace does not stop", unavailable=True)

    async def _existing(self, ref: str) -> list[WorkspaceSeen]:
        """Workspaces of *ref* that have not stopped yet, whoever started them."""
        try:
            with anyio.fail_after(LIST_LIMIT):
                seen = await self._workspaces.list(ref=ref)
        except (WorkspaceManagerError, TimeoutError):
            return []  # the start itself will tell whether the workspace manager is there
        return [workspace for workspace in seen if workspace.ref == ref and not workspace.stopped]

    async def _start(self, launch: _Launch) -> Build | str:
        """Ask for a workspace.

        :returns: the build it is for, or the id of an earlier build whose workspace has the same id and is
            stopping.
        """
        plan = launch.plan
        build_id = launch.proposed = next_build_id(
            plan.ref,
            last_ended=self._tracker.last_ended(plan.ref),
            now=self._clock(),
        )
        try:
            started = await self._start_patiently(plan, build_id)
        except WorkspaceExistsError:
            return await self._adopt(plan, build_id)
        self._metrics.build_started()
        log.info("build started", build_id=build_id, ref=plan.ref, base_ref=plan.base_ref)
        return self._tracker.started(
            build_id,
            ref=plan.ref,
            base_ref=plan.base_ref,
            log_source=started.log_source,
        )

    async def _start_patiently(self, plan: BuildPlan, build_id: str) -> WorkspaceStarted:
        request = start_request(plan, build_id, self._settings)
        for attempt in range(1, RETRIES + 2):
            try:
                return await self._workspaces.start(request)
            except WorkspaceExistsError:
                raise
            except WorkspaceManagerUnavailableError as error:
                log.warning(
                    "workspace not started yet", build_id=build_id, attempt=attempt, reason=error.fault
                )
                if attempt <= RETRIES:
                    await anyio.sleep(attempt)
            except WorkspaceManagerError as error:
                raise BuildNotStartedError(f"cannot start build: {error.fault}", unavailable=False) from error
        raise BuildNotStartedError(UNAVAILABLE, unavailable=True)

    async def _adopt(self, plan: BuildPlan, build_id: str) -> Build | str:
        """Attach to the workspace of this id that is there already."""
        try:
            workspace = await self._workspaces.describe(build_id)
        except WorkspaceManagerError as error:
            # It is there, so attach; what it does, the watcher will hear.
            log.warning("workspace exists but is not described", build_id=build_id, reason=error.fault)
            return self._tracker.started(build_id, ref=plan.ref, base_ref=plan.base_ref, log_source=None)
        if workspace is None:
            self._tracker.started(build_id, ref=plan.ref, base_ref=plan.base_ref, log_source=None)
            return build_id
        told = self._tracker.get(build_id)
        build = self._tracker.see(workspace)
        if workspace.ended and (told is None or told.state.ended):
            return build_id
        self._metrics.build_attached()
        return build

    async def _end_of(self, build_id: str) -> Build | None:
        """Wait until the workspace of a build is gone and the build has ended; None if nobody remembers it."""
        for attempt in itertools.count():
            try:
                workspace = await self._workspaces.describe(build_id)
            except WorkspaceManagerError as error:
                log.debug("workspace not described", build_id=build_id, reason=error.fault)
            else:
                if workspace is not None:
                    self._tracker.see(workspace)
                if workspace is None or workspace.stopped:
                    break
            await anyio.sleep(POLL.delay(attempt, 0.5))
        with self._tracker.watch(build_id) as changes:
            build = self._tracker.get(build_id)
            if build is not None and build.state is BuildState.RUNNING:
                build = self._tracker.observe(build_id, WorkspaceGone())
            while build is not None and not build.state.ended:
                build = await changes.receive()
        return build


def _good_enough(build: Build | None, launch: _Launch) -> TypeGuard[Build]:
    """Whether *build*, which ended while a launch waited for it, is what the launch was to bring about."""
    return build is not None and build.state is BuildState.SUCCEEDED and not launch.forced
