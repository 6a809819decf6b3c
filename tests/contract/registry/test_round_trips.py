"""How many requests a look-up costs, and what it gives: against a registry that counts."""

from __future__ import annotations

import hashlib
import re

import anyio
import pytest

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.manifests import DOCKER_MANIFEST, NoManifestForPlatformError, parse_platform
from imgbuilder.core.references import parse_reference
from imgbuilder.registry.errors import (
    ManifestUnknownError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnreachableError,
)
from tests.contract.registry.asking import EVERYTHING, additional, as_user, named, resolve
from tests.contract.registry.conftest import CountedMetrics, Looking
from tests.world.registries import contents
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import FakeRegistry


async def test_a_tag_is_one_get(looking: Looking) -> None:
    """Resolved to the digest of the image, and asked for with all four types."""
    async with FakeRegistry() as registry, looking(registry) as images:
        digest = registry.put_image("library/ubuntu", "22.04")
        assert (
            await resolve(images, registry, "library/ubuntu:22.04")
            == f"{registry.host}/library/ubuntu@{digest}"
        )
        assert registry.seen() == ["GET manifest"]
        assert registry.requests[0].path == "/v2/library/ubuntu/manifests/22.04"
        assert registry.requests[0].headers["accept"].count(",") == 3
        assert not registry.requests[0].authorization


async def test_requests_to_a_token_registry(looking: Looking, metrics: CountedMetrics) -> None:
    """Three when cold, two for another repository, and one from then on."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.put_image("a")
        registry.put_image("b")
        await resolve(images, registry, "a:latest")
        assert registry.seen() == ["GET manifest", "GET token", "GET manifest"]
        registry.requests.clear()
        await resolve(images, registry, "b:latest")
        assert registry.seen() == ["GET token", "GET manifest"]
        registry.requests.clear()
        await resolve(images, registry, "b:latest")
        await images.exists(named(registry, "a:latest"), EVERYTHING, retry=False)
        assert registry.seen() == ["GET manifest", "HEAD manifest"]
    assert metrics.tokens == {False: 2, True: 2}
    assert metrics.requests == {
        (registry.host, "GET", "401"): 1,
        (registry.host, "GET", "200"): 5,
        (registry.host, "HEAD", "200"): 1,
    }


async def test_requests_to_a_basic_registry(looking: Looking) -> None:
    """Two when cold, and one from then on."""
    users = {"u": "p"}
    async with FakeRegistry(authentication="basic", users=users) as registry, looking(registry) as images:
        registry.put_image("a")
        for _ in range(2):
            await images.resolve(named(registry, "a"), as_user(registry, "u", "p"), retry=False)
        assert [request.authorization for request in registry.requests] == ["", "Basic dTpw", "Basic dTpw"]


async def test_existence_is_one_head(looking: Looking) -> None:
    """Whether there is one, or not."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put("a", "1", contents.image(media_type=DOCKER_MANIFEST))
        assert await images.exists(named(registry, "a:1"), EVERYTHING, retry=False)
        assert not await images.exists(named(registry, "a:2"), EVERYTHING, retry=False)
        assert not await images.exists(named(registry, "b:1"), EVERYTHING, retry=True)
        assert registry.seen() == ["HEAD manifest"] * 3
        assert all(request.headers["accept"].count(",") == 3 for request in registry.requests)


