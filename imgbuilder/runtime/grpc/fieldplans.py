"""How a field of a message class is read and written, by its kind: one value, a list or a map.

Made once per class from the metadata that betterproto2 keeps of it. As Google's decoder does, a repeated
occurrence of a sub-message is merged into the first, the last member of a oneof stays alone, and numbers of
a repeated field come packed or one by one (they are written packed).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import betterproto2

from imgbuilder.runtime.grpc.reading import UNKNOWN, Reader, Reading, Values, read_fields
from imgbuilder.runtime.grpc.scalars import SCALARS, Scalar, enum_scalar
from imgbuilder.runtime.grpc.wire import LENGTH, read_length, truncated, varint

Writer = Callable[[list[bytes], Any], None]
"""``(parts, value)``: appends the value with its tag; raises as `Scalar.pack` does."""


class MessageType(Protocol):
    """What a field needs to know of the class of its messages; complete only when all classes are known."""

    def new(self) -> Any:
        """A message with all fields at their defaults."""
        ...

    def read(self, message: Any, data: bytes, pos: int, end: int, reading: Reading) -> None:
        """Merge what stands from *pos* to *end* into *message*."""
        ...

    def write(self, message: Any) -> bytes:
        """The bytes of *message*."""
        ...


MessageTypes = Callable[[type[Any]], MessageType]


class Field:
    """A field that holds one value; its subclasses hold many.

    :ivar explicit: whether it is written whenever it is not None, rather than when it is not its default.
    :ivar default: what it is when it is not on the wire, unless *container* makes it.
    :ivar container: makes the empty list or dict that it starts with.
    :param siblings: the other members of its oneof.
    """

    container: Callable[[], Any] | None = None

    def __init__(
        self,
        name: str,
        meta: betterproto2.FieldMetadata,
        cls: type[Any],
        types: MessageTypes,
        siblings: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.number = meta.number
        self.siblings = siblings
        self.scalar: Scalar | None = None
        self.type: MessageType | None = None
        self.wrapper = meta.unwrap() if meta.unwrap is not None else None
        if meta.proto_type == betterproto2.TYPE_MESSAGE:
            self.type = types(self.wrapper or cls)
        elif meta.proto_type == betterproto2.TYPE_ENUM:
            self.scalar = enum_scalar(cls)
        else:
            self.scalar = SCALARS.get(meta.proto_type)  # none for maps
        self.explicit = bool(meta.optional or meta.group or self.type)
        self.default = None if self.explicit or self.scalar is None else self.scalar.default

    def tag(self, wire_type: int) -> int:
        """The field's number and *wire_type* as they stand before a value."""
        return self.number << 3 | wire_type

    def readers(self) -> dict[int, Reader]:
        """The readers by the tags under which the field may come."""
        if self.type is not None:
            return {self.tag(LENGTH): self._message_reader(self.type)}
        assert self.scalar is not None  # noqa: S101  # one of the two
        return {self.tag(self.scalar.wire_type): self._scalar_reader(self.scalar)}

    def writer(self) -> Writer:
        """Writes the field with a value that is to be written."""
        if self.type is not None:
            return _message_writer(varint(self.tag(LENGTH)), self.type, self.wrapper)
        assert self.scalar is not None  # noqa: S101  # one of the two
        return _scalar_writer(varint(self.tag(self.scalar.wire_type)), self.scalar)

    def _scalar_reader(self, scalar: Scalar) -> Reader:
        name, siblings, unpack = self.name, self.siblings, scalar.unpack

        def read(values: Values, data: bytes, pos: int, end: int, _: Reading) -> int:
            values[name], pos = unpack(data, pos, end)
            return pos

        def read_member(values: Values, data: bytes, pos: int, end: int, _: Reading) -> int:
            values[name], pos = unpack(data, pos, end)
            for sibling in siblings:
                values[sibling] = None
            return pos

        return read_member if siblings else read

    def _message_reader(self, message_type: MessageType) -> Reader:
        name, siblings, wrapped = self.name, self.siblings, self.wrapper is not None

        def read(values: Values, data: bytes, pos: int, end: int, reading: Reading) -> int:
            pos, stop = read_length(data, pos, end)
            reading.enter()
            message = values[name]
            if message is None:
                message = values[name] = message_type.new()
                for sibling in siblings:
                    values[sibling] = None
                if wrapped:
                    reading.unwrap_later(values, name)
            message_type.read(message, data, pos, stop, reading)
            reading.depth += 1
            return stop

        return read


