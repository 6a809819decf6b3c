"""The client of the workspace manager: starts, stops, lists and watches workspaces over gRPC.

Moves messages and types errors. It keeps no state of workspaces, tries nothing twice, and never logs.
"""

from __future__ import annotations

import builtins
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio.lowlevel
from grpclib.client import Channel
from grpclib.const import Status

from imgbuilder.core.builds import LogSource, WorkspaceSeen, WorkspaceStarted
from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import MANAGED_BY, seen
from imgbuilder.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from imgbuilder.pb.wsman import (
    DescribeWorkspaceRequest,
    DescribeWorkspaceResponse,
    GetWorkspacesRequest,
    MetadataFilter,
    StartWorkspaceRequest,
    StartWorkspaceResponse,
    StopWorkspacePolicy,
    StopWorkspaceRequest,
    StopWorkspaceResponse,
    SubscribeRequest,
    SubscribeResponse,
    WorkspaceStatus,
)
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.piecewise import read_repeated
from imgbuilder.runtime.grpc.wire import DecodeError
from imgbuilder.telemetry.tracing import NO_TRACER, Span, Tracer
from imgbuilder.wsman.calls import Replies, ask, listen
from imgbuilder.wsman.errors import WorkspaceManagerError, WorkspaceManagerUnavailableError
from imgbuilder.wsman.target import parse_target

Reply = TypeVar("Reply")

CALL_DEADLINE: Final = 30.0
"""Seconds a call may take, connecting included."""

SUBSCRIBE_DEADLINE: Final = 10.0
"""Seconds until a subscription must be open."""

KEEPALIVE: Final = 10.0
"""Never less: workspace managers end connections that ask for signs of life more often."""

SERVER_NAME: Final = "ws-manager"
"""What the certificate of a workspace manager says, whatever its address is."""

YIELD_EVERY: Final = 64
"""After so many workspaces of a list other tasks get their turn."""

STATUS_FIELD: Final = 1
"""Number of the field of `GetWorkspacesResponse` that holds the statuses."""

SERVICE: Final = "/wsman.WorkspaceManager"
HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"


