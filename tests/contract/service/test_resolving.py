"""Resolving images over the wire: results, errors with code and message, and what the registry is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import pytest
from grpclib.const import Status

from imgbuilder.pb.builder import BuildStatus, ResolveWorkspaceImageRequest
from tests.contract.service.client import Client, dockerfile, reference, refusal
from tests.contract.service.conftest import serving, unobserved
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import Fault, Hang, Reset, WrongBody
from tests.world.world import World

MISSING: Final = Respond(404)
UNAUTHORIZED: Final = Respond(401)
FORBIDDEN: Final = Respond(403)
TOO_MANY: Final = Respond(429, {"Retry-After": "1"})
BROKEN: Final = Respond(500)


# --- what is resolved -----------------------------------------------------------------------------------------


async def test_a_tag_resolves_to_its_digest(world: World, client: Client) -> None:
    """The digest form has no tag."""
    digest = world.registry.put_image("base", "1")
    assert await client.resolve(f"{world.registry.host}/base:1") == f"{world.registry.host}/base@{digest}"


async def test_an_index_resolves_to_the_image_of_the_platform(world: World, client: Client) -> None:
    """By default that for Linux on amd64."""
    _, digests = world.registry.put_index("base", "1", "linux/arm64", "linux/amd64")
    resolved = await client.resolve(f"{world.registry.host}/base:1")
    assert resolved == f"{world.registry.host}/base@{digests['linux/amd64']}"


async def test_the_platform_can_be_configured(world: World) -> None:
    """Then another entry of the index is meant."""
    _, digests = world.registry.put_index("base", "1", "linux/arm64", "linux/amd64")
    async with serving(unobserved(world, registries={"platform": "linux/arm64"})) as served:
        resolved = await served.client.resolve(f"{world.registry.host}/base:1")
    assert resolved.endswith(digests["linux/arm64"])


async def test_a_workspace_image_is_told_whether_it_exists_or_not(world: World, client: Client) -> None:
    """Refs are always set; the status is unknown or success."""
    ref = world.seed_base_image()
    before = await client.workspace_image(reference(ref))
    assert before.status is BuildStatus.unknown
    assert before.base_ref == await client.resolve(ref)
    assert before.ref.startswith(f"{world.registry.host}/workspace-images:")
    world.push(before.ref)
    after = await client.workspace_image(reference(ref))
    assert (after.ref, after.base_ref, after.status) == (
        before.ref,
        before.base_ref,
        BuildStatus.done_success,
    )


async def test_the_workspace_image_of_a_dockerfile_is_told_without_resolving(
    world: World, client: Client
) -> None:
    """One HEAD of the workspace image."""
    image = await client.workspace_image(dockerfile())
    assert image.status is BuildStatus.unknown
    assert image.base_ref.startswith(f"{world.registry.host}/base-images:")
    assert [request.method for request in world.registry.requests] == ["HEAD"]


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (MISSING, Status.NOT_FOUND, "cannot resolve image"),
        (UNAUTHORIZED, Status.UNAUTHENTICATED, "cannot resolve image"),
        (FORBIDDEN, Status.UNAUTHENTICATED, "cannot resolve image"),
        (TOO_MANY, Status.UNAVAILABLE, "registry {host}: too many requests"),
        (Hang(), Status.UNAVAILABLE, "registry {host}: no answer within 0.3 s"),
        (Reset(), Status.UNAVAILABLE, "registry {host}: "),
        (BROKEN, Status.INTERNAL, "cannot resolve image: registry {host}: answers with status 500"),
        (WrongBody(), Status.INTERNAL, "cannot resolve image: registry {host}: "),
        (Respond(200, body=b"{}"), Status.INTERNAL, "cannot resolve image: registry {host}: "),
    ],
    ids=["404", "401", "403", "429", "time limit", "reset", "500", "wrong digest", "no manifest"],
)
@pytest.mark.parametrize("method", ["ResolveBaseImage", "ResolveWorkspaceImage", "Build"])
async def test_the_users_image_can_not_be_resolved(
    world: World, method: str, fault: Fault, status: Status, message: str
) -> None:
    """Whichever call asks for it."""
    ref = world.seed_base_image()
    async with serving(unobserved(world, registries={"timeout": "300ms"})) as served:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "ResolveBaseImage": lambda: served.client.resolve(ref),
            "ResolveWorkspaceImage": lambda: served.client.workspace_image(reference(ref)),
            "Build": lambda: served.client.build(reference(ref)),
        }
        # A kept connection that is reset is tried again once, as it may have been closed while it was idle.
        world.registry.fail_next(*[fault] * (2 if isinstance(fault, Reset) else 1))
        told, text = await refusal(calls[method]())
    message = message.format(host=world.registry.host)
    assert (told, text[: len(message)]) == (status, message)
    if status in (Status.NOT_FOUND, Status.UNAUTHENTICATED):
        assert text == message
    if status is Status.UNAVAILABLE:
        assert "cannot resolve image" not in text


async def test_nobody_listens_at_the_registry(world: World) -> None:
    """UNAVAILABLE, with the registry's name."""
    async with serving(unobserved(world, registries={"insecure": ["127.0.0.1:9"]})) as served:
        status, message = await refusal(served.client.resolve("127.0.0.1:9/base:1"))
    assert status is Status.UNAVAILABLE
    assert message.startswith("registry 127.0.0.1:9: ")


