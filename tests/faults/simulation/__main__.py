"""Run one seed and print what happened: ``python -m tests.faults.simulation SEED``."""

from __future__ import annotations

import sys

from tests.faults.simulation.run import run

if __name__ == "__main__":
    result = run(int(sys.argv[1]))
    sys.stdout.write(f"{result.story()}\n")
    sys.exit(bool(result.broken))