class WorkspaceManagerClient:
    """Satisfies `imgbuilder.orchestrator.ports.WorkspaceManager`.

    Use as an async context manager: leaving it closes the connection, which is made when it is first needed
    and made again when it broke.

    :param address: see `parse_target`.
    :param tls: see `imgbuilder.runtime.tls.client_context`; None for plaintext.
    :param call_deadline: seconds a call may take, connecting included.
    :param subscribe_deadline: seconds until a subscription must be open.
    :param tracer: makes a span of each call, and tells the workspace manager of it.
    :param keepalive: seconds between two signs of life asked for, and until a connection without is given up.
    :raises InvalidInputError: if *address* can't be used.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        call_deadline: float = CALL_DEADLINE,
        subscribe_deadline: float = SUBSCRIBE_DEADLINE,
        keepalive: float = KEEPALIVE,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._target = parse_target(address)
        self._tls = tls
        self._call_deadline = call_deadline
        self._subscribe_deadline = subscribe_deadline
        self._keepalive = keepalive
        self._tracer = tracer
        self._opened: Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def start(self, request: StartWorkspaceRequest) -> WorkspaceStarted:
        """Start a workspace.

        :raises WorkspaceExistsError: if there is one of this id.
        :raises WorkspaceManagerError: see `typed_errors`.
        """
        reply = await self._call("StartWorkspace", request, StartWorkspaceResponse)
        if not reply.url:
            return WorkspaceStarted(log_source=None)
        return WorkspaceStarted(log_source=LogSource(url=reply.url, owner_token=Secret(reply.owner_token)))

    async def stop(self, workspace_id: str) -> None:
        """Stop a workspace at once; does nothing if there is none of this id.

        :raises WorkspaceManagerError: see `typed_errors`.
        """
        # ABORT: a build leaves nothing in its workspace that is worth a backup
        request = StopWorkspaceRequest(id=workspace_id, policy=StopWorkspacePolicy.ABORT)
        try:
            await self._call("StopWorkspace", request, StopWorkspaceResponse)
        except WorkspaceManagerError as error:
            if error.code != Status.NOT_FOUND.name:
                raise

    async def describe(self, workspace_id: str) -> WorkspaceSeen | None:
        """The status of one workspace; None if there is none of this id, or it is no image build of ours.

        :raises WorkspaceManagerError: see `typed_errors`.
        """
        request = DescribeWorkspaceRequest(id=workspace_id)
        try:
            reply = await self._call("DescribeWorkspace", request, DescribeWorkspaceResponse)
        except WorkspaceManagerError as error:
            if error.code == Status.NOT_FOUND.name:
                return None
            raise
        return None if reply.status is None else seen(reply.status)

    async def list(self, *, ref: str | None = None) -> builtins.list[WorkspaceSeen]:
        """The workspaces that are image builds, all or those of one workspace image *ref*.

        :raises WorkspaceManagerError: see `typed_errors`.
        """
        annotations = {**MANAGED_BY, "ref": ref} if ref else {**MANAGED_BY}
        request = GetWorkspacesRequest(must_match=MetadataFilter(annotations=annotations))
        reply = await self._call("GetWorkspaces", request, bytes)
        return await _read_workspaces(reply)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[WorkspaceSeen]]:
        """Every change of image-build workspaces from now on, over a connection of its own.

        On entry the workspace manager has taken the subscription in, so what is listed then leaves no gap.
        The iterator ends when the workspace manager ends the stream cleanly. It must be read without waiting
        for anything else: a subscriber that lags is dropped.

        :raises WorkspaceManagerError: on entry and by the iterator, see `typed_errors`. Never in place of an
            error of the block.
        """
        request = SubscribeRequest(must_match=MetadataFilter(annotations={**MANAGED_BY}))
        channel = self._channel()
        async with listen(
            channel,
            f"{SERVICE}/Subscribe",
            request,
            SubscribeResponse,
            deadline=self._subscribe_deadline,
        ) as changes:
            await self._make_sure(channel)
            yield Subscription(changes)

    async def _make_sure(self, channel: Channel) -> None:
        """Wait until the other side has read what was sent on *channel*.

        Some servers (grpc-go) say nothing on a stream until they have something to say. So something is asked
        behind it that any server answers; what the answer is does not matter.
        """
        request = HealthCheckRequest()
        try:
            await ask(
                channel,
                HEALTH_CHECK,
                request,
                HealthCheckResponse,
                deadline=self._subscribe_deadline,
            )
        except WorkspaceManagerUnavailableError:
            raise
        except WorkspaceManagerError:
            pass

    def _channel(self) -> Channel:
        return open_channel(
            self._target.host,
            self._target.port,
            tls=self._tls,
            server_name=SERVER_NAME,
            keepalive=self._keepalive,
            keepalive_timeout=self._keepalive,
        )

    async def _call(self, method: str, request: object, reply_type: type[Reply]) -> Reply:
        if self._opened is None:
            self._opened = self._channel()
        path = f"{SERVICE}/{method}"
        with self._span(path, request) as span:
            try:
                return await ask(
                    self._opened,
                    path,
                    request,
                    reply_type,
                    deadline=self._call_deadline,
                    metadata=self._tracer.headers(),
                )
            except WorkspaceManagerError as error:
                span.tell({"rpc.grpc.status_code": Status[error.code].value})
                raise

    def _span(self, path: str, request: object) -> AbstractContextManager[Span]:
        name = path.removeprefix("/")
        service, _, method = name.partition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        if isinstance(request, StartWorkspaceRequest):
            about["imgbuilder.build_id"] = request.id
        return self._tracer.calling(name, about)


async def _read_workspaces(reply: bytes) -> list[WorkspaceSeen]:
    """The image builds in a `GetWorkspacesResponse`, which may be as large as ten thousand of them are."""
    workspaces = []
    try:
        for number, status in enumerate(read_repeated(reply, STATUS_FIELD, WorkspaceStatus), 1):
            workspace = seen(status)
            if workspace is not None:
                workspaces.append(workspace)
            if number % YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()
    except DecodeError as error:
        raise WorkspaceManagerError(
            Status.INTERNAL.name, f"can't decode GetWorkspacesResponse: {error}"
        ) from error
    return workspaces


class Subscription:
    """Iterates over the changes of image-build workspaces among *replies*."""

    def __init__(self, replies: Replies[SubscribeResponse]) -> None:
        self._replies = replies

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WorkspaceSeen:
        async for reply in self._replies:
            if reply.status is not None and (workspace := seen(reply.status)):
                return workspace
        raise StopAsyncIteration
