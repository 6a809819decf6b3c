"""Traces by OpenTelemetry, sent to a collector over OTLP/HTTP.

Where to, which part of the calls, under which name: all that is OpenTelemetry's own environment variables. A
collector that is away costs spans and nothing else: they wait in a bounded queue, sent by a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio
import structlog
from anyio import to_thread
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import imgbuilder
from imgbuilder.telemetry.tracing import Span, Value

log = structlog.get_logger(__name__)

SERVICE: Final = "image-builder"
SENDING_LIMIT: Final = 3.0
"""Seconds for sending a batch, retries included, unless the environment has another.

And for all that waits at the end, whatever the environment has.
"""

_W3C: Final = TraceContextTextMapPropagator()


@asynccontextmanager
async def exporting() -> AsyncIterator[OtlpTracer]:
    """What makes spans and sends them, until the end of the block."""
    named = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or SERVICE}
    provider = TracerProvider(
        resource=Resource.create({**named, SERVICE_VERSION: imgbuilder.__version__}),
        shutdown_on_exit=False,  # done here
    )
    given = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_TIMEOUT"
    )
    exporter = OTLPSpanExporter(timeout=None if given else SENDING_LIMIT)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OtlpTracer(provider.get_tracer("imgbuilder", imgbuilder.__version__))
    finally:
        with anyio.CancelScope(shield=True):
            await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Send what waits, as far as there is time for it: of the queue there may be several batches."""
    sent = threading.Event()

    def send() -> None:
        try:
            provider.shutdown()
        finally:
            sent.set()

    # One of anyio's threads would hold up the end of the process for as long as it takes.
    threading.Thread(target=send, name="the last traces", daemon=True).start()
    if not await to_thread.run_sync(sent.wait, SENDING_LIMIT):
        log.warning("the last traces could not be sent", reason="no answer in time")


class OtlpTracer:
    """Satisfies `imgbuilder.telemetry.tracing.Tracer`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def serving(
        self, name: str, headers: Mapping[str, str | bytes], attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        """See there. Lines that are logged meanwhile have the trace's id."""
        with self._span(name, SpanKind.SERVER, attributes, parent=headers) as span:
            trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            with structlog.contextvars.bound_contextvars(trace_id=trace_id):
                yield _Told(span)

    @contextmanager
    def calling(self, name: str, attributes: Mapping[str, Value]) -> Iterator[Span]:
        """See there."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield _Told(trace.INVALID_SPAN)  # our own upkeep, every few seconds
            return
        with self._span(name, SpanKind.CLIENT, attributes) as span:
            told = _Told(span)
            try:
                yield told
            except Exception as error:
                told.fail(type(error).__name__)
                raise

    def headers(self) -> Mapping[str, str]:
        """See there."""
        headers: dict[str, str] = {}
        _W3C.inject(headers)
        return headers

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Value],
        *,
        parent: Mapping[str, str | bytes] | None = None,
    ) -> Iterator[trace.Span]:
        with self._tracer.start_as_current_span(
            name,
            context=None if parent is None else _W3C.extract(parent),
            kind=kind,
            attributes=attributes,
            # the text and the traceback of an error may hold anything
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span


class _Told:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def tell(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))
