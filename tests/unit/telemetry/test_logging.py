"""What is logged, and how it looks."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import structlog

import imgbuilder
from imgbuilder.core.secrets import Secret
from imgbuilder.telemetry.logging import logging_to
from imgbuilder.telemetry.sink import Sink

Lines = Callable[..., list[dict[str, Any]]]


class Log:
    """Something that logs inside a block, and what came of it after the block."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def open(self, *, as_json: bool = True, debug: bool = False) -> AbstractContextManager[None]:
        """Logs to this object inside the block."""
        return logging_to(self.stream, as_json=as_json, debug=debug)

    @property
    def text(self) -> str:
        """Everything that was written."""
        return self.stream.getvalue()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The JSON lines."""
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """A log, and the assurance that standard logging is as before."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield Log()
    assert (root.handlers, root.level) == before


def test_json_has_the_fields_of_the_contract(log: Log) -> None:
    """The names are Go's: level, time, message, serviceContext; context stands beside them."""
    with log.open():
        structlog.get_logger("imgbuilder.test").info("build started", ref="localhost:5000/x:1", number=3)
    (entry,) = log.entries
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "message": "build started",
        "serviceContext": {"service": "image-builder", "version": imgbuilder.__version__},
        "logger": "imgbuilder.test",
        "ref": "localhost:5000/x:1",
        "number": 3,
    }


def test_what_is_bound_to_a_call_stands_in_its_lines(log: Log) -> None:
    """Inside the block, and not after."""
    with log.open():
        with structlog.contextvars.bound_contextvars(build_id="b-1"):
            structlog.get_logger().info("inside")
        structlog.get_logger().info("outside")
    assert [entry.get("build_id") for entry in log.entries] == ["b-1", None]


def test_debug_lines_show_only_where_asked_for(log: Log) -> None:
    """The flag --verbose turns them on."""
    with log.open():
        structlog.get_logger().debug("hidden")
    with log.open(debug=True):
        structlog.get_logger().debug("shown")
    assert [(entry["level"], entry["message"]) for entry in log.entries] == [("debug", "shown")]


def test_context_can_not_take_the_place_of_the_contracts_fields(log: Log) -> None:
    """A build has a message, too."""
    with log.open():
        structlog.get_logger().warning("build failed", message="no space left", serviceContext=1)
    (entry,) = log.entries
    assert (entry["message"], entry["message_"]) == ("build failed", "no space left")
    assert entry["serviceContext"]["service"] == "image-builder"


def test_tracebacks_are_one_line_of_json_without_credentials_or_variables(log: Log) -> None:
    """The traceback is there, what was in it of credentials is not."""

    def fail() -> None:
        _hidden = str(111_111 * 3)
        raise RuntimeError("answered 401 to Authorization: Basic aHVudGVyMg==")

    with log.open():
        try:
            fail()
        except RuntimeError:
            structlog.get_logger().exception("request failed", token=Secret("aHVudGVyMg=="))
    (entry,) = log.entries
    assert entry["level"] == "error"
    assert entry["token"] == "***"
    assert "in fail" in entry["exception"]
    assert "RuntimeError: answered 401 to Authorization: ***" in entry["exception"]
    assert "aHVudGVyMg" not in log.text
    assert "hunter2" not in log.text.replace('hunter2"  # noqa', "")


def test_a_terminal_gets_readable_lines(log: Log) -> None:
    """No JSON, and no credentials either."""
    with log.open(as_json=False):
        structlog.get_logger("imgbuilder.test").info(
            "build started", ref="x", token="hunter2", url="http://u:p@h/"
        )
        try:
            int("sent Bearer aHVudGVyMg==")
        except ValueError:
            structlog.get_logger().exception("failed")
    assert "build started" in log.text
    assert "ref=x" in log.text
    assert "ValueError: invalid literal for int() with base 10: 'sent Bearer ***'" in log.text
    assert "hunter2" not in log.text
    assert "http://***@h/" in log.text
    assert "\x1b" not in log.text


def test_what_libraries_log_goes_the_same_way(log: Log) -> None:
    """With the logger's name, arguments filled in, levels in between, and no credentials."""
    with log.open():
        logging.getLogger("uvicorn.error").warning("bad request from %s: %s", "127.0.0.1", "Bearer abcdef")
        logging.getLogger("asyncio").error("Task failed", exc_info=ValueError("https://u:p@host/"))
        logging.getLogger("h2").log(35, "between")
        logging.getLogger("h2").log(99, "above")
    entries = log.entries
    assert entries[0]["message"] == "bad request from 127.0.0.1: Bearer ***"
    assert entries[0]["logger"] == "uvicorn.error"
    assert "ValueError: https://***@host/" in entries[1]["exception"]
    assert [entry["level"] for entry in entries] == ["warning", "error", "warning", "critical"]


@pytest.mark.parametrize(("debug", "shown"), [(False, []), (True, ["uvicorn.error"])])
def test_chatty_libraries_are_quiet(log: Log, debug: bool, shown: list[str]) -> None:
    """Requests with their addresses, and headers with their values, are never shown, at no level."""
    with log.open(debug=debug):
        logging.getLogger("httpx").info("HTTP Request: GET https://example.com")
        logging.getLogger("hpack.hpack").debug("Encoding (b'authorization', b'x')")
        logging.getLogger("uvicorn.error").info("Started")
    assert [entry["logger"] for entry in log.entries] == shown


def test_warnings_of_python_are_logged(log: Log) -> None:
    """They would otherwise be the one thing on the stream that is no JSON."""
    with log.open(), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [entry["logger"] for entry in log.entries] == ["py.warnings"]


def test_what_can_not_be_said_in_json_is_written_all_the_same(log: Log) -> None:
    """Bytes, objects, halves of characters, a record whose arguments do not fit."""
    with log.open():
        structlog.get_logger().info("odd", raw=b"\xff", thing=object, half="\ud800", number=float("nan"))
    (entry,) = log.entries
    assert entry["half"] == "\ud800"
    assert entry["raw"] == "b'\\xff'"


def test_nobody_waits_for_a_reader_that_has_stopped() -> None:
    """Lines that find no room are dropped; how many is told once somebody reads again."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        sink = Sink(stream, lambda lines: f"dropped {lines}", room=10)
        written = 0
        while sink._dropped < 5:  # far more than the pipe and the room hold
            sink.write("x" * 8192)
            written += 1
        closer = threading.Thread(target=sink.close)
        closer.start()
        received = bytearray()
        while b"dropped" not in received[-100:]:
            received += reader.read1(65536)
        closer.join()
    lines = received.decode().splitlines()
    dropped = int(lines[-1].removeprefix("dropped "))
    assert dropped >= 5
    assert len(lines) - 1 + dropped == written


def test_a_stream_that_is_closed_harms_nobody(log: Log) -> None:
    """The lines are lost, and that is all."""
    with log.open():
        log.stream.close()
        structlog.get_logger().info("lost")


def test_lines_keep_their_order(log: Log) -> None:
    """Whoever reads them can tell what came first."""
    with log.open():
        logger = structlog.get_logger()
        for number in range(1000):
            logger.info("line", number=number)
    assert [entry["number"] for entry in log.entries] == list(range(1000))


def test_standard_error_is_a_stream_like_any(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is written to standard output."""
    with logging_to(sys.stderr, as_json=True):
        structlog.get_logger().info("hello")
    out, err = capfd.readouterr()
    assert not out
    assert json.loads(err)["message"] == "hello"
