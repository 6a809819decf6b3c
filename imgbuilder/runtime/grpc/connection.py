"""The sending side of a connection: grpclib's, which closes so that the peer can see why."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpclib.config
import grpclib.protocol
from h2.connection import H2Connection

from imgbuilder.runtime.grpc.http2 import FloodGuard
from imgbuilder.runtime.grpc.streams import Stream

CLOSING: Final = 2.0
"""Seconds a peer may take to read what is left for it when the connection is closed."""


class Connection(grpclib.protocol.Connection):
    """grpclib's connection, whose streams are ours.

    :ivar waiting: the streams that wait for a window.
    :ivar hasty: whether it is closed as soon as all was sent, whatever the peer does.
    """

    def __init__(
        self,
        connection: H2Connection,
        transport: asyncio.Transport,
        *,
        config: grpclib.config.Configuration,
        guard: FloodGuard,
    ) -> None:
        super().__init__(connection, transport, config=config)
        self.waiting: set[grpclib.protocol.Stream] = set()
        self.hasty = False
        self._guard = guard

    @property
    def unread(self) -> int:
        """Bytes that wait until the peer has read others."""
        return 0 if self.is_closing() else self._transport.get_write_buffer_size()

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        """A stream that the peer has opened."""
        return Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def close(self) -> None:
        """Say no more, and close the transport when the peer has done so, or some seconds later.

        Until then what the peer sends is dropped. Closing while there is something to read would make the
        system reset the connection, and the peer would never see why it was closed.
        """
        transport: asyncio.Transport | None = self.__dict__.pop("_transport", None)
        super().close()  # closes no transport, as there is none any more
        if transport is None:
            return
        self._connection._frame_dispatch_table.clear()  # noqa: SLF001  # as grpclib does, against cycles
        self.write_ready.set()  # whoever waits for it would wait forever
        if self.hasty or not transport.can_write_eof():
            transport.close()  # which over TLS waits for the peer by itself
        else:
            try:
                transport.write_eof()
            except OSError:
                transport.close()  # the peer is gone
        asyncio.get_running_loop().call_later(CLOSING, transport.abort)

    def flush(self) -> None:
        """Send what h2 has prepared, unless the connection is closed."""
        if not self.is_closing():
            super().flush()

    def headers_send_process(self) -> None:
        """Headers were sent."""
        super().headers_send_process()
        self._guard.sent()

    def data_send_process(self, frames: int = 1) -> None:
        """Data were sent."""
        super().data_send_process()
        self._guard.sent(frames)
