"""How the scalar types of protocol buffers stand on the wire.

One `Scalar` for each: it packs a value and unpacks it again, without its tag. Which field has which type is
known to `imgbuilder.runtime.grpc.plans`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from imgbuilder.runtime.grpc.wire import FIXED32, FIXED64, LENGTH, VARINT, read_length, read_varint, varint

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes, int, int], tuple[Any, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One scalar type.

    :ivar pack: a value as it follows the tag. Raises TypeError, ValueError, AttributeError or struct.error
        for a value of another type or out of range.
    :ivar unpack: ``(data, pos, end) -> (value, position behind it)``. May read past *end*, which the caller
        then sees from the position; raises IndexError, struct.error, UnicodeDecodeError or DecodeError.
    :ivar default: the value of a field that is not on the wire.
    """

    wire_type: int
    pack: Pack
    unpack: Unpack
    default: Any

    @property
    def packable(self) -> bool:
        """Whether many of them may stand in one length-delimited value."""
        return self.wire_type != LENGTH


def _signed(bits: int) -> Scalar:
    half, whole = 1 << (bits - 1), 1 << bits

    def pack(value: int) -> bytes:
        if not -half <= value < half:
            raise ValueError("out of range")
        # a negative number always has ten bytes: it is extended to 64 bits
        return varint(value if value >= 0 else value + (1 << 64))

    def unpack(data: bytes, pos: int, _: int) -> tuple[int, int]:
        value, pos = read_varint(data, pos)
        if value < half:
            return value, pos
        value &= whole - 1
        return (value if value < half else value - whole), pos

    return Scalar(wire_type=VARINT, pack=pack, unpack=unpack, default=0)


def _unsigned(bits: int) -> Scalar:
    whole = 1 << bits

    def pack(value: int) -> bytes:
        if not 0 <= value < whole:
            raise ValueError("out of range")
        return varint(value)

    def unpack(data: bytes, pos: int, _: int) -> tuple[int, int]:
        value, pos = read_varint(data, pos)
        return value & (whole - 1), pos

    return Scalar(wire_type=VARINT, pack=pack, unpack=unpack, default=0)


def _zigzag(bits: int) -> Scalar:
    unsigned, half = _unsigned(bits), 1 << (bits - 1)

    def pack(value: int) -> bytes:
        if not -half <= value < half:
            raise ValueError("out of range")
        return varint(value << 1 if value >= 0 else ~(value << 1))

    def unpack(data: bytes, pos: int, end: int) -> tuple[int, int]:
        value, pos = unsigned.unpack(data, pos, end)
        return (value >> 1) ^ -(value & 1), pos

    return Scalar(wire_type=VARINT, pack=pack, unpack=unpack, default=0)


def _fixed(layout: str, wire_type: int, default: float) -> Scalar:
    form = struct.Struct(layout)

    def unpack(data: bytes, pos: int, _: int) -> tuple[Any, int]:
        return form.unpack_from(data, pos)[0], pos + form.size

    return Scalar(wire_type=wire_type, pack=form.pack, unpack=unpack, default=default)


def _pack_bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _unpack_bool(data: bytes, pos: int, _: int) -> tuple[bool, int]:
    value, pos = read_varint(data, pos)
    return value != 0, pos


def _pack_string(value: str) -> bytes:
    encoded = value.encode()
    return varint(len(encoded)) + encoded


def _unpack_string(data: bytes, pos: int, end: int) -> tuple[str, int]:
    pos, stop = read_length(data, pos, end)
    return data[pos:stop].decode(), stop


def _pack_bytes(value: bytes) -> bytes:
    return varint(len(value)) + value


def _unpack_bytes(data: bytes, pos: int, end: int) -> tuple[bytes, int]:
    pos, stop = read_length(data, pos, end)
    return data[pos:stop], stop


SCALARS: Final[Mapping[str, Scalar]] = {
    "bool": Scalar(wire_type=VARINT, pack=_pack_bool, unpack=_unpack_bool, default=False),
    "int32": _signed(32),
    "int64": _signed(64),
    "uint32": _unsigned(32),
    "uint64": _unsigned(64),
    "sint32": _zigzag(32),
    "sint64": _zigzag(64),
    "fixed32": _fixed("<I", FIXED32, 0),
    "sfixed32": _fixed("<i", FIXED32, 0),
    "float": _fixed("<f", FIXED32, 0.0),
    "fixed64": _fixed("<Q", FIXED64, 0),
    "sfixed64": _fixed("<q", FIXED64, 0),
    "double": _fixed("<d", FIXED64, 0.0),
    "string": Scalar(wire_type=LENGTH, pack=_pack_string, unpack=_unpack_string, default=""),
    "bytes": Scalar(wire_type=LENGTH, pack=_pack_bytes, unpack=_unpack_bytes, default=b""),
}
"""The scalar types by the names that the contract and betterproto2 give them; enums are made by `enum_scalar`."""


def enum_scalar(enum: Callable[[int], Any]) -> Scalar:
    """The type of *enum*, a class of betterproto2: open, so a number without a name is a value like any other."""
    number = SCALARS["int32"]
    members = {int(member): member for member in enum}  # type: ignore[attr-defined]  # an enum class

    def unpack(data: bytes, pos: int, end: int) -> tuple[Any, int]:
        value, pos = number.unpack(data, pos, end)
        member = members.get(value)
        return (enum(value) if member is None else member), pos

    return Scalar(wire_type=VARINT, pack=number.pack, unpack=unpack, default=members.get(0, 0))
