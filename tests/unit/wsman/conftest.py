"""A workspace manager and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from imgbuilder.wsman.client import WorkspaceManagerClient
from tests.world.workspaces import WorkspaceManager


@pytest.fixture
async def manager() -> AsyncIterator[WorkspaceManager]:
    """A workspace manager that serves."""
    async with WorkspaceManager() as manager:
        yield manager


@pytest.fixture
async def client(manager: WorkspaceManager) -> AsyncIterator[WorkspaceManagerClient]:
    """A client of it."""
    async with WorkspaceManagerClient(manager.address) as client:
        yield client
