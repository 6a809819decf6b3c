"""A log that was written long ago, and lies on disk: how fast somebody who comes now has all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.lines import END
from tests.bench.loading import Task
from tests.bench.rows import Better, Measured, Row
from tests.bench.stage import Service, Stage

MIB: Final = 1 << 20
LINE: Final = 4096
LINES: Final = 10_000
PAUSE: Final = 0.004
"""Seconds between two writes of 64 KiB: what comes faster than the disk takes it, the service would leave out."""

READ: Final = 64 * 1024

LATE: Final = Row(
    name="late-reader",
    measure="1 reader who comes late, 39 MiB from disk",
    unit="MiB/s",
    target=200,
    better=Better.HIGHER,
    floor="reader of the file",
)
ROWS: Final = (LATE,)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    with stage.world() as world:
        (build_id,) = world.do("run_builds", count=1)
        with stage.service(world) as service:
            world.do("heard", workspace_id=build_id)
            with stage.load(_reading(service, build_id)) as load:
                world.do("write", workspace_id=build_id, count=LINES, size=LINE, pause=PAUSE)
                load.report()
            for row in rows:
                yield stage.measured(
                    row,
                    lambda: _read(stage, service, build_id),
                    floor=lambda: _file_floor(stage),
                    service=service,
                )


def _reading(service: Service, build_id: str) -> Task:
    return Task(
        target=service.target,
        method=calls.LOGS,
        requests=[calls.log(build_id)],
        content=calls.CONTENT,
        until=END,
    )


def _read(stage: Stage, service: Service, build_id: str) -> float:
    with stage.load(_reading(service, build_id)) as load:
        report = load.report()
    return report.sizes[0] / MIB / report.durations[0]


def _file_floor(stage: Stage) -> float:
    path = stage.folder / "log"
    path.write_bytes(os.urandom(LINE) * LINES)
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(READ):
            pass
    return LINES * LINE / MIB / (time.perf_counter() - begun)
