"""Dockerfiles as BuildKit should get them: without the line that makes it pull a frontend from a registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from imgbuilder.standalone.dockerfile import read_dockerfile, without_syntax
from imgbuilder.standalone.engines.protocol import BuildRequest, Output

COPY: Final = "dockerfile"
"""The folder of a build's scratch folder that a changed Dockerfile is put into."""


def plain_dockerfile(request: BuildRequest, output: Output) -> Path:
    """The Dockerfile to build: a copy without the line if it has one, and *output* is told so.

    The ignore file that is only that Dockerfile's is beside the copy as it was beside the original.
    """
    dockerfile = request.dockerfile
    syntax = read_dockerfile(dockerfile).syntax
    if syntax is None:
        return dockerfile
    output(f"The engine's own Dockerfile frontend is used, not {syntax}\n".encode())
    folder = request.scratch / COPY
    folder.mkdir()
    copy = folder / dockerfile.name
    copy.write_text(without_syntax(dockerfile.read_text(errors="surrogateescape")), errors="surrogateescape")
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    if ignored.is_file() and not ignored.is_symlink():
        shutil.copyfile(ignored, folder / ignored.name)
    return copy
