"""The bound of the service's memory in ``docs/performance.md`` is what the defaults and the code make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imgbuilder.config.model import Builds, Limits, Logs
from imgbuilder.core.splicing import WINDOW
from imgbuilder.orchestrator.logs.chunks import KEPT, LARGEST
from imgbuilder.orchestrator.logs.store import READ_AHEAD, SMALL, WAITING
from imgbuilder.runtime.grpc import limits
from imgbuilder.runtime.grpc.protocol import WRITE_BUFFER
from imgbuilder.runtime.grpc.streams import LARGEST_WRITE

PAGE: Final = Path(__file__).parents[2] / "docs" / "performance.md"

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# Measured: see the page.
PROCESS: Final = 60 * MIB
CONNECTION: Final = 30 * KIB
CALL: Final = 16 * KIB
FOLLOWING: Final = 34 * KIB
BUILD: Final = 5 * KIB


def rows() -> list[tuple[str, int, int]]:
    """What there is, bytes of each, and how many there may be, with the defaults."""
    clients, logs, builds = Limits(), Logs(), Builds()
    return [
        ("the process, serving", PROCESS, 1),
        (
            "connections, with what waits to be sent",
            CONNECTION + WRITE_BUFFER + LARGEST_WRITE,
            clients.connections,
        ),
        ("open calls", CALL, clients.streams),
        ("requests while they are received, in all", limits.Limits().receiving, 1),
        ("builds whose output is read", FOLLOWING + logs.memory + WINDOW + WINDOW // 4, logs.followed),
        ("the latest parts of logs that clients read", KEPT * LARGEST + READ_AHEAD, logs.followed),
        ("ended builds", BUILD + SMALL, builds.keep_ended),
    ]


def table() -> list[str]:
    """The rows as they stand on the page."""
    lines = [
        f"| {what} | {each / KIB:,.0f} KiB | {count:,} | {each * count / MIB:,.0f} MiB |"
        for what, each, count in rows()
    ]
    return [
        *lines,
        f"| **together** | | | **{sum(each * count for _, each, count in rows()) / MIB:,.0f} MiB** |",
    ]


def test_the_page_has_what_the_defaults_make() -> None:
    """Line by line; a limit that changes shows here."""
    page = PAGE.read_text().splitlines()
    assert [line for line in table() if line not in page] == []


def test_the_page_has_what_no_setting_bounds() -> None:
    """What a slow disk makes wait, and what a running build takes."""
    page = PAGE.read_text()
    assert f"{WAITING // MIB} MiB for each log" in page
    assert f"{BUILD // KIB} KiB for each build that runs" in page
