"""The services that are attacked: one for all tests that need no other, to save their starts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.clients.scene import Scene, serving
from tests.helpers import in_own_task

LIMITS = {"connections": 150, "handshake": "2s"}


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def scene() -> AsyncIterator[Scene]:
    """A service with the limits of its defaults, but for those that would take long to reach."""
    async with in_own_task(serving(limits=LIMITS)) as scene:
        yield scene


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def strict() -> AsyncIterator[Scene]:
    """A service that is sooner at its limits, and out of patience."""
    limits = {"streams": 2_000, "keepalive": "500ms", "keepaliveTimeout": "3s"}
    async with in_own_task(serving(limits=limits)) as scene:
        yield scene
