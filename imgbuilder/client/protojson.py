"""Reads messages in the JSON of protocol buffers, as other tools write it; strict, naming the field at fault.

Fields are taken in the spelling of their proto file, in lowerCamelCase, and in everything between the two:
``clone_taget``, ``cloneTaget`` and ``CloneTaget`` are one. betterproto2's own reader passes over fields that it
does not know, and says nothing of the place of an error.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeVar

import betterproto2

from imgbuilder.core.errors import InvalidInputError

M = TypeVar("M", bound=betterproto2.Message)

_INTEGERS: Final = {
    "int32": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63),
    "uint32": (0, 2**32),
    "uint64": (0, 2**64),
}


class _Field:
    """A field of a message: its name in Python, its kind, and the class of its value where it has one."""

    def __init__(self, field: dataclasses.Field[Any], annotation: Any) -> None:
        self.name = field.name
        self.meta: betterproto2.FieldMetadata = field.metadata["betterproto"]
        inner = [one for one in typing.get_args(annotation) if one is not type(None)]
        self.value_class: Any = inner[-1] if inner else annotation


def read_message(cls: type[M], document: Any, path: str = "") -> M:
    """The message of class *cls* that *document*, parsed JSON, is.

    :param path: of the message in what it is part of, for errors.
    :raises InvalidInputError: naming the field that can't be used; never its value.
    """
    if not isinstance(document, dict):
        raise InvalidInputError(path or "source", f"must be a JSON object, not {_kind(document)}")
    values: dict[str, Any] = {}
    groups: dict[str, str] = {}
    for key, value in document.items():
        place = f"{path}.{key}" if path else key
        field = fields_of(cls).get(_plain(key))
        if field is None:
            known = ", ".join(one.name for one in fields_of(cls).values()) or "none"
            raise InvalidInputError(place, f"there is no such field; those there are: {known}")
        if value is None:
            continue
        if field.name in values:
            raise InvalidInputError(place, "is given twice, in two spellings")
        group = field.meta.group
        if group is not None and group in groups:
            raise InvalidInputError(place, f"can't be given beside {groups[group]}: only one of them is used")
        if group is not None:
            groups[group] = key
        values[field.name] = _read(field, value, place)
    return cls(**values)


def has_field(cls: type[betterproto2.Message], key: str) -> bool:
    """Whether messages of class *cls* have a field that *key* spells."""
    return _plain(key) in fields_of(cls)


@cache
def fields_of(cls: type[betterproto2.Message]) -> Mapping[str, _Field]:
    """The fields of messages of class *cls*, by their plain names."""
    hints = typing.get_type_hints(cls)
    generated: Any = cls  # a dataclass, unlike its base
    return {_plain(field.name): _Field(field, hints[field.name]) for field in dataclasses.fields(generated)}


def parse_json(contents: bytes | str, place: str) -> Any:
    """The document that *contents* are.

    :raises InvalidInputError: if they are not JSON, naming *place*, the line and the column.
    """
    try:
        return json.loads(contents)
    except json.JSONDecodeError as error:
        fault = f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        raise InvalidInputError(place, fault) from None  # its cause has the contents
    except UnicodeDecodeError:
        raise InvalidInputError(place, "is not JSON: it is no UTF-8") from None
    except RecursionError:
        raise InvalidInputError(place, "is nested too deeply") from None


def _plain(key: str) -> str:
    return key.replace("_", "").lower()


def _read(field: _Field, value: Any, path: str) -> Any:
    if field.meta.map_meta is not None:
        if not isinstance(value, dict):
            raise InvalidInputError(path, f"must be a JSON object, not {_kind(value)}")
        kind = field.meta.map_meta[1].proto_type
        return {key: _read_one(kind, field, one, f"{path}.{key}") for key, one in value.items()}
    if field.meta.repeated:
        if not isinstance(value, list):
            raise InvalidInputError(path, f"must be a list, not {_kind(value)}")
        return [
            _read_one(field.meta.proto_type, field, one, f"{path}[{number}]")
            for number, one in enumerate(value)
        ]
    return _read_one(field.meta.proto_type, field, value, path)


def _read_one(kind: str, field: _Field, value: Any, path: str) -> Any:
    if kind == "message":
        return read_message(field.value_class, value, path)
    if kind == "enum":
        return _enum(field.value_class, value, path)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "string" and isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInputError(path, "has half of a character that JSON writes in two halves")
        return value
    if kind == "bytes" and isinstance(value, str):
        return _bytes(value, path)
    if kind in _INTEGERS:
        return _integer(kind, value, path)
    wanted = {"bool": "true or false", "string": "a text", "bytes": "a text in base64"}.get(kind, kind)
    raise InvalidInputError(path, f"must be {wanted}, not {_kind(value)}")


def _enum(cls: type[betterproto2.Enum], value: Any, path: str) -> Any:
    names = {one.name: one for one in cls}
    if isinstance(value, str) and value in names:
        return names[value]
    if isinstance(value, int) and not isinstance(value, bool) and value in {int(one) for one in cls}:
        return cls(value)
    raise InvalidInputError(path, f"must be one of {', '.join(str(name) for name in names)}")


def _integer(kind: str, value: Any, path: str) -> int:
    low, high = _INTEGERS[kind]
    try:
        number = int(value) if isinstance(value, str) or type(value) is int else None
    except ValueError:
        number = None
    if number is None or not low <= number < high:
        raise InvalidInputError(path, f"must be a whole number from {low} to {high - 1}")
    return number


def _bytes(value: str, path: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise InvalidInputError(path, "must be a text in base64") from error


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
