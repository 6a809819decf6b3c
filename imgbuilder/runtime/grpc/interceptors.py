"""What is done around every call of a server, whatever it does: measure it, map its errors, refuse it.

An interceptor is called with the `Call` and with ``proceed``, which runs the next interceptor, or in the end
the handler::

    async def timed(call: Call, proceed: Proceed) -> None:
        started = anyio.current_time()
        try:
            await proceed()
        finally:
            observe(call.method, anyio.current_time() - started)

It ends the call as a handler does: by returning, by raising `GRPCError`, or by letting through what *proceed*
raises. Calls of methods that do not exist, and calls whose deadline is over when they come, do not get here.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import grpclib.server
from grpclib.const import Cardinality, Handler, Status
from grpclib.metadata import Deadline
from multidict import MultiDict

from imgbuilder.runtime.grpc.callstream import CallStream


class Service(Protocol):
    """Has methods: the classes that betterproto2 generates, and any other with this one."""

    def __mapping__(self) -> Mapping[str, Handler]:
        """The methods by their paths."""
        ...


TYPES: Final = {
    Cardinality.UNARY_UNARY: "unary",
    Cardinality.UNARY_STREAM: "server_stream",
    Cardinality.STREAM_UNARY: "client_stream",
    Cardinality.STREAM_STREAM: "bidi_stream",
}
"""The kinds of calls as gRPC's usual metrics name them."""


class Call:
    """One call, as interceptors see it.

    :ivar path: ``/service/method``.
    :ivar service: e.g. ``builder.ImageBuilder``.
    :ivar method: e.g. ``Build``.
    :ivar type: one of `TYPES`.
    :ivar stream: what the handler gets.
    """

    __slots__ = ("cardinality", "method", "path", "service", "stream", "type")

    def __init__(self, path: str, cardinality: Cardinality, stream: grpclib.server.Stream[Any, Any]) -> None:
        self.path = path
        self.service, _, self.method = path.removeprefix("/").rpartition("/")
        self.cardinality = cardinality
        self.type = TYPES[cardinality]
        self.stream = stream

    @property
    def peer(self) -> str:
        """The caller's address."""
        address = self.stream.peer.addr()
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)

    @property
    def metadata(self) -> MultiDict[str | bytes]:
        """What the caller added to the request. May hold secrets."""
        return self.stream.metadata or MultiDict()

    @property
    def deadline(self) -> Deadline | None:
        """When the caller gives up."""
        return self.stream.deadline

    def watch_messages(self, *, received: Callable[[], None], sent: Callable[[], None]) -> None:
        """Call *received* and *sent* for each message from now on, when it was received or sent."""
        if isinstance(self.stream, CallStream):
            self.stream.on_received, self.stream.on_sent = received, sent

    def status_of_cancellation(self) -> Status:
        """What the caller gets where ``proceed()`` raised CancelledError: why the call was cancelled."""
        wrapper = self.stream._stream.wrapper  # noqa: SLF001  # grpclib has no other way to it
        error = wrapper._error if wrapper is not None else None  # noqa: SLF001
        if error is None:
            return Status.UNAVAILABLE  # nobody but the server itself cancels otherwise
        return Status.DEADLINE_EXCEEDED if isinstance(error, TimeoutError) else Status.CANCELLED


Proceed = Callable[[], Awaitable[None]]
Interceptor = Callable[[Call, Proceed], Awaitable[None]]


class Intercepted:
    """Services with *interceptors* around all their methods, the first outermost. A `Service` itself."""

    def __init__(self, services: Collection[Service], interceptors: Sequence[Interceptor]) -> None:
        self._services = services
        self._interceptors = interceptors

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path: handler._replace(func=self._around(path, handler))
            for service in self._services
            for path, handler in service.__mapping__().items()
        }

    def _around(
        self, path: str, handler: Handler
    ) -> Callable[[grpclib.server.Stream[Any, Any]], Awaitable[None]]:
        async def serve(stream: grpclib.server.Stream[Any, Any]) -> None:
            call = Call(path, handler.cardinality, stream)
            proceed: Proceed = functools.partial(handler.func, stream)
            for interceptor in reversed(self._interceptors):
                proceed = functools.partial(interceptor, call, proceed)
            await proceed()

        return serve
