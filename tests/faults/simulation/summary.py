"""What many runs had in all: how much went on, what went wrong, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.simulation.run import Result


@dataclass(slots=True)
class Summary:
    """Figures over runs.

    :ivar faults: how many messages met a fault of each kind.
    :ivar downtimes: how often each part of the world was away for a while.
    :ivar races: what nobody could have known.
    :ivar broken: the seeds in which a promise was broken.
    """

    runs: int = 0
    clients: int = 0
    builds: int = 0
    hours: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    downtimes: Counter[str] = field(default_factory=Counter)
    races: Counter[str] = field(default_factory=Counter)
    broken: list[int] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Add a run."""
        drawn = result.scenario
        self.runs += 1
        self.clients += len(drawn.calls)
        self.builds += result.builds
        self.hours += result.lasted / 3600
        self.faults.update(result.faults)
        self.races.update(result.races)
        for name in ("manager_away", "replica_away", "partitions", "registry_away"):
            self.downtimes[name] += len(getattr(drawn, name))
        if result.broken:
            self.broken.append(drawn.seed)

    def __str__(self) -> str:
        lines = [
            f"{self.runs:,} runs, {self.clients:,} clients, {self.builds:,} builds, {self.hours:,.0f} hours",
            f"{self.faults.total():,} messages met a fault:",
            *_counted(self.faults),
            f"{self.downtimes.total():,} downtimes:",
            *_counted(self.downtimes),
            "what nobody could have known:",
            *_counted(self.races),
            f"promises broken in: {self.broken or 'none'}",
        ]
        return "\n".join(lines)


def _counted(counter: Counter[str]) -> list[str]:
    return [f"  {count:9,} {name}" for name, count in sorted(counter.items())]
