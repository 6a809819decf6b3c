"""The use cases behind Build, ResolveBaseImage and ResolveWorkspaceImage."""

from __future__ import annotations

import base64
import json

import anyio
import pytest

from imgbuilder.core.builds import Build, BuildState
from imgbuilder.core.errors import (
    BuildSourceMissingError,
    InvalidInputError,
    UnsupportedInitializerError,
)
from imgbuilder.core.naming import base_image_ref, workspace_image_ref
from imgbuilder.core.permissions import ECR_STAND_IN, basic_credentials
from imgbuilder.core.secrets import Secret
from imgbuilder.orchestrator.errors import BaseImageUnresolvedError, WorkspaceImageUncheckedError
from imgbuilder.orchestrator.resolving import WorkspaceImage
from imgbuilder.pb.builder import (
    BuildRegistryAuth,
    BuildRegistryAuthSelective,
    BuildRequest,
    BuildSource,
    BuildSourceDockerfile,
    BuildSourceReference,
    ResolveBaseImageRequest,
    ResolveWorkspaceImageRequest,
)
from imgbuilder.pb.contentservice import EmptyInitializer, GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import StartWorkspaceRequest
from imgbuilder.registry.errors import ManifestUnknownError, RegistryDeniedError
from tests.unit.orchestrator.conftest import Orchestrator
from tests.unit.orchestrator.fakes import DIGEST, seen

pytestmark = pytest.mark.looptime

BASE = f"registry.test/base@{DIGEST}"
WORKSPACE = workspace_image_ref(BASE, repository="registry.test/workspace-images")


def reference(ref: str = "registry.test/base:1") -> BuildSource:
    """A source that is an image reference."""
    return BuildSource(ref=BuildSourceReference(ref=ref))


def dockerfile(path: str = "Dockerfile") -> BuildSource:
    """A source that is a Dockerfile in a git repository."""
    git = GitInitializer(remote_uri="https://git.test/a", clone_taget="main")
    return BuildSource(
        file=BuildSourceDockerfile(source=WorkspaceInitializer(git=git), dockerfile_path=path),
    )


def environment(request: StartWorkspaceRequest) -> dict[str, str]:
    """The environment variables of a start request."""
    assert request.spec is not None
    return {variable.name: variable.value for variable in request.spec.envvars}


async def test_an_image_that_exists_is_not_built(orchestrator: Orchestrator) -> None:
    """Two look-ups, and that was it."""
    orchestrator.images.existing.add(WORKSPACE)
    result = await orchestrator.builder.build(BuildRequest(source=reference()))
    assert result == WorkspaceImage(ref=WORKSPACE, base_ref=BASE, exists=True)
    assert orchestrator.images.requests == ["resolve registry.test/base:1", f"exists {WORKSPACE}"]
    assert orchestrator.workspaces.starts == []


async def test_an_image_that_does_not_exist_is_built(orchestrator: Orchestrator) -> None:
    """From the digest form of the base image."""
    request = BuildRequest(source=reference(), triggered_by="me", supervisor_ref="s:1")
    build = await orchestrator.builder.build(request)
    assert isinstance(build, Build)
    assert (build.ref, build.base_ref, build.state) == (WORKSPACE, BASE, BuildState.RUNNING)
    assert environment(orchestrator.workspaces.starts[0])["WORKSPACEKIT_BOBPROXY_TARGETREF"] == WORKSPACE


async def test_a_forced_build_looks_nothing_up(orchestrator: Orchestrator) -> None:
    """Except its base image."""
    orchestrator.images.existing.add(WORKSPACE)
    build = await orchestrator.builder.build(BuildRequest(source=reference(), force_rebuild=True))
    assert isinstance(build, Build)
    assert orchestrator.images.requests == ["resolve registry.test/base:1"]


async def test_a_dockerfile_is_named_not_resolved(orchestrator: Orchestrator) -> None:
    """Its initializer goes to the workspace."""
    source = dockerfile()
    assert source.file is not None
    base_ref = base_image_ref(source.file, repository="registry.test/base-images")
    build = await orchestrator.builder.build(BuildRequest(source=source))
    assert isinstance(build, Build)
    assert build.base_ref == base_ref
    spec = orchestrator.workspaces.starts[0].spec
    assert spec is not None
    assert spec.initializer is source.file.source
    assert orchestrator.images.requests == [f"exists {build.ref}"]


