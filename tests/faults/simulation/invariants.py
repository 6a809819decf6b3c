"""The promises, as they can be checked in the midst of a run and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from imgbuilder.core.builds import ENDED_WHILE_AWAY, NO_IMAGE, Build, BuildState
from imgbuilder.core.ids import SLOT_SECONDS
from imgbuilder.orchestrator.endings import CHECK_LIMIT
from imgbuilder.orchestrator.launching import BUILT_ELSEWHERE, SLOT_BORDER, STOPPING_LIMIT, UNAVAILABLE
from imgbuilder.orchestrator.logs import LogSettings
from imgbuilder.orchestrator.tracker import GRACE
from imgbuilder.orchestrator.watcher import RELIST
from imgbuilder.pb.builder import BuildResponse, BuildStatus
from tests.faults.simulation.manager import CALL_DEADLINE
from tests.faults.simulation.registry import LONGEST_LOOKUP
from tests.faults.simulation.scenario import MAXIMUM_DURATION
from tests.faults.simulation.supervisor import KEEPALIVE, TASKS_DEADLINE
from tests.faults.simulation.trace import Trace
from tests.faults.simulation.world import Workspace, World

if TYPE_CHECKING:
    from tests.faults.simulation.clients import BuildStream
    from tests.faults.simulation.replica import Life

BUILD_LIMIT: Final = 3 * LONGEST_LOOKUP + STOPPING_LIMIT + MAXIMUM_DURATION + CHECK_LIMIT + 5.0
"""In how many seconds a Build call ends, whatever happens: look-ups, an earlier workspace that does not stop,
the build, the look-up of its image."""
PHASES: Final = ("", "PENDING", "CREATING", "INITIALIZING", "RUNNING", "STOPPING", "STOPPED")

HEALING_LIMIT: Final = 1.25 * RELIST + CALL_DEADLINE + GRACE + CHECK_LIMIT + 10.0
"""In how many seconds after a build's end, or after all faults, whichever is later, its clients know."""

LISTENING_LIMIT: Final = TASKS_DEADLINE + 2 * LogSettings().retry.limit + 10.0
"""In how many seconds a supervisor that can be reached is listened to."""

LOG_LIMIT: Final = BUILD_LIMIT + 60.0
LOG_GRACE: Final = LogSettings().grace + 1.0
DISK_SLOWNESS: Final = 20.0

OVERDUE: Final = 60.0
"""How many seconds after its time limit a workspace must have been stopped, if it can be."""

LOST: Final = "connection lost"
TOO_LONG: Final = "build was stopped: it took longer"
UNCHECKED: Final = "cannot check if workspace image exists after the build"


class BrokenPromiseError(AssertionError):
    """A run in which something happened that must not."""


