"""What tests of all kinds need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def in_own_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """*context*, entered and left in one task of its own.

    pytest-asyncio sets a fixture up in one task and tears it down in another, which anyio's task groups and
    cancel scopes do not allow.
    """
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(hold(), name="fixture")  # noqa: TID251  # this is its owner
    try:
        yield await entered
    finally:
        leave.set()
        await task
