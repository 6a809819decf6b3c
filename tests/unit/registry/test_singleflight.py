"""Equal work is done once, and belongs to all who wait for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from imgbuilder.registry.singleflight import CutOffError, SingleFlight
from imgbuilder.runtime.tasks import Tasks
from tests.helpers import in_own_task


class Work:
    """Waits until it is let go on, and counts."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go_on = anyio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        """How often it was begun, or the error."""
        self.begun += 1
        number = self.begun
        try:
            await self.go_on.wait()
        except BaseException:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
async def flights() -> AsyncIterator[SingleFlight[str, int]]:
    """What is tested."""
    async with in_own_task(Tasks()) as tasks:
        yield SingleFlight(tasks, name="work")


async def test_everybody_gets_the_result(flights: SingleFlight[str, int]) -> None:
    """Of one run; another key is other work, and later work starts anew."""
    work, results = Work(), []

    async def ask(key: str) -> None:
        results.append(await flights.run(key, work))

    async with anyio.create_task_group() as group:
        for key in ("a", "a", "b"):
            group.start_soon(ask, key)
        await anyio.wait_all_tasks_blocked()
        assert flights.under_way == 2
        work.go_on.set()
    assert sorted(results) == [1, 1, 2]
    assert await flights.run("a", work) == 3
    assert flights.under_way == 0


async def test_everybody_gets_the_error(flights: SingleFlight[str, int]) -> None:
    """Each with a traceback that does not grow with their number."""
    work, depths = Work(), []
    work.error = ValueError("no")

    async def ask() -> None:
        try:
            await flights.run("a", work)
        except ValueError as error:
            traceback, depth = error.__traceback__, 0
            while traceback is not None:
                traceback, depth = traceback.tb_next, depth + 1
            depths.append(depth)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        work.go_on.set()
    assert len(depths) == 10
    assert len(set(depths)) == 1
    assert work.begun == 1


async def test_who_leaves_does_not_matter_to_the_others(flights: SingleFlight[str, int]) -> None:
    """Not even the one who came first."""
    work, results = Work(), []

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            results.append(await flights.run("a", work))

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(ask, scope)
        await anyio.wait_all_tasks_blocked()
        scopes[0].cancel()
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        work.go_on.set()
    assert results == [1]
    assert work.cancelled == 0


async def test_work_that_nobody_waits_for_is_cancelled(flights: SingleFlight[str, int]) -> None:
    """And whoever comes then gets work of their own."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(flights.run, "a", work)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    work.go_on.set()
    assert await flights.run("a", work) == 2
    assert work.cancelled == 1


async def test_work_ends_with_its_owner() -> None:
    """Those who wait are told, and do not hang."""
    work, caught = Work(), []

    async def ask(flights: SingleFlight[str, int]) -> None:
        try:
            await flights.run("a", work)
        except CutOffError as error:
            caught.append(error)

    async with anyio.create_task_group() as group, Tasks() as tasks:
        flights: SingleFlight[str, int] = SingleFlight(tasks, name="work")
        group.start_soon(ask, flights)
        await anyio.wait_all_tasks_blocked()
    assert len(caught) == 1
    assert flights.under_way == 0
