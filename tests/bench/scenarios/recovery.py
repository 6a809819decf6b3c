"""The workspace manager goes away, builds end meanwhile, and it comes back: until all of their clients know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.asking import ask
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
from tests.bench.stage import Stage

BUILDS: Final = 1_000
ENDING: Final = 500
CONNECTIONS: Final = 10
TO_REGISTRY: Final = 8
AWAY: Final = 1.0
RUNNING: Final = 13.0
"""Seconds that the builds have run before: that one is gone which changed 10 s ago the service does not believe."""

SETTLING: Final = 2.5
"""Seconds from the service's start to the builds: if they began before its second listing, there would be a third one
ten seconds later, after which the service does not believe for ten more that one is gone."""

TOLD: Final = Row(
    name="recovery",
    measure="500 of 1,000 builds end while the workspace manager is away: clients told after its return",
    unit="s",
    target=3,
    floor="bare HTTP client, 500 requests over 8 connections",
)
ROWS: Final = (TOLD,)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    requests = [f"HEAD /v2/workspace-images/manifests/{number}" for number in range(ENDING)]
    with stage.world() as world:
        for row in rows:
            yield stage.measured(
                row,
                lambda: _recovery(stage),
                floor=lambda: ask(world.registry, requests, connections=TO_REGISTRY),
                slow=True,
            )


def _recovery(stage: Stage) -> float:
    with stage.world() as world, stage.service(world) as service:
        time.sleep(SETTLING)
        task = Task(
            target=service.target,
            method=calls.BUILD,
            requests=[calls.dockerfile_build(number) for number in range(BUILDS)],
            connections=CONNECTIONS,
            wanted=ENDING,
        )
        with stage.load(task) as load:
            load.answered()
            world.do("until_started", count=BUILDS)
            time.sleep(RUNNING)
            world.do("leave")
            world.do("end", count=ENDING)
            time.sleep(AWAY)
            back: float = world.do("come_back")
            return load.report().end - back
