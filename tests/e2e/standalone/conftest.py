"""One standalone for most tests, a base image in its registry, and a repository to build."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from imgbuilder.pb.builder import BuildSource
from imgbuilder.pb.contentservice import CloneTargetMode, GitInitializer, WorkspaceInitializer
from imgbuilder.standalone.demo_image import BusyboxNotFoundError
from tests.contract.service.client import Client, connected, dockerfile
from tests.e2e.standalone.programs import StandaloneProcess, need, standalone_process
from tests.world.baseimage import push_base_image
from tests.world.git import Repository
from tests.world.registries.processes import DockerRegistry


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneProcess]:
    """One that runs, with buildah, a registry of its own, and room for two builds."""
    need("buildah", "docker-registry", "git")
    folder = tmp_path_factory.mktemp("standalone")
    options = ("--engine", "buildah", "--concurrency", "2", "--allow-file-urls")
    with standalone_process(folder / "data", *options) as process:
        yield process


@pytest.fixture(scope="session")
def base(standalone: StandaloneProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small base image in the registry of `standalone`."""
    folder = tmp_path_factory.mktemp("base") / "layout"
    try:
        return anyio.run(functools.partial(push_base_image, DockerRegistry(host=standalone.registry), folder))
    except BusyboxNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
async def client(standalone: StandaloneProcess) -> AsyncIterator[Client]:
    """A client of the image builder."""
    async with connected(standalone.port("imageBuilder")) as connection:
        yield connection


@dataclass(frozen=True, slots=True)
class Project:
    """A repository with a Dockerfile to build."""

    repository: Repository
    base: str

    def commit(self, text: str, **files: str) -> BuildSource:
        """Commit a Dockerfile, in which ``BASE`` stands for the base image; the source to build it."""
        # A variable of its own keeps its steps apart from those of other tests in the engine's cache.
        unique = f"FROM {self.base}\nENV UNIQUE={uuid.uuid4().hex}"
        revision = self.repository.commit(Dockerfile=text.replace("FROM BASE", unique), **files)
        return self.source(revision)

    def source(self, revision: str, *, path: str = "Dockerfile", context: str = "") -> BuildSource:
        """A source that builds *revision*."""
        address = f"file://{self.repository.path}"
        initializer = WorkspaceInitializer(
            git=GitInitializer(
                remote_uri=address, clone_taget=revision, target_mode=CloneTargetMode.REMOTE_COMMIT
            )
        )
        return dockerfile(path=path, context=context, version=revision, source=initializer)


@pytest.fixture
def project(base: str, tmp_path: Path) -> Project:
    """A repository on this machine."""
    return Project(Repository(tmp_path / "repository"), base)
