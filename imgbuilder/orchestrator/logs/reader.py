"""Reads one log at a pace of its own."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio.lowlevel

from imgbuilder.bus import Subscription
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.telemetry.metrics import Metrics


class LogReader:
    """Iterates over a log from its first byte: chunks of at most 64 KiB, until the log is closed and was read.

    Use as an async context manager, and iterate in there, once. Belongs to one task. Where a chunk begins and
    ends means nothing; readers at the same place get the same object. A cancelled wait loses nothing.
    """

    def __init__(self, log: BuildLog, *, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._offset = 0
        self._changes: Subscription[int] | None = None
        self._waited = True

    async def __aenter__(self) -> Self:
        self._changes = self._log.subscribe()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._changes is not None:
            self._log.unsubscribe(self._changes)
            self._changes = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._changes is None:
            raise StopAsyncIteration
        if not self._waited:
            # A reader that always finds something, and sends it without waiting, would keep others waiting.
            await anyio.lowlevel.checkpoint()
        self._waited = False
        while True:
            if self._offset < self._log.length:
                chunk, self._offset = await self._log.read(self._offset)
                if chunk:
                    self._metrics.log_sent(len(chunk))
                    return chunk
            elif self._log.closed:
                raise StopAsyncIteration
            else:
                await self._changes.receive()
                self._waited = True
