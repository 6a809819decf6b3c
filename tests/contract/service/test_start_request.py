"""The request that starts a build workspace: its fields as the bytes that arrive, and what is passed on in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from imgbuilder.pb.builder import BuildRequest, BuildSource
from imgbuilder.pb.wsman import StartWorkspaceRequest
from imgbuilder.runtime.grpc.wire import fields, varint
from tests.contract.service.client import Client, bringing, dockerfile, git, reference
from tests.contract.service.conftest import serving, unobserved
from tests.world.scripts import idle
from tests.world.world import World

VECTORS: Final = Path(__file__).parents[2] / "vectors"
IMAGEBUILD: Final = 4


def vectors(name: str) -> list[dict[str, Any]]:
    """The cases of a file of vectors."""
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["cases"]
    return cases


async def started(
    world: World, client: Client, source: BuildSource, *, encoded: bytes | None = None, **more: Any
) -> bytes:
    """The StartWorkspaceRequest that a build of *source* makes, as it arrived."""
    world.script = idle
    async with client.open(BuildRequest(source=source, **more), encoded=encoded) as call:
        await call.next()
    return world.manager.codec.received[StartWorkspaceRequest][-1]


def parts(data: bytes) -> dict[int, Any]:
    """The fields of a message by number; what is there more than once is a list."""
    found: dict[int, list[Any]] = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return {number: values[0] if len(values) == 1 else values for number, values in found.items()}


def environment(request: bytes) -> list[tuple[str, Any]]:
    """The environment variables in order: a value, or a secret's name and key."""
    variables = []
    for variable in map(parts, parts(parts(request)[4])[6]):
        if 3 in variable:
            secret = parts(variable[3])
            variables.append((variable[1].decode(), (secret[1].decode(), secret[2].decode())))
        else:
            variables.append((variable[1].decode(), variable.get(2, b"").decode()))
    return variables


def field(number: int, value: bytes | str) -> bytes:
    """A field of bytes, text or a message, encoded."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


async def test_every_field_of_the_start_request(world: World, client: Client) -> None:
    """By their numbers, and no other field."""
    base_ref = await client.resolve(world.seed_base_image())
    request = parts(
        await started(world, client, reference(base_ref), triggered_by="owner", supervisor_ref="supervisor:1")
    )
    image = await client.workspace_image(reference(base_ref))
    builder = f"{world.registry.host}/builder:latest".encode()
    build_id = request[1]
    assert set(request) == {1, 2, 3, 4, 6}
    assert uuid.UUID(build_id.decode()).version == 5
    assert request[2] == build_id
    assert request[6] == IMAGEBUILD
    metadata = parts(request[3])
    annotations = [parts(entry) for entry in metadata.pop(4)]
    assert metadata == {1: b"owner", 2: build_id}
    assert {entry[1].decode(): entry[2].decode() for entry in annotations} == {
        "ref": image.ref,
        "baseref": base_ref,
        "managed-by": "image-builder",
    }
    spec = parts(request[4])
    assert len(spec.pop(6)) == 12
    assert parts(spec.pop(12)) == {1: builder, 3: b"supervisor:1"}
    assert spec == {
        1: builder,
        4: field(1, b""),  # the empty initializer
        8: b"/workspace",
        10: b"1h0m0s",
    }


async def test_the_environment_of_a_reference(world: World, client: Client) -> None:
    """Names, values and order."""
    base_ref = await client.resolve(world.seed_base_image())
    request = await started(world, client, reference(base_ref))
    image = await client.workspace_image(reference(base_ref))
    assert environment(request) == [
        ("BOB_TARGET_REF", "localhost:8080/target:latest"),
        ("BOB_BASE_REF", f"localhost:8080/base@{base_ref.partition('@')[2]}"),
        ("BOB_BUILD_BASE", "false"),
        ("BOB_DOCKERFILE_PATH", "/workspace/Dockerfile"),
        ("BOB_CONTEXT_DIR", "/workspace"),
        ("GITPOD_TASKS", '[{"name": "build", "init": "sudo -E /app/bob build"}]'),
        ("WORKSPACEKIT_RING2_ENCLAVE", "/app/bob proxy"),
        ("WORKSPACEKIT_BOBPROXY_BASEREF", base_ref),
        ("WORKSPACEKIT_BOBPROXY_TARGETREF", image.ref),
        ("WORKSPACEKIT_BOBPROXY_AUTH", ("image-builder-pull-secret", ".dockerconfigjson")),
        ("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", "{}"),
        ("SUPERVISOR_DEBUG_ENABLE", "false"),
    ]


async def test_the_environment_of_a_dockerfile(world: World) -> None:
    """What differs, and that a service that logs in detail has its workspaces do so, too."""
    async with serving(unobserved(world), debug=True) as served:
        request = await started(world, served.client, dockerfile(path="docker/Dockerfile"))
        variables = dict(environment(request))
        image = await served.client.workspace_image(dockerfile(path="docker/Dockerfile"))
    assert variables["BOB_BASE_REF"] == "localhost:8080/base:latest"
    assert variables["BOB_BUILD_BASE"] == "true"
    assert variables["BOB_DOCKERFILE_PATH"] == "/workspace/docker/Dockerfile"
    assert variables["BOB_CONTEXT_DIR"] == "/workspace/docker"
    assert variables["WORKSPACEKIT_BOBPROXY_BASEREF"] == image.base_ref
    assert variables["WORKSPACEKIT_BOBPROXY_TARGETREF"] == image.ref
    assert variables["SUPERVISOR_DEBUG_ENABLE"] == "true"
    assert parts(parts(request)[4])[8] == b"/workspace/docker"


async def test_an_initializer_is_passed_on_byte_for_byte(world: World, client: Client) -> None:
    """Fields in another order than their numbers', unknown ones, parts to be merged, and defaults spelled out."""
    repository = (
        field(4, "main")  # clone_taget
        + field(1, "https://git.test/a.git")  # remote_uri
        + field(6, field(1, field(2, "b") + field(1, "z")) + field(1, field(1, "a")))  # config
        + field(2, "")  # upstream_Remote_uri, empty as by default
        + varint(7 << 3)  # full_clone, false in more bytes than it takes
        + b"\x80\x00"
        + field(1000, "of a newer version")
    )
    initializer = field(99, "unknown") + field(2, repository) + field(2, field(5, "checkout"))
    source = field(2, field(3, "Dockerfile") + field(1, initializer) + field(2, "1"))
    request = await started(
        world, client, dockerfile(), encoded=field(4, "owner") + field(1, source) + field(77, "?")
    )
    spec = parts(request)[4]
    assert parts(spec)[4] == initializer
    assert parts(parts(request)[3])[1] == b"owner"


