"""Which connections a server has, how many there may be, and which of them makes room for another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import anyio

C = TypeVar("C")


class Connections(Generic[C]):
    """The connections of a server, from when they are accepted until they are gone.

    :param most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: set[C] = set()
        self._idle: dict[C, None] = {}  # those without calls; in the order in which they began to have none
        self._none = anyio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._all))

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._all) >= self._most

    def add(self, connection: C) -> None:
        """There is *connection*; it has no calls yet."""
        if not self._all:
            self._none = anyio.Event()
        self._all.add(connection)
        self._idle[connection] = None

    def remove(self, connection: C) -> None:
        """It is gone, or as good as gone. Does nothing if it was removed."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
        if not self._all:
            self._none.set()

    def busy(self, connection: C) -> None:
        """It has calls."""
        self._idle.pop(connection, None)

    def idle(self, connection: C) -> None:
        """It has no calls any more."""
        if connection in self._all:
            self._idle[connection] = None

    def longest_idle(self) -> C | None:
        """That which has had no calls for longest; None if all have some."""
        return next(iter(self._idle), None)

    async def none(self) -> None:
        """Wait until there are none."""
        await self._none.wait()
