"""The wire side of the test world's workspace manager: its calls, and the faults planned for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpclib.const
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from imgbuilder.pb.wsman import (
    DescribeWorkspaceRequest,
    DescribeWorkspaceResponse,
    GetWorkspacesRequest,
    GetWorkspacesResponse,
    StartWorkspaceRequest,
    StartWorkspaceResponse,
    StopWorkspacePolicy,
    StopWorkspaceRequest,
    StopWorkspaceResponse,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceConditionBool,
    WorkspaceManagerBase,
    WorkspacePhase,
)
from tests.world.subscribers import matches

if TYPE_CHECKING:
    from tests.world.workspaces import Workspace, WorkspaceManager

SERVICE: Final = "/wsman.WorkspaceManager"
OTHERS: Final = (
    "MarkActive",
    "SetTimeout",
    "ControlPort",
    "TakeSnapshot",
    "ControlAdmission",
    "BackupWorkspace",
    "DeleteVolumeSnapshot",
    "UpdateSSHKey",
    "DescribeCluster",
)
"""Calls of the contract that no image builder makes."""


Request = TypeVar("Request")
Reply = TypeVar("Reply")


class WorkspaceService(WorkspaceManagerBase):
    """Answers for *manager*."""

    def __init__(self, manager: WorkspaceManager) -> None:
        self._manager = manager

    async def start_workspace(self, message: StartWorkspaceRequest) -> StartWorkspaceResponse:
        """StartWorkspace."""

        def start(request: StartWorkspaceRequest) -> StartWorkspaceResponse:
            if request.id in self._manager.workspaces:
                raise GRPCError(Status.ALREADY_EXISTS, f"workspace {request.id} already exists")
            workspace = self._manager.add(request)
            self._manager.on_start(workspace)
            return StartWorkspaceResponse(url=workspace.url, owner_token=workspace.owner_token)

        return await self._answer("StartWorkspace", message, start)

    async def stop_workspace(self, message: StopWorkspaceRequest) -> StopWorkspaceResponse:
        """StopWorkspace."""

        def stop(request: StopWorkspaceRequest) -> StopWorkspaceResponse:
            self._find(request.id)
            aborted = request.policy is StopWorkspacePolicy.ABORT
            self._manager.advance(
                request.id,
                WorkspacePhase.STOPPING,
                stopped_by_request=WorkspaceConditionBool.TRUE,
                aborted=WorkspaceConditionBool.TRUE if aborted else WorkspaceConditionBool.FALSE,
            )
            self._manager.advance(request.id, WorkspacePhase.STOPPED)
            return StopWorkspaceResponse()

        return await self._answer("StopWorkspace", message, stop)

    async def describe_workspace(self, message: DescribeWorkspaceRequest) -> DescribeWorkspaceResponse:
        """DescribeWorkspace."""

        def describe(request: DescribeWorkspaceRequest) -> DescribeWorkspaceResponse:
            return DescribeWorkspaceResponse(status=self._find(request.id).status)

        return await self._answer("DescribeWorkspace", message, describe)

    async def get_workspaces(self, message: GetWorkspacesRequest) -> GetWorkspacesResponse:
        """GetWorkspaces."""

        def get(request: GetWorkspacesRequest) -> GetWorkspacesResponse:
            statuses = (workspace.status for workspace in self._manager.workspaces.values())
            return GetWorkspacesResponse(
                status=[status for status in statuses if matches(request.must_match, status)],
            )

        return await self._answer("GetWorkspaces", message, get)

    async def _subscribe(self, stream: Stream[SubscribeRequest, SubscribeResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        must_match = await self._answer("Subscribe", request, lambda request: request.must_match)
        with self._manager.subscribed(must_match) as subscriber:
            await subscriber.run(stream)

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        # the generated Subscribe iterates over a handler without closing it
        subscribe = grpclib.const.Handler(
            self._subscribe,
            Cardinality.UNARY_STREAM,
            SubscribeRequest,
            SubscribeResponse,
        )
        unimplemented = grpclib.const.Handler(
            _unimplemented,
            Cardinality.UNARY_UNARY,
            StopWorkspaceRequest,
            StopWorkspaceResponse,
        )
        others = {f"{SERVICE}/{method}": unimplemented for method in OTHERS}
        return {**super().__mapping__(), f"{SERVICE}/Subscribe": subscribe, **others}

    async def _answer(self, method: str, request: Request, effect: Callable[[Request], Reply]) -> Reply:
        self._manager.record(method, request)
        fault = self._manager.faults.next(method)
        if fault is not None and not fault.after:
            await fault.strike()
        reply = effect(request)
        if fault is not None and fault.after:
            await fault.strike()
        return reply

    def _find(self, workspace_id: str) -> Workspace:
        try:
            return self._manager.workspaces[workspace_id]
        except KeyError:
            raise GRPCError(Status.NOT_FOUND, f"workspace {workspace_id} does not exist") from None


async def _unimplemented(_: Stream[Any, Any]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED)
