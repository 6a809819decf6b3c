"""What readers of a log have to suffer from one that has opened it and never reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
    measure="delay of a reader while another never reads: p99, more than otherwise",
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
            values = []
            for _ in range(stage.rounds):
                alone = _delay(stage, world, service, next(builds), stalled=0)
                beside = _delay(stage, world, service, next(builds), stalled=1)
                values.append(beside - alone)
    for row in rows:
        yield Measured(row=row, values=tuple(values))


def _delay(stage: Stage, world: World, service: Service, build_id: str, *, stalled: int) -> float:
    """The 99th percentile, in milliseconds."""
    world.do("heard", workspace_id=build_id)
    with ExitStack() as loads:
        for _ in range(stalled):
            loads.enter_context(stage.load(_reading(service, build_id, stalled=True))).answered()
        load = loads.enter_context(stage.load(_reading(service, build_id)))
        load.answered()
        world.do("write_paced", workspace_id=build_id, rate=RATE, seconds=stage.seconds)
        return load.report().delays.p99 * 1000


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
