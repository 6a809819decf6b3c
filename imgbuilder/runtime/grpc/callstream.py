"""The stream that a handler reads requests from and writes replies to: grpclib's, with limits and counts."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from imgbuilder.runtime.grpc.codec import ProtoCodec
from imgbuilder.runtime.grpc.streams import Stream

Request = TypeVar("Request")
Reply = TypeVar("Reply")

_PREFIX: Final = struct.Struct(">?I")
_SMALL: Final = 16 << 10
"""Messages up to this size are always received."""

_RESETS: Final = {
    Status.UNAVAILABLE: ErrorCodes.REFUSED_STREAM,
    Status.RESOURCE_EXHAUSTED: ErrorCodes.ENHANCE_YOUR_CALM,
    Status.CANCELLED: ErrorCodes.CANCEL,
    Status.DEADLINE_EXCEEDED: ErrorCodes.CANCEL,
}
"""The codes that a client takes for these statuses where no trailers can be sent."""


class Receiving:
    """How many bytes of request messages are being received, and how many may.

    :param message_size: the limit for one message.
    :param total: the limit for all that are being received at the same time.
    :ivar timeout: seconds that the one message of a request may take.
    """

    def __init__(self, *, message_size: int, total: int, timeout: float) -> None:
        self.timeout = timeout
        self._message_size = message_size
        self._total = total
        self._now = 0

    @contextmanager
    def message(self, size: int) -> Iterator[None]:
        """Receive a message of *size* bytes in the block.

        :raises GRPCError: RESOURCE_EXHAUSTED, if that is too much.
        """
        if size > self._message_size:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"the request has {size} bytes, more than the limit of {self._message_size}",
            )
        if size <= _SMALL:
            yield
            return
        if self._now + size > self._total:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many large requests at the same time: try again")
        self._now += size
        try:
            yield
        finally:
            self._now -= size


class CallStream(grpclib.server.Stream[Request, Reply]):
    """The server's side of a call.

    :ivar path: ``/service/method``.
    :ivar on_received, on_sent: called for each message.
    """

    _stream: Stream
    _codec: ProtoCodec

    def __init__(self, *arguments: Any, receiving: Receiving, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.path = self._method_name
        self.on_received: Callable[[], None] | None = None
        self.on_sent: Callable[[], None] | None = None
        self._receiving = receiving

    async def recv_message(self) -> Request | None:
        """The next request message; None after the last.

        Where there is but one, what comes behind it is dropped.

        :raises GRPCError: if it can't be received or decoded, or if there is none where one belongs.
        """
        if self._cardinality.client_streaming:
            return await self._receive()
        if self._stream.deaf:
            return None  # that was received
        try:
            async with asyncio.timeout(self._receiving.timeout):
                message = await self._receive()
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the request did not come in time") from None
        self._stream.stop_hearing()
        return message

    async def _receive(self) -> Request | None:
        prefix = await self._read(_PREFIX.size)
        if not prefix:
            if not self._messages_received and not self._cardinality.client_streaming:
                raise GRPCError(Status.INTERNAL, "the request ended without a message")
            return None
        if prefix[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        size = int.from_bytes(prefix[1:], "big")
        with self._receiving.message(size):
            data = await self._read(size) if size else b""
            if len(data) != size:
                raise _cut_short()
            decoded = self._codec.decode(data, self._recv_type)
        (message,) = await self._dispatch.recv_message(decoded)
        self._messages_received += 1
        self._stream.connection.messages_received += 1
        self._stream.connection.last_message_received = time.monotonic()
        if self.on_received is not None:
            self.on_received()
        return message  # type: ignore[no-any-return]  # grpclib's hook may have put any in its place

    async def send_message(self, message: Reply | bytes) -> None:
        """Send a reply, or the bytes of one. Waits while the caller takes no more.

        A large field of bytes at the end of it is not copied, however many callers are sent the same and wait.
        """
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        if self._send_message_done and not self._cardinality.server_streaming:
            raise ProtocolError("the call was answered already")
        (message,) = await self._dispatch.send_message(message)
        head, body = self._codec.encode_parts(message, self._send_type)
        await self._stream.send_parts(_PREFIX.pack(False, len(head) + len(body)) + head, body)
        self._send_message_done = True
        self._messages_sent += 1
        if self.on_sent is not None:
            self.on_sent()

    def ending_without_error(self) -> tuple[Status, str | None]:
        """The status of a call whose handler has returned."""
        if not self._cardinality.server_streaming and not self._send_message_done:
            return Status.INTERNAL, "the call was not answered"
        return Status.OK, None

    async def finish(self, status: Status, message: str | None = None) -> None:
        """End the call with *status*, unless it has ended. Waits while the socket takes no more."""
        if self._send_trailing_metadata_done or self._cancel_done or not self._stream.closable:
            return
        if self._stream.torn:
            self._stream.reset_nowait(_RESETS.get(status, ErrorCodes.INTERNAL_ERROR))
            return
        await self.send_trailing_metadata(status=status, status_message=message)
        if self._stream.closable:
            # the caller may have more to say, but nobody listens
            self._stream.reset_nowait()

    def finish_now(self, status: Status, message: str) -> None:
        """End the call with *status* if that is possible without waiting, unless it has ended."""
        stream = self._stream
        if (
            self._send_trailing_metadata_done
            or not stream.closable
            or not stream.connection.write_ready.is_set()
        ):
            return
        connection = stream._h2_connection  # noqa: SLF001  # as grpclib's own methods, which would wait
        try:
            if stream.torn or stream.id is None:
                stream.reset_nowait(_RESETS.get(status, ErrorCodes.INTERNAL_ERROR))
                return
            headers = (
                []
                if self._send_initial_metadata_done
                else [(":status", "200"), ("content-type", self._content_type)]
            )
            headers += [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(message))]
            connection.send_headers(stream.id, headers, end_stream=True)
            self._send_trailing_metadata_done = True
            if stream.closable:
                connection.reset_stream(stream.id)
            stream.connection.flush()
        except ProtocolError:
            return  # closed meanwhile

    async def _read(self, size: int) -> bytes:
        try:
            return await self._stream.recv_data(size)
        except AssertionError:  # grpclib's way to say so
            raise _cut_short() from None


def _cut_short() -> GRPCError:
    return GRPCError(Status.INTERNAL, "the request ended in the middle of a message")
