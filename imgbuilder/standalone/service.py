"""The RPCs of ``wsman.WorkspaceManager``: read the request, ask the manager, answer.

Of the contract's methods those that image builds need; the others are UNIMPLEMENTED. Written against grpclib's
streams rather than as generators, whose clean-up would not run when a client leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import grpclib.server
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from imgbuilder.core.errors import ImgbuilderError, InvalidInputError
from imgbuilder.pb.wsman import (
    DescribeWorkspaceRequest,
    DescribeWorkspaceResponse,
    GetWorkspacesRequest,
    GetWorkspacesResponse,
    StartWorkspaceRequest,
    StartWorkspaceResponse,
    StopWorkspaceRequest,
    StopWorkspaceResponse,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceStatus,
)
from imgbuilder.runtime.grpc.interceptors import Call, Proceed
from imgbuilder.runtime.grpc.service import receive
from imgbuilder.standalone.live import ManagerClosedError, WorkspaceKnownError, WorkspaceUnknownError
from imgbuilder.standalone.manager import Manager
from imgbuilder.standalone.state import DataFolderError
from imgbuilder.standalone.subscriptions import SubscriberLagsError

SERVICE: Final = "wsman.WorkspaceManager"

STATUSES: Final[Mapping[type[ImgbuilderError], Status]] = {
    InvalidInputError: Status.INVALID_ARGUMENT,
    WorkspaceKnownError: Status.ALREADY_EXISTS,
    WorkspaceUnknownError: Status.NOT_FOUND,
    ManagerClosedError: Status.UNAVAILABLE,
    SubscriberLagsError: Status.RESOURCE_EXHAUSTED,
    DataFolderError: Status.INTERNAL,
}
"""What callers are told of the errors that speak for themselves."""


async def map_errors(_: Call, proceed: Proceed) -> None:
    """An interceptor that makes statuses of errors."""
    try:
        await proceed()
    except ImgbuilderError as error:
        status = STATUSES.get(type(error))
        if status is None:
            raise
        raise GRPCError(status, str(error)) from error


class WorkspaceManagerService:
    """Serves the contract. Errors pass through: `map_errors` makes statuses of them."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def __mapping__(self) -> Mapping[str, Handler]:
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        methods = (
            ("GetWorkspaces", self.get_workspaces, unary, GetWorkspacesRequest, GetWorkspacesResponse),
            ("StartWorkspace", self.start_workspace, unary, StartWorkspaceRequest, StartWorkspaceResponse),
            ("StopWorkspace", self.stop_workspace, unary, StopWorkspaceRequest, StopWorkspaceResponse),
            (
                "DescribeWorkspace",
                self.describe_workspace,
                unary,
                DescribeWorkspaceRequest,
                DescribeWorkspaceResponse,
            ),
            ("Subscribe", self.subscribe, streaming, SubscribeRequest, SubscribeResponse),
        )
        return {
            f"/{SERVICE}/{name}": Handler(function, cardinality, request, response)
            for name, function, cardinality, request, response in methods
        }

    async def get_workspaces(
        self,
        stream: grpclib.server.Stream[GetWorkspacesRequest, GetWorkspacesResponse],
    ) -> None:
        """List workspaces."""
        request = await receive(stream)
        await stream.send_message(GetWorkspacesResponse(status=self._manager.matching(request.must_match)))

    async def start_workspace(
        self,
        stream: grpclib.server.Stream[StartWorkspaceRequest, StartWorkspaceResponse],
    ) -> None:
        """Start a workspace."""
        request = await receive(stream)
        workspace = self._manager.start(request)
        await stream.send_message(
            StartWorkspaceResponse(url=workspace.spec.url, owner_token=workspace.owner_token.reveal()),
        )

    async def stop_workspace(
        self,
        stream: grpclib.server.Stream[StopWorkspaceRequest, StopWorkspaceResponse],
    ) -> None:
        """Begin to end a workspace."""
        request = await receive(stream)
        self._manager.stop(request.id, request.policy)
        await stream.send_message(StopWorkspaceResponse())

    async def describe_workspace(
        self,
        stream: grpclib.server.Stream[DescribeWorkspaceRequest, DescribeWorkspaceResponse],
    ) -> None:
        """Tell how one workspace stands."""
        request = await receive(stream)
        status = self._manager.status(request.id)
        await stream.send_message(
            DescribeWorkspaceResponse(status=status, last_activity=_last_activity(status)),
        )

    async def subscribe(self, stream: grpclib.server.Stream[SubscribeRequest, SubscribeResponse]) -> None:
        """Tell every change until the caller leaves, lags, or the workspace manager is stopped."""
        request = await receive(stream)
        with self._manager.subscribe(request.must_match) as mailbox, mailbox.dropping():
            await stream.send_initial_metadata()  # from here on nothing is missed, and the caller knows
            while (status := await mailbox.receive()) is not None:
                await stream.send_message(SubscribeResponse(status=status))
        raise ManagerClosedError


def _last_activity(status: WorkspaceStatus) -> str:
    """When the workspace was last heard of, in RFC 3339: a build is active from its start on."""
    started_at: Any = status.metadata.started_at if status.metadata else None
    return started_at.astimezone(UTC).isoformat().replace("+00:00", "Z") if started_at else ""
