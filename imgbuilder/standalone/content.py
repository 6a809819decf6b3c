"""Fills a build's workspace with what its initializer says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imgbuilder.pb.contentservice import WorkspaceInitializer
from imgbuilder.standalone.git.clone import clone
from imgbuilder.standalone.git.errors import ContentError
from imgbuilder.standalone.git.settings import DEFAULTS, ContentSettings
from imgbuilder.standalone.processes import Take

__all__ = ["ContentError", "ContentSettings", "prepare_content"]

UNSUPPORTED: Final = ("snapshot", "prebuild", "composite", "download", "backup")


async def prepare_content(
    initializer: WorkspaceInitializer | None,
    workspace: Path,
    output: Take,
    *,
    settings: ContentSettings = DEFAULTS,
) -> None:
    """Put the content into the existing, empty folder *workspace*: nothing, or a clone of a git repository.

    Cancelling ends what was started. What is in the folder after a failure is the caller's to delete.

    :param output: called with what git says, as it comes. It contains no credentials.
    :raises ContentError: with a text for the user.
    """
    if initializer is None:
        return
    for name in UNSUPPORTED:
        if getattr(initializer, name) is not None:
            raise ContentError(
                f"the {name} initializer is not supported by the standalone workspace manager",
            )
    if initializer.git is not None:
        await clone(initializer.git, workspace, output, settings)
