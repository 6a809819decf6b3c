"""What a client costs that waits: two thousand open streams of a build, and of its log, on which nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from tests.bench import calls
from tests.bench.bare import IDLE
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
from tests.bench.stage import Bare, Service, Stage

STREAMS: Final = 2_000
WARMING: Final = 100
CONNECTIONS: Final = 10
SETTLING: Final = 0.5
KIB: Final = 1 << 10

LOG: Final = Row(
    name="idle-log",
    measure="memory of an idle log stream (2,000 open)",
    unit="KiB",
    target=18,
    rival=16.5,
    floor="bare grpclib server",
)
BUILD: Final = Row(
    name="idle-build",
    measure="memory of an idle build stream (2,000 open)",
    unit="KiB",
    target=18,
    rival=16.5,
    floor="bare grpclib server",
)
ROWS: Final = (LOG, BUILD)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    for row, measure in {LOG: _logs, BUILD: _builds}.items():
        if row in rows:
            yield stage.measured(row, partial(measure, stage), floor=lambda: _bare(stage))


def _logs(stage: Stage) -> float:
    with stage.world() as world:
        (build_id,) = world.do("run_builds", count=1)
        with stage.service(world) as service:
            world.do("heard", workspace_id=build_id)
            return _each(stage, service, calls.LOGS, calls.log(build_id))


def _builds(stage: Stage) -> float:
    with stage.world() as world, stage.service(world) as service:
        return _each(stage, service, calls.BUILD, calls.dockerfile_build(1))


def _bare(stage: Stage) -> float:
    with stage.bare() as bare:
        return _each(stage, bare, IDLE, b"")


def _each(stage: Stage, child: Service | Bare, method: str, request: bytes) -> float:
    """KiB that a stream costs, in a process that has had some before."""
    _open(stage, child, method, request, WARMING)
    before = child.memory()
    return (_open(stage, child, method, request, STREAMS) - before) / KIB / STREAMS


def _open(stage: Stage, child: Service | Bare, method: str, request: bytes, count: int) -> int:
    """The memory of *child* while so many streams are open."""
    task = Task(target=child.target, method=method, requests=[request], copies=count, connections=CONNECTIONS)
    with stage.load(task) as load:
        load.answered()
        time.sleep(SETTLING)
        memory = child.memory()
        load.stop()
    return memory