class Judge:
    """Compares what is told with the truth."""

    def __init__(self, world: World, trace: Trace) -> None:
        self._world = world
        self._trace = trace
        self.faults: list[str] = []
        self.races: dict[str, int] = {}
        """What happened that must not, but that nobody could have known: see `docs/guarantees.md`."""
        world.on_start.append(self._started)

    def broken(self, promise: str, why: str) -> None:
        """A promise was broken."""
        self._trace.note("JUDGE", f"BROKEN: {promise}", why=why)
        self.faults.append(f"{self._world.now():.3f}: {promise}: {why}")

    # --- one workspace per image ---

    def asked(self, life: Life, build_id: str, ref: str) -> str | None:
        """A replica asks for a workspace; what it remembers that its id could depend on."""
        if build_id in life.ended_builds:
            name = self._world.name(build_id)
            self.broken("a later build has another id", f"{name} asked for by {life.name}")
        slot_begin = life.replica.clock() // SLOT_SECONDS * SLOT_SECONDS
        remembered = [
            build.build_id
            for build in life.ended_builds.values()
            if build.ref == ref and build.started_at >= slot_begin
        ]
        return remembered[-1] if remembered else None

    def _started(self, workspace: Workspace) -> None:
        """A workspace was started. What one replica can't know of the other excuses it, and only that."""
        ref = workspace.status.ref
        for other in self._world.history:
            if other is workspace or not other.alive or other.status.ref != ref:
                continue
            by, before = workspace.asked_by, other.asked_by
            names = [self._world.name(each.status.build_id) for each in (workspace, other)]
            text = f"{names[0]} by {by.replica}, {names[1]} by {before.replica}"
            if any(each.started_at - each.asked_by.asked_at > SLOT_BORDER for each in (workspace, other)):
                self._race("a start had its effect late", text)
            elif other.started_at >= by.listed_as_of and by.remembers != before.remembers:
                self._race("replicas remember different builds", text)
            else:
                self.broken("one workspace per image", text)

    def _race(self, kind: str, text: str) -> None:
        self._trace.note("JUDGE", f"race: {kind}", between=text)
        self.races[kind] = self.races.get(kind, 0) + 1

    # --- the truth ---

    def build_changed(self, life: Life, build: Build) -> None:
        """A replica thinks otherwise of a build now."""
        before = life.ended_builds.get(build.build_id)
        if before is not None and before != build:
            self.broken("ended stays ended", f"{self._world.name(build.build_id)} in {life.name}")
        self._newer(life, build)
        why = ""
        if build.state is BuildState.SUCCEEDED:
            why = self._success(build)
        elif build.state is BuildState.FAILED:
            why = self._failure(life, build)
        if why:
            self.broken(why, f"{self._world.name(build.build_id)} in {life.name}: {build.message}")

    def _newer(self, life: Life, build: Build) -> None:
        """Whatever order statuses come in: nobody is told an older one after a newer one."""
        phase = PHASES.index(build.workspace_phase)
        before = life.phases.get(build.build_id, 0)
        if self._world.scenario.versioned and phase < before:
            self.broken("nothing old is told for new", self._world.name(build.build_id))
        life.phases[build.build_id] = max(phase, before)

    def _success(self, build: Build) -> str:
        """Which promise is broken by telling that *build* succeeded."""
        world = self._world
        if build.ref not in world.images:
            return "no success without an image"
        workspaces = world.of(build.build_id)
        if workspaces and all(workspace.building for workspace in workspaces):
            return "no success before the end"
        return ""

    def _failure(self, life: Life, build: Build) -> str:
        """Which promise is broken by telling that *build* failed."""
        workspaces = self._world.of(build.build_id)
        if build.message.startswith(TOO_LONG):
            known_since = [life.known_since[build.build_id], *(each.started_at for each in workspaces)]
            too_long = self._world.now() - min(known_since) >= MAXIMUM_DURATION - 2.0
            return "" if too_long else "no failure before its time"
        if build.message.startswith(UNCHECKED):
            return "" if self._may_be_unchecked(life, build) else "the registry decides if it can be asked"
        if build.message in (NO_IMAGE, f"{ENDED_WHILE_AWAY}: {NO_IMAGE}"):
            return self._no_image(workspaces)
        texts = {workspace.status.failure for workspace in workspaces}
        return "" if build.message in texts else "a failure's text is the workspace manager's"

    def _no_image(self, workspaces: Sequence[Workspace]) -> str:
        """Which promise is broken by telling that the build of *workspaces* made no image."""
        if not workspaces:
            return "no failure of a build that never was"
        if all(workspace.building for workspace in workspaces):
            return "no failure of a build that runs"
        if all(workspace.pushed for workspace in workspaces):
            return "no failure of a build that made its image"
        return ""

    def _may_be_unchecked(self, life: Life, build: Build) -> bool:
        checked_for = self._world.now() - life.checking_since[build.build_id]
        return (
            checked_for >= CHECK_LIMIT - 0.001
            and life.replica.images.failed_at > self._world.now() - CHECK_LIMIT
        )

    # --- what clients are told ---

    def told(self, stream: BuildStream, response: BuildResponse) -> None:
        """A client is told something."""
        who = stream.client.name
        before = stream.told[-1] if stream.told else None
        if before is not None and before.status in (BuildStatus.done_success, BuildStatus.done_failure):
            self.broken("nothing comes after the end", who)
        if response.info is None:
            if before is not None or response.status is not BuildStatus.done_success:
                self.broken("only an image that was there needs no build", who)
            if response.ref not in self._world.images:
                self.broken("no success without an image", who)
            return
        if before is None and response.status is not BuildStatus.running:
            self.broken("running comes first", who)
        if response.info.log_info is not None and not response.info.log_info.url:
            self.broken("no empty address of a log", who)
        if before is not None and before.info and before.info.build_id != response.info.build_id:
            self.broken("one call, one build", who)

    def call_ended(self, stream: BuildStream, ended: tuple[str, str]) -> None:
        """A Build call ended."""
        who = stream.client.name
        status, message = ended
        self._in_time(stream)
        last = stream.told[-1].status if stream.told else None
        final = last in (BuildStatus.done_success, BuildStatus.done_failure)
        if status == "OK" and not final:
            self.broken("OK comes after a final state", who)
        if status != "OK" and final and message != LOST:
            self.broken("no error after a final state", who)
        if status != "OK" and self._world.scenario.calm:
            self.broken("no error where nothing is wrong", f"{who}: {message}")
        if status != "OK" and not self._known_error(stream.life, message):
            self.broken("errors say what is wrong", f"{who}: {status} {message}")

    def _in_time(self, stream: BuildStream) -> None:
        """Whatever was lost, a client is told of an end soon after everything is well again."""
        info = next((response.info for response in stream.told if response.info), None)
        ends = [each.gone_at for each in self._world.of(info.build_id)] if info else []
        if ends and None not in ends:
            since = max(stream.began, self._world.scenario.well_from, *filter(None, ends))
            reading = 3.0 * stream.client.plan.slowness
            if self._world.now() > since + HEALING_LIMIT + reading:
                self.broken("lost news is made up for in time", f"{stream.client.name} since {since:.3f}")

    def _known_error(self, life: Life, message: str) -> bool:
        if message in (
            LOST,
            UNAVAILABLE,
            BUILT_ELSEWHERE,
            "cannot start build: an earlier workspace does not stop",
        ):
            return True
        if message.startswith(
            (
                "registry registry.test: ",
                "cannot resolve image: registry",
                "cannot check if image is already built: registry",
            )
        ):
            return True
        return message.removeprefix("cannot start build: ") in life.replica.manager.internal_errors

    def log_ended(self, life: Life, build_id: str, began: float, reading: float) -> None:
        """A Logs call ended by itself; *reading* is for how long the client was busy."""
        ended_at = life.ended_at.get(build_id)
        name = self._world.name(build_id)
        if ended_at is None:
            self.broken("a log ends after its build", name)
        elif self._world.now() > max(ended_at + LOG_GRACE, began) + reading + DISK_SLOWNESS:
            self.broken("a log ends soon after its build", name)

        if not self._heard_enough(life, build_id, began):
            self.broken("a log is complete where the supervisor could be asked for long enough", name)

    def _heard_enough(self, life: Life, build_id: str, began: float) -> bool:
        """Whether all was heard that the terminal printed, or there was no time for that."""
        workspace = self._world.workspaces.get(build_id)
        if workspace is None or workspace.gone_at is None:
            return True
        possible_since = max(
            workspace.terminal.printed_at,
            life.began,
            began if self._world.scenario.followed < 256 else 0.0,
            life.known_since[build_id],
            self._world.scenario.well_from + KEEPALIVE,
        )
        heard = life.supervisor.heard.get(build_id)
        known = heard.told_upto if heard else 0
        ended_at = min(workspace.gone_at, life.ended_at[build_id])
        return known == len(workspace.terminal.output) or ended_at < possible_since + LISTENING_LIMIT

    # --- the end ---

    def all_over(self) -> None:
        """Nothing happens any more, anywhere."""
        for workspace in self._world.history:
            overdue = self._world.now() - max(
                workspace.started_at + MAXIMUM_DURATION, self._world.scenario.well_from
            )
            if (
                workspace.building
                and overdue > OVERDUE
                and len(self._world.of(workspace.status.build_id)) == 1
            ):
                self.broken(
                    "a build that takes too long is stopped", self._world.name(workspace.status.build_id)
                )

    def over(self, life: Life) -> None:
        """Nothing happens any more in a process."""
        if life.bus.subscribers():
            self.broken("nothing is left over", f"{life.bus.subscribers()} subscriptions of {life.name}")
        if not life.idle:
            self.broken("nothing is left over", f"{life.tasks.running} tasks of {life.name}")
        if life.launcher._launches:
            self.broken("nothing is left over", f"launches of {life.name}")
        for build in life.tracker.running():
            self.broken("nothing runs in the end", f"{self._world.name(build.build_id)} in {life.name}")
