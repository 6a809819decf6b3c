"""Runs as pictures: the latest against what is promised, and the history of all, a small plot for each row."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tests.bench.history import Run
from tests.bench.rows import Better, Measured, Row
from tests.bench.table import number, target

COLUMNS: Final = 4
LATEST: Final = 15
"""How many runs are shown."""
TITLE: Final = 48
HEADROOM: Final = 1.15
"""Of the largest value or the target; a floor may be higher, and is out of sight then."""

VALUE, TARGET, FLOOR, RIVAL = "tab:blue", "tab:red", "tab:gray", "tab:orange"
FLOOR_MARK: Final[Mapping[str, Any]] = {"color": FLOOR, "marker": "|", "markersize": 11, "linestyle": ""}
RIVAL_MARK: Final[Mapping[str, Any]] = {"color": RIVAL, "marker": "x", "linestyle": ""}
FURTHEST: Final = 100.0
"""What is more than so many times better, or worse, than promised is drawn at the border."""


def draw_run(run: Run, path: Path) -> None:
    """Draw the results of *run* into *path*, as multiples of what is promised."""
    figure, plot = _pyplot().subplots(figsize=(11, 1.2 + 0.27 * len(run.results)), layout="constrained")
    results = list(reversed(run.results))
    for place, one in enumerate(results):
        score = _score(one.row, one.value)
        plot.plot([1, score], [place, place], color=VALUE if one.met else TARGET, linewidth=4, alpha=0.4)
        plot.plot(score, place, color=VALUE if one.met else TARGET, marker="o")
        for other, style in ((one.floor, FLOOR_MARK), (one.row.rival, RIVAL_MARK)):
            if other is not None:
                plot.plot(_score(one.row, other), place, **style)
    plot.axvline(1, color="black", linewidth=1)
    plot.set_xscale("log")
    plot.set_xlim(1 / FURTHEST, FURTHEST)
    plot.set_ylim(-0.6, len(results) - 0.4)
    plot.set_xlabel("worse        times the target        better")
    plot.set_yticks(range(len(results)), [one.row.measure for one in results], fontsize=8)
    values = plot.secondary_yaxis("right")
    values.set_yticks(
        range(len(results)), [f"{number(one.value)} {one.row.unit}" for one in results], fontsize=8
    )
    for axis in (plot, values):
        axis.tick_params(axis="y", length=0)
    plot.grid(axis="x", alpha=0.3)
    plot.set_title(f"{run.commit}, {run.at}", fontsize=9)
    handles = [
        Line2D([], [], color=VALUE, marker="o", label="target met"),
        Line2D([], [], color=TARGET, marker="o", label="target missed"),
        Line2D([], [], label="floor of the same run", **FLOOR_MARK),
        Line2D([], [], label="the system that is replaced, as an order of magnitude", **RIVAL_MARK),
    ]
    _save(figure, handles, path)


def draw_history(runs: Sequence[Run], rows: Sequence[Row], path: Path) -> None:
    """Draw what *runs* say of *rows*, as far as they say something, into *path*."""
    shown = [row for row in rows if any(one.row is row for run in runs for one in run.results)]
    height = max(1, math.ceil(len(shown) / COLUMNS))
    figure, plots = _pyplot().subplots(
        height, COLUMNS, figsize=(4.2 * COLUMNS, 2.8 * height), squeeze=False, layout="constrained"
    )
    for plot, row in zip(plots.flat, shown, strict=False):
        _plot(plot, row, runs)
    for plot in plots.flat[len(shown) :]:
        plot.set_axis_off()
    handles = [
        Line2D([], [], color=VALUE, marker="o", label="value, and its range"),
        Line2D([], [], color=TARGET, linestyle="--", label="target"),
        Line2D([], [], color=FLOOR, linestyle=":", marker=".", label="floor of the same run"),
    ]
    _save(figure, handles, path)


def _pyplot() -> Any:
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # once the backend is chosen

    return plt


def _save(figure: Figure, handles: Sequence[Line2D], path: Path) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    _pyplot().close(figure)


def _score(row: Row, value: float) -> float:
    """How many times better than promised *value* is, within what is shown."""
    least = row.target / FURTHEST
    better = value / row.target if row.better is Better.HIGHER else row.target / max(value, least)
    return min(max(better, 1 / FURTHEST), FURTHEST)


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
