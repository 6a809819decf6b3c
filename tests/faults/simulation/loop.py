"""An event loop whose time is made up: whenever nothing is left to do, it is time for what comes next."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """Everybody waits, and nothing will ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs the same program the same way every time. It speaks to nobody outside."""

    def __init__(self) -> None:
        self._selector_of_time = _Clock()
        super().__init__(self._selector_of_time)
        self._numbers = itertools.count()
        self.set_task_factory(self._numbered_task)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._selector_of_time.now

    def _numbered_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = _NumberedTask(coroutine, loop=loop, context=context)
        task.number = next(self._numbers)
        return task


class _NumberedTask(asyncio.Task[T]):
    """Has a hash that does not depend on where in memory it is: anyio keeps tasks in sets."""

    number = -1

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Clock(selectors.SelectSelector):
    """Instead of waiting, sets the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError
        if timeout > 0:
            self.now += timeout
        return []
