"""What readers of a log have to suffer from one that has opened it and never reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.lines import END
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
from tests.bench.stage import Service, Stage, World

READERS: Final = 9
RATE: Final = 2_000
"""Lines of 100 B a second: what the one that never reads may have on the way is full after a third of a second."""

MORE: Final = Row(
    name="isolation",
    measure="delay of a reader while another never reads: p99, more than in another build",
    unit="ms",
    target=5,
    rival=5_000,
)
ROWS: Final = (MORE,)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    with stage.world() as world:
        builds = iter(world.do("run_builds", count=2 * stage.rounds))
        with stage.service(world) as service:
            for row in rows:
                yield stage.measured(
                    row, lambda: _more(stage, world, service, next(builds), next(builds)), service=service
                )


def _more(stage: Stage, world: World, service: Service, disturbed: str, other: str) -> float:
    """By how many milliseconds output of *disturbed* is later, where the two are written and read at the same time."""
    for build_id in (disturbed, other):
        world.do("heard", workspace_id=build_id)
    with (
        stage.load(_reading(service, disturbed, stalled=True)) as stalled,
        stage.load(_reading(service, disturbed)) as beside,
        stage.load(_reading(service, other)) as alone,
    ):
        for load in (stalled, beside, alone):
            load.answered()
        world.do("write_paced", ids=[disturbed, other], rate=RATE, seconds=stage.seconds)
        return (beside.report().delays.p99 - alone.report().delays.p99) * 1000


def _reading(service: Service, build_id: str, *, stalled: bool = False) -> Task:
    readers = 1 if stalled else READERS
    return Task(
        target=service.target,
        method=calls.LOGS,
        requests=[calls.log(build_id)],
        copies=readers,
        connections=readers,
        content=calls.CONTENT,
        stamped=True,
        until=END,
        stalled=stalled,
    )
