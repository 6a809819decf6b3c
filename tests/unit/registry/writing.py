"""What the tests of the writing side share: registries of each kind, layouts on disk, ways to look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imgbuilder.core.permissions import basic_credentials
from imgbuilder.core.references import Reference, parse_reference
from imgbuilder.registry.blobs import BlobDone, Way
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.telemetry.metrics import Metrics
from tests.world.registries.contents import Manifest
from tests.world.registries.processes import docker_registry, htpasswd
from tests.world.registries.token_server import TokenServer

USER, PASSWORD = "ann", "s3cret:with:colons"
KNOWN = basic_credentials(USER, PASSWORD)
WRONG = basic_credentials(USER, "wrong")


@dataclass(frozen=True, slots=True)
class Place:
    """A registry, and the host of its token server if it has one."""

    host: str
    token_server: str = ""


Kind = Callable[[Path], AbstractAsyncContextManager[Place]]


@asynccontextmanager
async def open_registry(folder: Path) -> AsyncIterator[Place]:
    """A registry that lets everybody do everything."""
    folder.mkdir()  # noqa: ASYNC240  # a small file
    async with docker_registry(folder) as registry:
        yield Place(registry.host)


@asynccontextmanager
async def htpasswd_registry(folder: Path) -> AsyncIterator[Place]:
    """A registry that wants a user with a password."""
    folder.mkdir()  # noqa: ASYNC240  # a small file
    (folder / "users").write_text(htpasswd({USER: PASSWORD}))
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
    async with docker_registry(folder, auth) as registry:
        yield Place(registry.host)


@asynccontextmanager
async def token_registry(folder: Path) -> AsyncIterator[Place]:
    """A registry that wants tokens of a token server."""
    folder.mkdir()  # noqa: ASYNC240  # a small file
    async with (
        TokenServer(folder, {USER: PASSWORD}) as server,
        docker_registry(folder, server.auth) as registry,
    ):
        yield Place(registry.host, server.host)


@asynccontextmanager
async def both(
    one: Kind,
    other: Kind,
    folder: Path,
) -> AsyncIterator[tuple[Place, Place]]:
    """A registry of each kind."""
    async with one(folder / "one") as first, other(folder / "other") as second:
        yield first, second


@asynccontextmanager
async def session_for(*places: Place) -> AsyncIterator[RegistrySession]:
    """A session that speaks plain HTTP to *places*."""
    insecure = {host for place in places for host in (place.host, place.token_server) if host}
    settings = RegistrySettings(insecure=frozenset(insecure))
    async with RegistrySession(settings, metrics=Metrics()) as session:
        yield session


@dataclass(frozen=True, slots=True)
class DiskLayout:
    """An image on disk, as an engine leaves it."""

    path: Path
    digest: str
    media_type: str

    def blob(self, digest: str) -> Path:
        """Where a part of it is."""
        return self.path / digest.replace(":", "-")


def layout(folder: Path, manifest: Manifest) -> DiskLayout:
    """*manifest* and its blobs, in the new *folder*."""
    folder.mkdir()
    made = DiskLayout(folder, manifest.digest, manifest.media_type)
    made.blob(manifest.digest).write_bytes(manifest.body)
    for digest, contents in manifest.blobs.items():
        made.blob(digest).write_bytes(contents)
    return made


@dataclass(slots=True)
class Seen:
    """Keeps what it is told of blobs."""

    done: list[BlobDone] = field(default_factory=list)

    def __call__(self, done: BlobDone) -> None:
        """Keep what happened to a blob."""
        self.done.append(done)

    @property
    def ways(self) -> set[Way]:
        """How blobs got where they are."""
        return {done.way for done in self.done}


def reference(place: Place, rest: str) -> Reference:
    """An image in *place*."""
    return parse_reference(f"{place.host}/{rest}")
