"""Requests that can't be served, over the wire: the code, and a message that names the field."""

from __future__ import annotations

from typing import Final

import pytest
from grpclib.const import Status

from imgbuilder.pb.builder import (
    BuildRequest,
    BuildSource,
    LogsRequest,
    ResolveBaseImageRequest,
    ResolveWorkspaceImageRequest,
)
from imgbuilder.pb.contentservice import (
    CompositeInitializer,
    EmptyInitializer,
    FileDownloadInitializer,
    FromBackupInitializer,
    PrebuildInitializer,
    SnapshotInitializer,
    WorkspaceInitializer,
)
from tests.contract.service.client import (
    Client,
    bringing,
    dockerfile,
    everything,
    git,
    reference,
    refusal,
)
from tests.contract.service.conftest import serving, unobserved
from tests.contract.service.test_start_request import field
from tests.world.world import World

BAD: Final = Status.INVALID_ARGUMENT
METHODS: Final = pytest.mark.parametrize("method", [BuildRequest, ResolveWorkspaceImageRequest])
"""The calls that take a source."""

Method = type[BuildRequest] | type[ResolveWorkspaceImageRequest]


@METHODS
async def test_no_source(client: Client, method: Method) -> None:
    """In the words of the contract."""
    assert await refusal(client.call(method())) == (BAD, "build source is missing")


@METHODS
@pytest.mark.parametrize("encoded", [b"", field(7, "of a newer version")])
async def test_a_source_of_no_kind(client: Client, method: Method, encoded: bytes) -> None:
    """Neither a reference nor a Dockerfile, perhaps something new."""
    assert await refusal(client.call(method(), encoded=field(1, encoded))) == (
        BAD,
        "source.from: is missing: it must be ref or file",
    )


@pytest.mark.parametrize(
    ("ref", "rule"),
    [
        ("", "invalid reference format"),
        (" ubuntu", "invalid reference format"),
        ("ubuntu:", "invalid reference format"),
        ("Ubuntu", "must be lowercase"),
        ("ubuntu@sha256:12", "invalid reference format"),
        ("a" * 64, "64-byte hexadecimal strings"),
        ("a/" + "b" * 256, "must not be more than 255 characters"),
    ],
)
async def test_what_is_no_reference(client: Client, ref: str, rule: str) -> None:
    """The message names the field, the text and the rule that it breaks."""
    for field_name, request in (
        ("ref", ResolveBaseImageRequest(ref=ref)),
        ("source.ref.ref", ResolveWorkspaceImageRequest(source=reference(ref))),
        ("source.ref.ref", BuildRequest(source=reference(ref))),
    ):
        status, message = await refusal(client.call(request))
        assert status is BAD
        assert message.startswith(f"{field_name}: ")
        assert rule in message
        assert ref[:100] in message


async def test_userinfo_in_a_reference_is_not_repeated(client: Client) -> None:
    """A message with a password would end up in logs of clients."""
    _, message = await refusal(client.resolve("https://user:hunter2@registry.test/image"))
    assert "hunter2" not in message


@METHODS
@pytest.mark.parametrize(
    ("source", "field_name"),
    [
        (dockerfile(path="a\nb"), "source.file.dockerfile_path"),
        (dockerfile(context="a\x00b"), "source.file.context_path"),
        (dockerfile(version="1\r"), "source.file.dockerfile_version"),
        (dockerfile(source=git(clone_target="main\n")), "source.file.source.git.clone_taget"),
        (dockerfile(source=git(remote_uri="https://a\x7fb")), "source.file.source.git.remote_uri"),
    ],
)
async def test_control_characters(
    client: Client, method: Method, source: BuildSource, field_name: str
) -> None:
    """In any field that goes into a name: two sources could share one."""
    status, message = await refusal(client.call(method(source=source)))
    assert status is BAD
    assert message.startswith(f"{field_name}: has the control character U+00")


async def test_control_characters_in_a_resolved_name(client: Client) -> None:
    """It goes into the name of the workspace image."""
    request = BuildRequest(source=dockerfile(), base_image_name_resolved="a\nb")
    status, message = await refusal(client.call(request))
    assert status is BAD
    assert message.startswith("base_image_name_resolved: has the control character U+000A")


