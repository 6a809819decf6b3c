"""HTTP/2 streams whose DATA frames are made by hand and written in one go.

h2 takes several microseconds for each DATA frame and grpclib writes each by itself; a message of 64 KiB is four
of them. Here they are put together as bytes and h2's two counters of the windows are moved on. Where the
libraries are not what this was written for, `send_data` is grpclib's own (see `imgbuilder.runtime.grpc.internals`).
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final

import grpclib.protocol
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.stream import StreamState

if TYPE_CHECKING:
    from h2.connection import H2Connection
    from h2.stream import H2Stream

    from imgbuilder.runtime.grpc.connection import Connection

LARGEST_WRITE: Final = 96 << 10
"""Bytes given to the socket at once: a message of the size that is cheapest to send, 64 KiB, in one piece."""

WRITES_PER_TURN: Final = 16
"""After so many writes without a pause other tasks get a turn."""

_HEADER: Final = struct.Struct(">HBBBI")
_SENDING: Final = {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE}


def data_frames(stream_id: int, data: memoryview, max_frame_size: int) -> bytes:
    """*data* as DATA frames of at most *max_frame_size*, none of which ends the stream."""
    parts: list[Any] = []
    for start in range(0, len(data), max_frame_size):
        piece = data[start : start + max_frame_size]
        size = len(piece)
        parts += (_HEADER.pack(size >> 8, size & 0xFF, 0, 0, stream_id), piece)
    return b"".join(parts)


def window(connection: H2Connection, stream: H2Stream) -> int:
    """How many bytes of data the peer lets us send on *stream*; may be negative."""
    return min(connection.outbound_flow_control_window, stream.outbound_flow_control_window)


def consume_window(connection: H2Connection, stream: H2Stream, size: int) -> None:
    """Account for *size* bytes of data."""
    connection.outbound_flow_control_window -= size
    stream.outbound_flow_control_window -= size


class DeafBuffer(grpclib.protocol.Buffer):
    """What a stream has that hears nothing any more. A real one is a fifth of the memory of a stream that waits."""

    _acked_size = 0

    def __init__(self) -> None:
        pass

    def add(self, data: bytes, ack_size: int) -> None:
        """Drop it."""

    def eof(self) -> None:
        """It is known."""

    async def read(self, size: int) -> bytes:  # noqa: ARG002  # as grpclib calls it
        """Nothing."""
        return b""

    def unacked_size(self) -> int:
        """Nothing is left to acknowledge."""
        return 0


DEAF: Final = DeafBuffer()
NEVER: Final = asyncio.Event()
"""In the place of the events that only a client's stream waits for, of which grpclib makes each stream two."""


class Stream(grpclib.protocol.Stream):
    """A stream of the server's side.

    :ivar opened: when the peer opened it, in seconds of the event loop.
    :ivar torn: whether a message was sent in part: what follows on the stream would be taken for its rest.
    :ivar deaf: whether what the peer sends is dropped.
    """

    connection: Connection
    opened = 0.0
    torn = False
    deaf = False
    _writes = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.headers_received = self.trailers_received = NEVER

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send *data*, waiting while the peer or the socket takes no more.

        Cancelling it leaves the stream torn.

        :raises StreamClosedError: if the stream is closed, or is while it waits.
        """
        if end_stream:
            self.torn = True
            await super().send_data(data, end_stream=True)
            self.torn = False
        else:
            await self.send_parts(data, b"")

    async def send_parts(self, head: bytes, body: bytes) -> None:
        """Send both in a row, as `send_data` does; *body*, which others may send as well, is not copied."""
        self.torn = True
        await self._send_by_hand(head, memoryview(body))
        self.torn = False

    def stop_hearing(self) -> None:
        """Drop what the peer has sent and nobody has read, and all that it sends from now on."""
        self.deaf = True
        buffer = self.buffer
        buffer._acked.clear()  # noqa: SLF001  # grpclib has no other way to it
        buffer._acked_size = 0  # noqa: SLF001
        unread = buffer.unacked_size()
        self.buffer = DEAF
        if unread and self.id is not None and not self.connection.is_closing():
            self.connection.ack(self.id, unread)

    async def _send_by_hand(self, head: bytes, body: memoryview) -> None:
        position, start = 0, len(head)
        end = start + len(body)
        while position < end:
            stream = await self._writable()
            connection = self._h2_connection
            size = min(window(connection, stream), end - position, LARGEST_WRITE)
            if size <= 0:
                await self._window_opened()
                continue
            largest = connection.max_outbound_frame_size
            if position >= start:
                data = body[position - start : position - start + size]
            else:
                data = memoryview(b"".join((head[position:], body[: max(0, position + size - start)])))[:size]
            frames = data_frames(stream.stream_id, data, largest)
            consume_window(connection, stream, size)
            self._transport.write(frames)
            position += size
            self.data_sent += size
            self.connection.data_sent += size
            self.connection.data_send_process(-(-size // largest))

    async def send_headers(self, headers: Any, end_stream: bool = False) -> None:
        """Send headers or trailers, waiting while the socket takes no more.

        :raises StreamClosedError: if the stream is closed, or is while it waits.
        """
        await self._socket_ready()
        await super().send_headers(headers, end_stream=end_stream)

    async def reset(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Reset the stream, waiting while the socket takes no more.

        :raises StreamClosedError: if the stream is closed, or is while it waits.
        """
        await self._socket_ready()
        await super().reset(error_code)

    @property
    def closable(self) -> bool:
        """Whether the peer can be told that the stream ends."""
        return not self.connection.is_closing() and super().closable

    async def _socket_ready(self) -> None:
        # Asked again after each wait: of all that waited, the first to run may have filled the socket's buffer.
        while not self.connection.write_ready.is_set():
            self._writes = 0
            await self.connection.write_ready.wait()
        if self.connection.is_closing() or self.id is None:
            raise StreamClosedError(self.id or 0)

    async def _writable(self) -> H2Stream:
        """The stream as h2 has it, when the socket takes data."""
        self._writes += 1
        if self._writes >= WRITES_PER_TURN:
            self._writes = 0
            await asyncio.sleep(0)
        await self._socket_ready()
        assert self.id is not None  # noqa: S101  # it is known from the start on the server's side
        stream = self._h2_connection.streams.get(self.id)
        if stream is None or stream.state_machine.state not in _SENDING:
            raise StreamClosedError(self.id)
        return stream

    async def _window_opened(self) -> None:
        self._writes = 0
        self.window_updated.clear()
        self.connection.waiting.add(self)
        try:
            await self.window_updated.wait()
        finally:
            self.connection.waiting.discard(self)

    def __terminated__(self, reason: str) -> None:
        # Once: a second cancellation would break off the clean-up after the first.
        if self.wrapper is None or not self.wrapper.cancelled:
            super().__terminated__(reason)
