"""A client of the workspace manager alone, without an image builder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import grpclib.client
from grpclib.const import Cardinality
from grpclib.exceptions import ProtocolError, StreamTerminatedError

from imgbuilder.pb.wsman import (
    StartWorkspaceRequest,
    StartWorkspaceResponse,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceManagerStub,
    WorkspacePhase,
    WorkspaceStatus,
)
from imgbuilder.runtime.grpc.channel import open_channel
from tests.e2e.standalone.programs import StandaloneProcess

Subscription = grpclib.client.Stream[SubscribeRequest, SubscribeResponse]


class Workspaces:
    """Starts workspaces, and hears how they stand from the moment it was made."""

    def __init__(self, stub: WorkspaceManagerStub, subscription: Subscription) -> None:
        self.stub = stub
        self._subscription = subscription

    async def start(self, request: StartWorkspaceRequest) -> StartWorkspaceResponse:
        """Start one."""
        return await self.stub.start_workspace(request)

    async def until(self, workspace_id: str, phase: WorkspacePhase) -> WorkspaceStatus:
        """The status in which a workspace is first told to be in *phase*."""
        with anyio.fail_after(60):
            while True:
                response = await self._subscription.recv_message()
                assert response is not None
                assert response.status is not None
                if response.status.id == workspace_id and response.status.phase == phase:
                    return response.status


@asynccontextmanager
async def workspaces(process: StandaloneProcess) -> AsyncIterator[Workspaces]:
    """A client that is subscribed."""
    channel = open_channel("127.0.0.1", process.port("workspaceManager"))
    try:
        async with channel.request(
            "/wsman.WorkspaceManager/Subscribe",
            Cardinality.UNARY_STREAM,
            SubscribeRequest,
            SubscribeResponse,
        ) as subscription:
            await subscription.send_message(SubscribeRequest(), end=True)
            await subscription.recv_initial_metadata()
            yield Workspaces(WorkspaceManagerStub(channel), subscription)
            with suppress(StreamTerminatedError, ProtocolError):  # the other side may have ended it
                await subscription.cancel()
    finally:
        channel.close()


def failure_of(status: WorkspaceStatus) -> str:
    """Why a workspace failed; empty if it did not."""
    assert status.conditions is not None
    return status.conditions.failed or status.conditions.headless_task_failed
