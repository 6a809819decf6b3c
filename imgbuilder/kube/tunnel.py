"""Moves bytes between a local connection and the websocket of a port-forward, until one of them ends.

Waits for the slower side, so that no more than a few buffers of each are ever in memory.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import aiohttp
import anyio
from anyio.abc import TaskGroup

from imgbuilder.kube.channels import Channels, packed
from imgbuilder.kube.cluster import WebSocket

LINGER: Final = 5.0
"""Seconds without a word from the pod, after which a client that has said all it had to say is let go."""

PIECE: Final = 1 << 16
"""Bytes that are moved at a time, at most."""

FAREWELL: Final = 2.0
"""Seconds that a local client may take to read the rest."""

EITHER_ENDS: Final = (aiohttp.ClientError, OSError)


class Tunnel:
    """One connection through the cluster.

    :param reader: what the local client says, and *writer*, what it is told. Of asyncio, since its readers stop
        reading when nobody takes what they have read.
    :param on_answer: is called when the pod has said something for the first time.
    :param linger: see `LINGER`; the protocol has no way to tell a pod that a client has said all, and a client
        that is gone looks the same as one that only listens.
    """

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        socket: WebSocket,
        *,
        on_answer: Callable[[], None],
        linger: float,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._socket = socket
        self._on_answer = on_answer
        self._linger = linger
        self._received = 0
        self._channels = Channels()

    async def run(self) -> str:
        """Move until either side has ended; what the cluster said of an error, empty for nothing."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._to_pod, group)
            await self._from_pod()
            group.cancel_scope.cancel()
        return self._channels.error

    async def _to_pod(self, group: TaskGroup) -> None:
        try:
            while data := await self._reader.read(PIECE):
                await self._socket.send_bytes(packed(data))
        except aiohttp.ClientError:
            return  # what the cluster has to say of it is still to be read
        except OSError:
            group.cancel_scope.cancel()
            return
        seen = -1
        while seen != self._received:
            seen = self._received
            await anyio.sleep(self._linger)
        group.cancel_scope.cancel()

    async def _from_pod(self) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    data = self._channels.feed(message.data)
                    if data:
                        if not self._received:
                            self._on_answer()
                        self._received += len(data)
                        self._writer.write(data)
                        await self._writer.drain()
        except EITHER_ENDS:
            return


async def close(writer: StreamWriter) -> None:
    """Close a local connection, after the client has read what it was sent, or has had time to."""
    writer.close()
    with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL), suppress(OSError):
        await writer.wait_closed()
    writer.transport.abort()
