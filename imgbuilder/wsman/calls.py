"""Calls over grpclib: with a deadline, cancellable without leaving a trace, with typed errors.

Knows nothing of what is called. Never tries a second time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Generic, TypeVar

import anyio
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from imgbuilder.runtime.grpc.calling import BROKEN, NO_ANSWER, next_reply
from imgbuilder.runtime.grpc.interruption import Interruption
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)

Request = TypeVar("Request")
Reply = TypeVar("Reply")

LONGEST_REPLY: Final = 32 << 20
"""Bytes: tens of thousands of workspaces in one list."""

LONGEST_OF_STREAM: Final = 4 << 20
"""Bytes of each answer of a streaming call: what gRPC's own clients take by default."""

ERRORS: Final = {
    Status.UNAVAILABLE: WorkspaceManagerUnavailableError,
    Status.DEADLINE_EXCEEDED: WorkspaceManagerUnavailableError,
    Status.ALREADY_EXISTS: WorkspaceExistsError,
}


async def ask(
    channel: Channel,
    method: str,
    request: Request,
    reply_type: type[Reply],
    *,
    deadline: float,
    metadata: Mapping[str, str] | None = None,
) -> Reply:
    """The one answer to *request*.

    :param deadline: seconds until it is given up; the other side is told, too.
    :raises WorkspaceManagerError: see `typed_errors`.
    """
    with typed_errors(), anyio.fail_after(deadline):
        async with channel.request(
            method,
            Cardinality.UNARY_UNARY,
            type(request),
            reply_type,
            timeout=deadline,
            metadata=metadata,
        ) as call:
            call._wrapper = Interruption()  # noqa: SLF001  # see there
            await call.send_message(request, end=True)
            _bound(call, LONGEST_REPLY)
            reply = await call.recv_message()
    if reply is None:
        raise WorkspaceManagerError(Status.INTERNAL.name, "answered OK without a message")
    return reply


@asynccontextmanager
async def listen(
    channel: Channel,
    method: str,
    request: Request,
    reply_type: type[Reply],
    *,
    deadline: float,
) -> AsyncIterator[Replies[Reply]]:
    """The answers to *request*, for as long as they come. Closes *channel* in the end.

    Entering sends the request and waits for nothing: many servers say nothing before their first answer.

    :param deadline: seconds until the request must be sent.
    :raises WorkspaceManagerError: on entry and by the iterator, see `typed_errors`; never from the block.
    """
    async with channel.request(method, Cardinality.UNARY_STREAM, type(request), reply_type) as call:
        call._wrapper = Interruption()  # noqa: SLF001  # see there
        try:
            with typed_errors(), anyio.fail_after(deadline):
                await call.send_message(request, end=True)
            _bound(call, LONGEST_OF_STREAM)
            yield Replies(call)
        finally:
            channel.close()  # or leaving the call would wait for the end of the stream


class Replies(Generic[Reply]):
    """Iterates over the answers of a streaming call, until it ends with OK.

    :raises WorkspaceManagerError: if it ends otherwise.
    """

    def __init__(self, call: Stream[Any, Reply]) -> None:
        self._call = call
        self._ended = False

    def __aiter__(self) -> Replies[Reply]:
        return self

    async def __anext__(self) -> Reply:
        if not self._ended:
            with typed_errors():
                reply = await next_reply(self._call)
            if reply is not None:
                return reply
            self._ended = True
        raise StopAsyncIteration


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raise what grpclib, h2 and the network raise as a `WorkspaceManagerError`.

    :raises WorkspaceManagerUnavailableError: for UNAVAILABLE, a connection that can't be had or breaks, and
        no answer in time.
    :raises WorkspaceExistsError: for ALREADY_EXISTS.
    :raises WorkspaceManagerError: for any other status, and answers that are no gRPC.
    """
    try:
        yield
    except GRPCError as error:
        kind = ERRORS.get(error.status, WorkspaceManagerError)
        raise kind(error.status.name, error.message or "") from error
    except TimeoutError as error:
        raise WorkspaceManagerUnavailableError(Status.DEADLINE_EXCEEDED.name, "no answer in time") from error
    except BROKEN as error:
        fault = str(error) or type(error).__name__
        raise WorkspaceManagerUnavailableError(Status.UNAVAILABLE.name, fault) from error
    except NO_ANSWER as error:
        raise WorkspaceManagerError(Status.INTERNAL.name, f"not an answer: {error}") from error


def _bound(call: Stream[Any, Any], longest: int) -> None:
    """Let no answer to *call* have more than *longest* bytes. grpclib would put together up to 4 GiB."""
    stream = call._stream  # noqa: SLF001  # grpclib has no other way to it
    receive = stream.recv_data

    async def receive_bounded(size: int) -> bytes:
        if size > longest:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"its answer has {size} bytes, more than the limit of {longest}"
            )
        return await receive(size)

    stream.recv_data = receive_bounded  # type: ignore[method-assign]  # of this one stream