@pytest.mark.parametrize("status", [405, 501])
async def test_a_registry_without_head(looking: Looking, status: int) -> None:
    """It is asked with GET, whether or not retries are wanted."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(Respond(status))
        assert await images.exists(named(registry, "a"), EVERYTHING, retry=True)
        assert registry.seen() == ["HEAD manifest", "GET manifest"]


async def test_an_index_is_one_get(looking: Looking) -> None:
    """The image for the platform is named in it, so it need not be asked for."""
    async with FakeRegistry() as registry, looking(registry) as images:
        _, digests = registry.put_index("a", "1", "linux/arm64", "linux/amd64")
        assert await resolve(images, registry, "a:1") == f"{registry.host}/a@{digests['linux/amd64']}"
        assert len(registry.requests) == 1


async def test_the_platform_can_be_configured(looking: Looking) -> None:
    """An index then leads to the image for that one, or to none."""
    platform = parse_platform("linux/arm64")
    async with FakeRegistry() as registry, looking(registry, platform=platform) as images:
        _, digests = registry.put_index("a", "1", "linux/arm64", "linux/amd64")
        registry.put_index("a", "2", "linux/amd64")
        assert await resolve(images, registry, "a:1") == f"{registry.host}/a@{digests['linux/arm64']}"
        with pytest.raises(NoManifestForPlatformError, match="no manifest for platform linux-arm64 found"):
            await resolve(images, registry, "a:2")


async def test_a_digest_seen_before_costs_nothing(looking: Looking) -> None:
    """Also when it was seen under a tag: what it names can't change."""
    async with FakeRegistry() as registry, looking(registry) as images:
        by_tag = await resolve(images, registry, f"a@{registry.put_image('a')}")
        whole, digests = registry.put_index("a", "2", "linux/amd64")
        await resolve(images, registry, "a:2")
        registry.requests.clear()
        assert await resolve(images, registry, by_tag.partition("/")[2]) == by_tag
        assert await resolve(images, registry, f"a@{whole}") == f"{registry.host}/a@{digests['linux/amd64']}"
        assert not registry.requests


async def test_a_digest_is_known_to_those_who_saw_it(looking: Looking) -> None:
    """Other credentials have to show that they may see it."""
    users = {"u": "p", "v": "q"}
    async with FakeRegistry(authentication="basic", users=users) as registry, looking(registry) as images:
        reference = named(registry, f"a@{registry.put_image('a')}")
        for user, password in [("u", "p"), ("v", "q"), ("u", "p"), ("v", "q")]:
            await images.resolve(reference, as_user(registry, user, password), retry=False)
        shown = [request.authorization for request in registry.requests]
        assert shown == ["", "Basic dTpw", "Basic djpx"]


async def test_a_digest_that_is_not_there(looking: Looking) -> None:
    """An unknown one is looked up each time."""
    async with FakeRegistry() as registry, looking(registry) as images:
        for _ in range(2):
            with pytest.raises(ManifestUnknownError):
                await resolve(images, registry, "a@sha256:" + "0" * 64)
        assert len(registry.requests) == 2


async def test_an_image_by_sha512(looking: Looking) -> None:
    """Verified, and called what it was asked for by."""
    async with FakeRegistry() as registry, looking(registry) as images:
        manifest = contents.image()
        digest = f"sha512:{hashlib.sha512(manifest.body).hexdigest()}"
        registry.put("a", digest, manifest)
        assert await resolve(images, registry, f"a@{digest}") == f"{registry.host}/a@{digest}"


async def test_equal_lookups_at_once_are_one(looking: Looking) -> None:
    """Fifty callers, one request of each kind; different ones stay apart."""
    async with FakeRegistry(latency=0.05) as registry, looking(registry) as images:
        digest = registry.put_image("a")
        answers: list[str | bool] = []

        async def ask(rest: str) -> None:
            answers.append(await resolve(images, registry, rest))
            answers.append(await images.exists(named(registry, rest), EVERYTHING, retry=False))

        async with anyio.create_task_group() as group:
            for _ in range(25):
                group.start_soon(ask, "a")
                group.start_soon(ask, "a:latest")
        assert sorted(registry.seen()) == ["GET manifest", "HEAD manifest"]
        assert sorted(map(str, answers)) == sorted(["True"] * 50 + [f"{registry.host}/a@{digest}"] * 50)


