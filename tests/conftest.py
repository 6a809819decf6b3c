"""Fixtures and settings of all tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.world.fixtures"]

# The first text that is drawn in a fresh checkout takes a second or two, in whichever test that is: a table of all
# characters is made then. A loaded machine is slow, too.
settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _event_loop_of_the_thread() -> Iterator[None]:
    """One event loop for whoever asks for the thread's current one between tests, closed at the end.

    pytest-asyncio remembers and restores that loop around each test; without one it is made on the way and
    never closed, which shows as a warning in some unlucky later test.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
