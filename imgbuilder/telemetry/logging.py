"""Sets logging up: what `structlog` and the libraries' `logging` say becomes lines of one form, on one stream.

JSON has the field names of the system this one replaces (``level``, ``time``, ``message``,
``serviceContext``); a terminal gets readable lines. Credentials are taken out of both. What should stand in
every line of a call, such as ``build_id``, is bound with `structlog.contextvars`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, TextIO

import orjson
import structlog

import imgbuilder
from imgbuilder.telemetry.redaction import redact
from imgbuilder.telemetry.sink import Sink

SERVICE: Final = "image-builder"

Event = MutableMapping[str, Any]
Processor = Callable[[Any, str, Event], Any]


@contextmanager
def logging_to(stream: TextIO, *, as_json: bool, debug: bool = False) -> Iterator[None]:
    """Log to *stream* inside the block, then write what waits. To be entered once, where the program starts.

    :param debug: whether our own debug lines, and what libraries say short of that, are shown too.
    """
    style = _json_style() if as_json else _terminal_style(colors=stream.isatty())
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_logger_name,
        structlog.processors.format_exc_info,  # plain text: without the values of variables
        *style,
    ]

    def lost(lines: int) -> str:
        event: Any = {"event": "log lines dropped", "lines": lines}
        for processor in processors:
            event = processor(None, "warning", event)
        return str(event)

    sink = Sink(stream, lost)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=lambda *names: _Logger(sink, *names),
        cache_logger_on_first_use=True,
    )
    try:
        with _standard_logging_bridged(logging.INFO if debug else logging.WARNING):
            yield
    finally:
        structlog.reset_defaults()
        sink.close()


class _Logger:
    """The end of the line: what structlog hands a rendered text to."""

    def __init__(self, sink: Sink, name: str = "") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = sink.write


class _Bridge(logging.Handler):
    """Hands records of the standard library's logging on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = max(logging.DEBUG, record.levelno // 10 * 10)  # structlog knows no levels in between
            structlog.get_logger(record.name).log(
                min(level, logging.CRITICAL), record.getMessage(), exc_info=record.exc_info or None
            )
        except Exception:  # noqa: BLE001  # a bad record is the handler's to report, by the library's own rules
            self.handleError(record)


@contextmanager
def _standard_logging_bridged(level: int) -> Iterator[None]:
    root, httpx = logging.getLogger(), logging.getLogger("httpx")
    before = root.handlers[:], root.level, httpx.level
    root.handlers[:] = [_Bridge()]
    # Never DEBUG: hpack, httpcore and botocore show headers and keys there.
    root.setLevel(level)
    httpx.setLevel(logging.WARNING)  # it tells every request, with its address
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        httpx.setLevel(before[2])


def _json_style() -> list[Processor]:
    return [structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"), _name_fields, redact, _as_json]


def _terminal_style(*, colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), redact, renderer]


def _add_logger_name(logger: Any, _method: str, event: Event) -> Event:
    if isinstance(logger, _Logger) and logger.name:
        event.setdefault("logger", logger.name)
    return event


def _name_fields(_logger: Any, _method: str, event: Event) -> Event:
    fields = {
        "level": event.pop("level"),
        "time": event.pop("time"),
        "message": event.pop("event", ""),
        "serviceContext": {"service": SERVICE, "version": imgbuilder.__version__},
    }
    # What a caller named like one of ours is kept under another name.
    return fields | {f"{name}_" if name in fields else name: value for name, value in event.items()}


def _as_json(_logger: Any, _method: str, event: Event) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:
        return json.dumps(event)  # a text that is no Unicode, half of a surrogate pair
