"""What ends a call of grpclib's client that waits, without leaving a trace in its task."""

from __future__ import annotations

import asyncio
from types import TracebackType

from grpclib.utils import Wrapper


class Interruption(Wrapper):
    """How grpclib ends a call that waits (the connection breaks, the stream is reset), without a trace.

    grpclib cancels the waiting task, and puts the reason in the place of the `CancelledError`. The task would
    go on counting as cancelled, which makes cancel scopes around the call take their own later cancellation
    for somebody else's. So the cancellation is taken back here. One that came from elsewhere at the same time
    is not lost: it goes on instead of the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cancellations = 0
        self._counted_before = 0

    def __enter__(self) -> None:
        super().__enter__()
        self._counted_before = _task().cancelling()

    def cancel(self, error: Exception) -> None:
        """End the call with *error*."""
        self._cancellations += len(self._tasks)
        super().cancel(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task = _task()
        while self._cancellations:
            task.uncancel()
            self._cancellations -= 1
        cancelled_elsewhere = task.cancelling() > self._counted_before
        if cancelled_elsewhere and isinstance(error, asyncio.CancelledError):
            self._tasks.discard(task)
            return
        super().__exit__(kind, error, traceback)


def _task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call needs a task")
    return task
