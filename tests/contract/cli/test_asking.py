"""``imgbuilder list``, ``logs``, ``resolve`` and ``health`` against the real service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from imgbuilder.pb.builder import BuildInfo, BuildRequest, BuildStatus
from tests.contract.cli.conftest import Cli, one_line, started
from tests.contract.cli.others import Lists, grpc
from tests.contract.service.client import reference
from tests.contract.service.conftest import Served
from tests.world.scripts import LINES, succeeding, waiting
from tests.world.world import World

LOG = ["Connecting to log output ...", "Connected to log output ..."]


@asynccontextmanager
async def running(world: World, served: Served, *refs: str) -> AsyncIterator[list[str]]:
    """Builds that run inside the block; their ids."""
    finish = anyio.Event()
    world.script = waiting(finish)
    ids = []
    for ref in refs:
        async with served.client.open(BuildRequest(source=reference(ref))) as call:
            ids.append((await call.next()).info.build_id)
    try:
        yield ids
    finally:
        finish.set()


# --- list -----------------------------------------------------------------------------------------------------


async def test_no_builds(ask: Cli) -> None:
    """Is said beside the output, which is empty."""
    ran = await ask("list")
    assert (ran.status, ran.out, ran.err) == (0, "", "no builds are running\n")
    assert (await ask("list", "-o", "json")).documents == [{"builds": []}]


async def test_builds_with_their_ages(ask: Cli, world: World, served: Served) -> None:
    """As a table, the oldest first; hashes are cut unless they are asked for."""
    refs = [world.seed_base_image(tag=tag) for tag in ("a", "b")]
    async with running(world, served, *refs) as ids:
        table = await ask("list")
        full = await ask("list", "--full")
        documents = (await ask("list", "-o", "json")).documents
        paths = await ask("list", "-o", "jsonpath={.builds[*].buildId}")
    assert table.lines[0].split() == ["BUILD", "AGE", "STATUS", "IMAGE", "BASE"]
    assert {line.split()[0] for line in table.lines[1:]} == set(ids)
    assert all("…" in line and line.split()[2] == "running" for line in table.lines[1:])
    assert "…" not in full.out
    assert {one["buildId"] for one in documents[0]["builds"]} == set(ids) == set(paths.lines)
    for workspace in world.manager.workspaces.values():
        assert workspace.owner_token not in full.out + str(documents)


def info(number: int, status: BuildStatus = BuildStatus.running) -> BuildInfo:
    """A build in a list."""
    return BuildInfo(ref=f"host/w:{number}", build_id=f"id-{number}", started_at=1, status=status)


async def test_watching_what_changes(cli: Cli) -> None:
    """A line when a build comes and when it goes. What passes is waited for, and what does not ends it."""
    async with grpc(Lists([], [info(1)], None, [info(1), info(2)], [info(2)])) as address:
        ran = await cli("list", "--watch", "--interval", "1ms", "--host", address)
    assert [line.split()[1:3] for line in ran.lines] == [
        ["running", "id-1"],
        ["running", "id-2"],
        ["ended", "id-1"],
    ]
    assert (ran.status, ran.err) == (2, "imgbuilder list: the end of the world (INTERNAL)\n")


async def test_watching_for_programs(cli: Cli) -> None:
    """A document whenever something has changed."""
    async with grpc(Lists([], [], [info(1)], [info(1)], [info(2)])) as address:
        ran = await cli("list", "-w", "--interval", "1ms", "--host", address, "-o", "json")
    ids = [[build["buildId"] for build in document["builds"]] for document in ran.documents]
    assert ids == [[], ["id-1"], ["id-2"]]


# --- logs -----------------------------------------------------------------------------------------------------


async def test_the_log_of_a_build(ask: Cli, world: World) -> None:
    """By the build's id or its workspace image, also when it has ended; from its first byte."""
    ref = world.seed_base_image()
    image = (await ask("build", "--ref", ref, "-q")).out.strip()
    (build_id,) = started(world)
    for name in (build_id, image):
        ran = await ask("logs", name)
        assert (ran.status, ran.lines, ran.err) == (0, [*LOG, *LINES], "")


async def test_the_log_so_far(ask: Cli, world: World, served: Served) -> None:
    """Without following, it ends with what there is."""
    async with running(world, served, world.seed_base_image()) as (build_id,):
        await world.supervisors.until(
            lambda: any(one.listeners for one in world.supervisors.workspaces.values())
        )
        ran = await ask("logs", build_id, "--no-follow")
        assert ran.lines[:2] == LOG
    followed = await ask("logs", build_id, "--follow")
    assert followed.lines == [*LOG, *LINES]


async def test_a_log_that_steers_terminals(ask: Cli, world: World) -> None:
    """Is shown as text, unless every byte is asked for."""
    world.script = succeeding(["\x1b]0;title\x07\x1b[31mred\x1b[0m", "10%\r100%"])
    await ask("build", "--ref", world.seed_base_image(), "-q")
    (build_id,) = started(world)
    assert (await ask("logs", build_id)).lines == [*LOG, "red", "100%"]


async def test_no_such_build(ask: Cli) -> None:
    """Exit status 1, and what to give."""
    for name in ("10000000-0000-0000-0000-000000000000", "ubuntu"):
        ran = await ask("logs", name)
        one_line(
            ran, f"imgbuilder logs: {name}: there is no such build that runs, or ended a short while ago"
        )
        assert ran.status == 1


# --- resolve --------------------------------------------------------------------------------------------------


async def test_a_base_image(ask: Cli, world: World) -> None:
    """In its digest form."""
    ref = world.seed_base_image()
    ran = await ask("resolve", "base-image", ref)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(ref.removesuffix(":latest") + "@sha256:")
    assert (await ask("resolve", "base-image", ref, "-o", "jsonpath=ref")).out == ran.out
    missing = await ask("resolve", "base-image", f"{world.registry.host}/none:1")
    one_line(missing, "cannot resolve image (NOT_FOUND): its registry does not have it, check name and tag")
    assert missing.status == 1


async def test_a_workspace_image(ask: Cli, world: World) -> None:
    """Its name, and whether it exists."""
    ref = world.seed_base_image()
    options = ["resolve", "workspace-image", "--ref", ref]
    before = await ask(*options)
    assert before.lines[2] == "exists   no"
    image = (await ask("build", "--ref", ref, "-q")).out.strip()
    assert before.lines[0] == f"image    {image}"
    (document,) = (await ask(*options, "-o", "json")).documents
    assert (document["ref"], document["exists"], document["status"]) == (image, True, "done_success")
    git = await ask("resolve", "workspace-image", "--git", "https://git.test/a.git", "--no-pin")
    assert git.lines[1].startswith(f"base     {world.registry.host}/base-images:")


# --- health ---------------------------------------------------------------------------------------------------


async def test_health(ask: Cli, cli: Cli) -> None:
    """Exit status 0 if it serves, and 2 if it does not."""
    for options in ([], ["--service", "builder.ImageBuilder"]):
        ran = await ask("health", *options)
        assert (ran.status, ran.out) == (0, "SERVING\n")
    ran = await ask("health", "--service", "nothing", "-o", "json")
    assert (ran.status, ran.documents) == (2, [{"service": "nothing", "status": "SERVICE_UNKNOWN"}])
    async with grpc(Lists()) as address:
        ran = await cli("health", "--host", address)
    one_line(ran, f"what answers at {address} does not know grpc.health.v1.Health/Check")
    assert ran.status == 2