@METHODS
@pytest.mark.parametrize(
    ("source", "field_name"),
    [
        (dockerfile(path="../Dockerfile"), "source.file.dockerfile_path"),
        (dockerfile(path="a/../../Dockerfile"), "source.file.dockerfile_path"),
        (dockerfile(context=".."), "source.file.context_path"),
        (dockerfile(context="/workspace/../etc"), "source.file.context_path"),
    ],
)
async def test_paths_that_leave_the_workspace(
    client: Client, method: Method, source: BuildSource, field_name: str
) -> None:
    """Nothing outside it is a build's business."""
    assert await refusal(client.call(method(source=source))) == (BAD, f"{field_name}: leaves /workspace")


@pytest.mark.parametrize("auth", [bringing({"ghcr.io": "§"}), everything({"ghcr.io": "no base64"})])
async def test_additional_credentials_that_are_not_base64(world: World, client: Client, auth: object) -> None:
    """Resolving looks at all of them; the value is not repeated."""
    ref = world.seed_base_image()
    for request in (
        ResolveBaseImageRequest(ref=ref, auth=auth),  # type: ignore[arg-type]  # one of the two above
        ResolveWorkspaceImageRequest(source=reference(ref), auth=auth),  # type: ignore[arg-type]  # as well
    ):
        assert await refusal(client.call(request)) == (
            BAD,
            "auth.additional[ghcr.io]: is not base64 of user:password",
        )


async def test_additional_credentials_for_the_base_image_that_are_not_base64(
    world: World, client: Client
) -> None:
    """Build needs only these itself; what it does not need, the build workspace is given as it is."""
    ref = world.seed_base_image()
    host = world.registry.host
    assert await refusal(client.build(reference(ref), auth=bringing({host: "no base64"}))) == (
        BAD,
        f"auth.additional[{host}]: is not base64 of user:password",
    )


@METHODS
@pytest.mark.parametrize(
    "initializer",
    [
        WorkspaceInitializer(empty=EmptyInitializer()),
        WorkspaceInitializer(snapshot=SnapshotInitializer(snapshot="s")),
        WorkspaceInitializer(prebuild=PrebuildInitializer()),
        WorkspaceInitializer(composite=CompositeInitializer(initializer=[git()])),
        WorkspaceInitializer(download=FileDownloadInitializer()),
        WorkspaceInitializer(backup=FromBackupInitializer()),
        WorkspaceInitializer(),
    ],
    ids=["empty", "snapshot", "prebuild", "composite", "download", "backup", "none or unknown"],
)
async def test_initializers_that_have_no_name(
    client: Client, method: Method, initializer: WorkspaceInitializer
) -> None:
    """Only the Dockerfile of a git repository can be named, in the words of the contract."""
    assert await refusal(client.call(method(source=dockerfile(source=initializer)))) == (
        Status.INTERNAL,
        "cannot resolve base image: unsupported context initializer",
    )


async def test_a_build_that_nobody_knows(client: Client) -> None:
    """By whatever it is asked for."""
    for request in (LogsRequest(), LogsRequest(build_ref="a"), LogsRequest(build_id="a")):
        assert await refusal(client.call(request)) == (Status.NOT_FOUND, "build not found")


async def test_a_message_that_is_too_large(world: World, client: Client) -> None:
    """More than 4 MiB by default; the message says so, and the connection goes on."""
    status, message = await refusal(client.resolve("a" * (4 << 20)))
    assert status is Status.RESOURCE_EXHAUSTED
    assert str(4 << 20) in message
    assert await client.builds() == []


async def test_the_size_of_messages_can_be_configured(world: World) -> None:
    """Up to the 100 MiB of the system that is replaced, and beyond."""
    source = dockerfile(version="1" * (5 << 20))
    async with serving(unobserved(world, limits={"messageSize": "100MiB"})) as served:
        image = await served.client.workspace_image(source)
    assert image.ref


@pytest.mark.parametrize(
    "encoded", [b"\x0a", b"\x0a\x02\xff\xfe", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
async def test_what_is_no_message(client: Client, encoded: bytes) -> None:
    """Cut short, text that is no UTF-8, a number without end: what gRPC servers answer, and nothing else happens."""
    status, message = await refusal(client.call(ResolveBaseImageRequest(), encoded=encoded))
    assert status is Status.INTERNAL
    assert "ResolveBaseImageRequest" in message
    assert await client.builds() == []
