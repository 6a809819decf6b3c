"""Who owns the tasks that outlive a call: beside the gRPC transport, the one place where tasks are started.

A task of the service must neither be lost nor take the others with it. `Tasks` is a task group whose
children are isolated from one another: one that fails unexpectedly is logged, with its traceback, and the
others go on. Leaving the block cancels what still runs and waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVarTuple

import anyio
import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger(__name__)
Arguments = TypeVarTuple("Arguments")


class Tasks:
    """Owns tasks from the moment they are spawned until they have ended.

    Use as an async context manager, once. What a spawned task must not do: raise to say something; nobody
    but the log hears it.
    """

    def __init__(self) -> None:
        self._group: TaskGroup = anyio.create_task_group()
        self._running = 0

    @property
    def running(self) -> int:
        """How many tasks have not ended."""
        return self._running

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        try:
            return await self._group.__aexit__(kind, error, traceback)
        except BaseException as raised:
            # A task group raises what it is left with, instead of letting it pass. Inside of an AsyncExitStack
            # that can make an exception its own context, which an outer stack then follows for ever.
            if raised is error:
                return False
            raise

    def spawn(
        self,
        function: Callable[[*Arguments], Awaitable[object]],
        *arguments: *Arguments,
        name: str,
    ) -> None:
        """Run ``function(*arguments)`` in a task of its own.

        :param name: says in the log and in a debugger what the task is for.
        """
        self._running += 1
        self._group.start_soon(self._isolated, function, arguments, name, name=name)

    async def _isolated(
        self,
        function: Callable[..., Awaitable[object]],
        arguments: tuple[object, ...],
        name: str,
    ) -> None:
        try:
            await function(*arguments)
        except Exception:
            log.exception("a task failed", task=name)
        finally:
            self._running -= 1
