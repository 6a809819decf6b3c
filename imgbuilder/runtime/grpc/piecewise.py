"""Large messages in pieces: the messages of one repeated field, read or written one by one.

A message that holds ten thousand others takes half a second. Whoever reads or writes it piece by piece can let others
have a turn in between, and never has all of it in memory as objects. Nothing here waits; that is up to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import betterproto2

from imgbuilder.runtime.grpc.codec import CONTRACT, Codec
from imgbuilder.runtime.grpc.wire import (
    LENGTH,
    MAX_DEPTH,
    read_length,
    read_short,
    skip_value,
    truncated,
    varint,
)

M = TypeVar("M", bound=betterproto2.Message)


def read_repeated(data: bytes, number: int, cls: type[M], *, codec: Codec = CONTRACT) -> Iterator[M]:
    """The messages of class *cls* in the repeated field *number* of the message that *data* are; no other fields.

    :raises DecodeError: where the data are no message, which may be after some were given.
    """
    wanted = number << 3 | LENGTH
    pos, end = 0, len(data)
    while pos < end:
        try:
            tag, pos = read_short(data, pos)
            if tag == wanted:
                start, pos = read_length(data, pos, end)
            else:
                pos = skip_value(data, pos, end, tag, MAX_DEPTH)
                continue
        except IndexError:
            raise truncated() from None
        yield codec.decode(cls, data[start:pos])


def write_repeated(number: int, message: Any, *, codec: Codec = CONTRACT) -> bytes:
    """*message* as it stands in the repeated field *number*: a row of these is the whole field.

    :raises EncodeError: for a value that its field can't have.
    """
    body = codec.encode(message)
    return varint(number << 3 | LENGTH) + varint(len(body)) + body
