"""Watching the workspace manager: subscribe, list, merge, and again after every break.

The subscription is opened first and the list is asked for while its changes are read already, so there is no
gap between the two; which of two statuses is newer the builds decide by version. Listings are repeated, so
that a lost change heals by itself. Changes are read without ever waiting for anything else: the workspace
manager drops a subscriber that lags.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

import anyio
import anyio.lowlevel
import structlog

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import WorkspaceSeen
from imgbuilder.orchestrator.ports import WorkspaceManager
from imgbuilder.orchestrator.tracker import GRACE, Tracker
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.errors import WorkspaceManagerError

log = structlog.get_logger(__name__)

RECONNECT: Final = Backoff(first=0.1, factor=2.0, limit=5.0)

RELIST: Final = 180.0
"""Seconds between two listings while a subscription lasts."""

SECOND_LISTING: Final = 1.0
"""Seconds until the second listing: nothing says when a subscription is in effect on the other side."""

YIELD_EVERY: Final = 64
"""After so many changes in a row, or workspaces of a list, other tasks get their turn."""


REPEAT: Final = 60.0
"""Seconds after which a reason is logged again that has not changed since the last attempt."""


class Watcher:
    """Feeds the tracker with what the workspace manager says.

    :param address: where that is, for the log.
    """

    def __init__(
        self,
        *,
        address: str,
        workspaces: WorkspaceManager,
        tracker: Tracker,
        metrics: Metrics,
        relist: float = RELIST,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._workspaces = workspaces
        self._tracker = tracker
        self._metrics = metrics
        self._relist = relist
        self._jitter = jitter
        self._listed = False
        self._address = address
        self._told: tuple[str, float] | None = None
        self.subscribed = anyio.Event()
        """Set once the workspace manager was subscribed to and listed for the first time."""

    async def run(self) -> None:
        """Watch until cancelled."""
        attempt = 0
        while True:
            self._listed = False
            opened_at = anyio.current_time()
            failure = await self._subscription()
            lasted = anyio.current_time() - opened_at
            self._metrics.watcher_reconnected()
            if failure is None and lasted >= RECONNECT.limit:
                log.info("subscription ended", address=self._address)
                attempt = 0
                continue
            attempt = 0 if self._listed else attempt + 1
            delay = RECONNECT.delay(attempt, self._jitter())
            self._tell(failure or "ended", delay)
            await anyio.sleep(delay)

    def _tell(self, reason: str, delay: float) -> None:
        """Log why there is no subscription; the same *reason* not at every attempt while there is none."""
        now = anyio.current_time()
        if not self._listed and self._told is not None:
            told, at = self._told
            if reason == told and now - at < REPEAT:
                return
        self._told = reason, now
        event = "subscription lost" if self.subscribed.is_set() else "workspace manager not reached yet"
        log.warning(event, address=self._address, reason=reason, again_in=round(delay, 2))

    async def _subscription(self) -> str | None:
        """Take in what one subscription brings; why it failed, or None if it ended cleanly."""
        failure: str | None = None
        try:
            async with self._workspaces.subscribe() as changes, anyio.create_task_group() as group:
                group.start_soon(self._list_repeatedly, name="listing of workspaces")
                try:
                    await self._read(changes)
                except WorkspaceManagerError as error:
                    failure = error.fault
                group.cancel_scope.cancel()
        except WorkspaceManagerError as error:
            failure = error.fault
        return failure

    async def _read(self, changes: AsyncIterator[WorkspaceSeen]) -> None:
        count = 0
        async for seen in changes:
            self._metrics.watcher_event()
            self._tracker.see(seen)
            count += 1
            if count % YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()

    async def _list_repeatedly(self) -> None:
        unsure = await self._list_until_answered()
        self._listed = True
        self.subscribed.set()
        delay = SECOND_LISTING
        while True:
            await anyio.sleep(min(delay, GRACE) if unsure else delay)
            unsure = await self._list_until_answered()
            delay = self._relist * (0.75 + 0.5 * self._jitter())

    async def _list_until_answered(self) -> bool:
        attempt = 0
        while True:
            asked_at = anyio.current_time()
            try:
                seen = await self._workspaces.list()
            except WorkspaceManagerError as error:
                log.warning("workspaces not listed", address=self._address, reason=error.fault)
                await anyio.sleep(RECONNECT.delay(attempt, self._jitter()))
                attempt += 1
            else:
                return await self._take_in(seen, asked_at=asked_at)

    async def _take_in(self, listed: Iterable[WorkspaceSeen], *, asked_at: float) -> bool:
        """Merge a full listing, a part at a time: what changes in between is told apart by version, as ever.

        :returns: whether to list again soon, see `Tracker.missing`.
        """
        present = set()
        for number, seen in enumerate(listed, 1):
            present.add(seen.build_id)
            self._tracker.see(seen)
            if number % YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()
        return self._tracker.missing(present, asked_at=asked_at)
