"""Servers of other kinds than ours: another image builder, and what may listen on a port instead of one."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from anyio.abc import SocketStream
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.pb.builder import BuildInfo, ImageBuilderBase, ListBuildsRequest, ListBuildsResponse
from imgbuilder.runtime.grpc.codec import ProtoCodec
from tests.world.serving import GrpcServer
from tests.world.tcp import tcp_server


class Lists(ImageBuilderBase):
    """An image builder that only lists builds: each time what comes next, UNAVAILABLE for None, INTERNAL in the end."""

    def __init__(self, *lists: list[BuildInfo] | None) -> None:
        self._lists = iter(lists)

    async def list_builds(self, message: ListBuildsRequest) -> ListBuildsResponse:
        """What comes next."""
        try:
            builds = next(self._lists)
        except StopIteration:
            raise GRPCError(Status.INTERNAL, "the end\nof the world") from None
        if builds is None:
            raise GRPCError(Status.UNAVAILABLE, "try again")
        return ListBuildsResponse(builds=builds)


@asynccontextmanager
async def grpc(*services: ImageBuilderBase, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A plain grpclib server; its address."""
    server = GrpcServer(services, codec=ProtoCodec())
    port = await server.listen(0, tls=tls)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.end()


@asynccontextmanager
async def tcp(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that does *handle* with each connection; its address."""
    async with tcp_server(handle) as port:
        yield f"127.0.0.1:{port}"


async def http_1(stream: SocketStream) -> None:
    """Answers anything as an old web server does."""
    await stream.receive()
    await stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def hang_up(stream: SocketStream) -> None:
    """Says nothing at all."""
    await stream.receive()
