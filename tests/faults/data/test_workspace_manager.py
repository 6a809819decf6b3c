"""Statuses of absurd size."""

from __future__ import annotations

from typing import Final

import anyio
import pytest

from imgbuilder.core.workspace import LONGEST_TEXT
from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.wsman.calls import LONGEST_OF_STREAM, LONGEST_REPLY
from tests.contract.service.client import statuses
from tests.faults.trial import MEBIBYTE, PATIENCE, Trial
from tests.world.requests import start_request

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(PATIENCE + 10)]

ROOM: Final = 3 * LONGEST_REPLY
"""The list is received as a whole."""


async def test_a_status_that_is_too_long_for_the_stream(hostile: Trial) -> None:
    """The subscription breaks and the list tells it; its text is cut; it and all others come to their end."""
    manager = hostile.world.manager
    text = "x" * (LONGEST_OF_STREAM + MEBIBYTE)
    with anyio.fail_after(PATIENCE):
        async with hostile.building() as (call, build_id), hostile.bounded("a status of 5 MiB", room=ROOM):
            manager.advance(build_id, WorkspacePhase.RUNNING, message=text)
            while (response := await call.next()).message != text[:LONGEST_TEXT]:
                assert response.status.name == "running"
            await hostile.another_build()
            hostile.world.push(manager.workspaces[build_id].ref)
            manager.advance(build_id, WorkspacePhase.STOPPED)
            assert statuses(await call.rest())[-1] == "done_success"
    assert any(
        "more than the limit of 4194304" in record.get("reason", "") for record in hostile.service.records
    )


async def test_a_list_that_is_too_long(hostile: Trial) -> None:
    """It is not received, which is told in the log; what is streamed brings builds to their end."""
    manager = hostile.world.manager
    other = manager.add(start_request("huge", ref=hostile.world.workspace_ref("huge")))
    try:
        with anyio.fail_after(PATIENCE):
            manager.advance(other.id, WorkspacePhase.RUNNING, message="x" * LONGEST_REPLY)
            await hostile.logged("workspaces not listed")
            async with hostile.bounded("a list of 32 MiB"):
                await hostile.another_build()
    finally:
        manager.vanish(other.id)
    assert all("more than the limit of 33554432" in reason for reason in refusals_of(hostile))


def refusals_of(hostile: Trial) -> list[str]:
    """Why workspaces were not listed."""
    records = hostile.service.records
    return [record["reason"] for record in records if record["message"] == "workspaces not listed"]
