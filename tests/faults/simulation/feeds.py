"""Subscriptions to the workspace manager as a replica gets them: what can happen to a message does."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Self

from imgbuilder.core.builds import WorkspaceSeen
from imgbuilder.wsman.errors import WorkspaceManagerError
from tests.faults.simulation.fates import unavailable
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.world import World

KEEPALIVE: Final = 20.0
"""After how many seconds a connection whose other side is silent is found to be broken."""


class Feed:
    """One subscription, seen from the replica. In order, unless a fault reorders."""

    def __init__(self, world: World, faults: Faults, replica: str) -> None:
        self._world = world
        self._faults = faults
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[WorkspaceSeen] = deque()
        self._end: Exception | None = None
        self._wake: asyncio.Future[None] | None = None
        self._open = False
        self._deaf = False
        self._last_arrival = 0.0

    # --- the iterator ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WorkspaceSeen:
        while not self._arrived:
            if self._end is not None:
                raise self._end
            self._wake = self._loop.create_future()
            await self._wake
        return self._arrived.popleft()

    # --- the other end ---

    def open(self) -> None:
        """The workspace manager has read the request."""
        delay = self._faults.between(0.0, 0.9) if self._faults.strikes("subscribe.late") else 0.0
        self._open = True
        if delay:
            self._loop.call_later(delay, self._take_effect)
        else:
            self._take_effect()
        lifetime = self._faults.between(0.1, 60.0)
        match self._faults.first("feed.half-open", "feed.deaf", "feed.cut", "feed.end", "feed.lag"):
            case "feed.half-open":
                self._loop.call_later(lifetime, self.fall_silent)
            case "feed.deaf":
                self._loop.call_later(lifetime, self._go_deaf)
            case "feed.cut":
                self._loop.call_later(lifetime, self.break_off, unavailable("connection lost"))
            case "feed.end":
                self._loop.call_later(lifetime, self.break_off, StopAsyncIteration())
            case "feed.lag":
                lag = WorkspaceManagerError("RESOURCE_EXHAUSTED", "subscriber lags")
                self._loop.call_later(lifetime, self.break_off, lag)

    def offer(self, status: WorkspaceSeen) -> None:
        """A workspace has changed."""
        if self._deaf:
            return
        faults, now = self._faults, self._loop.time()
        fault = faults.first("feed.drop", "feed.duplicate", "feed.delay", "feed.reorder")
        if fault:
            self._world.trace.note(
                self._replica, fault, build=self._world.name(status.build_id), phase=status.phase
            )
        if fault == "feed.drop":
            return
        arrival = now + faults.latency()
        if fault == "feed.reorder":
            self._loop.call_at(arrival + faults.between(0.0, 3.0), self._arrive, status)
            return
        if fault == "feed.delay":
            arrival += faults.between(0.0, 3.0)
        self._last_arrival = arrival = max(arrival, self._last_arrival)
        self._loop.call_at(arrival, self._arrive, status)
        if fault == "feed.duplicate":
            self._loop.call_at(arrival + faults.between(0.0, 3.0), self._arrive, status)

    def fall_silent(self) -> None:
        """Nothing comes any more, until the connection is found to be broken."""
        if self._open and not self._deaf:
            self._go_deaf()
            self._loop.call_later(KEEPALIVE, self.break_off, unavailable("keepalive timed out"))

    def break_off(self, end: Exception) -> None:
        """The stream ends."""
        if self._open and self._end is None:
            self._end = end
            self._go_deaf()
            self._rouse()

    def close(self) -> None:
        """The replica does not listen any more."""
        self._go_deaf()
        self._open = False

    def _take_effect(self) -> None:
        if self._open and not self._deaf:
            self._world.subscribers.append(self)

    def _go_deaf(self) -> None:
        self._deaf = True
        if self in self._world.subscribers:
            self._world.subscribers.remove(self)

    def _arrive(self, status: WorkspaceSeen) -> None:
        if self._open and self._end is None:
            self._arrived.append(status)
            self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
