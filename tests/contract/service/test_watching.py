"""How the service follows its builds at the workspace manager, as its clients see it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.orchestrator import tracker, watcher
from imgbuilder.pb.builder import BuildInfo, BuildRequest, BuildStatus
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Call, Client, dockerfile, statuses
from tests.contract.service.conftest import Served, serving, unobserved
from tests.world.requests import start_request
from tests.world.scripts import LINES, idle, waiting
from tests.world.world import World


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that is missing from a listing is given up soon, not after 10 seconds."""
    monkeypatch.setattr(tracker, "GRACE", 0.1)
    monkeypatch.setattr(watcher, "GRACE", 0.1)


# --- the state of a build -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase",
    [
        WorkspacePhase.PENDING,
        WorkspacePhase.CREATING,
        WorkspacePhase.INITIALIZING,
        WorkspacePhase.RUNNING,
        WorkspacePhase.INTERRUPTED,
        WorkspacePhase.UNKNOWN,
    ],
)
async def test_in_any_other_phase_a_build_runs(world: World, client: Client, phase: WorkspacePhase) -> None:
    """With the message of its status."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build_id = (await call.next()).info.build_id
        world.manager.advance(build_id, phase, message="a message")
        response = await call.next()
        while response.message != "a message":
            response = await call.next()
        assert response.status is BuildStatus.running


@pytest.mark.parametrize("phase", [WorkspacePhase.STOPPING, WorkspacePhase.STOPPED])
@pytest.mark.parametrize("failure", ["", "it failed"])
async def test_a_build_ends_with_its_workspace(
    world: World, client: Client, phase: WorkspacePhase, failure: str
) -> None:
    """When it is stopping, and no later."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = await call.next()
        world.push(build.ref)
        world.manager.advance(build.info.build_id, phase, headless_task_failed=failure)
        end = (await call.rest())[-1]
    assert end.status is (BuildStatus.done_failure if failure else BuildStatus.done_success)
    assert end.message == failure


async def test_a_finished_build_stays_finished(world: World, client: Client) -> None:
    """Whatever becomes of its workspace."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build_id = (await call.next()).info.build_id
        world.manager.advance(build_id, WorkspacePhase.STOPPING, failed="first")
        end = (await call.rest())[-1]
    assert end.message == "first"
    world.manager.advance(build_id, WorkspacePhase.RUNNING, message="back again")
    # A build that was started later is heard of later: then the former has been heard of, too.
    other = world.start(start_request("other", ref=world.workspace_ref("other")))
    await until_listed(client, other.id)
    assert [build.build_id for build in await client.builds()] == [other.id]


async def test_an_older_status_does_not_override_a_newer_one(world: World, client: Client) -> None:
    """Here they come in the wrong order; the build has ended all the same."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = await call.next()
        world.push(build.ref)
        with world.manager.rerouted(lambda statuses: statuses[::-1]):
            world.manager.advance(build.info.build_id, WorkspacePhase.RUNNING, message="late")
            world.manager.advance(build.info.build_id, WorkspacePhase.STOPPING)
        assert statuses(await call.rest())[-1] == "done_success"


# --- what is asked for ----------------------------------------------------------------------------------------


async def test_only_builds_of_image_builders_are_asked_for(world: World, client: Client) -> None:
    """In listings and in the subscription."""
    world.script = idle
    world.start(start_request("theirs", managed_by="somebody else"))
    world.start(start_request("ours"))
    await until_listed(client, "ours")
    assert [build.build_id for build in await client.builds()] == ["ours"]
    for method in ("GetWorkspaces", "Subscribe"):
        for request in await world.manager.wait_for_calls(method):
            assert request.must_match.annotations["managed-by"] == "image-builder"


async def test_it_subscribes_first_and_then_lists(world: World, client: Client) -> None:
    """So that nothing is missed in between."""
    await world.manager.wait_for_calls("GetWorkspaces")
    assert [call.method for call in world.manager.calls] == ["Subscribe", "GetWorkspaces"]


