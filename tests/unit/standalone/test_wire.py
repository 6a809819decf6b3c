"""The workspace manager over gRPC and HTTP, as the image builder and other clients speak to it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from imgbuilder.core.builds import LogSource, WorkspaceSeen
from imgbuilder.core.workspace import seen
from imgbuilder.pb.wsman import (
    DescribeWorkspaceRequest,
    GetWorkspacesRequest,
    MetadataFilter,
    StopWorkspacePolicy,
    StopWorkspaceRequest,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceManagerStub,
    WorkspacePhase,
    WorkspaceType,
)
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.standalone.manager import Manager
from imgbuilder.standalone.serving import serving_grpc, serving_supervisors
from imgbuilder.standalone.supervisor import supervisor_path
from imgbuilder.standalone.workspaces import Working
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import SupervisorError, WorkspaceExistsError
from imgbuilder.wsman.supervisor import SupervisorClient
from tests.unit.standalone.requests import build_request
from tests.unit.standalone.runners import Script, managing


@dataclass(frozen=True, slots=True)
class Served:
    """A workspace manager on the loopback."""

    manager: Manager
    script: Script
    port: int
    http_port: int
    channel: Channel

    @property
    def stub(self) -> WorkspaceManagerStub:
        """A plain client of it."""
        return WorkspaceManagerStub(self.channel)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """A workspace manager whose builds the test drives."""
    ports: list[int] = []

    def address_of(workspace_id: str) -> str:
        return f"http://127.0.0.1:{ports[0]}{supervisor_path(workspace_id)}"

    async with (
        managing(folder, address_of=address_of) as (manager, script),
        serving_grpc(manager, "127.0.0.1", 0) as port,
        serving_supervisors(manager, "127.0.0.1", 0) as http_port,
    ):
        ports.append(http_port)
        channel = open_channel("127.0.0.1", port)
        try:
            yield Served(manager, script, port, http_port, channel)
        finally:
            channel.close()


async def status_of_call(call: Any) -> Status:
    """With which status a call fails."""
    with pytest.raises(GRPCError) as failed:
        await call
    return failed.value.status


async def test_calls_answer_as_the_contract_says(tmp_path: Path) -> None:
    """Start, list, describe and stop, with a plain client of the contract."""
    async with served(tmp_path) as world:
        started = await world.stub.start_workspace(build_request("w"))
        assert started.url == f"http://127.0.0.1:{world.http_port}/workspace/w"
        assert started.owner_token
        await world.script.begun("w")
        listed = await world.stub.get_workspaces(
            GetWorkspacesRequest(must_match=MetadataFilter(annotations={"managed-by": "image-builder"}))
        )
        described = await world.stub.describe_workspace(DescribeWorkspaceRequest(id="w"))
        assert listed.status == [described.status]
        assert described.status is not None
        assert described.status.phase == WorkspacePhase.CREATING
        assert described.status.spec is not None
        assert described.status.spec.headless
        assert described.status.auth is not None
        assert described.status.auth.owner_token == started.owner_token
        assert described.last_activity == "2023-11-14T22:13:20Z"
        await world.stub.stop_workspace(StopWorkspaceRequest(id="w", policy=StopWorkspacePolicy.IMMEDIATELY))
        with world.manager.subscribe(None) as mailbox:
            while world.manager.matching(None):
                await mailbox.receive()


async def test_errors_have_the_statuses_of_the_contract(tmp_path: Path) -> None:
    """Each way of asking wrongly has its code."""
    async with served(tmp_path) as world:
        regular = build_request()
        regular.type = WorkspaceType.REGULAR
        assert await status_of_call(world.stub.start_workspace(regular)) is Status.INVALID_ARGUMENT
        await world.stub.start_workspace(build_request("w"))
        again = world.stub.start_workspace(build_request("w"))
        assert await status_of_call(again) is Status.ALREADY_EXISTS
        stop = world.stub.stop_workspace(StopWorkspaceRequest(id="unknown"))
        assert await status_of_call(stop) is Status.NOT_FOUND
        describe = world.stub.describe_workspace(DescribeWorkspaceRequest(id="unknown"))
        assert await status_of_call(describe) is Status.NOT_FOUND


@pytest.mark.parametrize("method", ["MarkActive", "TakeSnapshot", "DescribeCluster"])
async def test_other_methods_are_unimplemented(tmp_path: Path, method: str) -> None:
    """What image builds do not need says so."""
    async with served(tmp_path) as world:
        stream = world.channel.request(
            f"/wsman.WorkspaceManager/{method}",
            Cardinality.UNARY_UNARY,
            StopWorkspaceRequest,
            SubscribeResponse,
        )
        async with stream:
            await stream.send_message(StopWorkspaceRequest(), end=True)
            with pytest.raises(GRPCError) as failed:
                await stream.recv_message()
        assert failed.value.status is Status.UNIMPLEMENTED


async def test_a_subscriber_is_told_every_change(tmp_path: Path) -> None:
    """From the moment the subscription is open, nothing is missed."""
    async with (
        served(tmp_path) as world,
        world.channel.request(
            "/wsman.WorkspaceManager/Subscribe",
            Cardinality.UNARY_STREAM,
            SubscribeRequest,
            SubscribeResponse,
        ) as stream,
    ):
        await stream.send_message(SubscribeRequest(), end=True)
        await stream.recv_initial_metadata()
        world.manager.start(build_request("w"))
        build = await world.script.begun("w")
        build.work()
        build.end()
        phases = []
        while "STOPPING" not in phases:
            response = await stream.recv_message()
            assert response is not None
            assert response.status is not None
            phases.append(response.status.phase.name)
        await stream.cancel()
    assert phases == ["PENDING", "CREATING", "INITIALIZING", "RUNNING", "STOPPING"]


async def test_a_subscriber_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """It gets an error instead of what it missed; nobody waited for it."""
    async with served(tmp_path) as world:
        async with world.channel.request(
            "/wsman.WorkspaceManager/Subscribe",
            Cardinality.UNARY_STREAM,
            SubscribeRequest,
            SubscribeResponse,
        ) as stream:
            await stream.send_message(SubscribeRequest(), end=True)
            await stream.recv_initial_metadata()
            world.manager.start(build_request("w"))
            build = await world.script.begun("w")
            build.work()
            for number in range(3000):
                build.report(Working(f"step {number} " + "x" * 1000))
            while await stream.recv_message() is not None:
                pass
            with pytest.raises(GRPCError) as failed:
                await stream.recv_trailing_metadata()
        assert failed.value.status is Status.RESOURCE_EXHAUSTED


async def test_our_own_client_gets_along_with_it(tmp_path: Path) -> None:
    """The image builder's clients for workspace manager and supervisor: start, watch, read the output, end."""
    async with (
        served(tmp_path) as world,
        WorkspaceManagerClient(f"127.0.0.1:{world.port}") as client,
        client.subscribe() as changes,
    ):
        supervisor = SupervisorClient()
        started = await client.start(build_request("w"))
        assert started.log_source is not None
        with pytest.raises(WorkspaceExistsError):
            await client.start(build_request("w"))
        build = await world.script.begun("w")
        build.work()
        assert await supervisor.terminal(started.log_source) == "build"
        async with supervisor.listen(started.log_source, "build") as stream:
            build.terminal.write(b"hello")
            build.end()
            lines = [json.loads(line) async for line in _lines(stream)]
        seen_last: WorkspaceSeen | None = None
        async for change in changes:
            seen_last = change
            if change.stopped:
                break
    assert lines == [
        {"result": {"data": base64.b64encode(b"hello").decode()}},
        {"result": {"exitCode": 0}},
    ]
    assert seen_last is not None
    assert not seen_last.failure


