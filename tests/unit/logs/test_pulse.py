"""When readers are woken: at once after a pause, together while output comes in a row."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from imgbuilder.orchestrator.logs.pulse import Pulse


class Told:
    """The times at which readers were told."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self) -> None:
        """Readers are told now."""
        self.at.append(round(asyncio.get_running_loop().time(), 3))


@pytest.mark.looptime(start=0)
async def test_the_first_after_a_pause_is_told_at_once_and_the_next_are_gathered() -> None:
    """Three in a row are told as the first, and the other two together."""
    told = Told()
    pulse = Pulse(told, gather=0.01)
    for _ in range(3):
        pulse.beat()
        await anyio.sleep(0.002)
    assert told.at == [0]
    await anyio.sleep(0.1)
    assert told.at == [0, 0.01]
    pulse.beat()
    assert told.at == [0, 0.01, 0.106]


@pytest.mark.looptime(start=0)
async def test_what_can_not_wait_is_told_at_once_and_only_once() -> None:
    """Telling at once takes what is gathered along."""
    told = Told()
    pulse = Pulse(told, gather=0.01)
    pulse.beat()
    pulse.beat()
    pulse.now()
    await anyio.sleep(0.1)
    assert told.at == [0, 0]


@pytest.mark.looptime(start=0)
async def test_a_stopped_pulse_tells_nothing() -> None:
    """Nothing is called later for what was gathered."""
    told = Told()
    pulse = Pulse(told, gather=0.01)
    pulse.beat()
    pulse.beat()
    pulse.stop()
    await anyio.sleep(0.1)
    assert told.at == [0]
