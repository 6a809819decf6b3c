"""What can't be done for a caller, and why: the cause is the error of the client that was asked."""

from __future__ import annotations

from imgbuilder.core.errors import ImgbuilderError


class BaseImageUnresolvedError(ImgbuilderError):
    """The user's image can't be resolved; the ``__cause__`` tells why."""

    def __init__(self, cause: ImgbuilderError) -> None:
        super().__init__(f"cannot resolve image: {cause}")
        self.cause = cause


class WorkspaceImageUncheckedError(ImgbuilderError):
    """Whether the workspace image exists can't be told; the ``__cause__`` tells why."""

    def __init__(self, cause: ImgbuilderError) -> None:
        super().__init__(f"cannot check if image is already built: {cause}")
        self.cause = cause


class BuildNotStartedError(ImgbuilderError):
    """The workspace manager gave no workspace for a build.

    :ivar unavailable: whether asking again, here or elsewhere, may well work.
    """

    def __init__(self, message: str, *, unavailable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.unavailable = unavailable
