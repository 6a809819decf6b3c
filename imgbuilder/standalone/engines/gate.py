"""Lets builds run together, and upkeep of what they share only while none runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio


class Gate:
    """Builds pass it together; upkeep is done by the last one to leave, while the next ones wait.

    Upkeep that is due waits for builds to end, and does not keep others from starting: so it may never come
    about on a busy machine. When it is `pressing`, no other build starts before it is done.
    """

    def __init__(self, upkeep: Callable[[], Awaitable[None]]) -> None:
        self._upkeep = upkeep
        self._changed = anyio.Condition()
        self._inside = 0
        self._closed = False
        self.due = False
        self.pressing = False

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Run a build inside this."""
        async with self._changed:
            while self._closed or (self.pressing and self._inside):
                await self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()

    async def _leave(self) -> None:
        async with self._changed:
            self._inside -= 1
            self._closed = not self._inside and (self.due or self.pressing)
            if not self._closed:
                self._changed.notify_all()
                return
        try:
            self.due = self.pressing = False
            await self._upkeep()
        finally:
            async with self._changed:
                self._closed = False
                self._changed.notify_all()
