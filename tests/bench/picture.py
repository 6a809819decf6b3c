"""The history of runs as a picture: a small plot for each row, with its target and its floor."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

from tests.bench.history import Run
from tests.bench.rows import Measured, Row
from tests.bench.table import target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = 4
LATEST: Final = 15
"""How many runs are shown."""
TITLE: Final = 48
HEADROOM: Final = 1.15
"""Of the largest value or the target; a floor may be higher, and is out of sight then."""

VALUE, TARGET, FLOOR = "tab:blue", "tab:red", "tab:gray"


def draw(runs: Sequence[Run], rows: Sequence[Row], path: Path) -> None:
    """Draw what *runs* say of *rows*, as far as they say something, into *path*."""
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # once the backend is chosen
    from matplotlib.lines import Line2D  # noqa: PLC0415

    shown = [row for row in rows if any(one.row is row for run in runs for one in run.results)]
    height = max(1, math.ceil(len(shown) / COLUMNS))
    figure, plots = plt.subplots(
        height, COLUMNS, figsize=(4.2 * COLUMNS, 2.8 * height), squeeze=False, layout="constrained"
    )
    for plot, row in zip(plots.flat, shown, strict=False):
        _plot(plot, row, runs)
    for plot in plots.flat[len(shown) :]:
        plot.set_axis_off()
    handles = [Line2D([], [], color=VALUE, marker="o", label="value, and its range")]
    handles += [Line2D([], [], color=TARGET, linestyle="--", label="target")]
    handles += [Line2D([], [], color=FLOOR, linestyle=":", marker=".", label="floor of the same run")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _plot(plot: Axes, row: Row, runs: Sequence[Run]) -> None:
    """The runs that say something of *row*, in order."""
    found = [(run.commit, one) for run in runs for one in run.results if one.row is row][-LATEST:]
    points = [one for _, one in found]
    values = [one.value for one in points]
    plot.errorbar(range(len(points)), values, yerr=_ranges(points), color=VALUE, marker="o", capsize=2)
    floors = [(place, one.floor) for place, one in enumerate(points) if one.floor is not None]
    if floors:
        plot.plot(*zip(*floors, strict=True), color=FLOOR, linestyle=":", marker=".")
    plot.axhline(row.target, color=TARGET, linestyle="--", linewidth=1)
    plot.set_title(f"{textwrap.fill(row.measure, TITLE)}\n{target(row)}", fontsize=8)
    plot.set_ylim(min(0, *values), HEADROOM * max(row.target, *(max(one.values) for one in points)))
    plot.set_ylabel(row.unit, fontsize=8)
    plot.set_xticks(range(len(found)), [commit for commit, _ in found], rotation=45, fontsize=6, ha="right")
    plot.tick_params(axis="y", labelsize=7)


def _ranges(points: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """How far below and above the value the extremes are."""
    below = [one.value - min(one.values) for one in points]
    above = [max(one.values) - one.value for one in points]
    return below, above
