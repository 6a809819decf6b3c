"""The service at rest: until it serves, and what it needs when nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench.rows import Effort, Measured, Row
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
    values: dict[Row, list[float]] = {row: [] for row in ROWS}
    floors: dict[Row, list[float]] = {row: [] for row in ROWS}
    efforts: dict[Row, list[Effort]] = {row: [] for row in ROWS}
    with stage.world() as world:
        with stage.service(world):
            pass  # the first fills caches
        for _ in range(stage.rounds):
            with stage.service(world) as service:
                efforts[START].append(service.start_effort)
                _take_down(service, values)
            if stage.floors:
                with stage.bare() as bare:
                    _take_down(bare, floors)
    for row in rows:
        yield Measured(
            row=row, values=tuple(values[row]), floors=tuple(floors[row]), efforts=tuple(efforts[row])
        )


def _take_down(child: Service | Bare, values: dict[Row, list[float]]) -> None:
    time.sleep(SETTLING)
    values[MEMORY].append(child.memory() / MIB)
    values[START].append(child.starting)