async def test_a_build_that_ended_while_the_image_was_looked_up_counts(orchestrator: Orchestrator) -> None:
    """The look-up is older than the image."""
    first = await orchestrator.builder.build(BuildRequest(source=reference()))
    assert isinstance(first, Build)
    orchestrator.images.delay = 1
    results: list[WorkspaceImage | Build] = []

    async def ask() -> None:
        results.append(await orchestrator.builder.build(BuildRequest(source=reference())))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(1.5)  # resolved; the look-up of the image is on its way, and finds nothing
        orchestrator.workspaces.update(first.build_id, "STOPPED")
        orchestrator.images.delay = 0
        orchestrator.tracker.see(seen(first.build_id, first.ref, phase="STOPPED", version=9))
        orchestrator.images.existing.add(WORKSPACE)
    (result,) = results
    assert isinstance(result, Build)
    assert result.build_id == first.build_id
    assert len(orchestrator.workspaces.starts) == 1


async def test_a_resolved_name_whose_image_exists_is_enough(orchestrator: Orchestrator) -> None:
    """One look-up; the name counts as it stands."""
    name = f"registry.test/named@{DIGEST}"
    ref = workspace_image_ref(name, repository="registry.test/workspace-images")
    orchestrator.images.existing.add(ref)
    result = await orchestrator.builder.build(
        BuildRequest(source=reference(), base_image_name_resolved=name),
    )
    assert result == WorkspaceImage(ref=ref, base_ref=name, exists=True)
    assert orchestrator.images.requests == [f"exists {ref}"]


async def test_a_resolved_name_becomes_the_source(orchestrator: Orchestrator) -> None:
    """If it resolves; what was looked up already is not looked up again."""
    name = f"registry.test/named@{DIGEST}"
    build = await orchestrator.builder.build(
        BuildRequest(source=dockerfile(), base_image_name_resolved=name),
    )
    assert isinstance(build, Build)
    assert build.base_ref == name
    exists = [request for request in orchestrator.images.requests if request.startswith("exists")]
    assert len(exists) == 1
    assert environment(orchestrator.workspaces.starts[0])["BOB_BUILD_BASE"] == "false"


async def test_a_resolved_name_that_is_gone_leaves_the_source(orchestrator: Orchestrator) -> None:
    """The request's own is built."""
    result = await orchestrator.builder.build(
        BuildRequest(source=dockerfile(), base_image_name_resolved="not a reference"),
    )
    assert isinstance(result, Build)
    assert environment(orchestrator.workspaces.starts[0])["BOB_BUILD_BASE"] == "true"


async def test_a_resolved_name_grants_the_base_repository_where_the_request_is_selective(
    orchestrator: Orchestrator,
) -> None:
    """And only there."""
    name = f"registry.test/named@{DIGEST}"
    selective = BuildRegistryAuth(selective=BuildRegistryAuthSelective(any_of=["other.test"]))
    for auth, allowed in ((selective, True), (None, False)):
        orchestrator.images.permissions.clear()
        await orchestrator.builder.build(
            BuildRequest(source=reference(), auth=auth, base_image_name_resolved=name, triggered_by="x"),
        )
        resolved_with = orchestrator.images.permissions[1]
        assert resolved_with.may_use("registry.test") is allowed


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (BuildRequest(), BuildSourceMissingError, "^build source is missing$"),
        (BuildRequest(source=BuildSource()), InvalidInputError, "^source.from: is missing"),
        (BuildRequest(source=reference("a:b/c")), InvalidInputError, "^source.ref.ref: "),
        (BuildRequest(source=dockerfile("../x")), InvalidInputError, "^source.file.dockerfile_path: "),
        (
            BuildRequest(source=reference(), base_image_name_resolved="a\nb"),
            InvalidInputError,
            "^base_image_name_resolved: has the control character",
        ),
        (
            BuildRequest(
                source=BuildSource(
                    file=BuildSourceDockerfile(source=WorkspaceInitializer(empty=EmptyInitializer())),
                ),
            ),
            UnsupportedInitializerError,
            "unsupported context initializer",
        ),
    ],
)
async def test_bad_requests_name_the_field(
    orchestrator: Orchestrator,
    request_: BuildRequest,
    error: type[Exception],
    text: str,
) -> None:
    """And start nothing."""
    with pytest.raises(error, match=text):
        await orchestrator.builder.build(request_)
    assert orchestrator.workspaces.starts == []


