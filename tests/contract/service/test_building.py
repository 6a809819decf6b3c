"""Build, step by step, over the wire."""

from __future__ import annotations

import hashlib

import anyio
import pytest

from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildStatus
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Client, dockerfile, reference, statuses
from tests.contract.service.conftest import Served, serving, unobserved
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import failing, idle, leaving_no_image, waiting
from tests.world.world import World


def workspace_ref(world: World, base_ref: str) -> str:
    """The workspace image of a base image, spelled out once more."""
    tag = hashlib.sha256(f"{base_ref}\n2\n".encode()).hexdigest()
    return world.workspace_ref(tag)


def environment(world: World, start: int = -1) -> dict[str, str]:
    """The environment variables of a workspace that was asked for."""
    spec = world.manager.received("StartWorkspace")[start].spec
    return {variable.name: variable.value for variable in spec.envvars}


def asked(registry: FakeRegistry) -> list[str]:
    """What a registry was asked, as ``GET base latest``."""
    return [
        f"{request.method} {' '.join(request.path.removeprefix('/v2/').split('/manifests/'))}"
        for request in registry.requests
    ]


# --- steps 1 to 4: whether there is anything to build ---------------------------------------------------------


async def test_an_image_that_does_not_exist_is_built(world: World, client: Client) -> None:
    """From the digest form of the base image: `running` first, then one end, each with its refs and info."""
    ref = world.seed_base_image()
    resolved = await client.resolve(ref)
    responses = await client.build(reference(ref), triggered_by="owner")
    (request,) = world.manager.received("StartWorkspace")
    assert statuses(responses)[0] == "running"
    assert statuses(responses)[-1] == "done_success"
    assert "done_success" not in statuses(responses)[:-1]
    for response in responses:
        assert response.info is not None
        assert response.ref == response.info.ref == workspace_ref(world, resolved)
        assert response.base_ref == response.info.base_ref == resolved
        assert response.status is response.info.status
        assert response.info.build_id == request.id
        assert response.info.started_at > 0
    assert (await client.workspace_image(reference(ref))).status is BuildStatus.done_success


async def test_an_image_that_exists_is_one_response(world: World, client: Client) -> None:
    """Nothing is started."""
    ref = world.seed_base_image()
    image = await client.workspace_image(reference(ref))
    world.push(image.ref)
    assert await client.build(reference(ref)) == [
        BuildResponse(ref=image.ref, base_ref=image.base_ref, status=BuildStatus.done_success),
    ]
    assert not world.manager.received("StartWorkspace")


async def test_a_forced_build_is_made_although_the_image_exists(world: World, client: Client) -> None:
    """And each time anew, under another id."""
    ref = world.seed_base_image()
    world.push((await client.workspace_image(reference(ref))).ref)
    for _ in range(2):
        assert statuses(await client.build(reference(ref), force_rebuild=True))[-1] == "done_success"
    first, second = world.manager.received("StartWorkspace")
    assert first.id != second.id
    assert first.metadata.annotations == second.metadata.annotations


async def test_a_dockerfile_is_named_and_not_resolved(world: World, client: Client) -> None:
    """The one question to the registry is whether the workspace image exists."""
    responses = await client.build(dockerfile())
    assert responses[0].base_ref.startswith(f"{world.registry.host}/base-images:")
    before_the_end = asked(world.registry)[0]
    assert before_the_end == f"HEAD workspace-images {responses[0].ref.rpartition(':')[2]}"
    assert environment(world)["BOB_BUILD_BASE"] == "true"


async def test_a_resolved_name_whose_image_exists_is_one_response(world: World, client: Client) -> None:
    """Its workspace image is that of the name as it stands; nothing is resolved."""
    name = f"{world.registry.host}/whatever:as-it-stands"
    world.push(workspace_ref(world, name))
    assert await client.build(dockerfile(), base_image_name_resolved=name) == [
        BuildResponse(ref=workspace_ref(world, name), base_ref=name, status=BuildStatus.done_success),
    ]
    assert [request.method for request in world.registry.requests] == ["HEAD"]


async def test_a_resolved_name_that_resolves_becomes_the_source(world: World, client: Client) -> None:
    """Instead of the Dockerfile, which need not be built again."""
    name = await client.resolve(world.seed_base_image())
    responses = await client.build(dockerfile(), base_image_name_resolved=name)
    assert responses[-1].base_ref == name
    assert responses[-1].ref == workspace_ref(world, name)
    assert environment(world)["BOB_BUILD_BASE"] == "false"


