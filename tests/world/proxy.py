"""A TCP proxy that can behave like a bad network: when frozen, nothing is closed and nothing is answered."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus

from tests.world.serving import HOST


class TcpProxy:
    """Passes bytes on between its own port and *target_port*, both ways. Use as an async context manager.

    :ivar port: its own port, known from when the block is entered.
    :ivar target_port: may be changed; counts for new connections.
    """

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.target_port = target_port
        self.port = port
        self._group: TaskGroup = anyio.create_task_group()
        self._connections: set[anyio.CancelScope] = set()
        self._flowing = anyio.Event()
        self._flowing.set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def freeze(self) -> None:
        """Pass nothing on until `thaw`. Connections stay open, and new ones are taken."""
        self._flowing = anyio.Event()

    def thaw(self) -> None:
        """Pass on what has piled up, and go on."""
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection."""
        for scope in self._connections:
            scope.cancel()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._group.start(self._listen)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        return await self._group.__aexit__(kind, error, traceback)

    async def _listen(self, *, task_status: TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host=HOST, local_port=self.port) as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._serve)

    async def _serve(self, client: SocketStream) -> None:
        with anyio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                async with (
                    client,
                    await anyio.connect_tcp(HOST, self.target_port) as target,
                    anyio.create_task_group() as group,
                ):
                    group.start_soon(self._pass_on, client, target, group)
                    group.start_soon(self._pass_on, target, client, group)
            except OSError:
                pass  # there is nobody behind the proxy: the client is let go
            finally:
                self._connections.discard(scope)

    async def _pass_on(self, source: SocketStream, sink: SocketStream, group: TaskGroup) -> None:
        try:
            async for data in source:
                await self._flowing.wait()
                await sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        await self._flowing.wait()  # a network that passes nothing on does not pass an end on either
        group.cancel_scope.cancel()
