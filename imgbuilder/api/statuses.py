"""How errors become gRPC statuses: the one place that knows, for all calls.

Codes and texts are part of the contract. Clients look for ``cannot resolve image`` to tell that their image
is at fault, so that text stands in these rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grpclib.const import Status

from imgbuilder.core.errors import (
    BuildNotFoundError,
    BuildSourceMissingError,
    ImgbuilderError,
    InvalidInputError,
    UnsupportedInitializerError,
)
from imgbuilder.core.manifests import NoManifestForPlatformError
from imgbuilder.core.references import InvalidReferenceError
from imgbuilder.orchestrator.errors import (
    BaseImageUnresolvedError,
    BuildNotStartedError,
    WorkspaceImageUncheckedError,
)
from imgbuilder.registry.errors import (
    CredentialsUnavailableError,
    ManifestUnknownError,
    RegistryDeniedError,
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)

BUILD: Final = "Build"


class ShuttingDownError(ImgbuilderError):
    """The service ends: clients find another replica."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down: try again")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets instead of a result."""

    status: Status
    message: str


INTERNAL_ERROR: Final = Answer(Status.INTERNAL, "internal error")
"""For errors that nobody thought of. What they are stands in the log."""

Row = Callable[[Any, str], Answer]
"""An error and the name of the RPC it ended, e.g. ``Build``, to what the client is told."""


def _plain(status: Status) -> Row:
    return lambda error, _: Answer(status, str(error))


def _user_image(status: Status) -> Row:
    return lambda *_: Answer(status, "cannot resolve image")


def _user_image_with_cause(error: BaseImageUnresolvedError, _: str) -> Answer:
    return Answer(Status.INTERNAL, f"cannot resolve image: {error.cause}")


def _passing_fault(error: BaseImageUnresolvedError | WorkspaceImageUncheckedError, _: str) -> Answer:
    return Answer(Status.UNAVAILABLE, str(error.cause))


def _unchecked(error: WorkspaceImageUncheckedError, method: str) -> Answer:
    what = "cannot check if image is already built" if method == BUILD else "cannot resolve workspace image"
    return Answer(Status.INTERNAL, f"{what}: {error.cause}")


def _not_started(error: BuildNotStartedError, _: str) -> Answer:
    return Answer(Status.UNAVAILABLE if error.unavailable else Status.INTERNAL, error.message)


def _unsupported(error: UnsupportedInitializerError, _: str) -> Answer:
    return Answer(Status.INTERNAL, f"cannot resolve base image: {error}")


ERRORS: Final[Mapping[type[ImgbuilderError], Row]] = {
    InvalidInputError: _plain(Status.INVALID_ARGUMENT),
    InvalidReferenceError: _plain(Status.INVALID_ARGUMENT),
    BuildSourceMissingError: _plain(Status.INVALID_ARGUMENT),
    UnsupportedInitializerError: _unsupported,
    BuildNotFoundError: _plain(Status.NOT_FOUND),
    BuildNotStartedError: _not_started,
    ShuttingDownError: _plain(Status.UNAVAILABLE),
}
"""Errors that speak for themselves."""

CAUSES: Final[Mapping[tuple[type[ImgbuilderError], type[ImgbuilderError]], Row]] = {
    (BaseImageUnresolvedError, ManifestUnknownError): _user_image(Status.NOT_FOUND),
    (BaseImageUnresolvedError, RegistryDeniedError): _user_image(Status.UNAUTHENTICATED),
    (BaseImageUnresolvedError, RegistryRateLimitedError): _passing_fault,
    (BaseImageUnresolvedError, RegistryUnreachableError): _passing_fault,
    (BaseImageUnresolvedError, CredentialsUnavailableError): _passing_fault,
    (BaseImageUnresolvedError, RegistryFaultError): _user_image_with_cause,
    (BaseImageUnresolvedError, NoManifestForPlatformError): _user_image_with_cause,
    (WorkspaceImageUncheckedError, ManifestUnknownError): _unchecked,
    (WorkspaceImageUncheckedError, RegistryDeniedError): _unchecked,
    (WorkspaceImageUncheckedError, RegistryRateLimitedError): _passing_fault,
    (WorkspaceImageUncheckedError, RegistryUnreachableError): _passing_fault,
    (WorkspaceImageUncheckedError, CredentialsUnavailableError): _passing_fault,
    (WorkspaceImageUncheckedError, RegistryFaultError): _unchecked,
}
"""Errors whose cause decides."""


def answer_to(error: BaseException, method: str) -> Answer | None:
    """What the client of an RPC is told that *error* ended; None if nobody thought of such an error.

    :param method: the name of the RPC without its service, e.g. ``Build``.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    row = ERRORS.get(type(error)) if isinstance(error, ImgbuilderError) else None
    if isinstance(error, BaseImageUnresolvedError | WorkspaceImageUncheckedError):
        row = CAUSES.get((type(error), type(error.cause)))
    return row(error, method) if row else None
