"""Whatever process is killed with kill -9, and comes back: clients that call again get the truth, and the same builds.

``PROCESSES_SEED=17`` draws other moments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.faults.processes.programs import Program
from tests.faults.processes.trial import SEED, Trial, trial
from tests.world.supervisor import REMEMBERED

BUILDS: Final = 200

pytestmark = pytest.mark.timeout(300)  # on a machine that is busy


async def struck(tried: Trial, program: Program, first: int, last: int) -> None:
    """Kill a program in the midst of it all, when so many builds were asked for; start it again after a while."""
    moment = tried.chance.randint(first, last)
    dead = tried.strike_at(moment, program)
    await tried.until(dead.is_set, f"start {moment}")
    await program.kill()
    await anyio.sleep(tried.chance.uniform(0.0, 0.5))
    await program.start()


async def let_go(tried: Trial, *, restarted: bool = False) -> None:
    """Let all builds end, and judge what clients were told."""
    await tried.settled()
    tried.let_go.set()
    await tried.finished()
    tried.judge(restarted=restarted)


async def test_the_service_is_killed(tmp_path: Path) -> None:
    """Twice. Its clients call again, and get the same builds, with their logs from the first byte."""
    async with trial(SEED, tmp_path) as tried:
        tried.want(BUILDS, BUILDS, patient=0.7, within=2.0)
        await struck(tried, tried.services[0], 10, 90)
        await struck(tried, tried.services[0], 110, 170)
        await let_go(tried, restarted=True)


async def test_the_workspace_manager_is_killed(tmp_path: Path) -> None:
    """Clients wait, and are told of what has ended meanwhile; nothing is started twice."""
    async with trial(SEED, tmp_path) as tried:
        tried.want(BUILDS, BUILDS, patient=0.7, within=2.0)
        await struck(tried, tried.manager.process, 10, 170)
        await let_go(tried)
        assert not [client.errors for client in tried.clients if client.errors]


async def test_the_supervisors_are_killed(tmp_path: Path) -> None:
    """Logs go on where they were, and tell where the supervisor itself has lost something, and only there."""
    async with trial(SEED, tmp_path) as tried:
        tried.want(BUILDS, BUILDS, patient=0.7, within=2.0)
        await struck(tried, tried.supervisors.process, 10, 170)
        await tried.settled()
        chatty = tried.chance.choice(tried.patient_builds())
        await tried.supervisors.stop()
        tried.flood(chatty, 2 * REMEMBERED)
        await tried.supervisors.start()
        await let_go(tried)
        assert not [client.errors for client in tried.clients if client.errors]
        assert b"output may be missing here" in tried.readers[chatty].received
