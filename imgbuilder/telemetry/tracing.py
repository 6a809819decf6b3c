"""Tracing as the parts of the service see it: spans around what takes time, and what passes them on.

Costs nothing unless it is turned on, which is done as OpenTelemetry does it everywhere: with
``OTEL_EXPORTER_OTLP_ENDPOINT`` in the environment. What a span tells is chosen where it is made; neither addresses
with their queries nor texts of errors are among it, so that no credential can be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Final, Protocol

import structlog

log = structlog.get_logger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DISABLED: Final = "OTEL_SDK_DISABLED"

Value = str | int


class Span(Protocol):
    """Something that takes time."""

    def tell(self, attributes: Mapping[str, Value]) -> None:
        """Add what is known of it, under OpenTelemetry's names where there are any."""
        ...

    def fail(self, kind: str) -> None:
        """Say that it failed, and in which way."""
        ...


class Tracer(Protocol):
    """Makes spans. Those inside of one, also in tasks started there, are its children."""

    def serving(
        self, name: str, headers: Mapping[str, str | bytes], attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """A call from outside, a child of what its *headers* (W3C Trace Context) name."""
        ...

    def calling(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """A call to somebody else, if it serves a call from outside; an error that leaves it fails it."""
        ...

    def headers(self) -> Mapping[str, str]:
        """What tells the one who is called of the present span; nothing if there is none."""
        ...


class _NoSpan:
    def tell(self, attributes: Mapping[str, Value]) -> None:
        """Forget it."""

    def fail(self, kind: str) -> None:
        """Forget it."""


class NoTracer:
    """Makes nothing."""

    def serving(self, *_: object, **__: object) -> AbstractContextManager[Span]:
        """See `Tracer`."""
        return _NO_SPAN

    def calling(self, *_: object, **__: object) -> AbstractContextManager[Span]:
        """See `Tracer`."""
        return _NO_SPAN

    def headers(self) -> Mapping[str, str]:
        """See `Tracer`."""
        return {}


_NO_SPAN: Final = nullcontext(_NoSpan())
NO_TRACER: Final = NoTracer()


def is_on(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    return any(environ.get(name) for name in ENDPOINTS) and environ.get(DISABLED, "").lower() != "true"


@asynccontextmanager
async def tracing(environ: Mapping[str, str]) -> AsyncIterator[Tracer]:
    """What makes spans, as the environment has it; what waits is sent at the end, for a few seconds."""
    if not is_on(environ):
        yield NO_TRACER
        return
    try:
        # only a service that is traced pays for it
        from imgbuilder.telemetry.otlp import exporting  # noqa: PLC0415
    except ImportError as error:
        log.warning("not traced: install imgbuilder[tracing]", missing=error.name)
        yield NO_TRACER
        return
    async with exporting() as tracer:
        yield tracer
