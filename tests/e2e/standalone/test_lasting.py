"""What outlives a kill, and what keeps one from starting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import anyio
import httpx
import pytest

from imgbuilder.core.manifests import MEDIA_TYPES
from imgbuilder.pb.contentservice import CloneTargetMode, GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import GetWorkspacesRequest, WorkspacePhase
from tests.e2e.engines.traces import gone, mounts, processes_with, runtime_containers
from tests.e2e.standalone.programs import StandaloneProcess, need, refused_start, standalone_process
from tests.e2e.standalone.workspaces import Workspaces, failure_of, workspaces
from tests.unit.standalone.requests import build_request
from tests.world.baseimage import push_base_image
from tests.world.git import Repository
from tests.world.registries.processes import DockerRegistry

QUICK = ("--engine", "docker")
"""For tests that build no Dockerfile: where there is no Docker daemon, that is found out at once."""

OPTIONS = ("--engine", "buildah", "--allow-file-urls", "--no-image-builder")


async def start_sleeping(
    process: StandaloneProcess, client: Workspaces, folder: Path, build_id: str, marker: str
) -> None:
    """Start a build whose step sleeps, and wait until it does."""
    base = await push_base_image(DockerRegistry(host=process.registry), folder / "base")
    repository = Repository(folder / "repository")
    revision = repository.commit(Dockerfile=f"FROM {base}\nRUN exec sleep {marker}\n")
    initializer = GitInitializer(
        remote_uri=f"file://{repository.path}",
        target_mode=CloneTargetMode.REMOTE_COMMIT,
        clone_taget=revision,
    )
    request = build_request(
        build_id,
        base=f"{process.registry}/bases:1",
        target=f"{process.registry}/workspaces:1",
        initializer=WorkspaceInitializer(git=initializer),
    )
    await client.start(request)
    with anyio.fail_after(30):
        while not processes_with(f"sleep {marker}"):  # noqa: ASYNC110  # the kernel tells nobody
            await anyio.sleep(0.02)


async def test_builds_of_a_killed_instance_are_reported_by_the_next(tmp_path: Path) -> None:
    """After kill -9 and a restart they have failed with that reason, and nothing of them is left."""
    need("buildah", "docker-registry", "git")
    data = tmp_path / "data"
    with standalone_process(data, *OPTIONS) as process:
        async with workspaces(process) as client:
            await start_sleeping(process, client, tmp_path, "killed", "3391")
            before = await client.until("killed", WorkspacePhase.RUNNING)
            process.kill()
            await client._subscription.cancel()
    with standalone_process(data, *OPTIONS) as process:
        await gone("sleep 3391")
        assert not mounts(data)
        assert not runtime_containers(data)
        assert not list((data / "scratch").iterdir())  # a small folder
        async with workspaces(process) as client:
            status = await client.until("killed", WorkspacePhase.STOPPED)
            listed = await client.stub.get_workspaces(GetWorkspacesRequest())
        assert failure_of(status) == "build was interrupted: the workspace manager was restarted"
        assert status.status_version > before.status_version
        assert [found.id for found in listed.status] == ["killed"]
        assert status.metadata == before.metadata
    with standalone_process(data, *OPTIONS) as process:
        async with workspaces(process) as client:
            listed = await client.stub.get_workspaces(GetWorkspacesRequest())
    assert not listed.status


async def test_stopping_ends_everything(tmp_path: Path) -> None:
    """SIGTERM in the middle of a build: its subscriber hears of the end, and nothing is left running."""
    need("buildah", "docker-registry", "git")
    data = tmp_path / "data"
    with standalone_process(data, *OPTIONS) as process:
        async with workspaces(process) as client:
            await start_sleeping(process, client, tmp_path, "stopped", "3392")
            process.process.terminate()
            status = await client.until("stopped", WorkspacePhase.STOPPED)
        assert process.process.wait(30) == 0
    assert failure_of(status) == "build was interrupted: the workspace manager was stopped"
    assert not processes_with("sleep 3392")
    assert not processes_with(str(data))
    assert not mounts(data)
    assert not (data / "addresses.json").exists()  # a file


def test_it_says_where_everything_is(tmp_path: Path) -> None:
    """Addresses, engine and data folder, and the same for programs in a file."""
    need("docker-registry")
    with standalone_process(tmp_path / "data", *QUICK) as process:
        for address in process.addresses.values():
            assert address in process.text
        assert str(tmp_path / "data") in process.text
        assert "build engine" in process.text
        answer = httpx.get(f"http://{process.registry}/v2/")
        assert answer.status_code == 200


def test_a_second_instance_is_refused(tmp_path: Path) -> None:
    """One line that names the folder and who has it."""
    need("docker-registry")
    with standalone_process(tmp_path / "data", *QUICK, "--no-image-builder") as process:
        said = refused_start(tmp_path / "data", *QUICK)
    assert f"{tmp_path / 'data'} is in use by the process {process.process.pid}" in said


@pytest.mark.parametrize(
    "option", ["--wsman-port", "--supervisor-port", "--image-builder-port", "--registry-port"]
)
def test_a_port_that_is_taken_is_named(tmp_path: Path, option: str) -> None:
    """Whichever it is, the start ends with exit status 1 and one line."""
    need("docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused_start(tmp_path / "data", *QUICK, option, str(port))
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--registry", "127.0.0.1:1"), "no registry answers at 127.0.0.1:1"),
        (("--engine", "magic"), "unknown build engine 'magic'"),
        (("--pull-secret-file", "/nonexistent"), "/nonexistent: can't be read"),
        (("--data-dir", "/proc/x"), "the data folder /proc/x can't be used"),
    ],
)
def test_what_keeps_it_from_starting_is_said(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    """One line that says what to mend."""
    need("docker-registry")
    assert words in refused_start(tmp_path / "data", *QUICK, *options)


async def test_without_an_engine_references_can_be_built(tmp_path: Path) -> None:
    """It says so at the start, makes images of images, and fails Dockerfile builds with what to install."""
    need("docker-registry", "git")
    if "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists():  # noqa: ASYNC240  # a file
        pytest.skip("there is a Docker daemon here")
    options = ("--engine", "docker", "--no-image-builder", "--allow-file-urls")
    with standalone_process(tmp_path / "data", *options) as process:
        assert "none: only images can be built from; install docker, podman or buildah" in process.text
        base = await push_base_image(DockerRegistry(host=process.registry), tmp_path / "base")
        async with workspaces(process) as client:
            await client.start(build_request("good", base=base, target=f"{process.registry}/w:1"))
            assert not failure_of(await client.until("good", WorkspacePhase.STOPPING))
            repository = Repository(tmp_path / "repository")
            repository.commit(Dockerfile=f"FROM {base}")
            git = GitInitializer(remote_uri=f"file://{repository.path}")
            await client.start(
                build_request(
                    "bad",
                    base=f"{process.registry}/b:1",
                    target=f"{process.registry}/w:2",
                    initializer=WorkspaceInitializer(git=git),
                )
            )
            status = await client.until("bad", WorkspacePhase.STOPPING)
    assert failure_of(status) == "no Dockerfile engine: install docker, podman or buildah"


async def first_status(url: str) -> int:
    """With what *url* answers as soon as it does."""
    async with httpx.AsyncClient(headers={"Accept": MEDIA_TYPES}) as http:
        with anyio.fail_after(20):
            while True:
                try:
                    return (await http.head(url)).status_code
                except httpx.TransportError:
                    await anyio.sleep(0.05)


async def test_a_registry_that_ends_is_started_again(tmp_path: Path) -> None:
    """The registry is watched: killed, it is back on the same address, with what was in it."""
    need("docker-registry")
    with standalone_process(tmp_path / "data", *QUICK, "--no-image-builder") as process:
        base = await push_base_image(DockerRegistry(host=process.registry), tmp_path / "base")
        (pid,) = processes_with(f"{tmp_path / 'data'}/registry/config.yml")
        os.kill(pid, 9)
        manifest = f"http://{process.registry}/v2/{base.partition('/')[2].replace(':', '/manifests/')}"
        status = await first_status(manifest)
        assert status == 200
        new = processes_with(f"{tmp_path / 'data'}/registry/config.yml")
        assert pid not in new