@pytest.mark.parametrize("name", ["{host}/gone:1", "not a reference"])
async def test_a_resolved_name_that_does_not_resolve_leaves_the_source(
    world: World, client: Client, name: str
) -> None:
    """The Dockerfile is built."""
    image = await client.workspace_image(dockerfile())
    name = name.format(host=world.registry.host)
    responses = await client.build(dockerfile(), base_image_name_resolved=name)
    assert (responses[-1].ref, responses[-1].base_ref) == (image.ref, image.base_ref)
    assert environment(world)["BOB_BUILD_BASE"] == "true"


async def test_a_resolved_name_does_not_count_where_the_build_is_forced(world: World, client: Client) -> None:
    """The request's own source is built."""
    name = await client.resolve(world.seed_base_image())
    world.push(workspace_ref(world, name))
    image = await client.workspace_image(dockerfile())
    responses = await client.build(dockerfile(), base_image_name_resolved=name, force_rebuild=True)
    assert statuses(responses)[-1] == "done_success"
    assert responses[-1].base_ref == image.base_ref


# --- step 5: attach or start ----------------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [False, True])
async def test_fifty_identical_builds_start_one_workspace(world: World, client: Client, forced: bool) -> None:
    """All of them are told its end."""
    ref = world.seed_base_image()
    finish = anyio.Event()
    world.script = waiting(finish)
    ends: list[BuildResponse] = []
    running = 0

    async def build() -> None:
        nonlocal running
        async with client.open(BuildRequest(source=reference(ref), force_rebuild=forced)) as call:
            assert (await call.next()).status is BuildStatus.running
            running += 1
            if running == 50:
                finish.set()
            ends.append((await call.rest())[-1])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(build)
    assert len(world.manager.received("StartWorkspace")) == 1
    assert statuses(ends) == ["done_success"] * 50
    assert len({end.info.build_id for end in ends if end.info}) == 1


async def test_a_forced_build_attaches_to_one_that_runs(world: World, client: Client) -> None:
    """One build per image at a time."""
    ref = world.seed_base_image()
    world.script = idle
    async with (
        client.open(BuildRequest(source=reference(ref))) as first,
        client.open(BuildRequest(source=reference(ref), force_rebuild=True)) as second,
    ):
        ids = {(await call.next()).info.build_id for call in (first, second)}
    assert len(ids) == len(world.manager.received("StartWorkspace")) == 1


async def test_replicas_share_a_build(world: World, served: Served) -> None:
    """Two of them are asked at the same time: one workspace, of which both tell."""
    ref = world.seed_base_image()
    finish = anyio.Event()
    world.script = waiting(finish)
    ids: list[str] = []
    ends: list[str] = []

    async def build(client: Client) -> None:
        async with client.open(BuildRequest(source=reference(ref))) as call:
            ids.append((await call.next()).info.build_id)
            if len(ids) == 2:
                finish.set()
            ends.extend(statuses((await call.rest())[-1:]))

    async with (
        serving(unobserved(world, logs={"folder": ""})) as other,
        anyio.create_task_group() as group,
    ):
        for client in (served.client, other.client):
            group.start_soon(build, client)
    assert ids[0] == ids[1]
    assert ends == ["done_success"] * 2
    assert {request.id for request in world.manager.received("StartWorkspace")} == {ids[0]}


async def test_the_end_of_a_stopping_workspace_is_awaited(world: World, client: Client) -> None:
    """Then the next attempt starts, under another id."""
    ref = world.seed_base_image()
    world.script = idle
    async with client.open(BuildRequest(source=reference(ref))) as call:
        first = (await call.next()).info.build_id
        world.manager.advance(first, WorkspacePhase.STOPPING, failed="out of disk")
        assert (await call.rest())[-1].message == "out of disk"
    async with client.open(BuildRequest(source=reference(ref))) as call:
        await world.manager.wait_for_calls("DescribeWorkspace")
        assert len(world.manager.received("StartWorkspace")) == 1
        world.manager.advance(first, WorkspacePhase.STOPPED, failed="out of disk")
        second = (await call.next()).info.build_id
    assert second != first
    assert [request.id for request in world.manager.received("StartWorkspace")] == [first, second]


# --- step 6: what is told -------------------------------------------------------------------------------------