class RepeatedField(Field):
    """A field that holds a list."""

    container = list

    def __init__(
        self,
        name: str,
        meta: betterproto2.FieldMetadata,
        cls: type[Any],
        types: MessageTypes,
    ) -> None:
        super().__init__(name, meta, cls, types)
        self.explicit, self.default = False, None

    def readers(self) -> dict[int, Reader]:
        """One more for numbers that come packed."""
        readers = super().readers()
        if self.scalar is not None and self.scalar.packable:
            readers[self.tag(LENGTH)] = self._packed_reader(self.scalar)
        return readers

    def writer(self) -> Writer:
        """Writes numbers packed, anything else one by one."""
        if self.scalar is not None and self.scalar.packable:
            return _packed_writer(varint(self.tag(LENGTH)), self.scalar)
        write_one = super().writer()

        def write(parts: list[bytes], items: Any) -> None:
            for item in items:
                write_one(parts, item)

        return write

    def _scalar_reader(self, scalar: Scalar) -> Reader:
        name, unpack = self.name, scalar.unpack

        def read(values: Values, data: bytes, pos: int, end: int, _: Reading) -> int:
            value, pos = unpack(data, pos, end)
            values[name].append(value)
            return pos

        return read

    def _packed_reader(self, scalar: Scalar) -> Reader:
        name, unpack = self.name, scalar.unpack

        def read(values: Values, data: bytes, pos: int, end: int, _: Reading) -> int:
            pos, stop = read_length(data, pos, end)
            append = values[name].append
            while pos < stop:
                value, pos = unpack(data, pos, stop)
                append(value)
            if pos != stop:
                raise truncated()
            return pos

        return read

    def _message_reader(self, message_type: MessageType) -> Reader:
        name, wrapped = self.name, self.wrapper is not None

        def read(values: Values, data: bytes, pos: int, end: int, reading: Reading) -> int:
            pos, stop = read_length(data, pos, end)
            reading.enter()
            items, message = values[name], message_type.new()
            if wrapped and not items:
                reading.unwrap_later(values, name)
            items.append(message)
            message_type.read(message, data, pos, stop, reading)
            reading.depth += 1
            return stop

        return read


class MapField(Field):
    """A field that holds a dict. On the wire it is a repeated message of a key and a value."""

    container = dict

    def __init__(
        self,
        name: str,
        meta: betterproto2.FieldMetadata,
        value_cls: type[Any],
        types: MessageTypes,
    ) -> None:
        super().__init__(name, meta, value_cls, types)
        assert meta.map_meta is not None  # noqa: S101  # that makes it a map
        self.key = Field("key", meta.map_meta[0], value_cls, types)
        self.value = Field("value", meta.map_meta[1], value_cls, types)

    def readers(self) -> dict[int, Reader]:
        """Reads an entry, whose key and value may come in any order, twice, or not at all."""
        name, prefix = self.name, varint(self.tag(LENGTH))
        readers = {**self.key.readers(), **self.value.readers()}
        defaults: Values = {"key": self.key.default, "value": self.value.default, UNKNOWN: b""}
        value_type, wrapped = self.value.type, self.value.wrapper is not None

        def read(values: Values, data: bytes, pos: int, end: int, reading: Reading) -> int:
            begin = pos
            pos, stop = read_length(data, pos, end)
            reading.enter()
            entry = defaults.copy()
            read_fields(readers, entry, data, pos, stop, reading)
            reading.depth += 1
            if entry[UNKNOWN]:
                # an entry that says more than a key and a value is not taken for one, as in Google's decoder
                reading.keep(values, prefix + data[begin:stop])
                return stop
            if value_type is not None and entry["value"] is None:
                entry["value"] = value_type.new()
            items = values[name]
            if wrapped and not items:
                reading.unwrap_later(values, name)
            items[entry["key"]] = entry["value"]
            return stop

        return {self.tag(LENGTH): read}

    def writer(self) -> Writer:
        """Writes the entries, with both key and value always."""
        prefix, write_key, write_value = varint(self.tag(LENGTH)), self.key.writer(), self.value.writer()

        def write(parts: list[bytes], items: Any) -> None:
            for key, value in items.items():
                entry: list[bytes] = []
                write_key(entry, key)
                write_value(entry, value)
                body = b"".join(entry)
                parts += (prefix, varint(len(body)), body)

        return write


def _scalar_writer(prefix: bytes, scalar: Scalar) -> Writer:
    pack = scalar.pack

    def write(parts: list[bytes], value: Any) -> None:
        parts += (prefix, pack(value))

    def write_bytes(parts: list[bytes], value: Any) -> None:
        parts += (prefix, varint(len(value)), value)  # apart from its length, so that it need not be copied

    return write_bytes if isinstance(scalar.default, bytes) else write


def _packed_writer(prefix: bytes, scalar: Scalar) -> Writer:
    pack = scalar.pack

    def write(parts: list[bytes], items: Any) -> None:
        packed = b"".join([pack(item) for item in items])
        parts += (prefix, varint(len(packed)), packed)

    return write


def _message_writer(prefix: bytes, message_type: MessageType, wrapper: Any) -> Writer:
    def write(parts: list[bytes], message: Any) -> None:
        body = message_type.write(message)
        parts += (prefix, varint(len(body)), body)

    def write_wrapped(parts: list[bytes], value: Any) -> None:
        write(parts, wrapper.from_wrapped(value))

    return write if wrapper is None else write_wrapped


def unless_zero(writer: Writer) -> Writer:
    """*writer*, but only for floats other than 0.0; -0.0, which equals it, is written."""

    def write(parts: list[bytes], value: Any) -> None:
        if value or math.copysign(1, value) < 0:
            writer(parts, value)

    return write
