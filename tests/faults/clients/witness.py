"""Good clients: what they get, and how long it takes, before somebody attacks and meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import anyio
from grpclib.exceptions import GRPCError, StreamTerminatedError

from imgbuilder.pb.builder import BuildRequest, LogsRequest
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Call, Client, connected, dockerfile, statuses
from tests.world.world import World

NUMBERS: Final = count(1)

SLOWER: Final = 20
"""How many times as long as before an answer may take; where that is less than `BUSY` or `STALLED`, those count."""
BUSY: Final = 2.0
"""Seconds that half of all answers may take: for machines that have other things to do."""
STALLED: Final = 15.0
"""Seconds that any answer may take."""

PAUSE: Final = 0.01


@dataclass(slots=True)
class Times:
    """How many seconds answers took."""

    calls: list[float] = field(default_factory=list)
    lines: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Median and largest, in milliseconds."""
        return {
            "p50": statistics.median(self.calls) * 1000,
            "max": max(self.calls) * 1000,
            "line p50": statistics.median(self.lines) * 1000,
            "line max": max(self.lines) * 1000,
        }


class Witness:
    """Calls ListBuilds again and again, and reads along with a build that prints lines, in a Logs and a Build stream.

    :ivar before, during: how long answers took until `attacked` was called, and since.
    :ivar failures: what it was answered that was no answer.
    """

    def __init__(self, world: World, client: Client, build_id: str) -> None:
        self.before = Times()
        self.during = Times()
        self.failures: list[Exception] = []
        self._now = self.before
        self._world = world
        self._client = client
        self._build_id = build_id
        self._printed: dict[int, float] = {}
        self._read = 0
        self._happened = anyio.Event()

    def attacked(self) -> None:
        """From now on somebody attacks."""
        self._now = self.during

    async def until(self, number: int) -> None:
        """Wait until so many calls were answered, and lines read, in this stage."""
        times = self._now
        with anyio.fail_after(3 * STALLED):
            while min(len(times.calls), len(times.lines)) < number and not self.failures:
                await self._happened.wait()

    def check(self) -> None:
        """Whether all was answered in time.

        :raises AssertionError: if not.
        """
        assert self.failures == []
        for before, during in (
            (self.before.calls, self.during.calls),
            (self.before.lines, self.during.lines),
        ):
            assert statistics.median(during) <= max(SLOWER * statistics.median(before), BUSY)
            assert max(during) <= max(SLOWER * max(before), STALLED)

    async def call(self) -> None:
        """Call again and again."""
        while True:
            began = anyio.current_time()
            try:
                builds = await self._client.builds()
            except (GRPCError, StreamTerminatedError, OSError) as error:
                self.failures.append(error)
                builds = []
            if not any(build.build_id == self._build_id for build in builds):
                self.failures.append(AssertionError("the build is not listed"))
            self._now.calls.append(anyio.current_time() - began)
            self._tell()
            await anyio.sleep(PAUSE)

    async def print(self) -> None:
        """Let the build print a line, and when it was read, another one."""
        for number in count():
            self._printed[number] = anyio.current_time()
            self._world.supervisors.write(self._build_id, f"line {number}\r\n".encode())
            while self._read <= number:
                await self._happened.wait()
            await anyio.sleep(PAUSE)

    async def read(self, log: Call[Any]) -> None:
        """Read the lines as they come, to the end of the log."""
        rest = b""
        try:
            async for response in log.responses():
                *lines, rest = (rest + response.content).split(b"\r\n")
                for line in lines:
                    number = int(line.rpartition(b"line ")[2])
                    assert number == self._read, "a line was lost"
                    self._read += 1
                    self._now.lines.append(anyio.current_time() - self._printed[number])
                    self._tell()
        except (GRPCError, StreamTerminatedError, OSError) as error:
            self.failures.append(error)
            self._tell()

    def _tell(self) -> None:
        self._happened.set()
        self._happened = anyio.Event()


@asynccontextmanager
async def witness(
    world: World, port: int, *, options: Mapping[str, Any] | None = None
) -> AsyncIterator[Witness]:
    """A witness of a service on *port*; in the end its streams have to end as they should.

    :param options: of the channel of its client.
    """
    async with connected(port, **(options or {})) as client:
        source = dockerfile(version=f"witness {next(NUMBERS)}")
        async with client.open(BuildRequest(source=source)) as build:
            first = await build.next()
            build_id = first.info.build_id
            world.manager.advance(build_id, WorkspacePhase.RUNNING)
            world.supervisors.open_terminal(build_id)
            seen = Witness(world, client, build_id)
            async with (
                client.open(LogsRequest(build_id=build_id)) as log,
                anyio.create_task_group() as readers,
            ):
                readers.start_soon(seen.read, log)
                async with anyio.create_task_group() as group:
                    group.start_soon(seen.call)
                    group.start_soon(seen.print)
                    await seen.until(12)
                    yield seen
                    group.cancel_scope.cancel()
                world.push(first.ref)
                world.supervisors.exit(build_id, 0)
                world.manager.advance(build_id, WorkspacePhase.STOPPED)
                with anyio.fail_after(3 * STALLED):
                    assert statuses(await build.rest())[-1] == "done_success"
        assert seen.failures == []