async def test_the_workspace_gets_the_requests_and_the_services_credentials(
    orchestrator: Orchestrator,
) -> None:
    """The service's for the base image's registry and for ECR; none of the request for the target."""
    orchestrator.images.own = {
        "registry.test": basic_credentials("service", "secret"),
        ECR_STAND_IN: basic_credentials("AWS", "token"),
    }
    theirs = base64.b64encode(b"user:password").decode()
    auth = BuildRegistryAuth(additional={"ghcr.io": theirs, "registry.test": theirs})
    await orchestrator.builder.build(BuildRequest(source=reference(), auth=auth))
    given = json.loads(environment(orchestrator.workspaces.starts[0])["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"])
    assert {registry: entry["username"] for registry, entry in given.items()} == {
        "ghcr.io": "user",
        "registry.test": "service",
        ECR_STAND_IN: "AWS",
    }


async def test_errors_of_registries_say_whose_image_it_was_about(orchestrator: Orchestrator) -> None:
    """The user's or the workspace image."""
    orchestrator.images.errors = [ManifestUnknownError("registry.test")]
    with pytest.raises(BaseImageUnresolvedError):
        await orchestrator.builder.build(BuildRequest(source=reference()))
    orchestrator.images.errors = [RegistryDeniedError("registry.test")]
    with pytest.raises(WorkspaceImageUncheckedError):
        await orchestrator.builder.build(BuildRequest(source=dockerfile()))


async def test_the_workspace_image_of_a_source_is_told(orchestrator: Orchestrator) -> None:
    """Whether it exists, looked up with the service's own credentials."""
    request = ResolveWorkspaceImageRequest(source=reference())
    image = await orchestrator.resolver.resolve_workspace_image(request)
    assert image == WorkspaceImage(ref=WORKSPACE, base_ref=BASE, exists=False)
    orchestrator.images.existing.add(WORKSPACE)
    assert (await orchestrator.resolver.resolve_workspace_image(request)).exists
    assert [permissions.allow_all for permissions in orchestrator.images.permissions] == [False, True] * 2


async def test_credentials_that_are_not_base64_are_refused(orchestrator: Orchestrator) -> None:
    """Where nothing but the look-up needs them; a build passes them on as the contract has it."""
    auth = BuildRegistryAuth(additional={"ghcr.io": "not base64!"})
    with pytest.raises(InvalidInputError, match=r"^auth.additional\[ghcr.io\]: is not base64") as caught:
        await orchestrator.resolver.resolve_base_image(ResolveBaseImageRequest(ref="a", auth=auth))
    assert "not base64!" not in str(caught.value)
    await orchestrator.builder.build(BuildRequest(source=reference(), auth=auth))
    given = environment(orchestrator.workspaces.starts[0])["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"]
    assert given == '{"ghcr.io":{"auth":"not base64!"}}'


async def test_a_cached_reference_costs_nothing(orchestrator: Orchestrator) -> None:
    """As spelled in the list; a refresh that fails keeps the old answer."""
    async with anyio.create_task_group() as group:
        group.start_soon(orchestrator.refcache.run)
        await anyio.sleep(1)
        first = await orchestrator.resolver.resolve_base_image(ResolveBaseImageRequest(ref="cached:1"))
        orchestrator.images.errors = [ManifestUnknownError("docker.io")]
        await anyio.sleep(3600)
        again = await orchestrator.resolver.resolve_base_image(ResolveBaseImageRequest(ref="cached:1"))
        group.cancel_scope.cancel()
    assert first == again == f"docker.io/library/cached@{DIGEST}"
    assert orchestrator.images.requests == ["resolve docker.io/library/cached:1"] * 2
    await orchestrator.resolver.resolve_base_image(ResolveBaseImageRequest(ref="docker.io/library/cached:1"))
    assert len(orchestrator.images.requests) == 3


def test_secrets_stay_out_of_sight() -> None:
    """Neither repr nor str shows one."""
    secret = Secret("swordfish")
    assert "swordfish" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "swordfish"
