"""A connection to an image builder: calls over grpclib, with typed errors that a user can act on.

Moves messages. It tries nothing twice, and knows nothing of what the messages mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from imgbuilder.client.diagnosis import of_connecting, of_silence
from imgbuilder.client.endpoints import Endpoint
from imgbuilder.client.errors import CallError, ConnectionLostError, UnknownCallError, UnreachableError
from imgbuilder.client.loglines import plain_text
from imgbuilder.runtime.grpc.calling import BROKEN, NO_ANSWER, next_reply
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.interruption import Interruption

Request = TypeVar("Request")
Reply = TypeVar("Reply")

IMAGE_BUILDER: Final = "builder.ImageBuilder"
CONNECT_LIMIT: Final = 10.0
"""Seconds until a connection must be there."""

KEEPALIVE: Final = 30.0
"""Seconds between two signs of life asked for. A build may say nothing for long, and a connection that is dead
should show; servers end connections that ask more often than they allow, which is every 10 seconds for these."""

Call = tuple[str, type[Any], type[Any]]
"""The full name of a method, and the types of its request and its replies."""


class Connection:
    """Use as an async context manager: entering connects, leaving closes.

    :raises UnreachableError: on entry, if there is no connection.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._opened: Channel | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._answered = False

    async def __aenter__(self) -> Self:
        self._opened = open_channel(
            self.endpoint.address.host,
            self.endpoint.address.port,
            tls=self.endpoint.tls,
            server_name=self.endpoint.server_name or None,
            keepalive=KEEPALIVE,
            keepalive_timeout=KEEPALIVE,
        )
        try:
            with anyio.fail_after(CONNECT_LIMIT):
                protocol = await self._opened.__connect__()
            self._transport = protocol.connection._transport  # noqa: SLF001  # see `_close`
        except (
            OSError,
            UnicodeError,
        ) as error:  # TLS errors and timeouts are among them; names that can be none
            await self._close()
            raise UnreachableError(str(self.endpoint), of_connecting(error, self.endpoint)) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def ask(self, call: Call, request: Any, *, limit: float) -> Any:
        """The one answer to *request*.

        :param limit: seconds until it is given up; the other side is told, too.
        :raises ClientError: see `listen`.
        """
        async with self._errors(call[0], limit), self._stream(call, Cardinality.UNARY_UNARY, limit) as stream:
            with anyio.fail_after(limit):
                await stream.send_message(request, end=True)
                reply = await stream.recv_message()
                await stream.recv_trailing_metadata()
        self._answered = True
        if reply is None:
            raise CallError(call[0], Status.INTERNAL.name, "answered without a message")
        return reply

    @asynccontextmanager
    async def listen(self, call: Call, request: Any) -> AsyncIterator[Replies[Any]]:
        """The answers to *request*, for as long as they come. Leaving the block early cancels the call.

        :raises CallError: on entry and by the iterator, if the server answers with an error.
        :raises UnreachableError: if what is there is no gRPC server, or wants to be spoken to otherwise.
        :raises ConnectionLostError: if the connection breaks.
        """
        async with self._stream(call, Cardinality.UNARY_STREAM, None) as stream:
            async with self._errors(call[0], CONNECT_LIMIT):
                try:
                    with anyio.fail_after(CONNECT_LIMIT):
                        await stream.send_message(request, end=True)
                except TimeoutError as error:  # it is no answer that is late, but the connection
                    raise ConnectionResetError(f"no connection within {CONNECT_LIMIT:g} s") from error
            replies = Replies[Any](self, call[0], stream)
            try:
                yield replies
            finally:
                stream._cancel_done = True  # noqa: SLF001  # or leaving would wait for the end of the stream

    @asynccontextmanager
    async def _stream(
        self, call: Call, cardinality: Cardinality, limit: float | None
    ) -> AsyncIterator[Stream[Any, Any]]:
        if self._opened is None:
            raise RuntimeError("a connection has to be entered")
        name, request_type, reply_type = call
        stream = self._opened.request(f"/{name}", cardinality, request_type, reply_type, timeout=limit)
        async with stream:
            stream._wrapper = Interruption()  # noqa: SLF001  # see there
            yield stream

    @asynccontextmanager
    async def _errors(self, method: str, limit: float) -> AsyncIterator[None]:
        try:
            with typed_errors(method, str(self.endpoint), limit):
                yield
        except ConnectionLostError as error:
            if self._answered:
                raise
            reason = await anyio.to_thread.run_sync(of_silence, self.endpoint)
            raise UnreachableError(str(self.endpoint), reason) from error

    async def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._transport is not None:
            # Nothing is awaited any more, so TLS' farewell is not waited for either, for which the loop would have
            # to go on.
            self._transport.abort()
            self._transport = None
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()  # in which it is closed


class Replies(Generic[Reply]):
    """Iterates over the answers of a streaming call, until it ends with OK.

    :ivar ended: whether the call has ended, in whatever way.
    """

    def __init__(self, connection: Connection, method: str, stream: Stream[Any, Reply]) -> None:
        self.ended = False
        self._connection = connection
        self._method = method
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        if self.ended:
            raise StopAsyncIteration
        try:
            async with self._connection._errors(self._method, CONNECT_LIMIT):  # noqa: SLF001  # one class in two
                reply = await next_reply(self._stream)
        except Exception:
            self.ended = True
            raise
        self._connection._answered = True  # noqa: SLF001
        if reply is None:
            self.ended = True
            raise StopAsyncIteration
        return reply


@contextmanager
def typed_errors(method: str, address: str, limit: float) -> Iterator[None]:
    """Raise what grpclib, h2 and the network raise as a `ClientError`."""
    try:
        yield
    except GRPCError as error:
        fault = plain_text(error.message or "")
        if error.status is Status.UNIMPLEMENTED or _is_no_grpc(error):
            raise UnknownCallError(method, address, fault or error.status.name) from error
        raise CallError(method, error.status.name, fault) from error
    except TimeoutError as error:
        fault = f"no answer within {limit:g} s: is it, or its registry, slow? see --timeout"
        raise CallError(method, Status.DEADLINE_EXCEEDED.name, fault) from error
    except BROKEN as error:
        raise ConnectionLostError(address, str(error) or type(error).__name__) from error
    except NO_ANSWER as error:
        raise CallError(method, Status.INTERNAL.name, f"what came is not an answer: {error}") from error


def _is_no_grpc(error: GRPCError) -> bool:
    """Whether what came is an answer of HTTP, which grpclib makes a status of; so do servers that know no such call."""
    texts = ("Missing content-type", "Invalid content-type", "Received :status", "Missing grpc-status")
    return error.status is Status.UNKNOWN and (error.message or "").startswith(texts)
