"""One service for all tests here, each of which leaves it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.data.registry import HostileRegistry
from tests.faults.trial import KEPT, Trial, trial
from tests.helpers import in_own_task
from tests.world.world import World


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def registry() -> AsyncIterator[HostileRegistry]:
    """A registry beside that of the world."""
    async with in_own_task(HostileRegistry()) as registry:
        yield registry


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def hostile(
    registry: HostileRegistry, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Trial]:
    """A service that speaks plain HTTP to registries, is not as patient with them as usual, and keeps less of logs."""
    folder: Path = tmp_path_factory.mktemp("service")
    async with in_own_task(World()) as world:
        registries = {"insecure": [world.registry.host, registry.host], "timeout": "2s"}
        async with in_own_task(trial(folder, world, registries=registries, logs={"maxSize": KEPT})) as found:
            yield found
