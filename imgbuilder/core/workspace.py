"""A build as the workspace manager knows it: the request that starts one, and what its statuses say.

Names and values of the request are read by the workspace manager and by the builder image in the workspace;
all of them are part of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from imgbuilder.core.builds import LogSource, WorkspaceSeen
from imgbuilder.core.naming import BuildPaths
from imgbuilder.core.references import InvalidReferenceError, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.contentservice import EmptyInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import (
    EnvironmentVariable,
    EnvironmentVariableSecretKeyRef,
    IdeImage,
    StartWorkspaceRequest,
    StartWorkspaceSpec,
    WorkspaceConditions,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceStatus,
    WorkspaceType,
)

MANAGED_BY: Final[Mapping[str, str]] = {"managed-by": "image-builder"}
"""The annotation that tells the workspaces of image builders from others."""

BUILD_TASKS: Final = '[{"name": "build", "init": "sudo -E /app/bob build"}]'
TIMEOUT: Final = "1h0m0s"

LONGEST_TEXT: Final = 64 * 1024
"""Characters of a failure or message that are passed on: far more than any has, and few enough to be kept and sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What a build is to make, from what.

    :ivar ref: the workspace image to make.
    :ivar base_ref: the image it is made from.
    :ivar initializer: what the workspace starts with; None for a source that is an image reference.
    :ivar additional_auth: JSON of the credentials that the workspace is given beside the pull secret.
    """

    ref: str
    base_ref: str
    paths: BuildPaths
    initializer: WorkspaceInitializer | None
    additional_auth: Secret
    triggered_by: str
    supervisor_ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSettings:
    """What all build workspaces have in common.

    :ivar pull_secret: name of the Kubernetes secret with the service's credentials.
    :ivar debug: whether the supervisor in the workspace logs in detail.
    """

    builder_image: str
    pull_secret: str
    debug: bool = False


def start_request(plan: BuildPlan, build_id: str, settings: WorkspaceSettings) -> StartWorkspaceRequest:
    """The request that starts the workspace of a build."""
    return StartWorkspaceRequest(
        id=build_id,
        service_prefix=build_id,
        metadata=WorkspaceMetadata(
            owner=plan.triggered_by,
            meta_id=build_id,
            annotations={"ref": plan.ref, "baseref": plan.base_ref, **MANAGED_BY},
        ),
        spec=StartWorkspaceSpec(
            initializer=plan.initializer or WorkspaceInitializer(empty=EmptyInitializer()),
            timeout=TIMEOUT,
            workspace_image=settings.builder_image,
            ide_image=IdeImage(web_ref=settings.builder_image, supervisor_ref=plan.supervisor_ref),
            workspace_location=plan.paths.context,
            envvars=_environment(plan, settings),
        ),
        type=WorkspaceType.IMAGEBUILD,
    )


def _environment(plan: BuildPlan, settings: WorkspaceSettings) -> list[EnvironmentVariable]:
    digest = _digest_of(plan.base_ref)
    variables = {
        "BOB_TARGET_REF": "localhost:8080/target:latest",
        "BOB_BASE_REF": f"localhost:8080/base@{digest}" if digest else "localhost:8080/base:latest",
        "BOB_BUILD_BASE": "true" if plan.initializer else "false",
        "BOB_DOCKERFILE_PATH": plan.paths.dockerfile,
        "BOB_CONTEXT_DIR": plan.paths.context,
        "GITPOD_TASKS": BUILD_TASKS,
        "WORKSPACEKIT_RING2_ENCLAVE": "/app/bob proxy",
        "WORKSPACEKIT_BOBPROXY_BASEREF": plan.base_ref,
        "WORKSPACEKIT_BOBPROXY_TARGETREF": plan.ref,
        "WORKSPACEKIT_BOBPROXY_AUTH": EnvironmentVariableSecretKeyRef(
            secret_name=settings.pull_secret,
            key=".dockerconfigjson",
        ),
        "WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH": plan.additional_auth.reveal(),
        "SUPERVISOR_DEBUG_ENABLE": "true" if settings.debug else "false",
    }
    return [
        EnvironmentVariable(name=name, value=value)
        if isinstance(value, str)
        else EnvironmentVariable(name=name, secret=value)
        for name, value in variables.items()
    ]


def _digest_of(ref: str) -> str | None:
    try:
        return parse_reference(ref).digest
    except InvalidReferenceError:
        return None


def seen(status: WorkspaceStatus) -> WorkspaceSeen | None:
    """What *status* says of a build; None if it is not the workspace of one."""
    # "is None" throughout: the truth of a generated message is found by comparing all its fields
    metadata = status.metadata
    if metadata is None:
        return None
    annotations = metadata.annotations
    ref = annotations.get("ref", "")
    if not metadata.meta_id or not ref or not MANAGED_BY.items() <= annotations.items():
        return None
    conditions = WorkspaceConditions() if status.conditions is None else status.conditions
    url = "" if status.spec is None else status.spec.url
    owner_token = "" if status.auth is None else status.auth.owner_token
    return WorkspaceSeen(
        build_id=metadata.meta_id,
        ref=ref,
        base_ref=annotations.get("baseref", ""),
        version=status.status_version,
        phase=_phase_name(status.phase),
        ended=status.phase in (WorkspacePhase.STOPPING, WorkspacePhase.STOPPED),
        stopped=status.phase == WorkspacePhase.STOPPED,
        failure=(conditions.failed or conditions.headless_task_failed)[:LONGEST_TEXT],
        message=status.message[:LONGEST_TEXT],
        # what is before 1970 is Go's way to say that it is not set
        started_at=max(0, int(metadata.started_at.timestamp())) if metadata.started_at else 0,
        log_source=LogSource(url=url, owner_token=Secret(owner_token)) if url else None,
    )


def _phase_name(phase: WorkspacePhase) -> str:
    return phase.name or str(phase.value)  # a phase of a newer workspace manager has no name
