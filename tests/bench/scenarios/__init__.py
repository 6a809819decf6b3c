"""What is measured, a module for each kind: its `ROWS`, and `measure`, which yields what came out for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from tests.bench.rows import Measured, Row
from tests.bench.scenarios import (
    burst,
    fan_out,
    idle_streams,
    isolation,
    late_reader,
    latency,
    recovery,
    rest,
    round_trips,
    scale,
    status,
)
from tests.bench.stage import Stage


class Scenario(Protocol):
    """What each module here is."""

    @property
    def ROWS(self) -> Sequence[Row]:  # noqa: N802  # a constant of the module
        """The rows that it measures."""
        ...

    def measure(self, stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
        """Measure *rows*, which are some of its own."""
        ...


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "round-trips": round_trips,
    "latency": latency,
    "status": status,
    "fan-out": fan_out,
    "late-reader": late_reader,
    "isolation": isolation,
    "burst": burst,
    "recovery": recovery,
    "scale": scale,
    "rest": rest,
    "idle-streams": idle_streams,
}
