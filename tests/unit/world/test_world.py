"""The test world as a whole: what its scripts do, and that it runs as a program."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from imgbuilder.config import parse
from imgbuilder.core.builds import WorkspaceSeen
from imgbuilder.core.manifests import MEDIA_TYPES
from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.wsman.client import WorkspaceManagerClient
from tests.helpers import in_own_task
from tests.world.requests import start_request
from tests.world.scripts import (
    FAILURE,
    Script,
    failing,
    idle,
    leaving_no_image,
    succeeding,
    vanishing,
    waiting,
)
from tests.world.world import World

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world."""
    async with in_own_task(World()) as world:
        yield world


async def _build(world: World, script: Script, last: str) -> WorkspaceSeen:
    """Run *script* in a workspace; what a subscriber sees of it in the end, in phase *last*."""
    world.script = script
    async with WorkspaceManagerClient(world.wsman_address) as client, client.subscribe() as changes:
        await client.start(start_request("one", ref=world.workspace_ref("1")))
        async for change in changes:
            if change.phase == last:
                break
        world.manager.add(start_request("two"))
        assert (await anext(changes)).build_id == "two"  # and no further change of the first
    return change


async def _has_image(world: World) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.head(
            f"{world.registry.url}/v2/workspace-images/manifests/1",
            headers={"Accept": MEDIA_TYPES},
        )
    return answer.status_code == 200


@pytest.mark.parametrize(
    ("script", "last", "failure", "image"),
    [
        (succeeding(), "STOPPED", "", True),
        (failing(), "STOPPED", FAILURE, False),
        (leaving_no_image(), "STOPPED", "", False),
        (vanishing(), "RUNNING", "", False),
        (vanishing(image=True), "RUNNING", "", True),
        (idle, "PENDING", "", False),
    ],
    ids=["succeeding", "failing", "leaving no image", "vanishing", "vanishing with image", "idle"],
)
async def test_scripts_do_what_they_are_called(
    world: World,
    script: Script,
    last: str,
    failure: str,
    image: bool,
) -> None:
    """Each script ends in its phase, with its failure, with an image or without."""
    assert (await _build(world, script, last)).failure == failure
    assert await _has_image(world) is image
    assert ("one" in world.manager.workspaces) is (script is idle)


async def test_output_is_heard(world: World) -> None:
    """A script can wait for a listener, who then gets all lines and the exit code."""
    world.script = succeeding(["first", "second"], heard=True)
    workspace = world.start(start_request("one", ref=world.workspace_ref("1")))
    headers = {"x-gitpod-owner-token": workspace.owner_token}
    await world.manager.wait_until(lambda: workspace.phase is WorkspacePhase.RUNNING)
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        tasks = (await client.get(f"{workspace.url}/_supervisor/v1/status/tasks")).json()["result"]["tasks"]
        listen = await client.get(f"{workspace.url}/_supervisor/v1/terminal/listen/{tasks[0]['terminal']}")
    lines = [json.loads(line)["result"] for line in listen.text.splitlines()]
    assert [sorted(line) for line in lines] == [["data"], ["data"], ["exitCode"]]


async def test_stopping_a_workspace_stops_its_script(world: World) -> None:
    """A build that was told to stop leaves no image."""
    finish = anyio.Event()
    world.script = waiting(finish)
    async with WorkspaceManagerClient(world.wsman_address) as client:
        await client.start(start_request("one", ref=world.workspace_ref("1")))
        await client.stop("one")
    finish.set()
    await anyio.wait_all_tasks_blocked()
    assert not await _has_image(world)


async def test_configuration_fits(world: World) -> None:
    """A service takes the configuration as it is, with whatever is overridden at any depth."""
    config = world.service_config(orchestrator={"pullSecret": "other"}, logs={"memory": "1KiB"})
    loaded = parse("config.json", json.dumps(config).encode())
    assert not loaded.unknown_keys
    assert loaded.config.orchestrator.pull_secret == "other"
    assert loaded.config.orchestrator.wsman.address == world.manager.address
    assert loaded.config.logs.memory == 1024


async def test_it_is_a_program() -> None:
    """``python -m tests.world`` says where things are, serves, and ends when interrupted."""
    command = [sys.executable, "-m", "tests.world", "--wsman-port=0", "--registry-port=0", "--pause=0"]
    async with await anyio.open_process(command, stderr=None, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        words = ""
        while "Ctrl-C" not in words:
            words += (await process.stdout.receive()).decode()
        address, registry = re.findall(r" is at +(\S+)", words)
        async with WorkspaceManagerClient(address) as client, client.subscribe() as changes:
            await client.start(start_request("one", ref=f"{registry}/workspace-images:1"))
            async for change in changes:
                if change.stopped:
                    break
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
