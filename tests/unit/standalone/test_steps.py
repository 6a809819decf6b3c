"""What a build does, with a real registry and an engine that the test plays."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.manifests import LINUX_AMD64
from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.core.references import parse_reference
from imgbuilder.pb.contentservice import GitInitializer, SnapshotInitializer, WorkspaceInitializer
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.registry.stores import fetch_manifest
from imgbuilder.standalone.buildtask import BuildTask, read_build_task
from imgbuilder.standalone.content import ContentError, ContentSettings
from imgbuilder.standalone.dockerfile import DockerfileError
from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    Engine,
    OciLayout,
    Output,
    Unavailable,
)
from imgbuilder.standalone.steps import BuildError, BuildSettings, Steps
from imgbuilder.standalone.terminal import Terminal
from imgbuilder.standalone.workspaces import Event
from imgbuilder.telemetry.metrics import Metrics
from tests.unit.registry.writing import KNOWN, DiskLayout, Seen, layout
from tests.unit.standalone.requests import build_request
from tests.world.git import Repository
from tests.world.registries.contents import image
from tests.world.registries.processes import docker_registry, htpasswd


@dataclass(slots=True)
class PlayedEngine:
    """Makes the image it was given of every Dockerfile, or fails as it was told."""

    folder: Path
    error: Exception | None = None
    requests: list[BuildRequest] = field(default_factory=list)
    entered: anyio.Event = field(default_factory=anyio.Event)
    hangs: bool = False
    name: str = "played"

    async def probe(self) -> Capabilities | Unavailable:
        """Not asked here."""
        raise NotImplementedError

    async def sweep(self) -> None:
        """Not asked here."""
        raise NotImplementedError

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """The image."""
        self.requests.append(request)
        output(b"STEP 1\n")
        self.entered.set()
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        made = layout(request.scratch / "image", image("built"))
        blobs = made.path / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for part in made.path.glob("sha256-*"):
            part.rename(blobs / part.name.removeprefix("sha256-"))
        return OciLayout(path=made.path, digest=made.digest, media_type=made.media_type)


@dataclass(slots=True)
class Keys:
    """The workspace manager's own credentials."""

    known: dict[str, Credentials] = field(default_factory=dict)

    async def credentials(self, registry: str) -> Credentials | None:
        """Those for *registry*."""
        return self.known.get(registry)


@dataclass(slots=True)
class World:
    """A registry, and builds that use it."""

    host: str
    folder: Path
    session: RegistrySession
    engine: PlayedEngine
    keys: Keys
    terminal: Terminal = field(default_factory=Terminal)
    events: list[Event] = field(default_factory=list)

    @property
    def repository(self) -> Repository:
        """What Dockerfile builds clone."""
        return Repository(self.folder / "repository")

    @property
    def said(self) -> str:
        """The terminal's contents."""
        return self.terminal.read(0).decode()

    async def run(self, task: BuildTask, *, engine: bool = True) -> None:
        """Do a build."""
        settings = BuildSettings(
            scratch=self.folder / "scratch",
            platform=LINUX_AMD64,
            insecure=frozenset({self.host}),
            content=ContentSettings(allow_file_urls=True),
        )
        used: Engine | None = self.engine if engine else None
        steps = Steps(session=self.session, engine=used, keys=self.keys, settings=settings)
        await steps.run(task, self.terminal, self.events.append)

    def dockerfile_task(self, **options: object) -> BuildTask:
        """A build of the repository's Dockerfile."""
        git = GitInitializer(remote_uri=f"file://{self.repository.path}")
        fields: dict[str, object] = {
            "base": f"{self.host}/bases:1",
            "target": f"{self.host}/workspaces:1",
            "initializer": WorkspaceInitializer(git=git),
            **options,
        }
        return read_build_task(build_request(**fields))  # type: ignore[arg-type]  # as the tests say

    async def push_base(self, credentials: Credentials | None = None) -> None:
        """Have an image under the name that `reference_task` starts from."""
        made: DiskLayout = layout(self.folder / "base", image("base"))
        target = parse_reference(f"{self.host}/bases:1")
        await push_layout(self.session, made, target, credentials=credentials, progress=Seen())

    def reference_task(self, **options: object) -> BuildTask:
        """A build of the workspace image alone."""
        return self.dockerfile_task(initializer=None, **options)

    async def digest(self, name: str, credentials: Credentials | None = None) -> str:
        """The digest of the image *name* in the registry."""
        reference = parse_reference(f"{self.host}/{name}")
        repository = self.session.repository(reference, credentials)
        return (await fetch_manifest(self.session, repository, reference, LINUX_AMD64)).digest

    def left(self) -> list[Path]:
        """What builds left in the scratch folder."""
        return list((self.folder / "scratch").iterdir())


@asynccontextmanager
async def world(folder: Path, *, private: bool = False) -> AsyncIterator[World]:
    """A registry, and a `World` around it."""
    auth = None
    (folder / "scratch").mkdir()
    (folder / "registry").mkdir()
    if private:
        (folder / "users").write_text(htpasswd({KNOWN.username: KNOWN.password.reveal()}))
        auth = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
    async with docker_registry(folder / "registry", auth) as registry:
        settings = RegistrySettings(insecure=frozenset({registry.host}))
        async with RegistrySession(settings, metrics=Metrics()) as session:
            made = World(registry.host, folder, session, PlayedEngine(folder), Keys())
            yield made
            assert not made.left()


