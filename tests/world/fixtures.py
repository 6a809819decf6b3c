"""The test world as a fixture. The root conftest loads this module as a plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.helpers import in_own_task
from tests.world.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world whose builds succeed at once, unless its script is changed."""
    async with in_own_task(World()) as world:
        yield world
