"""Subscriptions to the workspace manager, with all that can end them."""

from __future__ import annotations

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import (
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)
from tests.world.proxy import TcpProxy
from tests.world.requests import start_request
from tests.world.workspaces import WorkspaceManager


async def test_subscription_delivers_changes(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """Every change from the moment of entry comes, in order; those of others do not."""
    async with client.subscribe() as changes:
        manager.add(start_request("other", managed_by="somebody"))
        manager.add(start_request("one"))
        manager.advance("one", WorkspacePhase.RUNNING, message="building")
        manager.advance("one", WorkspacePhase.STOPPING, headless_task_failed="exit status 1")
        seen = [await anext(changes) for _ in range(3)]
    assert [workspace.phase for workspace in seen] == ["PENDING", "RUNNING", "STOPPING"]
    assert [workspace.version for workspace in seen] == sorted({workspace.version for workspace in seen})
    assert (seen[1].message, seen[2].failure) == ("building", "exit status 1")
    await manager.wait_for_subscribers(0)


async def test_entering_a_subscription_does_not_wait_for_a_change(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """A server that says nothing before its first change is subscribed to when the block begins."""
    async with client.subscribe():
        assert manager.subscribers == 1


async def test_a_subscription_ends_cleanly(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """The end of the stream with OK is the end of the iteration, also when asked again."""
    async with client.subscribe() as changes:
        manager.end_subscriptions()
        assert [change async for change in changes] == []
        assert [change async for change in changes] == []


async def test_a_subscription_ends_with_a_status(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """Any other end is an error with the status, before the first change and after it."""
    async with client.subscribe() as changes:
        manager.end_subscriptions(GRPCError(Status.UNIMPLEMENTED, "no"))
        with pytest.raises(WorkspaceManagerError, match="UNIMPLEMENTED: no"):
            await anext(changes)
    async with client.subscribe() as changes:
        manager.add(start_request("one"))
        await anext(changes)
        manager.end_subscriptions(GRPCError(Status.INTERNAL, "bug"))
        with pytest.raises(WorkspaceManagerError, match="INTERNAL: bug"):
            await anext(changes)


async def test_a_subscriber_that_lags_is_dropped() -> None:
    """Whoever does not read gets an error in the end."""
    async with (
        WorkspaceManager(backlog=3) as manager,
        WorkspaceManagerClient(manager.address) as client,
        client.subscribe() as changes,
    ):
        manager.add(start_request("one"))
        while manager.subscribers:
            manager.advance("one", WorkspacePhase.RUNNING, message="x" * 500_000)
            await anyio.lowlevel.checkpoint()
        with pytest.raises(WorkspaceManagerError):
            async for _ in changes:
                pass


async def test_a_subscription_breaks_when_the_manager_goes(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """A restart ends the subscription with an error; a new one works, and so do cancel scopes."""
    with anyio.CancelScope() as scope:
        async with client.subscribe() as changes:
            await manager.restart()
            with pytest.raises(WorkspaceManagerUnavailableError):
                await anext(changes)
        async with client.subscribe() as changes:
            manager.add(start_request("one"))
            assert (await anext(changes)).build_id == "one"
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_frozen_network_is_noticed_on_entry(manager: WorkspaceManager) -> None:
    """A subscription that nobody takes is given up in time."""
    async with (
        TcpProxy(manager.port) as proxy,
        WorkspaceManagerClient(f"127.0.0.1:{proxy.port}", subscribe_deadline=0.1) as client,
    ):
        proxy.freeze()
        with pytest.raises(WorkspaceManagerUnavailableError):
            async with client.subscribe():
                pass


async def test_a_frozen_network_is_noticed_while_nothing_happens(manager: WorkspaceManager) -> None:
    """A subscription over a connection that is dead without saying so breaks, and a call does."""
    async with (
        TcpProxy(manager.port) as proxy,
        WorkspaceManagerClient(f"127.0.0.1:{proxy.port}", keepalive=0.1) as client,
        client.subscribe() as changes,
    ):
        await client.list()
        proxy.freeze()
        with anyio.fail_after(20), pytest.raises(WorkspaceManagerUnavailableError):
            await anext(changes)
        with anyio.fail_after(20), pytest.raises(WorkspaceManagerUnavailableError):
            await client.list()


async def test_an_error_of_the_block_is_left_alone(client: WorkspaceManagerClient) -> None:
    """What the reader of a subscription raises comes out as it is."""
    with pytest.raises(ConnectionError, match="mine"):
        async with client.subscribe():
            raise ConnectionError("mine")


async def test_cancelling_a_reader(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """A reader that waits can be cancelled; the manager is told."""
    with anyio.move_on_after(0.05) as scope:
        async with client.subscribe() as changes:
            await anext(changes)
    assert scope.cancelled_caught
    await manager.wait_for_subscribers(0)
