"""Messages to bytes and back: a strict, table-driven codec for the classes that betterproto2 generates.

It takes the place of betterproto2's own, which accepts data that is cut short, keeps two members of a oneof,
replaces what should be merged, and takes quadratic time for hostile input. What is refused and what is
accepted, and what it means, is as with Google's decoder (upb); the tests compare the two. Differences, each
harmless to the messages of the contract: times are kept to the microsecond; a time that datetime can't hold
becomes its first or last; and a message may hold at most `Codec.max_messages` others.

Messages of a *preserved* class are written as exactly the bytes they were read from, so that a workspace
initializer reaches the workspace manager byte for byte, whatever it contains and in whatever order. They must
not be changed once they were read: the change would not be written.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import betterproto2
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from imgbuilder.pb.contentservice import WorkspaceInitializer
from imgbuilder.runtime.grpc.fieldplans import Field, MapField, RepeatedField, Writer, unless_zero
from imgbuilder.runtime.grpc.reading import UNKNOWN, Reader, Reading, Values, read_fields
from imgbuilder.runtime.grpc.wire import MAX_SIZE, DecodeError, EncodeError, truncated

M = TypeVar("M", bound=betterproto2.Message)

_WIRE: Final = "_wire"
"""The attribute in which a message of a preserved class keeps the bytes it was read from, in pieces."""

_SMALL: Final = 1 << 10
"""Values up to this size are cheaper to copy than to keep apart."""

_BAD_VALUE: Final = (
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    struct.error,
)


class MessagePlan:
    """How messages of one class are made, read and written; satisfies `fieldplans.MessageType`."""

    def __init__(self, cls: type[Any], *, preserved: bool) -> None:
        self._cls = cls
        self._preserved = preserved
        self._readers: dict[int, Reader] = {}
        self._writers: list[tuple[str, bool, Writer]] = []
        self._defaults: Values = {UNKNOWN: b""}
        self._containers: list[tuple[str, Callable[[], Any]]] = []

    def add(self, field: Field) -> None:
        """Add a field; in the order of their numbers."""
        self._readers.update(field.readers())
        writer, explicit = field.writer(), field.explicit
        if isinstance(field.default, float):
            writer, explicit = unless_zero(writer), True
        self._writers.append((field.name, explicit, writer))
        if field.container is None:
            self._defaults[field.name] = field.default
        else:
            self._containers.append((field.name, field.container))

    def new(self) -> Any:
        """A message with all fields at their defaults."""
        message: Any = object.__new__(self._cls)
        values: Values = message.__dict__
        values.update(self._defaults)
        for name, container in self._containers:
            values[name] = container()
        return message

    def read(self, message: Any, data: bytes, pos: int, end: int, reading: Reading) -> None:
        """Merge what stands from *pos* to *end* into *message*; raises as a `Reader` does."""
        if self._preserved:
            message.__dict__.setdefault(_WIRE, []).append(memoryview(data)[pos:end])
        read_fields(self._readers, message.__dict__, data, pos, end, reading)

    def write(self, message: Any) -> bytes:
        """The bytes of *message*: known fields by number, then the unknown ones.

        :raises EncodeError: for a value that its field can't have.
        """
        head, body = self.write_parts(message, largest=sys.maxsize)
        return head + body if body else head

    def write_parts(self, message: Any, *, largest: int) -> tuple[bytes, bytes]:
        """The same in two parts, of which the second may be empty.

        :param largest: a value of more bytes, at the end of the message, is the second part, as it is.
        """
        values: Values = message.__dict__
        if self._preserved and _WIRE in values:
            return b"".join(values[_WIRE]), b""
        parts: list[bytes] = []
        name = ""
        try:
            for name, explicit, writer in self._writers:
                value = values[name]
                if value is not None if explicit else value:
                    writer(parts, value)
            unknown = values[UNKNOWN]
            if unknown:
                parts.append(unknown)
            body = b""
            if parts and len(parts[-1]) > largest and isinstance(parts[-1], bytes):
                body = parts.pop()  # what is none is found out when it is joined
            return b"".join(parts), body
        except _BAD_VALUE as error:
            raise EncodeError(f"{self._cls.__name__}.{name}") from error


class Codec:
    """Encodes and decodes messages of any class that betterproto2 generated.

    :param preserved: the classes whose messages are written as the bytes they were read from.
    :param max_messages: how many sub-messages and map entries a message may hold, at any depth.
    """

    def __init__(
        self,
        *,
        preserved: Collection[type[betterproto2.Message]] = (),
        max_messages: int = 1_000_000,
    ) -> None:
        self.max_messages = max_messages
        self._preserved = frozenset(preserved)
        self._plans: dict[type[Any], MessagePlan] = {}

    def encode(self, message: betterproto2.Message) -> bytes:
        """The bytes of *message*.

        :raises EncodeError: for a value that its field can't have.
        """
        return self._plan(type(message)).write(message)

    def encode_parts(self, message: betterproto2.Message) -> tuple[bytes, bytes]:
        """The same in two parts: if the message ends with a large value, that is the second, and not copied.

        :raises EncodeError: for a value that its field can't have.
        """
        return self._plan(type(message)).write_parts(message, largest=_SMALL)

    def decode(self, cls: type[M], data: bytes) -> M:
        """The message of class *cls* that *data* are.

        :raises DecodeError: if they are not.
        """
        if len(data) > MAX_SIZE:
            raise DecodeError("the message is too large")
        plan = self._plan(cls)
        message: M = plan.new()
        reading = Reading(self.max_messages)
        try:
            plan.read(message, data, 0, len(data), reading)
        except (IndexError, struct.error):
            raise truncated() from None
        except UnicodeDecodeError:
            raise DecodeError("a text is not UTF-8") from None
        reading.finish()
        return message

    def _plan(self, cls: type[Any]) -> MessagePlan:
        plan = self._plans.get(cls)
        if plan is None:
            # known before its fields are: classes contain one another
            plan = self._plans[cls] = MessagePlan(cls, preserved=cls in self._preserved)
            self._fill(plan, cls)
        return plan

    def _fill(self, plan: MessagePlan, cls: type[Any]) -> None:
        known = cls._betterproto  # where betterproto2 keeps what it generated
        oneofs = {
            group: {field.name for field in fields} for group, fields in known.oneof_field_by_group.items()
        }
        for name in known.sorted_field_names:
            meta = known.meta_by_field_name[name]
            if meta.map_meta is not None:
                plan.add(MapField(name, meta, known.cls_by_field[f"{name}.value"], self._plan))
            elif meta.repeated:
                plan.add(RepeatedField(name, meta, known.cls_by_field[name], self._plan))
            else:
                siblings = tuple(oneofs.get(meta.group, set()) - {name})
                plan.add(Field(name, meta, known.cls_by_field[name], self._plan, siblings))


CONTRACT: Final = Codec(preserved={WorkspaceInitializer})
"""The codec of the messages of this project's contract."""

