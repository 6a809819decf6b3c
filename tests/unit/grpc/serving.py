"""Servers of one test's handlers, and clients of all kinds for them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpclib.server
from grpclib.client import Channel
from grpclib.const import Cardinality, Handler

from imgbuilder.pb.builder import LogsRequest, LogsResponse
from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.limits import CutOff, Limits
from imgbuilder.runtime.grpc.server import Server
from imgbuilder.runtime.grpc.service import receive

Stream = grpclib.server.Stream[LogsRequest, LogsResponse]
Function = Callable[[Stream], Awaitable[None]]

UNARY, STREAMING = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
UPLOADING, CHATTING = Cardinality.STREAM_UNARY, Cardinality.STREAM_STREAM

ECHO = "/test.Service/Echo"


async def echo(stream: Stream) -> None:
    """Answer with what was asked."""
    request = await receive(stream)
    await stream.send_message(LogsResponse(content=request.build_ref.encode()))


class Service:
    """``test.Service`` with the methods that a test gives it, and Echo."""

    def __init__(self, methods: Mapping[str, tuple[Function, Cardinality]] | None = None) -> None:
        self._methods = {"Echo": (echo, UNARY), **(methods or {})}

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/test.Service/{name}": Handler(function, cardinality, LogsRequest, LogsResponse)
            for name, (function, cardinality) in self._methods.items()
        }


class Served:
    """A server, where it is, and why it cut peers off."""

    def __init__(self, server: Server, address: Address, cut_offs: list[CutOff]) -> None:
        self.server = server
        self.address = address
        self.cut_offs = cut_offs


@asynccontextmanager
async def serving(
    function: Function | None = None,
    cardinality: Cardinality = UNARY,
    *,
    limits: Limits | None = None,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve Echo, and *function* as ``/test.Service/Call``."""
    cut_offs: list[CutOff] = []
    methods = {"Call": (function, cardinality)} if function else {}
    async with Server([Service(methods)], limits=limits, on_cut_off=cut_offs.append, **options) as server:
        yield Served(server, await server.listen(f"127.0.0.1:{port}", tls=tls), cut_offs)


@asynccontextmanager
async def channel_to(served: Served, **options: Any) -> AsyncIterator[Channel]:
    """A channel to a server, closed in the end."""
    channel = open_channel(served.address.host, served.address.port, **options)
    try:
        yield channel
    finally:
        channel.close()


def call(channel: Channel, method: str = "Call", cardinality: Cardinality = UNARY, **options: Any) -> Any:
    """A call of a method of ``test.Service``, as grpclib's stream."""
    return channel.request(f"/test.Service/{method}", cardinality, LogsRequest, LogsResponse, **options)


async def replies(
    channel: Channel, method: str = "Call", cardinality: Cardinality = STREAMING, **options: Any
) -> list[Any]:
    """All answers to a call with one empty request."""
    async with call(channel, method, cardinality, **options) as stream:
        await stream.send_message(LogsRequest(), end=True)
        return [message async for message in stream]


async def ask(channel: Channel, method: str = "Call", *, ref: str = "", **options: Any) -> LogsResponse:
    """The answer to a unary call."""
    async with call(channel, method, UNARY, **options) as stream:
        await stream.send_message(LogsRequest(build_ref=ref), end=True)
        answer = await stream.recv_message()
    assert isinstance(answer, LogsResponse)
    return answer
