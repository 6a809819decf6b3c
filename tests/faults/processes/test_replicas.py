"""Two replicas of the service: one workspace per image, whichever is asked, and whichever is killed or stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import anyio
import grpc
import pytest

from tests.faults.processes.trial import SEED, trial

CLIENTS: Final = 200
IMAGES: Final = 40
BUILDS: Final = 120
DRAIN: Final = 10.0
"""Seconds a service has for ending its calls, by default."""
SHUTTING_DOWN: Final = (grpc.StatusCode.UNAVAILABLE, "the service is shutting down: try again")

pytestmark = pytest.mark.timeout(300)  # on a machine that is busy


async def test_one_of_two_replicas_is_killed(tmp_path: Path) -> None:
    """All clients of an image, whichever replica they ask, share one build; also when one is killed and comes back."""
    async with trial(SEED, tmp_path, services=2) as tried:
        tried.want(IMAGES, CLIENTS, patient=1.0, within=1.0)
        killed = tried.chance.choice(tried.services)
        moment = tried.chance.randint(5, 30)
        dead = tried.strike_at(moment, killed)
        await tried.until(dead.is_set, f"start {moment}")
        await killed.kill()
        await tried.settled()
        await killed.start()
        tried.let_go.set()
        await tried.finished()
        tried.judge(restarted=True)
        assert tried.asked == IMAGES


async def test_a_service_is_stopped_and_another_takes_over(tmp_path: Path) -> None:
    """All streams end with UNAVAILABLE, the process ends in time; clients get the same builds elsewhere."""
    async with trial(SEED, tmp_path) as tried:
        tried.want(BUILDS, BUILDS, patient=0.7, within=1.5)
        moment = tried.chance.randint(50, 90)
        await tried.until(lambda: tried.asked >= moment, f"start {moment}")
        old, server = tried.services[0], tried.servers[0]
        await tried.add_service()
        open_streams = server.open_streams
        server.goes_away = True
        began = anyio.current_time()
        old.send_signal(signal.SIGTERM)
        assert await old.stop() == 0
        assert anyio.current_time() - began < DRAIN + 20.0, "it should have cut off who does not go"
        assert open_streams > 20
        failures = [each for client in tried.clients for each in client.errors]
        failures += [each for reader in tried.readers.values() for each in reader.errors]
        ended = [each.error for each in failures if each.server is server and each.told]
        assert len(ended) > 20
        wrong = [error for error in ended if (error.code(), error.details()) != SHUTTING_DOWN]
        assert not wrong, wrong[:3]
        await tried.settled()
        tried.let_go.set()
        await tried.finished()
        tried.judge(restarted=True)
