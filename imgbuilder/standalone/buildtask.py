"""What a build is to do: read from the environment variables of a start request, as the real builder does.

The variables are the contract with the image builder. Decides nothing and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imgbuilder.config.values import parse_duration
from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.permissions import (
    ECR_STAND_IN,
    Credentials,
    basic_credentials,
    decode_additional,
    is_ecr,
)
from imgbuilder.core.references import InvalidReferenceError, Reference, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.contentservice import WorkspaceInitializer
from imgbuilder.pb.wsman import StartWorkspaceRequest, StartWorkspaceSpec

BUILD_BASE: Final = "BOB_BUILD_BASE"
DOCKERFILE_PATH: Final = "BOB_DOCKERFILE_PATH"
CONTEXT_DIR: Final = "BOB_CONTEXT_DIR"
BASE_REF: Final = "WORKSPACEKIT_BOBPROXY_BASEREF"
TARGET_REF: Final = "WORKSPACEKIT_BOBPROXY_TARGETREF"
AUTH: Final = "WORKSPACEKIT_BOBPROXY_AUTH"
ADDITIONAL_AUTH: Final = "WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"

DEFAULT_TIMEOUT: Final = "1h0m0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTask:
    """One build.

    :ivar initializer: what content it starts with; None for none.
    :ivar build_base: whether the base image is to be made of a Dockerfile first.
    :ivar dockerfile: its path in the workspace, below ``/workspace``; likewise *context*.
    :ivar base: the image that the workspace image is made from.
    :ivar target: the workspace image.
    :ivar pull_secret: whether the workspace manager's own credentials may be used for base and target.
    :ivar additional: the credentials that came along, by registry.
    :ivar timeout: how long it may take, in seconds; *timeout_text* as it was spelled.
    """

    build_id: str
    initializer: WorkspaceInitializer | None
    build_base: bool
    dockerfile: str
    context: str
    base: Reference
    target: Reference
    pull_secret: bool
    additional: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    timeout: float
    timeout_text: str

    def additional_credentials(self, registry: str) -> Credentials | None:
        """Those that came along for *registry*."""
        found = self.additional.get(registry)
        if found is None and is_ecr(registry):
            return self.additional.get(ECR_STAND_IN)
        return found


def read_build_task(request: StartWorkspaceRequest) -> BuildTask:
    """The build that *request* asks for.

    :raises InvalidInputError: if a variable is missing, or has a value that can't be used; the value of a secret
        one is not repeated.
    """
    spec = StartWorkspaceSpec() if request.spec is None else request.spec
    variables = {variable.name: variable for variable in (*spec.sys_envvars, *spec.envvars)}
    values = {name: variable.value for name, variable in variables.items()}
    timeout_text = spec.timeout or DEFAULT_TIMEOUT
    return BuildTask(
        build_id=request.id,
        initializer=spec.initializer,
        build_base=_boolean(BUILD_BASE, values.get(BUILD_BASE, "")),
        dockerfile=values.get(DOCKERFILE_PATH, ""),
        context=values.get(CONTEXT_DIR, ""),
        base=_reference(BASE_REF, values),
        target=_reference(TARGET_REF, values),
        pull_secret=AUTH in variables and variables[AUTH].secret is not None,
        additional=_additional(values.get(ADDITIONAL_AUTH, "")),
        timeout=_duration("spec.timeout", timeout_text),
        timeout_text=timeout_text,
    )


def _boolean(name: str, value: str) -> bool:
    if value not in {"", "true", "false"}:
        raise InvalidInputError(name, "must be true or false")
    return value == "true"


def _reference(name: str, values: Mapping[str, str]) -> Reference:
    text = values.get(name, "")
    if not text:
        raise InvalidInputError(name, "is missing")
    try:
        return parse_reference(text)
    except InvalidReferenceError as error:
        raise InvalidInputError(name, f"is no image reference: {error.rule}") from error


def _duration(field_name: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidInputError(field_name, str(error)) from error
    if seconds <= 0:
        raise InvalidInputError(field_name, "must be more than 0")
    return seconds


def _additional(text: str) -> dict[str, Credentials]:
    if not text:
        return {}
    fault = InvalidInputError(ADDITIONAL_AUTH, "is not a JSON object of credentials by registry")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise fault from None  # without its cause, which repeats what stands there
    if not isinstance(document, dict):
        raise fault
    return {registry: _credentials(entry, fault) for registry, entry in document.items()}


def _credentials(entry: Any, fault: InvalidInputError) -> Credentials:
    if not isinstance(entry, dict) or not all(isinstance(text, str | None) for text in entry.values()):
        raise fault
    username, password, auth = (entry.get(name) or "" for name in ("username", "password", "auth"))
    if auth and not (username or password):
        return decode_additional(Secret(auth))
    pair = basic_credentials(username, password) if username or password else Credentials()
    return Credentials(
        username=username,
        password=Secret(password),
        auth=Secret(auth) if auth else pair.auth,
        identity_token=Secret(entry.get("identitytoken") or ""),
        registry_token=Secret(entry.get("registrytoken") or ""),
    )
