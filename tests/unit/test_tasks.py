"""Tasks and who owns them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest

from imgbuilder.runtime.tasks import Tasks

pytestmark = pytest.mark.looptime


async def test_stacks_in_stacks_can_be_cancelled() -> None:
    """What has to wait when it is cancelled, in a stack with tasks, in another stack: leaving comes to an end.

    A plain task group in the place of `Tasks` makes an exception its own context, and Python loops for ever.
    """
    async with AsyncExitStack() as outer:
        with anyio.move_on_after(1):
            async with AsyncExitStack() as middle:
                inner = await middle.enter_async_context(AsyncExitStack())
                await inner.enter_async_context(Tasks())
                inner.push_async_callback(anyio.sleep, 0)
                await anyio.sleep_forever()
        await outer.enter_async_context(Tasks())


async def test_leaving_ends_what_runs_and_passes_errors_on() -> None:
    """An error of the block comes out of it as it is."""
    ended = []

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("run")

    async def fail() -> None:
        async with Tasks() as tasks:
            tasks.spawn(run, name="run")
            await anyio.sleep(1)
            raise LookupError

    with pytest.raises((LookupError, ExceptionGroup)):
        await fail()
    assert ended == ["run"]


async def test_a_task_that_fails_takes_nobody_with_it() -> None:
    """It is in the log, and the others go on."""
    done = anyio.Event()

    async def fail() -> None:
        raise LookupError

    async def go_on() -> None:
        await anyio.sleep(1)
        done.set()

    async with Tasks() as tasks:
        tasks.spawn(fail, name="fail")
        tasks.spawn(go_on, name="go on")
        await done.wait()
        await anyio.lowlevel.checkpoint()
        assert tasks.running == 0
