"""How late the event loop is."""

from __future__ import annotations

import anyio
import pytest

from imgbuilder.telemetry.lag import sample_loop_lag


@pytest.mark.looptime
async def test_a_loop_that_is_on_time_has_no_lag() -> None:
    """One sample each second."""
    lags: list[float] = []
    with anyio.move_on_after(10.5):
        await sample_loop_lag(lags.append)
    assert lags == pytest.approx([0] * 10, abs=1e-3)


async def test_work_that_blocks_the_loop_shows() -> None:
    """The sample after it is late by as much as the work took beyond the sample's time."""
    lags: list[float] = []
    loop_is_blocked_until = anyio.current_time() + 0.05
    async with anyio.create_task_group() as group:

        def lagged(seconds: float) -> None:
            lags.append(seconds)
            group.cancel_scope.cancel()

        async def sample() -> None:
            await sample_loop_lag(lagged, interval=0.001)

        group.start_soon(sample)
        await anyio.lowlevel.checkpoint()
        while anyio.current_time() < loop_is_blocked_until:
            pass
    assert lags[0] >= 0.03
