"""Reading the fields of messages from the wire: the loop over tags, and what spans a whole message.

The odd cases are decided as Google's decoder decides them: fields come in any order, and one that is not
known, or comes with another wire type than its own, is kept as it is. What may only be put together when all
has been read (unknown fields, values that stand for another type) is left until then, so that no input costs
more than in proportion to its length.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import betterproto2

from imgbuilder.runtime.grpc.wire import MAX_DEPTH, DecodeError, read_short, skip_value, truncated

Values = dict[str, Any]
"""The fields of one message by name: the ``__dict__`` of its object."""

UNKNOWN: Final = "_unknown_fields"
"""Where betterproto2 keeps the bytes of the fields that a class does not know."""


class Reading:
    """The state of reading one outermost message.

    :ivar depth: how many more messages may be nested in the one being read.
    :ivar messages: how many more sub-messages there may be in all. Two bytes on the wire make an object of
        some hundred, so the size of the input alone would not bound the memory.
    """

    __slots__ = ("_unknown", "_wrapped", "depth", "messages")

    def __init__(self, messages: int) -> None:
        self.depth = MAX_DEPTH
        self.messages = messages
        self._unknown: list[Values] = []
        self._wrapped: list[tuple[Values, str]] = []

    def enter(self) -> None:
        """Begin with a nested message; whoever does adds 1 to `depth` when it was read."""
        self.depth -= 1
        self.messages -= 1
        if self.depth < 0:
            raise DecodeError("messages are nested too deeply")
        if self.messages < 0:
            raise DecodeError("there are too many messages in one")

    def keep(self, values: Values, piece: bytes) -> None:
        """Add *piece* to the unknown fields of the message that has *values*."""
        pieces = values[UNKNOWN]
        if pieces.__class__ is not list:
            pieces = values[UNKNOWN] = [pieces]
            self._unknown.append(values)
        pieces.append(piece)

    def unwrap_later(self, values: Values, name: str) -> None:
        """When all was read, replace what is in ``values[name]``, message or container, by what it stands for."""
        self._wrapped.append((values, name))

    def finish(self) -> None:
        """Put together what was left until the end."""
        for values in self._unknown:
            values[UNKNOWN] = b"".join(values[UNKNOWN])
        for values, name in self._wrapped:
            value = values[name]
            if isinstance(value, list):
                values[name] = [_unwrapped(item) for item in value]
            elif isinstance(value, dict):
                values[name] = {key: _unwrapped(item) for key, item in value.items()}
            else:
                values[name] = _unwrapped(value)


def _unwrapped(value: Any) -> Any:
    """What a message stands for; a point in time that datetime can't hold is its first or last instead."""
    if not isinstance(value, betterproto2.Message):
        return value
    wrapped: Any = value
    try:
        return wrapped.to_wrapped()
    except OverflowError:
        return _LAST if wrapped.seconds > 0 else _FIRST


_FIRST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


Reader = Callable[[Values, bytes, int, int, Reading], int]
"""``(values, data, pos, end, reading) -> position behind``: puts the value at *pos* into *values*.

It may raise what `imgbuilder.runtime.grpc.scalars.Scalar.unpack` raises, and read past *end*.
"""


def read_fields(
    readers: Mapping[int, Reader],
    values: Values,
    data: bytes,
    pos: int,
    end: int,
    reading: Reading,
) -> None:
    """Put the fields that stand from *pos* to *end* into *values*, each by the reader of its tag."""
    while pos < end:
        start = pos
        tag = data[pos]
        pos += 1
        if tag > 0x7F:
            tag, pos = read_short(data, start)
        reader = readers.get(tag)
        if reader is not None:
            pos = reader(values, data, pos, end, reading)
        else:
            pos = _skip_unknown(readers, data, start, end, reading.depth)
            reading.keep(values, data[start:pos])
    if pos != end:
        raise truncated()


def _skip_unknown(readers: Mapping[int, Reader], data: bytes, pos: int, end: int, depth: int) -> int:
    """The position behind the unknown fields at *pos*: as many as stand in a row, to keep them as one piece."""
    while pos < end:
        tag, value = read_short(data, pos)
        if tag in readers:
            break
        pos = skip_value(data, value, end, tag, depth)
    return pos
