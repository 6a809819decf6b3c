"""A build's output to its readers: how much of it reaches all of them a second, and how late."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench import calls
from tests.bench.bare import PACE
from tests.bench.lines import END
from tests.bench.listening import listening
from tests.bench.loading import Task
from tests.bench.rows import Better, Measured, Row
from tests.bench.stage import Service, Stage, World

MIB: Final = 1 << 20
MESSAGE: Final = 64 * 1024
CONNECTIONS: Final = 10

RATE: Final = 10_000
PACED_READERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Output that comes as fast as it is taken."""

    row: Row
    readers: int
    lines: int
    size: int = 100

    @property
    def total(self) -> int:
        """Bytes that each reader gets."""
        return self.lines * self.size

    @property
    def connections(self) -> int:
        """Over how many connections the readers are spread."""
        return min(self.readers, CONNECTIONS)


def _throughput(name: str, measure: str, *, target: float, rival: float, floor: str = "") -> Row:
    return Row(
        name=f"fan-out-{name}",
        measure=measure,
        unit="MiB/s",
        target=target,
        better=Better.HIGHER,
        rival=rival,
        floor=floor or "bare grpclib server, 64 KiB messages",
    )


ONE: Final = Burst(
    row=_throughput(
        "1",
        "1 reader, 50,000 lines of 100 B",
        target=14,
        rival=14,
        floor="bare HTTP client that decodes JSON",
    ),
    readers=1,
    lines=50_000,
)
BURSTS: Final = (
    ONE,
    Burst(
        row=_throughput("50", "50 readers, 10,000 lines of 100 B, to all", target=120, rival=18),
        readers=50,
        lines=10_000,
    ),
    Burst(
        row=_throughput("200", "200 readers, 5,000 lines of 100 B, to all", target=200, rival=36),
        readers=200,
        lines=5_000,
    ),
    Burst(
        row=_throughput("50-chunks", "50 readers, 1,000 chunks of 4 KiB, to all", target=400, rival=354),
        readers=50,
        lines=1_000,
        size=4096,
    ),
)
PACED: Final = Row(
    name="fan-out-paced",
    measure="line to reader, 10,000 lines/s, 100 readers: p99",
    unit="ms",
    target=30,
    rival=960,
    floor="bare grpclib server, every 5 ms",
)
ROWS: Final = (*(burst.row for burst in BURSTS), PACED)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    bursts = [burst for burst in BURSTS if burst.row in rows]
    with stage.world() as world:
        builds = iter(world.do("run_builds", count=len(rows) * stage.rounds))
        with stage.service(world) as service:
            for burst in bursts:
                yield stage.measured(
                    burst.row,
                    partial(_burst, stage, world, service, builds, burst),
                    floor=partial(_burst_floor, stage, world, burst),
                    service=service,
                )
            if PACED in rows:
                yield stage.measured(
                    PACED,
                    partial(_paced, stage, world, service, builds),
                    floor=partial(_paced_floor, stage),
                    service=service,
                )


def _burst(stage: Stage, world: World, service: Service, builds: Iterator[str], burst: Burst) -> float:
    build_id = next(builds)
    world.do("heard", workspace_id=build_id)
    task = Task(
        target=service.target,
        method=calls.LOGS,
        requests=[calls.log(build_id)],
        copies=burst.readers,
        connections=burst.connections,
        content=calls.CONTENT,
        until=END,
    )
    with stage.load(task) as load:
        load.answered()
        begun: float = world.do("write", workspace_id=build_id, count=burst.lines, size=burst.size)
        report = load.report()
    assert min(report.sizes) == max(report.sizes) >= burst.total, "output was lost"
    return burst.readers * burst.total / MIB / (report.end - begun)


def _burst_floor(stage: Stage, world: World, burst: Burst) -> float:
    if burst is ONE:
        return _listening_floor(world, burst)
    with stage.bare() as bare:
        task = bare.sending(
            MESSAGE, burst.total, until=END, copies=burst.readers, connections=burst.connections
        )
        with stage.load(task) as load:
            report = load.report()
    return sum(report.sizes) / MIB / max(report.ended)


def _listening_floor(world: World, burst: Burst) -> float:
    terminal = world.do("terminal")
    workspace_id = terminal.pop("workspace_id")
    with listening(**terminal) as pieces:
        world.begin("write", workspace_id=workspace_id, count=burst.lines, size=burst.size)
        received = 0
        for piece in pieces:
            received += len(piece)
            if piece.endswith(END.encode()):
                break
        end = time.time()
    begun: float = world.done()
    assert received == burst.total
    return burst.total / MIB / (end - begun)


def _paced(stage: Stage, world: World, service: Service, builds: Iterator[str]) -> float:
    build_id = next(builds)
    world.do("heard", workspace_id=build_id)
    with stage.load(_paced_task(service.target, calls.LOGS, calls.log(build_id))) as load:
        load.answered()
        written = world.do("write_paced", ids=[build_id], rate=RATE, seconds=stage.seconds)
        report = load.report()
    assert report.delays.count == written * PACED_READERS, "lines were lost"
    return report.delays.p99 * 1000


def _paced_floor(stage: Stage) -> float:
    with stage.bare() as bare:
        request = json.dumps({"rate": RATE, "seconds": stage.seconds}).encode()
        with stage.load(_paced_task(bare.target, PACE, request)) as load:
            return load.report().delays.p99 * 1000


def _paced_task(target: str, method: str, request: bytes) -> Task:
    return Task(
        target=target,
        method=method,
        requests=[request],
        copies=PACED_READERS,
        connections=CONNECTIONS,
        content=calls.CONTENT,
        stamped=True,
        until=END,
    )