async def test_an_index_without_the_platform(world: World, client: Client) -> None:
    """In the words of the contract."""
    world.registry.put_index("base", "1", "linux/arm64")
    assert await refusal(client.resolve(f"{world.registry.host}/base:1")) == (
        Status.INTERNAL,
        "cannot resolve image: no manifest for platform linux-amd64 found",
    )


CHECK: Final = "cannot check if image is already built: "
RESOLVE: Final = "cannot resolve workspace image: "


@pytest.mark.parametrize(
    ("fault", "status", "prefixed", "rest"),
    [
        (UNAUTHORIZED, Status.INTERNAL, True, "registry {host}: access denied"),
        (FORBIDDEN, Status.INTERNAL, True, "registry {host}: access denied"),
        (BROKEN, Status.INTERNAL, True, "registry {host}: answers with status 500"),
        (TOO_MANY, Status.UNAVAILABLE, False, "registry {host}: too many requests"),
        (Hang(), Status.UNAVAILABLE, False, "registry {host}: no answer within 0.3 s"),
        (Reset(), Status.UNAVAILABLE, False, "registry {host}: "),
    ],
    ids=["401", "403", "500", "429", "time limit", "reset"],
)
@pytest.mark.parametrize("method", ["ResolveWorkspaceImage", "Build", "Build of a resolved name"])
async def test_the_workspace_image_can_not_be_looked_up(
    world: World, method: str, fault: Fault, status: Status, prefixed: bool, rest: str
) -> None:
    """It is not the user's image that is at fault, so the text says something else."""
    async with serving(unobserved(world, registries={"timeout": "300ms"})) as served:
        client = served.client
        name = f"{world.registry.host}/base:1"
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "ResolveWorkspaceImage": lambda: client.workspace_image(dockerfile()),
            "Build": lambda: client.build(dockerfile()),
            "Build of a resolved name": lambda: client.build(dockerfile(), base_image_name_resolved=name),
        }
        world.registry.fail_next(*[fault] * (2 if isinstance(fault, Reset) else 1))
        told, text = await refusal(calls[method]())
    prefix = (RESOLVE if method == "ResolveWorkspaceImage" else CHECK) if prefixed else ""
    expected = prefix + rest.format(host=world.registry.host)
    assert (told, text[: len(expected)]) == (status, expected)
    assert "cannot resolve image" not in text
    assert not world.manager.received("StartWorkspace")


@pytest.mark.parametrize("method", ["ResolveWorkspaceImage", "Build"])
async def test_other_initializers_are_not_supported(client: Client, method: str) -> None:
    """In the words of the contract; the details are in `test_bad_input`."""
    source = dockerfile()
    assert source.file is not None
    source.file.source = None
    call = client.build(source) if method == "Build" else client.workspace_image(source)
    assert await refusal(call) == (
        Status.INTERNAL,
        "cannot resolve base image: unsupported context initializer",
    )


