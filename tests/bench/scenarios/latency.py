"""From the call of Build to StartWorkspace, where the registry is as far away as registries are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.asking import ask
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
from tests.bench.stage import Stage

AWAY: Final = 0.030
BUILDS: Final = 5
"""In each round; one more comes before them, for the service to be warm."""

START: Final = Row(
    name="latency",
    measure="Build call to StartWorkspace, registry at 30 ms, warm",
    unit="ms",
    target=75,
    rival=222,
    floor="bare HTTP client, 2 requests",
)
ROWS: Final = (START,)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    count = BUILDS * stage.rounds + 1
    with stage.world() as world:
        refs = [world.do("seed", repository="base", tag=str(number)) for number in range(count)]
        world.do("let_builds_end")
        world.do("wait", latency=AWAY)
        with stage.service(world) as service:
            task = Task(
                target=service.target,
                method=calls.BUILD,
                requests=[calls.reference_build(ref) for ref in refs],
                sequential=True,
            )
            with stage.load(task) as load:
                report = load.report()
        started = [one["at"] for one in world.do("started")]
        asked = [report.begun + sent for sent in report.sent]
        values = [(start - call) * 1000 for call, start in zip(asked, started, strict=True)]
        requests = ["GET /v2/base/manifests/0", "HEAD /v2/workspace-images/manifests/0"]
        floors = [ask(world.registry, requests) * 1000 for _ in range(stage.rounds if stage.floors else 0)]
    for row in rows:
        yield Measured(row=row, values=tuple(values[1:]), floors=tuple(floors))
