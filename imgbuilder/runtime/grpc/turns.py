"""Whose received data are handled next: a peer that sends more than its share waits for the others.

Frames cost far more to handle than to send. What a connection has received is handled for some
milliseconds at once; if there is more, nothing more is read from it, and it waits for its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

SHARE: Final = 0.002
"""Seconds for which what one connection has sent is handled at once."""

Turn = Callable[[], bool]
"""Does some of what there is to do, and tells whether there is more."""


class Turns:
    """Runs one turn in each round of the event loop, between whatever else there is to do."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Turn] = deque()

    def wait_for_one(self, turn: Turn) -> None:
        """Call *turn* when all that wait already had one, and again as long as it has more."""
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        turn = self._waiting[0]
        try:
            has_more = turn()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._loop.call_soon(self._next)
        if has_more:
            self.wait_for_one(turn)
