"""Docker, with a program that only pretends: how it is found, what it is told, and what is cleaned up."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import anyio
import pytest

from imgbuilder.standalone.engines.docker import DockerEngine, Mode
from imgbuilder.standalone.engines.layouts import open_layout
from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    EngineError,
    EngineSettings,
    Unavailable,
)
from imgbuilder.standalone.processes import Tail
from tests.unit.standalone.engines import images
from tests.unit.standalone.engines.conftest import PASSWORD
from tests.unit.standalone.engines.programs import Programs, auths
from tests.unit.standalone.engines.test_layouts import digest

NO_EXPORT = "echo 'ERROR: OCI exporter is not supported for the docker driver.' >&2; exit 1"


class Docker:
    """A command ``docker`` with a daemon."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.programs = programs
        self.layout = images.layout(folder / "layout")
        tar = images.layer("file", b"hello")
        self.archive = images.archive(folder / "archive.tar", [tar], [digest(tar)])
        self.has()

    def has(
        self,
        *,
        version: str = "28.0.1",
        buildx: bool = True,
        exports: bool = True,
        script: str = "",
    ) -> None:
        """Install it.

        :param script: what it does before it builds.
        """
        export = f'cp -r {self.layout.path} "$destination"' if exports else NO_EXPORT
        self.programs.add(
            "docker",
            f"""
case "$1 $2" in
    "version "*) echo "{version} amd64"; exit 0 ;;
    "buildx version") exit {0 if buildx else 1} ;;
    "save "*) cp {self.archive} "$(after --output "$@")"; exit 0 ;;
    "image ls") echo tag-1; echo tag-2; exit 0 ;;
    "image "*) exit 0 ;;
esac
{script}
if [ -n "$destination" ]; then
    {export}
fi
""",
        )


@pytest.fixture
def docker(programs: Programs, tmp_path: Path) -> Docker:
    """With buildx that can export layouts."""
    return Docker(programs, tmp_path)


# --- probing ---


async def test_a_command_without_a_daemon_is_no_engine(programs: Programs, settings: EngineSettings) -> None:
    """The reason is the command's."""
    assert await DockerEngine(settings).probe() == Unavailable(
        reason="docker is not installed", hint="install Docker"
    )
    programs.add("docker", "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1\n")
    found = await DockerEngine(settings).probe()
    assert isinstance(found, Unavailable)
    assert found.reason == "Cannot connect to the Docker daemon at unix:///x."
    programs.add("docker", "exec sleep 60\n")
    found = await DockerEngine(dataclasses.replace(settings, probe_limit=0.1)).probe()
    assert isinstance(found, Unavailable)
    assert found.reason == "the Docker daemon takes too long to answer"


@pytest.mark.parametrize(
    ("buildx", "exports", "mode", "limits"),
    [
        (True, True, Mode.LAYOUT, False),
        (True, False, Mode.SAVED, False),
        (False, False, Mode.LEGACY, True),
    ],
)
async def test_the_best_way_that_works_is_taken(
    docker: Docker,
    settings: EngineSettings,
    request_: BuildRequest,
    buildx: bool,
    exports: bool,
    mode: Mode,
    limits: bool,
) -> None:
    """Each ends in the same layout; in the daemon nothing of it stays."""
    docker.has(buildx=buildx, exports=exports)
    engine = DockerEngine(settings)
    found = await engine.probe()
    assert isinstance(found, Capabilities)
    assert (found.version, found.limits, found.bounded_cache) == ("28.0.1", limits, False)
    docker.programs.record.unlink()
    layout = await engine.build(request_, Tail())
    assert open_layout(request_.scratch / "layout") == layout
    assert [entry.name for entry in request_.scratch.iterdir()] == ["layout"]
    calls = docker.programs.calls
    options = dict(itertools.pairwise(calls[0]))
    assert options["--file"] == str(request_.dockerfile)
    assert calls[0][-1] == str(request_.context)
    assert "--pull" in calls[0]
    if mode is Mode.LAYOUT:
        assert options["--output"] == f"type=oci,tar=false,dest={request_.scratch / 'layout'}"
        assert len(calls) == 1
    else:
        image = options["--tag"]
        assert image.startswith("imgbuilder.invalid/")
        assert image.endswith(":4711")
        assert docker.programs.calls_of("save", image)
        assert calls[-1] == ["docker", "image", "rm", "--no-prune", image]
    if mode is Mode.LEGACY:
        assert options["--memory"] == "1000000b"
        assert options["--cpu-quota"] == "150000"


async def test_a_docker_that_builds_nothing_is_no_engine(docker: Docker, settings: EngineSettings) -> None:
    """The reasons are those of each way."""
    docker.has(script="echo 'ERROR: out of order' >&2; exit 1")
    found = await DockerEngine(settings).probe()
    assert isinstance(found, Unavailable)
    assert found.reason.count("out of order") == 2
    with pytest.raises(EngineError, match="was not found to work"):
        await DockerEngine(settings).build(None, Tail())  # type: ignore[arg-type]  # not looked at


# --- building ---


