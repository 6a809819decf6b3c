"""The descriptors of the contract, as bytes, and what is declared where in them.

Read without Google's runtime: a file descriptor is a message of known shape, and all that is asked of it are
the names it declares and the files it imports.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from imgbuilder.runtime.grpc.wire import fields

# The numbers of the fields that are read, from descriptor.proto.
_SET_FILE: Final = 1
_FILE_NAME, _FILE_PACKAGE, _FILE_DEPENDENCY = 1, 2, 3
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_ONEOF = 2, 3, 4, 8
_ENUM_VALUE: Final = 2
_SERVICE_METHOD: Final = 2
_NAME: Final = 1  # of all that is declared


@dataclass(frozen=True, slots=True)
class FileDescriptor:
    """One ``.proto`` file.

    :ivar name: as other files import it.
    :ivar imports: the names of the files that it imports.
    :ivar symbols: the full names of all that it declares.
    :ivar data: its descriptor, encoded.
    """

    name: str
    imports: tuple[str, ...]
    symbols: frozenset[str]
    data: bytes


class Descriptors:
    """The files of a descriptor set, encoded *data*, that is complete: it holds what its files import."""

    def __init__(self, data: bytes) -> None:
        described = [_described(value) for number, value in fields(data) if number == _SET_FILE]
        self._by_name: Mapping[str, FileDescriptor] = {file.name: file for file in described}
        self._by_symbol = {symbol: file for file in described for symbol in file.symbols}

    def named(self, name: str) -> FileDescriptor | None:
        """The file of this *name*, if there is one."""
        return self._by_name.get(name)

    def declaring(self, symbol: str) -> FileDescriptor | None:
        """The file that declares *symbol*, a full name without a leading dot, if there is one."""
        return self._by_symbol.get(symbol)

    def with_imports(self, file: FileDescriptor) -> list[FileDescriptor]:
        """*file*, and all it needs: what it imports, what these import, and so on."""
        needed = {file.name: file}
        todo = [file]
        while todo:
            for name in todo.pop().imports:
                if name not in needed:
                    needed[name] = self._by_name[name]
                    todo.append(needed[name])
        return list(needed.values())


@functools.cache
def contract() -> Descriptors:
    """The descriptors of all services of the contract."""
    return Descriptors(files("imgbuilder.pb").joinpath("descriptors.binpb").read_bytes())


def _described(value: int | bytes) -> FileDescriptor:
    data = _bytes(value)
    parts = list(fields(data))
    package = _text(parts, _FILE_PACKAGE)
    return FileDescriptor(
        name=_text(parts, _FILE_NAME),
        imports=tuple(_bytes(part).decode() for number, part in parts if number == _FILE_DEPENDENCY),
        symbols=frozenset(_declared_in_file(parts, package)),
        data=data,
    )


Parts = list[tuple[int, int | bytes]]


def _declared_in_file(parts: Parts, package: str) -> Iterator[str]:
    for number, part in parts:
        if number == _FILE_MESSAGE:
            yield from _declared_in_message(_bytes(part), package)
        elif number == _FILE_ENUM:
            yield from _declared_in_enum(_bytes(part), package)
        elif number == _FILE_SERVICE:
            yield from _declared_in_service(_bytes(part), package)


def _declared_in_message(data: bytes, scope: str) -> Iterator[str]:
    parts = list(fields(data))
    name = _join(scope, _text(parts, _NAME))
    yield name
    for number, part in parts:
        if number == _MESSAGE_NESTED:
            yield from _declared_in_message(_bytes(part), name)
        elif number == _MESSAGE_ENUM:
            yield from _declared_in_enum(_bytes(part), name)
        elif number in {_MESSAGE_FIELD, _MESSAGE_ONEOF}:
            yield _join(name, _text(list(fields(_bytes(part))), _NAME))


def _declared_in_enum(data: bytes, scope: str) -> Iterator[str]:
    parts = list(fields(data))
    yield _join(scope, _text(parts, _NAME))
    for number, part in parts:
        if number == _ENUM_VALUE:
            # the values of an enum are its siblings, as in C++
            yield _join(scope, _text(list(fields(_bytes(part))), _NAME))


def _declared_in_service(data: bytes, scope: str) -> Iterator[str]:
    parts = list(fields(data))
    name = _join(scope, _text(parts, _NAME))
    yield name
    for number, part in parts:
        if number == _SERVICE_METHOD:
            yield _join(name, _text(list(fields(_bytes(part))), _NAME))


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _text(parts: Parts, wanted: int) -> str:
    return next((_bytes(part).decode() for number, part in parts if number == wanted), "")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("the descriptors are damaged: a number where there is something else")
    return value
