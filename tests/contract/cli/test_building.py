"""``imgbuilder build`` and ``build-batch`` against the real service."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from imgbuilder.pb.builder import BuildRequest
from imgbuilder.pb.contentservice import CloneTargetMode
from tests.contract.cli.conftest import UUID, Cli, Ran, one_line, started, written
from tests.contract.service.client import reference
from tests.contract.service.conftest import Served
from tests.helpers import in_own_task
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import LINES, failing, idle, waiting
from tests.world.world import World

LOG = ["Connecting to log output ...", "Connected to log output ..."]


async def test_a_build_is_shown_from_its_beginning_to_its_end(ask: Cli, world: World) -> None:
    """Its id, its output, how long it took, and last the workspace image, for scripts."""
    ref = world.seed_base_image()
    ran = await ask("build", "--ref", ref)
    assert (ran.status, ran.err) == (0, "")
    (build_id,) = UUID.findall(ran.lines[0])
    assert ran.lines[:-2] == [f"==> build {build_id}", *LOG, *LINES]
    assert ran.lines[-2].startswith("==> built in ")
    assert ran.lines[-1].startswith(f"{world.registry.host}/workspace-images:")
    assert started(world) == [build_id]


async def test_what_exists_is_not_built(ask: Cli, world: World) -> None:
    """Unless it is forced."""
    ref = world.seed_base_image()
    first = await ask("build", "--ref", ref)
    again = await ask("build", "--ref", ref)
    assert (again.status, again.lines) == (0, ["==> it exists already", first.lines[-1]])
    forced = await ask("build", "--ref", ref, "--force", "--quiet")
    assert (forced.status, forced.lines) == (0, [first.lines[-1]])
    assert len(started(world)) == 2


async def test_a_build_that_fails(ask: Cli, world: World) -> None:
    """Exit status 1, its output, and why."""
    world.script = failing()
    ran = await ask("build", "--ref", world.seed_base_image())
    assert ran.status == 1
    assert ran.lines[1:] == [*LOG, *LINES[:2]]
    assert ran.err.startswith("imgbuilder build: the build failed after ")
    assert ran.err.endswith(": headless task failed: exit status 1\n")


async def test_lines_of_json(ask: Cli, world: World) -> None:
    """A line for each change and each line of output; no token of a workspace is in them."""
    ran = await ask("build", "--ref", world.seed_base_image(), "-o", "json")
    assert (ran.status, ran.err) == (0, "")
    documents = ran.documents
    assert [one["line"] for one in documents if one["type"] == "log"] == [*LOG, *LINES]
    states = [one for one in documents if one["type"] == "status"]
    assert (states[0]["status"], states[-1]["status"]) == ("running", "done_success")
    assert set(states[0]) == {"type", "ref", "baseRef", "status", "message", "buildId", "startedAt", "logUrl"}
    assert "token" not in ran.out.lower()


@pytest.mark.parametrize(
    ("form", "printed"),
    [("jsonpath={.status}", "done_success"), ("template={{ status }} {{ baseRef }}", "done_success {base}")],
)
async def test_the_result_alone_for_a_program(ask: Cli, world: World, form: str, printed: str) -> None:
    """Progress goes to standard error."""
    ref = world.seed_base_image()
    ran = await ask("build", "--ref", ref, "-o", form)
    base = (await ask("resolve", "base-image", ref)).out.strip()
    assert (ran.status, ran.out) == (0, printed.format(base=base) + "\n")
    assert ran.err.splitlines()[1:] == [*LOG, *LINES]


async def test_a_repository(ask: Cli, world: World) -> None:
    """What the options say is what the workspace is started with."""
    ran = await ask(
        *("build", "--git", "https://git.test/a.git", "--no-pin", "--revision", "main"),
        *("--dockerfile", "a/Dockerfile"),
        *("--context", "a", "--owner", "me"),
    )
    assert ran.status == 0
    (request,) = world.manager.received("StartWorkspace")
    git = request.spec.initializer.git
    assert (git.remote_uri, git.clone_taget) == ("https://git.test/a.git", "main")
    assert git.target_mode == CloneTargetMode.REMOTE_BRANCH
    variables = {one.name: one.value for one in request.spec.envvars}
    assert variables["BOB_DOCKERFILE_PATH"] == "/workspace/a/Dockerfile"
    assert variables["BOB_CONTEXT_DIR"] == "/workspace/a"
    assert request.metadata.owner == "me"

    again = await ask("build", "--git", "https://git.test/a.git", "--no-pin", "--revision", "main")
    assert again.lines[-2].startswith("==> built in ")  # another Dockerfile
    once_more = await ask("build", "--git", "https://git.test/a.git", "--no-pin", "--revision", "main")
    assert once_more.lines[0] == "==> it exists already"
    assert once_more.err == "==> 'main' is no commit: for what it has now, name the commit, or use --force\n"


@pytest.mark.parametrize("option", [[], ["--source"]])
async def test_a_file_of_another_tool(ask: Cli, world: World, tmp_path: Path, option: list[str]) -> None:
    """A whole request; what an option says comes before what it says."""
    source: dict[str, Any] = {
        "file": {"source": {"git": {"remoteUri": "https://git.test/b.git", "clone_taget": "dev"}}}
    }
    file = written(tmp_path / "request.json", {"source": source, "triggeredBy": "tool", "forceRebuild": True})
    assert (await ask("build", *option, file)).status == 0
    assert (await ask("build", *option, file, "--owner", "me")).status == 0
    first, second = world.manager.received("StartWorkspace")
    assert first.spec.initializer.git.remote_uri == "https://git.test/b.git"
    assert (first.metadata.owner, second.metadata.owner) == ("tool", "me")


async def test_an_image_that_is_not_there(ask: Cli, world: World) -> None:
    """Is an answer, exit status 1, and says what to check."""
    ran = await ask("build", "--ref", f"{world.registry.host}/none:1")
    one_line(ran, "cannot resolve image (NOT_FOUND): its registry does not have it, check name and tag")
    assert ran.status == 1


async def test_a_build_is_watched_for_a_while(ask: Cli, world: World, served: Served) -> None:
    """Then it goes on, and how to watch it again is said."""
    world.script = idle
    ref = world.seed_base_image()
    async with served.client.open(BuildRequest(source=reference(ref))) as call:
        build_id = (await call.next()).info.build_id
    ran = await ask("build", "--ref", ref, "--timeout", "1500ms")
    assert ran.status == 2
    assert ran.lines[0] == f"==> build {build_id}"
    assert "it still runs after 1.5 s; the build goes on. To watch it again: imgbuilder logs " in ran.err
    assert not world.manager.received("StopWorkspace")


# --- credentials ----------------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> FakeRegistry:
    """A registry that asks for credentials: the service has the first of these."""
    return FakeRegistry(authentication="basic", users={"service": "hunter1", "me": "hunter2"})


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The usual world; one whose registry asks for credentials, for tests of those."""
    guarded = "registry" in request.fixturenames
    registry = request.getfixturevalue("registry") if guarded else None
    async with in_own_task(World(registry=registry)) as world:
        yield world