async def _lines(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in stream:
        *complete, rest = (rest + piece).split(b"\n")
        for line in complete:
            yield line


async def test_the_owner_token_is_required(tmp_path: Path) -> None:
    """Without it, or with that of another workspace, nothing is told."""
    async with (
        served(tmp_path) as world,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.http_port}") as http,
    ):
        mine = world.manager.start(build_request("mine"))
        other = world.manager.start(build_request("other"))
        base = "/workspace/mine/_supervisor/v1"
        for path in (f"{base}/status/tasks", f"{base}/terminal/listen/build"):
            for token in (None, "", "wrong", other.owner_token.reveal(), "ä"):
                headers = {} if token is None else {b"x-gitpod-owner-token": token.encode()}
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 403
        known = {"x-gitpod-owner-token": mine.owner_token.reveal()}
        assert (await http.get(f"{base}/status/tasks", headers=known)).status_code == 200
        assert (await http.get(f"{base}/terminal/listen/x", headers=known)).status_code == 404
        unknown = "/workspace/unknown/_supervisor/v1/status/tasks"
        assert (await http.get(unknown, headers=known)).status_code == 404


async def test_a_task_has_no_terminal_while_it_waits(tmp_path: Path) -> None:
    """The alias is empty until the build may run, and the state follows the build."""
    async with (
        served(tmp_path) as world,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.http_port}") as http,
    ):
        world.manager.start(build_request("one"))
        world.manager.start(build_request("two"))
        waiting = world.manager.start(build_request("waiting"))

        async def task() -> dict[str, str]:
            answer = await http.get(
                f"{supervisor_path('waiting')}/_supervisor/v1/status/tasks",
                headers={"x-gitpod-owner-token": waiting.owner_token.reveal()},
            )
            (only,) = answer.json()["result"]["tasks"]
            return dict(only)

        assert await task() == {"id": "build", "state": "opening", "terminal": ""}
        (await world.script.begun("one")).end()
        build = await world.script.begun("waiting")
        assert await task() == {"id": "build", "state": "running", "terminal": "build"}
        build.end()
        with world.manager.subscribe(None) as mailbox:
            while not world.manager.get("waiting").workspace.ending:
                await mailbox.receive()
        assert await task() == {"id": "build", "state": "closed", "terminal": "build"}


async def test_a_listener_that_leaves_is_forgotten(tmp_path: Path) -> None:
    """Also while nothing is written."""
    async with served(tmp_path) as world:
        workspace = world.manager.start(build_request("w"))
        build = await world.script.begun("w")
        source = LogSource(url=workspace.spec.url, owner_token=workspace.owner_token)
        async with SupervisorClient().listen(source, "build") as stream:
            build.terminal.write(b"x")
            assert await anext(stream)
            assert build.terminal.listeners == 1
        with anyio.fail_after(10):
            while build.terminal.listeners:
                await build.terminal.changed()


async def test_a_workspace_without_a_terminal_yet_is_no_error(tmp_path: Path) -> None:
    """The image builder asks again; a wrong token is an error for it."""
    supervisor = SupervisorClient()
    async with served(tmp_path) as world:
        for name in ("one", "two"):
            world.manager.start(build_request(name))
        workspace = world.manager.start(build_request("waiting"))
        source = LogSource(url=workspace.spec.url, owner_token=workspace.owner_token)
        assert await supervisor.terminal(source) is None
        status = seen(world.manager.status("one"))
        assert status is not None
        assert status.log_source is not None
        mixed = LogSource(url=status.log_source.url, owner_token=workspace.owner_token)
        with pytest.raises(SupervisorError):
            await supervisor.terminal(mixed)
