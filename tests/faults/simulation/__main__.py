"""Run one seed and print what happened, or many and print what they had in all.

``python -m tests.faults.simulation SEED`` or ``FIRST-END``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.faults.simulation.run import run
from tests.faults.simulation.summary import Summary


def main(seeds: str) -> bool:
    """Run *seeds*; whether all promises were kept."""
    first, many, end = seeds.partition("-")
    if not many:
        result = run(int(first))
        sys.stdout.write(f"{result.story()}\n")
        return not result.broken
    summary = summed_up(range(int(first), int(end)))
    sys.stdout.write(f"{summary}\n")
    return not summary.broken


def summed_up(seeds: Iterable[int]) -> Summary:
    """What *seeds* have in all."""
    summary = Summary()
    for seed in seeds:
        summary.add(run(seed))
    return summary


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
