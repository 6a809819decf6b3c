"""Watching the workspace manager, and what the tracker makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from imgbuilder.core.builds import ENDED_WHILE_AWAY, NO_IMAGE, BuildState
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.orchestrator.tracker import TrackerSettings
from imgbuilder.orchestrator.watcher import YIELD_EVERY
from imgbuilder.registry.errors import RegistryUnreachableError
from imgbuilder.runtime.tasks import Tasks
from tests.unit.orchestrator.conftest import Orchestrator, assemble
from tests.unit.orchestrator.fakes import FakeImages, FakeWorkspaces, new_tracker, plan, seen

pytestmark = pytest.mark.looptime

REF = plan().ref


@asynccontextmanager
async def watching(orchestrator: Orchestrator) -> AsyncIterator[None]:
    """The watcher and the tracker's clock run."""
    async with anyio.create_task_group() as group:
        group.start_soon(orchestrator.watcher.run)
        group.start_soon(orchestrator.tracker.run)
        await orchestrator.watcher.subscribed.wait()
        yield
        group.cancel_scope.cancel()


async def test_a_build_goes_from_start_to_success(orchestrator: Orchestrator) -> None:
    """Its image is looked up once."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        orchestrator.workspaces.update(build.build_id, "RUNNING")
        orchestrator.images.existing.add(REF)
        orchestrator.workspaces.update(build.build_id, "STOPPING")
        orchestrator.workspaces.update(build.build_id, "STOPPED")
        assert (await orchestrator.final(build.build_id)).state is BuildState.SUCCEEDED
    assert orchestrator.images.requests == [f"exists {REF}"]
    assert orchestrator.images.permissions[0].allow_all


async def test_success_needs_an_image(orchestrator: Orchestrator) -> None:
    """The text is part of the contract."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        orchestrator.workspaces.update(build.build_id, "STOPPED")
        ended = await orchestrator.final(build.build_id)
    assert (ended.state, ended.message) == (BuildState.FAILED, NO_IMAGE)


async def test_a_registry_that_stays_down_fails_the_build_after_thirty_seconds(
    orchestrator: Orchestrator,
) -> None:
    """It is tried again until then."""
    orchestrator.images.broken = RegistryUnreachableError("registry.test", "connection refused")
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        orchestrator.workspaces.update(build.build_id, "STOPPED")
        began = anyio.current_time()
        ended = await orchestrator.final(build.build_id)
        assert anyio.current_time() - began == pytest.approx(30, abs=0.1)
    assert ended.message == (
        "cannot check if workspace image exists after the build: registry registry.test: connection refused"
    )
    assert len(orchestrator.images.requests) > 5


async def test_a_registry_that_comes_back_decides(orchestrator: Orchestrator) -> None:
    """Within the thirty seconds."""
    orchestrator.images.errors = [RegistryUnreachableError("registry.test") for _ in range(3)]
    orchestrator.images.existing.add(REF)
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        orchestrator.workspaces.update(build.build_id, "STOPPED")
        assert (await orchestrator.final(build.build_id)).state is BuildState.SUCCEEDED


async def test_a_service_that_ends_while_it_looks_for_an_image_tells_nothing() -> None:
    """Its clients call again, elsewhere, and must not have been told of a failure before."""
    async with Tasks() as tasks:
        orchestrator = assemble(FakeWorkspaces(), FakeImages(delay=10), tasks)
        orchestrator.tracker.see(seen("b", REF, phase="STOPPED"))
        await anyio.sleep(1)
    build = orchestrator.tracker.get("b")
    assert build is not None
    assert build.state is BuildState.CHECKING


async def test_a_bug_in_the_look_up_of_an_image_leaves_nobody_waiting(orchestrator: Orchestrator) -> None:
    """The build has failed, as far as anybody can tell."""
    orchestrator.tracker.see(seen("b", "NOT:A:REFERENCE", phase="STOPPED"))
    assert (await orchestrator.final("b")).message == (
        "cannot check if workspace image exists after the build: internal error"
    )


