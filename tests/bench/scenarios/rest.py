"""The service at rest: until it serves, and what it needs when nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench.rows import Measured, Row
from tests.bench.stage import Bare, Service, Stage

SETTLING: Final = 1.0
MIB: Final = 1 << 20

MEMORY: Final = Row(
    name="rest-memory",
    measure="memory idle",
    unit="MiB",
    target=60,
    rival=23,
    floor="bare grpclib server",
)
START: Final = Row(
    name="rest-start",
    measure="start to serving",
    unit="s",
    target=0.6,
    rival=0.024,
    floor="bare grpclib server",
)
ROWS: Final = (MEMORY, START)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    services, bares = [], []
    with stage.world() as world:
        _rested(stage.service(world))  # the first fills caches
        for _ in range(stage.rounds):
            services.append(_rested(stage.service(world)))
            if stage.floors:
                bares.append(_rested(stage.bare()))
    for number, row in enumerate((MEMORY, START)):
        if row in rows:
            yield Measured(
                row=row,
                values=tuple(one[number] for one in services),
                floors=tuple(one[number] for one in bares),
            )


def _rested(child: Service | Bare) -> tuple[float, float]:
    """MiB and seconds."""
    with child:
        time.sleep(SETTLING)
        return child.memory() / MIB, child.starting