async def test_a_caller_who_leaves_does_not_end_the_lookup(looking: Looking) -> None:
    """The others get the answer, from the same request, also if the first one leaves."""
    async with FakeRegistry(latency=0.1) as registry, looking(registry) as images:
        digest = registry.put_image("a")
        answers: list[str] = []

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                answers.append(await resolve(images, registry, "a"))

        scopes = [anyio.CancelScope() for _ in range(3)]
        async with anyio.create_task_group() as group:
            for scope in scopes:
                group.start_soon(ask, scope)
            await registry.requested(1)
            scopes[0].cancel()
            scopes[2].cancel()
        assert answers == [f"{registry.host}/a@{digest}"]
        assert len(registry.requests) == 1


async def test_a_lookup_that_nobody_waits_for_ends(looking: Looking) -> None:
    """Its connection is given up, and the next caller starts anew."""
    async with FakeRegistry(latency=60) as registry, looking(registry) as images:
        registry.put_image("a")

        async with anyio.create_task_group() as group:
            group.start_soon(resolve, images, registry, "a")
            await registry.requested(1)
            group.cancel_scope.cancel()
        registry.latency = 0
        await resolve(images, registry, "a")
        assert len(registry.requests) == 2


async def test_callers_with_other_credentials_get_their_own_answer(looking: Looking) -> None:
    """Equal references at the same time, one allowed and one not: nobody sees what is not theirs."""
    users = {"u": "p"}
    registry = FakeRegistry(authentication="token", users=users, latency=0.02)
    async with registry, looking(registry) as images:
        registry.put_image("a")
        outcomes: dict[str, type[RegistryError] | None] = {}

        async def ask(password: str) -> None:
            permissions = as_user(registry, "u", password)
            try:
                await images.resolve(named(registry, "a"), permissions, retry=False)
                outcomes[password] = None
            except RegistryError as error:
                outcomes[password] = type(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "p")
            group.start_soon(ask, "wrong")
        assert outcomes == {"p": None, "wrong": RegistryDeniedError}


async def test_connections_are_kept(looking: Looking) -> None:
    """Requests in a row share one."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        for _ in range(10):
            await images.exists(named(registry, "a"), EVERYTHING, retry=False)
        assert registry.connections == 1


async def test_connections_are_bounded(looking: Looking) -> None:
    """A host gets as many at a time as configured, however much is wanted of it."""
    async with FakeRegistry(latency=0.005) as registry, looking(registry, connections_per_host=3) as images:
        for number in range(30):
            registry.put_image("a", str(number))
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(resolve, images, registry, f"a:{number}")
        assert registry.most_open == 3
        assert len(registry.requests) == 30


async def test_a_kept_connection_that_was_closed_is_not_noticed(looking: Looking) -> None:
    """The request is sent again over a new one, without retries being asked for."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        for _ in range(3):
            await images.exists(named(registry, "a"), EVERYTHING, retry=False)
            await registry.drop_connections()
        assert len(registry.requests) == 3


async def test_metrics_tell_a_bounded_number_of_registries_apart(
    looking: Looking,
    metrics: CountedMetrics,
) -> None:
    """Requests name registries, and there is no end to names."""
    names = [f"127.0.0.{number}:1" for number in range(1, 101)]
    async with looking(insecure=frozenset(names)) as images:
        for name in names:
            with pytest.raises(RegistryUnreachableError, match=re.escape(name)):
                await images.exists(parse_reference(f"{name}/a"), EVERYTHING, retry=False)
    assert len({registry for registry, _, _ in metrics.requests}) == 65
    assert metrics.requests["other", "HEAD", "error"] == 36


async def test_nothing_is_sent_for_credentials_that_can_not_be_read(looking: Looking) -> None:
    """Those for other registries do not matter."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        permissions = additional({registry.host: "not base64!"})
        with pytest.raises(InvalidInputError) as caught:
            await resolve(images, registry, "a", permissions)
        assert caught.value.field == f"auth.additional[{registry.host}]"
        assert not registry.requests
        await resolve(images, registry, "a", additional({"other.test": "not base64!"}))
