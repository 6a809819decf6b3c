"""A server of nothing in particular."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream


@asynccontextmanager
async def tcp_server(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A server on the loopback that does *handle* with each connection, which may break; its port."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            try:
                await handle(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        yield int(listener.extra(SocketAttribute.local_port))
        group.cancel_scope.cancel()
