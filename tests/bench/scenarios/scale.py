"""Ten thousand builds that run when the service starts: until it has them, what they cost, what a list takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
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
    listed: list[float] = []
    memory: list[float] = []
    lists: list[float] = []
    size = 0
    with stage.world() as world:
        world.do("run_builds", count=BUILDS)
        for _ in range(stage.rounds):
            with stage.service(world) as service:
                answer, took = _first_list(stage, service)
                size = len(answer)
                listed.append(took)
                time.sleep(SETTLING)
                memory.append(service.memory() / MIB)
                lists += _list(stage, service)
        asking = stage.floor(lambda: _asking_floor(stage, world.manager))
    for row, values in {LISTED: listed, MEMORY: memory, LIST: lists}.items():
        if row in rows:
            floors = {LISTED: asking, LIST: stage.floor(lambda: _list_floor(stage, size))}.get(row, ())
            yield Measured(row=row, values=tuple(values), floors=floors)


def _first_list(stage: Stage, service: Service) -> tuple[bytes, float]:
    """The first answer of ListBuilds that has all builds, and how long after the start it was there."""
    with stage.client(service) as client:
        while True:
            answer = client.list_builds()
            took = time.time() - service.begun
            if answer and calls.builds_in(answer) == BUILDS:
                return answer, took


def _list(stage: Stage, service: Service) -> list[float]:
    task = Task(target=service.target, method=calls.LIST, requests=[b""], copies=LISTS, sequential=True)
    with stage.load(task) as load:
        return load.report().durations


def _asking_floor(stage: Stage, target: str) -> float:
    task = Task(target=target, method=calls.GET_WORKSPACES, requests=[b""])
    with stage.load(task) as load:
        return load.report().durations[0]


def _list_floor(stage: Stage, size: int) -> float:
    with stage.bare() as bare, stage.load(bare.sending(size, size, until="")) as load:
        return load.report().durations[0]
