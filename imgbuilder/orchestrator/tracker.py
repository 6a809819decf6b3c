"""The builds: their sole owner. Takes in what is observed, publishes what changed, asks for what must be done.

All of it is synchronous: between taking a snapshot and subscribing nothing can change. What a build's
observations mean is decided in `imgbuilder.core.builds`; what has to be done is handed to whoever registered
for it, who answers with further observations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import anyio
import structlog

from imgbuilder.bus import Bus, Subscription, Topic
from imgbuilder.core.builds import (
    Build,
    BuildState,
    Effect,
    LogSource,
    Observation,
    TimeLimitReached,
    Transition,
    WorkspaceGone,
    WorkspaceSeen,
    WorkspaceStarted,
    observe,
    taken_over,
)
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.orchestrator.ports import WallClock
from imgbuilder.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

GRACE: Final = 10.0
"""How long, in seconds, a workspace may be missing from a listing after it was started: listings come from caches."""

REMEMBERED_ENDS: Final = 10_000
"""For how many images the id of the last build is remembered."""

SWEEP_INTERVAL: Final = 1.0

_NONE_ENDED: Final = ("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSettings:
    """:ivar maximum_duration: of a build, in seconds. :ivar retention: of an ended build, in seconds."""

    maximum_duration: float = 3600.0
    retention: float = 3600.0
    keep_ended: int = 1000


@dataclass(slots=True, kw_only=True)
class _Tracked:
    """A build and what only the tracker needs of it; times are those of the event loop."""

    build: Build
    deadline: float
    confirmed_at: float | None = None
    touched_at: float = 0.0
    ended_at: float | None = None
    order: int = 0


def build_topic(build_id: str) -> Topic[Build]:
    """Where the states of one build are published."""
    return Topic("build", build_id)


class Tracker:
    """Owns the builds that run, and for a while those that ended."""

    def __init__(self, *, bus: Bus, clock: WallClock, settings: TrackerSettings, metrics: Metrics) -> None:
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._builds: dict[str, _Tracked] = {}
        self._active: dict[str, dict[str, None]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._last_ended: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._ends = 0
        self._observers: list[Callable[[Build], None]] = []
        self._forgetters: list[Callable[[str], None]] = []
        self._actions: dict[Effect, Callable[[Build], None]] = {}
        metrics.observe_builds(self._count_by_phase)

    # --- wiring ---

    def on_change(self, observer: Callable[[Build], None]) -> None:
        """Call *observer* with every new state of every build, at once and in order. It must not raise."""
        self._observers.append(observer)

    def on_forget(self, forgetter: Callable[[str], None]) -> None:
        """Call *forgetter* with the id of each build that is not kept any longer."""
        self._forgetters.append(forgetter)

    def on_effect(self, effect: Effect, action: Callable[[Build], None]) -> None:
        """Call *action* with a build that needs *effect*."""
        self._actions[effect] = action

    # --- reading ---

    def get(self, build_id: str) -> Build | None:
        """The build of this id, running or ended a short while ago."""
        tracked = self._builds.get(build_id)
        return tracked.build if tracked else None

    def active(self, ref: str) -> Build | None:
        """The build of the workspace image *ref* that has not ended; should there be several, the first known."""
        build_id = next(iter(self._active.get(ref, ())), None)
        return self._builds[build_id].build if build_id else None

    def running(self) -> list[Build]:
        """The builds that have not ended, in the order they became known."""
        return [tracked.build for tracked in self._builds.values() if not tracked.build.state.ended]

    def find(self, *, ref: str, build_id: str) -> Build:
        """The build of *ref*, of *build_id*, or of both where both are given; of several the newest.

        :raises BuildNotFoundError: if there is none.
        """
        if not build_id:
            active = self.active(ref)
            build_id = active.build_id if active else self.last_ended(ref) or ""
        tracked = self._builds.get(build_id)
        if tracked is None or (ref and tracked.build.ref != ref):
            raise BuildNotFoundError
        return tracked.build

    def watch(self, build_id: str) -> Subscription[Build]:
        """A mailbox for the newest state of a build."""
        return self._bus.subscribe(build_topic(build_id))

    def last_ended(self, ref: str, *, since: float = 0.0) -> str | None:
        """The id of the build of *ref* that ended last, as far as this replica saw.

        :param since: a Unix time; a build that started before then does not count.
        """
        build_id, started_at = self._last_ended.get(ref, _NONE_ENDED)
        return build_id if build_id and started_at >= since else None

    def ends(self) -> int:
        """How many builds have ended: a mark to give to `succeeded_since`."""
        return self._ends

    def succeeded_since(self, ref: str, ends: int) -> Build | None:
        """A build of *ref* that succeeded after `ends` answered *ends*: whatever was looked up before is old."""
        tracked = self._builds.get(self.last_ended(ref) or "")
        if tracked and tracked.order > ends and tracked.build.state is BuildState.SUCCEEDED:
            return tracked.build
        return None

    # --- observing ---

    def starting(self, build_id: str, *, ref: str, base_ref: str) -> Build:
        """Take in a build whose workspace is being asked for."""
        tracked = self._builds.get(build_id)
        if tracked is None:
            now = int(self._clock())
            build = Build(build_id=build_id, ref=ref, base_ref=base_ref, started_at=now)
            self._add(build, deadline=anyio.current_time() + self._settings.maximum_duration)
            return build
        return tracked.build

    def started(self, build_id: str, *, ref: str, base_ref: str, log_source: LogSource | None) -> Build:
        """Take in that the workspace of a build was started just now."""
        self.starting(build_id, ref=ref, base_ref=base_ref)
        self._builds[build_id].confirmed_at = anyio.current_time()
        return self.observe(build_id, WorkspaceStarted(log_source=log_source))

    def see(self, seen: WorkspaceSeen) -> Build:
        """Take in a status of a workspace, of a build that is known or not."""
        tracked = self._builds.get(seen.build_id)
        now = anyio.current_time()
        if tracked is None:
            transition = taken_over(seen)
            age = max(0.0, self._clock() - seen.started_at) if seen.started_at else 0.0
            if age >= self._settings.maximum_duration:
                age = 0.0  # the workspace manager would have ended it: its clock is not ours
            build = replace(transition.build, started_at=seen.started_at or int(self._clock()))
            tracked = self._add(build, deadline=now + self._settings.maximum_duration - age)
            log.info("build taken over", build_id=seen.build_id, ref=seen.ref, phase=seen.phase)
            self._perform(transition)
        else:
            self.observe(seen.build_id, seen)
        tracked.touched_at = now
        if tracked.confirmed_at is None:
            tracked.confirmed_at = now
        return tracked.build

    def missing(self, present: Collection[str], *, asked_at: float) -> bool:
        """Take in that a full listing of the workspaces, asked for at the loop's time *asked_at*, has only *present*.

        A build whose workspace is not in it has ended, unless it may have been too young to be listed. To be called
        when `see` was with all that are in it; what was observed meanwhile counts as well.

        :param present: the ids of the builds that were listed.
        :returns: whether a build was missing that is too young to be given up: list again after `GRACE`.
        """
        unsure = False
        for build_id, tracked in list(self._builds.items()):
            if build_id in present or tracked.build.state not in (BuildState.STARTING, BuildState.RUNNING):
                continue
            if tracked.confirmed_at is None:
                continue  # still being asked for: its start will tell
            if max(tracked.confirmed_at, tracked.touched_at) > asked_at - GRACE:
                unsure = True
                continue
            log.warning("build ended unseen", build_id=build_id, ref=tracked.build.ref)
            self.observe(build_id, WorkspaceGone())
        return unsure

    def observe(self, build_id: str, observation: Observation) -> Build:
        """Take in an observation of a build that is known.

        :raises BuildNotFoundError: if it is not.
        :raises IllegalObservationError: if it can't be observed in the build's state.
        """
        tracked = self._builds.get(build_id)
        if tracked is None:
            raise BuildNotFoundError
        before = tracked.build
        transition = observe(before, observation)
        tracked.build = transition.build
        if transition.build is not before:
            self._changed(tracked)
        self._perform(transition)
        return tracked.build

    # --- time ---

    async def run(self) -> None:
        """End builds that take too long and forget what ended long ago, until cancelled."""
        while True:
            self.sweep()
            await anyio.sleep(SWEEP_INTERVAL)

    def sweep(self) -> None:
        """Do once what `run` does."""
        now = anyio.current_time()
        for build_id, tracked in list(self._builds.items()):
            if not tracked.build.state.ended and now >= tracked.deadline:
                self.observe(build_id, TimeLimitReached(limit=self._settings.maximum_duration))
        while self._ended:
            oldest = next(iter(self._ended))
            ended_at = self._builds[oldest].ended_at or 0.0
            if len(self._ended) <= self._settings.keep_ended and now < ended_at + self._settings.retention:
                break
            self._forget(oldest)

    # --- inside ---

    def _add(self, build: Build, *, deadline: float) -> _Tracked:
        tracked = _Tracked(build=build, deadline=deadline)
        self._builds[build.build_id] = tracked
        if not build.state.ended:
            self._active.setdefault(build.ref, {})[build.build_id] = None
        self._changed(tracked)
        return tracked

    def _changed(self, tracked: _Tracked) -> None:
        build = tracked.build
        if build.state.ended:
            self._end(tracked)
        for observer in self._observers:
            observer(build)
        self._bus.publish(build_topic(build.build_id), build)
        if build.state is BuildState.NOT_STARTED:
            # There is no workspace of this id. Should one appear after all, it is taken over like any other.
            self._forget(build.build_id)

    def _end(self, tracked: _Tracked) -> None:
        build = tracked.build
        tracked.ended_at = anyio.current_time()
        self._ends += 1
        tracked.order = self._ends
        active = self._active.get(build.ref, {})
        active.pop(build.build_id, None)
        if not active:
            self._active.pop(build.ref, None)
        self._ended[build.build_id] = None
        if build.state is BuildState.NOT_STARTED:
            return
        self._last_ended[build.ref] = (build.build_id, build.started_at)
        self._last_ended.move_to_end(build.ref)
        if len(self._last_ended) > REMEMBERED_ENDS:
            self._last_ended.popitem(last=False)
        success = build.state is BuildState.SUCCEEDED
        self._metrics.build_done(success, max(0.0, self._clock() - build.started_at))
        log.info("build ended", build_id=build.build_id, ref=build.ref, success=success, reason=build.message)

    def _forget(self, build_id: str) -> None:
        self._ended.pop(build_id, None)
        self._builds.pop(build_id, None)
        for forgetter in self._forgetters:
            forgetter(build_id)

    def _perform(self, transition: Transition) -> None:
        for effect in transition.effects:
            self._actions[effect](transition.build)

    def _count_by_phase(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for build in self.running():
            phase = build.workspace_phase.lower() or build.state.value
            counts[phase] = counts.get(phase, 0) + 1
        return counts
