"""Google's protobuf as the reference: its classes for the contract, and random messages of them, well-formed or not."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

import imgbuilder.pb
from imgbuilder.pb.message_pool import default_message_pool
from imgbuilder.runtime.grpc.wire import varint

PREFIX = "type.googleapis.com/"
PACKAGES = (
    "builder",
    "contentservice",
    "wsman",
    "grpc.health.v1",
    "grpc.reflection.v1",
    "grpc.reflection.v1alpha",
)

NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-3, 20),
}


def contract_pool() -> Any:
    """The descriptors that are committed, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    data = (Path(imgbuilder.pb.__file__).parent / "descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


def contract_classes() -> dict[str, Any]:
    """The generated classes of the contract by their full names."""
    for package in PACKAGES:
        importlib.import_module(f"imgbuilder.pb.{package}")
    return {
        url.removeprefix(PREFIX): cls
        for url, cls in default_message_pool.url_to_type.items()
        if not url.startswith(f"{PREFIX}google.")
    }


def google_class(pool: Any, name: str) -> Any:
    """Google's class of the message with the full *name*."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def parsed(cls: Any, data: bytes) -> Any:
    """What Google makes of *data*; None if it refuses them."""
    try:
        return cls.FromString(data)
    except DecodeError:
        return None


def meaning(message: Any) -> bytes:
    """Bytes that are equal for messages that mean the same, as far as our classes can tell."""
    _normalize(message)
    return bytes(message.SerializeToString(deterministic=True))


def _normalize(message: Any) -> None:
    for field, value in message.ListFields():
        if _is_map(field):
            _normalize_items(value, list(value), field.message_type.fields_by_name["value"])
        elif field.is_repeated:
            _normalize_items(value, range(len(value)), field)
        elif field.message_type is not None:
            _normalize_message(value)
        elif _is_nan(value):
            setattr(message, field.name, math.nan)


def _normalize_items(items: Any, keys: Iterable[Any], field: Any) -> None:
    for key in keys:
        if field.message_type is not None:
            _normalize_message(items[key])
        elif _is_nan(items[key]):
            items[key] = math.nan


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _normalize_message(message: Any) -> None:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        # what datetime holds: microseconds, from the year 1 to 9999, and nothing that is not known
        micros = message.seconds * 10**6 + message.nanos // 1000
        micros = min(max(micros, -62135596800 * 10**6), 253402300800 * 10**6 - 1)
        message.Clear()
        message.seconds, rest = divmod(micros, 10**6)
        message.nanos = rest * 1000
    else:
        _normalize(message)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def random_message(cls: Any, rng: random.Random, depth: int = 2) -> Any:
    """A message with about half of its fields set."""
    message = cls()
    for field in cls.DESCRIPTOR.fields:
        if rng.random() < 0.5 or (field.message_type is not None and depth == 0):
            continue
        if _is_map(field):
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            items = getattr(message, field.name)
            for _ in range(rng.randrange(3)):
                if value.message_type is None:
                    items[_random_value(key, rng)] = _random_value(value, rng)
                else:
                    items[_random_value(key, rng)].CopyFrom(_random_nested(value, rng, depth))
        elif field.is_repeated:
            values = [
                _random_nested(field, rng, depth)
                if field.message_type is not None
                else _random_value(field, rng)
                for _ in range(rng.randrange(4))
            ]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(_random_nested(field, rng, depth))
        else:
            setattr(message, field.name, _random_value(field, rng))
    return message


def _random_nested(field: Any, rng: random.Random, depth: int) -> Any:
    if field.message_type.full_name == "google.protobuf.Timestamp":
        cls = message_factory.GetMessageClass(field.message_type)
        return cls(
            seconds=rng.choice([0, 1, -1, 1_700_000_000, -62135596800]),
            nanos=rng.choice([0, 5000, 999_999_999]),
        )
    return random_message(message_factory.GetMessageClass(field.message_type), rng, depth - 1)


def _random_value(field: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind in NUMBERS:
        low, high = NUMBERS[kind]
        return rng.choice([low, high, 0, 1, rng.randint(low, high), min(high, rng.randrange(300))])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return rng.choice([0.0, -0.0, 1.5, -2.25, math.inf, math.nan])
    size = rng.choice([0, 1, 5, 20, 130])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(size)
    return "".join(rng.choice("ab/:é\U0001f600") for _ in range(size))


ODDITIES = (
    b"\x00\x01", b"\x07", b"\x0e", b"\x0c", b"\xf8\x01\x05", b"\xfa\x01\x02hi", b"\xfd\x01abcd", b"\xf9\x01abcdefgh",
    b"\xfb\x01\x08\x01\xfc\x01", b"\xfb\x01", b"\xfb\x01\x00\x05\xfc\x01", b"\x08" + b"\xff" * 9 + b"\x01",
    b"\x08" + b"\xff" * 9 + b"\x7f", b"\x08" + b"\xff" * 10 + b"\x01", b"\x88\x80\x80\x80\x00\x01",
    b"\x88\x80\x80\x80\x80\x00\x01", b"\x0a\x80\x80\x80\x80\x00", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe",
    b"\x18" + b"\x80" * 9 + b"\x02", b"\x1a\x02\x08\x01", b"\x1a\x05\x0a\x01a\x18\x01",
)  # fmt: skip


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """*data*, changed in a way or two that decoders may disagree about."""
    for _ in range(rng.randint(1, 2)):
        place = rng.randint(0, len(data))
        match rng.randrange(8):
            case 0:
                data = data[:place]
            case 1:
                data = data[:place] + bytes((rng.randrange(256),)) + data[place + 1 :]
            case 2:
                data = (
                    data[:place]
                    + bytes((rng.choice((0, 1, 2, 8, 10, 18, 26, 127, 128, 255)),))
                    + data[place:]
                )
            case 3:
                data = data[:place] + data[place + rng.randint(1, 4) :]
            case 4:
                data += other  # merged, or the last wins
            case 5:
                data += rng.choice(ODDITIES)
            case 6:
                data = data[:place] + rng.choice(ODDITIES) + data[place:]
            case _:
                number = rng.randint(1, 12)
                inner = rng.choice(ODDITIES) if rng.random() < 0.5 else other[: rng.randint(0, len(other))]
                data += varint(number << 3 | 2) + varint(len(inner)) + inner
    return data


def inputs(cls: Any, count: int, seed: str) -> Iterator[bytes]:
    """*count* inputs for messages of Google's class *cls*, a fifth of them as Google writes them. Seeded."""
    rng = random.Random(seed)
    messages = [random_message(cls, rng).SerializeToString() for _ in range(max(2, count // 5))]
    yield from messages
    for _ in range(count - len(messages)):
        yield mutated(rng.choice(messages), rng.choice(messages), rng)
