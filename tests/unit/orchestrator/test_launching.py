"""Starting builds: one workspace per image."""

from __future__ import annotations

import anyio
import pytest

from imgbuilder.core.builds import Build, BuildState
from imgbuilder.core.ids import SLOT_SECONDS, build_id
from imgbuilder.orchestrator.errors import BuildNotStartedError
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)
from tests.unit.orchestrator.conftest import Orchestrator, assemble
from tests.unit.orchestrator.fakes import FakeImages, FakeWorkspaces, clock, plan, seen

pytestmark = pytest.mark.looptime

REF = plan().ref


def unavailable(times: int) -> list[Exception]:
    """As many refusals that pass."""
    return [WorkspaceManagerUnavailableError("UNAVAILABLE", "try later") for _ in range(times)]


async def test_a_start_brings_a_running_build_with_its_log(orchestrator: Orchestrator) -> None:
    """Id and service prefix are the build's id."""
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.state is BuildState.RUNNING
    assert build.log_source is not None
    assert [request.id for request in orchestrator.workspaces.starts] == [build.build_id]
    assert build.build_id == build_id(REF, last_ended=None, now=clock())
    assert orchestrator.tracker.active(REF) == build


async def test_fifty_callers_start_one_workspace(orchestrator: Orchestrator) -> None:
    """Those that come while the start is on its way attach, and so do later ones."""
    orchestrator.workspaces.start_delay = 0.5
    builds: list[Build] = []

    async def ask() -> None:
        builds.append(await orchestrator.launcher.attach_or_start(plan()))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
    builds.append(await orchestrator.launcher.attach_or_start(plan(), forced=True))
    assert len({build.build_id for build in builds}) == 1
    assert len(orchestrator.workspaces.starts) == 1


async def test_a_caller_that_leaves_stops_nothing(orchestrator: Orchestrator) -> None:
    """The start goes on in the service's tasks."""
    orchestrator.workspaces.start_delay = 0.5
    with anyio.move_on_after(0.1):
        await orchestrator.launcher.attach_or_start(plan())
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.state is BuildState.RUNNING
    assert len(orchestrator.workspaces.starts) == 1


async def test_callers_are_told_of_a_build_whose_start_takes_long(orchestrator: Orchestrator) -> None:
    """After a second, not after the workspace manager's answer."""
    orchestrator.workspaces.start_delay = 20
    started = anyio.current_time()
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.state is BuildState.STARTING
    assert anyio.current_time() - started < 2
    with orchestrator.tracker.watch(build.build_id) as changes:
        assert (await changes.receive()).state is BuildState.RUNNING


async def test_unavailable_is_tried_again_ten_times_with_the_same_id(orchestrator: Orchestrator) -> None:
    """After 1, 2, 3 … seconds."""
    orchestrator.workspaces.start_errors = unavailable(10)
    started = anyio.current_time()
    build = await orchestrator.launcher.attach_or_start(plan())
    with orchestrator.tracker.watch(build.build_id) as changes:
        assert (await changes.receive()).state is BuildState.RUNNING
    assert len({request.id for request in orchestrator.workspaces.starts}) == 1
    assert anyio.current_time() - started == pytest.approx(sum(range(1, 11)), abs=0.1)


async def test_unavailable_for_too_long_is_told_to_everybody(orchestrator: Orchestrator) -> None:
    """Those who were told of the build see it end; those who ask now get the error."""
    orchestrator.workspaces.start_errors = unavailable(11)
    build = await orchestrator.launcher.attach_or_start(plan())
    ended = await orchestrator.final(build.build_id)
    assert (ended.state, ended.message) == (
        BuildState.NOT_STARTED,
        "workspace services are currently unavailable",
    )
    assert ended.unavailable
    assert orchestrator.tracker.get(build.build_id) is None


async def test_another_refusal_is_told_at_once(orchestrator: Orchestrator) -> None:
    """And the next caller may start it again."""
    orchestrator.workspaces.start_errors = [WorkspaceManagerError("INTERNAL", "no nodes")]
    with pytest.raises(BuildNotStartedError, match=r"^cannot start build: no nodes$") as caught:
        await orchestrator.launcher.attach_or_start(plan())
    assert not caught.value.unavailable
    assert (await orchestrator.launcher.attach_or_start(plan())).state is BuildState.RUNNING


