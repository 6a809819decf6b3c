"""Connections to hosts: bounded in number for each, kept for the next request, and closed when nobody comes.

Each connection is a client of its own. A pool that several requests share hands one idle connection to all that
ask at the same time, and lets all but one try again: of eight at a time, each request tries eight times.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
import httpx

IDLE: Final = 60.0
"""Seconds after which the connections to a host are closed if nobody used them. It is looked at with requests."""

MOST_IDLE_HOSTS: Final = 128
CLOSING: Final = 1.0
"""Seconds that closing a connection may take; it waits for nothing but the loop."""


@dataclass(slots=True)
class _Host:
    places: anyio.Semaphore
    idle: list[httpx.AsyncClient] = field(default_factory=list)
    users: int = 0
    used_at: float = 0.0


class Connections:
    """Hands out connections, one user each. What is handed out must be given back before `close`."""

    def __init__(self, *, per_host: int, connect: Callable[[], httpx.AsyncClient]) -> None:
        """:param connect: makes a client that opens one connection at most."""
        self._per_host = per_host
        self._connect = connect
        # By the time of their last use: the first is the next to be closed.
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @asynccontextmanager
    async def to(self, host: str) -> AsyncIterator[httpx.AsyncClient]:
        """A connection to *host*, a kept one if there is one; waits while the host has its full number.

        A connection whose user fails or is cancelled is closed: it may be in the middle of something.
        """
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Host(anyio.Semaphore(self._per_host))
        known.users += 1
        try:
            async with known.places:
                client = known.idle.pop() if known.idle else self._connect()
                try:
                    yield client
                except BaseException:
                    await _close(client)
                    raise
                known.idle.append(client)
        finally:
            known.users -= 1
            known.used_at = anyio.current_time()
            if host in self._hosts:
                self._hosts.move_to_end(host)
            await self._close_unused()

    async def close(self) -> None:
        """Close all that are kept."""
        while self._hosts:
            await self._close_first()

    async def _close_unused(self) -> None:
        now = anyio.current_time()
        while self._hosts:
            host = next(iter(self._hosts.values()))
            if host.users or (host.used_at + IDLE > now and len(self._hosts) <= MOST_IDLE_HOSTS):
                return
            await self._close_first()

    async def _close_first(self) -> None:
        _, host = self._hosts.popitem(last=False)
        for client in host.idle:
            await _close(client)


async def _close(client: httpx.AsyncClient) -> None:
    with anyio.move_on_after(CLOSING, shield=True):
        await client.aclose()
