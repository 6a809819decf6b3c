"""A client of the service over gRPC, as other programs are, that tells all it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Generic, TypeVar

import grpclib.client
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from h2.exceptions import StreamClosedError

from imgbuilder.pb.builder import (
    BuildInfo,
    BuildRegistryAuth,
    BuildRegistryAuthSelective,
    BuildRegistryAuthTotal,
    BuildRequest,
    BuildResponse,
    BuildSource,
    BuildSourceDockerfile,
    BuildSourceReference,
    ListBuildsRequest,
    ListBuildsResponse,
    LogsRequest,
    LogsResponse,
    ResolveBaseImageRequest,
    ResolveBaseImageResponse,
    ResolveWorkspaceImageRequest,
    ResolveWorkspaceImageResponse,
)
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer
from imgbuilder.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from imgbuilder.runtime.grpc.channel import open_channel

Response = TypeVar("Response")

METHODS: Final[Mapping[type[Any], tuple[str, Cardinality, type[Any]]]] = {
    ResolveBaseImageRequest: ("ResolveBaseImage", Cardinality.UNARY_UNARY, ResolveBaseImageResponse),
    ResolveWorkspaceImageRequest: (
        "ResolveWorkspaceImage",
        Cardinality.UNARY_UNARY,
        ResolveWorkspaceImageResponse,
    ),
    BuildRequest: ("Build", Cardinality.UNARY_STREAM, BuildResponse),
    LogsRequest: ("Logs", Cardinality.UNARY_STREAM, LogsResponse),
    ListBuildsRequest: ("ListBuilds", Cardinality.UNARY_UNARY, ListBuildsResponse),
}
"""By the type of the request: name, cardinality and type of the response."""


class Call(Generic[Response]):
    """A call that is open."""

    def __init__(self, stream: grpclib.client.Stream[Any, Any]) -> None:
        self._stream = stream

    async def next(self) -> Response:
        """The next response.

        :raises GRPCError: if the call ended with another status than OK.
        """
        response: Response | None = await self._stream.recv_message()
        if response is None:
            await self._stream.recv_trailing_metadata()
        assert response is not None, "the call ended"
        return response

    async def responses(self) -> AsyncIterator[Response]:
        """The responses as they come, until the call has ended with OK.

        :raises GRPCError: if it ended with another status.
        """
        while (response := await self._stream.recv_message()) is not None:
            yield response
        await self._stream.recv_trailing_metadata()

    async def rest(self) -> list[Response]:
        """All responses to come, and with them the end of the call.

        :raises GRPCError: if the call ended with another status than OK.
        """
        return [response async for response in self.responses()]


class Client:
    """Calls the service over one channel."""

    def __init__(self, channel: grpclib.client.Channel) -> None:
        self._channel = channel

    @asynccontextmanager
    async def open(
        self, request: Any, *, encoded: bytes | None = None, metadata: Mapping[str, str] | None = None
    ) -> AsyncIterator[Call[Any]]:
        """Begin the call that takes *request*; at the end of the block it is cancelled if it goes on.

        :param encoded: is sent in its stead.
        """
        name, cardinality, response_type = METHODS[type(request)]
        path = f"/builder.ImageBuilder/{name}"
        async with self._channel.request(
            path, cardinality, type(request), response_type, metadata=metadata
        ) as stream:
            await stream.send_message(request if encoded is None else encoded, end=True)
            yield Call(stream)
            if not stream._recv_trailing_metadata_done:  # grpclib does not tell
                with suppress(StreamClosedError):  # the service has ended it meanwhile
                    await stream.cancel()

    async def call(
        self, request: Any, *, encoded: bytes | None = None, metadata: Mapping[str, str] | None = None
    ) -> list[Any]:
        """All responses to *request*.

        :raises GRPCError: if the call ended with another status than OK.
        """
        async with self.open(request, encoded=encoded, metadata=metadata) as call:
            return await call.rest()

    async def resolve(self, ref: str, auth: BuildRegistryAuth | None = None, *, retry: bool = False) -> str:
        """What ResolveBaseImage answers."""
        request = ResolveBaseImageRequest(ref=ref, auth=auth, use_retry_client=retry)
        (response,) = await self.call(request)
        return str(response.ref)

    async def workspace_image(
        self, source: BuildSource, auth: BuildRegistryAuth | None = None
    ) -> ResolveWorkspaceImageResponse:
        """What ResolveWorkspaceImage answers."""
        (response,) = await self.call(ResolveWorkspaceImageRequest(source=source, auth=auth))
        assert isinstance(response, ResolveWorkspaceImageResponse)
        return response

    async def build(self, source: BuildSource, **fields: Any) -> list[BuildResponse]:
        """All that Build answers."""
        return await self.call(BuildRequest(source=source, **fields))

    async def log(self, *, build_ref: str = "", build_id: str = "") -> bytes:
        """All that Logs answers, put together."""
        responses = await self.call(LogsRequest(build_ref=build_ref, build_id=build_id))
        return b"".join(response.content for response in responses)

    async def builds(self) -> list[BuildInfo]:
        """What ListBuilds answers."""
        (response,) = await self.call(ListBuildsRequest())
        return list(response.builds)

    async def serves(self) -> bool:
        """Whether the service says that it is healthy."""
        path, kind = "/grpc.health.v1.Health/Check", Cardinality.UNARY_UNARY
        async with self._channel.request(path, kind, HealthCheckRequest, HealthCheckResponse) as stream:
            await stream.send_message(HealthCheckRequest(), end=True)
            response = await stream.recv_message()
        return response is not None and response.status == HealthCheckResponseServingStatus.SERVING


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    """A client of the service on *port*; *options* are those of `open_channel`."""
    channel = open_channel("127.0.0.1", port, **options)
    try:
        yield Client(channel)
    finally:
        channel.close()


async def refusal(call: Awaitable[Any]) -> tuple[Status, str]:
    """The status and the message that *call* ends with."""
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value.status, caught.value.message or ""


# --- requests -------------------------------------------------------------------------------------------------


def reference(ref: str) -> BuildSource:
    """A source that is an image reference."""
    return BuildSource(ref=BuildSourceReference(ref=ref))


def git(remote_uri: str = "https://git.test/a.git", clone_target: str = "main") -> WorkspaceInitializer:
    """An initializer that clones a repository."""
    return WorkspaceInitializer(git=GitInitializer(remote_uri=remote_uri, clone_taget=clone_target))


def dockerfile(
    *,
    path: str = "Dockerfile",
    context: str = "",
    version: str = "1",
    source: WorkspaceInitializer | None = None,
) -> BuildSource:
    """A source that is a Dockerfile, by default in a git repository."""
    return BuildSource(
        file=BuildSourceDockerfile(
            source=git() if source is None else source,
            dockerfile_path=path,
            context_path=context,
            dockerfile_version=version,
        )
    )


def everything(additional: Mapping[str, str] | None = None) -> BuildRegistryAuth:
    """Permission to use all of the service's credentials."""
    return BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True), additional=dict(additional or {}))


def selected(
    *any_of: str,
    base: bool = False,
    workspace: bool = False,
    additional: Mapping[str, str] | None = None,
) -> BuildRegistryAuth:
    """Permission to use some of the service's credentials."""
    selective = BuildRegistryAuthSelective(
        allow_baserep=base, allow_workspacerep=workspace, any_of=list(any_of)
    )
    return BuildRegistryAuth(selective=selective, additional=dict(additional or {}))


def bringing(additional: Mapping[str, str]) -> BuildRegistryAuth:
    """Permission for none, and credentials of the request's own."""
    return BuildRegistryAuth(additional=dict(additional))


def statuses(responses: Iterable[BuildResponse]) -> list[str]:
    """The names of the statuses of *responses*."""
    return [response.status.name or "" for response in responses]
