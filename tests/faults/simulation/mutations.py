"""Mechanisms switched off, one at a time: what the simulation must notice. None of it is in the service."""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import pytest

from imgbuilder.bus import Subscription
from imgbuilder.core import builds
from imgbuilder.core.builds import Build, Effect, ImageFound, ImageMissing, ImageNotChecked, WorkspaceSeen
from imgbuilder.core.censoring import Censor
from imgbuilder.core.ids import build_id
from imgbuilder.core.permissions import Permissions
from imgbuilder.core.references import Reference, parse_reference
from imgbuilder.core.splicing import Splicer
from imgbuilder.core.workspace import BuildPlan
from imgbuilder.orchestrator import launching, tracker
from imgbuilder.orchestrator.endings import Endings
from imgbuilder.orchestrator.launching import Launcher
from imgbuilder.orchestrator.logs import LogKeeper
from imgbuilder.orchestrator.logs.follower import Follower, _Outcome
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.orchestrator.watcher import Watcher
from imgbuilder.registry.errors import RegistryError
from imgbuilder.wsman.errors import WorkspaceManagerError

Patch = pytest.MonkeyPatch


SwitchOff = Callable[[Patch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A mechanism that is switched off.

    :ivar breaks: promises of which one must be seen broken.
    :ivar likely: a seed that shows it. It may be another one day: then all are tried.
    """

    switch_off: SwitchOff
    breaks: tuple[str, ...]
    likely: int

    @property
    def name(self) -> str:
        """What it is called."""
        return self.switch_off.__name__

    @property
    def what(self) -> str:
        """What is different, in words."""
        return self.switch_off.__doc__ or ""


MUTATIONS: Final[list[Mutation]] = []


def breaks(*promises: str, likely: int = 0) -> Callable[[SwitchOff], SwitchOff]:
    """Note what switching something off breaks."""

    def note(switch_off: SwitchOff) -> SwitchOff:
        MUTATIONS.append(Mutation(switch_off=switch_off, breaks=promises, likely=likely))
        return switch_off

    return note


# --- watching ---------------------------------------------------------------------------------------------


@breaks("lost news is made up for in time")
def no_relisting(patch: Patch) -> None:
    """Workspaces are listed once per subscription, not again and again."""

    async def list_once(self: Watcher) -> None:
        await self._list_until_answered()
        self.subscribed.set()
        await anyio.sleep_forever()

    patch.setattr(Watcher, "_list_repeatedly", list_once)


@breaks("lost news is made up for in time")
def no_vanish_detection(patch: Patch) -> None:
    """A workspace that is missing from the list means nothing."""

    def missing(self: Tracker, present: Collection[str], *, asked_at: float) -> bool:
        return False

    patch.setattr(Tracker, "missing", missing)


@breaks("lost news is made up for in time")
def no_listing(patch: Patch) -> None:
    """Workspaces are never listed: only the stream tells."""

    async def never(self: Watcher) -> None:
        self.subscribed.set()
        await anyio.sleep_forever()

    patch.setattr(Watcher, "_list_repeatedly", never)


@breaks("nothing old is told for new")
def no_versions(patch: Patch) -> None:
    """The newest status is the one that came last."""
    original = builds.TABLE[builds.BuildState.RUNNING, WorkspaceSeen]

    def unversioned(build: Build, seen: WorkspaceSeen) -> builds.Transition:
        return original(build, replace(seen, version=0))

    table = dict(builds.TABLE)
    for state in (builds.BuildState.STARTING, builds.BuildState.RUNNING, builds.BuildState.CHECKING):
        table[state, WorkspaceSeen] = unversioned
    patch.setattr(builds, "TABLE", table)


@breaks("lost news is made up for in time")
def no_reconnecting(patch: Patch) -> None:
    """A subscription that broke is not opened again."""

    async def run_once(self: Watcher) -> None:
        await self._subscription()

    patch.setattr(Watcher, "run", run_once)


@breaks("no failure of a build that runs", "no success before the end", likely=408)
def no_patience_with_young_builds(patch: Patch) -> None:
    """A workspace must be in every list as soon as it was started."""
    patch.setattr(tracker, "GRACE", 0.0)


# --- one workspace per image ------------------------------------------------------------------------------


@breaks("one workspace per image")
def no_shared_ids(patch: Patch) -> None:
    """Replicas do not derive the same id for the same build."""
    numbers = itertools.count()
    patch.setattr(
        "imgbuilder.orchestrator.launching.next_build_id", lambda *_, **__: str(uuid.UUID(int=next(numbers)))
    )


@breaks("one workspace per image")
def no_look_at_what_runs(patch: Patch) -> None:
    """A workspace is started without a look at what there is."""

    async def nothing(self: Launcher, ref: str) -> list[WorkspaceSeen]:
        self._workspaces._listed_as_of[ref] = anyio.current_time()  # type: ignore[attr-defined]  # the simulation's
        return []

    patch.setattr(Launcher, "_existing", nothing)


@breaks("one workspace per image", likely=270)
def start_without_a_list(patch: Patch) -> None:
    """A workspace is started if the list of workspaces can not be had."""
    original = Launcher._existing

    async def or_nothing(self: Launcher, ref: str) -> list[WorkspaceSeen]:
        try:
            return await original(self, ref)
        except WorkspaceManagerError:
            self._workspaces._listed_as_of[ref] = anyio.current_time()  # type: ignore[attr-defined]  # the simulation's
            return []

    patch.setattr(Launcher, "_existing", or_nothing)


@breaks("one workspace per image")
def no_waiting_for_stopping_workspaces(patch: Patch) -> None:
    """The next workspace is started while the last is still stopping."""
    original = Launcher._existing

    async def running(self: Launcher, ref: str) -> list[WorkspaceSeen]:
        return [workspace for workspace in await original(self, ref) if not workspace.ended]

    patch.setattr(Launcher, "_existing", running)


@breaks("one workspace per image")
def no_attaching(patch: Patch) -> None:
    """Each call starts a workspace of its own."""

    async def start_another(self: Launcher, plan: BuildPlan, *, forced: bool = False) -> Build:
        launch = launching._Launch(plan=plan, forced=forced)
        launch.outcome = await self._launch(launch)
        return launch.outcome

    no_look_at_what_runs(patch)
    no_shared_ids(patch)
    patch.setattr(Tracker, "active", lambda *_: None)
    patch.setattr(Launcher, "attach_or_start", start_another)


@breaks("one workspace per image", likely=53)
def no_slot_border(patch: Patch) -> None:
    """Ids are derived up to the moment when they change."""
    patch.setattr(launching, "SLOT_BORDER", 0.0)


@breaks("one workspace per image")
def ids_from_memories_of_earlier_slots(patch: Patch) -> None:
    """Builds that ended long ago go into an id, as far as a replica remembers them."""
    original = Tracker.last_ended

    def ever(self: Tracker, ref: str, *, since: float = 0.0) -> str | None:
        return original(self, ref)

    patch.setattr(Tracker, "last_ended", ever)


@breaks("a later build has another id")
def ids_that_forget_the_last_build(patch: Patch) -> None:
    """The last build that ended does not go into the next id."""

    def next_id(self: Launcher, ref: str) -> str:
        return build_id(ref, last_ended=None, now=self._clock())

    patch.setattr(Launcher, "_next_id", next_id)


@breaks("no failure of a build that runs")
def no_patience_with_lagging_caches(patch: Patch) -> None:
    """A workspace that was started elsewhere must be described at once."""
    patch.setattr("imgbuilder.orchestrator.predecessors.GRACE", 0.0)


@breaks("errors say what is wrong", likely=172)
def launches_that_die_with_their_caller(patch: Patch) -> None:
    """A start is made in the task of the call that wants it."""
    original = Launcher.attach_or_start

    async def in_the_callers_task(self: Launcher, plan: BuildPlan, *, forced: bool = False) -> Build:
        launch = self._launches.get(plan.ref)
        if launch is not None or self._tracker.active(plan.ref) is not None:
            return await original(self, plan, forced=forced)
        launch = self._launches[plan.ref] = launching._Launch(plan=plan, forced=forced)
        await self._run(launch)
        return await self._known(launch)

    patch.setattr(Launcher, "attach_or_start", in_the_callers_task)


# --- the end of a build -----------------------------------------------------------------------------------


@breaks("the registry decides if it can be asked")
def no_retries_of_the_image_check(patch: Patch) -> None:
    """Whether there is an image is asked once."""

    async def look_up_once(self: Endings, build: Build) -> ImageFound | ImageMissing | ImageNotChecked:
        try:
            found = await self._images.exists(
                parse_reference(build.ref), Permissions.everything(), retry=False
            )
        except RegistryError as error:
            return ImageNotChecked(fault=str(error))
        return ImageFound() if found else ImageMissing()

    patch.setattr(Endings, "_look_up", look_up_once)


@breaks("no failure of a build that made its image", likely=447)
def one_image_check_that_may_be_older_than_the_end(patch: Patch) -> None:
    """A look-up that a client began before a build's end tells whether it has made its image."""

    async def as_asked_before(self: Endings, reference: Reference) -> bool:
        return await self._images.exists(reference, Permissions.everything(), retry=True)

    patch.setattr(Endings, "_is_there", as_asked_before)


@breaks("no success without an image")
def no_image_check(patch: Patch) -> None:
    """A build that ended without a failure has made its image."""

    async def believe(self: Endings, build: Build) -> ImageFound:
        return ImageFound()

    patch.setattr(Endings, "_look_up", believe)


@breaks("the registry decides if it can be asked", likely=136)
def failures_told_when_the_service_ends(patch: Patch) -> None:
    """A look-up that the end of the service cuts off counts as failed."""

    async def check(self: Endings, build: Build) -> None:
        observation: ImageFound | ImageMissing | ImageNotChecked = ImageNotChecked(fault="internal error")
        try:
            observation = await self._look_up(build)
        finally:
            self._tracker.observe(build.build_id, observation)

    patch.setattr(Endings, "_check_image", check)


@breaks("no failure of a build that made its image")
def vanished_builds_count_as_failed(patch: Patch) -> None:
    """A build whose end nobody saw has failed, whatever it made."""

    async def missing(self: Endings, build: Build) -> ImageFound | ImageMissing | ImageNotChecked:
        return ImageMissing() if build.vanished else await original(self, build)

    original = Endings._look_up
    patch.setattr(Endings, "_look_up", missing)


@breaks("ended stays ended")
def ended_builds_that_change(patch: Patch) -> None:
    """What is seen of an ended build counts."""

    def observe(build: Build, observation: builds.Observation) -> builds.Transition:
        if build.state.ended and isinstance(observation, WorkspaceSeen) and not observation.ended:
            return builds.Transition(replace(build, state=builds.BuildState.RUNNING))
        return builds.observe(build, observation)

    patch.setattr(tracker, "observe", observe)


@breaks("a Build call has an end")
def no_time_limit(patch: Patch) -> None:
    """A build may take for ever."""
    patch.setattr(Tracker, "sweep", lambda _: None)


@breaks("a build that takes too long is stopped")
def no_stop_of_what_takes_too_long(patch: Patch) -> None:
    """Nobody stops the workspace of a build that took too long."""
    original = Tracker.on_effect

    def but_stops(self: Tracker, effect: Effect, action: Callable[[Build], None]) -> None:
        original(self, effect, (lambda _: None) if effect is Effect.STOP_WORKSPACE else action)

    patch.setattr(Tracker, "on_effect", but_stops)


# --- telling ----------------------------------------------------------------------------------------------


@breaks("a Build call has an end")
def wake_ups_get_lost(patch: Patch) -> None:
    """Every third wake-up of a waiting client gets lost."""
    original = Subscription.put
    numbers = itertools.count()

    def put(self: Subscription[Any], value: object) -> None:
        if next(numbers) % 3:
            original(self, value)

    patch.setattr(Subscription, "put", put)


@breaks("nothing is left over")
def subscriptions_stay_open(patch: Patch) -> None:
    """Calls leave their subscriptions behind."""
    patch.setattr(Subscription, "close", lambda _: None)


# --- logs -------------------------------------------------------------------------------------------------


@breaks("a log is what was printed")
def no_splicing(patch: Patch) -> None:
    """What a terminal repeats is written again."""
    patch.setattr(Splicer, "restart", lambda _: None)


@breaks("a log is what was printed", likely=132)
def chance_overlaps_hide_gaps(patch: Patch) -> None:
    """A single byte is enough for an overlap."""
    patch.setattr(Splicer, "__init__", functools.partialmethod(Splicer.__init__, least_overlap=1))


@breaks("a log is what was printed")
def no_censoring(patch: Patch) -> None:
    """Output is not censored."""
    patch.setattr(Censor, "feed", lambda _, data: data)


@breaks("a log is complete where the supervisor could be asked for long enough", likely=1156)
def no_listening_again(patch: Patch) -> None:
    """A listen stream that broke is not taken up again."""

    async def follow_once(self: Follower) -> None:
        while await self._attempt() is not _Outcome.BROKEN and not self._build_ended:
            await self._pause(0)
        await anyio.sleep_forever()

    patch.setattr(Follower, "_follow", follow_once)


@breaks("a log has an end")
def logs_that_stay_open(patch: Patch) -> None:
    """The end of a build does not end its log."""
    patch.setattr(LogKeeper, "_end", lambda *_: None)
