"""Whose credentials are shown to which registry, and which the build workspace is given, over the wire."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from grpclib.const import Status

from imgbuilder.pb.builder import BuildRegistryAuth, BuildRegistryAuthTotal, BuildRequest, BuildStatus
from tests.contract.service.client import (
    Client,
    bringing,
    dockerfile,
    everything,
    reference,
    refusal,
    selected,
    statuses,
)
from tests.contract.service.conftest import Logged, serving, unobserved
from tests.helpers import in_own_task
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import idle
from tests.world.world import World

OWN = {"service": "own-password"}
DENIED = (Status.UNAUTHENTICATED, "cannot resolve image")


def pair(user: str, password: str) -> str:
    """Base64 of ``user:password``."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def users_of(registry: FakeRegistry) -> list[str]:
    """The users that a registry with Basic authentication saw, one a request."""
    users = []
    for request in registry.requests:
        decoded = base64.b64decode(request.authorization.partition(" ")[2]).decode()
        users.append(decoded.rpartition(":")[0])
    return users


class Registries:
    """A world whose registry (of workspace and base images) asks for credentials, and another registry that does.

    The service has its own credentials for both.
    """

    def __init__(self, world: World, other: FakeRegistry) -> None:
        self.world = world
        self.other = other
        self.base = f"{world.registry.host}/base:1"
        self.other_base = f"{other.host}/base:1"
        self.digest = world.registry.put_image("base", "1")
        other.put_image("base", "1")

    def write(self, auths: Mapping[str, Any]) -> None:
        """Replace the pull secret."""
        self.world.pull_secret_file.write_text(json.dumps({"auths": auths}))

    @property
    def own(self) -> dict[str, Any]:
        """The pull secret's entries for both."""
        entry = {"auth": pair("service", "own-password")}
        return {self.world.registry.host: entry, self.other.host: entry}

    @asynccontextmanager
    async def serving(self, **overrides: Any) -> AsyncIterator[Client]:
        """A client of a service."""
        insecure = [self.world.registry.host, self.other.host]
        config = unobserved(self.world, registries={"insecure": insecure}, **overrides)
        async with serving(config) as served:
            yield served.client

    async def additional_auth(self, client: Client, **fields: Any) -> dict[str, Any]:
        """What a build workspace is given."""
        self.world.script = idle
        async with client.open(BuildRequest(**fields)) as call:
            await call.next()
        spec = self.world.manager.received("StartWorkspace")[-1].spec
        (text,) = [
            variable.value
            for variable in spec.envvars
            if variable.name == "WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"
        ]
        document: dict[str, Any] = json.loads(text)
        assert list(document) == sorted(document)
        return document


@asynccontextmanager
async def two_registries() -> AsyncIterator[Registries]:
    """Both of them with Basic authentication."""
    users = {**OWN, "guest": "guest-password"}
    async with (
        FakeRegistry(authentication="basic", users=users) as other,
        World(registry=FakeRegistry(authentication="basic", users=users)) as world,
    ):
        registries = Registries(world, other)
        registries.write(registries.own)
        yield registries


@pytest.fixture
async def registries() -> AsyncIterator[Registries]:
    """Two registries and a world."""
    async with in_own_task(two_registries()) as registries:
        yield registries


# --- what a request may use -----------------------------------------------------------------------------------


async def test_by_default_no_credentials_are_used(registries: Registries) -> None:
    """Neither without any permission, nor with an empty one."""
    async with registries.serving() as client:
        for auth in (
            None,
            BuildRegistryAuth(),
            selected(),
            BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=False)),
        ):
            for ref in (registries.base, registries.other_base):
                assert await refusal(client.resolve(ref, auth)) == DENIED
    assert set(users_of(registries.world.registry) + users_of(registries.other)) == {""}


async def test_total_allows_everything(registries: Registries) -> None:
    """The service's credentials for any registry."""
    async with registries.serving() as client:
        for ref in (registries.base, registries.other_base):
            assert "@sha256:" in await client.resolve(ref, everything())
    assert users_of(registries.other)[-1] == "service"