async def test_running_builds_are_taken_over_after_a_restart(orchestrator: Orchestrator) -> None:
    """With their log; their end is seen like any other's."""
    orchestrator.workspaces.add("old", REF)
    async with watching(orchestrator):
        build = orchestrator.tracker.find(ref=REF, build_id="")
        assert (build.build_id, build.state) == ("old", BuildState.RUNNING)
        assert build.log_source is not None
        attached = await orchestrator.launcher.attach_or_start(plan())
        assert attached.build_id == "old"
        orchestrator.workspaces.update("old", "STOPPED", failure="headless task failed: exit status 1")
        ended = await orchestrator.final("old")
    assert ended.message == "headless task failed: exit status 1"


@pytest.mark.parametrize("image_exists", [True, False])
async def test_a_build_that_ended_while_the_workspace_manager_was_away_is_told(
    orchestrator: Orchestrator,
    image_exists: bool,
) -> None:
    """Its image decides; no client waits for an event that can't come."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        await anyio.sleep(30)
        orchestrator.workspaces.down = True
        orchestrator.workspaces.break_subscriptions()
        await anyio.sleep(30)
        orchestrator.workspaces.workspaces.clear()
        orchestrator.images.existing = {REF} if image_exists else set()
        orchestrator.workspaces.down = False
        came_back = anyio.current_time()
        ended = await orchestrator.final(build.build_id)
        assert anyio.current_time() - came_back < 6
    if image_exists:
        assert ended.state is BuildState.SUCCEEDED
    else:
        assert ended.message == f"{ENDED_WHILE_AWAY}: {NO_IMAGE}"


async def test_a_lost_event_heals_by_itself(orchestrator: Orchestrator) -> None:
    """Workspaces are listed again every few minutes."""
    orchestrator.images.existing.add(REF)
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        await anyio.sleep(20)
        orchestrator.workspaces.update(build.build_id, "STOPPED", silent=True)
        began = anyio.current_time()
        assert (await orchestrator.final(build.build_id)).state is BuildState.SUCCEEDED
        assert anyio.current_time() - began < 300


async def test_a_listing_that_was_asked_for_before_a_start_ends_nothing(orchestrator: Orchestrator) -> None:
    """Nor one of a cache that does not have the workspace yet; the next one decides."""
    tracker = orchestrator.tracker
    asked_at = anyio.current_time()
    build = await orchestrator.launcher.attach_or_start(plan())
    assert tracker.missing((), asked_at=asked_at)
    await anyio.sleep(1)
    assert tracker.missing((), asked_at=anyio.current_time())
    assert tracker.active(REF) is not None
    await anyio.sleep(15)
    assert not tracker.missing((), asked_at=anyio.current_time())
    ended = await orchestrator.final(build.build_id)
    assert ended.state is BuildState.FAILED


async def test_a_young_build_that_vanished_is_given_up_soon(orchestrator: Orchestrator) -> None:
    """The watcher lists again as soon as the build is old enough, not minutes later."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        await anyio.sleep(3)
        orchestrator.workspaces.workspaces.clear()
        orchestrator.workspaces.break_subscriptions()
        began = anyio.current_time()
        await orchestrator.final(build.build_id)
        assert anyio.current_time() - began < 30


async def test_reconnects_back_off_to_five_seconds(orchestrator: Orchestrator) -> None:
    """And no further."""
    async with watching(orchestrator):
        orchestrator.workspaces.down = True
        orchestrator.workspaces.break_subscriptions()
        await anyio.sleep(100)
        orchestrator.workspaces.down = False
        await anyio.sleep(5.1)
        assert len(orchestrator.workspaces.subscribers) == 1


