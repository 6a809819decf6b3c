"""The calls of the workspace manager's client, against one that behaves and misbehaves."""

from __future__ import annotations

import anyio
import pytest
from grpclib.const import Status

from imgbuilder.core.secrets import Secret
from imgbuilder.orchestrator import ports
from imgbuilder.pb.wsman import StartWorkspaceRequest, StopWorkspacePolicy, WorkspacePhase
from imgbuilder.wsman.calls import LONGEST_OF_STREAM, LONGEST_REPLY
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)
from tests.world.proxy import TcpProxy
from tests.world.requests import start_request
from tests.world.workspaces import WorkspaceManager


async def test_it_is_what_the_orchestrator_asks_for(client: WorkspaceManagerClient) -> None:
    """The client satisfies the port; the type checker sees to it."""
    port: ports.WorkspaceManager = client
    assert await port.list() == []


async def test_start_tells_where_the_log_is(
    manager: WorkspaceManager, client: WorkspaceManagerClient
) -> None:
    """Starting gives the supervisor's address and hides the owner token."""
    request = start_request("one", ref="registry/workspace:1")
    started = await client.start(request)
    workspace = manager.workspaces["one"]
    assert started.log_source is not None
    assert started.log_source.url == workspace.url
    assert started.log_source.owner_token == Secret(workspace.owner_token)
    assert workspace.owner_token not in repr(started)
    assert manager.received("StartWorkspace") == [request]
    assert StartWorkspaceRequest.parse(manager.codec.received[StartWorkspaceRequest][0]) == request


async def test_starting_twice_says_so(client: WorkspaceManagerClient) -> None:
    """A second start of an id is an error of its own."""
    await client.start(start_request("one"))
    with pytest.raises(WorkspaceExistsError):
        await client.start(start_request("one"))


