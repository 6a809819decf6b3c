"""Results as text."""

from __future__ import annotations

import pytest

from tests.bench.generator import Speed
from tests.bench.rows import Better, Effort, Measured, Row
from tests.bench.table import generator_line, number, rows_table, table

LOW = Row(name="low", measure="how late", unit="ms", target=30, rival=960, floor="a bare server")
HIGH = Row(name="high", measure="how much", unit="MiB/s", target=120, better=Better.HIGHER)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.5"),
        (99.96, "100"),
        (-2, "-2"),
        (12345.6, "12,346"),
    ],
)
def test_numbers(value: float | None, expected: str) -> None:
    """Three digits that matter, and none after the point of large ones."""
    assert number(value) == expected


def test_a_table() -> None:
    """Columns are of equal width; what is not known is left out."""
    results = [
        Measured(
            row=LOW, values=(40.0, 20.0, 30.0), floors=(10.0,), efforts=(Effort(0.5, 2.0), Effort(0.25, 2.0))
        ),
        Measured(row=HIGH, values=(100.0,)),
    ]
    assert table(results).splitlines() == [
        "| measure  | value     | range  | floor | ratio | CPU     | waited | target      | met | rival |",
        "|----------|-----------|--------|-------|-------|---------|--------|-------------|-----|-------|",
        "| how late | 30 ms     | 20..40 | 10    | 3.00  | 0.375 s | 2 s    | ≤ 30 ms     | yes | 960   |",
        "| how much | 100 MiB/s |        |       |       |         |        | ≥ 120 MiB/s | NO  | ?     |",
    ]


def test_what_there_is() -> None:
    """Rows by name, with what is promised."""
    assert rows_table([LOW]).splitlines()[-1] == "| low  | how late | ≤ 30 ms | a bare server |"


@pytest.mark.parametrize(
    ("row", "value", "met"), [(LOW, 30, True), (LOW, 31, False), (HIGH, 120, True), (HIGH, 119, False)]
)
def test_targets(row: Row, value: float, met: bool) -> None:
    """Are met by what is as promised, whichever way the row should go."""
    assert Measured(row=row, values=(value,)).met is met


def test_a_floor_of_zero() -> None:
    """Gives no ratio."""
    assert Measured(row=LOW, values=(1.0,), floors=(0.0,)).ratio is None


def test_the_load_generator() -> None:
    """Is compared with the server it read from."""
    large = Speed(size=1 << 20, messages=512, seconds=1.0, reader_cpu=0.5, server_cpu=1.0)
    small = Speed(size=100, messages=20_000, seconds=0.5, reader_cpu=0.1, server_cpu=0.4)
    line = generator_line("Go", large, small)
    assert "512 MiB/s" in line
    assert "1,024 MiB/s" in line
    assert "40,000 messages of 100 B a second for 25%" in line
