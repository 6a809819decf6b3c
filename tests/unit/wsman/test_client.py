"""The client of the workspace manager, against one that behaves and misbehaves."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.core.secrets import Secret
from imgbuilder.orchestrator import ports
from imgbuilder.pb.wsman import StartWorkspaceRequest, StopWorkspacePolicy, WorkspacePhase
from imgbuilder.runtime.tls import client_context, server_context
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)
from tests.world.certificates import WORKSPACE_MANAGER, Authority
from tests.world.proxy import TcpProxy
from tests.world.requests import start_request
from tests.world.workspaces import WorkspaceManager


@pytest.fixture
async def manager() -> AsyncIterator[WorkspaceManager]:
    """A workspace manager that serves."""
    async with WorkspaceManager() as manager:
        yield manager


@pytest.fixture
async def client(manager: WorkspaceManager) -> AsyncIterator[WorkspaceManagerClient]:
    """A client of it."""
    async with WorkspaceManagerClient(manager.address) as client:
        yield client


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
            group.start_soon(manager.wait_for_calls, "GetWorkspaces")
            group.start_soon(_stop_when_asked, manager)
            with pytest.raises(WorkspaceManagerUnavailableError):
                await client.list()
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def _stop_when_asked(manager: WorkspaceManager) -> None:
    await manager.wait_for_calls("GetWorkspaces")
    await manager.stop()


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
        with anyio.fail_after(5), pytest.raises(WorkspaceManagerUnavailableError):
            await anext(changes)
        with anyio.fail_after(5), pytest.raises(WorkspaceManagerUnavailableError):
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


class TestTls:
    """Connections with certificates on both sides."""

    async def test_both_sides_show_certificates(self, tmp_path: Path) -> None:
        """Calls and subscriptions work when each side trusts the other, whatever the address is."""
        authority = Authority(tmp_path)
        context = server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
        async with (
            WorkspaceManager(tls=context) as manager,
            WorkspaceManagerClient(manager.address, tls=_tls(authority)) as client,
            client.subscribe() as changes,
        ):
            await client.start(start_request("one"))
            assert (await anext(changes)).build_id == "one"

    async def test_a_frozen_network_is_noticed(self, tmp_path: Path) -> None:
        """TLS does not wait for a peer's farewell when it is dead."""
        authority = Authority(tmp_path)
        async with (
            WorkspaceManager(tls=server_context(authority.files(WORKSPACE_MANAGER))) as manager,
            TcpProxy(manager.port) as proxy,
            WorkspaceManagerClient(f"127.0.0.1:{proxy.port}", tls=_tls(authority), keepalive=0.1) as client,
            client.subscribe() as changes,
        ):
            proxy.freeze()
            with anyio.fail_after(5), pytest.raises(WorkspaceManagerUnavailableError):
                await anext(changes)

    async def test_another_name_is_refused(self, tmp_path: Path) -> None:
        """A server that is not called ws-manager gets no request."""
        authority = Authority(tmp_path)
        context = server_context(authority.files("127.0.0.1"))
        async with (
            WorkspaceManager(tls=context) as manager,
            WorkspaceManagerClient(manager.address, tls=_tls(authority)) as client,
        ):
            with pytest.raises(WorkspaceManagerUnavailableError, match="certificate"):
                await client.list()
            assert not manager.calls

    async def test_a_client_that_is_not_trusted(self, tmp_path: Path) -> None:
        """A client whose certificate is refused sees unavailability."""
        authority, other = Authority(tmp_path), Authority(tmp_path, name="other")
        context = server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
        tls = client_context(authority.files("client", issuer=other))
        async with (
            WorkspaceManager(tls=context) as manager,
            WorkspaceManagerClient(manager.address, tls=tls) as client,
        ):
            for _ in range(3):
                with pytest.raises(WorkspaceManagerUnavailableError):
                    await client.list()

    async def test_plaintext_where_tls_is_wanted(self, manager: WorkspaceManager, tmp_path: Path) -> None:
        """A server without TLS is unavailable to a client with it."""
        async with WorkspaceManagerClient(manager.address, tls=_tls(Authority(tmp_path))) as client:
            with pytest.raises(WorkspaceManagerUnavailableError):
                await client.list()


def _tls(authority: Authority) -> ssl.SSLContext:
    return client_context(authority.files("image-builder"))
