"""The wire format of protocol buffers: varints, tags, and how to get past a field that nobody knows.

Strict in the way of Google's own decoder (upb), which the tests compare this with: what it refuses is
refused, what it accepts is accepted and means the same. Functions that read past the end of the data raise
`IndexError` where checking first would cost every caller; whoever reads a whole message turns that into a
`DecodeError`. Nothing here knows of messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
START_GROUP: Final = 3
END_GROUP: Final = 4
FIXED32: Final = 5

MAX_DEPTH: Final = 100
"""How many messages and groups may be nested in one another, below the outermost."""

MAX_SIZE: Final = 2**31 - 1
"""How many bytes anything on the wire may have."""

_UINT64: Final = 2**64 - 1


class DecodeError(ImgbuilderError):
    """The bytes are not a message of the type that was expected.

    :ivar fault: what is wrong with them; never shows what they contain.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


class EncodeError(ImgbuilderError):
    """A message holds a value that its field can't have.

    :ivar field: where it stands, e.g. ``BuildInfo.started_at``.
    """

    def __init__(self, field: str) -> None:
        super().__init__(f"{field}: the value does not fit the field")
        self.field = field


def truncated() -> DecodeError:
    """The error for data that ends too early, or something that reaches over the end of what holds it."""
    return DecodeError("the data is truncated")


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """The unsigned 64-bit number at *pos*, and the position behind it; at most ten bytes."""
    value = data[pos]
    if value < 0x80:
        return value, pos + 1
    value &= 0x7F
    for index in range(1, 10):
        byte = data[pos + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _UINT64, pos + index + 1
    raise DecodeError("a number has more than ten bytes")


def read_short(data: bytes, pos: int) -> tuple[int, int]:
    """The number at *pos*, a tag or a length, and the position behind it; at most five bytes and 32 bits."""
    value = data[pos]
    if value < 0x80:
        return value, pos + 1
    value &= 0x7F
    for index in range(1, 5):
        byte = data[pos + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 32:
                break
            return value, pos + index + 1
    raise DecodeError("a tag or a length has more than 32 bits")


def read_length(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Where the length-delimited value at *pos* starts and stops.

    :raises DecodeError: if it reaches over *end*.
    """
    size = data[pos]
    if size < 0x80:
        pos += 1
    else:
        size, pos = read_short(data, pos)
    stop = pos + size
    if stop > end:
        raise truncated()
    return pos, stop


def skip_value(data: bytes, pos: int, end: int, tag: int, depth: int) -> int:
    """The position behind the value at *pos* whose *tag* was read already.

    :param depth: how many groups may be nested here; what is in them is only checked for being well-formed.
    :raises DecodeError: also for the tags that no field may have: of number 0, of an unknown wire type, and
        for the end of a group that was not started.
    """
    if tag < 8:
        raise DecodeError("a field has the number 0")
    groups: list[int] = []
    while True:
        wire_type = tag & 7
        if wire_type == START_GROUP:
            if len(groups) == depth:
                raise DecodeError("groups are nested too deeply")
            groups.append(tag + 1)  # the tag that ends it
        elif wire_type == END_GROUP and groups and groups[-1] == tag:
            groups.pop()
        else:
            pos = _skip_plain(data, pos, end, wire_type)
        if pos > end:
            raise truncated()
        if not groups:
            return pos
        tag, pos = read_short(data, pos)


def _skip_plain(data: bytes, pos: int, end: int, wire_type: int) -> int:
    if wire_type == VARINT:
        return read_varint(data, pos)[1]
    if wire_type == LENGTH:
        return read_length(data, pos, end)[1]
    if wire_type == FIXED32:
        return pos + 4
    if wire_type == FIXED64:
        return pos + 8
    raise DecodeError("a field has a wire type that it can't have")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message as (number, value), for readers that know a format without its classes.

    A varint is an int; a length-delimited value, and a fixed or grouped one as it stands, are bytes.

    :raises DecodeError: at the first that is not well-formed.
    """
    pos, end = 0, len(data)
    try:
        while pos < end:
            tag, pos = read_short(data, pos)
            start, pos = pos, skip_value(data, pos, end, tag, MAX_DEPTH)
            if tag & 7 == VARINT:
                yield tag >> 3, read_varint(data, start)[0]
            elif tag & 7 == LENGTH:
                yield tag >> 3, data[slice(*read_length(data, start, end))]
            else:
                yield tag >> 3, data[start:pos]
    except IndexError:
        raise truncated() from None


def varint(value: int) -> bytes:
    """*value*, from 0 to 2**64-1, as a varint."""
    if value < 0x80:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))