async def test_credentials_of_the_service(ask: Cli, world: World, registry: FakeRegistry) -> None:
    """None are used unless it is said."""
    ref = world.seed_base_image()
    refused = await ask("resolve", "base-image", ref)
    one_line(
        refused, "cannot resolve image (UNAUTHENTICATED): its registry refused, see --auth and --auth-file"
    )
    assert refused.status == 1
    for grant in ("all", "base", "workspace", registry.host):
        assert (await ask("resolve", "base-image", ref, "--auth", grant)).status == 0


async def test_credentials_of_ours(
    ask: Cli, world: World, registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of a variable, a file, or Docker's config.json; they are never printed."""
    ref = world.seed_base_image()
    monkeypatch.setenv("LOGIN", "me:hunter2")
    (tmp_path / "login").write_text("me:hunter2\n")
    login = {"auth": base64.b64encode(b"me:hunter2").decode()}
    docker = written(tmp_path / "config.json", {"auths": {registry.host: login}})
    for options in (
        ["--auth", f"{registry.host}=env:LOGIN"],
        ["--auth", f"{registry.host}=file:{tmp_path / 'login'}"],
        ["--auth-file", docker],
    ):
        ran = await ask("resolve", "base-image", ref, *options)
        assert ran.status == 0, ran.err
    monkeypatch.setenv("LOGIN", "me:hunter3")
    ran = await ask("build", "--ref", ref, "--auth", f"{registry.host}=env:LOGIN")
    one_line(ran, "UNAUTHENTICATED")
    assert "hunter3" not in ran.err


# --- many -----------------------------------------------------------------------------------------------------


async def test_a_batch(ask: Cli, world: World) -> None:
    """One line for each as it ends, and a summary; exit status 1 if one failed."""
    refs = [world.seed_base_image(tag=str(number)) for number in range(3)]
    listed = f"# all\n{refs[0]}\n\n  {refs[1]}  # the second\n{refs[2]}\n"
    ran = await ask("build-batch", "-j", "2", stdin=listed)
    assert (ran.status, ran.err) == (0, "")
    assert {line.split()[3] for line in ran.lines[:3]} == set(refs)
    assert [line[:5] for line in ran.lines[:3]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert ran.lines[3].startswith("==> 3 of 3 images are there, after ")

    none = f"{world.registry.host}/none:1"
    ran = await ask("build-batch", stdin=f"{refs[0]}\n{none}\n")
    assert ran.status == 1
    assert ran.lines[2].startswith("==> 1 of 2 images are there, after ")
    assert ran.err == f"==> failed: {none}: cannot resolve image (NOT_FOUND)\n"


async def test_a_batch_for_programs(ask: Cli, world: World, tmp_path: Path) -> None:
    """Lines of JSON as they end; a path or template sees all of them."""
    refs = [world.seed_base_image(tag=str(number)) for number in range(2)]
    file = tmp_path / "list"
    file.write_text("\n".join(refs))
    ran = await ask("build-batch", str(file), "-o", "json")
    *results, summary = ran.documents
    assert {one["image"] for one in results} == set(refs)
    assert (summary["summary"]["succeeded"], summary["summary"]["failed"]) == (2, 0)
    ran = await ask("build-batch", str(file), "-o", "jsonpath={.results[*].image}")
    assert ran.lines == refs
    ran = await ask("build-batch", str(file), "-o", "template={{ succeeded }}/{{ results|length }}")
    assert ran.lines == ["2/2"]


async def test_so_many_at_a_time(ask: Cli, world: World) -> None:
    """And no more."""
    finish = anyio.Event()
    world.script = waiting(finish)
    refs = [world.seed_base_image(tag=str(number)) for number in range(4)]
    ran: list[Ran] = []

    async def run() -> None:
        ran.append(await ask("build-batch", "--concurrency", "2", stdin="\n".join(refs)))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await world.manager.wait_for_start(2)
        most = len(world.manager.received("StartWorkspace"))
        finish.set()
    assert most == 2
    assert ran[0].status == 0
    assert len(world.manager.received("StartWorkspace")) == 4
