"""The start request of a build, and what statuses say."""

from __future__ import annotations

import datetime as dt

from imgbuilder.core.builds import LogSource, WorkspaceSeen
from imgbuilder.core.naming import paths_of_a_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import LONGEST_TEXT, BuildPlan, WorkspaceSettings, seen, start_request
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import (
    EnvironmentVariable,
    StartWorkspaceRequest,
    WorkspaceAuthentication,
    WorkspaceConditions,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceSpec,
    WorkspaceStatus,
    WorkspaceType,
)

DIGEST = "sha256:" + "ab" * 32
SETTINGS = WorkspaceSettings(builder_image="builder:1", pull_secret="pull")
OURS = {"ref": "r", "baseref": "base", "managed-by": "image-builder"}


def plan(*, base_ref: str = f"x.y/z@{DIGEST}", initializer: WorkspaceInitializer | None = None) -> BuildPlan:
    """What is to be built."""
    return BuildPlan(
        ref="x.y/workspace:tag",
        base_ref=base_ref,
        paths=paths_of_a_reference(),
        initializer=initializer,
        additional_auth=Secret('{"a":{}}'),
        triggered_by="owner",
        supervisor_ref="supervisor:1",
    )


def environment(request: StartWorkspaceRequest) -> dict[str, EnvironmentVariable]:
    """The environment variables of *request*, by name and in order."""
    assert request.spec is not None
    return {variable.name: variable for variable in request.spec.envvars}


def test_the_start_request_of_a_reference() -> None:
    """Every value is part of the contract."""
    request = start_request(plan(), "id", SETTINGS)
    assert (request.id, request.service_prefix, request.type) == ("id", "id", WorkspaceType.IMAGEBUILD)
    assert request.metadata == WorkspaceMetadata(
        owner="owner",
        meta_id="id",
        annotations={"ref": "x.y/workspace:tag", "baseref": f"x.y/z@{DIGEST}", "managed-by": "image-builder"},
    )
    spec = request.spec
    assert spec is not None
    assert spec.initializer is not None
    assert spec.initializer.empty is not None
    assert spec.ide_image is not None
    assert (spec.timeout, spec.workspace_image, spec.workspace_location) == (
        "1h0m0s",
        "builder:1",
        "/workspace",
    )
    assert (spec.ide_image.web_ref, spec.ide_image.supervisor_ref) == ("builder:1", "supervisor:1")


def test_the_environment_has_the_contracts_names_in_its_order() -> None:
    """The builder image reads them."""
    variables = environment(start_request(plan(), "id", SETTINGS))
    assert {name: variable.value for name, variable in variables.items()} == {
        "BOB_TARGET_REF": "localhost:8080/target:latest",
        "BOB_BASE_REF": f"localhost:8080/base@{DIGEST}",
        "BOB_BUILD_BASE": "false",
        "BOB_DOCKERFILE_PATH": "/workspace/Dockerfile",
        "BOB_CONTEXT_DIR": "/workspace",
        "GITPOD_TASKS": '[{"name": "build", "init": "sudo -E /app/bob build"}]',
        "WORKSPACEKIT_RING2_ENCLAVE": "/app/bob proxy",
        "WORKSPACEKIT_BOBPROXY_BASEREF": f"x.y/z@{DIGEST}",
        "WORKSPACEKIT_BOBPROXY_TARGETREF": "x.y/workspace:tag",
        "WORKSPACEKIT_BOBPROXY_AUTH": "",
        "WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH": '{"a":{}}',
        "SUPERVISOR_DEBUG_ENABLE": "false",
    }
    assert next(iter(variables)) == "BOB_TARGET_REF"
    assert list(variables)[-1] == "SUPERVISOR_DEBUG_ENABLE"
    secret = variables["WORKSPACEKIT_BOBPROXY_AUTH"].secret
    assert secret is not None
    assert (secret.secret_name, secret.key) == ("pull", ".dockerconfigjson")


def test_a_dockerfile_is_built_first() -> None:
    """From the initializer of the request, under a base reference without digest."""
    initializer = WorkspaceInitializer(git=GitInitializer(remote_uri="u"))
    request = start_request(plan(base_ref="x.y/z:t", initializer=initializer), "id", SETTINGS)
    assert request.spec is not None
    assert request.spec.initializer is initializer
    variables = environment(request)
    assert variables["BOB_BUILD_BASE"].value == "true"
    assert variables["BOB_BASE_REF"].value == "localhost:8080/base:latest"


def test_a_status_says_all_of_a_build() -> None:
    """Refs from the annotations, the address from the spec, the token from the authentication."""
    status = WorkspaceStatus(
        id="id",
        metadata=WorkspaceMetadata(
            meta_id="id",
            started_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            annotations=OURS,
        ),
        spec=WorkspaceSpec(url="http://w"),
        phase=WorkspacePhase.RUNNING,
        message="m",
        auth=WorkspaceAuthentication(owner_token="t"),
        status_version=7,
    )
    assert seen(status) == WorkspaceSeen(
        build_id="id",
        ref="r",
        base_ref="base",
        version=7,
        phase="RUNNING",
        ended=False,
        stopped=False,
        failure="",
        message="m",
        started_at=1767225600,
        log_source=LogSource(url="http://w", owner_token=Secret("t")),
    )


def test_the_first_failure_that_is_set_counts() -> None:
    """``failed`` before ``headless_task_failed``."""
    metadata = WorkspaceMetadata(meta_id="id", annotations=OURS)
    for conditions, failure in (
        (WorkspaceConditions(failed="f", headless_task_failed="h"), "f"),
        (WorkspaceConditions(headless_task_failed="h"), "h"),
        (WorkspaceConditions(), ""),
    ):
        found = seen(WorkspaceStatus(metadata=metadata, conditions=conditions, phase=WorkspacePhase.STOPPED))
        assert found is not None
        assert (found.failure, found.ended, found.stopped) == (failure, True, True)


def test_workspaces_of_others_are_no_builds() -> None:
    """Neither are ours without a ref."""
    for others in ({"ref": "r"}, {"ref": "r", "managed-by": "x"}, {"managed-by": "image-builder"}):
        metadata = WorkspaceMetadata(meta_id="id", annotations=others)
        assert seen(WorkspaceStatus(metadata=metadata)) is None
    assert seen(WorkspaceStatus()) is None


def test_a_phase_of_a_newer_workspace_manager_is_running() -> None:
    """Whatever it is called."""
    metadata = WorkspaceMetadata(meta_id="id", annotations=OURS)
    found = seen(WorkspaceStatus(metadata=metadata, phase=WorkspacePhase(99)))
    assert found is not None
    assert (found.phase, found.ended) == ("99", False)


def test_texts_of_absurd_length_are_cut() -> None:
    """They are kept with the build and sent to all its clients, who take no message of any length."""
    status = WorkspaceStatus(
        metadata=WorkspaceMetadata(meta_id="id", annotations=OURS),
        conditions=WorkspaceConditions(failed="f" * 100_000),
        message="m" * 100_000,
    )
    found = seen(status)
    assert found is not None
    assert (found.failure, found.message) == ("f" * LONGEST_TEXT, "m" * LONGEST_TEXT)
