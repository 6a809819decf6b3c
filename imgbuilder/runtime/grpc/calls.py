"""The calls of one connection, each from its headers to its trailers.

A handler ends a call by returning, or by raising `GRPCError`; any other error is a bug: it is logged with
its traceback, the caller gets INTERNAL, and nobody else notices. The caller always gets one status: also when its
deadline is over, when the server stops, and when a message was sent in part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Final

import grpclib.protocol
import structlog
from grpclib.const import Handler, Status
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline
from grpclib.utils import DeadlineWrapper, Wrapper
from h2.exceptions import ProtocolError, StreamClosedError

from imgbuilder.runtime.grpc.callstream import CallStream, Receiving
from imgbuilder.runtime.grpc.codec import ProtoCodec
from imgbuilder.runtime.grpc.requests import Headers, Refusal, RequestHead, read_head, unknown_path

log = structlog.get_logger(__name__)

Ending = tuple[Status, str | None]

INTERNAL_ERROR: Final[Ending] = (Status.INTERNAL, "internal error")
"""For errors that nobody mapped. What they are stands in the log."""
DEADLINE_EXCEEDED: Final[Ending] = (Status.DEADLINE_EXCEEDED, "the deadline is over")
STOPPING: Final = (Status.UNAVAILABLE, "the server is stopping")


class CallServer:
    """What all connections of a server share: its methods, and the calls that are open.

    :param mapping: the methods by their paths.
    """

    def __init__(self, mapping: Mapping[str, Handler], codec: ProtoCodec, receiving: Receiving) -> None:
        self.mapping = mapping
        self.codec = codec
        self.receiving = receiving
        self.dispatch = _DispatchServerEvents()
        self.open = 0
        self.none_open = asyncio.Event()
        self.none_open.set()

    def began(self) -> None:
        """A call was opened."""
        self.open += 1
        self.none_open.clear()

    def ended(self) -> None:
        """A call was closed."""
        self.open -= 1
        if not self.open:
            self.none_open.set()


class Calls(grpclib.protocol.AbstractHandler):
    """Owns the calls of one connection, and their tasks.

    :ivar began: called whenever one has begun.
    :ivar ended: called whenever one has ended.
    """

    def __init__(self, server: CallServer) -> None:
        self.began: Callable[[], None] = _nothing
        self.ended: Callable[[], None] = _nothing
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[grpclib.protocol.Stream, asyncio.Task[None]] = {}
        self._stopping = False

    # --- what grpclib calls

    def accept(
        self, stream: grpclib.protocol.Stream, headers: Any, release_stream: Callable[[], None]
    ) -> None:
        """Begin with the call on *stream*."""

        def end(_: asyncio.Task[None]) -> None:
            # Not at the end of the task's function: a task that is cancelled at once never gets there.
            del self._tasks[stream]
            self._server.ended()
            release_stream()
            self.ended()

        task = self._loop.create_task(self._serve(stream, headers))
        self._tasks[stream] = task
        self._server.began()
        self.began()
        task.add_done_callback(end)

    def cancel(self, stream: grpclib.protocol.Stream) -> None:
        """Cancel the call on *stream*, which the peer has reset. grpclib did so already if it has begun."""
        if stream.wrapper is None and stream in self._tasks:
            self._tasks[stream].cancel()

    def close(self) -> None:
        """Cancel all calls; those that can still be answered get UNAVAILABLE. Once.

        Not those that are cancelled already: a second time would break off their clean-up.
        """
        if not self._stopping:
            self._stopping = True
            for stream, task in self._tasks.items():
                if stream.wrapper is None or not stream.wrapper.cancelled:
                    task.cancel()

    # --- what the server calls

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of the calls that are open."""
        return list(self._tasks.values())

    # --- inside

    async def _serve(self, stream: grpclib.protocol.Stream, headers: Headers) -> None:
        try:
            head = read_head(headers)
            if isinstance(head, RequestHead):
                method = self._server.mapping.get(head.path)
                if method is not None:
                    await self._call(stream, head, method)
                    return
                head = unknown_path(head.path, self._server.mapping)
            await _refuse(stream, head)
        except ProtocolError as error:
            log.debug("a call could not be answered", fault=str(error))  # its stream was closed meanwhile
        except Exception:
            log.exception("a call could not be answered")

    async def _call(self, stream: grpclib.protocol.Stream, head: RequestHead, method: Handler) -> None:
        server = self._server
        deadline = None if head.timeout is None else Deadline.from_timeout(head.timeout)
        call: CallStream[Any, Any] = CallStream(
            stream,
            head.path,
            method.cardinality,
            method.request_type,
            method.reply_type,
            codec=server.codec,
            status_details_codec=None,
            dispatch=server.dispatch,
            deadline=deadline,
            user_agent=head.user_agent,
            receiving=server.receiving,
        )
        call.metadata = head.metadata  # type: ignore[assignment]  # a NewType that grpclib keeps to itself
        try:
            ending = await self._run(call, stream, deadline, method)
            if ending is not None:
                await call.finish(*ending)
        except asyncio.CancelledError:
            if self._stopping:
                call.finish_now(*STOPPING)
            raise

    async def _run(
        self,
        call: CallStream[Any, Any],
        stream: grpclib.protocol.Stream,
        deadline: Deadline | None,
        method: Handler,
    ) -> Ending | None:
        """How the call ended; None if nobody is there to be told."""
        if deadline is not None and not deadline.time_remaining():
            return DEADLINE_EXCEEDED
        wrapper = stream.wrapper = Wrapper() if deadline is None else DeadlineWrapper()
        timer = (
            wrapper.start(deadline) if isinstance(wrapper, DeadlineWrapper) and deadline else nullcontext()
        )
        try:
            with timer, wrapper:
                await method.func(call)
        except GRPCError as error:
            return error.status, error.message
        except (StreamTerminatedError, StreamClosedError):
            return None
        except Exception as error:  # noqa: BLE001  # the caller is told, and the log unless it was mapped
            if wrapper.cancelled:
                return DEADLINE_EXCEEDED
            return _ending_of(error, call.path)
        return call.ending_without_error()


async def _refuse(stream: grpclib.protocol.Stream, refusal: Refusal) -> None:
    await stream.send_headers(refusal.headers(), end_stream=True)
    if stream.closable:
        stream.reset_nowait()


def _ending_of(error: Exception, path: str) -> Ending:
    """What the caller is told of *error*: a status that was raised in a task group, or nothing."""
    if isinstance(error, ExceptionGroup):
        statuses, others = error.split(GRPCError)
        if statuses is not None and others is None:
            inner: BaseException = statuses
            while isinstance(inner, BaseExceptionGroup):
                inner = inner.exceptions[0]
            if isinstance(inner, GRPCError):
                return inner.status, inner.message
    log.error("a call failed", method=path, exc_info=error)
    return INTERNAL_ERROR


def _nothing() -> None:
    """Nobody is told."""
