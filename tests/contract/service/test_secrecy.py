"""Credentials never show: a program with recognizable secrets in every place, and a search of all that it says."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
from grpclib.const import Status

from imgbuilder.pb.builder import BuildRequest, BuildSource
from imgbuilder.pb.contentservice import (
    GitAuthMethod,
    GitConfig,
    GitInitializer,
    WorkspaceInitializer,
)
from tests.contract.service.client import (
    Client,
    bringing,
    connected,
    dockerfile,
    everything,
    reference,
    refusal,
    selected,
    statuses,
)
from tests.contract.service.conftest import get
from tests.world.process import service_process
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import FakeRegistry, RedirectTo, Reset, WrongBody
from tests.world.scripts import failing, succeeding
from tests.world.world import World

SECRET: Final = "hunter2"
"""Stands in every secret, before something that says where it is from."""


def pair(user: str, password: str) -> str:
    """Base64 of ``user:password``."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def with_secrets(version: str) -> BuildSource:
    """A Dockerfile in a repository that asks for credentials."""
    config = GitConfig(
        authentication=GitAuthMethod.BASIC_AUTH,
        auth_user="git",
        auth_password=f"{SECRET}-git",
        auth_ots=f"https://ots.test/{SECRET}-ots",
        custom_config={"http.extraHeader": f"Authorization: Bearer {SECRET}-header"},
    )
    git = GitInitializer(
        remote_uri=f"https://user:{SECRET}-uri@git.test/a.git", clone_taget="main", config=config
    )
    return dockerfile(version=version, source=WorkspaceInitializer(git=git))


async def everything_that_fails(world: World, client: Client) -> list[str]:
    """Have errors of all kinds come about; what the client is told of them."""
    ref = world.seed_base_image()
    host = world.registry.host
    wrong = {host: pair("me", f"{SECRET}-wrong")}
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.resolve(ref),
        lambda: client.resolve(ref, bringing(wrong)),
        lambda: client.resolve(ref, bringing({host: f"{SECRET} no base64"})),
        lambda: client.resolve(f"https://user:{SECRET}-ref@{host}/base"),
        lambda: client.build(reference(ref), auth=bringing(wrong)),
    ]
    messages = [(await refusal(call()))[1] for call in calls]
    for fault in (Respond(500), WrongBody(), Reset(), RedirectTo(f"http://user:{SECRET}-redirect@{host}/a")):
        world.registry.fail_next(fault, fault)
        try:
            await client.resolve(ref, everything())
        except Exception as error:  # noqa: BLE001  # whatever it is told, it may not be a secret
            messages.append(str(error))
    world.manager.faults.fail("StartWorkspace", Status.INVALID_ARGUMENT, "no such image")
    messages.append((await refusal(client.build(with_secrets("2"), auth=everything(wrong))))[1])
    return messages


async def test_secrets_are_nowhere_to_be_seen(tmp_path: Path) -> None:
    """Neither in the log in all its detail, nor in metrics, nor in errors: as they are, or in base64."""
    registry = FakeRegistry(authentication="token", users={"service": f"{SECRET}-own"})
    async with World(registry=registry) as world:
        world.script = succeeding(["output of the build"], heard=True)
        additional = {"ghcr.io": pair("me", f"{SECRET}-additional"), "quay.io": f"{SECRET}-not-base64"}
        async with (
            service_process(world.service_config(), tmp_path, "--verbose") as process,
            connected(int(process.host.rpartition(":")[2])) as client,
        ):
            auth = selected(base=True, additional=additional)
            responses = await client.build(with_secrets("1"), auth=auth)
            assert statuses(responses)[-1] == "done_success"
            await client.log(build_ref=responses[-1].ref)
            (started,) = world.manager.received("StartWorkspace")
            world.script = failing(heard=True)
            await client.build(
                reference(await client.resolve(world.seed_base_image(), everything())), auth=auth
            )
            async with client.open(BuildRequest(source=with_secrets("3"))) as call:
                await call.next()
            messages = await everything_that_fails(world, client)
            metrics = (await get(process.metrics_port, "/metrics")).text
            world.pull_secret_file.write_text('{"auths": {"a": {"auth": "' + SECRET + "-broken")
            with anyio.fail_after(20):
                while not any("pull secret can't be used" in record["message"] for record in process.records):
                    await get(process.probes_port, "/live")
        said = json.dumps(process.records) + metrics + "".join(messages)
    # They were there, so that they could have been said.
    assert f"{SECRET}-own" in str(started.spec.envvars)
    assert f"{SECRET}-git" in str(started.spec.initializer)
    secrets = [
        SECRET,
        *registry.tokens,
        *(request.headers["x-gitpod-owner-token"] for request in world.supervisors.requests),
    ]
    secrets += [value for request in registry.requests if (value := request.authorization.partition(" ")[2])]
    secrets += additional.values()
    assert len(set(secrets)) > 8
    assert [secret for secret in set(secrets) if secret in said] == []
    assert "output of the build" not in said
    assert "build started" in said
