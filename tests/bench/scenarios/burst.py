"""Many builds at once, where the registry is near: until all of their workspaces are started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.asking import ask
from tests.bench.loading import Task
from tests.bench.rows import Measured, Row
from tests.bench.stage import Stage

AWAY: Final = 0.005
BUILDS: Final = 500
CONNECTIONS: Final = 10
TO_REGISTRY: Final = 8
"""Connections that the service uses, as it is by default."""

BURST: Final = Row(
    name="burst",
    measure="500 distinct Builds at once, registry at 5 ms: until all workspaces are started",
    unit="s",
    target=1.5,
    rival=0.5,
    floor="bare HTTP client, 500 requests over 8 connections",
)
ROWS: Final = (BURST,)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*."""
    requests = [f"HEAD /v2/workspace-images/manifests/{number}" for number in range(BUILDS)]
    with stage.world() as world:
        world.do("wait", latency=AWAY)
        for row in rows:
            yield stage.measured(
                row,
                lambda: _burst(stage),
                floor=lambda: ask(world.registry, requests, connections=TO_REGISTRY),
            )


def _burst(stage: Stage) -> float:
    with stage.world() as world, stage.service(world) as service:
        world.do("wait", latency=AWAY)
        task = Task(
            target=service.target,
            method=calls.BUILD,
            requests=[calls.dockerfile_build(number) for number in range(BUILDS)],
            connections=CONNECTIONS,
        )
        with stage.load(task) as load:
            world.do("until_started", count=BUILDS)
            started = world.do("started")
            report = load.stop()
    took: float = started[-1]["at"] - report.begun
    return took
