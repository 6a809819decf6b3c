"""How many requests a registry that gives tokens is asked: of a service that is new, and of one that is warm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import calls
from tests.bench.calls import Client
from tests.bench.rows import Measured, Row
from tests.bench.stage import Stage, World

TOKENS: Final = {"authentication": "token"}


def _row(name: str, measure: str, *, target: int, rival: int) -> Row:
    return Row(name=f"round-trips-{name}", measure=measure, unit="requests", target=target, rival=rival)


COLD: Final = _row("cold", "resolve a tag, token registry: cold", target=3, rival=4)
OTHER: Final = _row("other", "resolve a tag: warm, other repository", target=2, rival=4)
SAME: Final = _row("same", "resolve a tag: warm, same repository", target=1, rival=4)
BUILD_COLD: Final = _row("build-cold", "Build of a tag: before StartWorkspace, cold", target=5, rival=7)
BUILD_WARM: Final = _row("build-warm", "Build of a tag: before StartWorkspace, warm", target=2, rival=7)
BUILD_ALL: Final = _row("build-all", "Build of a tag: in all, warm", target=3, rival=11)
DIGEST: Final = _row(
    "digest", "Build of a digest seen before, warm: before StartWorkspace", target=1, rival=7
)

ROWS: Final = (COLD, OTHER, SAME, BUILD_COLD, BUILD_WARM, BUILD_ALL, DIGEST)


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*, all together: counts have no noise."""
    counts: dict[Row, float] = {}
    with stage.world(**TOKENS) as world:
        world.do("let_builds_end")
        with stage.service(world) as service, stage.client(service) as client:
            for row, (repository, tag) in {COLD: ("a", "1"), OTHER: ("b", "1"), SAME: ("a", "2")}.items():
                client.resolve(_seeded(world, repository, tag))
                counts[row] = len(world.do("requests"))
        with stage.service(world) as service, stage.client(service) as client:
            counts[BUILD_COLD], _ = _build(world, client, _seeded(world, "base", "1"))
            counts[BUILD_WARM], counts[BUILD_ALL] = _build(world, client, _seeded(world, "base", "2"))
            digest = client.resolve(_seeded(world, "base", "3"))
            counts[DIGEST], _ = _build(world, client, digest)
    for row in rows:
        yield Measured(row=row, values=(counts[row],))


def _seeded(world: World, repository: str, tag: str) -> str:
    ref: str = world.do("seed", repository=repository, tag=tag)
    return ref


def _build(world: World, client: Client, ref: str) -> tuple[int, int]:
    """What a build asks before its start, and in all."""
    world.do("requests")
    client.build(calls.reference_build(ref))
    return world.do("started")[-1]["requests"], len(world.do("requests"))
