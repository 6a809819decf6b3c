"""The errors of the domain: one class per situation, with its data.

How each becomes a gRPC status is decided in one place, `imgbuilder.api.statuses`.
"""

from __future__ import annotations


class ImgbuilderError(Exception):
    """Base of all errors that this project raises on purpose."""


class InvalidInputError(ImgbuilderError):
    """A field of a request has a value that can't be used.

    :ivar field: the field as the contract spells it, e.g. ``source.file.context_path``.
    :ivar fault: what is wrong with its value, as words that can follow the field's name.
    """

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field}: {fault}")
        self.field = field
        self.fault = fault


class BuildSourceMissingError(ImgbuilderError):
    """A request names nothing to build from."""

    def __init__(self) -> None:
        super().__init__("build source is missing")


class UnsupportedInitializerError(ImgbuilderError):
    """A Dockerfile source is not a git repository, the only kind whose base image has a name."""

    def __init__(self, initializer: str) -> None:
        super().__init__("unsupported context initializer")
        self.initializer = initializer


class BuildNotFoundError(ImgbuilderError):
    """No build that is running, or ended a short while ago, fits what was asked for."""

    def __init__(self) -> None:
        super().__init__("build not found")