async def test_stop_is_at_once(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """Stopping asks for no grace, and does nothing if there is nothing to stop."""
    await client.start(start_request("one"))
    await client.stop("one")
    await client.stop("one")
    assert not manager.workspaces
    assert [request.policy for request in manager.received("StopWorkspace")] == [
        StopWorkspacePolicy.ABORT
    ] * 2


async def test_describe(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """A workspace is described if it is an image build; others and unknown ones are None."""
    manager.add(start_request("one", ref="registry/workspace:1"))
    manager.add(start_request("other", managed_by="somebody"))
    workspace = await client.describe("one")
    assert workspace is not None
    assert (workspace.build_id, workspace.ref, workspace.phase) == ("one", "registry/workspace:1", "PENDING")
    assert await client.describe("other") is None
    assert await client.describe("none") is None


async def test_list_takes_only_builds(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """Workspaces of others are not listed; a ref narrows the list."""
    manager.add(start_request("one", ref="registry/workspace:1"))
    manager.add(start_request("two", ref="registry/workspace:2"))
    manager.add(start_request("other", managed_by="somebody"))
    assert {workspace.build_id for workspace in await client.list()} == {"one", "two"}
    assert [workspace.build_id for workspace in await client.list(ref="registry/workspace:2")] == ["two"]
    assert await client.list(ref="registry/workspace:3") == []


async def test_list_of_ten_thousand(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """An answer of many megabytes is taken."""
    for number in range(10_000):
        manager.add(start_request(f"build-{number}", ref=f"registry/workspace:{number}"))
    assert len(await client.list()) == 10_000


async def test_a_burst_shares_one_connection(manager: WorkspaceManager) -> None:
    """More calls at once than a connection carries are all made, one after the other where necessary."""
    async with (
        TcpProxy(manager.port) as proxy,
        WorkspaceManagerClient(f"dns:///127.0.0.1:{proxy.port}") as client,
    ):
        async with anyio.create_task_group() as group:
            for number in range(250):
                group.start_soon(client.start, start_request(f"build-{number}"))
        assert len(manager.workspaces) == 250
        assert proxy.connections == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.UNAVAILABLE, WorkspaceManagerUnavailableError),
        (Status.DEADLINE_EXCEEDED, WorkspaceManagerUnavailableError),
        (Status.INTERNAL, WorkspaceManagerError),
        (Status.RESOURCE_EXHAUSTED, WorkspaceManagerError),
        (Status.NOT_FOUND, WorkspaceManagerError),
    ],
)
async def test_statuses_become_errors(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
    status: Status,
    error: type[WorkspaceManagerError],
) -> None:
    """Each status has its error, with code and text; the next call is not affected."""
    manager.faults.fail("StartWorkspace", status, "the disk is full")
    with pytest.raises(WorkspaceManagerError) as raised:
        await client.start(start_request("one"))
    assert type(raised.value) is error
    assert (raised.value.code, raised.value.fault) == (status.name, "the disk is full")
    await client.start(start_request("one"))


async def test_no_answer_in_time(manager: WorkspaceManager) -> None:
    """A call has a deadline, and the connection outlives it."""
    manager.faults.hang("GetWorkspaces")
    async with WorkspaceManagerClient(manager.address, call_deadline=0.1) as client:
        with pytest.raises(WorkspaceManagerUnavailableError) as raised:
            await client.list()
        assert raised.value.code == "DEADLINE_EXCEEDED"
        assert await client.list() == []


async def test_a_lost_answer_can_be_asked_for_again(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """A start that had its effect but no answer shows as existing when it is tried again."""
    manager.faults.fail("StartWorkspace", Status.UNAVAILABLE, after=True)
    with pytest.raises(WorkspaceManagerUnavailableError):
        await client.start(start_request("one"))
    with pytest.raises(WorkspaceExistsError):
        await client.start(start_request("one"))


async def test_nobody_there(manager: WorkspaceManager, client: WorkspaceManagerClient) -> None:
    """No connection is unavailability, for calls and for subscriptions, until there is one again."""
    async with manager.away():
        with pytest.raises(WorkspaceManagerUnavailableError):
            await client.list()
        with pytest.raises(WorkspaceManagerUnavailableError):
            async with client.subscribe():
                pass
    assert await client.list() == []


async def test_an_answer_that_is_too_long_is_not_received(
    manager: WorkspaceManager, client: WorkspaceManagerClient
) -> None:
    """It is refused when its size is known; the connection goes on."""
    manager.add(start_request("one"))
    manager.advance("one", WorkspacePhase.RUNNING, message="x" * LONGEST_REPLY)
    for _ in range(2):
        with pytest.raises(WorkspaceManagerError, match="more than the limit of 33554432") as caught:
            await client.list()
        assert caught.value.code == "RESOURCE_EXHAUSTED"
    manager.vanish("one")
    assert await client.list() == []


async def test_a_change_that_is_too_long_ends_the_subscription(
    manager: WorkspaceManager, client: WorkspaceManagerClient
) -> None:
    """The next one goes on."""
    manager.add(start_request("one"))
    async with client.subscribe() as changes:
        manager.advance("one", WorkspacePhase.RUNNING, message="x" * LONGEST_OF_STREAM)
        with pytest.raises(WorkspaceManagerError, match="more than the limit of 4194304"):
            await anext(changes)
    async with client.subscribe() as changes:
        manager.advance("one", WorkspacePhase.RUNNING)
        assert (await anext(changes)).phase == "RUNNING"


async def test_a_peer_that_hangs_up_at_once() -> None:
    """A connection that is closed as soon as it is made, as proxies do, is unavailability."""
    async with TcpProxy(1) as proxy, WorkspaceManagerClient(f"127.0.0.1:{proxy.port}") as client:
        for _ in range(3):
            with pytest.raises(WorkspaceManagerUnavailableError):
                await client.list()


async def test_a_peer_that_speaks_no_grpc() -> None:
    """An answer in another language is an error of the client's kind."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with WorkspaceManagerClient(f"127.0.0.1:{port}", call_deadline=5) as client:
            with pytest.raises(WorkspaceManagerError):
                await client.list()
        group.cancel_scope.cancel()


async def test_a_call_in_flight_when_the_connection_breaks(
    manager: WorkspaceManager,
    client: WorkspaceManagerClient,
) -> None:
    """The call fails as unavailable, and cancel scopes around it work as before."""
    manager.faults.hang("GetWorkspaces")
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_when_asked, manager)
            with pytest.raises(WorkspaceManagerUnavailableError):
                await client.list()
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def _stop_when_asked(manager: WorkspaceManager) -> None:
    await manager.wait_for_calls("GetWorkspaces")
    await manager.stop()
