"""``python -m tests.bench``, or ``make bench``: measure the service."""

from __future__ import annotations

import argparse
import sys

from tests.bench import running, table, turns
from tests.bench.children import ChildError
from tests.bench.comparing import LEAST_PAIRS
from tests.bench.stage import be_preferred
from tests.bench.words import say


def main() -> int:
    """Measure what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only rows with NAME in their name; repeatable",
    )
    parser.add_argument("--list", action="store_true", help="list the rows, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="each measurement once, and shorter")
    parser.add_argument("--base", metavar="COMMIT", help="compare with this commit, in turns")
    parser.add_argument(
        "--rounds", type=int, help=f"how often; with --base, how many pairs (at least {LEAST_PAIRS})"
    )
    options = parser.parse_args()
    rows = running.chosen(options.only)
    if not rows:
        parser.error(f"no row is named like {', '.join(options.only)}; see --list")
    if options.base and options.rounds and options.rounds < LEAST_PAIRS:
        parser.error(f"with fewer than {LEAST_PAIRS} pairs nothing can be said")
    if options.list:
        say(table.rows_table(rows))
        return 0
    be_preferred()
    try:
        if options.base:
            turns.compare(rows, options.base, pairs=options.rounds or LEAST_PAIRS)
            return 0
        done = running.run(rows, quick=options.quick, rounds=options.rounds)
    except ChildError as error:
        say(f"The benchmark failed: {error}")
        return 1
    return 0 if len(done.results) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