async def test_a_bug_in_a_start_leaves_nobody_waiting(orchestrator: Orchestrator) -> None:
    """Not even those who were told of the build."""
    orchestrator.workspaces.start_delay = 5
    orchestrator.workspaces.start_errors = [RuntimeError("bug")]
    build = await orchestrator.launcher.attach_or_start(plan())
    ended = await orchestrator.final(build.build_id)
    assert (ended.state, ended.message) == (BuildState.NOT_STARTED, "cannot start build: internal error")


async def test_a_workspace_of_another_replica_is_attached_to(orchestrator: Orchestrator) -> None:
    """Whatever its id is: the list counts."""
    orchestrator.workspaces.add("theirs", REF)
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == "theirs"
    assert build.log_source is not None
    assert orchestrator.workspaces.starts == []


async def test_replicas_that_start_at_the_same_time_share_a_workspace() -> None:
    """The second start is refused and attaches."""
    workspaces = FakeWorkspaces(start_delay=0.05)
    async with Tasks() as tasks:
        replicas = [assemble(workspaces, FakeImages(), tasks) for _ in range(3)]
        builds: list[Build] = []

        async def ask(replica: Orchestrator) -> None:
            builds.append(await replica.launcher.attach_or_start(plan()))

        async with anyio.create_task_group() as group:
            for replica in replicas:
                group.start_soon(ask, replica)
    assert len({build.build_id for build in builds}) == 1
    assert all(build.log_source is not None for build in builds)
    assert len(workspaces.starts) == 3
    assert workspaces.most_running == {REF: 1}


async def test_the_end_of_a_stopping_workspace_is_awaited(orchestrator: Orchestrator) -> None:
    """Then the next attempt starts, under another id."""
    orchestrator.workspaces.add("theirs", REF, phase="STOPPING")
    build: list[Build] = []

    async def ask() -> None:
        build.append(await orchestrator.launcher.attach_or_start(plan()))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(60)
        assert orchestrator.workspaces.starts == []
        orchestrator.workspaces.update("theirs", "STOPPED")
    assert build[0].build_id != "theirs"
    assert build[0].state is BuildState.RUNNING
    assert orchestrator.workspaces.most_running == {REF: 1}


async def test_a_stopping_workspace_that_is_gone_is_not_waited_for_any_longer(
    orchestrator: Orchestrator,
) -> None:
    """One that was seen to stop is not one that is too new for what answers."""
    orchestrator.workspaces.add("theirs", REF, phase="STOPPING")

    async def go() -> None:
        await anyio.sleep(0.15)
        orchestrator.workspaces.update("theirs", "STOPPED")

    async with anyio.create_task_group() as group:
        group.start_soon(go)
        with anyio.fail_after(20):
            build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id != "theirs"


async def test_a_workspace_that_runs_although_its_build_has_ended_is_stopped(
    orchestrator: Orchestrator,
) -> None:
    """Nobody waits for it, and no other build of its image can start before it is gone."""
    orchestrator.tracker.see(seen("zombie", REF, phase="STOPPED", failure="x"))
    orchestrator.workspaces.add("zombie", REF)
    builds: list[Build] = []

    async def ask() -> None:
        builds.append(await orchestrator.launcher.attach_or_start(plan()))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(9)
        assert orchestrator.workspaces.stops == []  # what was listed may be old
        await anyio.sleep(4)
        assert "zombie" in orchestrator.workspaces.stops
        orchestrator.workspaces.update("zombie", "STOPPED")
    assert builds[0].state is BuildState.RUNNING
    assert builds[0].build_id != "zombie"


