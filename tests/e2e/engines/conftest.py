"""The engines of this machine, a registry that asks for a password, and builds to try."""

from __future__ import annotations

import base64
import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.standalone.demo_image import BusyboxNotFoundError
from imgbuilder.standalone.engines.buildkit import known_addresses
from imgbuilder.standalone.engines.protocol import (
    BuildRequest,
    Capabilities,
    Engine,
    EngineSettings,
    OciLayout,
)
from imgbuilder.standalone.engines.selection import ENGINES
from tests.world.baseimage import push_base_image
from tests.world.registries.processes import DockerRegistry, docker_registry, htpasswd

ALWAYS_THERE = "buildah"
"""The engine that a CI machine has to have."""

USER, PASSWORD = "builder", "correct-horse-7f3a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base image, and what it takes to pull it."""

    reference: str
    registry: str
    credentials: Credentials


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """The demo's base image in a private registry."""
    folder = tmp_path_factory.mktemp("registry")
    users = folder / "htpasswd"
    users.write_text(htpasswd({USER: PASSWORD}))
    auth = {"htpasswd": {"realm": "private", "path": str(users)}}
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(docker_registry(folder, auth)) as registry,
    ):
        headers = {"Authorization": f"Basic {token}"}
        yield Base(
            reference=portal.call(functools.partial(_push, registry, folder / "base", headers)),
            registry=registry.host,
            credentials=basic_credentials(USER, PASSWORD),
        )


async def _push(registry: DockerRegistry, folder: Path, headers: dict[str, str]) -> str:
    try:
        return await push_base_image(registry, folder, headers=headers)
    except BusyboxNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An engine that works here."""

    engine: Engine
    capabilities: Capabilities
    settings: EngineSettings


def _likely(name: str) -> bool:
    """Whether it makes sense to try an engine. Cheap: asked whenever tests are collected."""
    match name:
        case "docker":
            reachable = "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists()
            return shutil.which("docker") is not None and reachable
        case "buildkit":
            return bool(known_addresses())
        case _:
            return name == ALWAYS_THERE or shutil.which(name) is not None


@pytest.fixture(scope="session")
def short_paths() -> Iterator[None]:
    """A place for what podman keeps where paths are short, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ib") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@pytest.fixture(scope="session", params=[name for name in ENGINES if _likely(name)])
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, short_paths: None
) -> Found:
    """Each engine that works here, with a data folder of its own."""
    settings = EngineSettings(data_dir=tmp_path_factory.mktemp(request.param))
    engine = ENGINES[request.param](settings)
    capabilities = anyio.run(engine.probe)
    if not isinstance(capabilities, Capabilities):
        if os.environ.get("CI") and request.param == ALWAYS_THERE:
            pytest.fail(f"{request.param}: {capabilities.reason}")
        pytest.skip(f"{request.param}: {capabilities.reason}")
    return Found(engine=engine, capabilities=capabilities, settings=settings)


@pytest.fixture
def engine(found: Found) -> Engine:
    """An engine that works here."""
    return found.engine


@dataclass(slots=True)
class Said:
    """Keeps what a build says."""

    content: bytearray = field(default_factory=bytearray)
    _awaited: list[tuple[bytes, anyio.Event]] = field(default_factory=list)

    def __call__(self, chunk: bytes) -> None:
        """Take the next piece."""
        self.content += chunk
        for words, event in self._awaited:
            if words in self.content:
                event.set()

    @property
    def text(self) -> str:
        """All that was said."""
        return self.content.decode(errors="replace")

    async def hears(self, words: bytes) -> None:
        """Wait until *words* were said."""
        event = anyio.Event()
        self._awaited.append((words, event))
        self(b"")
        with anyio.fail_after(20):
            await event.wait()


@dataclass(slots=True)
class Project:
    """Something to build with one engine.

    :ivar said: by all builds of it.
    """

    engine: Engine
    base: Base
    folder: Path
    said: Said = field(default_factory=Said)
    builds: int = 0
    unique: str = field(default_factory=lambda: uuid.uuid4().hex)

    def write(self, dockerfile: str, **files: str) -> None:
        """Put a Dockerfile and *files* into the context.

        ``BASE`` in it stands for the base image. A service may have steps of earlier tests in its cache, so
        each project has a variable of its own.
        """
        self.context.mkdir(exist_ok=True)
        first, rest = dockerfile.replace("BASE", self.base.reference).split("\n", 1)
        text = (
            f"{first}\nENV PROJECT={self.unique}\n{rest}" if first.startswith("FROM") else f"{first}\n{rest}"
        )
        for name, content in {"Dockerfile": text, **files}.items():
            (self.context / name).write_text(content)

    @property
    def context(self) -> Path:
        """The build context."""
        return self.folder / "context"

    def request(self, **options: object) -> BuildRequest:
        """A build of it."""
        self.builds += 1
        scratch = self.folder / f"scratch-{self.builds}"
        scratch.mkdir()
        settings: dict[str, object] = {
            "build_id": f"{self.folder.name}-{self.builds}",
            "context": self.context,
            "dockerfile": self.context / "Dockerfile",
            "scratch": scratch,
            "pull_auth": {self.base.registry: self.base.credentials},
            "insecure": frozenset({self.base.registry}),
            **options,
        }
        return BuildRequest(**settings)  # type: ignore[arg-type]  # as the tests say

    async def build(self, **options: object) -> OciLayout:
        """Build it."""
        return await self.engine.build(self.request(**options), self.said)


@pytest.fixture
def project(engine: Engine, base: Base, tmp_path: Path) -> Project:
    """Something to build; `Project.write` says what."""
    return Project(engine=engine, base=base, folder=tmp_path)
