"""Pushes and copies against a registry that does not always do as it should."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.manifests import LINUX_AMD64
from imgbuilder.registry.blobs import Way
from imgbuilder.registry.copy import copy_image
from imgbuilder.registry.errors import (
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.telemetry.metrics import Metrics
from tests.unit.registry.writing import KNOWN, Place, Seen, layout, reference
from tests.world.registries import httpd
from tests.world.registries.contents import image
from tests.world.registries.httpd import HttpServer, Respond, head_of

SOON = RegistrySettings(backoff=Backoff(first=0.001, factor=1, limit=0.001))


class MemoryRegistry(HttpServer):
    """Keeps blobs and manifests; *fault* may answer in its stead, or cut the connection by raising."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, bytes] = {}
        self.fault: Callable[[httpd.Seen], Respond | None] = lambda _: None
        self.elsewhere = ""

    async def respond(self, request: httpd.Seen) -> Respond:
        """As a registry does."""
        faulty = self.fault(request)
        if faulty is not None:
            return faulty
        name = request.path.rpartition("/")[2]
        match request.method, request.path.split("/")[-2]:
            case "POST", _:
                return Respond(202, {"Location": f"{self.elsewhere}/v2/x/blobs/uploads/1?state=a%2Fb"})
            case "PUT", "uploads":
                digest = request.query["digest"][0]
                if digest != f"sha256:{hashlib.sha256(request.body).hexdigest()}":
                    return Respond(400)
                self.contents[digest] = request.body
                return Respond(201)
            case "PUT", _:
                digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
                self.contents[name] = self.contents[digest] = request.body
                return Respond(201)
            case _:
                found = self.contents.get(name)
                return Respond(404) if found is None else Respond(200, {}, found)

    async def answer(
        self, request: httpd.Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer, but cut the body short where the headers say so."""
        response = await self.respond(request)
        body = b"" if request.method == "HEAD" else response.body
        if response.headers.get("X-Cut"):
            head = head_of(response)
            writer.write(head + body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        writer.write(head_of(response) + body)
        await writer.drain()
        return True


def times(
    count: int, where: Callable[[httpd.Seen], bool], response: Respond
) -> Callable[..., Respond | None]:
    """A fault that happens *count* times."""
    left = [count]

    def fault(request: httpd.Seen) -> Respond | None:
        if left[0] and where(request):
            left[0] -= 1
            return response
        return None

    return fault


def is_upload(request: httpd.Seen) -> bool:
    """Whether *request* brings a blob."""
    return request.method == "PUT" and "/uploads/" in request.path


def is_download(request: httpd.Seen) -> bool:
    """Whether *request* wants a blob."""
    return request.method == "GET" and "/blobs/" in request.path


@asynccontextmanager
async def speaking_to(*registries: MemoryRegistry) -> AsyncIterator[RegistrySession]:
    """A session that loses no time between attempts."""
    insecure = frozenset(registry.host for registry in registries)
    settings = RegistrySettings(insecure=insecure, backoff=SOON.backoff)
    async with RegistrySession(settings, metrics=Metrics(), jitter=lambda: 0.0) as session:
        yield session


async def push(session: RegistrySession, registry: MemoryRegistry, folder: Path, seen: Seen) -> None:
    """Push an image."""
    target = reference(Place(registry.host), "x:tag")
    await push_layout(session, layout(folder / "layout", image()), target, credentials=KNOWN, progress=seen)


async def test_an_upload_that_fails_for_a_while_is_tried_again(tmp_path: Path) -> None:
    """A registry that is out of order for a moment costs attempts, not the push."""
    async with MemoryRegistry() as registry, speaking_to(registry) as session:
        registry.fault = times(2, is_upload, Respond(503))
        seen = Seen()
        await push(session, registry, tmp_path, seen)
        assert registry.contents["tag"] == image().body
    assert seen.ways == {Way.SENT}


async def test_attempts_are_bounded(tmp_path: Path) -> None:
    """A registry that stays out of order ends the push with its status."""
    async with MemoryRegistry() as registry, speaking_to(registry) as session:
        registry.fault = times(1000, is_upload, Respond(503))
        with pytest.raises(RegistryFaultError, match="answers with status 503"):
            await push(session, registry, tmp_path, Seen())
        assert "tag" not in registry.contents


async def test_a_rate_limit_is_told_as_such(tmp_path: Path) -> None:
    """Too many requests stay what they are when no attempt is left."""
    async with MemoryRegistry() as registry, speaking_to(registry) as session:
        registry.fault = times(1000, is_upload, Respond(429, {"Retry-After": "0"}))
        with pytest.raises(RegistryRateLimitedError):
            await push(session, registry, tmp_path, Seen())


async def test_credentials_do_not_follow_an_upload_to_another_host(tmp_path: Path) -> None:
    """A registry that keeps its uploads elsewhere gets them there, without what was shown to itself."""
    async with (
        MemoryRegistry() as registry,
        MemoryRegistry() as storage,
        speaking_to(registry, storage) as session,
    ):
        registry.elsewhere = storage.url
        challenge = Respond(401, {"WWW-Authenticate": 'Basic realm="x"'})
        registry.fault = lambda request: None if request.authorization else challenge
        registry.contents = storage.contents
        await push(session, registry, tmp_path, Seen())
        assert all(request.authorization for request in registry.requests[-1:])
        assert storage.requests
        assert not any(request.authorization for request in storage.requests)


async def test_an_upload_is_not_sent_to_where_no_request_may_go(tmp_path: Path) -> None:
    """Plain HTTP to a host that was not listed is refused, though the registry asks for it."""
    async with (
        MemoryRegistry() as registry,
        MemoryRegistry() as storage,
        speaking_to(registry) as session,
    ):
        registry.elsewhere = storage.url
        with pytest.raises(RegistryFaultError, match="where no request may go"):
            await push(session, registry, tmp_path, Seen())
        assert not storage.requests


async def copy(session: RegistrySession, source: MemoryRegistry, target: MemoryRegistry) -> Seen:
    """Copy an image that *source* has."""
    seen = Seen()
    await copy_image(
        session,
        reference(Place(source.host), "x:tag"),
        reference(Place(target.host), "y:tag"),
        platform=LINUX_AMD64,
        source_credentials=None,
        target_credentials=None,
        progress=seen,
    )
    return seen


async def test_a_download_that_breaks_is_taken_up_from_the_start(tmp_path: Path) -> None:
    """A source that cuts the connection in the middle costs an attempt, and nothing wrong is stored."""
    async with (
        MemoryRegistry() as source,
        MemoryRegistry() as target,
        speaking_to(source, target) as session,
    ):
        await push(session, source, tmp_path, Seen())
        layer = max(image().blobs.values(), key=len)
        cut = Respond(200, {"X-Cut": "yes"}, layer)
        source.fault = times(2, is_download, cut)
        seen = await copy(session, source, target)
        assert target.contents == source.contents
    assert seen.ways == {Way.SENT}


async def test_a_source_that_keeps_breaking_is_to_blame(tmp_path: Path) -> None:
    """The error names the source, not the registry that waited for the rest."""
    async with (
        MemoryRegistry() as source,
        MemoryRegistry() as target,
        speaking_to(source, target) as session,
    ):
        await push(session, source, tmp_path, Seen())
        source.fault = times(1000, is_download, Respond(200, {"X-Cut": "yes"}, b"x" * 1000))
        with pytest.raises(RegistryUnreachableError) as failed:
            await copy(session, source, target)
    assert failed.value.registry == source.host


async def test_a_download_follows_a_redirect_without_credentials(tmp_path: Path) -> None:
    """Registries redirect to where their blobs are; that host sees nothing of ours."""
    async with (
        MemoryRegistry() as source,
        MemoryRegistry() as storage,
        MemoryRegistry() as target,
        speaking_to(source, storage, target) as session,
    ):
        await push(session, source, tmp_path, Seen())
        storage.contents = source.contents
        source.fault = lambda request: (
            Respond(307, {"Location": f"{storage.url}{request.path}"}) if is_download(request) else None
        )
        seen = await copy(session, source, target)
        assert not any(request.authorization for request in storage.requests)
    assert seen.ways == {Way.SENT}


async def test_redirects_come_to_an_end(tmp_path: Path) -> None:
    """A source that redirects for ever is at fault."""
    async with (
        MemoryRegistry() as source,
        MemoryRegistry() as target,
        speaking_to(source, target) as session,
    ):
        await push(session, source, tmp_path, Seen())
        source.fault = lambda request: (
            Respond(307, {"Location": request.path}) if is_download(request) else None
        )
        with pytest.raises(RegistryFaultError, match="redirects more than"):
            await copy(session, source, target)


async def test_a_copy_within_a_registry_that_does_not_mount_is_streamed(tmp_path: Path) -> None:
    """Mounting is an offer: a registry that begins an upload instead gets one."""
    async with MemoryRegistry() as registry, speaking_to(registry) as session:
        await push(session, registry, tmp_path, Seen())
        blobs = dict(registry.contents)

        def forgets(request: httpd.Seen) -> Respond | None:
            return Respond(404) if request.method == "HEAD" and "/y/" in request.path else None

        registry.fault = forgets
        seen = await copy(session, registry, registry)
        assert registry.contents == blobs
    assert seen.ways == {Way.SENT}