async def test_an_image_that_a_stopping_workspace_left_is_good_enough(orchestrator: Orchestrator) -> None:
    """Unless a new one is forced."""
    orchestrator.images.existing.add(REF)
    for forced in (False, True):
        orchestrator.workspaces.add(f"theirs-{forced}", REF, phase="STOPPING")
        outcome: list[Build] = []

        async def ask(forced: bool, outcome: list[Build]) -> None:
            outcome.append(await orchestrator.launcher.attach_or_start(plan(), forced=forced))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, forced, outcome)
            await anyio.sleep(10)
            orchestrator.workspaces.update(f"theirs-{forced}", "STOPPED")
        assert outcome[0].state is (BuildState.RUNNING if forced else BuildState.SUCCEEDED)


async def test_an_id_that_is_taken_by_a_stopping_workspace_is_not_used_again(
    orchestrator: Orchestrator,
) -> None:
    """A restarted replica derives the id of a build before; that build's end is awaited."""
    taken = build_id(REF, last_ended=None, now=clock())
    orchestrator.workspaces.unlisted.add(taken)
    orchestrator.workspaces.add(taken, REF, phase="STOPPING")
    outcome: list[Build] = []

    async def ask() -> None:
        outcome.append(await orchestrator.launcher.attach_or_start(plan()))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(30)
        assert not outcome
        orchestrator.workspaces.update(taken, "STOPPED")
    assert outcome[0].build_id == build_id(REF, last_ended=taken, now=clock())


async def test_nothing_is_started_before_it_is_known_what_runs(orchestrator: Orchestrator) -> None:
    """A list that can't be had is asked for again, as often as a start is."""
    orchestrator.workspaces.add("theirs", REF)
    orchestrator.workspaces.lists_fail = True

    async def heal() -> None:
        await anyio.sleep(20)
        orchestrator.workspaces.lists_fail = False

    async with anyio.create_task_group() as group:
        group.start_soon(heal)
        build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == "theirs"
    assert orchestrator.workspaces.starts == []
    orchestrator.workspaces.lists_fail = True
    with pytest.raises(BuildNotStartedError, match="workspace services are currently unavailable"):
        await orchestrator.launcher.attach_or_start(plan("registry.test/workspace-images:b"))
    assert orchestrator.workspaces.starts == []


async def test_a_build_that_another_replica_started_meanwhile_ends_the_attempts(
    orchestrator: Orchestrator,
) -> None:
    """Who was told of a build of this replica has to ask again; who asks now gets the other one."""
    orchestrator.workspaces.start_errors = unavailable(3)
    told = await orchestrator.launcher.attach_or_start(plan())
    assert told.state is BuildState.STARTING
    orchestrator.workspaces.add("theirs", REF)
    ended = await orchestrator.final(told.build_id)
    assert (ended.state, ended.unavailable) == (BuildState.NOT_STARTED, True)
    assert (await orchestrator.launcher.attach_or_start(plan())).build_id == "theirs"
    assert len(orchestrator.workspaces.starts) == 1


async def test_a_start_that_had_its_effect_late_is_not_tried_again(orchestrator: Orchestrator) -> None:
    """The watcher saw its workspace come, and go."""
    orchestrator.workspaces.start_errors = unavailable(3)
    told = await orchestrator.launcher.attach_or_start(plan())
    orchestrator.tracker.see(seen(told.build_id, REF))
    orchestrator.tracker.see(seen(told.build_id, REF, phase="STOPPED", version=2, failure="x"))
    await anyio.sleep(60)
    assert len(orchestrator.workspaces.starts) == 1


async def test_a_start_that_had_its_effect_while_workspaces_were_listed_is_not_tried_again(
    orchestrator: Orchestrator,
) -> None:
    """What the watcher saw in that time counts."""
    orchestrator.workspaces.start_errors = unavailable(3)
    told = await orchestrator.launcher.attach_or_start(plan())
    await anyio.sleep(1)
    orchestrator.workspaces.list_delay = 1.0
    await anyio.sleep(1.5)  # the third attempt has asked for the list
    assert len(orchestrator.workspaces.starts) == 2
    orchestrator.tracker.see(seen(told.build_id, REF))
    orchestrator.tracker.see(seen(told.build_id, REF, phase="STOPPED", version=2, failure="x"))
    await anyio.sleep(60)
    assert len(orchestrator.workspaces.starts) == 2