# --- breaks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, GRPCError(Status.RESOURCE_EXHAUSTED, "subscriber lags")])
async def test_a_subscription_that_ends_is_taken_up_again(
    world: World, client: Client, error: GRPCError | None
) -> None:
    """What happened meanwhile is found in the list."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = await call.next()
        await world.manager.wait_for_subscribers()
        world.push(build.ref)
        with world.manager.rerouted(lambda _: []):  # nobody is told
            world.manager.end_subscriptions(error)
            world.manager.advance(build.info.build_id, WorkspacePhase.STOPPING)
        assert statuses(await call.rest())[-1] == "done_success"
    assert len(world.manager.received("Subscribe")) == 2


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.usefixtures("impatient")
async def test_a_build_that_ended_while_the_workspace_manager_was_away(
    world: World, client: Client, image: bool
) -> None:
    """Its image decides, and its clients are told."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = await call.next()
        if image:
            world.push(build.ref)
        await world.manager.restart(forgetful=True)
        end = (await call.rest())[-1]
    if image:
        assert end.status is BuildStatus.done_success
    else:
        assert end.status is BuildStatus.done_failure
        assert end.message == (
            "build ended while the workspace manager was away: image build did not produce a workspace image"
        )


async def test_a_build_goes_on_while_the_workspace_manager_is_away(world: World, client: Client) -> None:
    """It is back before the build ends."""
    finish = anyio.Event()
    world.script = waiting(finish)
    async with client.open(BuildRequest(source=dockerfile())) as call:
        await call.next()
        await world.manager.restart()
        await world.manager.wait_for_subscribers()
        finish.set()
        assert statuses(await call.rest())[-1] == "done_success"


# --- restarts of the service ----------------------------------------------------------------------------------


async def test_builds_are_taken_over_after_a_restart(world: World) -> None:
    """Listed, attached to, read from the first byte, and brought to their end."""
    finish = anyio.Event()
    world.script = waiting(finish)
    async with (
        serving(unobserved(world)) as served,
        served.client.open(BuildRequest(source=dockerfile(), triggered_by="owner")) as call,
    ):
        before = await with_log_info(call)
    async with serving(unobserved(world)) as served:
        await until_listed(served.client, before.build_id)
        (listed,) = await served.client.builds()
        assert replace(listed, started_at=0) == replace(before, started_at=0)
        async with served.client.open(BuildRequest(source=dockerfile())) as call:
            attached = await call.next()
            assert attached.info.build_id == before.build_id
            finish.set()
            assert statuses(await call.rest())[-1] == "done_success"
        log = (await served.client.log(build_id=before.build_id)).decode()
    assert [line for line in LINES if line in log] == list(LINES)
    assert len(world.manager.received("StartWorkspace")) == 1


async def test_a_build_that_was_taken_over_is_checked_like_any_other(world: World) -> None:
    """Here it leaves no image."""
    world.script = idle
    workspace = world.start(start_request("earlier", ref=world.workspace_ref("1")))
    async with serving(unobserved(world)) as served:
        await until_listed(served.client, workspace.id)
        world.manager.advance(workspace.id, WorkspacePhase.STOPPED)
        await until_listed(served.client)
        log = await served.client.log(build_id=workspace.id)
    assert log


async def test_builds_of_other_replicas_are_listed(world: World, served: Served) -> None:
    """As soon as the workspace manager tells of them, with their logs."""
    world.script = idle
    workspace = world.start(start_request("theirs", ref=world.workspace_ref("1")))
    await until_listed(served.client, workspace.id)
    (build,) = await served.client.builds()
    assert build.ref == world.workspace_ref("1")
    assert build.base_ref == "registry.test/base-images:1"
    assert build.status is BuildStatus.running
    assert build.log_info is not None
    assert build.log_info.url == workspace.url
    assert build.log_info.headers == {"x-gitpod-owner-token": workspace.owner_token}
    assert workspace.status.metadata is not None
    assert workspace.status.metadata.started_at is not None
    assert build.started_at == int(workspace.status.metadata.started_at.timestamp())


async def until_listed(client: Client, *build_ids: str) -> None:
    """Wait until exactly the builds of these ids run."""
    with anyio.fail_after(20):
        while {build.build_id for build in await client.builds()} != set(build_ids):
            pass


async def with_log_info(call: Call[Any]) -> BuildInfo:
    """What a build is, once its log is known."""
    response = await call.next()
    while response.info.log_info is None:
        response = await call.next()
    info = response.info
    assert isinstance(info, BuildInfo)
    return info