async def test_a_dockerfile_becomes_base_and_workspace_image(tmp_path: Path) -> None:
    """The engine gets the clone, the registry gets both images, the user reads what happens."""
    async with world(tmp_path) as here:
        here.repository.commit(Dockerfile="FROM scratch\n", sub__file="x")
        await here.run(here.dockerfile_task(context="/workspace/sub"))
        assert await here.digest("bases:1") == await here.digest("workspaces:1") == image("built").digest
        (request,) = here.engine.requests
        assert request.context.name == "sub"
        assert request.dockerfile.name == "Dockerfile"
        assert request.insecure == {here.host}
        assert [type(event).__name__ for event in here.events] == ["ContentAwaited", *["Working"] * 3]
        for words in (
            "building /workspace/Dockerfile with played",
            "STEP 1",
            "pushing the base image",
            "making the workspace image",
            "mounted",
            "the workspace image is ready",
        ):
            assert words in here.said


async def test_a_reference_needs_no_engine(tmp_path: Path) -> None:
    """The base image is copied, whatever builds Dockerfiles here."""
    async with world(tmp_path) as here:
        await here.push_base()
        await here.run(here.reference_task(), engine=False)
        assert await here.digest("workspaces:1") == image("base").digest


async def test_no_engine_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    """The text is that of the contract."""
    async with world(tmp_path) as here:
        here.repository.commit(Dockerfile="FROM scratch\n")
        with pytest.raises(BuildError, match=r"^no Dockerfile engine: install docker, podman or buildah$"):
            await here.run(here.dockerfile_task(), engine=False)


@pytest.mark.parametrize("error", [BuildFailedError(7, "RUN false"), OSError(errno.ENOSPC, "full")])
async def test_what_the_engine_raises_passes(tmp_path: Path, error: Exception) -> None:
    """How an error is told is decided in one place, not here; nothing is pushed, nothing left."""
    async with world(tmp_path) as here:
        here.repository.commit(Dockerfile="FROM scratch\n")
        here.engine.error = error
        with pytest.raises(type(error)):
            await here.run(here.dockerfile_task())
        with pytest.raises(ImgbuilderError):
            await here.digest("bases:1")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"dockerfile": "/workspace/No"}, DockerfileError, "Dockerfile not found: /workspace/No"),
        ({"context": "/workspace/no"}, DockerfileError, "build context not found: /workspace/no"),
        (
            {"initializer": WorkspaceInitializer(snapshot=SnapshotInitializer(snapshot="x"))},
            ContentError,
            "the snapshot initializer is not supported",
        ),
    ],
)
async def test_bad_input_is_named(
    tmp_path: Path, options: dict[str, object], kind: type[Exception], words: str
) -> None:
    """Each kind of it ends the build before the engine is asked."""
    async with world(tmp_path) as here:
        here.repository.commit(Dockerfile="FROM scratch\n")
        with pytest.raises(kind, match=words):
            await here.run(here.dockerfile_task(**options))
        assert not here.engine.requests


async def test_a_missing_base_image_is_told_as_such(tmp_path: Path) -> None:
    """The user learns that it is the base image that does not exist."""
    async with world(tmp_path) as here:
        with pytest.raises(
            BuildError, match="cannot make the workspace image: its base image does not exist"
        ):
            await here.run(here.reference_task())


async def test_a_cancelled_build_leaves_no_files(tmp_path: Path) -> None:
    """Its scratch folder is gone when it has ended."""
    async with world(tmp_path) as here:
        here.repository.commit(Dockerfile="FROM scratch\n")
        here.engine.hangs = True
        async with anyio.create_task_group() as group:
            group.start_soon(here.run, here.dockerfile_task())
            await here.engine.entered.wait()
            assert here.left()
            group.cancel_scope.cancel()


async def test_own_credentials_are_used_for_base_and_target(tmp_path: Path) -> None:
    """Those of the pull secret that the request refers to; without them the registry refuses."""
    async with world(tmp_path, private=True) as here:
        here.repository.commit(Dockerfile="FROM scratch\n")
        with pytest.raises(
            BuildError, match=f"cannot push the base image: registry {here.host}: access denied"
        ):
            await here.run(here.dockerfile_task())
        here.keys.known[here.host] = KNOWN
        await here.run(here.dockerfile_task())
        assert await here.digest("workspaces:1", KNOWN) == image("built").digest


async def test_credentials_that_came_along_do_as_well(tmp_path: Path) -> None:
    """Where there are no own ones."""
    entry = {"username": KNOWN.username, "password": KNOWN.password.reveal()}
    async with world(tmp_path, private=True) as here:
        await here.push_base(KNOWN)
        await here.run(here.reference_task(additional={here.host: entry}))
        assert await here.digest("workspaces:1", KNOWN) == image("base").digest


async def test_base_images_are_pulled_with_what_came_along_only(tmp_path: Path) -> None:
    """The workspace manager's own credentials are not for whatever a Dockerfile names."""
    async with world(tmp_path) as here:
        text = f"FROM brought.example/x AS a\nFROM own.example/x\nCOPY --from={here.host}/y / /\n"
        here.repository.commit(Dockerfile=text)
        here.keys.known["own.example"] = basic_credentials("own", "x")
        entry = {"username": "u", "password": "p"}
        brought = {"brought.example": entry, "unused.example": entry}
        await here.run(here.dockerfile_task(additional=brought))
        (request,) = here.engine.requests
        assert set(request.pull_auth) == {"brought.example"}
