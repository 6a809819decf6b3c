"""Errors as gRPC statuses: the table of the contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from grpclib.const import Status

import imgbuilder
from imgbuilder.api.statuses import CAUSES, ERRORS, Answer, ShuttingDownError, answer_to
from imgbuilder.core.errors import (
    BuildNotFoundError,
    BuildSourceMissingError,
    ImgbuilderError,
    InvalidInputError,
    UnsupportedInitializerError,
)
from imgbuilder.core.manifests import NoManifestForPlatformError, parse_platform
from imgbuilder.orchestrator.errors import (
    BaseImageUnresolvedError,
    BuildNotStartedError,
    WorkspaceImageUncheckedError,
)
from imgbuilder.registry.errors import (
    ManifestUnknownError,
    RegistryDeniedError,
    RegistryError,
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)

NO_PLATFORM = NoManifestForPlatformError(parse_platform("linux/amd64"))
UNKNOWN = ManifestUnknownError("r.test")
DENIED = RegistryDeniedError("r.test")
LIMITED = RegistryRateLimitedError("r.test")
SILENT = RegistryUnreachableError("r.test")
FAULT = RegistryFaultError("r.test", "answered 502")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BaseImageUnresolvedError(UNKNOWN), Status.NOT_FOUND, "cannot resolve image"),
        (BaseImageUnresolvedError(DENIED), Status.UNAUTHENTICATED, "cannot resolve image"),
        (BaseImageUnresolvedError(LIMITED), Status.UNAVAILABLE, "registry r.test: too many requests"),
        (BaseImageUnresolvedError(SILENT), Status.UNAVAILABLE, "registry r.test: no answer in time"),
        (
            BaseImageUnresolvedError(FAULT),
            Status.INTERNAL,
            "cannot resolve image: registry r.test: answered 502",
        ),
        (
            BaseImageUnresolvedError(NO_PLATFORM),
            Status.INTERNAL,
            "cannot resolve image: no manifest for platform linux-amd64 found",
        ),
        (WorkspaceImageUncheckedError(LIMITED), Status.UNAVAILABLE, "registry r.test: too many requests"),
        (WorkspaceImageUncheckedError(SILENT), Status.UNAVAILABLE, "registry r.test: no answer in time"),
        (
            WorkspaceImageUncheckedError(DENIED),
            Status.INTERNAL,
            "cannot check if image is already built: registry r.test: access denied",
        ),
        (BuildSourceMissingError(), Status.INVALID_ARGUMENT, "build source is missing"),
        (InvalidInputError("f", "is bad"), Status.INVALID_ARGUMENT, "f: is bad"),
        (
            UnsupportedInitializerError("empty"),
            Status.INTERNAL,
            "cannot resolve base image: unsupported context initializer",
        ),
        (BuildNotFoundError(), Status.NOT_FOUND, "build not found"),
        (BuildNotStartedError("m", unavailable=True), Status.UNAVAILABLE, "m"),
        (BuildNotStartedError("m", unavailable=False), Status.INTERNAL, "m"),
        (
            ShuttingDownError(),
            Status.UNAVAILABLE,
            "the service is shutting down: try again",
        ),
    ],
)
def test_the_contracts_answers(error: ImgbuilderError, status: Status, message: str) -> None:
    """Codes and texts are matched by clients."""
    assert answer_to(error, "Build") == Answer(status, message)


def test_the_workspace_image_has_a_text_of_its_own_when_it_is_only_resolved() -> None:
    """It never says ``cannot resolve image``, which would blame the user's."""
    answer = answer_to(WorkspaceImageUncheckedError(FAULT), "ResolveWorkspaceImage")
    assert answer == Answer(
        Status.INTERNAL,
        "cannot resolve workspace image: registry r.test: answered 502",
    )


def test_errors_in_groups_are_found() -> None:
    """A task group wraps what its children raise."""
    group = BaseExceptionGroup("g", [ExceptionGroup("h", [BuildNotFoundError()])])
    assert answer_to(group, "Logs") == Answer(Status.NOT_FOUND, "build not found")


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), TimeoutError(), ExceptionGroup("g", [ValueError(), OSError()])]
)
def test_unthought_of_errors_have_no_answer(error: Exception) -> None:
    """They are bugs: the interceptor says INTERNAL and logs them."""
    assert answer_to(error, "Build") is None


def test_every_error_that_can_end_a_call_has_a_row() -> None:
    """A new error class fails here until it is placed."""
    for module in pkgutil.walk_packages(imgbuilder.__path__, "imgbuilder."):
        if module.name.startswith(("imgbuilder.core.", "imgbuilder.registry.", "imgbuilder.orchestrator.")):
            importlib.import_module(module.name)
    below_calls = _subclasses(RegistryError) | {NoManifestForPlatformError}
    for cause in below_calls - {RegistryError}:
        assert (BaseImageUnresolvedError, cause) in CAUSES, cause
        if cause is not NoManifestForPlatformError:
            assert (WorkspaceImageUncheckedError, cause) in CAUSES, cause
    for error in _public_errors("imgbuilder.core.errors") | _public_errors("imgbuilder.orchestrator.errors"):
        if error not in (ImgbuilderError, BaseImageUnresolvedError, WorkspaceImageUncheckedError):
            assert error in ERRORS, error


def _subclasses(error: type[ImgbuilderError]) -> set[type[ImgbuilderError]]:
    found = {error}
    for subclass in error.__subclasses__():
        found |= _subclasses(subclass)
    return found


def _public_errors(module: str) -> set[type[ImgbuilderError]]:
    members = inspect.getmembers(importlib.import_module(module), inspect.isclass)
    return {member for _, member in members if issubclass(member, ImgbuilderError)}
