"""The five RPCs of ``builder.ImageBuilder``: read the request, call one use case, forward what it gives.

Written against grpclib's streams rather than as generators, whose clean-up would not run when a client
leaves. What must outlive a call runs in the service's tasks, never here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import anyio.lowlevel
import grpclib.server
import structlog
from grpclib.const import Cardinality, Handler

from imgbuilder.api.messages import build_info, build_response, first_response
from imgbuilder.core.builds import Build, BuildState
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.orchestrator.building import Builder
from imgbuilder.orchestrator.errors import BuildNotStartedError
from imgbuilder.orchestrator.logs import LogKeeper
from imgbuilder.orchestrator.resolving import Resolver
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.pb.builder import (
    BuildRequest,
    BuildResponse,
    BuildStatus,
    ListBuildsRequest,
    ListBuildsResponse,
    LogsRequest,
    LogsResponse,
    ResolveBaseImageRequest,
    ResolveBaseImageResponse,
    ResolveWorkspaceImageRequest,
    ResolveWorkspaceImageResponse,
)
from imgbuilder.runtime.grpc.piecewise import write_repeated
from imgbuilder.runtime.grpc.service import receive

log = structlog.get_logger(__name__)

SERVICE = "builder.ImageBuilder"

BUILDS_FIELD: Final = 1
"""Number of the field of `ListBuildsResponse` that holds the builds."""

YIELD_EVERY: Final = 256
"""After so many builds of a list other tasks get their turn."""


class ImageBuilder:
    """Serves the contract. Errors pass through: the interceptor of the server makes statuses of them."""

    def __init__(self, *, resolver: Resolver, builder: Builder, tracker: Tracker, logs: LogKeeper) -> None:
        self._resolver = resolver
        self._builder = builder
        self._tracker = tracker
        self._logs = logs

    def __mapping__(self) -> Mapping[str, Handler]:
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{SERVICE}/{name}": Handler(function, cardinality, request, response)
            for name, function, cardinality, request, response in (
                (
                    "ResolveBaseImage",
                    self.resolve_base_image,
                    unary,
                    ResolveBaseImageRequest,
                    ResolveBaseImageResponse,
                ),
                (
                    "ResolveWorkspaceImage",
                    self.resolve_workspace_image,
                    unary,
                    ResolveWorkspaceImageRequest,
                    ResolveWorkspaceImageResponse,
                ),
                ("Build", self.build, streaming, BuildRequest, BuildResponse),
                ("Logs", self.logs, streaming, LogsRequest, LogsResponse),
                ("ListBuilds", self.list_builds, unary, ListBuildsRequest, ListBuildsResponse),
            )
        }

    async def resolve_base_image(
        self,
        stream: grpclib.server.Stream[ResolveBaseImageRequest, ResolveBaseImageResponse],
    ) -> None:
        """Resolve an image reference to its digest form."""
        request = await receive(stream)
        ref = await self._resolver.resolve_base_image(request)
        await stream.send_message(ResolveBaseImageResponse(ref=ref))

    async def resolve_workspace_image(
        self,
        stream: grpclib.server.Stream[ResolveWorkspaceImageRequest, ResolveWorkspaceImageResponse],
    ) -> None:
        """Tell the workspace image of a source, and whether it exists."""
        request = await receive(stream)
        image = await self._resolver.resolve_workspace_image(request)
        await stream.send_message(
            ResolveWorkspaceImageResponse(
                ref=image.ref,
                base_ref=image.base_ref,
                status=BuildStatus.done_success if image.exists else BuildStatus.unknown,
            ),
        )

    async def build(self, stream: grpclib.server.Stream[BuildRequest, BuildResponse]) -> None:
        """Build an image or attach to its build, and tell how it stands until it has ended."""
        # Nothing here keeps the request, which may be large, for as long as the stream is open.
        result = await self._builder.build(await receive(stream))
        if isinstance(result, Build):
            await self._forward(result, stream)
        else:
            await stream.send_message(
                BuildResponse(ref=result.ref, base_ref=result.base_ref, status=BuildStatus.done_success),
            )

    async def _forward(self, build: Build, stream: grpclib.server.Stream[Any, BuildResponse]) -> None:
        """Send *build* as it is now, and whenever it is not as it was last sent, until it has ended."""
        with self._tracker.watch(build.build_id) as changes:
            build = self._tracker.get(build.build_id) or build
            _raise_if_not_started(build)
            told = first_response(build)
            await stream.send_message(told)
            while True:
                response = build_response(build)
                if response != told:
                    await stream.send_message(response)
                    told = response
                if build.state.ended:
                    return
                build = await changes.receive()
                _raise_if_not_started(build)

    async def logs(self, stream: grpclib.server.Stream[LogsRequest, LogsResponse]) -> None:
        """Send the output of a build from its first byte until the build has ended."""
        build = self._find(await receive(stream))
        async with self._logs.read(build.build_id) as chunks:
            async for chunk in chunks:
                await stream.send_message(LogsResponse(content=chunk))

    def _find(self, request: LogsRequest) -> Build:
        if not request.build_ref and not request.build_id:
            raise BuildNotFoundError
        return self._tracker.find(ref=request.build_ref, build_id=request.build_id)

    async def list_builds(
        self,
        stream: grpclib.server.Stream[ListBuildsRequest, ListBuildsResponse],
    ) -> None:
        """List the builds that run."""
        await receive(stream)
        pieces = []
        for number, build in enumerate(self._tracker.running(), 1):
            pieces.append(write_repeated(BUILDS_FIELD, build_info(build)))
            if number % YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()
        # encoded already, as the codec allows
        await stream.send_message(cast("ListBuildsResponse", b"".join(pieces)))


def _raise_if_not_started(build: Build) -> None:
    if build.state is BuildState.NOT_STARTED:
        raise BuildNotStartedError(build.message, unavailable=build.unavailable)
