"""What a request wants built: an image reference, or a Dockerfile with its context."""

from __future__ import annotations

from dataclasses import dataclass

from imgbuilder.core.errors import BuildSourceMissingError, InvalidInputError
from imgbuilder.pb.builder import BuildSource, BuildSourceDockerfile


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """The workspace image is made from the image that *ref* names."""

    ref: str


@dataclass(frozen=True, slots=True)
class DockerfileSource:
    """The workspace image is made from what a Dockerfile makes."""

    file: BuildSourceDockerfile


Source = ReferenceSource | DockerfileSource


def source_of(source: BuildSource | None) -> Source:
    """The source of a request.

    :raises BuildSourceMissingError: if there is none.
    :raises InvalidInputError: if it is of no kind.
    """
    if source is None:
        raise BuildSourceMissingError
    if source.ref is not None:
        return ReferenceSource(source.ref.ref)
    if source.file is not None:
        return DockerfileSource(source.file)
    raise InvalidInputError("source.from", "is missing: it must be ref or file")
