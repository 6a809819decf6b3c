"""What a build costs: requests to registries and to the workspace manager, and memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Client, connected, dockerfile, reference, selected, statuses
from tests.contract.service.conftest import get, series_of, serving, unobserved
from tests.helpers import in_own_task
from tests.world.process import ServiceProcess, service_process
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import Stage, succeeding
from tests.world.world import World

AUTH: Final = selected(base=True)
BUILDS: Final = 2_000
WARM: Final = 500
AT_ONCE: Final = 10
WITH_LOG: Final = 10
WHOLE: Final = succeeding(["some output"] * 20)
"""What happens in every tenth of the builds; in the others as little as there can be."""

MORE: Final = 6 << 20
"""Bytes that the service may have more after all builds than after the first of them: noise of the allocator."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world whose registry gives tokens to the service."""
    registry = FakeRegistry(authentication="token", users={"service": "password"})
    async with in_own_task(World(registry=registry)) as world:
        yield world


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    """A client of a service that has just started."""
    async with in_own_task(serving(unobserved(world))) as served:
        yield served.client


class Requests:
    """Counts the requests of builds to the registry, until the start and after it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._succeed = succeeding()
        self._at_start = 0
        world.script = self._script

    async def of_a_build(self, client: Client, ref: str) -> tuple[list[str], list[str]]:
        """What the registry is asked for a build that is made."""
        registry = self._world.registry
        before = len(registry.requests)
        responses = await client.build(reference(ref), auth=AUTH, force_rebuild=False)
        assert statuses(responses)[-1] == "done_success"
        assert statuses(responses)[0] == "running"
        seen = registry.seen()
        return seen[before : self._at_start], seen[self._at_start :]

    async def _script(self, stage: Stage) -> None:
        self._at_start = len(self._world.registry.requests)
        await self._succeed(stage)


async def test_requests_to_registries(world: World, client: Client) -> None:
    """Cold 5 before the start and 1 after the end; warm 2 and 1; of a digest that was seen before 1 and 1."""
    requests = Requests(world)
    refs = [world.seed_base_image(tag=tag) for tag in ("1", "2", "3")]
    challenge, token = "GET manifest", "GET token"
    resolve, exists = "GET manifest", "HEAD manifest"
    cold = await requests.of_a_build(client, refs[0])
    assert cold == ([challenge, token, resolve, token, exists], [exists])
    warm = await requests.of_a_build(client, refs[1])
    assert warm == ([resolve, exists], [exists])
    digest = await client.resolve(refs[2], AUTH)
    assert await requests.of_a_build(client, digest) == ([exists], [exists])


async def test_calls_to_the_workspace_manager(world: World, client: Client) -> None:
    """A build is looked for and started, and the rest is heard over the one subscription."""
    await world.manager.wait_for_calls("GetWorkspaces")
    before = len(world.manager.calls)
    await client.build(dockerfile())
    assert [call.method for call in world.manager.calls[before:]] == ["GetWorkspaces", "StartWorkspace"]
    assert len(world.manager.received("Subscribe")) == 1


@pytest.mark.timeout(180)  # it takes half a minute on a machine that has nothing else to do
async def test_memory_stays_flat_over_two_thousand_builds(tmp_path: Path) -> None:
    """The process has as much after all of them as after the first quarter, where few ended builds are kept."""
    settings = {"builds": {"keepEnded": 20}, "logs": {"retention": "1s"}}
    async with (
        World(script=at_once) as world,
        service_process(world.service_config(**settings), tmp_path) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
    ):
        numbers = iter(range(BUILDS))

        async def build(until: int) -> None:
            for number in numbers:
                whole = number % WITH_LOG == 0
                world.script = WHOLE if whole else at_once
                responses = await client.build(dockerfile(version=str(number)))
                assert statuses(responses)[-1] == "done_success"
                if whole:
                    assert await client.log(build_ref=responses[-1].ref)
                if number >= until:
                    return

        async def memory_after(number: int) -> float:
            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(build, number)
            shown = await shown_by(process)
            return shown["process_resident_memory_bytes"]

        warm = await memory_after(WARM)
        end = await memory_after(BUILDS)
        shown = await shown_by(process)
        process.records.clear()
    assert shown['gitpod_image_builder_builds_done_total{success="true"}'] == BUILDS
    assert end - warm < MORE, f"{warm / (1 << 20):.1f} MiB, then {end / (1 << 20):.1f} MiB"


async def shown_by(process: ServiceProcess) -> dict[str, float]:
    """The numbers at ``/metrics``."""
    return series_of((await get(process.metrics_port, "/metrics")).text)


async def at_once(stage: Stage) -> None:
    """A build that leaves its image and ends."""
    stage.push()
    stage.advance(WorkspacePhase.STOPPED)
