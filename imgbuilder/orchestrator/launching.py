"""Starting builds: one workspace per workspace image, however many ask, here and in other replicas.

Whoever asks for an image that is being built attaches. Otherwise one launch per image runs in the service's
own tasks (a caller that leaves stops nothing): it looks for a workspace that another replica started, then
asks for one under an id that the other replicas derive as well, so that of two starts one is refused and
attaches to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeGuard

import anyio
import structlog

from imgbuilder.core.builds import (
    Build,
    BuildState,
    StartRefused,
    WorkspaceSeen,
)
from imgbuilder.core.ids import SLOT_SECONDS
from imgbuilder.core.ids import build_id as next_build_id
from imgbuilder.core.workspace import BuildPlan, WorkspaceSettings, start_request
from imgbuilder.orchestrator.errors import BuildNotStartedError
from imgbuilder.orchestrator.ports import WallClock, WorkspaceManager
from imgbuilder.orchestrator.predecessors import Predecessors
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
"""How often a start is tried again while the workspace manager is unavailable, after 1, 2, 3 … seconds."""

UNAVAILABLE: Final = "workspace services are currently unavailable"

PATIENCE: Final = 1.0
"""After how many seconds callers are told of a build whose start was not answered yet."""

BUILT_ELSEWHERE: Final = "the image is being built by another replica: ask again"

LIST_LIMIT: Final = 15.0
"""How long, in seconds, to look for workspaces of other replicas at a time."""

SLOT_BORDER: Final = 5.0
"""For how many seconds before ids change no new one is derived: more than a start takes until it is listed."""

STOPPING_LIMIT: Final = 600.0
"""How long, in seconds, to wait for a workspace of an earlier build to be gone."""

_INTERNAL: Final = BuildNotStartedError("cannot start build: internal error", unavailable=False)


@dataclass(slots=True, kw_only=True)
class _Launch:
    """A build on its way.

    :ivar settled: is set once there is an *outcome*.
    :ivar asked: is set once a workspace was asked for, or there is an outcome.
    :ivar proposed: the id under which a workspace is asked for.
    :ivar told: whether callers were told of a build of that id.
    """

    plan: BuildPlan
    forced: bool
    settled: anyio.Event = field(default_factory=anyio.Event)
    asked: anyio.Event = field(default_factory=anyio.Event)
    outcome: Build | BuildNotStartedError | None = None
    proposed: str = ""
    told: bool = False


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
        self._predecessors = Predecessors(tracker=tracker, workspaces=workspaces)
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._metrics = metrics
        self._launches: dict[str, _Launch] = {}

    async def attach_or_start(self, plan: BuildPlan, *, forced: bool = False) -> Build:
        """The build of ``plan.ref``: the one that runs, or a new one.

        Returns as soon as the build is known: when its start was answered, or was asked for `PATIENCE` ago.
        Cancelling it does not cancel the start.

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
        await launch.asked.wait()
        with anyio.move_on_after(PATIENCE):
            await launch.settled.wait()
        if not launch.settled.is_set() and launch.proposed:
            known = self._tracker.get(launch.proposed)
            if known is None or not known.state.ended:
                launch.told = True
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
            launch.asked.set()

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
        """Try until there is a build, as long as that makes sense."""
        failures = 0
        with anyio.move_on_after(STOPPING_LIMIT):
            while True:
                try:
                    found = await self._attempt(launch)
                except WorkspaceManagerUnavailableError as error:
                    failures += 1
                    log.warning(
                        "workspace not started yet",
                        build_id=launch.proposed,
                        ref=launch.plan.ref,
                        attempt=failures,
                        reason=error.fault,
                    )
                    if failures > RETRIES:
                        raise BuildNotStartedError(UNAVAILABLE, unavailable=True) from error
                    await anyio.sleep(failures)
                    continue
                except WorkspaceManagerError as error:
                    message = f"cannot start build: {error.fault}"
                    raise BuildNotStartedError(message, unavailable=False) from error
                if isinstance(found, Build):
                    return self._settle_on(found, launch)
                build = await self._predecessors.end_of(found)
                if build is not None and (not build.state.ended or _good_enough(build, launch)):
                    return self._settle_on(build, launch)
        raise BuildNotStartedError("cannot start build: an earlier workspace does not stop", unavailable=True)

    async def _attempt(self, launch: _Launch) -> Build | str:
        """Find a build of the image, or start one.

        Before every start there is a look at what is there: while this launch waited, another replica may have
        started a build, or an earlier start may have had its effect although its answer was lost.

        :returns: the build, or the id of an earlier one that must be gone first.
        :raises WorkspaceManagerError: if there is no telling what is there, or no workspace to be had.
        """
        if not launch.proposed:
            await self._pass_slot_border()
        workspaces = await self._existing(launch.plan.ref)
        # What comes of this is decided without waiting for anything else.
        found = self._meanwhile(launch)
        for workspace in workspaces:
            build = self._tracker.see(workspace)
            if found is None and not workspace.ended and not build.state.ended:
                self._metrics.build_attached()
                return build
        if found is None and workspaces:
            return workspaces[0].build_id
        return found or await self._start(launch)

    def _meanwhile(self, launch: _Launch) -> Build | str | None:
        """The build of the image that the watcher found, or the id of one that has ended already."""
        build = self._tracker.get(launch.proposed)
        if build is not None and build.state is not BuildState.STARTING:
            if launch.told or not build.state.ended:
                return build
            launch.proposed = ""
            return build.build_id
        build = self._tracker.active(launch.plan.ref)
        return None if build is None or build.state is BuildState.STARTING else build

    def _settle_on(self, build: Build, launch: _Launch) -> Build:
        """Callers that were told of another build, which was not started, have to ask again."""
        proposed = self._tracker.get(launch.proposed)
        if proposed is not None and proposed.build_id != build.build_id and not proposed.state.ended:
            self._tracker.observe(launch.proposed, StartRefused(message=BUILT_ELSEWHERE, unavailable=True))
        return build

    async def _pass_slot_border(self) -> None:
        """Derive no id right before ids change.

        Whoever derives the next ones, a moment later in another replica, must find in the list what was
        started with these.
        """
        left = SLOT_SECONDS - self._clock() % SLOT_SECONDS
        if left < SLOT_BORDER:
            await anyio.sleep(left)

    async def _existing(self, ref: str) -> list[WorkspaceSeen]:
        """Workspaces of *ref* that have not stopped yet, whoever started them.

        :raises WorkspaceManagerUnavailableError: if that can't be told.
        """
        try:
            with anyio.fail_after(LIST_LIMIT):
                seen = await self._workspaces.list(ref=ref)
        except TimeoutError as error:
            raise WorkspaceManagerUnavailableError("DEADLINE_EXCEEDED", "no list in time") from error
        except WorkspaceManagerError as error:
            # Not the start's own fault, which would end the launch.
            raise WorkspaceManagerUnavailableError(error.code, error.fault) from error
        return [workspace for workspace in seen if workspace.ref == ref and not workspace.stopped]

    async def _start(self, launch: _Launch) -> Build | str:
        """Ask for a workspace.

        :returns: the build it is for, or the id of an earlier build whose workspace has the same id.
        """
        plan = launch.plan
        build_id = launch.proposed = launch.proposed or self._next_id(plan.ref)
        launch.asked.set()
        try:
            started = await self._workspaces.start(start_request(plan, build_id, self._settings))
        except WorkspaceExistsError:
            return await self._adopt(launch, build_id)
        self._metrics.build_started()
        log.info("build started", build_id=build_id, ref=plan.ref, base_ref=plan.base_ref)
        return self._tracker.started(
            build_id,
            ref=plan.ref,
            base_ref=plan.base_ref,
            log_source=started.log_source,
        )

    def _next_id(self, ref: str) -> str:
        """An id that other replicas derive as well, and that no build had which is known here to have ended.

        Of builds that were started in earlier slots nothing goes into it: their ids can't come again, and not
        every replica remembers them.
        """
        now = self._clock()
        last = self._tracker.last_ended(ref, since=now - now % SLOT_SECONDS)
        while True:
            build_id = next_build_id(ref, last_ended=last, now=now)
            build = self._tracker.get(build_id)
            if build is None or not build.state.ended:
                return build_id
            last = build_id

    async def _adopt(self, launch: _Launch, build_id: str) -> Build | str:
        """Attach to the workspace of this id that is there already, unless it is about to be gone."""
        plan = launch.plan
        try:
            workspace = await self._workspaces.describe(build_id)
        except WorkspaceManagerError as error:
            raise WorkspaceManagerUnavailableError(error.code, error.fault) from error
        if workspace is None:
            # Gone since, or too new for what answered: in doubt nobody is told of it who does not know yet.
            self._tracker.started(build_id, ref=plan.ref, base_ref=plan.base_ref, log_source=None)
            launch.proposed = build_id if launch.told else ""
            return build_id
        build = self._tracker.see(workspace)
        if workspace.ended or build.state.ended:
            return build_id
        self._metrics.build_attached()
        return build


def _good_enough(build: Build | None, launch: _Launch) -> TypeGuard[Build]:
    """Whether *build*, which ended while a launch waited for it, is what the launch was to bring about."""
    return build is not None and build.state is BuildState.SUCCEEDED and not launch.forced
