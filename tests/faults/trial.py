"""A service in a process of its own, in a hostile world, and how much memory it takes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import psutil

from imgbuilder.pb.builder import BuildRequest, BuildResponse
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Call, Client, connected, dockerfile, statuses
from tests.contract.service.conftest import get, series_of
from tests.faults.reading import BLOCK, block
from tests.world.process import PROGRAM, ServiceProcess, service_process
from tests.world.scripts import Script, idle, succeeding
from tests.world.world import World

FULL: Final = os.environ.get("HOSTILE_DATA") == "full"
MEBIBYTE: Final = 1 << 20

ROOM: Final = 48 * MEBIBYTE
"""What a service may take beyond what it takes when it has built one image; far less than what it is sent."""

KEPT: Final = 16 * MEBIBYTE
"""How much of each log the service keeps."""

PATIENCE: Final = 300.0 if FULL else 50.0


@dataclass(kw_only=True)
class Trial:
    """A service, a client of it, and the world around."""

    world: World
    service: ServiceProcess
    client: Client
    builds: int = 0
    usual: int = 0

    async def metrics(self) -> dict[str, float]:
        """All series at ``/metrics`` by name and labels."""
        return series_of((await get(self.service.metrics_port, "/metrics")).text)

    def source(self) -> Any:
        """A source that nobody has built yet."""
        self.builds += 1
        return dockerfile(version=str(self.builds))

    async def another_build(self) -> None:
        """What a service is for goes on: an image is built, with its log."""
        with anyio.fail_after(PATIENCE):
            responses = await self._build(succeeding(("hello",), heard=True))
        assert statuses(responses)[-1] == "done_success"
        log = await self.client.log(build_id=responses[-1].info.build_id)  # type: ignore[union-attr]  # it was built
        assert log.endswith(b"hello\r\n")

    async def _build(self, script: Script) -> list[BuildResponse]:
        source = self.source()
        before, self.world.script = self.world.script, script
        async with self.client.open(BuildRequest(source=source)) as call:
            first = await call.next()
            self.world.script = before
            return [first, *await call.rest()]

    @asynccontextmanager
    async def building(self) -> AsyncIterator[tuple[Call[BuildResponse], str]]:
        """A build that runs, driven by the test, and its id; its first response was received."""
        before, self.world.script = self.world.script, idle
        async with self.client.open(BuildRequest(source=self.source())) as call:
            first = await call.next()
            self.world.script = before
            yield call, first.info.build_id

    async def listened(self, build_id: str) -> None:
        """Let a build's task begin, and the service listen to it."""
        self.world.manager.advance(build_id, WorkspacePhase.RUNNING)
        supervisors = self.world.supervisors
        supervisors.open_terminal(build_id)
        await supervisors.until(lambda: bool(supervisors.workspaces[build_id].listeners))

    async def write(self, build_id: str, start: int, end: int) -> None:
        """Let a build's task write what stands from byte *start* to *end* of its output, see `block`."""
        for place in range(start, end, BLOCK):
            self.world.supervisors.write(build_id, block(place))
            await self.world.supervisors.drain(build_id)

    async def succeed(self, call: Call[BuildResponse], build_id: str) -> None:
        """Let a build end well, and see that its client is told so."""
        self.world.supervisors.exit(build_id, 0)
        self.world.push(self.world.manager.workspaces[build_id].ref)
        self.world.manager.advance(build_id, WorkspacePhase.STOPPED)
        assert statuses(await call.rest())[-1] == "done_success"

    async def logged(self, message: str, **context: str) -> None:
        """Wait until the service has logged something."""
        while not any(  # noqa: ASYNC110  # it is another process that says so
            record["message"] == message and context.items() <= record.items()
            for record in self.service.records
        ):
            await anyio.sleep(0.02)

    def most_memory(self) -> int:
        """The most memory that the process has taken since it was asked last, in bytes."""
        pid = self.service.process.pid
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:  # not Linux
            return int(psutil.Process(pid).memory_info().rss)
        most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return most

    @asynccontextmanager
    async def bounded(self, what: str, *, room: int = ROOM) -> AsyncIterator[None]:
        """Memory stays what it is, give or take *room*, whatever happens inside the block."""
        self.most_memory()
        began = anyio.current_time()
        yield
        took, most = anyio.current_time() - began, self.most_memory()
        print(  # noqa: T201  # figures, for those who want them
            f"{what}: {took:.1f} s, at most {most / MEBIBYTE:.0f} MiB, usually {self.usual / MEBIBYTE:.0f} MiB"
        )
        assert most < self.usual + room, f"{what}: {most / MEBIBYTE:.0f} MiB"


@asynccontextmanager
async def trial(
    folder: Path, world: World, *, under: Sequence[str] = (), **overrides: Any
) -> AsyncIterator[Trial]:
    """A service in *world* that has built an image, so that all that is loaded once is loaded.

    :param under: a command line that runs the one behind it in another way, e.g. within limits.
    """
    program = [str(PROGRAM), "run", "--config", str(folder / "service.json"), "--json-log"]
    async with (
        service_process(
            world.service_config(**overrides), folder, command=[*under, *program] if under else ()
        ) as service,
        connected(int(service.host.rpartition(":")[2])) as client,
    ):
        found = Trial(world=world, service=service, client=client)
        await found.another_build()
        await client.resolve(world.seed_base_image())
        found.usual = found.most_memory()
        yield found
