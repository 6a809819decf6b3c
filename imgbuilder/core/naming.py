"""What the images of a build source are called, and where its files are in the build workspace.

Names are hashes of the source, so that the same source always has the same name: the image exists or it has
to be built. Text and order of what is hashed are part of the contract; builder images and other
implementations derive the same names.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from typing import Final

import betterproto2

from imgbuilder.core.errors import InvalidInputError, UnsupportedInitializerError
from imgbuilder.pb.builder import BuildSourceDockerfile
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer

BUILD_PROCESS_VERSION: Final = 2
"""Part of every workspace image's name: a new version rebuilds everything."""

WORKSPACE: Final = "/workspace"
"""Where the build workspace keeps the content of the source."""

DOCKERFILE_OF_A_REFERENCE: Final = "Dockerfile"
CONTEXT_OF_A_REFERENCE: Final = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPaths:
    """Absolute paths in the build workspace."""

    dockerfile: str
    context: str


def workspace_image_ref(base_ref: str, *, repository: str) -> str:
    """The reference of the workspace image made from *base_ref*, whose text counts as it stands."""
    text = f"{base_ref}\n{BUILD_PROCESS_VERSION}\n"
    return f"{repository}:{_sha256(text)}"


def base_image_ref(source: BuildSourceDockerfile, *, repository: str) -> str:
    """The reference of the base image that the Dockerfile of *source* makes.

    :raises UnsupportedInitializerError: if the source is not a git repository.
    :raises InvalidInputError: if a field has a control character; a line feed would let two different
        sources share a name.
    """
    git = git_of(source)
    lines = (
        ("CloneTarget", "source.file.source.git.clone_taget", git.clone_taget),
        ("ContextPath", "source.file.context_path", source.context_path),
        ("DockerfilePath", "source.file.dockerfile_path", source.dockerfile_path),
        ("DockerfileVersion", "source.file.dockerfile_version", source.dockerfile_version),
        ("RemoteURI", "source.file.source.git.remote_uri", git.remote_uri),
        ("Source", "", "git"),
    )
    for _, field, value in lines:
        refuse_control_characters(field, value)
    text = "".join(f"{key}: {value}\n" for key, _, value in lines) + "\n"
    return f"{repository}:{_sha256(text)}"


def git_of(source: BuildSourceDockerfile) -> GitInitializer:
    """The git repository that *source* is cloned from.

    :raises UnsupportedInitializerError: if it is anything else, or nothing.
    """
    initializer = source.source or WorkspaceInitializer()
    if initializer.git is None:
        kind, _ = betterproto2.which_one_of(initializer, "spec")
        raise UnsupportedInitializerError(kind)
    return initializer.git


def paths_of_a_reference() -> BuildPaths:
    """The paths of a source that is an image reference: nothing is there, but the builder is told the same."""
    return _paths(DOCKERFILE_OF_A_REFERENCE, CONTEXT_OF_A_REFERENCE)


def paths_of(source: BuildSourceDockerfile) -> BuildPaths:
    """The paths of a Dockerfile source. Without a context path it is the folder of the Dockerfile.

    :raises InvalidInputError: if a path leaves the workspace.
    """
    return _paths(source.dockerfile_path, source.context_path)


def refuse_control_characters(field: str, value: str) -> None:
    """Let only text through that has no control character (Unicode category Cc).

    :raises InvalidInputError: naming *field* and the first such character.
    """
    for character in value:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise InvalidInputError(field, f"has the control character U+{ord(character):04X}")


def _paths(dockerfile_path: str, context_path: str) -> BuildPaths:
    dockerfile = _inside("source.file.dockerfile_path", dockerfile_path)
    # Only the beginning is cut, as text: "/workspacex" means "/workspace/x". Kept as the contract has it.
    context = (context_path or posixpath.dirname(dockerfile)).removeprefix(WORKSPACE)
    return BuildPaths(dockerfile=dockerfile, context=_inside("source.file.context_path", context))


def _inside(field: str, path: str) -> str:
    joined = posixpath.normpath(f"{WORKSPACE}/{path}")
    if joined != WORKSPACE and not joined.startswith(f"{WORKSPACE}/"):
        raise InvalidInputError(field, f"leaves {WORKSPACE}")
    return joined


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