async def test_selective_allows_registry_by_registry(registries: Registries) -> None:
    """Those of the base and workspace repositories by name, others by host."""
    base, workspace = f"{registries.world.registry.host}/base-images", f"{registries.other.host}/images"
    repositories = {"baseImageRepository": base, "workspaceImageRepository": workspace}
    in_base, in_workspace = registries.base, registries.other_base
    async with registries.serving(orchestrator=repositories) as client:
        for auth, allowed, denied in (
            (selected(base=True), in_base, in_workspace),
            (selected(workspace=True), in_workspace, in_base),
            (selected(registries.other.host), in_workspace, in_base),
        ):
            assert "@sha256:" in await client.resolve(allowed, auth)
            assert await refusal(client.resolve(denied, auth)) == DENIED


async def test_additional_credentials_are_used_where_there_are_no_others(registries: Registries) -> None:
    """What may be used of the service's own comes first."""
    host = registries.other.host
    ref = registries.other_base
    async with registries.serving() as client:
        guest = {host: pair("guest", "guest-password")}
        await client.resolve(ref, bringing(guest))
        assert users_of(registries.other) == ["", "guest"]
        await client.resolve(ref, selected(registries.world.registry.host, additional=guest))
        assert users_of(registries.other)[-1] == "guest"
        await client.resolve(ref, everything(guest))
        assert users_of(registries.other)[-1] == "service"
        wrong = {host: pair("guest", "wrong")}
        assert await refusal(client.resolve(ref, bringing(wrong))) == DENIED
        elsewhere = {"ghcr.io": pair("guest", "guest-password")}
        assert await refusal(client.resolve(ref, bringing(elsewhere))) == DENIED


async def test_permission_without_own_credentials_falls_back_to_additional(registries: Registries) -> None:
    """A registry that is allowed, for which the service has none."""
    registries.write({})
    async with registries.serving() as client:
        auth = everything({registries.other.host: pair("guest", "guest-password")})
        assert "@sha256:" in await client.resolve(registries.other_base, auth)
    assert users_of(registries.other)[-1] == "guest"


async def test_workspace_images_are_looked_up_with_the_services_own(registries: Registries) -> None:
    """Whatever the request may use: before the build, for a resolved name, and after the build."""
    async with registries.serving() as client:
        image = await client.workspace_image(dockerfile())
        assert image.status is BuildStatus.unknown
        assert statuses(await client.build(dockerfile()))[-1] == "done_success"
        assert statuses(await client.build(dockerfile(), base_image_name_resolved="a/b")) == ["done_success"]
    assert set(users_of(registries.world.registry)) <= {"", "service"}


async def test_a_resolved_name_grants_the_base_repository(registries: Registries) -> None:
    """Where the request is selective: then the image of the Dockerfile is found, and becomes the source."""
    name = f"{registries.world.registry.host}/base@{registries.digest}"
    async with registries.serving() as client:
        made_from = {}
        for kind, auth in (("selective", selected()), ("none", None), ("empty", BuildRegistryAuth())):
            registries.world.script = idle
            request = BuildRequest(source=dockerfile(), auth=auth, base_image_name_resolved=name)
            async with client.open(request) as call:
                made_from[kind] = (await call.next()).base_ref
    assert made_from["selective"] == name
    assert made_from["none"] == made_from["empty"] != name


# --- what the build workspace is given ------------------------------------------------------------------------


async def test_the_workspace_gets_the_services_credentials_for_the_base_image(registries: Registries) -> None:
    """And those of the request, except for the registry of workspace images."""
    given = {
        "ghcr.io": pair("me", "token"),
        "workspaces.test": pair("me", "mine"),
        registries.other.host: pair("guest", "guest-password"),
    }
    workspaces = registries.world.registry.host
    async with registries.serving() as client:
        document = await registries.additional_auth(
            client,
            source=reference(registries.other_base),
            auth=everything({**given, workspaces: pair("me", "mine")}),
        )
    own = {"username": "service", "password": "own-password", "auth": pair("service", "own-password")}
    assert document == {
        registries.other.host: own,
        "ghcr.io": {"username": "me", "password": "token", "auth": pair("me", "token")},
        "workspaces.test": {"username": "me", "password": "mine", "auth": pair("me", "mine")},
    }


