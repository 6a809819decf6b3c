"""The test world's workspace manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from imgbuilder.pb.wsman import (
    GetWorkspacesRequest,
    MetadataFilter,
    StopWorkspaceRequest,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceConditionBool,
    WorkspaceManagerStub,
    WorkspacePhase,
    WorkspaceStatus,
)
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import WorkspaceManagerUnavailableError
from tests.world.proxy import TcpProxy
from tests.world.requests import start_request
from tests.world.workspaces import WorkspaceManager


@pytest.fixture
async def manager() -> AsyncIterator[WorkspaceManager]:
    """A workspace manager that serves."""
    async with WorkspaceManager() as manager:
        yield manager


@pytest.fixture
async def stub(manager: WorkspaceManager) -> AsyncIterator[WorkspaceManagerStub]:
    """Calls it over the wire."""
    async with Channel("127.0.0.1", manager.port) as channel:
        yield WorkspaceManagerStub(channel)


@pytest.mark.parametrize(
    ("must_match", "expected"),
    [
        (None, {"one", "two"}),
        (MetadataFilter(), {"one", "two"}),
        (MetadataFilter(owner="alice"), {"one"}),
        (MetadataFilter(meta_id="two"), {"two"}),
        (MetadataFilter(annotations={"managed-by": "image-builder"}), {"one", "two"}),
        (MetadataFilter(annotations={"managed-by": "image-builder", "ref": "r:2"}), {"two"}),
        (MetadataFilter(owner="alice", annotations={"ref": "r:2"}), set()),
    ],
)
async def test_every_part_of_a_filter_counts(
    manager: WorkspaceManager,
    stub: WorkspaceManagerStub,
    must_match: MetadataFilter | None,
    expected: set[str],
) -> None:
    """Owner, id and all annotations must match."""
    manager.add(start_request("one", owner="alice", ref="r:1"))
    manager.add(start_request("two", owner="bob", ref="r:2"))
    reply = await stub.get_workspaces(GetWorkspacesRequest(must_match=must_match))
    assert {status.id for status in reply.status} == expected


async def test_a_stopped_workspace_is_told_of_once(
    manager: WorkspaceManager,
    stub: WorkspaceManagerStub,
) -> None:
    """Versions grow with each change; after STOPPED the workspace is gone."""
    changes = stub.subscribe(SubscribeRequest())
    async with anyio.create_task_group() as group:
        group.start_soon(_stop_after_subscription, manager, stub)
        statuses = [(await anext(changes)).status for _ in range(3)]
    await changes.aclose()  # type: ignore[attr-defined]  # it is a generator
    phases = [WorkspacePhase.PENDING, WorkspacePhase.STOPPING, WorkspacePhase.STOPPED]
    assert [status.phase for status in statuses if status] == phases
    versions = [status.status_version for status in statuses if status]
    assert versions == sorted(set(versions))
    conditions = statuses[-1] and statuses[-1].conditions
    assert conditions
    assert conditions.stopped_by_request == WorkspaceConditionBool.TRUE
    assert (await stub.get_workspaces(GetWorkspacesRequest())).status == []


async def _stop_after_subscription(manager: WorkspaceManager, stub: WorkspaceManagerStub) -> None:
    await manager.wait_for_subscribers()
    await stub.start_workspace(start_request("one"))
    await stub.stop_workspace(StopWorkspaceRequest(id="one"))


async def test_faults_come_in_order(manager: WorkspaceManager, stub: WorkspaceManagerStub) -> None:
    """Planned faults happen to the next calls, one each; then all is well."""
    manager.faults.fail("StartWorkspace", Status.UNAVAILABLE, times=2)
    manager.faults.fail("StartWorkspace", Status.INTERNAL, after=True)
    statuses = []
    for _ in range(3):
        with pytest.raises(GRPCError) as raised:
            await stub.start_workspace(start_request("one"))
        statuses.append(raised.value.status)
    assert statuses == [Status.UNAVAILABLE, Status.UNAVAILABLE, Status.INTERNAL]
    with pytest.raises(GRPCError, match="already exists"):
        await stub.start_workspace(start_request("one"))


async def test_a_restart_keeps_the_port(manager: WorkspaceManager, stub: WorkspaceManagerStub) -> None:
    """Workspaces outlive a restart unless they are to be forgotten."""
    manager.add(start_request("one"))
    for forgetful, count in ((False, 1), (True, 0)):
        await manager.restart(forgetful=forgetful)
        assert len((await stub.get_workspaces(GetWorkspacesRequest())).status) == count


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: [], []),
        (lambda held: held * 2, [1, 2, 1, 2]),
        (lambda held: held[::-1], [2, 1]),
    ],
    ids=["lost", "twice", "reversed"],
)
async def test_changes_can_be_disturbed(
    manager: WorkspaceManager,
    stub: WorkspaceManagerStub,
    change: Callable[[list[WorkspaceStatus]], list[WorkspaceStatus]],
    expected: list[int],
) -> None:
    """What is published can be lost, come twice, or in another order."""
    changes = stub.channel.request(
        "/wsman.WorkspaceManager/Subscribe",
        Cardinality.UNARY_STREAM,
        SubscribeRequest,
        SubscribeResponse,
    )
    async with changes:
        await changes.send_message(SubscribeRequest(), end=True)
        await manager.wait_for_subscribers()
        with manager.rerouted(change):
            manager.add(start_request("one"))
            manager.advance("one", WorkspacePhase.RUNNING)
        manager.advance("one", WorkspacePhase.STOPPED)
        versions = [
            (await changes.recv_message() or SubscribeResponse()).status.status_version  # type: ignore[union-attr]
            for _ in range(len(expected) + 1)
        ]
        await changes.cancel()
    assert versions == [*expected, 3]


async def test_what_is_not_needed_is_not_there(stub: WorkspaceManagerStub) -> None:
    """Other calls of the contract are UNIMPLEMENTED."""
    with pytest.raises(GRPCError) as raised:
        await stub._unary_unary("/wsman.WorkspaceManager/MarkActive", SubscribeRequest(), SubscribeResponse)
    assert raised.value.status is Status.UNIMPLEMENTED


async def test_the_network_can_freeze_and_be_cut(manager: WorkspaceManager) -> None:
    """Behind a frozen proxy calls get no answer until it thaws; a cut breaks them, and new ones work."""
    async with (
        TcpProxy(manager.port) as proxy,
        WorkspaceManagerClient(f"127.0.0.1:{proxy.port}", call_deadline=0.1) as client,
    ):
        await client.list()
        proxy.freeze()
        with pytest.raises(WorkspaceManagerUnavailableError, match="no answer in time"):
            await client.list()
        proxy.thaw()
        await client.list()
        assert proxy.connections == 1
        proxy.cut()
        with pytest.raises(WorkspaceManagerUnavailableError, match="Connection lost"):
            await client.list()
        await client.list()
