"""Look-ups against the reference implementation of a registry, in its ways of authenticating."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from imgbuilder.core.manifests import DOCKER_MANIFEST, OCI_MANIFEST
from imgbuilder.core.permissions import Permissions
from imgbuilder.core.references import Reference, parse_reference
from imgbuilder.registry.errors import ManifestUnknownError, RegistryDeniedError
from tests.contract.registry.asking import EVERYTHING
from tests.contract.registry.conftest import CountedMetrics, Looking
from tests.helpers import in_own_task
from tests.world.registries import contents
from tests.world.registries.processes import DockerRegistry, docker_registry, htpasswd, push
from tests.world.registries.token_server import TokenServer

NOTHING = Permissions()
USERS = {"builder": "pass:word"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"builder:pass:word").decode()}


@pytest.fixture
async def open_registry(tmp_path: Path) -> AsyncIterator[DockerRegistry]:
    """One that lets everybody in."""
    async with in_own_task(docker_registry(tmp_path)) as registry:
        yield registry


def named(registry: DockerRegistry, rest: str) -> Reference:
    """A reference to something in *registry*."""
    return parse_reference(f"{registry.host}/{rest}")


def spoken_to(*hosts: str, pull_secret: Path | None = None) -> Mapping[str, Any]:
    """What the registry layer is to be made with."""
    return {"insecure": frozenset(hosts), "pull_secret_file": pull_secret}


def secret_for(host: str, folder: Path) -> Path:
    """A pull secret with the user for *host*."""
    file = folder / "pull-secret.json"
    auth = base64.b64encode(b"builder:pass:word").decode()
    file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return file


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
async def test_images_of_both_formats(
    looking: Looking, open_registry: DockerRegistry, media_type: str
) -> None:
    """By tag, by digest, as an index; and what is not there."""
    images = {
        platform: contents.image(platform, media_type=media_type, platform=platform)
        for platform in ("linux/arm64", "linux/amd64")
    }
    index = contents.index(images)
    for manifest in images.values():
        await push(open_registry, "some/image", manifest.digest, manifest)
    await push(open_registry, "some/image", "single", images["linux/amd64"])
    await push(open_registry, "some/image", "index", index)
    wanted = named(open_registry, f"some/image@{images['linux/amd64'].digest}")
    async with looking(**spoken_to(open_registry.host)) as layer:
        for rest in ("some/image:single", "some/image:index", f"some/image@{index.digest}"):
            assert await layer.resolve(named(open_registry, rest), NOTHING, retry=False) == wanted
            assert await layer.exists(named(open_registry, rest), NOTHING, retry=False)
        for rest in ("some/image:other", "no/such:image"):
            assert not await layer.exists(named(open_registry, rest), NOTHING, retry=False)
            with pytest.raises(ManifestUnknownError):
                await layer.resolve(named(open_registry, rest), NOTHING, retry=False)


async def test_a_user_with_a_password(looking: Looking, tmp_path: Path) -> None:
    """Basic: let in with the pull secret, and not without permission to use it."""
    file = tmp_path / "htpasswd"
    file.write_text(htpasswd(USERS))
    auth = {"htpasswd": {"realm": "test", "path": str(file)}}
    async with docker_registry(tmp_path, auth) as registry:
        digest = await push(registry, "a", "1", contents.image(), headers=BASIC)
        options = spoken_to(registry.host, pull_secret=secret_for(registry.host, tmp_path))
        async with looking(**options) as layer:
            resolved = await layer.resolve(named(registry, "a:1"), EVERYTHING, retry=False)
            assert resolved.digest == digest
            with pytest.raises(RegistryDeniedError):
                await layer.resolve(named(registry, "a:1"), NOTHING, retry=False)
            with pytest.raises(RegistryDeniedError):
                await layer.exists(named(registry, "a:1"), NOTHING, retry=False)


async def test_a_token_server(looking: Looking, metrics: CountedMetrics, tmp_path: Path) -> None:
    """Bearer: anonymous where that is enough, as a user where not, in three, two and one requests."""
    async with TokenServer(tmp_path, USERS) as server, docker_registry(tmp_path, server.auth) as registry:
        for repository in ("public/a", "private/a"):
            token = server.token({f"repository:{repository}:pull,push": ["pull", "push"]})
            await push(
                registry, repository, "1", contents.image(), headers={"Authorization": f"Bearer {token}"}
            )
        options = spoken_to(registry.host, server.host, pull_secret=secret_for(registry.host, tmp_path))
        async with looking(**options) as layer:
            await layer.resolve(named(registry, "public/a:1"), NOTHING, retry=False)
            assert metrics.requests.total() == 3
            await layer.resolve(named(registry, "private/a:1"), EVERYTHING, retry=False)
            assert metrics.requests.total() == 5
            assert await layer.exists(named(registry, "private/a:1"), EVERYTHING, retry=False)
            assert metrics.requests.total() == 6
            assert not await layer.exists(named(registry, "private/a:2"), EVERYTHING, retry=False)
            with pytest.raises(RegistryDeniedError):
                await layer.resolve(named(registry, "private/a:1"), NOTHING, retry=False)
    shown = [request.authorization for request in server.requests]
    assert shown == ["", BASIC["Authorization"], ""]
