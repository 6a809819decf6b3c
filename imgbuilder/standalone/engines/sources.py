"""Dockerfiles as an engine can build them, or why it can't.

Without the line that makes BuildKit pull a frontend from a registry; and without here-documents, where the
engine would misread them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from imgbuilder.standalone.dockerfile import read_dockerfile, without_syntax
from imgbuilder.standalone.engines.protocol import BuildFailedError, BuildRequest, Output

COPY: Final = "dockerfile"
"""The folder of a build's scratch folder that a changed Dockerfile is put into."""


_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


def refuse_heredocs(dockerfile: Path, *, engine: str, version: str, since: tuple[int, int]) -> None:
    """Say what is wrong where an engine that is too old would say something that is hard to understand.

    :param since: the first version that knows here-documents.
    :raises BuildFailedError: if the Dockerfile has one, and *version* is known to be older.
    """
    found = _VERSION.search(version)
    if found is None or (int(found[1]), int(found[2])) >= since or not read_dockerfile(dockerfile).heredocs:
        return
    needed = ".".join(map(str, since))
    raise BuildFailedError(
        125,
        f"the Dockerfile has here-documents (<<), which {engine} knows from version {needed} on;"
        f" this is {version}",
    )


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