# --- what the registry is asked -------------------------------------------------------------------------------


async def test_retries_are_turned_on_by_the_request(world: World, client: Client) -> None:
    """Without them, a fault that may pass is told at once."""
    ref = world.seed_base_image()
    world.registry.fail_next(BROKEN)
    status, _ = await refusal(client.resolve(ref))
    assert status is Status.INTERNAL
    assert len(world.registry.requests) == 1
    world.registry.fail_next(BROKEN)
    assert "@sha256:" in await client.resolve(ref, retry=True)
    assert len(world.registry.requests) == 3
    world.registry.fail_next(Respond(501))
    await refusal(client.resolve(ref, retry=True))
    assert len(world.registry.requests) == 4


@pytest.mark.parametrize("method", ["ResolveWorkspaceImage", "Build"])
async def test_every_call_can_turn_retries_on(world: World, client: Client, method: str) -> None:
    """For all the look-ups that it makes."""
    ref = world.seed_base_image()
    world.push((await client.workspace_image(reference(ref))).ref)
    world.registry.fail_next(BROKEN)
    if method == "Build":
        responses = await client.build(reference(ref), use_retry_client=True)
    else:
        request = ResolveWorkspaceImageRequest(source=reference(ref), use_retry_client=True)
        responses = await client.call(request)
    assert [response.status for response in responses] == [BuildStatus.done_success]


async def test_a_digest_that_was_resolved_before_costs_nothing(world: World, client: Client) -> None:
    """Its contents can't change."""
    resolved = await client.resolve(world.seed_base_image())
    before = len(world.registry.requests)
    assert await client.resolve(resolved) == resolved
    assert len(world.registry.requests) == before


async def test_equal_lookups_at_once_are_one(world: World, client: Client) -> None:
    """However many calls ask."""
    ref = world.seed_base_image()
    world.registry.latency = 0.1
    results: list[str] = []

    async def resolve() -> None:
        results.append(await client.resolve(ref))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(resolve)
    assert len(set(results)) == 1
    assert len(world.registry.requests) == 1


async def test_references_of_the_configuration_are_kept_resolved(world: World) -> None:
    """Under exactly their spelling, from the start on, and also when the registry is down."""
    digest = world.registry.put_image("base", "1")
    listed = f"{world.registry.host}/base:1"
    config = unobserved(world, refCache={"interval": "6h0m0s", "refs": [listed]})
    async with serving(config) as served:
        await world.registry.requested(1)
        await served.client.resolve(listed, retry=True)  # the same look-up, or its result
        asked = len(world.registry.requests)
        world.registry.delete("base", "1")
        assert await served.client.resolve(listed) == f"{world.registry.host}/base@{digest}"
        assert len(world.registry.requests) == asked
        status, _ = await refusal(served.client.resolve(f"{listed}@sha256:{'0' * 64}"))
        assert status is Status.NOT_FOUND
        assert len(world.registry.requests) == asked + 1


async def test_a_refresh_that_fails_keeps_the_old_answer(world: World) -> None:
    """And one that works takes the new one."""
    digest = world.registry.put_image("base", "1", text="old")
    listed = f"{world.registry.host}/base:1"
    config = unobserved(world, refCache={"interval": "50ms", "refs": [listed]})
    async with serving(config) as served:
        await world.registry.requested(1)
        await served.client.resolve(listed, retry=True)  # the same look-up, or its result
        world.registry.delete("base", "1")
        await world.registry.requested(len(world.registry.requests) + 2)
        assert await served.client.resolve(listed) == f"{world.registry.host}/base@{digest}"
        new = world.registry.put_image("base", "1", text="new")
        with anyio.fail_after(20):
            while not (await served.client.resolve(listed)).endswith(new):
                await world.registry.requested(len(world.registry.requests) + 1)
