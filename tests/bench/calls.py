"""The requests of a benchmark, encoded, and what is read of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc

from imgbuilder.pb.builder import (
    BuildRegistryAuth,
    BuildRegistryAuthSelective,
    BuildRequest,
    BuildResponse,
    BuildSource,
    BuildSourceDockerfile,
    BuildSourceReference,
    ListBuildsResponse,
    LogsRequest,
    ResolveBaseImageRequest,
    ResolveBaseImageResponse,
)
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import SubscribeRequest
from imgbuilder.runtime.grpc.codec import ProtoCodec

BUILD: Final = "/builder.ImageBuilder/Build"
LOGS: Final = "/builder.ImageBuilder/Logs"
LIST: Final = "/builder.ImageBuilder/ListBuilds"
RESOLVE: Final = "/builder.ImageBuilder/ResolveBaseImage"
GET_WORKSPACES: Final = "/wsman.WorkspaceManager/GetWorkspaces"
SUBSCRIBE: Final = "/wsman.WorkspaceManager/Subscribe"

CONTENT: Final = (1,)
"""Where LogsResponse has its output."""
MESSAGE: Final = (3,)
"""Where BuildResponse has its message."""
STATUS_MESSAGE: Final = (1, 6)
"""Where SubscribeResponse has the message of its status."""

DEADLINE: Final = 60.0
LARGEST: Final = 1 << 30

_AUTH: Final = BuildRegistryAuth(
    selective=BuildRegistryAuthSelective(allow_baserep=True, allow_workspacerep=True),
)
_codec: Final = ProtoCodec()


def dockerfile_build(number: int) -> bytes:
    """A request for the build of a Dockerfile, another for each *number*."""
    source = BuildSourceDockerfile(
        source=WorkspaceInitializer(
            git=GitInitializer(remote_uri="https://example.com/repository.git", clone_taget="main"),
        ),
        dockerfile_version=str(number),
        dockerfile_path="Dockerfile",
        context_path=".",
    )
    return _build(BuildSource(file=source))


def reference_build(ref: str) -> bytes:
    """A request for the build on the image *ref*."""
    return _build(BuildSource(ref=BuildSourceReference(ref=ref)))


def log(build_id: str) -> bytes:
    """A request for the log of a build."""
    return _codec.encode(LogsRequest(build_id=build_id), LogsRequest)


def subscription() -> bytes:
    """A request to the workspace manager for all changes."""
    return _codec.encode(SubscribeRequest(), SubscribeRequest)


class Client:
    """A few calls, one after the other, where the call itself is not what is measured."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, [("grpc.max_receive_message_length", LARGEST)])

    def resolve(self, ref: str) -> str:
        """The reference by digest of *ref*."""
        request = _codec.encode(ResolveBaseImageRequest(ref=ref, auth=_AUTH), ResolveBaseImageRequest)
        answer = self._channel.unary_unary(RESOLVE)(request, timeout=DEADLINE)
        resolved: ResolveBaseImageResponse = _codec.decode(answer, ResolveBaseImageResponse)
        return resolved.ref

    def list_builds(self) -> bytes:
        """The builds that run, encoded."""
        return bytes(self._channel.unary_unary(LIST)(b"", timeout=DEADLINE))

    def build(self, request: bytes) -> BuildResponse:
        """Build; the last that is told of it."""
        answers: Iterable[bytes] = self._channel.unary_stream(BUILD)(request, timeout=DEADLINE)
        *_, last = answers
        response: BuildResponse = _codec.decode(last, BuildResponse)
        return response

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def builds_in(answer: bytes) -> int:
    """How many builds *answer* lists."""
    return len(_codec.decode(answer, ListBuildsResponse).builds)


def _build(source: BuildSource) -> bytes:
    request = BuildRequest(
        source=source, auth=_AUTH, triggered_by="bench", supervisor_ref="registry.test/s:1"
    )
    return _codec.encode(request, BuildRequest)
