"""Variables in a word of a Dockerfile: ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:+other}``, quotes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

DEEPEST: Final = 20
LONGEST: Final = 64 * 1024
"""Characters of a value. A variable that is made of itself doubles with each line."""

_PLAIN: Final = re.compile(r"[^$\\'\"]+")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")
_OPERATOR: Final = re.compile(r":?[-+]")


class UnknownSubstitutionError(ImgbuilderError):
    """A variable is used in a way that is not known here, so that the value can't be told."""

    def __init__(self, fault: str = "this kind of substitution is not supported here") -> None:
        super().__init__(fault)


def expand(word: str, values: Mapping[str, str], *, depth: int = 0) -> str:
    """*word* with its variables replaced and without its quotes. A variable that is not set is empty.

    :raises UnknownSubstitutionError: if that can't be told.
    """
    if depth > DEEPEST:
        raise UnknownSubstitutionError
    done: list[str] = []
    position, quoted = 0, False
    length = 0
    while position < len(word):
        character = word[position]
        if character == '"':
            quoted, position = not quoted, position + 1
        elif character == "'" and not quoted:
            end = _find(word, "'", position + 1)
            done.append(word[position + 1 : end])
            position = end + 1
        elif character == "\\":
            done.append(word[position + 1 : position + 2])
            position += 2
        elif character == "$":
            text, position = _variable(word, position + 1, values, depth)
            done.append(text)
            length += len(text)
            if length > LONGEST:
                raise UnknownSubstitutionError("the value is too long")
        else:
            plain = _PLAIN.match(word, position)
            text = plain[0] if plain else character
            done.append(text)
            position += len(text)
    return "".join(done)


def _variable(word: str, position: int, values: Mapping[str, str], depth: int) -> tuple[str, int]:
    """What a variable stands for whose ``$`` is before *position*, and where the word goes on."""
    if not word.startswith("{", position):
        name = _NAME.match(word, position)
        return (values.get(name[0], ""), name.end()) if name else ("$", position)
    name = _NAME.match(word, position + 1)
    if name is None:
        raise UnknownSubstitutionError
    end = _closing(word, position + 1)
    value = values.get(name[0])
    if name.end() == end:
        return value or "", end + 1
    operator = _OPERATOR.match(word, name.end())
    if operator is None:
        raise UnknownSubstitutionError
    other = expand(word[operator.end() : end], values, depth=depth + 1)
    there = bool(value) if operator[0].startswith(":") else value is not None
    if operator[0].endswith("-"):
        return (value or "") if there else other, end + 1
    return other if there else "", end + 1


def _closing(word: str, position: int) -> int:
    """Where the brace is that closes the one before *position*."""
    depth = 1
    while position < len(word):
        if word[position] == "\\":
            position += 1
        elif word.startswith("${", position):
            depth += 1
            position += 1
        elif word[position] == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    raise UnknownSubstitutionError


def _find(word: str, quote: str, position: int) -> int:
    end = word.find(quote, position)
    if end < 0:
        raise UnknownSubstitutionError
    return end
