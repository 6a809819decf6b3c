"""``python -m tests.bench.worldapart``: the test world in a process of its own, which does what it is told.

A command is a line of JSON on the standard input, ``{"do": NAME, ...}``; the methods of `Commands` are what there
is. Each is answered by ``{"event": "did", "value": ...}`` when it is done.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

import anyio

from imgbuilder.pb.wsman import WorkspacePhase
from tests.bench.lines import END, Pace, burst, stamped
from tests.bench.loops import OPTIONS
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.requests import start_request
from tests.world.scripts import Stage
from tests.world.workspaces import Workspace, WorkspaceManager
from tests.world.world import World

USER: Final = ("service", "password")
TICK: Final = 0.001
"""Seconds between two looks at what is due."""

BATCH: Final = 64 * 1024
BACKLOG: Final = 100_000
"""Changes that may wait for a subscriber: on a busy machine it is late, and should not be dropped for that."""


async def run_on(stage: Stage) -> None:
    """A build that has begun, and goes on until it is told to end."""
    stage.advance(WorkspacePhase.RUNNING)


async def end_at_once(stage: Stage) -> None:
    """A build that leaves its image and ends."""
    stage.push()
    stage.advance(WorkspacePhase.STOPPED)


class Commands:
    """What the world can be told to do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._started: list[dict[str, float]] = []
        self._start = anyio.Event()
        world.script = run_on
        begin = world.manager.on_start

        def started(workspace: Workspace) -> None:
            self._started.append({"at": time.time(), "requests": len(world.registry.requests)})
            self._start.set()
            self._start = anyio.Event()
            begin(workspace)

        world.manager.on_start = started

    # --- its state --------------------------------------------------------------------------------------

    async def let_builds_end(self) -> None:
        """Builds that are started from now on end at once."""
        self._world.script = end_at_once

    async def wait(self, latency: float) -> None:
        """Let the registry wait for *latency* seconds before each answer."""
        self._world.registry.latency = latency

    async def seed(self, repository: str, tag: str) -> str:
        """Put a base image into the registry; its reference."""
        return self._world.seed_base_image(repository, tag)

    async def requests(self) -> list[str]:
        """What the registry was asked since the last call of this."""
        seen = self._world.registry.seen()
        self._world.registry.requests.clear()
        return seen

    async def started(self) -> list[dict[str, float]]:
        """The workspaces that were started by calls, in order.

        For each when that was, as Unix time, and how many requests `requests` would have told of then.
        """
        return self._started

    async def until_started(self, count: int) -> None:
        """Wait until so many workspaces were started by calls, in all."""
        while len(self._started) < count:
            await self._start.wait()

    async def run_builds(self, count: int) -> list[str]:
        """Let *count* builds run that nobody here has started; their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        for workspace_id in ids:
            ref = self._world.workspace_ref(workspace_id)
            self._world.start(start_request(workspace_id, ref=ref))
        return ids

    async def terminal(self) -> dict[str, str]:
        """A workspace that the service does not know, whose task has begun: id, address, owner token, terminal."""
        workspace_id, token, alias = str(uuid.uuid4()), "token", "terminal"
        url = self._world.supervisors.add(workspace_id, token)
        self._world.supervisors.open_terminal(workspace_id, alias)
        return {"workspace_id": workspace_id, "url": url, "token": token, "alias": alias}

    # --- what happens in it -----------------------------------------------------------------------------

    async def heard(self, workspace_id: str) -> None:
        """Wait until somebody listens to the terminal of a build."""
        supervisors = self._world.supervisors
        await supervisors.until(lambda: bool(supervisors.workspaces[workspace_id].listeners))

    async def write(self, workspace_id: str, count: int, size: int, pause: float = 0.0) -> float:
        """Write *count* lines of *size* bytes as fast as they are taken; the Unix time at which that began.

        :param pause: seconds after each 64 KiB or so.
        """
        supervisors = self._world.supervisors
        chunks = list(_batches([_chunk(line) for line in burst(count, size)]))
        begun = time.time()
        for chunk in chunks:
            for listener in supervisors.workspaces[workspace_id].listeners:
                listener._transport.write(chunk)  # made before, so that writing is no limit
            await supervisors.drain(workspace_id)
            await anyio.sleep(pause)
        return begun

    async def write_paced(self, ids: Sequence[str], rate: float, seconds: float) -> int:
        """Write stamped lines of 100 bytes, *rate* a second, into each of these builds, and then the last line.

        :returns: how many stamped lines each has got.
        """
        pace, written = Pace(rate, time.time()), 0
        with anyio.move_on_after(seconds):
            while True:
                for moment in pace.due(time.time()):
                    for workspace_id in ids:
                        self._world.supervisors.write(workspace_id, stamped(moment))
                    written += 1
                await anyio.sleep(TICK)
        for workspace_id in ids:
            self._world.supervisors.write(workspace_id, END.encode())
        return written

    async def change(self, rate: float, seconds: float) -> int:
        """Change one workspace after the other, *rate* a second in all; how often.

        Each change's message tells when it was made.
        """
        pace, changes = Pace(rate, time.time()), 0
        ids = list(self._world.manager.workspaces)
        with anyio.move_on_after(seconds):
            while True:
                for _ in pace.due(time.time()):
                    workspace_id = ids[changes % len(ids)]
                    message = stamped(time.time(), 30).decode()
                    self._world.manager.advance(workspace_id, WorkspacePhase.RUNNING, message=message)
                    changes += 1
                await anyio.sleep(TICK)
        return changes

    async def end(self, count: int) -> None:
        """Let the first *count* builds end, with an image."""
        for workspace in list(self._world.manager.workspaces.values())[:count]:
            self._world.push(workspace.ref)
            self._world.manager.advance(workspace.id, WorkspacePhase.STOPPED)

    async def leave(self) -> None:
        """Let the workspace manager be gone."""
        await self._world.manager.stop()

    async def come_back(self) -> float:
        """Let it serve again; since when it does, as Unix time."""
        await self._world.manager.start()
        return time.time()


def _chunk(line: bytes) -> bytes:
    """*line* as a supervisor sends it: a JSON value in an HTTP chunk."""
    value = b'{"result":{"data":"%b"}}\n' % base64.b64encode(line)
    return b"%x\r\n%b\r\n" % (len(value), value)


def _batches(chunks: Sequence[bytes]) -> list[bytes]:
    each = max(1, BATCH // len(chunks[0]))
    return [b"".join(chunks[start : start + each]) for start in range(0, len(chunks), each)]


async def serve(options: dict[str, Any]) -> None:
    """Run a world whose registry is as *options* say, and do what is asked of it, until there is no more."""
    registry = FakeRegistry(users=dict([USER]), **options)
    async with World(registry=registry, manager=WorkspaceManager(backlog=BACKLOG)) as world:
        commands = Commands(world)
        _tell(
            {
                "event": "serving",
                "config": world.service_config(),
                "manager": world.manager.address,
                "registry": registry.host,
            }
        )
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            name = command.pop("do")
            _tell({"event": "did", "value": await getattr(commands, name)(**command)})


def _tell(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(serve, json.loads(sys.argv[1]), backend_options=dict(OPTIONS))
