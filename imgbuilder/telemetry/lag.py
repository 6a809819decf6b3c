"""Samples how late the event loop is: work that blocks it shows here first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

INTERVAL: Final = 1.0


async def sample_loop_lag(lagged: Callable[[float], None], *, interval: float = INTERVAL) -> None:
    """Every *interval* seconds, tell *lagged* how many seconds late the loop was. Runs until cancelled."""
    while True:
        due = anyio.current_time() + interval
        await anyio.sleep_until(due)
        lagged(anyio.current_time() - due)
