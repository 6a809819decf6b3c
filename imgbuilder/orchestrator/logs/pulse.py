"""When readers are told that there is something new: at once after a pause, gathered while it comes in a row.

Knows nothing of logs; never waits itself, but has the event loop call back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pulse:
    """Calls *tell* soon after each `beat`, but not more often than every *gather* seconds.

    One timer serves all readers of a log: they wake together, at the same place, and can share what they send.
    """

    def __init__(self, tell: Callable[[], None], *, gather: float) -> None:
        self._tell = tell
        self._gather = gather
        self._told_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """There is something new."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        due = self._told_at + self._gather
        if due <= loop.time():
            self.now()
        else:
            self._timer = loop.call_at(due, self.now)

    def now(self) -> None:
        """Call at once."""
        self.stop()
        self._told_at = asyncio.get_running_loop().time()
        self._tell()

    def stop(self) -> None:
        """Do not call for what is new so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Never call again, and hold on to nobody: who is told may own this, and is freed at once then."""
        self.stop()
        self._tell = _nothing


def _nothing() -> None:
    """Nobody is told."""
