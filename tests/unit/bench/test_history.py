"""Runs as files, and as a picture."""

from __future__ import annotations

from pathlib import Path

from tests.bench.history import Run, read, write
from tests.bench.picture import draw_history, draw_run
from tests.bench.rows import Better, Effort, Measured, Row

LATE = Row(name="late", measure="how late", unit="ms", target=30, floor="a bare server")
MUCH = Row(name="much", measure="how much", unit="MiB", target=5)
ROWS = {"late": LATE, "much": MUCH}


def run(at: str, *results: Measured) -> Run:
    """A run that found *results*."""
    return Run(at=at, commit="1234567", quick=True, machine={"processors": 2}, results=list(results))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """All of it, the oldest first."""
    later = run(
        "2026-11-24T12:00:00Z",
        Measured(row=LATE, values=(1.0, 2.0), floors=(0.5,), efforts=(Effort(1.0, 2.0),)),
    )
    earlier = run("2026-11-23T12:00:00Z", Measured(row=MUCH, values=(3.0,)))
    assert write(later, tmp_path).name == "2026-11-24T12-00-00Z-1234567.json"
    write(earlier, tmp_path)
    assert read(tmp_path, ROWS) == [earlier, later]


def test_rows_that_are_no_more(tmp_path: Path) -> None:
    """Are left out, and so are those whose unit was another."""
    other = Row(name="much", measure="how much", unit="KiB", target=5)
    gone = Row(name="gone", measure="what nobody measures", unit="s", target=1)
    results = [Measured(row=row, values=(1.0,)) for row in (LATE, other, gone)]
    write(run("2026-11-24T12:00:00Z", *results), tmp_path)
    (found,) = read(tmp_path, ROWS)
    assert found.results == results[:1]


def test_no_runs(tmp_path: Path) -> None:
    """Where there is no folder yet."""
    assert read(tmp_path / "none", ROWS) == []


def test_a_picture_of_all_runs(tmp_path: Path) -> None:
    """Of which not all have measured the same."""
    runs = [
        run("1", Measured(row=LATE, values=(1.0, 2.0), floors=(0.5,))),
        run("2", Measured(row=LATE, values=(3.0,)), Measured(row=MUCH, values=(3.0,))),
    ]
    path = tmp_path / "pictures" / "history.png"
    draw_history(runs, [LATE, MUCH], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_one_run(tmp_path: Path) -> None:
    """Also of values that no logarithm is of."""
    rival = Row(name="both", measure="both", unit="s", target=1, better=Better.HIGHER, rival=0.5)
    results = [
        Measured(row=LATE, values=(-1.0,)),
        Measured(row=MUCH, values=(0.0,), floors=(0.0,)),
        Measured(row=rival, values=(2.0,), floors=(4.0,)),
    ]
    path = tmp_path / "latest.png"
    draw_run(run("1", *results), path)
    assert path.read_bytes().startswith(b"\x89PNG")