def losses(logs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What was said of the subscription, with the address and the reason."""
    return [(line["event"], line["address"], line["reason"]) for line in logs if "again_in" in line]


async def test_a_long_loss_is_told_once_a_minute(orchestrator: Orchestrator) -> None:
    """With the address; at once when its reason is another, and when it is another loss."""
    lost = "subscription lost", "wsman.test:8080"
    with capture_logs() as logs:
        async with watching(orchestrator):
            orchestrator.workspaces.down = True
            orchestrator.workspaces.break_subscriptions()
            await anyio.sleep(50)
            assert losses(logs) == [(*lost, "connection lost"), (*lost, "connection refused")]
            await anyio.sleep(30)
            assert losses(logs)[2:] == [(*lost, "connection refused")]
            orchestrator.workspaces.down = False
            for _ in range(2):
                await anyio.sleep(5.1)
                orchestrator.workspaces.break_subscriptions()
            await anyio.sleep(5.1)
        assert losses(logs)[3:] == [(*lost, "connection lost")] * 2


async def test_what_was_never_there_is_not_lost(orchestrator: Orchestrator) -> None:
    """At the start it is said that the workspace manager is not reached yet."""
    orchestrator.workspaces.down = True
    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            group.start_soon(orchestrator.watcher.run)
            await anyio.sleep(30)
            orchestrator.workspaces.down = False
            await orchestrator.watcher.subscribed.wait()
            group.cancel_scope.cancel()
    assert losses(logs) == [("workspace manager not reached yet", "wsman.test:8080", "connection refused")]


async def test_an_older_listing_does_not_override_the_stream(orchestrator: Orchestrator) -> None:
    """Versions decide."""
    tracker = orchestrator.tracker
    tracker.see(replace(seen("b", REF, version=5), message="new"))
    tracker.see(replace(seen("b", REF, version=4), message="old"))
    tracker.missing({"b"}, asked_at=anyio.current_time())
    build = tracker.get("b")
    assert build is not None
    assert build.message == "new"


async def test_a_build_over_an_hour_is_stopped(orchestrator: Orchestrator) -> None:
    """Its clients are told why."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        began = anyio.current_time()
        ended = await orchestrator.final(build.build_id)
        await anyio.sleep(1)
        assert anyio.current_time() - began == pytest.approx(3600, abs=3)
    assert (ended.state, ended.message) == (
        BuildState.FAILED,
        "build was stopped: it took longer than 60 minutes",
    )
    assert orchestrator.workspaces.stops == [build.build_id]


async def test_a_build_over_an_hour_is_stopped_once_the_workspace_manager_is_back(
    orchestrator: Orchestrator,
) -> None:
    """However long it was away: until then nobody could be told to stop the workspace."""
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        await anyio.sleep(3590)
        orchestrator.workspaces.down = True
        await anyio.sleep(600)
        assert orchestrator.workspaces.stops == []
        orchestrator.workspaces.down = False
        await anyio.sleep(15)
    assert orchestrator.workspaces.stops == [build.build_id]


async def test_a_build_taken_over_late_has_only_the_rest_of_its_hour(orchestrator: Orchestrator) -> None:
    """The time it ran before counts."""
    status = seen("old", REF)
    orchestrator.workspaces.workspaces["old"] = replace(status, started_at=status.started_at - 3000)
    async with watching(orchestrator):
        began = anyio.current_time()
        await orchestrator.final("old")
        assert anyio.current_time() - began == pytest.approx(600, abs=3)


async def test_a_start_that_is_too_long_ago_to_be_true_is_not_counted(orchestrator: Orchestrator) -> None:
    """Another clock than ours set it: the workspace manager ends what is really that old."""
    orchestrator.workspaces.workspaces["old"] = replace(seen("old", REF), started_at=1)
    async with watching(orchestrator):
        await anyio.sleep(600)
        assert orchestrator.tracker.active(REF) is not None


async def test_a_look_up_that_began_before_the_end_does_not_decide(orchestrator: Orchestrator) -> None:
    """Equal look-ups are one, so the answer may be older than the image."""
    answers = [False, True]

    async def exists(*_: object, **__: object) -> bool:
        return answers.pop(0)

    orchestrator.images.exists = exists  # type: ignore[method-assign]  # answers of another time
    async with watching(orchestrator):
        build = await orchestrator.launcher.attach_or_start(plan())
        orchestrator.workspaces.update(build.build_id, "STOPPED")
        assert (await orchestrator.final(build.build_id)).state is BuildState.SUCCEEDED


async def test_ended_builds_are_forgotten_after_a_while(orchestrator: Orchestrator) -> None:
    """And those above the number to keep at once, oldest first."""
    tracker = new_tracker(settings=TrackerSettings(retention=100, keep_ended=2))
    forgotten: list[str] = []
    tracker.on_forget(forgotten.append)
    for number in range(3):
        tracker.see(seen(f"b{number}", f"ref:{number}", phase="STOPPED", failure="x"))
    tracker.sweep()
    assert forgotten == ["b0"]
    assert tracker.find(ref="ref:1", build_id="").build_id == "b1"
    await anyio.sleep(100)
    tracker.sweep()
    assert forgotten == ["b0", "b1", "b2"]
    with pytest.raises(BuildNotFoundError):
        tracker.find(ref="ref:1", build_id="")


async def test_builds_are_found_by_ref_by_id_or_by_both(orchestrator: Orchestrator) -> None:
    """Both given: both must fit. The one that runs before the one that ended."""
    tracker = orchestrator.tracker
    tracker.see(seen("first", REF, phase="STOPPED", failure="x"))
    assert tracker.find(ref=REF, build_id="").build_id == "first"
    tracker.see(seen("second", REF))
    assert tracker.find(ref=REF, build_id="").build_id == "second"
    assert tracker.find(ref="", build_id="first").build_id == "first"
    assert tracker.find(ref=REF, build_id="first").build_id == "first"
    for ref, build_id in (("other:ref", "first"), ("other:ref", ""), (REF, "third"), ("", "")):
        with pytest.raises(BuildNotFoundError):
            tracker.find(ref=ref, build_id=build_id)


async def test_a_second_build_of_an_image_is_active_once_the_first_has_ended(
    orchestrator: Orchestrator,
) -> None:
    """Another replica may have started it before this one heard of the end of the first."""
    tracker = orchestrator.tracker
    tracker.see(seen("first", REF))
    tracker.see(seen("second", REF))
    assert tracker.find(ref=REF, build_id="").build_id == "first"
    tracker.see(seen("first", REF, phase="STOPPED", version=2, failure="x"))
    active = tracker.active(REF)
    assert active is not None
    assert active.build_id == "second"
    assert tracker.find(ref=REF, build_id="").build_id == "second"
    tracker.see(seen("second", REF, phase="STOPPED", version=2, failure="x"))
    assert tracker.active(REF) is None


async def test_a_finished_build_stays_finished(orchestrator: Orchestrator) -> None:
    """Later events of its workspace change nothing."""
    tracker = orchestrator.tracker
    ended = tracker.see(seen("b", REF, phase="STOPPED", failure="x"))
    with tracker.watch("b") as changes:
        tracker.see(seen("b", REF, phase="RUNNING", version=7))
        with anyio.move_on_after(1):
            await changes.receive()
            pytest.fail("something changed")
    assert tracker.get("b") is ended


async def test_a_long_listing_gives_others_their_turn(orchestrator: Orchestrator) -> None:
    """Ten thousand workspaces take a second to take in; what is told meanwhile is newer, and counts."""
    workspaces = [seen(f"b{number}", f"r.test/w:{number}", version=1) for number in range(10 * YIELD_EVERY)]
    turns: list[int] = []

    async def tell_and_count() -> None:
        while True:
            turns.append(len(orchestrator.tracker.running()))
            if len(turns) == 2:
                orchestrator.tracker.see(replace(workspaces[-1], version=2, message="new"))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(tell_and_count)
        await anyio.lowlevel.checkpoint()
        await orchestrator.watcher._take_in(workspaces, asked_at=anyio.current_time())
        group.cancel_scope.cancel()
    assert len(turns) >= 10
    assert max(later - earlier for earlier, later in pairwise(turns)) <= YIELD_EVERY + 1
    build = orchestrator.tracker.get(workspaces[-1].build_id)
    assert build is not None
    assert (build.status_version, build.message) == (2, "new")
    assert len(orchestrator.tracker.running()) == len(workspaces)
