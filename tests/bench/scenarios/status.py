"""A change of a build to its client: a thousand builds, each with a client, and a thousand changes a second."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench import calls
from tests.bench.loading import Task
from tests.bench.rows import Effort, Measured, Row
from tests.bench.stage import Stage

BUILDS: Final = 1_000
RATE: Final = 1_000
CONNECTIONS: Final = 10
ON_THE_WAY: Final = 0.5
"""Seconds after the last change until which it is waited for."""

MOST: Final = 0.9
"""Of the changes that clients must be told of: one who is told late is told of the last only."""

_ONE_CLIENT: Final = "one client of the workspace manager itself"
P50: Final = Row(
    name="status-p50",
    measure="status change to client, 1,000 open builds, 1,000 changes/s: p50",
    unit="ms",
    target=1.5,
    rival=0.3,
    floor=_ONE_CLIENT,
)
P99: Final = Row(
    name="status-p99",
    measure="status change to client: p99",
    unit="ms",
    target=8,
    rival=0.6,
    floor=_ONE_CLIENT,
)
CPU: Final = Row(name="status-cpu", measure="status change to client: CPU", unit="% of a core", target=60)
ROWS: Final = (P50, P99, CPU)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """In the units of the rows."""

    p50: float
    p99: float
    cpu: float
    effort: Effort
    floor_p50: float
    floor_p99: float


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    measured = [_round(stage) for _ in range(stage.few)]
    values = {
        P50: ([one.p50 for one in measured], [one.floor_p50 for one in measured]),
        P99: ([one.p99 for one in measured], [one.floor_p99 for one in measured]),
        CPU: ([one.cpu for one in measured], []),
    }
    efforts = tuple(one.effort for one in measured)
    for row in rows:
        value, floor = values[row]
        floors = tuple(floor) if stage.floors else ()
        yield Measured(row=row, values=tuple(value), floors=floors, efforts=efforts)


def _round(stage: Stage) -> _Round:
    requests = [calls.dockerfile_build(number) for number in range(BUILDS)]
    with (
        stage.world() as world,
        stage.service(world) as service,
        stage.load(_reading(service.target, calls.BUILD, requests, calls.MESSAGE)) as clients,
        stage.load(
            _reading(world.manager, calls.SUBSCRIBE, [calls.subscription()], calls.STATUS_MESSAGE)
        ) as floor,
    ):
        clients.answered()
        time.sleep(ON_THE_WAY)
        before = service.effort()
        changes = world.do("change", rate=RATE, seconds=stage.seconds)
        effort = service.effort() - before
        time.sleep(ON_THE_WAY)
        told, heard = clients.stop().delays, floor.stop().delays
    assert told.count >= MOST * changes, f"{changes} changes, and clients were told of {told.count}"
    return _Round(
        p50=told.p50 * 1000,
        p99=told.p99 * 1000,
        cpu=effort.cpu / stage.seconds * 100,
        effort=effort,
        floor_p50=heard.p50 * 1000,
        floor_p99=heard.p99 * 1000,
    )


def _reading(target: str, method: str, requests: Sequence[bytes], content: Sequence[int]) -> Task:
    return Task(
        target=target,
        method=method,
        requests=requests,
        connections=min(CONNECTIONS, len(requests)),
        content=content,
        stamped=True,
    )