async def test_credentials_are_the_builds_and_the_rest_is_the_owners(
    docker: Docker,
    settings: EngineSettings,
    request_: BuildRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The owner's contexts and plugins are used, and not the credentials."""
    own = tmp_path / "home" / ".docker"
    (own / "contexts" / "meta").mkdir(parents=True)
    (own / "cli-plugins").mkdir()
    owner_config = {
        "auths": {"registry.example": {"auth": "b3duZXI6c2VjcmV0"}},
        "credsStore": "keychain",
        "currentContext": "colima",
    }
    (own / "config.json").write_text(json.dumps(owner_config))
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere/docker.sock")
    seen = tmp_path / "seen"
    docker.has(
        script=f"""
cp "$DOCKER_CONFIG/config.json" '{seen}'
ls "$DOCKER_CONFIG" "$DOCKER_CONFIG/contexts"
echo "at $DOCKER_HOST, builders in $BUILDX_CONFIG"
""",
    )
    engine = DockerEngine(settings)
    await engine.probe()
    said = Tail()
    await engine.build(request_, said)
    assert auths(seen.read_text()) == {"registry.example": {"auth": "dXNlcjpwYXNzLTdmM2E="}}
    assert json.loads(seen.read_text())["currentContext"] == "colima"
    assert "credsStore" not in seen.read_text()
    assert {"cli-plugins", "contexts", "meta"} <= set(said.text().split())
    assert f"at unix:///somewhere/docker.sock, builders in {own / 'buildx'}" in said.text()
    assert not [word for call in docker.programs.calls for word in call if PASSWORD in word]
    assert (own / "contexts" / "meta").exists()  # only the links to it are gone


@pytest.mark.parametrize("content", ["nonsense", "[]", '"text"'])
async def test_settings_of_the_owner_that_cant_be_read_do_not_matter(
    docker: Docker, settings: EngineSettings, content: str, tmp_path: Path
) -> None:
    """Docker itself would say so."""
    own = tmp_path / "home" / ".docker"
    own.mkdir(parents=True)
    (own / "config.json").write_text(content)
    assert isinstance(await DockerEngine(settings).probe(), Capabilities)


async def test_network_and_cache_are_said_to_docker(
    docker: Docker, settings: EngineSettings, request_: BuildRequest
) -> None:
    """Where they differ from what is usual."""
    engine = DockerEngine(settings)
    await engine.probe()
    docker.programs.record.unlink()
    await engine.build(dataclasses.replace(request_, network="none", no_cache=True), Tail())
    assert {"--network=none", "--no-cache"} <= set(docker.programs.calls[0])


async def test_a_failing_run_is_the_authors_fault(
    docker: Docker, settings: EngineSettings, request_: BuildRequest
) -> None:
    """And leaves nothing, neither here nor in the daemon."""
    docker.has(exports=False)
    engine = DockerEngine(settings)
    await engine.probe()
    docker.has(
        exports=False,
        script="echo 'ERROR: failed to solve: process \"x\" did not complete successfully: exit code: 5' >&2; exit 1",
    )
    with pytest.raises(BuildFailedError) as failed:
        await engine.build(request_, Tail())
    assert failed.value.exit_status == 5
    assert list(request_.scratch.iterdir()) == []
    assert docker.programs.calls[-1][1:3] == ["image", "rm"]


async def test_a_frontend_is_not_pulled(
    docker: Docker, settings: EngineSettings, request_: BuildRequest, tmp_path: Path
) -> None:
    """A copy without the syntax line is built, with the ignore file that is beside it."""
    request_.dockerfile.write_text("# syntax=docker/dockerfile:1\nFROM scratch\n")
    request_.dockerfile.with_name("Dockerfile.dockerignore").write_text("secrets\n")
    seen = tmp_path / "seen"
    docker.has(script=f'file="$(after --file "$@")"; cp "$file" {seen}; cat "$file.dockerignore"')
    engine = DockerEngine(settings)
    await engine.probe()
    said = Tail()
    await engine.build(request_, said)
    assert seen.read_text() == "#\nFROM scratch\n"
    assert "secrets\n" in said.text()
    assert "not docker/dockerfile:1\n" in said.text()
    assert [entry.name for entry in request_.scratch.iterdir()] == ["layout"]


async def test_an_old_daemon_knows_no_here_documents(
    docker: Docker, settings: EngineSettings, request_: BuildRequest
) -> None:
    """The one of Debian 12, for instance."""
    docker.has(version="20.10.24+dfsg1", exports=False)
    engine = DockerEngine(settings)
    await engine.probe()
    request_.dockerfile.write_text("FROM scratch\nCOPY <<EOF /x\nEOF\n")
    with pytest.raises(BuildFailedError, match="here-documents"):
        await engine.build(request_, Tail())


async def test_cancelling_ends_the_command_and_removes_the_image(
    docker: Docker, settings: EngineSettings, request_: BuildRequest
) -> None:
    """Also one that it had made before."""
    docker.has(exports=False)
    engine = DockerEngine(settings)
    await engine.probe()
    docker.has(exports=False, script="echo at work; exec sleep 60")
    begun = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(engine.build, request_, lambda _: begun.set())
        await begun.wait()
        group.cancel_scope.cancel()
    assert docker.programs.calls[-1][1:3] == ["image", "rm"]
    assert list(request_.scratch.iterdir()) == []


# --- sweeping ---


async def test_sweeping_removes_images_that_were_not_taken_over(
    docker: Docker, settings: EngineSettings
) -> None:
    """Those of this data folder, by their name."""
    (settings.data_dir / "engines" / "docker").mkdir(parents=True)
    await DockerEngine(settings).sweep()
    removed = [call[-1] for call in docker.programs.calls_of("image", "rm")]
    assert [image.rpartition(":")[2] for image in removed] == ["tag-1", "tag-2"]
    listing = docker.programs.calls_of("ls")[0]
    assert f"reference={removed[0].rpartition(':')[0]}" in listing


async def test_sweeping_where_docker_is_gone_does_nothing(
    programs: Programs, settings: EngineSettings
) -> None:
    """Not even fail."""
    (settings.data_dir / "engines" / "docker").mkdir(parents=True)
    await DockerEngine(settings).sweep()
    assert programs.calls == []
