"""Results as text: a table that is readable in a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.bench.generator import Speed
from tests.bench.rows import Better, Measured, Row

HEADINGS: Final = ("measure", "value", "range", "floor", "ratio", "CPU", "waited", "target", "met", "rival")


def table(results: Sequence[Measured]) -> str:
    """A line for each of *results*."""
    return aligned([HEADINGS, *map(_cells, results)])


def rows_table(rows: Sequence[Row]) -> str:
    """What there is to measure."""
    cells = [("name", "measure", "target", "floor")]
    cells += [(row.name, row.measure, target(row), row.floor) for row in rows]
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table of *cells*, the first row being the headings; columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(line.rstrip() for line in lines)


def number(value: float | None) -> str:
    """*value* with three digits that matter; empty for None."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float | None) -> str:
    """*value* with its unit; empty for None."""
    return "" if value is None else f"{number(value)} s"


def target(row: Row) -> str:
    """What is promised, with the unit."""
    return f"{'≥' if row.better is Better.HIGHER else '≤'} {number(row.target)} {row.unit}"


def result_line(result: Measured) -> str:
    """One of *results* while others are still to come."""
    return f"{result.row.name}: {number(result.value)} {result.row.unit}"


def generator_line(kind: str, large: Speed, small: Speed) -> str:
    """How fast the load generator is, in words."""
    mib = large.size * large.messages / (1 << 20)
    return (
        f"Load generator ({kind}) against the bare server: {mib / large.seconds:,.0f} MiB/s in messages of 64 KiB "
        f"for {large.reader_cpu / large.server_cpu:.0%} of the server's CPU time; alone it could read "
        f"{large.limit:,.0f} MiB/s. {small.messages / small.seconds:,.0f} messages of 100 B a second for "
        f"{small.reader_cpu / small.server_cpu:.0%} of the server's."
    )


def _cells(result: Measured) -> tuple[str, ...]:
    row = result.row
    spread = f"{number(min(result.values))}..{number(max(result.values))}" if len(result.values) > 1 else ""
    return (
        row.measure,
        f"{number(result.value)} {row.unit}",
        spread,
        number(result.floor),
        f"{result.ratio:.2f}" if result.ratio is not None else "",
        seconds(result.cpu),
        seconds(result.waited),
        target(row),
        "yes" if result.met else "NO",
        number(row.rival) or "?",
    )
