"""What StartWorkspace may answer, and what the clients of a build are told of it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from grpclib.const import Status

from imgbuilder.orchestrator import launching
from imgbuilder.pb.builder import BuildRequest, BuildStatus
from tests.contract.service.client import Call, Client, dockerfile, refusal, statuses
from tests.world.scripts import idle
from tests.world.world import World


async def test_unavailable_is_tried_again_with_the_same_id(world: World, client: Client) -> None:
    """After a second, the first time."""
    world.manager.faults.fail("StartWorkspace", Status.UNAVAILABLE)
    responses = await client.build(dockerfile())
    assert statuses(responses)[-1] == "done_success"
    first, second = world.manager.received("StartWorkspace")
    assert first.id == second.id


async def test_unavailable_for_good_is_told(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of the contract, after as many attempts as were planned."""
    monkeypatch.setattr(launching, "RETRIES", 0)
    world.manager.faults.fail("StartWorkspace", Status.UNAVAILABLE, times=99)
    assert await refusal(client.build(dockerfile())) == (
        Status.UNAVAILABLE,
        "workspace services are currently unavailable",
    )
    assert await client.builds() == []


async def test_another_refusal_is_told_to_everybody(world: World, client: Client) -> None:
    """To each client that is attached."""
    world.manager.faults.fail("StartWorkspace", Status.UNAVAILABLE)  # the others come meanwhile
    world.manager.faults.fail("StartWorkspace", Status.RESOURCE_EXHAUSTED, "no room")
    told: list[tuple[Status, str]] = []

    async def build() -> None:
        told.append(await refusal(client.build(dockerfile())))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(build)
    assert told == [(Status.INTERNAL, "cannot start build: no room")] * 5
    assert len(world.manager.received("StartWorkspace")) == 2


async def test_a_workspace_that_exists_is_attached_to(world: World, client: Client) -> None:
    """Here because the answer to the first attempt was lost, which had its effect."""
    world.script = idle
    world.manager.faults.fail("StartWorkspace", Status.UNAVAILABLE, "connection lost", after=True)
    async with client.open(BuildRequest(source=dockerfile())) as call:
        response = await _with_log_info(call)
        assert response.status is BuildStatus.running
        (workspace,) = world.manager.workspaces.values()
        assert response.info.build_id == workspace.id
        assert response.info.log_info.url == workspace.url


async def _with_log_info(call: Call[Any]) -> Any:
    response = await call.next()
    while response.info.log_info is None:
        response = await call.next()
    return response
