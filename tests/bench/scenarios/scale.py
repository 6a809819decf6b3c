"""Ten thousand builds that run when the service starts: until it has them, what they cost, what a list takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.loading import Task
from tests.bench.rows import Effort, Measured, Row
from tests.bench.stage import Service, Stage

BUILDS: Final = 10_000
LISTS: Final = 5
SETTLING: Final = 2.0
"""Seconds after the list in which the outputs begin to be followed."""

MIB: Final = 1 << 20

LISTED: Final = Row(
    name="scale-listed",
    measure="10,000 running builds at start: listed after",
    unit="s",
    target=5,
    rival=19,
    floor="the workspace manager's own answer",
)
MEMORY: Final = Row(
    name="scale-memory", measure="10,000 running builds: memory", unit="MiB", target=300, rival=766
)
LIST: Final = Row(
    name="scale-list",
    measure="10,000 running builds: ListBuilds",
    unit="s",
    target=0.4,
    rival=3.3,
    floor="bare grpclib server, the same bytes",
)
ROWS: Final = (LISTED, MEMORY, LIST)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    values: dict[Row, list[float]] = {row: [] for row in ROWS}
    floors: dict[Row, list[float]] = {row: [] for row in ROWS}
    efforts: dict[Row, list[Effort]] = {row: [] for row in ROWS}
    with stage.world() as world, stage.bare() as bare:
        world.do("run_builds", count=BUILDS)
        for _ in range(stage.few):
            with stage.service(world) as service:
                answer, took = _first_list(stage, service)
                values[LISTED].append(took)
                efforts[LISTED].append(service.effort())
                time.sleep(SETTLING)
                values[MEMORY].append(service.memory() / MIB)
                lists = Task(
                    target=service.target, method=calls.LIST, requests=[b""], copies=LISTS, sequential=True
                )
                values[LIST].append(_duration(stage, lists))
            if stage.floors:
                asking = Task(target=world.manager, method=calls.GET_WORKSPACES, requests=[b""])
                floors[LISTED].append(_duration(stage, asking))
                floors[LIST].append(_duration(stage, bare.sending(len(answer), len(answer), until="")))
    for row in rows:
        yield Measured(
            row=row, values=tuple(values[row]), floors=tuple(floors[row]), efforts=tuple(efforts[row])
        )


def _first_list(stage: Stage, service: Service) -> tuple[bytes, float]:
    """The first answer of ListBuilds that has all builds, and how long after the start it was there."""
    with stage.client(service) as client:
        while True:
            answer = client.list_builds()
            took = time.time() - service.begun
            if answer and calls.builds_in(answer) == BUILDS:
                return answer, took


def _duration(stage: Stage, task: Task) -> float:
    """Seconds that a call of *task* takes: the median, if there are several."""
    with stage.load(task) as load:
        return statistics.median(load.report().durations)