async def test_ids_are_not_derived_right_before_they_change(orchestrator: Orchestrator) -> None:
    """Or two replicas could start the same build a moment before and after, and neither could see the other's."""
    await anyio.sleep(SLOT_SECONDS - clock() % SLOT_SECONDS - 1)
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == build_id(REF, last_ended=None, now=clock())
    assert clock() % SLOT_SECONDS == pytest.approx(0, abs=0.1)


async def test_builds_of_earlier_slots_do_not_matter_for_the_next_id(orchestrator: Orchestrator) -> None:
    """So that a replica that remembers them and one that was restarted derive the same."""
    orchestrator.tracker.see(seen("earlier", REF, phase="STOPPED", failure="x"))
    await anyio.sleep(SLOT_SECONDS)
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == build_id(REF, last_ended=None, now=clock())


async def test_the_id_of_a_build_that_ended_is_not_derived_again(orchestrator: Orchestrator) -> None:
    """Not even where this replica heard of its end before it heard of that of an earlier one."""
    first = build_id(REF, last_ended=None, now=clock())
    second = build_id(REF, last_ended=first, now=clock())
    for ended in (second, first):
        orchestrator.tracker.see(seen(ended, REF, phase="STOPPED", failure="x"))
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == build_id(REF, last_ended=second, now=clock())


async def test_a_workspace_that_exists_but_is_not_described_yet_is_not_given_up(
    orchestrator: Orchestrator,
) -> None:
    """What answers may lag behind what starts workspaces."""
    first = build_id(REF, last_ended=None, now=clock())
    orchestrator.workspaces.start_errors = [WorkspaceExistsError("ALREADY_EXISTS", "workspace exists")]

    async def appear() -> None:
        await anyio.sleep(3)
        orchestrator.workspaces.add(first, REF)

    async with anyio.create_task_group() as group:
        group.start_soon(appear)
        build = await orchestrator.launcher.attach_or_start(plan())
    assert (build.build_id, build.state) == (first, BuildState.RUNNING)
    assert len(orchestrator.workspaces.starts) == 1


async def test_a_later_build_never_has_the_id_of_an_earlier_one(orchestrator: Orchestrator) -> None:
    """Neither at once nor in another slot of the clock."""
    orchestrator.images.existing.clear()
    ids = []
    for pause in (0, 1, SLOT_SECONDS, SLOT_SECONDS + 1):
        await anyio.sleep(pause)
        build = await orchestrator.launcher.attach_or_start(plan())
        ids.append(build.build_id)
        orchestrator.workspaces.update(build.build_id, "STOPPED", failure="x")
        orchestrator.tracker.see(seen(build.build_id, REF, phase="STOPPED", version=9, failure="x"))
        assert (await orchestrator.final(build.build_id)).state is BuildState.FAILED
    assert len(set(ids)) == len(ids)


async def test_a_start_whose_answer_was_lost_is_found_by_its_id(orchestrator: Orchestrator) -> None:
    """UNAVAILABLE although it was started: the second attempt is refused, and attaches."""
    first = build_id(REF, last_ended=None, now=clock())
    orchestrator.workspaces.start_errors = unavailable(1)

    async def started_after_all() -> None:
        await anyio.sleep(0.5)
        orchestrator.workspaces.add(first, REF)

    async with anyio.create_task_group() as group:
        group.start_soon(started_after_all)
        build = await orchestrator.launcher.attach_or_start(plan())
    assert build.build_id == first


async def test_a_workspace_that_exists_but_is_gone_already_is_not_waited_for(
    orchestrator: Orchestrator,
) -> None:
    """Its image decides; without one the next attempt starts."""
    orchestrator.workspaces.start_errors = [WorkspaceExistsError("ALREADY_EXISTS", "workspace exists")]
    build = await orchestrator.launcher.attach_or_start(plan())
    assert build.state is BuildState.RUNNING
    assert [request.id for request in orchestrator.workspaces.starts][-1] == build.build_id
    assert len({request.id for request in orchestrator.workspaces.starts}) == 2