def in_git(case: Mapping[str, str]) -> BuildSource:
    """The Dockerfile source of a vector."""
    return dockerfile(
        path=case["dockerfile_path"],
        context=case["context_path"],
        version=case["dockerfile_version"],
        source=git(case["remote_uri"], case["clone_target"]),
    )


async def test_dockerfile_sources_have_the_names_and_paths_of_the_vectors(world: World) -> None:
    """As other implementations derive them: in answers and in what the build workspace is given."""
    repository = "registry.example.com/base-images"
    config = unobserved(world, orchestrator={"baseImageRepository": repository})
    cases = vectors("dockerfile_sources.json")
    async with serving(config) as served:
        for number, case in enumerate(cases):
            image = await served.client.workspace_image(in_git(case))
            assert image.base_ref == case["base_ref"], case
            assert image.ref == world.workspace_ref(case["workspace_tag"])
            request = await started(world, served.client, in_git(case), triggered_by=str(number))
            variables = dict(environment(request))
            assert parts(parts(request)[3])[1] == str(number).encode()
            assert {name: variables[name] for name in case if name.startswith("BOB_")} == {
                name: value for name, value in case.items() if name.startswith("BOB_")
            }
            assert variables["WORKSPACEKIT_BOBPROXY_TARGETREF"] == image.ref
            assert parts(parts(request)[4])[8].decode() == case["workspace_location"]


async def test_additional_credentials_reach_the_workspace_as_in_the_vectors(
    world: World, client: Client
) -> None:
    """As JSON; those for the registry of workspace images are not a request's to give."""
    for number, case in enumerate(vectors("additional_auth.json")):
        additional = {
            world.registry.host if registry == "TARGET" else registry: value
            for registry, value in case["additional"].items()
        }
        source = dockerfile(version=str(number))
        request = await started(world, client, source, auth=bringing(additional))
        given = dict(environment(request))["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"]
        assert given == case["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"], case


def _plain(case: Mapping[str, str]) -> bool:
    return "docker_ref" in case and "@" not in case["docker_ref"]


async def test_references_mean_what_they_mean_in_the_vectors(world: World) -> None:
    """Each is asked for under its normal form; what is none is refused with the rule that it breaks."""
    cases = vectors("references.json")
    mirrors = {case["domain"]: world.registry.url for case in cases if _plain(case)}
    async with serving(unobserved(world, registries={"mirrors": mirrors})) as served:
        for case in cases:
            if _plain(case):
                tag = case["docker_ref"].rpartition(":")[2]
                digest = world.registry.put_image(case["path"], tag, text=case["docker_ref"])
                resolved = await served.client.resolve(case["in"])
                assert resolved == f"{case['domain']}/{case['path']}@{digest}", case
                assert world.registry.requests[-1].path == f"/v2/{case['path']}/manifests/{tag}"
    assert len(mirrors) > 5


async def test_a_reference_with_a_tag_and_a_digest_drops_the_tag(world: World, client: Client) -> None:
    """The registry is asked for the digest."""
    digest = world.registry.put_image("base", "1")
    resolved = await client.resolve(f"{world.registry.host}/base:other@{digest}")
    assert resolved == f"{world.registry.host}/base@{digest}"
    assert world.registry.requests[-1].path == f"/v2/base/manifests/{digest}"


@pytest.mark.parametrize("context", ["", ".", "/workspace", "/workspace/"])
async def test_contexts_that_mean_the_whole_workspace(world: World, client: Client, context: str) -> None:
    """One leading ``/workspace`` is cut; none at all means the folder of the Dockerfile."""
    request = await started(world, client, dockerfile(context=context))
    assert dict(environment(request))["BOB_CONTEXT_DIR"] == "/workspace"
