"""What is done around every call: it is measured, its errors become statuses, and it ends when the service ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol

import anyio
import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from imgbuilder.api.statuses import INTERNAL_ERROR, ShuttingDownError, answer_to
from imgbuilder.runtime.grpc.interceptors import TYPES, Call, Proceed, Service
from imgbuilder.telemetry.tracing import Tracer

log = structlog.get_logger(__name__)

SERVER_FAULTS: Final = frozenset({
    Status.UNKNOWN, Status.DEADLINE_EXCEEDED, Status.UNIMPLEMENTED, Status.INTERNAL, Status.UNAVAILABLE,
    Status.DATA_LOSS,
})  # fmt: skip
"""What OpenTelemetry counts as an error of the side that serves."""


def methods_of(services: Iterable[Service]) -> list[tuple[str, str, str]]:
    """Type, service and name of all methods of *services*, as metrics label them."""
    methods = []
    for service in services:
        for path, handler in service.__mapping__().items():
            name, _, method = path.removeprefix("/").rpartition("/")
            methods.append((TYPES[handler.cardinality], name, method))
    return methods


def service_names(services: Iterable[Service]) -> list[str]:
    """The names of *services*, each once."""
    return list(dict.fromkeys(service for _, service, _ in methods_of(services)))


class RpcMetrics(Protocol):
    """Where calls are counted, by type, service and method."""

    def rpc_started(self, type: str, service: str, method: str) -> None:  # noqa: A002  # the label's name
        """A call has come in."""

    def rpc_received(self, type: str, service: str, method: str) -> None:  # noqa: A002
        """A message has been received."""

    def rpc_sent(self, type: str, service: str, method: str) -> None:  # noqa: A002
        """A message has been sent."""

    def rpc_handled(self, type: str, service: str, method: str, code: str, seconds: float) -> None:  # noqa: A002
        """A call has ended with the gRPC status *code*."""


class Measuring:
    """Counts calls and messages, and times calls. To be the outermost."""

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    async def __call__(self, call: Call, proceed: Proceed) -> None:
        """Measure one call."""
        labels = (call.type, call.service, call.method)
        self._metrics.rpc_started(*labels)
        call.watch_messages(
            received=partial(self._metrics.rpc_received, *labels),
            sent=partial(self._metrics.rpc_sent, *labels),
        )
        started = anyio.current_time()
        code = Status.OK
        try:
            await proceed()
        except BaseException as error:
            code = _code_of(error, call)
            raise
        finally:
            self._metrics.rpc_handled(*labels, code.name, anyio.current_time() - started)


class Tracing:
    """A span for each call; those that ask after the server itself, like health checks, have none."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(self, call: Call, proceed: Proceed) -> None:
        """Trace one call."""
        if call.service.startswith("grpc."):
            await proceed()
            return
        about = {"rpc.system": "grpc", "rpc.service": call.service, "rpc.method": call.method}
        with self._tracer.serving(call.path.removeprefix("/"), call.metadata, about) as span:
            code = Status.OK
            try:
                await proceed()
            except BaseException as error:
                code = _code_of(error, call)
                raise
            finally:
                span.tell({"rpc.grpc.status_code": code.value})
                if code in SERVER_FAULTS:
                    span.fail(code.name)


def _code_of(error: BaseException, call: Call) -> Status:
    """The status with which a call ends that *error* ends."""
    match error:
        case GRPCError():
            return error.status
        case StreamTerminatedError() | StreamClosedError():
            return Status.CANCELLED
        case asyncio.CancelledError():
            return call.status_of_cancellation()
        case _:
            return INTERNAL_ERROR.status


async def map_errors(call: Call, proceed: Proceed) -> None:
    """Make statuses of errors. Those that nobody thought of are logged, and told as INTERNAL."""
    try:
        await proceed()
    except (GRPCError, StreamTerminatedError, StreamClosedError):
        raise  # the last two: the caller has gone, perhaps while it was being answered
    except Exception as error:
        answer = answer_to(error, call.method)
        if answer is None:
            log.exception("a call failed", method=call.path)
            answer = INTERNAL_ERROR
        elif answer.status is Status.INTERNAL:
            log.warning("a call was answered with an error", method=call.path, reason=answer.message)
        raise GRPCError(answer.status, answer.message) from error


class Draining:
    """Ends streams when the service ends; other calls may finish. To be the innermost."""

    def __init__(self) -> None:
        self._streams: set[anyio.CancelScope] = set()
        self._begun = False

    def begin(self) -> None:
        """Refuse new calls, and end open streams with `ShuttingDownError`."""
        self._begun = True
        for stream in self._streams:
            stream.cancel()

    async def __call__(self, call: Call, proceed: Proceed) -> None:
        """Let one call through, while it may."""
        if self._begun:
            raise ShuttingDownError
        if call.type == "unary":
            await proceed()
            return
        with anyio.CancelScope() as stream:
            self._streams.add(stream)
            try:
                await proceed()
            finally:
                self._streams.discard(stream)
        if stream.cancelled_caught:
            raise ShuttingDownError
