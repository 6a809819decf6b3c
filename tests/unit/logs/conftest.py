"""What logs need around them: a bus, tasks, metrics, and a folder on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import anyio.lowlevel
import pytest

from imgbuilder.bus import Bus
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.orchestrator.logs.spool import SpoolFolder
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from tests.helpers import in_own_task

MakeLog = Callable[..., BuildLog]


@pytest.fixture
def bus() -> Bus:
    """Connects logs and readers."""
    return Bus()


@pytest.fixture
def metrics() -> Metrics:
    """Counts what the test does."""
    return Metrics()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Owns what runs."""
    async with in_own_task(Tasks()) as tasks:
        yield tasks


@pytest.fixture
async def spool(tmp_path: Path, metrics: Metrics) -> AsyncIterator[SpoolFolder]:
    """An open folder."""
    folder = SpoolFolder(tmp_path / "logs", on_fault=metrics.log_disk_failed)
    await folder.open()
    yield folder
    await folder.close()


@pytest.fixture
def make_log(bus: Bus, tasks: Tasks, spool: SpoolFolder) -> MakeLog:
    """Makes logs that are moved to disk early, and where nothing is gathered; settings as arguments."""

    def make(**settings: object) -> BuildLog:
        chosen = replace(LogSettings(memory=1000, gather=0.0), **settings)  # type: ignore[arg-type]  # the test's
        return BuildLog("b", bus=bus, tasks=tasks, spool=spool, settings=chosen)

    return make


def faults(metrics: Metrics) -> float | None:
    """How often the disk failed."""
    return metrics.registry.get_sample_value("imgbuilder_log_disk_faults_total")


async def settled(tasks: Tasks) -> None:
    """Wait until what was begun is done."""
    while tasks.running:
        await anyio.lowlevel.checkpoint()
