"""Decodes the supervisor's listen stream: bytes in any chunking in, events out.

The stream is JSON objects, one a line; objects that follow one another without a line feed are taken too.
What is no such object is skipped and told as an event, so that a part of a stream can't bring the rest to a
halt. Never does I/O, and never keeps more than one unfinished object, and that only up to `LONGEST_OBJECT`.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

LONGEST_OBJECT: Final = 1024 * 1024
"""In bytes. The supervisor sends at most what its terminal remembers at once, which is 342 KiB as base64."""

MOST_SKIPPED: Final = 1000
"""How much may be skipped before something is understood: what goes on beyond that is no listen stream."""

_LONGEST_TEXT: Final = 500
_BLANKS: Final = re.compile(rb"[ \t\r]*")
_OUTSIDE_STRING: Final = re.compile(rb'["{}]')
_INSIDE_STRING: Final = re.compile(rb'["\\]')


@dataclass(frozen=True, slots=True)
class Output:
    """What the terminal printed. Where one ends and the next begins means nothing."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ExitCode:
    """The task ended with *code*; there is no more output."""

    code: int


@dataclass(frozen=True, slots=True)
class StreamError:
    """The stream ends because of a fault of the supervisor."""

    text: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of the stream means nothing here; *reason* says why."""

    reason: str


Event = Output | ExitCode | StreamError | Skipped

_NO_OBJECT: Final = Skipped("no JSON object")
_TOO_LONG: Final = Skipped("an object that is too long")
_CUT_OFF: Final = Skipped("an object that its line cuts off")
_NO_JSON: Final = Skipped("an object that is no JSON")
_NO_BASE64: Final = Skipped("output that is no base64")
_OTHER_SHAPE: Final = Skipped("an object of another shape")


class ListenDecoder:
    """Decodes one listen stream.

    The events do not depend on how the stream is cut, but for where one `Output` ends and the next begins.
    An object that the end of the stream cuts off is no event: a stream that is taken up again repeats it.
    """

    def __init__(self, *, longest_object: int = LONGEST_OBJECT, most_skipped: int = MOST_SKIPPED) -> None:
        self._longest_object = longest_object
        self._found = _Events(most_skipped)
        self._line = _Line(self._found, longest_object)

    def feed(self, data: bytes) -> list[Event]:
        """What *data* completes, in the order of the stream."""
        lines = data.split(b"\n")
        last = lines.pop()
        for line in lines:
            if self._found.given_up:
                break
            if self._line.begun or len(line) > self._longest_object:
                self._line.feed(line)
                self._line.end()
            elif line:
                self._feed_whole(line)
        if last:
            self._line.feed(last)
        return self._found.take()

    def _feed_whole(self, line: bytes) -> None:
        """The common case, short: a line that is one object."""
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            _add_meaning(value, self._found)
        else:
            self._line.feed(line)
            self._line.end()


class _Events:
    """Collects events: joins output, and gives up where nothing of a stream can be understood."""

    def __init__(self, most_skipped: int) -> None:
        self._most_skipped = most_skipped
        self._skipped = 0
        self._output: list[bytes] = []
        self._events: list[Event] = []

    @property
    def given_up(self) -> bool:
        """Whether the rest of the stream is of no interest."""
        return self._skipped > self._most_skipped

    def output(self, data: bytes) -> None:
        if data:
            self._skipped = 0
            self._output.append(data)

    def add(self, event: Event) -> None:
        if self.given_up:
            return
        self._join_output()
        self._events.append(event)
        if not isinstance(event, Skipped):
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped > self._most_skipped:
            self._events.append(StreamError("it is no listen stream"))

    def take(self) -> list[Event]:
        """What was collected since the last time."""
        self._join_output()
        events, self._events = self._events, []
        return events

    def _join_output(self) -> None:
        if self._output:
            self._events.append(Output(b"".join(self._output)))
            self._output.clear()


class _Line:
    """Finds the objects in a line while the line arrives, looking at each byte once."""

    def __init__(self, found: _Events, longest_object: int) -> None:
        self._found = found
        self._longest_object = longest_object
        self.begun = False
        """Whether a part of the line has arrived."""
        self._skipping = False
        self._unfinished = bytearray()
        self._position = 0
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> None:
        """Tell what the objects mean that *data* completes."""
        self.begun = True
        self._skipping = self._skipping or self._found.given_up
        if self._skipping:
            return
        self._unfinished += data
        while (end := self._end_of_object()) is not None:
            value = bytes(self._unfinished[:end])
            del self._unfinished[:end]
            self._position = 0
            if end > self._longest_object:
                self._skip_rest(_TOO_LONG)
            else:
                _decode(value, self._found)
            if self._found.given_up:
                return
        if self._unfinished and not self._depth:
            self._skip_rest(_NO_OBJECT)
        elif len(self._unfinished) > self._longest_object:
            self._skip_rest(_TOO_LONG)

    def end(self) -> None:
        """The line ends, and with it an object that is unfinished."""
        if self._unfinished:
            self._skip_rest(_CUT_OFF)
        self._skipping = False
        self.begun = False

    def _skip_rest(self, what: Skipped) -> None:
        """Take no notice of the rest of the line."""
        self._found.add(what)
        self._skipping = True
        self._unfinished.clear()
        self._position = 0
        self._depth = 0
        self._in_string = False

    def _end_of_object(self) -> int | None:
        """Where the object at the start of the unfinished part ends; None if it does not, or is none."""
        text = self._unfinished
        if not self._depth:
            blanks = _BLANKS.match(text)
            if blanks is not None:
                del text[: blanks.end()]
            if not text.startswith(b"{"):
                return None
        while True:
            pattern = _INSIDE_STRING if self._in_string else _OUTSIDE_STRING
            mark = pattern.search(text, self._position)
            if mark is None:
                # A backslash at the very end has moved the position past it, over the byte that comes next.
                self._position = max(self._position, len(text))
                return None
            self._position = mark.end()
            match mark[0]:
                case b'"':
                    self._in_string = not self._in_string
                case b"\\":
                    self._position += 1
                case b"{":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if not self._depth:
                        return self._position


def _decode(value: bytes, found: _Events) -> None:
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        found.add(_NO_JSON)
    else:
        _add_meaning(decoded, found)


def _add_meaning(value: dict[str, Any], found: _Events) -> None:
    """Tell what an object says: titles are of no interest here."""
    result = value.get("result")
    if not isinstance(result, dict):
        found.add(StreamError(_text_of(value["error"])) if "error" in value else _OTHER_SHAPE)
    elif isinstance(text := result.get("data"), str):
        try:
            found.output(binascii.a2b_base64(text, strict_mode=True))
        except ValueError:
            found.add(_NO_BASE64)
    elif type(code := result.get("exitCode")) is int:  # True is an int, too, and no exit code
        found.add(ExitCode(code))
    elif "title" not in result:
        found.add(_OTHER_SHAPE)


def _text_of(error: Any) -> str:
    match error:
        case {"message": str(text)} if text:
            return text[:_LONGEST_TEXT]
        case _:
            return "no reason given"
