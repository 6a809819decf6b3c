"""BuildKit's progress, one JSON object a line, made into what a person reads.

Steps are numbered as they start. What a RUN step writes is passed on byte for byte, as it comes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson

LONGEST_LINE: Final = 16 << 20

_INTERNAL: Final = "[internal]"


class ProgressText:
    """Decodes a stream of progress. A line that is no progress is passed on as it is."""

    def __init__(self) -> None:
        self._rest = b""
        self._numbers: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._done: set[str] = set()
        self._speaking: str | None = None
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """What is to be read because of *chunk*, which need not end with a line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        return b"".join(piece for line in lines for piece in self._line(line))

    def finish(self) -> bytes:
        """What is left of a line that was not ended."""
        rest, self._rest = self._rest, b""
        return b"".join(self._line(rest)) if rest else b""

    def _line(self, line: bytes) -> Iterator[bytes]:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            yield self._own_line(line.decode(errors="replace")) if line.strip() else b""
            return
        try:
            yield from self._event(event)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
            return  # another version's, which says something else there

    def _event(self, event: Mapping[str, Any]) -> Iterator[bytes]:
        for vertex in event.get("vertexes") or ():
            yield from self._started(vertex)
        for status in event.get("statuses") or ():
            yield from self._transferred(status)
        for entry in event.get("logs") or ():
            yield from self._said(entry)
        for warning in event.get("warnings") or ():
            yield self._own_line(f"WARNING: {_decoded(warning['short']).decode(errors='replace')}")
        for vertex in event.get("vertexes") or ():
            yield from self._ended(vertex)

    def _started(self, vertex: Mapping[str, Any]) -> Iterator[bytes]:
        key = vertex["digest"]
        if (vertex.get("started") or vertex.get("cached")) and key not in self._numbers:
            self._numbers[key] = len(self._numbers) + 1
            self._names[key] = str(vertex["name"])
            yield self._own_line(self._title(key), speaking=key)

    def _ended(self, vertex: Mapping[str, Any]) -> Iterator[bytes]:
        key = vertex["digest"]
        if key not in self._numbers or key in self._done or not vertex.get("completed"):
            return
        if vertex.get("error"):
            end = f"ERROR: {vertex['error']}"
        elif vertex.get("cached"):
            end = "CACHED"
        elif self._names[key].startswith(_INTERNAL):
            return
        else:
            end = f"DONE {_seconds(vertex):.1f}s"
        self._done.add(key)
        yield self._own_line(f"#{self._numbers[key]} {end}")

    def _transferred(self, status: Mapping[str, Any]) -> Iterator[bytes]:
        """Report what was pulled, when that is done: at this size it is what people wait for."""
        key = status["vertex"]
        if status.get("completed") and status.get("total") and key in self._numbers:
            megabytes = int(status["total"]) / 1e6
            yield self._own_line(f"#{self._numbers[key]} {status['id']} {megabytes:.1f} MB done")

    def _said(self, entry: Mapping[str, Any]) -> Iterator[bytes]:
        key, data = entry["vertex"], _decoded(entry["data"])
        if key != self._speaking and key in self._numbers:
            yield self._own_line(self._title(key), speaking=key)
        self._at_line_start = data.endswith(b"\n")
        yield data

    def _title(self, key: str) -> str:
        return f"#{self._numbers[key]} {self._names[key]}"

    def _own_line(self, text: str, *, speaking: str | None = None) -> bytes:
        """A line between what steps write."""
        self._speaking = speaking
        before = "" if self._at_line_start else "\n"
        self._at_line_start = True
        return f"{before}{text}\n".encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def _seconds(vertex: Mapping[str, Any]) -> float:
    started, completed = (datetime.fromisoformat(vertex[name]) for name in ("started", "completed"))
    return (completed - started).total_seconds()
