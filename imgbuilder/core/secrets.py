"""A value that must not be seen: its text leaves only through `Secret.reveal`."""

from __future__ import annotations

from typing import Final


class Secret:
    """A password, token or the like, whose repr and str hide it.

    Compares and hashes by value, so it can be part of a cache key.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value: Final = value

    def reveal(self) -> str:
        """The value itself, for the one call that sends it where it belongs."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"

    __str__ = __repr__
