"""The program on each of the event loops that it can run on: asyncio's own, and uvloop."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

from imgbuilder.cli.eventloop import LOOPS, VARIABLE
from tests.contract.service.client import connected, dockerfile, statuses
from tests.world.process import service_process
from tests.world.world import World


def loop_of(pid: int) -> str:
    """The event loop that a process runs on, by the libraries that it has loaded."""
    return "uvloop" if "uvloop" in Path(f"/proc/{pid}/maps").read_text() else "asyncio"


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_build_on(loop: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its start to its end, with its output; then the program stops as it is told to."""
    if importlib.util.find_spec(loop) is None:
        pytest.skip(f"{loop} is not installed")
    monkeypatch.setenv(VARIABLE, loop)
    async with (
        service_process(world.service_config(), tmp_path) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
    ):
        if sys.platform == "linux":
            assert loop_of(process.process.pid) == loop
        responses = await client.build(dockerfile())
        assert statuses(responses)[-1] == "done_success"
        info = responses[-1].info
        assert info is not None
        assert b"Connected to log output" in await client.log(build_id=info.build_id)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
