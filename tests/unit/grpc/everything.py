"""A message with every kind of field there is, for our codec and for Google's."""
# ruff: noqa: RUF009  # betterproto2.field makes a dataclass field

from __future__ import annotations

import datetime as dt  # betterproto2 looks the names of types up
from dataclasses import dataclass
from typing import Any

import betterproto2
from betterproto2 import field, map_meta
from google.protobuf import descriptor_pb2

from imgbuilder.pb.google.protobuf import Timestamp
from tests.unit.grpc.google import contract_pool

SCALARS = (
    "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32",
    "sfixed32", "sfixed64", "sint32", "sint64",
)  # fmt: skip


class Color(betterproto2.Enum):
    """An enum with a negative number in it."""

    NONE = 0
    RED = 1
    DARK = -1


@dataclass(eq=False, repr=False)
class Everything(betterproto2.Message):
    """Per scalar type, a field of its own, a repeated, an optional, and a member of a oneof; maps; messages."""

    double_one: float = field(1, "double")
    float_one: float = field(2, "float")
    int64_one: int = field(3, "int64")
    uint64_one: int = field(4, "uint64")
    int32_one: int = field(5, "int32")
    fixed64_one: int = field(6, "fixed64")
    fixed32_one: int = field(7, "fixed32")
    bool_one: bool = field(8, "bool")
    string_one: str = field(9, "string")
    bytes_one: bytes = field(10, "bytes")
    uint32_one: int = field(11, "uint32")
    sfixed32_one: int = field(12, "sfixed32")
    sfixed64_one: int = field(13, "sfixed64")
    sint32_one: int = field(14, "sint32")
    sint64_one: int = field(15, "sint64")
    enum_one: Color = field(16, "enum", default_factory=lambda: Color(0))
    message_one: Everything | None = field(17, "message", optional=True)
    time_one: dt.datetime | None = field(18, "message", unwrap=lambda: Timestamp, optional=True)
    double_list: list[float] = field(21, "double", repeated=True)
    float_list: list[float] = field(22, "float", repeated=True)
    int64_list: list[int] = field(23, "int64", repeated=True)
    uint64_list: list[int] = field(24, "uint64", repeated=True)
    int32_list: list[int] = field(25, "int32", repeated=True)
    fixed64_list: list[int] = field(26, "fixed64", repeated=True)
    fixed32_list: list[int] = field(27, "fixed32", repeated=True)
    bool_list: list[bool] = field(28, "bool", repeated=True)
    string_list: list[str] = field(29, "string", repeated=True)
    bytes_list: list[bytes] = field(30, "bytes", repeated=True)
    uint32_list: list[int] = field(31, "uint32", repeated=True)
    sfixed32_list: list[int] = field(32, "sfixed32", repeated=True)
    sfixed64_list: list[int] = field(33, "sfixed64", repeated=True)
    sint32_list: list[int] = field(34, "sint32", repeated=True)
    sint64_list: list[int] = field(35, "sint64", repeated=True)
    enum_list: list[Color] = field(36, "enum", repeated=True)
    message_list: list[Everything] = field(37, "message", repeated=True)
    time_list: list[dt.datetime] = field(38, "message", unwrap=lambda: Timestamp, repeated=True)
    double_maybe: float | None = field(41, "double", optional=True)
    int32_maybe: int | None = field(42, "int32", optional=True)
    string_maybe: str | None = field(43, "string", optional=True)
    enum_maybe: Color | None = field(44, "enum", optional=True)
    string_choice: str | None = field(51, "string", group="choice", optional=True)
    int64_choice: int | None = field(52, "int64", group="choice", optional=True)
    message_choice: Everything | None = field(53, "message", group="choice", optional=True)
    time_choice: dt.datetime | None = field(
        54, "message", group="choice", unwrap=lambda: Timestamp, optional=True
    )
    map_sint32_float: dict[int, float] = field(61, "map", map_meta=map_meta("sint32", "float"))
    map_string_message: dict[str, Everything] = field(62, "map", map_meta=map_meta("string", "message"))
    map_bool_enum: dict[bool, Color] = field(63, "map", map_meta=map_meta("bool", "enum"))
    map_uint64_bytes: dict[int, bytes] = field(64, "map", map_meta=map_meta("uint64", "bytes"))
    map_int32_time: dict[int, dt.datetime] = field(
        65, "map", map_meta=map_meta("int32", "message", unwrap_2=lambda: Timestamp)
    )


GOOGLE_TYPES = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in (*SCALARS, "enum", "message")
}


def everything_pool() -> Any:
    """Google's descriptor of `Everything`, made of the same metadata."""
    file = descriptor_pb2.FileDescriptorProto(name="everything.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    enum = file.enum_type.add(name="Color")
    for member in Color:
        enum.value.add(name=member.name, number=member.value)
    message = file.message_type.add(name="Everything")
    message.oneof_decl.add(name="choice")
    known: Any = Everything._betterproto  # type: ignore[arg-type]  # a property of classes, which mypy takes for one of objects
    for name in known.sorted_field_names:
        _add_field(message, name, known.meta_by_field_name[name])
    for index, optional in enumerate(f for f in message.field if f.proto3_optional):
        message.oneof_decl.add(name=f"_{optional.name}")
        optional.oneof_index = index + 1
    pool = contract_pool()
    pool.Add(file)
    return pool


def _add_field(message: Any, name: str, meta: betterproto2.FieldMetadata) -> None:
    descriptor = message.field.add(name=name, number=meta.number)
    if meta.map_meta is not None:
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for part, part_meta in zip(("key", "value"), meta.map_meta, strict=True):
            _set_type(entry.field.add(name=part, number=part_meta.number), part_meta)
        descriptor.type, descriptor.type_name = GOOGLE_TYPES["message"], f".test.Everything.{entry_name}"
        descriptor.label = descriptor.LABEL_REPEATED
        return
    _set_type(descriptor, meta)
    if meta.repeated:
        descriptor.label = descriptor.LABEL_REPEATED
    if meta.group:
        descriptor.oneof_index = 0
    elif meta.optional and meta.proto_type != "message":
        descriptor.proto3_optional = True


def _set_type(descriptor: Any, meta: betterproto2.FieldMetadata) -> None:
    descriptor.type = GOOGLE_TYPES[meta.proto_type]
    descriptor.label = descriptor.LABEL_OPTIONAL
    if meta.unwrap is not None:
        descriptor.type_name = ".google.protobuf.Timestamp"
    elif meta.proto_type == "message":
        descriptor.type_name = ".test.Everything"
    elif meta.proto_type == "enum":
        descriptor.type_name = ".test.Color"
