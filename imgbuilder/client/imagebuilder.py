"""The calls of an image builder, each as a function: what goes in is what comes over the wire."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from imgbuilder.client.connection import IMAGE_BUILDER, Call, Connection, Replies
from imgbuilder.pb.builder import (
    BuildInfo,
    BuildRequest,
    BuildResponse,
    ListBuildsRequest,
    ListBuildsResponse,
    LogsRequest,
    LogsResponse,
    ResolveBaseImageRequest,
    ResolveBaseImageResponse,
    ResolveWorkspaceImageRequest,
    ResolveWorkspaceImageResponse,
)
from imgbuilder.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse

LIMIT: Final = 60.0
"""Seconds that a call may take which is no stream: a registry may be looked at for 40."""


class ImageBuilderClient:
    """Calls the image builder at the other end of *connection*.

    :param limit: seconds that each call may take which is no stream.
    :raises ClientError: from every call, see `Connection`.
    """

    def __init__(self, connection: Connection, *, limit: float = LIMIT) -> None:
        self.address = str(connection.endpoint)
        self._connection = connection
        self._limit = limit

    async def resolve_base_image(self, request: ResolveBaseImageRequest) -> ResolveBaseImageResponse:
        """An image reference in its digest form."""
        call = _call("ResolveBaseImage", ResolveBaseImageRequest, ResolveBaseImageResponse)
        response: ResolveBaseImageResponse = await self._connection.ask(call, request, limit=self._limit)
        return response

    async def resolve_workspace_image(
        self, request: ResolveWorkspaceImageRequest
    ) -> ResolveWorkspaceImageResponse:
        """The workspace image of a source, and whether it exists."""
        call = _call("ResolveWorkspaceImage", ResolveWorkspaceImageRequest, ResolveWorkspaceImageResponse)
        response: ResolveWorkspaceImageResponse = await self._connection.ask(call, request, limit=self._limit)
        return response

    def build(self, request: BuildRequest) -> AbstractAsyncContextManager[Replies[BuildResponse]]:
        """Build, or attach to a build: how it stands, until it has ended."""
        return self._connection.listen(_call("Build", BuildRequest, BuildResponse), request)

    def logs(
        self, *, build_ref: str = "", build_id: str = ""
    ) -> AbstractAsyncContextManager[Replies[LogsResponse]]:
        """The output of a build from its first byte, until it has ended. Where both are given, both must fit."""
        request = LogsRequest(build_ref=build_ref, build_id=build_id, censored=True)
        return self._connection.listen(_call("Logs", LogsRequest, LogsResponse), request)

    async def list_builds(self) -> list[BuildInfo]:
        """The builds that run."""
        call = _call("ListBuilds", ListBuildsRequest, ListBuildsResponse)
        response: ListBuildsResponse = await self._connection.ask(
            call, ListBuildsRequest(), limit=self._limit
        )
        return response.builds

    async def health(self, service: str) -> str:
        """How *service* is, as a name of ``grpc.health.v1``; empty for the server as a whole."""
        call: Call = ("grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse)
        request = HealthCheckRequest(service=service)
        response: HealthCheckResponse = await self._connection.ask(call, request, limit=self._limit)
        return response.status.name or str(int(response.status))


def _call(name: str, request: type, response: type) -> Call:
    return f"{IMAGE_BUILDER}/{name}", request, response