REQUESTS: Final = Codec(preserved={WorkspaceInitializer}, max_messages=100_000)
"""The same for requests, which are small and may be hostile."""

encode: Final = CONTRACT.encode
decode: Final = CONTRACT.decode


class ProtoCodec(CodecBase):
    """Lets grpclib use a `Codec`, for servers and channels alike.

    A message that is already encoded may be sent in its stead, as `bytes`: they go out as they are.
    """

    __content_subtype__ = "proto"

    def __init__(self, codec: Codec = CONTRACT) -> None:
        self._codec = codec

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The bytes of *message*, a *message_type* or bytes.

        :raises TypeError: if it is neither.
        :raises EncodeError: for a value that its field can't have.
        """
        head, body = self.encode_parts(message, message_type)
        return head + body if body else head

    def encode_parts(self, message: Any, message_type: Any) -> tuple[bytes, bytes]:
        """The same in two parts, of which the second is a large value that is not copied, or empty.

        :raises TypeError, EncodeError: as `encode` does.
        """
        if isinstance(message, bytes):
            return b"", message
        if not isinstance(message, message_type):
            raise TypeError(f"a {message_type.__name__} was to be sent, not a {type(message).__name__}")
        return self._codec.encode_parts(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The *message_type* that *data* are; for `bytes` themselves, which the caller reads piece by piece.

        :raises GRPCError: INTERNAL, if they are not.
        """
        if message_type is bytes:
            return data
        try:
            return self._codec.decode(message_type, data)
        except DecodeError as error:
            raise GRPCError(
                Status.INTERNAL, f"can't decode {message_type.__name__}: {error.fault}"
            ) from error
