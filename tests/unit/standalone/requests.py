"""Start requests as the image builder sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from imgbuilder.core.naming import BuildPaths
from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import BuildPlan, WorkspaceSettings, start_request
from imgbuilder.pb.contentservice import WorkspaceInitializer
from imgbuilder.pb.wsman import EnvironmentVariable, StartWorkspaceRequest

BASE = "127.0.0.1:5000/base:1"
TARGET = "127.0.0.1:5000/workspace:1"


def build_request(
    build_id: str = "build-1",
    *,
    owner: str = "ann",
    base: str = BASE,
    target: str = TARGET,
    initializer: WorkspaceInitializer | None = None,
    dockerfile: str = "/workspace/Dockerfile",
    context: str = "/workspace",
    additional: Mapping[str, Mapping[str, str]] | None = None,
) -> StartWorkspaceRequest:
    """A request for a build of a Dockerfile if there is an *initializer*, else of a reference."""
    plan = BuildPlan(
        ref=target,
        base_ref=base,
        paths=BuildPaths(dockerfile=dockerfile, context=context),
        initializer=initializer,
        additional_auth=Secret(json.dumps(additional or {})),
        triggered_by=owner,
        supervisor_ref="supervisor:1",
    )
    settings = WorkspaceSettings(builder_image="builder:1", pull_secret="pull-secret")
    return start_request(plan, build_id, settings)


def with_variable(request: StartWorkspaceRequest, name: str, value: str | None) -> StartWorkspaceRequest:
    """*request* with another value of an environment variable, or without it."""
    assert request.spec is not None
    request.spec.envvars = [variable for variable in request.spec.envvars if variable.name != name]
    if value is not None:
        request.spec.envvars.append(EnvironmentVariable(name=name, value=value))
    return request