async def test_the_workspace_gets_what_the_service_has_for_amazon(registries: Registries) -> None:
    """Under the stand-in for all of Amazon's registries; tokens under their names in Docker."""
    stand_in = "000000000000.dkr.ecr.dummy-host-zone.amazonaws.com"
    registries.write({stand_in: {"identitytoken": "identity", "registrytoken": "bearer"}, **registries.own})
    async with registries.serving() as client:
        document = await registries.additional_auth(client, source=dockerfile())
    assert document[stand_in] == {"identitytoken": "identity", "registrytoken": "bearer"}
    assert set(document) == {stand_in, registries.world.registry.host}


# --- the pull secret ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": pair("service", "own-password")},
        {"username": "service", "password": "own-password"},
    ],
    ids=["auth", "username and password"],
)
async def test_a_pull_secret_is_a_docker_configuration(registries: Registries, entry: dict[str, str]) -> None:
    """In either spelling."""
    registries.write({registries.other.host: entry})
    async with registries.serving() as client:
        assert "@sha256:" in await client.resolve(registries.other_base, everything())


async def test_a_pull_secrets_password_may_have_colons() -> None:
    """It is split at the first one, as Docker does, unlike what requests bring."""
    registry = FakeRegistry(authentication="basic", users={"service": "with:colon"})
    async with World(registry=registry) as world:
        ref = world.seed_base_image()
        auths = {registry.host: {"auth": pair("service", "with:colon")}}
        world.pull_secret_file.write_text(json.dumps({"auths": auths}))
        async with serving(unobserved(world)) as served:
            assert "@sha256:" in await served.client.resolve(ref, everything())


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
async def test_a_pull_secret_may_name_a_helper_program(
    registries: Registries, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For one registry, or for all that it has no entry for."""
    folder = registries.world.folder
    helper = folder / "docker-credential-test"
    answer = json.dumps({"Username": "service", "Secret": "own-password"})
    helper.write_text(f"#!/bin/sh\ncat >{folder}/asked\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    named = {registries.other.host: "test"} if kind == "credHelpers" else "test"
    registries.world.pull_secret_file.write_text(json.dumps({kind: named}))
    async with registries.serving() as client:
        assert "@sha256:" in await client.resolve(registries.other_base, everything())
    assert (folder / "asked").read_text().strip() == registries.other.host


async def test_a_pull_secret_that_changes_is_picked_up(registries: Registries, logged: Logged) -> None:
    """Written in place; one that does not parse is left alone, with an error in the log."""
    registries.write({})
    async with registries.serving() as client:
        assert await refusal(client.resolve(registries.other_base, everything())) == DENIED
        registries.write(registries.own)
        with anyio.fail_after(20):
            await logged.until("pull secret was read again")
        assert "@sha256:" in await client.resolve(registries.other_base, everything())
        registries.world.pull_secret_file.write_text('{"auths": ')
        await logged.until("pull secret can't be used, the former one stays in use")
        assert "@sha256:" in await client.resolve(registries.other_base, everything())
    assert [event["level"] for event in logged.events if "can't be used" in event["event"]] == ["error"]


async def test_a_pull_secret_of_kubernetes_that_changes_is_picked_up(
    registries: Registries, logged: Logged
) -> None:
    """There, a link to a folder is put in the place of another."""
    volume = registries.world.folder / "volume"
    volume.mkdir()
    for name, auths in (("..1", {}), ("..2", registries.own)):
        (volume / name).mkdir()
        (volume / name / "secret.json").write_text(json.dumps({"auths": auths}))
    (volume / "..data").symlink_to("..1")
    (volume / "secret.json").symlink_to("..data/secret.json")
    async with registries.serving(orchestrator={"pullSecretFile": str(volume / "secret.json")}) as client:
        assert await refusal(client.resolve(registries.other_base, everything())) == DENIED
        (volume / "..data_tmp").symlink_to("..2")
        (volume / "..data_tmp").rename(volume / "..data")
        with anyio.fail_after(20):
            await logged.until("pull secret was read again")
        assert "@sha256:" in await client.resolve(registries.other_base, everything())


async def test_a_build_against_a_registry_with_tokens() -> None:
    """A build against one: what is looked up, and what the workspace is given."""
    registry = FakeRegistry(authentication="token", users=OWN)
    async with World(registry=registry) as world:
        ref = world.seed_base_image()
        async with serving(unobserved(world)) as served:
            assert await refusal(served.client.build(reference(ref))) == DENIED
            responses = await served.client.build(reference(ref), auth=selected(base=True))
    assert statuses(responses)[-1] == "done_success"