async def test_every_change_is_told(world: World, client: Client) -> None:
    """The first response does not wait for one; messages of the workspace manager are passed on."""
    ref = world.seed_base_image()
    world.script = idle
    async with client.open(BuildRequest(source=reference(ref))) as call:
        first = await call.next()
        assert first.status is BuildStatus.running
        world.manager.advance(first.info.build_id, WorkspacePhase.CREATING, message="pulling images")
        response = await call.next()
        while response.message != "pulling images":
            response = await call.next()
        assert response.status is response.info.status is BuildStatus.running
        world.push(first.ref)
        world.manager.advance(first.info.build_id, WorkspacePhase.STOPPING)
        assert statuses(await call.rest())[-1] == "done_success"


async def test_log_info_is_told_once_it_is_known_and_never_empty(world: World, client: Client) -> None:
    """While the workspace manager does not answer, a build is known already, its log is not."""
    ref = world.seed_base_image()
    world.script = idle
    world.manager.faults.hang("StartWorkspace")
    async with client.open(BuildRequest(source=reference(ref))) as call:
        first = await call.next()
        assert first.status is BuildStatus.running
        assert first.info.log_info is None
        assert (await client.builds()) == [first.info]
        world.manager.faults.release()
        response = await call.next()
        while response.info.log_info is None:
            response = await call.next()
        (workspace,) = world.manager.workspaces.values()
        assert response.info.log_info.url == workspace.url
        assert response.info.log_info.headers == {"x-gitpod-owner-token": workspace.owner_token}
        (listed,) = await client.builds()
        assert listed.log_info == response.info.log_info


async def test_a_failure_is_told_in_the_words_of_the_workspace_manager(world: World, client: Client) -> None:
    """Clients read them."""
    world.script = failing(failure="headless task failed: exit code 17 «unchanged»")
    responses = await client.build(dockerfile())
    assert responses[-1].status is BuildStatus.done_failure
    assert responses[-1].message == "headless task failed: exit code 17 «unchanged»"
    assert statuses(responses)[0] == "running"


async def test_of_two_failures_the_workspaces_own_is_told(world: World, client: Client) -> None:
    """`failed` comes before `headless_task_failed`."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build_id = (await call.next()).info.build_id
        world.manager.advance(
            build_id, WorkspacePhase.STOPPED, failed="evicted", headless_task_failed="exit status 1"
        )
        assert (await call.rest())[-1].message == "evicted"


# --- steps 7 and 8: how it ends -------------------------------------------------------------------------------


async def test_success_needs_an_image(world: World, client: Client) -> None:
    """A workspace that stopped without a failure may have left none."""
    world.script = leaving_no_image()
    end = (await client.build(dockerfile()))[-1]
    assert end.status is BuildStatus.done_failure
    assert end.message == "image build did not produce a workspace image"


async def test_the_image_is_looked_up_once_a_build(world: World, client: Client) -> None:
    """And not once a client."""
    world.script = idle
    async with (
        client.open(BuildRequest(source=dockerfile())) as first,
        client.open(BuildRequest(source=dockerfile())) as second,
    ):
        build = await first.next()
        await second.next()
        before = len(world.registry.requests)
        world.push(build.ref)
        world.manager.advance(build.info.build_id, WorkspacePhase.STOPPED)
        for call in (first, second):
            assert statuses(await call.rest())[-1] == "done_success"
    assert len(world.registry.requests) == before + 1


async def test_a_client_that_leaves_stops_nothing(world: World, client: Client) -> None:
    """The next one finds the build as it is."""
    finish = anyio.Event()
    world.script = waiting(finish)
    async with client.open(BuildRequest(source=dockerfile())) as call:
        first = await call.next()
    async with client.open(BuildRequest(source=dockerfile())) as call:
        assert (await call.next()).info.build_id == first.info.build_id
        finish.set()
        assert statuses(await call.rest())[-1] == "done_success"
    assert len(world.manager.received("StartWorkspace")) == 1
    assert not world.manager.received("StopWorkspace")


async def test_a_build_that_takes_too_long_fails_and_is_stopped(world: World) -> None:
    """With a message that says so; an hour is the default."""
    world.script = idle
    async with serving(unobserved(world, builds={"maximumDuration": "500ms"})) as served:
        end = (await served.client.build(dockerfile()))[-1]
        assert end.status is BuildStatus.done_failure
        assert "took longer than" in end.message
        (stop,) = await world.manager.wait_for_calls("StopWorkspace")
    assert end.info is not None
    assert stop.id == end.info.build_id
