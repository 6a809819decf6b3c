"""Which connections a server has, how many there may be, and which of them makes room for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

import anyio

C = TypeVar("C")


class Connections(Generic[C]):
    """The connections of a server, from when they are accepted until they are gone.

    :param most: how many there may be. One host has four fifths of them at most, so that others get some.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = -(-most * 4 // 5)
        self._hosts: dict[C, str] = {}  # of all
        self._of_host: Counter[str] = Counter()
        self._idle: dict[C, None] = {}  # those without calls; in the order in which they began to have none
        self._none = anyio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._hosts))

    def has_room_for(self, host: str) -> bool:
        """Whether there may be another from *host*."""
        return len(self._hosts) < self._most and self._of_host[host] < self._most_of_one

    def in_the_way_of(self, host: str) -> C | None:
        """That which can make room for another from *host*: without calls, and for longest; None if there is none."""
        if self._of_host[host] < self._most_of_one:
            return next(iter(self._idle), None)
        return next((connection for connection in self._idle if self._hosts[connection] == host), None)

    def add(self, connection: C, host: str) -> None:
        """There is *connection*; it has no calls yet."""
        if not self._hosts:
            self._none = anyio.Event()
        self._hosts[connection] = host
        self._of_host[host] += 1
        self._idle[connection] = None

    def remove(self, connection: C) -> None:
        """It is gone, or as good as gone. Does nothing if it was removed."""
        host = self._hosts.pop(connection, None)
        if host is None:
            return
        self._of_host[host] -= 1
        if not self._of_host[host]:
            del self._of_host[host]
        self._idle.pop(connection, None)
        if not self._hosts:
            self._none.set()

    def busy(self, connection: C) -> None:
        """It has calls."""
        self._idle.pop(connection, None)

    def idle(self, connection: C) -> None:
        """It has no calls any more."""
        if connection in self._hosts:
            self._idle[connection] = None

    async def none(self) -> None:
        """Wait until there are none."""
        await self._none.wait()
