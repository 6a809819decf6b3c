"""Mirrors: asked first, trusted with nothing, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgbuilder.core.references import parse_reference
from imgbuilder.registry.errors import ManifestUnknownError
from tests.contract.registry.asking import EVERYTHING, as_user, resolve
from tests.contract.registry.conftest import Looking
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import FakeRegistry, Fault, Hang, Reset, WrongBody


async def test_a_mirror_answers_for_a_registry(looking: Looking) -> None:
    """Docker Hub is not asked."""
    async with FakeRegistry() as mirror, looking(mirrors={"docker.io": mirror.url + "/"}) as images:
        digest = mirror.put_image("library/ubuntu")
        resolved = await images.resolve(parse_reference("ubuntu"), EVERYTHING, retry=False)
        assert str(resolved) == f"docker.io/library/ubuntu@{digest}"
        assert mirror.requests[0].path == "/v2/library/ubuntu/manifests/latest"


async def test_a_mirror_under_a_path(looking: Looking) -> None:
    """Its address may have one."""
    async with FakeRegistry() as mirror, looking(mirrors={"docker.io": mirror.url + "/hub"}) as images:
        mirror.put_image("library/ubuntu")
        await images.resolve(parse_reference("ubuntu"), EVERYTHING, retry=False)
        assert mirror.requests[0].path == "/hub/v2/library/ubuntu/manifests/latest"


@pytest.mark.parametrize(
    "fault",
    [
        Respond(404),
        Respond(401),
        Respond(403),
        Respond(429),
        Respond(500),
        Respond(200),
        Reset(),
        Hang(),
        WrongBody(),
    ],
)
async def test_a_mirror_that_does_not_help(looking: Looking, fault: Fault) -> None:
    """The registry itself is asked, and the mirror only once."""
    async with FakeRegistry() as registry, FakeRegistry() as mirror:
        digest = registry.put_image("a")
        mirror.put_image("a")
        mirror.fail_next(fault)
        mirrors = {registry.host: mirror.url}
        async with looking(registry, mirrors=mirrors, timeout=3 if fault == Hang() else 15) as images:
            assert await resolve(images, registry, retry=True) == f"{registry.host}/a@{digest}"
        assert (len(mirror.requests), len(registry.requests)) == (1, 1)


async def test_the_registry_has_the_last_word(looking: Looking) -> None:
    """What neither has is not there."""
    async with FakeRegistry() as registry, FakeRegistry() as mirror:
        mirrors = {registry.host: mirror.url}
        async with looking(registry, mirrors=mirrors) as images:
            with pytest.raises(ManifestUnknownError):
                await resolve(images, registry)


async def test_a_mirror_that_can_not_be_reached_is_left_alone_for_a_while(looking: Looking) -> None:
    """Not every look-up waits for it."""
    async with FakeRegistry() as registry, FakeRegistry() as mirror:
        registry.put_image("a")
        mirror.fail_next(Hang(), Hang())
        async with looking(registry, mirrors={registry.host: mirror.url}, timeout=3) as images:
            await resolve(images, registry)
            await resolve(images, registry)
        assert len(mirror.requests) == 1


async def test_credentials_for_a_registry_do_not_reach_its_mirror(looking: Looking, tmp_path: Path) -> None:
    """Neither the service's nor a request's; those that the pull secret has for the mirror do."""
    async with (
        FakeRegistry(authentication="basic", users={"u": "p"}) as registry,
        FakeRegistry(authentication="basic", users={"m": "p"}) as mirror,
    ):
        registry.put_image("a")
        mirror.put_image("b")
        file = tmp_path / "config.json"
        auths = {registry.host: {"auth": "dTpw"}, mirror.host: {"auth": "bTpw"}}
        file.write_text(json.dumps({"auths": auths}))
        mirrors = {registry.host: mirror.url}
        async with looking(registry, mirrors=mirrors, pull_secret_file=file) as images:
            await resolve(images, registry, "a")
            await resolve(images, registry, "b")
            await resolve(images, registry, "b", as_user(registry, "x", "y"))
    assert {request.authorization for request in mirror.requests} == {"", "Basic bTpw"}
    assert "Basic bTpw" not in {request.authorization for request in registry.requests}
